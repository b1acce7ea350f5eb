//! A log's ordinary life: recording, reading, following, closing, opening again.

use std::fs;

use super::*;
use crate::audit::{Evidence, Leaf, OpenError, Reader, RecordError};

struct Said(&'static str);

impl Evidence for Said {
    fn entry(&self) -> Entry {
        Entry { record: Record::Stopped, body: Some(self.0.into()) }
    }
}

#[tokio::test]
async fn what_was_recorded_can_be_read_back() {
    let bench = Bench::new();
    let recorder = bench.open();
    let said = recorder.record(Said("{\"a\":1}")).await.unwrap();
    assert_eq!((said.get().0, said.index()), ("{\"a\":1}", 0));
    append(&recorder, 1..5).await;
    let checkpoint = recorder.checkpoint();
    assert_eq!(checkpoint.checkpoint().size, 5);

    let reader = Reader::open(&bench.root()).unwrap();
    let entries: Vec<_> = reader.entries(0).map(Result::unwrap).collect();
    assert_eq!(entries.iter().map(|e| e.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let (at, leaf) = (entries[0].body_at.unwrap(), &entries[0].leaf);
    assert_eq!(reader.body(&at, &leaf.body.unwrap()).unwrap(), b"{\"a\":1}");
    assert_eq!(entries[2].body_at, None);
    let other = &entries[1].leaf;
    assert!(reader.body(&at, &other.body.unwrap()).is_err(), "another entry's commitment");

    recorder.shutdown().await.unwrap();
    assert!(matches!(recorder.append(entry(9)).await, Err(RecordError::Closed)));
    let report = bench.verify().unwrap();
    assert_eq!((report.entries, report.bodies, report.unfinished), (5, 3, 0));
    assert_eq!(report.checkpoint, *checkpoint);
}

#[tokio::test]
async fn a_follower_sees_each_entry_once_and_nothing_too_early() {
    let bench = Bench::new();
    let recorder = bench.open_with(4096);
    let mut committed = recorder.committed();
    let mut entries = Reader::open(&bench.root()).unwrap().entries(0);
    let writer = tokio::spawn(async move {
        for round in 0..12 {
            append_together(&recorder, round * 100..(round + 1) * 100).await;
        }
        recorder.shutdown().await.unwrap();
    });
    let (mut seen, mut hashes) = (0, std::collections::HashSet::new());
    while seen < 1200 {
        committed.changed().await.unwrap();
        let size = committed.borrow_and_update().checkpoint().size;
        while let Some(entry) = entries.next_below(size).unwrap() {
            assert_eq!(entry.index, seen);
            // Rounds come in order; within one, who is first is up to the executor.
            let Record::PolicyLoaded { hash } = entry.leaf.record else { panic!() };
            assert_eq!(hash.parse::<u64>().unwrap() / 100, seen / 100);
            assert!(hashes.insert(hash), "an entry came twice");
            seen += 1;
        }
        assert_eq!(seen, size);
    }
    writer.await.unwrap();
    // From the middle of a frame, of a segment, and from beyond the end.
    let reader = Reader::open(&bench.root()).unwrap();
    for from in [0, 1, 99, 255, 256, 257, 700, 1199, 1200, 5000] {
        let entries: Vec<u64> = reader.entries(from).map(|e| e.unwrap().index).collect();
        assert_eq!(entries, (from..1200).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn it_goes_on_where_it_ended_across_many_segments() {
    let bench = Bench::new();
    let mut remembered = Vec::new();
    for round in 0..6u64 {
        let recorder = bench.open_with(2048);
        append_together(&recorder, round * 300..(round + 1) * 300).await;
        recorder.shutdown().await.unwrap();
        remembered.push(bench.verify().unwrap().checkpoint);
    }
    let segments = fs::read_dir(bench.root().join("journal")).unwrap().count();
    assert!(segments >= 4, "only {segments} segments");
    let report = bench.verify().unwrap();
    assert_eq!((report.entries, report.bodies), (1800, 900));
    for old in remembered {
        verify_folder(&bench.root(), bench.key().vkey(), Some(old.checkpoint())).unwrap();
    }
}

#[tokio::test]
async fn batches_share_a_sync() {
    let bench = Bench::new();
    let recorder = bench.open();
    append_together(&recorder, 0..1000).await;
    recorder.shutdown().await.unwrap();
    let (mut segment, _) = crate::audit::segment::Segment::open(&bench.root(), 0).unwrap();
    let mut frames = 0;
    while segment.next().unwrap().is_some() {
        frames += 1;
    }
    assert!(frames < 500, "{frames} frames for 1000 entries that came together");
}

#[tokio::test]
async fn two_servers_cannot_share_a_log() {
    let bench = Bench::new();
    let recorder = bench.open();
    let open = || Recorder::open(&bench.root(), bench.key(), Arc::new(SystemClock));
    let error = open().err().unwrap();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    recorder.shutdown().await.unwrap();
    open().unwrap();
}

#[tokio::test]
async fn a_log_keeps_its_key() {
    let bench = Bench::new();
    let recorder = bench.open();
    append(&recorder, 0..3).await;
    recorder.shutdown().await.unwrap();
    let other = LogKey::generate(ORIGIN).unwrap();
    let error = Recorder::open(&bench.root(), other, Arc::new(SystemClock)).err().unwrap();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    bench.verify().unwrap();
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_the_rest_goes_on() {
    let bench = Bench::new();
    let recorder = bench.open();
    let long = Entry::from(Record::PolicyLoaded { hash: "a".repeat(70_000) });
    assert!(matches!(recorder.append(long).await, Err(RecordError::Leaf(_))));
    let large =
        Entry { record: Record::Stopped, body: Some(vec![0; crate::audit::MAX_BODY + 1].into()) };
    assert!(matches!(recorder.append(large).await, Err(RecordError::BodyTooLong { .. })));
    let largest =
        Entry { record: Record::Stopped, body: Some(vec![0; crate::audit::MAX_BODY].into()) };
    assert_eq!(recorder.append(largest).await.unwrap(), 0);
    let longest = Entry::from(Record::PolicyLoaded { hash: "a".repeat(65_000) });
    let many = (0..300).map(|_| recorder.append(longest.clone()));
    for result in futures_util::future::join_all(many).await {
        result.unwrap();
    }
    recorder.shutdown().await.unwrap();
    assert_eq!(bench.verify().unwrap().entries, 301);
    bench.open();
}

#[tokio::test]
async fn only_published_files_are_served() {
    let bench = Bench::new();
    let recorder = bench.open();
    append(&recorder, 0..3).await;
    let checkpoint = recorder.publish().await.unwrap();
    let reader = Reader::open(&bench.root()).unwrap();
    let served = reader.published("checkpoint").unwrap().unwrap();
    assert_eq!(served, checkpoint.note().as_bytes());
    let tile = reader.published("tile/entries/000.p/3").unwrap().unwrap();
    let leaf = &reader.entries(0).next().unwrap().unwrap().leaf;
    assert_eq!(Leaf::decode(&tile[2..2 + leaf.encode().unwrap().len()]).unwrap(), *leaf);
    assert_eq!(reader.published("tile/0/001").unwrap(), None);
    for path in ["lock", "journal/00000000000000000000", "../key", "tile/../lock", "/etc/passwd"] {
        assert!(reader.published(path).is_err(), "{path}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_can_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    let recorder = bench.open_with(512);
    append_together(&recorder, 0..600).await;
    recorder.shutdown().await.unwrap();
    let mut folders = vec![bench.root()];
    while let Some(folder) = folders.pop() {
        assert_eq!(
            fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
            0o700,
            "{folder:?}"
        );
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let mode = fs::metadata(&path).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600, "{path:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_empty_log_verifies() {
    let bench = Bench::new();
    bench.open().shutdown().await.unwrap();
    assert_eq!(bench.verify().unwrap().entries, 0);
    bench.open().shutdown().await.unwrap();
    assert_eq!(bench.verify().unwrap().checkpoint.checkpoint().size, 0);
}

#[tokio::test]
async fn a_log_can_be_verified_while_it_grows() {
    let bench = Bench::new();
    let recorder = bench.open_with(8192);
    let (root, key) = (bench.root(), bench.key());
    let writer = tokio::spawn(async move {
        for round in 0..30 {
            append_together(&recorder, round * 40..(round + 1) * 40).await;
        }
        recorder.shutdown().await.unwrap();
    });
    tokio::task::spawn_blocking(move || while verify(&root, &key).unwrap().entries < 1200 {})
        .await
        .unwrap();
    writer.await.unwrap();
}
