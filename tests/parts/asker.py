"""An MCP server on stdio (2025-11-25) that asks back: its one tool asks the client for its roots and
tells what it was answered."""

import json
import sys


def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


waiting = None
for line in sys.stdin:
    message = json.loads(line)
    method, number = message.get("method"), message.get("id")
    if method is None and number == "roots" and waiting is not None:
        if "error" in message:
            text = f"refused: {message['error']['code']}"
        else:
            text = f"answered: {json.dumps(message['result'])}"
        say({"id": waiting, "result": {"content": [{"type": "text", "text": text}]}})
        waiting = None
    elif number is None:
        continue
    elif method == "initialize":
        say({"id": number, "result": {
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "asker", "version": "1"},
        }})
    elif method == "tools/list":
        tool = {"name": "ask", "description": "Asks back", "inputSchema": {"type": "object"}}
        say({"id": number, "result": {"tools": [tool]}})
    elif method == "tools/call":
        waiting = number
        say({"id": "roots", "method": "roots/list"})
    else:
        say({"id": number, "error": {"code": -32601, "message": f"{method} is not offered"}})
