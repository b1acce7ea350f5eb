//! Decisions over small policy sets.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::mcp::{Era, Limits, Message, Origin};
use crate::policy::{Act, Transport, Way};
use crate::types::{CallId, Identity, SessionId, SubjectId, SubjectKind};

const POLICIES: &str = r#"
@id("eng-use")
permit (principal in Group::"eng", action, resource in Connection::"crm");
@id("protocol")
permit (principal in Group::"eng", action in Action::"protocol", resource == Connection::"crm");
@id("no-export")
forbid (principal, action == Action::"tools/call", resource == Tool::"crm/export");
@id("no-secrets-table")
forbid (principal, action == Action::"tools/call", resource == Tool::"crm/query")
when { context.arguments.table like "secret*" };
@id("delete-needs-lead")
@approval("group:leads")
forbid (principal, action == Action::"tools/call", resource == Tool::"crm/delete")
unless { context.approved };
"#;

fn set(text: &str) -> Result<PolicySet, PolicyError> {
    PolicySet::parse(&[Source { name: "main.cedar".to_owned(), text: text.to_owned() }])
}

fn facts() -> Facts {
    Facts {
        now: "2026-01-02T03:04:05Z".parse().unwrap(),
        source: Some("127.0.0.1".parse().unwrap()),
        grant_age_seconds: 3,
        reason: None,
        scope: Scope::default(),
    }
}

fn subject(groups: &[&str]) -> Arc<Subject> {
    Arc::new(Subject {
        id: SubjectId::generate().unwrap(),
        kind: SubjectKind::Person,
        identity: Identity {
            issuer: "http://127.0.0.1/issuer".to_owned(),
            sub: "x".to_owned(),
            email: None,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        },
    })
}

fn call_by(subject: &Arc<Subject>, json: &str) -> Call {
    let raw = Bytes::from(json.to_owned());
    let message = Message::decode(raw, Origin::Client, &Limits::default()).unwrap();
    Call::new(
        CallId::generate().unwrap(),
        SessionId::generate().unwrap(),
        Arc::clone(subject),
        "crm".parse().unwrap(),
        Way { direction: Direction::ClientToServer, era: Era::Legacy, transport: Transport::Http },
        Act::Message(message),
    )
    .unwrap()
}

fn tool(subject: &Arc<Subject>, name: &str, arguments: &str) -> Call {
    call_by(
        subject,
        &format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}","arguments":{arguments},"_meta":{{"progressToken":7}}}}}}"#
        ),
    )
}

fn denied(decision: Decision) -> Denial {
    match decision {
        Decision::Deny(_, denial) => denial,
        other => panic!("expected a denial, not {other:?}"),
    }
}

