// The server of fixture.py on the TypeScript SDK: what the MCP conformance suite asks a server
// for, under the names that its scenarios use, in both eras.
//
//   fixture.mjs                      over HTTP on a free port of 127.0.0.1; prints {"port": N}

import { randomBytes, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import {
  localhostHostValidation, localhostOriginValidation, NodeStreamableHTTPServerTransport,
  toNodeHandler, toWebRequest,
} from '@modelcontextprotocol/node';
import {
  createMcpHandler, createRequestStateCodec, InMemoryServerEventBus, isLegacyRequest, ProtocolError,
  Server,
} from '@modelcontextprotocol/server';

const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJg'
  + 'gg==';
const WAV = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=';
const bus = new InMemoryServerEventBus();
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const INVALID_PARAMS = -32602;

const text = (said) => ({ type: 'text', text: said });
const image = () => ({ type: 'image', data: PNG, mimeType: 'image/png' });
const resource = (uri, mimeType, said) => ({ type: 'resource', resource: { uri, mimeType, text: said } });
const content = (...blocks) => ({ content: blocks });
const schema = (properties, required = Object.keys(properties)) =>
  ({ type: 'object', properties, required });
const fixed = (result) => async () => result;

// What input_required results ask for.

const ask = (message, properties) => ({
  method: 'elicitation/create',
  params: { mode: 'form', message, requestedSchema: schema(properties) },
});
const sample = (prompt) => ({
  method: 'sampling/createMessage',
  params: { messages: [{ role: 'user', content: text(prompt) }], maxTokens: 100 },
});
const STRING = { type: 'string' };
const ROOTS = { method: 'roots/list', params: {} };
const NAME = ask('What is your name?', { name: STRING });
const OK = ask('Please confirm', { ok: { type: 'boolean' } });

// Seals requestState, and refuses what it has not sealed.
const states = createRequestStateCodec({ key: randomBytes(32) });

async function need(inputRequests, state) {
  const result = { resultType: 'input_required', inputRequests };
  return state === undefined ? result : { ...result, requestState: await states.mint(state) };
}

// A tool that asks for one input, and says what it got.
const once = (key, request, state) => async (_params, { mcpReq }) => {
  const answer = mcpReq.inputResponses?.[key];
  if (!answer || (state !== undefined && mcpReq.requestState() !== state)) {
    return need({ [key]: request }, state);
  }
  const name = answer.content?.name;
  return content(text(name ? `Hello, ${name}!` : `${state ?? 'got'}: ${JSON.stringify(answer)}`));
};

async function multipleInputs(_params, { mcpReq }) {
  const wanted = { user_name: NAME, greeting: sample('Generate a greeting'), client_roots: ROOTS };
  const all = Object.keys(wanted).every((key) => mcpReq.inputResponses?.[key]);
  return all ? content(text('every input arrived')) : need(wanted, 'three');
}

async function multiRound(_params, { mcpReq }) {
  const given = mcpReq.inputResponses ?? {};
  const state = mcpReq.requestState();
  if (state === 'after-1' && given.step1) {
    return need({ step2: ask('Step 2: What is your favorite color?', { color: STRING }) }, 'after-2');
  }
  if (state === 'after-2' && given.step2) return content(text('two rounds are over'));
  return need({ step1: ask('Step 1: What is your name?', { name: STRING }) }, 'after-1');
}

async function byCapability(_params, { mcpReq }) {
  const can = mcpReq.envelope?.['io.modelcontextprotocol/clientCapabilities'] ?? {};
  const wanted = {
    ...(can.sampling ? { joke: sample('Tell a joke') } : {}),
    ...(can.elicitation ? { user_name: NAME } : {}),
  };
  return Object.keys(wanted).length ? need(wanted) : content(text('there is nobody to ask'));
}

// What happens during a call.

async function logging(_params, { mcpReq }) {
  for (const said of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
    await mcpReq.log('info', said);
    await sleep(50);
  }
  return content(text('three log messages were sent'));
}

async function report({ mcpReq }, progress, message) {
  const progressToken = mcpReq._meta?.progressToken;
  if (progressToken === undefined) return;
  await mcpReq.notify({
    method: 'notifications/progress',
    params: { progressToken, progress, total: 100, message },
  });
}

async function progress(_params, ctx) {
  for (const done of [0, 50, 100]) {
    await report(ctx, done, `step ${done} of 100`);
    await sleep(50);
  }
  return content(text('three steps were reported'));
}

// Says that it has begun, and takes long enough to be cancelled.
async function slow(_params, ctx) {
  await report(ctx, 0, 'begun');
  await sleep(30_000);
  return content(text('nobody cancelled'));
}

// Drops its stream in the middle; the client fetches the rest with Last-Event-ID.
async function reconnection(_params, { mcpReq, http }) {
  await mcpReq.log('info', 'before the stream ends');
  http?.closeSSE?.();
  await sleep(200);
  return content(text('the stream was taken up again'));
}

async function sampling({ arguments: { prompt } }, { mcpReq }) {
  // On the call's own stream: what goes out on the other one is lost before it is opened.
  const said = await mcpReq.send(sample(prompt));
  return content(text(`LLM response: ${said.content.text}`));
}

const elicit = (message, requestedSchema) => async (params, { mcpReq }) => {
  const shown = message ?? params.arguments.message;
  const form = { mode: 'form', message: shown, requestedSchema };
  const said = await mcpReq.send({ method: 'elicitation/create', params: form });
  // An answer with an e-mail address in it would be masked on its way back.
  const answer = { ...said.content };
  if (answer.email) answer.email = answer.email.length;
  const shownAnswer = JSON.stringify(answer);
  return content(text(`Elicitation completed: action=${said.action}, content=${shownAnswer}`));
};

const publish = (kind) => async () => {
  bus.publish({ kind });
  return content(text('published'));
};

async function missingCapability() {
  const data = { requiredCapabilities: { sampling: {} } };
  throw new ProtocolError(-32021, 'sampling is needed', data);
}

const echoArguments = async (params) => content(text(JSON.stringify(params.arguments)));

const DEFAULTS = schema({
  name: { type: 'string', default: 'John Doe' },
  age: { type: 'integer', default: 30 },
  score: { type: 'number', default: 95.5 },
  status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
  verified: { type: 'boolean', default: true },
});
const OPTIONS = ['option1', 'option2', 'option3'];
const TITLED = [1, 2, 3].map((n) => ({ const: `value${n}`, title: `Choice ${n}` }));
const ENUMS = schema({
  untitledSingle: { type: 'string', enum: OPTIONS },
  titledSingle: { type: 'string', oneOf: TITLED },
  legacyEnum: { type: 'string', enum: ['opt1', 'opt2', 'opt3'], enumNames: ['One', 'Two', 'Three'] },
  untitledMulti: { type: 'array', items: { type: 'string', enum: OPTIONS } },
  titledMulti: { type: 'array', items: { anyOf: TITLED } },
});
const USER = schema({ username: STRING, email: STRING });
// The keywords of JSON Schema 2020-12 that readers like to lose.
const SCHEMA_2020_12 = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  $defs: { address: { $anchor: 'addressDef', ...schema({ street: STRING, city: STRING }, []) } },
  properties: {
    name: STRING,
    address: { $ref: '#/$defs/address' },
    contactMethod: { type: 'string', enum: ['phone', 'email'] },
    phone: STRING,
    email: STRING,
  },
  allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
  if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
  then: { required: ['phone'] },
  else: { required: ['email'] },
  additionalProperties: false,
};
const MIRRORED = schema({
  region: { type: 'string', 'x-mcp-header': 'Region' },
  priority: { type: 'integer', 'x-mcp-header': 'Priority' },
}, ['region']);
const NOTHING = { type: 'object', properties: {} };

