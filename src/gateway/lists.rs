//! Lists show what may be used: the items of a `tools/list` (prompts, resources, templates)
//! result that policy would certainly deny are cut out of its text; order, cursor and every other
//! byte stay.

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

/// The answer to `method`, without the items that `shows` says no to.
pub(super) fn filter(
    method: &str,
    answer: &Message,
    shows: impl Fn(&Target) -> bool,
) -> Result<Bytes, UnreadableList> {
    let whole = answer.raw();
    let (Some(list), Some(result)) = (list_of(method), answer.result()) else {
        return Ok(whole.clone());
    };
    let Some(items_text) = member(result, list.member) else { return Ok(whole.clone()) };
    let items: Vec<&RawValue> = serde_json::from_str(items_text).map_err(|_| UnreadableList)?;
    let mut kept = Vec::with_capacity(items.len());
    for item in &items {
        let name = member(item.get(), list.key).ok_or(UnreadableList)?;
        let name: String = serde_json::from_str(name).map_err(|_| UnreadableList)?;
        if shows(&(list.target)(name)) {
            kept.push(item.get());
        }
    }
    if kept.len() == items.len() {
        return Ok(whole.clone());
    }
    // `items_text` is a part of `whole`, so its address tells where it stands.
    let start = items_text.as_ptr().addr() - whole.as_ptr().addr();
    let (before, rest) = whole.split_at_checked(start).ok_or(UnreadableList)?;
    let after = rest.get(items_text.len()..).ok_or(UnreadableList)?;
    let mut text = Vec::with_capacity(whole.len());
    text.extend_from_slice(before);
    text.push(b'[');
    text.extend_from_slice(kept.join(",").as_bytes());
    text.push(b']');
    text.extend_from_slice(after);
    Ok(text.into())
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
