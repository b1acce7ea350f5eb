//! An MCP server that runs as a child process: how its children are kept.
//!
//! In the legacy era every `initialize` gets a child of its own, named by a session id that this
//! module makes up, as a Streamable HTTP server would. In the modern era, which has no sessions,
//! the children of one mcpx session form a pool, and a request whose id is in flight on one child
//! goes to another: two clients behind one local port may well use the same ids. Argument lists
//! come from the server's configuration only.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Mutex;

use super::child::{self, Child};
use super::{Answer, Body, EventSource, Events, Route, UpstreamError};
use crate::audit::Durable;
use crate::mcp::{Kind, Limits, Message, batch, headers, modern};
use crate::policy::{Act, Permit};
use crate::types::{Secret, SessionId, random};

/// Masks one line of a child's stderr for the log.
pub type Quiet = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// How to start a child.
#[derive(Clone)]
pub struct Launch {
    /// The connection's name, for the log.
    pub name: String,
    /// The program, by absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its whole environment.
    pub environment: Vec<(String, Secret)>,
    /// The folder it starts in; the server's own if none.
    pub folder: Option<PathBuf>,
    /// What its stderr passes through before it reaches a log.
    pub quiet: Quiet,
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch")
            .field("name", &self.name)
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// An MCP server on stdio.
#[derive(Debug)]
pub struct StdioUpstream {
    launch: Launch,
    limits: Limits,
    most: usize,
    children: Mutex<Children>,
}

#[derive(Debug, Default)]
struct Children {
    /// By our session and the protocol session's id.
    legacy: HashMap<String, (SessionId, Arc<Child>)>,
    modern: HashMap<SessionId, Vec<Arc<Child>>>,
}

impl Children {
    fn forget_ended(&mut self) {
        self.legacy.retain(|_, (_, child)| child.is_running());
        for pool in self.modern.values_mut() {
            pool.retain(|child| child.is_running());
        }
        self.modern.retain(|_, pool| !pool.is_empty());
    }

    fn count(&self) -> usize {
        self.legacy.len() + self.modern.values().map(Vec::len).sum::<usize>()
    }
}

impl StdioUpstream {
    /// An upstream whose children are started by `launch`, at most `most` at a time.
    pub fn new(launch: Launch, limits: Limits, most: usize) -> Self {
        Self { launch, limits, most, children: Mutex::default() }
    }

    pub(super) async fn forward(
        &self,
        permit: &Durable<Permit>,
        route: &Route,
    ) -> Result<Answer, UpstreamError> {
        match &permit.get().call().act {
            Act::Message(message) => self.message(message, route).await,
            Act::Listen => {
                let inbox = self.legacy_child(route).await?.listen()?;
                Ok(stream(Events {
                    ahead: std::collections::VecDeque::new(),
                    source: EventSource::Child(inbox),
                }))
            }
            Act::End => {
                let id = route.protocol_session.as_ref().ok_or(UpstreamError::SessionNeeded)?;
                let ended = self.children.lock().await.legacy.remove(id);
                let (_, child) = ended.ok_or(UpstreamError::SessionGone)?;
                child.end().await;
                Ok(empty(StatusCode::OK))
            }
        }
    }

    async fn message(&self, message: &Message, route: &Route) -> Result<Answer, UpstreamError> {
        let mut new_session = None;
        // The gateway has seen to it that header and body name the same version.
        let modern = route.protocol_session.is_none() && modern::is_modern(None, message);
        let child = if modern {
            self.modern_child(message, route).await?
        } else if route.protocol_session.is_some() {
            self.legacy_child(route).await?
        } else if message.method() == Some("initialize") {
            let (id, child) = self.new_legacy_child(route).await?;
            new_session = Some(id);
            child
        } else {
            return Err(UpstreamError::SessionNeeded);
        };

        let Kind::Request { .. } = message.kind() else {
            child.send(message).await?;
            return Ok(empty(StatusCode::ACCEPTED));
        };
        let mut inbox = child.request(message, modern).await?;
        let Some(first) = inbox.next().await.transpose()? else { return Ok(stream_end()) };
        let settled = child::decode(&first).filter(|_| new_session.is_some());
        if settled.and_then(|answer| modern::negotiated(&answer)) == Some(batch::VERSION) {
            child.take_batches();
        }
        let mut answer = if child::is_answer(&first) {
            inbox.finish();
            let status = if modern { modern_status(&first) } else { StatusCode::OK };
            Answer { status, headers: json_headers(), body: Body::Message(first) }
        } else {
            let ahead = child::as_event(&first).map(Ok).into_iter().collect();
            stream(Events { ahead, source: EventSource::Child(inbox) })
        };
        if let Some(value) = new_session.and_then(|id| HeaderValue::from_str(&id).ok()) {
            answer.headers.insert(headers::SESSION_ID, value);
        }
        Ok(answer)
    }