#[test]
fn denies_by_default_and_names_the_rule() {
    let policies = set(POLICIES).unwrap();
    let (eng, other) = (subject(&["eng"]), subject(&["sales"]));
    let query = r#"{"table":"customers"}"#;
    assert!(
        matches!(policies.decide(tool(&eng, "query", query), &facts(), None), Decision::Allow(permit) if permit.rules() == ["eng-use"])
    );
    let denial = denied(policies.decide(tool(&other, "query", query), &facts(), None));
    assert_eq!(denial.rules, ["default-deny"]);
    let denial = denied(policies.decide(tool(&eng, "export", "{}"), &facts(), None));
    assert_eq!(denial.rules, ["no-export"]);
    let denial =
        denied(policies.decide(tool(&eng, "query", r#"{"table":"secrets"}"#), &facts(), None));
    assert_eq!(denial.rules, ["no-secrets-table"]);
    assert!(
        denied(PolicySet::parse(&[]).unwrap().decide(tool(&eng, "query", query), &facts(), None))
            .rules
            == ["default-deny"]
    );
}

#[test]
fn an_erroring_policy_denies_even_where_cedar_would_allow() {
    let policies = set(POLICIES).unwrap();
    let denial = denied(policies.decide(tool(&subject(&["eng"]), "query", "{}"), &facts(), None));
    assert_eq!(denial.rules, ["policy-error"]);
    assert!(denial.reason.contains("no-secrets-table"), "{}", denial.reason);
}

#[test]
fn approval_is_bound_to_one_canonical_call() {
    let policies = set(POLICIES).unwrap();
    let eng = subject(&["eng"]);
    let Decision::NeedsApproval(need) =
        policies.decide(tool(&eng, "delete", r#"{"id":1,"why":"x"}"#), &facts(), None)
    else {
        panic!("delete must need approval");
    };
    assert_eq!(
        (need.groups.as_slice(), need.rules.as_slice()),
        (&["leads".to_owned()][..], &["delete-needs-lead".to_owned()][..])
    );
    let approved = Approved {
        id: ApprovalId::generate().unwrap(),
        binding: need.binding,
        by: SubjectId::generate().unwrap(),
    };
    // Key order and blanks are the same call; other arguments or another subject are not.
    let same = tool(&eng, "delete", r#"{ "why":"x", "id":1 }"#);
    assert!(
        matches!(policies.decide(same, &facts(), Some(&approved)), Decision::Allow(permit) if permit.approval() == Some(&approved.id))
    );
    for other in [
        tool(&eng, "delete", r#"{"id":2,"why":"x"}"#),
        tool(&subject(&["eng"]), "delete", r#"{"id":1,"why":"x"}"#),
    ] {
        assert!(matches!(
            policies.decide(other, &facts(), Some(&approved)),
            Decision::NeedsApproval(_)
        ));
    }
    let changed = set(&format!("{POLICIES}\n// a new version\n")).unwrap();
    let same = tool(&eng, "delete", r#"{"id":1,"why":"x"}"#);
    assert!(matches!(changed.decide(same, &facts(), Some(&approved)), Decision::NeedsApproval(_)));
    // Nobody is asked for what would be denied all the same.
    let denial = denied(policies.decide(tool(&subject(&[]), "delete", "{}"), &facts(), None));
    assert_eq!(denial.rules, ["default-deny"]);
}

#[test]
fn numbers_beyond_doubles_never_share_an_approval() {
    let eng = subject(&["eng"]);
    let binding =
        |n: &str| Binding::of(&tool(&eng, "delete", &format!(r#"{{"id":{n}}}"#)), "v", &[]);
    assert_ne!(binding("9007199254740993"), binding("9007199254740992"));
    assert_ne!(
        binding("123456789012345678901234567890"),
        binding("123456789012345678901234567891")
    );
    assert_eq!(binding("7"), binding(" 7 "));
}

#[test]
fn lists_show_what_might_be_allowed() {
    let policies = set(POLICIES).unwrap();
    let crm = "crm".parse().unwrap();
    let eng = subject(&["eng"]);
    let shows = |subject: &Subject, name: &str| {
        policies.may_list(subject, &crm, &Target::Tool(name.to_owned()), &facts())
    };
    assert!(shows(&eng, "query") && shows(&eng, "delete") && !shows(&eng, "export"));
    assert!(!shows(&subject(&["sales"]), "query"));
}

#[test]
fn loading_points_at_the_place() {
    let error = set("permit (principal, action, resource);\npermit (principal action, resource);")
        .unwrap_err();
    assert!(matches!(error, PolicyError::Parse { line: 2, column: 19.., .. }), "{error}");
    assert!(matches!(
        set(
            "@id(\"a\") permit (principal, action, resource);\n@id(\"a\") forbid (principal, action, resource);"
        ),
        Err(PolicyError::DuplicateId { .. })
    ));
    for bad in [
        "@approval(\"group:x\") permit (principal, action, resource);",
        "@approval(\"leads\") forbid (principal, action, resource);",
        "permit (principal == ?principal, action, resource);",
    ] {
        assert!(matches!(set(bad), Err(PolicyError::Annotation { .. })), "{bad}");
    }
}

#[test]
fn a_yes_holds_for_what_meta_says_and_not_for_the_try() {
    let eng = subject(&["eng"]);
    let binding = |meta: &str, more: &str| {
        let call = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"delete","arguments":{{"n":10.5}},"_meta":{{{meta}}}{more}}}}}"#
        );
        Binding::of(&call_by(&eng, &call), "v", &[])
    };
    let plain = binding("", "");
    // Another try of the same call, even with a fraction in its arguments.
    assert_eq!(binding(r#""progressToken":7"#, ""), plain);
    assert_eq!(binding(r#""progressToken":8,"traceparent":"x""#, ""), plain);
    // What a server could act on.
    assert_ne!(binding(r#""com.example/tenant":"other""#, ""), plain);
    assert_ne!(binding(r#""baggage":"tenant=other""#, ""), plain);
    assert_ne!(binding("", r#","inputResponses":{"sure":{"action":"accept"}}"#), plain);
}

#[test]
fn a_yes_to_one_rule_is_none_to_another() {
    let policies = set(r#"
        permit (principal, action, resource);
        @id("always") @approval("group:leads")
        forbid (principal, action == Action::"tools/call", resource) unless { context.approved };
        @id("late") @approval("group:leads, group:security")
        forbid (principal, action == Action::"tools/call", resource)
        when { context.grant_age_seconds > 100 } unless { context.approved };
    "#)
    .unwrap();
    let eng = subject(&["eng"]);
    let call = || tool(&eng, "delete", "{}");
    let Decision::NeedsApproval(need) = policies.decide(call(), &facts(), None) else {
        panic!("needs approval");
    };
    let approved = Approved {
        id: ApprovalId::generate().unwrap(),
        binding: need.binding,
        by: SubjectId::generate().unwrap(),
    };
    assert!(matches!(policies.decide(call(), &facts(), Some(&approved)), Decision::Allow(_)));
    let late = Facts { grant_age_seconds: 101, ..facts() };
    let Decision::NeedsApproval(need) = policies.decide(call(), &late, Some(&approved)) else {
        panic!("a second rule asks now");
    };
    assert_eq!(need.rules, ["always", "late"]);
}

#[test]
fn an_integer_is_one_however_it_is_written() {
    let policies = set(r#"
        permit (principal, action, resource);
        @id("not-seven")
        forbid (principal, action, resource) when { context.arguments.id == 7 };
    "#)
    .unwrap();
    let eng = subject(&["eng"]);
    for seven in ["7", "7.0", "7e0", "70e-1"] {
        let call = tool(&eng, "get", &format!(r#"{{"id":{seven}}}"#));
        assert_eq!(denied(policies.decide(call, &facts(), None)).rules, ["not-seven"], "{seven}");
    }
}

#[test]
fn completing_reaches_what_is_completed() {
    let policies = set(r#"
        permit (principal, action, resource);
        @id("hidden")
        forbid (principal, action, resource == Prompt::"crm/secret");
        forbid (principal, action == Action::"prompts/get", resource == Prompt::"crm/unlisted");
    "#)
    .unwrap();
    let eng = subject(&["eng"]);
    let complete = |name: &str| {
        call_by(
            &eng,
            &format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{{"ref":{{"type":"ref/prompt","name":"{name}"}},"argument":{{"name":"a","value":""}}}}}}"#
            ),
        )
    };
    assert!(matches!(policies.decide(complete("open"), &facts(), None), Decision::Allow(_)));
    assert_eq!(denied(policies.decide(complete("secret"), &facts(), None)).rules, ["hidden"]);
    let unlisted = denied(policies.decide(complete("unlisted"), &facts(), None));
    assert_eq!(unlisted.rules, ["default-deny"]);
}

#[test]
fn arguments_of_nothing_but_brackets_are_denied_at_once() {
    let text = "permit (principal, action, resource) when { context.arguments has a };";
    let policies = set(text).unwrap();
    let eng = subject(&["eng"]);
    let arguments = |n: usize| format!(r#"{{"a":[{}]}}"#, vec!["[]"; n].join(","));
    let few = tool(&eng, "get", &arguments(1000));
    assert!(matches!(policies.decide(few, &facts(), None), Decision::Allow(_)));
    let many = denied(policies.decide(tool(&eng, "get", &arguments(100_000)), &facts(), None));
    assert_eq!(many.rules, ["policy-error"]);
    assert!(many.reason.contains("100000"), "{}", many.reason);
}

#[test]
fn policies_tell_people_and_jobs_apart_even_under_one_id() {
    let policies = set(r#"
        @id("people") permit(principal, action, resource) when { principal.kind == "person" };
        @id("deploys") permit(principal, action, resource)
            when { principal has rule && principal.rule == "deploy" };
        "#)
    .unwrap();
    let person = subject(&["eng"]);
    let of = |rule: &str| {
        let kind = SubjectKind::Workload { rule: rule.to_owned() };
        Arc::new(Subject { kind, ..Subject::clone(&person) })
    };
    let decided = |subject: &Arc<Subject>| match policies.decide(
        tool(subject, "query", "{}"),
        &facts(),
        None,
    ) {
        Decision::Allow(permit) => permit.rules().to_vec(),
        other => denied(other).rules,
    };
    assert_eq!(decided(&person), ["people"]);
    assert_eq!(decided(&of("deploy")), ["deploys"]);
    assert_eq!(decided(&of("nightly")), ["default-deny"]);
    assert_eq!(decided(&person), ["people"]);
    let bound = |subject: &Arc<Subject>| Binding::of(&tool(subject, "query", "{}"), "p", &[]);
    assert_ne!(bound(&of("deploy")), bound(&of("nightly")), "a yes to one job is none to another");
    assert_ne!(bound(&of("deploy")), bound(&person));
}
