//! Verifying a log from what it publishes: checkpoint and tiles, wherever they are fetched from.
//!
//! [`LogCheck`] does no I/O: it says which tile it wants and is given its bytes, so that a folder
//! and an HTTP client share every check. All leaves are hashed again, so consistency with a
//! remembered checkpoint needs no separate proof: the root at that size is compared.

use std::collections::VecDeque;
use std::fmt;

use super::note::{Checkpoint, SignedCheckpoint, VerifierKey};
use super::tile::{TILE_WIDTH, Tile, TileKind, beginning, entries, tile_root};
use super::tree::{CompactRange, Hash, leaf_hash};

/// The log is not what it claims to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Broken {
    /// The first entry that is concerned, where one can be named.
    pub index: Option<u64>,
    /// Which file, and what is wrong with it.
    pub what: String,
}

impl Broken {
    pub(super) fn new(index: impl Into<Option<u64>>, what: impl fmt::Display) -> Self {
        Self { index: index.into(), what: what.to_string() }
    }

    /// The one that concerns the earlier entry; `self` if that cannot be told.
    pub(super) fn earlier(self, other: Self) -> Self {
        let place = |broken: &Self| broken.index.unwrap_or(u64::MAX);
        if place(&other) < place(&self) { other } else { self }
    }
}

/// A log could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError<E> {
    /// It was altered or is damaged.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// A file could not be fetched, which says nothing about the log.
    #[error("cannot fetch {path}")]
    Fetch {
        /// The file.
        path: String,
        /// Why.
        source: E,
    },
}

/// Verifies a log through `fetch`, which is given paths under the log's root and gives back the
/// file, or `None` if the log has no such file.
///
/// `remembered` is a checkpoint that was verified earlier: the log must still begin with exactly
/// that tree. Without one, a log that its own key's holder rewrote and signed again passes.
///
/// # Errors
/// [`VerifyError::Broken`], naming the first bad entry where one can be named, or
/// [`VerifyError::Fetch`].
pub fn verify_log<E>(
    key: &VerifierKey,
    remembered: Option<&Checkpoint>,
    mut fetch: impl FnMut(&str) -> Result<Option<Vec<u8>>, E>,
) -> Result<SignedCheckpoint, VerifyError<E>> {
    let mut get = |path: &str| {
        fetch(path).map_err(|source| VerifyError::Fetch { path: path.to_owned(), source })
    };
    let note = get("checkpoint")?.ok_or_else(|| Broken::new(None, "checkpoint is missing"))?;
    let mut check = LogCheck::new(key, remembered, &note)?;
    while let Some(tile) = check.wants() {
        let mut bytes = get(&tile.path())?;
        if bytes.is_none() && !tile.is_full() {
            bytes = get(&tile.full().path())?;
        }
        check.accept(bytes.as_deref())?;
    }
    Ok(check.finish()?)
}

/// The verification of one log, step by step.
///
/// While [`wants`](Self::wants) names a tile, fetch it and hand it to [`accept`](Self::accept);
/// then [`finish`](Self::finish).
#[derive(Debug)]
pub struct LogCheck {
    signed: SignedCheckpoint,
    remembered: Option<Checkpoint>,
    range: CompactRange,
    /// Hash tiles to be compared with what was computed, in order.
    hash_tiles: VecDeque<HashTile>,
    /// Of each level from 1 on, the hashes of its current tile.
    upper: Vec<Vec<Hash>>,
    /// Whether the partial tiles above level 0 have been asked for.
    ending: bool,
}

/// A hash tile as it has to be.
#[derive(Debug)]
struct HashTile {
    tile: Tile,
    hashes: Vec<Hash>,
    /// Set if the entries under it are fewer than they should be, with the reason.
    cut: Option<String>,
}

