// What makes the identity provider of idp.mjs an authorization server for MCP clients that it has
// never seen: dynamic registration, client ID metadata documents, resource indicators with JWT access
// tokens (RFC 9068), and DPoP. Hooks over /__test/ besides those of idp.mjs:
//   POST   /__test/access-seconds/N     how long new access tokens live
//   POST   /__test/auth-time/1          new access tokens say when the person logged in
//   POST   /__test/sign-as              {"claims", "header", "key"} → {"token"}: any token, signed with
//                                       `key`: "own" (the provider's), "other" (a stranger's ES256
//                                       key), "rsa" (a stranger's RS256 key), "public" (HS256, with the
//                                       provider's public key as the secret: algorithm confusion)

import { generateKeyPair, importJWK, SignJWT } from 'jose';

export const scopes = ['mcp', 'mcp:ledger', 'mcp:other'];
export const settings = { 'access-seconds': 3600, 'auth-time': 0 };

// The client ID metadata document that the stories' clients have; no such host is asked.
export const CIMD = 'https://client.example/oauth/metadata.json';
const document = {
  client_id: CIMD,
  client_name: 'a client without registration',
  redirect_uris: ['http://127.0.0.1/callback'],
  application_type: 'native',
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  token_endpoint_auth_method: 'none',
};

export function configuration(accounts) {
  return {
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    features: {
      registration: { enabled: true },
      clientIdMetadataDocument: { enabled: true, ack: 'draft-02' },
      dPoP: { enabled: true },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: async () => true,
        getResourceServerInfo: async (_ctx, resource) => ({
          audience: resource,
          scope: scopes.join(' '),
          accessTokenFormat: 'jwt',
          accessTokenTTL: settings['access-seconds'],
          jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
    fetch: async (url, options) => (String(url) === CIMD
      ? new Response(JSON.stringify(document), { headers: { 'content-type': 'application/json' } })
      : fetch(url, options)),
    extraTokenClaims: async (ctx, token) => {
      if (!token.accountId) return undefined;
      const { AuthorizationCode, RefreshToken } = ctx.oidc.entities;
      const login = AuthorizationCode ?? RefreshToken;
      const more = settings['auth-time'] ? { auth_time: login?.authTime } : {};
      return { groups: accounts.get(token.accountId) ?? [], ...more };
    },
  };
}

const strangers = {
  other: await generateKeyPair('ES256'),
  rsa: await generateKeyPair('RS256'),
};

export async function signAs({ claims, header, key }, own) {
  const jwt = new SignJWT(claims);
  switch (key) {
    case 'other': case 'rsa':
      return jwt.setProtectedHeader({ kid: own.kid, ...header }).sign(strangers[key].privateKey);
    case 'public': {
      const { d: _private, ...open } = own;
      const secret = new TextEncoder().encode(JSON.stringify(open));
      return jwt.setProtectedHeader({ kid: own.kid, ...header, alg: 'HS256' }).sign(secret);
    }
    default:
      return jwt.setProtectedHeader({ alg: 'ES256', kid: own.kid, ...header })
        .sign(await importJWK(own, 'ES256'));
  }
}
