//! Groups that do not fit into a token: Entra ID leaves them out beyond 200 and says so in
//! `_claim_names` (OpenID Connect Core 1.0, section 5.6.2) or `hasgroups`. With a credential of its
//! own the server asks Microsoft Graph for them, at each verification, so that they are as fresh as a
//! token's.
//!
//! The address that the token names is never used: what is asked, and with which credential, the
//! configuration says.

use std::path::PathBuf;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use url::Url;

use super::find_claim;
use super::settings::IssuerSettingsError;
use crate::identity::fetch::{self, FetchError};
use crate::types::Secret;

/// A token of ours is renewed when less than this is left of it, in seconds.
const MARGIN: i64 = 60;

/// Where and how groups are looked up.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupLookupSettings {
    /// Microsoft Graph, with its version.
    #[serde(default = "default_endpoint")]
    pub endpoint: String,
    /// The tenant's token endpoint.
    pub token_endpoint: String,
    /// The application that may read memberships.
    pub client_id: String,
    /// The file with its secret, read when a token is needed.
    pub client_secret_file: PathBuf,
    /// Whether only security groups are asked for, as Entra's `groupMembershipClaims` has it.
    #[serde(default = "default_security_groups")]
    pub security_groups: bool,
}

fn default_endpoint() -> String {
    "https://graph.microsoft.com/v1.0".to_owned()
}

fn default_security_groups() -> bool {
    true
}

/// Asks Graph, with a token of the server's own.
pub(super) struct GroupLookup {
    settings: GroupLookupSettings,
    users: Url,
    token: Url,
    scope: String,
    http: reqwest::Client,
    /// Locked while a token is asked for, so that many logins ask once.
    held: Mutex<Option<Held>>,
}

#[derive(Clone)]
struct Held {
    token: Secret,
    expires: i64,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Secret,
    #[serde(default)]
    expires_in: i64,
}

#[derive(Deserialize)]
struct Memberships {
    value: Vec<String>,
}

/// Whether a token's issuer says that it left the groups out.
pub(super) fn left_out(claims: &Map<String, Value>, groups_claim: &str) -> bool {
    if find_claim(claims, groups_claim).is_some_and(|value| !value.is_null()) {
        return false;
    }
    let distributed = claims.get("_claim_names").and_then(|names| names.get(groups_claim));
    let has_groups = match claims.get("hasgroups") {
        Some(Value::Bool(has)) => *has,
        Some(Value::String(has)) => has.eq_ignore_ascii_case("true"),
        _ => false,
    };
    distributed.is_some() || (has_groups && groups_claim == "groups")
}

impl GroupLookup {
    pub(super) fn new(
        name: &str,
        settings: &GroupLookupSettings,
    ) -> Result<Self, IssuerSettingsError> {
        let wrong = |key| {
            move |source| IssuerSettingsError::GroupLookup { name: name.to_owned(), key, source }
        };
        let base = settings.endpoint.trim_end_matches('/');
        let users = fetch::safe_url(&format!("{base}/users")).map_err(wrong("endpoint"))?;
        let token = fetch::safe_url(&settings.token_endpoint).map_err(wrong("token_endpoint"))?;
        let http = fetch::client_for(&users).map_err(wrong("endpoint"))?;
        let scope = format!("{}/.default", users.origin().ascii_serialization());
        Ok(Self { settings: settings.clone(), users, token, scope, http, held: Mutex::default() })
    }

    /// The groups of the user that the claims are about; or why they cannot be had.
    pub(super) async fn groups(
        &self,
        claims: &Map<String, Value>,
        now: i64,
    ) -> Result<Vec<String>, String> {
        let user = claims.get("oid").and_then(Value::as_str).filter(|id| {
            !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
        let user = user.ok_or("the token has no oid to ask for")?;
        let mut url = self.users.clone();
        url.path_segments_mut()
            .map_err(|()| "the endpoint has no path")?
            .extend([user, "getMemberGroups"]);
        let token = self.token(now, None).await?;
        let answer = match self.ask(&url, &token).await {
            // Revoked before its time, as after a change of the application's permissions.
            Err(FetchError::Status(401)) => {
                let fresh = self.token(now, Some(&token)).await?;
                self.ask(&url, &fresh).await
            }
            answer => answer,
        };
        answer.map_err(|error| format!("{}: {}", self.users, error.chain()))
    }

    async fn ask(&self, url: &Url, token: &Secret) -> Result<Vec<String>, FetchError> {
        let request = self.http.post(url.clone()).bearer_auth(token.expose());
        let request =
            request.json(&json!({ "securityEnabledOnly": self.settings.security_groups }));
        let memberships: Memberships = read(request).await?;
        Ok(memberships.value)
    }

    /// A token with time left, and another than `refused`.
    async fn token(&self, now: i64, refused: Option<&Secret>) -> Result<Secret, String> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref()
            && held.expires - now > MARGIN
            && !refused.is_some_and(|refused| held.token.matches(refused.expose()))
        {
            return Ok(held.token.clone());
        }
        let path = &self.settings.client_secret_file;
        let secret = tokio::fs::read_to_string(path).await;
        let secret = secret.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let secret = Secret::new(secret.trim_end_matches(['\n', '\r']));
        if secret.expose().is_empty() {
            return Err(format!("{} is empty", path.display()));
        }
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &self.settings.client_id),
            ("client_secret", secret.expose()),
            ("scope", &self.scope),
        ];
        let answer: Result<TokenAnswer, _> =
            read(self.http.post(self.token.clone()).form(&form)).await;
        let answer = answer.map_err(|error| format!("{}: {}", self.token, error.chain()))?;
        let token = answer.access_token;
        *held = Some(Held { token: token.clone(), expires: now.saturating_add(answer.expires_in) });
        Ok(token)
    }
}

async fn read<T: serde::de::DeserializeOwned>(
    request: reqwest::RequestBuilder,
) -> Result<T, FetchError> {
    let request = request.header(reqwest::header::ACCEPT, "application/json");
    let response = request.send().await.map_err(FetchError::Network)?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    serde_json::from_slice(&fetch::read_body(response).await?).map_err(FetchError::Json)
}
