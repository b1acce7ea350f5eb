//! The built-in issuer: an OpenID provider for local users, for teams without one and for the
//! demo. It offers the device flow (RFC 8628) and nothing else that issues tokens.
//!
//! | file | owns |
//! |---|---|
//! | [`password`] | hashing and checking passwords |
//! | `codes` | device flows under way, in memory: a restart ends them, and users start again |
//! | `limits` | how often a password may be guessed |
//! | `page` | the page on which a user confirms |
//! | [`saml`] | logging in at the organisation's SAML identity provider instead |
//! | `token` | the token and revocation endpoints |
//!
//! It knows nothing of grants, and the rest of the server treats its tokens like any issuer's.

mod codes;
mod limits;
mod page;
pub mod password;
pub mod saml;
mod token;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use url::Url;

use crate::audit::Recorder;
use crate::identity::fetch::{self, FetchError};
use crate::identity::key::SigningKey;
use crate::identity::oidc::{IssuerSettingsError, LoginKind};
use crate::identity::{IssuerSettings, IssuerVerifier};
use crate::mask::Masker;
use crate::store::Store;
use crate::types::{Clock, Identity, RandomError, Secret, random};
use codes::Codes;
use limits::Limits;
use password::PasswordHash;
use saml::{SamlParts, SamlSettingsError, ServiceProvider};

/// Forms are small.
const MAX_FORM: usize = 16 * 1024;

/// Passwords that are checked at the same time; each takes a core for a while.
const PARALLEL_CHECKS: usize = 2;

/// Seconds that an identity token lives.
const ID_TOKEN_LIFE: i64 = 600;

/// The built-in issuer's settings.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalIssuerSettings {
    /// Who can log in with a password.
    pub users: Vec<LocalUser>,
    /// The one client: the command line.
    #[serde(default = "default_client_id")]
    pub client_id: String,
    /// Seconds between two polls of a waiting command line.
    #[serde(default = "default_interval")]
    pub poll_interval: i64,
    /// Seconds that a device code is good for.
    #[serde(default = "default_code_life")]
    pub code_lifetime: i64,
    /// Seconds after which a login ends, however often it was refreshed.
    #[serde(default = "default_login_life")]
    pub login_lifetime: i64,
}

impl Default for LocalIssuerSettings {
    fn default() -> Self {
        Self {
            users: Vec::new(),
            client_id: default_client_id(),
            poll_interval: default_interval(),
            code_lifetime: default_code_life(),
            login_lifetime: default_login_life(),
        }
    }
}

/// A local user.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalUser {
    /// The name to log in with; also the token's `sub`.
    pub name: String,
    /// An address for people to read.
    #[serde(default)]
    pub email: Option<String>,
    /// The user's groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What [`password::hash`] made of the password.
    pub password_hash: Secret,
}

fn default_client_id() -> String {
    "mcpx-cli".to_owned()
}

fn default_interval() -> i64 {
    5
}

fn default_code_life() -> i64 {
    600
}

fn default_login_life() -> i64 {
    30 * 24 * 60 * 60
}

