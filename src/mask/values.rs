//! Values that a name gave away, to be masked wherever else the same message says them.
//!
//! This is what makes a text block and `structuredContent` agree: the one that carries field
//! names teaches the other. Matching is by whole words, so `Ann` is not found in `Annex`.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::class::Class;
use super::detect::Hit;

/// The values of one message, as a trie over words in which a chain without branches is one node.
#[derive(Debug, Default)]
pub(super) struct Values<'a> {
    /// From a node over a word to a node. No edge leads into the root, node 0.
    edges: HashMap<(u32, &'a str), u32, RandomState>,
    nodes: Vec<Node<'a>>,
    first: FirstWords,
}

#[derive(Debug, Default)]
struct Node<'a> {
    /// The class of the value that ends here.
    end: Option<Class>,
    /// The rest of the only value that goes on from here; a node with edges has none.
    tail: Option<(&'a str, Class)>,
    has_edges: bool,
}

/// Longer values are masked in their place only.
const MOST_WORDS: usize = 16;
/// How many bytes may part two words of one value.
const WIDEST_GAP: usize = 3;

impl<'a> Values<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Remembers a value, unless it is too common to be recognised elsewhere.
    pub(super) fn add(&mut self, class: Class, value: &'a str) {
        let mut found = [""; MOST_WORDS];
        let mut count = 0;
        for (_, word) in Words::of(value, 0) {
            let Some(slot) = found.get_mut(count) else { return };
            *slot = word;
            count += 1;
        }
        if !is_telling(found.get(..count).unwrap_or_default()) {
            return;
        }
        if self.nodes.is_empty() {
            self.nodes.push(Node { has_edges: true, ..Node::default() });
        }
        let mut at = 0;
        let mut rest = value;
        while let Some((word, behind)) = split_word(rest) {
            if let Some(next) = self.edges.get(&(at, word)) {
                (at, rest) = (*next, behind);
                continue;
            }
            let Some(node) = self.nodes.get_mut(at as usize) else { return };
            match node.tail.take() {
                None if !node.has_edges => {
                    node.tail = Some((rest, class));
                    return;
                }
                Some((tail, known)) if same_words(tail, rest) => {
                    node.tail = Some((tail, known));
                    return;
                }
                // Two values part here, or one word further on.
                Some((tail, known)) => self.branch(at, tail, known),
                None => self.branch(at, rest, class),
            }
        }
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.end.get_or_insert(class);
        }
    }

    /// Adds an edge over the first word of `rest`; what follows is the new node's.
    fn branch(&mut self, at: u32, rest: &'a str, class: Class) {
        let Some((word, behind)) = split_word(rest) else { return };
        let next = number(self.nodes.len());
        let (end, tail) = match split_word(behind) {
            None => (Some(class), None),
            Some(_) => (None, Some((behind, class))),
        };
        self.nodes.push(Node { end, tail, has_edges: false });
        self.edges.insert((at, word), next);
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.has_edges = true;
        }
        if at == 0 && !self.first.add(word) {
            let roots = self.edges.keys().filter(|(at, _)| *at == 0);
            self.first = FirstWords::of(roots.map(|(_, word)| *word));
        }
    }

    /// Finds every remembered value in `text`, the longest at each place.
    pub(super) fn find(&self, text: &str, hits: &mut Vec<Hit>) {
        if self.is_empty() {
            return;
        }
        let mut words = Words::of(text, 0);
        while let Some((start, word)) = words.next() {
            if !self.first.may_be(word) {
                continue;
            }
            if let Some((end, class)) = self.longest(text, start) {
                hits.extend(Hit::new(text, start..end, class));
                words = Words::of(text, end);
            }
        }
    }

    /// Where the longest value that begins at `start` ends.
    fn longest(&self, text: &str, start: usize) -> Option<(usize, Class)> {
        let mut longest = None;
        let mut at = 0;
        let mut end = start;
        while let Some((next_end, word)) = next_word(text, end) {
            let Some(next) = self.edges.get(&(at, word)) else { break };
            (at, end) = (*next, next_end);
            let Some(node) = self.nodes.get(at as usize) else { break };
            if let Some(class) = node.end {
                longest = Some((end, class));
            }
            if let Some((tail, class)) = node.tail {
                let whole = Words::of(tail, 0).try_fold(end, |end, (_, expected)| {
                    next_word(text, end).filter(|(_, word)| *word == expected).map(|(end, _)| end)
                });
                return whole.map(|end| (end, class)).or(longest);
            }
        }
        longest
    }

    /// The class of the value that `text` is, if it is one.
    pub(super) fn class_of(&self, text: &str) -> Option<Class> {
        let (start, _) = Words::of(text, 0).next().filter(|(start, _)| *start == 0)?;
        let (end, class) = self.longest(text, start)?;
        Hit::new(text, 0..end, class).filter(|hit| hit.range.end == text.len()).map(|_| class)
    }
}

