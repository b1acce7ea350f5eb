//! Where tiles and entry bundles lie, and what is in them: C2SP tlog-tiles.
//!
//! A path is only ever made from a [`Tile`], and a `Tile` only from a path with the one right
//! spelling, so no request can name another file.

use std::fmt;
use std::str::FromStr;

use super::leaf::MAX_LEAF;
use super::tree::{CompactRange, Hash};
use crate::types::InvalidText;

/// How many hashes or entries a full tile has.
pub(super) const TILE_WIDTH: u16 = 256;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileKind {
    /// The entries themselves, each after its length in 16 bits.
    Entries,
    /// The hashes of perfect subtrees with 256 to the power of this many leaves.
    Hashes(u8),
}

/// One tile, full or partial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    kind: TileKind,
    number: u64,
    width: u16,
}

impl Tile {
    /// A tile by its place, or `None` if there can be no such tile.
    pub fn new(kind: TileKind, number: u64, width: u16) -> Option<Self> {
        let level = match kind {
            TileKind::Entries => 0,
            TileKind::Hashes(level) => level,
        };
        // Beyond these a tile would stand for leaves past 2^64.
        let exists = level <= MAX_LEVEL
            && (1..=TILE_WIDTH).contains(&width)
            && number <= u64::MAX.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0);
        exists.then_some(Self { kind, number, width })
    }

    /// What it holds.
    pub fn kind(&self) -> TileKind {
        self.kind
    }

    /// Its place among the tiles of its kind.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many hashes or entries it has: 1 to 256.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Whether it has all 256 and can never change.
    pub fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// The same place, full. A log may drop a partial tile once this one exists.
    #[must_use]
    pub fn full(self) -> Self {
        Self { width: TILE_WIDTH, ..self }
    }

    /// The path under the log's root.
    pub fn path(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Entries => f.write_str("tile/entries/")?,
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
        }
        let mut groups = vec![self.number % 1000];
        let mut rest = self.number / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        while let Some(group) = groups.pop() {
            match groups.is_empty() {
                true => write!(f, "{group:03}")?,
                false => write!(f, "x{group:03}/")?,
            }
        }
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

impl FromStr for Tile {
    type Err = InvalidText;
    fn from_str(path: &str) -> Result<Self, InvalidText> {
        read_path(path)
            // One tile has one spelling: no leading zeros, signs or empty groups.
            .filter(|tile| tile.path() == path)
            .ok_or_else(|| InvalidText { what: "tile path", why: "there is no such tile".into() })
    }
}

fn read_path(path: &str) -> Option<Tile> {
    if path.len() > MAX_PATH {
        return None;
    }
    let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
    let kind = match kind {
        "entries" => TileKind::Entries,
        level => TileKind::Hashes(level.parse().ok()?),
    };
    let (number, width) = match rest.split_once(".p/") {
        Some((number, width)) => (number, width.parse().ok().filter(|w| *w < TILE_WIDTH)?),
        None => (rest, TILE_WIDTH),
    };
    let mut value = 0u64;
    for group in number.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        let group = digits.parse::<u64>().ok().filter(|g| *g < 1000)?;
        value = value.checked_mul(1000)?.checked_add(group)?;
    }
    Tile::new(kind, value, width)
}

/// Puts an entry at the end of a bundle. The caller's leaf has passed [`MAX_LEAF`].
pub(super) fn push_entry(bundle: &mut Vec<u8>, leaf: &[u8]) {
    debug_assert!(leaf.len() <= MAX_LEAF);
    let length = u16::try_from(leaf.len()).unwrap_or(u16::MAX);
    bundle.extend(length.to_be_bytes());
    bundle.extend(leaf);
}

/// The entries of a bundle; an `Err` in the last place if bytes are left that are no entry.
pub(super) fn entries(bundle: &[u8]) -> impl Iterator<Item = Result<&[u8], InvalidText>> {
    let mut rest = Some(bundle);
    std::iter::from_fn(move || {
        let bytes = rest.take().filter(|bytes| !bytes.is_empty())?;
        let split = bytes
            .split_first_chunk::<2>()
            .and_then(|(length, after)| after.split_at_checked(u16::from_be_bytes(*length).into()));
        Some(match split {
            Some((entry, after)) => {
                rest = Some(after);
                Ok(entry)
            }
            None => Err(InvalidText { what: "entry bundle", why: "an entry is cut short".into() }),
        })
    })
}

