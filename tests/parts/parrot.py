"""An MCP server on stdio that says what it is told to: `parrot.py TABLE`, where TABLE is a JSON file
of lines (in hexadecimal) by the name of the tool that brings them."""

import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    table = {name: bytes.fromhex(line) for name, line in json.load(file).items()}

for line in sys.stdin.buffer:
    message = json.loads(line)
    params = message.get("params", {})
    if "id" not in message:
        continue
    said = table.get(params.get("name"))
    if said is None:
        result = {}
        if message["method"] == "initialize":
            result = {"protocolVersion": params["protocolVersion"], "capabilities": {},
                      "serverInfo": {"name": "parrot", "version": "1"}}
        said = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
    sys.stdout.buffer.write(said + b"\n")
    sys.stdout.buffer.flush()
