//! Reaching an MCP server: over Streamable HTTP ([`http`]), over the deprecated HTTP+SSE
//! ([`sse`]), or as a child process ([`stdio`]).
//!
//! An upstream takes a [`Durable`]`<`[`Permit`]`>` and nothing else, so nothing is sent that
//! policy did not allow or that is not yet on record. What comes back is raw: it exists only
//! between here and the masking in `gateway`, and is never logged.
//!
//! Of children: [`launch`] and [`sandbox`] start one, [`child`] speaks with it, [`desk`] and
//! [`shared`] know whose its messages are, [`inbox`] hands them over, [`own`] and [`common`] keep them, [`nursery`],
//! [`seats`] and [`backoff`] bound them, [`witness`] and [`stderr`] put on record what they do.
//!
//! Of what the gateway adds to a call: [`credential`] makes it, of what [`secret`] fetches and of
//! what [`token`] gets from authorization servers.

pub mod backoff;
mod child;
mod common;
pub mod credential;
mod desk;
pub mod http;
mod inbox;
pub mod launch;
mod nursery;
mod own;
mod rewrite;
pub mod sandbox;
mod seats;
pub mod secret;
mod shared;
pub mod sse;
mod stderr;
pub mod stdio;
pub mod token;
pub mod witness;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use crate::audit::Durable;
use crate::mcp::sse::Event;
use crate::mcp::{Kind, Message};
use crate::policy::Permit;
use crate::types::SessionId;

/// Bounds on what an upstream may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The longest message, in bytes.
    pub message_bytes: usize,
    /// The longest event of a stream with all its fields, in bytes.
    pub event_bytes: usize,
    /// How long an upstream may take to begin its answer.
    pub first_byte: Duration,
}

/// Which of an upstream's protocol sessions a call belongs to.
#[derive(Clone, Debug)]
pub struct Route {
    /// Our own session: what a child process is kept for in the modern era.
    pub session: SessionId,
    /// The upstream's own `Mcp-Session-Id`, in the legacy era.
    pub protocol_session: Option<String>,
}

/// A registered MCP server, ready to be called.
#[derive(Debug)]
pub enum Upstream {
    /// Over Streamable HTTP.
    Http(http::HttpUpstream),
    /// Over HTTP+SSE, as before 2025-03-26.
    Sse(sse::SseUpstream),
    /// As a child process on stdio.
    Stdio(stdio::StdioUpstream),
}

impl Upstream {
    /// Sends one permitted, recorded act upstream with the connection's own credential, and gives
    /// back the beginning of its answer.
    ///
    /// `headers` are the caller's; only those that MCP defines for passing on are used.
    ///
    /// # Errors
    /// [`UpstreamError`]. Whether the server acted is unknown, except where the variant says that
    /// nothing was sent.
    ///
    /// ```
    /// use mcpx::{audit::Durable, policy::Permit, upstream::{Answer, Route, Upstream, UpstreamError}};
    /// # use reqwest::header::HeaderMap;
    /// async fn send(to: &Upstream, permit: &Durable<Permit>, route: &Route, headers: &HeaderMap)
    ///     -> Result<Answer, UpstreamError>
    /// {
    ///     to.forward(permit, route, headers).await
    /// }
    /// ```
    ///
    /// A permit whose record is not yet on disk is not enough; this does not compile:
    ///
    /// ```compile_fail
    /// use mcpx::{audit::Durable, policy::Permit, upstream::{Answer, Route, Upstream, UpstreamError}};
    /// # use reqwest::header::HeaderMap;
    /// async fn send(to: &Upstream, permit: &Permit, route: &Route, headers: &HeaderMap)
    ///     -> Result<Answer, UpstreamError>
    /// {
    ///     to.forward(permit, route, headers).await
    /// }
    /// ```
    pub async fn forward(
        &self,
        permit: &Durable<Permit>,
        route: &Route,
        headers: &HeaderMap,
    ) -> Result<Answer, UpstreamError> {
        match self {
            Self::Http(http) => http.forward(permit, route, headers).await,
            Self::Sse(sse) => sse.forward(permit, route, headers).await,
            Self::Stdio(stdio) => stdio.forward(permit, route).await,
        }
    }

    /// How this upstream is reached, as the list of connections shows it.
    pub fn transport(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Sse(_) => "sse",
            Self::Stdio(_) => "stdio",
        }
    }

    /// Whether all messages to and from a server share one pipe or stream, so that the gateway is
    /// all the Streamable HTTP it has.
    pub fn is_pipe(&self) -> bool {
        matches!(self, Self::Sse(_) | Self::Stdio(_))
    }

    /// Ends what was kept for one of our sessions.
    pub async fn end_session(&self, session: &SessionId) {
        match self {
            Self::Http(_) => {}
            Self::Sse(sse) => sse.end_session(session).await,
            Self::Stdio(stdio) => stdio.end_session(session).await,
        }
    }

    /// Ends everything that runs for this upstream: children are asked to go, then made to.
    pub async fn shutdown(&self) {
        match self {
            Self::Http(_) => {}
            Self::Sse(sse) => sse.shutdown().await,
            Self::Stdio(stdio) => stdio.shutdown().await,
        }
    }
}

