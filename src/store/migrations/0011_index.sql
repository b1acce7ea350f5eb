-- The index over the audit log, made anew: it says of each session what its records add up to and
-- where in the journal they lie. What a record says is read there. The log wins: delete the row of
-- log_indexed, and at the next start everything here is made from the log again.
DROP TABLE records;

CREATE TABLE log_indexed (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    size    INTEGER NOT NULL,              -- how many entries are indexed
    segment INTEGER NOT NULL,              -- where the last of them lies, and
    offset  INTEGER NOT NULL,
    hash    BLOB NOT NULL                  -- SHA-256 of its leaf: of another log it would be another
) STRICT;

CREATE TABLE log_sessions (
    id         TEXT PRIMARY KEY,
    subject    TEXT,                       -- these four by the record that opened it
    connection TEXT,
    opened     INTEGER,                    -- that record's place in the log
    started_at INTEGER,
    last_at    INTEGER NOT NULL,
    calls      INTEGER NOT NULL,
    denied     INTEGER NOT NULL,
    approved   INTEGER NOT NULL,
    masked     INTEGER NOT NULL,
    orphaned   INTEGER NOT NULL,
    run        INTEGER NOT NULL            -- the newest of its runs
) STRICT, WITHOUT ROWID;
CREATE INDEX log_sessions_by_opened ON log_sessions (opened) WHERE opened IS NOT NULL;
CREATE INDEX log_sessions_by_subject ON log_sessions (subject, opened) WHERE opened IS NOT NULL;

-- Records of one session that were indexed together and lie in one segment of the journal.
CREATE TABLE log_runs (
    id      INTEGER PRIMARY KEY,
    prev    INTEGER,                       -- the session's run before it
    segment INTEGER NOT NULL,
    first   INTEGER NOT NULL,              -- place in the log of its first record
    offset  INTEGER NOT NULL,              -- where in the segment that one's commit begins
    rest    BLOB NOT NULL                  -- of each other record, how much further: twice u32
) STRICT;

-- Calls of which more can be said: forwarded without an end, waiting for an approval, denied.
CREATE TABLE log_calls (
    call    TEXT PRIMARY KEY,
    session TEXT NOT NULL,
    idx     INTEGER NOT NULL,
    marks   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The session of a grant or approval, for records that name only that.
CREATE TABLE log_links (
    id      TEXT PRIMARY KEY,
    session TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Records of grants, but for their beginning and renewal: how one ended.
CREATE TABLE grant_records (
    idx      INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    grant_id TEXT NOT NULL,
    leaf     TEXT NOT NULL
) STRICT;
CREATE INDEX grant_records_by_grant ON grant_records (grant_id);
