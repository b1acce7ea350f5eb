//! `mcpx serve --rotate-keys`: asks whichever server uses the data directory for another signing
//! key. The server makes it, because the record of it stands in the log that only the server writes.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::cli::Context;
use crate::cli::error::CliError;
use crate::identity::ring;

/// A running server looks every second.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks, and waits until it is done or nobody seems to be there.
pub(super) async fn run(data: &Path, context: &Context) -> Result<(), CliError> {
    let keys = data.join("keys");
    let wrong =
        |error| CliError::failure("the signing keys cannot be rotated").caused_by(Some(&error));
    if !keys.exists() {
        let message = format!("{} holds no keys yet", data.display());
        return Err(CliError::failure(message).hint("the first start of `mcpx serve` makes them"));
    }
    let Some(previous) = ring::request(&keys).map_err(wrong)? else {
        let message = format!("{} holds no signing key yet", keys.display());
        return Err(CliError::failure(message).hint("the first start of `mcpx serve` makes one"));
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut state = ring::state(&keys).map_err(wrong)?;
    while state.1 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
        state = ring::state(&keys).map_err(wrong)?;
    }
    let (key, waiting) = state;
    if context.ui.json() {
        let told = json!({ "rotated": !waiting, "key": key, "previous": previous });
        return context.ui.print_json(&told);
    }
    let key = key.unwrap_or_default();
    context.ui.print(&if waiting {
        format!("no server answers: {previous} is replaced at the next start of `mcpx serve`")
    } else {
        format!("{key} signs from now on; {previous} verifies until its last token is over")
    })
}
