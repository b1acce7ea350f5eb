//! Whether a subject may have a grant, and what binds a person's yes to exactly one grant.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::approval::Binding;
use super::call::{Direction, Target};
use super::context::Question;
use super::mediation::{Row, Shape};
use super::scope::Scope;
use super::set::{Denial, Facts, PolicySet, Verdict};
use crate::types::{ConnectionName, GrantId, Subject, Timestamp, hex, sha256};

/// What policy says of a grant that it does not refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connect {
    /// It may be given.
    Allowed,
    /// It may, once a person of the named groups says yes.
    NeedsApproval(Ask),
}

/// Who has to say yes to a grant, and for how long it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The ids of the policies that ask for it.
    pub rules: Vec<String>,
    /// Groups whose members may give it; any one suffices.
    pub groups: Vec<String>,
    /// The longest life that these policies let a grant have (`@max_life`).
    pub longest: Option<Duration>,
    /// The policy version that asks.
    pub policy: String,
}

/// The grant that somebody asks for, in their own words and numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Why, masked.
    pub reason: String,
    /// For how long.
    pub seconds: i64,
    /// What of the connection.
    #[serde(default, rename = "tools")]
    pub scope: Scope,
    /// Not before; at once where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// The grant that is to live longer, instead of a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extends: Option<GrantId>,
    /// Where it was asked from: shown to who decides, and bound to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// The groups of who asked: to find the request by, and bound to nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

impl Wanted {
    /// What a yes to it is bound to: who, where, what of it, why, from when, for how long, the
    /// rules that ask and the policy version.
    pub fn binding(&self, subject: &Subject, connection: &ConnectionName, ask: &Ask) -> Binding {
        // Keys are sorted, so the same grant has the same text.
        let mut bound = json!({
            "v": 1,
            "action": "connect",
            "subject": subject.id,
            "connection": connection,
            "reason": self.reason,
            "seconds": self.seconds,
            "tools": self.scope,
            "from": self.from,
            "extends": self.extends,
            "policy": ask.policy,
            "rules": ask.rules,
        });
        // As with calls: a yes to the job of one rule is none to that of another.
        if let Some(rule) = subject.kind.rule() {
            bound["trust_rule"] = json!(rule);
        }
        Binding::from_stored(hex(&sha256(bound.to_string().as_bytes())))
    }
}

impl PolicySet {
    /// Whether a subject may be given a grant for a connection (`Action::"connect"`).
    ///
    /// # Errors
    /// The [`Denial`], with the deciding rules.
    pub fn may_connect(
        &self,
        subject: &Subject,
        connection: &ConnectionName,
        facts: &Facts,
    ) -> Result<Connect, Denial> {
        let mut question = Question {
            subject,
            connection,
            action: "connect",
            groups: Row::of("connect", Shape::Act).groups,
            target: &Target::Connection,
            direction: Direction::ClientToServer,
            params: None,
            approved: false,
        };
        let rules = match self.judge(&question, facts) {
            Verdict::Allow(_) => return Ok(Connect::Allowed),
            Verdict::Deny(rules) => rules,
            Verdict::Failed(why) => return Err(self.failure(&why)),
        };
        let Some(groups) = self.approvers(&rules) else { return Err(self.denial(rules)) };
        // Lifted approvals must leave an allow, or asking a person would be for nothing.
        question.approved = true;
        match self.judge(&question, facts) {
            Verdict::Allow(_) => {
                let longest = self.longest(&rules);
                let policy = self.version().to_owned();
                Ok(Connect::NeedsApproval(Ask { rules, groups, longest, policy }))
            }
            Verdict::Deny(rules) => Err(self.denial(rules)),
            Verdict::Failed(why) => Err(self.failure(&why)),
        }
    }
}

