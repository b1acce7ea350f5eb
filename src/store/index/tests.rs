//! The index against the plain reading of every record, over made-up histories.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;

use super::super::migrations;
use super::*;
use crate::audit::{
    Commits, Committed, Entry, LogKey, Outcome, Reader, Record, Recorder, Shape, Verdict,
};
use crate::policy::Direction;
use crate::types::{ApprovalId, Clock as _, GrantId, SystemClock};

/// What a session should show: calls, denied, approved, masked, orphaned; and its records.
#[derive(Debug, Default, PartialEq)]
struct Told {
    counts: [i64; 5],
    records: Vec<u64>,
}

/// Reads all of the log and counts as the words say, without cleverness.
fn plainly(entries: &[Committed]) -> (BTreeMap<String, Told>, BTreeSet<String>) {
    let mut told: BTreeMap<String, Told> = BTreeMap::new();
    let mut links: HashMap<String, String> = HashMap::new();
    let mut sets: HashMap<(String, usize), BTreeSet<String>> = HashMap::new();
    let (mut open, mut opened) = (BTreeSet::new(), BTreeSet::new());
    for entry in entries {
        let leaf = serde_json::to_value(&entry.leaf).unwrap();
        let text = |name: &str| leaf.get(name).and_then(Value::as_str).map(str::to_owned);
        let yes = |name: &str| leaf.get(name) == Some(&Value::Bool(true));
        let linked = || {
            let by = [text("approval"), text("grant")];
            by.into_iter().flatten().find_map(|id| links.get(&id).cloned())
        };
        let Some(session) = text("session").or_else(linked) else { continue };
        for id in [text("approval"), text("grant")].into_iter().flatten() {
            links.entry(id).or_insert_with(|| session.clone());
        }
        let (kind, call) = (text("kind").unwrap(), text("call").unwrap_or_default());
        let is = |name: &str, value: &str| text(name).as_deref() == Some(value);
        let of_client = kind == "call" && is("direction", "client_to_server");
        let mut distinct = |which: usize, holds: bool| {
            if holds && !call.is_empty() {
                sets.entry((session.clone(), which)).or_default().insert(call.clone());
            }
        };
        distinct(0, of_client && is("shape", "request"));
        distinct(1, is("decision", "deny") || is("outcome", "denied"));
        distinct(2, yes("forwarded") && text("approval").is_some());
        if of_client && yes("forwarded") {
            open.insert(call.clone());
        }
        if yes("last") || kind == "orphaned" {
            open.remove(&call);
        }
        if kind == "grant_issued" {
            opened.insert(session.clone());
        }
        let told = told.entry(session).or_default();
        let found = leaf.get("findings").and_then(Value::as_object);
        told.counts[3] += found.into_iter().flatten().filter_map(|(_, n)| n.as_i64()).sum::<i64>();
        told.counts[4] += i64::from(kind == "orphaned");
        told.records.push(entry.index);
    }
    for ((session, which), calls) in sets {
        told.get_mut(&session).unwrap().counts[which] = calls.len() as i64;
    }
    told.retain(|session, _| opened.contains(session));
    (told, open)
}

/// A history under way.
struct World {
    recorder: Recorder,
    reader: Reader,
    store: Store,
    at: Option<(Commits, Indexer)>,
    sessions: Vec<(SessionId, SubjectId, GrantId)>,
}

impl World {
    async fn new(folder: &std::path::Path) -> Self {
        let log = folder.join("log");
        let key = LogKey::generate("index.example/log").unwrap();
        let (recorder, _) = Recorder::open(&log, key, Arc::new(SystemClock)).unwrap();
        let store = Store::open(&folder.join("mcpx.db")).await.unwrap();
        let reader = Reader::open(&log).unwrap();
        Self { recorder, reader, store, at: None, sessions: Vec::new() }
    }

    async fn put(&self, records: Vec<Record>) {
        for record in records {
            let body = matches!(record, Record::Response { .. }).then(|| "{}".into());
            self.recorder.append(Entry { record, body }).await.unwrap();
        }
    }

    async fn open(&mut self) {
        let (session, grant) = (SessionId::generate().unwrap(), GrantId::generate().unwrap());
        let subject = SubjectId::generate().unwrap();
        self.sessions.push((session.clone(), subject.clone(), grant.clone()));
        let (connection, expires) = (name(), SystemClock.now());
        self.put(vec![Record::GrantIssued {
            grant,
            session,
            subject,
            connection,
            expires,
            approval: None,
            ends: None,
        }])
        .await;
    }

