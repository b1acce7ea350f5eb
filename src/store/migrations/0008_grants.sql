-- A request for approval is for a call, or for a grant. The latter names no call and no session, so
-- the table is made anew.
CREATE TABLE approvals_8 (
    id           TEXT PRIMARY KEY,
    binding      TEXT NOT NULL,
    call         TEXT,                     -- null: a grant is asked for
    session      TEXT,
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
    used_by      TEXT,                     -- the call or grant that used it up
    wanted       TEXT,                     -- JSON: the grant that is asked for
    extends      TEXT                      -- the grant that is to live longer
) STRICT;
INSERT INTO approvals_8 (id, binding, call, session, subject, connection, action, target, arguments,
                         rule, groups, requested_at, expires_at, state, decided_by, decided_at,
                         reason, used_by)
SELECT id, binding, call, session, subject, connection, action, target, arguments, rule, groups,
       requested_at, expires_at, state, decided_by, decided_at, reason, used_by
FROM approvals;
DROP TABLE approvals;
ALTER TABLE approvals_8 RENAME TO approvals;
CREATE INDEX approvals_by_binding ON approvals (binding, state);
CREATE INDEX approvals_by_state ON approvals (state, expires_at);
CREATE INDEX approvals_by_subject ON approvals (subject, connection, state)
    WHERE wanted IS NOT NULL;
CREATE INDEX approvals_by_extended ON approvals (extends) WHERE extends IS NOT NULL;

-- Null in all of them: a grant that policy gave by itself, for the whole connection.
ALTER TABLE grants ADD COLUMN scope TEXT;         -- JSON array of tools
ALTER TABLE grants ADD COLUMN approval TEXT;      -- the yes that it stands on
ALTER TABLE grants ADD COLUMN ended_by TEXT;      -- our word for why it ended, where nobody revoked it
CREATE INDEX grants_alive ON grants (expires_at) WHERE revoked_at IS NULL;
