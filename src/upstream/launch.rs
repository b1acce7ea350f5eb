//! How a child is started: its command line, its environment, its sandbox.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child as Process, ChildStderr, ChildStdin, ChildStdout, Command};

use super::UpstreamError;
use super::sandbox::{Mode, Profile, Report};
use super::witness::Witness;
use crate::audit::Confinement;
use crate::types::Secret;

/// How long a sandbox may take until it says what it achieved.
const CONFINING: Duration = Duration::from_secs(30);
/// The longest report of a sandbox, in bytes.
const LONGEST_REPORT: u64 = 64 * 1024;

/// How to start a child.
#[derive(Clone)]
pub struct Launch {
    /// The program, by absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its whole environment.
    pub environment: Vec<(String, Secret)>,
    /// The folder it starts in; the server's own if none.
    pub folder: Option<PathBuf>,
    /// What it may reach.
    pub sandbox: Profile,
    /// The program whose `sandbox` verb confines itself and becomes the child: this one.
    pub helper: PathBuf,
    /// Who is told what it does.
    pub witness: Witness,
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch")
            .field("connection", &self.witness.connection)
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// A process that has just been started, with its pipes.
pub(super) struct Started {
    pub(super) process: Process,
    pub(super) number: u32,
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: BufReader<ChildStderr>,
    pub(super) report: Report,
}

impl Launch {
    fn command(&self) -> Result<Command, UpstreamError> {
        let mut command = if self.sandbox.mode == Mode::Off {
            Command::new(&self.program)
        } else {
            let profile = serde_json::to_string(&self.sandbox)
                .map_err(|error| UpstreamError::CannotStart { why: error.to_string() })?;
            let mut command = Command::new(&self.helper);
            command.args(["sandbox", "--profile", &profile, "--"]).arg(&self.program);
            command
        };
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value.expose())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        // Its own group, so that what it starts can be ended with it.
        #[cfg(unix)]
        command.process_group(0);
        Ok(command)
    }

    /// Starts a process. It has read nothing yet.
    ///
    /// # Errors
    /// [`UpstreamError::CannotStart`]; nothing runs then.
    pub(super) async fn start(&self) -> Result<Started, UpstreamError> {
        let cannot = |why: String| UpstreamError::CannotStart { why };
        let mut process = self.command()?.spawn().map_err(|error| {
            tracing::error!(program = %self.program.display(), %error, "cannot start");
            cannot(error.to_string())
        })?;
        let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr), Some(number)) =
            (pipes.0, pipes.1, pipes.2, process.id())
        else {
            return Err(cannot("its pipes are missing".to_owned()));
        };
        let mut stderr = BufReader::new(stderr);
        let report = if self.sandbox.mode == Mode::Off {
            Report::off()
        } else {
            let report = tokio::time::timeout(CONFINING, report(&mut stderr)).await;
            report.map_err(|_| cannot("its sandbox is not ready in time".to_owned()))??
        };
        // It has ended by itself, without becoming the program.
        if self.sandbox.mode == Mode::Require && report.level != Confinement::Full {
            tracing::error!(connection = %self.witness.connection, sandbox = %report.summary(), "not started");
            return Err(cannot("its sandbox is required and not complete".to_owned()));
        }
        Ok(Started { process, number, stdin, stdout, stderr, report })
    }
}

/// What the kernel would hold a child to that had this profile, tried out in a process that ends.
///
/// # Errors
/// [`UpstreamError::CannotStart`] where that cannot be tried.
pub async fn probe(helper: &Path, profile: &Profile) -> Result<Report, UpstreamError> {
    let cannot = |why: String| UpstreamError::CannotStart { why };
    if profile.mode == Mode::Off {
        return Ok(Report::off());
    }
    let text = serde_json::to_string(profile).map_err(|error| cannot(error.to_string()))?;
    let output = Command::new(helper)
        .args(["sandbox", "--profile", &text])
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(CONFINING, output).await;
    let output = output.map_err(|_| cannot("its sandbox is not ready in time".to_owned()))?;
    let output = output.map_err(|error| cannot(error.to_string()))?;
    let line = output.stderr.split(|byte| *byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice(line).map_err(|error| cannot(error.to_string()))
}

/// The first line of a confined process's stderr, which it writes before it becomes the program.
async fn report(stderr: &mut BufReader<ChildStderr>) -> Result<Report, UpstreamError> {
    let mut line = Vec::new();
    let read = stderr.take(LONGEST_REPORT).read_until(b'\n', &mut line).await;
    read.ok().and_then(|_| serde_json::from_slice(&line).ok()).ok_or_else(|| {
        let text = String::from_utf8_lossy(&line);
        tracing::error!(line = %text.trim(), "a sandbox reports nothing");
        UpstreamError::CannotStart { why: "its sandbox cannot be set up".to_owned() }
    })
}
