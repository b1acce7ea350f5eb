//! A JSON text as a flat list of nodes, with the JSON that its strings hold in turn.
//!
//! Servers put JSON into text blocks, and tools put JSON into that. A [`Doc`] reads it all before
//! anything is decided, so that both passes of the engine walk the same ground.

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
    leaf: Option<u32>,
}

/// A parsed JSON text. It does not hold the text itself.
#[derive(Debug, Default)]
pub(super) struct Doc {
    nodes: Vec<Node>,
    leaves: Vec<Leaf>,
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
        if text.len() > LARGEST {
            return Err(MaskError::TooLarge { found: text.len(), limit: LARGEST });
        }
        let (mut doc, _) = Self::read(text, &mut Walker::new(text, DEPTH)).map_err(|e| e.0)?;
        doc.read_strings(text, 0)?;
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
        self.leaves.get(node.leaf? as usize)
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
    fn read(text: &str, walker: &mut Walker<'_>) -> Result<(Self, usize), (MaskError, usize)> {
        let mut doc = Self::default();
        let mut open: Vec<usize> = Vec::new();
        loop {
            let token = match walker.token() {
                Ok(Some(token)) => token,
                Ok(None) => return Ok((doc, walker.offset())),
                Err(error) => return Err((error.into(), walker.offset())),
            };
            let (start, end) = (offset(token.range.start), offset(token.range.end));
            if matches!(token.kind, Kind::EndObject | Kind::EndArray) {
                let next = offset(doc.nodes.len());
                if let Some(node) = open.pop().and_then(|at| doc.nodes.get_mut(at)) {
                    (node.end, node.next) = (end, next);
                }
                continue;
            }
            if matches!(token.kind, Kind::Object | Kind::Array) {
                open.push(doc.nodes.len());
            }
            let leaf = match token.escaped {
                true => {
                    let inside = text.get(token.range.start + 1..token.range.end - 1);
                    doc.leaves.push(Leaf {
                        decoded: unescape(inside.unwrap_or_default()),
                        regions: Vec::new(),
                    });
                    Some(offset(doc.leaves.len() - 1))
                }
                false => None,
            };
            let next = offset(doc.nodes.len() + 1);
            doc.nodes.push(Node { kind: token.kind, start, end, next, leaf });
        }
    }

    /// Looks into every string value for more JSON.
    fn read_strings(&mut self, text: &str, level: u8) -> Result<(), MaskError> {
        for at in 0..self.nodes.len() {
            let Some(node) = self.nodes.get(at).copied() else { continue };
            if node.kind != Kind::String {
                continue;
            }
            let regions = regions(self.string(text, &node), level)?;
            if regions.is_empty() {
                continue;
            }
            match node.leaf.and_then(|leaf| self.leaves.get_mut(leaf as usize)) {
                Some(leaf) => leaf.regions = regions,
                None => {
                    let leaf = offset(self.leaves.len());
                    self.leaves.push(Leaf { decoded: None, regions });
                    if let Some(node) = self.nodes.get_mut(at) {
                        node.leaf = Some(leaf);
                    }
                }
            }
        }
        Ok(())
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

/// Texts are at most [`LARGEST`] bytes, and no decoded text is longer than its raw form.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Finds the JSON in a text: all of it, or objects and arrays between other words (log lines, one
/// object per line, a sentence before and after).
pub(super) fn regions(text: &str, level: u8) -> Result<Regions, MaskError> {
    let mut regions = Vec::new();
    let trimmed = text.trim_ascii();
    let lead = text.len() - text.trim_ascii_start().len();
    let mut at = 0;
    if trimmed.starts_with('"')
        && trimmed.contains('\\')
        && let Ok((doc, _)) = Doc::read(trimmed, &mut Walker::new(trimmed, DEPTH))
    {
        push(&mut regions, lead..lead + trimmed.len(), doc, trimmed, true, level)?;
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
        match Doc::read(text, &mut Walker::prefix(text, start, DEPTH)) {
            Ok((doc, end)) => {
                let Some(part) = text.get(start..end) else { continue };
                let whole = part.len() == trimmed.len();
                at = end;
                push(&mut regions, start..end, doc, text, whole, level)?;
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

fn push(
    regions: &mut Regions,
    range: Range<usize>,
    mut doc: Doc,
    text: &str,
    whole: bool,
    level: u8,
) -> Result<(), MaskError> {
    if !doc.is_worth_it(whole) {
        return Ok(());
    }
    if level >= MOST_LEVELS {
        return Err(MaskError::TooDeep);
    }
    doc.read_strings(text, level + 1)?;
    regions.push((range, doc));
    Ok(())
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
