//! Jobs on the command line: which token they show, and `mcpx login --workload`.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::broker::remote::Remote;
use crate::broker::server;
use crate::broker::workload::{Kind as SourceKind, Looked, Wanted, Workload, WorkloadError, find};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::text::clean;
use crate::cli::ui::{GOOD, STRONG, styled};

/// What a job shows in place of a login.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Workload options")]
pub struct WorkloadArgs {
    /// Show the job's own token, found by itself or from SOURCE; `off` looks for none
    #[arg(
        long,
        value_name = "SOURCE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "auto",
        env = "MCPX_WORKLOAD",
        hide_env_values = true
    )]
    workload: Option<SourceArg>,
    /// A file with the job's token, read at each use
    #[arg(long, value_name = "FILE", env = "MCPX_TOKEN_FILE", hide_env_values = true)]
    token_file: Option<PathBuf>,
    /// A variable with the job's token
    #[arg(long, value_name = "NAME", env = "MCPX_TOKEN_ENV", hide_env_values = true)]
    token_env: Option<String>,
    /// The audience to ask tokens for [default: the server's URL]
    #[arg(long, value_name = "TEXT", env = "MCPX_AUDIENCE", hide_env_values = true)]
    audience: Option<String>,
    /// The trust rule of the server to come in under [default: the one that fits]
    #[arg(long, value_name = "RULE", env = "MCPX_TRUST", hide_env_values = true)]
    trust: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SourceArg {
    /// Whichever is there
    Auto,
    /// None: a login is needed
    Off,
    /// GitHub Actions, with `permissions: id-token: write`
    Github,
    /// GitLab, with `id_tokens`
    Gitlab,
    /// A Kubernetes projected token
    Kubernetes,
    /// Azure workload identity
    Azure,
    /// A SPIFFE JWT-SVID in a file
    Spiffe,
}

impl SourceArg {
    fn kind(self) -> Option<SourceKind> {
        match self {
            Self::Auto | Self::Off => None,
            Self::Github => Some(SourceKind::GitHub),
            Self::Gitlab => Some(SourceKind::GitLab),
            Self::Kubernetes => Some(SourceKind::Kubernetes),
            Self::Azure => Some(SourceKind::Azure),
            Self::Spiffe => Some(SourceKind::Spiffe),
        }
    }
}

impl WorkloadArgs {
    /// What the environment says, for verbs without these flags. What it says wrongly is said by
    /// the verbs that have them.
    pub fn of_environment() -> Result<Self, CliError> {
        #[derive(Parser)]
        struct Only {
            #[command(flatten)]
            args: WorkloadArgs,
        }
        Only::try_parse_from(["mcpx"]).map(|only| only.args).map_err(|error| {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            CliError::new(Kind::Usage, first.trim_start_matches("error: "))
        })
    }

    /// Whether a job's token was asked for, login or not.
    pub fn is_asked_for(&self) -> bool {
        !self.is_off() && (self.workload.is_some() || self.names_one())
    }

    /// Whether no token of a job may be taken.
    pub fn is_off(&self) -> bool {
        self.workload == Some(SourceArg::Off)
    }

    fn names_one(&self) -> bool {
        self.token_file.is_some() || self.token_env.is_some()
    }

    /// The job, if there is a token to show.
    ///
    /// # Errors
    /// [`WorkloadError`]; [`Kind::Usage`] for options that contradict each other.
    pub fn find(&self) -> Result<Result<Found<'_>, WorkloadError>, CliError> {
        if self.token_file.is_some() && self.token_env.is_some() {
            let what = "both a file and a variable are named for the job's token";
            return Err(CliError::new(Kind::Usage, what)
                .hint("give one of --token-file and --token-env (or MCPX_TOKEN_FILE, _ENV)"));
        }
        let wanted = Wanted {
            kind: self.workload.and_then(SourceArg::kind),
            file: self.token_file.clone(),
            variable: self.token_env.clone(),
        };
        #[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
        let source = find(&wanted, &|name| std::env::var(name).ok());
        Ok(source.map(|source| Found { source, args: self }))
    }
}

