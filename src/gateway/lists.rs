//! Lists show what may be used: items of a `tools/list` (prompts, resources, templates) result
//! that may not be shown are cut out of its text; order, cursor and every other byte stay.
//!
//! A list is known by what the answer holds and not by what was asked: a resumed stream
//! (`Last-Event-ID`) brings the answer to a request that was made on another one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::mcp::{Message, json};
use crate::policy::{Target, mediation};

/// A list whose items cannot be told apart; nothing of it may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the list holds an item without a name")]
pub(super) struct UnreadableList;

/// One item of a list.
pub(super) struct Item<'a> {
    /// What it names.
    pub(super) target: Target,
    /// Its JSON text.
    pub(super) text: &'a str,
    /// The array that it stands in.
    array: &'a str,
}

/// The lists in an answer.
pub(super) struct Listed<'a> {
    whole: &'a Bytes,
    arrays: Vec<&'a str>,
    items: Vec<Item<'a>>,
}

impl<'a> Listed<'a> {
    /// The lists in the answer to `method`.
    pub(super) fn read(method: &str, answer: &'a Message) -> Result<Self, UnreadableList> {
        let mut listed = Self { whole: answer.raw(), arrays: Vec::new(), items: Vec::new() };
        for (asked_by, list) in mediation::lists() {
            let Some(array) = answer.result_member(list.member) else { continue };
            // On a stream of its own a server may answer whatever was asked elsewhere.
            let expected = asked_by == method || method == "transport/listen";
            let texts: Vec<&RawValue> = match serde_json::from_str(array) {
                Ok(texts) => texts,
                Err(_) if expected => return Err(UnreadableList),
                Err(_) => continue,
            };
            for text in texts {
                let text = text.get();
                let item = members(text);
                let name = item.as_ref().and_then(|item| item.get(list.key));
                let target = match name.and_then(|name| serde_json::from_str(name.get()).ok()) {
                    Some(name) => (list.target)(name),
                    None if expected => return Err(UnreadableList),
                    // Something else that happens to be called so.
                    None => Target::Connection,
                };
                listed.items.push(Item { target, text, array });
            }
            listed.arrays.push(array);
        }
        Ok(listed)
    }

    pub(super) fn items(&self) -> &[Item<'a>] {
        &self.items
    }

    /// The answer without the items that `shows` says no to.
    pub(super) fn keep(
        &self,
        shows: impl Fn(usize, &Item<'_>) -> bool,
    ) -> Result<Bytes, UnreadableList> {
        let mut cuts: Vec<(Range<usize>, String)> = Vec::new();
        for array in &self.arrays {
            let here = || {
                let items = self.items.iter().enumerate();
                items.filter(|(_, item)| std::ptr::eq(item.array, *array))
            };
            let kept: Vec<&str> = here()
                .filter(|(place, item)| shows(*place, item))
                .map(|(_, item)| item.text)
                .collect();
            if kept.len() < here().count() {
                // `array` is a part of `whole`, so its address tells where it stands.
                let start = array.as_ptr().addr() - self.whole.as_ptr().addr();
                cuts.push((start..start + array.len(), format!("[{}]", kept.join(","))));
            }
        }
        if cuts.is_empty() {
            return Ok(self.whole.clone());
        }
        cuts.sort_by_key(|(range, _)| range.start);
        json::splice(self.whole, &cuts).map(Bytes::from).map_err(|_| UnreadableList)
    }
}

type Members<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

/// An object's members by their text. The strict decoder has refused duplicate keys.
fn members(object: &str) -> Option<Members<'_>> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Borrowed<'a>(#[serde(borrow)] Members<'a>);
    serde_json::from_str::<Borrowed<'_>>(object).ok().map(|Borrowed(members)| members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::{Limits, Origin};

    fn filtered(method: &str, answer: &str) -> Result<String, UnreadableList> {
        let raw = Bytes::from(answer.to_owned());
        let message = Message::decode(raw, Origin::Server, &Limits::default()).unwrap();
        let listed = Listed::read(method, &message)?;
        let kept = listed.keep(|_, item| item.target.name() != Some("drop"))?;
        Ok(String::from_utf8(kept.to_vec()).unwrap())
    }

    #[test]
    fn cuts_items_and_keeps_every_other_byte() {
        let answer = r#"{"result":{ "nextCursor":"x", "tools":[ {"name":"get","n":1e2}, {"name":"dr\u006fp"} ,{"x":9007199254740993,"name":"put"}], "y":0.10 },"id":1,"jsonrpc":"2.0"}"#;
        assert_eq!(
            filtered("tools/list", answer).unwrap(),
            r#"{"result":{ "nextCursor":"x", "tools":[{"name":"get","n":1e2},{"x":9007199254740993,"name":"put"}], "y":0.10 },"id":1,"jsonrpc":"2.0"}"#
        );
        // A resumed stream, or a server that answers something else than it was asked.
        for method in ["transport/listen", "ping"] {
            let text = filtered(method, answer).unwrap();
            assert!(!text.contains("dr\\u006fp") && text.contains("put"), "{method}: {text}");
        }
        let two = r#"{"result":{"prompts":[{"name":"drop"}],"tools":[{"name":"drop"},{"name":"x"}]},"id":1,"jsonrpc":"2.0"}"#;
        assert_eq!(
            filtered("transport/listen", two).unwrap(),
            r#"{"result":{"prompts":[],"tools":[{"name":"x"}]},"id":1,"jsonrpc":"2.0"}"#
        );
        let other = r#"{"result":{"tools":[{"name":"get"}]},"id":1,"jsonrpc":"2.0"}"#;
        assert_eq!(filtered("tools/list", other).unwrap(), other);
        let error = r#"{"error":{"code":1,"message":"no"},"id":1,"jsonrpc":"2.0"}"#;
        assert_eq!(filtered("tools/list", error).unwrap(), error);
    }

    #[test]
    fn an_item_without_a_name_hides_the_list() {
        let answer = r#"{"result":{"tools":[{"title":"get"}]},"id":1,"jsonrpc":"2.0"}"#;
        assert_eq!(filtered("tools/list", answer), Err(UnreadableList));
        let answer = r#"{"result":{"tools":{"name":"get"}},"id":1,"jsonrpc":"2.0"}"#;
        assert_eq!(filtered("tools/list", answer), Err(UnreadableList));
        assert_eq!(filtered("transport/listen", answer), Err(UnreadableList));
        assert_eq!(filtered("x/custom", answer).unwrap(), answer, "no list of tools");
    }
}