/// A tile's bytes when it had only `width` hashes or entries; `None` if it never had as few or
/// has not as many.
pub(super) fn beginning(kind: TileKind, bytes: &[u8], width: u16) -> Option<&[u8]> {
    if width == 0 {
        return None;
    }
    match kind {
        TileKind::Hashes(_) => bytes.get(..usize::from(width) * Hash::LENGTH),
        TileKind::Entries => {
            let mut length = 0;
            let mut entries = entries(bytes);
            for _ in 0..width {
                length += 2 + entries.next()?.ok()?.len();
            }
            bytes.get(..length)
        }
    }
}

/// The right edge of the tree: everything that is not yet in a full tile.
#[derive(Clone, Debug, Default)]
pub(super) struct Edge {
    range: CompactRange,
    /// The current entry bundle.
    bundle: Vec<u8>,
    /// Of each level, the hashes of its current tile.
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// The edge of a tree whose size is a multiple of 256: only levels from 1 on have hashes.
    /// `None` if they are not as many as a tree of that size has.
    pub(super) fn resume(size: u64, upper: Vec<Vec<Hash>>) -> Option<Self> {
        let widths = upper_widths(size)?;
        if !upper.iter().map(Vec::len).eq(widths) {
            return None;
        }
        let mut levels = vec![Vec::new()];
        levels.extend(upper);
        Some(Self { range: CompactRange::from_levels(size, &levels), bundle: Vec::new(), levels })
    }

    pub(super) fn range(&self) -> &CompactRange {
        &self.range
    }

    /// The hashes of the levels from 1 on, as [`Edge::resume`] takes them.
    pub(super) fn upper(&self) -> &[Vec<Hash>] {
        self.levels.get(1..).unwrap_or_default()
    }

    /// Adds an entry. Tiles that it fills are handed to `full`.
    pub(super) fn push(&mut self, leaf: &[u8], hash: Hash, full: &mut impl FnMut(Tile, Vec<u8>)) {
        let number = self.range.size() / u64::from(TILE_WIDTH);
        push_entry(&mut self.bundle, leaf);
        self.range.push(hash);
        let mut carried = Some(hash);
        let mut level = 0u8;
        while let Some(hash) = carried.take() {
            if usize::from(level) == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let Some(hashes) = self.levels.get_mut(usize::from(level)) else { return };
            hashes.push(hash);
            if hashes.len() == usize::from(TILE_WIDTH) {
                let hashes = std::mem::take(hashes);
                if level == 0 {
                    let bundle = std::mem::take(&mut self.bundle);
                    full(Tile { kind: TileKind::Entries, number, width: TILE_WIDTH }, bundle);
                }
                let kind = TileKind::Hashes(level);
                let number = number >> (8 * u32::from(level));
                full(Tile { kind, number, width: TILE_WIDTH }, hash_tile(&hashes));
                carried = Some(tile_root(&hashes));
                level += 1;
            }
        }
    }

    /// The partial tiles at the edge, entries first.
    pub(super) fn partials(&self) -> impl Iterator<Item = (Tile, Vec<u8>)> + '_ {
        let entries = self.levels.first().into_iter().map(|hashes| {
            (
                Tile::new(TileKind::Entries, self.range.size() >> 8, narrow(hashes)),
                self.bundle.clone(),
            )
        });
        let hashes = (0u8..).zip(&self.levels).map(|(level, hashes)| {
            let number = self.range.size().checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0);
            (Tile::new(TileKind::Hashes(level), number, narrow(hashes)), hash_tile(hashes))
        });
        entries.chain(hashes).filter_map(|(tile, bytes)| Some((tile?, bytes)))
    }
}

/// The hash of a full tile's subtree.
pub(super) fn tile_root(hashes: &[Hash]) -> Hash {
    let mut range = CompactRange::default();
    hashes.iter().for_each(|hash| range.push(*hash));
    range.root()
}

