//! `mcpx sandbox`: the process that confines itself and becomes a child of the server.
//!
//! The server starts it ([`crate::upstream::sandbox`] says why); nobody types it, so it is not in
//! the tree of verbs. Its first line on stderr is its report; after that stderr is the program's.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use super::ui::Ui;
use crate::audit::Confinement;
use crate::upstream::sandbox::{Mode, Profile, confine};

/// The word that stands where a verb would.
const WORD: &str = "sandbox";

/// Confine this process and become a program
#[derive(Parser, Debug)]
struct SandboxArgs {
    /// What it may reach, as JSON
    #[arg(long, value_name = "JSON")]
    profile: String,
    /// The program and its arguments; none only reports
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Where there is no such program, as shells have it.
const NO_PROGRAM: u8 = 127;

/// Confines this very thread and becomes the program, if the command line asks for that; comes
/// before there is any other thread. Gives the exit code where it did not become the program.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1).peekable();
    args.next_if(|word| word == WORD)?;
    let ui = Ui::new(false, true);
    let args = SandboxArgs::try_parse_from(std::iter::once(WORD.into()).chain(args));
    Some(match args {
        Ok(args) => confined(args, &ui),
        Err(error) => {
            ui.status(&error.to_string());
            ExitCode::from(2)
        }
    })
}

fn confined(args: SandboxArgs, ui: &Ui) -> ExitCode {
    let profile: Profile = match serde_json::from_str(&args.profile) {
        Ok(profile) => profile,
        Err(error) => {
            ui.status(&format!("the profile cannot be read: {error}"));
            return ExitCode::from(2);
        }
    };
    let report = confine(&profile);
    let line = serde_json::to_string(&report).unwrap_or_default();
    ui.status(&line);
    if profile.mode == Mode::Require && report.level != Confinement::Full {
        return ExitCode::FAILURE;
    }
    let Some((program, arguments)) = args.command.split_first() else { return ExitCode::SUCCESS };
    let error = become_program(program, arguments);
    ui.status(&format!("{} cannot be run: {error}", program.to_string_lossy()));
    ExitCode::from(NO_PROGRAM)
}

#[cfg(unix)]
fn become_program(program: &OsString, arguments: &[OsString]) -> std::io::Error {
    use std::os::unix::process::CommandExt as _;
    std::process::Command::new(program).args(arguments).exec()
}

#[cfg(not(unix))]
fn become_program(_program: &OsString, _arguments: &[OsString]) -> std::io::Error {
    std::io::ErrorKind::Unsupported.into()
}
