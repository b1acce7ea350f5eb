//! What comes back: judged, filtered, masked, recorded, and only then released; a stream event by
//! event.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::authenticate::Caller;
use super::lists::{Item, Listed};
use super::records::{Denied, OutEvent, Outbound, Trail, own_words};
use super::refusal::Refusal;
use super::respond::{Piece, Reply};
use super::seal::{ProtocolSession, Sealed};
use super::{Gateway, hints, unrecorded};
use crate::audit::{Durable, Outcome};
use crate::mask::Masked;
use crate::mcp::sse::{self, Event};
use crate::mcp::{Kind, Message, Origin, headers};
use crate::policy::{Act, Call, Decision, Direction, Permit};
use crate::upstream::{Answer, Body, Events, Incoming, UpstreamError};

/// Events on their way to a slow client before the upstream is no longer read.
const IN_FLIGHT: usize = 4;

/// A message of the server, after policy and masking.
enum Judged {
    /// It answers a request of the client.
    Answer {
        masked: Masked,
        outcome: Outcome,
        /// Whether it answers the very call whose stream it stands in.
        is_final: bool,
    },
    /// The server's own request or notification, permitted. Its masked form is the call's.
    OfServer(Box<Permit>),
    /// The server's own message, denied: it goes nowhere.
    Dropped(Box<Denied>),
}

/// Whether a stream goes on after an event.
enum Flow {
    On,
    End,
}

