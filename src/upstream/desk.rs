//! Whose a message of a child or an event stream is, where it works for one protocol session: a response goes
//! to the request with its id; a notification to the subscription or the progress that it names,
//! else to the newest request in flight, else to the listener, or it waits for one.
//!
//! Guessing is for the legacy era only, where messages do not say what they belong to: what names
//! a subscription that has ended reaches nobody else (MCP 2026-07-28 `basic/patterns/subscriptions`
//! and `basic/patterns/progress`). Where many sessions share a child nothing is guessed:
//! [`super::shared`].

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::rewrite::Names;
use super::{Incoming, UpstreamError};
use crate::mcp::{Id, Kind, Message};

/// Messages that wait for a listener; the oldest goes when one too many comes.
pub(super) const BACKLOG: usize = 64;

/// One of those who share a child: a protocol session, or in the modern era a session of ours.
pub(super) type Party = Arc<str>;

/// Who waits for what.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Requests in flight, by the id that the child knows.
    pub(super) pending: HashMap<Id, Pending>,
    /// Those ids in the order in which they were asked.
    order: VecDeque<Id>,
    pub(super) listeners: HashMap<Party, Reader>,
    backlog: VecDeque<Message>,
    /// Who wants to be told of a resource, where many share the child.
    pub(super) watched: HashMap<String, HashSet<Party>>,
    /// The last id that was given out, where many share the child.
    pub(super) numbers: Option<u64>,
    batches: bool,
    /// How the child ended, once it has.
    ended: Option<String>,
}

/// Where messages go, and why none come any more.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    messages: mpsc::Sender<Incoming>,
    fate: Arc<OnceLock<Fate>>,
    /// Bytes that wait to be taken.
    waiting: Arc<AtomicUsize>,
}

/// The other end of a [`Reader`].
#[derive(Debug)]
pub(super) struct Inlet {
    messages: mpsc::Receiver<Incoming>,
    fate: Arc<OnceLock<Fate>>,
    waiting: Arc<AtomicUsize>,
}

/// A reader with room for so many messages, and its other end.
pub(super) fn reader(room: usize) -> (Reader, Inlet) {
    let (sender, receiver) = mpsc::channel(room);
    let (fate, waiting) = (Arc::<OnceLock<Fate>>::default(), Arc::<AtomicUsize>::default());
    let inlet =
        Inlet { messages: receiver, fate: Arc::clone(&fate), waiting: Arc::clone(&waiting) };
    (Reader { messages: sender, fate, waiting }, inlet)
}

impl Reader {
    /// Hands over a message, or gives it back.
    pub(super) fn offer(&self, message: Incoming) -> Result<(), Unread> {
        let bytes = message.bytes();
        // Counted before it can be taken.
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        match self.messages.try_send(message) {
            Ok(()) => Ok(()),
            Err(unsent) => {
                self.waiting.fetch_sub(bytes, Ordering::Relaxed);
                Err(match unsent {
                    TrySendError::Full(message) => Unread::Full(message),
                    TrySendError::Closed(message) => Unread::Left(message),
                })
            }
        }
    }

    /// Whether the reader has left.
    fn has_left(&self) -> bool {
        self.messages.is_closed()
    }

    /// Waits until there may be room, or the reader has left.
    pub(super) async fn room(&self) {
        let _room_or_gone = self.messages.reserve().await.is_ok();
    }

    /// How many bytes wait to be taken.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Says why nothing comes any more. The first reason stands.
    pub(super) fn cut(&self, why: Fate) {
        let _set_once = self.fate.set(why);
    }
}

impl Inlet {
    /// The next message; `None` when nothing comes any more.
    pub(super) async fn next(&mut self) -> Option<Incoming> {
        let message = self.messages.recv().await?;
        self.waiting.fetch_sub(message.bytes(), Ordering::Relaxed);
        Some(message)
    }

    /// Takes no more, and gives what has not been taken.
    pub(super) fn leave(&mut self) -> Vec<Incoming> {
        self.messages.close();
        std::iter::from_fn(|| self.messages.try_recv().ok()).collect()
    }

