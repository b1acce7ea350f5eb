//! Ending grants: on somebody's word, or because what they stood on is gone.
//!
//! Each is on record before it ends. From that moment new calls are refused, and what runs is cut
//! by the data path, which follows its grant; here the time is measured until nothing runs under it
//! any more, and recorded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinHandle;

use super::Control;
use super::error::ApiError;
use super::grants::GrantBook;
use crate::audit::{Entry, Record, Recorder};
use crate::gateway::slots::Slots;
use crate::store::StoreError;
use crate::store::grants::{GrantRow, Which};
use crate::types::{ConnectionName, GrantId, SessionId, Subject, SubjectId, Timestamp};

/// Which grants are to be revoked: exactly one of the first four says so.
#[derive(Deserialize)]
pub struct Revocation {
    grant: Option<GrantId>,
    subject: Option<String>,
    connection: Option<ConnectionName>,
    group: Option<String>,
    reason: Option<String>,
}

impl Revocation {
    /// One grant.
    pub fn of_grant(grant: GrantId, reason: Option<String>) -> Self {
        Self { grant: Some(grant), subject: None, connection: None, group: None, reason }
    }
}

/// How long it took until nothing ran under a grant.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cut {
    /// Calls and streams that were open.
    pub streams: u32,
    /// Milliseconds until the last of them had ended.
    pub millis: u64,
    /// How many had not when nobody waited any longer.
    pub left: u32,
}

/// How long is waited for streams to end before it is recorded that they have not.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(2);

impl Control {
    /// Revokes the live grants that are meant, as far as the subject may.
    ///
    /// # Errors
    /// [`ApiError`]: not theirs to revoke, nothing or too much is named, or it cannot be recorded.
    pub async fn revoke(
        &self,
        by: &Subject,
        what: Revocation,
    ) -> Result<Vec<(GrantRow, Cut)>, ApiError> {
        let since = Instant::now();
        let Revocation { grant, subject, connection, group, reason } = what;
        let reason = reason.map(|reason| self.checked_reason(&reason)).transpose()?;
        let which = match (grant, subject, connection, group) {
            (Some(id), None, None, None) => Which::Grant(id),
            (None, Some(who), None, None) => Which::Subject(who),
            (None, None, Some(name), None) => Which::Connection(name),
            (None, None, None, Some(group)) => Which::Group(group),
            _ => {
                let message = "name one of grant, subject, connection, group";
                return Err(ApiError::bad_request(message));
            }
        };
        if !self.is_operator(by) {
            self.is_their_own(by, &which).await?;
        }
        let body = reason.map(|reason| json!({ "reason": reason }).to_string());
        let closing = self.grants.closing().await;
        // First: a yes that was not used would open again what is closed now.
        self.approvals.void(self.store.requests_to_void(&which).await?).await?;
        let begun = self.clock.now();
        let grants = self.store.live_grants(&which, begun).await?;
        self.record_revoked(by, &grants, body.as_deref()).await?;
        let measured = self.end(&grants, Ok(by), since).await?;
        drop(closing);
        let cuts = measured.await.map_err(|error| ApiError::internal(&error))?;
        let mut revoked: Vec<_> = grants.into_iter().zip(cuts).collect();

        // What was asked for before, and given since. Who asks after it is asked by policy anew.
        let mut late = self.store.live_grants(&which, self.clock.now()).await?;
        late.retain(|grant| grant.issued_at <= begun);
        if !late.is_empty() {
            self.record_revoked(by, &late, body.as_deref()).await?;
            let cuts = self.cut(&late, Ok(by), since).await?;
            revoked.extend(late.into_iter().zip(cuts));
        }
        Ok(revoked)
    }

    async fn record_revoked(
        &self,
        by: &Subject,
        grants: &[GrantRow],
        body: Option<&str>,
    ) -> Result<(), ApiError> {
        // Together, so that they share a sync.
        let records = grants.iter().map(|grant| {
            let record = Record::GrantRevoked { grant: grant.id.clone(), by: by.id.clone() };
            self.recorder.append(Entry { record, body: body.map(|body| body.to_owned().into()) })
        });
        futures_util::future::try_join_all(records).await?;
        Ok(())
    }

