//! Azure Key Vault: the newest version of a secret, asked for with a token of Entra ID.
//!
//! Implements the client side of `GET {vault}/secrets/{name}?api-version=7.4`. The token is got by
//! client credentials, with a client secret or, in a workload with a federated identity, with the
//! platform's own JWT. A token that the vault refuses is replaced by another, once in ten seconds
//! at most.

use std::sync::Arc;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::kept::{Fetch, Fetched, Kept, Life};
use super::{Why, ask, field};
use crate::types::Secret;
use crate::upstream::token::TokenEndpoint;

/// A Key Vault.
#[derive(Debug)]
pub struct Azure {
    vault: Url,
    http: reqwest::Client,
    login: Arc<Kept<Login>>,
}

/// One secret, or one field of one that is a JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    name: String,
    field: Option<String>,
}

impl std::str::FromStr for Address {
    type Err = &'static str;

    /// Reads `name` or `name#field`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, field) = match text.split_once('#') {
            Some((name, field)) => (name, Some(field)),
            None => (text, None),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if name.is_empty() || !name.bytes().all(plain) || field.is_some_and(str::is_empty) {
            return Err(
                "a secret of a Key Vault is written \"azure:name\" or \"azure:name#field\"",
            );
        }
        Ok(Self { name: name.to_owned(), field: field.map(str::to_owned) })
    }
}

impl Azure {
    /// A vault at its URL. `http` must follow no redirects.
    pub fn new(vault: Url, endpoint: TokenEndpoint, http: reqwest::Client) -> Self {
        Self { vault, http, login: Kept::new(Login { endpoint }) }
    }

    /// The newest version of a secret.
    pub(super) async fn read(&self, address: &Address) -> Result<Secret, Why> {
        #[derive(Deserialize)]
        struct Read {
            value: Secret,
        }
        let token = self.login.get().await?;
        let (mut status, mut body) = self.ask(address, token.clone()).await?;
        if status == StatusCode::UNAUTHORIZED && self.login.renew(&token).await {
            (status, body) = self.ask(address, self.login.get().await?).await?;
        }
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                return Err(Why::Missing("the Key Vault knows no such secret".to_owned()));
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let why = format!("the Key Vault does not let this server read it (HTTP {status})");
                return Err(Why::Refused(why));
            }
            other => {
                let why = format!("the Key Vault answers HTTP {}", other.as_u16());
                return Err(Why::Unavailable(why));
            }
        }
        field(ask::read::<Read>(&body)?.value.expose(), address.field.as_deref())
    }

    async fn ask(
        &self,
        address: &Address,
        token: HeaderValue,
    ) -> Result<(StatusCode, bytes::Bytes), Why> {
        let mut url = self.vault.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().extend(["secrets", &address.name]),
            Err(()) => return Err(Why::Unavailable("the Key Vault's URL is odd".to_owned())),
        };
        let request = self.http.get(url).query(&[("api-version", "7.4")]);
        ask::send(request.header(AUTHORIZATION, token)).await
    }
}

/// The gateway's token for it.
#[derive(Debug)]
struct Login {
    endpoint: TokenEndpoint,
}

impl Fetch for Login {
    type Value = HeaderValue;
    type Error = Why;

    fn fetch(&self, _anew: bool) -> Fetched<'_, Self> {
        Box::pin(self.make())
    }

    fn same(one: &HeaderValue, other: &HeaderValue) -> bool {
        one == other
    }

    fn name(&self) -> &'static str {
        "the login at Entra ID"
    }
}

impl Login {
    async fn make(&self) -> Result<(HeaderValue, Life), Why> {
        let grant =
            [("grant_type", "client_credentials"), ("scope", "https://vault.azure.net/.default")];
        let (token, life) =
            self.endpoint.ask(&grant).await.map_err(|error| Why::Unavailable(error.to_string()))?;
        let value = Secret::new(format!("Bearer {}", token.expose()));
        let mut value = HeaderValue::from_str(value.expose())
            .map_err(|_| Why::Unavailable("the token is no header".to_owned()))?;
        value.set_sensitive(true);
        Ok((value, life))
    }
}