const TOOLS = {
  test_simple_text: fixed(content(text('This is a simple text response for testing.'))),
  test_image_content: fixed(content(image())),
  test_audio_content: fixed(content({ type: 'audio', data: WAV, mimeType: 'audio/wav' })),
  test_embedded_resource: fixed(
    content(resource('test://embedded-resource', 'text/plain', 'An embedded resource.')),
  ),
  test_multiple_content_types: fixed(content(
    text('Multiple content types test:'),
    image(),
    resource('test://mixed-content-resource', 'application/json', '{"test":"data","value":123}'),
  )),
  test_error_handling: fixed(
    { ...content(text('This tool intentionally returns an error for testing')), isError: true },
  ),
  test_tool_with_logging: logging,
  test_tool_with_progress: progress,
  test_reconnection: reconnection,
  test_slow: slow,
  test_sampling: [sampling, schema({ prompt: STRING })],
  test_elicitation: [elicit(undefined, USER), schema({ message: STRING })],
  test_elicitation_sep1034_defaults: elicit('Who are you?', DEFAULTS),
  test_elicitation_sep1330_enums: elicit('Choose', ENUMS),
  json_schema_2020_12_tool: [echoArguments, SCHEMA_2020_12],
  test_mirrored_headers: [echoArguments, MIRRORED],
  test_missing_capability: missingCapability,
  test_logging_tool: logging,
  test_streaming_elicitation: once('user_name', NAME),
  test_trigger_tool_change: publish('tools_list_changed'),
  test_trigger_prompt_change: publish('prompts_list_changed'),
  test_input_required_result_elicitation: once('user_name', NAME),
  test_input_required_result_sampling: once(
    'capital_question', sample('What is the capital of France?'),
  ),
  test_input_required_result_list_roots: once('client_roots', ROOTS),
  test_input_required_result_request_state: once('confirm', OK, 'state-ok'),
  test_input_required_result_tampered_state: once('confirm', OK, 'state-ok'),
  test_input_required_result_multiple_inputs: multipleInputs,
  test_input_required_result_multi_round: multiRound,
  test_input_required_result_capabilities: byCapability,
};
const RESOURCES = {
  'test://static-text': {
    mimeType: 'text/plain', text: 'This is the content of the static text resource.',
  },
  'test://static-binary': { mimeType: 'image/png', blob: PNG },
  'test://watched-resource': { mimeType: 'text/plain', text: 'Watch this.' },
};
const PROMPTS = {
  test_simple_prompt: [],
  test_prompt_with_arguments: ['arg1', 'arg2'],
  test_prompt_with_embedded_resource: ['resourceUri'],
  test_prompt_with_image: [],
  test_input_required_result_prompt: [],
};
const toolParts = (name) => (Array.isArray(TOOLS[name]) ? TOOLS[name] : [TOOLS[name], NOTHING]);

