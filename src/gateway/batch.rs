//! Batches: in which protocol sessions they are taken, and how their messages go on.
//!
//! 2025-03-26 alone has batches, and servers of later versions execute them all the same, so they
//! are taken only in a session whose `initialize` settled on that version; the version is sealed
//! into the session's id. Upstream no batch is ever sent: every element is a call of its own, with
//! its own decision, records and answer, on the one way that [`Gateway::carry_one`] is. The answers
//! come one by one in an event stream (MCP 2025-03-26 `basic/transports`, sending messages).

use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Gateway;
use super::authenticate::Caller;
use super::line::Line;
use super::records::{Refused, Trail};
use super::refusal::Refusal;
use super::respond::Reply;
use crate::mcp::batch::{self, VERSION};
use crate::mcp::sse::Event;
use crate::mcp::{Fault, Kind, Message, Origin, headers, modern};
use crate::policy::{Act, Call};
use crate::upstream::{Body, Incoming};

/// How many events of a server may come before its answer to `initialize`, and how long they may
/// take, until the session is taken for one without batches.
const MOST_EVENTS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(5);

/// An element of a batch: a call, or why it is none.
pub(super) type Element = Result<Call, Box<Refused>>;

impl Gateway {
    /// The elements of a batch, each decoded and checked as if it had come alone.
    pub(super) fn elements(
        &self,
        caller: &Caller,
        head: &Parts,
        bytes: &Bytes,
    ) -> Result<Vec<Element>, Refusal> {
        let has_batches = |version: &str| version == VERSION;
        let negotiated = caller.protocol_session.as_ref().and_then(|session| session.version);
        let mut said = head.headers.get_all(headers::PROTOCOL_VERSION).iter();
        if !negotiated.is_some_and(has_batches)
            || !said.all(|version| version.to_str().is_ok_and(has_batches))
        {
            return Err(Refusal::no_batches());
        }
        if !caller.takes_stream() {
            return Err(Refusal::batch_needs_stream());
        }
        let limits = &self.settings.limits;
        let elements = batch::split(bytes, limits).map_err(|error| Refusal::from(&error))?;
        let read = |element: batch::Element| {
            let message = element
                .decode(Origin::Client, limits)
                .map_err(|error| Box::new(caller.refused(Refusal::from(&error))))?;
            if message.method() == Some("initialize") {
                let fault = Fault::Envelope("\"initialize\" cannot be part of a batch");
                let refusal = Refusal::from(&element.fault(fault));
                let id = message.id().cloned();
                return Err(Box::new(Refused { id, ..caller.refused(refusal) }));
            }
            self.checked(caller, head, Act::Message(message))
        };
        Ok(elements.into_iter().map(read).collect())
    }

    /// Carries the elements of a batch, each like a request of its own. Requests run side by side;
    /// what expects no answer goes in its place, before the requests behind it.
    pub(super) async fn carry_all(
        self: Arc<Self>,
        mut caller: Caller,
        elements: Vec<Element>,
    ) -> Reply {
        if elements.iter().any(|element| element.as_ref().map_or(true, Call::is_request)) {
            // What comes of the elements goes into one stream, and that alone has to do with the
            // client.
            caller.relayed = true;
            let (into, all) = self.direct(None);
            let (out, shown) = self.direct(Some(self.settings.streams.stalled));
            let first = elements.iter().flatten().find(|call| call.is_request()).map(Trail::of);
            let gateway = Arc::clone(&self);
            tokio::spawn(async move {
                gateway.relay(first.as_ref(), Reply::Batch(all), &out).await;
            });
            tokio::spawn(self.carry_into(caller, elements, into));
            return Reply::Batch(shown);
        }
        // Nobody waits for an answer: accepted, or what went wrong first.
        let mut reply = None;
        for call in elements.into_iter().flatten() {
            let (_here, left) = oneshot::channel();
            let next = Arc::clone(&self).carry_one(caller.clone(), call, left).await;
            if reply.as_ref().is_none_or(Reply::is_success) {
                reply = Some(next);
            }
        }
        reply.unwrap_or(Reply::Left)
    }

