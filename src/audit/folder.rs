//! Verifying a log's folder: what it publishes, its journal, and that the two agree.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::frame::{FrameEntry, body_fits};
use super::leaf::Envelope;
use super::note::{Checkpoint, SignedCheckpoint, VerifierKey};
use super::publish::missing;
use super::segment::{Fault, Frame, Segment, list_segments, segment_path};
use super::tile::{Edge, Tile, TileKind, entries};
use super::tree::leaf_hash;
use super::verify::{Broken, VerifyError, compare_tile, verify_log};

/// What was verified.
#[derive(Clone, Debug)]
pub struct Report {
    /// The published checkpoint; what to remember for the next time.
    pub checkpoint: SignedCheckpoint,
    /// How many entries the journal holds under signed checkpoints: as many as the published one
    /// covers, or more if the server stopped or is just about to publish.
    pub entries: u64,
    /// How many bodies were read and fit their leaves.
    pub bodies: u64,
    /// Bytes at the end of the journal of a write that was not finished: a crash, or a server
    /// that is writing now. They hold nothing that was ever acknowledged.
    pub unfinished: u64,
}

/// Verifies everything in a log's folder: checkpoint, tiles and journal against each other, each
/// batch's signature, and each body against its leaf. The log may be in use meanwhile.
///
/// What a folder alone cannot show: that its key's holder did not rewrite it (pass `remembered`),
/// and that entries which were never published were not cut from the journal's end.
///
/// # Errors
/// [`VerifyError::Broken`], naming the file, and the first bad entry where one can be named;
/// [`VerifyError::Fetch`] if a file cannot be read.
pub fn verify_folder(
    dir: &Path,
    key: &VerifierKey,
    remembered: Option<&Checkpoint>,
) -> Result<Report, VerifyError<io::Error>> {
    let fetch = |path: &str| match fs::read(dir.join(path)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if missing(&error) => Ok(None),
        Err(error) => Err(error),
    };
    // The order makes this right while the log grows: what is found published first must then be
    // in the journal, and so must the tiles that are listed second.
    let published = match verify_log(key, remembered, fetch) {
        Ok(checkpoint) => Ok(checkpoint),
        Err(VerifyError::Broken(broken)) => Err(broken),
        Err(error) => return Err(error),
    };
    let journal = list_tiles(dir).and_then(|tiles| {
        let covered = published.as_ref().ok().map(SignedCheckpoint::checkpoint);
        JournalCheck { dir, key, covered, tiles, edge: Edge::default(), bodies: 0, unfinished: 0 }
            .run()
    });
    match (published, journal) {
        (Ok(checkpoint), Ok((entries, bodies, unfinished))) => {
            Ok(Report { checkpoint, entries, bodies, unfinished })
        }
        // Both halves are read whatever the other says, so that the first bad entry is named.
        (Err(one), Err(VerifyError::Broken(other))) => Err(one.earlier(other).into()),
        (Err(broken), _) => Err(broken.into()),
        (Ok(_), Err(error)) => Err(error),
    }
}

type Check<T> = Result<T, VerifyError<io::Error>>;

/// Of each place of a tile, the widths of the files that are there.
type Tiles = BTreeMap<(TileKind, u64), Vec<u16>>;

/// Reads the whole journal, and compares every tile file with it.
struct JournalCheck<'a> {
    dir: &'a Path,
    key: &'a VerifierKey,
    /// The published checkpoint, if it is right by itself.
    covered: Option<&'a Checkpoint>,
    tiles: Tiles,
    edge: Edge,
    bodies: u64,
    unfinished: u64,
}

