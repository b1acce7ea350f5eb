//! A child process that is given the local port: it finds the URL in `MCPX_URL`, and nothing else
//! of the login.
//!
//! The child keeps our stdin, stdout and stderr. Signals that we get go to it, and its exit code
//! becomes ours.

use std::ffi::OsString;
use std::io;
use std::process::ExitStatus;

use tokio::process::{Child, Command};

/// The variable in which the child finds the connection's URL.
pub const URL_VARIABLE: &str = "MCPX_URL";

/// The child could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// There is no such program, or it may not be run.
    #[error("cannot run {program:?}")]
    Start {
        /// The program.
        program: OsString,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ran, and then its end could not be waited for.
    #[error("cannot wait for the command")]
    Wait(#[source] io::Error),
}

impl ExecError {
    /// The exit code that shells use: 127 where there is no such program, 126 where it may not
    /// run.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Start { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Start { .. } => 126,
            Self::Wait(_) => 1,
        }
    }
}

/// Runs a command to its end and gives the code to end with: its own, or 128 + n after signal n.
///
/// # Errors
/// [`ExecError`].
pub async fn run(program: &OsString, args: &[OsString], url: &str) -> Result<u8, ExecError> {
    // Before the child exists, so that no signal falls between.
    let mut signals = signals::Signals::listen().map_err(ExecError::Wait)?;
    let mut child = Command::new(program)
        .args(args)
        .env(URL_VARIABLE, url)
        .spawn()
        .map_err(|source| ExecError::Start { program: program.clone(), source })?;
    loop {
        tokio::select! {
            status = child.wait() => return status.map(code).map_err(ExecError::Wait),
            signal = signals.next() => signals::forward(&child, signal),
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return u8::try_from(128 + signal).unwrap_or(u8::MAX);
    }
    // Windows has 32-bit codes; what does not fit is still a failure.
    status.code().map_or(1, |code| u8::try_from(code).unwrap_or(1))
}

#[cfg(unix)]
mod signals {
    use std::io::{self, IsTerminal as _};

    use rustix::process::{Pid, Signal as Number, kill_process};
    use tokio::signal::unix::{Signal, SignalKind, signal};

    use super::Child;

    /// The signals that are handed on.
    pub(super) struct Signals(Vec<(Number, Signal)>);

    impl Signals {
        pub(super) fn listen() -> io::Result<Self> {
            let kinds = [
                (Number::INT, SignalKind::interrupt()),
                (Number::TERM, SignalKind::terminate()),
                (Number::HUP, SignalKind::hangup()),
                (Number::QUIT, SignalKind::quit()),
                (Number::USR1, SignalKind::user_defined1()),
                (Number::USR2, SignalKind::user_defined2()),
                (Number::WINCH, SignalKind::window_change()),
            ];
            let open = |(number, kind)| Ok((number, signal(kind)?));
            kinds.into_iter().map(open).collect::<io::Result<_>>().map(Self)
        }

        pub(super) async fn next(&mut self) -> Number {
            std::future::poll_fn(|context| {
                for (number, signal) in &mut self.0 {
                    if let std::task::Poll::Ready(Some(())) = signal.poll_recv(context) {
                        return std::task::Poll::Ready(*number);
                    }
                }
                std::task::Poll::Pending
            })
            .await
        }
    }

    /// Sends a signal on. A terminal has given INT, QUIT and WINCH to the child already, since it
    /// is in our process group; many programs take a second INT as "stop without cleaning up".
    pub(super) fn forward(child: &Child, number: Number) {
        let by_terminal = matches!(number, Number::INT | Number::QUIT | Number::WINCH);
        if by_terminal && io::stdin().is_terminal() {
            return;
        }
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, number)
        {
            tracing::debug!(%error, "the command did not take a signal");
        }
    }
}

#[cfg(not(unix))]
mod signals {
    use std::io;

    use super::Child;

    /// Ctrl-C reaches the child by itself; we only must not die of it.
    pub(super) struct Signals;

    impl Signals {
        pub(super) fn listen() -> io::Result<Self> {
            Ok(Self)
        }

        pub(super) async fn next(&mut self) {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    pub(super) fn forward(_child: &Child, _signal: ()) {}
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    async fn sh(script: &str) -> u8 {
        let args = ["-c".into(), script.into()];
        run(&"sh".into(), &args, "http://127.0.0.1:1/s/mcp").await.unwrap()
    }

    #[tokio::test]
    async fn codes_and_signals_are_passed_through() {
        assert_eq!(sh("exit 0").await, 0);
        assert_eq!(sh("exit 42").await, 42);
        assert_eq!(sh("kill -TERM $$").await, 128 + 15);
    }

    #[tokio::test]
    async fn the_child_finds_the_url() {
        assert_eq!(sh("test \"$MCPX_URL\" = http://127.0.0.1:1/s/mcp").await, 0);
    }

    #[tokio::test]
    async fn missing_programs_have_the_shells_code() {
        let error = run(&"/nonexistent/program".into(), &[], "u").await.unwrap_err();
        assert_eq!(error.exit_code(), 127);
        let error = run(&"/".into(), &[], "u").await.unwrap_err();
        assert_eq!(error.exit_code(), 126);
    }
}