    /// Why nothing comes any more, where we decided that.
    pub(super) fn fate(&self) -> Option<Fate> {
        self.fate.get().copied()
    }
}

/// A message that was not handed over.
#[derive(Debug)]
pub(super) enum Unread {
    /// There is no room.
    Full(Incoming),
    /// The reader has left.
    Left(Incoming),
}

/// Why a reader was cut off by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It did not take what came for it, and others waited.
    TooSlow,
    /// Its protocol session was ended.
    SessionOver,
    /// Its client has cancelled the request: nothing is owed to it.
    Withdrawn,
}

/// Who a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Recipient {
    /// The request that the child knows by this id.
    Request(Id),
    /// A listener.
    Listener(Party),
}

/// What becomes of a message of the child.
#[derive(Debug)]
pub(super) enum Delivery {
    /// These read it, each in the form that is for them.
    To(Vec<(Recipient, Reader, Message)>),
    /// Nobody reads it, for a reason in a word.
    Nobody(&'static str),
    /// It is answered in the gateway's own name, since nobody is there who could.
    Answer(Bytes, Option<&'static str>),
    /// It waits for a listener.
    Kept,
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) reader: Reader,
    pub(super) party: Party,
    /// The id that the client gave it.
    pub(super) asked_as: Id,
    /// The JSON text of the token that its progress names, as the client gave it.
    pub(super) progress: Option<String>,
    /// Whether it is a modern subscription, which takes what names it and nothing else.
    subscribes: bool,
}

impl Desk {
    /// A desk for a child that many share.
    pub(super) fn shared() -> Self {
        Self { numbers: Some(0), ..Self::default() }
    }

    /// Whether many share the child.
    pub(super) fn is_shared(&self) -> bool {
        self.numbers.is_some()
    }

    /// Whether a request with this id is in flight.
    pub(super) fn has_pending(&self, id: &Id) -> bool {
        self.pending.contains_key(id)
    }

    /// Notes that a request is in flight, and who reads what it brings. Gives the request as the
    /// child is to read it.
    pub(super) fn ask(
        &mut self,
        party: &Party,
        message: &Message,
        reader: Reader,
    ) -> Result<Message, UpstreamError> {
        self.check_running()?;
        let Some(asked_as) = message.id().cloned() else {
            return Err(UpstreamError::BrokeOff { why: "a request without id".to_owned() });
        };
        let names = Names::of(message);
        let pending = Pending {
            reader,
            party: Arc::clone(party),
            asked_as: asked_as.clone(),
            progress: names.wants_progress.map(str::to_owned),
            subscribes: message.method() == Some("subscriptions/listen"),
        };
        let (id, told) = if self.is_shared() {
            self.numbered(&pending, message)?
        } else {
            (asked_as, message.clone())
        };
        if self.pending.contains_key(&id) {
            return Err(UpstreamError::IdInUse);
        }
        self.pending.insert(id.clone(), pending);
        self.order.push_back(id);
        Ok(told)
    }

    /// Forgets a request that nobody waits for.
    pub(super) fn forget(&mut self, id: &Id) -> Option<Pending> {
        self.order.retain(|other| other != id);
        self.pending.remove(id)
    }

    /// Forgets a request whose reader leaves. Once it was answered or withdrawn, its id may have
    /// been used again, by another client of the same child.
    pub(super) fn forget_reader(&mut self, id: &Id, inlet: &Inlet) {
        let own = |asked: &Pending| Arc::ptr_eq(&asked.reader.fate, &inlet.fate);
        if self.pending.get(id).is_some_and(own) {
            self.forget(id);
        }
    }

    /// Ends the wait for the answer to the request that a client's message cancels, if it does:
    /// no server owes one any more (MCP `basic/utilities/cancellation`). The request is named as
    /// the server knows it.
    pub(super) fn withdraw(&mut self, message: &Message) {
        if message.method() != Some("notifications/cancelled") {
            return;
        }
        let Some(named) = Names::of(message).cancelled else { return };
        let found = self.pending.keys().find(|id| id.as_json() == named).cloned();
        if let Some(asked) = found.and_then(|id| self.forget(&id)) {
            asked.reader.cut(Fate::Withdrawn);
        }
    }