impl JournalCheck<'_> {
    /// How many entries, bodies and unfinished bytes there are.
    fn run(mut self) -> Check<(u64, u64, u64)> {
        let segments =
            list_segments(self.dir).map_err(|error| fault_in("journal", error.into(), 0))?;
        for (number, first) in segments.iter().enumerate() {
            self.segment(*first, number + 1 == segments.len())?;
        }
        let size = self.size();
        if let Some(covered) = self.covered
            && covered.size > size
        {
            let what =
                format!("journal: ends at entry {size}, but {} were published", covered.size);
            return Err(Broken::new(size, what).into());
        }
        let partials: Vec<_> = self.edge.partials().collect();
        for (tile, bytes) in partials {
            self.compare(tile, &bytes)?;
        }
        if let Some(((kind, number), width)) = self.tiles.iter().next() {
            let tile = Tile::new(*kind, *number, width.first().copied().unwrap_or(1));
            let name = tile.map(|tile| tile.path()).unwrap_or_default();
            let what = format!("{name}: is for entries that the journal does not have");
            return Err(Broken::new(None, what).into());
        }
        Ok((size, self.bodies, self.unfinished))
    }

    fn segment(&mut self, first: u64, last: bool) -> Check<()> {
        let name = segment_path(first).display().to_string();
        let size = self.size();
        let (mut segment, upper) =
            Segment::open(self.dir, first).map_err(|fault| fault_in(&name, fault, size))?;
        if first != size || self.edge.upper() != upper {
            let what = format!("{name}: does not follow the {size} entries before it");
            return Err(Broken::new(size, what).into());
        }
        self.meet(&name)?;
        loop {
            let size = self.size();
            match segment.next() {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => {
                    let bodies = self.bodies;
                    let Err(error) = self.frame(&name, &mut segment, &frame) else { continue };
                    let rest = self.cut_short(&mut segment, frame.at, size);
                    // Its place is right and its bodies are not.
                    let torn = last && self.size() == size && frame.header.first == size;
                    let Some(rest) = rest.filter(|_| torn) else {
                        return Err(error);
                    };
                    (self.bodies, self.unfinished) = (bodies, rest);
                    return Ok(());
                }
                Err(fault @ Fault::Io(_)) => return Err(fault_in(&name, fault, size)),
                Err(fault) => {
                    let rest = segment
                        .length()
                        .map_err(|error| fault_in(&name, error.into(), size))?
                        .saturating_sub(segment.at);
                    // A write that is under way or was cut short; zeros are what a power cut
                    // leaves of one. If it had ever been published, the journal is now too short.
                    let cut = matches!(fault, Fault::Short)
                        || segment.read(segment.at, rest).is_ok_and(|b| b.iter().all(|b| *b == 0));
                    let at = segment.at;
                    let rest = Some(rest).filter(|_| cut);
                    if let Some(rest) = rest.or_else(|| self.cut_short(&mut segment, at, size))
                        && last
                    {
                        self.unfinished = rest;
                        return Ok(());
                    }
                    let index = self.locate(&mut segment).unwrap_or(size);
                    let what = format!("{name}: {fault}, at byte {}", segment.at);
                    return Err(Broken::new(index, what).into());
                }
            }
        }
    }

    /// How many bytes from `at` on can be a write that is under way, or was cut short, in the
    /// journal's spare room: nothing whole comes after them, and nothing of them was published.
    fn cut_short(&self, segment: &mut Segment, at: u64, size: u64) -> Option<u64> {
        segment.at = at;
        let published = self.covered?.size > size;
        let torn = !published && segment.tail_is_torn(size).unwrap_or(false);
        torn.then(|| segment.length().ok()?.checked_sub(at)).flatten()
    }

    fn frame(&mut self, name: &str, segment: &mut Segment, frame: &Frame) -> Check<()> {
        let first = self.size();
        let broken = |index: u64, what: &str| -> VerifyError<io::Error> {
            Broken::new(index, format_args!("{name}: {what}, at byte {}", frame.at)).into()
        };
        let head = frame.head().map_err(|fault| fault_in(name, fault, first))?;
        if frame.header.first != first {
            return Err(broken(first, "has a frame of another place"));
        }
        for (entry, index) in head.entries.iter().zip(first..) {
            if let Some(what) = self.entry(segment, frame, entry) {
                return Err(broken(index, &format!("entry {index} {what}")));
            }
        }
        for entry in &head.entries {
            let mut full = Vec::new();
            self.edge.push(entry.leaf, leaf_hash(entry.leaf), &mut |tile, b| full.push((tile, b)));
            for (tile, bytes) in full {
                self.compare(tile, &bytes)?;
            }
            self.meet(name)?;
        }
        let signed = self
            .key
            .verify(head.checkpoint)
            .map_err(|error| broken(first, &format!("the batch from entry {first} on: {error}")))?;
        let (range, signed) = (self.edge.range(), signed.checkpoint());
        if (signed.size, signed.root) != (range.size(), range.root()) {
            let what = format!("the batch from entry {first} on is not what was signed");
            return Err(broken(first, &what));
        }
        Ok(())
    }

    /// What is wrong with an entry and its body, taken by themselves.
    fn entry(
        &mut self,
        segment: &mut Segment,
        frame: &Frame,
        entry: &FrameEntry<'_>,
    ) -> Option<String> {
        let commitment = match Envelope::decode(entry.leaf) {
            Ok(envelope) => envelope.body,
            Err(error) => return Some(error.to_string()),
        };
        match (commitment, entry.body) {
            (None, None) => None,
            (Some(commitment), Some(span)) => {
                self.bodies += 1;
                match segment.salt_and_body(frame, span) {
                    Ok(body) if body_fits(&body, &commitment) => None,
                    Ok(_) => Some("has another body than was recorded".to_owned()),
                    Err(fault) => Some(format!("has a body that {fault}")),
                }
            }
            (Some(_), None) => Some("has lost its body".to_owned()),
            (None, Some(_)) => Some("has a body that was never recorded".to_owned()),
        }
    }

    /// Compares the files of one tile, full and partial, with its bytes.
    fn compare(&mut self, tile: Tile, bytes: &[u8]) -> Check<()> {
        for width in self.tiles.remove(&(tile.kind(), tile.number())).unwrap_or_default() {
            let Some(file) = Tile::new(tile.kind(), tile.number(), width) else { continue };
            match fs::read(self.dir.join(file.path())) {
                Ok(found) => match compare_tile(file, &found, bytes) {
                    None => {}
                    Some(broken) => return Err(broken.into()),
                },
                // A partial tile that has been filled since it was listed.
                Err(error) if missing(&error) => {}
                Err(source) => return Err(VerifyError::Fetch { path: file.path(), source }),
            }
        }
        Ok(())
    }

    /// Compares with the published checkpoint, when the tree has just its size.
    fn meet(&self, name: &str) -> Check<()> {
        let range = self.edge.range();
        match self.covered {
            Some(covered) if covered.size == range.size() && covered.root != range.root() => {
                let what = format!("{name}: the entries so far are not those under the checkpoint");
                Err(Broken::new(None, what).into())
            }
            _ => Ok(()),
        }
    }

    /// The first bad entry in a frame that does not fit its hash, by its body or by the tile that
    /// has it too.
    fn locate(&mut self, segment: &mut Segment) -> Option<u64> {
        let frame = segment.next_unchecked().ok()??;
        let head = frame.head().ok()?;
        let first = self.size();
        for (entry, index) in head.entries.iter().zip(first..) {
            let published = self.published_entry(index);
            if published.is_some_and(|published| published != entry.leaf)
                || self.entry(segment, &frame, entry).is_some()
            {
                return Some(index);
            }
        }
        None
    }

    fn published_entry(&self, index: u64) -> Option<Vec<u8>> {
        let width = self.tiles.get(&(TileKind::Entries, index >> 8))?.iter().max()?;
        let tile = Tile::new(TileKind::Entries, index >> 8, *width)?;
        let bundle = fs::read(self.dir.join(tile.path())).ok()?;
        entries(&bundle).nth((index & 255) as usize)?.ok().map(<[u8]>::to_vec)
    }

    fn size(&self) -> u64 {
        self.edge.range().size()
    }
}

