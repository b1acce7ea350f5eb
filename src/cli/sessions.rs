//! `mcpx sessions`: who used what, newest first.

use crate::broker::remote::SessionInfo;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::find::Named;

/// List sessions, newest first
#[derive(clap::Args, Debug)]
pub struct SessionsArgs {
    /// How many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    limit: u32,
}

/// Lists the sessions that the caller may see.
///
/// # Errors
/// [`CliError`]: no login, or the server is not reached.
pub async fn run(args: SessionsArgs, context: &Context) -> Result<(), CliError> {
    let ui = &context.ui;
    let spinner = ui.spinner("asking the server");
    let sessions = context.remote().await?.sessions(args.limit).await;
    drop(spinner);
    let sessions = sessions?;
    if ui.json() {
        return ui.print_json(&sessions);
    }
    if sessions.is_empty() {
        ui.status("There is no session that you may see.");
        return Ok(());
    }
    let head = [
        "session",
        "who",
        "connection",
        "started",
        "calls",
        "denied",
        "approved",
        "masked",
        "orphaned",
    ];
    let rows = sessions.into_iter().map(|session| {
        vec![
            session.id,
            session.subject.label,
            session.connection,
            session.started_at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            session.calls.to_string(),
            session.denied.to_string(),
            session.approved.to_string(),
            session.masked.to_string(),
            session.orphaned.to_string(),
        ]
    });
    ui.table(&head, rows.collect())
}

impl Named for SessionInfo {
    fn name(&self) -> &str {
        &self.id
    }
}
