"""An MCP server (Python SDK) that offers what the MCP conformance suite asks a server for, under
the names that its scenarios use.

    fixture.py                      over stdio
    fixture.py --http               on a free port of 127.0.0.1; prints {"port": N}
    fixture.py --sse                the same over HTTP+SSE, with its streams at /sse

What a scenario demands stands in its description: `conformance list`, and `dist/index.js` of the
npm package @modelcontextprotocol/conformance.
"""

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server import CacheHint, Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.sse import SseServerTransport
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJg"
    "gg=="
)
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="
bus = InMemorySubscriptionBus()


def done(**result: Any) -> dict[str, Any]:
    """A whole result. On a legacy wire the SDK leaves its type out again."""
    return {"resultType": "complete", **result}


def text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def image() -> dict[str, Any]:
    return {"type": "image", "data": PNG, "mimeType": "image/png"}


def resource(uri: str, mime: str, content: str) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime, "text": content}}


def content(*blocks: dict[str, Any]) -> dict[str, Any]:
    return done(content=list(blocks))


def schema(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required or list(properties)}


# What input_required results ask for.


def ask(message: str, **properties: Any) -> dict[str, Any]:
    params = {"mode": "form", "message": message, "requestedSchema": schema(**properties)}
    return {"method": "elicitation/create", "params": params}


def sample(prompt: str) -> dict[str, Any]:
    message = {"role": "user", "content": text(prompt)}
    params = {"messages": [message], "maxTokens": 100}
    return {"method": "sampling/createMessage", "params": params}


ROOTS = {"method": "roots/list", "params": {}}
NAME = ask("What is your name?", name={"type": "string"})


def need(state: str | None = None, **requests: Any) -> dict[str, Any]:
    result = {"resultType": "input_required", "inputRequests": requests}
    return result if state is None else {**result, "requestState": state}


def given(params: Any) -> dict[str, Any]:
    """The input responses of a retry, as JSON."""
    responses = params.input_responses or {}
    return {
        key: value if isinstance(value, dict) else value.model_dump(by_alias=True, mode="json")
        for key, value in responses.items()
    }


def once(key: str, request: dict[str, Any], state: str | None = None):
    """A tool that asks for one input, and says what it got."""

    async def tool(_ctx, params) -> dict[str, Any]:
        answer = given(params).get(key)
        if answer is None or (state is not None and params.request_state != state):
            return need(state, **{key: request})
        said = answer.get("content")
        if isinstance(said, dict) and "name" in said:
            return content(text(f"Hello, {said['name']}!"))
        return content(text(f"{state or 'got'}: {json.dumps(answer, sort_keys=True)}"))

    return tool


async def multiple_inputs(_ctx, params) -> dict[str, Any]:
    wanted = {"user_name": NAME, "greeting": sample("Generate a greeting"), "client_roots": ROOTS}
    if wanted.keys() <= given(params).keys():
        return content(text("every input arrived"))
    return need("three", **wanted)


async def multi_round(_ctx, params) -> dict[str, Any]:
    match params.request_state:
        case "after-1" if "step1" in given(params):
            color = ask("Step 2: What is your favorite color?", color={"type": "string"})
            return need("after-2", step2=color)
        case "after-2" if "step2" in given(params):
            return content(text("two rounds are over"))
    return need("after-1", step1=ask("Step 1: What is your name?", name={"type": "string"}))


async def by_capability(ctx, _params) -> dict[str, Any]:
    can = ctx.session.client_capabilities or types.ClientCapabilities()
    wanted = {}
    if can.sampling is not None:
        wanted["joke"] = sample("Tell a joke")
    if can.elicitation is not None:
        wanted["user_name"] = NAME
    return need(None, **wanted) if wanted else content(text("there is nobody to ask"))


# What happens during a call.


async def log(ctx, data: str) -> None:
    await ctx.session.send_log_message("info", data, related_request_id=ctx.request_id)


async def logging(ctx, _params) -> dict[str, Any]:
    for said in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await log(ctx, said)
        await asyncio.sleep(0.05)
    return content(text("three log messages were sent"))


