//! `mcpx serve`: control server and gateway in one process. Wired here, built elsewhere.

use std::path::PathBuf;

use crate::cli::Context;
use crate::cli::error::CliError;

/// Run the control server and the gateway
#[derive(clap::Args, Debug)]
pub struct ServeArgs {
    /// The configuration file
    #[arg(
        long,
        value_name = "FILE",
        env = "MCPX_CONFIG",
        hide_env_values = true,
        default_value = "mcpx.toml"
    )]
    pub config: PathBuf,
    /// Check the configuration and the policies, then end
    #[arg(long)]
    pub check: bool,
    /// Write a JSON file with the addresses once requests are accepted
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// Serves until it is told to stop.
///
/// # Errors
/// Always, until the server is wired.
pub async fn run(args: ServeArgs, _context: &Context) -> Result<(), CliError> {
    Err(CliError::failure(format!("cannot serve {}: not wired yet", args.config.display())))
}
