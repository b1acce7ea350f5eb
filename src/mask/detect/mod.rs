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
use super::redact::{self, How};

pub(super) use self::digits::is_card;
pub(super) use self::pairs::{fits, is_trivial};
pub(super) use self::secrets::Secrets;

/// One stretch of text to be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) range: Range<usize>,
    pub(super) class: Class,
    pub(super) how: How,
}

impl Hit {
    /// A hit on `range`, unless it is masked already.
    pub(super) fn new(text: &str, range: Range<usize>, class: Class) -> Option<Self> {
        let how = redact::how(class, text.get(range.clone())?)?;
        Some(Self { range, class, how })
    }

    /// A hit on a whole number, unless it says nothing already.
    pub(super) fn number(raw: &str, class: Class) -> Option<Self> {
        redact::how_number(raw).map(|how| Self { range: 0..raw.len(), class, how })
    }

    /// Adds what replaces this stretch of `text` to `out`.
    pub(super) fn write(&self, text: &str, out: &mut String) {
        self.how.write(self.class, text.get(self.range.clone()).unwrap_or_default(), out);
    }
}

/// What was found in one text. Kept from text to text for its space.
#[derive(Debug, Default)]
pub(super) struct Finds {
    /// Unsorted and perhaps overlapping.
    pub(super) hits: Vec<Hit>,
    /// What only its surroundings give away: values named in the text, and bare social security
    /// numbers near those words. They are then masked everywhere.
    pub(super) named: Vec<(Class, Range<usize>)>,
    bare_ssns: Vec<Range<usize>>,
}

/// The finders, with the classes that are off left out.
#[derive(Debug)]
pub(super) struct Detector {
    /// By [`Class::index`].
    on: [bool; Class::ALL.len()],
    secrets: Secrets,
}

/// What is worth looking for in a text, from one look at its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Traits {
    digits: bool,
    at: bool,
    pair: bool,
}

impl Traits {
    /// Counts in blocks, which the compiler turns into a few instructions each.
    fn of(text: &[u8]) -> Self {
        let mut digits = 0;
        let mut at = false;
        let mut pair = false;
        let (blocks, rest) = text.as_chunks::<32>();
        let mut look = |block: &[u8]| {
            let mut count = 0_u8;
            for byte in block {
                count += u8::from(byte.is_ascii_digit());
                at |= *byte == b'@';
                pair |= (*byte == b':') | (*byte == b'=');
            }
            digits += usize::from(count);
        };
        for block in blocks {
            look(block);
        }
        look(rest);
        Self { digits: digits >= FEWEST_DIGITS, at, pair }
    }
}

/// Fewer digits than this make neither a card, an SSN nor an IBAN (`MT`'s and others' letters
/// aside, every IBAN has at least eight).
const FEWEST_DIGITS: usize = 8;

impl Detector {
    pub(super) fn new(off: HashSet<Class>) -> Self {
        let mut on = [true; Class::ALL.len()];
        for class in off {
            if let Some(on) = on.get_mut(class.index()) {
                *on = false;
            }
        }
        Self { on, secrets: Secrets::new() }
    }

    pub(super) fn is_on(&self, class: Class) -> bool {
        self.on.get(class.index()).copied().unwrap_or(true)
    }

    /// Everything in `text` that looks sensitive, in place of what `finds` held.
    pub(super) fn find(&self, fields: &Fields, field: Field, text: &str, finds: &mut Finds) {
        finds.hits.clear();
        finds.named.clear();
        finds.bare_ssns.clear();
        let traits = Traits::of(text.as_bytes());
        if traits.digits {
            digits::find(fields, field, text, finds);
        }
        if traits.at {
            email::find(text, &mut finds.hits);
        }
        self.secrets.find(text, &mut finds.hits);
        finds.hits.retain(|hit| self.is_on(hit.class));
        // Classes that are off have no names either.
        if traits.pair {
            let from = finds.hits.len();
            pairs::find(fields, text, &mut finds.hits);
            let pairs = finds.hits.iter().skip(from);
            finds.named.extend(pairs.map(|hit| (hit.class, hit.range.clone())));
        }
        if self.is_on(Class::SSN) {
            let bare = finds.bare_ssns.drain(..);
            finds.named.extend(bare.map(|range| (Class::SSN, range)));
        }
    }
}

