//! Asking an OAuth authorization server for an access token, in the gateway's own name.
//!
//! One form, three grants: client credentials (RFC 6749, 4.4), token exchange (RFC 8693) and an
//! assertion as a grant (RFC 7523, 2.1, which is how ID-JAGs are redeemed). The crate `oauth2`
//! builds requests of the first only, so the form is made here; what comes back is read with that
//! crate's types. An answer must be a bearer token that can stand in a header; of a refusal only
//! the error codes that the RFCs define are told, and nothing of the server's own words.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use openidconnect::core::CoreTokenType;
use openidconnect::{EmptyExtraTokenFields, OAuth2TokenResponse as _, StandardTokenResponse};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::secret::kept::{Kept, Life};
use super::secret::{SecretError, SecretSource, Why, ask};
use crate::types::Secret;

type Answer = StandardTokenResponse<EmptyExtraTokenFields, CoreTokenType>;

/// For how long a token is used whose server does not say.
const UNSAID: Duration = Duration::from_secs(300);
/// How long before its end a token is used no more, so that it does not end on its way.
const MARGIN: Duration = Duration::from_secs(10);
/// How long before that it is fetched anew.
const AHEAD: Duration = Duration::from_secs(60);
/// No token is kept for longer, whatever its server says.
const MOST: Duration = Duration::from_secs(24 * 3600);

/// Error codes of RFC 6749, 8693 and 8707.
const CODES: [&str; 7] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
];

/// How the gateway says who it is.
#[derive(Debug)]
pub enum ClientAuth {
    /// Id and secret in the header `Authorization`.
    Basic(Arc<Kept<SecretSource>>),
    /// Id and secret in the form.
    Post(Arc<Kept<SecretSource>>),
    /// Not at all: a public client.
    Public,
    /// A JWT of the platform in place of a secret (RFC 7523, 2.2): a projected service account
    /// token, for instance. Read at each use.
    Assertion(SecretSource),
}

/// No token could be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenError {
    /// The client's own secret cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The authorization server does not answer, or not so that it could be used.
    #[error("the authorization server {0}")]
    Unavailable(String),
    /// It says no.
    #[error("the authorization server refuses with {code} (HTTP {status})")]
    Refused {
        /// OAuth's code for it, or our word for another one.
        code: &'static str,
        /// The status.
        status: u16,
    },
    /// The subject has to be asked first, or again.
    #[error("you have not agreed to it, or not any more")]
    NoConsent,
    /// Nobody here can vouch for the subject.
    #[error("no assertion about the user can be made: {0}")]
    NoAssertion(String),
}

/// What an authorization server gave.
pub struct Given {
    /// The access token.
    pub token: Secret,
    /// What further ones are got with.
    pub refresh: Option<Secret>,
    /// How long it may be used.
    pub life: Life,
}

/// Where tokens are asked for, and as whom.
pub struct TokenEndpoint {
    url: Url,
    client_id: String,
    auth: ClientAuth,
    http: reqwest::Client,
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpoint")
            .field("url", &self.url.as_str())
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

impl TokenEndpoint {
    /// An endpoint. `http` must follow no redirects.
    pub fn new(url: Url, client_id: String, auth: ClientAuth, http: reqwest::Client) -> Self {
        Self { url, client_id, auth, http }
    }

    /// As whom tokens are asked for.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// A token for a grant and its parameters, without what else comes with it.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn ask(&self, grant: &[(&str, &str)]) -> Result<(Secret, Life), TokenError> {
        let given = self.ask_for(grant).await?;
        Ok((given.token, given.life))
    }

