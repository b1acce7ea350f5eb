//! The gateway: the one way from a client to an MCP server and back.
//!
//! Every request of every method, transport and era goes through [`Gateway::carry`], which reads
//! as the data path:
//!
//! accept → authenticate → decode → pin → decide → (await approval) → record request, durable
//! → forward with the connection's own credential → mask → record response, durable → respond
//!
//! Three types hold that order, and the compiler holds them: forwarding takes only a
//! `Durable<Permit>`, of which only policy makes the `Permit` and only the recorder the `Durable`;
//! the writer ([`respond`]) takes only `Durable` replies; and a whole answer is made of what only
//! masking makes. [`answer`] alone makes events, of masked bytes.
//!
//! One more thing decides, records and forwards: the answer to a server's own request that policy
//! denied (in [`answer`]).
//!
//! | file | step |
//! |---|---|
//! | [`authenticate`] | a live grant, and proof of its key |
//! | [`decode`] | one strict message, or one of the two acts without one |
//! | [`batch`] | a 2025-03-26 batch: each of its messages on its own way |
//! | [`hold`] | waiting for a person |
//! | [`rounds`] | the same without anything held, in the modern era |
//! | [`answer`] | what comes back: judged, filtered, masked, recorded |
//! | [`asked`] | what a result asks of the client |
//! | [`pump`] | streams, event by event |
//! | [`mod@line`], [`shelf`], [`kept`] | streams that outlive their connection, and what is kept of them |
//! | [`lasting`] | what goes on when its client is gone |
//! | [`slots`] | how many streams are open |
//! | [`lists`] | lists show what may be used |
//! | [`hints`] | how long an answer may be kept, and for whom |
//! | [`pins`] | a tool is what it was when it was accepted |
//! | [`records`] | what the records say |
//! | [`refusal`] | what the gateway says in its own name |
//! | [`respond`] | the only writer |
//! | [`seal`] | legacy session ids that work for their owner only |
//! | [`ports`] | what `control` implements for it |

mod answer;
mod asked;
mod authenticate;
mod batch;
mod decode;
mod hints;
mod hold;
mod kept;
mod lasting;
mod line;
mod lists;
pub mod pins;
pub mod ports;
mod pump;
pub mod records;
pub mod refusal;
pub mod respond;
mod rounds;
pub mod seal;
pub mod shelf;
pub mod slots;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::http::{Request, Response};
use futures_util::FutureExt as _;
use tokio::sync::{oneshot, watch};

use self::authenticate::Caller;
use self::decode::Decoded;
use self::lasting::Lasting;
use self::ports::{Approvals, Ended, Grants, Pins};
use self::records::{Denied, Refused, Trail};
use self::refusal::Refusal;
use self::respond::Reply;
use self::seal::Seal;
use self::shelf::{Keeping, Shelf};
use self::slots::{Full, Slots};
use crate::audit::{Durable, Outcome, RecordError, Recorder};
use crate::identity::grant::GrantVerifier;
use crate::identity::possession::Possession;
use crate::mask::Masker;
use crate::mcp::{Era, Limits, Message};
use crate::policy::{Act, Call, Decision, Permit, PolicySet};
use crate::types::{Clock, ConnectionName};
use crate::upstream::Upstream;

/// Times and bounds of the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bounds on one message.
    pub limits: Limits,
    /// How long a call is held open for an approver.
    pub approval_wait: Duration,
    /// How often a held or silent stream says that it is alive.
    pub keep_alive: Duration,
    /// How long running calls have when the server stops.
    pub drain: Duration,
    /// How long an MCP server may say nothing on a call.
    pub call_timeout: Duration,
    /// How long a request's body may be on its way.
    pub body_timeout: Duration,
    /// Bounds on streams.
    pub streams: Streams,
}

/// Bounds on streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// How many calls and streams one session may have open.
    pub per_session: usize,
    /// How many all sessions may.
    pub total: usize,
    /// How long a client may take nothing of a stream before it is cut off.
    pub stalled: Duration,
    /// What is kept for clients that are cut off.
    pub keeping: Keeping,
}

/// Everything that the data path uses.
pub struct Gateway {
    /// The server's public URL, without a slash at its end.
    pub public_url: String,
    /// The registered MCP servers.
    pub connections: BTreeMap<ConnectionName, Arc<Upstream>>,
    /// The policies in force.
    pub policies: Arc<ArcSwap<PolicySet>>,
    /// The masking engine.
    pub masker: Arc<Masker>,
    /// The audit log's writer.
    pub recorder: Recorder,
    /// Verifies grant tokens.
    pub verifier: Arc<GrantVerifier>,
    /// Judges whether a request shows what its token is bound to.
    pub possession: Possession,
    /// Seals legacy session ids and event ids.
    pub seal: Arc<Seal>,
    /// Streams that clients may take up again.
    pub shelf: Arc<Shelf>,
    /// Streams that are open.
    pub slots: Arc<Slots>,
    /// Where grants are looked up.
    pub grants: Arc<dyn Grants>,
    /// Where people are asked.
    pub approvals: Arc<dyn Approvals>,
    /// Where definitions are pinned.
    pub pins: Arc<dyn Pins>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Becomes true when the server stops and what still runs must end.
    pub stop: watch::Sender<bool>,
    /// Times and bounds.
    pub settings: Settings,
}

