//! An MCP server that runs as a child process: which child an act goes to, and the answer as HTTP
//! would give it.
//!
//! Children work for one session each ([`super::own`]) or for all ([`super::common`]), as the
//! connection is configured. Argument lists come from the server's configuration only.

use std::collections::VecDeque;
use std::sync::Arc;

use reqwest::StatusCode;
use reqwest::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::backoff::Restart;
use super::child::Child;
use super::common::{CommonChildren, Turn};
use super::desk::Party;
use super::launch::Launch;
use super::nursery::Nursery;
use super::own::OwnChildren;
use super::seats::Seats;
use super::{Answer, Body, EventSource, Events, Incoming, Route, UpstreamError};
use crate::audit::Durable;
use crate::mcp::{Kind, Limits, Message, batch, headers, modern};
use crate::policy::{Act, Call, Permit};
use crate::types::SessionId;

/// For whom a child works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    /// For one session, so that subjects share nothing.
    #[default]
    Session,
    /// For every session of the connection: the server cannot tell subjects apart.
    Connection,
}

/// How the children of a connection are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// For whom each works.
    pub share: Share,
    /// How many may run at a time.
    pub processes: usize,
    /// How many of them for one subject.
    pub per_subject: usize,
    /// When one that died is started again.
    pub restart: Restart,
}

/// An MCP server on stdio.
#[derive(Debug)]
pub struct StdioUpstream {
    nursery: Box<Nursery>,
    children: Children,
}

#[derive(Debug)]
enum Children {
    Own(OwnChildren),
    Common(CommonChildren),
}

impl StdioUpstream {
    /// An upstream whose children are started by `launch`.
    pub fn new(launch: Launch, limits: Limits, keeping: Keeping) -> Self {
        let seats = Seats::new(keeping.processes, keeping.per_subject);
        let nursery = Box::new(Nursery::new(launch, limits, seats, keeping.restart));
        let children = match keeping.share {
            Share::Session => Children::Own(OwnChildren::default()),
            Share::Connection => Children::Common(CommonChildren::default()),
        };
        Self { nursery, children }
    }

    pub(super) async fn forward(
        &self,
        permit: &Durable<Permit>,
        route: &Route,
    ) -> Result<Answer, UpstreamError> {
        let call = permit.get().call();
        match &call.act {
            Act::Message(message) => self.message(call, message, route).await,
            Act::Listen => {
                let id = route.protocol_session.as_ref().ok_or(UpstreamError::NotOffered)?;
                let child = match &self.children {
                    Children::Own(own) => own.legacy(id)?,
                    Children::Common(common) => Arc::clone(&common.legacy(id)?.child),
                };
                let inbox = child.listen(&id.as_str().into())?;
                Ok(stream(VecDeque::new(), EventSource::Inbox(inbox)))
            }
            Act::End => {
                let id = route.protocol_session.as_ref().ok_or(UpstreamError::SessionNeeded)?;
                match &self.children {
                    Children::Own(own) => own.end(id).await?,
                    Children::Common(common) => common.end(id).await?,
                }
                Ok(empty(StatusCode::OK))
            }
        }
    }