async def progress(ctx, _params) -> dict[str, Any]:
    for done in (0, 50, 100):
        await ctx.session.report_progress(done, 100, f"step {done} of 100")
        await asyncio.sleep(0.05)
    return content(text("three steps were reported"))


async def slow_in_file(_ctx, params) -> dict[str, Any]:
    """Says in a file that it has begun, and how it ended: when told to there, or cancelled."""
    file = Path(params.arguments["file"])
    file.write_text("begun")
    try:
        while file.read_text() != "end":
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        file.write_text("cancelled")
        raise
    file.write_text("ended")
    return content(text("ended as told"))


async def slow(ctx, _params) -> dict[str, Any]:
    """Says that it has begun, and takes long enough to be cancelled."""
    await ctx.session.report_progress(0, 100, "begun")
    await asyncio.sleep(30)
    return content(text("nobody cancelled"))


async def reconnection(ctx, _params) -> dict[str, Any]:
    """Drops its stream in the middle; the client fetches the rest with Last-Event-ID."""
    await log(ctx, "before the stream ends")
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
    await asyncio.sleep(0.2)
    return content(text("the stream was taken up again"))


async def sampling(ctx, params) -> dict[str, Any]:
    prompt = types.TextContent(type="text", text=params.arguments["prompt"])
    said = await ctx.session.create_message(
        [types.SamplingMessage(role="user", content=prompt)],
        max_tokens=100,
        related_request_id=ctx.request_id,
    )
    return content(text(f"LLM response: {said.content.text}"))


def elicit(message: str | None, requested: dict[str, Any]):
    async def tool(ctx, params) -> dict[str, Any]:
        shown = message or params.arguments["message"]
        said = await ctx.session.elicit_form(shown, requested, related_request_id=ctx.request_id)
        # An answer with an e-mail address in it would be masked on its way back; that it came in
        # as it was sent shows in its length.
        answer = dict(said.content or {})
        if "email" in answer:
            answer["email"] = len(answer["email"])
        shown = json.dumps(answer, sort_keys=True)
        return content(text(f"Elicitation completed: action={said.action}, content={shown}"))

    return tool


def publish(event: Any):
    async def tool(_ctx, _params) -> dict[str, Any]:
        await bus.publish(event)
        return content(text("published"))

    return tool


def fixed(result: dict[str, Any]):
    async def tool(_ctx, _params) -> dict[str, Any]:
        return result

    return tool


async def missing_capability(_ctx, _params) -> dict[str, Any]:
    raise MCPError(-32021, "sampling is needed", {"requiredCapabilities": {"sampling": {}}})


async def echo_arguments(_ctx, params) -> dict[str, Any]:
    return content(text(json.dumps(params.arguments, sort_keys=True)))


DEFAULTS = schema(
    name={"type": "string", "default": "John Doe"},
    age={"type": "integer", "default": 30},
    score={"type": "number", "default": 95.5},
    status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    verified={"type": "boolean", "default": True},
)
OPTIONS = ["option1", "option2", "option3"]
TITLED = [{"const": f"value{n}", "title": f"Choice {n}"} for n in (1, 2, 3)]
ENUMS = schema(
    untitledSingle={"type": "string", "enum": OPTIONS},
    titledSingle={"type": "string", "oneOf": TITLED},
    legacyEnum={"type": "string", "enum": OPTIONS, "enumNames": ["One", "Two", "Three"]},
    untitledMulti={"type": "array", "items": {"type": "string", "enum": OPTIONS}},
    titledMulti={"type": "array", "items": {"anyOf": TITLED}},
)
USER = schema(username={"type": "string"}, email={"type": "string"})
# The keywords of JSON Schema 2020-12 that readers like to lose.
SCHEMA_2020_12 = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
MIRRORED = schema(
    region={"type": "string", "x-mcp-header": "Region"},
    priority={"type": "integer", "x-mcp-header": "Priority"},
    required=["region"],
)
OK = ask("Please confirm", ok={"type": "boolean"})
STRING = {"type": "string"}

