//! Lists show what may be used: the items of a `tools/list` (prompts, resources, templates)
//! result that policy would certainly deny are cut out of its text; order, cursor and every other
//! byte stay.
//!
//! A list is known by what the answer holds and not by what was asked: a resumed stream
//! (`Last-Event-ID`) brings the answer to a request that was made on another one.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::mcp::{Message, json};
use crate::policy::Target;

/// What the result of a list method holds.
struct List {
    method: &'static str,
    member: &'static str,
    key: &'static str,
    target: fn(String) -> Target,
}

const LISTS: [List; 4] = [
    List { method: "tools/list", member: "tools", key: "name", target: Target::Tool },
    List { method: "prompts/list", member: "prompts", key: "name", target: Target::Prompt },
    List { method: "resources/list", member: "resources", key: "uri", target: Target::Resource },
    List {
        method: "resources/templates/list",
        member: "resourceTemplates",
        key: "uriTemplate",
        target: Target::Resource,
    },
];

/// A list whose items cannot be told apart; nothing of it may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the list holds an item without a name")]
pub(super) struct UnreadableList;

/// The answer to `method`, without the items that `shows` says no to.
pub(super) fn filter(
    method: &str,
    answer: &Message,
    shows: impl Fn(&Target) -> bool,
) -> Result<Bytes, UnreadableList> {
    let whole = answer.raw();
    let Some(result) = answer.result() else { return Ok(whole.clone()) };
    let mut cuts: Vec<(Range<usize>, String)> = Vec::new();
    for list in &LISTS {
        let Some(items_text) = member(result, list.member) else { continue };
        // On a stream of its own a server may answer whatever was asked elsewhere.
        let expected = list.method == method || method == "transport/listen";
        let items: Vec<&RawValue> = match serde_json::from_str(items_text) {
            Ok(items) => items,
            Err(_) if expected => return Err(UnreadableList),
            Err(_) => continue,
        };
        let mut kept = Vec::with_capacity(items.len());
        for item in &items {
            let name = member(item.get(), list.key);
            let show = match name.and_then(|name| serde_json::from_str::<String>(name).ok()) {
                Some(name) => shows(&(list.target)(name)),
                None if expected => return Err(UnreadableList),
                // Something else that happens to be called so.
                None => true,
            };
            if show {
                kept.push(item.get());
            }
        }
        if kept.len() < items.len() {
            // `items_text` is a part of `whole`, so its address tells where it stands.
            let start = items_text.as_ptr().addr() - whole.as_ptr().addr();
            cuts.push((start..start + items_text.len(), format!("[{}]", kept.join(","))));
        }
    }
    if cuts.is_empty() {
        return Ok(whole.clone());
    }
    cuts.sort_by_key(|(range, _)| range.start);
    json::splice(whole, &cuts).map(Bytes::from).map_err(|_| UnreadableList)
}

/// The text of one member of an object. The strict decoder has refused duplicate keys.
fn member<'a>(object: &'a str, key: &str) -> Option<&'a str> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Members<'a>(
        #[serde(borrow)] std::collections::HashMap<std::borrow::Cow<'a, str>, &'a RawValue>,
    );
    let Members(mut members) = serde_json::from_str(object).ok()?;
    members.remove(key).map(RawValue::get)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::{Limits, Origin};

    fn filtered(method: &str, answer: &str) -> Result<String, UnreadableList> {
        let raw = Bytes::from(answer.to_owned());
        let message = Message::decode(raw, Origin::Server, &Limits::default()).unwrap();
        filter(method, &message, |target| target.name() != Some("drop"))
            .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
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
