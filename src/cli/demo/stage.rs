//! Where the demo happens: the server's process, and the commands that people type, each a process
//! of its own whose real output is shown.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::browser;
use super::place::{Person, Place};
use crate::cli::error::CliError;
use crate::cli::text::clean;
use crate::cli::ui::{FAINT, GOOD, STRONG, Ui, styled};

/// How long the server has to start, and a command to say what is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which of the two people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Alice,
    Bob,
}

/// The demo's stage.
pub(super) struct Stage {
    pub(super) place: Place,
    pub(super) program: PathBuf,
    pub(super) server: String,
    process: Child,
    ui: Ui,
    told: bool,
    progress: ProgressBar,
}

/// A command under way.
pub(super) struct Running {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    output: String,
}

/// A command that has ended.
pub(super) struct Done {
    pub(super) code: i32,
    pub(super) output: String,
}

impl Stage {
    /// Starts the server and waits until it is ready. `told` says whether the story is told.
    pub(super) async fn open(
        ui: &Ui,
        place: Place,
        program: &Path,
        told: bool,
    ) -> Result<Self, CliError> {
        let progress = ProgressBar::new(super::tour::STEPS);
        progress.set_style(
            ProgressStyle::with_template("{spinner} [{pos}/{len}] {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        progress.enable_steady_tick(Duration::from_millis(120));
        progress.set_message("starting the server");
        let failed = |error: &std::io::Error| {
            CliError::failure("the server cannot be started").caused_by(Some(error))
        };
        let log_path = place.dir.join("server.log");
        let log = std::fs::File::create(&log_path).map_err(|error| failed(&error))?;
        let process = Command::new(program)
            .arg("serve")
            .arg("--config")
            .arg(&place.config)
            .arg("--ready-file")
            .arg(&place.ready)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        let server = String::new();
        let program = program.to_owned();
        let mut stage = Self { place, program, server, process, ui: ui.clone(), told, progress };
        stage.server = stage.ready(&log_path).await?;
        Ok(stage)
    }

    async fn ready(&mut self, log: &Path) -> Result<String, CliError> {
        #[derive(Deserialize)]
        struct Ready {
            server: String,
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Ok(text) = std::fs::read_to_string(&self.place.ready) {
                let ready: Ready = serde_json::from_str(&text).map_err(|error| {
                    CliError::failure("the server's address is unreadable").caused_by(Some(&error))
                })?;
                return Ok(ready.server);
            }
            let ended = self.process.try_wait().ok().flatten();
            if ended.is_some() || tokio::time::Instant::now() > deadline {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                let last: Vec<_> = said.lines().rev().take(10).collect();
                for line in last.iter().rev() {
                    self.ui.status(&clean(line));
                }
                return Err(CliError::failure("the server did not start"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends when the server's process has ended by itself.
    pub(super) async fn server_ended(&mut self) -> Result<(), CliError> {
        let how = match self.process.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Err(CliError::failure(format!("the server ended ({how})")))
    }

    /// Asks the server to stop, and sees that it does so in order.
    pub(super) async fn close(mut self) -> Result<(), CliError> {
        self.progress.finish_and_clear();
        if let Ok(Some(_)) = self.process.try_wait() {
            return Err(CliError::failure("the server ended before the demo did"));
        }
        terminate(&self.process);
        match tokio::time::timeout(PATIENCE, self.process.wait()).await {
            Ok(Ok(status)) if status.success() || cfg!(not(unix)) => Ok(()),
            Ok(Ok(status)) => {
                Err(CliError::failure(format!("the server did not end in order ({status})")))
            }
            Ok(Err(error)) => Err(CliError::failure("the server was lost").caused_by(Some(&error))),
            Err(_) => Err(CliError::failure("the server does not end")),
        }
    }

    /// No more progress is shown.
    pub(super) fn quiet(&self) {
        self.progress.finish_and_clear();
    }

    /// Begins a step of the story.
    pub(super) fn step(&self, title: &str) -> Result<(), CliError> {
        self.progress.inc(1);
        self.progress.set_message(title.to_owned());
        self.say(&format!("\n{}", styled(STRONG, title)))
    }

    /// A line of the story.
    pub(super) fn say(&self, line: &str) -> Result<(), CliError> {
        if !self.told {
            return Ok(());
        }
        self.progress.suspend(|| self.ui.print(line))
    }

    /// Something that must hold, and is shown to.
    pub(super) fn check(&self, what: &str, holds: bool) -> Result<(), CliError> {
        if holds {
            return self.say(&format!("  {} {what}", styled(GOOD, "✓")));
        }
        Err(CliError::failure(format!("this does not hold: {what}"))
            .hint("run `mcpx demo --keep` and look at server.log in the data directory"))
    }

    fn person(&self, who: Who) -> &Person {
        match who {
            Who::Alice => &self.place.alice,
            Who::Bob => &self.place.bob,
        }
    }

    /// Starts a command that a person types.
    pub(super) fn start(&self, who: Who, args: &[&str]) -> Result<Running, CliError> {
        let person = self.person(who);
        let typed: Vec<_> = args.iter().map(|arg| quoted(arg)).collect();
        let prompt = format!("{}$", person.name);
        self.say(&format!("{} mcpx {}", styled(FAINT, &prompt), typed.join(" ")))?;
        let failed = |error: &std::io::Error| {
            CliError::failure("a command cannot be started").caused_by(Some(error))
        };
        // One pipe for both streams keeps their lines in order.
        let (reader, writer) = std::io::pipe().map_err(|error| failed(&error))?;
        let second = writer.try_clone().map_err(|error| failed(&error))?;
        let child = Command::new(&self.program)
            .args(args)
            .env("MCPX_HOME", &person.home)
            .env_remove("MCPX_SERVER")
            .env_remove("MCPX_LOG")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(second)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&error))?;
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Running { child, lines, output: String::new() })
    }

    /// Runs a command to its end, showing what it prints.
    pub(super) async fn run(&self, who: Who, args: &[&str]) -> Result<Done, CliError> {
        let running = self.start(who, args)?;
        self.finish(running).await
    }

    /// The next line that a command prints, shown.
    pub(super) async fn line(&self, running: &mut Running) -> Result<Option<String>, CliError> {
        let line = tokio::time::timeout(PATIENCE, running.lines.recv())
            .await
            .map_err(|_| CliError::failure("a command says nothing more"))?;
        if let Some(line) = &line {
            running.output.push_str(line);
            running.output.push('\n');
            self.say(line)?;
        }
        Ok(line)
    }

    /// Reads what a command prints up to a line with a text in it.
    pub(super) async fn until(
        &self,
        running: &mut Running,
        text: &str,
    ) -> Result<String, CliError> {
        while let Some(line) = self.line(running).await? {
            if line.contains(text) {
                return Ok(line);
            }
        }
        Err(CliError::failure(format!("a command ended without saying {text:?}")))
    }

    /// Waits for a command's end, showing what it prints.
    pub(super) async fn finish(&self, mut running: Running) -> Result<Done, CliError> {
        while self.line(&mut running).await?.is_some() {}
        let status = running
            .child
            .wait()
            .await
            .map_err(|error| CliError::failure("a command was lost").caused_by(Some(&error)))?;
        Ok(Done { code: status.code().unwrap_or(-1), output: running.output })
    }

    /// Ends a command that would go on.
    pub(super) async fn stop(&self, mut running: Running) -> Result<(), CliError> {
        terminate(&running.child);
        let ended = tokio::time::timeout(PATIENCE, running.child.wait()).await;
        ended.map(drop).map_err(|_| CliError::failure("a command does not end"))
    }

    /// Logs a person in by device code, with their browser.
    pub(super) async fn log_in(&self, who: Who, shown: bool) -> Result<Done, CliError> {
        let mut running = self
            .start(who, &["login", "--server", &self.server, "--insecure-file", "--no-browser"])?;
        let line = self.until(&mut running, "http").await?;
        let page = line.split_whitespace().find(|word| word.starts_with("http"));
        let page = page.ok_or_else(|| CliError::failure("login shows no address"))?;
        let person = self.person(who);
        if shown {
            let text = format!("({} opens the page, checks the code, and logs in)", person.name);
            self.say(&styled(FAINT, &text))?;
        }
        browser::confirm(page, person).await?;
        let done = self.finish(running).await?;
        if done.code == 0 {
            Ok(done)
        } else {
            Err(CliError::failure(format!("{} cannot log in: {}", person.name, done.output)))
        }
    }
}

/// As a shell would want it.
fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@…".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        arg.to_owned()
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}

#[cfg(unix)]
fn terminate(process: &Child) {
    let pid = process.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
        let _ended_already = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// Windows has no signal that asks: the process is ended when it is dropped.
#[cfg(not(unix))]
fn terminate(_process: &Child) {}
