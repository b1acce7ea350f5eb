//! `mcpx exec`: a command with a connection, for as long as it runs.

use std::ffi::OsString;
use std::sync::Arc;

use crate::broker::local::Local;
use crate::broker::{exec, relay};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::request::{InPlaceArgs, in_place};
use crate::cli::workload::WorkloadArgs;
use crate::mcp::Limits;
use crate::types::ConnectionName;

/// Run a command that finds a connection's URL in MCPX_URL
///
/// The connection is open for as long as the command runs. The command keeps stdin, stdout and
/// stderr, is sent every signal, and its exit code is this one's (128 + n after signal n).
///
/// Without a login a CI job shows its own token: that of GitHub Actions, GitLab, Kubernetes, Azure
/// or SPIFFE, or any file or variable. The server lets it in under a trust rule.
#[derive(clap::Args, Debug)]
pub struct ExecArgs {
    /// The connection, as `mcpx ls` shows it
    #[arg(value_name = "NAME")]
    connection: ConnectionName,
    /// Why you need it; recorded with the grant, and policy may ask for it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    asking: InPlaceArgs,
    #[command(flatten)]
    workload: WorkloadArgs,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, last = true)]
    command: Vec<OsString>,
}

/// Runs the command.
///
/// # Errors
/// Always when the command fails, with its code; or [`CliError`] when it could not be run.
pub async fn run(args: ExecArgs, context: &Context) -> Result<(), CliError> {
    let [program, rest @ ..] = args.command.as_slice() else {
        return Err(CliError::new(crate::cli::error::Kind::Usage, "no command"));
    };
    let reason = args.reason.clone();
    let channel = Arc::new(context.channel(&args.connection, reason, &args.workload).await?);
    // A command that could reach nothing is not started.
    if let Err(error) = channel.grant().await {
        let reason = args.reason.as_deref();
        in_place(context, &args.connection, reason, &args.asking, &args.workload, error).await?;
        channel.grant().await?;
    }
    let keeper = Arc::clone(&channel);
    tokio::spawn(async move { keeper.keep().await });
    let local = Local::bind(0).await?;
    let url = local.url();
    let router = relay::router(channel, local.gate(), Limits::default());
    let serving = tokio::spawn(local.serve(router, std::future::pending()));
    let outcome = exec::run(program, rest, &url).await;
    serving.abort();
    match outcome {
        Ok(0) => Ok(()),
        Ok(code) => Err(CliError::silent(code)),
        Err(error) => {
            context.ui.error(&CliError::of(crate::cli::error::Kind::Failure, &error));
            Err(CliError::silent(error.exit_code()))
        }
    }
}
