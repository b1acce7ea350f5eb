"""An MCP server on stdio, legacy (2025-11-25) and modern (2026-07-28), whose tools say things on the
way and take their time.

    streamer.py FOLDER

`steps` says the steps 0 to COUNT-1, and answers; before step WAIT it waits for a file GO in FOLDER.
`hush` never answers. `unasked` answers, and then says something that belongs to no call. `end` ends
all subscriptions as a server on stdio may.
"""

import json
import os
import sys
import threading
import time

FOLDER = sys.argv[1]
lock = threading.Lock()
subscriptions = []


def say(message):
    with lock:
        print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def answer(number, text):
    say({"id": number, "result": {"resultType": "complete", "content": [{"type": "text", "text": text}]}})


def note(step):
    say({"method": "notifications/message", "params": {"level": "info", "data": f"step {step}"}})


def steps(number, arguments):
    for step in range(arguments["count"]):
        while step == arguments["wait"] and not os.path.exists(os.path.join(FOLDER, "GO")):
            time.sleep(0.02)
        note(step)
    answer(number, "all steps are done")


for line in sys.stdin:
    message = json.loads(line)
    method, number, params = message.get("method"), message.get("id"), message.get("params", {})
    if number is None or method is None:
        continue
    if method == "initialize":
        say({"id": number, "result": {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}, "logging": {}},
            "serverInfo": {"name": "streamer", "version": "1"},
        }})
    elif method == "tools/list":
        names = ("steps", "hush", "unasked", "end", "quick")
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in names]
        say({"id": number, "result": {"tools": tools}})
    elif method == "subscriptions/listen":
        subscriptions.append(number)
        meta = {"io.modelcontextprotocol/subscriptionId": number}
        say({"method": "notifications/subscriptions/acknowledged",
             "params": {"_meta": meta, "notifications": {}}})
    elif method != "tools/call":
        say({"id": number, "error": {"code": -32601, "message": f"{method} is not offered"}})
    elif params["name"] == "steps":
        threading.Thread(target=steps, args=(number, params["arguments"]), daemon=True).start()
    elif params["name"] == "unasked":
        answer(number, "said")
        note(params["arguments"]["step"])
    elif params["name"] == "end":
        answer(number, "ended")
        for subscription in subscriptions:
            say({"method": "notifications/cancelled", "params": {"requestId": subscription}})
    elif params["name"] == "quick":
        answer(number, "quick")