/// Sorts hits and settles overlaps: what lies within another hit goes; two that cross become one
/// whose whole text is masked, to the end of the word, so that what is left of it cannot look like
/// something new.
pub(super) fn settle(text: &str, hits: &mut Vec<Hit>) {
    if hits.len() < 2 {
        return;
    }
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
            kept.how = How::Whole;
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
    use proptest::prelude::*;

    use super::*;
    use crate::mask::Rules;

    /// `text` with every hit replaced.
    pub(crate) fn masked(text: &str) -> String {
        let fields = Fields::new(&Rules::default(), &HashSet::new()).unwrap();
        let mut finds = Finds::default();
        Detector::new(HashSet::new()).find(&fields, Field::NONE, text, &mut finds);
        let mut hits = finds.hits;
        settle(text, &mut hits);
        let mut out = String::new();
        let mut at = 0;
        for hit in hits {
            out += &text[at..hit.range.start];
            hit.write(text, &mut out);
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
    fn traits_are_seen_wherever_they_stand() {
        for length in [0, 1, 31, 32, 33, 64, 100] {
            for at in 0..length {
                let mut text = vec![b'x'; length];
                assert_eq!(Traits::of(&text), Traits::default());
                for (byte, traits) in [
                    (b'@', Traits { at: true, ..Traits::default() }),
                    (b':', Traits { pair: true, ..Traits::default() }),
                    (b'=', Traits { pair: true, ..Traits::default() }),
                ] {
                    text[at] = byte;
                    assert_eq!(Traits::of(&text), traits, "{length} {at}");
                }
                text[at] = b'x';
                let digits = text[at..].iter_mut().take(FEWEST_DIGITS).map(|b| *b = b'7').count();
                assert_eq!(Traits::of(&text).digits, digits == FEWEST_DIGITS, "{length} {at}");
            }
        }
        assert!(Traits::of(&[b'1'; 10_000]).digits);
    }

    proptest! {
        /// What the gates turn away, no finder would have found anything in.
        #[test]
        fn gates_turn_nothing_away_that_a_finder_finds(
            text in proptest::collection::vec(prop_oneof![
                "[0-9]{1,19}", "[ .:=@-]", "[A-Za-z]{1,4}", "\\PC{0,3}",
                proptest::sample::select(vec![
                    "ssn ", "078-05-1120", "078051120", "4111 1111 1111 1111", "password", "email",
                    "GB82WEST12345698765432", "NO9386011117947", "@example.org", "Ada King", "dob",
                ]).prop_map(str::to_owned),
            ], 0..8).prop_map(|parts| parts.concat()),
        ) {
            let fields = Fields::new(&Rules::default(), &HashSet::new()).unwrap();
            let traits = Traits::of(text.as_bytes());
            let mut finds = Finds::default();
            digits::find(&fields, Field::NONE, &text, &mut finds);
            prop_assert!(traits.digits || (finds.hits.is_empty() && finds.bare_ssns.is_empty()));
            let mut hits = Vec::new();
            email::find(&text, &mut hits);
            prop_assert!(traits.at || hits.is_empty());
            hits.clear();
            pairs::find(&fields, &text, &mut hits);
            prop_assert!(traits.pair || hits.is_empty());
        }
    }

    #[test]
    fn crossing_hits_leave_nothing_over() {
        let hit = |range, class| Hit { range, class, how: How::Email };
        let mut hits = vec![hit(4..9, Class::SSN), hit(0..6, Class::EMAIL), hit(1..2, Class::CARD)];
        settle("abcdefghi-jk", &mut hits);
        assert_eq!(hits.len(), 1);
        assert_eq!(hits[0].range, 0..9);
        assert_eq!((hits[0].class, hits[0].how), (Class::EMAIL, How::Whole));
    }
}
