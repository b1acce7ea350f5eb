//! The journal's bytes: segment headers and frames. Pure; reads and writes nothing itself.
//!
//! A segment is a header and then frames, a frame is one group commit:
//!
//! ```text
//! segment header:  "mcpxjrn\x01"  first u64  hashes of the tree's edge  SHA-256 of the foregoing
//! frame header:    head length u32  bodies length u64  first u64  count u16  SHA-256
//! frame head:      count × (length u16, leaf, body length u32 or ff ff ff ff)
//!                  length u16, signed checkpoint of the tree with this frame's leaves
//! frame bodies:    for each entry that has one: 32 bytes of salt, body
//! ```
//!
//! Numbers are big-endian. The frame's hash covers its header and head. Bodies are covered by the
//! commitments in the leaves alone, so a body can be erased later without touching what is
//! hashed or signed, and an index can be rebuilt without reading bodies.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;

use super::leaf::{Commitment, MAX_LEAF, Salt};
use super::note::MAX_NOTE;
use super::tile::upper_widths;
use super::tree::Hash;

/// The longest body of one entry.
pub const MAX_BODY: usize = 16 * 1024 * 1024;

/// The most entries that one frame holds.
pub(super) const MAX_BATCH: usize = 256;

/// A frame takes no further entry once its entries have this many bytes.
pub(super) const FULL_BATCH: usize = 4 * 1024 * 1024;

/// Longer than any frame: one that is nearly full and then gets the largest entry.
pub(super) const MAX_FRAME: u64 = (FULL_BATCH + MAX_BODY + MAX_LEAF + 256 * 1024) as u64;

/// The length of a frame's header.
pub(super) const FRAME_HEADER: usize = 54;

/// The length of a salt before its body.
pub(super) const SALT: u64 = 32;

/// An entry, encoded and ready for a frame.
pub(super) struct Prepared {
    pub(super) leaf: Vec<u8>,
    pub(super) body: Option<(Salt, Bytes)>,
}

impl Prepared {
    /// What it adds to a batch, towards [`FULL_BATCH`].
    pub(super) fn weight(&self) -> usize {
        self.leaf.len() + self.body.as_ref().map_or(0, |(_, body)| body.len())
    }
}

/// One frame's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) head: u32,
    pub(super) bodies: u64,
    /// The index of the frame's first entry.
    pub(super) first: u64,
    pub(super) count: u16,
    digest: [u8; 32],
}

impl FrameHeader {
    /// Reads a header whose numbers are within bounds.
    pub(super) fn decode(bytes: &[u8; FRAME_HEADER]) -> Option<Self> {
        let mut rest = &bytes[..];
        let header = Self {
            head: u32::from_be_bytes(take(&mut rest)?),
            bodies: u64::from_be_bytes(take(&mut rest)?),
            first: u64::from_be_bytes(take(&mut rest)?),
            count: u16::from_be_bytes(take(&mut rest)?),
            digest: take(&mut rest)?,
        };
        let sane = header.bodies <= MAX_FRAME
            && header.total() <= MAX_FRAME
            && (1..=MAX_BATCH).contains(&usize::from(header.count));
        sane.then_some(header)
    }

    /// How many bytes the frame takes, its header included.
    pub(super) fn total(&self) -> u64 {
        FRAME_HEADER as u64 + u64::from(self.head) + self.bodies
    }

    /// Whether this is the header of `head`.
    pub(super) fn covers(&self, head: &[u8]) -> bool {
        let numbers = numbers(self.head, self.bodies, self.first, self.count);
        frame_digest(&numbers, head).0 == self.digest
    }
}

/// One frame's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FrameHead<'a> {
    pub(super) entries: Vec<FrameEntry<'a>>,
    pub(super) checkpoint: &'a [u8],
}

/// One entry in a frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameEntry<'a> {
    pub(super) leaf: &'a [u8],
    pub(super) body: Option<Span>,
}

/// Where in its frame's bodies a salt and body lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Where the salt begins, counted from the end of the head.
    pub(super) offset: u64,
    /// The length of the body, without its salt.
    pub(super) length: u32,
}

