"""The Python SDK driven through a plan: `driver.py legacy|auto|2026-07-28 PLAN`.

PLAN is a file: [{"server", "url" | "command", "env", "steps": [...]}]. Every server is asked for
its lists and then taken through its steps; each line printed says what was seen of one of them,
{"server", "step", "seen"}, or {"server", "step", "error"}.

| step | seen |
|---|---|
| connect | the protocol version |
| capabilities | what the server says it has |
| list | all lists that the server has |
| call, read, prompt | the result |
| progress | the steps that were reported, and the result |
| cancel | what a call gives after one that was cancelled on its way |
| resume | the steps and the result of a call whose connection was cut on the way |
"""

import asyncio
import json
import os
import sys

import anyio
import mcp.client.session
from mcp import Client, MCPError, StdioServerParameters

# A busy machine may take longer to start a server than the SDK waits before it takes silence for
# an old server.
mcp.client.session.DISCOVER_TIMEOUT_SECONDS = 60.0


def dump(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


async def pages(fetch, items):
    found, cursor = [], None
    while True:
        page = await fetch(cursor=cursor)
        found += [dump(item) for item in getattr(page, items)]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def lists(client):
    has = dump(client.server_capabilities)
    # A client that is pinned to a version asks nobody what there is.
    blind = not has
    seen = {"tools": await pages(client.list_tools, "tools")}
    for what, kind, fetch, items in [
        ("resources", "resources", client.list_resources, "resources"),
        ("resources", "templates", client.list_resource_templates, "resource_templates"),
        ("prompts", "prompts", client.list_prompts, "prompts"),
    ]:
        if blind or what in has:
            try:
                seen[kind] = await pages(fetch, items)
            except MCPError as error:
                seen[kind] = dump(error.error)
    return seen


async def call_with_progress(client, step):
    steps = []

    async def report(progress, total, _message):
        steps.append([progress, total])

    result = await client.call_tool(step["name"], step["arguments"], progress_callback=report)
    return {"steps": steps, "result": dump(result)}


async def cancelled(client, step):
    """Starts a call, cancels it when it is known to have reached the server, and makes another."""
    begun = anyio.Event()

    async def report(*_progress):
        begun.set()

    ended = []
    async with anyio.create_task_group() as tasks:

        async def run():
            try:
                ended.append(dump(await client.call_tool(
                    step["name"], step["arguments"], progress_callback=report)))
            except MCPError as error:
                ended.append(dump(error.error))

        tasks.start_soon(run)
        if "go" in step:
            while not os.path.exists(step["go"]):
                await anyio.sleep(0.01)
        else:
            await begun.wait()
        tasks.cancel_scope.cancel()
    after = await client.call_tool(**step["then"])
    return {"ended": ended, "after": dump(after)}


async def take(client, step):
    match step["step"]:
        case "list":
            return await lists(client)
        case "call":
            return dump(await client.call_tool(step["name"], step["arguments"]))
        case "read":
            return dump(await client.read_resource(step["uri"]))
        case "prompt":
            return dump(await client.get_prompt(step["name"], step["arguments"]))
        case "progress" | "resume":
            return await call_with_progress(client, step)
        case "cancel":
            return await cancelled(client, step)


def first(error):
    """What an exception group is about."""
    while getattr(error, "exceptions", None):
        error = error.exceptions[0]
    return dump(error.error) if isinstance(error, MCPError) else {"message": repr(error)}


async def run(mode, plan):
    def say(step, **seen):
        print(json.dumps({"server": plan["server"], "step": step, **seen}), flush=True)

    if "url" in plan:
        target = plan["url"]
    else:
        argv = plan["command"]
        target = StdioServerParameters(command=argv[0], args=argv[1:], env=plan["env"])
    step = {"step": "connect"}
    try:
        with anyio.fail_after(60):
            async with Client(target, mode=mode, cache=None) as client:
                say("connect", seen=str(client.protocol_version))
                say("capabilities", seen=dump(client.server_capabilities))
                for step in [{"step": "list"}, *plan["steps"]]:
                    say(step["step"], seen=await take(client, step))
    except BaseException as error:
        say(step["step"], error=first(error))


async def main():
    with open(sys.argv[2]) as plans:
        for plan in json.load(plans):
            await run(sys.argv[1], plan)


asyncio.run(main())
