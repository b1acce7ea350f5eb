//! Reading the journal commit by commit, bodies left where they are: what an index is made from,
//! and how an entry that an index knows is found again.

use std::path::PathBuf;

use super::leaf::Leaf;
use super::reader::{BodyLocation, Committed, ReadError, damaged};
use super::segment::{Fault, Frame, Segment, list_segments};

/// Where in the journal a commit lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The first index of the journal segment.
    pub segment: u64,
    /// Where in it the commit begins.
    pub offset: u64,
}

/// The entries that one write made durable, as they lie in the journal.
#[derive(Debug)]
pub struct Commit {
    segment: u64,
    frame: Frame,
    /// Entries before it are left out.
    from: u64,
}

impl Commit {
    /// Where it lies.
    pub fn place(&self) -> Place {
        Place { segment: self.segment, offset: self.frame.at }
    }

    /// The index after its last entry.
    pub fn end(&self) -> u64 {
        self.frame.header.first + u64::from(self.frame.header.count)
    }

    /// The index and the leaf's bytes of each entry.
    ///
    /// # Errors
    /// [`ReadError::Damaged`].
    pub fn leaves(&self) -> Result<impl Iterator<Item = (u64, &[u8])>, ReadError> {
        let head = self.frame.head().map_err(|fault| damaged(self.segment, fault, self.from))?;
        let leaves = head.entries.into_iter().map(|entry| entry.leaf);
        Ok((self.frame.header.first..).zip(leaves).skip_while(|(index, _)| *index < self.from))
    }

    /// The entries, read.
    pub(super) fn entries(&self) -> Result<Vec<Committed>, ReadError> {
        let head = self.frame.head().map_err(|fault| damaged(self.segment, fault, self.from))?;
        let mut entries = Vec::with_capacity(head.entries.len());
        for (entry, index) in head.entries.iter().zip(self.frame.header.first..) {
            if index < self.from {
                continue;
            }
            let leaf =
                Leaf::decode(entry.leaf).map_err(|source| ReadError::Leaf { index, source })?;
            let body_at = entry.body.map(|span| BodyLocation {
                segment: self.segment,
                offset: self.frame.body_offset(span),
                length: span.length,
            });
            entries.push(Committed { index, leaf, body_at });
        }
        Ok(entries)
    }
}

/// The commits of a log in order; from [`Reader::commits`](super::Reader::commits).
#[derive(Debug)]
pub struct Commits {
    root: PathBuf,
    /// The index of the next entry.
    pub(super) next: u64,
    segment: Option<Segment>,
}

impl Commits {
    pub(super) fn new(root: PathBuf, from: u64) -> Self {
        Self { root, next: from, segment: None }
    }

    /// The next commit if all of it lies below `end`. A follower passes the size of a checkpoint
    /// from [`Recorder::committed`](super::Recorder::committed), so that it never sees an entry
    /// that is written but not yet durable.
    ///
    /// # Errors
    /// [`ReadError`]; asking again tries again.
    pub fn next_below(&mut self, end: u64) -> Result<Option<Commit>, ReadError> {
        while self.next < end {
            let mut segment = match self.segment.take() {
                Some(segment) => segment,
                None => match self.find_segment()? {
                    Some(segment) => segment,
                    None => return Ok(None),
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
                    return Ok(None);
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
                        return Ok(None);
                    }
                }
                Some(header) if header.first + u64::from(header.count) <= wanted => {
                    segment.skip(&header);
                    self.segment = Some(segment);
                }
                Some(header) if header.first + u64::from(header.count) > end => {
                    self.segment = Some(segment);
                    return Ok(None);
                }
                Some(_) => {
                    let frame = segment.next().map_err(|fault| damaged(first, fault))?;
                    self.segment = Some(segment);
                    if let Some(frame) = frame {
                        let commit = Commit { segment: first, frame, from: wanted };
                        self.next = commit.end();
                        return Ok(Some(commit));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Goes back to an entry.
    pub(super) fn rewind(&mut self, to: u64) {
        (self.next, self.segment) = (to, None);
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

/// Finds entries again whose places are known; from [`Reader::lookup`](super::Reader::lookup).
/// Entries asked for in their order are read with the fewest accesses.
#[derive(Debug)]
pub struct Lookup {
    root: PathBuf,
    segment: Option<Segment>,
    /// The entries of the commit that was read last.
    read: Option<(Place, Vec<Committed>)>,
}

impl Lookup {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, segment: None, read: None }
    }

    /// The entry of this index, out of the commit at this place, whose hash is checked.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::Damaged`] too if it is not there.
    pub fn entry(&mut self, index: u64, at: Place) -> Result<Committed, ReadError> {
        let entries = match self.read.take() {
            Some((place, entries)) if place == at => entries,
            _ => self.read(index, at)?,
        };
        let found = entries.iter().find(|entry| entry.index == index).cloned();
        self.read = Some((at, entries));
        let fault = Fault::Bad("has another entry where the index says");
        found.ok_or_else(|| damaged(at.segment, fault, index))
    }

    fn read(&mut self, index: u64, at: Place) -> Result<Vec<Committed>, ReadError> {
        let damaged = |fault| damaged(at.segment, fault, index);
        let mut segment = match self.segment.take() {
            Some(segment) if segment.first == at.segment => segment,
            _ => Segment::open(&self.root, at.segment).map_err(damaged)?.0,
        };
        segment.at = at.offset;
        let frame = segment.next().map_err(damaged)?;
        self.segment = Some(segment);
        let frame = frame.ok_or_else(|| damaged(Fault::Short))?;
        Commit { segment: at.segment, frame, from: 0 }.entries()
    }
}
