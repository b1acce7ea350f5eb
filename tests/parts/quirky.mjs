// Identity providers that differ from one another and from the specifications, for the story tests:
// one process, any number of issuers with a path, each with its own quirks. Everybody who comes is
// `alice`, and nobody is asked for anything.
//
//   node quirky.mjs          prints {"base": ...} once it answers
//   BASE/t/NAME              an issuer; made when it is first asked for
//   POST /__test/NAME        sets its quirks (JSON, merged; see `plain` below)
//   GET  /__test/NAME        what happened there
//   POST /__test/NAME/rotate a new key signs; the old one stays published
//   POST /__test/NAME/go     lets go what `hold` holds
//   BASE/graph/v1.0          Microsoft Graph, as far as groups of users go

import crypto from 'node:crypto';
import http from 'node:http';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';

const plain = {
  alg: 'ES256',          // or RS256, EdDSA; 'none' and 'HS256' are forgeries
  claims: {},            // merged into identity tokens; null removes one
  life: 3600,            // of identity tokens, in seconds
  skew: 0,               // how far ahead its clock is, in seconds
  interval: 1,           // told to devices; 'omitted' or null as some do
  pending: 0,            // how many polls are answered authorization_pending
  slowDown: 0,           // how many polls are answered slow_down
  verificationUrl: false, // Google's name for verification_uri
  device: true,          // whether it has the device flow
  code: true,            // whether it has authorization codes
  pkce: ['S256'],        // what discovery says of PKCE; null: nothing, as Entra ID
  issuer: null,          // what discovery calls the issuer, where it lies
  iss: true,             // RFC 9207: true, 'omitted' though promised, 'other', false
  nonce: true,           // true, 'omitted', 'other'
  deny: null,            // the error that a browser comes back with
  state: true,           // whether the state comes back
  resource: 'ignored',   // 'refused' as by Entra ID, or the one that is demanded
  secret: null,          // the client secret that is demanded of everybody
  idToken: true,         // whether there are identity tokens at all
  refreshIdToken: true,  // whether there are any on refresh
  refreshToken: true,    // whether there are refresh tokens
  rotates: true,         // whether a refresh token is good once; used twice, the login ends
  oddKeys: false,        // publishes keys that nobody can use, too
  jwksDown: false,
  down: false,
  hold: null,            // 'before' or 'after' a refresh takes effect, its answer is held back
  groups: ['eng'],       // what Graph says
  graphDown: false,
  graphForgets: false,   // refuses the next token that it gave
};

const issuers = new Map();
let base;

async function newKey(alg) {
  const real = ['RS256', 'EdDSA'].includes(alg) ? alg : 'ES256';
  const { privateKey, publicKey } = await generateKeyPair(real, { extractable: true });
  const kid = `k-${crypto.randomBytes(4).toString('hex')}`;
  return { privateKey, alg: real, kid, jwk: { ...(await exportJWK(publicKey)), kid, alg: real, use: 'sig' } };
}

async function issuerOf(name) {
  let issuer = issuers.get(name);
  if (!issuer) {
    issuer = {
      name, url: `${base}/t/${name}`, quirks: { ...plain }, keys: [], refresh: new Map(),
      codes: new Map(), devices: new Map(), held: [], waiting: 0,
      seen: { token: 0, polls: 0, refreshed: 0, replayed: 0, jwks: 0, discovery: 0, lookups: 0 },
    };
    issuers.set(name, issuer);
  }
  if (!issuer.keys.length) issuer.keys = [await newKey(issuer.quirks.alg)];
  return issuer;
}

const b64 = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
const random = () => crypto.randomBytes(16).toString('base64url');

