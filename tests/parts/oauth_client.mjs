// The TypeScript SDKs' OAuth clients at an MCP server that they have never seen, driven through a
// plan; what oauth_client.py is for the Python SDK, with the same plan and the same lines.
//
//   node oauth_client.mjs v1|v2 PLAN URL
//
// Two steps more: {"step": "leave"} is done with the connection, which opens no page from then on,
// and {"step": "login"} throws the tokens away and connects anew.
// With {"dpop": true} in the plan, v2 asks for tokens that are bound to its own key (RFC 9449).

import fs from 'node:fs';
import http from 'node:http';

const [era, planFile, where] = process.argv.slice(2);
const plan = JSON.parse(fs.readFileSync(planFile, 'utf8'));
const say = (line) => console.log(JSON.stringify(line));

// The loopback redirect: browsers come to it one after the other.
const codes = [];
const waiting = [];
const server = http.createServer((req, res) => {
  const given = new URL(req.url, 'http://127.0.0.1').searchParams;
  const next = waiting.shift();
  if (next) next(given); else codes.push(given);
  res.end('back to the client');
});
await new Promise((listening) => { server.listen(0, '127.0.0.1', listening); });
const redirectUrl = `http://127.0.0.1:${server.address().port}/callback`;
const nextCode = () => new Promise((done) => {
  if (codes.length) done(codes.shift()); else waiting.push(done);
});

const sdk = era === 'v1'
  ? {
    ...await import('@modelcontextprotocol/sdk/client/index.js'),
    ...await import('@modelcontextprotocol/sdk/client/streamableHttp.js'),
    ...await import('@modelcontextprotocol/sdk/client/auth.js'),
  }
  : await import('@modelcontextprotocol/client');

const given = [];
let information;
let provider;
const session = plan.dpop ? sdk.DpopSession.create() : undefined;
// One for each login: a transport that is done with may still be about to send its user to log in,
// and must not spoil the login that is under way.
const newProvider = () => ({
  redirectUrl,
  clientMetadataUrl: plan.cimd ?? undefined,
  clientMetadata: {
    client_name: 'story',
    redirect_uris: [redirectUrl],
    application_type: 'native',
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
  },
  clientInformation: () => information,
  saveClientInformation: (saved) => { information = saved; },
  tokens: () => given.at(-1),
  saveTokens(tokens) { if (this === provider) given.push(tokens); },
  redirectToAuthorization(url) { if (this === provider) say({ authorize: String(url) }); },
  saveCodeVerifier(saved) { this.verifier = saved; },
  codeVerifier() { return this.verifier; },
  invalidateCredentials(what) {
    if (this === provider && ['all', 'tokens'].includes(what)) given.push(undefined);
  },
  ...(session && { dpop: () => session }),
});

const seen = (error) => ({ code: error.code, message: String(error.message), data: error.data });
const unauthorized = (error) => error instanceof sdk.UnauthorizedError;

// A transport that is sent to log in is done with; another one takes the tokens up.
async function connect() {
  provider = newProvider();
  for (let turn = 0; ; turn += 1) {
    const options = era === 'v1' ? {} : { versionNegotiation: { mode: 'auto' } };
    const client = new sdk.Client({ name: `story-${era}`, version: '1' }, options);
    const transport = new sdk.StreamableHTTPClientTransport(new URL(where), { authProvider: provider });
    try {
      await client.connect(transport);
      return [client, transport];
    } catch (error) {
      if (!unauthorized(error) || turn > 1) throw error;
      const answer = await nextCode();
      await (era === 'v1' ? transport.finishAuth(answer.get('code')) : transport.finishAuth(answer));
    }
  }
}

async function take(step) {
  switch (step.step) {
    case 'leave':
      provider = undefined;
      await client.close().catch(() => {});
      return null;
    case 'login':
      await client.close().catch(() => {});
      given.push(undefined);
      [client, transport] = await connect();
      return null;
    case 'call': {
      const call = { name: step.name, arguments: step.arguments };
      return client.callTool(call);
    }
    case 'wait':
      while (!fs.existsSync(step.file)) await new Promise((done) => { setTimeout(done, 20); });
      return null;
    case 'tokens':
      return {
        given: given.filter(Boolean).length, newest: given.at(-1)?.access_token, type: given.at(-1)?.token_type,
        client: information?.client_id,
      };
    default: throw new Error(`no step ${step.step}`);
  }
}

let client;
let transport;
try {
  [client, transport] = await connect();
  const tools = (await client.listTools()).tools.map((one) => one.name);
  const protocol = client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion;
  say({ step: 'connect', seen: { protocol, tools } });
  for (const step of plan.steps) {
    try {
      say({ step: step.step, seen: await take(step) });
    } catch (error) {
      console.error(error);
      say({ step: step.step, error: { ...seen(error), unauthorized: unauthorized(error) } });
    }
  }
  await client.close();
  process.exit(0);
} catch (error) {
  console.error(error);
  say({ step: 'connect', error: seen(error) });
  process.exit(1);
}
