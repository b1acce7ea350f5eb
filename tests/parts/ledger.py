"""An MCP server (Python SDK) that writes down every call it executes, so that a test can say
exactly what reached an upstream and what did not.

    ledger.py FILE                  over stdio
    ledger.py FILE --http           on a free port of 127.0.0.1; prints {"port": N}

Each executed call appends one JSON line {"tool", ...arguments} to FILE, synced, before anything
else happens.
"""

import asyncio
import json
import os
import socket
import sys
from typing import Any

import uvicorn
from customers import CUSTOMERS
from mcp.server import MCPServer
from pydantic import BaseModel

server = MCPServer("ledger")
LEDGER = sys.argv[1]


def enter(tool: str, **arguments: Any) -> None:
    with open(LEDGER, "a") as ledger:
        ledger.write(json.dumps({"tool": tool, **arguments}) + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())


@server.tool()
def note(text: str) -> str:
    """Notes a text and says it back."""
    enter("note", text=text)
    return f"noted: {text}"


@server.tool()
async def slow(text: str, seconds: float) -> str:
    """Notes a text at once and answers after some seconds."""
    enter("slow", text=text)
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        enter("cancelled", text=text)
        raise
    return f"slept: {text}"


@server.tool()
def transfer(amount: int, to: str) -> dict[str, Any]:
    """Moves money: what one wants a second person to look at."""
    enter("transfer", amount=amount, to=to)
    return {"moved": amount, "to": to}


class Customer(BaseModel):
    id: int
    name: str
    email: str
    ssn: str
    card: str
    plan: str


@server.tool()
def customer(id: int) -> Customer:
    """One customer, as text and as structured content that an output schema describes."""
    enter("customer", id=id)
    return Customer(**dict(zip(Customer.model_fields, CUSTOMERS[id - 1])))


@server.tool()
def fails(text: str) -> str:
    """Notes a text and then fails."""
    enter("fails", text=text)
    raise ValueError(f"this tool always fails: {text}")


async def main() -> None:
    if sys.argv[2:] != ["--http"]:
        await server.run_stdio_async()
        return
    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    app = server.streamable_http_app()
    await uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[listener])


asyncio.run(main())
