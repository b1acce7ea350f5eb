//! An MCP server over HTTP+SSE, the transport that Streamable HTTP replaced: a GET opens an event
//! stream, the stream's first event names where messages are posted, and all that the server says
//! comes on the stream.
//!
//! To clients it looks like Streamable HTTP. Every `initialize` gets a stream of its own, named by
//! a session id that this module makes up; a stream that ends, ends its session, and is never
//! opened again by itself, since what the client had initialized is gone with it. A request of the
//! modern era, which has no sessions, gets a stream of its own as well, which ends with its
//! answer; servers of this transport are legacy ones and will say so. Whose each message is,
//! [`super::desk`] knows.
//!
//! The credential goes to the configured origin and nowhere else: an endpoint elsewhere is
//! refused. Implements the client side of MCP 2024-11-05 `basic/transports`, HTTP with SSE.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex as SyncMutex};

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use super::credential::{self, Credential};
use super::desk::{Desk, Party, lock};
use super::http::{self, EventStream};
use super::inbox::{self, Inbox};
use super::own::protocol_session;
use super::seats::{Seat, Seats};
use super::stdio::{begun, empty, stream, stream_end, with_session};
use super::{Answer, Bounds, EventSource, Incoming, Route, UpstreamError};
use crate::audit::Durable;
use crate::mcp::{Kind, Limits, Message, Origin, headers, modern};
use crate::policy::{Act, Permit};
use crate::types::{SessionId, Subject};

/// One MCP server whose event streams are opened at one URL.
#[derive(Debug)]
pub struct SseUpstream {
    url: Url,
    credential: Option<Credential>,
    client: reqwest::Client,
    bounds: Bounds,
    limits: Limits,
    /// How many streams may be open, and who has them.
    places: Seats,
    /// By the protocol session's id, with our session.
    sessions: Mutex<HashMap<String, (SessionId, Arc<Session>)>>,
}

impl SseUpstream {
    /// An upstream whose event streams are at a URL, at most `most` of them at a time. `client`
    /// must follow no redirects.
    pub fn new(
        url: Url,
        credential: Option<Credential>,
        client: reqwest::Client,
        bounds: Bounds,
        limits: Limits,
        most: usize,
    ) -> Self {
        // No subject can take all.
        let places = Seats::new(most, (most / 2).max(1));
        Self { url, credential, client, bounds, limits, places, sessions: Mutex::default() }
    }

    pub(super) async fn forward(
        &self,
        permit: &Durable<Permit>,
        route: &Route,
        caller: &HeaderMap,
    ) -> Result<Answer, UpstreamError> {
        match &permit.get().call().act {
            Act::Message(message) => {
                let subject = &permit.get().call().subject;
                self.message(message, route, caller, subject).await
            }
            Act::Listen => {
                let session = self.session(route).await?.ok_or(UpstreamError::NotOffered)?;
                let inbox = Inbox::listen(&session.desk, &session.party)?;
                Ok(stream(VecDeque::new(), EventSource::Inbox(inbox)))
            }
            Act::End => {
                let id = route.protocol_session.as_ref().ok_or(UpstreamError::SessionNeeded)?;
                let ended = self.sessions.lock().await.remove(id);
                let (_, session) = ended.ok_or(UpstreamError::SessionGone)?;
                session.end();
                Ok(empty(StatusCode::OK))
            }
        }
    }

