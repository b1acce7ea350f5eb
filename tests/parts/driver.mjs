// The TypeScript SDKs driven through a plan, as driver.py: `driver.mjs v1|auto|2026-07-28 PLAN`.
// v1 is @modelcontextprotocol/sdk, the others are @modelcontextprotocol/client.

import { existsSync, readFileSync } from 'node:fs';

const [mode, file] = process.argv.slice(2);
const info = { name: `story-${mode}`, version: '1' };
const sdk = mode === 'v1'
  ? {
      ...(await import('@modelcontextprotocol/sdk/client/index.js')),
      ...(await import('@modelcontextprotocol/sdk/client/stdio.js')),
      ...(await import('@modelcontextprotocol/sdk/client/streamableHttp.js')),
    }
  : {
      ...(await import('@modelcontextprotocol/client')),
      ...(await import('@modelcontextprotocol/client/stdio')),
    };
const timeout = 60_000;

function call(client, { name, arguments: given }, options) {
  const wanted = { name, arguments: given };
  const all = { timeout, resetTimeoutOnProgress: true, ...options };
  return mode === 'v1' ? client.callTool(wanted, undefined, all) : client.callTool(wanted, all);
}

async function pages(fetch, items) {
  const found = [];
  let cursor;
  do {
    const page = await fetch(cursor === undefined ? {} : { cursor });
    found.push(...page[items]);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return found;
}

async function lists(client) {
  const has = client.getServerCapabilities();
  const seen = {};
  if (has.tools) seen.tools = await pages((page) => client.listTools(page), 'tools');
  if (has.resources) {
    seen.resources = await pages((page) => client.listResources(page), 'resources');
    try {
      seen.templates = await pages((page) => client.listResourceTemplates(page), 'resourceTemplates');
    } catch (error) {
      seen.templates = { code: error.code };
    }
  }
  if (has.prompts) seen.prompts = await pages((page) => client.listPrompts(page), 'prompts');
  return seen;
}

async function withProgress(client, step) {
  const steps = [];
  const onprogress = ({ progress, total }) => steps.push([progress, total ?? null]);
  const result = await call(client, step, { onprogress });
  return { steps, result };
}

// Starts a call, cancels it when it is known to have reached the server, and makes another.
async function cancelled(client, step) {
  const stop = new AbortController();
  let begun;
  const reached = new Promise((resolve) => { begun = resolve; });
  const ended = [];
  const running = call(client, step, { signal: stop.signal, onprogress: begun })
    .then((result) => ended.push(result), () => {});
  if (step.go) while (!existsSync(step.go)) await new Promise((done) => setTimeout(done, 10));
  else await reached;
  stop.abort('changed my mind');
  await running;
  const after = await call(client, step.then);
  return { ended, after };
}

function take(client, step) {
  switch (step.step) {
    case 'list': return lists(client);
    case 'call': return call(client, step);
    case 'read': return client.readResource({ uri: step.uri });
    case 'prompt': return client.getPrompt({ name: step.name, arguments: step.arguments });
    case 'progress': case 'resume': return withProgress(client, step);
    case 'cancel': return cancelled(client, step);
  }
}

async function run(plan) {
  const say = (step, seen) => console.log(JSON.stringify({ server: plan.server, step, ...seen }));
  const [command, ...args] = plan.command ?? [];
  const transport = plan.url
    ? new sdk.StreamableHTTPClientTransport(new URL(plan.url))
    : new sdk.StdioClientTransport({ command, args, env: plan.env, stderr: 'inherit' });
  const versionNegotiation = { mode: mode === 'auto' ? 'auto' : { pin: mode } };
  const client = mode === 'v1' ? new sdk.Client(info) : new sdk.Client(info, { versionNegotiation });
  let step = { step: 'connect' };
  try {
    await client.connect(transport, { timeout });
    const protocol = client.getNegotiatedProtocolVersion?.() ?? null;
    say('connect', { seen: protocol });
    say('capabilities', { seen: client.getServerCapabilities() });
    for (step of [{ step: 'list' }, ...plan.steps]) {
      say(step.step, { seen: await take(client, step) });
    }
    await transport.terminateSession?.();
  } catch (error) {
    const { code, message, data } = error;
    say(step.step, { error: { code, message, data } });
  }
  await client.close();
}

for (const plan of JSON.parse(readFileSync(file))) await run(plan);
process.exit(0);
