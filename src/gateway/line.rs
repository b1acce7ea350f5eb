//! The way from a reply to a client that may be cut off and come back.
//!
//! Two kinds of calls begin their stream before there is an answer: those that wait for a person,
//! and those of a server on stdio or over HTTP+SSE that takes its time, where the gateway is all the
//! Streamable HTTP it has, and says that it is alive. In the legacy era such a stream is kept ([`super::shelf`]), and begins
//! with an event that brings nothing but an id.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::authenticate::Caller;
use super::kept::{Kept, Sent};
use super::records::{Resumed, Trail};
use super::refusal::Refusal;
use super::respond::{Opening, Piece, Pieces, Reply};
use super::shelf::{IN_FLIGHT, Owner, Place};
use super::{Gateway, ends_with_its_client, has_left, unrecorded};
use crate::audit::Durable;
use crate::mcp::headers;
use crate::policy::{Act, Call, Permit};

/// How long a call to a server on one pipe may take before its answer becomes a stream.
const OPEN_AFTER: Duration = Duration::from_secs(1);

/// The first version whose clients take an event without a message.
const PRIMED_SINCE: &str = "2025-11-25";

/// Where a reply goes that comes as a stream.
pub(super) enum Line {
    /// To one reader; with that it ends. The time is how long the reader may take for a piece;
    /// none for one that has its own patience with a client.
    Direct(mpsc::Sender<Piece>, Option<Duration>),
    /// To whoever takes the stream up, who may take as long.
    Kept(Kept, Duration),
}

impl Line {
    /// Sends one piece; waits as long as the reader may take for it.
    pub(super) async fn send(&self, piece: Piece) -> Sent {
        match self {
            Self::Direct(out, None) => {
                let _taken_or_left = out.send(piece).await;
                Sent::Fine
            }
            Self::Direct(out, Some(patience)) => {
                match tokio::time::timeout(*patience, out.send(piece)).await {
                    Ok(_taken_or_left) => Sent::Fine,
                    Err(_) => Sent::Stalled,
                }
            }
            Self::Kept(kept, patience) => kept.send(piece, *patience).await,
        }
    }

    /// Whether the stream outlives its connection.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self, Self::Kept(..))
    }

    /// A sign of life. Where there is no room for one, what is in it shows that the stream lives.
    pub(super) fn keep_alive(&self) {
        match self {
            Self::Direct(out, _) => drop(out.try_send(Piece::KeepAlive)),
            Self::Kept(kept, _) => kept.keep_alive(),
        }
    }

    /// Waits until the client is cut off.
    pub(super) async fn away(&self) {
        match self {
            Self::Direct(out, _) => out.closed().await,
            Self::Kept(kept, _) => kept.away().await,
        }
    }

    /// Waits until the client is back; whether it comes.
    pub(super) async fn back(&self) -> bool {
        match self {
            Self::Direct(..) => false,
            Self::Kept(kept, _) => kept.back().await,
        }
    }

    /// Waits until the client is cut off and has not come back in time.
    pub(super) async fn abandoned(&self) {
        loop {
            self.away().await;
            if !self.back().await {
                return;
            }
        }
    }

    /// Nothing more comes.
    pub(super) fn finish(self) {
        if let Self::Kept(kept, _) = self {
            kept.finish();
        }
    }
}

impl Gateway {
    /// A line for the answer to a request: kept in the legacy era.
    pub(super) fn line(&self, owner: Owner, call: &Call) -> (Line, Pieces) {
        if ends_with_its_client(call) || !call.is_request() {
            return self.direct(Some(self.settings.streams.stalled));
        }
        let (kept, pieces) = self.shelf.begin(owner, false);
        (Line::Kept(kept, self.settings.streams.stalled), pieces)
    }

    /// A line to one reader, with which it ends.
    pub(super) fn direct(&self, patience: Option<Duration>) -> (Line, Pieces) {
        let (out, pieces) = mpsc::channel(IN_FLIGHT);
        (Line::Direct(out, patience), pieces.into())
    }

    /// The line for what a server sends as a stream.
    pub(super) fn line_of_server(&self, caller: &Caller, call: &Call) -> (Line, Pieces) {
        if caller.relayed {
            return self.direct(None);
        }
        let stalled = self.settings.streams.stalled;
        if !(matches!(call.act, Act::Listen) && caller.upstream.is_pipe()) {
            return self.direct(Some(stalled));
        }
        // What a server on one pipe says unasked is kept: it goes on where the client's id says.
        let taken = caller.place.as_ref().map(|at| self.shelf.take_over(caller.owner(), at));
        let (kept, pieces) = match taken {
            Some(Ok(taken)) => taken,
            // Gone since it was looked for: what comes is still to be had.
            Some(Err(_)) | None => self.shelf.begin(caller.owner(), true),
        };
        (Line::Kept(kept, stalled), pieces)
    }

    /// Sends a piece; whether the line goes on.
    pub(super) async fn put(&self, trail: Option<&Trail>, line: &Line, piece: Piece) -> bool {
        let sent = tokio::select! {
            sent = line.send(piece) => sent,
            () = line.abandoned() => return false,
        };
        if let Some(trail) = trail.filter(|_| sent == Sent::Stalled) {
            self.note_stalled(trail, false).await;
        }
        sent == Sent::Fine || line.is_kept()
    }

