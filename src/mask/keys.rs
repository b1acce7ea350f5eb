//! Keys that are themselves sensitive, such as those of a map by e-mail address: masked without
//! making two of an object's keys equal.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::class::Class;
use super::detect::{self, Hit};
use super::fields::Field;
use super::path::{At, Step};
use super::sites::{Holder, Sites, escape_in};
use super::walk::{Here, Walk};
use crate::mcp::json::Kind;

/// An object whose keys are data.
pub(super) struct KeyedObject<'a> {
    pub(super) here: Here<'a>,
    pub(super) at: u32,
    pub(super) path: At,
}

/// What a sensitive key becomes where no other key is in the way.
pub(super) struct MaskedKey {
    class: Class,
    pub(super) replacement: String,
}

/// The message's sensitive keys, by their numbers.
pub(super) type MaskedKeys = BTreeMap<u32, MaskedKey>;

/// Finds the sensitive keys. Asked when the values of the whole message are known.
pub(super) fn masked(walk: &mut Walk<'_>) -> MaskedKeys {
    let mut masked = MaskedKeys::new();
    for (number, (text, _)) in (0..).zip(&walk.names.names) {
        let finds = &mut walk.finds;
        walk.masker.detector.find(&walk.masker.fields, Field::NONE, text, finds);
        walk.values.find(text, &mut finds.hits);
        detect::settle(text, &mut finds.hits);
        if let Some(class) = finds.hits.first().map(|first| first.class) {
            masked.insert(number, MaskedKey { class, replacement: apply(text, &finds.hits) });
        }
    }
    masked
}

/// A sensitive key's edit, and why.
pub(super) struct ChangedKey {
    pub(super) range: Range<usize>,
    pub(super) replacement: String,
    pub(super) class: Class,
    pub(super) path: At,
}

/// What becomes of the sensitive keys, in the order of the message.
pub(super) fn changes<'a>(
    walk: &mut Walk<'a>,
    sites: &Sites<'a>,
    masked: &MaskedKeys,
) -> Vec<ChangedKey> {
    let mut changes = Vec::new();
    if masked.is_empty() {
        return changes;
    }
    let names = &walk.names;
    let masked_key = |key: &str| {
        let number = names.known(key)?;
        Some((number, masked.get(&number)?))
    };
    for KeyedObject { here: Here { place, level }, at, path } in &walk.keyed {
        let keys = || {
            let keys = place.doc.children(*at).filter(|(_, node)| node.kind == Kind::Key);
            keys.map(|(_, node)| (node, place.string(node)))
        };
        let mut taken: HashMap<String, u32> = HashMap::new();
        for (node, text) in keys() {
            let Some((number, key)) = masked_key(text) else { continue };
            if taken.is_empty() {
                let plain = keys().filter(|(_, text)| masked_key(text).is_none());
                taken.extend(plain.map(|(_, text)| (text.to_owned(), 0)));
            }
            let mut replacement = key.replacement.clone();
            while let Some(count) = taken.get_mut(&replacement) {
                *count += 1;
                replacement = format!("{}-{}", key.replacement, *count + 1);
            }
            taken.insert(replacement.clone(), 0);
            let holder = Holder { level: *level, node: Some(node), base: 0 };
            let (range, strings) = sites.in_message(holder, 0..text.len());
            escape_in(strings, &mut replacement);
            let path = walk.path.place(*path, Step::Key(number));
            changes.push(ChangedKey { range, replacement, class: key.class, path });
        }
    }
    changes.sort_by_key(|change| change.range.start);
    changes
}

/// Writes a text with its hits replaced.
fn apply(text: &str, hits: &[Hit]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for hit in hits {
        out.push_str(text.get(at..hit.range.start).unwrap_or_default());
        hit.write(text, &mut out);
        at = hit.range.end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}