impl<'a> FrameHead<'a> {
    /// Reads a head; `None` unless every byte of it has its place and it fits its header.
    pub(super) fn decode(header: &FrameHeader, head: &'a [u8]) -> Option<Self> {
        let mut rest = head;
        let mut entries = Vec::with_capacity(usize::from(header.count).min(MAX_BATCH));
        let mut offset = 0u64;
        for _ in 0..header.count {
            let leaf = take_text(&mut rest)?;
            let length = u32::from_be_bytes(take(&mut rest)?);
            let body = match length {
                NO_BODY => None,
                length if length as usize > MAX_BODY => return None,
                length => {
                    let span = Span { offset, length };
                    offset += SALT + u64::from(length);
                    Some(span)
                }
            };
            entries.push(FrameEntry { leaf, body });
        }
        let checkpoint = take_text(&mut rest)?;
        (rest.is_empty() && offset == header.bodies).then_some(Self { entries, checkpoint })
    }
}

/// Whether a salt and body, as they lie in a frame, are those that a leaf committed to.
pub(super) fn body_fits(salt_and_body: &[u8], commitment: &Commitment) -> bool {
    salt_and_body
        .split_first_chunk::<32>()
        .is_some_and(|(salt, body)| Commitment::new(salt, body) == *commitment)
}

/// Writes a frame. `entries` are at most [`MAX_BATCH`], each within [`MAX_LEAF`] and [`MAX_BODY`].
pub(super) fn encode_frame(first: u64, entries: &[Prepared], checkpoint: &str) -> Vec<u8> {
    debug_assert!(entries.len() <= MAX_BATCH && checkpoint.len() <= MAX_NOTE);
    let mut head = Vec::new();
    let mut bodies = 0u64;
    for entry in entries {
        push_text(&mut head, &entry.leaf);
        let length = match &entry.body {
            None => NO_BODY,
            Some((_, body)) => {
                bodies += SALT + body.len() as u64;
                u32::try_from(body.len()).unwrap_or(NO_BODY)
            }
        };
        head.extend(length.to_be_bytes());
    }
    push_text(&mut head, checkpoint.as_bytes());
    let count = u16::try_from(entries.len()).unwrap_or(u16::MAX);
    let head_length = u32::try_from(head.len()).unwrap_or(u32::MAX);
    let numbers = numbers(head_length, bodies, first, count);
    let digest = frame_digest(&numbers, &head);
    let mut frame = Vec::with_capacity(FRAME_HEADER + head.len() + bodies as usize);
    frame.extend(numbers);
    frame.extend(digest.0);
    frame.extend(head);
    for (salt, body) in entries.iter().filter_map(|entry| entry.body.as_ref()) {
        frame.extend(salt);
        frame.extend(body);
    }
    frame
}

/// How long the header of the segment that begins at `first` is; `None` if none can begin there.
pub(super) fn segment_header_length(first: u64) -> Option<usize> {
    let hashes: usize = upper_widths(first)?.sum();
    Some(MAGIC.len() + 8 + Hash::LENGTH * hashes + Hash::LENGTH)
}

/// Writes a segment's header, from the edge's hashes of the levels from 1 on.
pub(super) fn encode_segment_header(first: u64, upper: &[Vec<Hash>]) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend(first.to_be_bytes());
    upper.iter().flatten().for_each(|hash| header.extend(hash.0));
    let digest = domain_digest(SEGMENT_DOMAIN, &[&header]);
    header.extend(digest.0);
    header
}

/// Reads the header of the segment that begins at `first`: the edge's hashes from level 1 on.
pub(super) fn decode_segment_header(first: u64, bytes: &[u8]) -> Option<Vec<Vec<Hash>>> {
    let (header, digest) = bytes.split_last_chunk::<32>()?;
    if domain_digest(SEGMENT_DOMAIN, &[header]).0 != *digest {
        return None;
    }
    let mut rest = header.strip_prefix(MAGIC)?;
    if u64::from_be_bytes(take(&mut rest)?) != first {
        return None;
    }
    let mut upper = Vec::new();
    for width in upper_widths(first)? {
        let level: Option<Vec<Hash>> = (0..width).map(|_| take(&mut rest).map(Hash)).collect();
        upper.push(level?);
    }
    rest.is_empty().then_some(upper)
}

