//! The log on one disk: opening it, and committing a batch of entries. One thread owns it.
//!
//! The journal is the truth; tiles and the checkpoint file follow it ([`super::publish`]).

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Disk, Place, may_pass, private_file, private_folder};
use super::frame::{MAX_BATCH, Prepared, encode_frame, encode_segment_header};
use super::key::LogKey;
use super::note::SignedCheckpoint;
use super::publish::{CHECKPOINT, Publisher, TEMPORARY, has_full_tiles, missing};
use super::recorder::RecordError;
use super::scan::{Scan, Tiles};
use super::segment::{JOURNAL, SPARE, list_segments, segment_path};
use super::tile::{Edge, TILE_WIDTH};
use super::tree::leaf_hash;

/// What opening a log found and did.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The log as it stands.
    pub checkpoint: Arc<SignedCheckpoint>,
    /// How many bytes of a write that a crash cut short were dropped. Nobody was ever told that
    /// they had been recorded.
    pub dropped: u64,
    /// How many tiles were missing or behind and have been made again.
    pub restored: u64,
}

/// A log that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process records into it.
    #[error("the audit log {path} is in use by another mcpx; each server needs its own")]
    Locked {
        /// The log's folder.
        path: String,
    },
    /// The disk did not do what was asked.
    #[error("cannot {what} the audit log {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The log's folder.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The log is not as it was left. Nothing has been changed.
    #[error(
        "the audit log {path} is damaged or was altered: {what}; run `mcpx audit verify` on it, \
         and restore it from a copy or put it aside and begin a new one"
    )]
    Damaged {
        /// The log's folder.
        path: String,
        /// What is wrong, with the file and the entry where they are known.
        what: String,
    },
}

/// The open log.
pub(super) struct Log<D: Disk> {
    root: PathBuf,
    key: LogKey,
    disk: D,
    /// The journal's last segment: where it begins in the tree, and how long it is.
    file: File,
    first: u64,
    length: u64,
    /// How long its file is: behind the frames there may be spare room, all zeros.
    ready: u64,
    /// A segment that is longer than this is followed by another.
    segment_limit: u64,
    edge: Edge,
    checkpoint: Arc<SignedCheckpoint>,
    publisher: Publisher,
    publishing_failed: bool,
    poisoned: Option<Arc<str>>,
    /// Held for as long as the log is open.
    _lock: File,
}

