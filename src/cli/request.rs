//! `mcpx request`: asking for a grant that a person must agree to; and the same in place, where
//! `mcpx connect` or `mcpx exec` finds that one is needed.

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde_json::json;

use crate::broker::channel::ChannelError;
use crate::broker::remote::{ApprovalInfo, Remote, RemoteError};
use crate::broker::requests::NewRequest;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::text::clean;
use crate::cli::ui::{GOOD, Ui, WAITING, styled};
use crate::cli::workload::WorkloadArgs;
use crate::types::{ConnectionName, Timestamp};

/// Ask for a connection that needs somebody's approval
///
/// Whoever may approve sees who asks, why, for how long, from where and for which tools. After the
/// yes, `mcpx connect` gets one grant on it; another one needs another yes.
#[derive(clap::Args, Debug)]
pub struct RequestArgs {
    /// The connection, as `mcpx ls` shows it
    #[arg(value_name = "NAME")]
    connection: ConnectionName,
    /// Why you need it [default: asked for on a terminal]
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    wanted: WantedArgs,
    /// Not before: a time such as 2026-11-20T15:00:00Z, or a span from now on such as 2h
    #[arg(long, value_name = "TIME", value_parser = parse_from)]
    from: Option<Begin>,
    /// Let a grant live longer [default: the one that you have]
    #[arg(long, value_name = "GRANT", num_args = 0..=1, default_missing_value = "",
          conflicts_with_all = ["from", "tools"])]
    extend: Option<String>,
    /// Wait for the decision, for so long at most [default: as long as the request is open]
    #[arg(long, value_name = "SPAN", num_args = 0..=1, value_parser = parse_span,
          default_missing_value = "8760h")]
    wait: Option<Duration>,
    #[command(flatten)]
    workload: WorkloadArgs,
}

/// For how long and for what a grant is asked for, where it has to be.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct WantedArgs {
    /// For how long you need it, if it needs approval, as in 1h or 30m [default: 1h, or the most]
    #[arg(long = "for", value_name = "SPAN", value_parser = parse_span)]
    span: Option<Duration>,
    /// Only for this tool, if it needs approval; may be given several times [default: all]
    #[arg(long = "tool", value_name = "TOOL")]
    tools: Vec<String>,
}

/// The same, with how long `connect` and `exec` wait in place.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct InPlaceArgs {
    #[command(flatten)]
    wanted: WantedArgs,
    /// How long to wait for an approval; 0s not at all [default: as long as the request is open]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    wait: Option<Duration>,
}

/// When a grant is to begin.
#[derive(Clone, Copy, Debug)]
pub enum Begin {
    /// Then.
    At(Timestamp),
    /// After so long.
    In(SignedDuration),
}

