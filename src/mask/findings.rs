//! What was masked in a message, as far as anybody may know it: classes and places, no values.

use std::collections::BTreeMap;

use serde::Serialize;

use super::class::Class;
use super::path::{At, Places, Writer};

/// One masked value: what it was and where it stood, never the value itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What the value was.
    pub class: Class,
    /// A JSON pointer into the message (RFC 6901), in which `#` leads into JSON that a string
    /// holds and sensitive keys are shown masked; `text` in a text that is no JSON.
    pub pointer: String,
}

/// The masked values of a message, in its order.
///
/// Pointers are written when they are asked for: a message can be made to have far more bytes of
/// pointers than of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    found: Vec<(Class, At)>,
    places: Places,
    keys: Keys,
    /// Stands before every pointer.
    prefix: &'static str,
}

/// The keys of a message by their numbers, as they may be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    text: String,
    ends: Vec<usize>,
}

impl Findings {
    pub(super) fn new(found: Vec<(Class, At)>, places: Places, keys: Keys) -> Self {
        Self { found, places, keys, prefix: "" }
    }

    /// The same findings in a text of which the places are parts.
    pub(super) fn in_text(self) -> Self {
        Self { prefix: "text", ..self }
    }

    /// How many values were masked.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether nothing was masked.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Every masked value.
    pub fn iter(&self) -> impl Iterator<Item = Finding> {
        let mut writer = Writer::new(&self.places, self.prefix);
        self.found.iter().map(move |(class, at)| {
            let pointer = writer.pointer(*at, |key| self.keys.get(key)).to_owned();
            Finding { class: *class, pointer }
        })
    }

    /// How many values of each class were masked.
    pub fn counts(&self) -> BTreeMap<String, u32> {
        let mut counts = [0; Class::ALL.len()];
        for (class, _) in &self.found {
            if let Some(count) = counts.get_mut(class.index()) {
                *count += 1;
            }
        }
        let counted = Class::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
        counted.map(|(class, count)| (class.as_str().to_owned(), count)).collect()
    }
}

impl Keys {
    /// Adds the key with the next number.
    pub(super) fn push(&mut self, shown: &str) {
        self.text.push_str(shown);
        self.ends.push(self.text.len());
    }

    fn get(&self, number: u32) -> &str {
        let number = number as usize;
        let end = |at: usize| self.ends.get(at).copied();
        let start = number.checked_sub(1).map_or(Some(0), end);
        let range = start.zip(end(number));
        range.and_then(|(start, end)| self.text.get(start..end)).unwrap_or_default()
    }
}
