//! Children that work for all sessions of all subjects: one for each protocol era.
//!
//! The server behind such a child cannot tell who calls: whatever it keeps, it keeps for everybody.
//! What it says reaches only whom it belongs to ([`super::shared`]).
//!
//! The legacy era has one handshake for each process. The first session's `initialize` makes it; a
//! later one that says the same version and capabilities is answered with what the server said
//! then, and any other is refused, since the server would take everybody for the first. A child
//! that dies takes all its protocol sessions with it: the handshake is not made anew behind their
//! backs, because the server would have forgotten what they had asked it to keep.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;

use super::child::Child;
use super::desk::Party;
use super::nursery::Nursery;
use super::own::{end_all, protocol_session, stopping};
use super::rewrite::Names;
use super::shared::uri;
use super::{Incoming, UpstreamError};
use crate::mcp::{Kind, Limits, Message, Origin, batch, modern};
use crate::types::SessionId;

/// How long a server may take for its handshake, for which others wait.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// The children, and who uses them.
#[derive(Debug, Default)]
pub(super) struct CommonChildren {
    /// Held while one is started, so that two calls do not start two.
    legacy: AsyncMutex<Option<Arc<Greeted>>>,
    modern: AsyncMutex<Option<Arc<Child>>>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By the protocol session's id.
    legacy: HashMap<String, (SessionId, Arc<Greeted>)>,
    modern: HashSet<SessionId>,
    closed: bool,
}

/// A legacy child after its handshake.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) child: Arc<Child>,
    said: Hello,
    /// What the server answered.
    result: String,
    /// Whether it was told that the handshake is done.
    told: AtomicBool,
}

/// What a client says of itself that decides how a server works with it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Hello {
    #[serde(default, rename = "protocolVersion")]
    version: Value,
    #[serde(default)]
    capabilities: Value,
}

/// What becomes of a legacy message before the child reads it.
pub(super) enum Turn {
    /// It goes on, perhaps under other names.
    On(Message),
    /// It is taken, and goes no further.
    Taken,
    /// It is answered here.
    Answered(Message),
}

impl CommonChildren {
    /// The child of a protocol session.
    pub(super) fn legacy(&self, id: &str) -> Result<Arc<Greeted>, UpstreamError> {
        let kept = self.lock();
        let (_, greeted) = kept.legacy.get(id).ok_or(UpstreamError::SessionGone)?;
        if greeted.child.is_running() {
            Ok(Arc::clone(greeted))
        } else {
            Err(UpstreamError::SessionGone)
        }
    }

    /// Opens a protocol session: its id, if the server agreed, and the answer to `initialize`.
    pub(super) async fn greet(
        &self,
        nursery: &Nursery,
        session: &SessionId,
        message: &Message,
    ) -> Result<(Option<String>, Message), UpstreamError> {
        let hello = Hello::of(message);
        let id = protocol_session()?;
        let mut current = self.legacy.lock().await;
        let running = current.as_ref().filter(|greeted| greeted.child.is_running());
        let (greeted, answer) = match running {
            Some(greeted) if greeted.said == hello => {
                (Arc::clone(greeted), repeat(message, &greeted.result)?)
            }
            Some(_) => return Err(UpstreamError::HandshakeDiffers),
            None => {
                let child = nursery.shared().await?;
                let answer = tokio::time::timeout(HANDSHAKE, handshake(&child, message)).await;
                let answer = answer.map_err(|_| UpstreamError::TimedOut { after: HANDSHAKE })??;
                if modern::negotiated(&answer) == Some(batch::VERSION) {
                    child.take_batches();
                }
                let Some(result) = answer.result().map(str::to_owned) else {
                    // The next client may be more to its liking. Dropped, this one is ended.
                    return Ok((None, answer));
                };
                let told = AtomicBool::new(false);
                (Arc::new(Greeted { child, said: hello, result, told }), answer)
            }
        };
        let mut kept = self.lock();
        if kept.closed {
            return Err(stopping());
        }
        kept.legacy.retain(|_, (_, greeted)| greeted.child.is_running());
        kept.legacy.insert(id.clone(), (session.clone(), Arc::clone(&greeted)));
        *current = Some(greeted);
        Ok((Some(id), answer))
    }

    /// The child for modern messages.
    pub(super) async fn modern(
        &self,
        nursery: &Nursery,
        session: &SessionId,
    ) -> Result<Arc<Child>, UpstreamError> {
        let mut current = self.modern.lock().await;
        let child = match current.as_ref().filter(|child| child.is_running()) {
            Some(child) => Arc::clone(child),
            None => nursery.shared().await?,
        };
        let mut kept = self.lock();
        if kept.closed {
            return Err(stopping());
        }
        kept.modern.insert(session.clone());
        *current = Some(Arc::clone(&child));
        Ok(child)
    }

