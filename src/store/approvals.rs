//! Approvals as rows. Each change of state is one conditional statement, so that two servers or
//! two people can never both make it.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, json, parsed, time};
use crate::policy::Wanted;
use crate::types::{ApprovalId, CallId, ConnectionName, GrantId, SessionId, SubjectId, Timestamp};

/// How far an approval has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Nobody has decided yet.
    Pending,
    /// Somebody said yes; it waits for its one use.
    Approved,
    /// Somebody said no.
    Denied,
    /// It has let its one call through.
    Used,
    /// Nobody decided, or nobody used it, in time.
    Expired,
}

impl ApprovalState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Used => "used",
            Self::Expired => "expired",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Approved, Self::Denied, Self::Used, Self::Expired]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// An approval as it is kept.
#[derive(Clone, Debug)]
pub struct ApprovalRow {
    /// Its id.
    pub id: ApprovalId,
    /// The hash of the call it is for.
    pub binding: String,
    /// The first call that asked for it; none where a grant is asked for.
    pub call: Option<CallId>,
    /// That call's session.
    pub session: Option<SessionId>,
    /// Who makes the call, or wants the grant.
    pub subject: SubjectId,
    /// To which MCP server.
    pub connection: ConnectionName,
    /// The MCP method.
    pub action: String,
    /// The tool, prompt or resource.
    pub target: Option<String>,
    /// The arguments, masked, as JSON.
    pub arguments: String,
    /// The policy that asks.
    pub rule: String,
    /// Who may decide.
    pub groups: Vec<String>,
    /// When it was first asked for.
    pub requested_at: Timestamp,
    /// When it lapses.
    pub expires_at: Timestamp,
    /// How far it has come.
    pub state: ApprovalState,
    /// Who decided.
    pub decided_by: Option<SubjectId>,
    /// Why, in their words.
    pub reason: Option<String>,
    /// The grant that is asked for, where one is.
    pub wanted: Option<Wanted>,
}

impl Store {
    /// Keeps a new pending approval.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert_approval(&self, row: &ApprovalRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO approvals (id, binding, call, session, subject, connection, action,
                                    target, arguments, rule, groups, requested_at, expires_at,
                                    wanted, extends, state)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 'pending')",
        )
        .bind(row.id.as_str())
        .bind(&row.binding)
        .bind(row.call.as_ref().map(CallId::as_str))
        .bind(row.session.as_ref().map(SessionId::as_str))
        .bind(row.subject.as_str())
        .bind(row.connection.as_str())
        .bind(&row.action)
        .bind(&row.target)
        .bind(&row.arguments)
        .bind(&row.rule)
        .bind(serde_json::to_string(&row.groups)?)
        .bind(row.requested_at.as_millisecond())
        .bind(row.expires_at.as_millisecond())
        .bind(row.wanted.as_ref().map(serde_json::to_string).transpose()?)
        .bind(row.wanted.as_ref().and_then(|wanted| wanted.extends.as_ref()).map(GrantId::as_str))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// One approval.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn approval(&self, id: &ApprovalId) -> Result<Option<ApprovalRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM approvals WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// The newest approval for a binding that is pending or approved and has not lapsed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_approval(
        &self,
        binding: &str,
        now: Timestamp,
    ) -> Result<Option<ApprovalRow>, StoreError> {
        let row = sqlx::query(
            "SELECT * FROM approvals
             WHERE binding = $1 AND state IN ('pending', 'approved') AND expires_at > $2
             ORDER BY requested_at DESC LIMIT 1",
        )
        .bind(binding)
        .bind(now.as_millisecond())
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// The newest approvals, at most `limit`; only those that wait for a decision, if asked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn approvals(
        &self,
        pending_only: bool,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<ApprovalRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM approvals
             WHERE NOT $1 OR (state = 'pending' AND expires_at > $2)
             ORDER BY requested_at DESC LIMIT $3",
        )
        .bind(pending_only)
        .bind(now.as_millisecond())
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Decides a pending approval that has not lapsed. Says whether this was what decided it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn decide_approval(
        &self,
        id: &ApprovalId,
        yes: bool,
        by: &SubjectId,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let state = if yes { ApprovalState::Approved } else { ApprovalState::Denied };
        let done = sqlx::query(
            "UPDATE approvals SET state = $2, decided_by = $3, decided_at = $4, reason = $5
             WHERE id = $1 AND state = 'pending' AND expires_at > $4",
        )
        .bind(id.as_str())
        .bind(state.as_str())
        .bind(by.as_str())
        .bind(now.as_millisecond())
        .bind(reason)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Uses an approval up for one call or grant. Says whether it was there to be used.
    ///
    /// A crash after this and before the call is forwarded, or the grant is there, leaves a used
    /// approval and nothing else: the yes is lost, never doubled.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn use_approval(
        &self,
        id: &ApprovalId,
        by: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE approvals SET state = 'used', used_by = $2
             WHERE id = $1 AND state = 'approved' AND expires_at > $3",
        )
        .bind(id.as_str())
        .bind(by)
        .bind(now.as_millisecond())
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The approvals that have lapsed and are not yet marked so.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lapsed_approvals(&self, now: Timestamp) -> Result<Vec<ApprovalId>, StoreError> {
        let rows = sqlx::query(
            "SELECT id FROM approvals
             WHERE state IN ('pending', 'approved') AND expires_at <= $1",
        )
        .bind(now.as_millisecond())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| parsed(row.try_get("id")?, "approval id")).collect()
    }

    /// Marks an approval as expired. Says whether it was open until then.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn expire_approval(&self, id: &ApprovalId) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE approvals SET state = 'expired'
             WHERE id = $1 AND state IN ('pending', 'approved')",
        )
        .bind(id.as_str())
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}

pub(super) fn read(row: &SqliteRow) -> Result<ApprovalRow, StoreError> {
    let (call, session): (Option<String>, Option<String>) =
        (row.try_get("call")?, row.try_get("session")?);
    let decided_by: Option<String> = row.try_get("decided_by")?;
    let wanted: Option<String> = row.try_get("wanted")?;
    let state: String = row.try_get("state")?;
    Ok(ApprovalRow {
        id: parsed(row.try_get("id")?, "approval id")?,
        binding: row.try_get("binding")?,
        call: call.map(|id| parsed(id, "call id")).transpose()?,
        session: session.map(|id| parsed(id, "session id")).transpose()?,
        subject: parsed(row.try_get("subject")?, "subject id")?,
        connection: parsed(row.try_get("connection")?, "connection name")?,
        action: row.try_get("action")?,
        target: row.try_get("target")?,
        arguments: row.try_get("arguments")?,
        rule: row.try_get("rule")?,
        groups: json(row.try_get("groups")?, "list of groups")?,
        requested_at: time(row.try_get("requested_at")?)?,
        expires_at: time(row.try_get("expires_at")?)?,
        state: ApprovalState::parse(&state)
            .ok_or(StoreError::Unreadable { what: "approval state" })?,
        decided_by: decided_by.map(|id| parsed(id, "subject id")).transpose()?,
        reason: row.try_get("reason")?,
        wanted: wanted.map(|wanted| json(wanted, "request for a grant")).transpose()?,
    })
}
