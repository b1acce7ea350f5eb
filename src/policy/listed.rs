//! What lists may show: all of a page at once, and remembered.
//!
//! A client asks for the same list again and again, and thousands of items are thousands of
//! questions. Where nothing that the policies of the slice read changes from one moment to the next
//! ([`Steady`]), two things follow. What no policy names is all alike to them, as nothing can be
//! asked of it but what it is and where it stands, so one question answers for all of that. And the
//! answer for a page of names is kept for as long as the slice itself, that is, for one set of
//! policies and one subject with its groups.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::call::{Direction, Target};
use super::context::{Question, is_steady};
use super::mediation::{Row, Shape};
use super::set::{Facts, PolicySet};
use super::slice::Slice;
use crate::types::{ConnectionName, Subject, sha256};

/// Pages that a slice remembers. A page takes 32 bytes, and one more for each item.
const PAGES: usize = 32;

/// The longest page that is remembered, in items.
const LONGEST: usize = 10_000;

/// Policies that read nothing that differs from call to call, but for the arguments and whether
/// somebody approved; and what they have said of whole pages.
#[derive(Debug)]
pub(super) struct Steady {
    /// Every entity of the connection that they may name.
    named: HashSet<String>,
    pages: Mutex<HashMap<[u8; 32], Arc<[bool]>>>,
}

impl Steady {
    /// What there is to know of policies with this text, if they are steady.
    pub(super) fn of(text: &str, connection: &str) -> Option<Self> {
        // Where nothing is written with escapes, a name in quotes stands between two of them.
        let ours =
            |part: &&str| part.strip_prefix(connection).is_some_and(|name| name.starts_with('/'));
        is_steady(text).then(|| {
            let named = text.split('"').filter(ours).map(str::to_owned).collect();
            Self { named, pages: Mutex::default() }
        })
    }

    fn names(&self, connection: &ConnectionName, target: &Target) -> bool {
        target.name().is_none_or(|name| self.named.contains(&format!("{connection}/{name}")))
    }

    fn get(&self, key: &[u8; 32]) -> Option<Arc<[bool]>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn keep(&self, key: [u8; 32], page: Arc<[bool]>) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.len() >= PAGES {
            pages.clear();
        }
        pages.insert(key, page);
    }
}

/// The method by which something that a list shows is used.
fn used_by(target: &Target) -> Option<&'static str> {
    match target {
        Target::Connection => None,
        Target::Tool(_) => Some("tools/call"),
        Target::Prompt(_) => Some("prompts/get"),
        Target::Resource(_) => Some("resources/read"),
    }
}

impl PolicySet {
    /// Whether a list may show a tool, prompt or resource: unless it is certain that using it
    /// would be denied. The arguments are not known yet, so a policy that fails for want of them
    /// might still permit (a `permit` counts), and might not forbid (a `forbid` does not).
    pub fn may_list(
        &self,
        subject: &Subject,
        connection: &ConnectionName,
        target: &Target,
        facts: &Facts,
    ) -> bool {
        let Some(question) = listing(subject, connection, target) else { return true };
        let Ok(slice) = self.slice(&question) else { return false };
        facts.scope.reaches(target) && self.shows(&slice, question, facts)
    }

    /// [`Self::may_list`] of every target, in their order.
    pub fn listed(
        &self,
        subject: &Subject,
        connection: &ConnectionName,
        targets: &[Target],
        facts: &Facts,
    ) -> Vec<bool> {
        let each = || targets.iter().map(|one| self.may_list(subject, connection, one, facts));
        let first = targets.first().and_then(|first| listing(subject, connection, first));
        let Some(first) = first else { return each().collect() };
        let alike = targets.iter().all(|target| used_by(target) == Some(first.action));
        if !alike || targets.len() > LONGEST {
            return each().collect();
        }
        let Ok(slice) = self.slice(&first) else { return vec![false; targets.len()] };
        let shows = |target| {
            listing(subject, connection, target)
                .is_some_and(|question| self.shows(&slice, question, facts))
        };
        let page: Arc<[bool]> = match &slice.steady {
            None => targets.iter().map(shows).collect(),
            Some(steady) => {
                let key = name(targets);
                steady.get(&key).unwrap_or_else(|| {
                    let mut others = None;
                    let page = targets.iter().map(|target| {
                        if steady.names(connection, target) {
                            return shows(target);
                        }
                        *others.get_or_insert_with(|| shows(target))
                    });
                    let page: Arc<[bool]> = page.collect();
                    steady.keep(key, Arc::clone(&page));
                    page
                })
            }
        };
        // What the grant is limited to is no matter of the policies.
        let reached = targets.iter().zip(page.iter());
        reached.map(|(target, shown)| *shown && facts.scope.reaches(target)).collect()
    }

