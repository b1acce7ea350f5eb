//! Every cell of the table, put to the real decision.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::mcp::{Limits, Message, Origin};
use crate::policy::{Act, Call, Decision, Denial, Facts, PolicySet, Scope, Source};
use crate::types::{CallId, Identity, SessionId, Subject, SubjectId, SubjectKind};

const ERAS: [Era; 2] = [Era::Legacy, Era::Modern];
const DIRECTIONS: [Direction; 2] = [Direction::ClientToServer, Direction::ServerToClient];
const TRANSPORTS: [Transport; 3] = [Transport::Http, Transport::Sse, Transport::Stdio];

fn ways() -> impl Iterator<Item = Way> {
    DIRECTIONS.into_iter().flat_map(|direction| {
        ERAS.into_iter().flat_map(move |era| {
            TRANSPORTS.into_iter().map(move |transport| Way { direction, era, transport })
        })
    })
}

fn set(text: &str) -> PolicySet {
    PolicySet::parse(&[Source { name: "main.cedar".to_owned(), text: text.to_owned() }]).unwrap()
}

fn facts() -> Facts {
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    Facts { now, source: None, grant_age_seconds: 3, reason: None, scope: Scope::default() }
}

/// A method that the row stands for.
fn method(row: &Row) -> String {
    row.method.replace('*', if row.method == "*" { "x/unheard" } else { "unheard" })
}

