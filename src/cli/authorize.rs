//! `mcpx authorize`: agreeing, in a browser, to what an MCP server may do in one's own name.

use std::time::Duration;

use serde_json::json;

use crate::broker::redirect::Redirect;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::login::{may_open_browser, open_address};
use crate::cli::text::clean;
use crate::cli::ui::{BAD, GOOD, STRONG, styled};
use crate::types::{ConnectionName, Secret};

/// How long somebody may take, as the server has it.
const PATIENCE: Duration = Duration::from_secs(600);

/// Let the gateway use an MCP server in your own name
///
/// For connections that want it: opens the MCP server's own page, on which you agree. The tokens
/// that come of it are kept by the control server, sealed, and never reach this machine.
#[derive(clap::Args, Debug)]
pub struct AuthorizeArgs {
    /// The connection, as `mcpx ls` shows it
    #[arg(value_name = "CONNECTION")]
    connection: ConnectionName,
    /// Do not open a browser
    #[arg(long)]
    no_browser: bool,
    /// The local port that the browser comes back to, where only some are allowed [default: any]
    #[arg(long, value_name = "PORT", default_value = "0", hide_default_value = true)]
    port: u16,
    /// Forget what you agreed to
    #[arg(long, conflicts_with_all = ["no_browser", "port"])]
    forget: bool,
}

/// Asks, or forgets.
///
/// # Errors
/// [`CliError`]: not agreed, too late, or the connection wants no consent.
pub async fn run(args: AuthorizeArgs, context: &Context) -> Result<(), CliError> {
    let ui = &context.ui;
    let remote = context.remote().await?;
    let name = args.connection.as_str();
    if args.forget {
        let answer = remote.forget_consent(name).await?;
        if ui.json() {
            return ui.print_json(&answer);
        }
        ui.status(&format!("{} what you agreed to for {name}", styled(BAD, "Forgotten:")));
        return Ok(());
    }
    let mut redirect = Redirect::open(args.port).await.map_err(|error| {
        CliError::failure("no local port can be opened for the browser").caused_by(Some(&error))
    })?;
    let asked = remote.begin_consent(name, redirect.uri()).await?;
    if ui.json() {
        ui.print_json(&json!({ "authorization_url": asked.url }))?;
    } else {
        ui.status(&format!(
            "Open {} in a browser on this machine and agree there",
            styled(STRONG, &clean(&asked.url))
        ));
    }
    if !args.no_browser && may_open_browser() {
        open_address(&asked.url);
    }
    let waiting = ui.spinner("waiting for you to agree");
    let state = Secret::new(asked.state.clone());
    let brought = tokio::select! {
        brought = tokio::time::timeout(PATIENCE, redirect.brought(state)) => brought.ok().flatten(),
        _ = tokio::signal::ctrl_c() => None,
    };
    drop(waiting);
    let brought = brought.ok_or_else(|| CliError::failure("you have not agreed in time"))?;
    let Some(code) = brought.code else {
        let why = clean(brought.error.as_deref().unwrap_or("no code"));
        let what = format!("the MCP server's authorization server says no: {why}");
        return Err(CliError::new(Kind::Denied, what));
    };
    let answer = remote.finish_consent(name, &asked.state, &code, brought.iss.as_deref()).await?;
    if ui.json() {
        return ui.print_json(&answer);
    }
    ui.status(&format!("{}: the gateway uses {name} in your name", styled(GOOD, "Agreed")));
    if !answer.renews {
        ui.warn("the consent cannot be renewed and ends with its first token");
    }
    Ok(())
}