impl<D: Disk> Log<D> {
    /// Opens the log in `root`, creating it if there is none.
    pub(super) fn open(
        root: &Path,
        key: LogKey,
        disk: D,
        segment_limit: u64,
    ) -> Result<(Self, Opened), OpenError> {
        let io = |what| {
            let path = root.display().to_string();
            move |source| OpenError::Io { what, path, source }
        };
        let damaged = |what| OpenError::Damaged { path: root.display().to_string(), what };

        private_folder(&root.join(JOURNAL)).map_err(io("create"))?;
        let lock = lock(root)?;
        for folder in [Some(root), root.parent()].into_iter().flatten() {
            disk.sync_folder(Place::Segment, folder).map_err(io("create"))?;
        }
        for leftover in [Path::new(TEMPORARY), &new_segment_path()] {
            match fs::remove_file(root.join(leftover)) {
                Err(error) if !missing(&error) => return Err(io("tidy")(error)),
                _ => {}
            }
        }
        let published = read_published(root, &key)?;
        let mut segments = list_segments(root).map_err(io("read"))?;
        if segments.is_empty() {
            if published.is_some() || root.join("tile").exists() {
                return Err(damaged(
                    "it has tiles or a checkpoint, but its journal is gone".into(),
                ));
            }
            create_segment(root, &disk, 0, &[]).map_err(|(_, error)| io("create")(error))?;
            segments.push(0);
        }

        let mut publisher = Publisher::new(root);
        let mut scan = Scan::new(root, &key, published.as_ref());
        // Everything before the last segment was made durable before that segment was begun, so
        // only a lost tile is a reason to read more than the last.
        let last = segments.len() - 1;
        let whole = segments.last().is_some_and(|first| has_full_tiles(root, *first));
        let mut restored = 0;
        let mut newest = Tiles::new();
        for (number, first) in segments.iter().enumerate().skip(if whole { last } else { 0 }) {
            let tiles = scan.segment(*first, number == last).map_err(&damaged)?;
            for (tile, bytes) in std::mem::replace(&mut newest, tiles) {
                let wrote = publisher.restore(&disk, tile, &bytes).map_err(io("restore"))?;
                restored += u64::from(wrote);
            }
        }
        scan.check_end().map_err(&damaged)?;
        let Scan { edge, end, tail, last_frame, .. } = scan;
        let first = segments.last().copied().unwrap_or(0);
        let file = repair(&root.join(segment_path(first)), &disk, end, tail, last_frame)
            .map_err(io("repair"))?;
        let ready = file.metadata().map_err(io("read"))?.len();

        for (tile, bytes) in newest.into_iter().chain(edge.partials()) {
            let wrote = publisher.restore(&disk, tile, &bytes).map_err(io("restore"))?;
            restored += u64::from(wrote);
        }
        let range = edge.range();
        let checkpoint = key
            .sign(range.size(), range.root())
            .map_err(|error| io("sign")(io::Error::other(error)))?;
        publisher.publish(&disk, &edge, &checkpoint).map_err(io("publish"))?;
        let checkpoint = Arc::new(checkpoint);
        let opened = Opened { checkpoint: Arc::clone(&checkpoint), dropped: tail, restored };
        let log = Self {
            root: root.to_owned(),
            key,
            disk,
            file,
            first,
            length: end,
            ready,
            segment_limit,
            edge,
            checkpoint,
            publisher,
            publishing_failed: false,
            poisoned: None,
            _lock: lock,
        };
        Ok((log, opened))
    }

    /// How many leaves the tree has.
    pub(super) fn size(&self) -> u64 {
        self.edge.range().size()
    }

    /// The newest checkpoint; every leaf under it is durable.
    pub(super) fn checkpoint(&self) -> &Arc<SignedCheckpoint> {
        &self.checkpoint
    }

    /// How many leaves the published checkpoint does not cover yet.
    pub(super) fn unpublished(&self) -> u64 {
        self.size() - self.publisher.published().unwrap_or(0)
    }

    /// How many entries the next batch may have.
    pub(super) fn room(&self) -> usize {
        // A segment begins on a multiple of 256, so that its header needs no part of a leaf tile.
        match self.length < self.segment_limit {
            true => MAX_BATCH,
            false => usize::from(TILE_WIDTH) - (self.size() % u64::from(TILE_WIDTH)) as usize,
        }
    }

    /// Commits a batch: when this returns, its entries are durable under a signed checkpoint, and
    /// have the indices from the one returned. After an error none of them is in the log, unless
    /// the log is poisoned; then they may turn up in it after a restart, but nobody was told so.
    ///
    /// `batch` has at least one entry and at most [`Log::room`].
    pub(super) fn commit(&mut self, batch: &[Prepared]) -> Result<u64, RecordError> {
        if let Some(why) = &self.poisoned {
            return Err(RecordError::Poisoned { why: Arc::clone(why) });
        }
        // A log that nobody can check is not evidence, and what waits to be published is held in
        // memory: so no new entry before the old ones are out.
        if self.publishing_failed {
            self.publish()?;
        }

        // Assign and hash, on a copy. A crash up to the write leaves nothing.
        let first = self.size();
        let mut range = self.edge.range().clone();
        let hashes: Vec<_> = batch.iter().map(|entry| leaf_hash(&entry.leaf)).collect();
        hashes.iter().for_each(|hash| range.push(*hash));
        let checkpoint = self
            .key
            .sign(range.size(), range.root())
            .map_err(|error| RecordError::Poisoned { why: error.to_string().into() })?;

        // Write and sync. A crash before the sync is done leaves all, part or nothing of the
        // frame: opening keeps it if whole and drops it if not; no caller was told either way.
        self.append(&encode_frame(first, batch, checkpoint.note()))?;

        // Apply. A crash from here on leaves tiles behind the journal: opening makes them again.
        let publisher = &mut self.publisher;
        for (entry, hash) in batch.iter().zip(hashes) {
            self.edge.push(&entry.leaf, hash, &mut |tile, bytes| publisher.add(tile, bytes));
        }
        self.checkpoint = Arc::new(checkpoint);
        Ok(first)
    }

