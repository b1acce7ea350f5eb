//! The endpoints that the command line talks to: device authorization (RFC 8628), token (RFC 6749)
//! and revocation (RFC 7009).

use std::sync::Arc;

use aws_lc_rs::digest;
use axum::Json;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use jsonwebtoken::{Algorithm, Header};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::codes::{Poll, Who};
use super::saml::SUB_PREFIX;
use super::{ID_TOKEN_LIFE, Shared};
use crate::store::issuer::{Family, Rotation, TokenHash};
use crate::types::{Identity, Secret};

/// The grant type of RFC 8628.
pub(super) const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The scopes that mean something here; others are ignored.
pub(super) const SCOPES: [&str; 5] = ["openid", "profile", "email", "groups", "offline_access"];

/// Expired logins stay this many seconds, so that their late replays are still recognised.
const PURGE_AFTER: i64 = 24 * 60 * 60;

#[derive(Deserialize)]
pub(super) struct DeviceForm {
    client_id: Option<String>,
    scope: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct TokenForm {
    grant_type: Option<String>,
    client_id: Option<String>,
    device_code: Option<Secret>,
    refresh_token: Option<Secret>,
}

#[derive(Deserialize)]
pub(super) struct RevokeForm {
    client_id: Option<String>,
    token: Option<Secret>,
}

pub(super) async fn device_authorization(
    State(issuer): State<Arc<Shared>>,
    form: Result<Form<DeviceForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return refuse(Refusal::InvalidRequest);
    };
    if form.client_id.as_deref() != Some(issuer.settings.client_id.as_str()) {
        return refuse(Refusal::InvalidClient);
    }
    let asked = form.scope.unwrap_or_default();
    let scope: Vec<&str> =
        SCOPES.into_iter().filter(|scope| asked.split(' ').any(|a| a == *scope)).collect();
    let settings = &issuer.settings;
    let (interval, life) = (settings.poll_interval, settings.code_lifetime);
    match issuer.codes.begin(scope.join(" "), interval, life, issuer.now()) {
        Ok(Some(begun)) => {
            let code = begun.user_code.shown();
            let page = format!("{}/device", issuer.base);
            answer(
                StatusCode::OK,
                &json!({
                    "device_code": begun.device_code.expose(),
                    "user_code": code,
                    "verification_uri": page,
                    "verification_uri_complete": format!("{page}?user_code={code}"),
                    "expires_in": life,
                    "interval": interval,
                }),
            )
        }
        Ok(None) | Err(_) => refuse(Refusal::Unavailable),
    }
}

pub(super) async fn token(
    State(issuer): State<Arc<Shared>>,
    form: Result<Form<TokenForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return refuse(Refusal::InvalidRequest);
    };
    if form.client_id.as_deref() != Some(issuer.settings.client_id.as_str()) {
        return refuse(Refusal::InvalidClient);
    }
    let result = match (form.grant_type.as_deref(), form.device_code, form.refresh_token) {
        (Some(DEVICE_CODE), Some(code), None) => issuer.redeem(&code).await,
        (Some("refresh_token"), None, Some(token)) => issuer.refresh(&token).await,
        (Some(DEVICE_CODE | "refresh_token") | None, _, _) => Err(Refusal::InvalidRequest),
        (Some(_), _, _) => Err(Refusal::UnsupportedGrantType),
    };
    match result {
        Ok(tokens) => answer(StatusCode::OK, &tokens),
        Err(refusal) => refuse(refusal),
    }
}

pub(super) async fn revoke(
    State(issuer): State<Arc<Shared>>,
    form: Result<Form<RevokeForm>, FormRejection>,
) -> Response {
    let Ok(Form(RevokeForm { client_id: Some(client_id), token: Some(token) })) = form else {
        return refuse(Refusal::InvalidRequest);
    };
    let hash = hash(&token);
    match issuer.store.issuer_revoke_token(&client_id, &hash, issuer.now()).await {
        Ok(()) => answer(StatusCode::OK, &json!({})),
        Err(error) => {
            tracing::error!(%error, "cannot revoke a login");
            refuse(Refusal::Unavailable)
        }
    }
}

