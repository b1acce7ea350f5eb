//! AWS Secrets Manager: the current version of a secret.
//!
//! Implements the client side of `GetSecretValue`, signed with Signature Version 4 by Amazon's own
//! crate for it. The keys to sign with come from sources like every other secret, so that they are
//! read anew when they are rotated.

use std::sync::Arc;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde_json::json;

use super::kept::Kept;
use super::{SecretError, SecretSource, Why, ask, field};
use crate::types::{Clock as _, Secret, SystemClock};

const TARGET: &str = "secretsmanager.GetSecretValue";
const JSON: &str = "application/x-amz-json-1.1";
const SERVICE: &str = "secretsmanager";

/// A region's Secrets Manager.
#[derive(Debug)]
pub struct Aws {
    region: String,
    endpoint: Url,
    keys: Keys,
    http: reqwest::Client,
}

/// What requests are signed with.
#[derive(Debug)]
pub struct Keys {
    /// The access key's id.
    pub id: Arc<Kept<SecretSource>>,
    /// The access key.
    pub secret: Arc<Kept<SecretSource>>,
    /// The token that belongs to temporary keys.
    pub session: Option<Arc<Kept<SecretSource>>>,
}

/// One secret, by name or ARN, or one field of one that is a JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    id: String,
    field: Option<String>,
}

impl std::str::FromStr for Address {
    type Err = &'static str;

    /// Reads `id` or `id#field`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, field) = match text.split_once('#') {
            Some((id, field)) => (id, Some(field)),
            None => (text, None),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/_+=.@-:!".contains(&b);
        if id.is_empty() || !id.bytes().all(plain) || field.is_some_and(str::is_empty) {
            return Err("a secret of AWS is written \"aws:id\" or \"aws:id#field\"");
        }
        Ok(Self { id: id.to_owned(), field: field.map(str::to_owned) })
    }
}

impl Aws {
    /// Secrets Manager of a region. `http` must follow no redirects.
    pub fn new(region: String, endpoint: Url, keys: Keys, http: reqwest::Client) -> Self {
        Self { region, endpoint, keys, http }
    }

    /// The current version of a secret.
    pub(super) async fn read(&self, address: &Address) -> Result<Secret, Why> {
        #[derive(Deserialize)]
        struct Read {
            #[serde(rename = "SecretString")]
            text: Option<Secret>,
        }
        let (status, body) = ask::send(self.request(address).await?).await?;
        if status != StatusCode::OK {
            return Err(refused(status, &body));
        }
        let Some(text) = ask::read::<Read>(&body)?.text else { return Err(Why::NotText) };
        field(text.expose(), address.field.as_deref())
    }

    async fn request(&self, address: &Address) -> Result<reqwest::RequestBuilder, Why> {
        let own = |error: SecretError| Why::Unavailable(error.to_string());
        let id = self.keys.id.get().await.map_err(own)?;
        let secret = self.keys.secret.get().await.map_err(own)?;
        let session = match &self.keys.session {
            Some(session) => Some(session.get().await.map_err(own)?),
            None => None,
        };
        let session = session.map(|session| session.expose().to_owned());
        let keys = Credentials::new(id.expose(), secret.expose(), session, None, "mcpx");
        let unsigned = |_| Why::Unavailable("the request cannot be signed".to_owned());
        let identity = keys.into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(SERVICE)
            .time(SystemTime::from(SystemClock.now()))
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| Why::Unavailable("the request cannot be signed".to_owned()))?
            .into();
        let body = json!({ "SecretId": address.id }).to_string();
        let headers = [("content-type", JSON), ("x-amz-target", TARGET)];
        let signable = SignableRequest::new(
            "POST",
            self.endpoint.as_str(),
            headers.into_iter(),
            SignableBody::Bytes(body.as_bytes()),
        )
        .map_err(unsigned)?;
        let (signed, _) = sign(signable, &params).map_err(unsigned)?.into_parts();
        let mut request = self
            .http
            .post(self.endpoint.clone())
            .header(CONTENT_TYPE, JSON)
            .header("x-amz-target", TARGET);
        for (name, value) in signed.headers() {
            let name = HeaderName::from_bytes(name.as_bytes());
            let (Ok(name), Ok(mut value)) = (name, HeaderValue::from_str(value)) else {
                return Err(Why::Unavailable("the request cannot be signed".to_owned()));
            };
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        Ok(request.body(body))
    }
}

fn refused(status: StatusCode, body: &[u8]) -> Why {
    #[derive(Deserialize)]
    struct Said {
        #[serde(rename = "__type")]
        kind: String,
    }
    let said = serde_json::from_slice::<Said>(body).ok().map(|said| said.kind).unwrap_or_default();
    // It may come with a namespace before it: `com.amazonaws…#ResourceNotFoundException`.
    match said.rsplit('#').next().unwrap_or_default() {
        "ResourceNotFoundException" => {
            Why::Missing("AWS knows no such secret in this region".to_owned())
        }
        "InvalidRequestException" => {
            Why::Missing("AWS does not give it now; it may be marked for deletion".to_owned())
        }
        "AccessDeniedException" => {
            Why::Refused("AWS does not let this server read it (AccessDenied)".to_owned())
        }
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "InvalidClientTokenId" => Why::Refused(format!(
            "AWS does not accept this server's keys (HTTP {})",
            status.as_u16()
        )),
        _ if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            Why::Refused(format!("AWS refuses this server's request (HTTP {})", status.as_u16()))
        }
        _ => Why::Unavailable(format!("AWS answers HTTP {}", status.as_u16())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_aws_says_is_told_in_our_words() {
        for (status, body, word) in [
            (400, r#"{"__type":"ResourceNotFoundException","Message":"hunter2"}"#, "no such"),
            (400, r#"{"__type":"com.amazonaws.x#AccessDeniedException"}"#, "AccessDenied"),
            (400, r#"{"__type":"UnrecognizedClientException"}"#, "accept this server's keys"),
            (400, r#"{"__type":"InvalidSignatureException"}"#, "accept this server's keys"),
            (400, r#"{"__type":"InvalidRequestException"}"#, "deletion"),
            (403, "<Error>hunter2</Error>", "refuses this server's request (HTTP 403)"),
            (500, r#"{"__type":"hunter2"}"#, "AWS answers HTTP 500"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let why = refused(status, body.as_bytes()).to_string();
            assert!(why.contains(word) && !why.contains("hunter"), "{body}: {why}");
        }
    }
}
