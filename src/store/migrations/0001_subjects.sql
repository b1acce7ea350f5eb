-- Who has ever been here. `id` is what the audit log's leaves name; the rest can be erased.
CREATE TABLE subjects (
    id         TEXT PRIMARY KEY,
    issuer     TEXT NOT NULL,
    sub        TEXT NOT NULL,
    email      TEXT,
    first_seen TEXT NOT NULL,
    UNIQUE (issuer, sub)
) STRICT;