    /// Who waits for the answer to the request whose id is written so.
    pub(super) fn asked(&self, id: &str) -> Option<(Recipient, Reader)> {
        let found = self.pending.iter().find(|(asked, _)| asked.as_json() == id);
        found.map(|(id, asked)| (Recipient::Request(id.clone()), asked.reader.clone()))
    }

    /// Takes the place of a party's reader for messages that answer nothing. The one before it
    /// ends.
    pub(super) fn listen(&mut self, party: &Party) -> Result<Inlet, UpstreamError> {
        self.check_running()?;
        let (reader, inlet) = reader(BACKLOG);
        for message in std::mem::take(&mut self.backlog) {
            // It is new and has room for the whole backlog.
            let _fits = reader.offer(Incoming::Message(message));
        }
        self.listeners.insert(Arc::clone(party), reader);
        Ok(inlet)
    }

    /// Cuts off a reader that takes nothing while others wait.
    pub(super) fn cut_off(&mut self, slow: &Recipient) {
        let reader = match slow {
            Recipient::Request(id) => self.forget(id).map(|pending| pending.reader),
            Recipient::Listener(party) => self.listeners.remove(party),
        };
        if let Some(reader) = reader {
            reader.cut(Fate::TooSlow);
        }
    }

    /// Whether anybody but this one waits for the child.
    pub(super) fn others_wait(&self, than: &Recipient) -> bool {
        match than {
            Recipient::Request(id) => self.pending.keys().any(|other| other != id),
            Recipient::Listener(_) => !self.pending.is_empty(),
        }
    }

    pub(super) fn check_running(&self) -> Result<(), UpstreamError> {
        if self.is_closed() { Err(self.end_error()) } else { Ok(()) }
    }

    /// Whether the child has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.ended.is_some()
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
        self.listeners.clear();
    }

