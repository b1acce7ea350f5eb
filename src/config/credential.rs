//! `[connection.credential]`: what the gateway adds to calls of one connection.

use reqwest::header::{AUTHORIZATION, HeaderName};
use serde::Deserialize;
use toml::Spanned;
use url::Url;

use super::ConfigError;
use super::file::Span;
use super::secrets::Sources;
use crate::upstream::credential::Credential;
use crate::upstream::credential::behalf::{Behalf, Named, Way};
use crate::upstream::credential::consent::Consenting;
use crate::upstream::secret::kept::Kept;
use crate::upstream::token::{ClientAuth, TokenEndpoint};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CredentialTable {
    #[serde(default)]
    kind: Kind,
    header: Option<Spanned<String>>,
    prefix: Option<Spanned<String>>,
    user: Option<Spanned<String>>,
    from: Option<Spanned<String>>,
    cache: Option<Spanned<Span>>,
    authorization_endpoint: Option<Spanned<Url>>,
    token_endpoint: Option<Spanned<Url>>,
    issuer: Option<Spanned<String>>,
    client_id: Option<Spanned<String>>,
    client_secret: Option<Spanned<String>>,
    client_assertion: Option<Spanned<String>>,
    client_auth: Option<Spanned<How>>,
    scope: Option<Spanned<String>>,
    resource: Option<Spanned<String>>,
    audience: Option<Spanned<String>>,
    subject: Option<Spanned<Name>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    #[default]
    Header,
    Basic,
    ClientCredentials,
    TokenExchange,
    IdJag,
    AuthorizationCode,
}

/// Where a client's id and secret stand in a token request.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum How {
    Basic,
    Post,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    Id,
    Sub,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Basic => "basic",
            Self::ClientCredentials => "client-credentials",
            Self::TokenExchange => "token-exchange",
            Self::IdJag => "id-jag",
            Self::AuthorizationCode => "authorization-code",
        }
    }

    /// Whether a key means something for this kind.
    fn takes(self, key: &str) -> bool {
        let asks = !matches!(self, Self::Header | Self::Basic);
        let behalf = matches!(self, Self::TokenExchange | Self::IdJag);
        match key {
            "prefix" => self == Self::Header,
            "user" => self == Self::Basic,
            "from" | "cache" => !asks,
            "subject" => behalf,
            "issuer" => behalf || self == Self::AuthorizationCode,
            "authorization_endpoint" => self == Self::AuthorizationCode,
            "audience" => asks && self != Self::AuthorizationCode,
            _ => asks,
        }
    }
}