impl Gateway {
    pub(super) async fn answer(
        self: Arc<Self>,
        caller: Caller,
        permit: Durable<Permit>,
        answer: Result<Answer, UpstreamError>,
    ) -> Reply {
        let mut trail = Trail::of(permit.get().call());
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let call = permit.get().call();
                tracing::warn!(connection = %call.connection, %error, "an upstream failed");
                let refusal = Refusal::upstream_failed(&call.connection, &error);
                return self.own_answer(call, &trail, &refusal, Outcome::UpstreamFailed).await;
            }
        };
        if !caller.upstream.is_pipe() {
            trail.upstream_status = Some(answer.status.as_u16());
        }
        let call = permit.get().call();
        let version = match answer.headers.contains_key(headers::SESSION_ID) {
            true => self.negotiated(call, &mut answer.body).await,
            false => None,
        };
        let Some(headers) = self.seal_session(&caller, version, answer.headers) else {
            let refusal = Refusal::failed_closed("unsealable", "the session cannot be sealed");
            return self.own_answer(call, &trail, &refusal, Outcome::UpstreamFailed).await;
        };
        match answer.body {
            Body::Empty => {
                let outcome = Outcome::Accepted;
                self.whole(trail.outbound(answer.status, headers, outcome, None)).await
            }
            Body::Message(raw) => {
                let message = self.decoded(call, raw);
                self.judged_whole(&caller, call, &trail, answer.status, headers, message).await
            }
            Body::Decoded(message) => {
                let message = Ok(*message);
                self.judged_whole(&caller, call, &trail, answer.status, headers, message).await
            }
            Body::Stream(events) => {
                let opened = trail.opened(answer.status, headers);
                match self.recorder.record(opened).await {
                    Err(error) => unrecorded(&error, true),
                    Ok(opened) => {
                        let (pieces, stream) = mpsc::channel(IN_FLIGHT);
                        tokio::spawn(self.pump(caller, permit, trail, events, pieces));
                        Reply::Stream(opened, stream)
                    }
                }
            }
        }
    }

    /// Judges and records a whole answer.
    async fn judged_whole(
        &self,
        caller: &Caller,
        call: &Call,
        trail: &Trail,
        status: StatusCode,
        headers: HeaderMap,
        message: Result<Message, Refusal>,
    ) -> Reply {
        let judged = match message {
            Ok(message) => self.judge(caller, call, message).await,
            Err(refusal) => Err(refusal),
        };
        let refusal = match judged {
            Ok(Judged::Answer { masked, outcome, .. }) => {
                return self.whole(trail.outbound(status, headers, outcome, Some(&masked))).await;
            }
            Ok(Judged::OfServer(_) | Judged::Dropped(_)) => {
                let error = UpstreamError::NotMcp {
                    status: status.as_u16(),
                    content_type: "a request instead of an answer".to_owned(),
                };
                Refusal::upstream_failed(&call.connection, &error)
            }
            Err(refusal) => refusal,
        };
        self.own_answer(call, trail, &refusal, refusal.outcome()).await
    }

    /// Records a whole answer and gives the reply.
    async fn whole(&self, outbound: Outbound) -> Reply {
        match self.recorder.record(outbound).await {
            Ok(outbound) => Reply::Whole(outbound),
            Err(error) => unrecorded(&error, true),
        }
    }

    /// Answers a call in the gateway's own name.
    pub(super) async fn own_answer(
        &self,
        call: &Call,
        trail: &Trail,
        refusal: &Refusal,
        outcome: Outcome,
    ) -> Reply {
        let id = call.message().and_then(Message::id);
        let message = own_words(refusal, id, Some(call), &self.masker);
        self.own_message(trail, refusal.status, &message, outcome).await
    }

    /// Answers with a message that the gateway made, which is masked like any other.
    pub(super) async fn own_message(
        &self,
        trail: &Trail,
        status: StatusCode,
        message: &Bytes,
        outcome: Outcome,
    ) -> Reply {
        let json = HeaderValue::from_static(headers::JSON);
        let head = HeaderMap::from_iter([(axum::http::header::CONTENT_TYPE, json)]);
        match self.masker.message(message) {
            Ok(masked) => self.whole(trail.outbound(status, head, outcome, Some(&masked))).await,
            Err(error) => {
                tracing::error!(%error, "a message of the gateway itself could not be masked");
                self.whole(trail.outbound(status, HeaderMap::new(), outcome, None)).await
            }
        }
    }

    /// The answer's headers, with the session id as the client may know it.
    fn seal_session(
        &self,
        caller: &Caller,
        version: Option<&'static str>,
        mut given: HeaderMap,
    ) -> Option<HeaderMap> {
        if let Some(id) = given.remove(headers::SESSION_ID) {
            let grant = &caller.grant;
            // A server may repeat the id of a session that goes on.
            let known = caller.protocol_session.as_ref().and_then(|session| session.version);
            let id = id.to_str().ok()?.to_owned();
            let session = ProtocolSession { id, version: version.or(known) };
            let (subject, connection) = (&grant.subject.id, &grant.connection);
            let sealed = self.seal.seal_session(&session, subject, connection)?;
            given.insert(headers::SESSION_ID, HeaderValue::from_str(&sealed).ok()?);
        }
        Some(given)
    }

    /// The one decoder, for what was not decoded yet.
    fn decoded(&self, call: &Call, raw: Bytes) -> Result<Message, Refusal> {
        Message::decode(raw, Origin::Server, &self.settings.limits)
            .map_err(|error| Refusal::upstream_malformed(&call.connection, &error))
    }

    /// Judges one message of the server: an answer is filtered and masked; a message of the
    /// server's own is a call in the other direction, decided like every call.
    async fn judge(
        &self,
        caller: &Caller,
        call: &Call,
        message: Message,
    ) -> Result<Judged, Refusal> {
        let Kind::Response { id, is_error } = message.kind() else {
            let act = Act::Message(message);
            let way = caller.way(Direction::ServerToClient, call.era);
            let own = self.call(caller, way, act)?;
            return Ok(match self.decide(caller, own, None) {
                Decision::Allow(permit) => Judged::OfServer(permit),
                Decision::Deny(own, denial) => {
                    Judged::Dropped(Box::new(Denied::by_policy(&own, &denial, &self.masker)))
                }
                Decision::NeedsApproval(need) => {
                    let (own, denial) =
                        need.refused("a server's own message cannot wait for approval");
                    Judged::Dropped(Box::new(Denied::by_policy(&own, &denial, &self.masker)))
                }
            });
        };
        let asked = call.message().and_then(Message::id);
        let is_final = asked.is_some_and(|asked| id.as_ref().is_none_or(|id| id == asked));
        // An id is never masked. Only a stream that answers nothing of its own may bring answers
        // to requests made elsewhere.
        if asked.is_some() && !is_final {
            return Err(Refusal::answers_another(&call.connection));
        }
        self.judge_inputs(caller, &message)?;
        let outcome = match (is_error, is_tool_error(&message)) {
            (true, _) => Outcome::Error,
            (false, true) => Outcome::ToolError,
            (false, false) => Outcome::Result,
        };
        let unreadable =
            || Refusal::failed_closed("unreadable_list", "the list holds an item without a name");
        let listed = Listed::read(call.action(), &message).map_err(|_| unreadable())?;
        let filtered = if listed.items().is_empty() {
            message.raw().clone()
        } else {
            let accepted = self.see(&call.connection, &listed).await;
            let accepted = accepted.map_err(|error| Refusal::from(&error))?;
            let policies = self.policies.load();
            let facts = self.facts(caller);
            let shows = |place: usize, item: &Item<'_>| {
                accepted.get(place).copied().unwrap_or(false)
                    && policies.may_list(&call.subject, &call.connection, &item.target, &facts)
            };
            listed.keep(shows).map_err(|_| unreadable())?
        };
        let filtered = if call.row().hints {
            hints::narrowed(filtered, caller.grant.life(self.clock.now()))
        } else {
            filtered
        };
        let masked = self.masker.message(&filtered).map_err(|error| {
            tracing::warn!(%error, "an answer could not be masked");
            Refusal::failed_closed("unmaskable", "the answer cannot be masked")
        })?;
        Ok(Judged::Answer { masked, outcome, is_final })
    }

    /// Carries a stream to its end: each event is judged, masked, recorded and released by
    /// itself, and the upstream is read no faster than the client reads.
    ///
    /// Ends when the upstream ends, the client leaves, the grant is over, or something cannot be
    /// recorded; in each case the call's last record says so.
    async fn pump(
        self: Arc<Self>,
        caller: Caller,
        permit: Durable<Permit>,
        trail: Trail,
        mut events: Events,
        out: mpsc::Sender<Piece>,
    ) {
        let mut grant = caller.grant.clone();
        let over = grant.ended(&*self.clock);
        tokio::pin!(over);
        let mut answered = false;
        loop {
            let event = tokio::select! {
                // In this order: nothing is released any more to who has lost the grant.
                biased;
                ended = &mut over => {
                    let refusal = Refusal::ended(ended);
                    self.stop(&permit, &trail, &refusal, Outcome::Expired, answered, &out).await;
                    return;
                }
                () = out.closed() => {
                    self.close(&trail, Outcome::Cancelled, answered).await;
                    return;
                }
                () = self.stopping() => {
                    let (refusal, outcome) = (Refusal::stopping(), Outcome::Cancelled);
                    self.stop(&permit, &trail, &refusal, outcome, answered, &out).await;
                    return;
                }
                event = events.next() => event,
            };
            match event {
                None => {
                    self.close(&trail, Outcome::StreamEnd, answered).await;
                    return;
                }
                Some(Err(error)) => {
                    let connection = &permit.get().call().connection;
                    let refusal = Refusal::upstream_failed(connection, &error);
                    let outcome = Outcome::UpstreamFailed;
                    self.stop(&permit, &trail, &refusal, outcome, answered, &out).await;
                    return;
                }
                Some(Ok(incoming)) => {
                    for incoming in self.cut(&caller, incoming) {
                        match self
                            .release(&caller, &permit, &trail, incoming, &mut answered, &out)
                            .await
                        {
                            Flow::On => {}
                            Flow::End => return,
                        }
                    }
                }
            }
        }
    }

    async fn release(
        &self,
        caller: &Caller,
        permit: &Durable<Permit>,
        trail: &Trail,
        incoming: Incoming,
        answered: &mut bool,
        out: &mpsc::Sender<Piece>,
    ) -> Flow {
        let call = permit.get().call();
        let fail = async |refusal: Refusal, answered: bool| {
            let outcome = refusal.outcome();
            self.stop(permit, trail, &refusal, outcome, answered, out).await;
            Flow::End
        };
        // What a child says stands in no frame yet.
        let (event, decoded) = match incoming {
            Incoming::Message(message) => (None, Some(Ok(message))),
            Incoming::Refused(raw) => (None, Some(self.decoded(call, raw))),
            Incoming::Event(event) => (Some(event), None),
        };
        // A comment is a sign of life; what it says is nobody's business.
        // So is an event of another name than MCP's, which no client reads.
        let says_nothing = |event: &Event| {
            event.is_filler() || event.event.as_deref().is_some_and(|name| name != "message")
        };
        if event.as_ref().is_some_and(says_nothing) {
            return sent(out.send(Piece::KeepAlive).await);
        }
        if event.as_ref().is_some_and(|event| !event.exact) {
            let error = UpstreamError::BrokeOff { why: "an event is not UTF-8".to_owned() };
            return fail(Refusal::upstream_failed(&call.connection, &error), *answered).await;
        }
        let data = event.as_ref().and_then(|event| event.data.as_deref());
        let data = data.filter(|data| !data.trim().is_empty());
        // An id comes back as it was, so it is sealed and not masked.
        let id = event.as_ref().and_then(|event| event.id.as_deref()).and_then(|id| {
            let (subject, connection) = (&caller.grant.subject.id, &caller.grant.connection);
            if id.is_empty() {
                Some(String::new())
            } else {
                self.seal.seal(Sealed::Event, id, subject, connection)
            }
        });
        let retry = event.as_ref().and_then(|event| event.retry);
        let frame = |data: Option<&str>| frame(retry, id.as_deref(), data);
        let message = match (decoded, data) {
            (Some(message), _) => Some(message),
            (None, Some(data)) => Some(self.decoded(call, Bytes::copy_from_slice(data.as_bytes()))),
            (None, None) => None,
        };
        let out_event = match message {
            // A priming event: only its id and retry matter.
            None => {
                let primes = event.as_ref().is_some_and(|event| event.data.is_some());
                trail.event(frame(primes.then_some("")), Outcome::StreamEvent, false, None)
            }
            Some(Err(refusal)) => return fail(refusal, *answered).await,
            Some(Ok(message)) => match self.judge(caller, call, message).await {
                Err(refusal) => return fail(refusal, *answered).await,
                Ok(Judged::Answer { masked, outcome, is_final }) => {
                    let frame = frame(std::str::from_utf8(masked.bytes()).ok());
                    let last = is_final && !*answered;
                    *answered |= is_final;
                    trail.event(frame, outcome, last, Some(&masked))
                }
                Ok(Judged::OfServer(permit)) => {
                    let shown = std::str::from_utf8(&permit.call().shown).ok();
                    OutEvent::of_server(&permit, frame(shown))
                }
                Ok(Judged::Dropped(denied)) => {
                    let no = denied.answer.clone();
                    if let Err(error) = self.recorder.record(*denied).await {
                        return broken(&error, out).await;
                    }
                    if let Some(no) = no {
                        self.answer_server(caller, no).await;
                    }
                    return Flow::On;
                }
            },
        };
        match self.recorder.record(out_event).await {
            Ok(recorded) => sent(out.send(Piece::Event(recorded)).await),
            Err(error) => broken(&error, out).await,
        }
    }

    /// Answers a server's own request that policy denied, so that the server does not wait for
    /// ever. The answer is a call like every other: decided, recorded, then forwarded.
    async fn answer_server(&self, caller: &Caller, no: Bytes) {
        let Ok(message) = Message::decode(no, Origin::Client, &self.settings.limits) else {
            return;
        };
        let act = Act::Message(message);
        let way = caller.way(Direction::ClientToServer, caller.era(&act));
        let Ok(call) = self.call(caller, way, act) else { return };
        let Decision::Allow(permit) = self.decide(caller, call, None) else {
            // Where clients may not answer either, the server is left to its own patience.
            return;
        };
        let trail = Trail::of(permit.call());
        let permit = match self.recorder.record(*permit).await {
            Ok(permit) => permit,
            Err(error) => {
                tracing::error!(%error, "the audit log cannot be written; a server is not answered");
                return;
            }
        };
        // The caller's headers speak of the caller's own request; only the version holds here.
        let version = caller.headers.get(headers::PROTOCOL_VERSION);
        let version = version.map(|version| (headers::PROTOCOL_VERSION, version.clone()));
        let given = version
            .into_iter()
            .map(|(name, value)| (axum::http::HeaderName::from_static(name), value))
            .collect();
        let outcome = match caller.upstream.forward(&permit, &caller.route(), &given).await {
            Ok(_) => Outcome::Accepted,
            Err(error) => {
                tracing::warn!(connection = %caller.grant.connection, %error, "an upstream failed");
                Outcome::UpstreamFailed
            }
        };
        self.close(&trail, outcome, false).await;
    }

    /// Ends a stream in the gateway's own name: whoever still waits for an answer gets one.
    async fn stop(
        &self,
        permit: &Durable<Permit>,
        trail: &Trail,
        refusal: &Refusal,
        outcome: Outcome,
        answered: bool,
        out: &mpsc::Sender<Piece>,
    ) {
        let call = permit.get().call();
        if answered || !call.is_request() {
            self.close(trail, outcome, answered).await;
            return;
        }
        match self.own_answer(call, trail, refusal, outcome).await {
            Reply::Whole(outbound) => {
                let _client_left = out.send(Piece::Whole(outbound)).await;
            }
            _ => {
                let _client_left = out.send(Piece::Broken).await;
            }
        }
    }

    /// Records how a call ended of which nothing more goes to the client.
    pub(super) async fn close(&self, trail: &Trail, outcome: Outcome, answered: bool) {
        if answered {
            return;
        }
        // Without this record the call is found as orphaned at the next start, which is true.
        if let Err(error) = self.recorder.append(trail.ended(outcome)).await {
            tracing::error!(%error, "the end of a call could not be recorded");
        }
    }
}

