//! What a verb can fail with, and the exit code of each kind.
//!
//! Owns the exit codes, the way from a server's error code to one, and the choice of hint. Never
//! prints: [`crate::cli::ui`] does.

use std::error::Error;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::broker::channel::{ChannelError, exchange_problem};
use crate::broker::grant::ExchangeError;
use crate::broker::home::HomeError;
use crate::broker::local::LocalError;
use crate::broker::login::LoginError;
use crate::broker::problem::Problem;
use crate::broker::remote::RemoteError;
use crate::broker::server::ServerError;
use crate::policy::PolicyError;

/// Why a verb did not do what it was asked, as far as a script must tell reasons apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Anything that no other kind names.
    Failure,
    /// The command line asked for something that does not exist.
    Usage,
    /// Policy, or the server's rules on who may do what, said no.
    Denied,
    /// There is no login, or it has ended.
    LoginNeeded,
    /// An approval is waited for, or waited too long.
    Approval,
    /// The grant has expired or was revoked.
    Grant,
    /// The other side was not reached; trying again may help.
    Network,
    /// The audit log does not add up.
    Integrity,
}

impl Kind {
    /// The process's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Denied => 3,
            Self::LoginNeeded => 4,
            Self::Approval => 5,
            Self::Grant => 6,
            Self::Network => 7,
            Self::Integrity => 8,
        }
    }

    /// The kind that an error code of the server's API stands for.
    pub fn of_code(code: &str) -> Self {
        match code {
            "login_needed" | "workload_token" => Self::LoginNeeded,
            "policy_denied" | "forbidden" | "grant_scope" | "not_a_person" => Self::Denied,
            code if code.starts_with("trust_") => Self::Denied,
            "needs_approval" => Self::Approval,
            "grant_expired" | "grant_revoked" | "grant_unknown" | "grant_not_begun" => Self::Grant,
            "unreachable" => Self::Network,
            "integrity" => Self::Integrity,
            code if code.starts_with("token_") => Self::LoginNeeded,
            code if code.starts_with("approval_") => Self::Approval,
            _ => Self::Failure,
        }
    }

    /// The word for this kind where the server gave no finer one.
    fn code(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Usage => "usage",
            Self::Denied => "forbidden",
            Self::LoginNeeded => "login_needed",
            Self::Approval => "approval_pending",
            Self::Grant => "grant_expired",
            Self::Network => "unreachable",
            Self::Integrity => "integrity",
        }
    }

    /// What helps with most errors of this kind.
    fn usual_hint(self) -> Option<&'static str> {
        match self {
            Self::LoginNeeded => Some("run `mcpx login`"),
            Self::Grant => Some("run the same command again for a new grant"),
            Self::Usage => Some("run `mcpx --help`"),
            _ => None,
        }
    }
}

/// The end of a verb that did not succeed.
#[derive(Clone, Debug)]
pub struct CliError {
    kind: Kind,
    code: Option<String>,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    /// Ends the process with this code and prints nothing.
    silent: Option<u8>,
}

/// An error as `--json` prints it, on stderr.
#[derive(Debug, Serialize)]
pub struct ErrorJson<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    causes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    exit_code: u8,
}

impl CliError {
    /// An error with a message that says what could not be done.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: None,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            silent: None,
        }
    }

    /// A [`Kind::Failure`].
    pub fn failure(message: impl Into<String>) -> Self {
        Self::new(Kind::Failure, message)
    }

    /// An error of a library, with its chain of sources as causes.
    pub fn of(kind: Kind, error: &(dyn Error + 'static)) -> Self {
        Self::new(kind, error.to_string()).caused_by(error.source())
    }

    /// Ends the process with `code` without a word: a child's own code, or the reader of our
    /// output has gone away.
    pub fn silent(code: u8) -> Self {
        let mut error = Self::failure("");
        error.silent = Some(code);
        error
    }

    /// Adds an error and its sources as causes. A source whose text the message already holds is
    /// left out.
    #[must_use]
    pub fn caused_by(mut self, source: Option<&(dyn Error + 'static)>) -> Self {
        let mut next = source;
        while let Some(source) = next {
            let text = source.to_string();
            let last = self.causes.last().unwrap_or(&self.message);
            if !last.contains(&text) {
                self.causes.push(text);
            }
            next = source.source();
        }
        self
    }

    /// Sets the next command to run.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the finer code that the server gave.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What could not be done.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Why, from the near to the far cause.
    pub fn causes(&self) -> &[String] {
        &self.causes
    }

    /// What to run next.
    pub fn next_step(&self) -> Option<&str> {
        self.hint.as_deref().or(self.kind.usual_hint())
    }

    /// Whether there is something to print.
    pub fn is_silent(&self) -> bool {
        self.silent.is_some()
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.silent.unwrap_or(self.kind.exit_code()))
    }

    /// The form for `--json`.
    pub fn as_json(&self) -> ErrorJson<'_> {
        ErrorJson {
            code: self.code.as_deref().unwrap_or(self.kind.code()),
            message: &self.message,
            causes: &self.causes,
            hint: self.next_step(),
            exit_code: self.kind.exit_code(),
        }
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        // Whoever read our output has what they wanted: `mcpx sessions | head -1` succeeds.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::silent(0)
        } else {
            Self::of(Kind::Failure, &error)
        }
    }
}