#[derive(Serialize)]
struct Tokens {
    /// OAuth requires one. It opens nothing: this issuer has no resource of its own.
    access_token: String,
    token_type: &'static str,
    expires_in: i64,
    id_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    scope: String,
}

#[derive(Serialize)]
struct IdToken<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: i64,
    iat: i64,
    auth_time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    groups: &'a [String],
}

impl Shared {
    async fn redeem(&self, device_code: &Secret) -> Result<Tokens, Refusal> {
        let now = self.now();
        let (who, scope, auth_time) = match self.codes.poll(device_code.expose(), now) {
            Poll::Waiting => return Err(Refusal::AuthorizationPending),
            Poll::TooFast => return Err(Refusal::SlowDown),
            Poll::Denied => return Err(Refusal::AccessDenied),
            Poll::Gone => return Err(Refusal::ExpiredToken),
            Poll::Approved { who, scope, at } => (who, scope, at),
        };
        let longest = now + self.settings.login_lifetime;
        let (identity, credential, until) = match &who {
            Who::Local(name) => {
                let user = self.user(name).ok_or(Refusal::InvalidGrant)?;
                (user.identity.clone(), user.credential.clone(), longest)
            }
            Who::Saml(person) => {
                let saml = self.saml.as_ref().ok_or(Refusal::InvalidGrant)?;
                let identity = person.identity(&self.base);
                (identity, saml.provider.credential(), longest.min(person.until))
            }
        };
        if until <= now {
            return Err(Refusal::InvalidGrant);
        }
        let refresh_token = if scope.split(' ').any(|scope| scope == "offline_access") {
            let token = Secret::generate().map_err(|_| Refusal::Unavailable)?;
            let family = Family {
                id: new_family_id()?,
                user_name: identity.sub.clone(),
                client_id: self.settings.client_id.clone(),
                scope: scope.clone(),
                credential,
                auth_time,
                expires: until,
            };
            self.store.issuer_add_family(&family, &hash(&token)).await.map_err(unavailable)?;
            if matches!(who, Who::Saml(_)) {
                self.store.saml_add_login(&family.id, &identity).await.map_err(unavailable)?;
            }
            // Each login pays for the removal of old ones.
            self.store.issuer_purge(now - PURGE_AFTER).await.map_err(unavailable)?;
            Some(token)
        } else {
            None
        };
        self.tokens(&identity, refresh_token, scope, (auth_time, now, until))
    }

    async fn refresh(&self, token: &Secret) -> Result<Tokens, Refusal> {
        let now = self.now();
        let next = Secret::generate().map_err(|_| Refusal::Unavailable)?;
        let client_id = &self.settings.client_id;
        let rotation = self.store.issuer_rotate(client_id, &hash(token), &hash(&next), now).await;
        let family = match rotation.map_err(unavailable)? {
            Rotation::Rotated(family) => family,
            Rotation::Refused => return Err(Refusal::InvalidGrant),
            Rotation::Reused(family) => {
                tracing::warn!(
                    user = family.user_name,
                    "a refresh token was used twice: its login is revoked"
                );
                return Err(Refusal::InvalidGrant);
            }
        };
        let Some(identity) = self.identity_of(&family).await? else {
            // The user is gone or has another password, or the identity provider is another.
            self.store.issuer_revoke_family(&family.id, now).await.map_err(unavailable)?;
            return Err(Refusal::InvalidGrant);
        };
        let times = (family.auth_time, now, family.expires);
        self.tokens(&identity, Some(next), family.scope, times)
    }

