//! Children that work for one session each.
//!
//! In the legacy era every `initialize` gets a child of its own, named by a session id that is made
//! up here, as a Streamable HTTP server would. A child that died has forgotten its `initialize`, so
//! its protocol session is over. In the modern era, which has no sessions, the children of one
//! mcpx session form a pool, and a request whose id is in flight on one child goes to another: two
//! clients behind one local port may well use the same ids.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

use super::UpstreamError;
use super::child::Child;
use super::nursery::Nursery;
use crate::mcp::Message;
use crate::types::{SessionId, SubjectId, random};

/// A modern session's children. Held while one is started, so that two calls do not start two.
type Pool = Arc<AsyncMutex<Vec<Arc<Child>>>>;

/// The children by session.
#[derive(Debug, Default)]
pub(super) struct OwnChildren {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By the protocol session's id.
    legacy: HashMap<String, (SessionId, Arc<Child>)>,
    modern: HashMap<SessionId, Pool>,
    closed: bool,
}

impl OwnChildren {
    /// The child of a protocol session.
    pub(super) fn legacy(&self, id: &str) -> Result<Arc<Child>, UpstreamError> {
        let kept = self.lock();
        let (_, child) = kept.legacy.get(id).ok_or(UpstreamError::SessionGone)?;
        if child.is_running() { Ok(Arc::clone(child)) } else { Err(UpstreamError::SessionGone) }
    }

    /// A child for a new protocol session, and that session's id.
    pub(super) async fn greet(
        &self,
        nursery: &Nursery,
        subject: &SubjectId,
        session: &SessionId,
    ) -> Result<(String, Arc<Child>), UpstreamError> {
        let id = protocol_session()?;
        let child = nursery.own(subject, session).await?;
        let mut kept = self.lock();
        if kept.closed {
            // Dropped, it is ended.
            return Err(stopping());
        }
        kept.legacy.retain(|_, (_, child)| child.is_running());
        kept.legacy.insert(id.clone(), (session.clone(), Arc::clone(&child)));
        Ok((id, child))
    }

    /// A child for a modern message.
    pub(super) async fn modern(
        &self,
        nursery: &Nursery,
        message: &Message,
        subject: &SubjectId,
        session: &SessionId,
    ) -> Result<Arc<Child>, UpstreamError> {
        let pool = {
            let mut kept = self.lock();
            if kept.closed {
                return Err(stopping());
            }
            Arc::clone(kept.modern.entry(session.clone()).or_default())
        };
        let mut pool = pool.lock().await;
        pool.retain(|child| child.is_running());
        let takes = |child: &&Arc<Child>| {
            message.id().is_none_or(|id| !child.desk(|desk| desk.has_pending(id)))
        };
        if let Some(child) = pool.iter().find(takes) {
            return Ok(Arc::clone(child));
        }
        let child = nursery.own(subject, session).await?;
        pool.push(Arc::clone(&child));
        Ok(child)
    }

    /// Ends a protocol session.
    pub(super) async fn end(&self, id: &str) -> Result<(), UpstreamError> {
        let ended = self.lock().legacy.remove(id);
        let (_, child) = ended.ok_or(UpstreamError::SessionGone)?;
        child.end().await;
        Ok(())
    }

    /// Ends what was kept for one of our sessions.
    pub(super) async fn end_session(&self, session: &SessionId) {
        let mut ended = Vec::new();
        let pool = {
            let mut kept = self.lock();
            kept.legacy.retain(|_, (owner, child)| {
                let keep = owner != session;
                if !keep {
                    ended.push(Arc::clone(child));
                }
                keep
            });
            kept.modern.remove(session)
        };
        if let Some(pool) = pool {
            ended.append(&mut *pool.lock().await);
        }
        end_all(ended).await;
    }

    /// Ends all, for good.
    pub(super) async fn shutdown(&self) {
        let kept = std::mem::replace(&mut *self.lock(), Kept { closed: true, ..Kept::default() });
        let mut ended: Vec<_> = kept.legacy.into_values().map(|(_, child)| child).collect();
        for pool in kept.modern.into_values() {
            ended.append(&mut *pool.lock().await);
        }
        end_all(ended).await;
    }

    /// The maps are right after every statement, so poisoned ones are still maps.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new protocol session's id.
pub(super) fn protocol_session() -> Result<String, UpstreamError> {
    let bytes: [u8; 16] =
        random().map_err(|error| UpstreamError::CannotStart { why: error.to_string() })?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

pub(super) fn stopping() -> UpstreamError {
    UpstreamError::CannotStart { why: "the gateway stops".to_owned() }
}

pub(super) async fn end_all(children: Vec<Arc<Child>>) {
    futures_util::future::join_all(children.iter().map(|child| child.end())).await;
}
