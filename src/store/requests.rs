//! Requests for grants, which are approvals of a kind of their own: found by who asks for what.

use super::approvals::{ApprovalRow, read};
use super::{Store, StoreError, parsed};
use crate::types::{ApprovalId, ConnectionName, GrantId, SubjectId, Timestamp};
use sqlx::Row as _;

impl Store {
    /// The open requests of a subject for a new grant on a connection, the newest first: pending,
    /// or approved and not used yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_requests(
        &self,
        subject: &SubjectId,
        connection: &ConnectionName,
        now: Timestamp,
    ) -> Result<Vec<ApprovalRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM approvals
             WHERE subject = $1 AND connection = $2 AND wanted IS NOT NULL AND extends IS NULL
               AND state IN ('pending', 'approved') AND expires_at > $3
             ORDER BY requested_at DESC",
        )
        .bind(subject.as_str())
        .bind(connection.as_str())
        .bind(now.as_millisecond())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// The open requests for grants, the newest first; of one subject only, if given.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn requests(
        &self,
        of: Option<&SubjectId>,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<ApprovalRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM approvals
             WHERE wanted IS NOT NULL AND ($1 IS NULL OR subject = $1)
               AND state IN ('pending', 'approved') AND expires_at > $2
             ORDER BY requested_at DESC LIMIT $3",
        )
        .bind(of.map(SubjectId::as_str))
        .bind(now.as_millisecond())
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// A yes to let a grant live longer that has not been used yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn yes_to_extend(
        &self,
        grant: &GrantId,
        now: Timestamp,
    ) -> Result<Option<ApprovalRow>, StoreError> {
        let row = sqlx::query(
            "SELECT * FROM approvals
             WHERE extends = $1 AND state = 'approved' AND expires_at > $2
             ORDER BY requested_at LIMIT 1",
        )
        .bind(grant.as_str())
        .bind(now.as_millisecond())
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// The open requests of a subject, or for a connection, which a revocation takes with it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn requests_to_void(
        &self,
        subject: Option<&SubjectId>,
        connection: Option<&ConnectionName>,
    ) -> Result<Vec<ApprovalId>, StoreError> {
        let rows = sqlx::query(
            "SELECT id FROM approvals
             WHERE wanted IS NOT NULL AND state IN ('pending', 'approved')
               AND (subject = $1 OR connection = $2)",
        )
        .bind(subject.map(SubjectId::as_str))
        .bind(connection.map(ConnectionName::as_str))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| parsed(row.try_get("id")?, "approval id")).collect()
    }
}
