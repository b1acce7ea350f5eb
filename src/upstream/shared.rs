//! Whose a message is of a child that many sessions share.
//!
//! The child knows requests and progress by numbers of ours, unique over all sessions; an answer
//! and everything that names a request goes back to whom it belongs, under the names that they
//! gave. What names nothing belongs to nobody and reaches nobody, except that lists have changed:
//! that is told to all who listen. A resource's change is told to those who asked for it. The
//! child's own requests are answered here: there is no one user who could be asked.

use std::sync::Arc;

use bytes::Bytes;

use super::UpstreamError;
use super::desk::{Delivery, Desk, Fate, NOT_IN_FLIGHT, Party, Pending, Recipient, one};
use super::rewrite::{Names, renamed};
use crate::mcp::{Id, Kind, Message, Origin, modern};

/// Of no known owner.
const NO_OWNER: &str = "no_owner";
/// A request of the child, where nobody could be asked.
const NOBODY_TO_ASK: &str = "nobody_to_ask";

/// What is told to everybody: it says nothing but that lists are to be read again.
const FOR_ALL: &[&str] = &[
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
];

/// Resources that one session of a shared child may subscribe to.
pub(super) const MOST_WATCHED: usize = 256;

/// The longest URI of one, in bytes.
const LONGEST_WATCHED: usize = 8 * 1024;

impl Desk {
    /// A request under a number of ours, and that number.
    pub(super) fn numbered(
        &mut self,
        asked: &Pending,
        message: &Message,
    ) -> Result<(Id, Message), UpstreamError> {
        let twice =
            |other: &Pending| other.party == asked.party && other.asked_as == asked.asked_as;
        // In the modern era two clients may stand behind one session, with ids of their own.
        if !modern::is_modern(None, message) && self.pending.values().any(twice) {
            return Err(UpstreamError::IdInUse);
        }
        let number = self.numbers.unwrap_or_default() + 1;
        self.numbers = Some(number);
        let name = number.to_string();
        let names = Names::of(message);
        let edits = [(names.id, name.as_str()), (names.wants_progress, name.as_str())];
        let told = renamed(message, Origin::Client, &edits);
        let unusable = || UpstreamError::BrokeOff { why: "a request cannot be renamed".to_owned() };
        let told = told.ok_or_else(unusable)?;
        let id = told.id().cloned().ok_or_else(unusable)?;
        Ok((id, told))
    }

    /// The cancellation of a party's request as the child is to read it; `None` if nothing of that
    /// name is in flight.
    pub(super) fn cancellation(&self, party: &Party, message: &Message) -> Option<Message> {
        let names = Names::of(message);
        let named = names.cancelled?;
        let mut pending = self.pending.iter();
        let (id, _) = pending
            .find(|(_, asked)| asked.party == *party && asked.asked_as.as_json() == named)?;
        renamed(message, Origin::Client, &[(names.cancelled, id.as_json())])
    }

    /// A party wants to be told when a resource changes.
    /// `false` if that would be more than is kept of anybody's wishes.
    pub(super) fn watch(&mut self, party: &Party, uri: &str) -> bool {
        let own = self.watched.values().filter(|parties| parties.contains(party)).count();
        if own >= MOST_WATCHED || uri.len() > LONGEST_WATCHED {
            return false;
        }
        self.watched.entry(uri.to_owned()).or_default().insert(Arc::clone(party));
        true
    }

    /// A party no longer wants to be told. Whether nobody else does either.
    pub(super) fn unwatch(&mut self, party: &Party, uri: &str) -> bool {
        let Some(parties) = self.watched.get_mut(uri) else { return true };
        parties.remove(party);
        let last = parties.is_empty();
        if last {
            self.watched.remove(uri);
        }
        last
    }

    /// A party's session is over: nothing reaches it any more.
    pub(super) fn leave(&mut self, party: &Party) {
        if let Some(reader) = self.listeners.remove(party) {
            reader.cut(Fate::SessionOver);
        }
        let own: Vec<_> = self.pending.iter().filter(|(_, asked)| asked.party == *party).collect();
        let own: Vec<_> = own.into_iter().map(|(id, _)| id.clone()).collect();
        for id in own {
            if let Some(asked) = self.forget(&id) {
                asked.reader.cut(Fate::SessionOver);
            }
        }
        self.watched.retain(|_, parties| {
            parties.remove(party);
            !parties.is_empty()
        });
    }

