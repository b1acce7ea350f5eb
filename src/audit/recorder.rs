//! The recorder: what the rest of the program tells facts to, and the only source of
//! [`Durable`].
//!
//! One thread, the sequencer, owns the log. Callers hand it entries and wait; a batch is whatever
//! came while the last one was being synced, so there is no timer on the way to the disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot, watch};

use super::disk::{Disk, RealDisk};
use super::frame::{MAX_BODY, Prepared};
use super::key::LogKey;
use super::leaf::{Commitment, Leaf, LeafError, Salt};
use super::log::{Log, OpenError, Opened};
use super::note::{SignedCheckpoint, VerifierKey};
use super::record::Record;
use super::sequencer::{Append, Message, Sequencer};
use crate::types::{Clock, RandomError, random};

/// What is to be recorded.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The fact, which stays for ever.
    pub record: Record,
    /// What goes with it, masked already. Kept beside the tree, so that it can be erased.
    pub body: Option<Bytes>,
}

impl From<Record> for Entry {
    fn from(record: Record) -> Self {
        Self { record, body: None }
    }
}

/// Something that can say what is to be recorded of it.
pub trait Evidence {
    /// The entry that stands for this value in the log.
    fn entry(&self) -> Entry;
}

/// Proof that the record of a value is on the disk under a signed checkpoint.
///
/// Only [`Recorder::record`] makes one, so a function that takes a `Durable<Answer>` cannot be
/// given an answer that was not recorded:
///
/// ```
/// use mcpx::audit::{Durable, Entry, Evidence, Record, Recorder};
///
/// struct Answer(String);
/// impl Evidence for Answer {
///     fn entry(&self) -> Entry {
///         Entry { record: Record::Stopped, body: Some(self.0.clone().into()) }
///     }
/// }
/// fn respond(answer: Durable<Answer>) -> String {
///     answer.into_inner().0
/// }
/// async fn handle(recorder: &Recorder, answer: Answer) -> Option<String> {
///     Some(respond(recorder.record(answer).await.ok()?))
/// }
/// # let folder = tempfile::tempdir().unwrap();
/// # let key = mcpx::audit::LogKey::generate("example").unwrap();
/// # let clock = std::sync::Arc::new(mcpx::types::SystemClock);
/// # let (recorder, _) = Recorder::open(folder.path(), key, clock).unwrap();
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # let answer = runtime.block_on(handle(&recorder, Answer("hello".into())));
/// # assert_eq!(answer.as_deref(), Some("hello"));
/// ```
///
/// It cannot be made anywhere else, not even from a value that can say what to record:
///
/// ```compile_fail,E0451
/// use mcpx::audit::Durable;
/// let forged = Durable { value: "answer", index: 7 };
/// ```
///
/// ```compile_fail,E0624
/// use mcpx::audit::Durable;
/// let forged = Durable::new("answer", 7);
/// ```
///
/// ```compile_fail,E0277
/// use mcpx::audit::Durable;
/// let forged: Durable<&str> = "answer".into();
/// ```
///
/// Nor does it let its value be exchanged for another:
///
/// ```compile_fail,E0616
/// fn swap(mut answer: mcpx::audit::Durable<String>) {
///     answer.value = "another".to_owned();
/// }
/// ```
#[derive(Debug)]
#[must_use = "what was recorded has not been used yet"]
pub struct Durable<T> {
    value: T,
    index: u64,
}

impl<T> Durable<T> {
    fn new(value: T, index: u64) -> Self {
        Self { value, index }
    }

    /// The recorded value.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// The recorded value, to be used up.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// Where in the log its record stands.
    pub fn index(&self) -> u64 {
        self.index
    }
}