    async fn message(
        &self,
        call: &Call,
        message: &Message,
        route: &Route,
    ) -> Result<Answer, UpstreamError> {
        let (nursery, session) = (&self.nursery, &route.session);
        // The gateway has seen to it that header and body name the same version.
        let modern = route.protocol_session.is_none() && modern::is_modern(None, message);
        let party: Party = route.protocol_session.as_deref().unwrap_or(session.as_str()).into();
        let greets = message.method() == Some("initialize");
        match (&self.children, &route.protocol_session) {
            (Children::Own(own), _) if modern => {
                loop {
                    let child = own.modern(nursery, message, &call.subject.id, session).await?;
                    match exchange(&child, &party, message, modern).await {
                        // Another request with this id was quicker; nothing was sent. That child
                        // is not chosen again while it is in flight.
                        Err(UpstreamError::IdInUse) => {}
                        exchanged => break exchanged,
                    }
                }
            }
            (Children::Own(own), Some(id)) => {
                exchange(&*own.legacy(id)?, &party, message, modern).await
            }
            (Children::Own(own), None) if greets => {
                let (id, child) = own.greet(nursery, &call.subject.id, session).await?;
                let answer = exchange(&child, &party, message, modern).await?;
                if let Body::Decoded(answer) = &answer.body
                    && modern::negotiated(answer) == Some(batch::VERSION)
                {
                    child.take_batches();
                }
                Ok(with_session(answer, &id))
            }
            (Children::Common(common), _) if modern => {
                // There is nothing that a modern client could be answering or cancelling here.
                if !call.is_request() {
                    return Ok(empty(StatusCode::ACCEPTED));
                }
                let child = common.modern(nursery, session).await?;
                exchange(&child, &party, message, modern).await
            }
            (Children::Common(common), Some(id)) => {
                let greeted = common.legacy(id)?;
                match greeted.turn(&party, message)? {
                    Turn::On(message) => exchange(&greeted.child, &party, &message, modern).await,
                    Turn::Taken => Ok(empty(StatusCode::ACCEPTED)),
                    Turn::Answered(message) => Ok(whole(StatusCode::OK, message)),
                }
            }
            (Children::Common(common), None) if greets => {
                let (id, answer) = common.greet(nursery, session, message).await?;
                let answer = whole(StatusCode::OK, answer);
                Ok(match id {
                    Some(id) => with_session(answer, &id),
                    None => answer,
                })
            }
            (_, None) => Err(UpstreamError::SessionNeeded),
        }
    }

    pub(super) async fn end_session(&self, session: &SessionId) {
        match &self.children {
            Children::Own(own) => own.end_session(session).await,
            Children::Common(common) => common.end_session(session).await,
        }
    }

    pub(super) async fn shutdown(&self) {
        match &self.children {
            Children::Own(own) => own.shutdown().await,
            Children::Common(common) => common.shutdown().await,
        }
    }
}

/// Sends a message to a child, and gives the beginning of its answer.
async fn exchange(
    child: &Child,
    party: &Party,
    message: &Message,
    modern: bool,
) -> Result<Answer, UpstreamError> {
    let Kind::Request { .. } = message.kind() else {
        child.send(message).await?;
        return Ok(empty(StatusCode::ACCEPTED));
    };
    let mut inbox = child.request(party, message, modern).await?;
    Ok(match inbox.next().await.transpose()? {
        Some(first) => begun(first, modern, EventSource::Inbox(inbox)),
        None => stream_end(),
    })
}

fn whole(status: StatusCode, message: Message) -> Answer {
    Answer { status, headers: json_headers(), body: Body::Decoded(Box::new(message)) }
}

pub(super) fn with_session(mut answer: Answer, id: &str) -> Answer {
    if let Ok(value) = HeaderValue::from_str(id) {
        answer.headers.insert(headers::SESSION_ID, value);
    }
    answer
}

fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(headers::JSON))])
}

/// An answer that begins with `first`; the rest comes from `source`. Its status is that of a modern
/// answer, where it is one: a server that is no Streamable HTTP has no way to give any.
pub(super) fn begun(first: Incoming, modern: bool, source: EventSource) -> Answer {
    match first {
        Incoming::Message(first) if matches!(first.kind(), Kind::Response { .. }) => {
            let status = if modern { modern::status_of(&first) } else { 200 };
            whole(StatusCode::from_u16(status).unwrap_or(StatusCode::OK), first)
        }
        // Refused as a whole, as it would be in the body of a response.
        Incoming::Refused(raw) => {
            Answer { status: StatusCode::OK, headers: json_headers(), body: Body::Message(raw) }
        }
        first => stream([Ok(first)].into(), source),
    }
}

/// The answer to a request that was cancelled: a stream that ends, with nothing on it.
pub(super) fn stream_end() -> Answer {
    stream(VecDeque::new(), EventSource::Nothing)
}

pub(super) fn stream(
    ahead: VecDeque<Result<Incoming, UpstreamError>>,
    source: EventSource,
) -> Answer {
    let events = Events { ahead, source };
    // The second and third keep proxies from holding events back.
    let headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static(headers::EVENT_STREAM)),
        (CACHE_CONTROL, HeaderValue::from_static("no-transform")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ]);
    Answer { status: StatusCode::OK, headers, body: Body::Stream(events) }
}

pub(super) fn empty(status: StatusCode) -> Answer {
    Answer { status, headers: HeaderMap::new(), body: Body::Empty }
}
