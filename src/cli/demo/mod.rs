//! `mcpx demo`: the whole system on one machine, with a sample server behind it.

use std::path::PathBuf;

use crate::cli::Context;
use crate::cli::error::CliError;

/// Try everything on this machine, without an identity provider or a database
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DemoArgs {
    /// Keep serving after the tour
    #[arg(long)]
    pub serve: bool,
    /// Where to put the demo's data [default: a fresh temporary directory]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Keep the data directory afterwards
    #[arg(long)]
    pub keep: bool,
    /// The demo's own parts, run as processes of their own.
    #[command(subcommand)]
    pub part: Option<DemoPart>,
}

/// The processes that the demo starts from this same binary.
#[derive(clap::Subcommand, Debug)]
pub enum DemoPart {
    /// An MCP server on stdin and stdout with made-up customers
    #[command(hide = true)]
    SampleServer {
        /// Its database file
        #[arg(value_name = "DB")]
        database: PathBuf,
    },
    /// An MCP client that makes one call and prints the answer
    #[command(hide = true)]
    SampleClient {
        /// Where the MCP server is reached
        url: String,
        /// What to do
        action: SampleAction,
        /// The tool to call
        tool: Option<String>,
        /// Its arguments, as JSON
        #[arg(value_name = "JSON")]
        arguments: Option<String>,
    },
}

/// What the sample client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SampleAction {
    /// List the tools.
    List,
    /// Call one tool.
    Call,
}

/// Runs the demo.
///
/// # Errors
/// Always, until the demo is wired.
pub async fn run(_args: DemoArgs, _context: &Context) -> Result<(), CliError> {
    Err(CliError::failure("cannot run the demo: not wired yet"))
}
