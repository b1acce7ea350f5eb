//! `mcpx status`: who is logged in where, from disk.

use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::text::{clean, span};
use crate::cli::ui::{STRONG, styled};

/// Show who is logged in, and where
///
/// Ends with code 4 when nobody is.
#[derive(clap::Args, Debug)]
pub struct StatusArgs {}

/// Shows the login.
///
/// # Errors
/// [`Kind::LoginNeeded`] when there is no login, or it can no longer be renewed.
pub async fn run(_args: StatusArgs, context: &Context) -> Result<(), CliError> {
    let ui = &context.ui;
    let status = context.login()?.status().await?;
    let now = context.clock().now_seconds();
    if ui.json() {
        ui.print_json(&status)?;
    } else {
        let who = status.identity.email.as_deref().unwrap_or(&status.identity.sub);
        let life = if status.renewable {
            "renews itself".to_owned()
        } else if status.id_token_expires > now {
            format!("ends in {}", span(status.id_token_expires - now))
        } else {
            format!("ended {} ago", span(now - status.id_token_expires))
        };
        let groups = status.identity.groups.join(", ");
        ui.print(&format!("{} at {}", styled(STRONG, &clean(who)), clean(&status.server)))?;
        ui.print(&format!("issuer  {} ({})", clean(&status.issuer_name), clean(&status.issuer)))?;
        ui.print(&format!(
            "groups  {}",
            if groups.is_empty() { "none".into() } else { clean(&groups) }
        ))?;
        ui.print(&format!("login   made {} ago, {life}", span(now - status.logged_in)))?;
    }
    if !status.renewable && status.id_token_expires <= now {
        return Err(CliError::new(Kind::LoginNeeded, "the login has ended"));
    }
    Ok(())
}
