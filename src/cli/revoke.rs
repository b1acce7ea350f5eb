//! `mcpx revoke`: a grant ends at once, and every open stream under it.

use std::collections::BTreeSet;

use crate::broker::remote::GrantInfo;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::find::{Named, find};
use crate::cli::text::clean;
use crate::cli::ui::{BAD, styled};

/// End a grant or a session at once
///
/// Open streams are cut within two seconds. Your own grants, or anybody's if you may.
#[derive(clap::Args, Debug)]
pub struct RevokeArgs {
    /// A grant, or a session as `mcpx sessions` shows it; the beginning is enough
    #[arg(value_name = "ID")]
    id: String,
}

/// Revokes.
///
/// # Errors
/// [`CliError`]: no such grant, or not yours to revoke.
pub async fn run(args: RevokeArgs, context: &Context) -> Result<(), CliError> {
    let remote = context.remote().await?;
    let grants = remote.grants().await?;
    let target = find(targets(&grants), &args.id, "grant or session", "mcpx sessions")?;
    let mut revoked = Vec::new();
    for grant in &grants {
        // One session can have seen several grants; those that still live must all go. A grant
        // named itself is sent in any case, so that the server says what is wrong with it.
        let chosen = match &target {
            Target::Grant(id) => grant.id == *id,
            Target::Session(id) => grant.session == *id && grant.state == "active",
        };
        if chosen {
            revoked.push(remote.revoke(&grant.id).await?);
        }
    }
    if revoked.is_empty() {
        return Err(CliError::failure(format!("no grant of {} lives any more", args.id)));
    }
    if context.ui.json() {
        return context.ui.print_json(&revoked);
    }
    for grant in revoked {
        context.ui.status(&format!(
            "{} {} of {} on {}",
            styled(BAD, "Revoked"),
            clean(&grant.id),
            clean(&grant.subject.label),
            clean(&grant.connection),
        ));
    }
    Ok(())
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
    let sessions: BTreeSet<&str> = grants.iter().map(|grant| grant.session.as_str()).collect();
    let sessions = sessions.into_iter().map(|id| Target::Session(id.to_owned()));
    grants.iter().map(|grant| Target::Grant(grant.id.clone())).chain(sessions).collect()
}