/// The bytes of a hash tile.
pub(super) fn hash_tile(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// The widths of the partial tiles from level 1 on in a tree of `size` leaves, up to the last
/// level that has any; `None` unless `size` is a multiple of 256.
pub(super) fn upper_widths(size: u64) -> Option<impl Iterator<Item = usize> + Clone> {
    let tiles = size >> 8;
    let levels = 8 - tiles.leading_zeros() / 8;
    let width = move |level: u32| usize::from((tiles >> (8 * level)).to_le_bytes()[0]);
    (size.is_multiple_of(u64::from(TILE_WIDTH))).then(|| (0..levels).map(width))
}

/// A width from a slice that has at most 255 hashes; 0 is no tile.
fn narrow(hashes: &[Hash]) -> u16 {
    u16::try_from(hashes.len()).unwrap_or(u16::MAX)
}

/// The highest level at which a tile can stand for leaves below 2^64.
const MAX_LEVEL: u8 = 7;

/// Longer than the longest path there is.
const MAX_PATH: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tree::leaf_hash;
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let tile = |kind, number, width| Tile::new(kind, number, width).unwrap().path();
        assert_eq!(tile(TileKind::Entries, 1_234_067, 256), "tile/entries/x001/x234/067");
        assert_eq!(tile(TileKind::Hashes(0), 0, 256), "tile/0/000");
        assert_eq!(tile(TileKind::Hashes(3), 1000, 8), "tile/3/x001/000.p/8");
        assert!(Tile::new(TileKind::Entries, 0, 0).is_none());
        assert!(Tile::new(TileKind::Entries, 0, 257).is_none());
        assert!(Tile::new(TileKind::Entries, u64::MAX, 1).is_none());
        assert!(Tile::new(TileKind::Hashes(8), 0, 1).is_none());
    }

    #[test]
    fn other_spellings_and_other_files_are_refused() {
        for bad in [
            "",
            "tile",
            "tile/0",
            "tile/0/",
            "tile/00/000",
            "tile/+1/000",
            "tile/-1/000",
            "tile/8/000",
            "tile/0/0",
            "tile/0/0000",
            "tile/0/x000/000",
            "tile/0/x001",
            "tile/0/001/000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/000.p/1/",
            "tile/0/000.p",
            "tile/0/+00",
            "tile/0/../000",
            "tile/0/x001/../000",
            "tile/entries/../../checkpoint",
            "/tile/0/000",
            "tile//000",
            "tile/0/000\0",
            "tile/data/000",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert!(bad.parse::<Tile>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn an_edge_can_be_put_down_and_taken_up_again() {
        let mut edge = Edge::default();
        for i in 0..(256 * 257u64) {
            edge.push(b"", leaf_hash(&i.to_be_bytes()), &mut |_, _| {});
        }
        let again = Edge::resume(256 * 257, edge.upper().to_vec()).unwrap();
        assert_eq!(again.range(), edge.range());
        assert_eq!(again.upper(), edge.upper());
        assert_eq!(edge.upper().iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        assert!(Edge::resume(256 * 257 + 1, edge.upper().to_vec()).is_none());
        assert!(Edge::resume(256 * 258, edge.upper().to_vec()).is_none());
        assert!(Edge::resume(0, Vec::new()).is_some());
    }

    proptest! {
        #[test]
        fn every_tile_comes_back_from_its_path(
            level in proptest::option::of(0u8..=7), number: u64, shift in 0u32..64, width in 1u16..=256,
        ) {
            let kind = level.map_or(TileKind::Entries, TileKind::Hashes);
            if let Some(tile) = Tile::new(kind, number >> shift, width) {
                prop_assert_eq!(tile.path().parse::<Tile>().unwrap(), tile);
            }
        }

        #[test]
        fn any_text_parses_to_itself_or_not_at_all(path in "(tile/)?[0-9x/.p+entris-]{0,40}") {
            if let Ok(tile) = path.parse::<Tile>() {
                prop_assert_eq!(tile.path(), path);
            }
        }

        #[test]
        fn bundles_split_as_they_were_joined(
            leaves in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
            noise in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut bundle = Vec::new();
            leaves.iter().for_each(|leaf| push_entry(&mut bundle, leaf));
            let split: Vec<&[u8]> = entries(&bundle).map(Result::unwrap).collect();
            prop_assert_eq!(split, leaves);
            prop_assert!(entries(&noise).count() <= noise.len());
        }
    }
}
