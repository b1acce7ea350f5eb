//! `mcpx replay`: a session as it was recorded, one line per call.
//!
//! Rendering is pure: a record in, lines out. Everything that a caller or server wrote is cleaned
//! before it is styled.

use std::collections::{BTreeMap, HashMap};

use anstyle::Style;

use crate::broker::remote::{EventApproval, EventInfo, SessionRecord};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::find::find;
use crate::cli::text::{clean, clean_lines, indent_json, span};
use crate::cli::ui::{BAD, FAINT, GOOD, STRONG, WAITING, styled};

/// Show what happened in a session, call by call
///
/// Shows the masked form, which is all that was recorded. Reading a session is recorded as well.
#[derive(clap::Args, Debug)]
pub struct ReplayArgs {
    /// The session, as `mcpx sessions` shows it; its beginning is enough
    #[arg(value_name = "SESSION")]
    session: String,
    /// Show arguments and results as well
    #[arg(long)]
    full: bool,
}

/// Replays one session.
///
/// # Errors
/// [`CliError`]: no such session, or not yours to see.
pub async fn run(args: ReplayArgs, context: &Context) -> Result<(), CliError> {
    let ui = &context.ui;
    let remote = context.remote().await?;
    let spinner = ui.spinner("fetching the session");
    let record = match remote.session(&args.session).await {
        Ok(record) => record,
        // Perhaps only the beginning of an id: the list tells.
        Err(error) => {
            let error = CliError::from(error);
            if error.kind() != Kind::Failure {
                return Err(error);
            }
            let sessions = remote.sessions(LOOK_BACK).await?;
            let session = find(sessions, &args.session, "session", "mcpx sessions")?;
            if session.id == args.session {
                return Err(error);
            }
            remote.session(&session.id).await?
        }
    };
    drop(spinner);
    if ui.json() {
        return ui.print_json(&record);
    }
    for line in render(&record, args.full) {
        ui.print(&line)?;
    }
    Ok(())
}

/// The lines that show a session.
fn render(record: &SessionRecord, full: bool) -> Vec<String> {
    let session = &record.session;
    let mut lines = vec![format!(
        "{}  {} on {}  {}",
        styled(STRONG, &clean(&session.id)),
        clean(&session.subject.label),
        clean(&session.connection),
        session.started_at.strftime("%Y-%m-%d %H:%M:%SZ"),
    )];
    let mut answers: HashMap<&str, Vec<&EventInfo>> = HashMap::new();
    for event in record.events.iter().filter(|event| event.kind != "call") {
        if let Some(call) = &event.call {
            answers.entry(call).or_default().push(event);
        }
    }
    for event in &record.events {
        match event.kind.as_str() {
            "call" => {
                let call = event.call.as_deref().unwrap_or_default();
                let answers = answers.get(call).map_or(&[][..], Vec::as_slice);
                lines.push(call_line(event, answers));
                if full {
                    body(&mut lines, "arguments", event);
                    for answer in answers.iter().filter(|answer| answer.kind == "response") {
                        body(&mut lines, "result", answer);
                    }
                }
            }
            // Told in their call's line.
            "response" | "orphaned" | "approval_used" if event.call.is_some() => {}
            kind => {
                lines.push(other_line(event));
                if full && kind == "child_stderr" {
                    lines.extend(stderr(event));
                }
            }
        }
    }
    lines.push(footer(record));
    lines
}