function readResource({ uri }) {
  if (RESOURCES[uri]) return { contents: [{ uri, ...RESOURCES[uri] }] };
  const id = /^test:\/\/template\/(.*)\/data$/.exec(uri)?.[1];
  if (id === undefined) throw new ProtocolError(INVALID_PARAMS, 'Resource not found', { uri });
  const data = { id, templateTest: true, data: `Data for ID: ${id}` };
  return { contents: [{ uri, mimeType: 'application/json', text: JSON.stringify(data) }] };
}

async function getPrompt({ name, arguments: given = {} }, { mcpReq }) {
  const user = (...blocks) =>
    ({ messages: blocks.map((block) => ({ role: 'user', content: block })) });
  switch (name) {
    case 'test_simple_prompt': return user(text('This is a simple prompt for testing.'));
    case 'test_prompt_with_arguments':
      return user(text(`Prompt with arguments: arg1='${given.arg1}', arg2='${given.arg2}'`));
    case 'test_prompt_with_embedded_resource':
      return user(resource(given.resourceUri, 'text/plain', 'An embedded resource.'),
        text('Please process the embedded resource above.'));
    case 'test_prompt_with_image': return user(image(), text('Please analyze the image above.'));
    case 'test_input_required_result_prompt': {
      const said = mcpReq.inputResponses?.user_context;
      if (said) return user(text(`The context: ${JSON.stringify(said.content)}`));
      return need({ user_context: ask('What context should the prompt use?', { context: STRING }) });
    }
    default: throw new ProtocolError(INVALID_PARAMS, `Unknown prompt: ${name}`);
  }
}

