//! Grants that are in use: found fast for every call, renewed, revoked at once.
//!
//! The database holds them; this book holds those that were used since the server started, each
//! with a watch that running streams follow. A revocation is durable in log and database before
//! it is announced, and every stream under it ends on the announcement.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, watch};

use crate::gateway::ports::{GrantState, Grants, LiveGrant, PortError};
use crate::store::grants::GrantRow;
use crate::store::{Store, StoreError};
use crate::types::{ConnectionName, GrantId, SessionId, Subject, SubjectId, Timestamp};

/// The grants in use.
pub struct GrantBook {
    store: Store,
    open: Mutex<HashMap<GrantId, Kept>>,
    giving: RwLock<()>,
}

struct Kept {
    live: LiveGrant,
    announce: watch::Sender<GrantState>,
}

impl GrantBook {
    /// An empty book over a database.
    pub fn new(store: Store) -> Self {
        Self { store, open: Mutex::default(), giving: RwLock::default() }
    }

    /// To be held while a grant is given: from when its yes is used up until it is kept.
    pub(super) async fn giving(&self) -> RwLockReadGuard<'_, ()> {
        self.giving.read().await
    }

    /// To be held while a revocation takes effect: what is being given then is kept before, or not
    /// begun.
    pub(super) async fn closing(&self) -> RwLockWriteGuard<'_, ()> {
        self.giving.write().await
    }

    /// Keeps a new grant.
    ///
    /// # Errors
    /// [`StoreError`]; the grant does not exist then.
    pub async fn add(&self, row: &GrantRow) -> Result<(), StoreError> {
        // Before it can be revoked, so that a revocation finds whom to announce itself to.
        self.keep(row);
        let inserted = self.store.insert_grant(row).await;
        if inserted.is_err() {
            self.lock().remove(&row.id);
        }
        inserted
    }

    /// Renews a grant. Says whether it was still there to be renewed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn renew(
        &self,
        id: &GrantId,
        expires_at: Timestamp,
        subject: &Subject,
    ) -> Result<bool, StoreError> {
        let groups = &subject.identity.groups;
        if !self.store.renew_grant(id, expires_at, groups).await? {
            return Ok(false);
        }
        if let Some(kept) = self.lock().get_mut(id) {
            // Calls from now on are judged by the groups that the issuer vouches for now.
            kept.live.subject = Arc::new(subject.clone());
            kept.announce.send_modify(|state| state.expires_at = expires_at);
        }
        Ok(true)
    }

    /// Ends grants and what runs under them: by somebody, or for a reason of ours.
    ///
    /// # Errors
    /// [`StoreError`]; all of them go on then.
    pub async fn end(
        &self,
        ids: &[&GrantId],
        by: Result<&SubjectId, &str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.store.end_grants(ids, by, now).await?;
        let open = self.lock();
        for kept in ids.iter().filter_map(|id| open.get(id)) {
            kept.announce.send_modify(|state| state.revoked = true);
        }
        Ok(())
    }

    /// Forgets the grants that are over, and gives their sessions, so that what upstreams keep
    /// for them can be ended.
    pub fn sweep(&self, now: Timestamp) -> Vec<(ConnectionName, SessionId)> {
        let mut over = Vec::new();
        self.lock().retain(|_, kept| {
            let ended = kept.live.has_ended(now).is_some();
            if ended {
                over.push((kept.live.connection.clone(), kept.live.session.clone()));
            }
            !ended
        });
        over
    }

    fn keep(&self, row: &GrantRow) -> LiveGrant {
        let mut open = self.lock();
        let kept = open.entry(row.id.clone()).or_insert_with(|| {
            let state =
                GrantState { expires_at: row.expires_at, revoked: row.revoked_at.is_some() };
            let (announce, state) = watch::channel(state);
            let live = LiveGrant {
                id: row.id.clone(),
                session: row.session.clone(),
                subject: Arc::new(row.subject.clone()),
                connection: row.connection.clone(),
                issued_at: row.issued_at,
                reason: row.reason.clone(),
                scope: row.scope.clone(),
                state,
            };
            Kept { live, announce }
        });
        kept.live.clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GrantId, Kept>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grants for GrantBook {
    fn find<'a>(&'a self, id: &'a GrantId) -> BoxFuture<'a, Result<Option<LiveGrant>, PortError>> {
        Box::pin(async move {
            if let Some(kept) = self.lock().get(id) {
                return Ok(Some(kept.live.clone()));
            }
            let read =
                async || self.store.grant(id).await.map_err(|error| PortError(error.to_string()));
            let Some(row) = read().await? else { return Ok(None) };
            self.keep(&row);
            // What changed since that row was read found nothing here to announce itself to.
            let newer = read().await?;
            let mut open = self.lock();
            let Some(kept) = open.get_mut(id) else { return Ok(None) };
            match newer {
                None => kept.announce.send_modify(|state| state.revoked = true),
                Some(row) => {
                    kept.live.subject = Arc::new(row.subject);
                    kept.announce.send_modify(|state| {
                        state.expires_at = row.expires_at;
                        state.revoked |= row.revoked_at.is_some();
                    });
                }
            }
            Ok(Some(kept.live.clone()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::grants::Which;
    use crate::types::Identity;

    async fn book() -> (tempfile::TempDir, Store, Arc<GrantBook>, GrantRow) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("mcpx.db")).await.unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let identity =
            Identity { issuer: "i".into(), sub: "s".into(), email: None, groups: vec![] };
        let row = GrantRow {
            id: GrantId::generate().unwrap(),
            session: SessionId::generate().unwrap(),
            subject: store.subject(identity, now).await.unwrap(),
            connection: "crm".parse().unwrap(),
            thumbprint: "k".to_owned(),
            reason: None,
            issued_at: now,
            expires_at: now + Duration::from_secs(60),
            ends_at: now + Duration::from_secs(60),
            revoked_at: None,
            ended_by: None,
            scope: Default::default(),
            approval: None,
            approver: None,
        };
        let book = Arc::new(GrantBook::new(store.clone()));
        (folder, store, book, row)
    }

    #[tokio::test]
    async fn a_revocation_reaches_a_grant_that_was_just_written() {
        let (_folder, store, book, row) = book().await;
        for _ in 0..40 {
            let row = GrantRow {
                id: GrantId::generate().unwrap(),
                session: SessionId::generate().unwrap(),
                ..row.clone()
            };
            let adding = {
                let (book, row) = (Arc::clone(&book), row.clone());
                async move { book.add(&row).await.unwrap() }
            };
            let revoking = async {
                while store
                    .live_grants(&Which::Grant(row.id.clone()), row.issued_at)
                    .await
                    .unwrap()
                    .is_empty()
                {
                    tokio::task::yield_now().await;
                }
                book.end(&[&row.id], Err("test"), row.issued_at).await.unwrap();
            };
            tokio::join!(revoking, adding);
            let live = book.find(&row.id).await.unwrap().unwrap();
            assert!(live.state.borrow().revoked);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_not_kept() {
        let (_folder, _store, book, row) = book().await;
        book.add(&row).await.unwrap();
        // A session has one grant.
        let second = GrantRow { id: GrantId::generate().unwrap(), ..row };
        assert!(book.add(&second).await.is_err());
        assert!(book.find(&second.id).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_revocation_waits_for_what_is_being_given() {
        let (_folder, _store, book, _row) = book().await;
        let giving = book.giving().await;
        let soon = Duration::from_millis(10);
        assert!(tokio::time::timeout(soon, book.closing()).await.is_err());
        drop(giving);
        let _closing = book.closing().await;
        assert!(tokio::time::timeout(soon, book.giving()).await.is_err());
    }
}
