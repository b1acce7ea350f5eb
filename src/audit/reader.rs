//! Reading the log: its entries in order, single bodies, and the published files.
//!
//! Any number of readers, in this process or another, can read while the recorder writes. A
//! reader trusts the disk no further than the hashes beside the data; who does not trust the
//! disk's owner verifies ([`super::verify_folder`]).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::frame::body_fits;
use super::leaf::{Commitment, Leaf, LeafError};
use super::publish::{CHECKPOINT, missing};
use super::segment::{Fault, Frame, Segment, list_segments, segment_path};
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
        Entries {
            root: self.root.clone(),
            next: from,
            segment: None,
            frame: Vec::new().into_iter(),
        }
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
    root: PathBuf,
    /// The index of the entry after those in `frame`.
    next: u64,
    segment: Option<Segment>,
    /// What has been read and not given out.
    frame: std::vec::IntoIter<Committed>,
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
            match self.frame.as_slice().first() {
                Some(entry) if entry.index < end => return Ok(self.frame.next()),
                Some(_) => return Ok(None),
                None if self.next >= end => return Ok(None),
                None => {}
            }
            if !self.read_frame()? {
                return Ok(None);
            }
        }
    }

    /// Reads the frame that holds the next entry; whether there is one.
    fn read_frame(&mut self) -> Result<bool, ReadError> {
        loop {
            let mut segment = match self.segment.take() {
                Some(segment) => segment,
                None => match self.find_segment()? {
                    Some(segment) => segment,
                    None => return Ok(false),
                },
            };
            let wanted = self.next;
            let damaged = |first, fault| damaged(first, fault, wanted);
            let first = segment.first;
            // Whole frames before the wanted entry are passed over by their headers alone.
            let header = match segment.peek() {
                Ok(header) => header,
                // The frame that is being written now, or was when the machine stopped.
                Err(Fault::Short) => {
                    self.segment = Some(segment);
                    return Ok(false);
                }
                Err(fault) => return Err(damaged(first, fault)),
            };
            match header {
                None => {
                    // The end of the journal, or of this segment.
                    let more = self.find_segment()?.filter(|found| found.first > first);
                    let ended = more.is_none();
                    self.segment = Some(more.unwrap_or(segment));
                    if ended {
                        return Ok(false);
                    }
                }
                Some(header) if header.first + u64::from(header.count) <= wanted => {
                    segment.skip(&header);
                    self.segment = Some(segment);
                }
                Some(_) => {
                    let frame = segment.next().map_err(|fault| damaged(first, fault))?;
                    if let Some(frame) = frame {
                        self.frame = read_entries(first, &frame, wanted)?.into_iter();
                        self.next = frame.header.first + u64::from(frame.header.count);
                    }
                    self.segment = Some(segment);
                    return Ok(true);
                }
            }
        }
    }

    /// The segment in which the next entry stands, or will.
    fn find_segment(&self) -> Result<Option<Segment>, ReadError> {
        let segments = list_segments(&self.root)
            .map_err(|source| ReadError::Io { file: "journal".into(), source })?;
        let Some(first) = segments.into_iter().rev().find(|first| *first <= self.next) else {
            return Ok(None);
        };
        match Segment::open(&self.root, first) {
            Ok((segment, _)) => Ok(Some(segment)),
            Err(fault) => Err(damaged(first, fault, self.next)),
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

fn read_entries(segment: u64, frame: &Frame, from: u64) -> Result<Vec<Committed>, ReadError> {
    let head = frame.head().map_err(|fault| damaged(segment, fault, from))?;
    let mut entries = Vec::with_capacity(head.entries.len());
    for (entry, index) in head.entries.iter().zip(frame.header.first..) {
        if index < from {
            continue;
        }
        let leaf = Leaf::decode(entry.leaf).map_err(|source| ReadError::Leaf { index, source })?;
        let body_at = entry.body.map(|span| BodyLocation {
            segment,
            offset: frame.body_offset(span),
            length: span.length,
        });
        entries.push(Committed { index, leaf, body_at });
    }
    Ok(entries)
}

fn damaged(segment: u64, fault: Fault, index: u64) -> ReadError {
    let file = segment_path(segment).display().to_string();
    match fault {
        Fault::Io(source) => ReadError::Io { file, source },
        fault => ReadError::Damaged { file, what: fault.to_string(), index },
    }
}