/// Asks, and waits if told to.
///
/// # Errors
/// [`CliError`]: policy refuses, or the request was denied, lapsed, or waits still.
pub async fn run(args: RequestArgs, context: &Context) -> Result<(), CliError> {
    let ui = &context.ui;
    let remote = context.remote_as(&args.workload).await?;
    let reason = match args.reason {
        Some(reason) => reason,
        None => ask_reason(ui, &args.connection)?,
    };
    let extends = match args.extend {
        None => None,
        Some(id) => Some(to_extend(&remote, &args.connection, id).await?),
    };
    let from = match args.from {
        None => None,
        Some(Begin::At(at)) => Some(at),
        Some(Begin::In(span)) => {
            Some(context.clock().now().checked_add(span).map_err(|error| {
                CliError::new(Kind::Usage, "that time is beyond all time").caused_by(Some(&error))
            })?)
        }
    };
    let wanted = args.wanted.request(args.connection.clone(), reason, from, extends);
    let asked = match remote.request(&wanted).await {
        Ok(asked) => asked,
        Err(RemoteError::Refused(problem)) if problem.code == "approval_not_needed" => {
            if ui.json() {
                return ui.print_json(&json!({ "state": "not_needed" }));
            }
            ui.status(&format!(
                "{}; run `mcpx connect {}`",
                clean(&problem.message),
                args.connection
            ));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let decided = match args.wait {
        Some(limit) => wait(ui, &remote, asked, limit).await?,
        None => asked,
    };
    if ui.json() {
        return ui.print_json(&decided);
    }
    if args.wait.is_none() {
        ui.print(&clean(&decided.id))?;
        ui.status(&waits(&decided));
        ui.status(&format!(
            "After the yes, run `mcpx connect {}`; `mcpx grants` shows how it stands.",
            args.connection
        ));
    }
    Ok(())
}

/// What to do where a grant could not be had: asks for the missing approval and waits for it. Gives
/// the error back where that is not what is missing.
///
/// # Errors
/// [`CliError`]: another trouble, no reason, or no yes.
pub async fn in_place(
    context: &Context,
    connection: &ConnectionName,
    reason: Option<&str>,
    args: &InPlaceArgs,
    workload: &WorkloadArgs,
    error: ChannelError,
) -> Result<(), CliError> {
    let ui = &context.ui;
    let problem = error.problem();
    let remote = context.remote_as(workload).await?;
    let asked = match problem.code.as_str() {
        "needs_approval" => {
            let reason = match reason {
                Some(reason) => reason.to_owned(),
                None if ui.interactive() => {
                    ui.status(&clean(&problem.message));
                    ask_reason(ui, connection)?
                }
                None => return Err(problem.into()),
            };
            let wanted = args.wanted.request(connection.clone(), reason, None, None);
            remote.request(&wanted).await?
        }
        "approval_pending" => match open_request(&remote, connection).await? {
            Some(open) => open,
            None => return Err(problem.into()),
        },
        _ => return Err(problem.into()),
    };
    wait(ui, &remote, asked, args.wait.unwrap_or(FOR_EVER)).await.map(drop)
}

/// Waits for a yes, and says meanwhile for what.
async fn wait(
    ui: &Ui,
    remote: &Remote,
    asked: ApprovalInfo,
    limit: Duration,
) -> Result<ApprovalInfo, CliError> {
    let started = Instant::now();
    let mut approval = asked;
    ui.status(&waits(&approval));
    let spinner = ui.spinner("waiting for the decision (Ctrl-C leaves the request open)");
    let failed = |code: &str, message: String| CliError::new(Kind::Approval, message).code(code);
    let outcome = loop {
        let id = clean(&approval.id);
        let by = || {
            let by = approval.decided_by.as_ref().map(|by| clean(&by.label));
            by.unwrap_or_else(|| "somebody".to_owned())
        };
        match approval.state.as_str() {
            "pending" => {}
            "approved" => break Ok(by()),
            "used" if extends(&approval) => break Ok(by()),
            "denied" => {
                let why = approval.reason.as_deref().map(|why| format!(": {}", clean(why)));
                let message =
                    format!("{} denied the request {id}{}", by(), why.unwrap_or_default());
                break Err(failed("approval_denied", message));
            }
            "used" => {
                let message = format!("approval {id} was used for another grant");
                break Err(failed("approval_used", message).hint("ask again with `mcpx request`"));
            }
            _ => {
                let message = format!("nobody decided on {id} in time");
                break Err(
                    failed("approval_expired", message).hint("ask again with `mcpx request`")
                );
            }
        }
        let left = limit.saturating_sub(started.elapsed());
        if left.is_zero() {
            let message = format!("the request {id} still waits for approval");
            break Err(failed("approval_pending", message)
                .hint(format!("ask them to run `mcpx approve {id}`, then run this again")));
        }
        let seconds = left.as_secs().clamp(1, LOOK);
        match remote.decided(&approval.id, seconds).await {
            Ok(newer) => approval = newer,
            // A server that restarts keeps the request.
            Err(error) if error.problem().code == "unreachable" => {
                tokio::time::sleep(PAUSE.min(left)).await;
            }
            Err(error) => break Err(error.into()),
        }
    };
    drop(spinner);
    let by = outcome?;
    ui.status(&format!("{} by {by}", styled(GOOD, "Approved")));
    Ok(approval)
}

fn extends(approval: &ApprovalInfo) -> bool {
    approval.wanted.as_ref().is_some_and(|wanted| wanted.extends.is_some())
}

/// One line on what is waited for.
fn waits(approval: &ApprovalInfo) -> String {
    let (id, groups) = (clean(&approval.id), clean(&approval.groups.join(" or ")));
    let rule = approval.rule.as_deref().map(|rule| format!(" (rule {})", clean(rule)));
    format!(
        "{} {id} waits for somebody of {groups}{}: `mcpx approve {id}`",
        styled(WAITING, "Asked:"),
        rule.unwrap_or_default(),
    )
}

/// The caller's own open request for a new grant on a connection.
async fn open_request(
    remote: &Remote,
    connection: &ConnectionName,
) -> Result<Option<ApprovalInfo>, CliError> {
    let me = remote.me().await?;
    let open = remote.approvals(false).await?;
    Ok(open.into_iter().find(|row| {
        row.requested_by.id == me.id
            && row.connection == connection.as_str()
            && row.wanted.is_some()
            && !extends(row)
    }))
}

/// The grant to extend: the one that is named, or the only one that there is.
async fn to_extend(
    remote: &Remote,
    connection: &ConnectionName,
    id: String,
) -> Result<String, CliError> {
    if !id.is_empty() {
        return Ok(id);
    }
    let me = remote.me().await?;
    let mut own = remote.grants().await?.into_iter().filter(|grant| {
        grant.state == "active"
            && grant.subject.id == me.id
            && grant.connection == connection.as_str()
            && grant.approval.is_some()
    });
    match (own.next(), own.next()) {
        (Some(grant), None) => Ok(grant.id),
        (None, _) => Err(CliError::failure(format!(
            "you have no grant for {connection} that an approval was given for"
        ))
        .code("not_found")
        .hint("run `mcpx grants`")),
        (Some(_), Some(_)) => {
            let message = format!("you have several grants for {connection}");
            Err(CliError::new(Kind::Usage, message)
                .hint("name one: `--extend GRANT`; `mcpx grants` lists them"))
        }
    }
}

fn ask_reason(ui: &Ui, connection: &ConnectionName) -> Result<String, CliError> {
    let missing = || {
        CliError::new(Kind::Usage, "a reason is needed, for whoever decides")
            .hint("give it with `--reason TEXT`")
    };
    if !ui.interactive() {
        return Err(missing());
    }
    let reason = ui.ask(&format!("Why do you need {connection}?"))?;
    if reason.is_empty() { Err(missing()) } else { Ok(reason) }
}

impl WantedArgs {
    fn request(
        &self,
        connection: ConnectionName,
        reason: String,
        from: Option<Timestamp>,
        extends: Option<String>,
    ) -> NewRequest {
        let seconds = self.span.map(|span| i64::try_from(span.as_secs()).unwrap_or(i64::MAX));
        let tools = self.tools.clone();
        NewRequest { connection, reason, seconds, tools, from, extends }
    }
}

/// A span of time as people write it.
fn parse_span(text: &str) -> Result<Duration, String> {
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|span| Duration::try_from(span).ok())
        .ok_or_else(|| format!("{text:?} is no span of time; write it like 1h, 30m or \"1h 30m\""))
}

fn parse_from(text: &str) -> Result<Begin, String> {
    if let Ok(at) = text.parse() {
        return Ok(Begin::At(at));
    }
    text.parse().map(Begin::In).map_err(|_| {
        format!("{text:?} is neither a time like 2026-11-20T15:00:00Z nor a span like 2h")
    })
}

/// How long one question may wait for its answer, in seconds.
const LOOK: u64 = 20;
/// How long to pause before a server that is not reached is asked again.
const PAUSE: Duration = Duration::from_secs(2);
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_write_them() {
        assert_eq!(parse_span("1h 30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_span("0s").unwrap(), Duration::ZERO);
        for wrong in ["", "soon", "-1h", "3"] {
            assert!(parse_span(wrong).is_err(), "{wrong:?}");
        }
        assert!(matches!(parse_from("2026-11-20T15:00:00Z"), Ok(Begin::At(_))));
        assert!(matches!(parse_from("2h"), Ok(Begin::In(_))));
        assert!(parse_from("tomorrow").is_err());
    }
}