    /// Brings tiles and checkpoint file up to date.
    pub(super) fn publish(&mut self) -> Result<(), RecordError> {
        if let Some(why) = &self.poisoned {
            return Err(RecordError::Poisoned { why: Arc::clone(why) });
        }
        if self.unpublished() == 0 && self.publisher.published().is_some() {
            return Ok(());
        }
        self.publish_anew()
    }

    /// Writes what is published again, whether or not anything is new: who asks for it wants to
    /// know whether the disk takes a write.
    pub(super) fn publish_anew(&mut self) -> Result<(), RecordError> {
        if let Some(why) = &self.poisoned {
            return Err(RecordError::Poisoned { why: Arc::clone(why) });
        }
        let result = self.publisher.publish(&self.disk, &self.edge, &self.checkpoint);
        self.publishing_failed = result.is_err();
        result.map_err(|source| RecordError::Refused { source: Arc::new(source) })
    }

    /// Begins a new segment if the current one is long enough and the tree at a place where one
    /// can begin. Failing to is no harm: the current segment grows until it works.
    pub(super) fn rotate(&mut self) {
        let size = self.size();
        let due = self.length >= self.segment_limit
            && size.is_multiple_of(u64::from(TILE_WIDTH))
            && size > self.first
            && self.poisoned.is_none();
        if !due || self.publish().is_err() {
            return;
        }
        self.tidy();
        // Opening trusts what lies before the last segment, so it becomes durable first.
        if let Err(error) = self.publisher.sync(&self.disk) {
            self.poison(format!("tiles could not be made durable: {error}"));
            return;
        }
        let upper = self.edge.upper();
        match create_segment(&self.root, &self.disk, size, upper) {
            Ok((file, length)) => {
                self.file = file;
                self.first = size;
                self.length = length;
                self.ready = length;
            }
            // Without its name, the new segment does not exist.
            Err((Named::No, error)) => {
                tracing::warn!(%error, "cannot begin a new segment of the audit log's journal");
            }
            // If the new segment exists, frames must not go to the old one any more; whether it
            // does is known after a restart.
            Err((Named::Maybe, error)) => {
                self.poison(format!("a new journal segment may or may not exist: {error}"));
            }
        }
    }

    /// Gives back the spare room, which whoever copies the log need not carry. Where that fails
    /// the zeros stay, and readers know them.
    pub(super) fn tidy(&mut self) {
        if self.ready > self.length
            && self.poisoned.is_none()
            && self.disk.truncate(Place::Segment, &self.file, self.length).is_ok()
        {
            self.ready = self.length;
        }
    }

    fn append(&mut self, frame: &[u8]) -> Result<(), RecordError> {
        if let Err(error) = self.disk.write(Place::Journal, &self.file, self.length, frame) {
            self.ready = self.length;
            if let Err(again) = self.disk.truncate(Place::Journal, &self.file, self.length) {
                let why = format!("a write failed ({error}) and could not be taken back ({again})");
                return Err(self.poison(why));
            }
            if may_pass(&error) {
                return Err(RecordError::Refused { source: Arc::new(error) });
            }
            return Err(self.poison(format!("a write failed: {error}")));
        }
        let end = self.length + frame.len() as u64;
        if end > self.ready {
            // Without it later syncs take longer, and no more; part of it does no harm.
            let spare = self.disk.write(Place::Segment, &self.file, end, &[0; SPARE as usize]);
            self.ready = if spare.is_ok() { end + SPARE } else { end };
        }
        // After a failed sync nobody knows what is on the disk, and a second one may claim success
        // for pages that were dropped. Only reopening, which writes the frame again, finds out.
        if let Err(error) = self.disk.sync(Place::Journal, &self.file) {
            return Err(self.poison(format!("a write could not be made durable: {error}")));
        }
        self.length = end;
        Ok(())
    }

