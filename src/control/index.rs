//! Following the audit log into the database.
//!
//! One task reads what was committed and indexes it; whoever needs the index up to date waits for
//! it. A crash loses nothing: the index goes on where it stands.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::audit::{Entries, Entry, Reader, Record, RecordError, Recorder};
use crate::store::{Store, StoreError};

/// Entries that are indexed in one transaction.
const BATCH: usize = 2048;

/// How long entries may gather before they are indexed together, unless somebody waits: a
/// transaction for each commit would sync the database as often as the log.
const GATHER: Duration = Duration::from_millis(500);

/// The log could not be followed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The log cannot be read.
    #[error("the audit log cannot be read")]
    Log(#[from] crate::audit::ReadError),
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

/// Reads on where it stopped: finding a place in the journal again means passing over everything
/// before it.
struct Follower {
    recorder: Recorder,
    reader: Reader,
    store: Store,
    /// The entries to come and the index of the first; nothing after a failure, since what the
    /// database holds is known only to the database then.
    at: Option<(Entries, u64)>,
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
        let (mut entries, mut next) = match self.at.take() {
            Some(at) => at,
            None => {
                let next = self.store.indexed().await?;
                (self.reader.entries(next), next)
            }
        };
        loop {
            // Reading is plain file work, in pieces that are small enough not to need a thread.
            let mut batch = Vec::new();
            while batch.len() < BATCH {
                match entries.next_below(end)? {
                    Some(entry) => batch.push(entry),
                    None => break,
                }
            }
            let Some(newest) = batch.last() else {
                self.at = Some((entries, next));
                return Ok(next);
            };
            next = newest.index + 1;
            self.store.index(&batch).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::LogKey;
    use crate::types::SystemClock;

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
}