/// Something was not recorded, so it must not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecordError {
    /// The record does not fit a leaf.
    #[error("the record cannot be written")]
    Leaf(#[source] Arc<LeafError>),
    /// The body is longer than the log takes.
    #[error("the body to record has {found} bytes; at most {MAX_BODY} are taken")]
    BodyTooLong {
        /// Its length.
        found: usize,
    },
    /// No salt for the body.
    #[error("the operating system's random source failed")]
    Random,
    /// The disk refused the write, and nothing of it is left. A later attempt may succeed, once
    /// there is room again.
    #[error("the audit log's disk refused a write; free space or make it writable")]
    Refused {
        /// What the system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The disk failed in a way after which nothing can be promised. Only a restart, which reads
    /// and checks the log again, can clear this.
    #[error("the audit log refuses everything until a restart: {why}")]
    Poisoned {
        /// What failed first.
        why: Arc<str>,
    },
    /// The recorder has been shut down.
    #[error("the audit log has been closed")]
    Closed,
}

impl From<RandomError> for RecordError {
    fn from(_: RandomError) -> Self {
        Self::Random
    }
}

/// Records facts. Cheap to clone; all clones share one log.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

struct Shared {
    queue: mpsc::Sender<Message>,
    /// How much may wait for the disk, in KiB: callers beyond it wait before they enqueue.
    budget: Arc<Semaphore>,
    checkpoint: watch::Receiver<Arc<SignedCheckpoint>>,
    clock: Arc<dyn Clock>,
    vkey: VerifierKey,
}

impl Recorder {
    /// Opens the log in the folder `dir`, or creates it there, and starts its thread. Call it
    /// before serving: it reads up to a segment of the journal, and blocks meanwhile.
    ///
    /// # Errors
    /// [`OpenError`]: in use by another process, not writable, or not as it was left.
    pub fn open(
        dir: &Path,
        key: LogKey,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Opened), OpenError> {
        Self::open_on(dir, key, clock, RealDisk, SEGMENT_LIMIT)
    }

    pub(super) fn open_on<D: Disk>(
        dir: &Path,
        key: LogKey,
        clock: Arc<dyn Clock>,
        disk: D,
        segment_limit: u64,
    ) -> Result<(Self, Opened), OpenError> {
        let vkey = key.vkey().clone();
        let (log, opened) = Log::open(dir, key, disk, segment_limit)?;
        let (queue, messages) = mpsc::channel();
        let (sender, checkpoint) = watch::channel(Arc::clone(log.checkpoint()));
        std::thread::Builder::new()
            .name("audit-sequencer".to_owned())
            .spawn(move || Sequencer::new(log, messages, sender).run())
            .map_err(|source| {
                let path = dir.display().to_string();
                OpenError::Io { what: "start the thread of", path, source }
            })?;
        let budget = Arc::new(Semaphore::new(BUDGET));
        let shared = Arc::new(Shared { queue, budget, checkpoint, clock, vkey });
        Ok((Self { shared }, opened))
    }

    /// Records what stands for `value`, and gives the value back once that is durable. After an
    /// error the value is gone: what was not recorded cannot be used.
    ///
    /// A caller that stops waiting does not undo the record.
    ///
    /// # Errors
    /// [`RecordError`]; the caller must refuse what it was about to do.
    pub async fn record<T: Evidence>(&self, value: T) -> Result<Durable<T>, RecordError> {
        let index = self.append(value.entry()).await?;
        Ok(Durable::new(value, index))
    }

    /// Records a fact that no value stands for. When it returns, the entry is durable under a
    /// signed checkpoint, at the index given back.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn append(&self, entry: Entry) -> Result<u64, RecordError> {
        let length = entry.body.as_ref().map_or(0, Bytes::len);
        if length > MAX_BODY {
            return Err(RecordError::BodyTooLong { found: length });
        }
        // MAX_BODY bounds the number well within u32 and the budget.
        let weight = u32::try_from(length / 1024 + 1).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.shared.budget)
            .acquire_many_owned(weight)
            .await
            .map_err(|_| RecordError::Closed)?;
        // Encoding and hashing happen here, on the callers' threads, not on the one that all wait
        // for. The time is read last, so that order in the log is nearly order in time.
        let body = match entry.body {
            None => None,
            Some(body) => {
                let salt: Salt = random()?;
                let commitment = Commitment::new(&salt, &body);
                Some((commitment, (salt, body)))
            }
        };
        let (commitment, body) = body.unzip();
        let leaf = Leaf::new(self.shared.clock.now(), entry.record, commitment)
            .encode()
            .map_err(|error| RecordError::Leaf(Arc::new(error)))?;
        let (waiter, answer) = oneshot::channel();
        let message = Append { entry: Prepared { leaf, body }, waiter, permit };
        self.send(Message::Append(message))?;
        answer.await.map_err(|_| RecordError::Closed)?
    }

    /// The newest checkpoint: every entry under it is durable. It may be a moment ahead of the
    /// published one.
    pub fn checkpoint(&self) -> Arc<SignedCheckpoint> {
        Arc::clone(&self.shared.checkpoint.borrow())
    }

    /// Tells of every new checkpoint. Whoever keeps an index waits on this and then reads up to
    /// its size with [`Reader::entries`](super::Reader::entries); nothing is queued for followers,
    /// so a slow one costs no memory and misses nothing.
    pub fn committed(&self) -> watch::Receiver<Arc<SignedCheckpoint>> {
        self.shared.checkpoint.clone()
    }

    /// The key by which others check this log.
    pub fn vkey(&self) -> &VerifierKey {
        &self.shared.vkey
    }

    /// Publishes tiles and checkpoint now, and gives back the published checkpoint. It happens by
    /// itself within a fraction of a second of a commit.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn publish(&self) -> Result<Arc<SignedCheckpoint>, RecordError> {
        let (waiter, answer) = oneshot::channel();
        self.send(Message::Publish(waiter))?;
        answer.await.map_err(|_| RecordError::Closed)?
    }

    /// Commits what is queued, publishes, and closes the log. Later calls on any clone get
    /// [`RecordError::Closed`]. When it returns, another process can open the log.
    ///
    /// # Errors
    /// [`RecordError`] if the last publication failed; the log is closed all the same.
    pub async fn shutdown(&self) -> Result<(), RecordError> {
        let (waiter, answer) = oneshot::channel();
        self.send(Message::Shutdown(waiter))?;
        answer.await.map_err(|_| RecordError::Closed)?
    }

    fn send(&self, message: Message) -> Result<(), RecordError> {
        self.shared.queue.send(message).map_err(|_| RecordError::Closed)
    }
}

/// A journal segment is followed by another at the first chance after this many bytes.
const SEGMENT_LIMIT: u64 = 64 * 1024 * 1024;

/// 64 MiB may wait for the disk.
const BUDGET: usize = 64 * 1024;
