//! A stream, event by event: each is judged, masked, recorded and released by itself, and the
//! upstream is read no faster than the client reads.
//!
//! A stream ends when the upstream ends it, the client leaves or reads nothing for too long, the
//! grant is over, the server stops, a call's upstream falls silent, or something cannot be
//! recorded. In each case the call's last record says so.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, MissedTickBehavior};

use super::Gateway;
use super::answer::Judged;
use super::authenticate::Caller;
use super::kept::Sent;
use super::line::Line;
use super::ports::Ended;
use super::records::{OutEvent, Trail};
use super::refusal::Refusal;
use super::respond::{Piece, Reply};
use super::seal::Sealed;
use crate::audit::{Durable, Outcome};
use crate::mcp::Message;
use crate::mcp::sse::{self, Event};
use crate::policy::{Call, Permit};
use crate::upstream::{Events, Incoming, UpstreamError};

/// A stream that is being carried.
struct Carried<'a> {
    caller: &'a Caller,
    permit: &'a Durable<Permit>,
    trail: &'a Trail,
    /// Whether the call whose stream it is has its answer.
    answered: bool,
}

/// What becomes of an event.
enum Next {
    /// It goes to the client.
    Send(Piece),
    /// It goes to the client, and is the last.
    SendLast(Piece),
    /// It is a sign of life, and no more.
    Alive,
    /// It goes nowhere.
    Skip,
    /// The stream ends in the gateway's own name.
    Fail(Refusal),
    /// The stream breaks: something could not be recorded.
    Broken,
}

/// Why a stream is ended from outside.
enum Cut {
    Over(Ended),
    Stopping,
    Left,
}

impl Gateway {
    /// Carries a stream to its end.
    pub(super) async fn pump(
        self: Arc<Self>,
        caller: Caller,
        permit: Arc<Durable<Permit>>,
        trail: Trail,
        events: Events,
        out: Line,
    ) {
        self.carry_events(&caller, &permit, &trail, events, &out).await;
        out.finish();
    }

