//! `mcpx demo`: the whole system on one machine, with a sample server behind it.
//!
//! Everything is real: this same binary runs as server, broker, approver and auditor, each in a
//! process of its own, over loopback. Only the people are made up: [`browser`] does what they
//! would do in a browser, [`tour`] what they would type.

mod browser;
mod place;
mod sample_client;
mod sample_server;
mod stage;
mod tour;

use std::path::PathBuf;

use serde_json::json;

use self::place::Place;
use self::stage::Stage;
use crate::cli::Context;
use crate::cli::error::CliError;
use crate::cli::ui::{FAINT, STRONG, styled};
use crate::cli::wait::until_told_to_stop;

/// Try everything on this machine, without an identity provider or a database
///
/// Starts a server with a sample MCP server and two people behind it, then shows the whole way of
/// a call: login, connect, a masked answer, an approval, a denial, the replay, the proof.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DemoArgs {
    /// Start everything, log both people in, and stay up instead of giving the tour
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

/// Runs the demo, or one of its parts.
///
/// # Errors
/// [`CliError`]: a step did not hold, and which.
pub async fn run(args: DemoArgs, context: &Context) -> Result<(), CliError> {
    let ui = &context.ui;
    match args.part {
        Some(DemoPart::SampleServer { database }) => {
            return sample_server::run(&database, ui).await;
        }
        Some(DemoPart::SampleClient { url, action, tool, arguments }) => {
            return sample_client::run(&url, action, tool, arguments, ui).await;
        }
        None => {}
    }
    let program = std::env::current_exe()
        .map_err(|error| CliError::failure("this program has no file").caused_by(Some(&error)))?;
    let (dir, ours) = match &args.data_dir {
        Some(dir) => (dir.clone(), false),
        None => (fresh_dir()?, true),
    };
    let outcome = in_place(&args, context, &dir, &program).await;
    if ours && !args.keep {
        if let Err(error) = std::fs::remove_dir_all(&dir) {
            tracing::debug!(%error, "the demo's data stays");
        }
    } else {
        ui.status(&format!("{} {}", styled(FAINT, "The data is in"), dir.display()));
    }
    outcome
}

fn fresh_dir() -> Result<PathBuf, CliError> {
    let bytes: [u8; 8] = crate::types::random()
        .map_err(|error| CliError::failure("no fresh directory").caused_by(Some(&error)))?;
    let tag = u64::from_be_bytes(bytes);
    Ok(std::env::temp_dir().join(format!("mcpx-demo-{tag:016x}")))
}

async fn in_place(
    args: &DemoArgs,
    context: &Context,
    dir: &std::path::Path,
    program: &std::path::Path,
) -> Result<(), CliError> {
    let ui = &context.ui;
    let place = Place::make(dir, program)?;
    let mut stage = Stage::open(ui, place, program, !args.serve).await?;
    let outcome = tokio::select! {
        outcome = async {
            if args.serve { stay(&mut stage, context).await } else { tour::give(&mut stage).await }
        } => outcome,
        () = until_told_to_stop(), if !args.serve => {
            Err(CliError::failure("the demo was interrupted"))
        }
    };
    let closed = stage.close().await;
    outcome.and(closed)
}

/// Logs both people in, says how to use the server, and waits.
async fn stay(stage: &mut Stage, context: &Context) -> Result<(), CliError> {
    let ui = &context.ui;
    for person in [tour::ALICE, tour::BOB] {
        stage.log_in(person, false).await?;
    }
    stage.quiet();
    let place = &stage.place;
    if ui.json() {
        let person = |person: &place::Person| json!({ "home": person.home });
        ui.print_json(&json!({
            "server": stage.server,
            "data_dir": place.data,
            "config": place.config,
            "people": { "alice": person(&place.alice), "bob": person(&place.bob) },
        }))?;
    } else {
        let entry = json!({ "mcpServers": { "customers": {
            "command": stage.program,
            "args": ["connect", "customers", "--stdio"],
            "env": { "MCPX_HOME": place.alice.home },
        } } });
        ui.print(&format!("The demo serves {}", styled(STRONG, &stage.server)))?;
        ui.print("\nPaste this into an MCP client, which then calls as alice:\n")?;
        ui.print(&format!("{entry:#}"))?;
        ui.print("\nIn another terminal:\n")?;
        let program = stage.program.display();
        for (person, verb) in [
            (&place.alice, "ls"),
            (&place.alice, "connect customers"),
            (&place.bob, "approve"),
            (&place.bob, "sessions"),
            (&place.bob, "audit verify"),
        ] {
            ui.print(&format!("  MCPX_HOME={} {program} {verb}", person.home.display()))?;
        }
        ui.print("\nCtrl-C ends it.")?;
    }
    tokio::select! {
        () = until_told_to_stop() => Ok(()),
        outcome = stage.server_ended() => outcome,
    }
}