/// The built-in issuer cannot run like this.
#[derive(Debug, thiserror::Error)]
pub enum LocalIssuerError {
    /// The address is not safe.
    #[error("the built-in issuer's address cannot be used")]
    Url(#[source] FetchError),
    /// A setting is out of range.
    #[error("the built-in issuer's {0} is out of range")]
    Range(&'static str),
    /// A user cannot log in like this.
    #[error("local user {name:?}: {why}")]
    User {
        /// The user's name.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// SAML cannot be offered.
    #[error("logging in over SAML cannot be offered")]
    Saml(#[from] SamlSettingsError),
}

/// The built-in issuer. Cheap to clone.
#[derive(Clone)]
pub struct LocalIssuer {
    shared: Arc<Shared>,
}

struct Shared {
    /// The issuer's URL without a trailing slash: what stands in `iss`.
    base: String,
    url: Url,
    settings: LocalIssuerSettings,
    users: Vec<User>,
    /// Checked in place of a hash when no such user exists.
    nobody: PasswordHash,
    key: SigningKey,
    store: Store,
    clock: Arc<dyn Clock>,
    codes: Codes,
    limits: Limits,
    saml: Option<SamlLogin>,
    checks: Arc<Semaphore>,
    /// Binds a form to its cookie; new at every start.
    form_key: aws_lc_rs::hmac::Key,
}

/// The service provider, and what it writes its refusals to.
struct SamlLogin {
    provider: Arc<ServiceProvider>,
    recorder: Recorder,
    masker: Arc<Masker>,
}

struct User {
    identity: Identity,
    password: PasswordHash,
    /// SHA-256 of the password hash: a login ends when it changes.
    credential: Vec<u8>,
}

impl LocalIssuer {
    /// An issuer that is reached at `base_url`, such as `https://mcpx.example/issuer`; the caller
    /// serves [`Self::router`] there.
    ///
    /// # Errors
    /// [`LocalIssuerError`] naming the setting or user at fault.
    pub fn new(
        settings: LocalIssuerSettings,
        base_url: &str,
        key: SigningKey,
        store: Store,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LocalIssuerError> {
        Self::with_saml(settings, None, base_url, key, store, clock)
    }

    /// As [`Self::new`], with people who log in over SAML, too.
    ///
    /// # Errors
    /// [`LocalIssuerError`] naming the setting or user at fault.
    pub fn with_saml(
        settings: LocalIssuerSettings,
        saml: Option<SamlParts>,
        base_url: &str,
        key: SigningKey,
        store: Store,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LocalIssuerError> {
        let base = base_url.trim_end_matches('/').to_owned();
        let url = fetch::safe_url(&base).map_err(LocalIssuerError::Url)?;
        let ranges = [
            ("poll_interval", (1..=60).contains(&settings.poll_interval)),
            ("code_lifetime", (30..=3600).contains(&settings.code_lifetime)),
            ("login_lifetime", (600..=366 * 86_400).contains(&settings.login_lifetime)),
            ("client_id", !settings.client_id.is_empty()),
        ];
        if let Some((what, _)) = ranges.into_iter().find(|(_, good)| !good) {
            return Err(LocalIssuerError::Range(what));
        }
        let users = read_users(&settings.users, &base)?;
        let iterations = users.iter().map(|user| user.password.iterations()).max();
        let form_key: [u8; 32] = random()?;
        let saml = saml.map(|parts| -> Result<SamlLogin, LocalIssuerError> {
            let provider = Arc::new(ServiceProvider::new(parts.settings, &base)?);
            Ok(SamlLogin { provider, recorder: parts.recorder, masker: parts.masker })
        });
        let saml = saml.transpose()?;
        let shared = Shared {
            nobody: PasswordHash::of_nobody(iterations)?,
            form_key: aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &form_key),
            base,
            url,
            settings,
            users,
            key,
            store,
            clock,
            codes: Codes::default(),
            limits: Limits::default(),
            saml,
            checks: Arc::new(Semaphore::new(PARALLEL_CHECKS)),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The issuer's routes, relative to its base URL: nest them there.
    pub fn router(&self) -> Router {
        let routes = if self.shared.saml.is_some() { saml::pages::routes() } else { Router::new() };
        routes
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(jwks))
            .route("/device_authorization", post(token::device_authorization))
            .route("/token", post(token::token))
            .route("/revoke", post(token::revoke))
            .route("/device", get(page::show).post(page::submit))
            .layer(DefaultBodyLimit::max(MAX_FORM))
            .with_state(Arc::clone(&self.shared))
    }

    /// The issuer's URL, as in its tokens' `iss`.
    pub fn url(&self) -> &str {
        &self.shared.base
    }

    /// The public half of its key.
    pub fn jwk(&self) -> &Jwk {
        self.shared.key.jwk()
    }

    /// How to trust this issuer, under a name.
    pub fn issuer_settings(&self, name: &str) -> IssuerSettings {
        IssuerSettings {
            name: name.to_owned(),
            url: self.shared.base.clone(),
            client_id: self.shared.settings.client_id.clone(),
            audience: Vec::new(),
            scopes: ["openid", "email", "groups", "offline_access"].map(str::to_owned).to_vec(),
            groups_claim: "groups".to_owned(),
            group_lookup: None,
            // It shows a page for codes and has no authorization endpoint.
            logins: vec![LoginKind::Device],
            redirect_uri: "http://127.0.0.1/callback".to_owned(),
            resource: None,
            published_client_secret: None,
            algorithms: vec![jsonwebtoken::Algorithm::ES256],
            signs_for_jobs: false,
        }
    }

    /// A verifier that has this issuer's key already and fetches nothing.
    ///
    /// # Errors
    /// [`IssuerSettingsError`] when `name` is empty.
    pub fn verifier(&self, name: &str) -> Result<IssuerVerifier, IssuerSettingsError> {
        IssuerVerifier::with_keys(self.issuer_settings(name), [self.jwk()])
    }
}

impl Shared {
    fn now(&self) -> i64 {
        self.clock.now_seconds()
    }

    fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.identity.sub == name)
    }
}

fn read_users(users: &[LocalUser], base: &str) -> Result<Vec<User>, LocalIssuerError> {
    let mut read: Vec<User> = Vec::with_capacity(users.len());
    for user in users {
        let bad = |why| LocalIssuerError::User { name: user.name.clone(), why };
        let texts = [Some(&user.name), user.email.as_ref()].into_iter().flatten();
        if texts.chain(&user.groups).any(|t| t.trim().is_empty() || t.chars().any(char::is_control))
        {
            return Err(bad("name, email and groups must not be empty or hold control characters"));
        }
        if user.name.starts_with(saml::SUB_PREFIX) {
            return Err(bad("names that begin with `saml_` are for people who come over SAML"));
        }
        if read.iter().any(|other| other.identity.sub == user.name) {
            return Err(bad("the name is there twice"));
        }
        let encoded = user.password_hash.expose();
        let password: PasswordHash = encoded.parse().map_err(|_| {
            bad("the password_hash is not pbkdf2-sha256$iterations$salt$hash as mcpx makes it")
        })?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, encoded.as_bytes());
        read.push(User {
            identity: Identity {
                issuer: base.to_owned(),
                sub: user.name.clone(),
                email: user.email.clone(),
                groups: user.groups.clone(),
            },
            password,
            credential: digest.as_ref().to_vec(),
        });
    }
    Ok(read)
}

async fn discovery(State(issuer): State<Arc<Shared>>) -> Response {
    let base = &issuer.base;
    Json(json!({
        "issuer": base,
        // OpenID Connect Discovery requires one; there is no redirect flow behind it.
        "authorization_endpoint": format!("{base}/device"),
        "device_authorization_endpoint": format!("{base}/device_authorization"),
        "token_endpoint": format!("{base}/token"),
        "revocation_endpoint": format!("{base}/revoke"),
        "jwks_uri": format!("{base}/jwks"),
        "scopes_supported": token::SCOPES,
        "response_types_supported": ["code"],
        "grant_types_supported": [token::DEVICE_CODE, "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "auth_time", "email", "groups"],
    }))
    .into_response()
}

async fn jwks(State(issuer): State<Arc<Shared>>) -> Response {
    Json(json!({ "keys": [issuer.key.jwk()] })).into_response()
}
