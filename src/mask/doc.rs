//! A JSON text as a flat list of nodes, with the JSON that its strings hold in turn.
//!
//! Servers put JSON into text blocks, and tools put JSON into that. A [`Doc`] reads it all before
//! anything is decided: what a list of columns or a sibling says may stand behind what it is about.

use std::ops::Range;

use super::MaskError;
use crate::mcp::json::{Kind, Unescaped, WalkError, Walker, unescape};

/// How many times JSON may stand in a string of JSON.
pub(super) const MOST_LEVELS: u8 = 4;
/// The deepest nesting of arrays and objects at one level; what `mcp::message` accepts at most.
const DEPTH: usize = 127;
/// Offsets are 32 bits; no message comes near this.
const LARGEST: usize = 64 << 20;

/// One value or key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    start: u32,
    end: u32,
    /// The node behind everything that lies within this one.
    pub(super) next: u32,
    /// [`NO_LEAF`], or its leaf's number.
    leaf: u32,
}

const NO_LEAF: u32 = u32::MAX;

/// A parsed JSON text. It does not hold the text itself.
#[derive(Debug, Default)]
pub(super) struct Doc {
    nodes: Vec<Node>,
    leaves: Vec<Leaf>,
}

/// The space that documents are read into.
#[derive(Debug, Default)]
struct Space {
    nodes: Vec<Node>,
    leaves: Vec<Leaf>,
}

impl Space {
    /// What has been read. Small documents, of which a text can hold very many, leave the space
    /// where it is.
    fn take(&mut self) -> Doc {
        const SMALL: usize = 256;
        let leaves = std::mem::take(&mut self.leaves);
        if self.nodes.len() > SMALL {
            return Doc { nodes: std::mem::take(&mut self.nodes), leaves };
        }
        Doc { nodes: self.nodes.as_slice().to_vec(), leaves }
    }
}

/// A string that is not simply its raw form.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    decoded: Option<Unescaped>,
    pub(super) regions: Regions,
}

/// Where in a text JSON stands, in ascending order.
pub(super) type Regions = Vec<(Range<usize>, Doc)>;

impl Doc {
    /// Reads `text`, which must be one JSON value.
    pub(super) fn parse(text: &str) -> Result<Self, MaskError> {
        check_length(text)?;
        let space = &mut Space::default();
        let read = Self::read(text, &mut Walker::new(text, DEPTH), space);
        let (mut doc, _) = read.map_err(|(error, _)| error)?;
        doc.read_strings(text, 0, space)?;
        Ok(doc)
    }

    pub(super) fn node(&self, at: u32) -> Option<&Node> {
        self.nodes.get(at as usize)
    }

    /// The nodes directly within the array or object at `at`: elements, or keys and values in
    /// turn.
    pub(super) fn children(&self, at: u32) -> impl Iterator<Item = (u32, &Node)> {
        let end = self.node(at).map_or(0, |node| node.next);
        let mut next = at + 1;
        std::iter::from_fn(move || {
            let here = next;
            let node = self.node(here).filter(|_| here < end)?;
            next = node.next;
            Some((here, node))
        })
    }

    /// The leaf of a string that has one.
    pub(super) fn leaf(&self, node: &Node) -> Option<&Leaf> {
        self.leaves.get(node.leaf as usize)
    }

    /// What the key or string says.
    pub(super) fn string<'a>(&'a self, text: &'a str, node: &Node) -> &'a str {
        match self.leaf(node).and_then(|leaf| leaf.decoded.as_ref()) {
            Some(decoded) => decoded.text(),
            None => text.get(node.inside()).unwrap_or_default(),
        }
    }

    /// Where a range of a string's text stands in the document.
    pub(super) fn raw_range(&self, node: &Node, range: &Range<usize>) -> Range<usize> {
        let base = node.inside().start;
        let raw = match self.leaf(node).and_then(|leaf| leaf.decoded.as_ref()) {
            Some(decoded) => decoded.to_raw(range),
            None => range.clone(),
        };
        base + raw.start..base + raw.end
    }

    /// Reads one value. A failure also says how far the reading came.
    fn read(
        text: &str,
        walker: &mut Walker<'_>,
        space: &mut Space,
    ) -> Result<(Self, usize), (MaskError, usize)> {
        space.nodes.clear();
        space.leaves.clear();
        let Space { nodes, leaves } = &mut *space;
        // The innermost open container; while it is open, its `next` is the one around it.
        let mut open = u32::MAX;
        loop {
            let token = match walker.token() {
                Ok(Some(token)) => token,
                Ok(None) => return Ok((space.take(), walker.offset())),
                Err(error) => return Err((error.into(), walker.offset())),
            };
            let (start, end) = (offset(token.range.start), offset(token.range.end));
            let here = offset(nodes.len());
            if matches!(token.kind, Kind::EndObject | Kind::EndArray) {
                if let Some(node) = nodes.get_mut(open as usize) {
                    (node.end, open, node.next) = (end, node.next, here);
                }
                continue;
            }
            let mut next = here + 1;
            if matches!(token.kind, Kind::Object | Kind::Array) {
                next = std::mem::replace(&mut open, here);
            }
            let mut leaf = NO_LEAF;
            if token.escaped {
                let inside = text.get(token.range.start + 1..token.range.end - 1);
                leaf = offset(leaves.len());
                let decoded = unescape(inside.unwrap_or_default());
                leaves.push(Leaf { decoded, regions: Vec::new() });
            }
            nodes.push(Node { kind: token.kind, start, end, next, leaf });
        }
    }

