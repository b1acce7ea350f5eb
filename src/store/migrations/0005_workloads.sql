-- The trust rule that let a workload in; null for a person's grant.
ALTER TABLE grants ADD COLUMN trust_rule TEXT;

-- Tokens of jobs that were used, each with the key that used it first: no other key may.
CREATE TABLE workload_tokens (
    mark       BLOB PRIMARY KEY,           -- SHA-256 of issuer and jti, or of a token without jti
    thumbprint TEXT NOT NULL,              -- RFC 7638, of the key
    expires_at INTEGER NOT NULL            -- the token's own; forgotten after it
) STRICT, WITHOUT ROWID;
CREATE INDEX workload_tokens_by_expiry ON workload_tokens (expires_at);
