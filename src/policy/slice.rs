//! Of all policies, those whose scope can meet a question: thousands that speak of other groups,
//! actions and connections then cost nothing.
//!
//! A policy whose scope does not match is neither satisfied nor able to fail: Cedar looks at the
//! scope before the conditions. So leaving it out changes no decision, no reason and no error. The
//! slices err on the side of keeping: they look at what a scope names, never at conditions.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use cedar_policy::{
    ActionConstraint, EntityUid, Policy, PolicySet, PrincipalConstraint, ResourceConstraint,
};

use super::call::Target;
use super::context::{ContextError, Question, Scene};
use super::guard::Guarded;
use super::listed::Steady;
use crate::types::SubjectKind;

/// Slices that are remembered. Who asks for more makes them anew.
const REMEMBERED: usize = 1024;

/// The policies, by whom and what they can concern.
#[derive(Debug, Default)]
pub(super) struct Slices {
    /// All of them.
    all: Vec<Scoped>,
    /// Every action that a policy names. Others differ in their groups only.
    named: BTreeSet<String>,
    made: Mutex<HashMap<Key, Arc<Slice>>>,
}

/// A policy, and what takes Cedar time to tell of it.
#[derive(Debug)]
struct Scoped {
    policy: Policy,
    principal: PrincipalConstraint,
    action: ActionConstraint,
    resource: ResourceConstraint,
    text: String,
}

impl Scoped {
    fn of(policy: &Policy) -> Self {
        Self {
            principal: policy.principal_constraint(),
            action: policy.action_constraint(),
            resource: policy.resource_constraint(),
            text: policy.to_string(),
            policy: policy.clone(),
        }
    }
}

/// Some of the policies, and what questions are put to them.
pub(super) struct Slice {
    pub(super) policies: Guarded,
    /// Where they say the same at every moment.
    pub(super) steady: Option<Steady>,
    /// What has been asked about, by action and target.
    scenes: Mutex<HashMap<(String, Target), Arc<Scene>>>,
}

/// Scenes that a slice remembers.
const SCENES: usize = 256;

/// The longest action and name, in bytes together, of a scene that is remembered.
const LONGEST: usize = 256;

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slice").field("policies", &self.policies).finish_non_exhaustive()
    }
}

impl Slice {
    fn of(policies: &[&Scoped], connection: &str) -> Result<Self, String> {
        let text: String = policies.iter().map(|scoped| scoped.text.as_str()).collect();
        let steady = Steady::of(&text, connection);
        let policies = policies.iter().map(|scoped| &scoped.policy);
        let policies = Guarded::of(policies, &text)?;
        Ok(Self { policies, steady, scenes: Mutex::default() })
    }

    /// What a question of this slice is about.
    pub(super) fn scene(&self, question: &Question<'_>) -> Result<Arc<Scene>, ContextError> {
        let key = (question.action.to_owned(), question.target.clone());
        let scenes = || self.scenes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scene) = scenes().get(&key) {
            return Ok(Arc::clone(scene));
        }
        let scene = Arc::new(question.scene()?);
        // Names and URIs are the caller's, as long as they like: long ones are not kept.
        if key.0.len() + key.1.name().map_or(0, str::len) > LONGEST {
            return Ok(scene);
        }
        let mut scenes = scenes();
        if scenes.len() >= SCENES {
            scenes.clear();
        }
        scenes.insert(key, Arc::clone(&scene));
        Ok(scene)
    }
}

/// All that a scope can tell apart, but for the tool, prompt or resource.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    subject: String,
    kind: SubjectKind,
    groups: BTreeSet<String>,
    /// The action, if a policy names it, and the groups of actions that it is in.
    action: Option<String>,
    action_groups: &'static [&'static str],
    connection: String,
}

impl Slices {
    /// What there is to know of the policies `all`.
    pub(super) fn of(all: &PolicySet) -> Self {
        let all: Vec<_> = all.policies().map(Scoped::of).collect();
        let actions = all.iter().flat_map(|scoped| match &scoped.action {
            ActionConstraint::Any => Vec::new(),
            ActionConstraint::Eq(action) => vec![action],
            ActionConstraint::In(actions) => actions.iter().collect(),
        });
        let named = actions.map(|action| id(action).to_owned()).collect();
        Self { all, named, made: Mutex::default() }
    }

