//! `mcpx approve`: what waits for a human's yes, and that yes.

use crate::broker::remote::{ApprovalInfo, Remote, Verdict};
use crate::broker::requests::WantedInfo;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::find::{Named, find};
use crate::cli::text::{clean, indent_json, span, visible, visible_line};
use crate::cli::ui::{GOOD, STRONG, Ui, styled};
use crate::types::Timestamp;

/// Show what waits for approval, or approve one call or grant
///
/// An approval is for exactly the call or grant shown, by the one who asked, once.
#[derive(clap::Args, Debug)]
pub struct ApproveArgs {
    /// What to approve; its beginning is enough [default: list what waits]
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Do not ask again on a terminal
    #[arg(long, short, requires = "id")]
    yes: bool,
    /// A sentence for the record
    #[arg(long, value_name = "TEXT", requires = "id")]
    reason: Option<String>,
    /// List what was decided as well
    #[arg(long, conflicts_with = "id")]
    all: bool,
}

/// Lists or approves.
///
/// # Errors
/// [`CliError`]: no such approval, not for you to decide, or too late.
pub async fn run(args: ApproveArgs, context: &Context) -> Result<(), CliError> {
    let ui = &context.ui;
    let remote = context.remote().await?;
    let now = context.clock().now();
    let Some(id) = args.id else {
        return list(ui, &remote, args.all, now).await;
    };
    let approval = find(remote.approvals(true).await?, &id, "approval", "mcpx approve")?;
    check_open(&approval, now)?;
    if !ui.json() {
        show(ui, &approval, now);
    }
    let question = match approval.wanted {
        Some(_) => "Approve this grant?",
        None => "Approve this call?",
    };
    // Where nobody can be asked, naming the approval is the yes.
    if !args.yes && ui.interactive() && !ui.confirm(question)? {
        return Err(CliError::failure("nothing was approved")
            .hint(format!("run `mcpx deny {}` to refuse it", approval.id)));
    }
    let decided = remote.decide(&approval.id, Verdict::Approve, args.reason.as_deref()).await?;
    if ui.json() {
        return ui.print_json(&decided);
    }
    ui.status(&format!("{} {}", styled(GOOD, "Approved"), clean(&decided.id)));
    Ok(())
}

async fn list(ui: &Ui, remote: &Remote, all: bool, now: Timestamp) -> Result<(), CliError> {
    let approvals = remote.approvals(all).await?;
    if ui.json() {
        return ui.print_json(&approvals);
    }
    if approvals.is_empty() {
        ui.status("Nothing waits for approval.");
        return Ok(());
    }
    let rows = approvals.into_iter().map(|approval| {
        let left = approval.expires_at.as_second() - now.as_second();
        let state = match (approval.state.as_str(), approval.may_decide) {
            ("pending", true) => "waits for you".to_owned(),
            ("pending", false) => format!("waits for {}", approval.groups.join(", ")),
            (state, _) => state.to_owned(),
        };
        vec![
            approval.id,
            approval.requested_by.label,
            approval.connection,
            match &approval.wanted {
                Some(wanted) => format!("a grant for {}", span(wanted.seconds)),
                None => approval.tool.unwrap_or_default(),
            },
            approval.rule.unwrap_or_default(),
            state,
            if left > 0 { format!("in {}", span(left)) } else { "over".to_owned() },
        ]
    });
    ui.table(&["id", "who", "connection", "what", "rule", "state", "ends"], rows.collect())
}

/// Refuses early what the server would refuse, with the reason.
pub(super) fn check_open(approval: &ApprovalInfo, now: Timestamp) -> Result<(), CliError> {
    let kind = match approval.state.as_str() {
        "pending" if approval.expires_at <= now => Kind::Approval,
        "pending" if approval.may_decide => return Ok(()),
        "pending" => {
            let why = approval.why_not.as_deref().unwrap_or("it is for others to decide");
            return Err(CliError::new(Kind::Denied, format!("you may not decide this: {why}"))
                .code("forbidden"));
        }
        "expired" => Kind::Approval,
        _ => Kind::Failure,
    };
    let state = if kind == Kind::Approval { "expired" } else { &approval.state };
    Err(CliError::new(kind, format!("{} is {state}; nothing can be decided", approval.id))
        .hint("run `mcpx approve` to see what waits"))
}

