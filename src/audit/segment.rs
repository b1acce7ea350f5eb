//! Reading the journal's segments, frame by frame: for opening, following and verifying.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::frame::{
    FRAME_HEADER, FrameHead, FrameHeader, MAX_FRAME, SALT, Span, decode_segment_header,
    segment_header_length,
};
use super::tree::Hash;

/// The folder of the journal under the log's root.
pub(super) const JOURNAL: &str = "journal";

/// The most room that is made ready behind the last frame: zeros, which later frames overwrite.
/// A sync of bytes within the file's length need not wait for the file system to note a new one.
pub(super) const SPARE: u64 = 256 * 1024;

/// Why the next frame cannot be had.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    /// The file ends inside it.
    Short,
    /// It is not as it was written.
    Bad(&'static str),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Short,
            _ => Self::Io(error),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot be read: {error}"),
            Self::Short => f.write_str("ends in the middle"),
            Self::Bad(what) => f.write_str(what),
        }
    }
}

/// The path of the segment that begins at `first`, under the log's root.
pub(super) fn segment_path(first: u64) -> PathBuf {
    Path::new(JOURNAL).join(format!("{first:020}"))
}

/// The first index of every segment, in order.
pub(super) fn list_segments(root: &Path) -> io::Result<Vec<u64>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(root.join(JOURNAL))? {
        let name = entry?.file_name();
        // Anything else, such as a segment that never got its name, is none.
        if let Some(first) = name.to_str().filter(|n| n.len() == 20).and_then(|n| n.parse().ok()) {
            segments.push(first);
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// One frame's header and head, whose hash was right.
#[derive(Debug)]
pub(super) struct Frame {
    /// Where in its segment the frame begins.
    pub(super) at: u64,
    pub(super) header: FrameHeader,
    head: Vec<u8>,
}

impl Frame {
    pub(super) fn head(&self) -> Result<FrameHead<'_>, Fault> {
        FrameHead::decode(&self.header, &self.head).ok_or(Fault::Bad("has a malformed frame"))
    }

    /// Where in the segment a salt and body begin.
    pub(super) fn body_offset(&self, span: Span) -> u64 {
        self.at + FRAME_HEADER as u64 + u64::from(self.header.head) + span.offset
    }
}

/// An open segment and a position in it. The file may grow meanwhile.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    pub(super) first: u64,
    /// Where the next frame begins.
    pub(super) at: u64,
}

impl Segment {
    /// Opens a segment and reads its header: the edge's hashes from level 1 on.
    pub(super) fn open(root: &Path, first: u64) -> Result<(Self, Vec<Vec<Hash>>), Fault> {
        const ODD: Fault = Fault::Bad("has a malformed header");
        let mut file = File::open(root.join(segment_path(first)))?;
        let mut header = vec![0; segment_header_length(first).ok_or(ODD)?];
        file.read_exact(&mut header)?;
        let upper = decode_segment_header(first, &header).ok_or(ODD)?;
        Ok((Self { file, first, at: header.len() as u64 }, upper))
    }

    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The next frame's header, without going past it; `None` at the end of the frames, which is
    /// the file's end or the zeros of its spare room.
    pub(super) fn peek(&mut self) -> Result<Option<FrameHeader>, Fault> {
        let length = self.length()?;
        let rest = length.saturating_sub(self.at);
        if rest == 0 {
            return Ok(None);
        }
        let mut header = [0; FRAME_HEADER];
        let there = header.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        let begun = header.get_mut(..there).ok_or(Fault::Short)?;
        self.file.seek(SeekFrom::Start(self.at))?;
        self.file.read_exact(begun)?;
        if header == [0; FRAME_HEADER] && rest <= SPARE {
            let zeros = self.read(self.at, rest)?.iter().all(|byte| *byte == 0);
            return if zeros { Ok(None) } else { Err(Fault::Bad("has bytes behind a gap")) };
        }
        if there < FRAME_HEADER {
            return Err(Fault::Short);
        }
        let header =
            FrameHeader::decode(&header).ok_or(Fault::Bad("has a malformed frame header"))?;
        if length.saturating_sub(self.at) < header.total() {
            return Err(Fault::Short);
        }
        Ok(Some(header))
    }

    /// Goes past a frame whose header was peeked at.
    pub(super) fn skip(&mut self, header: &FrameHeader) {
        self.at += header.total();
    }

    /// The next frame, with its hash checked but not its bodies; `None` at the end of the file.
    /// After an error the position is still before the frame.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Fault> {
        let Some(frame) = self.next_unchecked()? else { return Ok(None) };
        if !frame.header.covers(&frame.head) {
            return Err(Fault::Bad("has a frame that does not fit its hash"));
        }
        frame.head()?;
        self.at += frame.header.total();
        Ok(Some(frame))
    }

    /// The next frame as it lies there, for finding out what is wrong with it.
    pub(super) fn next_unchecked(&mut self) -> Result<Option<Frame>, Fault> {
        let Some(header) = self.peek()? else { return Ok(None) };
        // `peek` left the file just behind the header, and has bounded the length.
        let mut head = vec![0; header.head as usize];
        self.file.read_exact(&mut head)?;
        Ok(Some(Frame { at: self.at, header, head }))
    }

    /// A salt and body of a frame, as they lie there.
    pub(super) fn salt_and_body(&mut self, frame: &Frame, span: Span) -> Result<Vec<u8>, Fault> {
        self.read(frame.body_offset(span), SALT + u64::from(span.length))
    }

    /// Bytes from anywhere in the segment.
    pub(super) fn read(&mut self, at: u64, length: u64) -> Result<Vec<u8>, Fault> {
        if length > MAX_FRAME + SPARE {
            return Err(Fault::Bad("has nothing that long"));
        }
        let mut bytes = vec![0; length as usize];
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether what follows the position can be the remains of the one write that was under way
    /// in a crash. Only the last frame can be such: so nothing whole may come after it.
    pub(super) fn tail_is_torn(&mut self, next_index: u64) -> Result<bool, Fault> {
        let length = self.length()?.saturating_sub(self.at);
        if length > MAX_FRAME + SPARE {
            return Ok(false);
        }
        let mut tail = self.read(self.at, length)?;
        // Spare room may follow it.
        let end = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        tail.truncate(end);
        let length = end as u64;
        let header = |bytes: &[u8]| bytes.first_chunk().and_then(FrameHeader::decode);
        // A header is taken at its word only where its hash bears it out: of a write over zeros,
        // a later page can be on the disk and an earlier one not.
        let whole = |bytes: &[u8], header: &FrameHeader| {
            let head = bytes.get(FRAME_HEADER..FRAME_HEADER + header.head as usize);
            head.is_some_and(|head| header.covers(head))
        };
        if header(&tail).is_some_and(|header| header.total() < length && whole(&tail, &header)) {
            return Ok(false);
        }
        let later_frame = (1..tail.len()).filter_map(|at| tail.get(at..)).any(|bytes| {
            header(bytes).is_some_and(|header| header.first > next_index && whole(bytes, &header))
        });
        Ok(!later_frame)
    }
}
