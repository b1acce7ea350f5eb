//! Lists show what may be used: items of a `tools/list` (prompts, resources, templates) result
//! that may not be shown are cut out of its text; order, cursor and every other byte stay.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::mcp::Message;
use crate::policy::Target;

/// What the result of a list method holds.
struct List {
    member: &'static str,
    key: &'static str,
    target: fn(String) -> Target,
}

fn list_of(method: &str) -> Option<List> {
    let list = match method {
        "tools/list" => List { member: "tools", key: "name", target: Target::Tool },
        "prompts/list" => List { member: "prompts", key: "name", target: Target::Prompt },
        "resources/list" => List { member: "resources", key: "uri", target: Target::Resource },
        "resources/templates/list" => {
            List { member: "resourceTemplates", key: "uriTemplate", target: Target::Resource }
        }
        _ => return None,
    };
    Some(list)
}

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
}

/// A list in an answer.
pub(super) struct Listed<'a> {
    whole: &'a Bytes,
    array: &'a str,
    items: Vec<Item<'a>>,
}

impl<'a> Listed<'a> {
    /// The list in the answer to `method`, if that is a list method and the answer holds one.
    pub(super) fn read(method: &str, answer: &'a Message) -> Result<Option<Self>, UnreadableList> {
        let (Some(list), Some(result)) = (list_of(method), answer.result()) else {
            return Ok(None);
        };
        let Some(array) = member(result, list.member) else { return Ok(None) };
        let texts: Vec<&RawValue> = serde_json::from_str(array).map_err(|_| UnreadableList)?;
        let items = texts
            .into_iter()
            .map(|text| {
                let name = member(text.get(), list.key).ok_or(UnreadableList)?;
                let name: String = serde_json::from_str(name).map_err(|_| UnreadableList)?;
                Ok(Item { target: (list.target)(name), text: text.get() })
            })
            .collect::<Result<_, _>>()?;
        Ok(Some(Self { whole: answer.raw(), array, items }))
    }

    pub(super) fn items(&self) -> &[Item<'a>] {
        &self.items
    }

    /// The answer without the items that `shows` says no to.
    pub(super) fn keep(&self, shows: impl Fn(usize, &Item<'_>) -> bool) -> Option<Bytes> {
        let kept: Vec<&str> = self
            .items
            .iter()
            .enumerate()
            .filter(|(place, item)| shows(*place, item))
            .map(|(_, item)| item.text)
            .collect();
        if kept.len() == self.items.len() {
            return Some(self.whole.clone());
        }
        // `array` is a part of `whole`, so its address tells where it stands.
        let start = self.array.as_ptr().addr().checked_sub(self.whole.as_ptr().addr())?;
        let (before, rest) = self.whole.split_at_checked(start)?;
        let after = rest.get(self.array.len()..)?;
        let mut text = Vec::with_capacity(self.whole.len());
        text.extend_from_slice(before);
        text.push(b'[');
        text.extend_from_slice(kept.join(",").as_bytes());
        text.push(b']');
        text.extend_from_slice(after);
        Some(text.into())
    }
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
        let message = Message::decode(raw.clone(), Origin::Server, &Limits::default()).unwrap();
        let listed = Listed::read(method, &message)?;
        let kept = listed
            .map_or(Some(raw), |listed| listed.keep(|_, item| item.target.name() != Some("drop")));
        Ok(String::from_utf8(kept.unwrap().to_vec()).unwrap())
    }

    #[test]
    fn cuts_items_and_keeps_every_other_byte() {
        let answer = r#"{"result":{ "nextCursor":"x", "tools":[ {"name":"get","n":1e2}, {"name":"dr\u006fp"} ,{"x":9007199254740993,"name":"put"}], "y":0.10 },"id":1,"jsonrpc":"2.0"}"#;
        assert_eq!(
            filtered("tools/list", answer).unwrap(),
            r#"{"result":{ "nextCursor":"x", "tools":[{"name":"get","n":1e2},{"x":9007199254740993,"name":"put"}], "y":0.10 },"id":1,"jsonrpc":"2.0"}"#
        );
        assert_eq!(filtered("tools/call", answer).unwrap(), answer);
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
    }
}
