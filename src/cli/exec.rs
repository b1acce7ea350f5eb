//! `mcpx exec`: a command with a connection, for as long as it runs.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::channel::Channel;
use crate::broker::local::Local;
use crate::broker::{exec, relay};
use crate::cli::context::Context;
use crate::cli::error::CliError;
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
    let channel = Arc::new(context.channel(&args.connection, args.reason, &args.workload).await?);
    // A command that could reach nothing is not started.
    channel.grant().await?;
    let keeping = tokio::spawn(keep(Arc::clone(&channel)));
    let local = Local::bind(0).await?;
    let url = local.url();
    let router = relay::router(channel, local.gate(), Limits::default());
    let serving = tokio::spawn(local.serve(router, std::future::pending()));
    let outcome = exec::run(program, rest, &url).await;
    serving.abort();
    keeping.abort();
    match outcome {
        Ok(0) => Ok(()),
        Ok(code) => Err(CliError::silent(code)),
        Err(error) => {
            context.ui.error(&CliError::of(crate::cli::error::Kind::Failure, &error));
            Err(CliError::silent(error.exit_code()))
        }
    }
}

/// Renews the grant while the command calls nothing: a job's token lives for minutes, and a command
/// that compiles in between would lose its protocol session with the grant.
async fn keep(channel: Arc<Channel>) {
    loop {
        let pause = match channel.grant().await {
            // A third is left when it is renewed.
            Ok(grant) => Duration::from_secs(grant.expires_in.unsigned_abs() / 4),
            Err(error) if error.problem().code == "unreachable" => SHORTEST,
            // The next call finds out, and says so to whoever made it.
            Err(error) => return tracing::debug!(%error, "the grant is not renewed any longer"),
        };
        tokio::time::sleep(pause.max(SHORTEST)).await;
    }
}

const SHORTEST: Duration = Duration::from_secs(1);
