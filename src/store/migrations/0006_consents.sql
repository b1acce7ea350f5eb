-- What each user agreed to for an MCP server whose tokens are theirs, sealed.
CREATE TABLE consents (
    subject    TEXT NOT NULL,
    connection TEXT NOT NULL,
    sealed     TEXT NOT NULL,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (subject, connection)
) STRICT;