    /// What becomes of a message of the child. A response ends its request's entry.
    pub(super) fn deliver(&mut self, message: Message) -> Delivery {
        if self.is_shared() { self.deliver_shared(message) } else { self.deliver_own(message) }
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
    /// answer, else to the newest, which fails with it. Among strangers nobody fails for another.
    pub(super) fn refused(&mut self, raw: &Bytes) -> Option<(Recipient, Reader)> {
        let seems: Option<Value> = serde_json::from_slice(raw).ok();
        let id = seems.and_then(|message| Some(message.get("id")?.to_string()));
        let newest = || self.order.back().filter(|_| !self.is_shared());
        let asked = self.order.iter().find(|known| Some(known.as_json()) == id.as_deref());
        let asked = asked.or_else(newest).cloned()?;
        let pending = self.forget(&asked)?;
        Some((Recipient::Request(asked), pending.reader))
    }

    fn deliver_own(&mut self, message: Message) -> Delivery {
        if let Kind::Response { id: Some(id), .. } = message.kind() {
            let id = id.clone();
            return match self.forget(&id) {
                Some(asked) => one(Recipient::Request(id), asked.reader, message),
                None => Delivery::Nobody(NOT_IN_FLIGHT),
            };
        }
        let names = Names::of(&message);
        // How a server on stdio ends a subscription; it may cancel nothing else.
        let ended = names.cancelled.filter(|_| message.method() == Some("notifications/cancelled"));
        let ended = ended.and_then(|named| {
            let mut pending = self.pending.iter();
            let found = pending.find(|(id, asked)| asked.subscribes && id.as_json() == named);
            found.map(|(id, _)| id)
        });
        let found = if ended.is_some() {
            ended
        } else if let Some(named) = names.subscription {
            match self.pending.keys().find(|id| id.as_json() == named) {
                Some(id) => Some(id),
                None => return Delivery::Nobody(NOT_IN_FLIGHT),
            }
        } else {
            let wanted = names.progress;
            let mut pending = self.pending.iter();
            let by_progress =
                pending.find(|(_, asked)| wanted.is_some() && asked.progress.as_deref() == wanted);
            let newest = || {
                let mut newest_first = self.order.iter().rev();
                newest_first.find(|id| self.pending.get(*id).is_some_and(|asked| !asked.subscribes))
            };
            by_progress.map(|(id, _)| id).or_else(newest)
        };
        if let Some((id, asked)) = found.and_then(|id| self.pending.get_key_value(id)) {
            return one(Recipient::Request(id.clone()), asked.reader.clone(), message);
        }
        match self.listeners.iter().find(|(_, reader)| !reader.has_left()) {
            Some((party, reader)) => {
                one(Recipient::Listener(Arc::clone(party)), reader.clone(), message)
            }
            None => {
                self.keep(message);
                Delivery::Kept
            }
        }
    }

    /// Takes back what a listener that left has not read: it waits for the next one. Where many
    /// share the child, for the same party's only, if that is there already.
    pub(super) fn unread(&mut self, party: &Party, message: Message) {
        let message = match self.listeners.get(party) {
            Some(listener) => match listener.offer(Incoming::Message(message)) {
                Err(
                    Unread::Full(Incoming::Message(message))
                    | Unread::Left(Incoming::Message(message)),
                ) => message,
                Ok(()) | Err(_) => return,
            },
            None => message,
        };
        if !self.is_shared() {
            self.keep(message);
        }
    }

    /// Keeps a message for the next listener.
    pub(super) fn keep(&mut self, message: Message) {
        if self.backlog.len() == BACKLOG {
            self.backlog.pop_front();
        }
        self.backlog.push_back(message);
    }
}

/// What a message belongs to has ended.
pub(super) const NOT_IN_FLIGHT: &str = "not_in_flight";

pub(super) fn one(to: Recipient, reader: Reader, message: Message) -> Delivery {
    Delivery::To(vec![(to, reader, message)])
}

/// A poisoned desk is still a desk: its parts are consistent after every statement.
pub(super) fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::mcp::{Limits, Origin};

    pub(in crate::upstream) fn message(value: Value, origin: Origin) -> Message {
        let mut value = value;
        value["jsonrpc"] = json!("2.0");
        Message::decode(Bytes::from(value.to_string()), origin, &Limits::default()).unwrap()
    }

    pub(in crate::upstream) fn now(inlet: &mut Inlet) -> Option<Message> {
        match inlet.messages.try_recv().ok()? {
            Incoming::Message(message) => Some(message),
            other => panic!("{other:?}"),
        }
    }

    fn ask(desk: &mut Desk, id: i64, method: &str, meta: Value) -> Inlet {
        let (reader, messages) = reader(8);
        let params = json!({"_meta": meta});
        let value = json!({"id": id, "method": method, "params": params});
        desk.ask(&"p".into(), &message(value, Origin::Client), reader).unwrap();
        messages
    }

    /// Which of the readers gets a message.
    fn goes(desk: &mut Desk, value: Value, to: &mut [&mut Inlet]) -> Option<usize> {
        match desk.deliver(message(value, Origin::Server)) {
            Delivery::To(all) => {
                assert_eq!(all.len(), 1);
                for (_, reader, message) in all {
                    reader.offer(Incoming::Message(message)).unwrap();
                }
            }
            Delivery::Nobody(_) => return None,
            Delivery::Kept => return Some(usize::MAX),
            Delivery::Answer(..) => panic!("answered"),
        }
        to.iter_mut().position(|reader| now(reader).is_some())
    }

