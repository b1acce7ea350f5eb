//! Asking people: requests for approval, decisions, and the one use of each yes.
//!
//! Every step is on record before it takes effect. What a crash leaves: a request on record that
//! is not in the database is asked again by the same call; a decision on record that is not in
//! the database is simply made again; a yes that was used up and never led to a call is lost,
//! never doubled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use tokio::sync::{Mutex, watch};

use super::error::ApiError;
use super::in_any;
use crate::audit::{Entry, Record, Recorder};
use crate::gateway::ports::{Answer, Approvals, PortError};
use crate::policy::approval::is_bound;
use crate::policy::{Approved, Binding, Need};
use crate::store::Store;
use crate::store::approvals::{ApprovalRow, ApprovalState};
use crate::types::{ApprovalId, CallId, Clock, Subject, Timestamp};

/// The requests for approval.
pub struct ApprovalDesk {
    pub(super) store: Store,
    pub(super) recorder: Recorder,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) expire: Duration,
    /// Goes up whenever anything is decided; who waits looks again.
    pub(super) decided: watch::Sender<u64>,
    /// Decisions are made one at a time, so that what is recorded is what happens.
    pub(super) deciding: Mutex<()>,
    /// Asking is done one at a time, so that one call or grant has one open request.
    pub(super) asking: Mutex<()>,
}

fn failed(error: impl std::error::Error) -> PortError {
    PortError(error.to_string())
}

impl ApprovalDesk {
    /// A desk whose requests lapse after `expire`.
    pub fn new(store: Store, recorder: Recorder, clock: Arc<dyn Clock>, expire: Duration) -> Self {
        let (decided, _) = watch::channel(0);
        let (deciding, asking) = (Mutex::default(), Mutex::default());
        Self { store, recorder, clock, expire, decided, deciding, asking }
    }

    async fn open_or_new(&self, need: &Need) -> Result<ApprovalId, PortError> {
        let _one_at_a_time = self.asking.lock().await;
        let now = self.clock.now();
        let binding = need.binding.as_str();
        if let Some(open) = self.store.open_approval(binding, now).await.map_err(failed)? {
            return Ok(open.id);
        }
        let id = ApprovalId::generate().map_err(failed)?;
        let expires = now.checked_add(self.expire).map_err(failed)?;
        let call = &need.call;
        let rule = need.rules.join(", ");
        let arguments = shown_params(&call.shown);
        let body = serde_json::json!({
            "action": call.action(), "target": call.target().name(), "arguments": arguments,
        });
        let entry = Entry {
            record: Record::ApprovalRequested {
                approval: id.clone(),
                call: call.id.clone(),
                session: call.session.clone(),
                subject: call.subject.id.clone(),
                connection: call.connection.clone(),
                rule: rule.clone(),
                from_groups: need.groups.clone(),
                binding: binding.to_owned(),
                expires,
            },
            body: Some(body.to_string().into()),
        };
        self.recorder.append(entry).await.map_err(failed)?;
        let row = ApprovalRow {
            id: id.clone(),
            binding: binding.to_owned(),
            call: Some(call.id.clone()),
            session: Some(call.session.clone()),
            subject: call.subject.id.clone(),
            connection: call.connection.clone(),
            action: call.action().to_owned(),
            target: call.target().name().map(str::to_owned),
            arguments: arguments.map_or_else(|| "null".to_owned(), |raw| raw.get().to_owned()),
            rule,
            groups: need.groups.clone(),
            requested_at: now,
            expires_at: expires,
            state: ApprovalState::Pending,
            decided_by: None,
            reason: None,
            wanted: None,
        };
        self.store.insert_approval(&row).await.map_err(failed)?;
        Ok(id)
    }