    fn poison(&mut self, why: String) -> RecordError {
        tracing::error!(%why, "the audit log refuses everything from now on");
        let why: Arc<str> = why.into();
        self.poisoned = Some(Arc::clone(&why));
        RecordError::Poisoned { why }
    }
}

/// Whether a file may have got its name.
enum Named {
    No,
    Maybe,
}

/// Creates a segment: it gets its name once its header is on the disk.
fn create_segment(
    root: &Path,
    disk: &impl Disk,
    first: u64,
    upper: &[Vec<super::tree::Hash>],
) -> Result<(File, u64), (Named, io::Error)> {
    let temporary = root.join(new_segment_path());
    let header = encode_segment_header(first, upper);
    let write = || {
        let file = private_file().write(true).create(true).truncate(true).open(&temporary)?;
        disk.write(Place::Segment, &file, 0, &header)?;
        disk.sync(Place::Segment, &file)?;
        Ok(file)
    };
    let file = write().map_err(|error| (Named::No, error))?;
    disk.rename(Place::Segment, &temporary, &root.join(segment_path(first)))
        .and_then(|()| disk.sync_folder(Place::Segment, &root.join(JOURNAL)))
        .map_err(|error| (Named::Maybe, error))?;
    Ok((file, header.len() as u64))
}

fn new_segment_path() -> PathBuf {
    Path::new(JOURNAL).join("new.tmp")
}

/// Opens the last segment, and makes it end at `end` and hold on the disk what was read from it.
fn repair(
    path: &Path,
    disk: &impl Disk,
    end: u64,
    tail: u64,
    last_frame: Option<(u64, Vec<u8>)>,
) -> io::Result<File> {
    let file = private_file().read(true).write(true).open(path)?;
    if tail > 0 {
        disk.truncate(Place::Journal, &file, end)?;
    }
    // The last frame may have been read from memory and never have reached the disk: after a
    // crash between write and sync, or a sync that failed and left its pages marked clean.
    // Writing the same bytes again makes the sync that follows mean what it says.
    if let Some((at, bytes)) = last_frame {
        disk.write(Place::Journal, &file, at, &bytes)?;
    }
    disk.sync(Place::Journal, &file)?;
    Ok(file)
}

fn lock(root: &Path) -> Result<File, OpenError> {
    let path = || root.display().to_string();
    let io = |source| OpenError::Io { what: "lock", path: path(), source };
    let file = private_file()
        .write(true)
        .create(true)
        .truncate(false)
        .open(root.join("lock"))
        .map_err(io)?;
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if waited < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_PAUSE);
                waited += LOCK_PAUSE;
            }
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { path: path() }),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
    }
}

/// A server that has just been killed, or a child of one between its fork and its exec, still
/// holds the lock for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The published checkpoint. A file that is empty or only zeros is what a power cut leaves of one
/// that was never synced, and counts as none.
fn read_published(root: &Path, key: &LogKey) -> Result<Option<SignedCheckpoint>, OpenError> {
    let path = || root.display().to_string();
    match fs::read(root.join(CHECKPOINT)) {
        Ok(bytes) if bytes.iter().all(|byte| *byte == 0) => Ok(None),
        Ok(bytes) => key.vkey().verify(&bytes).map(Some).map_err(|error| OpenError::Damaged {
            path: path(),
            what: format!("{CHECKPOINT}: {error}"),
        }),
        Err(error) if missing(&error) => Ok(None),
        Err(source) => Err(OpenError::Io { what: "read", path: path(), source }),
    }
}