/// A call of a row on its way; `None` where there is no such thing to send.
fn call(row: &Row, way: Way) -> Option<Call> {
    let method = method(row);
    let params = json!({
        "name": "t", "uri": "x:y",
        "ref": {"type": "ref/prompt", "name": "p"},
        "notifications": {"resourceSubscriptions": ["x:y", "x:z"]},
    });
    let act = match row.shape {
        Shape::Request => {
            message(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
        }
        Shape::Notification => {
            message(&json!({"jsonrpc": "2.0", "method": method, "params": params}))
        }
        Shape::Response => message(&json!({"jsonrpc": "2.0", "id": 1, "result": {}})),
        Shape::Act => match row.method {
            "transport/listen" => Act::Listen,
            "transport/end" => Act::End,
            _ => return None,
        },
    };
    Some(call_of(act, way))
}

fn message(value: &Value) -> Act {
    let raw = value.to_string().into();
    Act::Message(Message::decode(raw, Origin::Server, &Limits::default()).unwrap())
}

fn call_of(act: Act, way: Way) -> Call {
    let identity = Identity {
        issuer: "i".to_owned(),
        sub: "s".to_owned(),
        email: None,
        groups: vec!["eng".to_owned()],
    };
    let kind = SubjectKind::Person;
    let subject = Subject { id: SubjectId::generate().unwrap(), kind, identity };
    let (id, session) = (CallId::generate().unwrap(), SessionId::generate().unwrap());
    Call::new(id, session, Arc::new(subject), "crm".parse().unwrap(), way, act).unwrap()
}

fn denial(decision: Decision) -> Option<Denial> {
    match decision {
        Decision::Deny(_, denial) => Some(denial),
        Decision::Allow(_) | Decision::NeedsApproval(_) => None,
    }
}

/// Policies that permit one action, on exactly what it reaches, and showing what it tells of.
fn only(row: &Row) -> PolicySet {
    let resource = match row.names {
        Names::Tool => r#"Tool::"crm/t""#,
        Names::Prompt => r#"Prompt::"crm/t""#,
        Names::Resource => r#"Resource::"crm/x:y""#,
        Names::Reference => r#"Prompt::"crm/p""#,
        Names::Nothing | Names::Subscriptions => r#"Connection::"crm""#,
    };
    let action = method(row);
    let shown = if row.listed {
        r#"permit(principal, action in [Action::"prompts/get", Action::"resources/read"], resource);"#
    } else {
        ""
    };
    set(&format!(
        r#"@id("only") permit(principal, action == Action::"{action}", resource == {resource}); {shown}"#
    ))
}

#[test]
fn no_cell_passes_without_a_policy_and_every_cell_has_its_rule() {
    let nothing = set("");
    let forbidden = set(
        r#"permit(principal, action, resource); @id("no") forbid(principal, action, resource);"#,
    );
    let everything = set("permit(principal, action, resource);");
    let asking = set(r#"
        permit(principal, action, resource);
        @id("ask") @approval("group:leads")
        forbid(principal, action, resource) unless { context.approved };
    "#);
    let alone: Vec<_> = ROWS.iter().map(|row| (row, only(row))).collect();
    let (mut refused, mut passed, mut held) = (0, 0, 0);
    for row in ROWS {
        for way in ways() {
            let Some(first) = call(row, way) else { continue };
            let at = format!("{} {:?} {way:?}", row.method, row.shape);
            assert!(std::ptr::eq(first.row(), row), "{at}: taken for {}", first.row().method);
            assert_eq!(first.rule(), row.rule(way), "{at}");
            let decide =
                |policies: &PolicySet| policies.decide(call(row, way).unwrap(), &facts(), None);
            let waits = match row.rule(way) {
                Rule::Refused(rule) => {
                    refused += 1;
                    for policies in [&nothing, &forbidden, &everything, &asking, &only(row)] {
                        let denial = denial(decide(policies)).unwrap_or_else(|| panic!("{at}"));
                        assert_eq!(denial.rules, [rule], "{at}");
                    }
                    continue;
                }
                Rule::Answer => {
                    // It is never put to policy; if it were, it would not pass.
                    assert!(denial(decide(&everything)).is_some(), "{at}");
                    continue;
                }
                Rule::Policy { waits } => waits,
            };
            let rules = |policies| denial(decide(policies)).map(|denial| denial.rules);
            assert_eq!(rules(&nothing), Some(vec!["default-deny".to_owned()]), "{at}");
            assert_eq!(rules(&forbidden), Some(vec!["no".to_owned()]), "{at}");
            passed += 1;
            for policies in [&everything, &only(row)] {
                assert!(matches!(decide(policies), Decision::Allow(_)), "{at}");
            }
            // Another action opens nothing here.
            let others = alone.iter().filter(|(other, _)| {
                method(other) != method(row) && other.shape == row.shape && !other.listed
            });
            for (other, policies) in others {
                assert!(denial(decide(policies)).is_some(), "{at}: by {}", other.method);
            }
            match decide(&asking) {
                Decision::NeedsApproval(need) => {
                    held += 1;
                    assert!(waits && need.rules == ["ask"], "{at}");
                }
                Decision::Deny(_, denial) => {
                    assert!(!waits && denial.rules == ["ask"], "{at}: {denial:?}");
                }
                Decision::Allow(_) => panic!("{at}: passed without a yes"),
            }
        }
    }
    assert!(refused > 100 && passed > 100 && held > 40, "{refused} {passed} {held}");
}

#[test]
fn a_group_opens_what_the_table_says_and_no_more() {
    for group in ["protocol", "read", "server", "tasks"] {
        let policies =
            set(&format!(r#"permit(principal, action in Action::"{group}", resource);"#));
        for row in ROWS {
            for way in ways().filter(|way| matches!(row.rule(*way), Rule::Policy { .. })) {
                let Some(call) = call(row, way) else { continue };
                let told = matches!(row.names, Names::Nothing | Names::Tool | Names::Prompt);
                if row.listed && !told && group != "read" {
                    continue; // needs two groups: to be told, and to be shown
                }
                let allowed = matches!(policies.decide(call, &facts(), None), Decision::Allow(_));
                assert_eq!(allowed, row.groups.contains(&group), "{group} {} {way:?}", row.method);
            }
        }
    }
}

#[test]
fn a_taken_name_means_nothing_else() {
    let everything = set("permit(principal, action, resource);");
    let bare = |value: Value| message(&value);
    for (act, rule) in [
        (bare(json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "t"}})), SHAPE),
        (bare(json!({"jsonrpc": "2.0", "id": 1, "method": "notifications/cancelled"})), SHAPE),
        (bare(json!({"jsonrpc": "2.0", "id": 1, "method": "response"})), SHAPE),
        (bare(json!({"jsonrpc": "2.0", "id": 1, "method": "transport/end"})), SHAPE),
        (bare(json!({"jsonrpc": "2.0", "id": 1, "method": "connect"})), SHAPE),
        (bare(json!({"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage"})), DIRECTION),
    ] {
        let way = Way {
            direction: Direction::ClientToServer,
            era: Era::Legacy,
            transport: Transport::Http,
        };
        let denial = denial(everything.decide(call_of(act, way), &facts(), None)).unwrap();
        assert_eq!(denial.rules, [rule]);
    }
    // A request that only looks like a notification is an unheard-of method, not protocol.
    assert!(Row::of("notifications/unheard", Shape::Request).groups.is_empty());
}

#[test]
fn what_may_not_be_shown_is_not_told_of() {
    let policies = set(r#"
        permit(principal, action, resource);
        forbid(principal, action == Action::"resources/read", resource == Resource::"crm/x:z");
    "#);
    let asked = |uris: Value| {
        message(&json!({"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen",
                        "params": {"notifications": {"resourceSubscriptions": uris}}}))
    };
    let named = |method: &str, id: Option<u8>, uri: &str| {
        let mut value = json!({"jsonrpc": "2.0", "method": method, "params": {"uri": uri}});
        if let Some(id) = id {
            value["id"] = json!(id);
        }
        message(&value)
    };
    let way = |direction| Way { direction, era: Era::Modern, transport: Transport::Http };
    let (up, down) = (Direction::ClientToServer, Direction::ServerToClient);
    for (act, direction, allowed) in [
        (asked(json!(["x:y"])), up, true),
        (asked(json!(["x:y", "x:z"])), up, false),
        (asked(json!(null)), up, true),
        (named("resources/subscribe", Some(1), "x:y"), up, true),
        (named("resources/subscribe", Some(1), "x:z"), up, false),
        (named("resources/unsubscribe", Some(1), "x:z"), up, false),
        (named("notifications/resources/updated", None, "x:y"), down, true),
        (named("notifications/resources/updated", None, "x:z"), down, false),
    ] {
        let call = call_of(act.clone(), way(direction));
        let decision = policies.decide(call, &facts(), None);
        assert_eq!(matches!(decision, Decision::Allow(_)), allowed, "{act:?}");
    }
    let odd = asked(json!(["x:y", 7]));
    let Act::Message(odd) = odd else { unreachable!() };
    let row = Row::of("subscriptions/listen", Shape::Request);
    let odd = odd.params_value();
    assert!(row.targets(odd.as_ref(), way(up)).is_err(), "what is no URI is unread");
    // What the modern era has no more names nothing there, or what it names.
    let gone = Row::of("resources/subscribe", Shape::Request);
    let legacy = Way { era: Era::Legacy, ..way(up) };
    assert_eq!(gone.targets(None, way(up)), Ok((Target::Connection, vec![])));
    assert!(gone.targets(None, legacy).is_err());
    assert!(gone.targets(Some(&json!({"uri": ["x:z"]})), way(up)).is_err());
}

#[test]
fn a_request_inside_a_result_is_the_servers_own() {
    let everything = set("permit(principal, action, resource);");
    let asking = set(r#"
        permit(principal, action, resource);
        @id("ask") @approval("group:leads")
        forbid(principal, action, resource) unless { context.approved };
    "#);
    let who = call_of(Act::Listen, ways().next().unwrap()).subject;
    let crm = "crm".parse().unwrap();
    let may = |policies: &PolicySet, method: &str| {
        policies.may_ask(&who, &crm, method, None, &facts()).map_err(|denial| denial.rules)
    };
    for row in ROWS {
        let method = method(row);
        let own = row.shape == Shape::Request && matches!(row.sender, Server | Either);
        // As a request, since that is what stands in a result.
        let row = Row::of(&method, Shape::Request);
        if own {
            assert_eq!(may(&everything, &method), Ok(()), "{method}");
            assert_eq!(may(&only(row), &method), Ok(()), "{method}");
            assert_eq!(may(&set(""), &method), Err(vec!["default-deny".to_owned()]), "{method}");
            assert_eq!(may(&asking, &method), Err(vec!["ask".to_owned()]), "{method}");
        } else if row.rule_within() == Rule::Refused(DIRECTION) {
            assert_eq!(may(&everything, &method), Err(vec![DIRECTION.to_owned()]), "{method}");
        }
    }
}

/// The decoder refuses a method that a lax server could take for one that names what it reaches.
#[test]
fn no_method_with_a_target_passes_in_other_letters() {
    for row in ROWS.iter().filter(|row| {
        row.names != Names::Nothing && row.names != Names::Subscriptions && row.sender == Client
    }) {
        let value = json!({"jsonrpc": "2.0", "id": 1, "method": row.method.to_uppercase()});
        let decoded = Message::decode(value.to_string().into(), Origin::Client, &Limits::default());
        assert!(decoded.is_err(), "{}", row.method);
    }
}
