"""The Python SDK as a client that walks through a server: lists its tools, then does one thing after
the other, and answers what the server asks.

    walk.py auto|legacy STEPS_JSON URL
    walk.py auto|legacy STEPS_JSON -- COMMAND ARGS...

Each step is {"tool", "arguments"}. One with "cancel": FILE is cancelled as soon as FILE has a line,
which the tool writes when it has begun. Prints {"protocol", "tools", "steps"}; of each step its
{"result", "progress", "asked"}, {"error"} or {"cancelled": true}.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import mcp_types as types
from mcp import Client, MCPError, StdioServerParameters

asked = []


async def sample(_context, params):
    asked.append("sampling")
    said = types.TextContent(type="text", text=f"{len(params.messages)} message sampled")
    return types.CreateMessageResult(role="assistant", content=said, model="story")


async def elicit(_context, _params):
    asked.append("elicitation")
    return types.ElicitResult(action="accept", content={"username": "grace", "email": "g"})


async def begun(file):
    while not Path(file).exists():
        await asyncio.sleep(0.02)


async def take(client, step):
    progress = []
    asked.clear()

    async def report(done, total, _message):
        progress.append([done, total])

    call = asyncio.create_task(
        client.call_tool(step["tool"], step.get("arguments", {}), progress_callback=report)
    )
    if "cancel" in step:
        waiting = asyncio.create_task(begun(step["cancel"]))
        await asyncio.wait([call, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        call.cancel()
    try:
        result = await call
    except asyncio.CancelledError:
        return {"cancelled": True}
    except MCPError as error:
        return {"error": error.error.model_dump(mode="json")}
    result = result.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"result": result, "progress": progress, "asked": list(asked)}


async def main(mode, steps, where, command):
    if where == "--":
        target = StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
    else:
        target = where
    callbacks = {"sampling_callback": sample, "elicitation_callback": elicit}
    async with Client(target, mode=mode, **callbacks) as client:
        tools, cursor = [], None
        while True:
            page = await client.list_tools(cursor=cursor)
            tools += [one.name for one in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                break
        taken = [await take(client, step) for step in steps]
        print(json.dumps({
            "protocol": str(client.protocol_version),
            "tools": tools,
            "steps": taken,
        }))


if __name__ == "__main__":
    mode, steps, where, *command = sys.argv[1:]
    asyncio.run(main(mode, json.loads(steps), where, command))
