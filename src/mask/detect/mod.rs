//! Finding sensitive values in plain text by what they look like.
//!
//! Each finder is linear: a cheap gate (a byte that must be there, a literal, a run of digits)
//! and then a check of bounded length at that place. No finder backtracks over the text.

mod digits;
mod email;
mod iban;
mod pairs;
mod secrets;

use std::collections::HashSet;
use std::ops::Range;

use super::class::Class;
use super::fields::{Field, Fields};
use super::redact;

pub(super) use self::digits::is_card;
pub(super) use self::pairs::{fits, is_trivial};
pub(super) use self::secrets::Secrets;

/// One stretch of text to be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) range: Range<usize>,
    pub(super) class: Class,
    pub(super) replacement: String,
}

impl Hit {
    /// A hit on `range`, unless it is masked already.
    pub(super) fn new(text: &str, range: Range<usize>, class: Class) -> Option<Self> {
        let value = text.get(range.clone())?;
        let replacement = redact::replacement(class, value);
        (replacement != value).then_some(Self { range, class, replacement })
    }
}

/// The finders, with the classes that are off left out.
#[derive(Debug)]
pub(super) struct Detector {
    off: HashSet<Class>,
    secrets: Secrets,
}

/// What is worth looking for in a text, from one look at its bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Traits {
    digits: usize,
    at: bool,
    pair: bool,
}

impl Traits {
    fn of(text: &str) -> Self {
        let mut traits = Self::default();
        for byte in text.bytes() {
            traits.digits += usize::from(byte.is_ascii_digit());
            traits.at |= byte == b'@';
            traits.pair |= byte == b':' || byte == b'=';
        }
        traits
    }
}

/// Fewer digits than this make neither a card, an SSN nor an IBAN (`MT`'s and others' letters
/// aside, every IBAN has at least eight).
const FEWEST_DIGITS: usize = 8;

impl Detector {
    pub(super) fn new(off: HashSet<Class>) -> Self {
        Self { off, secrets: Secrets::new() }
    }

    pub(super) fn is_on(&self, class: Class) -> bool {
        !self.off.contains(&class)
    }

    /// Everything in `text` that looks sensitive, unsorted and perhaps overlapping.
    pub(super) fn find(&self, fields: &Fields, field: Field, text: &str, hits: &mut Vec<Hit>) {
        let traits = Traits::of(text);
        let from = hits.len();
        if traits.digits >= FEWEST_DIGITS {
            digits::find(fields, field, text, hits);
        }
        if traits.at {
            email::find(text, hits);
        }
        self.secrets.find(text, hits);
        if hits.len() > from && !self.off.is_empty() {
            let found = hits.split_off(from);
            hits.extend(found.into_iter().filter(|hit| self.is_on(hit.class)));
        }
        // Classes that are off have no names either.
        if traits.pair {
            pairs::find(fields, text, hits);
        }
    }

    /// What only its surroundings give away: values named in the text, and bare social security
    /// numbers near those words. Found apart because they are then masked everywhere.
    pub(super) fn find_named(&self, fields: &Fields, text: &str, hits: &mut Vec<Hit>) {
        let traits = Traits::of(text);
        if traits.pair {
            pairs::find(fields, text, hits);
        }
        if traits.digits >= FEWEST_DIGITS && self.is_on(Class::SSN) {
            digits::find_bare_ssn(text, hits);
        }
    }
}

/// Sorts hits and settles overlaps: what lies within another hit goes; two that cross become one
/// whose whole text is masked, to the end of the word, so that what is left of it cannot look like
/// something new.
pub(super) fn settle(text: &str, hits: &mut Vec<Hit>) {
    hits.sort_by(|a, b| {
        a.range.start.cmp(&b.range.start).then_with(|| b.range.end.cmp(&a.range.end))
    });
    hits.dedup_by(|next, kept| {
        if next.range.start >= kept.range.end {
            return false;
        }
        if next.range.end > kept.range.end {
            let rest = text.get(next.range.end..).unwrap_or_default();
            let word = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
            kept.range.end = next.range.end + word;
            kept.replacement = redact::whole(kept.class);
        }
        true
    });
}

/// The byte at `at`; NUL outside the text.
fn byte(text: &str, at: usize) -> u8 {
    text.as_bytes().get(at).copied().unwrap_or(0)
}

/// The byte before `at`; NUL at the beginning.
fn before(text: &str, at: usize) -> u8 {
    at.checked_sub(1).map_or(0, |at| byte(text, at))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::mask::Rules;

    /// `text` with every hit replaced.
    pub(crate) fn masked(text: &str) -> String {
        let fields = Fields::new(&Rules::default(), &HashSet::new()).unwrap();
        let mut hits = Vec::new();
        Detector::new(HashSet::new()).find(&fields, Field::NONE, text, &mut hits);
        settle(text, &mut hits);
        let mut out = String::new();
        let mut at = 0;
        for hit in hits {
            out += &text[at..hit.range.start];
            out += &hit.replacement;
            at = hit.range.end;
        }
        out + &text[at..]
    }

    /// Asserts that each text is left alone.
    pub(crate) fn untouched(texts: &[&str]) {
        for text in texts {
            assert_eq!(masked(text), *text);
        }
    }

    #[test]
    fn crossing_hits_leave_nothing_over() {
        let hit = |range, class| Hit { range, class, replacement: "x".to_owned() };
        let mut hits = vec![hit(4..9, Class::SSN), hit(0..6, Class::EMAIL), hit(1..2, Class::CARD)];
        settle("abcdefghi-jk", &mut hits);
        assert_eq!(hits.len(), 1);
        assert_eq!(hits[0].range, 0..9);
        assert_eq!(hits[0].replacement, "[pii.email masked]");
    }
}
