//! Authorization code with PKCE (RFC 7636) by way of the user's browser and a port on loopback
//! (RFC 8252).
//!
//! State ties the answer to this login, the nonce ties the identity token to it, the PKCE verifier
//! makes a code that somebody else catches worthless, and `iss` (RFC 9207) says which issuer answered.

use std::future::Future;
use std::time::Duration;

use openidconnect::core::CoreResponseType;
use openidconnect::{
    AuthUrl, AuthenticationFlow, AuthorizationCode, CsrfToken, Nonce, PkceCodeChallenge,
    RedirectUrl,
};
use url::Url;

use super::loopback::{Expected, Loopback};
use super::wire::{Metadata, caller};
use super::{Answer, IssuerClient, unusable};
use crate::broker::login::LoginError;
use crate::identity::fetch;
use crate::types::Secret;

/// How long the user has to come back from the browser.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Where servers that name no other address have browsers come back to.
const REDIRECT: &str = "http://127.0.0.1/callback";

/// What the user has to do: open the address in a browser on this machine, and log in there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserPrompt {
    /// The page to open: `https`, or `http` on loopback.
    pub authorization_uri: Url,
    /// How long it is waited for them.
    pub expires_in: Duration,
}

/// Where a browser is to be sent, if the issuer offers codes with PKCE. Where it says nothing of
/// PKCE it may still have it (Entra ID does); the challenge is sent in any case.
pub(super) fn offered(metadata: &Metadata) -> Option<AuthUrl> {
    let mut kinds = metadata.response_types_supported().iter();
    let code = kinds.any(|kinds| matches!(kinds.as_slice(), [CoreResponseType::Code]));
    let challenges = &metadata.additional_metadata().challenges;
    let pkce = challenges.as_ref().is_none_or(|known| known.iter().any(|name| name == "S256"));
    (code && pkce).then(|| metadata.authorization_endpoint().clone())
}

impl IssuerClient {
    /// Sends the user's browser to the issuer and waits until it comes back, or for `cancel`.
    pub(in crate::broker) async fn browser_flow(
        &self,
        on_prompt: impl FnOnce(&BrowserPrompt),
        cancel: impl Future<Output = ()>,
    ) -> Result<Answer, LoginError> {
        let issuer = || self.info.url.clone();
        let authorization = self.authorization.clone();
        let authorization =
            authorization.ok_or_else(|| LoginError::NoBrowserFlow { issuer: issuer() })?;
        fetch::safe_url(authorization.as_str())
            .map_err(|error| unusable(&self.info, error.chain()))?;
        let redirect = self.info.redirect_uri.as_deref().unwrap_or(REDIRECT);
        let loopback = Loopback::bind(redirect).await?;
        let redirect = RedirectUrl::new(loopback.redirect_uri().to_owned())
            .map_err(|error| unusable(&self.info, error.to_string()))?;
        let client = self.client.clone().set_auth_uri(authorization).set_redirect_uri(redirect);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let code = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let mut request = client
            .authorize_url(code, CsrfToken::new_random, Nonce::new_random)
            .set_pkce_challenge(challenge)
            .add_scopes(self.scopes());
        if let Some(resource) = &self.info.resource {
            request = request.add_extra_param("resource", resource);
        }
        let (authorization_uri, state, nonce) = request.url();
        let expected = Expected {
            state: Secret::new(state.secret()),
            issuer: issuer(),
            issuer_is_named: self.names_itself,
        };
        let waiting = loopback.answer(expected);
        on_prompt(&BrowserPrompt { authorization_uri, expires_in: PATIENCE });
        let code = tokio::select! {
            code = waiting => code?,
            () = tokio::time::sleep(PATIENCE) => return Err(LoginError::Expired),
            () = cancel => return Err(LoginError::Cancelled),
        };
        let code = AuthorizationCode::new(code.expose().to_owned());
        let mut request = client.exchange_code(code).set_pkce_verifier(verifier);
        if let Some(resource) = &self.info.resource {
            request = request.add_extra_param("resource", resource);
        }
        let answer = request.request_async(&caller(&self.http)).await;
        let answer = answer.map_err(|error| self.token_error(error))?;
        Ok(self.read(&answer, Some(&nonce)))
    }
}