/// The beginning of an upstream's answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status; made up to fit for a child process.
    pub status: StatusCode,
    /// The headers that may go on to the client.
    pub headers: HeaderMap,
    /// What follows.
    pub body: Body,
}

/// The body of an [`Answer`].
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    Empty,
    /// One JSON-RPC message, raw and unmasked.
    Message(Bytes),
    /// One JSON-RPC message, raw and unmasked, that was decoded within the same bounds to find out
    /// whose it is.
    Decoded(Box<Message>),
    /// An event stream.
    Stream(Events),
}

/// A stream of events, raw and unmasked. Dropping it drops the connection to the upstream.
#[derive(Debug)]
pub struct Events {
    /// What was read already and is given out first.
    ahead: VecDeque<Result<Incoming, UpstreamError>>,
    source: EventSource,
}

/// One step of a stream.
#[derive(Debug)]
pub enum Incoming {
    /// An event as it came over HTTP.
    Event(Event),
    /// A message that came on a pipe or stream that many share, decoded within the bounds that
    /// hold for all to find out whose it is.
    Message(Message),
    /// What came there and is no message to the strict decoder, for the gateway to refuse.
    Refused(Bytes),
}

impl Incoming {
    /// How long it is, in bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::Event(event) => event.raw.len(),
            Self::Message(message) => message.raw().len(),
            Self::Refused(raw) => raw.len(),
        }
    }

    /// Whether nothing follows it for the request that it was given to: it is the answer, or
    /// something that the gateway will refuse.
    fn is_last(&self) -> bool {
        match self {
            Self::Event(_) => false,
            Self::Message(message) => matches!(message.kind(), Kind::Response { .. }),
            Self::Refused(_) => true,
        }
    }
}

#[derive(Debug)]
enum EventSource {
    Http(Box<http::EventStream>),
    Inbox(inbox::Inbox),
    /// Nothing will come.
    Nothing,
    /// An answer on a stream that was opened for it alone, and ends with it.
    Own {
        inbox: inbox::Inbox,
        _stream: Box<sse::Session>,
    },
}

impl Events {
    /// The next event, or `None` at the stream's orderly end. A caller that stops waiting loses
    /// none.
    ///
    /// # Errors
    /// [`UpstreamError`] when the stream breaks; nothing follows then.
    pub async fn next(&mut self) -> Option<Result<Incoming, UpstreamError>> {
        if let Some(event) = self.ahead.pop_front() {
            return Some(event);
        }
        self.read().await
    }

    async fn read(&mut self) -> Option<Result<Incoming, UpstreamError>> {
        match &mut self.source {
            EventSource::Nothing => None,
            EventSource::Http(stream) => Some(stream.next().await?.map(Incoming::Event)),
            EventSource::Inbox(inbox) | EventSource::Own { inbox, .. } => inbox.next().await,
        }
    }

    /// Reads ahead until `found` finds something, at most `most` events; [`Self::next`] gives them
    /// out all the same. Nothing is lost where this is given up halfway.
    pub async fn look_ahead<T>(
        &mut self,
        most: usize,
        found: impl Fn(&Incoming) -> Option<T>,
    ) -> Option<T> {
        let mut seen = 0;
        loop {
            while let Some(Ok(event)) = self.ahead.get(seen) {
                if let Some(thing) = found(event) {
                    return Some(thing);
                }
                seen += 1;
            }
            if seen >= most || self.ahead.len() > seen {
                return None;
            }
            let event = self.read().await?;
            self.ahead.push_back(event);
        }
    }
}