impl CredentialTable {
    /// The credential that the table describes.
    pub(super) fn checked(
        &self,
        at: usize,
        sources: &Sources<'_>,
        issuers: usize,
    ) -> Result<Credential, ConfigError> {
        let place = sources.place();
        self.only_what_fits(sources)?;
        let header = match &self.header {
            None if self.kind == Kind::Header => {
                return Err(place.error(at, "a credential of kind \"header\" needs header"));
            }
            None => AUTHORIZATION,
            Some(given) => given.get_ref().parse::<HeaderName>().map_err(|_| {
                let what = format!("{:?} is no header name", given.get_ref());
                place.error(given.span().start, what)
            })?,
        };
        match self.kind {
            Kind::Header | Kind::Basic => {
                let from = self.need(self.from.as_ref(), "from", at, sources)?;
                let cache = self.cache.as_ref().map(|cache| cache.get_ref().0);
                let from = sources.source(from)?.kept_for(cache);
                if self.kind == Kind::Header {
                    let prefix = self.prefix.as_ref().map_or("", |prefix| prefix.get_ref());
                    return Ok(Credential::header(header, prefix, from));
                }
                let user = self.need(self.user.as_ref(), "user", at, sources)?;
                if user.get_ref().contains(':') || user.get_ref().chars().any(char::is_control) {
                    let what =
                        "a user of basic authentication has no colon and no control character";
                    return Err(place.error(user.span().start, what));
                }
                Ok(Credential::basic(header, user.get_ref(), from))
            }
            Kind::ClientCredentials => {
                let given = [
                    ("scope", &self.scope),
                    ("resource", &self.resource),
                    ("audience", &self.audience),
                ];
                let parameters = given
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value.as_ref()?.get_ref().clone())))
                    .collect();
                let endpoint = self.endpoint(at, sources)?;
                Ok(Credential::client_credentials(header, endpoint, parameters))
            }
            Kind::AuthorizationCode => {
                let url = self.authorization_endpoint.as_ref();
                let url = self.need(url, "authorization_endpoint", at, sources)?;
                let text = |value: &Option<Spanned<String>>| {
                    value.as_ref().map(|value| value.get_ref().clone())
                };
                let consenting = Consenting {
                    endpoint: self.endpoint(at, sources)?,
                    authorization: sources.safe(url, "the authorization endpoint")?,
                    issuer: text(&self.issuer),
                    resource: text(&self.resource),
                    scope: text(&self.scope),
                };
                Ok(Credential::consented(header, consenting))
            }
            Kind::TokenExchange | Kind::IdJag => {
                let named = match &self.subject {
                    Some(name) if *name.get_ref() == Name::Sub && issuers > 1 => {
                        let what = "with more than one issuer, two people may have the same sub; \
                                    use subject = \"id\"";
                        return Err(place.error(name.span().start, what));
                    }
                    Some(name) if *name.get_ref() == Name::Sub => Named::Sub,
                    _ => Named::Id,
                };
                let way = if self.kind == Kind::IdJag { Way::IdJag } else { Way::TokenExchange };
                let text = |value: &Option<Spanned<String>>| {
                    value.as_ref().map(|value| value.get_ref().clone())
                };
                let issuer = self.need(self.issuer.as_ref(), "issuer", at, sources)?;
                let behalf = Behalf {
                    way,
                    named,
                    endpoint: self.endpoint(at, sources)?,
                    issuer: issuer.get_ref().clone(),
                    resource: text(&self.resource),
                    audience: text(&self.audience),
                    scope: text(&self.scope),
                };
                Ok(Credential::behalf(header, behalf))
            }
        }
    }

    fn endpoint(&self, at: usize, sources: &Sources<'_>) -> Result<TokenEndpoint, ConfigError> {
        let url = self.need(self.token_endpoint.as_ref(), "token_endpoint", at, sources)?;
        let url = sources.safe(url, "the token endpoint")?;
        let id = self.need(self.client_id.as_ref(), "client_id", at, sources)?.get_ref().clone();
        let how = self.client_auth.as_ref().map_or(How::Basic, |how| *how.get_ref());
        let auth = match (&self.client_secret, &self.client_assertion) {
            (Some(secret), None) => {
                let secret = Kept::new(sources.source(secret)?);
                if how == How::Post { ClientAuth::Post(secret) } else { ClientAuth::Basic(secret) }
            }
            (None, Some(assertion)) => ClientAuth::Assertion(sources.source(assertion)?),
            // With PKCE, a client without a secret will do.
            (None, None) if self.kind == Kind::AuthorizationCode => ClientAuth::Public,
            _ => {
                let what = format!(
                    "a credential of kind {:?} needs either client_secret or client_assertion",
                    self.kind.word()
                );
                return Err(sources.place().error(at, what));
            }
        };
        Ok(TokenEndpoint::new(url, id, auth, sources.http(None)?))
    }

    fn need<'t, T>(
        &self,
        value: Option<&'t T>,
        key: &str,
        at: usize,
        sources: &Sources<'_>,
    ) -> Result<&'t T, ConfigError> {
        let kind = self.kind.word();
        let missing = || format!("a credential of kind {kind:?} needs {key}");
        value.ok_or_else(|| sources.place().error(at, missing()))
    }

    fn only_what_fits(&self, sources: &Sources<'_>) -> Result<(), ConfigError> {
        let at = |value: &Option<Spanned<String>>| value.as_ref().map(|value| value.span().start);
        let given = [
            ("prefix", at(&self.prefix)),
            ("user", at(&self.user)),
            ("from", at(&self.from)),
            ("cache", self.cache.as_ref().map(|value| value.span().start)),
            (
                "authorization_endpoint",
                self.authorization_endpoint.as_ref().map(|value| value.span().start),
            ),
            ("token_endpoint", self.token_endpoint.as_ref().map(|value| value.span().start)),
            ("issuer", at(&self.issuer)),
            ("client_id", at(&self.client_id)),
            ("client_secret", at(&self.client_secret)),
            ("client_assertion", at(&self.client_assertion)),
            ("client_auth", self.client_auth.as_ref().map(|value| value.span().start)),
            ("scope", at(&self.scope)),
            ("resource", at(&self.resource)),
            ("audience", at(&self.audience)),
            ("subject", self.subject.as_ref().map(|value| value.span().start)),
        ];
        for (key, at) in given {
            if let Some(at) = at
                && !self.kind.takes(key)
            {
                let what = format!("{key} means nothing for kind = {:?}", self.kind.word());
                return Err(sources.place().error(at, what));
            }
        }
        Ok(())
    }
}
