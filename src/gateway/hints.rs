//! How long an answer may be kept, and for whom (MCP 2026-07-28 `server/utilities/caching`): what
//! it holds depends on who asked, since policy filters and masking are theirs, so it is kept for
//! nobody else, and no longer than their grant.
//!
//! A server that gives no hint is left alone: without one, clients keep nothing, and for nobody
//! else. Every other byte stays.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::mcp::json;

/// The answer with its hints narrowed to one subject, for at most `life` milliseconds.
pub(super) fn narrowed(answer: Bytes, life: u64) -> Bytes {
    let hinted = memchr::memmem::find(&answer, b"ttlMs").is_some()
        || memchr::memmem::find(&answer, b"cacheScope").is_some()
        // However they are escaped.
        || memchr::memmem::find(&answer, b"\\u").is_some();
    if !hinted {
        return answer;
    }
    let Some(edits) = std::str::from_utf8(&answer).ok().and_then(|text| edits(text, life)) else {
        return answer;
    };
    if edits.is_empty() {
        return answer;
    }
    // The ranges were found in this very text, in ascending order.
    json::splice(&answer, &edits).map_or(answer, Bytes::from)
}

type Edits = Vec<(std::ops::Range<usize>, String)>;

fn edits(text: &str, life: u64) -> Option<Edits> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow, default)]
        result: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Members<'a>(#[serde(borrow)] HashMap<Cow<'a, str>, &'a RawValue>);
    let result = serde_json::from_str::<Envelope<'_>>(text).ok()?.result?;
    let Members(members) = serde_json::from_str(result.get()).ok()?;
    let mut edits = Edits::new();
    let mut edit = |old: &RawValue, new: String| {
        // `old` is a part of `text`, so its address tells where it stands.
        let start = old.get().as_ptr().addr() - text.as_ptr().addr();
        edits.push((start..start + old.get().len(), new));
    };
    if let Some(scope) = members.get("cacheScope").filter(|scope| scope.get() != r#""private""#) {
        edit(scope, r#""private""#.to_owned());
    }
    if let Some(ttl) = members.get("ttlMs") {
        let longer = serde_json::from_str::<f64>(ttl.get()).ok().is_none_or(|given| {
            #[expect(clippy::cast_precision_loss, reason = "a time in milliseconds")]
            let life = life as f64;
            given > life
        });
        if longer {
            edit(ttl, life.to_string());
        }
    }
    edits.sort_by_key(|(range, _)| range.start);
    Some(edits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_become_private_and_end_with_the_grant() {
        let of = |result: &str| {
            let answer = |result: &str| format!(r#"{{"id":1, "result":{result},"jsonrpc":"2.0"}}"#);
            let narrowed = narrowed(Bytes::from(answer(result)), 900);
            let text = String::from_utf8(narrowed.to_vec()).unwrap();
            let (start, end) = (r#"{"id":1, "result":"#, r#","jsonrpc":"2.0"}"#);
            text.strip_prefix(start).unwrap().strip_suffix(end).unwrap().to_owned()
        };
        for (given, expected) in [
            (
                r#"{ "ttlMs" : 60000, "tools":[{"n":1e400}] ,"cacheScope":"public"}"#,
                r#"{ "ttlMs" : 900, "tools":[{"n":1e400}] ,"cacheScope":"private"}"#,
            ),
            (r#"{"cacheScope":"public","ttlMs":1}"#, r#"{"cacheScope":"private","ttlMs":1}"#),
            (r#"{"c\u0061cheScope":"public"}"#, r#"{"c\u0061cheScope":"private"}"#),
            (r#"{"cacheScope":["public"]}"#, r#"{"cacheScope":"private"}"#),
            (r#"{"ttlMs":1e999}"#, r#"{"ttlMs":900}"#),
            (r#"{"ttlMs":"60000"}"#, r#"{"ttlMs":900}"#),
        ] {
            assert_eq!(of(given), expected);
        }
        for same in [
            r#"{"cacheScope":"private","ttlMs":900.0}"#,
            r#"{"tools":[{"ttlMs":60000,"cacheScope":"public"}]}"#,
            r#"{"ttlMs":-1}"#,
            "[]",
        ] {
            assert_eq!(of(same), same);
        }
        let error = Bytes::from_static(br#"{"error":{"ttlMs":60000}}"#);
        assert_eq!(narrowed(error.clone(), 1), error);
    }
}
