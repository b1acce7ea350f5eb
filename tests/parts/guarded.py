"""An MCP server (Python SDK) that lets nobody in without a credential, and writes down which one it
was shown.

    guarded.py RULES SEEN        on a free port of 127.0.0.1; prints {"port": N}

RULES is a JSON file, read anew for every request:
    {"header": "x-key", "accept": {"VALUE": "LABEL", ...}}      one of these values
    {"jwks": URL, "issuer": URL, "audience": URL}               a JWT access token (RFC 9068)
Everything else is answered 401. For every request SEEN gets one JSON line: {"label", "tool"} of one
that was let in (the label of the value, or `sub` of the token), {"refused": why} of another.
"""

import asyncio
import json
import socket
import sys
import urllib.request
from typing import Any

import jwt
import uvicorn
from mcp.server import MCPServer

RULES, SEEN = sys.argv[1:3]
server = MCPServer("guarded")


@server.tool()
def note(text: str) -> str:
    """Says a text back."""
    return f"noted: {text}"


def judge(headers: dict[str, str]) -> str:
    """Whose credential this is; raises where it is nobody's."""
    with open(RULES) as file:
        rules = json.load(file)
    if "accept" in rules:
        shown = headers.get(rules["header"])
        if shown not in rules["accept"]:
            raise PermissionError("unknown" if shown else "none")
        return rules["accept"][shown]
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme != "Bearer":
        raise PermissionError("none")
    with urllib.request.urlopen(rules["jwks"]) as answer:
        keys = jwt.PyJWKSet.from_dict(json.load(answer))
    kid = jwt.get_unverified_header(token)["kid"]
    key = next((key for key in keys.keys if key.key_id == kid), None)
    if key is None:
        raise PermissionError("unknown key")
    claims = jwt.decode(
        token, key, algorithms=["ES256"], audience=rules["audience"], issuer=rules["issuer"]
    )
    return claims["sub"]


def guarded(app: Any) -> Any:
    async def guard(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        try:
            label = await asyncio.to_thread(judge, headers)
            seen: dict[str, Any] = {"label": label, "tool": headers.get("mcp-name")}
        except (PermissionError, jwt.PyJWTError) as error:
            label, seen = None, {"refused": str(error)}
        with open(SEEN, "a") as file:
            file.write(json.dumps(seen) + "\n")
        if label is not None:
            return await app(scope, receive, send)
        # As a careless server would, it repeats what it was shown.
        said = json.dumps(headers).encode()
        await send({"type": "http.response.start", "status": 401,
                    "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": said})

    return guard


async def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    app = guarded(server.streamable_http_app())
    config = uvicorn.Config(app, log_level="warning", lifespan="on")
    await uvicorn.Server(config).serve(sockets=[listener])


asyncio.run(main())
