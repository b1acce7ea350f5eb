//! How a call becomes a Cedar request: entities, actions and context.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression,
};
use serde_json::Value;

use super::call::{Direction, Target};
use super::set::Facts;
use crate::types::{ConnectionName, Subject};

/// A call that cannot be put to Cedar; always a deny.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the call could not be put to the policies: {0}")]
pub(super) struct ContextError(String);

fn failed(error: impl std::fmt::Display) -> ContextError {
    ContextError(error.to_string())
}

/// Entity types by name, parsed once: Cedar's parser takes longer than all else here.
static KINDS: LazyLock<HashMap<&str, EntityTypeName>> = LazyLock::new(|| {
    ["Subject", "Group", "Connection", "Action", "Tool", "Prompt", "Resource"]
        .into_iter()
        .filter_map(|kind| Some((kind, kind.parse().ok()?)))
        .collect()
});

fn uid(kind: &str, id: &str) -> Result<EntityUid, ContextError> {
    let kind = KINDS.get(kind).ok_or_else(|| failed(format!("no entity type {kind}")))?;
    Ok(EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id)))
}

/// What is asked of the policies: who, what, on what.
pub(super) struct Question<'a> {
    pub(super) subject: &'a Subject,
    pub(super) connection: &'a ConnectionName,
    pub(super) action: &'a str,
    /// The groups of actions that policies may name: `action in Action::"read"`.
    pub(super) groups: &'static [&'static str],
    pub(super) target: &'a Target,
    pub(super) direction: Direction,
    pub(super) params: Option<&'a Value>,
    pub(super) approved: bool,
}

/// What a question is about, apart from its circumstances: it comes again and again.
pub(super) struct Scene {
    principal: EntityUid,
    action: EntityUid,
    pub(super) resource: EntityUid,
    pub(super) entities: Entities,
}

/// Which parts of the context policies speak of at all. The others can be left out, which nobody
/// can tell: dates and addresses take Cedar longer than most conditions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reads {
    now: bool,
    source: bool,
    arguments: bool,
}

impl Reads {
    /// What the text of policies mentions, be it in a string or a name of something else.
    pub(super) fn of(text: &str) -> Self {
        // What is written with escapes may be any name.
        let says = |name: &str| text.contains(name) || text.contains('\\');
        Self { now: says("now"), source: says("source_ip"), arguments: says("arguments") }
    }
}

/// Whether policies with this text speak of nothing in the context but the arguments and whether
/// somebody approved. Errs on the side of no.
pub(super) fn is_steady(text: &str) -> bool {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("context") {
        let known = ["arguments", "approved"];
        let member = after.strip_prefix('.').or_else(|| after.trim_start().strip_prefix("has "));
        let member = member.map(|member| member.trim_start().trim_start_matches('"'));
        let Some(member) = member else { return false };
        let end = member.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(member.len());
        let Some((name, after)) = member.split_at_checked(end) else { return false };
        if !known.contains(&name) {
            return false;
        }
        rest = after;
    }
    // With escapes a string may name anything.
    !text.contains('\\')
}