async function idToken(issuer, nonce) {
  const { quirks } = issuer;
  const now = Math.floor(Date.now() / 1000) + quirks.skew;
  const claims = {
    iss: issuer.url, sub: 'alice', aud: 'mcpx-cli', iat: now, exp: now + quirks.life,
    email: 'alice@example.test', groups: ['eng'],
    ...(nonce && quirks.nonce === true ? { nonce } : {}),
    ...(quirks.nonce === 'other' ? { nonce: 'another' } : {}),
    ...quirks.claims,
  };
  for (const name of Object.keys(claims)) if (claims[name] === null) delete claims[name];
  const key = issuer.keys[0];
  if (quirks.alg === 'none') return `${b64({ alg: 'none', kid: key.kid })}.${b64(claims)}.`;
  if (quirks.alg === 'HS256') {
    const signed = `${b64({ alg: 'HS256', kid: key.kid })}.${b64(claims)}`;
    const secret = crypto.createPublicKey({ key: key.jwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' });
    return `${signed}.${crypto.createHmac('sha256', secret).update(signed).digest('base64url')}`;
  }
  return new SignJWT(claims).setProtectedHeader({ alg: key.alg, kid: key.kid }).sign(key.privateKey);
}

async function tokens(issuer, { nonce, grant, refreshed } = {}) {
  const { quirks } = issuer;
  const answer = { access_token: random(), token_type: 'Bearer', expires_in: 3600 };
  if (quirks.idToken && (!refreshed || quirks.refreshIdToken)) answer.id_token = await idToken(issuer, nonce);
  if (quirks.refreshToken) {
    const token = random();
    issuer.refresh.set(token, { grant: grant ?? { alive: true }, used: false });
    answer.refresh_token = token;
  }
  return answer;
}

const refuse = (error, error_description) => ({ status: 400, body: { error, error_description } });

async function token(issuer, form) {
  const { quirks, seen } = issuer;
  seen.token += 1;
  seen.form = Object.fromEntries(form);
  if (form.get('grant_type') === 'client_credentials') {
    if (form.get('client_id') !== 'graph-reader' || form.get('client_secret') !== 'graph secret'
        || form.get('scope') !== `${base}/.default`) return refuse('invalid_client');
    const access_token = `graph-${random()}`;
    issuer.graphToken = access_token;
    return { status: 200, body: { access_token, token_type: 'Bearer', expires_in: 3599 } };
  }
  if (quirks.resource === 'refused' && form.has('resource')) {
    return refuse('invalid_request', "AADSTS901002: The 'resource' request parameter isn't supported.");
  }
  if (!['ignored', 'refused'].includes(quirks.resource) && form.get('resource') !== quirks.resource) {
    return refuse('invalid_target');
  }
  if (quirks.secret && form.get('client_secret') !== quirks.secret) return refuse('invalid_client', 'client_secret is missing.');
  if (form.get('client_id') !== 'mcpx-cli') return refuse('invalid_client');
  switch (form.get('grant_type')) {
    case 'urn:ietf:params:oauth:grant-type:device_code': {
      seen.polls += 1;
      if (!issuer.devices.has(form.get('device_code'))) return refuse('invalid_grant');
      if (quirks.slowDown > 0) { quirks.slowDown -= 1; return refuse('slow_down'); }
      if (quirks.pending > 0) { quirks.pending -= 1; return refuse('authorization_pending'); }
      issuer.devices.delete(form.get('device_code'));
      return { status: 200, body: await tokens(issuer) };
    }
    case 'authorization_code': {
      const code = issuer.codes.get(form.get('code'));
      issuer.codes.delete(form.get('code'));
      const challenge = crypto.createHash('sha256').update(form.get('code_verifier') ?? '').digest('base64url');
      if (!code || code.challenge !== challenge || code.redirect !== form.get('redirect_uri')) return refuse('invalid_grant');
      return { status: 200, body: await tokens(issuer, { nonce: code.nonce }) };
    }
    case 'refresh_token': {
      if (quirks.hold === 'before') await held(issuer);
      const entry = issuer.refresh.get(form.get('refresh_token'));
      if (!entry || !entry.grant.alive) return refuse('invalid_grant', 'the grant is gone');
      if (entry.used && quirks.rotates) {
        entry.grant.alive = false;
        seen.replayed += 1;
        return refuse('invalid_grant', 'this refresh token was used already');
      }
      entry.used = true;
      seen.refreshed += 1;
      const body = await tokens(issuer, { grant: entry.grant, refreshed: true });
      if (!quirks.rotates) delete body.refresh_token;
      if (quirks.hold === 'after') await held(issuer);
      return { status: 200, body };
    }
    default: return refuse('unsupported_grant_type');
  }
}

function held(issuer) {
  issuer.waiting += 1;
  return new Promise((go) => issuer.held.push(go)).finally(() => { issuer.waiting -= 1; });
}

function authorize(issuer, query) {
  const { quirks } = issuer;
  issuer.seen.authorize = Object.fromEntries(query);
  const redirect = query.get('redirect_uri') ?? '';
  const bad = query.get('client_id') !== 'mcpx-cli' || query.get('response_type') !== 'code'
    || !/^http:\/\/127\.0\.0\.1:\d+\/callback$/.test(redirect)
    || query.get('code_challenge_method') !== 'S256' || !query.get('code_challenge')
    || !query.get('nonce') || !query.get('state') || !query.get('scope')?.split(' ').includes('openid')
    || (quirks.resource === 'refused' && query.has('resource'));
  if (bad) return { status: 400, body: { error: 'invalid_request' } };
  const back = new URL(redirect);
  if (quirks.deny) back.searchParams.set('error', quirks.deny);
  else {
    const code = random();
    issuer.codes.set(code, { challenge: query.get('code_challenge'), redirect, nonce: query.get('nonce') });
    back.searchParams.set('code', code);
  }
  if (quirks.state) back.searchParams.set('state', query.get('state'));
  if (quirks.iss === true) back.searchParams.set('iss', issuer.url);
  if (quirks.iss === 'other') back.searchParams.set('iss', `${base}/t/another`);
  return { status: 302, headers: { location: back.href }, body: {} };
}

function discovery(issuer) {
  const { quirks, url } = issuer;
  return {
    issuer: (quirks.issuer ?? url).replace('SELF', url),
    authorization_endpoint: `${url}/authorize`,
    token_endpoint: `${url}/token`,
    jwks_uri: `${url}/jwks`,
    ...(quirks.device ? { device_authorization_endpoint: `${url}/device` } : {}),
    response_types_supported: quirks.code ? ['code', 'code id_token'] : ['id_token'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: [issuer.keys[0].alg, 'SOMETHING-NEW'],
    ...(quirks.pkce ? { code_challenge_methods_supported: quirks.pkce } : {}),
    ...(quirks.iss === true || quirks.iss === 'omitted' ? { authorization_response_iss_parameter_supported: true } : {}),
  };
}

async function answer(issuer, place, url, body) {
  const { quirks, seen } = issuer;
  if (quirks.down) return { status: 503, body: {} };
  switch (place) {
    case '.well-known/openid-configuration': seen.discovery += 1; return { status: 200, body: discovery(issuer) };
    case 'jwks': {
      seen.jwks += 1;
      if (quirks.jwksDown) return { status: 503, body: {} };
      const odd = [{ kty: 'AKP', alg: 'ML-DSA-44', kid: 'pq', pub: 'AA' }, { kty: 'EC', crv: 'P-999', x: 'AA', y: 'AA', kid: 'odd' }];
      return { status: 200, body: { keys: [...(quirks.oddKeys ? odd : []), ...issuer.keys.map((key) => key.jwk)] } };
    }
    case 'device': {
      const form = new URLSearchParams(body);
      seen.device = Object.fromEntries(form);
      if (quirks.resource === 'refused' && form.has('resource')) return refuse('invalid_request', 'AADSTS901002');
      const device_code = random();
      issuer.devices.set(device_code, true);
      const name = quirks.verificationUrl ? 'verification_url' : 'verification_uri';
      return { status: 200, body: {
        device_code, user_code: 'ABCD-EFGH', expires_in: 600, [name]: `${issuer.url}/confirm`,
        ...(quirks.interval === 'omitted' ? {} : { interval: quirks.interval }),
      } };
    }
    case 'authorize': return authorize(issuer, url.searchParams);
    case 'token': return token(issuer, new URLSearchParams(body));
    default: return { status: 404, body: {} };
  }
}

function graph(req, user, body) {
  const token = (req.headers.authorization ?? '').replace(/^Bearer /, '');
  const issuer = [...issuers.values()].find((one) => one.graphToken && one.graphToken === token);
  if (!issuer) return { status: 401, body: {} };
  issuer.seen.lookups += 1;
  if (issuer.quirks.graphDown) return { status: 503, body: {} };
  if (issuer.quirks.graphForgets) { issuer.quirks.graphForgets = false; issuer.graphToken = null; return { status: 401, body: {} }; }
  issuer.seen.lookup = { user, body: JSON.parse(body) };
  return { status: 200, body: { value: issuer.quirks.groups } };
}

async function administer(issuer, verb, body) {
  if (verb === 'rotate') issuer.keys = [await newKey(issuer.quirks.alg), ...issuer.keys];
  else if (verb === 'go') { issuer.quirks.hold = null; issuer.held.splice(0).forEach((go) => go()); }
  else if (body) {
    const changes = JSON.parse(body);
    if (changes) {
      const odd = Object.keys(changes).filter((name) => !(name in plain));
      if (odd.length) return { status: 400, body: { error: `no such quirk: ${odd}` } };
      if (changes.alg && changes.alg !== issuer.quirks.alg) issuer.keys = [await newKey(changes.alg)];
      Object.assign(issuer.quirks, changes);
    }
  }
  return { status: 200, body: { ...issuer.seen, waiting: issuer.waiting } };
}

async function serve(req, res) {
  const url = new URL(req.url, base);
  let body = '';
  for await (const chunk of req) body += chunk;
  const [kind, name, ...rest] = url.pathname.slice(1).split('/');
  let said;
  if (kind === '__test') said = await administer(await issuerOf(name), rest[0], body);
  else if (kind === 't') said = await answer(await issuerOf(name), rest.join('/'), url, body);
  else if (kind === 'graph' && rest[0] === 'users' && rest[2] === 'getMemberGroups') said = graph(req, rest[1], body);
  else said = { status: 404, body: {} };
  res.writeHead(said.status, { 'content-type': 'application/json', 'cache-control': 'no-store', ...said.headers });
  res.end(JSON.stringify(said.body));
}

const server = http.createServer((req, res) => {
  serve(req, res).catch((error) => { console.error(error); res.destroy(); });
});
server.listen(0, '127.0.0.1', () => {
  base = `http://127.0.0.1:${server.address().port}`;
  console.log(JSON.stringify({ base }));
});
