//! The last good discovery document and keys of an issuer, kept in the home for when it does not
//! answer. Nothing in the file is secret; whoever could change it could change the login, too.

use serde::{Deserialize, Serialize};

use super::wire::Metadata;
use crate::broker::home::{Home, HomeError};
use crate::identity::private_file;

const FILE: &str = "issuer.json";
const VERSION: u32 = 1;

/// What is older than this many seconds is used no longer: the server stops believing the issuer's
/// keys after the same time.
const MAX_AGE: i64 = 24 * 60 * 60;

/// `issuer.json`.
#[derive(Serialize, Deserialize)]
pub(super) struct Known<M, K> {
    version: u32,
    issuer: String,
    fetched: i64,
    metadata: M,
    keys: K,
}

type Keys = openidconnect::core::CoreJsonWebKeySet;

impl Known<Metadata, Keys> {
    /// Keeps what was found, unless the same is kept already. That it cannot be kept is no reason to
    /// fail: it is only ever a help.
    pub(super) fn keep(home: &Home, issuer: &str, metadata: &Metadata, now: i64) {
        let same = |known: &Self| {
            known.fits(issuer, now, MAX_AGE / 4)
                && known.metadata.clone().set_jwks(known.keys.clone()) == *metadata
        };
        if home.read_json::<Self>(FILE).ok().flatten().as_ref().is_some_and(same) {
            return;
        }
        let known = Known {
            version: VERSION,
            issuer: issuer.to_owned(),
            fetched: now,
            metadata,
            keys: metadata.jwks(),
        };
        if let Err(error) = home.write_json(FILE, &known) {
            tracing::debug!(%error, "the issuer's metadata is not kept");
        }
    }

    /// Forgets what is kept, with the login that it was for.
    pub(super) fn forget(home: &Home) -> Result<(), HomeError> {
        private_file::sweep(&home.file(FILE))?;
        Ok(private_file::remove(&home.file(FILE))?)
    }

    /// What was found of this issuer not too long ago.
    pub(super) fn recall(home: &Home, issuer: &str, now: i64) -> Option<Metadata> {
        let known = match home.read_json::<Self>(FILE) {
            Ok(known) => known?,
            Err(error) => {
                tracing::warn!(%error, "the issuer's metadata that was kept cannot be used");
                return None;
            }
        };
        if !known.fits(issuer, now, MAX_AGE) {
            return None;
        }
        let fetched = known.fetched;
        tracing::warn!(fetched, "the issuer does not answer: its metadata of then is used");
        Some(known.metadata.set_jwks(known.keys))
    }

    fn fits(&self, issuer: &str, now: i64, age: i64) -> bool {
        self.version == VERSION
            && self.issuer == issuer
            && self.metadata.issuer().as_str() == issuer
            && now.abs_diff(self.fetched) < age.unsigned_abs()
    }
}
