//! The loaded policies and their decision.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context as Digest, SHA256};
use cedar_policy::{Authorizer, Effect, PolicyId, Response};

use super::approval::{Approved, Binding};
use super::call::{Call, Direction, Target};
use super::connect::max_life;
use super::context::{Question, Scene};
use super::mediation::{self, Row, Rule, Shape};
use super::scope::{self, Scope};
use super::slice::{Slice, Slices};
use crate::types::{ApprovalId, ConnectionName, Subject, Timestamp, hex};

/// One policy file's text.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file's name, for messages and for the ids of policies without `@id`.
    pub name: String,
    /// Its Cedar text.
    pub text: String,
}

/// Policies that cannot be loaded. The previous set, if any, stays in force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Cedar cannot parse a file.
    #[error("{file}:{line}:{column}: {why}")]
    Parse {
        /// The file.
        file: String,
        /// 1-based line.
        line: usize,
        /// 1-based column, in characters.
        column: usize,
        /// What Cedar says.
        why: String,
    },
    /// Two policies carry one `@id`.
    #[error("{file}: the policy id {id:?} is already taken")]
    DuplicateId {
        /// The file with the second one.
        file: String,
        /// The id.
        id: String,
    },
    /// An annotation this version does not understand, or in the wrong place.
    #[error("{file}: policy {id:?}: {why}")]
    Annotation {
        /// The file.
        file: String,
        /// The policy.
        id: String,
        /// What is wrong.
        why: String,
    },
}

/// Facts about the moment of a call, computed by the gateway and never taken from the message.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The time now.
    pub now: Timestamp,
    /// Where the caller's network connection comes from.
    pub source: Option<IpAddr>,
    /// The grant's age, in seconds.
    pub grant_age_seconds: i64,
    /// Why the grant was asked for, in the caller's words.
    pub reason: Option<String>,
    /// What the grant is limited to.
    pub scope: Scope,
}

/// A refusal, with the rule that refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The ids of the deciding policies, or `default-deny`, or `policy-error`.
    pub rules: Vec<String>,
    /// One sentence for the caller.
    pub reason: String,
    /// The policy version that decided.
    pub policy: String,
}

impl Denial {
    /// Whether the grant does not reach this, whatever the policies say.
    pub fn is_scope(&self) -> bool {
        self.rules.first().is_some_and(|rule| rule == scope::RULE)
    }
}

/// A call that needs a person's yes.
#[derive(Clone, Debug)]
pub struct Need {
    /// The call.
    pub call: Call,
    /// The ids of the policies that ask for it.
    pub rules: Vec<String>,
    /// Groups whose members may give it; any one suffices.
    pub groups: Vec<String>,
    /// What the yes must be bound to.
    pub binding: Binding,
    /// The policy version that asks.
    pub policy: String,
}

impl Need {
    /// The call and its denial, where nobody can be asked.
    pub fn refused(self, reason: &str) -> (Call, Denial) {
        let denial = Denial { rules: self.rules, reason: reason.to_owned(), policy: self.policy };
        (self.call, denial)
    }
}

/// Proof that policy allows one call. Forwarding takes nothing else, and nothing outside this
/// file can make one:
///
/// ```
/// use mcpx::policy::Permit;
/// fn forward(permit: &Permit) -> &str { permit.call().action() }
/// ```
///
/// ```compile_fail
/// use mcpx::policy::{Call, Permit};
/// fn forge(call: Call) -> Permit {
///     Permit { call, rules: vec![], approval: None, policy: String::new() }
/// }
/// ```
#[derive(Debug)]
pub struct Permit {
    call: Call,
    rules: Vec<String>,
    approval: Option<ApprovalId>,
    policy: String,
}

impl Permit {
    /// The call that is allowed.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// The ids of the policies that allow it.
    pub fn rules(&self) -> &[String] {
        &self.rules
    }

    /// The approval it stands on, if it needed one.
    pub fn approval(&self) -> Option<&ApprovalId> {
        self.approval.as_ref()
    }

    /// The policy version that decided.
    pub fn policy(&self) -> &str {
        &self.policy
    }
}

/// What policy says of a call.
#[derive(Debug)]
pub enum Decision {
    /// It may be forwarded.
    Allow(Box<Permit>),
    /// It may not.
    Deny(Box<Call>, Denial),
    /// It may, once a person of the named groups says yes.
    NeedsApproval(Box<Need>),
}

impl Decision {
    /// The call, unless it is denied.
    pub fn lets(&self) -> Option<&Call> {
        match self {
            Self::Allow(permit) => Some(permit.call()),
            Self::NeedsApproval(need) => Some(&need.call),
            Self::Deny(..) => None,
        }
    }
}

