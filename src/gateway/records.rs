//! What the records say of each thing that passes the gateway.
//!
//! Leaves hold ids and words of ours; whatever a person wrote stands in the body, masked.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::http::StatusCode;
use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde::Serialize;
use serde_json::value::RawValue;

use super::refusal::Refusal;
use crate::audit::{Entry, Evidence, Outcome, Record, Shape, Verdict};
use crate::mask::{Masked, Masker};
use crate::mcp::{Id, Kind};
use crate::policy::{Act, Call, Denial, Need, Permit};
use crate::types::{ApprovalId, ConnectionName, SessionId, SubjectId};

/// The body of a call's record.
#[derive(Serialize)]
struct CallBody<'a> {
    action: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a RawValue>,
}

fn call_entry(
    call: &Call,
    decision: Verdict,
    rules: &[String],
    approval: Option<&ApprovalId>,
    policy: &str,
    reason: Option<&str>,
) -> Entry {
    let shape = match &call.act {
        Act::Message(message) => match message.kind() {
            Kind::Request { .. } => Shape::Request,
            Kind::Notification { .. } => Shape::Notification,
            Kind::Response { .. } => Shape::Response,
        },
        Act::Listen | Act::End => Shape::Request,
    };
    let body = CallBody {
        action: call.action(),
        target: call.target().name(),
        source: call.source,
        reason,
        headers: call.extra.iter().map(|(name, value)| (&**name, &**value)).collect(),
        message: serde_json::from_slice(&call.shown).ok(),
    };
    Entry {
        record: Record::Call {
            call: call.id.clone(),
            session: call.session.clone(),
            subject: call.subject.id.clone(),
            connection: call.connection.clone(),
            direction: call.direction,
            shape,
            method: Some(call.action().to_owned()),
            decision,
            rules: rules.to_vec(),
            approval: approval.cloned(),
            policy: policy.to_owned(),
            forwarded: decision == Verdict::Allow,
        },
        body: serde_json::to_vec(&body).ok().map(Bytes::from),
    }
}

impl Evidence for Permit {
    fn entry(&self) -> Entry {
        let approval = self.approval();
        call_entry(self.call(), Verdict::Allow, self.rules(), approval, self.policy(), None)
    }
}

/// A call that policy denied, with the answer that its caller gets.
pub struct Denied {
    pub(super) status: StatusCode,
    /// The answer; nothing where nobody waits for one.
    pub(super) answer: Option<Bytes>,
    entry: Entry,
}

impl Denied {
    /// What policy denied, in policy's own words.
    pub(super) fn by_policy(call: &Call, denial: &Denial, masker: &Masker) -> Self {
        Self::new(call, &Refusal::from(denial), denial, masker)
    }

    pub(super) fn new(call: &Call, refusal: &Refusal, denial: &Denial, masker: &Masker) -> Self {
        // A policy that failed may quote an argument.
        let reason = recordable(&refusal.message, masker);
        let reason = Some(reason.as_str());
        let entry = call_entry(call, Verdict::Deny, &denial.rules, None, &denial.policy, reason);
        let id = call.message().and_then(|message| message.id());
        let answer = answers(call).then(|| own_words(refusal, id, Some(call), masker));
        // A notification that is denied is accepted and goes nowhere, as one that a server
        // ignores; a refused stream is refused by its status.
        let status = match (&call.act, call.is_request()) {
            (Act::Message(_), true) => refusal.status,
            (Act::Message(_), false) => StatusCode::ACCEPTED,
            (Act::Listen | Act::End, _) => StatusCode::FORBIDDEN,
        };
        Self { status, answer, entry }
    }
}

/// Whether anybody waits for an answer to the call.
fn answers(call: &Call) -> bool {
    call.is_request() || call.message().is_none()
}

impl Evidence for Denied {
    fn entry(&self) -> Entry {
        self.entry.clone()
    }
}

/// A call that waits for a person; its record stands before the first byte of the wait.
pub struct Waiting {
    entry: Entry,
}

