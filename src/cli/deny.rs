//! `mcpx deny`: an approver's no.

use crate::broker::remote::Verdict;
use crate::cli::approve::check_open;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::find::find;
use crate::cli::text::clean;
use crate::cli::ui::{BAD, styled};

/// Refuse a call or grant that waits for approval
#[derive(clap::Args, Debug)]
pub struct DenyArgs {
    /// What to refuse; its beginning is enough
    #[arg(value_name = "ID")]
    id: String,
    /// A sentence for the caller and the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Refuses.
///
/// # Errors
/// [`CliError`]: no such approval, not for you to decide, or too late.
pub async fn run(args: DenyArgs, context: &Context) -> Result<(), CliError> {
    let remote = context.remote().await?;
    let approval = find(remote.approvals(true).await?, &args.id, "approval", "mcpx approve")?;
    check_open(&approval, context.clock().now())?;
    let decided = remote.decide(&approval.id, Verdict::Deny, args.reason.as_deref()).await?;
    if context.ui.json() {
        return context.ui.print_json(&decided);
    }
    context.ui.status(&format!("{} {}", styled(BAD, "Denied"), clean(&decided.id)));
    Ok(())
}