impl LogCheck {
    /// Begins with the file `checkpoint`: checks its signature and that it is not older than
    /// `remembered`.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn new(
        key: &VerifierKey,
        remembered: Option<&Checkpoint>,
        note: &[u8],
    ) -> Result<Self, Broken> {
        let signed = key
            .verify(note)
            .map_err(|error| Broken::new(None, format_args!("checkpoint: {error}")))?;
        if let Some(old) = remembered {
            let now = signed.checkpoint();
            if old.origin != now.origin {
                let what = format!(
                    "checkpoint: the remembered one is of the log {:?}, this one of {:?}",
                    old.origin, now.origin
                );
                return Err(Broken::new(None, what));
            }
            if old.size > now.size {
                let what = format!(
                    "checkpoint: the log has {} entries, but had {} before: entries were removed",
                    now.size, old.size
                );
                return Err(Broken::new(now.size, what));
            }
        }
        let remembered = remembered.cloned();
        let check = Self {
            signed,
            remembered,
            range: CompactRange::default(),
            hash_tiles: VecDeque::new(),
            upper: Vec::new(),
            ending: false,
        };
        check.compare_remembered()?;
        Ok(check)
    }

    /// The tile that has to be handed over next. If the log has no such partial tile, the same
    /// place's [full](Tile::full) tile will do.
    pub fn wants(&self) -> Option<Tile> {
        if let Some(waiting) = self.hash_tiles.front() {
            return Some(waiting.tile);
        }
        let (done, size) = (self.range.size(), self.signed.checkpoint().size);
        let width = u16::try_from(size.saturating_sub(done)).unwrap_or(u16::MAX).min(TILE_WIDTH);
        Tile::new(TileKind::Entries, done / u64::from(TILE_WIDTH), width)
    }

    /// Takes the bytes of the tile that was wanted; `None` if the log does not have it.
    ///
    /// # Errors
    /// [`Broken`]; the check is over then.
    pub fn accept(&mut self, bytes: Option<&[u8]>) -> Result<(), Broken> {
        let Some(tile) = self.wants() else { return Ok(()) };
        let first = tile.number().saturating_mul(u64::from(TILE_WIDTH));
        let Some(bytes) = bytes else {
            let index = match tile.kind() {
                TileKind::Entries | TileKind::Hashes(0) => Some(first),
                TileKind::Hashes(_) => None,
            };
            return Err(Broken::new(index, format_args!("{tile} is missing")));
        };
        match self.hash_tiles.pop_front() {
            Some(expected) => self.compare_hashes(&expected, bytes),
            None => self.take_entries(tile, bytes),
        }
    }

    /// Compares the root, once every tile has been accepted.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn finish(self) -> Result<SignedCheckpoint, Broken> {
        let signed = self.signed.checkpoint();
        if self.range.size() != signed.size || !self.hash_tiles.is_empty() {
            return Err(Broken::new(None, "the check was ended before all tiles were read"));
        }
        if self.range.root() != signed.root {
            let what = "checkpoint: entries and tiles agree, but are not what was signed";
            return Err(Broken::new(None, what));
        }
        Ok(self.signed)
    }

    fn take_entries(&mut self, tile: Tile, bytes: &[u8]) -> Result<(), Broken> {
        let mut cut = None;
        let mut hashes = Vec::with_capacity(tile.width().into());
        let mut found = entries(bytes);
        for _ in 0..tile.width() {
            match found.next() {
                Some(Ok(entry)) => hashes.push(leaf_hash(entry)),
                Some(Err(_)) => cut = cut.or(Some(format!("{tile}: an entry is cut short"))),
                None => cut = cut.or(Some(format!("{tile}: entries are missing"))),
            }
        }
        // More than asked for is right only in the full tile, fetched in place of a partial one.
        let more = found.next().is_some();
        if cut.is_none() && more && (tile.is_full() || entries(bytes).count() < 256) {
            cut = Some(format!("{tile}: has more entries than it should"));
        }
        let kind = TileKind::Hashes(0);
        let tile = Tile::new(kind, tile.number(), tile.width()).unwrap_or(tile);
        self.hash_tiles.push_back(HashTile { tile, hashes, cut });
        Ok(())
    }

    fn compare_hashes(&mut self, expected: &HashTile, bytes: &[u8]) -> Result<(), Broken> {
        let HashTile { tile, hashes, cut } = expected;
        let leaves = tile.kind() == TileKind::Hashes(0);
        let first = tile.number().saturating_mul(u64::from(TILE_WIDTH));
        let right = [usize::from(tile.width()), usize::from(TILE_WIDTH)]
            .iter()
            .any(|width| bytes.len() == width * Hash::LENGTH);
        let found = bytes.chunks(Hash::LENGTH);
        let differs = hashes.iter().zip(found).position(|(expected, found)| expected.0 != found);
        if let Some(place) = differs {
            let place = place as u64;
            return Err(if leaves {
                let (index, entries) = (first + place, entries_path(*tile));
                let what = format!("{entries} and {tile} disagree about entry {index}");
                Broken::new(index, what)
            } else {
                Broken::new(None, format_args!("{tile}: hash {place} is wrong"))
            });
        }
        if let Some(cut) = cut {
            return Err(Broken::new(first + hashes.len() as u64, cut));
        }
        if !right || bytes.len() < hashes.len() * Hash::LENGTH {
            let index = leaves.then_some(first + (bytes.len() / Hash::LENGTH) as u64);
            let what = format!("{tile}: has {} bytes, not 32 for each hash", bytes.len());
            return Err(Broken::new(index, what));
        }
        if leaves {
            for hash in hashes {
                self.range.push(*hash);
                self.compare_remembered()?;
            }
        }
        if tile.is_full()
            && let TileKind::Hashes(level) = tile.kind()
        {
            self.carry(level, tile.number(), tile_root(hashes));
        }
        if self.hash_tiles.is_empty() && self.range.size() == self.signed.checkpoint().size {
            self.end();
        }
        Ok(())
    }

    /// Adds a full tile's root to the level above; that level's tile is wanted once it is full.
    fn carry(&mut self, level: u8, number: u64, root: Hash) {
        while self.upper.len() <= usize::from(level) {
            self.upper.push(Vec::new());
        }
        let Some(hashes) = self.upper.get_mut(usize::from(level)) else { return };
        hashes.push(root);
        if hashes.len() == usize::from(TILE_WIDTH) {
            let hashes = std::mem::take(hashes);
            let kind = TileKind::Hashes(level + 1);
            if let Some(tile) = Tile::new(kind, number / u64::from(TILE_WIDTH), TILE_WIDTH) {
                self.hash_tiles.push_back(HashTile { tile, hashes, cut: None });
            }
        }
    }

    /// Wants the partial tiles above level 0, after the last leaf.
    fn end(&mut self) {
        if std::mem::replace(&mut self.ending, true) {
            return;
        }
        let size = self.range.size();
        for (level, hashes) in (1u8..).zip(std::mem::take(&mut self.upper)) {
            let width = u16::try_from(hashes.len()).unwrap_or(u16::MAX);
            let number = size.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0);
            if let Some(tile) = Tile::new(TileKind::Hashes(level), number, width) {
                self.hash_tiles.push_back(HashTile { tile, hashes, cut: None });
            }
        }
    }

    fn compare_remembered(&self) -> Result<(), Broken> {
        match &self.remembered {
            Some(old) if old.size == self.range.size() && old.root != self.range.root() => {
                let what = format!(
                    "checkpoint: the first {} entries are not those of the remembered checkpoint: \
                     the log was rewritten",
                    old.size
                );
                Err(Broken::new(None, what))
            }
            _ => Ok(()),
        }
    }
}