impl From<crate::types::RandomError> for CliError {
    fn from(error: crate::types::RandomError) -> Self {
        Self::of(Kind::Failure, &error)
    }
}

impl From<crate::types::InvalidText> for CliError {
    fn from(error: crate::types::InvalidText) -> Self {
        Self::of(Kind::Usage, &error)
    }
}

impl From<Problem> for CliError {
    fn from(problem: Problem) -> Self {
        let kind = Kind::of_code(&problem.code);
        let error = Self::new(kind, problem.message).code(problem.code);
        match problem.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl From<ChannelError> for CliError {
    fn from(error: ChannelError) -> Self {
        error.problem().into()
    }
}

impl From<ExchangeError> for CliError {
    fn from(error: ExchangeError) -> Self {
        exchange_problem(&error).into()
    }
}

impl From<RemoteError> for CliError {
    fn from(error: RemoteError) -> Self {
        error.problem().into()
    }
}

impl From<LoginError> for CliError {
    fn from(error: LoginError) -> Self {
        let kind = match &error {
            error if error.needs_login() => Kind::LoginNeeded,
            error if error.is_retryable() => Kind::Network,
            LoginError::Denied => Kind::LoginNeeded,
            _ => Kind::Failure,
        };
        Self::of(kind, &error)
    }
}

impl From<ServerError> for CliError {
    fn from(error: ServerError) -> Self {
        let kind = if error.is_network() { Kind::Network } else { Kind::Failure };
        Self::of(kind, &error)
    }
}

impl From<HomeError> for CliError {
    fn from(error: HomeError) -> Self {
        Self::of(Kind::Failure, &error)
    }
}

impl From<LocalError> for CliError {
    fn from(error: LocalError) -> Self {
        Self::of(Kind::Failure, &error)
    }
}

impl From<PolicyError> for CliError {
    fn from(error: PolicyError) -> Self {
        Self::of(Kind::Failure, &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise of README and man page; a change here breaks scripts.
    #[test]
    fn exit_codes_are_a_contract() {
        let table = [
            (Kind::Failure, 1),
            (Kind::Usage, 2),
            (Kind::Denied, 3),
            (Kind::LoginNeeded, 4),
            (Kind::Approval, 5),
            (Kind::Grant, 6),
            (Kind::Network, 7),
            (Kind::Integrity, 8),
        ];
        for (kind, code) in table {
            assert_eq!(kind.exit_code(), code, "{kind:?}");
            assert_eq!(
                Kind::of_code(kind.code()),
                if kind == Kind::Usage { Kind::Failure } else { kind }
            );
        }
    }

    #[test]
    fn server_codes_become_kinds() {
        let table = [
            ("login_needed", Kind::LoginNeeded),
            ("token_expired", Kind::LoginNeeded),
            ("token_audience", Kind::LoginNeeded),
            ("policy_denied", Kind::Denied),
            ("forbidden", Kind::Denied),
            ("approval_pending", Kind::Approval),
            ("approval_expired", Kind::Approval),
            ("needs_approval", Kind::Approval),
            ("grant_expired", Kind::Grant),
            ("grant_revoked", Kind::Grant),
            ("unreachable", Kind::Network),
            ("integrity", Kind::Integrity),
            ("not_found", Kind::Failure),
            ("", Kind::Failure),
        ];
        for (code, kind) in table {
            assert_eq!(Kind::of_code(code), kind, "{code}");
        }
    }

    #[test]
    fn causes_are_not_told_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: inner")]
        struct Outer(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("inner")]
        struct Inner;
        let error = CliError::of(Kind::Network, &Outer(Inner));
        assert!(error.causes().is_empty());
        let error = CliError::failure("cannot").caused_by(Some(&Outer(Inner)));
        assert_eq!(error.causes(), ["outer: inner"]);
    }

    #[test]
    fn a_closed_pipe_is_success() {
        let error = CliError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(error.is_silent());
        assert_eq!(error.exit_code(), ExitCode::SUCCESS);
    }
}