    async fn legacy_child(&self, route: &Route) -> Result<Arc<Child>, UpstreamError> {
        let Some(id) = &route.protocol_session else { return Err(UpstreamError::NotOffered) };
        let children = self.children.lock().await;
        let (_, child) = children.legacy.get(id).ok_or(UpstreamError::SessionGone)?;
        if child.is_running() { Ok(Arc::clone(child)) } else { Err(UpstreamError::SessionGone) }
    }

    async fn new_legacy_child(&self, route: &Route) -> Result<(String, Arc<Child>), UpstreamError> {
        let bytes: [u8; 16] =
            random().map_err(|error| UpstreamError::CannotStart { why: error.to_string() })?;
        let id = u128::from_be_bytes(bytes);
        let id = format!("{id:032x}");
        let mut children = self.children.lock().await;
        let child = self.start(&mut children)?;
        children.legacy.insert(id.clone(), (route.session.clone(), Arc::clone(&child)));
        Ok((id, child))
    }

    async fn modern_child(
        &self,
        message: &Message,
        route: &Route,
    ) -> Result<Arc<Child>, UpstreamError> {
        let mut children = self.children.lock().await;
        let pool = children.modern.get(&route.session).map_or(&[][..], Vec::as_slice);
        let free = pool.iter().find(|child| {
            child.is_running() && message.id().is_none_or(|id| !child.has_pending(id))
        });
        if let Some(child) = free {
            return Ok(Arc::clone(child));
        }
        let child = self.start(&mut children)?;
        children.modern.entry(route.session.clone()).or_default().push(Arc::clone(&child));
        Ok(child)
    }

    fn start(&self, children: &mut Children) -> Result<Arc<Child>, UpstreamError> {
        children.forget_ended();
        if children.count() >= self.most {
            return Err(UpstreamError::TooManyChildren { limit: self.most });
        }
        Child::start(&self.launch, self.limits).map(Arc::new)
    }

    pub(super) async fn end_session(&self, session: &SessionId) {
        let mut ended = Vec::new();
        {
            let mut children = self.children.lock().await;
            ended.extend(children.modern.remove(session).into_iter().flatten());
            children.legacy.retain(|_, (owner, child)| {
                let keep = owner != session;
                if !keep {
                    ended.push(Arc::clone(child));
                }
                keep
            });
        }
        end_all(ended).await;
    }

    pub(super) async fn shutdown(&self) {
        let children = std::mem::take(&mut *self.children.lock().await);
        let legacy = children.legacy.into_values().map(|(_, child)| child);
        end_all(legacy.chain(children.modern.into_values().flatten()).collect()).await;
    }
}

async fn end_all(children: Vec<Arc<Child>>) {
    futures_util::future::join_all(children.iter().map(|child| child.end())).await;
}

/// The status of a modern answer, which a child has no way to give.
pub(super) fn modern_status(answer: &Bytes) -> StatusCode {
    child::decode(answer)
        .and_then(|answer| StatusCode::from_u16(modern::status_of(&answer)).ok())
        .unwrap_or(StatusCode::OK)
}

pub(super) fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(headers::JSON))])
}

pub(super) fn stream(events: Events) -> Answer {
    // The second and third keep proxies from holding events back.
    let headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static(headers::EVENT_STREAM)),
        (CACHE_CONTROL, HeaderValue::from_static("no-transform")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ]);
    Answer { status: StatusCode::OK, headers, body: Body::Stream(events) }
}

/// The answer to a request that was cancelled: a stream that ends, with nothing on it.
pub(super) fn stream_end() -> Answer {
    stream(Events { ahead: std::collections::VecDeque::new(), source: EventSource::Nothing })
}

pub(super) fn empty(status: StatusCode) -> Answer {
    Answer { status, headers: HeaderMap::new(), body: Body::Empty }
}
