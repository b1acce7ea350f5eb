//! Following the audit log into the database.
//!
//! One task reads what was committed and indexes it; whoever needs the index up to date waits for
//! it. A crash loses nothing: the index goes on where it stands.

use tokio::sync::watch;

use crate::audit::{Entry, Reader, Record, RecordError, Recorder};
use crate::store::{Store, StoreError};

/// Entries that are indexed in one transaction.
const BATCH: usize = 512;

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
        catch_up(&recorder, &reader, &store).await?;
        let orphans = store.open_calls().await?;
        let found = orphans.len();
        for (call, session) in orphans {
            recorder
                .append(Entry { record: Record::Orphaned { call, session }, body: None })
                .await?;
        }
        let size = catch_up(&recorder, &reader, &store).await?;
        let (report, indexed) = watch::channel(size);
        let following = recorder.clone();
        tokio::spawn(async move {
            let mut committed = following.committed();
            loop {
                match catch_up(&following, &reader, &store).await {
                    Ok(size) => {
                        report.send_replace(size);
                        if committed.changed().await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "the audit log cannot be indexed; trying again");
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    }
                }
            }
        });
        Ok((Self { recorder, indexed }, found))
    }

    /// Waits until everything committed by now is indexed, for a moment at most: an index that
    /// lags is better than no answer.
    pub async fn up_to_date(&self) {
        let size = self.recorder.checkpoint().checkpoint().size;
        let mut indexed = self.indexed.clone();
        let waiting = indexed.wait_for(|indexed| *indexed >= size);
        if tokio::time::timeout(std::time::Duration::from_secs(5), waiting).await.is_err() {
            tracing::warn!("the index lags behind the audit log");
        }
    }
}

async fn catch_up(recorder: &Recorder, reader: &Reader, store: &Store) -> Result<u64, IndexError> {
    let mut next = store.indexed().await?;
    let end = recorder.checkpoint().checkpoint().size;
    if next >= end {
        return Ok(next);
    }
    let mut entries = reader.entries(next);
    loop {
        // Reading is plain file work, in pieces that are small enough not to need a thread.
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            match entries.next_below(end)? {
                Some(entry) => batch.push(entry),
                None => break,
            }
        }
        let Some(newest) = batch.last() else { return Ok(next) };
        next = newest.index + 1;
        store.index(&batch).await?;
    }
}