    async fn index(&mut self) {
        let (mut commits, mut indexer) = match self.at.take() {
            Some(at) => at,
            None => {
                let indexer = self.store.indexer().await.unwrap();
                (self.reader.commits(indexer.size()), indexer)
            }
        };
        while let Some(commit) = commits.next_below(u64::MAX).unwrap() {
            indexer.take(&commit).unwrap();
        }
        self.store.index(&mut indexer).await.unwrap();
        self.at = Some((commits, indexer));
    }

    /// Compares everything that the index tells.
    async fn check(&self) {
        let entries: Vec<Committed> = self.reader.entries(0).map(Result::unwrap).collect();
        let (told, open) = plainly(&entries);
        assert_eq!(self.store.indexed().await.unwrap(), entries.len() as u64);
        let calls = self.store.open_calls().await.unwrap();
        let calls: BTreeSet<String> = calls.into_iter().map(|(call, _)| call.into()).collect();
        assert_eq!(calls, open);
        let rows = self.store.sessions(None, None, 1000).await.unwrap();
        assert_eq!(rows.len(), told.len());
        assert!(rows.is_sorted_by(|a, b| a.started_at >= b.started_at));
        for row in rows {
            let mut lookup = self.reader.lookup();
            let places = self.store.session_records(&row.id).await.unwrap();
            let found: Vec<u64> = places.iter().map(|(index, _)| *index).collect();
            for (index, place) in places {
                assert_eq!(lookup.entry(index, place).unwrap(), entries[index as usize]);
            }
            let last = found.iter().map(|index| entries[*index as usize].leaf.at).max().unwrap();
            assert_eq!(row.last_at.as_millisecond(), last.as_millisecond());
            let counts = [row.calls, row.denied, row.approved, row.masked, row.orphaned];
            assert_eq!(Told { counts, records: found }, told[row.id.as_str()], "{}", row.id);
            let own = self.store.sessions(Some(&row.subject), Some(&row.id), 1).await.unwrap();
            assert_eq!((own.len(), own[0].calls), (1, row.calls));
            let of = self.store.sessions(Some(&row.subject), None, 9).await.unwrap();
            assert_eq!(of.len(), 1, "each session has its own subject here");
            assert_eq!(of[0].id, row.id);
        }
    }
}

fn name() -> ConnectionName {
    "crm".parse().unwrap()
}

fn response(call: &CallId, session: &SessionId, outcome: Outcome, last: bool) -> Record {
    let findings = BTreeMap::from([("pii.ssn".to_owned(), 2)]);
    let (call, session) = (call.clone(), session.clone());
    Record::Response { call, session, outcome, findings, upstream_status: Some(200), last }
}

/// One of the ways in which a call goes; in pieces, between which the index may be written.
fn story(
    which: u8,
    (session, subject, grant): &(SessionId, SubjectId, GrantId),
) -> Vec<Vec<Record>> {
    let (call, approval) = (CallId::generate().unwrap(), ApprovalId::generate().unwrap());
    let said =
        |decision, approval: Option<&ApprovalId>, direction, shape, forwarded| Record::Call {
            call: call.clone(),
            session: session.clone(),
            subject: subject.clone(),
            connection: name(),
            direction,
            shape,
            method: Some("tools/call".to_owned()),
            decision,
            rules: vec!["r1".to_owned()],
            approval: approval.cloned(),
            policy: "ab12".to_owned(),
            forwarded,
        };
    let (up, down) = (Direction::ClientToServer, Direction::ServerToClient);
    let allowed = said(Verdict::Allow, None, up, Shape::Request, true);
    let denied = said(Verdict::Deny, None, up, Shape::Request, false);
    let waiting = said(Verdict::NeedsApproval, Some(&approval), up, Shape::Request, false);
    let permitted = said(Verdict::Allow, Some(&approval), up, Shape::Request, true);
    let asked = Record::ApprovalRequested {
        approval: approval.clone(),
        call: call.clone(),
        session: session.clone(),
        subject: subject.clone(),
        connection: name(),
        rule: "r1".to_owned(),
        from_groups: vec!["leads".to_owned()],
        binding: "00ff".to_owned(),
        expires: SystemClock.now(),
    };
    let decided = |approved| Record::ApprovalDecided {
        approval: approval.clone(),
        by: subject.clone(),
        approved,
    };
    let used = Record::ApprovalUsed { approval: approval.clone(), call: call.clone() };
    let ended = |outcome| response(&call, session, outcome, true);
    let event = |outcome| response(&call, session, outcome, false);
    match which {
        0 => vec![vec![allowed], vec![ended(Outcome::Result)]],
        1 => vec![vec![allowed, ended(Outcome::ToolError)]],
        2 => vec![
            vec![allowed, event(Outcome::Accepted)],
            vec![event(Outcome::StreamEvent), event(Outcome::Stalled)],
            vec![ended(Outcome::StreamEnd)],
        ],
        3 => vec![vec![denied]],
        // Where the refusal goes into a stream.
        4 => vec![vec![denied], vec![ended(Outcome::Denied)]],
        5 => vec![
            vec![asked, waiting],
            vec![decided(true)],
            vec![used, permitted],
            vec![ended(Outcome::Result)],
        ],
        6 => vec![vec![asked, waiting, decided(false)], vec![ended(Outcome::Denied)]],
        7 => vec![vec![asked, waiting, decided(true), used, denied], vec![ended(Outcome::Denied)]],
        8 => vec![vec![asked, waiting], vec![Record::ApprovalExpired { approval }]],
        // A crash: forwarded, and no end.
        9 => vec![vec![allowed]],
        10 => vec![
            vec![allowed],
            vec![Record::Orphaned { call: call.clone(), session: session.clone() }],
        ],
        11 => vec![vec![said(Verdict::Allow, None, down, Shape::Notification, true)]],
        12 => vec![vec![
            said(Verdict::Allow, None, up, Shape::Notification, true),
            ended(Outcome::Accepted),
        ]],
        13 => vec![vec![said(Verdict::Deny, None, down, Shape::Request, false)]],
        14 => vec![vec![Record::GrantRenewed {
            grant: grant.clone(),
            subject: subject.clone(),
            expires: SystemClock.now(),
        }]],
        15 => vec![vec![Record::GrantRevoked { grant: grant.clone(), by: subject.clone() }]],
        16 => vec![vec![Record::Viewed { session: session.clone(), by: subject.clone() }]],
        _ => vec![vec![Record::PolicyLoaded { hash: "ab12".to_owned() }]],
    }
}