    async fn carry_events(
        &self,
        caller: &Caller,
        permit: &Durable<Permit>,
        trail: &Trail,
        mut events: Events,
        out: &Line,
    ) {
        let mut grant = caller.grant.clone();
        let mut over = pin!(grant.ended(&*self.clock));
        let call = permit.get().call();
        // The messages of a batch that are still to be released.
        let mut parts = VecDeque::new();
        let mut carried = Carried { caller, permit, trail, answered: false };
        // What is there to be silent for a long time is not ended for it.
        let patience = call_timeout(call, self.settings.call_timeout);
        let mut silent = pin!(sleep(patience));
        let mut ticks = tokio::time::interval(self.settings.keep_alive);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            let event = tokio::select! {
                // In this order: nothing is released any more to who has lost the grant.
                biased;
                cut = self.cut_off(over.as_mut(), out) => return self.end(&carried, cut, out).await,
                event = self.next_part(caller, &mut parts, &mut events) => event,
                () = silent.as_mut() => {
                    let after = patience.unwrap_or_default();
                    let refusal = Refusal::call_timed_out(&call.connection, after);
                    return self.stop(&carried, &refusal, Outcome::TimedOut, out).await;
                }
                _ = ticks.tick() => {
                    out.keep_alive();
                    continue;
                }
            };
            let next = match event {
                None => {
                    self.close(trail, Outcome::StreamEnd, carried.answered).await;
                    return;
                }
                Some(Err(error)) => Next::Fail(Refusal::upstream_failed(&call.connection, &error)),
                Some(Ok(event)) => self.release(&mut carried, event).await,
            };
            let (piece, last) = match next {
                Next::Skip => continue,
                Next::Alive => {
                    out.keep_alive();
                    continue;
                }
                Next::Send(piece) => (piece, false),
                Next::SendLast(piece) => (piece, true),
                Next::Broken => {
                    out.send(Piece::Broken).await;
                    return;
                }
                Next::Fail(refusal) => {
                    return self.stop(&carried, &refusal, refusal.outcome(), out).await;
                }
            };
            if let Some(patience) = patience {
                silent.as_mut().reset(Instant::now() + patience);
            }
            let sent = tokio::select! {
                biased;
                sent = out.send(piece) => sent,
                cut = self.cut_off(over.as_mut(), out) => return self.end(&carried, cut, out).await,
            };
            if sent == Sent::Stalled {
                let ends = !out.is_kept();
                self.note_stalled(trail, ends && !carried.answered).await;
                if ends {
                    return;
                }
            }
            if last {
                self.close(trail, Outcome::StreamEnd, carried.answered).await;
                return;
            }
            ticks.reset();
        }
    }

    /// The next event of a stream, each of the messages of a batch as one of its own. A caller that
    /// stops waiting loses none.
    async fn next_part(
        &self,
        caller: &Caller,
        parts: &mut VecDeque<Incoming>,
        events: &mut Events,
    ) -> Option<Result<Incoming, UpstreamError>> {
        if parts.is_empty() {
            match events.next().await? {
                Ok(event) => parts.extend(self.cut(caller, event)),
                Err(error) => return Some(Err(error)),
            }
        }
        parts.pop_front().map(Ok)
    }

    async fn cut_off(&self, over: Pin<&mut impl Future<Output = Ended>>, out: &Line) -> Cut {
        tokio::select! {
            biased;
            ended = over => Cut::Over(ended),
            () = out.abandoned() => Cut::Left,
            () = self.stopping() => Cut::Stopping,
        }
    }

    async fn end(&self, carried: &Carried<'_>, cut: Cut, out: &Line) {
        match cut {
            Cut::Left => self.close(carried.trail, Outcome::Cancelled, carried.answered).await,
            Cut::Over(ended) => {
                self.stop(carried, &Refusal::ended(ended), Outcome::Expired, out).await;
            }
            Cut::Stopping => {
                let call = carried.permit.get().call();
                if let Some(closing) = closing(call).filter(|_| !carried.answered) {
                    let ok = axum::http::StatusCode::OK;
                    let outcome = Outcome::StreamEnd;
                    let reply = self.own_message(carried.trail, ok, &closing, outcome).await;
                    return last(reply, out).await;
                }
                self.stop(carried, &Refusal::stopping(), Outcome::Cancelled, out).await;
            }
        }
    }

    /// Records that a client was cut off for not reading.
    pub(super) async fn note_stalled(&self, trail: &Trail, last: bool) {
        tracing::info!(call = %trail.call, "a client that reads nothing is cut off");
        if let Err(error) = self.recorder.append(trail.stalled(last)).await {
            tracing::error!(%error, "that a client was cut off could not be recorded");
        }
    }

    async fn release(&self, carried: &mut Carried<'_>, incoming: Incoming) -> Next {
        let (caller, trail) = (carried.caller, carried.trail);
        let call = carried.permit.get().call();
        // What came on a pipe stands in no frame yet.
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
            return Next::Alive;
        }
        if event.as_ref().is_some_and(|event| !event.exact) {
            let error = UpstreamError::BrokeOff { why: "an event is not UTF-8".to_owned() };
            return Next::Fail(Refusal::upstream_failed(&call.connection, &error));
        }
        let data = event.as_ref().and_then(|event| event.data.as_deref());
        let data = data.filter(|data| !data.trim().is_empty());
        // An id comes back as it was, so it is sealed and not masked.
        let id = event.as_ref().and_then(|event| event.id.as_deref()).and_then(|id| {
            if id.is_empty() {
                Some(String::new())
            } else {
                self.seal.seal(Sealed::Event, id, caller.grant.seals())
            }
        });
        let retry = event.as_ref().and_then(|event| event.retry);
        let frame = |data: Option<&str>| frame(retry, id.as_deref(), data);
        let message = match (decoded, data) {
            (Some(message), _) => Some(message),
            (None, Some(data)) => Some(self.decoded(call, Bytes::copy_from_slice(data.as_bytes()))),
            (None, None) => None,
        };
        let mut last = false;
        let out_event = match message {
            // A priming event: only its id and retry matter.
            None => {
                let primes = event.as_ref().is_some_and(|event| event.data.is_some());
                trail.event(frame(primes.then_some("")), Outcome::StreamEvent, false, None)
            }
            Some(Err(refusal)) => return Next::Fail(refusal),
            Some(Ok(message)) => match self.judge(caller, call, message).await {
                Err(refusal) => return Next::Fail(refusal),
                Ok(Judged::Answer { masked, outcome, is_final }) => {
                    let frame = frame(std::str::from_utf8(masked.bytes()).ok());
                    let ends = is_final && !carried.answered;
                    carried.answered |= is_final;
                    trail.event(frame, outcome, ends, Some(&masked))
                }
                Ok(Judged::OfServer(permit)) => {
                    last = permit.call().message().is_some_and(|own| ends(call, own));
                    let shown = std::str::from_utf8(&permit.call().shown).ok();
                    OutEvent::of_server(&permit, frame(shown))
                }
                Ok(Judged::Dropped(denied)) => {
                    let no = denied.answer.clone();
                    if let Err(error) = self.recorder.record(*denied).await {
                        return broken(&error);
                    }
                    if let Some(no) = no {
                        self.answer_server(caller, no).await;
                    }
                    return Next::Skip;
                }
            },
        };
        match self.recorder.record(out_event).await {
            Ok(recorded) => {
                let piece = Piece::Event(Arc::new(recorded));
                if last { Next::SendLast(piece) } else { Next::Send(piece) }
            }
            Err(error) => broken(&error),
        }
    }

    /// Ends a stream in the gateway's own name: whoever still waits for an answer gets one.
    async fn stop(&self, carried: &Carried<'_>, refusal: &Refusal, outcome: Outcome, out: &Line) {
        let call = carried.permit.get().call();
        if carried.answered || !call.is_request() {
            self.close(carried.trail, outcome, carried.answered).await;
            return;
        }
        let reply = self.own_answer(call, carried.trail, refusal, outcome).await;
        last(reply, out).await;
    }
}

