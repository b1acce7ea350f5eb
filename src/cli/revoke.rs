//! `mcpx revoke`: grants end at once, and every open stream under them.

use std::collections::BTreeSet;

use crate::broker::remote::{GrantInfo, Remote};
use crate::broker::requests::{CutInfo, Revocation};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::find::{Named, find};
use crate::cli::text::clean;
use crate::cli::ui::{BAD, styled};
use crate::types::ConnectionName;

/// End grants at once
///
/// New calls are refused and open streams are cut, within two seconds. Your own grants, or
/// anybody's if you may.
#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub struct RevokeArgs {
    /// A grant, or a session as `mcpx sessions` shows it; the beginning is enough
    #[arg(value_name = "ID", group = "which")]
    id: Option<String>,
    /// A grant as `mcpx grants` shows it; the beginning is enough
    #[arg(long, value_name = "ID", group = "which")]
    grant: Option<String>,
    /// Every grant of somebody: their id, e-mail address or name at the issuer
    #[arg(long, value_name = "WHO", group = "which")]
    subject: Option<String>,
    /// Every grant for a connection
    #[arg(long, value_name = "NAME", group = "which")]
    connection: Option<ConnectionName>,
    /// Every grant of the members of a group
    #[arg(long, value_name = "GROUP", group = "which")]
    all_of: Option<String>,
    /// A sentence for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Revokes.
///
/// # Errors
/// [`CliError`]: no such grant, or not yours to revoke.
pub async fn run(args: RevokeArgs, context: &Context) -> Result<(), CliError> {
    let remote = context.remote().await?;
    let revoked = match args.grant.as_ref().or(args.id.as_ref()) {
        Some(id) => {
            let revoked = one(&remote, id, args.reason.as_deref()).await?;
            if revoked.is_empty() {
                return Err(CliError::failure(format!("no grant of {id} lives any more")));
            }
            revoked
        }
        None => {
            let RevokeArgs { subject, connection, all_of: group, reason, .. } = args;
            let what = Revocation { grant: None, subject, connection, group, reason };
            remote.revoke_all(&what).await?
        }
    };
    if context.ui.json() {
        return context.ui.print_json(&revoked);
    }
    if revoked.is_empty() {
        context.ui.status("No grant of these lives.");
    }
    for grant in revoked {
        context.ui.status(&format!(
            "{} {} of {} on {}{}",
            styled(BAD, "Revoked"),
            clean(&grant.id),
            clean(&grant.subject.label),
            clean(&grant.connection),
            grant.cut.map(cut).unwrap_or_default(),
        ));
    }
    Ok(())
}

/// Revokes one grant, or the grants of one session.
async fn one(remote: &Remote, id: &str, reason: Option<&str>) -> Result<Vec<GrantInfo>, CliError> {
    let grants = remote.grants().await?;
    let target = find(targets(&grants), id, "grant or session", "mcpx grants")?;
    let mut revoked = Vec::new();
    for grant in &grants {
        // One session can have seen several grants; those that still live must all go. A grant
        // named itself is sent in any case, so that the server says what is wrong with it.
        let chosen = match &target {
            Target::Grant(id) => grant.id == *id,
            Target::Session(id) => grant.session.as_ref() == Some(id) && grant.state == "active",
        };
        if chosen {
            revoked.push(remote.revoke(&grant.id, reason).await?);
        }
    }
    Ok(revoked)
}

fn cut(cut: CutInfo) -> String {
    match cut {
        CutInfo { left: 0, streams: 0, .. } => String::new(),
        CutInfo { left: 0, streams, millis } => {
            format!("; what was open under it ({streams}) was cut in {millis} ms")
        }
        CutInfo { left, millis, .. } => {
            format!("; {left} calls or streams still ran after {millis} ms")
        }
    }
}

/// What can be named.
enum Target {
    Grant(String),
    Session(String),
}

impl Named for Target {
    fn name(&self) -> &str {
        match self {
            Self::Grant(id) | Self::Session(id) => id,
        }
    }
}

fn targets(grants: &[GrantInfo]) -> Vec<Target> {
    let live = || grants.iter().filter(|grant| grant.state != "pending");
    let sessions: BTreeSet<&str> = live().filter_map(|grant| grant.session.as_deref()).collect();
    let sessions = sessions.into_iter().map(|id| Target::Session(id.to_owned()));
    live().map(|grant| Target::Grant(grant.id.clone())).chain(sessions).collect()
}
