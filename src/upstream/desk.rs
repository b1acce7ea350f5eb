//! Whose a message of a child is: a response goes to the request with its id; a notification to
//! the subscription or the progress that it names, else to the newest request in flight, else to
//! the listener, or it waits for one.
//!
//! Guessing is for the legacy era only, where messages do not say what they belong to: what names
//! a subscription that has ended reaches nobody else (MCP 2026-07-28 `basic/patterns/subscriptions`
//! and `basic/patterns/progress`).

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::UpstreamError;
use crate::mcp::{Id, Kind, Message};

/// Messages that wait for a listener; the oldest goes when one too many comes.
const BACKLOG: usize = 64;

/// Who waits for what.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pending: HashMap<Id, Pending>,
    /// Ids in the order they were asked.
    order: VecDeque<Id>,
    listener: Option<mpsc::Sender<Bytes>>,
    backlog: VecDeque<Bytes>,
    batches: bool,
    /// How the child ended, once it has.
    ended: Option<String>,
}

impl Desk {
    /// Whether a request with this id is in flight.
    pub(super) fn has_pending(&self, id: &Id) -> bool {
        self.pending.contains_key(id)
    }

    /// Notes that a request is in flight, and who reads what it brings.
    pub(super) fn ask(
        &mut self,
        id: Id,
        message: &Message,
        reader: mpsc::Sender<Bytes>,
    ) -> Result<(), UpstreamError> {
        self.check_running()?;
        if self.pending.contains_key(&id) {
            return Err(UpstreamError::IdInUse);
        }
        let progress = Marks::of(message).meta.and_then(|meta| meta.progress);
        let pending = Pending {
            reader,
            progress: progress.map(|token| token.get().to_owned()),
            subscribes: message.method() == Some("subscriptions/listen"),
        };
        self.pending.insert(id.clone(), pending);
        self.order.push_back(id);
        Ok(())
    }

    /// Forgets a request that nobody waits for.
    pub(super) fn forget(&mut self, id: &Id) {
        self.pending.remove(id);
        self.order.retain(|other| other != id);
    }

    /// Ends the wait for the answer to the request that a client's message cancels, if it does:
    /// no server owes one any more (MCP `basic/utilities/cancellation`).
    pub(super) fn withdraw(&mut self, message: &Message) {
        #[derive(Deserialize)]
        struct Cancelled<'a> {
            #[serde(borrow, rename = "requestId")]
            request: &'a RawValue,
        }
        if message.method() != Some("notifications/cancelled") {
            return;
        }
        let params = message.params().filter(|params| params.starts_with('{'));
        let named = params.and_then(|params| serde_json::from_str::<Cancelled<'_>>(params).ok());
        let Some(named) = named else { return };
        let found = self.pending.keys().find(|id| id.as_json() == named.request.get()).cloned();
        if let Some(id) = found {
            self.forget(&id);
        }
    }

    /// Whether the child has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Takes the place of the reader for messages that answer nothing. The one before it ends.
    pub(super) fn listen(&mut self) -> Result<mpsc::Receiver<Bytes>, UpstreamError> {
        self.check_running()?;
        let (sender, messages) = mpsc::channel(BACKLOG);
        for message in std::mem::take(&mut self.backlog) {
            // The channel is new and as long as the backlog.
            let _fits = sender.try_send(message);
        }
        self.listener = Some(sender);
        Ok(messages)
    }

    /// Takes back what a listener that left has not read.
    pub(super) fn unread(&mut self, message: Bytes) {
        let unsent = match self.listener.as_ref() {
            Some(listener) => {
                listener.try_send(message).err().map(mpsc::error::TrySendError::into_inner)
            }
            None => Some(message),
        };
        if let Some(message) = unsent {
            self.keep(message);
        }
    }

    /// Keeps a message for the next listener.
    pub(super) fn keep(&mut self, message: Bytes) {
        if self.backlog.len() == BACKLOG {
            self.backlog.pop_front();
        }
        self.backlog.push_back(message);
    }

    fn check_running(&self) -> Result<(), UpstreamError> {
        if self.has_ended() { Err(self.end_error()) } else { Ok(()) }
    }

    pub(super) fn end_error(&self) -> UpstreamError {
        let why = self.ended.clone().unwrap_or_else(|| "it closed its input".to_owned());
        UpstreamError::BrokeOff { why }
    }

    pub(super) fn close(&mut self, how: String) {
        // The first reason is the true one.
        self.ended.get_or_insert(how);
        self.pending.clear();
        self.order.clear();
        self.listener = None;
    }