    pub(super) fn deliver_shared(&mut self, message: Message) -> Delivery {
        match message.kind() {
            Kind::Response { id: None, .. } => Delivery::Nobody(NO_OWNER),
            Kind::Response { id: Some(id), .. } => {
                let id = id.clone();
                let Some(asked) = self.forget(&id) else {
                    return Delivery::Nobody(NOT_IN_FLIGHT);
                };
                let names = Names::of(&message);
                let own = names.subscription.filter(|name| *name == id.as_json());
                let given = asked.asked_as.as_json();
                let edits = [(names.id, given), (own, given)];
                restored(id, &asked, &message, &edits)
            }
            Kind::Request { id, method } => answer(id, method),
            Kind::Notification { method } => self.deliver_notification(&message, method),
        }
    }

    fn deliver_notification(&self, message: &Message, method: &str) -> Delivery {
        let names = Names::of(message);
        let named = [names.subscription, names.cancelled, names.progress];
        if let Some(name) = named.into_iter().flatten().next() {
            let mut pending = self.pending.iter();
            let Some((id, asked)) = pending.find(|(id, _)| id.as_json() == name) else {
                return Delivery::Nobody(NOT_IN_FLIGHT);
            };
            let given = asked.asked_as.as_json();
            // Each place that names this request gets the name back that its owner gave.
            let this = |place: Option<&'_ str>| place.is_some_and(|place| place == name);
            if names.progress.is_some_and(|_| this(names.progress)) && asked.progress.is_none() {
                return Delivery::Nobody(NOT_IN_FLIGHT);
            }
            let token = asked.progress.as_deref().unwrap_or(given);
            let edits = [
                (names.subscription.filter(|_| this(names.subscription)), given),
                (names.cancelled.filter(|_| this(names.cancelled)), given),
                (names.progress.filter(|_| this(names.progress)), token),
            ];
            let others = named.into_iter().flatten().any(|other| other != name);
            // One that names two requests belongs to neither.
            return if others {
                Delivery::Nobody(NO_OWNER)
            } else {
                restored(id.clone(), asked, message, &edits)
            };
        }
        let listeners = self.listeners.iter();
        if FOR_ALL.contains(&method) {
            let all = listeners.map(|(party, reader)| {
                (Recipient::Listener(Arc::clone(party)), reader.clone(), message.clone())
            });
            return Delivery::To(all.collect());
        }
        let watchers = (method == "notifications/resources/updated")
            .then(|| uri(&names).and_then(|uri| self.watched.get(&uri)))
            .flatten();
        match watchers {
            Some(watchers) => {
                let told = listeners.filter(|(party, _)| watchers.contains(*party));
                Delivery::To(
                    told.map(|(party, reader)| {
                        (Recipient::Listener(Arc::clone(party)), reader.clone(), message.clone())
                    })
                    .collect(),
                )
            }
            None => Delivery::Nobody(NO_OWNER),
        }
    }
}

/// The resource that a message names.
pub(super) fn uri(names: &Names<'_>) -> Option<String> {
    serde_json::from_str(names.uri?).ok()
}

fn restored(
    id: Id,
    asked: &Pending,
    message: &Message,
    edits: &[(Option<&str>, &str)],
) -> Delivery {
    match renamed(message, Origin::Server, edits) {
        Some(message) => one(Recipient::Request(id), asked.reader.clone(), message),
        None => Delivery::Nobody(NO_OWNER),
    }
}