fn numbers(head: u32, bodies: u64, first: u64, count: u16) -> [u8; FRAME_HEADER - 32] {
    let mut numbers = [0; FRAME_HEADER - 32];
    let parts = head
        .to_be_bytes()
        .into_iter()
        .chain(bodies.to_be_bytes())
        .chain(first.to_be_bytes())
        .chain(count.to_be_bytes());
    numbers.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
    numbers
}

fn frame_digest(numbers: &[u8], head: &[u8]) -> Hash {
    domain_digest(FRAME_DOMAIN, &[numbers, head])
}

fn domain_digest(domain: &[u8], parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(domain);
    parts.iter().for_each(|part| context.update(part));
    Hash::finish(context)
}

fn push_text(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(text);
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u16::from_be_bytes(take(rest)?);
    let (taken, after) = rest.split_at_checked(length.into())?;
    *rest = after;
    Some(taken)
}

const NO_BODY: u32 = u32::MAX;

const MAGIC: &[u8; 8] = b"mcpxjrn\x01";
const FRAME_DOMAIN: &[u8] = b"mcpx/frame/v1\0";
const SEGMENT_DOMAIN: &[u8] = b"mcpx/segment/v1\0";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(frame: &[u8]) -> Option<(FrameHeader, &[u8], &[u8])> {
        let (header, rest) = frame.split_first_chunk::<FRAME_HEADER>()?;
        let header = FrameHeader::decode(header)?;
        let (head, bodies) = rest.split_at_checked(header.head as usize)?;
        Some((header, head, bodies))
    }

    #[test]
    fn a_segment_header_fits_only_its_place() {
        let upper = vec![vec![Hash([1; 32]); 3], vec![Hash([2; 32])]];
        let first = 256 * (3 + 256);
        let header = encode_segment_header(first, &upper);
        assert_eq!(header.len(), segment_header_length(first).unwrap());
        assert_eq!(decode_segment_header(first, &header).unwrap(), upper);
        assert!(decode_segment_header(first + 256, &header).is_none());
        assert!(segment_header_length(first + 1).is_none());
        for place in 0..header.len() {
            let mut bytes = header.clone();
            bytes[place] ^= 1;
            assert!(decode_segment_header(first, &bytes).is_none(), "byte {place}");
        }
    }

    proptest! {
        #[test]
        fn frames_come_back_and_flips_are_noticed(
            first: u64,
            entries in proptest::collection::vec(
                (
                    proptest::collection::vec(any::<u8>(), 0..60),
                    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..60)),
                ),
                1..6,
            ),
            place: prop::sample::Index,
        ) {
            let prepared: Vec<Prepared> = entries
                .iter()
                .map(|(leaf, body)| Prepared {
                    leaf: leaf.clone(),
                    body: body.clone().map(|body| ([9; 32], body.into())),
                })
                .collect();
            let frame = encode_frame(first, &prepared, "note");
            let (header, head, bodies) = split(&frame).unwrap();
            prop_assert!(header.covers(head));
            prop_assert_eq!((header.first, header.total()), (first, frame.len() as u64));
            let read = FrameHead::decode(&header, head).unwrap();
            prop_assert_eq!(read.checkpoint, b"note");
            for (read, (leaf, body)) in read.entries.iter().zip(&entries) {
                prop_assert_eq!(read.leaf, leaf);
                prop_assert_eq!(read.body.is_some(), body.is_some());
                if let (Some(span), Some(body)) = (read.body, body) {
                    let part = &bodies[span.offset as usize..][..32 + span.length as usize];
                    prop_assert!(body_fits(part, &Commitment::new(&[9; 32], body)));
                }
            }
            // One flipped bit in header or head: not the same frame any more.
            let mut bytes = frame.clone();
            bytes[place.index(FRAME_HEADER + head.len())] ^= 1;
            prop_assert!(split(&bytes).is_none_or(|(header, head, _)| !header.covers(head)));
        }

        #[test]
        fn reading_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some((header, head, _)) = split(&bytes) {
                drop(FrameHead::decode(&header, head));
            }
            let sane = [&[0, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2][..], &bytes].concat();
            if let Some((header, head, _)) = split(&sane) {
                drop(FrameHead::decode(&header, head));
            }
            drop(decode_segment_header(256, &bytes));
        }
    }
}