/// A message has fewer words than bytes, and at most 64 MiB of those.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// What the first words of values look like, which says no to most words of a text without
/// looking far away.
#[derive(Debug, Default)]
struct FirstWords {
    /// A power of two of them, or none.
    bits: Vec<u64>,
    count: usize,
}

impl FirstWords {
    const FEWEST: usize = 32;

    fn of<'w>(words: impl Iterator<Item = &'w str> + Clone) -> Self {
        // Eight bits for each word, and room for as many words again.
        let size = (words.clone().count() / 4).next_power_of_two().max(Self::FEWEST);
        let mut first = Self { bits: vec![0; size], count: 0 };
        for word in words {
            first.add(word);
        }
        first
    }

    /// Adds a word, unless there is too little room.
    fn add(&mut self, word: &str) -> bool {
        if self.count >= self.bits.len() * 8 {
            return false;
        }
        self.count += 1;
        let (at, bit) = self.place(word);
        if let Some(bits) = self.bits.get_mut(at) {
            *bits |= bit;
        }
        true
    }

    fn may_be(&self, word: &str) -> bool {
        let (at, bit) = self.place(word);
        self.bits.get(at).is_some_and(|bits| bits & bit != 0)
    }

    /// One bit for a word's length, first and last bytes.
    fn place(&self, word: &str) -> (usize, u64) {
        let bytes = word.as_bytes();
        let four = |bytes: Option<&[u8; 4]>| bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let (first, last) = match bytes {
            [] | [_] | [_, _] | [_, _, _] => {
                (bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)), 0)
            }
            _ => (four(bytes.first_chunk()), four(bytes.last_chunk())),
        };
        let mixed = (u64::from(first) << 32 | u64::from(last)) ^ (bytes.len() as u64) << 24;
        let mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let at = (mixed >> 38) as usize & self.bits.len().wrapping_sub(1);
        (at, 1 << (mixed >> 58))
    }
}

/// The first word, and what is behind it.
fn split_word(text: &str) -> Option<(&str, &str)> {
    let (start, word) = Words::of(text, 0).next()?;
    Some((word, text.get(start + word.len()..)?))
}

/// The word that follows closely on `end`, and where it ends.
fn next_word(text: &str, end: usize) -> Option<(usize, &str)> {
    let (start, word) = Words::of(text, end).next()?;
    (start - end <= WIDEST_GAP).then_some((start + word.len(), word))
}

fn same_words(a: &str, b: &str) -> bool {
    let words = |text| Words::of(text, 0).map(|(_, word)| word);
    a == b || words(a).eq(words(b))
}

/// Runs of letters and digits, with their offsets.
struct Words<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Words<'t> {
    /// The words of `text` from `at` on.
    fn of(text: &'t str, at: usize) -> Self {
        Self { text, at }
    }
}