impl Question<'_> {
    /// The entities that the question speaks of.
    pub(super) fn scene(&self) -> Result<Scene, ContextError> {
        let principal = uid("Subject", self.subject.id.as_str())?;
        let groups = self
            .subject
            .identity
            .groups
            .iter()
            .map(|group| uid("Group", group))
            .collect::<Result<HashSet<_>, _>>()?;
        let kind = &self.subject.kind;
        let mut attributes = HashMap::from([
            ("issuer".to_owned(), text(&self.subject.identity.issuer)),
            ("sub".to_owned(), text(&self.subject.identity.sub)),
            ("kind".to_owned(), text(kind.word())),
        ]);
        attributes.extend(kind.rule().map(|rule| ("rule".to_owned(), text(rule))));
        let connection = uid("Connection", self.connection.as_str())?;
        let action = uid("Action", self.action)?;
        let action_groups = self
            .groups
            .iter()
            .map(|group| uid("Action", group))
            .collect::<Result<HashSet<_>, _>>()?;
        let inside = |kind: &str, name: &str| uid(kind, &format!("{}/{name}", self.connection));
        let resource = match self.target {
            Target::Connection => connection.clone(),
            Target::Tool(name) => inside("Tool", name)?,
            Target::Prompt(name) => inside("Prompt", name)?,
            Target::Resource(uri) => inside("Resource", uri)?,
        };

        let mut entities = vec![
            Entity::new(principal.clone(), attributes, groups).map_err(failed)?,
            Entity::new_no_attrs(action.clone(), action_groups),
            Entity::new_no_attrs(connection.clone(), HashSet::new()),
        ];
        if resource != connection {
            entities.push(Entity::new_no_attrs(resource.clone(), HashSet::from([connection])));
        }
        let entities = Entities::from_entities(entities, None).map_err(failed)?;
        Ok(Scene { principal, action, resource, entities })
    }

    /// The Cedar request, with what the policies read of the circumstances.
    pub(super) fn request(
        &self,
        scene: &Scene,
        facts: &Facts,
        reads: Reads,
    ) -> Result<Request, ContextError> {
        let (principal, action) = (scene.principal.clone(), scene.action.clone());
        let context = self.context(facts, reads)?;
        Request::new(principal, action, scene.resource.clone(), context, None).map_err(failed)
    }

    fn context(&self, facts: &Facts, reads: Reads) -> Result<Context, ContextError> {
        let direction = match self.direction {
            Direction::ClientToServer => "client_to_server",
            Direction::ServerToClient => "server_to_client",
        };
        let mut pairs = vec![
            ("approved".to_owned(), RestrictedExpression::new_bool(self.approved)),
            ("direction".to_owned(), text(direction)),
            (
                "grant_age_seconds".to_owned(),
                RestrictedExpression::new_long(facts.grant_age_seconds),
            ),
        ];
        if reads.now {
            let now = facts.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            pairs.push(("now".to_owned(), RestrictedExpression::new_datetime(now)));
        }
        if let Some(source) = facts.source.filter(|_| reads.source) {
            pairs.push(("source_ip".to_owned(), RestrictedExpression::new_ip(source.to_string())));
        }
        if let Some(reason) = &facts.reason {
            pairs.push(("reason".to_owned(), text(reason)));
        }
        if !reads.arguments {
            return Context::from_pairs(pairs).map_err(failed);
        }
        let arguments = self.params.and_then(|params| params.get("arguments"));
        if arguments.is_some_and(|arguments| !fits(arguments, &mut { MOST_VALUES })) {
            return Err(ContextError(format!("its arguments hold more than {MOST_VALUES} values")));
        }
        if let Some(arguments) = arguments.and_then(expression) {
            pairs.push(("arguments".to_owned(), arguments));
        } else {
            let none = RestrictedExpression::new_record([]).map_err(failed)?;
            pairs.push(("arguments".to_owned(), none));
        }
        Context::from_pairs(pairs).map_err(failed)
    }
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

/// JSON as Cedar sees it. Cedar has neither null nor floating point: null members are left out
/// (`has` tells), and a number that is no 64-bit integer becomes the text of that number. `7.0` and
/// `7e0` are the integer 7, as they are to most servers: else a rule about 7 would miss them.
fn expression(value: &Value) -> Option<RestrictedExpression> {
    match value {
        Value::Null => None,
        Value::Bool(flag) => Some(RestrictedExpression::new_bool(*flag)),
        Value::Number(number) => Some(
            integer(number)
                .map_or_else(|| text(&number.to_string()), RestrictedExpression::new_long),
        ),
        Value::String(string) => Some(text(string)),
        Value::Array(items) => {
            Some(RestrictedExpression::new_set(items.iter().filter_map(expression)))
        }
        Value::Object(members) => RestrictedExpression::new_record(
            members.iter().filter_map(|(key, value)| Some((key.clone(), expression(value)?))),
        )
        .ok(),
    }
}

/// What a value is as Cedar's string, if [`expression`] makes it one.
pub(super) fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(string) => Some(Cow::Borrowed(string)),
        Value::Number(number) if integer(number).is_none() => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// Values in one call's arguments. Cedar takes microseconds for each, on a thread that others wait
/// for: a message of nothing but brackets would hold up everybody.
const MOST_VALUES: u32 = 100_000;

fn fits(value: &Value, left: &mut u32) -> bool {
    let Some(less) = left.checked_sub(1) else { return false };
    *left = less;
    match value {
        Value::Array(items) => items.iter().all(|item| fits(item, left)),
        Value::Object(members) => members.values().all(|member| fits(member, left)),
        _ => true,
    }
}

fn integer(number: &serde_json::Number) -> Option<i64> {
    /// Up to here every integer is a double of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    number.as_i64().or_else(|| {
        let value = number.as_f64().filter(|_| number.is_f64())?;
        #[expect(clippy::cast_possible_truncation, reason = "checked to be in range and whole")]
        (value.trunc() == value && value.abs() <= EXACT).then_some(value as i64)
    })
}