    /// Who waits for the answer to the request whose id is written so.
    pub(super) fn asked(&self, id: &str) -> Option<mpsc::Sender<Bytes>> {
        let found = self.pending.iter().find(|(asked, _)| asked.as_json() == id);
        found.map(|(_, asked)| asked.reader.clone())
    }

    /// Whether lines may hold batches.
    pub(super) fn has_batches(&self) -> bool {
        self.batches
    }

    /// Says that lines may hold batches.
    pub(super) fn take_batches(&mut self) {
        self.batches = true;
    }

    /// Where a message goes that the strict decoder refused: to the request that it seems to
    /// answer, else to the newest, which fails with it.
    pub(super) fn reader_of_refused(&mut self, raw: &Bytes) -> Reader {
        let seems: Option<Value> = serde_json::from_slice(raw).ok();
        let id = seems.and_then(|message| Some(message.get("id")?.to_string()));
        let newest = || self.order.iter().rev().find(|id| self.pending.contains_key(*id));
        let asked = self.order.iter().find(|known| Some(known.as_json()) == id.as_deref());
        let Some(asked) = asked.or_else(newest).cloned() else { return Reader::Gone };
        self.order.retain(|other| *other != asked);
        self.pending.remove(&asked).map_or(Reader::Gone, |asked| Reader::Is(asked.reader))
    }

    /// Where a message of the child goes. A response ends its request's entry.
    pub(super) fn reader_of(&mut self, message: &Message) -> Reader {
        if let Kind::Response { id: Some(id), .. } = message.kind() {
            self.order.retain(|other| other != id);
            return self.pending.remove(id).map_or(Reader::Gone, |asked| Reader::Is(asked.reader));
        }
        let marks = Marks::of(message);
        if message.method() == Some("notifications/cancelled") {
            // How a server on stdio ends a subscription; it may cancel nothing else.
            let ended = self.pending.iter().find(|(id, asked)| {
                asked.subscribes && marks.request.is_some_and(|named| named.get() == id.as_json())
            });
            if let Some((_, asked)) = ended {
                return Reader::Is(asked.reader.clone());
            }
        }
        if let Some(named) = marks.meta.and_then(|meta| meta.subscription) {
            let mut pending = self.pending.iter();
            let found = pending.find(|(id, _)| id.as_json() == named.get());
            return found.map_or(Reader::Gone, |(_, asked)| Reader::Is(asked.reader.clone()));
        }
        let wanted = marks.progress.map(RawValue::get);
        let mut pending = self.pending.values();
        let by_progress =
            pending.find(|asked| wanted.is_some() && asked.progress.as_deref() == wanted);
        let newest = || {
            let newest_first = self.order.iter().rev().filter_map(|id| self.pending.get(id));
            newest_first.into_iter().find(|asked| !asked.subscribes)
        };
        let reader = by_progress.or_else(newest).map(|asked| &asked.reader);
        let listener = self.listener.as_ref().filter(|listener| !listener.is_closed());
        reader.or(listener).cloned().map_or(Reader::Awaited, Reader::Is)
    }
}

/// Who reads a message.
pub(super) enum Reader {
    Is(mpsc::Sender<Bytes>),
    /// Nobody any more: what it answers or belongs to has ended.
    Gone,
    /// Nobody yet.
    Awaited,
}

/// A request in flight.
#[derive(Debug)]
struct Pending {
    reader: mpsc::Sender<Bytes>,
    /// The JSON text of the token that its progress names.
    progress: Option<String>,
    /// Whether it is a modern subscription, which takes what names it and nothing else.
    subscribes: bool,
}

/// What a message says of the request that it belongs to, or how messages will name it.
#[derive(Default, Deserialize)]
struct Marks<'a> {
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<MetaMarks<'a>>,
    #[serde(borrow, default, rename = "progressToken")]
    progress: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestId")]
    request: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct MetaMarks<'a> {
    #[serde(borrow, default, rename = "io.modelcontextprotocol/subscriptionId")]
    subscription: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "progressToken")]
    progress: Option<&'a RawValue>,
}

impl<'a> Marks<'a> {
    fn of(message: &'a Message) -> Self {
        // A struct would take an array by position.
        let params = message.params().filter(|params| params.starts_with('{'));
        params.and_then(|params| serde_json::from_str(params).ok()).unwrap_or_default()
    }
}

