-- An index over the audit log. The log wins: drop the rows and they are read from it again.
CREATE TABLE records (
    idx        INTEGER PRIMARY KEY,        -- place in the log
    at         INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    session    TEXT,
    call       TEXT,
    subject    TEXT,
    connection TEXT,
    grant_id   TEXT,
    approval   TEXT,
    direction  TEXT,
    shape      TEXT,
    decision   TEXT,
    forwarded  INTEGER NOT NULL DEFAULT 0,
    outcome    TEXT,
    masked     INTEGER NOT NULL DEFAULT 0,
    last       INTEGER NOT NULL DEFAULT 0,
    leaf       TEXT NOT NULL,
    segment    INTEGER,                    -- where the body lies
    offset     INTEGER,
    length     INTEGER
) STRICT;
CREATE INDEX records_by_session ON records (session, idx);
CREATE INDEX records_by_call ON records (call) WHERE call IS NOT NULL;
CREATE INDEX records_by_approval ON records (approval) WHERE approval IS NOT NULL;
CREATE INDEX records_by_grant ON records (grant_id) WHERE grant_id IS NOT NULL;
CREATE INDEX records_by_kind ON records (kind, idx);
