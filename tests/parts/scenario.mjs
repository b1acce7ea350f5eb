// A real MCP client (TypeScript SDK v2) for the client scenarios of the MCP conformance suite:
// `scenario.mjs URL` uses whatever the scenario's server offers, and answers whatever it asks.
//
// With SCENARIO_WAYS=DIR the server is not at that URL for this client: the URL is written into
// DIR/SCENARIO.target, for the line that stands before the scenario's server, and the client goes
// to the URL in DIR/SCENARIO.url instead.

import { readFileSync, writeFileSync } from 'node:fs';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const scenario = process.env.MCP_CONFORMANCE_SCENARIO;
const modern = process.env.MCP_CONFORMANCE_PROTOCOL_VERSION === '2026-07-28';
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');
const ways = process.env.SCENARIO_WAYS;
let url = process.argv.at(-1);
if (ways) {
  writeFileSync(`${ways}/${scenario}.target`, url);
  url = readFileSync(`${ways}/${scenario}.url`, 'utf8');
}

const client = new Client({ name: 'story-scenario', version: '1' }, {
  capabilities: { elicitation: { form: { applyDefaults: true } }, sampling: {}, roots: {} },
  ...(modern ? { versionNegotiation: { mode: 'auto' } } : {}),
});
// Told nothing, it accepts with what is required and no more.
client.setRequestHandler('elicitation/create', ({ params }) => ({
  action: 'accept',
  content: filled(params.requestedSchema),
}));
client.setRequestHandler('sampling/createMessage', () => ({
  role: 'assistant', model: 'none', content: { type: 'text', text: 'Paris' },
}));
client.setRequestHandler('roots/list', () => ({ roots: [] }));

// Values for the properties that a schema requires.
function filled(schema, more = {}) {
  const given = { ...more };
  for (const name of schema?.required ?? []) {
    const { type } = schema.properties?.[name] ?? {};
    given[name] ??= { string: 'text', boolean: true, number: 3, integer: 5, array: [] }[type] ?? {};
  }
  return given;
}

// What fails is what the scenario wants to fail.
async function tried(what, doing) {
  try {
    return await doing();
  } catch (error) {
    console.error(`${scenario}: ${what}: ${error}`);
    return undefined;
  }
}

// A legacy client opens its standing stream on the side. It waits here until that is answered, so
// that every run sends the same in the same order.
let answered;
const standing = new Promise((resolve) => { answered = resolve; });
async function noticing(target, init) {
  try {
    return await fetch(target, init);
  } finally {
    if (init?.method === 'GET') answered();
  }
}
await client.connect(new StreamableHTTPClientTransport(new URL(url), { fetch: noticing }));
if (!modern) await standing;
const tools = (await tried('tools/list', () => client.listTools()))?.tools ?? [];
const calls = context.toolCalls ?? tools.map(({ name, inputSchema }) => ({
  name,
  arguments: filled(inputSchema, name === 'json_schema_echo' ? { schema: tools[0].inputSchema } : {}),
}));
for (const call of calls) await tried(call.name, () => client.callTool(call));
const has = client.getServerCapabilities() ?? {};
if (has.resources) {
  const { resources } = await client.listResources();
  for (const { uri } of resources) await tried(uri, () => client.readResource({ uri }));
}
if (has.prompts) {
  const { prompts } = await client.listPrompts();
  for (const { name } of prompts) await tried(name, () => client.getPrompt({ name }));
}
await client.close();
