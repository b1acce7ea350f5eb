//! One signing key after the other: a rotation that somebody asked for (`mcpx serve
//! --rotate-keys`), and the end of the overlap. Each is on record before it counts.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use jiff::SignedDuration;

use super::Control;
use super::exchange::API_TTL;
use crate::audit::{Entry, Record, RecordError};
use crate::identity::key::KeyError;

/// How far the clocks of those who look at a token may be off.
const LEEWAY: Duration = Duration::from_secs(60);

/// How long whoever fetched the published keys may keep them, in seconds. A key verifies before
/// anybody else knows of it, since nobody else has to verify these tokens.
const KEPT: &str = "public, max-age=60";

/// The keys could not be changed; the old ones go on.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The files.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The record.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Makes the rotation that was asked for, and forgets the keys whose time is over.
///
/// # Errors
/// [`KeysError`]; the same is due again at the next call.
pub async fn tend(control: &Control) -> Result<(), KeysError> {
    let now = control.clock.now();
    let ring = control.signer.ring();
    if let Some(next) = ring.requested()? {
        let until = SignedDuration::try_from(longest(control))
            .ok()
            .and_then(|life| now.checked_add(life).ok())
            .unwrap_or(jiff::Timestamp::MAX);
        let (key, previous) = (next.id().to_owned(), ring.keys().signer().id().to_owned());
        tracing::info!(%key, %previous, %until, "another key signs grant tokens");
        let record = Record::KeyRotated { key, previous, until };
        control.recorder.append(Entry { record, body: None }).await?;
        ring.rotate(next, until.as_second(), now.as_second())?;
    }
    let over = ring.over(now.as_second());
    if over.is_empty() {
        return Ok(());
    }
    for key in over {
        let record = Record::KeyRetired { key };
        control.recorder.append(Entry { record, body: None }).await?;
    }
    Ok(ring.forget(now.as_second())?)
}

/// The longest life of any token that is signed here.
fn longest(control: &Control) -> Duration {
    let api = API_TTL;
    control.settings.grant_ttl.min(control.settings.grant_max).max(api) + LEEWAY
}

/// `/.well-known/jwks.json`: the public halves of the keys that verify.
pub(super) async fn publish(State(control): State<Arc<Control>>) -> impl IntoResponse {
    ([(CACHE_CONTROL, KEPT)], Json(control.signer.ring().keys().jwks()))
}