    #[test]
    fn who_leaves_late_does_not_take_the_next_ones_place() {
        let mut desk = Desk::default();
        let mut first = ask(&mut desk, 1, "tools/call", json!({}));
        let answer = json!({"id": 1, "result": {}});
        assert_eq!(goes(&mut desk, answer.clone(), &mut [&mut first]), Some(0));
        let mut second = ask(&mut desk, 1, "tools/call", json!({}));
        let id = message(answer.clone(), Origin::Server).id().cloned().unwrap();
        desk.forget_reader(&id, &first);
        assert_eq!(goes(&mut desk, answer, &mut [&mut second]), Some(0));
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
        assert_eq!(second.fate(), Some(Fate::Withdrawn));
        assert_eq!(first.fate(), None);
        let to = &mut [&mut first, &mut second];
        assert_eq!(goes(&mut desk, json!({"id": 2, "result": {}}), to), None);
        assert_eq!(goes(&mut desk, json!({"id": 1, "result": {}}), to), Some(0));
    }

    #[test]
    fn what_is_refused_fails_one_request_and_no_strangers() {
        let whom = |desk: &mut Desk, raw: &'static str| match desk.refused(&raw.into()) {
            Some((Recipient::Request(id), _)) => Some(id.as_json().to_owned()),
            _ => None,
        };
        let mut desk = Desk::default();
        let _inlets = [1, 2, 3].map(|id| ask(&mut desk, id, "tools/call", json!({})));
        let named = r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#;
        assert_eq!(whom(&mut desk, named).as_deref(), Some("1"));
        assert_eq!(whom(&mut desk, "{\"jsonrpc").as_deref(), Some("3"), "the newest");
        assert_eq!(whom(&mut desk, named).as_deref(), Some("2"), "what is left");
        assert_eq!(whom(&mut desk, named), None);

        let mut desk = Desk::shared();
        let _inlet = ask(&mut desk, 7, "tools/call", json!({}));
        assert_eq!(whom(&mut desk, "{\"jsonrpc"), None, "it may be anybody's");
        assert_eq!(whom(&mut desk, named).as_deref(), Some("1"), "our number names it");
    }

    #[test]
    fn what_waited_comes_first_and_the_oldest_goes() {
        let mut desk = Desk::default();
        for number in 0..=BACKLOG {
            desk.keep(message(progress(json!(number)), Origin::Server));
        }
        let mut listener = desk.listen(&"p".into()).unwrap();
        let first = now(&mut listener).unwrap();
        assert_eq!(Names::of(&first).progress, Some("1"));
        let to = &mut [&mut listener];
        while now(to[0]).is_some() {}
        assert_eq!(goes(&mut desk, progress(json!(1)), to), Some(0));
        desk.close("gone".to_owned());
        assert!(desk.listen(&"p".into()).is_err());
    }

    #[test]
    fn what_a_listener_has_not_read_waits_for_the_next_one() {
        let (alice, bob): (Party, Party) = ("alice".into(), "bob".into());
        for (mut desk, is_kept) in [(Desk::default(), true), (Desk::shared(), false)] {
            let mut listener = desk.listen(&alice).unwrap();
            let told = |number| message(progress(json!(number)), Origin::Server);
            desk.listeners[&alice].offer(Incoming::Message(told(1))).unwrap();
            let unread = listener.leave();
            assert_eq!(unread.len(), 1);
            for message in unread {
                let Incoming::Message(message) = message else { panic!("{message:?}") };
                desk.unread(&alice, message);
            }
            assert_eq!(goes(&mut desk, progress(json!(2)), &mut []), is_kept.then_some(usize::MAX));
            let mut strangers = desk.listen(if is_kept { &alice } else { &bob }).unwrap();
            let seen: Vec<_> = std::iter::from_fn(|| now(&mut strangers)).collect();
            let seen: Vec<_> = seen.iter().map(|it| Names::of(it).progress.unwrap()).collect();
            assert_eq!(seen, if is_kept { vec!["1", "2"] } else { vec![] });
        }
    }

    #[test]
    fn an_id_is_in_flight_once() {
        let mut desk = Desk::default();
        let _inlet = ask(&mut desk, 1, "ping", json!({}));
        let again = message(json!({"id": 1, "method": "ping"}), Origin::Client);
        let refused = desk.ask(&"p".into(), &again, reader(1).0).unwrap_err();
        assert!(matches!(refused, UpstreamError::IdInUse), "{refused}");
    }
}
