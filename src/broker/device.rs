//! OpenID Connect with an issuer, as a public client: discovery, the device flow (RFC 8628), the
//! browser (`browser`), refresh, and revocation (RFC 7009).
//!
//! Every identity token is verified here before anything is made of it: by the issuer's published
//! keys, for our client, with an asymmetric algorithm. So that a login can be renewed while the
//! issuer's metadata or keys cannot be had, the last good ones are kept (`known`).

use std::future::Future;
use std::time::Duration;

use openidconnect::core::{
    CoreDeviceAuthorizationResponse, CoreErrorResponseType, CoreIdTokenVerifier,
    CoreJwsSigningAlgorithm,
};
use openidconnect::{
    AuthType, AuthUrl, ClaimsVerificationError, Client, ClientId, ClientSecret,
    DeviceAuthorizationUrl, DeviceCodeErrorResponseType, DiscoveryError, IssuerUrl, Nonce,
    OAuth2TokenResponse as _, RefreshToken, RequestTokenError, Scope, TokenResponse as _,
};
use serde_json::Value;
use url::Url;

use self::known::Known;
use self::wire::{Metadata, OidcClient, OtherClaims, Response, caller, network};
use super::home::{Home, HomeError};
use super::login::LoginError;
use super::server::IssuerInfo;
use crate::identity::fetch::{self, FetchError};
use crate::identity::oidc::find_claim;
use crate::types::{Identity, Secret};

pub use browser::BrowserPrompt;

mod browser;
mod known;
mod loopback;
mod wire;

/// A device flow never lasts longer than this, whatever the issuer says.
const MAX_FLOW: Duration = Duration::from_secs(30 * 60);

/// An issuer that wants fewer polls than this offers no usable device flow.
const MAX_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Nobody is asked more often than this, whatever interval they name.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// What the user has to do: open the address, compare the code, and log in there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePrompt {
    /// The page to open: `https`, or `http` on loopback.
    pub verification_uri: Url,
    /// The same page with the code filled in.
    pub verification_uri_complete: Option<Url>,
    /// The code to type or compare. Printable ASCII only.
    pub user_code: String,
    /// How long the code is good for.
    pub expires_in: Duration,
}

/// What an issuer answered to a device flow or a refresh.
pub(super) struct Answer {
    /// A new refresh token, if one came. Where tokens rotate, the old one is dead now.
    pub(super) refresh_token: Option<Secret>,
    /// The verified identity token; or why there is none to use.
    pub(super) id_token: Result<VerifiedToken, LoginError>,
}

pub(super) struct VerifiedToken {
    pub(super) token: Secret,
    pub(super) issued: i64,
    pub(super) expires: i64,
    pub(super) identity: Identity,
}

/// One issuer, discovered.
pub(super) struct IssuerClient {
    info: IssuerInfo,
    client: OidcClient,
    device: Option<DeviceAuthorizationUrl>,
    /// Where a browser is sent; `None` where the issuer offers no code with PKCE.
    authorization: Option<AuthUrl>,
    /// Whether an answer through a browser has to name its issuer (RFC 9207).
    names_itself: bool,
    revocation: Option<String>,
    http: reqwest::Client,
}

impl IssuerClient {
    /// Reads the issuer's discovery document and keys, and keeps them in the home.
    pub(super) async fn discover(
        info: &IssuerInfo,
        home: &Home,
        now: i64,
    ) -> Result<Self, LoginError> {
        let http = Self::http(info)?;
        let metadata = Self::fetch(info, &http).await?;
        Known::keep(home, &info.url, &metadata, now);
        Self::new(info, &metadata, http)
    }

    /// As [`Self::discover`]; or what it found at most a day ago, if the issuer does not answer now:
    /// its token endpoint may work all the same.
    pub(super) async fn discover_or_recall(
        info: &IssuerInfo,
        home: &Home,
        now: i64,
    ) -> Result<Self, LoginError> {
        match Self::discover(info, home, now).await {
            Err(error) if error.is_retryable() => {
                let known = Known::recall(home, &info.url, now).ok_or(error)?;
                Self::new(info, &known, Self::http(info)?)
            }
            found => found,
        }
    }

    /// Forgets what the home knows of an issuer.
    pub(super) fn forget(home: &Home) -> Result<(), HomeError> {
        Known::forget(home)
    }

    fn http(info: &IssuerInfo) -> Result<reqwest::Client, LoginError> {
        let broken = |error: FetchError| unusable(info, error.chain());
        fetch::client_for(&fetch::safe_url(&info.url).map_err(broken)?).map_err(broken)
    }

    async fn fetch(info: &IssuerInfo, http: &reqwest::Client) -> Result<Metadata, LoginError> {
        let issuer = IssuerUrl::new(info.url.clone());
        let issuer = issuer.map_err(|error| unusable(info, error.to_string()))?;
        Metadata::discover_async(issuer, &caller(http)).await.map_err(|error| match error {
            DiscoveryError::Request(source) => network(&info.url, source),
            DiscoveryError::Parse(error) => unusable(info, error.to_string()),
            other => unusable(info, other.to_string()),
        })
    }

