//! What a decision costs: a tool call under 50, 500 and 5,000 policies (wanted: 20 µs at 50, 60 µs at
//! 5,000), and which of 1,000 tools a list shows (wanted: 5 ms the first time, 50 µs afterwards).
//!
//! `cargo bench --bench policy`. The policies are those of the load bench: teams with their own
//! connections and groups, one rule in ten of which looks at every call.
#![allow(clippy::expect_used, reason = "a bench that cannot run has nothing else to say")]

#[path = "load/policies.rs"]
mod policies;

use std::sync::Arc;

use bytes::Bytes;
use divan::{Bencher, black_box};
use mcpx::mcp::{Era, Limits, Message, Origin};
use mcpx::policy::mediation::{Transport, Way};
use mcpx::policy::{Act, Call, Decision, Direction, Facts, PolicySet, Scope, Source, Target};
use mcpx::types::{
    CallId, ConnectionName, Identity, SessionId, Subject, SubjectId, SubjectKind, Timestamp,
};

fn main() {
    divan::main();
}

const COUNTS: [usize; 3] = [50, 500, 5000];

fn set(count: usize) -> PolicySet {
    let source = Source { name: "bench.cedar".to_owned(), text: policies::generate(count) };
    PolicySet::parse(&[source]).expect("good policies")
}

fn subject() -> Arc<Subject> {
    Arc::new(Subject {
        id: SubjectId::generate().expect("randomness"),
        kind: SubjectKind::Person,
        identity: Identity {
            issuer: "https://idp.example".to_owned(),
            sub: "bench".to_owned(),
            email: None,
            groups: vec!["bench".to_owned(), "everybody".to_owned()],
        },
    })
}

fn connection() -> ConnectionName {
    "bench".parse().expect("a name")
}

fn facts() -> Facts {
    Facts {
        now: Timestamp::from_second(1_800_000_000).expect("a time"),
        source: Some([127, 0, 0, 1].into()),
        grant_age_seconds: 60,
        reason: Some("OPS-1".to_owned()),
        scope: Scope::default(),
    }
}

fn call(subject: &Arc<Subject>) -> Call {
    let raw = Bytes::from_static(
        br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"query","arguments":{"table":"customers","limit":10}}}"#,
    );
    let message = Message::decode(raw, Origin::Client, &Limits::default()).expect("a message");
    let way =
        Way { direction: Direction::ClientToServer, era: Era::Legacy, transport: Transport::Http };
    let id = CallId::generate().expect("randomness");
    let session = SessionId::generate().expect("randomness");
    let subject = Arc::clone(subject);
    Call::new(id, session, subject, connection(), way, Act::Message(message)).expect("a target")
}

/// A tool call that is allowed.
#[divan::bench(args = COUNTS)]
fn decide(bencher: Bencher, count: usize) {
    let (set, subject, facts) = (set(count), subject(), facts());
    bencher.with_inputs(|| call(&subject)).bench_values(|call| {
        let decision = set.decide(black_box(call), &facts, None);
        assert!(matches!(decision, Decision::Allow(_)), "{decision:?}");
    });
}

fn tools() -> Vec<Target> {
    (0..1000).map(|number| Target::Tool(format!("bench_tool_number_{number}"))).collect()
}

/// A list that nobody has asked for under these policies.
#[divan::bench(args = COUNTS)]
fn list_cold(bencher: Bencher, count: usize) {
    let (subject, facts, tools) = (subject(), facts(), tools());
    let text = policies::generate(count);
    let source = || Source { name: "bench.cedar".to_owned(), text: text.clone() };
    let parsed = || PolicySet::parse(&[source()]).expect("good policies");
    bencher.with_inputs(parsed).bench_refs(|set| {
        let shown = set.listed(&subject, &connection(), black_box(&tools), &facts);
        assert!(shown.iter().all(|shown| *shown));
    });
}

/// The same list again.
#[divan::bench(args = COUNTS)]
fn list_warm(bencher: Bencher, count: usize) {
    let (set, subject, facts, tools) = (set(count), subject(), facts(), tools());
    set.listed(&subject, &connection(), &tools, &facts);
    bencher.bench(|| {
        let shown = set.listed(&subject, &connection(), black_box(&tools), &facts);
        assert!(shown.iter().all(|shown| *shown));
    });
}
