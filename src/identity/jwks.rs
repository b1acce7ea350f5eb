//! An issuer's published keys (RFC 7517), cached.
//!
//! Keys are fetched when the first token comes, again when a token names a key that is not held
//! (the issuer rotated), and in the background when they grow old (the issuer withdrew one). A
//! fetch happens at most once a minute however many tokens ask for it, one at a time; when it
//! fails, the keys that are held serve on for a day.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::error::TokenError;
use super::fetch::{self, FetchError};

/// Seconds between two fetches while keys are held.
const PAUSE: i64 = 60;
/// Seconds between two fetches while none ever came: the issuer may just be starting.
const FIRST_PAUSE: i64 = 5;
/// Keys older than this many seconds are fetched anew in the background.
const MAX_AGE: i64 = 15 * 60;
/// Keys older than this many seconds are trusted no longer, even if the issuer does not answer.
const MAX_STALE: i64 = 24 * 60 * 60;
/// More keys than any issuer publishes.
const MAX_KEYS: usize = 200;

/// The keys of one issuer. Cheap to clone.
#[derive(Clone)]
pub struct KeyCache {
    shared: Arc<Shared>,
}

struct Shared {
    /// `None` for keys that are given and never fetched.
    source: Option<Source>,
    held: ArcSwapOption<Held>,
    /// Locked while fetching.
    last: Mutex<Option<Attempt>>,
}

struct Source {
    issuer: String,
    http: reqwest::Client,
    place: KeyPlace,
}

/// Where an issuer's keys are found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeyPlace {
    /// Where its discovery document says.
    #[default]
    Discovery,
    /// At a URL that the configuration names.
    Url(String),
    /// In a file, for issuers that the server cannot reach.
    File(PathBuf),
}

struct Held {
    keys: Vec<Key>,
    fetched: i64,
}

struct Attempt {
    at: i64,
    outcome: Result<(), TokenError>,
    /// Whether there were no keys before it.
    was_first: bool,
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// The part of a discovery document that is needed here.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Keys of kinds that are unknown here must not spoil the others: each is read by itself.
#[derive(Deserialize)]
struct Published {
    keys: Vec<serde_json::Value>,
}

impl KeyCache {
    /// Keys fetched from an issuer, by way of its discovery document.
    pub fn fetched(issuer: &str, http: reqwest::Client) -> Self {
        Self::found(issuer, KeyPlace::Discovery, http)
    }

    /// Keys fetched from wherever the configuration says.
    pub fn found(issuer: &str, place: KeyPlace, http: reqwest::Client) -> Self {
        Self::new(Some(Source { issuer: issuer.to_owned(), http, place }))
    }

    /// Keys that are known from the start, as those of the built-in issuer are.
    pub fn fixed<'a>(keys: impl IntoIterator<Item = &'a Jwk>) -> Self {
        let cache = Self::new(None);
        let keys = keys.into_iter().filter_map(Key::from_jwk).collect();
        cache.shared.held.store(Some(Arc::new(Held { keys, fetched: 0 })));
        cache
    }

    fn new(source: Option<Source>) -> Self {
        let shared =
            Shared { source, held: ArcSwapOption::const_empty(), last: Mutex::const_new(None) };
        Self { shared: Arc::new(shared) }
    }

    /// The key that a token's header names.
    ///
    /// # Errors
    /// [`TokenError::UnknownKey`] when the issuer publishes none that fits, or why its keys could
    /// not be had.
    pub async fn key(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        now: i64,
    ) -> Result<DecodingKey, TokenError> {
        let unknown = || TokenError::UnknownKey(id.unwrap_or("without id").to_owned());
        let Some(source) = &self.shared.source else {
            let held = self.shared.held.load_full();
            return held.and_then(|held| held.find(id, algorithm)).ok_or_else(unknown);
        };
        let held = self.shared.held.load_full().filter(|held| now - held.fetched < MAX_STALE);
        if let Some(key) = held.as_ref().and_then(|held| held.find(id, algorithm)) {
            if held.is_some_and(|held| now - held.fetched > MAX_AGE) {
                self.refresh_in_background(now);
            }
            return Ok(key);
        }
        self.shared.fetch(source, held.as_ref(), now).await?;
        let held = self.shared.held.load_full();
        held.and_then(|held| held.find(id, algorithm)).ok_or_else(unknown)
    }

    fn refresh_in_background(&self, now: i64) {
        // Locked means that a fetch is under way; a recent one is not repeated.
        match self.shared.last.try_lock() {
            Ok(last) if !last.as_ref().is_some_and(|attempt| attempt.is_recent(now, PAUSE)) => {}
            _ => return,
        }
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if let Some(source) = &shared.source {
                let held = shared.held.load_full();
                if let Err(error) = shared.fetch(source, held.as_ref(), now).await {
                    tracing::warn!(%error, "keeping the issuer's old keys");
                }
            }
        });
    }
}

