//! OpenID Connect with an issuer, as a public client: discovery, the device flow (RFC 8628),
//! refresh, and revocation (RFC 7009).
//!
//! Every identity token is verified here before anything is made of it: by the issuer's published
//! keys, for our client, with an asymmetric algorithm.

use std::future::Future;
use std::time::Duration;

use futures_util::future::BoxFuture;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreClaimName, CoreClaimType, CoreClientAuthMethod,
    CoreDeviceAuthorizationResponse, CoreErrorResponseType, CoreGenderClaim, CoreGrantType,
    CoreIdTokenVerifier, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm, CoreJwsSigningAlgorithm, CoreResponseMode, CoreResponseType,
    CoreRevocableToken, CoreRevocationErrorResponse, CoreSubjectIdentifierType,
    CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AdditionalClaims, AdditionalProviderMetadata, AuthType, Client, ClientId,
    DeviceAuthorizationUrl, DeviceCodeErrorResponseType, DiscoveryError, EmptyExtraTokenFields,
    EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IdTokenFields, IssuerUrl, Nonce,
    OAuth2TokenResponse as _, ProviderMetadata, RefreshToken, RequestTokenError, Scope,
    StandardErrorResponse, StandardTokenResponse, TokenResponse as _,
};
use serde::{Deserialize, Serialize};
use url::Url;

use super::login::LoginError;
use super::server::IssuerInfo;
use crate::identity::fetch::{self, FetchError};
use crate::types::{Identity, Secret};

/// A device flow never lasts longer than this, whatever the issuer says.
const MAX_FLOW: Duration = Duration::from_secs(30 * 60);

/// An issuer that wants fewer polls than this offers no usable device flow.
const MAX_INTERVAL: Duration = Duration::from_secs(5 * 60);

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
    pub(super) expires: i64,
    pub(super) identity: Identity,
}

/// One issuer, discovered.
pub(super) struct IssuerClient {
    issuer: String,
    scopes: Vec<String>,
    client: OidcClient,
    device: Option<DeviceAuthorizationUrl>,
    revocation: Option<String>,
    http: reqwest::Client,
}

impl IssuerClient {
    /// Reads the issuer's discovery document and keys.
    pub(super) async fn discover(info: &IssuerInfo) -> Result<Self, LoginError> {
        let issuer = info.url.clone();
        let broken = |why: String| LoginError::Issuer { issuer: info.url.clone(), why };
        let url = fetch::safe_url(&info.url).map_err(|error| broken(error.chain()))?;
        let http = fetch::client_for(&url).map_err(|error| broken(error.chain()))?;
        let issuer_url = IssuerUrl::new(issuer.clone()).map_err(|e| broken(e.to_string()))?;
        let metadata = Metadata::discover_async(issuer_url.clone(), &caller(&http)).await.map_err(
            |error| match error {
                DiscoveryError::Request(source) => network(&info.url, source),
                DiscoveryError::Parse(error) => broken(error.to_string()),
                other => broken(other.to_string()),
            },
        )?;
        let endpoints = metadata.additional_metadata().clone();
        let token = metadata
            .token_endpoint()
            .cloned()
            .ok_or_else(|| broken("it names no token endpoint".to_owned()))?;
        for url in [Some(token.as_str()), endpoints.device.as_ref().map(|u| u.as_str())] {
            let checked = url.map(fetch::safe_url).transpose();
            checked.map_err(|error| broken(error.chain()))?;
        }
        let client_id = ClientId::new(info.client_id.clone());
        let client = Client::new(client_id, issuer_url, metadata.jwks().clone())
            .set_auth_type(AuthType::RequestBody)
            .set_token_uri(token);
        Ok(Self {
            issuer,
            scopes: info.scopes.clone(),
            client,
            device: endpoints.device,
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
            .ok_or_else(|| LoginError::NoDeviceFlow { issuer: self.issuer.clone() })?;
        let client = self.client.clone().set_device_authorization_url(device);
        let http = caller(&self.http);
        let scopes = self.scopes.iter().filter(|s| *s != "openid").cloned().map(Scope::new);
        let started: Result<CoreDeviceAuthorizationResponse, _> =
            client.exchange_device_code().add_scopes(scopes).request_async(&http).await;
        let details = started.map_err(|error| self.token_error(error))?;
        if details.interval() > MAX_INTERVAL {
            let why = "it wants to be asked less than every five minutes".to_owned();
            return Err(LoginError::Issuer { issuer: self.issuer.clone(), why });
        }
        on_prompt(&prompt(&details)?);

        let limit = details.expires_in().min(MAX_FLOW);
        let polling = client.exchange_device_access_token(&details).request_async(
            &http,
            tokio::time::sleep,
            Some(limit),
        );
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
        Ok(self.read(&answer))
    }

    /// Exchanges a refresh token.
    pub(super) async fn refresh(&self, token: &Secret) -> Result<Answer, LoginError> {
        let token = RefreshToken::new(token.expose().to_owned());
        let http = caller(&self.http);
        let answer = self.client.exchange_refresh_token(&token).request_async(&http).await;
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
        Ok(self.read(&answer))
    }

    /// Revokes a refresh token; `false` when the issuer offers no way to.
    ///
    /// By hand, because `openidconnect` refuses loopback `http` for this one endpoint.
    pub(super) async fn revoke(&self, token: &Secret) -> Result<bool, LoginError> {
        let Some(url) = &self.revocation else {
            return Ok(false);
        };
        let failed = |source| network(&self.issuer, source);
        let form = [
            ("token", token.expose()),
            ("token_type_hint", "refresh_token"),
            ("client_id", self.client.client_id().as_str()),
        ];
        let url = fetch::safe_url(url).map_err(failed)?;
        let response = self.http.post(url).form(&form).send().await;
        let response = response.map_err(|error| failed(FetchError::Network(error)))?;
        match response.status() {
            status if status.is_success() => Ok(true),
            status => Err(failed(FetchError::Status(status.as_u16()))),
        }
    }

    fn read(&self, answer: &Response) -> Answer {
        Answer {
            refresh_token: answer.refresh_token().map(|token| Secret::new(token.secret().clone())),
            id_token: self.verify(answer),
        }
    }

    fn verify(&self, answer: &Response) -> Result<VerifiedToken, LoginError> {
        let token = answer
            .id_token()
            .ok_or_else(|| LoginError::NoIdToken { issuer: self.issuer.clone() })?;
        let invalid = |why: String| LoginError::IdToken { issuer: self.issuer.clone(), why };
        let verifier: CoreIdTokenVerifier<'_> = self
            .client
            .id_token_verifier()
            .set_allowed_algs([
                CoreJwsSigningAlgorithm::EcdsaP256Sha256,
                CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
                CoreJwsSigningAlgorithm::EdDsa,
            ])
            // Our client must be an audience; that the control server may be another is fine.
            .set_other_audience_verifier_fn(|_| true);
        // The device flow has no nonce: nothing passes through a browser's redirect.
        let no_nonce = |_: Option<&Nonce>| Ok(());
        let claims = token.claims(&verifier, no_nonce).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            invalid(format!("{error}{}", cause.unwrap_or_default()))
        })?;
        Ok(VerifiedToken {
            token: Secret::new(token.to_string()),
            expires: claims.expiration().timestamp(),
            identity: Identity {
                issuer: claims.issuer().to_string(),
                sub: claims.subject().to_string(),
                email: claims.email().map(|email| email.to_string()),
                groups: groups(claims.additional_claims()),
            },
        })
    }

