//! How many syncs the audit log made: its journal has one frame for each group commit, and each
//! frame is written and synced once. Reads frame headers only, as `src/audit/frame.rs` lays them
//! out.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// A place in a journal up to which frames have been counted.
pub struct Journal {
    folder: PathBuf,
    segment: u64,
    at: u64,
}

/// What was committed.
#[derive(Clone, Copy, Default, Debug)]
pub struct Commits {
    pub frames: u64,
    pub entries: u64,
}

impl Journal {
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), segment: 0, at: header_length(0) }
    }

    /// What has been committed since this was asked last.
    pub fn news(&mut self) -> Commits {
        let mut news = Commits::default();
        loop {
            self.count(&mut news);
            let segments = fs::read_dir(&self.folder).expect("the journal");
            let names = segments.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let next = names
                .filter_map(|name| name.parse::<u64>().ok())
                .filter(|n| *n > self.segment)
                .min();
            let Some(next) = next else { return news };
            (self.segment, self.at) = (next, header_length(next));
        }
    }

    fn count(&mut self, news: &mut Commits) {
        let path = self.folder.join(format!("{:020}", self.segment));
        let mut file = File::open(path).expect("a segment");
        let end = file.metadata().expect("its length").len();
        let mut header = [0; HEADER];
        while self.at + HEADER as u64 <= end {
            file.seek(SeekFrom::Start(self.at)).expect("a frame");
            file.read_exact(&mut header).expect("its header");
            let number = |range: std::ops::Range<usize>| {
                header[range].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
            };
            let length = HEADER as u64 + number(0..4) + number(4..12);
            // The last frame may be on its way; behind it is spare room, all zeros.
            if self.at + length > end || header == [0; HEADER] {
                return;
            }
            news.frames += 1;
            news.entries += number(20..22);
            self.at += length;
        }
    }
}

const HEADER: usize = 54;

/// A segment begins with a mark, its first index, the hashes of the tree's edge, and a hash.
fn header_length(first: u64) -> u64 {
    let hashes: u64 = (1..8).map(|level| first >> (8 * level) & 255).sum();
    8 + 8 + 32 * hashes + 32
}