TOOLS: dict[str, Any] = {
    "test_simple_text": fixed(content(text("This is a simple text response for testing."))),
    "test_image_content": fixed(content(image())),
    "test_audio_content": fixed(
        content({"type": "audio", "data": WAV, "mimeType": "audio/wav"}),
    ),
    "test_embedded_resource": fixed(
        content(resource("test://embedded-resource", "text/plain", "An embedded resource.")),
    ),
    "test_multiple_content_types": fixed(
        content(
            text("Multiple content types test:"),
            image(),
            resource(
                "test://mixed-content-resource",
                "application/json",
                '{"test":"data","value":123}',
            ),
        )
    ),
    "test_error_handling": fixed(
        {**content(text("This tool intentionally returns an error for testing")), "isError": True}
    ),
    "test_tool_with_logging": logging,
    "test_tool_with_progress": progress,
    "test_slow_in_file": (slow_in_file, schema(file=STRING)),
    "test_reconnection": reconnection,
    "test_slow": slow,
    "test_sampling": (sampling, schema(prompt=STRING)),
    "test_elicitation": (elicit(None, USER), schema(message=STRING)),
    "test_elicitation_sep1034_defaults": elicit("Who are you?", DEFAULTS),
    "test_elicitation_sep1330_enums": elicit("Choose", ENUMS),
    "json_schema_2020_12_tool": (echo_arguments, SCHEMA_2020_12),
    "test_mirrored_headers": (echo_arguments, MIRRORED),
    "test_missing_capability": missing_capability,
    "test_logging_tool": logging,
    "test_streaming_elicitation": once("user_name", NAME),
    "test_trigger_tool_change": publish(ToolsListChanged()),
    "test_trigger_prompt_change": publish(PromptsListChanged()),
    "test_input_required_result_elicitation": once("user_name", NAME),
    "test_input_required_result_sampling": once(
        "capital_question", sample("What is the capital of France?")
    ),
    "test_input_required_result_list_roots": once("client_roots", ROOTS),
    "test_input_required_result_request_state": once("confirm", OK, "state-ok"),
    "test_input_required_result_tampered_state": once("confirm", OK, "state-ok"),
    "test_input_required_result_multiple_inputs": multiple_inputs,
    "test_input_required_result_multi_round": multi_round,
    "test_input_required_result_capabilities": by_capability,
}

RESOURCES = {
    "test://static-text": {
        "mimeType": "text/plain",
        "text": "This is the content of the static text resource.",
    },
    "test://static-binary": {"mimeType": "image/png", "blob": PNG},
    "test://watched-resource": {"mimeType": "text/plain", "text": "Watch this."},
}

PROMPTS = {
    "test_simple_prompt": [],
    "test_prompt_with_arguments": ["arg1", "arg2"],
    "test_prompt_with_embedded_resource": ["resourceUri"],
    "test_prompt_with_image": [],
    "test_input_required_result_prompt": [],
}


def tool_parts(name: str) -> tuple[Any, dict[str, Any]]:
    tool = TOOLS[name]
    return tool if isinstance(tool, tuple) else (tool, {"type": "object", "properties": {}})


async def list_tools(_ctx, _params) -> dict[str, Any]:
    described = [
        {"name": name, "description": f"For {name}", "inputSchema": tool_parts(name)[1]}
        for name in TOOLS
    ]
    return done(tools=described)


async def call_tool(ctx, params) -> dict[str, Any]:
    if params.name not in TOOLS:
        raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
    return await tool_parts(params.name)[0](ctx, params)


async def list_resources(_ctx, _params) -> dict[str, Any]:
    described = [
        {"uri": uri, "name": uri.split("/")[-1], "description": "A test", "mimeType": r["mimeType"]}
        for uri, r in RESOURCES.items()
    ]
    return done(resources=described)


async def list_templates(_ctx, _params) -> dict[str, Any]:
    template = {"uriTemplate": "test://template/{id}/data", "name": "data", "description": "A test"}
    return done(resourceTemplates=[{**template, "mimeType": "application/json"}])