    /// Whose login it is, if it still holds.
    async fn identity_of(&self, family: &Family) -> Result<Option<Identity>, Refusal> {
        if !family.user_name.starts_with(SUB_PREFIX) {
            let user = self.user(&family.user_name);
            let user = user.filter(|user| user.credential == family.credential);
            return Ok(user.map(|user| user.identity.clone()));
        }
        let saml = self.saml.as_ref();
        if saml.is_none_or(|saml| saml.provider.credential() != family.credential) {
            return Ok(None);
        }
        let kept = self.store.saml_login(&family.id).await.map_err(unavailable)?;
        // The server may have got another address since.
        Ok(kept.map(|kept| Identity { issuer: self.base.clone(), ..kept }))
    }

    fn tokens(
        &self,
        identity: &Identity,
        refresh_token: Option<Secret>,
        scope: String,
        (auth_time, now, until): (i64, i64, i64),
    ) -> Result<Tokens, Refusal> {
        let life = ID_TOKEN_LIFE.min(until - now);
        let claims = IdToken {
            iss: &self.base,
            sub: &identity.sub,
            aud: &self.settings.client_id,
            exp: now + life,
            iat: now,
            auth_time,
            email: identity.email.as_deref(),
            groups: &identity.groups,
        };
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key.id().to_owned());
        let id_token = self.key.sign(&header, &claims).map_err(|error| {
            tracing::error!(%error, "cannot sign an identity token");
            Refusal::Unavailable
        })?;
        let access_token = Secret::generate().map_err(|_| Refusal::Unavailable)?;
        Ok(Tokens {
            access_token: access_token.expose().to_owned(),
            token_type: "Bearer",
            expires_in: life,
            id_token,
            refresh_token: refresh_token.map(|token| token.expose().to_owned()),
            scope,
        })
    }
}

/// Everything that these endpoints refuse with, by OAuth's names.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    UnsupportedGrantType,
    AuthorizationPending,
    SlowDown,
    AccessDenied,
    ExpiredToken,
    Unavailable,
}

fn refuse(refusal: Refusal) -> Response {
    use StatusCode as S;
    let (status, error, description) = match refusal {
        Refusal::InvalidRequest => {
            (S::BAD_REQUEST, "invalid_request", "a parameter is missing, doubled or malformed")
        }
        Refusal::InvalidClient => (S::UNAUTHORIZED, "invalid_client", "no such client"),
        Refusal::InvalidGrant => {
            (S::BAD_REQUEST, "invalid_grant", "this login has ended; log in again")
        }
        Refusal::UnsupportedGrantType => {
            (S::BAD_REQUEST, "unsupported_grant_type", "only the device flow and refresh")
        }
        Refusal::AuthorizationPending => {
            (S::BAD_REQUEST, "authorization_pending", "the user has not confirmed yet")
        }
        Refusal::SlowDown => (S::BAD_REQUEST, "slow_down", "poll less often"),
        Refusal::AccessDenied => (S::BAD_REQUEST, "access_denied", "the login was denied"),
        Refusal::ExpiredToken => {
            (S::BAD_REQUEST, "expired_token", "the code expired or was used already")
        }
        Refusal::Unavailable => {
            (S::SERVICE_UNAVAILABLE, "temporarily_unavailable", "try again in a moment")
        }
    };
    answer(status, &json!({ "error": error, "error_description": description }))
}

fn answer<T: Serialize>(status: StatusCode, body: &T) -> Response {
    const NO_STORE: [(HeaderName, HeaderValue); 2] = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::PRAGMA, HeaderValue::from_static("no-cache")),
    ];
    (status, NO_STORE, Json(body)).into_response()
}

fn unavailable(error: crate::store::StoreError) -> Refusal {
    tracing::error!(%error, "the built-in issuer cannot use its database");
    Refusal::Unavailable
}

fn new_family_id() -> Result<String, Refusal> {
    let id = Secret::generate().map_err(|_| Refusal::Unavailable)?;
    Ok(id.expose().to_owned())
}

fn hash(token: &Secret) -> TokenHash {
    let mut hash = TokenHash::default();
    let digest = digest::digest(&digest::SHA256, token.expose().as_bytes());
    hash.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    hash
}
