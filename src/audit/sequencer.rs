//! The sequencer's loop: gather a batch, commit it, release who waits, publish.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::disk::Disk;
use super::frame::{FULL_BATCH, Prepared};
use super::log::Log;
use super::note::SignedCheckpoint;
use super::recorder::RecordError;

/// Something for the sequencer to do.
pub(super) enum Message {
    Append(Append),
    Publish(oneshot::Sender<Result<Arc<SignedCheckpoint>, RecordError>>),
    Shutdown(oneshot::Sender<Result<(), RecordError>>),
}

/// One entry, and who waits for it.
pub(super) struct Append {
    pub(super) entry: Prepared,
    pub(super) waiter: oneshot::Sender<Result<u64, RecordError>>,
    /// The entry's share of what may wait, given back when it is dropped.
    pub(super) permit: OwnedSemaphorePermit,
}

/// The thread that owns the log.
pub(super) struct Sequencer<D: Disk> {
    log: Log<D>,
    messages: mpsc::Receiver<Message>,
    checkpoint: watch::Sender<Arc<SignedCheckpoint>>,
    /// A message that came while a batch was gathered and ended it.
    carried: Option<Message>,
    /// When what has been committed must be published.
    publish_at: Option<Instant>,
}

impl<D: Disk> Sequencer<D> {
    pub(super) fn new(
        log: Log<D>,
        messages: mpsc::Receiver<Message>,
        checkpoint: watch::Sender<Arc<SignedCheckpoint>>,
    ) -> Self {
        Self { log, messages, checkpoint, carried: None, publish_at: None }
    }

    /// Runs until the recorder is shut down or its last clone is gone.
    pub(super) fn run(mut self) {
        loop {
            match self.next() {
                Next::Message(Message::Append(first)) => self.batch(first),
                Next::Message(Message::Publish(waiter)) => {
                    self.publish_at = None;
                    let result = self.log.publish_anew();
                    let result = result.map(|()| Arc::clone(self.log.checkpoint()));
                    drop(waiter.send(result));
                }
                Next::Message(Message::Shutdown(waiter)) => {
                    let result = self.publish();
                    self.log.tidy();
                    // The log is let go before the answer, so that whoever waits for it can open
                    // the log again at once; and so is the queue, so that whoever stands in it
                    // gets an error and does not wait for ever.
                    drop(self);
                    drop(waiter.send(result));
                    return;
                }
                Next::Quiet => drop(self.publish()),
                Next::Abandoned => {
                    drop(self.publish());
                    return;
                }
            }
        }
    }

    fn next(&mut self) -> Next {
        if let Some(message) = self.carried.take() {
            return Next::Message(message);
        }
        match self.publish_at {
            None => self.messages.recv().map_or(Next::Abandoned, Next::Message),
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                match self.messages.recv_timeout(left) {
                    Ok(message) => Next::Message(message),
                    Err(RecvTimeoutError::Timeout) => Next::Quiet,
                    Err(RecvTimeoutError::Disconnected) => Next::Abandoned,
                }
            }
        }
    }

    /// Commits one batch: `first` and whatever else has come by now.
    fn batch(&mut self, first: Append) {
        let room = self.log.room();
        let mut weight = first.entry.weight();
        let mut entries = vec![first.entry];
        let mut waiters = vec![(first.waiter, first.permit)];
        let mut grown = true;
        while entries.len() < room && weight < FULL_BATCH {
            match self.messages.try_recv() {
                Ok(Message::Append(next)) => {
                    weight += next.entry.weight();
                    entries.push(next.entry);
                    waiters.push((next.waiter, next.permit));
                    grown = true;
                }
                Ok(other) => {
                    self.carried = Some(other);
                    break;
                }
                // Where others wait for the processor, some of them are about to record: one sync
                // for all of them costs less. Where nobody does, this takes no time.
                Err(TryRecvError::Empty) if grown => {
                    grown = false;
                    std::thread::yield_now();
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        match self.log.commit(&entries) {
            Ok(first) => {
                // Before anyone learns of an index, readers may go up to it.
                self.checkpoint.send_replace(Arc::clone(self.log.checkpoint()));
                for ((waiter, _), index) in waiters.into_iter().zip(first..) {
                    // Who no longer waits has been recorded all the same.
                    drop(waiter.send(Ok(index)));
                }
                self.after_commit();
            }
            Err(error) => {
                for (waiter, _) in waiters {
                    drop(waiter.send(Err(error.clone())));
                }
            }
        }
    }

    /// Publishing every commit by itself would write each growing tile up to 256 times; nobody
    /// waits for it, so commits of a short while share one publication.
    fn after_commit(&mut self) {
        let now = Instant::now();
        let at = *self.publish_at.get_or_insert(now + PUBLISH_WITHIN);
        if now >= at || self.log.unpublished() >= PUBLISH_ENTRIES {
            drop(self.publish());
        }
        self.log.rotate();
    }

    fn publish(&mut self) -> Result<(), RecordError> {
        // After a failure the next commit tries again, and is refused if that fails too.
        self.publish_at = None;
        self.log.publish().inspect_err(|error| {
            tracing::warn!(%error, "the audit log's tiles and checkpoint are behind its journal");
        })
    }
}

enum Next {
    Message(Message),
    /// It is time to publish.
    Quiet,
    /// Nobody can send any more.
    Abandoned,
}

/// How far behind the journal the published checkpoint may be.
const PUBLISH_WITHIN: Duration = Duration::from_secs(1);

/// Publish anyway once this many entries wait for it.
const PUBLISH_ENTRIES: u64 = 8192;
