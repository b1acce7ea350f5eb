//! The Merkle tree of RFC 6962 section 2.1, grown by one leaf at a time.
//!
//! A [`CompactRange`] is the few hashes that the root depends on, so an append costs a handful of
//! hashes however large the log is, and trying a batch before it is durable costs one clone.

use std::fmt;

use aws_lc_rs::digest::{Context, Digest, SHA256, digest};

use crate::types::{InvalidText, hex};

/// A SHA-256 value. Shown in hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// How many bytes it has.
    pub const LENGTH: usize = 32;

    /// Hashes bytes as they are, without a domain.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self::take(&digest(&SHA256, bytes))
    }

    pub(super) fn finish(context: Context) -> Self {
        Self::take(&context.finish())
    }

    fn take(digest: &Digest) -> Self {
        let mut bytes = [0; Self::LENGTH];
        // SHA-256 gives as many bytes as there are, so no byte stays zero for want of one.
        for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }
}

/// The hash of an entry.
pub(super) fn leaf_hash(entry: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(entry);
    Hash::finish(context)
}

/// The hash of two hashes that stand side by side.
pub(super) fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[1]);
    context.update(&left.0);
    context.update(&right.0);
    Hash::finish(context)
}

/// The roots of the perfect subtrees that a tree of some size falls into, largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CompactRange {
    size: u64,
    peaks: Vec<Hash>,
}

impl CompactRange {
    /// How many leaves the tree has.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Adds one leaf's hash.
    pub(super) fn push(&mut self, hash: Hash) {
        let mut hash = hash;
        let mut rest = self.size;
        // Each trailing one of the old size is a perfect subtree that the new one completes.
        while rest & 1 == 1 {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
            rest >>= 1;
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root of the tree so far; of the empty tree, the hash of nothing.
    pub(super) fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => Hash::of(&[]),
            Some(last) => peaks.fold(*last, |right, left| node_hash(left, &right)),
        }
    }

    /// The range of a tree of `size` leaves, of which `levels` holds the hashes beyond the last
    /// full tile: `levels[l]` those of perfect subtrees with 256^l leaves. The caller has checked
    /// that each level has as many as `size` demands.
    pub(super) fn from_levels(size: u64, levels: &[Vec<Hash>]) -> Self {
        let mut peaks = Vec::new();
        for level in levels.iter().rev() {
            let mut part = Self::default();
            level.iter().for_each(|hash| part.push(*hash));
            peaks.append(&mut part.peaks);
        }
        Self { size, peaks }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for Hash {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; Self::LENGTH];
        let mut pairs = text.as_bytes().chunks_exact(2);
        for byte in &mut bytes {
            let pair = match pairs.next() {
                Some([high, low]) => digit(*high).zip(digit(*low)),
                _ => None,
            };
            let Some((high, low)) = pair else { return Err(not_hex()) };
            *byte = high << 4 | low;
        }
        if pairs.next().is_some() || !pairs.remainder().is_empty() {
            return Err(not_hex());
        }
        Ok(Self(bytes))
    }
}

fn not_hex() -> InvalidText {
    InvalidText { what: "hash", why: "must be 64 hexadecimal digits in lower case".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962 section 2.1, word for word.
    fn naive(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Hash::of(&[]),
            [one] => *one,
            many => {
                let k = many.len().next_power_of_two() / 2;
                node_hash(&naive(&many[..k]), &naive(&many[k..]))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_rfc_6962_at_every_size() {
        let mut range = CompactRange::default();
        let mut leaves = Vec::new();
        for i in 0..600u64 {
            assert_eq!((range.size(), range.root()), (i, naive(&leaves)), "at {i}");
            let hash = leaf_hash(&i.to_be_bytes());
            range.push(hash);
            leaves.push(hash);
        }
    }

    #[test]
    fn the_empty_root_is_the_one_that_others_publish() {
        let expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(CompactRange::default().root(), expected.parse().unwrap());
    }

    #[test]
    fn a_range_comes_back_from_its_tiles() {
        let mut range = CompactRange::default();
        let mut leaves = Vec::new();
        for i in 0..70_000u64 {
            let hash = leaf_hash(&i.to_be_bytes());
            range.push(hash);
            leaves.push(hash);
        }
        let tiles: Vec<Hash> = leaves.chunks_exact(256).map(naive).collect();
        let level2: Vec<Hash> = tiles.chunks_exact(256).map(naive).collect();
        let levels =
            [leaves[tiles.len() * 256..].to_vec(), tiles[level2.len() * 256..].to_vec(), level2];
        assert_eq!(CompactRange::from_levels(70_000, &levels), range);
    }
}
