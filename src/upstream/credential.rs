//! The credential that the gateway adds to a call: the secret that never reaches a laptop.
//!
//! What it is made of is fetched, kept for a bounded time, and made anew when an MCP server answers
//! 401: see [`super::secret`]. What is ready is a header's value; using it takes no lock and copies
//! no text. A credential that cannot be had refuses the call: nothing goes out without it, and no
//! call goes out with one that is past its bound.
//!
//! | kind | what is sent |
//! |---|---|
//! | header | a text before a secret |
//! | basic | a user and a secret (RFC 7617) |
//! | client credentials | a token for the gateway itself (RFC 6749, 4.4) |
//! | on behalf | a token for the call's subject, on this server's word: [`behalf`] |
//! | authorization code | a token that the call's subject agreed to: [`consent`] |

pub mod behalf;
pub mod consent;
mod each;

use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use reqwest::header::{HeaderName, HeaderValue};

use self::behalf::{Assertions, Behalf};
use self::consent::{Consenting, Consents};
use self::each::{How, Tokens};
use super::secret::kept::{Fetch, Fetched, Kept, Life};
use super::secret::{SecretError, SecretSource};
use super::token::{TokenEndpoint, TokenError};
use crate::types::{Secret, Subject, SubjectId};

/// A credential that cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CredentialError {
    /// Its secret cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A token cannot be had.
    #[error("{name}: {error}")]
    Token {
        /// The credential.
        name: Arc<str>,
        /// Why not.
        #[source]
        error: TokenError,
    },
    /// What is made of it holds bytes that no HTTP header may.
    #[error("{name} makes a header that no header may be")]
    NotAHeader {
        /// The credential.
        name: Arc<str>,
    },
}

impl CredentialError {
    /// Whether the user can mend it, by agreeing.
    pub fn wants_consent(&self) -> bool {
        matches!(self, Self::Token { error: TokenError::NoConsent, .. })
    }
}