/// A token that a job can show.
pub struct Found<'a> {
    source: crate::broker::workload::Source,
    args: &'a WorkloadArgs,
}

impl Found<'_> {
    /// The job, for a server, with the home that its commands share.
    pub fn workload(self, server: &str, home: Option<&Path>) -> Workload {
        let Self { source, args } = self;
        let audience = args.audience.as_deref().unwrap_or(server.trim_end_matches('/'));
        tracing::debug!(source = source.name(), audience, "showing the job's own token");
        Workload::new(source, audience, args.trust.clone(), home)
    }
}

/// The error of somebody who has neither login nor token. What is almost there is told.
pub fn nobody(looked: &[Looked]) -> CliError {
    let mut error = CliError::new(Kind::LoginNeeded, "you are not logged in");
    let near: Vec<_> = looked.iter().filter(|one| one.near).collect();
    if !near.is_empty() {
        let told: Vec<_> = near.iter().map(|one| format!("{}: {}", one.from, one.why)).collect();
        error = CliError::new(
            Kind::LoginNeeded,
            format!(
                "you are not logged in, and this job has no token to show ({})",
                told.join("; ")
            ),
        )
        .hint("docs/identity/workloads.md has the settings of each");
    }
    error
}

impl From<WorkloadError> for CliError {
    fn from(error: WorkloadError) -> Self {
        let kind = if error.is_retryable() { Kind::Network } else { Kind::LoginNeeded };
        Self::of(kind, &error)
            .code("workload_token")
            .hint("docs/identity/workloads.md has the settings of each source")
    }
}

#[derive(Serialize)]
struct WorkloadJson<'a> {
    server: &'a str,
    label: &'a str,
    rule: Option<&'a str>,
    groups: &'a [String],
}

/// `mcpx login --workload`: shows the job's token once and says what comes of it. Nothing is kept
/// but the server's address.
///
/// # Errors
/// [`CliError`]: there is no token, or the server does not take it.
pub async fn login(args: &WorkloadArgs, context: &Context) -> Result<(), CliError> {
    let home = context.home()?;
    let found = args.find()??;
    let info = server::fetch(&context.server_to_log_in_to(&home)?).await?;
    let job = found.workload(info.server.as_str(), Some(home.path()));
    let remote = Remote::new(&info, std::sync::Arc::new(job), context.clock())?;
    let me = remote.me().await?;
    context.remember_server(&home, info.server.as_str())?;
    let ui = &context.ui;
    if ui.json() {
        return ui.print_json(&WorkloadJson {
            server: info.server.as_str(),
            label: &me.label,
            rule: me.rule.as_deref(),
            groups: &me.groups,
        });
    }
    ui.status(&format!(
        "{} by {} as {} (groups: {})",
        styled(GOOD, "Accepted"),
        clean(info.server.as_str()),
        styled(STRONG, &clean(&me.label)),
        if me.groups.is_empty() { "none".to_owned() } else { clean(&me.groups.join(", ")) },
    ));
    ui.status(&format!(
        "The trust rule is {}. Nothing is kept: every command shows the job's token anew.",
        styled(STRONG, &clean(me.rule.as_deref().unwrap_or("unknown"))),
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: WorkloadArgs,
    }

    fn parsed(line: &str) -> WorkloadArgs {
        Line::try_parse_from(line.split(' ')).unwrap().args
    }

    #[test]
    fn a_token_is_asked_for_by_any_of_the_options() {
        assert!(!parsed("mcpx").is_asked_for());
        assert!(!parsed("mcpx --workload=off --token-file x").is_asked_for());
        for line in ["--workload", "--workload=github", "--token-file x", "--token-env X"] {
            assert!(parsed(&format!("mcpx {line}")).is_asked_for(), "{line}");
        }
        assert!(Line::try_parse_from(["mcpx", "--workload=jenkins"]).is_err());
        let both = parsed("mcpx --token-file x --token-env X");
        assert_eq!(both.find().err().unwrap().kind(), Kind::Usage);
    }
}