    /// Looks into every string value for more JSON.
    fn read_strings(&mut self, text: &str, level: u8, space: &mut Space) -> Result<(), MaskError> {
        for at in 0..self.nodes.len() {
            let Some(node) = self.nodes.get(at).copied() else { continue };
            if node.kind != Kind::String {
                continue;
            }
            let regions = regions_in(self.string(text, &node), level, space)?;
            if regions.is_empty() {
                continue;
            }
            match self.leaves.get_mut(node.leaf as usize) {
                Some(leaf) => leaf.regions = regions,
                None => {
                    let leaf = offset(self.leaves.len());
                    self.leaves.push(Leaf { decoded: None, regions });
                    if let Some(node) = self.nodes.get_mut(at) {
                        node.leaf = leaf;
                    }
                }
            }
        }
        Ok(())
    }

    /// This document as one that stands in a text at `level`.
    fn within(mut self, text: &str, level: u8, space: &mut Space) -> Result<Self, MaskError> {
        if level >= MOST_LEVELS {
            return Err(MaskError::TooDeep);
        }
        self.read_strings(text, level + 1, space)?;
        Ok(self)
    }

    /// Whether reading this as JSON tells more than reading it as text.
    fn is_worth_it(&self, whole: bool) -> bool {
        match self.nodes.first().map(|node| node.kind) {
            Some(Kind::Object) => self.nodes.len() > 1,
            Some(Kind::Array) => self.nodes.iter().skip(1).any(|node| match node.kind {
                Kind::Object | Kind::Array => true,
                _ => whole,
            }),
            Some(Kind::String) => !self.leaves.is_empty(),
            _ => false,
        }
    }
}

impl Node {
    /// The whole of it, quotes and brackets included.
    pub(super) fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// A key or string without its quotes.
    fn inside(&self) -> Range<usize> {
        self.start as usize + 1..(self.end as usize).saturating_sub(1)
    }
}

/// A document and its text.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) text: &'a str,
    pub(super) doc: &'a Doc,
}

impl<'a> Place<'a> {
    pub(super) fn string(self, node: &'a Node) -> &'a str {
        self.doc.string(self.text, node)
    }

    pub(super) fn kind(self, at: u32) -> Option<Kind> {
        self.doc.node(at).map(|node| node.kind)
    }

    /// The string at `at`, if it is one.
    pub(super) fn string_at(self, at: u32) -> Option<&'a str> {
        let node = self.doc.node(at).filter(|node| node.kind == Kind::String)?;
        Some(self.string(node))
    }

    /// The value of the member `name` of the object at `at`.
    pub(super) fn member(self, at: u32, name: &str) -> Option<u32> {
        let mut keys = self.doc.children(at).filter(|(_, node)| node.kind == Kind::Key);
        keys.find(|(_, key)| self.string(key) == name).map(|(key, _)| key + 1)
    }
}

fn check_length(text: &str) -> Result<(), MaskError> {
    match text.len() {
        found if found > LARGEST => Err(MaskError::TooLarge { found, limit: LARGEST }),
        _ => Ok(()),
    }
}

/// The shortest text that is worth reading as JSON, such as `[[]]`.
const SHORTEST: usize = 4;

/// Texts are at most [`LARGEST`] bytes, and no decoded text is longer than its raw form.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Finds the JSON in a text: all of it, or objects and arrays between other words (log lines, one
/// object per line, a sentence before and after).
pub(super) fn regions(text: &str) -> Result<Regions, MaskError> {
    check_length(text)?;
    regions_in(text, 0, &mut Space::default())
}

fn regions_in(text: &str, level: u8, space: &mut Space) -> Result<Regions, MaskError> {
    let mut regions = Vec::new();
    if text.len() < SHORTEST {
        return Ok(regions);
    }
    let trimmed = text.trim_ascii();
    let lead = text.len() - text.trim_ascii_start().len();
    let mut at = 0;
    if trimmed.starts_with('"')
        && trimmed.contains('\\')
        && let Ok((doc, _)) = Doc::read(trimmed, &mut Walker::new(trimmed, DEPTH), space)
    {
        if doc.is_worth_it(true) {
            let doc = doc.within(trimmed, level, space)?;
            regions.push((lead..lead + trimmed.len(), doc));
        }
        return Ok(regions);
    }
    // Reading on from each bracket of a text that only looks like JSON would be quadratic, so
    // failed attempts may read as much as the text again, twice, and then it is plain text.
    let mut budget = 2 * text.len() + 256;
    while let Some(step) =
        text.as_bytes().get(at..).and_then(|rest| memchr::memchr2(b'{', b'[', rest))
    {
        let start = at + step;
        at = start + 1;
        if !is_promising(text.as_bytes().get(start..).unwrap_or_default()) {
            continue;
        }
        match Doc::read(text, &mut Walker::prefix(text, start, DEPTH), space) {
            Ok((doc, end)) => {
                let Some(part) = text.get(start..end) else { continue };
                let whole = part.len() == trimmed.len();
                at = end;
                if doc.is_worth_it(whole) {
                    regions.push((start..end, doc.within(text, level, space)?));
                }
            }
            Err((MaskError::Malformed, read)) => {
                match budget.checked_sub(read.saturating_sub(start)) {
                    Some(left) => budget = left,
                    None => break,
                }
            }
            Err((error, _)) => return Err(error),
        }
    }
    Ok(regions)
}

/// Whether what begins with this bracket may be an object, or an array with something in it.
fn is_promising(text: &[u8]) -> bool {
    let first = text.iter().skip(1).take(64).find(|b| !b.is_ascii_whitespace());
    match text.first() {
        Some(b'{') => first == Some(&b'"'),
        _ => matches!(first, Some(b'{' | b'[' | b'"')),
    }
}

impl From<WalkError> for MaskError {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::Malformed { .. } => Self::Malformed,
            WalkError::TooDeep { .. } => Self::TooDeep,
        }
    }
}