    async fn wait(
        &self,
        id: &ApprovalId,
        call: &CallId,
        until: Timestamp,
    ) -> Result<Answer, PortError> {
        // Subscribed before looking, so that no decision falls between.
        let mut decided = self.decided.subscribe();
        loop {
            decided.borrow_and_update();
            let Some(row) = self.store.approval(id).await.map_err(failed)? else {
                return Ok(Answer::Expired);
            };
            let now = self.clock.now();
            match row.state {
                ApprovalState::Used => return Ok(Answer::Taken),
                ApprovalState::Denied => return Ok(Answer::No { reason: row.reason }),
                _ if row.expires_at <= now => return Ok(Answer::Expired),
                ApprovalState::Expired => return Ok(Answer::Expired),
                ApprovalState::Approved => return self.use_up(row, call, now).await,
                ApprovalState::Pending => {}
            }
            let next = until.min(row.expires_at);
            let left = Duration::try_from(next.duration_since(now)).unwrap_or_default();
            if left.is_zero() {
                return Ok(Answer::Pending);
            }
            let _changed_or_time = tokio::time::timeout(left, decided.changed()).await;
        }
    }

    async fn use_up(
        &self,
        row: ApprovalRow,
        call: &CallId,
        now: Timestamp,
    ) -> Result<Answer, PortError> {
        let Some(by) = row.decided_by else {
            return Err(PortError(format!("approval {} has no approver", row.id)));
        };
        if !self.store.use_approval(&row.id, call.as_str(), now).await.map_err(failed)? {
            return Ok(Answer::Taken);
        }
        let record = Record::ApprovalUsed { approval: row.id.clone(), call: call.clone() };
        self.recorder.append(Entry { record, body: None }).await.map_err(failed)?;
        let binding = Binding::from_stored(row.binding);
        Ok(Answer::Yes(Approved { id: row.id, binding, by }))
    }

    /// Decides a request, for a subject who may.
    ///
    /// # Errors
    /// [`ApiError`]: not there, not pending, not theirs to decide.
    pub async fn decide(
        &self,
        id: &ApprovalId,
        by: &Subject,
        yes: bool,
        reason: Option<&str>,
    ) -> Result<ApprovalRow, ApiError> {
        let _one_at_a_time = self.deciding.lock().await;
        let now = self.clock.now();
        let row = self.store.approval(id).await?.ok_or_else(|| no_approval(id))?;
        let requester = self.store.label(&row.subject).await?;
        if !by.kind.is_person() {
            let status = StatusCode::FORBIDDEN;
            return Err(ApiError::new(status, "access_denied", "not_a_person", ONLY_PEOPLE)
                .of(&by.id)
                .at(&row.connection));
        }
        if let Some(why) = why_not(&row, by, &requester) {
            return Err(ApiError::forbidden(why).of(&by.id).at(&row.connection));
        }
        let state = if row.expires_at <= now { ApprovalState::Expired } else { row.state };
        if state != ApprovalState::Pending {
            let (code, how) = match state {
                ApprovalState::Expired => ("approval_expired", "has expired"),
                ApprovalState::Denied => ("approval_denied", "was denied already"),
                ApprovalState::Used => ("approval_used", "was approved and used already"),
                _ => ("approval_decided", "was approved already"),
            };
            let message = format!("approval {id} {how}");
            return Err(ApiError::new(StatusCode::CONFLICT, "invalid_request", code, message));
        }
        let entry = Entry {
            record: Record::ApprovalDecided {
                approval: id.clone(),
                by: by.id.clone(),
                approved: yes,
            },
            body: reason.map(|reason| serde_json::json!({ "reason": reason }).to_string().into()),
        };
        self.recorder.append(entry).await?;
        if !self.store.decide_approval(id, yes, &by.id, reason, now).await? {
            let message = format!("approval {id} changed meanwhile; look again");
            let code = "approval_changed";
            return Err(ApiError::new(StatusCode::CONFLICT, "invalid_request", code, message));
        }
        self.decided.send_modify(|count| *count += 1);
        self.store.approval(id).await?.ok_or_else(|| no_approval(id))
    }

    /// Records and marks what has lapsed.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn sweep(&self) -> Result<(), ApiError> {
        // What has lapsed can be neither decided nor used, so nothing changes between the steps.
        for approval in self.store.lapsed_approvals(self.clock.now()).await? {
            let record = Record::ApprovalExpired { approval: approval.clone() };
            self.recorder.append(Entry { record, body: None }).await?;
            self.store.expire_approval(&approval).await?;
        }
        Ok(())
    }
}

