//! The tamper-evident record: what happened, in order, so that nobody can change it unnoticed.
//!
//! # The guarantee
//! When [`Recorder::record`] gives back a [`Durable`], the entry is on the disk, at a fixed index
//! of a Merkle tree whose signed checkpoint is on the disk with it. [`Durable`] cannot be made in
//! any other way, so code that takes one cannot run before its record is safe. What cannot be
//! recorded is refused: there is no queue that drops, and no way around.
//!
//! Whoever remembers a checkpoint can later tell, offline and with tools that are not ours,
//! whether any entry before it was changed, dropped or put in another order. Whoever remembers
//! none can tell all of that of everybody who lacks the signing key; its holder can rewrite what
//! lies after the newest checkpoint that somebody else has seen.
//!
//! # On disk
//! ```text
//! lock                     held by the one server that records
//! checkpoint  tile/        C2SP tlog-tiles: what is published
//! journal/<first index>    the write-ahead journal, and the bodies: what is true
//! ```
//! A group commit is one frame in the journal: one write, one sync. Behind the last frame there may
//! be spare room, at most 256 KiB of zeros, so that most syncs change no file's length. Tiles and the checkpoint file
//! follow within a fraction of a second and can always be made again from the journal, so nobody
//! waits for them.
//!
//! # What a crash leaves
//! | it comes | on disk | at the next opening |
//! |---|---|---|
//! | before or in the write of a frame | nothing or a torn frame at the end | dropped; nobody was told |
//! | between write and sync | a whole frame, maybe only in memory | written again, synced, kept |
//! | after the sync | the frame; tiles behind | tiles and checkpoint are made again |
//! | while publishing | some tiles, an older checkpoint | the same |
//! | in the change of segments | all tiles; with or without the new segment | goes on in the last |
//!
//! An error in place of a crash: no room or a read-only disk refuses the batch and takes the
//! partial write back, and later batches may succeed. Anything worse, above all a failed sync,
//! poisons the recorder: it refuses everything until a restart has read and checked the log.
//! Anything that no crash can explain makes opening fail and changes nothing in the journal.

mod commit;
mod disk;
mod folder;
mod frame;
mod key;
mod leaf;
mod log;
mod note;
mod publish;
mod reader;
mod record;
mod recorder;
mod scan;
mod segment;
mod sequencer;
mod tile;
mod tree;
mod verify;

#[cfg(test)]
mod tests;

pub use commit::{Commit, Commits, Lookup, Place};
pub use folder::{Report, verify_folder};
pub use frame::MAX_BODY;
pub use key::{KeyError, LogKey};
pub use leaf::{Commitment, Leaf, LeafError, MAX_LEAF};
pub use log::{OpenError, Opened};
pub use note::{Checkpoint, NoteError, SignedCheckpoint, VerifierKey};
pub use reader::{BodyLocation, Committed, Entries, ReadError, Reader};
#[cfg(test)]
pub(crate) use record::tests::STORED;
pub use record::{Confinement, Outcome, Record, RefusalStage, Shape, Verdict};
pub use recorder::{Durable, Entry, Evidence, RecordError, Recorder};
pub use tile::{Tile, TileKind};
pub use tree::Hash;
pub use verify::{Broken, LogCheck, VerifyError, verify_log};
