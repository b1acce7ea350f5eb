//! `mcpx ls`: what can be reached.

use crate::cli::context::Context;
use crate::cli::error::CliError;

/// List the connections that you may use
#[derive(clap::Args, Debug)]
pub struct LsArgs {}

/// Lists the connections.
///
/// # Errors
/// [`CliError`]: no login, or the server is not reached.
pub async fn run(_args: LsArgs, context: &Context) -> Result<(), CliError> {
    let ui = &context.ui;
    let spinner = ui.spinner("asking the server");
    let connections = context.remote().await?.connections().await;
    drop(spinner);
    let connections = connections?;
    if ui.json() {
        return ui.print_json(&connections);
    }
    if connections.is_empty() {
        ui.status("There is no connection that you may use.");
        return Ok(());
    }
    let rows = connections.into_iter().map(|connection| {
        let how = if connection.needs_approval { "needs approval" } else { "" };
        vec![
            connection.name,
            connection.transport.unwrap_or_default(),
            how.to_owned(),
            connection.description.unwrap_or_default(),
        ]
    });
    ui.table(&["name", "transport", "access", "description"], rows.collect())
}