/// Reads `@max_life("1h 30m")`.
pub(super) fn max_life(annotation: &str) -> Result<Duration, String> {
    annotation
        .parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|span| Duration::try_from(span).ok())
        .filter(|span| span.as_secs() > 0)
        .ok_or_else(|| format!("@max_life({annotation:?}) must be a span of time such as \"1h\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PolicyError, Source};
    use crate::types::{Identity, SubjectKind};

    fn parse(text: &str) -> Result<PolicySet, PolicyError> {
        PolicySet::parse(&[Source { name: "p.cedar".to_owned(), text: text.to_owned() }])
    }

    const LEADS: &str = r#"
        @id("all") permit(principal, action, resource);
        @id("leads") @approval("group:leads") @max_life("1h 30m")
        forbid(principal, action == Action::"connect", resource) unless { context.approved };
        @id("more") @approval("group:leads, group:dba") @max_life("1h")
        forbid(principal, action == Action::"connect", resource == Connection::"db")
        unless { context.approved };
    "#;

    fn alice() -> Subject {
        let id = "sub_0000000000000000".parse().unwrap();
        let identity = Identity {
            issuer: "https://i.example".to_owned(),
            sub: "a".to_owned(),
            email: None,
            groups: vec![],
        };
        Subject { id, kind: SubjectKind::Person, identity }
    }

    fn facts() -> Facts {
        let now = "2026-11-20T10:00:00Z".parse().unwrap();
        Facts { now, source: None, grant_age_seconds: 0, reason: None, scope: Scope::default() }
    }

    fn ask(policies: &PolicySet, connection: &str) -> Ask {
        let connection = connection.parse().unwrap();
        match policies.may_connect(&alice(), &connection, &facts()).unwrap() {
            Connect::NeedsApproval(ask) => ask,
            Connect::Allowed => panic!("allowed"),
        }
    }

    #[test]
    fn a_grant_waits_for_those_whom_every_rule_names_and_is_as_long_as_the_strictest_lets_it() {
        let policies = parse(LEADS).unwrap();
        let crm = ask(&policies, "crm");
        assert_eq!(crm.rules, ["leads"]);
        assert_eq!(crm.longest, Some(Duration::from_secs(90 * 60)));
        let db = ask(&policies, "db");
        assert_eq!(
            (db.rules, db.groups),
            (vec!["leads".into(), "more".into()], vec!["leads".into()])
        );
        assert_eq!(db.longest, Some(Duration::from_secs(60 * 60)));
        let fixed =
            LEADS.replace("unless { context.approved };\n        @id(\"more\")", ";@id(\"more\")");
        let crm = "crm".parse().unwrap();
        let denial = parse(&fixed).unwrap().may_connect(&alice(), &crm, &facts()).unwrap_err();
        assert_eq!(denial.rules, ["leads"], "a yes would change nothing");
    }

    #[test]
    fn a_yes_is_for_one_grant() {
        let policies = parse(LEADS).unwrap();
        let crm: ConnectionName = "crm".parse().unwrap();
        let asked = ask(&policies, "crm");
        let wanted = Wanted {
            reason: "OPS-1".to_owned(),
            seconds: 3600,
            scope: Scope::of_tools(vec!["a".to_owned()]),
            from: None,
            extends: None,
            source: None,
            groups: vec![],
        };
        let bound = wanted.binding(&alice(), &crm, &asked);
        let elsewhere = Wanted { source: Some([127, 0, 0, 1].into()), ..wanted.clone() };
        assert_eq!(elsewhere.binding(&alice(), &crm, &asked), bound);
        let grant = "gr_0000000000000000".parse().unwrap();
        for other in [
            Wanted { reason: "OPS-2".to_owned(), ..wanted.clone() },
            Wanted { seconds: 3601, ..wanted.clone() },
            Wanted { scope: Scope::default(), ..wanted.clone() },
            Wanted { from: Some(facts().now), ..wanted.clone() },
            Wanted { extends: Some(grant), ..wanted.clone() },
        ] {
            assert_ne!(other.binding(&alice(), &crm, &asked), bound, "{other:?}");
        }
        let bob = Subject { id: "sub_0000000000000001".parse().unwrap(), ..alice() };
        assert_ne!(wanted.binding(&bob, &crm, &asked), bound);
        let of = |rule: &str| {
            let kind = SubjectKind::Workload { rule: rule.to_owned() };
            wanted.binding(&Subject { kind, ..alice() }, &crm, &asked)
        };
        assert_ne!(of("deploy"), bound);
        assert_ne!(of("deploy"), of("nightly"), "a yes to one job is none to another");
        assert_ne!(wanted.binding(&alice(), &"erp".parse().unwrap(), &asked), bound);
        let newer = Ask { policy: "other".to_owned(), ..asked.clone() };
        assert_ne!(wanted.binding(&alice(), &crm, &newer), bound);
        let stricter = Ask { rules: vec!["leads".into(), "more".into()], ..asked };
        assert_ne!(wanted.binding(&alice(), &crm, &stricter), bound);
    }

    #[test]
    fn a_life_is_a_span_of_time_on_a_policy_that_asks() {
        for (text, why) in [
            (
                r#"@approval("group:l") @max_life("soon") forbid(principal, action, resource);"#,
                "1h",
            ),
            (r#"@approval("group:l") @max_life("-1h") forbid(principal, action, resource);"#, "1h"),
            (r#"@max_life("1h") permit(principal, action, resource);"#, "@approval"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("@max_life") && error.contains(why), "{error}");
        }
    }
}
