"""The Python SDK's OAuth client at an MCP server that it has never seen, driven through a plan.

    oauth_client.py auto|legacy PLAN URL

PLAN is a file: {"cimd": URL or null, "resource": URL or null, "steps": [...]}. For every login it
prints {"authorize": URL} and waits for the browser to come to its loopback redirect; for every step
{"step", "seen"} or {"step", "error"}. Steps: {"step": "call", "name", "arguments"}, {"step": "wait",
"file"}, {"step": "tokens"} (how many it was given, and the newest).
"""

import asyncio
import json
import os
import sys
import traceback
from urllib.parse import parse_qs, urlparse

import httpx2
import mcp.client.session
from mcp import Client, MCPError
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

mcp.client.session.DISCOVER_TIMEOUT_SECONDS = 60.0


def say(**line):
    print(json.dumps(line), flush=True)


class Storage:
    def __init__(self):
        self.given, self.client = [], None

    async def get_tokens(self):
        return self.given[-1] if self.given else None

    async def set_tokens(self, tokens):
        self.given.append(tokens)

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


class Redirect:
    """The client's loopback redirect: takes one browser's request after the other."""

    def __init__(self):
        self.codes = asyncio.Queue()

    async def listen(self):
        self.server = await asyncio.start_server(self.take, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def take(self, reader, writer):
        line = (await reader.readline()).decode()
        while (await reader.readline()).strip():
            pass
        query = parse_qs(urlparse(line.split(" ")[1]).query)
        await self.codes.put({name: values[0] for name, values in query.items()})
        page = b"back to the client"
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n"
                     b"content-length: %d\r\n\r\n%s" % (len(page), page))
        await writer.drain()
        writer.close()

    async def code(self):
        given = await self.codes.get()
        return AuthorizationCodeResult(
            code=given["code"], state=given.get("state"), iss=given.get("iss"))


async def take(client, storage, step):
    match step["step"]:
        case "call":
            result = await client.call_tool(step["name"], step["arguments"])
            return result.model_dump(mode="json", by_alias=True, exclude_none=True)
        case "wait":
            while not os.path.exists(step["file"]):
                await asyncio.sleep(0.02)
            return None
        case "tokens":
            newest = storage.given[-1].access_token if storage.given else None
            return {"given": len(storage.given), "newest": newest,
                    "client": storage.client and storage.client.client_id}


def first(error):
    while getattr(error, "exceptions", None):
        error = error.exceptions[0]
    if isinstance(error, MCPError):
        return error.error.model_dump(mode="json")
    return {"message": repr(error)}


async def main(mode, plan, url):
    redirect, storage = Redirect(), Storage()
    port = await redirect.listen()

    async def authorize(address):
        say(authorize=address)

    auth = OAuthClientProvider(
        url,
        OAuthClientMetadata(
            client_name="story", redirect_uris=[f"http://127.0.0.1:{port}/callback"],
            grant_types=["authorization_code", "refresh_token"],
            token_endpoint_auth_method="none",
        ),
        storage, authorize, redirect.code, client_metadata_url=plan.get("cimd"),
    )
    timeout = httpx2.Timeout(60.0, read=300.0)
    async with httpx2.AsyncClient(auth=auth, timeout=timeout) as http:
        async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            say(step="connect", seen={"protocol": str(client.protocol_version), "tools": tools})
            for step in plan["steps"]:
                try:
                    say(step=step["step"], seen=await take(client, storage, step))
                except Exception as error:
                    traceback.print_exc()
                    say(step=step["step"], error=first(error))


if __name__ == "__main__":
    mode, file, url = sys.argv[1:]
    try:
        asyncio.run(main(mode, json.load(open(file)), url))
    except BaseException as error:
        traceback.print_exc()
        say(step="connect", error=first(error))
        sys.exit(1)