impl Waiting {
    pub(super) fn new(need: &Need, approval: &ApprovalId) -> Self {
        let verdict = Verdict::NeedsApproval;
        Self {
            entry: call_entry(&need.call, verdict, &need.rules, Some(approval), &need.policy, None),
        }
    }
}

impl Evidence for Waiting {
    fn entry(&self) -> Entry {
        self.entry.clone()
    }
}

/// A stream that a client takes up again, which is played from what the gateway kept: it is decided
/// like every call, and goes to no server.
pub struct Resumed {
    permit: Permit,
}

impl Resumed {
    pub(super) fn new(permit: Permit) -> Self {
        Self { permit }
    }
}

impl Evidence for Resumed {
    fn entry(&self) -> Entry {
        let mut entry = self.permit.entry();
        if let Record::Call { forwarded, .. } = &mut entry.record {
            *forwarded = false;
        }
        entry
    }
}

/// Somebody turned away before a call came about.
pub struct Refused {
    pub(super) refusal: Refusal,
    /// The request that the refusal answers, where one could be read.
    pub(super) id: Option<Id>,
    pub(super) subject: Option<SubjectId>,
    pub(super) connection: Option<ConnectionName>,
    pub(super) session: Option<SessionId>,
    pub(super) source: Option<IpAddr>,
}

impl Evidence for Refused {
    fn entry(&self) -> Entry {
        #[derive(Serialize)]
        struct RefusedBody<'a> {
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            source: Option<IpAddr>,
        }
        let body = RefusedBody { message: &self.refusal.message, source: self.source };
        Entry {
            record: Record::Refused {
                stage: self.refusal.stage,
                code: self.refusal.code.to_owned(),
                subject: self.subject.clone(),
                connection: self.connection.clone(),
                session: self.session.clone(),
            },
            body: serde_json::to_vec(&body).ok().map(Bytes::from),
        }
    }
}

/// A whole answer, masked, on its way to the client.
pub struct Outbound {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    entry: Entry,
}

/// One event of a stream, masked, on its way to the client.
pub struct OutEvent {
    pub(super) frame: Bytes,
    entry: Entry,
}

/// How the answer to one call is recorded.
#[derive(Clone)]
pub(super) struct Trail {
    pub(super) call: crate::types::CallId,
    pub(super) session: SessionId,
    pub(super) upstream_status: Option<u16>,
}

impl Trail {
    pub(super) fn of(call: &Call) -> Self {
        Self { call: call.id.clone(), session: call.session.clone(), upstream_status: None }
    }

    fn entry(&self, outcome: Outcome, last: bool, body: Option<&Masked>) -> Entry {
        Entry {
            record: Record::Response {
                call: self.call.clone(),
                session: self.session.clone(),
                outcome,
                findings: body.map(Masked::counts).unwrap_or_default(),
                upstream_status: self.upstream_status,
                last,
            },
            body: body.map(|masked| masked.bytes().clone()),
        }
    }

    /// A whole answer.
    pub(super) fn outbound(
        &self,
        status: StatusCode,
        headers: HeaderMap,
        outcome: Outcome,
        body: Option<&Masked>,
    ) -> Outbound {
        let entry = self.entry(outcome, true, body);
        Outbound { status, headers, body: body.map(|masked| masked.bytes().clone()), entry }
    }

    /// The head of a stream, of which nothing but status and headers is known yet.
    pub(super) fn opened(&self, status: StatusCode, headers: HeaderMap) -> Outbound {
        let entry = self.entry(Outcome::Accepted, false, None);
        Outbound { status, headers, body: None, entry }
    }

    /// One event of a stream.
    pub(super) fn event(
        &self,
        frame: Bytes,
        outcome: Outcome,
        last: bool,
        body: Option<&Masked>,
    ) -> OutEvent {
        OutEvent { frame, entry: self.entry(outcome, last, body) }
    }

