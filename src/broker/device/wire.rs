//! What `openidconnect` needs to be told: which of its types are meant, and how it reaches the
//! network.

use futures_util::future::BoxFuture;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreClaimName, CoreClaimType, CoreClientAuthMethod,
    CoreErrorResponseType, CoreGenderClaim, CoreGrantType, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreJwsSigningAlgorithm,
    CoreResponseMode, CoreResponseType, CoreRevocableToken, CoreRevocationErrorResponse,
    CoreSubjectIdentifierType, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AdditionalClaims, AdditionalProviderMetadata, Client, DeviceAuthorizationUrl,
    EmptyExtraTokenFields, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IdTokenFields,
    ProviderMetadata, StandardErrorResponse, StandardTokenResponse,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::broker::login::LoginError;
use crate::identity::fetch::{self, FetchError};

/// How `openidconnect` reaches the network: our client, only safe URLs, capped answers. An answer
/// that means "not now" becomes an error, so that polling backs off and goes on.
pub(super) fn caller(
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

pub(super) fn network(issuer: &str, source: FetchError) -> LoginError {
    match source {
        FetchError::Network(_) | FetchError::Status(_) => {
            LoginError::Network { issuer: issuer.to_owned(), source }
        }
        other => LoginError::Issuer { issuer: issuer.to_owned(), why: other.chain() },
    }
}

/// What `openidconnect` does not know of a discovery document by itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Endpoints {
    #[serde(rename = "device_authorization_endpoint")]
    pub(super) device: Option<DeviceAuthorizationUrl>,
    #[serde(rename = "revocation_endpoint")]
    pub(super) revocation: Option<String>,
    /// RFC 8414; not all issuers that can do PKCE say so.
    #[serde(rename = "code_challenge_methods_supported")]
    pub(super) challenges: Option<Vec<String>>,
    /// RFC 9207: every answer through a browser names its issuer.
    #[serde(rename = "authorization_response_iss_parameter_supported", default)]
    pub(super) names_itself: bool,
}
impl AdditionalProviderMetadata for Endpoints {}

/// Every claim that `openidconnect` has no name for: groups may be in any of them.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct OtherClaims {
    #[serde(flatten)]
    pub(super) all: Map<String, Value>,
}
impl AdditionalClaims for OtherClaims {}

pub(super) type Metadata = ProviderMetadata<
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

pub(super) type Response = StandardTokenResponse<
    IdTokenFields<
        OtherClaims,
        EmptyExtraTokenFields,
        CoreGenderClaim,
        CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm,
    >,
    CoreTokenType,
>;

pub(super) type OidcClient = Client<
    OtherClaims,
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