    /// Ends a protocol session; its child goes on for the others.
    pub(super) async fn end(&self, id: &str) -> Result<(), UpstreamError> {
        let ended = self.lock().legacy.remove(id);
        let (_, greeted) = ended.ok_or(UpstreamError::SessionGone)?;
        greeted.child.desk(|desk| desk.leave(&id.into()));
        self.end_unused().await;
        Ok(())
    }

    /// Ends what was kept for one of our sessions.
    pub(super) async fn end_session(&self, session: &SessionId) {
        let used_modern = {
            let mut kept = self.lock();
            kept.legacy.retain(|id, (owner, greeted)| {
                let keep = owner != session;
                if !keep {
                    greeted.child.desk(|desk| desk.leave(&id.as_str().into()));
                }
                keep
            });
            kept.modern.remove(session)
        };
        if used_modern && let Some(child) = self.modern.lock().await.as_ref() {
            child.desk(|desk| desk.leave(&session.as_str().into()));
        }
        self.end_unused().await;
    }

    /// Ends a child that no session uses any more.
    async fn end_unused(&self) {
        let mut ended = Vec::new();
        let mut legacy = self.legacy.lock().await;
        let mut modern = self.modern.lock().await;
        {
            let kept = self.lock();
            if kept.legacy.is_empty() {
                ended.extend(legacy.take().map(|greeted| Arc::clone(&greeted.child)));
            }
            if kept.modern.is_empty() {
                ended.extend(modern.take());
            }
        }
        drop((legacy, modern));
        end_all(ended).await;
    }

    /// Ends all, for good.
    pub(super) async fn shutdown(&self) {
        *self.lock() = Kept { closed: true, ..Kept::default() };
        self.end_unused().await;
    }

    /// The maps are right after every statement, so poisoned ones are still maps.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hello {
    fn of(message: &Message) -> Self {
        // A struct would take an array by position.
        let params = message.params().filter(|params| params.starts_with('{'));
        params.and_then(|params| serde_json::from_str(params).ok()).unwrap_or_default()
    }
}

impl Greeted {
    /// What becomes of a message of a protocol session.
    ///
    /// # Errors
    /// [`UpstreamError::NotAsked`] for an answer to what was never asked of this client.
    pub(super) fn turn(&self, party: &Party, message: &Message) -> Result<Turn, UpstreamError> {
        let names = Names::of(message);
        let (desk, on) = (&self.child, || Turn::On(message.clone()));
        Ok(match message.kind() {
            Kind::Response { .. } => return Err(UpstreamError::NotAsked),
            Kind::Notification { method } => match method.as_str() {
                "notifications/initialized" if self.told.swap(true, Ordering::Relaxed) => {
                    Turn::Taken
                }
                "notifications/cancelled" => {
                    let told = desk.desk(|desk| desk.cancellation(party, message));
                    told.map_or(Turn::Taken, Turn::On)
                }
                _ => on(),
            },
            Kind::Request { method, .. } => match (method.as_str(), uri(&names)) {
                ("resources/subscribe", Some(uri)) => {
                    if !desk.desk(|desk| desk.watch(party, &uri)) {
                        return Err(UpstreamError::TooManyWatched);
                    }
                    on()
                }
                // As long as others want it, the server goes on telling.
                ("resources/unsubscribe", Some(uri))
                    if !desk.desk(|desk| desk.unwatch(party, &uri)) =>
                {
                    Turn::Answered(repeat(message, "{}")?)
                }
                _ => on(),
            },
        })
    }
}

/// The server's answer to the first `initialize`.
async fn handshake(child: &Child, message: &Message) -> Result<Message, UpstreamError> {
    let mut inbox = child.request(&"handshake".into(), message, false).await?;
    loop {
        match inbox.next().await {
            Some(Ok(Incoming::Message(answer)))
                if matches!(answer.kind(), Kind::Response { .. }) =>
            {
                return Ok(answer);
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => return Err(UpstreamError::BrokeOff { why: "no answer".to_owned() }),
        }
    }
}

/// A result as the answer to another request.
fn repeat(message: &Message, result: &str) -> Result<Message, UpstreamError> {
    let id = message.id().map_or("null", |id| id.as_json());
    let text = Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#));
    let limits = Limits { bytes: usize::MAX, depth: 127 };
    Message::decode(text, Origin::Server, &limits)
        .map_err(|error| UpstreamError::BrokeOff { why: error.to_string() })
}
