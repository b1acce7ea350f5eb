//! What a grant is limited to beside its connection: named tools, or nothing less than all.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::call::{Call, Direction, Target};

/// The rule that refuses what a grant does not reach.
pub(super) const RULE: &str = "grant-scope";

/// What of its connection a grant reaches.
///
/// A grant for named tools reaches these, and what belongs to the protocol; it reaches no prompt
/// and no resource, and no method that `mcpx` has not heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<Vec<String>>", into = "Option<Vec<String>>")]
pub struct Scope(Option<Arc<[String]>>);

impl Scope {
    /// Named tools only; without a name, everything.
    pub fn of_tools(mut names: Vec<String>) -> Self {
        names.sort();
        names.dedup();
        Self((!names.is_empty()).then(|| names.into()))
    }

    /// The named tools, in order; none where the grant reaches everything.
    pub fn tools(&self) -> Option<&[String]> {
        self.0.as_deref()
    }

    /// Whether it reaches something in its connection.
    pub(super) fn reaches(&self, target: &Target) -> bool {
        match (&self.0, target) {
            (None, _) | (_, Target::Connection) => true,
            (Some(tools), Target::Tool(name)) => tools.binary_search(name).is_ok(),
            (Some(_), Target::Prompt(_) | Target::Resource(_)) => false,
        }
    }

    /// Whether it reaches all that a call uses or tells of.
    pub(super) fn lets(&self, call: &Call) -> bool {
        if self.0.is_none() {
            return true;
        }
        // What names nothing and is in no group may do anything at all; a task may be of any tool,
        // and of anybody.
        let groups = call.row().groups;
        let unknown = call.direction == Direction::ClientToServer
            && *call.target() == Target::Connection
            && (groups.is_empty() || groups.contains(&"tasks"));
        !unknown
            && self.reaches(call.target())
            && call.mentions().iter().all(|target| self.reaches(target))
    }
}

impl From<Option<Vec<String>>> for Scope {
    /// As it was kept. An empty list reaches nothing: it was none that [`Scope::of_tools`] made.
    fn from(names: Option<Vec<String>>) -> Self {
        Self(names.map(|mut names| {
            names.sort();
            names.into()
        }))
    }
}

impl From<Scope> for Option<Vec<String>> {
    fn from(scope: Scope) -> Self {
        scope.0.map(|names| names.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_tools_and_nothing_else() {
        let scope = Scope::of_tools(vec!["b".to_owned(), "a".to_owned(), "b".to_owned()]);
        assert_eq!(scope.tools(), Some(&["a".to_owned(), "b".to_owned()][..]));
        let tool = |name: &str| Target::Tool(name.to_owned());
        assert!(scope.reaches(&tool("a")) && scope.reaches(&Target::Connection));
        for other in [tool("c"), Target::Prompt("a".to_owned()), Target::Resource("a".to_owned())] {
            assert!(!scope.reaches(&other), "{other:?}");
            assert!(Scope::default().reaches(&other) && Scope::of_tools(vec![]).reaches(&other));
        }
        let stored = serde_json::to_string(&scope).unwrap();
        assert_eq!(stored, r#"["a","b"]"#);
        assert_eq!(serde_json::from_str::<Scope>(&stored).unwrap(), scope);
        assert_eq!(serde_json::from_str::<Scope>("null").unwrap(), Scope::default());
        assert!(!serde_json::from_str::<Scope>("[]").unwrap().reaches(&tool("a")));
    }
}
