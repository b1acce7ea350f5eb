//! Of a slice's policies, those that a question's resource and arguments can meet.
//!
//! Many policies begin with what they are about: one tool, or an argument of some name or value. A
//! policy whose first condition is `when { context.arguments has table && … }` is neither satisfied
//! nor able to fail where there is no such argument, since Cedar stops at the first false conjunct;
//! the same holds for `context.arguments.table == "x"` right behind it. Leaving such policies out
//! changes no decision, no reason and no error. Everything else is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cedar_policy::{EntityUid, Policy, PolicySet, ResourceConstraint};
use serde_json::Value;

use super::context::{self, Reads};

/// Sets that are remembered. Who meets more makes them anew.
const REMEMBERED: usize = 64;

/// Policies to put a question to.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) policies: PolicySet,
    /// What of the circumstances they speak of.
    pub(super) reads: Reads,
}

impl Met {
    fn of(policies: PolicySet) -> Self {
        let text: String = policies.policies().map(ToString::to_string).collect();
        Self { policies, reads: Reads::of(&text) }
    }
}

/// The policies by what they begin with.
#[derive(Debug)]
pub(super) struct Guarded {
    /// All of them.
    whole: Arc<Met>,
    /// Policies that begin alike; the first are those that may always meet.
    groups: Vec<Vec<Policy>>,
    resources: HashMap<EntityUid, usize>,
    arguments: HashMap<String, Argument>,
    sets: Mutex<HashMap<Vec<usize>, Arc<Met>>>,
}

/// The groups about one argument.
#[derive(Debug, Default)]
struct Argument {
    /// Those that only want it to be there.
    any: Option<usize>,
    /// Those that want it to say this.
    says: HashMap<String, usize>,
}

/// What a policy begins with.
enum Guard {
    Nothing,
    Resource(EntityUid),
    Has(String),
    Says(String, String),
}

impl Guarded {
    /// Sorts the policies of a slice, which have this text.
    ///
    /// # Errors
    /// When two have one id; they are of one set, so that never happens.
    pub(super) fn of<'p>(
        policies: impl Iterator<Item = &'p Policy>,
        text: &str,
    ) -> Result<Self, String> {
        let policies = PolicySet::from_policies(policies.cloned());
        let policies = policies.map_err(|error| error.to_string())?;
        let mut guarded = Self {
            whole: Arc::new(Met { policies, reads: Reads::of(text) }),
            groups: vec![Vec::new()],
            resources: HashMap::new(),
            arguments: HashMap::new(),
            sets: Mutex::default(),
        };
        for policy in Arc::clone(&guarded.whole).policies.policies() {
            let next = guarded.groups.len();
            let group = match Guard::of(policy) {
                Guard::Nothing => 0,
                Guard::Resource(uid) => *guarded.resources.entry(uid).or_insert(next),
                Guard::Has(key) => {
                    *guarded.arguments.entry(key).or_default().any.get_or_insert(next)
                }
                Guard::Says(key, text) => {
                    *guarded.arguments.entry(key).or_default().says.entry(text).or_insert(next)
                }
            };
            if group == next {
                guarded.groups.push(Vec::new());
            }
            if let Some(group) = guarded.groups.get_mut(group) {
                group.push(policy.clone());
            }
        }
        Ok(guarded)
    }

    /// Those that can be satisfied, or fail, for this resource and these arguments.
    pub(super) fn meeting(&self, resource: &EntityUid, arguments: Option<&Value>) -> Arc<Met> {
        if self.groups.len() == 1 {
            return Arc::clone(&self.whole);
        }
        let mut met: Vec<usize> = self.resources.get(resource).copied().into_iter().collect();
        match arguments {
            None | Some(Value::Null) => {}
            Some(Value::Object(given)) => {
                let found = |(key, about): (&String, &Argument)| {
                    let value = given.get(key).filter(|value| !value.is_null())?;
                    let says = context::text_of(value);
                    let says = says.and_then(|says| about.says.get(says.as_ref()));
                    Some([about.any, says.copied()])
                };
                if self.arguments.len() <= given.len() {
                    met.extend(self.arguments.iter().filter_map(found).flatten().flatten());
                } else {
                    let about = given.keys().filter_map(|key| self.arguments.get_key_value(key));
                    met.extend(about.filter_map(found).flatten().flatten());
                }
            }
            // No record: who asks it for anything fails.
            Some(_) => met.extend(self.arguments.values().flat_map(Argument::groups)),
        }
        met.sort_unstable();
        if let Some(set) = self.sets().get(&met) {
            return Arc::clone(set);
        }
        let set = Arc::new(Met::of(self.set(&met)));
        let mut sets = self.sets();
        if sets.len() >= REMEMBERED {
            sets.clear();
        }
        sets.insert(met, Arc::clone(&set));
        set
    }

    fn set(&self, groups: &[usize]) -> PolicySet {
        let mut set = PolicySet::new();
        for group in std::iter::once(&0).chain(groups) {
            for policy in self.groups.get(*group).into_iter().flatten() {
                // Their ids differ, as they are taken from a set; were one refused all the same,
                // the whole set it is.
                if set.add(policy.clone()).is_err() {
                    return self.whole.policies.clone();
                }
            }
        }
        set
    }

    fn sets(&self) -> std::sync::MutexGuard<'_, HashMap<Vec<usize>, Arc<Met>>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Argument {
    fn groups(&self) -> impl Iterator<Item = usize> {
        self.any.into_iter().chain(self.says.values().copied())
    }
}

