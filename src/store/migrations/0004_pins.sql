-- The accepted definition of each tool and prompt, and the one that was offered instead.
CREATE TABLE pins (
    connection TEXT NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('tool', 'prompt')),
    name       TEXT NOT NULL,
    accepted   TEXT,                       -- hash; null until one is accepted
    definition TEXT,                       -- masked JSON of it
    offered    TEXT,                       -- hash of what is in quarantine; null if nothing is
    proposal   TEXT,                       -- masked JSON of it
    reason     TEXT,                       -- why it is in quarantine
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (connection, kind, name)
) STRICT;
