//! What comes back: judged, filtered, masked, recorded, and only then released. Streams go on in
//! [`super::pump`].

use std::sync::Arc;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use bytes::Bytes;

use super::authenticate::Caller;
use super::lists::{Item, Listed};
use super::records::{Denied, Outbound, Trail, own_words};
use super::refusal::Refusal;
use super::respond::{Opening, Reply};
use super::seal::ProtocolSession;
use super::{Gateway, hints, unrecorded};
use crate::audit::{Durable, Outcome, RecordError};
use crate::mask::Masked;
use crate::mcp::{Kind, Message, Origin, headers};
use crate::policy::{Act, Call, Decision, Direction, Permit};
use crate::upstream::{Answer, Body, UpstreamError};

/// A message of the server, after policy and masking.
pub(super) enum Judged {
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

impl Gateway {
    pub(super) async fn answer(
        self: Arc<Self>,
        caller: Caller,
        permit: Arc<Durable<Permit>>,
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
        let session = answer.headers.get(headers::SESSION_ID);
        // Some servers say with every answer which session it is of, which its client has said.
        let said = caller.protocol_session.as_ref().map(|session| session.id.as_str());
        let known = session.and_then(|id| id.to_str().ok()) == said;
        let version = match session {
            Some(_) => self.negotiated(call, &mut answer.body).await,
            None => None,
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
                let opening = match self
                    .opening(&caller, &permit, &trail, answer.status, headers, known)
                    .await
                {
                    Ok(opening) => opening,
                    Err(error) => return unrecorded(&error, true),
                };
                let (line, pieces) = self.line_of_server(&caller, call);
                tokio::spawn(Arc::clone(&self).pump(
                    caller,
                    Arc::clone(&permit),
                    trail,
                    events,
                    line,
                ));
                Reply::Stream(opening, pieces)
            }
        }
    }

    /// The head of a stream. One that answers a message and has nothing in it that is the
    /// upstream's needs no record of its own: what follows is recorded event by event.
    async fn opening(
        &self,
        caller: &Caller,
        permit: &Arc<Durable<Permit>>,
        trail: &Trail,
        status: StatusCode,
        mut given: HeaderMap,
        known: bool,
    ) -> Result<Opening, RecordError> {
        let ours = [CONTENT_TYPE, CACHE_CONTROL];
        let echoed = given.remove(headers::SESSION_ID);
        let session = if echoed.is_some() { caller.headers.get(headers::SESSION_ID) } else { None };
        let plain = permit.get().call().is_request()
            && status == StatusCode::OK
            && (known || echoed.is_none())
            && given.keys().all(|name| ours.contains(name) || name == headers::X_ACCEL_BUFFERING);
        if plain {
            return Ok(Opening::Forwarded(Arc::clone(permit), session.cloned()));
        }
        if let Some(sealed) = echoed {
            given.insert(headers::SESSION_ID, sealed);
        }
        let recorded = self.recorder.record(trail.opened(status, given)).await?;
        Ok(Opening::Recorded(Box::new(recorded)))
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
        let head = HeaderMap::from_iter([(CONTENT_TYPE, json)]);
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
            // A server may repeat the id of a session that goes on.
            let known = caller.protocol_session.as_ref().and_then(|session| session.version);
            let id = id.to_str().ok()?.to_owned();
            let session = ProtocolSession { id, version: version.or(known) };
            let sealed = self.seal.seal_session(&session, caller.grant.seals())?;
            given.insert(headers::SESSION_ID, HeaderValue::from_str(&sealed).ok()?);
        }
        Some(given)
    }

    /// The one decoder, for what was not decoded yet.
    pub(super) fn decoded(&self, call: &Call, raw: Bytes) -> Result<Message, Refusal> {
        Message::decode(raw, Origin::Server, &self.settings.limits)
            .map_err(|error| Refusal::upstream_malformed(&call.connection, &error))
    }

    /// Judges one message of the server: an answer is filtered and masked; a message of the
    /// server's own is a call in the other direction, decided like every call.
    pub(super) async fn judge(
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
            let targets: Vec<_> = listed.items().iter().map(|item| item.target.clone()).collect();
            let may = policies.listed(&call.subject, &call.connection, &targets, &facts);
            let shows = |place: usize, _: &Item<'_>| {
                accepted.get(place).copied().unwrap_or(false)
                    && may.get(place).copied().unwrap_or(false)
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

    /// Answers a server's own request that policy denied, so that the server does not wait for
    /// ever. The answer is a call like every other: decided, recorded, then forwarded.
    pub(super) async fn answer_server(&self, caller: &Caller, no: Bytes) {
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

fn is_tool_error(message: &Message) -> bool {
    message.result_member("isError") == Some("true")
}
