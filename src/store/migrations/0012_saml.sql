-- Ids of SAML responses and assertions that were taken once, until they could not be taken again.
CREATE TABLE saml_seen (
    key     TEXT PRIMARY KEY,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX saml_seen_expires ON saml_seen (expires);

-- Who a login over SAML belongs to, as the identity provider said it then. JSON, as `Identity`.
CREATE TABLE saml_logins (
    family   TEXT PRIMARY KEY REFERENCES issuer_families (id) ON DELETE CASCADE,
    identity TEXT NOT NULL
) STRICT, WITHOUT ROWID;
