//! What a server asks of the client inside a result: in the modern era there are no requests of the
//! server's own, but results that are incomplete until the client has answered them (MCP 2026-07-28
//! `basic/patterns/mrtr`). They are under policy like the requests that they stand for.
//!
//! One that may not be asked refuses the whole result: the call cannot go on without it.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Gateway;
use super::authenticate::Caller;
use super::refusal::Refusal;
use crate::mcp::Message;

/// One request inside a result.
struct Asked {
    method: String,
    params: Option<serde_json::Value>,
}

impl Gateway {
    /// Puts what an answer asks of the client to the policies.
    pub(super) fn judge_inputs(&self, caller: &Caller, answer: &Message) -> Result<(), Refusal> {
        let asked = asked(answer).ok_or_else(|| {
            Refusal::failed_closed("unreadable_input", "the result asks for something unreadable")
        })?;
        if asked.is_empty() {
            return Ok(());
        }
        let (policies, facts) = (self.policies.load(), self.facts(caller));
        let grant = &caller.grant;
        for Asked { method, params } in asked {
            policies
                .may_ask(&grant.subject, &grant.connection, &method, params.as_ref(), &facts)
                .map_err(|denial| Refusal::from(&denial))?;
        }
        Ok(())
    }
}

/// The requests in a result; `None` where it says that it asks and they cannot be read. A result
/// of another type may call something else so, which is then read as far as it can be.
fn asked(answer: &Message) -> Option<Vec<Asked>> {
    #[derive(Deserialize)]
    struct Request {
        method: String,
        #[serde(default)]
        params: Option<serde_json::Value>,
    }
    let Some(requests) = answer.result_member("inputRequests") else { return Some(Vec::new()) };
    let kind = answer.result_member("resultType").unwrap_or("null");
    let Ok(kind) = serde_json::from_str::<Option<Cow<'_, str>>>(kind) else {
        // No type that is text, and so none that asks.
        return Some(Vec::new());
    };
    let asks = kind.as_deref() == Some("input_required");
    let requests: HashMap<String, &RawValue> = match serde_json::from_str(requests) {
        Ok(requests) => requests,
        Err(_) if asks && requests != "null" => return None,
        Err(_) => return Some(Vec::new()),
    };
    let mut found = Vec::with_capacity(requests.len());
    for request in requests.into_values() {
        let object = Some(request.get()).filter(|text| text.starts_with('{'));
        match object.and_then(|text| serde_json::from_str::<Request>(text).ok()) {
            Some(Request { method, params }) => found.push(Asked { method, params }),
            None if asks => return None,
            None => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::{Limits, Origin};

    fn methods(result: &str) -> Option<Vec<String>> {
        let raw = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
        let message = Message::decode(raw.into(), Origin::Server, &Limits::default()).unwrap();
        let mut methods: Vec<_> = asked(&message)?.into_iter().map(|asked| asked.method).collect();
        methods.sort();
        Some(methods)
    }

    #[test]
    fn what_a_result_asks_is_read_or_refused() {
        let ask = r#"{"a":{"method":"roots/list"},"b":{"method":"x/y","params":{"q":1}}}"#;
        let of = |requests: &str| {
            methods(&format!(r#"{{"resultType":"input_required","inputRequests":{requests}}}"#))
        };
        assert_eq!(of(ask).unwrap(), ["roots/list", "x/y"]);
        assert_eq!(of("null").unwrap(), [""; 0]);
        assert_eq!(of("{}").unwrap(), [""; 0]);
        for bad in ["[]", "7", r#"{"a":7}"#, r#"{"a":["roots/list"]}"#, r#"{"a":{"method":7}}"#] {
            assert_eq!(of(bad), None, "{bad}");
        }
        // Whatever the result calls itself, what can be read as asking is judged.
        let untyped = format!(r#"{{"inputRequests":{ask}}}"#);
        assert_eq!(methods(&untyped).unwrap(), ["roots/list", "x/y"]);
        for none in ["{}", "[]", "null", r#"{"inputRequests":[1]}"#, r#"{"resultType":7}"#] {
            assert_eq!(methods(none).unwrap(), [""; 0], "{none}");
        }
    }
}