/// A parsed set of policies, with its version.
#[derive(Debug)]
pub struct PolicySet {
    cedar: cedar_policy::PolicySet,
    slices: Slices,
    authorizer: Authorizer,
    /// For each `@approval` policy, the groups that may lift it.
    approvals: BTreeMap<String, Vec<String>>,
    /// For those with `@max_life`, how long a grant may be that they let be given.
    lives: BTreeMap<String, Duration>,
    version: String,
}

const NO_PERMIT: &str = "default-deny";
const POLICY_ERROR: &str = "policy-error";

impl PolicySet {
    /// Parses policy files. Ids come from `@id`, else from the file's name and the policy's
    /// place in it.
    ///
    /// # Errors
    /// [`PolicyError`], naming file, line and column where there are any.
    pub fn parse(sources: &[Source]) -> Result<Self, PolicyError> {
        let mut cedar = cedar_policy::PolicySet::new();
        let mut approvals = BTreeMap::new();
        let mut lives = BTreeMap::new();
        let mut digest = Digest::new(&SHA256);
        for source in sources {
            for part in [&source.name, &source.text] {
                digest.update(&(part.len() as u64).to_be_bytes());
                digest.update(part.as_bytes());
            }
            let parsed = cedar_policy::PolicySet::from_str(&source.text)
                .map_err(|errors| parse_error(source, &errors))?;
            if let Some(template) = parsed.templates().next() {
                return Err(PolicyError::Annotation {
                    file: source.name.clone(),
                    id: template.annotation("id").unwrap_or_default().to_owned(),
                    why: "templates (?principal, ?resource) are not supported".to_owned(),
                });
            }
            let mut policies: Vec<_> = parsed.policies().collect();
            policies.sort_by_key(|policy| place_in_file(policy.id()));
            for (number, policy) in policies.into_iter().enumerate() {
                let id = policy
                    .annotation("id")
                    .map_or_else(|| format!("{}#{}", source.name, number + 1), str::to_owned);
                if let Some(groups) = policy.annotation("approval") {
                    let groups = approval_groups(groups, policy.effect()).map_err(|why| {
                        PolicyError::Annotation { file: source.name.clone(), id: id.clone(), why }
                    })?;
                    approvals.insert(id.clone(), groups);
                }
                if let Some(span) = policy.annotation("max_life") {
                    let life = if approvals.contains_key(&id) {
                        max_life(span)
                    } else {
                        Err("@max_life belongs on a policy with @approval".to_owned())
                    };
                    let life = life.map_err(|why| PolicyError::Annotation {
                        file: source.name.clone(),
                        id: id.clone(),
                        why,
                    })?;
                    lives.insert(id.clone(), life);
                }
                cedar
                    .add(policy.new_id(PolicyId::new(&id)))
                    .map_err(|_taken| PolicyError::DuplicateId { file: source.name.clone(), id })?;
            }
        }
        let version = hex(digest.finish().as_ref());
        let slices = Slices::of(&cedar);
        Ok(Self { cedar, slices, authorizer: Authorizer::new(), approvals, lives, version })
    }

    /// The set's version: SHA-256 over its files' names and texts, in hexadecimal.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// How many policies the set holds.
    pub fn len(&self) -> usize {
        self.cedar.policies().count()
    }

    /// Whether the set holds no policy, and so denies everything.
    pub fn is_empty(&self) -> bool {
        self.cedar.is_empty()
    }