    /// Those that can decide the question.
    ///
    /// # Errors
    /// What must be a denial: it cannot be said which policies these are.
    pub(super) fn slice(&self, question: &Question<'_>) -> Result<Arc<Slice>, String> {
        let key = Key {
            subject: question.subject.id.as_str().to_owned(),
            kind: question.subject.kind.clone(),
            groups: question.subject.identity.groups.iter().cloned().collect(),
            action: self.named.get(question.action).cloned(),
            action_groups: question.groups,
            connection: question.connection.as_str().to_owned(),
        };
        if let Some(made) = self.made().get(&key) {
            return Ok(Arc::clone(made));
        }
        let met: Vec<_> = self.all.iter().filter(|scoped| key.can_meet(scoped)).collect();
        let slice = Arc::new(Slice::of(&met, &key.connection)?);
        let mut made = self.made();
        if made.len() >= REMEMBERED {
            made.clear();
        }
        made.insert(key, Arc::clone(&slice));
        Ok(slice)
    }

    fn made(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Slice>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn can_meet(&self, scoped: &Scoped) -> bool {
        self.principal(&scoped.principal)
            && self.action(&scoped.action)
            && self.resource(&scoped.resource)
    }

    fn principal(&self, constraint: &PrincipalConstraint) -> bool {
        match constraint {
            PrincipalConstraint::Any | PrincipalConstraint::Is(_) => true,
            PrincipalConstraint::Eq(uid)
            | PrincipalConstraint::In(uid)
            | PrincipalConstraint::IsIn(_, uid) => match kind(uid) {
                "Subject" => id(uid) == self.subject,
                "Group" => self.groups.contains(id(uid)),
                _ => true,
            },
        }
    }

    fn action(&self, constraint: &ActionConstraint) -> bool {
        let is = |uid: &EntityUid| {
            self.action.as_deref() == Some(id(uid)) || self.action_groups.contains(&id(uid))
        };
        match constraint {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => is(uid),
            ActionConstraint::In(uids) => uids.iter().any(is),
        }
    }

    fn resource(&self, constraint: &ResourceConstraint) -> bool {
        match constraint {
            ResourceConstraint::Any | ResourceConstraint::Is(_) => true,
            ResourceConstraint::Eq(uid)
            | ResourceConstraint::In(uid)
            | ResourceConstraint::IsIn(_, uid) => match kind(uid) {
                "Connection" => id(uid) == self.connection,
                // Their ids begin with the connection's name, which has no slash.
                "Tool" | "Prompt" | "Resource" => {
                    id(uid).split_once('/').is_some_and(|(name, _)| name == self.connection)
                }
                _ => true,
            },
        }
    }
}

/// The type of an entity, without its namespace: there is none here.
fn kind(uid: &EntityUid) -> &str {
    uid.type_name().basename()
}

fn id(uid: &EntityUid) -> &str {
    uid.id().unescaped()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use cedar_policy::Authorizer;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::context::Reads;
    use crate::policy::mediation::{Row, Shape};
    use crate::policy::{Direction, Facts, Target};
    use crate::types::{ConnectionName, Identity, Subject, SubjectId, SubjectKind, Timestamp};

    const PRINCIPALS: &[&str] = &[
        "principal",
        "principal == Subject::\"sub_0000000000000001\"",
        "principal in Group::\"a\"",
        "principal in Group::\"b\"",
        "principal is Subject",
        "principal is Subject in Group::\"a\"",
        "principal in Other::\"a\"",
    ];
    const ACTIONS: &[&str] = &[
        "action",
        "action == Action::\"tools/call\"",
        "action == Action::\"read\"",
        "action in Action::\"read\"",
        "action in [Action::\"tools/call\", Action::\"protocol\"]",
        "action in [Action::\"x/unknown\"]",
    ];
    const RESOURCES: &[&str] = &[
        "resource",
        "resource in Connection::\"crm\"",
        "resource == Connection::\"crm\"",
        "resource == Tool::\"crm/get\"",
        "resource in Tool::\"crm/get\"",
        "resource == Tool::\"crm-two/get\"",
        "resource is Tool",
        "resource is Tool in Connection::\"crm\"",
    ];
    const CONDITIONS: &[&str] = &[
        "",
        "when { context.approved }",
        "when { context.arguments.missing == 1 }",
        "when { context.now > datetime(\"1969-01-01\") }",
        "when { context has source_ip }",
        "unless { context has \"now\" && context has arguments }",
        "when { context.arguments has t && context.arguments.t == \"x\" }",
        "when { context.arguments has t && \"1.5\" == context.arguments.t && context.approved }",
        "when { context.arguments has t && context.arguments.t > 5 }",
        "when { context.arguments has \"\\u{74}\" }",
        "unless { context.arguments has t && context.arguments.t == \"x\" }",
        "when { context.arguments has t } unless { context.arguments.missing }",
        "when { context has \"\\u{73}ource_ip\" && !(context has \"n\\u{6f}w\") }",
    ];

    fn policy() -> impl Strategy<Value = String> {
        let of = |choices: &'static [&'static str]| prop::sample::select(choices);
        let effect = of(&["permit", "forbid"]);
        (effect, of(PRINCIPALS), of(ACTIONS), of(RESOURCES), of(CONDITIONS)).prop_map(
            |(effect, principal, action, resource, condition)| {
                format!("{effect} ({principal}, {action}, {resource}) {condition};")
            },
        )
    }