/// The first difference between a tile's bytes and what they have to be, as an index in the log
/// where one entry is concerned; `None` if there is none.
pub(super) fn compare_tile(tile: Tile, found: &[u8], expected: &[u8]) -> Option<Broken> {
    let begun = beginning(tile.kind(), expected, tile.width());
    if begun == Some(found) {
        return None;
    }
    let first = tile.number().saturating_mul(u64::from(TILE_WIDTH));
    let place = match tile.kind() {
        TileKind::Entries => {
            entries(found).zip(entries(expected)).take_while(|(a, b)| a == b).count()
        }
        TileKind::Hashes(_) => {
            let pairs = found.chunks(Hash::LENGTH).zip(expected.chunks(Hash::LENGTH));
            pairs.take_while(|(a, b)| a == b).count()
        }
    };
    let index = match tile.kind() {
        TileKind::Entries | TileKind::Hashes(0) => Some(first + place as u64),
        TileKind::Hashes(_) => None,
    };
    Some(Broken::new(index, format_args!("{tile}: is not what the journal says")))
}

fn entries_path(hashes: Tile) -> String {
    Tile::new(TileKind::Entries, hashes.number(), hashes.width()).unwrap_or(hashes).path()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::key::LogKey;
    use super::super::tile::{Edge, hash_tile, push_entry};
    use super::*;

    /// A log of so many entries, as something to fetch from.
    fn log(size: u64) -> (LogKey, std::collections::HashMap<String, Vec<u8>>) {
        let key = LogKey::generate("a").unwrap();
        let (mut edge, mut files) = (Edge::default(), std::collections::HashMap::new());
        for i in 0..size {
            let leaf = i.to_string().into_bytes();
            edge.push(&leaf, leaf_hash(&leaf), &mut |tile, bytes| {
                files.insert(tile.path(), bytes);
            });
        }
        files.extend(edge.partials().map(|(tile, bytes)| (tile.path(), bytes)));
        let signed = key.sign(size, edge.range().root()).unwrap();
        files.insert("checkpoint".into(), signed.note().into());
        (key, files)
    }

    fn check(
        key: &LogKey,
        files: &std::collections::HashMap<String, Vec<u8>>,
    ) -> Result<SignedCheckpoint, Broken> {
        let fetch = |path: &str| Ok::<_, std::convert::Infallible>(files.get(path).cloned());
        verify_log(key.vkey(), None, fetch).map_err(|error| match error {
            VerifyError::Broken(broken) => broken,
            VerifyError::Fetch { source, .. } => match source {},
        })
    }

    #[test]
    fn logs_of_every_shape_pass() {
        for size in [0, 1, 255, 256, 257, 511, 512, 65_535, 65_536, 65_793] {
            let (key, files) = log(size);
            assert_eq!(check(&key, &files).unwrap().checkpoint().size, size);
        }
    }

    #[test]
    fn a_full_tile_stands_in_for_a_partial_one_that_was_dropped() {
        let (key, mut files) = log(300);
        let (_, larger) = log(512);
        for path in ["tile/entries/001", "tile/0/001"] {
            files.remove(&format!("{path}.p/44")).unwrap();
            assert!(check(&key, &files).is_err());
            files.insert(path.to_owned(), larger[path].clone());
        }
        check(&key, &files).unwrap();
        // Only the whole tile does.
        files.get_mut("tile/0/001").unwrap().truncate(45 * 32);
        assert_eq!(check(&key, &files).unwrap_err().index, Some(256 + 45));
        files.insert("tile/0/001".into(), larger["tile/0/001"].clone());
        let mut bundle = Vec::new();
        (256..301u64).for_each(|i| push_entry(&mut bundle, i.to_string().as_bytes()));
        files.insert("tile/entries/001".into(), bundle);
        assert_eq!(check(&key, &files).unwrap_err().index, Some(256 + 44));
    }

    #[test]
    fn an_entry_changed_with_its_tiles_is_not_what_was_signed() {
        let (key, mut files) = log(3);
        let (mut bundle, mut hashes) = (Vec::new(), Vec::new());
        for leaf in [b"0", b"x", b"2"] {
            push_entry(&mut bundle, leaf);
            hashes.push(leaf_hash(leaf));
        }
        files.insert("tile/entries/000.p/3".into(), bundle);
        assert_eq!(check(&key, &files).unwrap_err().index, Some(1));
        files.insert("tile/0/000.p/3".into(), hash_tile(&hashes));
        assert!(check(&key, &files).unwrap_err().what.contains("not what was signed"));
    }

    proptest! {
        #[test]
        fn any_tiles_are_refused_without_a_panic(
            size in 1u64..400,
            tiles in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..90), 1..4),
        ) {
            let (key, files) = log(size);
            let mut check = LogCheck::new(key.vkey(), None, &files["checkpoint"]).unwrap();
            let result = tiles.iter().try_for_each(|tile| check.accept(Some(tile)));
            prop_assert!(result.is_err() || check.finish().is_err());
        }
    }
}