/// Everything that the decision is about. What a caller wrote cannot hide anything here.
pub(super) fn show(ui: &Ui, approval: &ApprovalInfo, now: Timestamp) {
    let line = |name: &str, value: &str| {
        ui.status(&format!("{name:<11}{}", visible_line(value)));
    };
    ui.status(&styled(STRONG, &visible(&approval.id)));
    line("who", &format!("{} ({})", approval.requested_by.label, approval.requested_by.id));
    line("connection", &approval.connection);
    match &approval.wanted {
        Some(wanted) => show_wanted(&line, wanted),
        None => line("tool", approval.tool.as_deref().unwrap_or("none")),
    }
    line("rule", approval.rule.as_deref().unwrap_or("none"));
    line("asked", &format!("{} ago", span(now.as_second() - approval.requested_at.as_second())));
    line("ends", &format!("in {}", span(approval.expires_at.as_second() - now.as_second())));
    match &approval.arguments {
        _ if approval.wanted.is_some() => {}
        None => line("arguments", "none"),
        Some(arguments) => {
            ui.status("arguments");
            for line in visible(&indent_json(arguments.get())).lines() {
                ui.status(&format!("  {line}"));
            }
        }
    }
}

/// The grant that is asked for.
fn show_wanted(line: &dyn Fn(&str, &str), wanted: &WantedInfo) {
    match &wanted.extends {
        Some(grant) => line("wants", &format!("{grant} for {} longer", span(wanted.seconds))),
        None => line("wants", &format!("a grant for {}", span(wanted.seconds))),
    }
    line("why", &wanted.reason);
    // A name that is chosen to look like several is shown as the one that it is.
    let plain = |name: &str| name.chars().all(|c| c.is_alphanumeric() || "_-./:".contains(c));
    let quoted = |name: &String| if plain(name) { name.clone() } else { format!("{name:?}") };
    let tools = wanted.tools.as_ref();
    let tools = tools.map(|tools| tools.iter().map(quoted).collect::<Vec<_>>().join(", "));
    line("tools", tools.as_deref().unwrap_or("all that policy allows, prompts and resources too"));
    if let Some(from) = wanted.from {
        line("begins", &from.strftime("%Y-%m-%d %H:%M:%SZ").to_string());
    }
    line("from", wanted.source.as_deref().unwrap_or("unknown"));
}

impl Named for ApprovalInfo {
    fn name(&self) -> &str {
        &self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval(state: &str, may_decide: bool) -> ApprovalInfo {
        serde_json::from_value(serde_json::json!({
            "id": "apr_1", "state": state, "requested_by": {"id": "sub_1", "label": "a@b.c"},
            "connection": "crm", "tool": "t", "arguments": {"n": 1}, "rule": "r",
            "groups": ["leads"], "requested_at": "2026-01-01T00:00:00Z",
            "expires_at": "2026-01-01T00:10:00Z", "decided_by": null,
            "may_decide": may_decide, "why_not": "it is your own request",
        }))
        .unwrap()
    }

    #[test]
    fn only_what_is_open_and_ours_can_be_decided() {
        let now: Timestamp = "2026-01-01T00:05:00Z".parse().unwrap();
        let late: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        assert!(check_open(&approval("pending", true), now).is_ok());
        let cases = [
            (approval("pending", true), late, Kind::Approval),
            (approval("expired", true), now, Kind::Approval),
            (approval("used", true), now, Kind::Failure),
            (approval("pending", false), now, Kind::Denied),
        ];
        for (approval, now, kind) in cases {
            assert_eq!(check_open(&approval, now).unwrap_err().kind(), kind, "{approval:?}");
        }
        let error = check_open(&approval("pending", false), now).unwrap_err();
        assert!(error.message().contains("your own request"));
    }
}
