// The authorization server of an MCP server: npm oidc-provider with a confidential client `mcpx`
// that may use client credentials, token exchange (RFC 8693) and jwt-bearer (RFC 7523, for
// ID-JAGs), a client `mcpx-user` that asks users (code with PKCE, rotating refresh tokens whose
// replay revokes the grant), and JWT access tokens for whatever resource is asked for.
//
//   as.mjs PORT        PORT 0 = any; prints {"issuer": ...} once it answers
//
// oidc-provider has the first grant; the other two are made here on its models, and demand what the
// RFCs and the draft of ID-JAG do: signature, issuer, audience, client, time, `typ`, one use.
// What an administrator would do is done over /__test/:
//   POST /__test/secret/NEW             the client has another secret
//   POST /__test/seconds/N              how long new access tokens live
//   POST /__test/rotate                 another key signs, and the old one is gone
//   POST /__test/leave/NAME             this user has left
//   POST /__test/trust                  the JSON {"issuer", "jwks"} may vouch for users
//   GET  /__test/stats                  {"asked": {grant: count}, "refused": [why]}

import http from 'node:http';
import { createRemoteJWKSet, exportJWK, generateKeyPair, jwtVerify } from 'jose';
import Provider, { errors } from 'oidc-provider';
import { createMemoryAdapter } from 'oidc-provider/lib/adapters/memory_adapter.js';

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const settings = { secret: 'first', seconds: 3600 };
const stats = { asked: {}, refused: [] };
const used = new Set();
const left = new Set();
const adapter = createMemoryAdapter(3600);
let trusted;
let key;

async function newKey() {
  const { privateKey } = await generateKeyPair('ES256', { extractable: true });
  const kid = Math.random().toString(36).slice(2);
  key = { ...(await exportJWK(privateKey)), kid, alg: 'ES256', use: 'sig' };
}

// Whom an assertion is about, or why it is none.
async function subject(assertion, typ, clientId) {
  if (!trusted) throw new Error('nobody is trusted');
  const { payload } = await jwtVerify(assertion, createRemoteJWKSet(new URL(trusted.jwks)), {
    issuer: trusted.issuer, audience: issuer, typ, algorithms: ['ES256'], maxTokenAge: '5m',
    requiredClaims: ['sub', 'jti', 'exp', 'client_id'],
  });
  if (payload.client_id !== clientId) throw new Error('for another client');
  if (used.has(payload.jti)) throw new Error('used before');
  used.add(payload.jti);
  return payload.sub;
}

const resourceServer = (identifier) => ({
  scope: 'mcp', audience: identifier, accessTokenTTL: settings.seconds, accessTokenFormat: 'jwt',
  jwt: { sign: { alg: 'ES256' } },
});

const onBehalf = (typ) => async (ctx) => {
  const { client, params, provider } = ctx.oidc;
  let accountId;
  try {
    if (typ === 'JWT' && params.subject_token_type !== 'urn:ietf:params:oauth:token-type:jwt') {
      throw new Error('another type of subject token');
    }
    accountId = await subject(params.assertion ?? params.subject_token, typ, client.clientId);
  } catch (error) {
    stats.refused.push(error.message);
    throw new errors.InvalidGrant('the assertion is refused');
  }
  const token = new provider.AccessToken({ accountId, client, scope: params.scope, gty: 'behalf' });
  token.resourceServer = new provider.ResourceServer(params.resource, resourceServer(params.resource));
  ctx.body = {
    access_token: await token.save(), expires_in: settings.seconds, token_type: 'Bearer',
    ...(typ === 'JWT' && { issued_token_type: 'urn:ietf:params:oauth:token-type:access_token' }),
  };
};

function provider(issuer) {
  const made = new Provider(issuer, {
    adapter,
    jwks: { keys: [key] },
    clients: [{
      client_id: 'mcpx', client_secret: settings.secret, redirect_uris: [], response_types: [],
      grant_types: ['client_credentials', EXCHANGE, BEARER],
      token_endpoint_auth_method: 'client_secret_basic', id_token_signed_response_alg: 'ES256',
    }, {
      client_id: 'mcpx-user', client_secret: 'user', redirect_uris: ['http://127.0.0.1/callback'],
      application_type: 'native', grant_types: ['authorization_code', 'refresh_token'],
      token_endpoint_auth_method: 'client_secret_basic', id_token_signed_response_alg: 'ES256',
    }],
    cookies: { keys: ['test cookies'] },
    scopes: ['mcp'],
    findAccount: async (_ctx, sub) =>
      left.has(sub) ? undefined : { accountId: sub, claims: async () => ({ sub }) },
    issueRefreshToken: async () => true,
    rotateRefreshToken: true,
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, identifier) => resourceServer(identifier),
      },
    },
  });
  made.registerGrantType(EXCHANGE, onBehalf('JWT'),
    ['subject_token', 'subject_token_type', 'requested_token_type', 'resource', 'scope']);
  made.registerGrantType(BEARER, onBehalf('oauth-id-jag+jwt'), ['assertion', 'resource', 'scope']);
  made.on('server_error', (_ctx, error) => console.error(error));
  made.on('grant.error', (_ctx, error) => stats.refused.push(error.error));
  made.use(async (ctx, next) => {
    await next();
    const grant = ctx.oidc?.params?.grant_type;
    if (grant) stats.asked[grant] = (stats.asked[grant] ?? 0) + 1;
  });
  return made.callback();
}

async function administer(req, url, body) {
  const [what, value] = url.pathname.split('/').slice(2).map(decodeURIComponent);
  switch (`${req.method} ${what}`) {
    case 'GET stats': return stats;
    case 'POST secret': settings.secret = value; break;
    case 'POST seconds': settings.seconds = Number(value); break;
    case 'POST rotate': await newKey(); break;
    case 'POST leave': left.add(value); break;
    case 'POST trust': trusted = JSON.parse(body); break;
    default: return undefined;
  }
  answer = provider(issuer);
  return settings;
}

async function serve(req, res) {
  const url = new URL(req.url, issuer);
  if (!url.pathname.startsWith('/__test/')) return answer(req, res);
  let body = '';
  for await (const chunk of req) body += chunk;
  const done = await administer(req, url, body);
  res.writeHead(done ? 200 : 404, { 'content-type': 'application/json' });
  return res.end(JSON.stringify(done ?? { error: 'no such test hook' }));
}

let issuer;
let answer;
await newKey();
const server = http.createServer((req, res) => {
  serve(req, res).catch((error) => { console.error(error); res.destroy(); });
});
server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  answer = provider(issuer);
  console.log(JSON.stringify({ issuer }));
});