/// A poisoned desk is still a desk: its parts are consistent after every statement.
pub(super) fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mcp::{Limits, Origin};

    fn message(value: Value, origin: Origin) -> Message {
        let mut value = value;
        value["jsonrpc"] = json!("2.0");
        Message::decode(Bytes::from(value.to_string()), origin, &Limits::default()).unwrap()
    }

    fn ask(desk: &mut Desk, id: i64, method: &str, meta: Value) -> mpsc::Receiver<Bytes> {
        let (reader, messages) = mpsc::channel(8);
        let params = json!({"_meta": meta});
        let value = json!({"id": id, "method": method, "params": params});
        let message = message(value, Origin::Client);
        desk.ask(message.id().unwrap().clone(), &message, reader).unwrap();
        messages
    }

    /// Which of the readers gets a message.
    fn goes(desk: &mut Desk, value: Value, to: &mut [&mut mpsc::Receiver<Bytes>]) -> Option<usize> {
        let message = message(value, Origin::Server);
        match desk.reader_of(&message) {
            Reader::Is(sender) => sender.try_send(message.raw().clone()).unwrap(),
            Reader::Gone => return None,
            Reader::Awaited => return Some(usize::MAX),
        }
        to.iter_mut().position(|reader| reader.try_recv().is_ok())
    }

    fn told(subscription: Value) -> Value {
        let meta = json!({"io.modelcontextprotocol/subscriptionId": subscription});
        json!({"method": "notifications/tools/list_changed", "params": {"_meta": meta}})
    }

    fn progress(token: Value) -> Value {
        json!({"method": "notifications/progress", "params": {"progressToken": token}})
    }

    #[test]
    fn what_names_its_request_goes_nowhere_else() {
        let mut desk = Desk::default();
        let mut subscription = ask(&mut desk, 1, "subscriptions/listen", json!({}));
        let mut slow = ask(&mut desk, 2, "tools/call", json!({"progressToken": "a"}));
        let mut quick = ask(&mut desk, 3, "tools/call", json!({"progressToken": 7}));
        let mut newest = ask(&mut desk, 4, "subscriptions/listen", json!({}));
        let to = &mut [&mut subscription, &mut slow, &mut quick, &mut newest];
        let log = json!({"method": "notifications/message", "params": {"level": "info"}});
        assert_eq!(goes(&mut desk, told(json!(1)), to), Some(0));
        assert_eq!(goes(&mut desk, told(json!("1")), to), None, "another id");
        assert_eq!(goes(&mut desk, told(json!(9)), to), None, "ended");
        assert_eq!(goes(&mut desk, progress(json!("a")), to), Some(1));
        assert_eq!(goes(&mut desk, progress(json!(7)), to), Some(2));
        assert_eq!(goes(&mut desk, log.clone(), to), Some(2), "the newest that is no subscription");
        let over = |id| json!({"method": "notifications/cancelled", "params": {"requestId": id}});
        assert_eq!(goes(&mut desk, over(json!(4)), to), Some(3), "the end of a subscription");
        assert_eq!(goes(&mut desk, json!({"id": 3, "result": {}}), to), Some(2));
        assert_eq!(goes(&mut desk, json!({"id": 3, "result": {}}), to), None, "answered once");
        desk.forget(message(json!({"id": 2, "method": "x"}), Origin::Client).id().unwrap());
        assert_eq!(goes(&mut desk, log, to), Some(usize::MAX), "waits for a listener");
    }

    #[test]
    fn nobody_waits_for_the_answer_to_what_was_cancelled() {
        let mut desk = Desk::default();
        let mut first = ask(&mut desk, 1, "tools/call", json!({}));
        let mut second = ask(&mut desk, 2, "tools/call", json!({}));
        for (method, id) in
            [("other", json!(1)), ("cancelled", json!("1")), ("cancelled", json!(2))]
        {
            let method = format!("notifications/{method}");
            let told = json!({"method": method, "params": {"requestId": id}});
            desk.withdraw(&message(told, Origin::Client));
        }
        assert_eq!(second.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        let to = &mut [&mut first, &mut second];
        assert_eq!(goes(&mut desk, json!({"id": 2, "result": {}}), to), None);
        assert_eq!(goes(&mut desk, json!({"id": 1, "result": {}}), to), Some(0));
    }

    #[test]
    fn what_waited_comes_first_and_the_oldest_goes() {
        let mut desk = Desk::default();
        for number in 0..=BACKLOG {
            desk.keep(Bytes::from(number.to_string()));
        }
        let mut listener = desk.listen().unwrap();
        assert_eq!(listener.try_recv().unwrap(), "1");
        let to = &mut [&mut listener];
        while to[0].try_recv().is_ok() {}
        assert_eq!(goes(&mut desk, progress(json!(1)), to), Some(0));
        desk.close("gone".to_owned());
        assert!(desk.listen().is_err());
    }
}
