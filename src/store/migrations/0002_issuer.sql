-- The built-in issuer's logins. A family is one login: every refresh token that came of it.
CREATE TABLE issuer_families (
    id         TEXT PRIMARY KEY,
    user_name  TEXT NOT NULL,
    client_id  TEXT NOT NULL,
    scope      TEXT NOT NULL,
    -- SHA-256 of the password hash at login: a changed password ends the login.
    credential BLOB NOT NULL,
    auth_time  INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    revoked    INTEGER
) STRICT;

CREATE INDEX issuer_families_expires ON issuer_families (expires);

-- Tokens by hash. One that was used stays, so that using it again is noticed.
CREATE TABLE issuer_refresh_tokens (
    hash   BLOB PRIMARY KEY,
    family TEXT NOT NULL REFERENCES issuer_families (id) ON DELETE CASCADE,
    issued INTEGER NOT NULL,
    used   INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX issuer_refresh_tokens_family ON issuer_refresh_tokens (family);
