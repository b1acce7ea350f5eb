"""The Python SDK as a client: lists tools, calls one, prints {"protocol", "tools", "result"}.

    client.py auto|legacy TOOL ARGUMENTS_JSON URL
    client.py auto|legacy TOOL ARGUMENTS_JSON -- COMMAND ARGS...

`auto` speaks the newest protocol that the server does, `legacy` begins with `initialize`. An error
of the protocol is printed as {"error": {code, message, data}} with exit 1.

With CLIENT_ANSWERS=accept or decline in the environment it answers what the server asks its user:
pages (URL mode) as that says, forms always with yes to everything. What was asked is printed as
"asked".
"""

import asyncio
import json
import os
import sys
import traceback

import mcp_types as types
from mcp import Client, MCPError, StdioServerParameters


ANSWERS = os.environ.get("CLIENT_ANSWERS")
asked = []


async def answer(_ctx, params):
    asked.append(params.model_dump(mode="json", by_alias=True, exclude_none=True))
    if asked[-1].get("mode") == "url":
        return types.ElicitResult(action=ANSWERS)
    wanted = asked[-1]["requestedSchema"]["properties"]
    return types.ElicitResult(action="accept", content={name: True for name in wanted})


async def main(mode, tool, arguments, where, command):
    if where == "--":
        target = StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
    else:
        target = where
    async with Client(
        target, mode=mode, elicitation_callback=answer if ANSWERS else None
    ) as client:
        tools, cursor = [], None
        while True:
            page = await client.list_tools(cursor=cursor)
            tools += [one.name for one in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                break
        result = await client.call_tool(tool, json.loads(arguments))
        print(json.dumps({
            "protocol": str(client.protocol_version),
            "tools": tools,
            "asked": asked,
            "result": result.model_dump(mode="json", by_alias=True, exclude_none=True),
        }))


def protocol_error(error):
    """The MCP error inside an exception group, if there is one."""
    if isinstance(error, MCPError):
        return error.error
    for inner in getattr(error, "exceptions", ()):
        found = protocol_error(inner)
        if found:
            return found
    return None


if __name__ == "__main__":
    mode, tool, arguments, where, *command = sys.argv[1:]
    try:
        asyncio.run(main(mode, tool, arguments, where, command))
    except BaseException as error:
        found = protocol_error(error)
        shown = found.model_dump(mode="json") if found else {"message": repr(error)}
        print(json.dumps({"error": shown}))
        traceback.print_exc()
        sys.exit(1)