async def read_resource(_ctx, params) -> dict[str, Any]:
    uri = str(params.uri)
    if uri in RESOURCES:
        return done(contents=[{"uri": uri, **RESOURCES[uri]}])
    start, end = "test://template/", "/data"
    if uri.startswith(start) and uri.endswith(end):
        id = uri[len(start) : -len(end)]
        data = {"id": id, "templateTest": True, "data": f"Data for ID: {id}"}
        json_text = {"mimeType": "application/json", "text": json.dumps(data)}
        return done(contents=[{"uri": uri, **json_text}])
    raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": uri})


async def list_prompts(_ctx, _params) -> dict[str, Any]:
    described = [
        {
            "name": name,
            "description": f"For {name}",
            "arguments": [{"name": a, "description": "A test", "required": True} for a in wanted],
        }
        for name, wanted in PROMPTS.items()
    ]
    return done(prompts=described)


async def get_prompt(_ctx, params) -> dict[str, Any]:
    arguments = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            blocks = [text("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            one, two = arguments["arg1"], arguments["arg2"]
            blocks = [text(f"Prompt with arguments: arg1='{one}', arg2='{two}'")]
        case "test_prompt_with_embedded_resource":
            embedded = resource(arguments["resourceUri"], "text/plain", "An embedded resource.")
            blocks = [embedded, text("Please process the embedded resource above.")]
        case "test_prompt_with_image":
            blocks = [image(), text("Please analyze the image above.")]
        case "test_input_required_result_prompt":
            said = given(params).get("user_context")
            if said is None:
                question = "What context should the prompt use?"
                return need(None, user_context=ask(question, context=STRING))
            blocks = [text(f"The context: {json.dumps(said.get('content'))}")]
        case unknown:
            raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {unknown}")
    return done(messages=[{"role": "user", "content": block} for block in blocks])


async def complete(_ctx, params) -> dict[str, Any]:
    begun = params.argument.value
    values = [word for word in ("paris", "park", "party") if word.startswith(begun)]
    return done(completion={"values": values, "total": len(values), "hasMore": False})


async def nothing(_ctx, _params) -> dict[str, Any]:
    return {}


class Events(EventStore):
    """Keeps every event in memory, so that streams can be taken up again."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, Any]] = []

    async def store_event(self, stream_id, message):
        self.kept.append((stream_id, message))
        return str(len(self.kept))

    async def replay_events_after(self, last_event_id, send_callback):
        seen = int(last_event_id)
        stream = self.kept[seen - 1][0] if 0 < seen <= len(self.kept) else None
        for number, (owner, message) in enumerate(self.kept[seen:], seen + 1):
            if owner == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


cacheable = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
hints = {method: CacheHint(60_000, "public") for method in (*cacheable, "resources/read")}
server = Server(
    "fixture",
    version="1.0.0",
    cache_hints=hints,
    get_tool_input_schema=lambda name: tool_parts(name)[1] if name in TOOLS else None,
    on_list_tools=list_tools,
    on_call_tool=call_tool,
    on_list_resources=list_resources,
    on_list_resource_templates=list_templates,
    on_read_resource=read_resource,
    on_subscribe_resource=nothing,
    on_unsubscribe_resource=nothing,
    on_subscriptions_listen=ListenHandler(bus),
    on_list_prompts=list_prompts,
    on_get_prompt=get_prompt,
    on_completion=complete,
    on_set_logging_level=nothing,
)
# Seals requestState, and refuses what it has not sealed.
security = RequestStateSecurity.ephemeral()
server.middleware.append(RequestStateBoundary(security, default_audience="fixture"))


async def over_sse(scope: Any, receive: Any, send: Any) -> None:
    """HTTP+SSE, as an ASGI application."""
    if scope["type"] != "http":
        return
    if scope["path"] != "/sse":
        await sse.handle_post_message(scope, receive, send)
        return
    async with sse.connect_sse(scope, receive, send) as (read, write):
        await server.run(read, write, server.create_initialization_options())


sse = SseServerTransport("/messages")


async def main() -> None:
    if sys.argv[1:] not in (["--http"], ["--sse"]):
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
        return
    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    if sys.argv[1] == "--sse":
        app = over_sse
    else:
        app = server.streamable_http_app(event_store=Events(), retry_interval=100)
    await uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(main())
