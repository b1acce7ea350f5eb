//! Names cut into words, and tables of words that say no quickly.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::LONGEST_NAME;

/// More words than this are cut off at the beginning: what a name holds stands at its end.
const MOST_WORDS: usize = 10;
/// No character's lower case is more than three times as long as the character.
const LONGEST_COMPACT: usize = 3 * LONGEST_NAME;

/// A name's words in lower case, one behind the other without separators.
pub(super) struct Words {
    text: [u8; LONGEST_COMPACT],
    /// Where the words begin, and at last where they end.
    bounds: [u8; MOST_WORDS + 1],
    count: usize,
}

impl Words {
    /// Cuts a name at separators, case changes and digits. Of a name longer than
    /// [`LONGEST_NAME`] only the beginning is read.
    pub(super) fn of(name: &str) -> Self {
        let mut words = Self { text: [0; _], bounds: [0; _], count: 0 };
        let mut length = 0;
        let mut begun = false;
        let mut previous = ' ';
        let mut rest = name.chars().peekable();
        while let Some(character) = rest.next() {
            let mut lower_next = || rest.peek().is_some_and(|next| next.is_lowercase());
            let part = character.is_alphanumeric();
            let cut = character.is_numeric() != previous.is_numeric()
                || (character.is_uppercase()
                    && (previous.is_lowercase() || (previous.is_uppercase() && lower_next())));
            if begun && (cut || !part) {
                words.end_word(length);
                begun = false;
            }
            if part {
                begun = true;
                length += words.push(length, character);
            }
            previous = character;
        }
        if begun {
            words.end_word(length);
        }
        words
    }

    /// Writes a character in lower case at `at`; says how many bytes it took.
    fn push(&mut self, at: usize, character: char) -> usize {
        let mut length = 0;
        let mut push = |lower: char| {
            let mut bytes = [0; 4];
            let bytes = lower.encode_utf8(&mut bytes).as_bytes();
            if let Some(slot) = self.text.get_mut(at + length..at + length + bytes.len()) {
                slot.copy_from_slice(bytes);
                length += bytes.len();
            }
        };
        if character.is_ascii() {
            push(character.to_ascii_lowercase());
        } else {
            character.to_lowercase().for_each(push);
        }
        length
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn word(&self, at: usize) -> &[u8] {
        self.joined(at, at + 1)
    }

    /// The words from `start` up to `end`, joined.
    pub(super) fn joined(&self, start: usize, end: usize) -> &[u8] {
        let bound = |at: usize| self.bounds.get(at).map_or(0, |bound| usize::from(*bound));
        self.text.get(bound(start)..bound(end)).unwrap_or_default()
    }

    fn end_word(&mut self, end: usize) {
        if self.count == MOST_WORDS {
            self.bounds.rotate_left(1);
        } else {
            self.count += 1;
        }
        if let Some(bound) = self.bounds.get_mut(self.count) {
            *bound = u8::try_from(end).unwrap_or(u8::MAX);
        }
    }
}

/// Words and what they mean.
#[derive(Debug)]
pub(super) struct Lexicon<V> {
    entries: HashMap<Box<[u8]>, V, RandomState>,
    /// Bit `n` of entry `c`: some word of `n` bytes ends in the letter `c`. Asked first, since most
    /// words of a message are in no lexicon.
    lengths: [u64; 32],
}

impl<V> Default for Lexicon<V> {
    fn default() -> Self {
        Self { entries: HashMap::default(), lengths: [0; 32] }
    }
}

impl<V> Lexicon<V> {
    pub(super) fn insert(&mut self, word: &[u8], value: V) {
        let (letter, length) = look(word);
        if let Some(lengths) = self.lengths.get_mut(letter) {
            *lengths |= length;
        }
        self.entries.insert(word.into(), value);
    }

    pub(super) fn get(&self, word: &[u8]) -> Option<&V> {
        let (letter, length) = look(word);
        self.lengths.get(letter).filter(|lengths| **lengths & length != 0)?;
        self.entries.get(word)
    }

    pub(super) fn words(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.keys().map(|word| &**word)
    }
}

/// A word's last letter as a number below 32, and its length as a bit.
fn look(word: &[u8]) -> (usize, u64) {
    (word.last().map_or(0, |last| usize::from(last & 31)), 1 << word.len().min(63))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(name: &str) -> Vec<String> {
        let words = Words::of(name);
        (0..words.count()).map(|at| String::from_utf8(words.word(at).to_vec()).unwrap()).collect()
    }

    #[test]
    fn names_are_cut() {
        for (name, expected) in [
            ("patientSSN", "patient ssn"),
            ("SSNNumber", "ssn number"),
            ("PATIENT-SSN_2x", "patient ssn 2 x"),
            ("  a..b  ", "a b"),
            ("", ""),
            ("--", ""),
            ("ÄrzteName", "ärzte name"),
            ("a b c d e f g h i j k l", "c d e f g h i j k l"),
        ] {
            assert_eq!(words(name).join(" "), expected, "{name:?}");
        }
        let longest = "\u{212a}".repeat(LONGEST_NAME / 3);
        assert_eq!(words(&longest), ["k".repeat(LONGEST_NAME / 3)]);
        assert_eq!(words(&"Ⱥ".repeat(40)), ["ⱥ".repeat(40)]);
        assert_eq!(Words::of(&"x".repeat(1000)).joined(0, 1).len(), LONGEST_COMPACT);
    }

    proptest! {
        #[test]
        fn a_lexicon_is_a_map(
            entries in proptest::collection::vec(("[a-cé]{0,4}", any::<u8>()), 0..12),
            words in proptest::collection::vec("[a-cé]{0,4}", 0..40),
        ) {
            let mut lexicon = Lexicon::default();
            let mut map = HashMap::new();
            for (word, value) in &entries {
                lexicon.insert(word.as_bytes(), *value);
                map.insert(word, *value);
            }
            for word in words.iter().chain(entries.iter().map(|(word, _)| word)) {
                prop_assert_eq!(lexicon.get(word.as_bytes()), map.get(word));
            }
        }
    }

    #[test]
    fn a_lexicon_knows_its_words_only() {
        let mut lexicon = Lexicon::default();
        lexicon.insert(b"ssn", 1);
        lexicon.insert("größe".as_bytes(), 2);
        lexicon.insert(&[b'x'; 200], 3);
        assert_eq!(lexicon.get(b"ssn"), Some(&1));
        assert_eq!(lexicon.get("größe".as_bytes()), Some(&2));
        assert_eq!(lexicon.get(&[b'x'; 200]), Some(&3));
        for word in ["", "s", "sn", "san", "ssnn", "SSN", "grösse"] {
            assert_eq!(lexicon.get(word.as_bytes()), None, "{word}");
        }
    }
}
