//! What binds a person's yes to exactly one call.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::call::{Call, Target};
use crate::mcp::canonical;
use crate::types::{ApprovalId, SubjectId, hex, sha256};

/// The hash of everything an approval is for: subject, connection, target, canonical parameters
/// and policy version. Two calls with one binding are the same call to an approver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Binding(String);

impl Binding {
    /// Binds a call under a policy version, to the rules that ask for a yes: who answers for one
    /// rule has not answered for another.
    ///
    /// Parameters are taken in their canonical form, member by member, without those of `_meta`
    /// that change from try to try ([`is_bound`]); the rest of `_meta` can steer a server and is
    /// part of the call.
    pub fn of(call: &Call, policy: &str, rules: &[String]) -> Self {
        let (kind, name) = match call.target() {
            Target::Connection => ("connection", ""),
            Target::Tool(name) => ("tool", name.as_str()),
            Target::Prompt(name) => ("prompt", name.as_str()),
            Target::Resource(uri) => ("resource", uri.as_str()),
        };
        let text = call.message().and_then(|message| message.params());
        // A map of strings alone always serialises, and in one order (keys are sorted).
        let mut bound: Map<String, Value> = [
            ("v".to_owned(), json!(2)),
            ("subject".to_owned(), json!(call.subject.id)),
            ("connection".to_owned(), json!(call.connection)),
            ("action".to_owned(), json!(call.action())),
            ("target".to_owned(), json!([kind, name])),
            ("params".to_owned(), text.map_or(Value::Null, bound_params)),
            ("pin".to_owned(), json!(call.pin)),
            ("policy".to_owned(), json!(policy)),
            ("rules".to_owned(), json!(rules)),
        ]
        .into_iter()
        .collect();
        // Jobs of two rules may share a name at their issuer, and a yes to the one is none to the
        // other.
        if let Some(rule) = call.subject.kind.rule() {
            bound.insert("trust_rule".to_owned(), json!(rule));
        }
        Self(hex(&sha256(Value::Object(bound).to_string().as_bytes())))
    }

    /// The hash in lower-case hexadecimal, 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes a stored binding back.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }
}

/// Whether a member of `_meta` belongs to the call that is approved. The others name the one try
/// (progress, trace) or describe the client's program, which changes nothing of what is asked.
pub fn is_bound(meta_key: &str) -> bool {
    !matches!(
        meta_key,
        "progressToken"
            | "traceparent"
            | "tracestate"
            | "io.modelcontextprotocol/protocolVersion"
            | "io.modelcontextprotocol/clientInfo"
            | "io.modelcontextprotocol/clientCapabilities"
            | "io.modelcontextprotocol/logLevel"
    )
}

/// Parameters by what is bound of them.
fn bound_params(text: &str) -> Value {
    let Ok(members) = serde_json::from_str::<Members<'_>>(text) else { return canonical(text) };
    let bound = members.into_iter().filter_map(|(key, value)| {
        if key != "_meta" {
            return Some((key, canonical(value.get())));
        }
        let Ok(meta) = serde_json::from_str::<Members<'_>>(value.get()) else {
            return Some((key, canonical(value.get())));
        };
        let meta: Map<String, Value> = meta
            .into_iter()
            .filter(|(key, _)| is_bound(key))
            .map(|(key, value)| (key, canonical(value.get())))
            .collect();
        (!meta.is_empty()).then_some((key, Value::Object(meta)))
    });
    Value::Object(bound.collect())
}

type Members<'a> = std::collections::BTreeMap<String, &'a RawValue>;

/// One value's canonical text, or its own where there is none.
fn canonical(text: &str) -> Value {
    let value: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    json!(canonical::canonical(&value, text))
}

/// A person's yes, taken out of the store for one use.
///
/// It lifts nothing unless its binding is the binding of the call that is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    /// Which approval.
    pub id: ApprovalId,
    /// What it was given for.
    pub binding: Binding,
    /// Who gave it.
    pub by: SubjectId,
}
