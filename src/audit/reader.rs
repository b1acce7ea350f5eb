//! Reading the log: its entries in order, single bodies, and the published files.
//!
//! Any number of readers, in this process or another, can read while the recorder writes. A
//! reader trusts the disk no further than the hashes beside the data; who does not trust the
//! disk's owner verifies ([`super::verify_folder`]).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::commit::{Commits, Lookup};
use super::frame::body_fits;
use super::leaf::{Commitment, Leaf, LeafError};
use super::publish::{CHECKPOINT, missing};
use super::segment::{Fault, Segment, list_segments, segment_path};
use super::tile::Tile;
use crate::types::InvalidText;

/// The log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk did not give what was asked of it.
    #[error("cannot read {file} of the audit log")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What is there is not what was written.
    #[error("{file} {what}, near entry {index}; run `mcpx audit verify`")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
        /// The entry that was wanted.
        index: u64,
    },
    /// A leaf that this version cannot read.
    #[error("entry {index} of the audit log")]
    Leaf {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        #[source]
        source: LeafError,
    },
    /// The body is not the one that its leaf committed to.
    #[error("the body in {file} at byte {offset} is not the one that was recorded")]
    WrongBody {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
    },
    /// Not the path of anything that a log publishes.
    #[error(transparent)]
    Path(#[from] InvalidText),
}

/// One entry of the log, as it was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Where in the log it stands.
    pub index: u64,
    /// The leaf.
    pub leaf: Leaf,
    /// Where its body lies, if it has one.
    pub body_at: Option<BodyLocation>,
}

/// Where in the journal a salt and body lie: what an index keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BodyLocation {
    /// The first index of the journal segment.
    pub segment: u64,
    /// Where in it the salt begins, the body following.
    pub offset: u64,
    /// How long the body is.
    pub length: u32,
}

/// A log on disk, for reading.
#[derive(Clone, Debug)]
pub struct Reader {
    root: PathBuf,
}

impl Reader {
    /// Opens the log in the folder `dir` for reading. Takes no lock.
    ///
    /// # Errors
    /// [`ReadError::Io`] if there is no journal there.
    pub fn open(dir: &Path) -> Result<Self, ReadError> {
        list_segments(dir).map_err(|source| ReadError::Io { file: "journal".into(), source })?;
        Ok(Self { root: dir.to_owned() })
    }

    /// The entries from `from` on, in order. Ends where the journal ends, and goes on from there
    /// when it is asked again after more has been committed.
    pub fn entries(&self, from: u64) -> Entries {
        Entries { commits: self.commits(from), read: Vec::new().into_iter() }
    }

    /// The commits from the entry `from` on, in order, as [`Self::entries`] but unread.
    pub fn commits(&self, from: u64) -> Commits {
        Commits::new(self.root.clone(), from)
    }

    /// What finds entries again whose places are known.
    pub fn lookup(&self) -> Lookup {
        Lookup::new(self.root.clone())
    }

    /// A body, checked against the commitment that its leaf holds.
    ///
    /// # Errors
    /// [`ReadError::Io`] or [`ReadError::WrongBody`].
    pub fn body(&self, at: &BodyLocation, commitment: &Commitment) -> Result<Vec<u8>, ReadError> {
        let file = || segment_path(at.segment).display().to_string();
        let wrong = || ReadError::WrongBody { file: file(), offset: at.offset };
        let salted = Segment::open(&self.root, at.segment)
            .and_then(|(mut segment, _)| segment.read(at.offset, 32 + u64::from(at.length)))
            .map_err(|fault| match fault {
                Fault::Io(source) => ReadError::Io { file: file(), source },
                Fault::Short | Fault::Bad(_) => wrong(),
            })?;
        if !body_fits(&salted, commitment) {
            return Err(wrong());
        }
        Ok(salted.get(32..).unwrap_or_default().to_vec())
    }

    /// A published file by its path under the log's root, for serving: `checkpoint` or a tile.
    /// `None` if there is no such file. No other path reaches the disk.
    ///
    /// # Errors
    /// [`ReadError::Path`] for any other path, [`ReadError::Io`].
    pub fn published(&self, path: &str) -> Result<Option<Vec<u8>>, ReadError> {
        if path != CHECKPOINT {
            path.parse::<Tile>()?;
        }
        match fs::read(self.root.join(path)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if missing(&error) => Ok(None),
            Err(source) => Err(ReadError::Io { file: path.to_owned(), source }),
        }
    }
}

/// The entries of a log in order; from [`Reader::entries`].
#[derive(Debug)]
pub struct Entries {
    commits: Commits,
    /// What has been read and not given out.
    read: std::vec::IntoIter<Committed>,
}

impl Entries {
    /// The next entry if its index is below `end`. A follower passes the size of a checkpoint
    /// from [`Recorder::committed`](super::Recorder::committed), so that it never sees an entry
    /// that is written but not yet durable.
    ///
    /// # Errors
    /// [`ReadError`]; asking again tries again.
    pub fn next_below(&mut self, end: u64) -> Result<Option<Committed>, ReadError> {
        loop {
            match self.read.as_slice().first() {
                Some(entry) if entry.index < end => return Ok(self.read.next()),
                Some(_) => return Ok(None),
                None if self.commits.next >= end => return Ok(None),
                None => {}
            }
            let from = self.commits.next;
            let Some(commit) = self.commits.next_below(u64::MAX)? else { return Ok(None) };
            // After an error it is the next one still.
            self.read = commit.entries().inspect_err(|_| self.commits.rewind(from))?.into_iter();
        }
    }
}

impl Iterator for Entries {
    type Item = Result<Committed, ReadError>;

    /// As [`Entries::next_below`] without an end: up to what is in the file now, which on a log in
    /// use can include a batch that is written but not yet durable.
    fn next(&mut self) -> Option<Self::Item> {
        self.next_below(u64::MAX).transpose()
    }
}

pub(super) fn damaged(segment: u64, fault: Fault, index: u64) -> ReadError {
    let file = segment_path(segment).display().to_string();
    match fault {
        Fault::Io(source) => ReadError::Io { file, source },
        fault => ReadError::Damaged { file, what: fault.to_string(), index },
    }
}
