//! What a longer audit log costs: the start of the server, its memory, the next append, and
//! `mcpx audit verify`. The records are made here, through the recorder, as calls would make them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcpx::audit::{Entry, LogKey, Outcome, Record, Recorder, Shape, Verdict};
use mcpx::policy::Direction;
use mcpx::types::{CallId, Clock as _, ConnectionName, GrantId, SessionId, SubjectId, SystemClock};

use crate::config::{self, Options};
use crate::process;
use crate::server::{PROGRAM, Server};
use crate::table::{markdown, right};

/// Lets one log grow to each of these numbers of records in turn.
pub async fn run(sizes: &[u64]) {
    let mut table = markdown(&[
        "records",
        "log MB",
        "database MB",
        "appends/s, 1,024 at a time",
        "append p50 ms, alone",
        "first start s",
        "next start s",
        "RSS MB",
        "verify s",
        "verify peak MB",
    ]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    let data = dir.join("data");
    config::write(dir, 9, &Options::default());
    // Makes keys and folders.
    drop(Server::start(dir));
    let mut written = 0;
    for records in sizes {
        let recorder = open(&data);
        let more = records.saturating_sub(written);
        let begun = Instant::now();
        append(&recorder, more).await;
        let bulk = more as f64 / begun.elapsed().as_secs_f64();
        let alone = append_alone(&recorder).await;
        written = recorder.checkpoint().checkpoint().size;
        recorder.shutdown().await.expect("an orderly end");
        drop(recorder);

        let first = Server::start(dir).started_in;
        let server = Server::start(dir);
        let (next, resident) = (server.started_in, process::resident(server.pid()));
        drop(server);
        let database: u64 =
            ["mcpx.db", "mcpx.db-wal"].iter().map(|name| size(&data.join(name))).sum();
        let (verify, peak) = verify(&data);
        table.add_row([
            written.to_string(),
            format!("{:.1}", size(&data.join("log")) as f64 / 1e6),
            format!("{:.1}", database as f64 / 1e6),
            format!("{bulk:.0}"),
            format!("{:.2}", alone.as_secs_f64() * 1e3),
            format!("{:.2}", first.as_secs_f64()),
            format!("{:.2}", next.as_secs_f64()),
            format!("{:.1}", resident.unwrap_or_default()),
            format!("{:.2}", verify.as_secs_f64()),
            format!("{peak:.1}"),
        ]);
        println!("{records} records: done");
    }
    right(&mut table, 0);
    println!("{table}");
    println!(
        "first start: the new records are indexed; next start: they are. A record has a body of \
         about 250 bytes."
    );
}

fn open(data: &Path) -> Recorder {
    let keys = data.join("keys");
    let name = std::fs::read_to_string(keys.join("log-name")).expect("the log's name");
    let key = LogKey::load(&keys.join("log.key"), name.trim()).expect("the log's key");
    let opened = Recorder::open(&data.join("log"), key, Arc::new(SystemClock));
    opened.expect("the log that the server left").0
}

/// Appends so many records: sessions of a hundred calls, each with its answer.
async fn append(recorder: &Recorder, records: u64) {
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let recorder = recorder.clone();
            let share = records / WRITERS + u64::from(writer < records % WRITERS);
            tokio::spawn(async move {
                let mut session = Written::new();
                for _ in 0..share {
                    recorder.append(session.next()).await.expect("a durable entry");
                }
                // A call without its answer would be one that a crash cut off.
                if session.call.is_some() {
                    recorder.append(session.next()).await.expect("a durable entry");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer that ends");
    }
}

const WRITERS: u64 = 1024;

/// The median of appends one after the other.
async fn append_alone(recorder: &Recorder) -> Duration {
    let mut session = Written::new();
    let mut times = Vec::new();
    // An even number of records after the first: no call stays without its answer.
    for _ in 0..301 {
        let entry = session.next();
        let begun = Instant::now();
        recorder.append(entry).await.expect("a durable entry");
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

/// A session whose records are being written.
struct Written {
    session: SessionId,
    subject: SubjectId,
    connection: ConnectionName,
    /// A call that has no answer yet.
    call: Option<CallId>,
    records: u64,
}

impl Written {
    fn new() -> Self {
        Self {
            session: SessionId::generate().expect("randomness"),
            subject: SubjectId::generate().expect("randomness"),
            connection: "bench".parse().expect("a name"),
            call: None,
            records: 0,
        }
    }

    fn next(&mut self) -> Entry {
        if self.records > 200 && self.call.is_none() {
            *self = Self::new();
        }
        self.records += 1;
        if self.records == 1 {
            return Entry::from(Record::GrantIssued {
                grant: GrantId::generate().expect("randomness"),
                session: self.session.clone(),
                subject: self.subject.clone(),
                connection: self.connection.clone(),
                expires: SystemClock.now(),
                approval: None,
                ends: None,
            });
        }
        if let Some(call) = self.call.take() {
            let record = Record::Response {
                call,
                session: self.session.clone(),
                outcome: Outcome::Result,
                findings: BTreeMap::new(),
                upstream_status: Some(200),
                last: true,
            };
            return Entry { record, body: Some(vec![b'r'; 250].into()) };
        }
        let call = CallId::generate().expect("randomness");
        self.call = Some(call.clone());
        let record = Record::Call {
            call,
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
}

/// How long `mcpx audit verify` takes, and the most memory that it had.
fn verify(data: &Path) -> (Duration, f64) {
    let begun = Instant::now();
    let mut child = Command::new(PROGRAM)
        .args(["audit", "verify", "--dir"])
        .arg(data)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mcpx audit verify starts");
    let mut peak: f64 = 0.0;
    let status = loop {
        peak = process::peak(child.id()).map_or(peak, |now| peak.max(now));
        if let Some(status) = child.try_wait().expect("its end") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(status.success(), "the log does not verify: {:?}", child.wait_with_output());
    (begun.elapsed(), peak)
}

/// The bytes of a file, or of all files in a folder.
fn size(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return std::fs::metadata(path).map_or(0, |file| file.len());
    };
    entries.map(|entry| size(&entry.expect("an entry").path())).sum()
}