/// A header that carries a secret. Cloning it shares what is kept.
#[derive(Clone)]
pub struct Credential {
    header: HeaderName,
    name: Arc<str>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// One for everybody.
    One(Arc<Kept<Maker>>),
    /// One for each subject.
    Each(Arc<Tokens>),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Credential {
    /// A header with a secret in it, behind `prefix`.
    pub fn header(header: HeaderName, prefix: &str, from: SecretSource) -> Self {
        let name = format!("header {header} from {}", from.name());
        Self::one(header, name, Parts::Header { prefix: prefix.to_owned(), from })
    }

    /// A user and a secret.
    pub fn basic(header: HeaderName, user: &str, from: SecretSource) -> Self {
        let name = format!("basic {user} from {}", from.name());
        Self::one(header, name, Parts::Basic { user: user.to_owned(), from })
    }

    /// A token for the gateway itself; `parameters` are scope, resource and audience.
    pub fn client_credentials(
        header: HeaderName,
        endpoint: TokenEndpoint,
        parameters: Vec<(&'static str, String)>,
    ) -> Self {
        let name = format!("client-credentials of {}", endpoint.client_id());
        Self::one(header, name, Parts::Client { endpoint, parameters })
    }

    /// A token for each subject.
    pub fn behalf(header: HeaderName, behalf: Behalf) -> Self {
        let name: Arc<str> = behalf.name().into();
        let how = How::Vouched(Box::new(behalf), OnceLock::new());
        Self { header, kind: Kind::Each(Arc::new(Tokens::new(how, Arc::clone(&name)))), name }
    }

    /// A token that each subject agrees to.
    pub fn consented(header: HeaderName, consenting: Consenting) -> Self {
        let name: Arc<str> = consenting.name().into();
        let how = How::Consented(Box::new(consenting), OnceLock::new());
        Self { header, kind: Kind::Each(Arc::new(Tokens::new(how, Arc::clone(&name)))), name }
    }

    fn one(header: HeaderName, name: String, parts: Parts) -> Self {
        let name: Arc<str> = name.into();
        let kind = Kind::One(Kept::new(Maker { name: Arc::clone(&name), parts }));
        Self { header, name, kind }
    }

    /// The header's name.
    pub fn header_name(&self) -> &HeaderName {
        &self.header
    }

    /// What to call it: its kind and source, and nothing of the secret.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Fetches what is everybody's, so that what is wrong with it is known before the first call.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub async fn try_now(&self) -> Result<(), CredentialError> {
        match &self.kind {
            Kind::One(kept) => kept.get().await.map(drop),
            Kind::Each(_) => Ok(()),
        }
    }

    /// Whether somebody has to vouch for subjects before it can be had.
    pub fn needs_vouching(&self) -> bool {
        matches!(&self.kind, Kind::Each(tokens) if matches!(tokens.how(), How::Vouched(..)))
    }

    /// Gives it who vouches for subjects, if it needs somebody to.
    pub fn vouched_for_by(&self, assertions: &Arc<dyn Assertions>) {
        if let Kind::Each(tokens) = &self.kind
            && let How::Vouched(_, known) = tokens.how()
        {
            // The first one stays.
            let _there = known.set(Arc::clone(assertions));
        }
    }

    /// Who has to be asked before it can be had, if somebody has to be.
    pub fn consenting(&self) -> Option<&Consenting> {
        match &self.kind {
            Kind::Each(tokens) => match tokens.how() {
                How::Consented(consenting, _) => Some(consenting),
                How::Vouched(..) => None,
            },
            Kind::One(_) => None,
        }
    }

    /// Gives it what users agreed to.
    pub fn kept_by(&self, consents: &Arc<dyn Consents>) {
        if let Kind::Each(tokens) = &self.kind
            && let How::Consented(_, known) = tokens.how()
        {
            let _there = known.set(Arc::clone(consents));
        }
    }

    /// Forgets the token of a subject.
    pub fn forget(&self, subject: &SubjectId) {
        if let Kind::Each(tokens) = &self.kind {
            tokens.forget(subject);
        }
    }

    /// A word for what kind it is of.
    pub fn kind(&self) -> &str {
        self.name.split(' ').next().unwrap_or_default()
    }

    /// The header's value for a call of a subject, marked sensitive so that nothing prints it.
    ///
    /// # Errors
    /// [`CredentialError`]; the call must then not go out.
    pub async fn value(&self, subject: &Subject) -> Result<HeaderValue, CredentialError> {
        match &self.kind {
            Kind::One(kept) => kept.get().await,
            Kind::Each(tokens) => tokens.of(subject).get().await,
        }
    }

    /// Makes the value anew because the MCP server refused `used`; says whether there is another
    /// one now. Asked again within ten seconds, it does nothing.
    pub async fn renew(&self, subject: &Subject, used: &HeaderValue) -> bool {
        match &self.kind {
            Kind::One(kept) => kept.renew(used).await,
            Kind::Each(tokens) => tokens.of(subject).renew(used).await,
        }
    }
}

/// A credential's name, or a word for none.
pub(super) fn name(credential: Option<&Credential>) -> Arc<str> {
    credential.map_or_else(|| "none is configured".into(), |known| Arc::clone(known.name()))
}

/// Makes the value of a header that is everybody's.
struct Maker {
    name: Arc<str>,
    parts: Parts,
}

enum Parts {
    Header { prefix: String, from: SecretSource },
    Basic { user: String, from: SecretSource },
    Client { endpoint: TokenEndpoint, parameters: Vec<(&'static str, String)> },
}

impl Fetch for Maker {
    type Value = HeaderValue;
    type Error = CredentialError;

    fn fetch(&self, _anew: bool) -> Fetched<'_, Self> {
        Box::pin(self.make())
    }

    fn same(one: &HeaderValue, other: &HeaderValue) -> bool {
        one == other
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Maker {
    async fn make(&self) -> Result<(HeaderValue, Life), CredentialError> {
        match &self.parts {
            Parts::Header { prefix, from } => {
                let secret = from.fetch().await?;
                let text = Secret::new(format!("{prefix}{}", secret.expose()));
                Ok((sensitive(&text, &self.name)?, from.life()))
            }
            Parts::Basic { user, from } => {
                let secret = from.fetch().await?;
                let pair = Secret::new(format!("{user}:{}", secret.expose()));
                let pair = base64::engine::general_purpose::STANDARD.encode(pair.expose());
                Ok((sensitive(&Secret::new(format!("Basic {pair}")), &self.name)?, from.life()))
            }
            Parts::Client { endpoint, parameters } => {
                let mut grant = vec![("grant_type", "client_credentials")];
                grant.extend(parameters.iter().map(|(name, value)| (*name, value.as_str())));
                let asked = endpoint.ask(&grant).await;
                bearer(asked, &self.name)
            }
        }
    }
}

fn bearer(
    asked: Result<(Secret, Life), TokenError>,
    name: &Arc<str>,
) -> Result<(HeaderValue, Life), CredentialError> {
    let (token, life) =
        asked.map_err(|error| CredentialError::Token { name: Arc::clone(name), error })?;
    let text = Secret::new(format!("Bearer {}", token.expose()));
    Ok((sensitive(&text, name)?, life))
}

fn sensitive(text: &Secret, name: &Arc<str>) -> Result<HeaderValue, CredentialError> {
    let mut value = HeaderValue::from_str(text.expose())
        .map_err(|_| CredentialError::NotAHeader { name: Arc::clone(name) })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;