    fn shows(&self, slice: &Slice, mut question: Question<'_>, facts: &Facts) -> bool {
        let Ok(scene) = question.scene() else { return false };
        let shown = |question: &Question<'_>| -> Option<bool> {
            let response = self.ask_of(slice, &scene, question, facts).ok()?;
            let diagnostics = response.diagnostics();
            Some(match response.decision() {
                cedar_policy::Decision::Allow => true,
                // Satisfied forbids, and nothing a person could lift.
                cedar_policy::Decision::Deny if diagnostics.reason().next().is_some() => {
                    return None;
                }
                cedar_policy::Decision::Deny => diagnostics.errors().any(|error| {
                    let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
                    self.permits(error.policy_id())
                }),
            })
        };
        shown(&question).unwrap_or_else(|| {
            question.approved = true;
            shown(&question).unwrap_or(false)
        })
    }
}

/// What is asked before a list shows a target, if anything is.
fn listing<'a>(
    subject: &'a Subject,
    connection: &'a ConnectionName,
    target: &'a Target,
) -> Option<Question<'a>> {
    let action = used_by(target)?;
    Some(Question {
        subject,
        connection,
        action,
        groups: Row::of(action, Shape::Request).groups,
        target,
        direction: Direction::ClientToServer,
        params: None,
        approved: false,
    })
}

/// What tells one page from another: the hash of all names in their order.
fn name(targets: &[Target]) -> [u8; 32] {
    let mut text = Vec::with_capacity(32 * targets.len());
    for name in targets.iter().filter_map(Target::name) {
        text.extend_from_slice(&(name.len() as u64).to_le_bytes());
        text.extend_from_slice(name.as_bytes());
    }
    sha256(&text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::{Scope, Source};
    use crate::types::{Identity, SubjectId, SubjectKind, Timestamp};

    fn set(text: &str) -> PolicySet {
        PolicySet::parse(&[Source { name: "t.cedar".into(), text: text.to_owned() }]).unwrap()
    }

    fn subject(groups: &[&str]) -> Subject {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let identity = Identity { issuer: "i".into(), sub: "s".into(), email: None, groups };
        let id = "sub_0000000000000001".parse::<SubjectId>().unwrap();
        Subject { id, kind: SubjectKind::Person, identity }
    }

    fn facts(second: i64) -> Facts {
        Facts {
            now: Timestamp::from_second(second).unwrap(),
            source: None,
            grant_age_seconds: second,
            reason: None,
            scope: Scope::default(),
        }
    }

    #[test]
    fn only_arguments_and_approval_are_steady() {
        for steady in [
            "permit (principal, action, resource);",
            "when { context.arguments has limit && context.arguments.limit > 7 }",
            "unless { context.approved }",
            "when { context has arguments && principal in Group::\"a\" }",
        ] {
            assert!(is_steady(steady), "{steady}");
        }
        for other in [
            "when { context.now > datetime(\"2026-01-01\") }",
            "when { context.grant_age_seconds > 7 }",
            "when { context has reason }",
            "when { context has \"now\" }",
            "when { context[\"now\"] }",
            "when { context has arguments.now && context . now }",
            "when { context == {} }",
            "when { [context].contains({}) }",
            "when { context.arguments has \"\\u{74}\" }",
            "when { context.argumentsnow }",
        ] {
            assert!(!is_steady(other), "{other}");
        }
    }

    #[test]
    fn what_changes_with_time_is_not_remembered() {
        let set =
            set("permit (principal, action, resource) when { context.grant_age_seconds < 10 };");
        let (subject, crm) = (subject(&[]), "crm".parse().unwrap());
        let targets = [Target::Tool("get".into())];
        assert_eq!(set.listed(&subject, &crm, &targets, &facts(1)), [true]);
        assert_eq!(set.listed(&subject, &crm, &targets, &facts(20)), [false]);
    }

    proptest! {
        /// A page shows what each of its items alone shows, the first time and afterwards.
        #[test]
        fn a_page_is_its_items(
            pages in prop::collection::vec(
                prop::collection::vec(prop::sample::select(&["a", "b", "c", "d", "get", "drop"][..]), 0..6),
                1..5,
            ),
            groups in prop::sample::select(vec![vec!["x"], vec!["y"], vec![]]),
            kinds in any::<bool>(),
        ) {
            let set = set(
                r#"permit (principal in Group::"x", action, resource in Connection::"crm");
                   permit (principal, action == Action::"tools/call", resource == Tool::"crm/get");
                   permit (principal, action, resource == Tool::"crm/a") when { context.arguments.n > 1 };
                   forbid (principal, action, resource == Tool::"crm/drop");
                   forbid (principal, action, resource == Tool::"crm/b") unless { context.approved };"#,
            );
            let (subject, crm) = (subject(&groups), "crm".parse().unwrap());
            for page in pages.iter().chain(&pages) {
                let targets: Vec<_> = page.iter().enumerate().map(|(at, name)| {
                    let name = (*name).to_owned();
                    if kinds && at == 1 { Target::Prompt(name) } else { Target::Tool(name) }
                }).collect();
                let alone: Vec<_> = targets
                    .iter()
                    .map(|target| set.may_list(&subject, &crm, target, &facts(1)))
                    .collect();
                prop_assert_eq!(set.listed(&subject, &crm, &targets, &facts(1)), alone);
            }
        }
    }
}