    /// Decides a call. `approved` lifts `@approval` policies only if it is bound to this very
    /// call under this very policy version and to the very rules that now ask for it.
    pub fn decide(&self, call: Call, facts: &Facts, approved: Option<&Approved>) -> Decision {
        let waits = match call.rule() {
            Rule::Policy { waits } => waits,
            // An answer is nothing to decide on; as a call it is nothing to let through.
            Rule::Answer => return self.never(call, mediation::SHAPE),
            Rule::Refused(rule) => return self.never(call, rule),
        };
        // By its name alone, and before any policy is asked: it says nothing of what there is.
        if !facts.scope.lets(&call) {
            let denial = self.out_of_scope();
            return Decision::Deny(Box::new(call), denial);
        }
        let mut question = Question {
            subject: &call.subject,
            connection: &call.connection,
            action: call.action(),
            groups: call.row().groups,
            target: call.target(),
            direction: call.direction,
            params: call.params(),
            approved: false,
        };
        let rules = match self.judge(&question, facts) {
            // It tells what something holds, and that it is there at all.
            Verdict::Allow(_) if call.row().listed && !self.may_tell_of(&call, facts) => {
                let denial = self.denial(Vec::new());
                return Decision::Deny(Box::new(call), denial);
            }
            Verdict::Allow(rules) => return self.allowed(call, rules, None),
            Verdict::Deny(rules) => rules,
            Verdict::Failed(why) => return Decision::Deny(Box::new(call), self.failure(&why)),
        };
        let Some(groups) = self.approvers(&rules) else {
            let denial = self.denial(rules);
            return Decision::Deny(Box::new(call), denial);
        };
        // Lifted approvals must leave an allow, or asking a person would be for nothing.
        question.approved = true;
        match self.judge(&question, facts) {
            Verdict::Allow(_) if call.row().listed && !self.may_tell_of(&call, facts) => {
                let denial = self.denial(rules);
                Decision::Deny(Box::new(call), denial)
            }
            Verdict::Allow(allowing) => {
                let binding = Binding::of(&call, &self.version, &rules);
                match approved.filter(|approved| approved.binding == binding) {
                    Some(approved) => self.allowed(call, allowing, Some(approved.id.clone())),
                    None if !waits => {
                        let reason = "only a client's request can wait for approval".to_owned();
                        let policy = self.version.clone();
                        Decision::Deny(Box::new(call), Denial { rules, reason, policy })
                    }
                    None => {
                        let policy = self.version.clone();
                        let need = Need { call, rules, groups, binding, policy };
                        Decision::NeedsApproval(Box::new(need))
                    }
                }
            }
            Verdict::Deny(rules) => {
                let denial = self.denial(rules);
                Decision::Deny(Box::new(call), denial)
            }
            Verdict::Failed(why) => Decision::Deny(Box::new(call), self.failure(&why)),
        }
    }

    /// Whether everything that a call tells of may be shown to its subject.
    fn may_tell_of(&self, call: &Call, facts: &Facts) -> bool {
        let mut told = std::iter::once(call.target()).chain(call.mentions());
        told.all(|target| self.may_list(&call.subject, &call.connection, target, facts))
    }

    /// The denial of what the protocol itself has no place for.
    fn never(&self, call: Call, rule: &str) -> Decision {
        let denial = self.protocol(rule, call.action());
        Decision::Deny(Box::new(call), denial)
    }

    fn protocol(&self, rule: &str, method: &str) -> Denial {
        let reason = mediation::reason(rule, method);
        Denial { rules: vec![rule.to_owned()], reason, policy: self.version.clone() }
    }

    fn allowed(&self, call: Call, rules: Vec<String>, approval: Option<ApprovalId>) -> Decision {
        let policy = self.version.clone();
        Decision::Allow(Box::new(Permit { call, rules, approval, policy }))
    }

    /// Whether a server may ask the subject's client something inside a result (`input_required`).
    /// Nobody can be asked about that: where an approval is wanted, it is a denial.
    ///
    /// # Errors
    /// The [`Denial`], with the deciding rules.
    pub fn may_ask(
        &self,
        subject: &Subject,
        connection: &ConnectionName,
        method: &str,
        params: Option<&serde_json::Value>,
        facts: &Facts,
    ) -> Result<(), Denial> {
        let row = Row::of(method, Shape::Request);
        if let Rule::Refused(rule) = row.rule_within() {
            return Err(self.protocol(rule, method));
        }
        let question = Question {
            subject,
            connection,
            action: method,
            groups: row.groups,
            target: &Target::Connection,
            direction: Direction::ServerToClient,
            params,
            approved: false,
        };
        match self.judge(&question, facts) {
            Verdict::Allow(_) => Ok(()),
            Verdict::Deny(rules) => Err(self.denial(rules)),
            Verdict::Failed(why) => Err(self.failure(&why)),
        }
    }

    fn ask(&self, question: &Question<'_>, facts: &Facts) -> Result<Response, String> {
        let slice = self.slice(question)?;
        let scene = slice.scene(question).map_err(|error| error.to_string())?;
        self.ask_of(&slice, &scene, question, facts)
    }

    /// The policies that can decide a question.
    pub(super) fn slice(&self, question: &Question<'_>) -> Result<Arc<Slice>, String> {
        self.slices.slice(question)
    }

    /// Whether the policy of an id permits, rather than forbids.
    pub(super) fn permits(&self, id: &PolicyId) -> bool {
        self.cedar.policy(id).is_some_and(|policy| policy.effect() == Effect::Permit)
    }

