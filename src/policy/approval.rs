//! What binds a person's yes to exactly one call.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use super::call::{Call, Target};
use crate::mcp::canonical::canonical;
use crate::types::{ApprovalId, SubjectId};

/// The hash of everything an approval is for: subject, connection, target with its pinned
/// definition, canonical parameters and policy version. Two calls with one binding are the same call to an approver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Binding(String);

impl Binding {
    /// Binds a call under a policy version.
    ///
    /// Parameters are taken in their canonical form without `_meta`, which carries progress tokens
    /// and trace ids that change from try to try.
    pub fn of(call: &Call, policy: &str) -> Self {
        let (kind, name) = match call.target() {
            Target::Connection => ("connection", ""),
            Target::Tool(name) => ("tool", name.as_str()),
            Target::Prompt(name) => ("prompt", name.as_str()),
            Target::Resource(uri) => ("resource", uri.as_str()),
        };
        let mut params = call.params().cloned().unwrap_or(Value::Null);
        if let Value::Object(members) = &mut params {
            members.remove("_meta");
        }
        let text = call.message().and_then(|message| message.params()).unwrap_or_default();
        let canonical = canonical(&params, text);
        // A map of strings alone always serialises, and in one order (keys are sorted).
        let bound: Map<String, Value> = [
            ("v".to_owned(), json!(1)),
            ("subject".to_owned(), json!(call.subject.id)),
            ("connection".to_owned(), json!(call.connection)),
            ("action".to_owned(), json!(call.action())),
            ("target".to_owned(), json!([kind, name])),
            ("params".to_owned(), json!(canonical)),
            ("pin".to_owned(), json!(call.pin)),
            ("policy".to_owned(), json!(policy)),
        ]
        .into_iter()
        .collect();
        Self(hex(digest(&SHA256, Value::Object(bound).to_string().as_bytes()).as_ref()))
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

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
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