    async fn message(
        &self,
        message: &Message,
        route: &Route,
        caller: &HeaderMap,
        subject: &Subject,
    ) -> Result<Answer, UpstreamError> {
        if let Some(session) = self.session(route).await? {
            let answer = self.exchange(&session, message, caller, subject).await;
            if matches!(answer, Err(UpstreamError::SessionGone)) {
                session.end();
            }
            return Ok(match answer? {
                Said::Accepted => empty(StatusCode::ACCEPTED),
                Said::Nothing => stream_end(),
                Said::First(first) => {
                    let (first, inbox) = *first;
                    begun(first, false, EventSource::Inbox(inbox))
                }
            });
        }
        // The gateway has seen to it that header and body name the same version.
        let is_modern = modern::is_modern(None, message);
        if !is_modern && message.method() != Some("initialize") {
            return Err(UpstreamError::SessionNeeded);
        }
        let session = self.open(subject).await?;
        let (first, inbox) = match self.exchange(&session, message, caller, subject).await? {
            Said::First(first) => *first,
            Said::Accepted => return Ok(empty(StatusCode::ACCEPTED)),
            Said::Nothing => return Ok(stream_end()),
        };
        if is_modern {
            return Ok(begun(first, true, EventSource::Own { inbox, _stream: Box::new(session) }));
        }
        let id = self.keep(session, route).await?;
        Ok(with_session(begun(first, false, EventSource::Inbox(inbox)), &id))
    }

    /// Posts a message; for a request, waits for the first message that it brings.
    async fn exchange(
        &self,
        session: &Session,
        message: &Message,
        caller: &HeaderMap,
        subject: &Subject,
    ) -> Result<Said, UpstreamError> {
        let lost = |_| UpstreamError::BrokeOff { why: "the message was lost".to_owned() };
        let post = self.post(session, message, caller, subject).await?;
        let Kind::Request { .. } = message.kind() else {
            tokio::spawn(post).await.map_err(lost)??;
            lock(&session.desk).withdraw(message);
            return Ok(Said::Accepted);
        };
        // Before it is sent, so that no answer comes too early.
        let (mut inbox, _as_it_was) =
            Inbox::ask(&session.desk, &session.party, message, None, false)?;
        let mut posting = tokio::spawn(post);
        let mut posted = false;
        let first = loop {
            // The answer may be faster than the word that the message was accepted.
            tokio::select! {
                biased;
                first = inbox.next() => break first,
                done = &mut posting, if !posted => {
                    done.map_err(lost)??;
                    posted = true;
                }
            }
        };
        Ok(match first.transpose()? {
            Some(first) => Said::First(Box::new((first, inbox))),
            None => Said::Nothing,
        })
    }

    /// Makes the request that carries a message. Once it is begun it runs to its end, whoever
    /// waits: to hang up is not to cancel.
    async fn post(
        &self,
        session: &Session,
        message: &Message,
        caller: &HeaderMap,
        subject: &Subject,
    ) -> Result<impl Future<Output = Result<(), UpstreamError>> + Send + 'static, UpstreamError>
    {
        let mut passed = http::passed_headers(caller);
        passed.remove(headers::LAST_EVENT_ID);
        passed.insert(CONTENT_TYPE, HeaderValue::from_static(headers::JSON));
        let used = self.authorize(&mut passed, subject).await?;
        let request = self.client.post(session.endpoint.clone()).headers(passed);
        let sending = request.body(message.raw().clone()).send();
        let after = self.bounds.first_byte;
        Ok(async move {
            let response = match tokio::time::timeout(after, sending).await {
                Err(_) => return Err(UpstreamError::TimedOut { after }),
                Ok(Err(error)) => return Err(http::broken(&error)),
                Ok(Ok(response)) => response,
            };
            match response.status() {
                status if status.is_success() => Ok(()),
                StatusCode::NOT_FOUND => Err(UpstreamError::SessionGone),
                status => Err(refused(status, used, || {
                    let why = format!("it refused the message (HTTP {})", status.as_u16());
                    UpstreamError::BrokeOff { why }
                })
                .await),
            }
        })
    }

    async fn authorize(
        &self,
        headers: &mut HeaderMap,
        subject: &Subject,
    ) -> Result<Option<Used>, UpstreamError> {
        let Some(credential) = &self.credential else { return Ok(None) };
        let value = credential.value(subject).await?;
        headers.insert(credential.header_name().clone(), value.clone());
        Ok(Some(Used { credential: credential.clone(), subject: subject.clone(), value }))
    }

