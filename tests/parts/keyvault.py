"""A stand-in for Azure Key Vault and Entra ID's token endpoint, as there is no real one to install:
it knows one secret and one client, and answers as Microsoft's pages say.

    keyvault.py FILE        on a free port of 127.0.0.1; prints {"port": N}

FILE is a JSON file, read anew for every request: {"secrets": {NAME: VALUE}, "assertion": JWT,
"generation": N}. A token is good for the generation that it was made in.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def state():
    with open(sys.argv[1]) as file:
        return json.load(file)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_POST(self):
        given = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        wanted = {
            "grant_type": ["client_credentials"],
            "scope": ["https://vault.azure.net/.default"],
            "client_id": ["mcpx"],
            "client_assertion_type": [JWT_BEARER],
            "client_assertion": [state()["assertion"]],
        }
        if self.path != "/tenant/oauth2/v2.0/token" or given != wanted:
            return self.answer(401, {"error": "invalid_client", "error_description": str(given)})
        token = f"generation-{state()['generation']}"
        return self.answer(
            200, {"token_type": "Bearer", "expires_in": 3599, "access_token": token}
        )

    def do_GET(self):
        url = urlsplit(self.path)
        if self.headers.get("Authorization") != f"Bearer generation-{state()['generation']}":
            return self.answer(401, {"error": {"code": "Unauthorized"}})
        if parse_qs(url.query) != {"api-version": ["7.4"]}:
            return self.answer(400, {"error": {"code": "BadParameter"}})
        name = url.path.removeprefix("/secrets/")
        value = state()["secrets"].get(name)
        if value is None:
            return self.answer(404, {"error": {"code": "SecretNotFound"}})
        return self.answer(200, {"value": value, "id": f"https://vault/secrets/{name}/1"})

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(json.dumps({"port": server.server_port}), flush=True)
server.serve_forever()
