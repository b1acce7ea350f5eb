//! Grants as rows.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::{Store, StoreError, json, parsed, time};
use crate::policy::Scope;
use crate::types::{
    ApprovalId, ConnectionName, GrantId, Identity, SessionId, Subject, SubjectId, SubjectKind,
    Timestamp,
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
    /// Our word for why it ended, where nobody revoked it.
    pub ended_by: Option<String>,
    /// What it is limited to.
    pub scope: Scope,
    /// The yes that it stands on, where policy did not give it by itself.
    pub approval: Option<ApprovalId>,
    /// Who said yes, as a screen shows them. Not kept here.
    pub approver: Option<String>,
}

/// Which live grants are meant.
#[derive(Clone, Debug)]
pub enum Which {
    /// One.
    Grant(GrantId),
    /// Those of somebody, by id, e-mail address or the issuer's name for them.
    Subject(String),
    /// Those for a connection.
    Connection(ConnectionName),
    /// Those of everybody whom the issuer vouched to be in a group.
    Group(String),
}

const COLUMNS: &str = "SELECT g.*, s.issuer, s.sub, s.email, coalesce(d.email, d.sub) AS approver
     FROM grants g JOIN subjects s ON s.id = g.subject
     LEFT JOIN approvals a ON a.id = g.approval LEFT JOIN subjects d ON d.id = a.decided_by";

impl Store {
    /// Keeps a new grant.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert_grant(&self, grant: &GrantRow) -> Result<(), StoreError> {
        self.gathered.insert(grant).await
    }
}

/// Writes one new grant.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    grant: &GrantRow,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO grants (id, session, subject, connection, groups, thumbprint, reason,
                                 issued_at, expires_at, ends_at, scope, approval, trust_rule)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
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
    .bind(grant.scope.tools().map(serde_json::to_string).transpose()?)
    .bind(grant.approval.as_ref().map(ApprovalId::as_str))
    .bind(grant.subject.kind.rule())
    .execute(connection)
    .await?;
    Ok(())
}

impl Store {
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

    /// Lets a live grant live longer, on a yes. Says whether it was still live.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn extend_grant(
        &self,
        id: &GrantId,
        ends_at: Timestamp,
        approval: &ApprovalId,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE grants SET ends_at = $2, approval = $3 WHERE id = $1 AND revoked_at IS NULL",
        )
        .bind(id.as_str())
        .bind(ends_at.as_millisecond())
        .bind(approval.as_str())
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends grants: by somebody, or for a reason of ours.
    ///
    /// # Errors
    /// [`StoreError`]; none of them has ended then.
    pub async fn end_grants(
        &self,
        ids: &[&GrantId],
        by: Result<&SubjectId, &str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE grants SET revoked_at = $2, revoked_by = $3, ended_by = $4
             WHERE id IN (SELECT value FROM json_each($1)) AND revoked_at IS NULL",
        )
        .bind(serde_json::to_string(ids)?)
        .bind(now.as_millisecond())
        .bind(by.ok().map(SubjectId::as_str))
        .bind(by.err())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The grants that are alive and meant. One of MCP's own OAuth lives on when its token has run out,
    /// since the client's next one renews it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn live_grants(
        &self,
        which: &Which,
        now: Timestamp,
    ) -> Result<Vec<GrantRow>, StoreError> {
        let (meant, value) = match which {
            Which::Grant(id) => ("g.id = $2", id.as_str()),
            Which::Subject(who) => {
                ("(s.id = $2 OR s.email = $2 COLLATE NOCASE OR s.sub = $2)", &**who)
            }
            Which::Connection(name) => ("g.connection = $2", name.as_str()),
            Which::Group(name) => {
                ("EXISTS (SELECT 1 FROM json_each(g.groups) WHERE value = $2)", &**name)
            }
        };
        let sql = sqlx::AssertSqlSafe(format!(
            "{COLUMNS} WHERE g.revoked_at IS NULL AND {meant}
               AND (g.expires_at > $1
                    OR g.ends_at > $1 AND g.id IN (SELECT grant_id FROM oauth_grants))"
        ));
        let rows =
            sqlx::query(sql).bind(now.as_millisecond()).bind(value).fetch_all(&self.pool).await?;
        rows.iter().map(read).collect()
    }

    /// Revokes what the log says was revoked: a crash can come between the record and its row.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn apply_revocations(&self) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE grants
             SET revoked_at = r.at, revoked_by = json_extract(r.leaf, '$.by'),
                 ended_by = json_extract(r.leaf, '$.code')
             FROM grant_records r
             WHERE r.kind IN ('grant_revoked', 'grant_ended') AND r.grant_id = grants.id
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
    let (scope, approval): (Option<String>, Option<String>) =
        (row.try_get("scope")?, row.try_get("approval")?);
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
        ended_by: row.try_get("ended_by")?,
        scope: scope.map(|scope| json(scope, "scope")).transpose()?.unwrap_or_default(),
        approval: approval.map(|id| parsed(id, "approval id")).transpose()?,
        approver: row.try_get("approver")?,
    })
}