    /// Opens a stream and waits until it has named its endpoint.
    async fn open(&self, subject: &Subject) -> Result<Session, UpstreamError> {
        self.sessions.lock().await.retain(|_, (_, session)| session.is_open());
        let place = self.places.take(Some(&subject.id)).map_err(|full| match full {
            UpstreamError::TooManyChildren { limit } => UpstreamError::TooManyStreams { limit },
            other => other,
        })?;
        let accept = HeaderValue::from_static(headers::EVENT_STREAM);
        let mut head = HeaderMap::from_iter([(ACCEPT, accept)]);
        let used = self.authorize(&mut head, subject).await?;
        let limit = self.bounds.event_bytes;
        let opening = async {
            let sending = self.client.get(self.url.clone()).headers(head).send();
            let response = sending.await.map_err(|error| http::broken(&error))?;
            let (status, kind) = (response.status(), http::media_type(response.headers()));
            if !status.is_success() || kind.as_deref() != Some(headers::EVENT_STREAM) {
                return Err(refused(status, used, || UpstreamError::NotMcp {
                    status: status.as_u16(),
                    content_type: http::told(kind.as_deref()).to_owned(),
                })
                .await);
            }
            let mut events = EventStream::of(response, limit);
            let endpoint = endpoint(&self.url, &mut events).await?;
            Ok((events, endpoint))
        };
        let after = self.bounds.first_byte;
        let opened = tokio::time::timeout(after, opening).await;
        let (events, endpoint) = opened.map_err(|_| UpstreamError::TimedOut { after })??;
        Ok(Session::start(endpoint, events, self.limits, place))
    }

    /// Keeps a stream for the client that has initialized it, under a new id.
    async fn keep(&self, session: Session, route: &Route) -> Result<String, UpstreamError> {
        let id = protocol_session()?;
        let kept = (route.session.clone(), Arc::new(session));
        self.sessions.lock().await.insert(id.clone(), kept);
        Ok(id)
    }

    /// The open session that a call names; none if it names none.
    async fn session(&self, route: &Route) -> Result<Option<Arc<Session>>, UpstreamError> {
        let Some(id) = &route.protocol_session else { return Ok(None) };
        let sessions = self.sessions.lock().await;
        let (_, session) = sessions.get(id).ok_or(UpstreamError::SessionGone)?;
        if !session.is_open() {
            return Err(UpstreamError::SessionGone);
        }
        Ok(Some(Arc::clone(session)))
    }

    pub(super) async fn end_session(&self, ended: &SessionId) {
        self.sessions.lock().await.retain(|_, (owner, session)| {
            let keep = owner != ended;
            if !keep {
                session.end();
            }
            keep
        });
    }

    pub(super) async fn shutdown(&self) {
        for (_, session) in std::mem::take(&mut *self.sessions.lock().await).into_values() {
            session.end();
        }
    }
}

/// What a server says to a message.
enum Said {
    /// That it has it: nothing more is owed for a notification or a response.
    Accepted,
    /// The first message that a request brings, and where the others will come.
    First(Box<(Incoming, Inbox)>),
    /// Nothing any more, since the request was cancelled.
    Nothing,
}

/// The credential that a request was made with.
struct Used {
    credential: Credential,
    subject: Subject,
    value: HeaderValue,
}

/// What a status that is no success means, 401 and 403 apart. After a 401 the credential is made
/// anew, for the next request: this one was half of an exchange that is over.
async fn refused(
    status: StatusCode,
    used: Option<Used>,
    other: impl FnOnce() -> UpstreamError,
) -> UpstreamError {
    if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return other();
    }
    if let Some(used) = &used
        && status == StatusCode::UNAUTHORIZED
    {
        let _another = used.credential.renew(&used.subject, &used.value).await;
    }
    let credential = credential::name(used.as_ref().map(|used| &used.credential));
    UpstreamError::CredentialRefused { status: status.as_u16(), credential }
}