/// An upstream that could not be reached, broke off, or answered something that is not MCP.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection could be made; nothing was sent.
    #[error("the MCP server cannot be reached: {why}")]
    Unreachable {
        /// What the operating system or TLS said.
        why: String,
    },
    /// A child process could not be started; nothing was sent.
    #[error("the MCP server could not be started: {why}")]
    CannotStart {
        /// What the operating system said.
        why: String,
    },
    /// The gateway's own credential cannot be had; nothing was sent.
    #[error("the connection's credential cannot be used: {0}")]
    Credential(#[from] credential::CredentialError),
    /// The connection broke, or the child ended, before the answer was complete.
    #[error("the MCP server broke off: {why}")]
    BrokeOff {
        /// How.
        why: String,
    },
    /// No answer began in time.
    #[error("the MCP server did not begin to answer within {} s", .after.as_secs())]
    TimedOut {
        /// The bound.
        after: Duration,
    },
    /// More than the configured bound.
    #[error("the MCP server sent a message of more than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
    /// An event of a stream is over the configured bound.
    #[error("the MCP server sent an event of more than {limit} bytes")]
    EventTooLarge {
        /// The bound.
        limit: usize,
    },
    /// 401 or 403: the server refused the gateway's own credential.
    #[error("the MCP server refused the gateway's credential ({credential}; HTTP {status})")]
    CredentialRefused {
        /// The status.
        status: u16,
        /// The credential, by kind and source, or a word for none.
        credential: std::sync::Arc<str>,
    },
    /// An answer that is neither JSON nor an event stream.
    #[error("the MCP server answered HTTP {status} with {content_type}, which is not MCP")]
    NotMcp {
        /// The status.
        status: u16,
        /// Its content type, or a word for none.
        content_type: String,
    },
    /// An HTTP+SSE server did not begin by naming where messages go; nothing was sent.
    #[error("the MCP server does not begin by naming an endpoint for messages, as HTTP+SSE does")]
    NoEndpoint,
    /// An HTTP+SSE server wants messages, and with them the credential, to go to another origin;
    /// nothing was sent.
    #[error("the MCP server names an endpoint of another origin for messages, which is refused")]
    ForeignEndpoint,
    /// The legacy protocol session is gone; the client has to initialize again.
    #[error("the MCP session has ended; initialize again")]
    SessionGone,
    /// A message that needs a legacy protocol session came without one.
    #[error("an \"Mcp-Session-Id\" header is needed; initialize first")]
    SessionNeeded,
    /// The child already works on a request with this id.
    #[error("a request with this id is already in flight")]
    IdInUse,
    /// As many children run as the configuration allows; nothing was sent.
    #[error("all {limit} processes of this MCP server are in use; try again later")]
    TooManyChildren {
        /// The bound.
        limit: usize,
    },
    /// As many children run for this subject as one may have; nothing was sent.
    #[error(
        "all {limit} processes or streams that one user may have of this MCP server are in use"
    )]
    TooManyOfYours {
        /// The bound.
        limit: usize,
    },
    /// Children keep dying, and the next is not started yet; nothing was sent.
    #[error(
        "the MCP server ended early {deaths} times in a row; it is started again in {} s",
        seconds(.retry_after)
    )]
    BackingOff {
        /// How many died early, one after the other.
        deaths: u32,
        /// How long from now.
        retry_after: Duration,
    },
    /// The answer was not read while others waited for the same child; its request was cancelled.
    #[error("what the MCP server sent was not read fast enough; the call was given up")]
    TooSlow,
    /// A second client of a shared child says something else of itself than the first.
    #[error(
        "the MCP server works for all users in one process, and has greeted a client with another \
         protocol version or other capabilities"
    )]
    HandshakeDiffers,
    /// A client of a shared child wants to be told of more resources than are noted for it.
    #[error("one session may subscribe to {} resources of this MCP server", shared::MOST_WATCHED)]
    TooManyWatched,
    /// An answer to a request that was not made of this client.
    #[error("this MCP server asks its clients nothing that could be answered")]
    NotAsked,
    /// As many event streams are open as the configuration allows; nothing was sent.
    #[error("all {limit} event streams to this MCP server are in use; try again later")]
    TooManyStreams {
        /// The bound.
        limit: usize,
    },
    /// The transport has no such act, as a stdio server without legacy session has no GET stream.
    #[error("this MCP server offers no such stream")]
    NotOffered,
}

impl UpstreamError {
    /// The stable word for it in errors and records.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } | Self::CannotStart { .. } => "upstream_unreachable",
            Self::Credential(error) if error.wants_consent() => "upstream_consent",
            Self::Credential(_) | Self::CredentialRefused { .. } => "upstream_credential",
            Self::BrokeOff { .. } => "upstream_broke_off",
            Self::TimedOut { .. } => "upstream_timeout",
            Self::TooLarge { .. } => "upstream_too_large",
            Self::EventTooLarge { .. } => "upstream_event_too_large",
            Self::NotMcp { .. } | Self::NoEndpoint => "upstream_not_mcp",
            Self::ForeignEndpoint => "upstream_foreign_endpoint",
            Self::SessionGone => "session_gone",
            Self::SessionNeeded => "session_needed",
            Self::IdInUse => "id_in_use",
            Self::TooManyChildren { .. } | Self::TooManyStreams { .. } => "upstream_busy",
            Self::NotOffered => "not_offered",
            Self::TooManyOfYours { .. } => "subject_busy",
            Self::BackingOff { .. } => "upstream_restarting",
            Self::TooSlow => "reader_too_slow",
            Self::HandshakeDiffers => "handshake_differs",
            Self::NotAsked => "not_asked",
            Self::TooManyWatched => "too_many_watched",
        }
    }

    /// In how many seconds trying again may help, where that is known.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::BackingOff { retry_after, .. } => Some(seconds(retry_after)),
            _ => None,
        }
    }
}

/// Whole seconds, rounded up.
fn seconds(span: &Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

#[cfg(test)]
mod testing;