fn call_line(call: &EventInfo, later: &[&EventInfo]) -> String {
    let mut parts = vec![time(call)];
    let back = call.direction.as_deref() == Some("server_to_client");
    parts.push((if back { "←" } else { "→" }).to_owned());
    let method = clean(call.method.as_deref().unwrap_or("answer"));
    parts.push(match &call.tool {
        Some(tool) => format!("{method} {}", styled(STRONG, &clean(tool))),
        None => method,
    });
    let decision = call.decision.as_deref().unwrap_or("unknown");
    parts.push(styled(badge(decision), &clean(&decision.replace('_', " "))));
    if !call.rules.is_empty() {
        parts.push(format!("by {}", clean(&call.rules.join(", "))));
    }
    if let Some(approval) = &call.approval {
        parts.push(match approver(approval) {
            Some(by) if decision == "allow" => {
                format!("{} approved by {}", clean(&approval.id), clean(by))
            }
            _ => clean(&approval.id),
        });
    }
    let last = later.iter().rev().find(|e| matches!(e.kind.as_str(), "response" | "orphaned"));
    match last {
        Some(end) if end.kind == "orphaned" => parts.push(styled(BAD, "outcome unknown")),
        Some(end) => {
            let outcome = end.outcome.as_deref().unwrap_or_default();
            if !matches!(outcome, "" | "result" | "stream_end" | "accepted" | "denied") {
                parts.push(styled(WAITING, &clean(&outcome.replace('_', " "))));
            }
            let took = end.at.as_millisecond().saturating_sub(call.at.as_millisecond());
            parts.push(if took < 10_000 { format!("{took} ms") } else { span(took / 1000) });
        }
        None if decision == "allow" => parts.push(styled(WAITING, "no answer recorded")),
        None => {}
    }
    let mut findings: BTreeMap<&str, u64> = BTreeMap::new();
    for event in later.iter().copied().chain([call]) {
        for (class, count) in &event.findings {
            *findings.entry(class).or_default() += count;
        }
    }
    if !findings.is_empty() {
        let list: Vec<_> =
            findings.iter().map(|(class, count)| format!("{}×{count}", clean(class))).collect();
        parts.push(format!("masked {}", list.join(" ")));
    }
    parts.join("  ")
}

fn other_line(event: &EventInfo) -> String {
    let mut text = match event.kind.as_str() {
        "child_started" => match event.sandbox.as_deref() {
            None | Some("off") => "the server was started".to_owned(),
            Some(level) => format!("the server was started, sandbox {level}"),
        },
        "child_ended" if event.asked == Some(true) => "the server was ended".to_owned(),
        "child_ended" => "the server died".to_owned(),
        "child_stderr" => {
            let count = event.lines.unwrap_or_default();
            let more = event.dropped.map(|more| format!(", {more} more not kept"));
            let lines = if count == 1 { "line" } else { "lines" };
            format!("{count} {lines} on stderr{}", more.unwrap_or_default())
        }
        kind => kind.replace('_', " "),
    };
    if !event.rules.is_empty() {
        text.push_str(&format!(" ({})", event.rules.join(", ")));
    }
    if let Some(outcome) = &event.outcome {
        text.push_str(&format!(": {outcome}"));
    }
    if let Some(approval) = &event.approval {
        text = match (event.kind.as_str(), approval.approved, approver(approval)) {
            ("approval_decided", Some(true), Some(by)) => {
                format!("{} approved by {by}", approval.id)
            }
            ("approval_decided", Some(false), Some(by)) => {
                format!("{} denied by {by}", approval.id)
            }
            _ => format!("{text} {}", approval.id),
        };
    }
    format!("{}  {}", time(event), styled(FAINT, &format!("· {}", clean(&text))))
}

/// What a server wrote to its stderr.
fn stderr(event: &EventInfo) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Body {
        text: String,
    }
    let body = event.body.as_ref().and_then(|body| serde_json::from_str::<Body>(body.get()).ok());
    let text = body.map(|body| clean_lines(&body.text)).unwrap_or_default();
    text.lines().map(|line| format!("    {line}")).collect()
}

fn approver(approval: &EventApproval) -> Option<&str> {
    approval.by_label.as_deref().or(approval.by.as_deref())
}

fn body(lines: &mut Vec<String>, title: &str, event: &EventInfo) {
    match &event.body {
        Some(body) => {
            lines.push(format!("    {}", styled(FAINT, title)));
            let text = clean_lines(&indent_json(body.get()));
            lines.extend(text.lines().map(|line| format!("    {line}")));
        }
        None => lines.push(format!("    {}", styled(FAINT, &format!("{title}: not kept")))),
    }
}

fn footer(record: &SessionRecord) -> String {
    let indexes = || record.events.iter().map(|event| event.index);
    let range = match (indexes().min(), indexes().max()) {
        (Some(first), Some(last)) => format!("records {first} to {last} of the log"),
        _ => "no records".to_owned(),
    };
    // A checkpoint's second line is its tree's size (C2SP tlog-checkpoint).
    let size =
        record.checkpoint.as_deref().and_then(|note| note.lines().nth(1)?.parse::<u64>().ok());
    let covered = match size {
        Some(size) if indexes().all(|index| index < size) => {
            format!("under a checkpoint of {size} records")
        }
        _ => "under no checkpoint yet".to_owned(),
    };
    styled(FAINT, &format!("{range}, {covered}; `mcpx audit verify` checks the log"))
}