    /// Carries a reply into a stream that has begun. The trail is that of the call whose it is,
    /// where there is one.
    pub(super) async fn relay(&self, trail: Option<&Trail>, reply: Reply, line: &Line) {
        let piece = match reply {
            Reply::Whole(outbound) => Piece::Whole(Arc::new(outbound)),
            Reply::Denied(denied) => Piece::Denied(Arc::new(denied)),
            Reply::Refused(refused) => Piece::Refused(Arc::new(refused)),
            Reply::Stream(_, mut pieces) | Reply::Batch(mut pieces) => {
                loop {
                    // A client that leaves is noticed at once, not when the server speaks again.
                    let piece = tokio::select! {
                        piece = pieces.next() => piece,
                        () = line.abandoned() => return,
                    };
                    match piece {
                        None => return,
                        Some(Piece::KeepAlive) => line.keep_alive(),
                        Some(piece) => {
                            if !self.put(trail, line, piece).await {
                                return;
                            }
                        }
                    }
                }
            }
            Reply::Left | Reply::Unrecorded { .. } => Piece::Broken,
        };
        self.put(trail, line, piece).await;
    }

    /// Whether a call's answer may become a stream before there is an answer.
    pub(super) fn opens_early(caller: &Caller, call: &Call) -> bool {
        caller.upstream.is_pipe()
            && !caller.relayed
            && call.is_request()
            && caller.takes_stream()
            // The answer to a legacy `initialize` brings the session id, in its head.
            && (caller.protocol_session.is_some() || ends_with_its_client(call))
    }

    /// [`Gateway::send`] for a call that [`Self::opens_early`].
    pub(super) async fn early(
        self: Arc<Self>,
        mut caller: Caller,
        permit: Arc<Durable<Permit>>,
        left: Option<oneshot::Receiver<()>>,
    ) -> Reply {
        caller.relayed = true;
        let call = permit.get().call();
        let (trail, modern) = (Trail::of(call), ends_with_its_client(call));
        let owner = caller.owner();
        let (here, gone) = oneshot::channel();
        let gateway = Arc::clone(&self);
        let mut passing = Box::pin(gateway.send(caller, Arc::clone(&permit), Some(gone)));
        let reply = tokio::select! {
            reply = &mut passing => Some(reply),
            () = has_left(left), if modern => {
                drop(here);
                return passing.await;
            }
            () = tokio::time::sleep(OPEN_AFTER) => None,
        };
        let opening = match reply {
            Some(Reply::Stream(opening, pieces)) => {
                let (line, shown) = self.line(owner, call);
                tokio::spawn(async move {
                    let reply = Reply::Stream(Opening::Forwarded(permit, None), pieces);
                    self.relay(Some(&trail), reply, &line).await;
                    line.finish();
                });
                return Reply::Stream(opening, shown);
            }
            Some(other) => return other,
            None => Opening::Forwarded(Arc::clone(&permit), None),
        };
        let (line, shown) = self.line(owner, call);
        tokio::spawn(self.late(trail, passing, here, line));
        Reply::Stream(opening, shown)
    }

    /// Keeps a stream alive until its call is answered, then carries the answer into it.
    async fn late(
        self: Arc<Self>,
        trail: Trail,
        mut passing: Pin<Box<impl Future<Output = Reply>>>,
        here: oneshot::Sender<()>,
        line: Line,
    ) {
        let mut ticks = tokio::time::interval(self.settings.keep_alive);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let reply = loop {
            tokio::select! {
                reply = &mut passing => break reply,
                () = line.abandoned() => {
                    // In the modern era this cancels the call; in the legacy one it goes on, and
                    // its answer is recorded.
                    drop(here);
                    passing.await;
                    return line.finish();
                }
                _ = ticks.tick() => line.keep_alive(),
            }
        };
        self.relay(Some(&trail), reply, &line).await;
        line.finish();
    }

    /// Takes up a stream that is kept; `Err` gives the permit back for one that its server goes on
    /// with.
    pub(super) async fn resume(
        &self,
        caller: &Caller,
        place: &Place,
        permit: Permit,
    ) -> Result<Permit, Reply> {
        let owner = caller.owner();
        match self.shelf.is_unasked(&owner, place) {
            Ok(true) => return Ok(permit),
            Ok(false) => {}
            Err(_) => return Err(self.refuse(caller.refused(Refusal::stream_gone())).await),
        }
        let resumed = match self.recorder.record(Resumed::new(permit)).await {
            Ok(resumed) => resumed,
            Err(error) => return Err(unrecorded(&error, false)),
        };
        Err(match self.shelf.resume(&owner, place) {
            Ok(pieces) => Reply::Stream(Opening::Resumed(Box::new(resumed)), pieces),
            Err(_) => self.refuse(caller.refused(Refusal::stream_gone())).await,
        })
    }
}

impl Caller {
    /// Whose streams the caller may take up.
    pub(super) fn owner(&self) -> Owner {
        Owner {
            session: self.grant.session.clone(),
            subject: self.grant.subject.id.clone(),
            connection: self.grant.connection.clone(),
            protocol_session: self.protocol_session.as_ref().map(|session| session.id.clone()),
            primed: self
                .headers
                .get(headers::PROTOCOL_VERSION)
                .is_some_and(|version| version == PRIMED_SINCE),
        }
    }
}