impl Gateway {
    /// Answers one HTTP request to `/mcp/{connection}`.
    ///
    /// The data path outlives whoever waits for it: a client that hangs up in the middle takes
    /// nothing of the record with it.
    pub async fn handle(
        self: Arc<Self>,
        connection: String,
        request: Request<Body>,
    ) -> Response<Body> {
        // Dropped with this future, which is how the data path learns that the client has left.
        let (_here, left) = oneshot::channel();
        let path = async move { self.carry(&connection, request, left).await };
        let path = AssertUnwindSafe(Lasting::new(path)).catch_unwind();
        respond::write(path.await.unwrap_or_else(|_panic| {
            tracing::error!("the data path failed");
            Reply::Unrecorded { forwarded: true }
        }))
    }

    /// The data path.
    async fn carry(
        self: Arc<Self>,
        connection: &str,
        request: Request<Body>,
        left: oneshot::Receiver<()>,
    ) -> Reply {
        let (head, body) = request.into_parts();

        let caller = match self.authenticate(connection, &head).await {
            Ok(caller) => caller,
            Err(refused) => return self.refuse(refused).await,
        };
        match self.decode(&caller, &head, body).await {
            Ok(Decoded::Call(call)) => self.carry_one(caller, *call, left).await,
            Ok(Decoded::Batch(elements)) => self.carry_all(caller, elements).await,
            Err(refused) => self.refuse(refused).await,
        }
    }

    /// The data path of one call.
    async fn carry_one(
        self: Arc<Self>,
        mut caller: Caller,
        mut call: Call,
        left: oneshot::Receiver<()>,
    ) -> Reply {
        let round;
        (call, round) = match self.take_up(&caller, call) {
            Ok(taken) => taken,
            Err(refusal) => return self.refuse(caller.refused(refusal)).await,
        };
        if let Err(full) = self.take_slot(&mut caller, &call) {
            let id = call.message().and_then(Message::id).cloned();
            let refused = caller.refused(Refusal::full(full));
            return self.refuse(Refused { id, ..refused }).await;
        }
        match self.pin(&mut call).await {
            Ok(None) => {}
            Ok(Some(denial)) => {
                // Who may not use it at all does not learn that it is there.
                if let Decision::Deny(call, denial) = self.decide(&caller, call.clone(), None) {
                    return self.deny(Denied::by_policy(&call, &denial, &self.masker)).await;
                }
                let refusal = Refusal::quarantined(&call, &denial);
                return self.deny(Denied::new(&call, &refusal, &denial, &self.masker)).await;
            }
            Err(error) => return self.refuse(caller.refused(Refusal::from(&error))).await,
        }
        let id = call.message().and_then(Message::id).cloned();
        let decision = self.decide(&caller, call, None);
        if let Some(call) = decision.lets()
            && let Err(refusal) = decode::check_params(&caller.headers, call)
        {
            return self.refuse(Refused { id, ..caller.refused(refusal) }).await;
        }
        match decision {
            Decision::Allow(permit) => self.pass(caller, *permit, Some(left)).await,
            Decision::NeedsApproval(need) => self.hold(caller, *need, round, left).await,
            Decision::Deny(call, denial) => {
                let denied = Denied::by_policy(&call, &denial, &self.masker);
                self.deny(denied).await
            }
        }
    }

    /// A slot for a call whose answer may be a stream, before it is forwarded.
    fn take_slot(&self, caller: &mut Caller, call: &Call) -> Result<(), Full> {
        let streams = call.is_request() && caller.takes_stream() || matches!(call.act, Act::Listen);
        if streams {
            caller.slot = Some(Arc::new(self.slots.take(&caller.grant.session)?));
        }
        Ok(())
    }

    /// From the permit to the reply: record, then [`Self::send`].
    ///
    /// `left` ends when the client hangs up before the answer begins; without it the call goes on
    /// whatever the client does.
    async fn pass(
        self: Arc<Self>,
        caller: Caller,
        mut permit: Permit,
        left: Option<oneshot::Receiver<()>>,
    ) -> Reply {
        if let Some(place) = &caller.place {
            permit = match self.resume(&caller, place, permit).await {
                Ok(permit) => permit,
                Err(reply) => return reply,
            };
        }
        let permit: Durable<Permit> = match self.recorder.record(permit).await {
            Ok(permit) => permit,
            Err(error) => return unrecorded(&error, false),
        };
        let permit = Arc::new(permit);
        let call = permit.get().call();
        if matches!(call.act, Act::End) {
            self.shelf.forget_protocol_session(&caller.owner());
        }
        if Self::opens_early(&caller, call) {
            self.early(caller, permit, left).await
        } else {
            self.send(caller, permit, left).await
        }
    }