async fn live(steps: &[(u8, u8, u8)]) {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(folder.path()).await;
    world.open().await;
    let mut later: Vec<Vec<Vec<Record>>> = Vec::new();
    for (which, who, then) in steps {
        if *who == 0 {
            world.open().await;
        }
        let who = usize::from(*who) % world.sessions.len();
        later.push(story(*which, &world.sessions[who]));
        // Stories run beside each other.
        let next = usize::from(*then) % later.len();
        let piece = later[next].remove(0);
        world.put(piece).await;
        later.retain(|rest| !rest.is_empty());
        match then % 8 {
            0 => world.index().await,
            // As after a failure, or a restart.
            1 => {
                world.index().await;
                world.at = None;
            }
            2 => {
                world.index().await;
                world.check().await;
            }
            _ => {}
        }
    }
    for piece in later.into_iter().flatten() {
        world.put(piece).await;
    }
    world.index().await;
    world.check().await;
    // Made from the log again, it says the same.
    sqlx::query("DELETE FROM log_indexed").execute(&world.store.pool).await.unwrap();
    world.at = None;
    world.index().await;
    world.check().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn the_index_tells_what_the_records_say(
        steps in proptest::collection::vec((0u8..18, 0u8..5, any::<u8>()), 1..50),
    ) {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(live(&steps));
    }
}

#[test]
fn a_run_ends_where_its_numbers_or_its_segment_do() {
    let at = |segment, offset| Place { segment, offset };
    let far = u64::from(u32::MAX);
    let records = [
        (3, at(0, 100)),
        (4, at(0, 100)),
        (far + 3, at(0, far + 100)),
        (far + 4, at(0, far + 100)),
        (far + 5, at(far, 60)),
        (far + 6, at(far, 50)),
    ];
    let mut lengths = Vec::new();
    let mut rest = &records[..];
    while let Some((run, after)) = cut_run(rest) {
        assert_eq!(run.rest.len() / 8 + 1, rest.len() - after.len());
        lengths.push(rest.len() - after.len());
        rest = after;
    }
    assert_eq!(lengths, [3, 1, 1, 1]);
    let rows: Vec<usize> = portions(&[0; 137]).map(<[i32]>::len).collect();
    assert_eq!(rows, [64, 64, 8, 1]);
}

#[tokio::test]
async fn a_database_with_the_index_of_old_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mcpx.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let old = migrations().into_iter().filter(|migration| migration.version < 11).collect();
    Migrator::with_migrations(old).run(&pool).await.unwrap();
    sqlx::query("INSERT INTO records (idx, at, kind, leaf) VALUES (6, 0, 'stopped', '{}')")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.indexed().await.unwrap(), 0);
    assert_eq!(store.indexer().await.unwrap().size(), 0);
}
