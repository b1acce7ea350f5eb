// An organisation's identity provider for the story tests: npm oidc-provider with a public client
// `mcpx-cli` (device, refresh and code grants), ES256 ID tokens that carry `groups`, and rotating
// refresh tokens whose replay revokes the whole grant.
//
//   node idp.mjs PORT        PORT 0 = any; prints {"issuer": ...} once it answers
//
// Sign-in pages are oidc-provider's own development pages: they take any password. What an
// administrator would do is done over /__test/:
//   POST   /__test/rotate               a new key signs; the old one stays published
//   POST   /__test/drop-old             only the newest key stays published
//   POST   /__test/groups/NAME/a,b      sets somebody's groups (none after the slash: no groups)
//   POST   /__test/device-seconds/N     how long new device codes live
//   POST   /__test/id-seconds/N         how long new ID tokens live
//   POST   /__test/interval/N           polling interval told to devices; 0: do not tell any
//   POST   /__test/slow-down/N          answer the next N token requests with slow_down
//   POST   /__test/sign                 signs the JSON claims in the body with the current key
//   DELETE /__test/accounts/NAME        this person has left
//   GET    /__test/stats                {"token", "refreshed", "revoked"} counts so far
// and those of idp_oauth.mjs, which makes it an authorization server for unknown MCP clients.

import http from 'node:http';
import { exportJWK, generateKeyPair, importJWK, SignJWT } from 'jose';
import Provider from 'oidc-provider';
import { createMemoryAdapter } from 'oidc-provider/lib/adapters/memory_adapter.js';
import * as oauth from './idp_oauth.mjs';

const accounts = new Map([
  ['alice', ['eng', 'mcp-admins']],
  ['bob', ['leads']],
  ['carol', ['eng']],
]);
const settings = { 'device-seconds': 600, 'id-seconds': 3600, interval: 1, 'slow-down': 0 };
const stats = { token: 0, refreshed: 0, revoked: 0 };
const DEVICE_CODE = 'urn:ietf:params:oauth:grant-type:device_code';

let keys = [];
async function addKey() {
  const { privateKey } = await generateKeyPair('ES256', { extractable: true });
  const kid = `k${keys.length + 1}-${Math.random().toString(36).slice(2, 6)}`;
  keys = [{ ...(await exportJWK(privateKey)), kid, alg: 'ES256', use: 'sig' }, ...keys];
}

// oidc-provider signs with the first key and cannot change its keys, so a new key means a new
// provider; codes, sessions and tokens live in a store that all of them share.
// Remembers what has expired for an hour more, to answer expired_token and not invalid_grant.
const adapter = createMemoryAdapter(3600);
function provider(issuer) {
  const { features, ...mcp } = oauth.configuration(accounts);
  const made = new Provider(issuer, {
    ...mcp,
    adapter,
    jwks: { keys },
    cookies: { keys: ['test cookies'] },
    clients: [{
      client_id: 'mcpx-cli',
      client_name: 'mcpx command line',
      token_endpoint_auth_method: 'none',
      application_type: 'native',
      grant_types: [DEVICE_CODE, 'refresh_token', 'authorization_code'],
      redirect_uris: ['http://127.0.0.1/callback'],
      id_token_signed_response_alg: 'ES256',
    }],
    scopes: ['openid', 'offline_access', 'email', 'groups', ...oauth.scopes],
    claims: { openid: ['sub'], email: ['email', 'email_verified'], groups: ['groups'] },
    conformIdTokenClaims: false,
    features: { ...features, deviceFlow: { enabled: true }, devInteractions: { enabled: true } },
    findAccount: async (_ctx, sub) => accounts.has(sub) ? {
      accountId: sub,
      claims: async () => ({
        sub, email: `${sub}@example.test`, email_verified: true, groups: accounts.get(sub),
      }),
    } : undefined,
    issueRefreshToken: async (_ctx, client) => client.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: true,
    ttl: {
      AccessToken: (_ctx, token) => token.resourceServer?.accessTokenTTL ?? 3600,
      DeviceCode: () => settings['device-seconds'],
      IdToken: () => settings['id-seconds'],
      RefreshToken: 14 * 24 * 3600,
      Grant: 14 * 24 * 3600, Interaction: 3600, Session: 3600,
    },
  });
  made.use(async (ctx, next) => {
    await next();
    // oidc-provider tells no interval; most providers do, and the default of 5 s makes tests slow.
    if (ctx.path === '/device/auth' && ctx.status === 200 && settings.interval > 0) {
      ctx.body = { ...ctx.body, interval: settings.interval };
    }
    if (ctx.path === '/token') {
      stats.token += 1;
      if (ctx.status === 200 && ctx.oidc?.params?.grant_type === 'refresh_token') {
        stats.refreshed += 1;
      }
    }
  });
  made.on('grant.revoked', () => { stats.revoked += 1; });
  made.on('server_error', (_ctx, error) => console.error(error));
  return made.callback();
}

async function administer(req, url, body) {
  const [what, name, value] = url.pathname.split('/').slice(2).map(decodeURIComponent);
  switch (`${req.method} ${what}`) {
    case 'POST rotate': await addKey(); answer = provider(issuer); break;
    case 'POST drop-old': keys = keys.slice(0, 1); answer = provider(issuer); break;
    case 'POST groups': accounts.set(name, (value || '').split(',').filter(Boolean)); break;
    case 'DELETE accounts': accounts.delete(name); break;
    case 'GET stats': return stats;
    case 'POST sign': {
      const jwt = new SignJWT(JSON.parse(body)).setProtectedHeader({ alg: 'ES256', kid: keys[0].kid });
      return { token: await jwt.sign(await importJWK(keys[0], 'ES256')) };
    }
    case 'POST sign-as': return { token: await oauth.signAs(JSON.parse(body), keys[0]) };
    default: {
      const known = [settings, oauth.settings].find((some) => what in some);
      if (req.method !== 'POST' || !known) return undefined;
      known[what] = Number(name);
    }
  }
  return { accounts: Object.fromEntries(accounts), settings };
}

async function serve(req, res) {
  const url = new URL(req.url, issuer);
  const json = (status, value) => {
    res.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
    res.end(JSON.stringify(value));
  };
  if (url.pathname.startsWith('/__test/')) {
    let body = '';
    for await (const chunk of req) body += chunk;
    const done = await administer(req, url, body);
    return done ? json(200, done) : json(404, { error: 'no such test hook' });
  }
  if (req.method === 'POST' && url.pathname === '/token' && settings['slow-down'] > 0) {
    settings['slow-down'] -= 1;
    return json(400, { error: 'slow_down' });
  }
  return answer(req, res);
}

let issuer;
let answer;
await addKey();
const server = http.createServer((req, res) => {
  serve(req, res).catch((error) => { console.error(error); res.destroy(); });
});
server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  answer = provider(issuer);
  console.log(JSON.stringify({ issuer }));
});
