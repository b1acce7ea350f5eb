//! Following the audit log into the database.
//!
//! One task reads what was committed and indexes it; whoever needs the index up to date waits for
//! it. A crash loses nothing: the index goes on where it stands.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::audit::{Commits, Entry, Reader, Record, RecordError, Recorder};
use crate::store::indexer::{Indexer, TakeError};
use crate::store::{Store, StoreError};
use crate::types::sha256;

/// Entries that are indexed in one transaction.
const BATCH: usize = 16 * 1024;

/// Entries that are read in one go, which is plain file work: few enough not to need a thread.
const PIECE: usize = 512;

/// How long entries may gather before they are indexed together, unless somebody waits: a
/// transaction for each commit would sync the database as often as the log.
const GATHER: Duration = Duration::from_secs(1);

/// The log could not be followed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The log cannot be read.
    #[error("the audit log cannot be read")]
    Log(#[from] crate::audit::ReadError),
    /// An entry cannot be indexed.
    #[error(transparent)]
    Entry(#[from] TakeError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log cannot be written.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// How far the index has come.
#[derive(Clone)]
pub struct Index {
    recorder: Recorder,
    indexed: watch::Receiver<u64>,
    /// Somebody waits.
    hurry: Arc<Notify>,
}

impl Index {
    /// Brings the index up to date, records every call that a crash left open as orphaned, and
    /// keeps following.
    ///
    /// # Errors
    /// [`IndexError`]; the server must not start then.
    pub async fn start(
        recorder: Recorder,
        reader: Reader,
        store: Store,
    ) -> Result<(Self, usize), IndexError> {
        if !belongs(&store, &reader).await? {
            tracing::warn!("the index is of another log or of more of it; it is made anew");
            store.forget_index().await?;
        }
        let mut follower = Follower { recorder: recorder.clone(), reader, store, at: None };
        follower.catch_up().await?;
        follower.store.apply_revocations().await?;
        let orphans = follower.store.open_calls().await?;
        let found = orphans.len();
        for (call, session) in orphans {
            recorder
                .append(Entry { record: Record::Orphaned { call, session }, body: None })
                .await?;
        }
        let size = follower.catch_up().await?;
        let (report, indexed) = watch::channel(size);
        let hurry = Arc::new(Notify::new());
        tokio::spawn(follower.follow(report, Arc::clone(&hurry)));
        Ok((Self { recorder, indexed, hurry }, found))
    }

    /// Waits until everything committed by now is indexed, for a moment at most: an index that
    /// lags is better than no answer.
    pub async fn up_to_date(&self) {
        let size = self.recorder.checkpoint().checkpoint().size;
        let mut indexed = self.indexed.clone();
        self.hurry.notify_one();
        let waiting = indexed.wait_for(|indexed| *indexed >= size);
        if tokio::time::timeout(Duration::from_secs(5), waiting).await.is_err() {
            tracing::warn!("the index lags behind the audit log");
        }
    }
}

/// Whether the log has the last entry that is indexed. It has not if one of the two was put back
/// from a copy.
async fn belongs(store: &Store, reader: &Reader) -> Result<bool, StoreError> {
    let Some((index, place, hash)) = store.index_end().await? else { return Ok(true) };
    let entry = reader.lookup().entry(index, place).ok();
    let leaf = entry.and_then(|entry| entry.leaf.encode().ok());
    Ok(leaf.is_some_and(|leaf| sha256(&leaf) == hash))
}

/// Reads on where it stopped: finding a place in the journal again means passing over everything
/// before it.
struct Follower {
    recorder: Recorder,
    reader: Reader,
    store: Store,
    /// The commits to come and what takes them in; nothing after a failure, since what the
    /// database holds is known only to the database then.
    at: Option<(Commits, Indexer)>,
}

impl Follower {
    async fn follow(mut self, report: watch::Sender<u64>, hurry: Arc<Notify>) {
        let mut committed = self.recorder.committed();
        loop {
            match self.catch_up().await {
                Ok(size) => {
                    report.send_replace(size);
                    if committed.changed().await.is_err() {
                        return;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(GATHER) => {}
                        () = hurry.notified() => {}
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the audit log cannot be indexed; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Indexes what has been committed by now; how much that is altogether.
    async fn catch_up(&mut self) -> Result<u64, IndexError> {
        let end = self.recorder.checkpoint().checkpoint().size;
        let (mut commits, mut indexer) = match self.at.take() {
            Some(at) => at,
            None => {
                let indexer = self.store.indexer().await?;
                (self.reader.commits(indexer.size()), indexer)
            }
        };
        loop {
            let mut piece = 0;
            let mut more = true;
            while indexer.gathered() < BATCH && more {
                match commits.next_below(end)? {
                    Some(commit) => indexer.take(&commit)?,
                    None => more = false,
                }
                if indexer.gathered() >= piece + PIECE {
                    piece = indexer.gathered();
                    tokio::task::yield_now().await;
                }
            }
            if indexer.gathered() > 0 {
                self.store.index(&mut indexer).await?;
            }
            if !more {
                let size = indexer.size();
                self.at = Some((commits, indexer));
                return Ok(size);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::LogKey;
    use crate::types::{CallId, SessionId, SystemClock};

    async fn append(recorder: &Recorder, count: usize) {
        for number in 0..count {
            let record = Record::PolicyLoaded { hash: number.to_string() };
            recorder.append(record.into()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn who_waits_finds_everything_committed_before() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let key = LogKey::generate("index.example/log").unwrap();
        let (recorder, _) = Recorder::open(&log, key, Arc::new(SystemClock)).unwrap();
        let store = Store::open(&folder.path().join("mcpx.db")).await.unwrap();
        let reader = Reader::open(&log).unwrap();

        append(&recorder, 3).await;
        let started = Index::start(recorder.clone(), reader.clone(), store.clone()).await;
        let (index, orphans) = started.unwrap();
        assert_eq!(orphans, 0);
        assert_eq!(store.indexed().await.unwrap(), 3);
        for committed in [4, 700, 701] {
            append(&recorder, committed - store.indexed().await.unwrap() as usize).await;
            index.up_to_date().await;
            assert_eq!(store.indexed().await.unwrap(), committed as u64);
        }
    }

    #[tokio::test]
    async fn after_a_failure_it_goes_on_where_the_database_stands() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let key = LogKey::generate("index.example/log").unwrap();
        let (recorder, _) = Recorder::open(&log, key, Arc::new(SystemClock)).unwrap();
        let store = Store::open(&folder.path().join("mcpx.db")).await.unwrap();
        let reader = Reader::open(&log).unwrap();
        let mut follower =
            Follower { recorder: recorder.clone(), reader, store: store.clone(), at: None };

        append(&recorder, 2).await;
        assert_eq!(follower.catch_up().await.unwrap(), 2);
        append(&recorder, 2).await;
        let closed = Store::open(&folder.path().join("closed.db")).await.unwrap();
        closed.pool.close().await;
        follower.store = closed;
        assert!(follower.catch_up().await.is_err());
        follower.store = store.clone();
        assert_eq!(follower.catch_up().await.unwrap(), 4);
        assert_eq!(store.indexed().await.unwrap(), 4);
    }
    #[tokio::test]
    async fn an_index_of_another_log_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("mcpx.db")).await.unwrap();
        let mut sessions = Vec::new();
        // The second is longer than what the first left indexed.
        for (name, count) in [("first", 2), ("second", 5), ("second", 0)] {
            let log = folder.path().join(name);
            let key_file = folder.path().join(format!("{name}.key"));
            let key = LogKey::load_or_create(&key_file, "index.example/log").unwrap();
            let (recorder, _) = Recorder::open(&log, key, Arc::new(SystemClock)).unwrap();
            append(&recorder, count).await;
            let session = SessionId::generate().unwrap();
            let call = CallId::generate().unwrap();
            let record = Record::Orphaned { call, session: session.clone() };
            if count > 0 {
                sessions.push((name, session));
                recorder.append(record.into()).await.unwrap();
            }
            let size = recorder.checkpoint().checkpoint().size;
            let reader = Reader::open(&log).unwrap();
            Index::start(recorder.clone(), reader, store.clone()).await.unwrap();
            assert_eq!(store.indexed().await.unwrap(), size);
            for (of, session) in &sessions {
                let found = store.session_records(session).await.unwrap().len();
                assert_eq!(found, usize::from(*of == name), "{of} in {name}");
            }
            recorder.shutdown().await.unwrap();
        }
    }
}
