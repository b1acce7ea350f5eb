//! `mcpx logout`: the login ends here, and at its issuer where that is offered.

use crate::broker::login::{Login, Revocation};
use crate::cli::context::Context;
use crate::cli::error::CliError;

/// End the login, here and at its issuer
#[derive(clap::Args, Debug)]
pub struct LogoutArgs {}

/// Logs out. Not being logged in is no error.
///
/// # Errors
/// When something here cannot be deleted.
pub async fn run(_args: LogoutArgs, context: &Context) -> Result<(), CliError> {
    let home = context.home()?;
    let Some(login) = Login::load(&home, context.clock())? else {
        context.ui.status("You were not logged in.");
        return Ok(());
    };
    context.remember_server(&home, login.server().server.as_str())?;
    match login.logout().await? {
        Revocation::Failed(_) => context.ui.warn(
            "the login is deleted here, but its issuer could not be told; it lives on there until it expires",
        ),
        _ => context.ui.status("Logged out."),
    }
    Ok(())
}