/// Where a stream's first event says that messages go: on the stream's own origin, or nowhere.
async fn endpoint(url: &Url, events: &mut EventStream) -> Result<Url, UpstreamError> {
    let first = loop {
        let event = events.next().await.ok_or(UpstreamError::NoEndpoint)??;
        if !event.is_filler() {
            break event;
        }
    };
    let named = first.data.filter(|_| first.exact && first.event.as_deref() == Some("endpoint"));
    let named = named.ok_or(UpstreamError::NoEndpoint)?;
    let endpoint = url.join(named.trim()).map_err(|_| UpstreamError::NoEndpoint)?;
    let names_nobody = endpoint.username().is_empty() && endpoint.password().is_none();
    if endpoint.origin() == url.origin() && names_nobody {
        Ok(endpoint)
    } else {
        Err(UpstreamError::ForeignEndpoint)
    }
}

/// One open stream. Dropping it closes it; whoever waits for an answer on it is told.
#[derive(Debug)]
pub(super) struct Session {
    endpoint: Url,
    desk: Arc<SyncMutex<Desk>>,
    /// The one who talks on it.
    party: Party,
    reading: AbortHandle,
    _place: Seat,
}

impl Session {
    fn start(endpoint: Url, events: EventStream, limits: Limits, place: Seat) -> Self {
        let desk = Arc::new(SyncMutex::new(Desk::default()));
        let readers = Arc::clone(&desk);
        let reading = tokio::spawn(async move {
            let how = read(events, &readers, &limits).await;
            lock(&readers).close(how);
        });
        Self {
            endpoint,
            desk,
            party: "stream".into(),
            reading: reading.abort_handle(),
            _place: place,
        }
    }

    fn is_open(&self) -> bool {
        !self.reading.is_finished()
    }

    fn end(&self) {
        self.reading.abort();
        lock(&self.desk).close("its event stream was closed".to_owned());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads a stream to its end, and tells how it ended.
async fn read(mut events: EventStream, desk: &SyncMutex<Desk>, limits: &Limits) -> String {
    loop {
        let event = match events.next().await {
            None => return "its event stream ended".to_owned(),
            Some(Err(UpstreamError::BrokeOff { why })) => {
                return format!("its event stream broke ({why})");
            }
            Some(Err(error)) => return error.to_string(),
            Some(Ok(event)) => event,
        };
        let is_message = event.event.as_deref().is_none_or(|name| name == "message");
        let Some(data) = event.data.filter(|data| is_message && !data.trim().is_empty()) else {
            continue;
        };
        if !event.exact {
            return "an event is not UTF-8".to_owned();
        }
        let raw = Bytes::from(data);
        if let Ok(message) = Message::decode(raw.clone(), Origin::Server, limits) {
            // Only a child that many share is ever answered here.
            let _none = inbox::hand_out(desk, message, lost).await;
            continue;
        }
        // The gateway refuses it as it does everywhere, if it can be told for whom it is. If not,
        // somebody would wait for it for ever.
        let asked = seeming_id(&raw).and_then(|id| lock(desk).asked(id.get()));
        let Some((to, reader)) = asked else {
            return "it sent what is no JSON-RPC message".to_owned();
        };
        inbox::hand(desk, &to, &reader, Incoming::Refused(raw), lost).await;
    }
}

/// Says what reached nobody.
fn lost(why: &'static str) {
    tracing::debug!(why, "a message of an event stream reaches nobody");
}

/// The id that a lax reader finds in a message that is none. It decides nothing but who is told.
fn seeming_id(raw: &Bytes) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Seeming {
        id: Box<RawValue>,
    }
    serde_json::from_slice::<Seeming>(raw).ok().map(|seeming| seeming.id)
}

#[cfg(test)]
mod tests;