    fn new(
        info: &IssuerInfo,
        metadata: &Metadata,
        http: reqwest::Client,
    ) -> Result<Self, LoginError> {
        let endpoints = metadata.additional_metadata().clone();
        let token = metadata
            .token_endpoint()
            .cloned()
            .ok_or_else(|| unusable(info, "it names no token endpoint".to_owned()))?;
        for url in [Some(token.as_str()), endpoints.device.as_ref().map(|u| u.as_str())] {
            let checked = url.map(fetch::safe_url).transpose();
            checked.map_err(|error| unusable(info, error.chain()))?;
        }
        let client_id = ClientId::new(info.client_id.clone());
        let client = Client::new(client_id, metadata.issuer().clone(), metadata.jwks().clone())
            .set_auth_type(AuthType::RequestBody)
            .set_token_uri(token);
        let client = match &info.client_secret {
            Some(secret) => client.set_client_secret(ClientSecret::new(secret.clone())),
            None => client,
        };
        Ok(Self {
            authorization: browser::offered(metadata),
            info: info.clone(),
            client,
            device: endpoints.device,
            names_itself: endpoints.names_itself,
            revocation: endpoints.revocation,
            http,
        })
    }

    /// Runs the device flow: tells the user what to do, then waits for them or for `cancel`.
    pub(super) async fn device_flow(
        &self,
        on_prompt: impl FnOnce(&DevicePrompt),
        cancel: impl Future<Output = ()>,
    ) -> Result<Answer, LoginError> {
        let device = self
            .device
            .clone()
            .ok_or_else(|| LoginError::NoDeviceFlow { issuer: self.info.url.clone() })?;
        let client = self.client.clone().set_device_authorization_url(device);
        let http = caller(&self.http);
        let mut request = client.exchange_device_code().add_scopes(self.scopes());
        if let Some(resource) = &self.info.resource {
            request = request.add_extra_param("resource", resource);
        }
        let started: Result<CoreDeviceAuthorizationResponse, _> =
            request.request_async(&http).await;
        let details = started.map_err(|error| self.token_error(error))?;
        if details.interval() > MAX_INTERVAL {
            let why = "it wants to be asked less than every five minutes".to_owned();
            return Err(unusable(&self.info, why));
        }
        on_prompt(&prompt(&details)?);

        let limit = details.expires_in().min(MAX_FLOW);
        let mut request = client.exchange_device_access_token(&details);
        if let Some(resource) = &self.info.resource {
            request = request.add_extra_param("resource", resource);
        }
        let pause = |interval: Duration| tokio::time::sleep(interval.max(MIN_INTERVAL));
        let polling = request.request_async(&http, pause, Some(limit));
        let answer = tokio::select! {
            answer = polling => answer,
            () = cancel => return Err(LoginError::Cancelled),
        };
        let answer = answer.map_err(|error| match &error {
            RequestTokenError::ServerResponse(refusal) => match refusal.error() {
                DeviceCodeErrorResponseType::AccessDenied => LoginError::Denied,
                DeviceCodeErrorResponseType::ExpiredToken => LoginError::Expired,
                _ => self.token_error(error),
            },
            _ => self.token_error(error),
        })?;
        // The device flow has no nonce: nothing passes through a browser's redirect.
        Ok(self.read(&answer, None))
    }

    /// Exchanges a refresh token.
    pub(super) async fn refresh(&self, token: &Secret) -> Result<Answer, LoginError> {
        let token = RefreshToken::new(token.expose().to_owned());
        let http = caller(&self.http);
        let mut request = self.client.exchange_refresh_token(&token);
        if let Some(resource) = &self.info.resource {
            request = request.add_extra_param("resource", resource);
        }
        let answer = request.request_async(&http).await;
        let answer = answer.map_err(|error| match &error {
            RequestTokenError::ServerResponse(refusal)
                if *refusal.error() == CoreErrorResponseType::InvalidGrant =>
            {
                let why = refusal.error_description().cloned();
                LoginError::LoginNeeded {
                    why: why.unwrap_or_else(|| "the issuer ended this login".to_owned()),
                }
            }
            _ => self.token_error(error),
        })?;
        Ok(self.read(&answer, None))
    }

    /// Revokes a refresh token; `false` when the issuer offers no way to.
    ///
    /// By hand, because `openidconnect` refuses loopback `http` for this one endpoint.
    pub(super) async fn revoke(&self, token: &Secret) -> Result<bool, LoginError> {
        let Some(url) = &self.revocation else {
            return Ok(false);
        };
        let failed = |source| network(&self.info.url, source);
        let mut form = vec![
            ("token", token.expose()),
            ("token_type_hint", "refresh_token"),
            ("client_id", self.client.client_id().as_str()),
        ];
        form.extend(self.info.client_secret.as_deref().map(|secret| ("client_secret", secret)));
        let url = fetch::safe_url(url).map_err(failed)?;
        let response = self.http.post(url).form(&form).send().await;
        let response = response.map_err(|error| failed(FetchError::Network(error)))?;
        match response.status() {
            status if status.is_success() => Ok(true),
            status => Err(failed(FetchError::Status(status.as_u16()))),
        }
    }

    fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.info.scopes.iter().filter(|scope| *scope != "openid").cloned().map(Scope::new)
    }

    fn read(&self, answer: &Response, nonce: Option<&Nonce>) -> Answer {
        Answer {
            refresh_token: answer.refresh_token().map(|token| Secret::new(token.secret().clone())),
            id_token: self.verify(answer, nonce),
        }
    }

    fn verify(
        &self,
        answer: &Response,
        nonce: Option<&Nonce>,
    ) -> Result<VerifiedToken, LoginError> {
        let issuer = || self.info.url.clone();
        let token = answer.id_token().ok_or_else(|| LoginError::NoIdToken { issuer: issuer() })?;
        let invalid = |why: String| LoginError::IdToken { issuer: issuer(), why };
        let verifier: CoreIdTokenVerifier<'_> = self
            .client
            .id_token_verifier()
            // The server takes the ones that its configuration names; symmetric ones never.
            .set_allowed_algs([
                CoreJwsSigningAlgorithm::EcdsaP256Sha256,
                CoreJwsSigningAlgorithm::EcdsaP384Sha384,
                CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
                CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
                CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
                CoreJwsSigningAlgorithm::RsaSsaPssSha256,
                CoreJwsSigningAlgorithm::RsaSsaPssSha384,
                CoreJwsSigningAlgorithm::RsaSsaPssSha512,
                CoreJwsSigningAlgorithm::EdDsa,
            ])
            // Our client must be an audience; that the control server may be another is fine.
            .set_other_audience_verifier_fn(|_| true);
        let check = |found: Option<&Nonce>| match nonce {
            None => Ok(()),
            Some(ours) if found.is_some_and(|found| found.secret() == ours.secret()) => Ok(()),
            Some(_) => Err("the nonce is missing or not the one that was sent".to_owned()),
        };
        let claims = token.claims(&verifier, check).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            let clock = match error {
                ClaimsVerificationError::Expired(_) => "; is the clock of this machine right?",
                _ => "",
            };
            invalid(format!("{error}{}{clock}", cause.unwrap_or_default()))
        })?;
        Ok(VerifiedToken {
            token: Secret::new(token.to_string()),
            issued: claims.issue_time().timestamp(),
            expires: claims.expiration().timestamp(),
            identity: Identity {
                issuer: claims.issuer().to_string(),
                sub: claims.subject().to_string(),
                email: claims.email().map(|email| email.to_string()),
                groups: groups(claims.additional_claims(), self.info.groups_claim.as_deref()),
            },
        })
    }

    fn token_error<R>(&self, error: RequestTokenError<FetchError, R>) -> LoginError
    where
        R: openidconnect::ErrorResponse + std::fmt::Display + 'static,
    {
        let why = match error {
            RequestTokenError::Request(source) => return network(&self.info.url, source),
            RequestTokenError::Parse(error, _) => error.to_string(),
            RequestTokenError::ServerResponse(refusal) => refusal.to_string(),
            RequestTokenError::Other(why) => why,
        };
        unusable(&self.info, why)
    }
}

/// What the issuer wants shown, checked: it goes to a terminal and to a browser.
fn prompt(details: &CoreDeviceAuthorizationResponse) -> Result<DevicePrompt, LoginError> {
    let safe = |text: &str| {
        fetch::safe_url(text).map_err(|_| LoginError::UnsafePrompt {
            what: format!("the address {:?}", text.chars().take(200).collect::<String>()),
        })
    };
    let code = details.user_code().secret();
    let printable = code.len() <= 64 && code.bytes().all(|b| b.is_ascii_graphic());
    if code.is_empty() || !printable {
        return Err(LoginError::UnsafePrompt { what: "a code that cannot be shown".to_owned() });
    }
    let complete = details.verification_uri_complete().map(|uri| safe(uri.secret()));
    Ok(DevicePrompt {
        verification_uri: safe(details.verification_uri().as_str())?,
        verification_uri_complete: complete.transpose()?,
        user_code: code.clone(),
        expires_in: details.expires_in(),
    })
}

/// For people to read in `mcpx status` only; the server decides by its own reading of the token.
fn groups(claims: &OtherClaims, name: Option<&str>) -> Vec<String> {
    match find_claim(&claims.all, name.unwrap_or("groups")).unwrap_or(&Value::Null) {
        Value::Array(items) => {
            items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
        }
        Value::String(text) => {
            text.split(',').map(str::trim).filter(|g| !g.is_empty()).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

fn unusable(info: &IssuerInfo, why: String) -> LoginError {
    LoginError::Issuer { issuer: info.url.clone(), why }
}