async fn broken(error: &crate::audit::RecordError, out: &mpsc::Sender<Piece>) -> Flow {
    tracing::error!(%error, "the audit log cannot be written; a stream is cut");
    let _client_left = out.send(Piece::Broken).await;
    Flow::End
}

/// A client that left is noticed by the loop, which then records it.
fn sent<E>(_outcome: Result<(), E>) -> Flow {
    Flow::On
}

fn is_tool_error(message: &Message) -> bool {
    #[derive(serde::Deserialize)]
    struct ToolResult {
        #[serde(default, rename = "isError")]
        is_error: bool,
    }
    message
        .result()
        .and_then(|result| serde_json::from_str::<ToolResult>(result).ok())
        .is_some_and(|result| result.is_error)
}

/// An event anew. Comments and unknown fields, which nobody can mask, are gone, and the pause that
/// the server asks for is bounded: a number of any size could stand for anything.
fn frame(retry: Option<u64>, id: Option<&str>, data: Option<&str>) -> Bytes {
    let mut text = String::new();
    if let Some(retry) = retry {
        let retry = retry.min(LONGEST_RETRY);
        text.push_str(&format!("retry: {retry}\n"));
    }
    match data {
        Some(data) => {
            let mut bytes = text.into_bytes();
            bytes.extend_from_slice(&sse::encode(None, id, data));
            bytes.into()
        }
        None => {
            if let Some(id) = id {
                text.push_str(&format!("id: {id}\n"));
            }
            text.push('\n');
            text.into()
        }
    }
}

/// The longest pause before a client reconnects, in milliseconds.
const LONGEST_RETRY: u64 = 10 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_made_anew() {
        let text = |retry, id, data| String::from_utf8(frame(retry, id, data).to_vec()).unwrap();
        assert_eq!(text(None, None, Some("{}")), "data: {}\n\n");
        // A social security number is no pause.
        let primed = text(Some(78_051_120), Some("sealed"), Some(""));
        assert_eq!(primed, "retry: 600000\nid: sealed\ndata: \n\n");
        assert_eq!(text(Some(5), Some(""), None), "retry: 5\nid: \n\n");
    }
}
