-- Times are milliseconds since 1970.

-- Who has ever been here. `id` is what the audit log's leaves name; the rest can be erased.
CREATE TABLE subjects (
    id         TEXT PRIMARY KEY,
    issuer     TEXT NOT NULL,
    sub        TEXT NOT NULL,
    email      TEXT,
    first_seen INTEGER NOT NULL,
    UNIQUE (issuer, sub)
) STRICT;

CREATE TABLE grants (
    id          TEXT PRIMARY KEY,
    session     TEXT NOT NULL UNIQUE,
    subject     TEXT NOT NULL REFERENCES subjects (id),
    connection  TEXT NOT NULL,
    groups      TEXT NOT NULL,             -- JSON array: as the issuer vouched when it was given
    thumbprint  TEXT NOT NULL,             -- RFC 7638, of the key it is bound to
    reason      TEXT,
    issued_at   INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    ends_at     INTEGER NOT NULL,          -- no renewal beyond this
    revoked_at  INTEGER,
    revoked_by  TEXT
) STRICT;
CREATE INDEX grants_by_subject ON grants (subject, expires_at);

CREATE TABLE approvals (
    id           TEXT PRIMARY KEY,
    binding      TEXT NOT NULL,
    call         TEXT NOT NULL,
    session      TEXT NOT NULL,
    subject      TEXT NOT NULL REFERENCES subjects (id),
    connection   TEXT NOT NULL,
    action       TEXT NOT NULL,
    target       TEXT,
    arguments    TEXT NOT NULL,            -- masked JSON
    rule         TEXT NOT NULL,
    groups       TEXT NOT NULL,            -- JSON array: any member of any may decide
    requested_at INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'denied', 'used', 'expired')),
    decided_by   TEXT REFERENCES subjects (id),
    decided_at   INTEGER,
    reason       TEXT,
    used_by      TEXT                      -- the call that used it up
) STRICT;
CREATE INDEX approvals_by_binding ON approvals (binding, state);
CREATE INDEX approvals_by_state ON approvals (state, expires_at);
