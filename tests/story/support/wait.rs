//! Waiting for what will be so, without asserting how long it takes.

use std::time::{Duration, Instant};

use super::proc::PATIENCE;

/// Asks again and again until there is an answer.
///
/// # Errors
/// None comes within [`PATIENCE`], or asking fails.
pub fn until<T>(
    what: &str,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        anyhow::ensure!(started.elapsed() < PATIENCE, "{PATIENCE:?} passed before {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The ids of one kind (`apr_`, `gr_`, `ses_`, `call_`) in a text, each once, in order.
pub fn ids(text: &str, prefix: &str) -> Vec<String> {
    let mut found: Vec<String> = vec![];
    for (start, _) in text.match_indices(prefix) {
        let rest = text.get(start..).unwrap_or_default();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let id = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default().to_owned();
        if id.len() == prefix.len() + 16 && !found.contains(&id) {
            found.push(id);
        }
    }
    found
}