impl<'t> Iterator for Words<'t> {
    type Item = (usize, &'t str);

    fn next(&mut self) -> Option<Self::Item> {
        const INSIDE: [bool; 256] = {
            let mut inside = [false; 256];
            let mut byte = 0;
            while byte < 256 {
                inside[byte] = byte >= 0x80 || (byte as u8).is_ascii_alphanumeric();
                byte += 1;
            }
            inside
        };
        let inside = |b: &u8| INSIDE.get(usize::from(*b)).is_some_and(|inside| *inside);
        let rest = self.text.as_bytes().get(self.at..)?;
        let start = self.at + rest.iter().position(inside)?;
        let word = self.text.as_bytes().get(start..)?;
        self.at = start + word.iter().position(|b| !inside(b)).unwrap_or(word.len());
        Some((start, self.text.get(start..self.at)?))
    }
}

/// Whether finding these words elsewhere means the same value, not a coincidence.
fn is_telling(words: &[&str]) -> bool {
    let length: usize = words.iter().map(|word| word.chars().count()).sum();
    let digits = words.iter().all(|word| word.bytes().all(|b| b.is_ascii_digit()));
    if !has_three_characters(words) {
        return false;
    }
    match words {
        [] => false,
        [_] if digits => length >= 6,
        [word] => length >= 4 && !is_common(word),
        _ if digits => length >= 7,
        _ => length >= 5,
    }
}

fn is_common(word: &str) -> bool {
    let lower = || word.bytes().map(|b| b.to_ascii_lowercase());
    COMMON.binary_search_by(|common| common.bytes().cmp(lower())).is_ok()
}

/// Whether at least three different bytes occur.
fn has_three_characters(words: &[&str]) -> bool {
    let mut bytes = words.iter().flat_map(|word| word.bytes());
    let Some(first) = bytes.next() else { return false };
    let Some(second) = bytes.find(|byte| *byte != first) else { return false };
    bytes.any(|byte| byte != first && byte != second)
}

/// Words that are names or values now and then and ordinary text most of the time, in order.
const COMMON: &[&str] = &[
    "active", "admin", "april", "area", "august", "baker", "bank", "bell", "best", "bill", "black",
    "blue", "book", "brown", "case", "chance", "change", "chase", "church", "city", "client",
    "closed", "code", "cook", "cross", "customer", "data", "date", "dawn", "dean", "default",
    "doctor", "early", "east", "email", "english", "faith", "field", "fields", "first", "fish",
    "five", "flowers", "ford", "forest", "four", "france", "free", "french", "friday", "friend",
    "front", "gold", "good", "grace", "grand", "grant", "gray", "great", "green", "group", "guest",
    "hall", "hand", "hard", "hart", "head", "high", "hill", "home", "hope", "house", "hunter",
    "input", "invalid", "iris", "israel", "item", "jordan", "judge", "june", "junior", "justice",
    "king", "lake", "land", "last", "later", "lily", "line", "list", "little", "long", "love",
    "main", "major", "mark", "market", "marsh", "masked", "mason", "master", "merry", "miles",
    "miller", "miss", "monday", "month", "moon", "morning", "name", "never", "news", "next",
    "night", "none", "north", "null", "office", "olive", "open", "order", "owner", "page", "paris",
    "park", "parker", "password", "patient", "peace", "pending", "person", "phone", "pilot",
    "place", "point", "poole", "power", "price", "prince", "public", "queen", "read", "record",
    "reed", "result", "rich", "river", "rivers", "road", "robin", "rock", "root", "rose", "ruby",
    "sales", "sand", "school", "second", "secret", "senior", "service", "seven", "sharp", "shop",
    "short", "silver", "small", "smart", "snow", "some", "south", "spring", "staff", "star",
    "state", "status", "steel", "stone", "storm", "street", "string", "strong", "student",
    "summer", "sunday", "support", "swift", "system", "table", "teacher", "test", "text", "that",
    "this", "three", "time", "title", "token", "town", "true", "type", "unknown", "user", "value",
    "violet", "wall", "ward", "water", "weaver", "week", "west", "white", "will", "winter", "wise",
    "wolf", "wood", "woods", "word", "work", "world", "year", "young",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(values: &[&str], text: &str) -> String {
        let mut known = Values::default();
        for value in values {
            known.add(Class::NAME, value);
        }
        let mut hits = Vec::new();
        known.find(text, &mut hits);
        let mut out = text.to_owned();
        for hit in hits.iter().rev() {
            out.replace_range(hit.range.clone(), "#");
        }
        out
    }

    #[test]
    fn whole_words_the_longest_first() {
        let values = ["Barbara", "Barbara Rollins", "Zoë Fünf", "555-010-9999", "12345678"];
        for (text, expected) in [
            ("Barbara Rollins and Barbara", "# and #"),
            ("Barbaras, xBarbara", "Barbaras, xBarbara"),
            ("Barbara  Rollins; Barbara - Rollins", "#; #"),
            ("Zoë Fünf", "#"),
            ("call (555) 010-9999 or 5550109999", "call (# or 5550109999"),
            ("mrn12345678 12345678.", "mrn12345678 #."),
        ] {
            assert_eq!(masked(&values, text), expected);
        }
    }

    proptest! {
        /// The trie finds what a plain list of values would.
        #[test]
        fn finds_what_a_list_would(
            values in proptest::collection::vec("[abc]{1,2}( [abc]{1,2}){1,5}", 0..12),
            text in "[abc]{1,2}( [abc]{1,2}|, [abc]{1,2}|     [abc]){0,30}",
        ) {
            let mut known = Values::default();
            for value in &values {
                known.add(Class::NAME, value);
            }
            let split = |text| Words::of(text, 0).map(|(_, word)| word).collect::<Vec<_>>();
            let values: Vec<Vec<&str>> =
                values.iter().map(|value| split(value)).filter(|words| is_telling(words)).collect();
            let words: Vec<(usize, &str)> = Words::of(&text, 0).collect();
            let mut expected = Vec::new();
            let mut at = 0;
            while let Some((start, _)) = words.get(at) {
                let fits = |value: &&Vec<&str>| {
                    let near = words.get(at..at + value.len())?;
                    let gaps = near.windows(2).all(|pair| {
                        pair[1].0 - pair[0].0 - pair[0].1.len() <= WIDEST_GAP
                    });
                    let same = near.iter().map(|(_, word)| word).eq(value.iter());
                    (gaps && same).then_some(())
                };
                let longest = values.iter().filter(|value| fits(value).is_some()).map(Vec::len).max();
                if let Some(longest) = longest {
                    let (last, word) = words[at + longest - 1];
                    expected.push(*start..last + word.len());
                }
                at += longest.unwrap_or(1);
            }
            let mut hits = Vec::new();
            known.find(&text, &mut hits);
            let found: Vec<_> = hits.into_iter().map(|hit| hit.range).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn many_first_words_are_all_found() {
        let values: Vec<String> = (0..5000).map(|number| format!("val{number}x")).collect();
        let mut known = Values::default();
        for value in &values {
            known.add(Class::NAME, value);
        }
        for value in &values {
            assert_eq!(known.class_of(value), Some(Class::NAME), "{value}");
        }
        assert_eq!(known.class_of("val5000x"), None);
    }

    #[test]
    fn common_words_are_in_order() {
        assert!(COMMON.is_sorted());
        assert!(COMMON.iter().all(|word| is_common(word) && is_common(&word.to_uppercase())));
    }

    #[test]
    fn common_and_short_values_teach_nothing() {
        let values = ["Will", "mark", "Lee", "0000", "12345", "aaaa", "", "--", "10-11", "Active"];
        let text = "Will mark Lee 0000 12345 aaaa 10-11 Active";
        assert_eq!(masked(&values, text), text);
        let mut known = Values::default();
        for value in values {
            known.add(Class::NAME, value);
        }
        assert!(known.is_empty());
    }
}