    /// Carries elements into the batch's stream, which says meanwhile that it is alive.
    async fn carry_into(self: Arc<Self>, caller: Caller, elements: Vec<Element>, out: Line) {
        let out = Arc::new(out);
        let mut ticks = tokio::time::interval(self.settings.keep_alive);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let alive = async {
            loop {
                ticks.tick().await;
                out.keep_alive();
            }
        };
        tokio::select! {
            () = Arc::clone(&self).carry_each(caller, elements, &out) => {}
            () = alive => {}
        }
    }

    async fn carry_each(self: Arc<Self>, caller: Caller, elements: Vec<Element>, out: &Arc<Line>) {
        let mut requests = JoinSet::new();
        for element in elements {
            let (here, left) = oneshot::channel::<()>();
            match element {
                Err(refused) => {
                    let reply = self.refuse(*refused).await;
                    self.relay(None, reply, out).await;
                }
                Ok(call) if call.is_request() => {
                    let trail = Trail::of(&call);
                    let (gateway, out) = (Arc::clone(&self), Arc::clone(out));
                    let carried = Arc::clone(&self).carry_one(caller.clone(), call, left);
                    requests.spawn(async move {
                        tokio::pin!(carried);
                        let reply = tokio::select! {
                            reply = &mut carried => reply,
                            () = out.abandoned() => {
                                drop(here);
                                carried.await
                            }
                        };
                        gateway.relay(Some(&trail), reply, &out).await;
                    });
                }
                Ok(call) => {
                    let trail = Trail::of(&call);
                    let reply = Arc::clone(&self).carry_one(caller.clone(), call, left).await;
                    if !reply.is_success() {
                        self.relay(Some(&trail), reply, out).await;
                    }
                }
            }
        }
        while requests.join_next().await.is_some() {}
    }

    /// The version that an `initialize` settles on, as its answer says. Reads ahead in a stream
    /// for that, because the session's id, into which it is sealed, stands in the head.
    pub(super) async fn negotiated(&self, call: &Call, body: &mut Body) -> Option<&'static str> {
        if call.action() != "initialize" {
            return None;
        }
        let response = |message: &Message| matches!(message.kind(), Kind::Response { .. });
        let answer = |raw: Bytes| {
            let message = Message::decode(raw, Origin::Server, &self.settings.limits);
            message.ok().filter(response)
        };
        let answer = match body {
            Body::Empty => None,
            Body::Message(raw) => answer(raw.clone()),
            Body::Decoded(message) => Some((**message).clone()).filter(response),
            Body::Stream(events) => {
                let found = events.look_ahead(MOST_EVENTS, |incoming| match incoming {
                    Incoming::Event(event) => answer(event.data.clone().unwrap_or_default().into()),
                    Incoming::Message(message) => Some(message.clone()).filter(response),
                    Incoming::Refused(_) => None,
                });
                tokio::time::timeout(PATIENCE, found).await.ok().flatten()
            }
        };
        modern::negotiated(&answer?)
    }

    /// An event that holds a batch, as one event for each message. The last one has the id: who
    /// resumes after it has seen them all.
    pub(super) fn cut(&self, caller: &Caller, incoming: Incoming) -> Vec<Incoming> {
        let Incoming::Event(event) = incoming else { return vec![incoming] };
        let in_session = caller.protocol_session.as_ref();
        let has_batches = in_session.is_some_and(|session| session.version == Some(VERSION));
        let data =
            event.data.as_deref().filter(|data| has_batches && batch::is_batch(data.as_bytes()));
        let elements = data.map(|data| {
            batch::split(&Bytes::copy_from_slice(data.as_bytes()), &self.settings.limits)
        });
        let Some(Ok(elements)) = elements else {
            return vec![Incoming::Event(event)];
        };
        let alone = |element: batch::Element| {
            let data = std::str::from_utf8(&element.raw).ok().map(str::to_owned);
            Event { data, id: None, retry: None, ..event.clone() }
        };
        let mut events: Vec<Event> = elements.into_iter().map(alone).collect();
        if let Some(last) = events.last_mut() {
            (last.id, last.retry) = (event.id, event.retry);
        }
        events.into_iter().map(Incoming::Event).collect()
    }
}