    fn token_error<R>(&self, error: RequestTokenError<FetchError, R>) -> LoginError
    where
        R: openidconnect::ErrorResponse + std::fmt::Display + 'static,
    {
        let why = match error {
            RequestTokenError::Request(source) => return network(&self.issuer, source),
            RequestTokenError::Parse(error, _) => error.to_string(),
            RequestTokenError::ServerResponse(refusal) => refusal.to_string(),
            RequestTokenError::Other(why) => why,
        };
        LoginError::Issuer { issuer: self.issuer.clone(), why }
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
fn groups(claims: &GroupsClaim) -> Vec<String> {
    match &claims.groups {
        serde_json::Value::Array(items) => {
            items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
        }
        serde_json::Value::String(text) => {
            text.split(',').map(str::trim).filter(|g| !g.is_empty()).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// How `openidconnect` reaches the network: our client, only safe URLs, capped answers. An answer
/// that means "not now" becomes an error, so that polling backs off and goes on.
fn caller(
    http: &reqwest::Client,
) -> impl Fn(HttpRequest) -> BoxFuture<'static, Result<HttpResponse, FetchError>> + Send + Sync + 'static
{
    let http = http.clone();
    move |request| {
        let http = http.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let url = fetch::safe_url(&parts.uri.to_string())?;
            let request = http.request(parts.method, url).headers(parts.headers).body(body);
            let response = request.send().await.map_err(FetchError::Network)?;
            let status = response.status();
            if status.is_server_error() || status.as_u16() == 429 {
                return Err(FetchError::Status(status.as_u16()));
            }
            let headers = response.headers().clone();
            let body = fetch::read_body(response).await?;
            let mut answer = HttpResponse::new(body.to_vec());
            *answer.status_mut() = status;
            *answer.headers_mut() = headers;
            Ok(answer)
        })
    }
}

fn network(issuer: &str, source: FetchError) -> LoginError {
    match source {
        FetchError::Network(_) | FetchError::Status(_) => {
            LoginError::Network { issuer: issuer.to_owned(), source }
        }
        other => LoginError::Issuer { issuer: issuer.to_owned(), why: other.chain() },
    }
}

/// `openidconnect` knows neither endpoint by itself.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Endpoints {
    #[serde(rename = "device_authorization_endpoint")]
    device: Option<DeviceAuthorizationUrl>,
    #[serde(rename = "revocation_endpoint")]
    revocation: Option<String>,
}
impl AdditionalProviderMetadata for Endpoints {}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct GroupsClaim {
    #[serde(default)]
    groups: serde_json::Value,
}
impl AdditionalClaims for GroupsClaim {}

type Metadata = ProviderMetadata<
    Endpoints,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

type Response = StandardTokenResponse<
    IdTokenFields<
        GroupsClaim,
        EmptyExtraTokenFields,
        CoreGenderClaim,
        CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm,
    >,
    CoreTokenType,
>;

type OidcClient = Client<
    GroupsClaim,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    Response,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
    EndpointNotSet,
>;