function makeServer() {
  const hint = { ttlMs: 60_000, cacheScope: 'public' };
  const server = new Server({ name: 'fixture', version: '1.0.0' }, {
    capabilities: {
      tools: { listChanged: true },
      resources: { subscribe: true, listChanged: true },
      prompts: { listChanged: true },
      logging: {},
      completions: {},
    },
    cacheHints: {
      'tools/list': hint, 'prompts/list': hint, 'resources/list': hint,
      'resources/templates/list': hint, 'resources/read': hint,
    },
    requestState: { verify: states.verify },
  });
  server.setRequestHandler('tools/list', () => ({
    tools: Object.keys(TOOLS).map((name) =>
      ({ name, description: `For ${name}`, inputSchema: toolParts(name)[1] })),
  }));
  server.setRequestHandler('tools/call', async ({ params }, ctx) => {
    if (!TOOLS[params.name]) {
      throw new ProtocolError(INVALID_PARAMS, `Unknown tool: ${params.name}`);
    }
    return toolParts(params.name)[0](params, ctx);
  });
  server.setRequestHandler('resources/list', () => ({
    resources: Object.entries(RESOURCES).map(([uri, { mimeType }]) =>
      ({ uri, name: uri.split('/').at(-1), description: 'A test', mimeType })),
  }));
  server.setRequestHandler('resources/templates/list', () => ({
    resourceTemplates: [{
      uriTemplate: 'test://template/{id}/data', name: 'data', description: 'A test',
      mimeType: 'application/json',
    }],
  }));
  server.setRequestHandler('resources/read', ({ params }) => readResource(params));
  server.setRequestHandler('resources/subscribe', () => ({}));
  server.setRequestHandler('resources/unsubscribe', () => ({}));
  server.setRequestHandler('prompts/list', () => ({
    prompts: Object.entries(PROMPTS).map(([name, wanted]) => ({
      name,
      description: `For ${name}`,
      arguments: wanted.map((one) => ({ name: one, description: 'A test', required: true })),
    })),
  }));
  server.setRequestHandler('prompts/get', ({ params }, ctx) => getPrompt(params, ctx));
  server.setRequestHandler('completion/complete', ({ params }) => {
    const values = ['paris', 'park', 'party'].filter((word) => word.startsWith(params.argument.value));
    return { completion: { values, total: values.length, hasMore: false } };
  });
  return server;
}

// Keeps every event in memory, so that streams can be taken up again.
class Events {
  #kept = [];

  async storeEvent(stream, message) {
    return String(this.#kept.push({ stream, message }));
  }

  async replayEventsAfter(last, { send }) {
    const { stream } = this.#kept[Number(last) - 1] ?? {};
    for (const [at, one] of this.#kept.entries()) {
      // A priming event carries no message.
      const real = one.stream === stream && one.message?.jsonrpc;
      if (at >= Number(last) && real) await send(String(at + 1), one.message);
    }
    return stream;
  }
}

const sessions = new Map();

// Legacy clients get sessions, and streams that can be taken up again.
async function legacy(request, response, body) {
  const known = sessions.get(request.headers['mcp-session-id']);
  if (known) return known.handleRequest(request, response, body);
  const transport = new NodeStreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    eventStore: new Events(),
    retryInterval: 100,
    onsessioninitialized: (id) => { sessions.set(id, transport); },
  });
  await makeServer().connect(transport);
  return transport.handleRequest(request, response, body);
}

const modern = toNodeHandler(createMcpHandler(makeServer, { bus, legacy: 'reject' }));
const [goodHost, goodOrigin] = [localhostHostValidation(), localhostOriginValidation()];
const listener = createServer(async (request, response) => {
  if (!goodHost(request, response) || !goodOrigin(request, response)) return;
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const sent = Buffer.concat(chunks).toString();
  let body;
  try {
    body = sent ? JSON.parse(sent) : undefined;
  } catch {
    body = null;
  }
  const old = await isLegacyRequest(await toWebRequest(request, body), body);
  return (old ? legacy : modern)(request, response, body);
});
listener.listen(0, '127.0.0.1', () => console.log(JSON.stringify(listener.address())));
