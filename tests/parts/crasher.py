"""An MCP server on stdio (2025-11-25 and 2026-07-28) that fails in the ways that servers fail.

    crasher.py [FILE]

Its tools: `die` ends the process, `grumble` writes to stderr what nobody may see, `read` tells what
is in a file, `dial` opens a TCP connection, `touch` writes a file, `kill` signals a process, `who`
tells its process id, `leak` logs what it is given. With a FILE it refuses to live while that file is
there.
"""

import json
import os
import socket
import sys
from pathlib import Path

if len(sys.argv) > 1 and Path(sys.argv[1]).exists():
    sys.exit("crasher: told to die at once, says 078-05-1120")


def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def read(arguments):
    return Path(arguments["path"]).read_text(errors="replace")


def touch(arguments):
    Path(arguments["path"]).write_text("x")
    return "written"


def dial(arguments):
    with socket.create_connection(("127.0.0.1", arguments["port"]), timeout=5):
        return "connected"


def kill(arguments):
    os.kill(arguments["process"], 0)
    return "could signal it"


def grumble(arguments):
    for number in range(arguments.get("lines", 1)):
        print(f"line {number}: customer 078-05-1120 is unhappy", file=sys.stderr, flush=True)
    return "grumbled"


TOOLS = {
    "die": lambda arguments: os._exit(7),
    "grumble": grumble,
    "read": read,
    "touch": touch,
    "dial": dial,
    "kill": kill,
    "who": lambda arguments: str(os.getpid()),
    "leak": lambda arguments: "leaked",
}

for line in sys.stdin:
    message = json.loads(line)
    method, number = message.get("method"), message.get("id")
    if method is None or number is None:
        continue
    params = message.get("params", {})
    if method in ("initialize", "server/discover"):
        result = {
            "protocolVersion": params.get("protocolVersion"),
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}, "logging": {}},
            "serverInfo": {"name": "crasher", "version": "1"},
            "resultType": "complete",
        }
    elif method == "tools/list":
        result = {"resultType": "complete", "tools": [
            {"name": name, "description": name, "inputSchema": {"type": "object"}}
            for name in TOOLS
        ]}
    elif method == "tools/call":
        if params["name"] == "leak":
            # A log message that names nobody, of somebody's data.
            data = params["arguments"].get("data", "")
            say({"method": "notifications/message", "params": {"level": "info", "data": data}})
        token = params.get("_meta", {}).get("progressToken")
        if token is not None:
            say({"method": "notifications/progress",
                 "params": {"progressToken": token, "progress": 1}})
        try:
            text, failed = TOOLS[params["name"]](params.get("arguments", {})), False
        except Exception as error:
            text, failed = f"{type(error).__name__}: {error}", True
        content = [{"type": "text", "text": text}]
        result = {"resultType": "complete", "content": content, "isError": failed}
    elif method == "ping":
        result = {}
    else:
        say({"id": number, "error": {"code": -32601, "message": f"{method} is not offered"}})
        continue
    say({"id": number, "result": result})
