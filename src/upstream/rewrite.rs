//! Where a message names a request, and how other names are put there: for a child that many
//! sessions share, whose ids and progress tokens may be the same.
//!
//! Every other byte stays as it is. Pure.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::mcp::{Limits, Message, Origin, json};

/// The places of a message that name a request, as JSON texts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Names<'a> {
    /// `id`.
    pub(super) id: Option<&'a str>,
    /// `params.requestId`: what `notifications/cancelled` is about.
    pub(super) cancelled: Option<&'a str>,
    /// `params.progressToken`: what `notifications/progress` is about.
    pub(super) progress: Option<&'a str>,
    /// `params._meta.progressToken`: under which name progress is wanted.
    pub(super) wants_progress: Option<&'a str>,
    /// `io.modelcontextprotocol/subscriptionId` in the `_meta` of params or result: the request
    /// that opened a subscription.
    pub(super) subscription: Option<&'a str>,
    /// `params.uri`, which names a resource and is never rewritten.
    pub(super) uri: Option<&'a str>,
}

#[derive(Default, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Part<'a> {
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestId")]
    request: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "progressToken")]
    progress: Option<&'a RawValue>,
    #[serde(borrow, default)]
    uri: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Meta<'a> {
    #[serde(borrow, default, rename = "io.modelcontextprotocol/subscriptionId")]
    subscription: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "progressToken")]
    progress: Option<&'a RawValue>,
}

/// An object's members; nothing of anything else, since a struct would take an array by position.
fn object<'a, T: Deserialize<'a> + Default>(text: Option<&'a RawValue>) -> T {
    let text = text.map(RawValue::get).filter(|text| text.starts_with('{'));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

impl<'a> Names<'a> {
    /// The names in a message.
    pub(super) fn of(message: &'a Message) -> Self {
        let text = std::str::from_utf8(message.raw()).unwrap_or_default();
        let envelope: Envelope<'a> = serde_json::from_str(text).unwrap_or_default();
        let params: Part<'a> = object(envelope.params);
        let result: Part<'a> = object(envelope.result);
        let meta: Meta<'a> = object(params.meta.or(result.meta));
        let get = |part: Option<&'a RawValue>| part.map(RawValue::get);
        Self {
            id: get(envelope.id),
            cancelled: get(params.request),
            progress: get(params.progress),
            wants_progress: get(params.meta.and(meta.progress)),
            subscription: get(meta.subscription),
            uri: get(params.uri),
        }
    }
}

/// A message with other names at some of its places, each of them a part of its bytes.
///
/// `None` where that is no message; it does not happen to names that were JSON.
pub(super) fn renamed(
    message: &Message,
    origin: Origin,
    edits: &[(Option<&str>, &str)],
) -> Option<Message> {
    let raw = message.raw();
    let whole = raw.as_ptr().addr();
    // A part was borrowed out of the whole, so the difference of their addresses is its offset.
    let range = |part: &str| -> Range<usize> {
        let start = part.as_ptr().addr().saturating_sub(whole);
        start..start + part.len()
    };
    let mut edits: Vec<_> = edits
        .iter()
        .filter_map(|(part, name)| Some((range((*part)?), (*name).to_owned())))
        .collect();
    edits.sort_by_key(|(range, _)| range.start);
    let text = json::splice(raw, &edits).ok()?;
    // What passed with its own limits passes: names of ours are short.
    let limits = Limits { bytes: usize::MAX, depth: 127 };
    Message::decode(Bytes::from(text), origin, &limits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str, origin: Origin) -> Message {
        Message::decode(Bytes::from(text.to_owned()), origin, &Limits::default()).unwrap()
    }

    #[test]
    fn only_the_names_change() {
        let text = r#"{ "params" : {"_meta":{"x":123456789012345678901234567890,"progressToken":"a"},"name":"t"}, "id":"7", "method":"tools/call","jsonrpc":"2.0"}"#;
        let request = message(text, Origin::Client);
        let names = Names::of(&request);
        assert_eq!((names.id, names.wants_progress), (Some("\"7\""), Some("\"a\"")));
        let edits = [(names.id, "41"), (names.wants_progress, "41"), (names.cancelled, "0")];
        let renamed = renamed(&request, Origin::Client, &edits).unwrap();
        let expected = text.replace(r#""id":"7""#, r#""id":41"#).replace(r#":"a""#, ":41");
        assert_eq!(std::str::from_utf8(renamed.raw()).unwrap(), expected);
        assert_eq!(renamed.id().unwrap().as_json(), "41");
    }

    #[test]
    fn names_are_found_where_they_are_and_nowhere_else() {
        let told = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":5,"progressToken":6},"progressToken":7,"requestId":"8","uri":"x:y"}}"#;
        let told = message(told, Origin::Server);
        let names = Names::of(&told);
        assert_eq!(names.subscription, Some("5"));
        assert_eq!((names.wants_progress, names.progress), (Some("6"), Some("7")));
        assert_eq!((names.cancelled, names.uri), (Some("\"8\""), Some("\"x:y\"")));

        let answer = r#"{"jsonrpc":"2.0","id":5,"result":{"_meta":{"io.modelcontextprotocol/subscriptionId":5,"progressToken":6}}}"#;
        let answer = message(answer, Origin::Server);
        let names = Names::of(&answer);
        assert_eq!((names.id, names.subscription), (Some("5"), Some("5")));
        assert_eq!(names.wants_progress, None, "a result wants no progress");

        let array = message(
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[{"progressToken":1}]}"#,
            Origin::Client,
        );
        assert_eq!(Names::of(&array).wants_progress, None);
    }
}