fn no_approval(id: &ApprovalId) -> ApiError {
    ApiError::not_found(format!("there is no approval {id}"))
        .hint("`mcpx approve` lists what waits for you")
}

/// Why a subject may not decide a request; `None` if they may.
///
/// Only people decide: a yes is a person's judgement, and a job has none, whatever its groups are.
///
/// Nobody approves their own call, under whichever of their accounts: an issuer's e-mail address
/// decides nothing in favour of anybody, but equal addresses are enough to refuse.
pub fn why_not(row: &ApprovalRow, by: &Subject, requester: &str) -> Option<String> {
    if !by.kind.is_person() {
        return Some(ONLY_PEOPLE.to_owned());
    }
    let same_mailbox =
        by.identity.email.as_deref().is_some_and(|email| email.eq_ignore_ascii_case(requester));
    if row.subject == by.id || same_mailbox {
        let what = if row.wanted.is_some() { "request" } else { "call" };
        return Some(format!("nobody can approve their own {what}"));
    }
    if !in_any(by, &row.groups) {
        let groups = row.groups.join(" or ");
        return Some(format!("only members of {groups} can decide this"));
    }
    None
}

const ONLY_PEOPLE: &str = "only people decide; a job's token approves and denies nothing";

/// What an approver decides on, of a masked message: its arguments, where they are all that a yes
/// is bound to, or else all of its parameters that are.
fn shown_params(shown: &[u8]) -> Option<Box<RawValue>> {
    type Members = BTreeMap<String, Box<RawValue>>;
    #[derive(serde::Deserialize)]
    struct Shown {
        params: Option<Box<RawValue>>,
    }
    let shown: Shown = serde_json::from_slice(shown).ok()?;
    let params = shown.params?;
    let Ok(mut members) = serde_json::from_str::<Members>(params.get()) else {
        return Some(params);
    };
    let meta =
        members.get("_meta").and_then(|meta| serde_json::from_str::<Members>(meta.get()).ok());
    if let Some(mut meta) = meta {
        meta.retain(|key, _| is_bound(key));
        if meta.is_empty() {
            members.remove("_meta");
        } else {
            members.insert("_meta".to_owned(), serde_json::value::to_raw_value(&meta).ok()?);
        }
    }
    // The name stands beside the parameters, as the target.
    let only_arguments = members.keys().all(|key| matches!(key.as_str(), "name" | "arguments"));
    if only_arguments && let Some(arguments) = members.remove("arguments") {
        return Some(arguments);
    }
    serde_json::value::to_raw_value(&members).ok()
}

impl Approvals for ApprovalDesk {
    fn ask<'a>(&'a self, need: &'a Need) -> BoxFuture<'a, Result<ApprovalId, PortError>> {
        Box::pin(self.open_or_new(need))
    }

    fn answer<'a>(
        &'a self,
        id: &'a ApprovalId,
        call: &'a CallId,
        until: Timestamp,
    ) -> BoxFuture<'a, Result<Answer, PortError>> {
        Box::pin(self.wait(id, call, until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_approver_sees_all_that_a_yes_is_bound_to() {
        let shown = |params: &str| {
            let message = format!(r#"{{"params":{params}}}"#);
            shown_params(message.as_bytes()).map(|raw| raw.get().to_owned())
        };
        let arguments = r#"{"n":12345678901234567890123}"#;
        let plain =
            format!(r#"{{"name":"t","arguments":{arguments},"_meta":{{"progressToken":1}}}}"#);
        assert_eq!(shown(&plain).as_deref(), Some(arguments));
        for more in [r#""_meta":{"x/tenant":"b","progressToken":1}"#, r#""task":{"ttl":1}"#] {
            let all = shown(&format!(r#"{{"name":"t","arguments":{arguments},{more}}}"#)).unwrap();
            assert!(all.contains(arguments), "{all}");
            assert!(all.contains("tenant") || all.contains("ttl"), "{all}");
            assert!(!all.contains("progressToken"), "{all}");
        }
    }
}
