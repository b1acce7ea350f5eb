//! The command line: one file per verb, each with its arguments and one `run`.
//!
//! Owns the tree of verbs, the global flags, and the way from the outcome to an exit code. Verbs
//! speak through [`ui`] only and fail with [`error::CliError`] only. Nothing is read, opened or
//! started before the arguments are parsed, so `--help` costs nothing.

pub mod approve;
pub mod audit;
pub mod authorize;
pub mod client;
pub mod connect;
pub mod context;
pub mod demo;
pub mod deny;
pub mod error;
pub mod exec;
pub mod find;
pub mod grants;
pub mod login;
pub mod logout;
pub mod ls;
pub mod mask;
pub mod policy;
pub mod replay;
pub mod request;
pub mod revoke;
mod rotate;
pub mod sandbox;
pub mod serve;
pub mod sessions;
pub mod status;
pub mod text;
pub mod tools;
pub mod trust;
pub mod ui;
pub mod wait;
pub mod workload;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

pub use context::Context;
use error::CliError;
use ui::Ui;

/// Access broker and enforcing gateway for MCP servers
///
/// People, CI jobs and AI agents reach MCP servers through a gateway that knows who calls,
/// decides every call by policy, masks what comes back, and records it before anyone sees it.
///
/// Exit codes: 0 success, 1 failure, 2 usage, 3 denied by policy, 4 login needed, 5 approval
/// pending or expired, 6 grant expired or revoked, 7 network (try again), 8 integrity failure.
/// `mcpx exec` ends with its command's own code.
#[derive(Parser, Debug)]
#[command(name = "mcpx", version, propagate_version = false, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb understands.
#[derive(clap::Args, Debug)]
struct Global {
    /// Print data and errors as JSON
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
    /// Say on stderr what happens (finer: MCPX_LOG=mcpx=trace)
    #[arg(long, short, global = true, help_heading = "Global options")]
    verbose: bool,
    /// Print no colours, as NO_COLOR does
    #[arg(long, global = true, help_heading = "Global options")]
    no_color: bool,
    /// Which diagnostics go to stderr, as in `mcpx=debug,hyper=info`
    #[arg(
        long,
        value_name = "FILTER",
        env = "MCPX_LOG",
        hide_env_values = true,
        global = true,
        hide = true
    )]
    log: Option<String>,
    /// Where logins and remembered checkpoints live [default: the user's data directory]
    #[arg(
        long,
        value_name = "DIR",
        env = "MCPX_HOME",
        hide_env_values = true,
        global = true,
        help_heading = "Global options"
    )]
    home: Option<PathBuf>,
    /// The control server [default: the one of the last login]
    #[arg(
        long,
        value_name = "URL",
        env = "MCPX_SERVER",
        hide_env_values = true,
        global = true,
        help_heading = "Global options"
    )]
    server: Option<String>,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Login(login::LoginArgs),
    Logout(logout::LogoutArgs),
    Status(status::StatusArgs),
    Ls(ls::LsArgs),
    Connect(connect::ConnectArgs),
    Exec(exec::ExecArgs),
    Client(client::ClientArgs),
    Authorize(authorize::AuthorizeArgs),
    Approve(approve::ApproveArgs),
    Deny(deny::DenyArgs),
    Request(request::RequestArgs),
    Grants(grants::GrantsArgs),
    Revoke(revoke::RevokeArgs),
    Sessions(sessions::SessionsArgs),
    Replay(replay::ReplayArgs),
    Audit(audit::AuditArgs),
    Policy(policy::PolicyArgs),
    Mask(mask::MaskArgs),
    Tools(tools::ToolsArgs),
    Trust(trust::TrustArgs),
    Serve(serve::ServeArgs),
    Demo(demo::DemoArgs),
}

/// The command line, parsed. Help, version and usage errors are printed here and end the process
/// with the code returned.
///
/// # Errors
/// The exit code when there is nothing to run: 0 after help, 2 after a usage error.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    Cli::try_parse_from(args).map_err(|error| {
        // A closed pipe while printing help is nobody's failure.
        drop(error.print());
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

/// Runs the verb to its end.
pub fn run(cli: Cli) -> ExitCode {
    let Cli { global, verb } = cli;
    let ui = Ui::new(global.json, global.no_color);
    start_diagnostics(global.log.as_deref(), global.verbose, &verb);
    let context = Context { ui: ui.clone(), home: global.home, server: global.server };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(8 * 1024 * 1024)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = CliError::failure("cannot start").caused_by(Some(&error));
            ui.error(&error);
            return error.exit_code();
        }
    };
    let outcome = runtime.block_on(verb.run(&context));
    // A thread that still waits for a line on stdin must not keep the process alive.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui.error(&error);
            error.exit_code()
        }
    }
}

/// The tree of verbs, for the manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

impl Verb {
    async fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Login(args) => login::run(args, context).await,
            Self::Logout(args) => logout::run(args, context).await,
            Self::Status(args) => status::run(args, context).await,
            Self::Ls(args) => ls::run(args, context).await,
            Self::Connect(args) => connect::run(args, context).await,
            Self::Exec(args) => exec::run(args, context).await,
            Self::Client(args) => client::run(args, context).await,
            Self::Authorize(args) => authorize::run(args, context).await,
            Self::Approve(args) => approve::run(args, context).await,
            Self::Deny(args) => deny::run(args, context).await,
            Self::Request(args) => request::run(args, context).await,
            Self::Grants(args) => grants::run(args, context).await,
            Self::Revoke(args) => revoke::run(args, context).await,
            Self::Sessions(args) => sessions::run(args, context).await,
            Self::Replay(args) => replay::run(args, context).await,
            Self::Audit(args) => audit::run(args, context).await,
            Self::Policy(args) => policy::run(args, context).await,
            Self::Mask(args) => mask::run(args, context).await,
            Self::Tools(args) => tools::run(args, context).await,
            Self::Trust(args) => trust::run(args, context).await,
            Self::Serve(args) => serve::run(args, context).await,
            Self::Demo(args) => demo::run(args, context).await,
        }
    }
}

/// Diagnostics go to stderr; stdout is data, or the protocol.
fn start_diagnostics(filter: Option<&str>, verbose: bool, verb: &Verb) {
    use tracing_subscriber::EnvFilter;
    let colours = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    let usual = match (verbose, verb) {
        (true, _) => "mcpx=debug,info",
        (false, Verb::Serve(_)) => "mcpx=info,warn",
        (false, _) => "mcpx=warn,off",
    };
    let filter = match filter.map(EnvFilter::try_new) {
        Some(Ok(filter)) => filter,
        Some(Err(_)) | None => EnvFilter::new(usual),
    };
    // Fails only where a test has set a subscriber already.
    let _already_set = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parses(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_tree_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn usage_errors_end_with_2_and_help_with_0() {
        for line in ["mcpx nonsense", "mcpx connect", "mcpx exec crm", "mcpx connect Bad/Name"] {
            assert_eq!(parses(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(parses("mcpx --help").unwrap_err().exit_code(), 0);
    }

    #[test]
    fn global_flags_stand_anywhere_and_the_command_of_exec_keeps_its_own() {
        assert!(parses("mcpx ls --json").unwrap().global.json);
        let cli = parses("mcpx exec crm -- ls --json -v").unwrap();
        assert!(!cli.global.json && !cli.global.verbose);
    }
}
