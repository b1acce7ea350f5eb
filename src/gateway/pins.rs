//! Tool definitions are pinned: what a model was shown when a tool was accepted is what it is
//! shown now, or the tool is refused.
//!
//! Definitions are looked at as they pass in `tools/list` and `prompts/list` answers. One that
//! changed since it was accepted (a rug pull), that hides characters, or whose name looks like
//! another's goes into quarantine: it is cut out of lists, and calls to it are denied, until an
//! operator accepts it.

use serde_json::Value;
use unicode_security::confusable_detection::skeleton;

use super::Gateway;
use super::lists::Listed;
use super::ports::{Definition, Flaw, ItemKind, PortError, Standing};
use crate::mcp::canonical::canonical;
use crate::policy::{Call, Denial, Target};
use crate::types::{ConnectionName, hex, sha256};

/// The rule that denials of quarantined tools name.
const RULE: &str = "tool-quarantine";

impl Gateway {
    /// Ties a call to the accepted definition of what it uses; gives the denial if that is in
    /// quarantine.
    pub(super) async fn pin(&self, call: &mut Call) -> Result<Option<Denial>, PortError> {
        let (kind, name) = match call.target() {
            Target::Tool(name) => (ItemKind::Tool, name),
            Target::Prompt(name) => (ItemKind::Prompt, name),
            Target::Connection | Target::Resource(_) => return Ok(None),
        };
        match self.pins.standing(&call.connection, kind, name).await? {
            Standing::Unknown => Ok(None),
            Standing::Accepted { hash, mirrored } => {
                call.pin = Some(hash);
                call.mirrored = mirrored;
                Ok(None)
            }
            // Why is the operator's to see: it may name another tool, which the caller may not.
            Standing::Quarantined { .. } => Ok(Some(Denial {
                rules: vec![RULE.to_owned()],
                reason: format!(
                    "the {} {name:?} of {} is in quarantine; an operator has to accept it",
                    kind.as_str(),
                    call.connection
                ),
                policy: self.policies.load().version().to_owned(),
            })),
        }
    }

    /// Which of the listed items may be shown, as far as pins go: those that are not in
    /// quarantine. New ones are pinned, changed ones quarantined, on record.
    pub(super) async fn see(
        &self,
        connection: &ConnectionName,
        listed: &Listed<'_>,
    ) -> Result<Vec<bool>, PortError> {
        let mut shown = vec![true; listed.items().len()];
        let mut places = Vec::new();
        let mut definitions = Vec::new();
        for (place, item) in listed.items().iter().enumerate() {
            let (kind, name) = match &item.target {
                Target::Tool(name) => (ItemKind::Tool, name),
                Target::Prompt(name) => (ItemKind::Prompt, name),
                Target::Connection | Target::Resource(_) => continue,
            };
            places.push(place);
            definitions.push(definition(kind, name, item.text));
        }
        let standings = self.pins.see(connection, definitions).await?;
        for (place, standing) in places.into_iter().zip(standings) {
            if let Some(shown) = shown.get_mut(place) {
                *shown = matches!(standing, Standing::Accepted { .. });
            }
        }
        Ok(shown)
    }
}

fn definition(kind: ItemKind, name: &str, text: &str) -> Definition {
    // A number beyond a double has no value here; then the text itself is what is pinned, and
    // since nobody can look into it, it counts as hiding something.
    let value = serde_json::from_str::<Value>(text).ok();
    let meant = value.as_ref().map_or_else(|| format!("text:{text}"), |v| canonical(v, text));
    let hides = value.as_ref().is_none_or(hides_characters);
    Definition {
        kind,
        name: name.to_owned(),
        hash: hex(&sha256(meant.as_bytes())),
        text: text.to_owned(),
        skeleton: skeleton_of(name),
        flaw: hides.then_some(Flaw::HiddenCharacters),
    }
}

/// What a name looks like: names with one skeleton cannot be told apart by eye.
pub fn skeleton_of(name: &str) -> String {
    skeleton(&name.to_lowercase()).collect::<String>().to_lowercase()
}

/// Whether any text of a definition holds characters that a person does not see: controls,
/// direction marks, zero-width characters, tags.
fn hides_characters(value: &Value) -> bool {
    match value {
        Value::String(text) => text.chars().any(is_hidden),
        Value::Array(items) => items.iter().any(hides_characters),
        Value::Object(members) => {
            members.iter().any(|(key, value)| key.chars().any(is_hidden) || hides_characters(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn is_hidden(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
        || matches!(c,
            '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hidden_characters_are_found_wherever_a_model_reads() {
        for hidden in ['\u{200b}', '\u{202e}', '\u{7}', '\u{e0041}', '\u{feff}', '\u{2066}'] {
            for definition in [
                json!({ "name": format!("a{hidden}b") }),
                json!({ "description": format!("x{hidden}") }),
                json!({ "inputSchema": { "properties": { "q": { "description": [format!("{hidden}")] } } } }),
                json!({ "inputSchema": { format!("k{hidden}"): 1 } }),
            ] {
                assert!(hides_characters(&definition), "{definition:?}");
            }
        }
        let plain = json!({ "name": "søk", "description": "Línea 1\n\tLínea 2 – 検索 🔍" });
        assert!(!hides_characters(&plain));
    }

    #[test]
    fn look_alike_names_share_a_skeleton() {
        assert_eq!(skeleton_of("send_mail"), skeleton_of("ѕend_mаil")); // Cyrillic
        assert_eq!(skeleton_of("send_mail"), skeleton_of("Send_Mail"));
        assert_ne!(skeleton_of("send_mail"), skeleton_of("send_mails"));
        assert_ne!(skeleton_of("get_user"), skeleton_of("set_user"));
    }
}
