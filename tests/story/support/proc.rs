//! Child processes: each in its own process group, its output in files, gone when dropped.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use super::world::World;

/// How long anything may take that should take no time at all.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Groups that are alive, so that an interrupted run leaves nothing behind.
static ALIVE: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// A running child process.
pub struct Proc {
    name: String,
    child: Child,
    group: Pid,
    out: PathBuf,
    err: PathBuf,
}

/// How a process ended and what it printed.
#[derive(Debug)]
pub struct Output {
    /// The exit code; 128 + signal where it was killed.
    pub code: i32,
    /// All it wrote to standard output.
    pub stdout: String,
    /// All it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output as one JSON value a line.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{line:?} is not JSON ({error}): {self:#?}"))
        };
        self.stdout.lines().map(parse).collect()
    }

    /// Fails unless the process ended with `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code {} instead of {code}: {self:#?}", self.code);
        self
    }

    /// Fails unless standard error says `text`.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "stderr does not say {text:?}: {self:#?}");
        self
    }
}

impl Proc {
    /// The operating system's number for it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Starts a command with an empty standard input. Its output goes to files in the story's
    /// `logs` folder, which a failing story shows.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(world: &World, name: &str, mut command: Command) -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let (out, err) = world.log_files(name);
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        let group = Pid::from_child(&child);
        ALIVE.lock().unwrap().push(group);
        Ok(Self { name: name.to_owned(), child, group, out, err })
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// It cannot be started or does not end in time.
    pub fn run(world: &World, name: &str, command: Command) -> anyhow::Result<Output> {
        Self::start(world, name, command)?.finish()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// It does not come within [`PATIENCE`].
    pub fn finish(self) -> anyhow::Result<Output> {
        self.finish_within(PATIENCE)
    }

    /// As [`Self::finish`], for what takes its time.
    ///
    /// # Errors
    /// The end does not come in time.
    pub fn finish_within(mut self, patience: Duration) -> anyhow::Result<Output> {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.wait_within(patience)?;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ok(Output { code, stdout: self.stdout(), stderr: self.stderr() })
    }

    /// Waits for the end and leaves the output in its files.
    ///
    /// # Errors
    /// It does not come within [`PATIENCE`].
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        self.wait_within(PATIENCE)
    }

    fn wait_within(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if started.elapsed() > patience {
                self.kill();
                bail!("{} did not end within {patience:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All of standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    /// All of standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// The files that its output goes to.
    pub fn log_files(&self) -> [PathBuf; 2] {
        [self.out.clone(), self.err.clone()]
    }

    /// The first whole line of standard output, which is JSON.
    ///
    /// # Errors
    /// The process ends before it, or it does not come in time, or it is not JSON.
    pub fn first_json_line(&mut self) -> anyhow::Result<Value> {
        self.until("prints its first line", |this| {
            let stdout = this.stdout();
            let Some((line, _)) = stdout.split_once('\n') else { return Ok(None) };
            serde_json::from_str(line).map(Some).with_context(|| format!("not JSON: {line}"))
        })
    }

    /// Waits until `ready` has an answer.
    ///
    /// # Errors
    /// The process ends before, or it does not come in time, or `ready` fails.
    pub fn until<T>(
        &mut self,
        what: &str,
        mut ready: impl FnMut(&Self) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        loop {
            // Asked before looking: what an ended process left behind still counts.
            let ended = self.child.try_wait()?;
            if let Some(answer) = ready(self)? {
                return Ok(answer);
            }
            if let Some(status) = ended {
                bail!("{} ended ({status}) before it {what}: {}", self.name, self.stderr());
            }
            if started.elapsed() > PATIENCE {
                bail!("{PATIENCE:?} passed before {} {what}: {}", self.name, self.stderr());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end (SIGTERM to it and its children).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// `kill -9` of it and its children, at once.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        drop(self.child.wait());
    }

    fn signal(&self, signal: Signal) {
        // The group may be gone already; that is what was wanted.
        kill_process_group(self.group, signal).ok();
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.kill();
        ALIVE.lock().unwrap().retain(|group| *group != self.group);
    }
}

/// On Ctrl-C or SIGTERM, kills every group that is alive. They do not get the terminal's signal
/// themselves, being groups of their own.
pub fn kill_all_on_interrupt() {
    use tokio::signal::unix::{SignalKind, signal};
    super::http::runtime().spawn(async {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
        for group in ALIVE.lock().unwrap().iter() {
            kill_process_group(*group, Signal::KILL).ok();
        }
        std::process::exit(130);
    });
}