    /// A token for a grant and its parameters. A client secret that is refused is fetched anew,
    /// once.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn ask_for(&self, grant: &[(&str, &str)]) -> Result<Given, TokenError> {
        let kept = match &self.auth {
            ClientAuth::Basic(kept) | ClientAuth::Post(kept) => kept,
            ClientAuth::Assertion(source) => {
                return self.ask_with(&source.fetch().await?, grant).await;
            }
            ClientAuth::Public => return self.ask_with(&Secret::new(""), grant).await,
        };
        let secret = kept.get().await?;
        let answer = self.ask_with(&secret, grant).await;
        if let Err(TokenError::Refused { code: "invalid_client", .. }) = &answer
            && kept.renew(&secret).await
        {
            return self.ask_with(&kept.get().await?, grant).await;
        }
        answer
    }

    async fn ask_with(&self, secret: &Secret, grant: &[(&str, &str)]) -> Result<Given, TokenError> {
        let mut form = grant.to_vec();
        let mut request = self.http.post(self.url.clone());
        match self.auth {
            ClientAuth::Basic(_) => {
                // Both are form-encoded before they become a header (RFC 6749, 2.3.1).
                let encoded = |text: &str| {
                    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>()
                };
                let password = Secret::new(encoded(secret.expose()));
                request = request.basic_auth(encoded(&self.client_id), Some(password.expose()));
            }
            ClientAuth::Post(_) => {
                form.push(("client_id", &self.client_id));
                form.push(("client_secret", secret.expose()));
            }
            ClientAuth::Public => form.push(("client_id", &self.client_id)),
            ClientAuth::Assertion(_) => {
                form.push(("client_id", &self.client_id));
                form.push((
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                ));
                form.push(("client_assertion", secret.expose()));
            }
        }
        let request = request.header(reqwest::header::ACCEPT, "application/json").form(&form);
        let (status, body) = ask::send(request).await.map_err(|why| match why {
            Why::Unavailable(why) => TokenError::Unavailable(format!("does not answer ({why})")),
            other => TokenError::Unavailable(other.to_string()),
        })?;
        if status != StatusCode::OK {
            return Err(refused(status, &body));
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| TokenError::Unavailable("answers with what is no token".to_owned()))?;
        if *answer.token_type() != CoreTokenType::Bearer {
            let why = "answers with a token that is no bearer token".to_owned();
            return Err(TokenError::Unavailable(why));
        }
        let token = Secret::new(answer.access_token().secret().clone());
        if token.expose().is_empty() || !token.expose().bytes().all(|b| b.is_ascii_graphic()) {
            let why = "answers with a token that cannot stand in a header".to_owned();
            return Err(TokenError::Unavailable(why));
        }
        let refresh = answer.refresh_token().map(|refresh| Secret::new(refresh.secret().clone()));
        Ok(Given { token, refresh, life: life(answer.expires_in()) })
    }
}

/// How long a token may be used.
pub(super) fn life(said: Option<Duration>) -> Life {
    let whole = said.unwrap_or(UNSAID).min(MOST);
    // Of a token that lives for seconds, half.
    let hard = whole.saturating_sub(MARGIN).max(whole / 2);
    let soft = hard.saturating_sub(AHEAD).max(hard / 2);
    Life { soft: Some(soft), hard: Some(hard) }
}

fn refused(status: StatusCode, body: &[u8]) -> TokenError {
    #[derive(Deserialize)]
    struct Said {
        error: String,
    }
    let said = serde_json::from_slice::<Said>(body).ok();
    let code = said.and_then(|said| CODES.into_iter().find(|code| *code == said.error));
    let unknown = if status.is_client_error() { "another error" } else { "a failure" };
    TokenError::Refused { code: code.unwrap_or(unknown), status: status.as_u16() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_left_before_its_end() {
        let seconds = |life: Life| (life.soft.unwrap().as_secs(), life.hard.unwrap().as_secs());
        assert_eq!(seconds(life(Some(Duration::from_secs(3600)))), (3530, 3590));
        assert_eq!(seconds(life(None)), (230, 290));
        assert_eq!(seconds(life(Some(Duration::from_secs(30)))), (10, 20));
        assert_eq!(life(Some(Duration::ZERO)).hard, Some(Duration::ZERO));
        assert_eq!(life(Some(Duration::from_secs(u64::MAX))).hard, Some(MOST - MARGIN));
    }

    #[test]
    fn a_refusal_repeats_no_words_of_the_server() {
        let said = |status, body: &str| refused(status, body.as_bytes()).to_string();
        let bad = r#"{"error":"invalid_client","error_description":"hunter2 is wrong"}"#;
        let text = said(StatusCode::UNAUTHORIZED, bad);
        assert!(text.contains("invalid_client (HTTP 401)") && !text.contains("hunter2"), "{text}");
        let text = said(StatusCode::BAD_REQUEST, r#"{"error":"hunter2"}"#);
        assert!(text.contains("another error (HTTP 400)") && !text.contains("hunter2"), "{text}");
        assert!(said(StatusCode::BAD_GATEWAY, "<html>").contains("a failure (HTTP 502)"));
    }
}
