//! A policy set of any size, as a company's grows: each team has its own connection and rules, and
//! one rule in ten has conditions that every call is held against.

use std::fmt::Write as _;

/// So many policies, of which the first let the bench's own user call.
pub(super) fn generate(count: usize) -> String {
    let mut text = BASE.to_owned();
    let base = BASE.matches("@id").count();
    for number in 0..count.saturating_sub(base) {
        team_rule(&mut text, number / SHAPES, number % SHAPES).expect("a string takes everything");
    }
    text
}

const BASE: &str = r#"
@id("bench-may-connect")
permit (
    principal in Group::"bench",
    action in [Action::"connect", Action::"protocol", Action::"read"],
    resource
);

@id("bench-may-call")
permit (principal in Group::"bench", action == Action::"tools/call", resource)
unless { context.arguments has limit && context.arguments.limit > 1000 };

@id("deletion-needs-a-lead")
@approval("group:leads")
forbid (principal, action == Action::"tools/call", resource == Tool::"bench/delete_customer")
unless { context.approved };

@id("no-export")
forbid (principal, action == Action::"tools/call", resource == Tool::"bench/export_customers");
"#;

const SHAPES: usize = 10;

/// One of a team's ten rules.
fn team_rule(text: &mut String, team: usize, shape: usize) -> std::fmt::Result {
    writeln!(text, "\n@id(\"team-{team}-{shape}\")")?;
    match shape {
        0 => writeln!(
            text,
            r#"permit (principal in Group::"team-{team}", action in [Action::"connect", Action::"protocol", Action::"read"],
    resource in Connection::"crm-{team}");"#
        ),
        1 => writeln!(
            text,
            r#"permit (principal in Group::"team-{team}", action == Action::"tools/call", resource == Tool::"crm-{team}/query")
when {{ context.arguments has limit && context.arguments.limit <= 500 }};"#
        ),
        2 => writeln!(
            text,
            r#"@approval("group:team-{team}-leads")
forbid (principal in Group::"team-{team}", action == Action::"tools/call", resource == Tool::"crm-{team}/delete")
unless {{ context.approved }};"#
        ),
        3 => writeln!(
            text,
            r#"forbid (principal, action == Action::"tools/call", resource)
when {{ context.arguments has table && context.arguments.table == "salaries_{team}" }};"#
        ),
        4 => writeln!(
            text,
            r#"forbid (principal in Group::"contractors-{team}", action, resource in Connection::"crm-{team}")
unless {{ context has source_ip && context.source_ip.isInRange(ip("10.{}.0.0/16")) }};"#,
            team % 250
        ),
        5 => writeln!(
            text,
            r#"forbid (principal, action == Action::"connect", resource in Connection::"crm-{team}")
unless {{ context has reason && context.reason like "*OPS-*" }};"#
        ),
        6 => writeln!(
            text,
            r#"forbid (principal in Group::"team-{team}", action == Action::"tools/call", resource in Connection::"crm-{team}")
when {{ context.grant_age_seconds > 28800 }};"#
        ),
        7 => writeln!(
            text,
            r#"permit (principal in Group::"team-{team}-leads", action, resource in Connection::"crm-{team}");"#
        ),
        8 => writeln!(
            text,
            r#"@approval("group:team-{team}-leads, group:finance")
forbid (principal, action == Action::"tools/call", resource == Tool::"crm-{team}/refund")
unless {{ context.approved || (context.arguments has amount && context.arguments.amount <= 1000) }};"#
        ),
        _ => writeln!(
            text,
            r#"forbid (principal, action == Action::"sampling/createMessage", resource in Connection::"crm-{team}");"#
        ),
    }
}
