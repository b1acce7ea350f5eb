//! Values that a name gave away, to be masked wherever else the same message says them.
//!
//! This is what makes a text block and `structuredContent` agree: the one that carries field
//! names teaches the other. Matching is by whole words, so `Ann` is not found in `Annex`.

use std::collections::HashMap;

use super::class::Class;
use super::detect::Hit;

/// The values of one message, as a trie over words.
#[derive(Debug, Default)]
pub(super) struct Values {
    words: HashMap<Box<str>, u32>,
    /// From a node over a word to a node; the root is node 0.
    edges: HashMap<(u32, u32), u32>,
    /// The class of the value that ends at each node but the root.
    ends: Vec<Option<Class>>,
}

/// Longer values are masked in their place only.
const MOST_WORDS: usize = 16;
/// How many bytes may part two words of one value.
const WIDEST_GAP: usize = 3;

impl Values {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Remembers a value, unless it is too common to be recognised elsewhere.
    pub(super) fn add(&mut self, class: Class, value: &str) {
        let words: Vec<&str> = words(value).map(|(_, word)| word).take(MOST_WORDS + 1).collect();
        if words.len() > MOST_WORDS || !is_telling(&words) {
            return;
        }
        let mut node = 0;
        for word in words {
            let fresh = number(self.words.len());
            let word = match self.words.get(word) {
                Some(word) => *word,
                None => *self.words.entry(word.into()).or_insert(fresh),
            };
            let fresh = number(self.ends.len() + 1);
            node = *self.edges.entry((node, word)).or_insert(fresh);
            if node == fresh {
                self.ends.push(None);
            }
        }
        if let Some(end) = node.checked_sub(1).and_then(|at| self.ends.get_mut(at as usize)) {
            end.get_or_insert(class);
        }
    }

    /// Finds every remembered value in `text`, the longest at each place.
    pub(super) fn find(&self, text: &str, hits: &mut Vec<Hit>) {
        if self.is_empty() {
            return;
        }
        let found: Vec<(usize, usize, Option<u32>)> = words(text)
            .map(|(start, word)| (start, start + word.len(), self.words.get(word).copied()))
            .collect();
        let mut at = 0;
        while let Some((start, ..)) = found.get(at) {
            let mut node = 0;
            let mut previous_end = *start;
            let mut longest = None;
            for (ahead, (start, end, word)) in found.iter().skip(at).take(MOST_WORDS).enumerate() {
                let close = start.saturating_sub(previous_end) <= WIDEST_GAP;
                let next = word.filter(|_| close).and_then(|word| self.edges.get(&(node, word)));
                let Some(next) = next else { break };
                node = *next;
                previous_end = *end;
                if let Some(Some(class)) = self.ends.get((node as usize).saturating_sub(1)) {
                    longest = Some((*end, *class, ahead + 1));
                }
            }
            match longest {
                Some((end, class, used)) => {
                    hits.extend(Hit::new(text, *start..end, class));
                    at += used;
                }
                None => at += 1,
            }
        }
    }

    /// The class of the value that `text` is, if it is one.
    pub(super) fn class_of(&self, text: &str) -> Option<Class> {
        let mut hits = Vec::new();
        self.find(text, &mut hits);
        hits.first().filter(|hit| hit.range == (0..text.len())).map(|hit| hit.class)
    }
}

/// A message has fewer words than bytes, and at most 64 MiB of those.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Runs of letters and digits, with their offsets.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let inside = |b: &u8| b.is_ascii_alphanumeric() || !b.is_ascii();
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.as_bytes().get(at..)?;
        let start = at + rest.iter().position(inside)?;
        let word = text.as_bytes().get(start..)?;
        at = start + word.iter().position(|b| !inside(b)).unwrap_or(word.len());
        Some((start, text.get(start..at)?))
    })
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
        [word] => length >= 4 && !COMMON.iter().any(|common| word.eq_ignore_ascii_case(common)),
        _ if digits => length >= 7,
        _ => length >= 5,
    }
}

/// Whether at least three different bytes occur.
fn has_three_characters(words: &[&str]) -> bool {
    let mut bytes = words.iter().flat_map(|word| word.bytes());
    let Some(first) = bytes.next() else { return false };
    let Some(second) = bytes.find(|byte| *byte != first) else { return false };
    bytes.any(|byte| byte != first && byte != second)
}

/// Words that are names or values now and then and ordinary text most of the time.
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
    "main", "major", "mark", "market", "marsh", "mason", "masked", "master", "merry", "miles",
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
