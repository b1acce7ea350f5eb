//! Where in a message something was found, or may be once all of it has been read, and the edits
//! that come of it.

use std::ops::Range;

use super::class::Class;
use super::detect::{self, Hit};
use super::doc::{Doc, Node};
use super::findings::{Findings, Keys};
use super::keys;
use super::path::At;
use super::walk::Walk;
use crate::mcp::json::{SpliceError, Splicer, escape};

/// A message with everything replaced, if anything had to be, and what that was. An error means
/// that two edits overlap, which never happens; half of them would let values through.
pub(super) type Masking = Result<(Option<Vec<u8>>, Findings), SpliceError>;

/// The texts and numbers of a message that may have to change, in its order.
#[derive(Default)]
pub(super) struct Sites<'a> {
    levels: Vec<Level<'a>>,
    sites: Vec<Site<'a>>,
    /// The hits of all sites, in their order.
    hits: Vec<Hit>,
}

/// A document, or at the root perhaps a text: the message, or JSON that one of its strings holds.
struct Level<'a> {
    doc: Option<&'a Doc>,
    /// What of the level above holds this one.
    holder: Option<Holder<'a>>,
}

/// Where a stretch of text stands.
#[derive(Clone, Copy)]
pub(super) struct Holder<'a> {
    /// The level.
    pub(super) level: u32,
    /// The string of that level's document; otherwise the level's text itself.
    pub(super) node: Option<&'a Node>,
    /// Where in that string, or that text, it begins.
    pub(super) base: u32,
}

impl Holder<'_> {
    /// The stretch that begins at `base`.
    pub(super) fn at(self, base: usize) -> Self {
        // No message comes near 4 GiB.
        Self { base: u32::try_from(base).unwrap_or(u32::MAX), ..self }
    }
}

struct Site<'a> {
    text: &'a str,
    holder: Holder<'a>,
    path: At,
    /// How many of the hits are its own.
    hits: u32,
    search: Search,
}

/// Whether a site is also searched for values that were learnt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    /// Its name says what it is.
    Not,
    /// Everywhere within it.
    Within,
    /// It is a number, and may be one of them.
    Number,
}

impl<'a> Sites<'a> {
    /// Begins with the root: a document, or a text.
    pub(super) fn root(&mut self, doc: Option<&'a Doc>) -> u32 {
        self.level(Level { doc, holder: None })
    }

    /// A document within a string.
    pub(super) fn enter(&mut self, holder: Holder<'a>, doc: &'a Doc) -> u32 {
        self.level(Level { doc: Some(doc), holder: Some(holder) })
    }

    fn level(&mut self, level: Level<'a>) -> u32 {
        self.levels.push(level);
        // A message has fewer levels than bytes.
        u32::try_from(self.levels.len() - 1).unwrap_or(u32::MAX)
    }

    pub(super) fn add(
        &mut self,
        text: &'a str,
        holder: Holder<'a>,
        path: At,
        hits: impl IntoIterator<Item = Hit>,
        search: Search,
    ) {
        let before = self.hits.len();
        self.hits.extend(hits);
        let hits = u32::try_from(self.hits.len() - before).unwrap_or(u32::MAX);
        self.sites.push(Site { text, holder, path, hits, search });
    }

    /// Where a range of a stretch of text stands in the message, and in how many strings, one
    /// within the other.
    pub(super) fn in_message(
        &self,
        holder: Holder<'a>,
        mut range: Range<usize>,
    ) -> (Range<usize>, u32) {
        let mut strings = 0;
        let mut next = Some(holder);
        while let Some(Holder { level, node, base }) = next {
            let base = base as usize;
            range = base + range.start..base + range.end;
            let level = self.levels.get(level as usize);
            if let (Some(node), Some(doc)) = (node, level.and_then(|level| level.doc)) {
                range = doc.raw_range(node, &range);
                strings += 1;
            }
            next = level.and_then(|level| level.holder);
        }
        (range, strings)
    }
}

/// The masked message, as far as it has been written.
struct Output<'a> {
    text: &'a str,
    /// How many bytes longer it may become; a guess.
    growth: usize,
    splicer: Option<Splicer<'a>>,
    found: Vec<(Class, At)>,
}

impl Output<'_> {
    /// Replaces a range by what is already escaped as often as it must be.
    fn replace(
        &mut self,
        range: Range<usize>,
        replacement: &str,
        why: (Class, At),
    ) -> Result<(), SpliceError> {
        self.found.push(why);
        let new = || Splicer::new(self.text.as_bytes(), self.growth);
        self.splicer.get_or_insert_with(new).replace(range, replacement)
    }
}

impl Walk<'_> {
    /// Looks for what was learnt, and writes the message with everything replaced.
    pub(super) fn finish(mut self) -> Masking {
        let masked_keys = keys::masked(&mut self);
        let sites = std::mem::take(&mut self.sites);
        if sites.hits.is_empty() && self.values.is_empty() && masked_keys.is_empty() {
            return Ok((None, Findings::default()));
        }
        let expected = sites.hits.len();
        let found = Vec::with_capacity(expected);
        let mut output = Output { text: self.text, growth: 8 * expected, splicer: None, found };
        let mut changed_keys =
            keys::changes(&mut self, &sites, &masked_keys).into_iter().peekable();
        let mut hits = Vec::new();
        let mut replacement = String::new();
        let mut known = sites.hits.iter();
        for site in &sites.sites {
            hits.clear();
            hits.extend(known.by_ref().take(site.hits as usize).cloned());
            match site.search {
                Search::Not => {}
                Search::Within => self.values.find(site.text, &mut hits),
                Search::Number => {
                    let class = self.values.class_of(site.text);
                    hits.extend(class.and_then(|class| Hit::number(site.text, class)));
                }
            }
            detect::settle(site.text, &mut hits);
            for hit in &hits {
                let (range, strings) = sites.in_message(site.holder, hit.range.clone());
                while let Some(key) = changed_keys.next_if(|key| key.range.start < range.start) {
                    output.replace(key.range, &key.replacement, (key.class, key.path))?;
                }
                replacement.clear();
                hit.write(site.text, &mut replacement);
                escape_in(strings, &mut replacement);
                output.replace(range, &replacement, (hit.class, site.path))?;
            }
        }
        for key in changed_keys {
            output.replace(key.range, &key.replacement, (key.class, key.path))?;
        }
        let Some(splicer) = output.splicer else { return Ok((None, Findings::default())) };
        let mut shown = Keys::default();
        for (number, (text, _)) in (0..).zip(&self.names.names) {
            shown.push(masked_keys.get(&number).map_or(*text, |masked| &masked.replacement));
        }
        let findings = Findings::new(output.found, self.path.into_places(), shown);
        Ok((Some(splicer.finish()?), findings))
    }
}

/// Escapes what stands in so many strings, one within the other.
pub(super) fn escape_in(strings: u32, text: &mut String) {
    let needs_escape = |text: &str| text.bytes().any(|b| matches!(b, b'"' | b'\\') || b < b' ');
    // What needs no escape in one string needs none in the next.
    if needs_escape(text) {
        for _ in 0..strings {
            *text = escape(text);
        }
    }
}