fn time(event: &EventInfo) -> String {
    styled(FAINT, &event.at.strftime("%H:%M:%S").to_string())
}

fn badge(decision: &str) -> Style {
    match decision {
        "allow" => GOOD,
        "deny" => BAD,
        _ => WAITING,
    }
}

/// How many sessions are looked through for one whose id begins so.
const LOOK_BACK: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> SessionRecord {
        serde_json::from_value(serde_json::json!({
            "session": {"id": "ses_1", "subject": {"id": "sub_1", "label": "ann@x\u{1b}[2J"},
                "connection": "crm", "started_at": "2026-01-01T10:00:00Z"},
            "events": [
                {"index": 4, "at": "2026-01-01T10:00:00Z", "kind": "call", "call": "c1",
                 "direction": "client_to_server", "method": "tools/call", "tool": "sql\u{202e}x",
                 "decision": "allow", "rules": ["reads"], "body": {"q": "select 1"},
                 "approval": {"id": "apr_1", "by": "sub_2", "by_label": "bob"}, "findings": {}},
                {"index": 5, "at": "2026-01-01T10:00:00.034Z", "kind": "response", "call": "c1",
                 "outcome": "result", "findings": {"pii.ssn": 2}, "body": null},
                {"index": 6, "at": "2026-01-01T10:00:01Z", "kind": "call", "call": "c2",
                 "method": "tools/call", "tool": "drop", "decision": "deny", "rules": ["no-ddl"]},
                {"index": 7, "at": "2026-01-01T10:00:01Z", "kind": "approval_requested",
                 "call": "c3", "rules": ["big"]},
                {"index": 8, "at": "2026-01-01T10:00:02Z", "kind": "call", "call": "c4",
                 "method": "ping", "decision": "allow"},
                {"index": 9, "at": "2026-01-01T10:00:03Z", "kind": "orphaned", "call": "c4"},
                {"index": 9, "at": "2026-01-01T10:00:03Z", "kind": "child_stderr", "process": 7,
                 "lines": 2, "dropped": 3, "body": {"text": "one\u{1b}[2J\ntwo"}},
            ],
            "checkpoint": "log\n12\nroot=\n\n— log sig\n",
        }))
        .unwrap()
    }

    fn plain(full: bool) -> Vec<String> {
        let strip = |line: &String| anstream::adapter::strip_str(line).to_string();
        render(&record(), full).iter().map(strip).collect()
    }

    #[test]
    fn one_line_per_call() {
        assert_eq!(
            plain(false),
            [
                "ses_1  ann@x[2J on crm  2026-01-01 10:00:00Z",
                "10:00:00  →  tools/call sqlx  allow  by reads  apr_1 approved by bob  34 ms  masked pii.ssn×2",
                "10:00:01  →  tools/call drop  deny  by no-ddl",
                "10:00:01  · approval requested (big)",
                "10:00:02  →  ping  allow  outcome unknown",
                "10:00:03  · 2 lines on stderr, 3 more not kept",
                "records 4 to 9 of the log, under a checkpoint of 12 records; `mcpx audit verify` checks the log",
            ]
        );
    }

    #[test]
    fn bodies_stand_under_their_call() {
        let lines = plain(true);
        assert_eq!(lines[2..6], ["    arguments", "    {", "      \"q\": \"select 1\"", "    }"]);
        assert_eq!(lines[6], "    result: not kept");
        let said = lines.iter().position(|line| line.contains("on stderr")).unwrap();
        assert_eq!(lines[said + 1..said + 3], ["    one[2J", "    two"]);
    }

    #[test]
    fn a_checkpoint_that_does_not_reach_the_last_record_covers_nothing() {
        let mut record = record();
        record.checkpoint = Some("log\n9\nroot\n".to_owned());
        assert!(footer(&record).contains("under no checkpoint yet"));
    }
}