    proptest! {
        #[test]
        fn a_slice_decides_as_the_whole_does(
            policies in prop::collection::vec(policy(), 0..12),
            subject in 1u8..3,
            groups in prop::collection::vec(prop::sample::select(&["a", "b", "c"][..]), 0..3),
            action in prop::sample::select(
                &["tools/call", "tools/list", "ping", "x/unknown", "x/other"][..]
            ),
            connection in prop::sample::select(&["crm", "crm-two"][..]),
            on_tool in any::<bool>(),
            approved in any::<bool>(),
            arguments in prop::sample::select(&[
                "", "{}", "null", "7", "\"t\"", r#"{"t":"x"}"#, r#"{"t":"y"}"#, r#"{"t":7}"#,
                r#"{"t":1.5}"#, r#"{"t":null}"#, r#"{"t":["x"],"u":1}"#, r#"{"u":1,"v":2,"w":3}"#,
            ][..]),
        ) {
            let all = PolicySet::from_str(&policies.join("\n")).unwrap();
            let subject = Subject {
                id: format!("sub_{subject:016}").parse::<SubjectId>().unwrap(),
                kind: SubjectKind::Person,
                identity: Identity {
                    issuer: "i".into(),
                    sub: "s".into(),
                    email: None,
                    groups: groups.into_iter().map(str::to_owned).collect(),
                },
            };
            let target =
                if on_tool { Target::Tool("get".to_owned()) } else { Target::Connection };
            let params = serde_json::from_str::<serde_json::Value>(arguments).ok();
            let params = params.map(|arguments| serde_json::json!({ "arguments": arguments }));
            let connection: ConnectionName = connection.parse().unwrap();
            let question = Question {
                subject: &subject,
                connection: &connection,
                action,
                groups: Row::of(action, Shape::Request).groups,
                target: &target,
                direction: Direction::ClientToServer,
                params: params.as_ref(),
                approved,
            };
            let facts = Facts {
                now: Timestamp::from_second(0).unwrap(),
                source: Some("127.0.0.1".parse().unwrap()),
                grant_age_seconds: 0,
                reason: None,
                scope: crate::policy::Scope::default(),
            };
            let slices = Slices::of(&all);
            let ask = |policies: &PolicySet, scene: &Scene, reads: Reads| {
                let request = question.request(scene, &facts, reads).unwrap();
                let entities = &scene.entities;
                let response = Authorizer::new().is_authorized(&request, policies, entities);
                let mut reasons: Vec<_> =
                    response.diagnostics().reason().map(ToString::to_string).collect();
                let mut errors: Vec<_> =
                    response.diagnostics().errors().map(ToString::to_string).collect();
                reasons.sort();
                errors.sort();
                (response.decision(), reasons, errors)
            };
            let whole = ask(&all, &question.scene().unwrap(), Reads::of("now source_ip arguments"));
            // The second time it is remembered.
            for _ in 0..2 {
                let slice = slices.slice(&question).unwrap();
                let scene = slice.scene(&question).unwrap();
                let arguments = params.as_ref().map(|params| &params["arguments"]);
                let met = slice.policies.meeting(&scene.resource, arguments);
                prop_assert_eq!(&ask(&met.policies, &scene, met.reads), &whole);
            }
        }
    }

    #[test]
    fn what_cannot_meet_a_question_is_left_out() {
        let mut text = String::new();
        for number in 0..100 {
            text.push_str(&format!(
                "permit (principal in Group::\"g{number}\", action, resource);
                 permit (principal, action, resource in Connection::\"c{number}\");
                 permit (principal, action == Action::\"x/a{number}\", resource);"
            ));
        }
        let all = PolicySet::from_str(&text).unwrap();
        let key = |action: &str| Key {
            kind: SubjectKind::Person,
            subject: "sub_0000000000000001".to_owned(),
            groups: BTreeSet::from(["g7".to_owned()]),
            action: Some(action.to_owned()),
            action_groups: &[],
            connection: "c8".to_owned(),
        };
        let meets = |key: &Key| all.policies().filter(|one| key.can_meet(&Scoped::of(one))).count();
        assert_eq!(meets(&key("x/a9")), 3);
        assert_eq!(meets(&key("tools/call")), 2);
    }
}
