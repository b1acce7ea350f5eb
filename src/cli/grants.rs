//! `mcpx grants`: who has which grant, on whose yes, and for how long.

use crate::broker::remote::GrantInfo;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::text::span;
use crate::types::Timestamp;

/// List grants: what runs, and what waits for approval
///
/// Your own; operators and auditors see everybody's.
#[derive(clap::Args, Debug)]
pub struct GrantsArgs {
    /// List those that are over as well
    #[arg(long)]
    all: bool,
}

/// Lists the grants that the caller may see.
///
/// # Errors
/// [`CliError`]: no login, or the server is not reached.
pub async fn run(args: GrantsArgs, context: &Context) -> Result<(), CliError> {
    let ui = &context.ui;
    let spinner = ui.spinner("asking the server");
    let grants = context.remote().await?.grants().await;
    drop(spinner);
    let mut grants = grants?;
    grants.retain(|grant| args.all || matches!(grant.state.as_str(), "active" | "pending"));
    if ui.json() {
        return ui.print_json(&grants);
    }
    if grants.is_empty() {
        ui.status("There is no grant that you may see.");
        return Ok(());
    }
    let now = context.clock().now();
    let rows = grants.into_iter().map(|grant| {
        let (state, left) = (state(&grant), left(&grant, now));
        vec![
            grant.id,
            grant.subject.label,
            grant.connection,
            grant.tools.map_or_else(|| "all".to_owned(), |tools| tools.join(", ")),
            state,
            left,
            grant.approver.unwrap_or_else(|| "policy".to_owned()),
            grant.reason.unwrap_or_default(),
        ]
    });
    let head = ["grant", "who", "connection", "tools", "state", "left", "approver", "reason"];
    ui.table(&head, rows.collect())
}

fn state(grant: &GrantInfo) -> String {
    match (grant.state.as_str(), &grant.approver, &grant.ended_by) {
        ("pending", Some(_), _) => "pending (approved, not used)".to_owned(),
        ("pending", None, _) if grant.extends.is_some() => "pending (extension)".to_owned(),
        ("ended", _, Some(why)) => format!("ended ({why})"),
        (state, ..) => state.to_owned(),
    }
}

/// How long it can still be used; of one that is asked for, how long it is to be.
fn left(grant: &GrantInfo, now: Timestamp) -> String {
    match grant.state.as_str() {
        "active" => {
            let ends = grant.ends_at.unwrap_or(grant.expires_at);
            span(ends.as_second() - now.as_second())
        }
        "pending" => {
            let whole = grant.seconds.map(span).unwrap_or_default();
            match grant.from {
                Some(from) => format!("{whole} from {}", from.strftime("%Y-%m-%d %H:%MZ")),
                None => whole,
            }
        }
        _ => String::new(),
    }
}