/// Every file under `tile/`; there must be none but tiles.
fn list_tiles(dir: &Path) -> Check<Tiles> {
    let mut tiles = Tiles::new();
    let mut folders = vec!["tile".to_owned()];
    while let Some(folder) = folders.pop() {
        let fetch = |source| VerifyError::Fetch { path: folder.clone(), source };
        let listing = match fs::read_dir(dir.join(&folder)) {
            Ok(listing) => listing,
            // No tiles yet, or partial tiles that have been filled meanwhile.
            Err(error) if missing(&error) => continue,
            Err(error) => return Err(fetch(error)),
        };
        for entry in listing {
            let entry = entry.map_err(fetch)?;
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().map_err(fetch)?.is_dir() {
                folders.push(path);
                continue;
            }
            let tile: Tile = path
                .parse()
                .map_err(|_| Broken::new(None, format_args!("{path}: is not a tile")))?;
            tiles.entry((tile.kind(), tile.number())).or_default().push(tile.width());
        }
    }
    Ok(tiles)
}

fn fault_in(name: &str, fault: Fault, index: u64) -> VerifyError<io::Error> {
    match fault {
        Fault::Io(error) if missing(&error) => {
            Broken::new(index, format_args!("{name} is missing")).into()
        }
        Fault::Io(source) => VerifyError::Fetch { path: name.to_owned(), source },
        fault => Broken::new(index, format_args!("{name}: {fault}")).into(),
    }
}
