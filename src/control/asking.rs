//! The part of the desk that has to do with grants: asking for one, waiting for the answer, taking a
//! request back.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;

use super::approvals::ApprovalDesk;
use super::error::ApiError;
use crate::audit::{Entry, Record};
use crate::policy::Wanted;
use crate::policy::connect::Ask;
use crate::store::approvals::{ApprovalRow, ApprovalState};
use crate::types::{ApprovalId, ConnectionName, Subject, Timestamp};

impl ApprovalDesk {
    /// Asks for a yes to a grant, or finds the request that is open for the same.
    pub(super) async fn ask_for_grant(
        &self,
        subject: &Subject,
        connection: ConnectionName,
        wanted: Wanted,
        ask: Ask,
        now: Timestamp,
    ) -> Result<ApprovalRow, ApiError> {
        let binding = wanted.binding(subject, &connection, &ask);
        let _one_at_a_time = self.asking.lock().await;
        if let Some(open) = self.store.open_approval(binding.as_str(), now).await? {
            return Ok(open);
        }
        let id = ApprovalId::generate().map_err(|error| ApiError::internal(&error))?;
        let beyond = |_| ApiError::bad_request("the time asked for is beyond all time");
        let begins = wanted.from.unwrap_or(now);
        let mut expires = begins.checked_add(self.expire).map_err(beyond)?;
        if wanted.from.is_some() {
            // Its end is fixed, and a yes after that would be to nothing.
            let ends = begins.checked_add(SignedDuration::from_secs(wanted.seconds));
            expires = expires.min(ends.map_err(beyond)?);
        }
        let rule = ask.rules.join(", ");
        let mut body = json!({ "subject": subject.identity, "wanted": wanted });
        if let Some(rule) = subject.kind.rule() {
            body["trust_rule"] = json!(rule);
        }
        let record = Record::GrantRequested {
            approval: id.clone(),
            subject: subject.id.clone(),
            connection: connection.clone(),
            rule: rule.clone(),
            from_groups: ask.groups.clone(),
            binding: binding.as_str().to_owned(),
            seconds: wanted.seconds,
            extends: wanted.extends.clone(),
            expires,
        };
        self.recorder.append(Entry { record, body: Some(body.to_string().into()) }).await?;
        let row = ApprovalRow {
            id,
            binding: binding.as_str().to_owned(),
            call: None,
            session: None,
            subject: subject.id.clone(),
            connection,
            action: "connect".to_owned(),
            target: None,
            arguments: "null".to_owned(),
            rule,
            groups: ask.groups,
            requested_at: now,
            expires_at: expires,
            state: ApprovalState::Pending,
            decided_by: None,
            reason: None,
            wanted: Some(wanted),
        };
        self.store.insert_approval(&row).await?;
        Ok(row)
    }

    /// Waits until a request is decided, or over, or `patience` has passed; its row then.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(super) async fn watch(
        &self,
        id: &ApprovalId,
        patience: Duration,
    ) -> Result<Option<ApprovalRow>, ApiError> {
        // Subscribed before looking, so that no decision falls between.
        let mut decided = self.decided.subscribe();
        let until = tokio::time::Instant::now() + patience;
        loop {
            decided.borrow_and_update();
            let row = self.store.approval(id).await?;
            let now = self.clock.now();
            let left = row
                .as_ref()
                .filter(|row| row.state == ApprovalState::Pending && row.expires_at > now)
                .map(|row| row.expires_at.duration_since(now).unsigned_abs());
            let Some(left) = left else { return Ok(row) };
            let end = until.min(tokio::time::Instant::now() + left);
            if tokio::time::timeout_at(end, decided.changed()).await.is_err()
                && tokio::time::Instant::now() >= until
            {
                return Ok(self.store.approval(id).await?);
            }
        }
    }

    /// Takes open requests back, and the yeses that were not used.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(super) async fn void(&self, ids: Vec<ApprovalId>) -> Result<(), ApiError> {
        let _one_at_a_time = self.deciding.lock().await;
        for approval in ids {
            // Not recorded first, as a call or grant may be using it up: what the record says has
            // to be what happened. A crash between the two takes back too much, and not too little.
            if self.store.expire_approval(&approval).await? {
                let record = Record::ApprovalExpired { approval };
                self.recorder.append(Entry { record, body: None }).await?;
            }
        }
        self.decided.send_modify(|count| *count += 1);
        Ok(())
    }
}