/// Sends the last piece to a client that may not read any more: whoever has lost the grant is cut
/// off whether or not they read why.
async fn last(reply: Reply, out: &Line) {
    let piece = match reply {
        Reply::Whole(outbound) => Piece::Whole(Arc::new(outbound)),
        _ => Piece::Broken,
    };
    drop(tokio::time::timeout(LAST_WORD, out.send(piece)).await);
}

/// How long the last piece of a stream may wait for its reader.
const LAST_WORD: Duration = Duration::from_secs(1);

fn broken(error: &crate::audit::RecordError) -> Next {
    tracing::error!(%error, "the audit log cannot be written; a stream is cut");
    Next::Broken
}

/// How long the server may say nothing on a call: without end where it is asked to speak only
/// when it has something to say.
pub(super) fn call_timeout(call: &Call, configured: Duration) -> Option<Duration> {
    (call.is_request() && !is_subscription(call)).then_some(configured)
}

/// A sleep that can be set anew; without a time it is a very long one.
pub(super) fn sleep(time: Option<Duration>) -> tokio::time::Sleep {
    const LONG: Duration = Duration::from_secs(365 * 24 * 3600);
    tokio::time::sleep(time.unwrap_or(LONG))
}

fn is_subscription(call: &Call) -> bool {
    call.action() == "subscriptions/listen"
}

/// Whether a server's own message ends the subscription in whose stream it stands, as a server on
/// stdio may say (MCP 2026-07-28 `basic/patterns/subscriptions`).
fn ends(call: &Call, own: &Message) -> bool {
    #[derive(Deserialize)]
    struct Cancelled<'a> {
        #[serde(borrow, rename = "requestId")]
        request: &'a RawValue,
    }
    let id = call.message().and_then(Message::id);
    is_subscription(call)
        && own.method() == Some("notifications/cancelled")
        && own
            .params()
            .filter(|params| params.starts_with('{'))
            .and_then(|params| serde_json::from_str::<Cancelled<'_>>(params).ok())
            .is_some_and(|said| id.is_some_and(|id| id.as_json() == said.request.get()))
}

/// How a subscription ends in good order when the gateway stops: with its result (MCP 2026-07-28
/// `SubscriptionsListenResult`).
fn closing(call: &Call) -> Option<Bytes> {
    let id = call.message().and_then(Message::id).filter(|_| is_subscription(call))?.as_json();
    Some(Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}}}"#
    )))
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