    /// Puts a question to the policies of its slice.
    pub(super) fn ask_of(
        &self,
        slice: &Slice,
        scene: &Scene,
        question: &Question<'_>,
        facts: &Facts,
    ) -> Result<Response, String> {
        let failed = |error: super::context::ContextError| error.to_string();
        let arguments = question.params.and_then(|params| params.get("arguments"));
        let met = slice.policies.meeting(&scene.resource, arguments);
        let request = question.request(scene, facts, met.reads).map_err(failed)?;
        Ok(self.authorizer.is_authorized(&request, &met.policies, &scene.entities))
    }

    pub(super) fn judge(&self, question: &Question<'_>, facts: &Facts) -> Verdict {
        let response = match self.ask(question, facts) {
            Ok(response) => response,
            Err(why) => return Verdict::Failed(why),
        };
        if let Some(error) = response.diagnostics().errors().next() {
            return Verdict::Failed(error.to_string());
        }
        match response.decision() {
            cedar_policy::Decision::Allow => Verdict::Allow(reasons(&response)),
            cedar_policy::Decision::Deny => Verdict::Deny(reasons(&response)),
        }
    }

    /// The groups that can lift all of `rules`, if each of them is an `@approval` policy.
    pub(super) fn approvers(&self, rules: &[String]) -> Option<Vec<String>> {
        let mut common: Option<BTreeSet<&String>> = None;
        for rule in rules {
            let groups: BTreeSet<_> = self.approvals.get(rule)?.iter().collect();
            common = Some(match common {
                None => groups,
                Some(common) => common.intersection(&groups).copied().collect(),
            });
        }
        let groups: Vec<_> = common?.into_iter().cloned().collect();
        (!groups.is_empty()).then_some(groups)
    }

    /// The longest life that all of `rules` let a grant have; none where none of them says.
    pub(super) fn longest(&self, rules: &[String]) -> Option<Duration> {
        rules.iter().filter_map(|rule| self.lives.get(rule)).min().copied()
    }

    fn out_of_scope(&self) -> Denial {
        let rules = vec![scope::RULE.to_owned()];
        let reason = "the grant is for named tools, and this is none of them".to_owned();
        Denial { rules, reason, policy: self.version.clone() }
    }

    pub(super) fn denial(&self, rules: Vec<String>) -> Denial {
        let policy = self.version.clone();
        if rules.is_empty() {
            let reason = "no policy permits this".to_owned();
            return Denial { rules: vec![NO_PERMIT.to_owned()], reason, policy };
        }
        let named = rules.iter().map(|rule| format!("{rule:?}")).collect::<Vec<_>>().join(", ");
        let noun = if rules.len() == 1 { "policy" } else { "policies" };
        Denial { rules, reason: format!("forbidden by {noun} {named}"), policy }
    }

    pub(super) fn failure(&self, why: &str) -> Denial {
        Denial {
            rules: vec![POLICY_ERROR.to_owned()],
            reason: format!("denied because a policy could not be evaluated: {why}"),
            policy: self.version.clone(),
        }
    }
}

/// What all policies together say to one question.
pub(super) enum Verdict {
    Allow(Vec<String>),
    Deny(Vec<String>),
    Failed(String),
}

fn reasons(response: &Response) -> Vec<String> {
    let mut rules: Vec<_> =
        response.diagnostics().reason().map(|id| AsRef::<str>::as_ref(id).to_owned()).collect();
    rules.sort();
    rules
}

/// Cedar numbers a file's policies `policy0`, `policy1`, … in order.
fn place_in_file(id: &PolicyId) -> usize {
    AsRef::<str>::as_ref(id).trim_start_matches("policy").parse().unwrap_or(usize::MAX)
}

/// Reads `@approval("group:leads, group:dba")`.
fn approval_groups(annotation: &str, effect: Effect) -> Result<Vec<String>, String> {
    if effect != Effect::Forbid {
        return Err("@approval belongs on a forbid policy, which the approval lifts".to_owned());
    }
    let groups = annotation
        .split(',')
        .map(|part| {
            part.trim()
                .strip_prefix("group:")
                .map(str::trim)
                .filter(|group| !group.is_empty())
                .map(str::to_owned)
                .ok_or_else(|| format!("@approval({annotation:?}) must list \"group:NAME\""))
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(groups)
}

fn parse_error(source: &Source, errors: &cedar_policy::ParseErrors) -> PolicyError {
    let first = errors.iter().next();
    let offset = first.and_then(|error| {
        let mut labels = miette::Diagnostic::labels(error)?;
        labels.next().map(|label| label.offset())
    });
    let before = source.text.get(..offset.unwrap_or(0)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let why = first.map_or_else(|| errors.to_string(), ToString::to_string);
    PolicyError::Parse { file: source.name.clone(), line, column, why }
}

#[cfg(test)]
mod tests;