    /// The end of a call of which nothing more goes to the client.
    pub(super) fn ended(&self, outcome: Outcome) -> Entry {
        self.entry(outcome, true, None)
    }

    /// That the client was cut off because it did not read.
    pub(super) fn stalled(&self, last: bool) -> Entry {
        self.entry(Outcome::Stalled, last, None)
    }
}

impl OutEvent {
    /// A server's own message, permitted and masked: its record is the call's, not a response's.
    pub(super) fn of_server(permit: &Permit, frame: Bytes) -> Self {
        Self { frame, entry: permit.entry() }
    }
}

impl Evidence for Outbound {
    fn entry(&self) -> Entry {
        self.entry.clone()
    }
}

impl Evidence for OutEvent {
    fn entry(&self) -> Entry {
        self.entry.clone()
    }
}

/// A sentence as it may be recorded: masked, and no longer than a sentence, whatever it quotes of a
/// stranger's words.
pub(crate) fn recordable(sentence: &str, masker: &Masker) -> String {
    const LONGEST: usize = 500;
    let end = sentence.char_indices().nth(LONGEST).map_or(sentence.len(), |(at, _)| at);
    let mut text = masker.text(sentence.get(..end).unwrap_or_default()).0.into_owned();
    if end < sentence.len() {
        text.push('…');
    }
    text
}

/// A refusal as the JSON-RPC error that a client gets, masked like everything else.
pub(super) fn own_words(
    refusal: &Refusal,
    id: Option<&Id>,
    call: Option<&Call>,
    masker: &Masker,
) -> Bytes {
    let message = refusal.to_message(id, call.map(|call| &call.id));
    masker.message(&message).map_or_else(
        |_| {
            let id = id.map_or("null", Id::as_json);
            let code = refusal.rpc;
            Bytes::from(format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"refused"}}}}"#
            ))
        },
        |masked| masked.bytes().clone(),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mask::Rules;
    use crate::mcp::{Era, Limits, Message, Origin};
    use crate::policy::{Direction, Transport, Way};
    use crate::types::{CallId, Identity, Subject, SubjectKind};

    #[test]
    fn a_denial_that_quotes_an_argument_is_recorded_masked() {
        let raw = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let message = Message::decode(raw.into(), Origin::Client, &Limits::default()).unwrap();
        let identity =
            Identity { issuer: "i".into(), sub: "s".into(), email: None, groups: vec![] };
        let call = Call::new(
            CallId::generate().unwrap(),
            SessionId::generate().unwrap(),
            Arc::new(Subject {
                id: SubjectId::generate().unwrap(),
                kind: SubjectKind::Person,
                identity,
            }),
            "crm".parse().unwrap(),
            Way {
                direction: Direction::ClientToServer,
                era: Era::Legacy,
                transport: Transport::Http,
            },
            Act::Message(message),
        )
        .unwrap();
        let denial = Denial {
            rules: vec!["policy-error".into()],
            reason: "invalid IP address: 219-44-7315".into(),
            policy: "p".into(),
        };
        let masker = Masker::new(&Rules::default()).unwrap();
        let denied = Denied::new(&call, &Refusal::from(&denial), &denial, &masker);
        let body = String::from_utf8(denied.entry().body.unwrap().to_vec()).unwrap();
        assert!(body.contains("invalid IP address") && !body.contains("219-44"), "{body}");
        let answer = String::from_utf8(denied.answer.unwrap().to_vec()).unwrap();
        assert!(!answer.contains("219-44"), "{answer}");
    }

    #[test]
    fn a_sentence_on_record_is_masked_and_short() {
        let masker = Masker::new(&Rules::default()).unwrap();
        let text = recordable("ambiguous key \"alice@example.com \" in params", &masker);
        assert!(text.starts_with("ambiguous key") && !text.contains("alice"), "{text}");
        let long = recordable(&"é".repeat(1 << 20), &masker);
        assert!(long.len() < 2000 && long.ends_with('…'));
    }
}
