//! Grants as rows.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, json, parsed, time};
use crate::types::{
    ConnectionName, GrantId, Identity, SessionId, Subject, SubjectId, SubjectKind, Timestamp,
};

/// A grant as it is kept.
#[derive(Clone, Debug)]
pub struct GrantRow {
    /// Its id.
    pub id: GrantId,
    /// The session that runs under it.
    pub session: SessionId,
    /// Who has it, with the groups of its newest renewal.
    pub subject: Subject,
    /// For which MCP server.
    pub connection: ConnectionName,
    /// The thumbprint of the key it is bound to.
    pub thumbprint: String,
    /// Why it was asked for.
    pub reason: Option<String>,
    /// When it was given.
    pub issued_at: Timestamp,
    /// When it ends unless renewed.
    pub expires_at: Timestamp,
    /// When it ends for good.
    pub ends_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

const COLUMNS: &str =
    "SELECT g.*, s.issuer, s.sub, s.email FROM grants g JOIN subjects s ON s.id = g.subject";

impl Store {
    /// Keeps a new grant.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert_grant(&self, grant: &GrantRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO grants (id, session, subject, connection, groups, thumbprint, reason,
                                 issued_at, expires_at, ends_at, trust_rule)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(grant.id.as_str())
        .bind(grant.session.as_str())
        .bind(grant.subject.id.as_str())
        .bind(grant.connection.as_str())
        .bind(serde_json::to_string(&grant.subject.identity.groups)?)
        .bind(&grant.thumbprint)
        .bind(&grant.reason)
        .bind(grant.issued_at.as_millisecond())
        .bind(grant.expires_at.as_millisecond())
        .bind(grant.ends_at.as_millisecond())
        .bind(grant.subject.kind.rule())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Moves a live grant's expiry and refreshes its groups. Says whether it was still live.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn renew_grant(
        &self,
        id: &GrantId,
        expires_at: Timestamp,
        groups: &[String],
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE grants SET expires_at = $2, groups = $3 WHERE id = $1 AND revoked_at IS NULL",
        )
        .bind(id.as_str())
        .bind(expires_at.as_millisecond())
        .bind(serde_json::to_string(groups)?)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Revokes a grant. Says whether this was what ended it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_grant(
        &self,
        id: &GrantId,
        by: &SubjectId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE grants SET revoked_at = $2, revoked_by = $3
             WHERE id = $1 AND revoked_at IS NULL",
        )
        .bind(id.as_str())
        .bind(now.as_millisecond())
        .bind(by.as_str())
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Revokes what the log says was revoked: a crash can come between the record and its row.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn apply_revocations(&self) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE grants
             SET revoked_at = r.at, revoked_by = json_extract(r.leaf, '$.by')
             FROM records r
             WHERE r.kind = 'grant_revoked' AND r.grant_id = grants.id
               AND grants.revoked_at IS NULL",
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// One grant.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn grant(&self, id: &GrantId) -> Result<Option<GrantRow>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE g.id = $1"));
        let row = sqlx::query(sql).bind(id.as_str()).fetch_optional(&self.pool).await?;
        row.as_ref().map(read).transpose()
    }

    /// The newest grants, at most `limit`; of one subject only, if given.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn grants(
        &self,
        of: Option<&SubjectId>,
        limit: u32,
    ) -> Result<Vec<GrantRow>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!(
            "{COLUMNS} WHERE $1 IS NULL OR g.subject = $1 ORDER BY g.issued_at DESC LIMIT $2"
        ));
        let rows = sqlx::query(sql)
            .bind(of.map(SubjectId::as_str))
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read).collect()
    }
}

fn read(row: &SqliteRow) -> Result<GrantRow, StoreError> {
    let revoked_at: Option<i64> = row.try_get("revoked_at")?;
    Ok(GrantRow {
        id: parsed(row.try_get("id")?, "grant id")?,
        session: parsed(row.try_get("session")?, "session id")?,
        subject: Subject {
            id: parsed(row.try_get("subject")?, "subject id")?,
            kind: match row.try_get("trust_rule")? {
                None => SubjectKind::Person,
                Some(rule) => SubjectKind::Workload { rule },
            },
            identity: Identity {
                issuer: row.try_get("issuer")?,
                sub: row.try_get("sub")?,
                email: row.try_get("email")?,
                groups: json(row.try_get("groups")?, "list of groups")?,
            },
        },
        connection: parsed(row.try_get("connection")?, "connection name")?,
        thumbprint: row.try_get("thumbprint")?,
        reason: row.try_get("reason")?,
        issued_at: time(row.try_get("issued_at")?)?,
        expires_at: time(row.try_get("expires_at")?)?,
        ends_at: time(row.try_get("ends_at")?)?,
        revoked_at: revoked_at.map(time).transpose()?,
    })
}