    /// From the record to the reply: forward, mask, record.
    async fn send(
        self: Arc<Self>,
        caller: Caller,
        permit: Arc<Durable<Permit>>,
        left: Option<oneshot::Receiver<()>>,
    ) -> Reply {
        let route = caller.route();
        let mut grant = caller.grant.clone();
        let call = permit.get().call();
        let patience = pump::call_timeout(call, self.settings.call_timeout);
        let answer = tokio::select! {
            answer = caller.upstream.forward(&permit, &route, &caller.headers) => answer,
            // Whoever has lost the grant gets no answer any more, however long it took. One that
            // runs out was good when the call was made; and brokers take "expired" to mean that
            // nothing was forwarded, and would make the call again.
            () = has_left(left), if ends_with_its_client(call) => {
                self.close(&Trail::of(call), Outcome::Cancelled, false).await;
                return Reply::Left;
            }
            () = self.stopping() => {
                let (trail, refusal) = (Trail::of(call), Refusal::stopping());
                return self.own_answer(call, &trail, &refusal, Outcome::Cancelled).await;
            }
            () = grant.revoked() => {
                let (trail, refusal) = (Trail::of(call), Refusal::ended(Ended::Revoked));
                return self.own_answer(call, &trail, &refusal, Outcome::Expired).await;
            }
            () = pump::sleep(patience) => {
                let after = patience.unwrap_or_default();
                let refusal = Refusal::call_timed_out(&call.connection, after);
                return self.own_answer(call, &Trail::of(call), &refusal, Outcome::TimedOut).await;
            }
        };
        // What was kept for a grant that ended meanwhile is not ended by anybody else.
        if call.action() == "initialize" && caller.grant.has_ended(self.clock.now()).is_some() {
            self.end_session(&call.connection, &call.session).await;
        }
        self.answer(caller, Arc::clone(&permit), answer).await
    }

    /// Puts a call to the policies in force.
    fn decide(
        &self,
        caller: &Caller,
        call: Call,
        approved: Option<&crate::policy::Approved>,
    ) -> Decision {
        self.policies.load().decide(call, &self.facts(caller), approved)
    }

    fn facts(&self, caller: &Caller) -> crate::policy::Facts {
        let now = self.clock.now();
        crate::policy::Facts {
            now,
            source: caller.source,
            grant_age_seconds: now.as_second() - caller.grant.issued_at.as_second(),
            reason: caller.grant.reason.clone(),
            scope: caller.grant.scope.clone(),
        }
    }

    async fn deny(&self, denied: Denied) -> Reply {
        match self.recorder.record(denied).await {
            Ok(denied) => Reply::Denied(denied),
            Err(error) => unrecorded(&error, false),
        }
    }

    async fn refuse(&self, mut refused: Refused) -> Reply {
        let refusal = &mut refused.refusal;
        refusal.message = records::recordable(&refusal.message, &self.masker);
        // The keys on the way to the fault are the sender's words.
        if let Some((_, Some(pointer))) = &mut refusal.place {
            *pointer = records::recordable(pointer, &self.masker);
        }
        match self.recorder.record(refused).await {
            Ok(refused) => Reply::Refused(refused),
            Err(error) => unrecorded(&error, false),
        }
    }

    /// Ends what upstreams keep for sessions whose grants are over, once.
    pub async fn end_session(
        &self,
        connection: &ConnectionName,
        session: &crate::types::SessionId,
    ) {
        self.shelf.forget(session);
        if let Some(upstream) = self.connections.get(connection) {
            upstream.end_session(session).await;
        }
    }

    /// Ends when the server stops and has given running calls their time.
    async fn stopping(&self) {
        let told = self.stop.subscribe().wait_for(|stop| *stop).await.is_ok();
        if !told {
            std::future::pending::<()>().await;
        }
    }

    /// Ends what still runs: calls and streams, each with its last record, and what upstreams
    /// keep.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        let upstreams = self.connections.values().map(|upstream| upstream.shutdown());
        futures_util::future::join_all(upstreams).await;
    }
}

/// Whether a client that hangs up cancels the call: in the modern era by the protocol (MCP
/// 2026-07-28 `basic/transports/streamable-http`); in the legacy era it does not, and what was
/// asked goes on, except a stream that only the client would read.
fn ends_with_its_client(call: &Call) -> bool {
    match &call.act {
        Act::Message(_) => call.is_request() && call.era == Era::Modern,
        Act::Listen => true,
        Act::End => false,
    }
}

async fn has_left(left: Option<oneshot::Receiver<()>>) {
    match left {
        // Nothing is ever sent: it ends when the other end is dropped.
        Some(left) => drop(left.await),
        None => std::future::pending().await,
    }
}

/// The one reply without a record: that there can be none. It holds nothing of the call.
fn unrecorded(error: &RecordError, forwarded: bool) -> Reply {
    tracing::error!(%error, forwarded, "the audit log cannot be written; calls are refused");
    Reply::Unrecorded { forwarded }
}