impl Shared {
    /// Fetches the keys, unless somebody did since `seen` was read, or the last try is too recent.
    async fn fetch(
        &self,
        source: &Source,
        seen: Option<&Arc<Held>>,
        now: i64,
    ) -> Result<(), TokenError> {
        let mut last = self.last.lock().await;
        let current = self.held.load_full();
        let unchanged = match (&current, seen) {
            (Some(current), Some(seen)) => Arc::ptr_eq(current, seen),
            (None, None) => true,
            // Too old to be used is as good as none.
            (Some(current), None) => now - current.fetched >= MAX_STALE,
            (None, Some(_)) => false,
        };
        if !unchanged {
            return Ok(());
        }
        let pause = if current.is_some() { PAUSE } else { FIRST_PAUSE };
        if let Some(attempt) = last.as_ref()
            && attempt.is_recent(now, pause)
            // Keys may have changed right after they were first fetched: once, ask again.
            && !(attempt.was_first && attempt.outcome.is_ok())
        {
            return attempt.outcome.clone();
        }
        let was_first = current.is_none();
        let outcome = source.fetch().await.map(|keys| {
            self.held.store(Some(Arc::new(Held { keys, fetched: now })));
        });
        *last = Some(Attempt { at: now, outcome: outcome.clone(), was_first });
        outcome
    }
}

impl Attempt {
    /// A clock that was set back must not stop fetches until it has caught up: hence the distance.
    fn is_recent(&self, now: i64, pause: i64) -> bool {
        now.abs_diff(self.at) < pause.unsigned_abs()
    }
}

impl Source {
    async fn fetch(&self) -> Result<Vec<Key>, TokenError> {
        let published: Published = match &self.place {
            KeyPlace::Discovery => self.get(&self.discover().await?).await?,
            KeyPlace::Url(url) => self.get(url).await?,
            KeyPlace::File(path) => self.read(path)?,
        };
        let keys: Vec<Key> = published
            .keys
            .into_iter()
            .take(MAX_KEYS)
            .filter_map(|value| serde_json::from_value::<Jwk>(value).ok())
            .filter_map(|jwk| Key::from_jwk(&jwk))
            .collect();
        if keys.is_empty() {
            return Err(self.unusable("it publishes no key that can verify tokens".to_owned()));
        }
        Ok(keys)
    }

    async fn discover(&self) -> Result<String, TokenError> {
        let base = self.issuer.trim_end_matches('/');
        let url = format!("{base}/.well-known/openid-configuration");
        let document: Discovery = self.get(&url).await?;
        if document.issuer != self.issuer {
            return Err(self.unusable(format!("it calls itself {:?}", document.issuer)));
        }
        if self.issuer.starts_with("https:") && !document.jwks_uri.starts_with("https:") {
            return Err(self.unusable("its jwks_uri is not https".to_owned()));
        }
        Ok(document.jwks_uri)
    }

    fn read(&self, path: &Path) -> Result<Published, TokenError> {
        let unreadable = |why: String| TokenError::IssuerUnreachable {
            issuer: self.issuer.clone(),
            why: format!("its keys in {} cannot be read: {why}", path.display()),
        };
        let text = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| {
            self.unusable(format!("{} is not a JSON Web Key Set: {error}", path.display()))
        })
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T, TokenError> {
        fetch::get_json(&self.http, url).await.map_err(|error| match error {
            FetchError::Network(_) | FetchError::Status(_) => {
                TokenError::IssuerUnreachable { issuer: self.issuer.clone(), why: error.chain() }
            }
            other => self.unusable(other.chain()),
        })
    }

    fn unusable(&self, why: String) -> TokenError {
        TokenError::IssuerUnusable { issuer: self.issuer.clone(), why }
    }
}

impl Held {
    /// By id if the token names one. Without, only if there is no choice: trying every key would
    /// let the issuer's oldest key speak for its newest.
    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let mut fitting = self
            .keys
            .iter()
            .filter(|key| key.algorithms.contains(&algorithm))
            .filter(|key| id.is_none() || key.id.as_deref() == id);
        let first = fitting.next()?;
        if id.is_none() && fitting.next().is_some() {
            return None;
        }
        Some(first.key.clone())
    }
}

impl Key {
    /// `None` for keys that are not for verifying, or not of a kind that is accepted at all.
    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        if let Some(operations) = &common.key_operations
            && !operations.contains(&KeyOperations::Verify)
        {
            return None;
        }
        let kind: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => &[Algorithm::ES256],
                EllipticCurve::P384 => &[Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::RSA(_) => &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            AlgorithmParameters::OctetKeyPair(pair) => match pair.curve {
                EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
                _ => return None,
            },
            // A symmetric key in a public document is no secret, and so proves nothing.
            _ => return None,
        };
        let algorithms = match common.key_algorithm {
            None => kind.to_vec(),
            Some(named) => {
                let named = Algorithm::try_from(named).ok()?;
                kind.iter().copied().filter(|algorithm| *algorithm == named).collect()
            }
        };
        let key = DecodingKey::from_jwk(jwk).ok()?;
        (!algorithms.is_empty()).then(|| Self { id: common.key_id.clone(), algorithms, key })
    }
}