impl Guard {
    fn of(policy: &Policy) -> Self {
        match policy.resource_constraint() {
            // Nothing is inside of these, so `in` is `==`.
            ResourceConstraint::Eq(uid)
            | ResourceConstraint::In(uid)
            | ResourceConstraint::IsIn(_, uid)
                if matches!(
                    uid.type_name().to_string().as_str(),
                    "Tool" | "Prompt" | "Resource"
                ) =>
            {
                return Self::Resource(uid);
            }
            _ => {}
        }
        let Ok(form) = policy.to_json() else { return Self::Nothing };
        let first = form.pointer("/conditions/0").filter(|first| first["kind"] == "when");
        let Some(mut at) = first.map(|first| &first["body"]) else { return Self::Nothing };
        // `a && b && c` is `(a && b) && c`.
        let mut behind = None;
        while let Some(both) = at.get("&&") {
            (at, behind) = (&both["left"], Some(&both["right"]));
        }
        let has = &at["has"];
        let Some(key) = has["attr"].as_str().filter(|_| is_arguments(&has["left"])) else {
            return Self::Nothing;
        };
        match behind.and_then(|next| says(next, key)) {
            Some(text) => Self::Says(key.to_owned(), text.to_owned()),
            None => Self::Has(key.to_owned()),
        }
    }
}

/// Whether this is `context.arguments`.
fn is_arguments(form: &Value) -> bool {
    let dot = &form["."];
    dot["attr"] == "arguments" && dot["left"]["Var"] == "context"
}

/// The text of `context.arguments.key == "text"`.
fn says<'a>(form: &'a Value, key: &str) -> Option<&'a str> {
    let both = form.get("==")?;
    let argument = |side: &Value| side["."]["attr"] == key && is_arguments(&side["."]["left"]);
    let [left, right] = [&both["left"], &both["right"]];
    let text = if argument(left) { right } else { Some(left).filter(|_| argument(right))? };
    text["Value"].as_str()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use serde_json::json;

    use super::*;

    const POLICIES: &str = r#"
        @id("always") permit (principal, action, resource) unless { context.arguments has x };
        @id("tool") forbid (principal, action, resource == Tool::"crm/drop");
        @id("has") forbid (principal, action, resource) when { context.arguments has limit && context.arguments.limit > 5 };
        @id("says") forbid (principal, action, resource)
            when { context.arguments has table && context.arguments.table == "pay" && context.approved };
        @id("other") forbid (principal, action, resource) when { context has arguments && context.arguments has table };
    "#;

    fn met(tool: &str, arguments: Value) -> Vec<String> {
        let mut set = PolicySet::new();
        for policy in PolicySet::from_str(POLICIES).unwrap().policies() {
            let id = policy.annotation("id").unwrap().parse().unwrap();
            set.add(policy.new_id(id)).unwrap();
        }
        let guarded = Guarded::of(set.policies(), &set.to_string()).unwrap();
        let resource = EntityUid::from_str(&format!("Tool::{tool:?}")).unwrap();
        let met = || guarded.meeting(&resource, Some(&arguments));
        let mut ids: Vec<_> =
            met().policies.policies().map(|policy| policy.id().to_string()).collect();
        ids.sort();
        // The second time it is remembered.
        assert_eq!(met().policies.policies().count(), ids.len());
        ids
    }

    #[test]
    fn a_policy_is_left_out_where_its_beginning_is_false() {
        let always = ["always", "other"];
        assert_eq!(met("crm/get", json!({})), always);
        assert_eq!(met("crm/get", json!(null)), always);
        assert_eq!(met("crm/get", json!({ "limit": null, "table": null })), always);
        assert_eq!(met("crm/drop", json!({ "id": 7 })), ["always", "other", "tool"]);
        assert_eq!(met("crm/get", json!({ "limit": "many" })), ["always", "has", "other"]);
        assert_eq!(met("crm/get", json!({ "table": "pays" })), always);
        assert_eq!(met("crm/get", json!({ "table": ["pay"] })), always);
        assert_eq!(met("crm/get", json!({ "table": "pay" })), ["always", "other", "says"]);
        // Whoever asks something else than a record for its members fails, which is for Cedar to say.
        assert_eq!(met("crm/get", json!("pay")), ["always", "has", "other", "says"]);
    }
}