/// The gateway's own answer to a request of the child.
fn answer(id: &Id, method: &str) -> Delivery {
    let id = id.as_json();
    if method == "ping" {
        let pong = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
        return Delivery::Answer(pong.into(), None);
    }
    let no = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"this process works for many clients; none of them can be asked"}}}}"#
    );
    Delivery::Answer(Bytes::from(no), Some(NOBODY_TO_ASK))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Incoming;
    use super::super::desk::tests::{message, now};
    use super::super::desk::{Inlet, reader};
    use super::*;

    struct Table {
        desk: Desk,
        alice: Party,
        bob: Party,
    }

    impl Table {
        fn new() -> Self {
            Self { desk: Desk::shared(), alice: "alice".into(), bob: "bob".into() }
        }

        /// Asks, and gives what the child reads of it.
        fn ask(&mut self, party: &Party, value: Value) -> (Value, Inlet) {
            let (reader, inlet) = reader(8);
            let told = self.desk.ask(party, &message(value, Origin::Client), reader).unwrap();
            (serde_json::from_slice(told.raw()).unwrap(), inlet)
        }

        /// Delivers, or says why not.
        fn say(&mut self, value: Value) -> Result<(), &'static str> {
            match self.desk.deliver(message(value, Origin::Server)) {
                Delivery::To(all) => {
                    for (_, reader, message) in all {
                        reader.offer(Incoming::Message(message)).unwrap();
                    }
                    Ok(())
                }
                Delivery::Nobody(why) => Err(why),
                Delivery::Answer(_, why) => Err(why.unwrap_or("answered")),
                Delivery::Kept => Err("kept"),
            }
        }
    }

    fn next(inlet: &mut Inlet) -> Option<Value> {
        now(inlet).map(|message| serde_json::from_slice(message.raw()).unwrap())
    }

    fn call(id: Value, token: Value) -> Value {
        json!({"id": id, "method": "tools/call", "params": {"_meta": {"progressToken": token}}})
    }

    fn progress(token: &Value) -> Value {
        json!({"method": "notifications/progress", "params": {"progressToken": token}})
    }

    #[test]
    fn the_same_names_in_two_sessions_stay_apart() {
        let mut table = Table::new();
        let (alice, bob) = (table.alice.clone(), table.bob.clone());
        let (first, mut for_alice) = table.ask(&alice, call(json!(1), json!("t")));
        let (second, mut for_bob) = table.ask(&bob, call(json!(1), json!("t")));
        assert_ne!(first["id"], second["id"]);
        assert_eq!(first["params"]["_meta"]["progressToken"], first["id"]);

        table.say(progress(&second["id"])).unwrap();
        assert_eq!(next(&mut for_bob).unwrap()["params"]["progressToken"], "t");
        table.say(json!({"id": first["id"], "result": {"whose": "alice"}})).unwrap();
        let answer = next(&mut for_alice).unwrap();
        assert_eq!((&answer["id"], &answer["result"]["whose"]), (&json!(1), &json!("alice")));
        // Late, or again: nobody's.
        assert_eq!(table.say(progress(&first["id"])), Err(NOT_IN_FLIGHT));
        assert_eq!(table.say(json!({"id": first["id"], "result": {}})), Err(NOT_IN_FLIGHT));
        // A name that a client gave is no name for the child.
        assert_eq!(table.say(progress(&json!("t"))), Err(NOT_IN_FLIGHT));
        assert!(next(&mut for_alice).is_none() && next(&mut for_bob).is_none());
    }

    #[test]
    fn what_names_nobody_reaches_nobody() {
        let mut table = Table::new();
        let (alice, bob) = (table.alice.clone(), table.bob.clone());
        let (_, mut call_of_alice) = table.ask(&alice, call(json!(1), json!("t")));
        let mut alice_listens = table.desk.listen(&alice).unwrap();
        let mut bob_listens = table.desk.listen(&bob).unwrap();
        let log = json!({"method": "notifications/message", "params": {"data": "alice's rows"}});
        assert_eq!(table.say(log), Err(NO_OWNER));
        assert_eq!(table.say(json!({"method": "notifications/x"})), Err(NO_OWNER));
        assert_eq!(table.say(json!({"id": 5, "method": "roots/list"})), Err(NOBODY_TO_ASK));
        assert_eq!(table.say(json!({"id": 6, "method": "ping"})), Err("answered"));
        let error = json!({"id": null, "error": {"code": -32700, "message": "?"}});
        assert_eq!(table.say(error), Err(NO_OWNER));
        for inlet in [&mut call_of_alice, &mut alice_listens, &mut bob_listens] {
            assert!(next(inlet).is_none());
        }
        table.say(json!({"method": "notifications/tools/list_changed"})).unwrap();
        assert!(next(&mut alice_listens).is_some() && next(&mut bob_listens).is_some());
    }

    #[test]
    fn one_that_names_two_requests_is_nobodys() {
        let mut table = Table::new();
        let (alice, bob) = (table.alice.clone(), table.bob.clone());
        let (first, mut for_alice) = table.ask(&alice, call(json!(1), json!("t")));
        let (second, mut for_bob) = table.ask(&bob, call(json!(1), json!("t")));
        let meta = json!({"io.modelcontextprotocol/subscriptionId": first["id"]});
        let params = json!({"_meta": meta, "progressToken": second["id"]});
        let told = json!({"method": "notifications/progress", "params": params});
        assert_eq!(table.say(told), Err(NO_OWNER));
        assert!(next(&mut for_alice).is_none() && next(&mut for_bob).is_none());
    }

    #[test]
    fn a_subscription_keeps_its_name() {
        let mut table = Table::new();
        let bob = table.bob.clone();
        let ask = json!({"id": "listen:0", "method": "subscriptions/listen", "params": {}});
        let (told, mut inlet) = table.ask(&bob, ask);
        let meta = json!({"io.modelcontextprotocol/subscriptionId": told["id"]});
        let name = |value: &Value| value["_meta"]["io.modelcontextprotocol/subscriptionId"].clone();
        let changed =
            json!({"method": "notifications/tools/list_changed", "params": {"_meta": meta}});
        table.say(changed).unwrap();
        assert_eq!(name(&next(&mut inlet).unwrap()["params"]), "listen:0");
        let gone =
            json!({"method": "notifications/cancelled", "params": {"requestId": told["id"]}});
        table.say(gone).unwrap();
        assert_eq!(next(&mut inlet).unwrap()["params"]["requestId"], "listen:0");
        table.say(json!({"id": told["id"], "result": {"_meta": meta}})).unwrap();
        let end = next(&mut inlet).unwrap();
        assert_eq!((&end["id"], name(&end["result"])), (&json!("listen:0"), json!("listen:0")));
    }

    #[test]
    fn a_resource_is_told_to_who_asked_for_it() {
        let mut table = Table::new();
        let (alice, bob) = (table.alice.clone(), table.bob.clone());
        let mut alice_listens = table.desk.listen(&alice).unwrap();
        let mut bob_listens = table.desk.listen(&bob).unwrap();
        assert!(!table.desk.watch(&alice, &"x".repeat(LONGEST_WATCHED + 1)));
        assert!(table.desk.watch(&alice, "x:y"));
        let updated =
            json!({"method": "notifications/resources/updated", "params": {"uri": "x:y"}});
        table.say(updated.clone()).unwrap();
        assert!(next(&mut alice_listens).is_some() && next(&mut bob_listens).is_none());
        assert!(table.desk.watch(&bob, "x:y"));
        assert!(!table.desk.unwatch(&alice, "x:y"), "bob still wants it");
        table.say(updated.clone()).unwrap();
        assert!(next(&mut alice_listens).is_none() && next(&mut bob_listens).is_some());
        table.desk.leave(&bob);
        assert_eq!(table.say(updated), Err(NO_OWNER));
    }

    #[test]
    fn a_cancellation_reaches_only_the_own_request() {
        let mut table = Table::new();
        let (alice, bob) = (table.alice.clone(), table.bob.clone());
        let (told, mut inlet) = table.ask(&alice, call(json!(3), json!(1)));
        let cancel = json!({"method": "notifications/cancelled", "params": {"requestId": 3}});
        let cancel = message(cancel, Origin::Client);
        assert!(table.desk.cancellation(&bob, &cancel).is_none(), "not bob's");
        let sent = table.desk.cancellation(&alice, &cancel).unwrap();
        assert_eq!(Names::of(&sent).cancelled, Some(told["id"].to_string().as_str()));
        table.desk.leave(&alice);
        assert!(now(&mut inlet).is_none() && table.desk.pending.is_empty());
        assert_eq!(inlet.fate(), Some(Fate::SessionOver));
    }
}
