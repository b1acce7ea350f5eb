//! What following the log into the database costs: processor time for each record, of a first
//! start that indexes everything, and of a server that records meanwhile.
//!
//! `cargo bench --bench index`; the number of records can be given: `-- 1000000`.
#![allow(clippy::expect_used, reason = "a bench that cannot run has nothing else to say")]
#![allow(clippy::print_stdout, reason = "its figures")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcpx::audit::{Entry, LogKey, Outcome, Reader, Record, Recorder, Shape, Verdict};
use mcpx::control::index::Index;
use mcpx::policy::Direction;
use mcpx::store::Store;
use mcpx::types::{CallId, Clock as _, ConnectionName, GrantId, SessionId, SubjectId, SystemClock};

/// Sessions that call at the same time.
const SESSIONS: usize = 32;

fn main() {
    let records = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(100_000);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run(records));
}

async fn run(records: usize) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let key = LogKey::generate("bench.example/log").expect("a key");
    let (recorder, _) = Recorder::open(&log, key, Arc::new(SystemClock)).expect("a new log");
    let begun = (Instant::now(), processor());
    append(&recorder, records).await;
    say("recording alone", records, begun);

    let store = Store::open(&folder.path().join("mcpx.db")).await.expect("a database");
    let reader = Reader::open(&log).expect("the log");
    let begun = (Instant::now(), processor());
    let (index, orphans) =
        Index::start(recorder.clone(), reader, store.clone()).await.expect("an index");
    say("a first start", records, begun);
    assert_eq!(orphans, 0, "no call is open");

    let begun = (Instant::now(), processor());
    append(&recorder, records).await;
    index.up_to_date().await;
    say("recording with the index following", records, begun);

    let begun = (Instant::now(), processor());
    let sessions = store.sessions(None, None, 1000).await.expect("sessions");
    say("listing the sessions", 1, begun);
    let calls: i64 = sessions.iter().map(|session| session.calls).sum();
    println!("{} sessions, {calls} calls", sessions.len());
    println!("database: {:.1} bytes a record", size(folder.path()) as f64 / (records * 2) as f64);
}

fn say(what: &str, records: usize, begun: (Instant, Duration)) {
    let each = |time: Duration| time.as_secs_f64() * 1e6 / records as f64;
    println!(
        "{what}: {:.2} µs of processor time and {:.2} µs for each",
        each(processor() - begun.1),
        each(begun.0.elapsed())
    );
}

/// The processor time of the whole program so far.
fn processor() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

fn size(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).expect("the folder").map(|file| file.expect("a file"));
    let of_database =
        files.filter(|file| file.file_name().to_string_lossy().starts_with("mcpx.db"));
    of_database.map(|file| file.metadata().expect("its length").len()).sum()
}

/// Calls with their answers, as so many sessions make them.
async fn append(recorder: &Recorder, records: usize) {
    let writers: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let recorder = recorder.clone();
            tokio::spawn(async move {
                let session = Writer::new();
                recorder.append(session.grant()).await.expect("a durable entry");
                for _ in 0..records / SESSIONS / 2 {
                    let call = CallId::generate().expect("randomness");
                    recorder.append(session.call(&call)).await.expect("a durable entry");
                    recorder.append(session.response(call)).await.expect("a durable entry");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer that ends");
    }
}

struct Writer {
    session: SessionId,
    subject: SubjectId,
    connection: ConnectionName,
}

impl Writer {
    fn new() -> Self {
        Self {
            session: SessionId::generate().expect("randomness"),
            subject: SubjectId::generate().expect("randomness"),
            connection: "bench".parse().expect("a name"),
        }
    }

    fn grant(&self) -> Entry {
        Entry::from(Record::GrantIssued {
            grant: GrantId::generate().expect("randomness"),
            session: self.session.clone(),
            subject: self.subject.clone(),
            connection: self.connection.clone(),
            expires: SystemClock.now(),
            approval: None,
            ends: None,
        })
    }

    fn call(&self, call: &CallId) -> Entry {
        let record = Record::Call {
            call: call.clone(),
            session: self.session.clone(),
            subject: self.subject.clone(),
            connection: self.connection.clone(),
            direction: Direction::ClientToServer,
            shape: Shape::Request,
            method: Some("tools/call".to_owned()),
            decision: Verdict::Allow,
            rules: vec!["bench-may-call".to_owned()],
            approval: None,
            policy: "0".repeat(64),
            forwarded: true,
        };
        Entry { record, body: Some(vec![b'c'; 250].into()) }
    }

    fn response(&self, call: CallId) -> Entry {
        let record = Record::Response {
            call,
            session: self.session.clone(),
            outcome: Outcome::Result,
            findings: BTreeMap::new(),
            upstream_status: Some(200),
            last: true,
        };
        Entry { record, body: Some(vec![b'r'; 250].into()) }
    }
}