    async fn is_their_own(&self, by: &Subject, which: &Which) -> Result<(), ApiError> {
        let own = match which {
            Which::Grant(id) => {
                let grant = self.store.grant(id).await?;
                if grant.is_some_and(|grant| grant.subject.id == by.id) {
                    return Ok(());
                }
                let message = format!("there is no grant {id} that you may revoke");
                return Err(ApiError::not_found(message).of(&by.id));
            }
            // Who may not revoke them does not learn either who there is.
            Which::Subject(who) => self.store.subjects_called(who).await? == [by.id.clone()],
            Which::Connection(_) | Which::Group(_) => false,
        };
        if own {
            return Ok(());
        }
        let message = "only operators revoke the grants of others";
        Err(ApiError::forbidden(message).of(&by.id))
    }

    /// Ends a grant whose renewal policy refuses, and gives the refusal back.
    pub(super) async fn ended(&self, grant: &GrantRow, refusal: ApiError) -> ApiError {
        let since = Instant::now();
        let record = Record::GrantEnded {
            grant: grant.id.clone(),
            subject: grant.subject.id.clone(),
            code: refusal.code.to_owned(),
        };
        if let Err(error) = self.recorder.append(Entry { record, body: None }).await {
            return error.into();
        }
        match self.cut(std::slice::from_ref(grant), Err(refusal.code), since).await {
            Ok(_) => refusal,
            Err(error) => error,
        }
    }

    /// Ends grants that are on record as ended, and waits until nothing runs under them. That is
    /// recorded also where nobody waits for it any more.
    async fn cut(
        &self,
        grants: &[GrantRow],
        by: Result<&Subject, &str>,
        since: Instant,
    ) -> Result<Vec<Cut>, ApiError> {
        let measured = self.end(grants, by, since).await?;
        measured.await.map_err(|error| ApiError::internal(&error))
    }

    /// Ends grants that are on record as ended, and waits for nothing more.
    async fn end(
        &self,
        grants: &[GrantRow],
        by: Result<&Subject, &str>,
        since: Instant,
    ) -> Result<JoinHandle<Vec<Cut>>, ApiError> {
        let by = by.map(|by| &by.id);
        let since = (since, self.clock.now());
        Ok(cut(&self.grants, &self.slots, &self.recorder, grants, by, since).await?)
    }
}

/// Ends grants that are on record as ended; what is given is done once nothing runs under them, and
/// that is on record.
pub(super) async fn cut(
    book: &GrantBook,
    slots: &Arc<Slots>,
    recorder: &Recorder,
    grants: &[GrantRow],
    by: Result<&SubjectId, &str>,
    (since, now): (Instant, Timestamp),
) -> Result<JoinHandle<Vec<Cut>>, StoreError> {
    let open: Vec<_> = grants
        .iter()
        .map(|grant| (grant.id.clone(), grant.session.clone(), slots.open(&grant.session)))
        .collect();
    let ids: Vec<_> = grants.iter().map(|grant| &grant.id).collect();
    book.end(&ids, by, now).await?;
    let (slots, recorder) = (Arc::clone(slots), recorder.clone());
    Ok(tokio::spawn(async move {
        let each = open.into_iter().map(|open| measure(&slots, &recorder, open, since));
        futures_util::future::join_all(each).await
    }))
}

async fn measure(
    slots: &Slots,
    recorder: &Recorder,
    (grant, session, open): (GrantId, SessionId, usize),
    since: Instant,
) -> Cut {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while slots.open(&session) > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let cut = Cut {
        streams: count(open),
        millis: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        left: count(slots.open(&session)),
    };
    if cut.left > 0 {
        tracing::error!(%grant, left = cut.left, "streams outlive their grant");
    }
    let Cut { streams, millis, left } = cut;
    let record = Record::RevocationEnforced { grant, streams, millis, left };
    if let Err(error) = recorder.append(Entry { record, body: None }).await {
        tracing::error!(%error, "that a revocation took effect could not be recorded");
    }
    cut
}
