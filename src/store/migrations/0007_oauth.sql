-- Grants that access tokens of an identity provider opened (MCP's own OAuth), by what these tokens
-- have in common. Their rows in `grants` have a thumbprint that is no key's: 'bearer', or 'dpop:' and
-- the key's.
CREATE TABLE oauth_grants (
    grant_id TEXT PRIMARY KEY REFERENCES grants (id),
    client   TEXT NOT NULL,             -- the issuer's id for the client
    login    TEXT NOT NULL,             -- the issuer's name for the login (sid); '' where it tells none
    newest   INTEGER NOT NULL           -- iat of the newest token seen, in seconds since 1970
) STRICT;
CREATE INDEX oauth_grants_by_client ON oauth_grants (client, login);
