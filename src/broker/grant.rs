//! An identity token and a key for a grant token (RFC 8693), renewed in time.
//!
//! The token is bound to the broker's certificate (RFC 8705) where the server offers that, and
//! else, or where the certificate does not reach the server, to a key that signs a proof for each
//! request (RFC 9449): see `hold`.

use std::sync::{Arc, PoisonError, RwLock};

use axum::http::HeaderMap;
use futures_util::future::BoxFuture;
use reqwest::StatusCode;
use serde::Deserialize;
use url::Url;

use super::hold::{Hold, USE_NONCE};
use super::login::LoginError;
use super::server::ServerInfo;
use crate::identity::dpop::DpopKey;
use crate::identity::fetch::{self, FetchError};
use crate::identity::key::KeyError;
use crate::types::{Clock, GrantId, Secret, SessionId};

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// After a renewal failed while the old token still lives, wait this long before the next.
const RENEWAL_PAUSE: i64 = 5;

/// Something that can prove who the user or job is: a login, or a CI job's own token.
pub trait IdentitySource: Send + Sync {
    /// A current identity token.
    fn id_token(&self) -> BoxFuture<'_, Result<Secret, LoginError>>;

    /// One that was obtained at most `age` seconds ago, where that can be had. What is shown anew
    /// each time, as a job's token is, needs no more than [`Self::id_token`].
    fn recent_id_token(&self, age: i64) -> BoxFuture<'_, Result<Secret, LoginError>> {
        let _any_age = age;
        self.id_token()
    }

    /// What that token is.
    fn kind(&self) -> TokenKind {
        TokenKind::Identity
    }

    /// The key that grants are bound to, and nothing else: none where it may as well be one of
    /// each grant's own, or a certificate.
    ///
    /// # Errors
    /// [`KeyError`] when none can be made or read.
    fn key(&self) -> Result<Option<DpopKey>, KeyError> {
        Ok(None)
    }
}

/// What is exchanged for a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// An identity token of an issuer that people log in with.
    Identity,
    /// A job's own token.
    Job {
        /// The trust rule to take it under; without, the server finds the one that fits.
        rule: Option<String>,
    },
}

/// A grant token and what it is for.
#[derive(Clone)]
pub struct GrantToken {
    /// The token: useless without the key it is bound to.
    pub token: Secret,
    /// Its life in seconds, from when it was received.
    pub expires_in: i64,
    /// The grant behind it; none for the API.
    pub grant: Option<GrantId>,
    /// The session that its calls belong to; none for the API.
    pub session: Option<SessionId>,
}

/// No grant token could be had.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The identity token is missing: log in, or wait for the network.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The server refused.
    #[error("{description}")]
    Refused {
        /// OAuth's error name, such as `invalid_grant` or `access_denied`.
        error: String,
        /// The server's sentence.
        description: String,
        /// mcpx's own error code, such as `needs_approval`.
        code: Option<String>,
        /// What to do next.
        hint: Option<String>,
    },
    /// Nobody answered; the same may work later.
    #[error("the server {server} does not answer")]
    Network {
        /// The server.
        server: String,
        /// What went wrong.
        #[source]
        source: FetchError,
    },
    /// The server answered, but not as a token endpoint does.
    #[error("the server {server} answered HTTP {status} with something else than a token: {why}")]
    Protocol {
        /// The server.
        server: String,
        /// The HTTP status.
        status: u16,
        /// What is wrong.
        why: String,
    },
    /// The proof could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl ExchangeError {
    /// Whether the same request may work later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Login(error) => error.is_retryable(),
            Self::Network { .. } => true,
            Self::Protocol { status, .. } => *status == 429 || *status >= 500,
            Self::Refused { .. } | Self::Key(_) => false,
        }
    }
}

/// Exchanges an identity token for a grant token bound to what `hold` holds. `renew` is the grant token that
/// the new one continues; `reason` is the user's own sentence on why they ask.
///
/// # Errors
/// [`ExchangeError`], but never [`ExchangeError::Login`].
///
/// The server's nonce and a certificate that did not arrive are learned from its answer, which
/// `hold` knows then: [`Hold::learn`].
#[expect(clippy::too_many_arguments, reason = "each is one field of one request")]
pub async fn exchange(
    server: &ServerInfo,
    http: &reqwest::Client,
    id_token: &Secret,
    kind: &TokenKind,
    hold: &Hold,
    resource: &str,
    renew: Option<&Secret>,
    reason: Option<&str>,
    now: i64,
) -> Result<GrantToken, ExchangeError> {
    let mut form = vec![
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", id_token.expose()),
        ("resource", resource),
    ];
    match kind {
        TokenKind::Identity => form.push(("subject_token_type", ID_TOKEN)),
        TokenKind::Job { rule } => {
            form.push(("subject_token_type", JWT));
            form.extend(rule.as_deref().map(|rule| ("mcpx_trust", rule)));
        }
    }
    form.extend(reason.map(|reason| ("mcpx_reason", reason)));
    form.extend(renew.map(|token| ("mcpx_grant", token.expose())));
    let network = |source| ExchangeError::Network { server: server.server.to_string(), source };
    let ask = async || {
        let mut request = http.post(server.token_endpoint.clone()).form(&form);
        let (proof, asked) = hold.proof("POST", &server.token_endpoint, None, now)?;
        if let Some(proof) = proof {
            request = request.header("DPoP", proof);
        }
        let response = request.send().await.map_err(|e| network(FetchError::Network(e)))?;
        Ok::<_, ExchangeError>((response, asked))
    };
    let (mut response, mut asked) = ask().await?;
    hold.nonce(response.headers());
    if response.status() == StatusCode::BAD_REQUEST {
        // Its reason decides whether the same may be asked in another way.
        let head = response.headers().clone();
        let read = fetch::read_body(response).await.map_err(network)?;
        let code = serde_json::from_slice::<Refusal>(&read).ok().and_then(|told| told.mcpx_code);
        if hold.learn(code.as_deref().unwrap_or_default(), &head) {
            (response, asked) = ask().await?;
            hold.nonce(response.headers());
        } else {
            let mut again = axum::http::Response::new(read);
            *again.status_mut() = StatusCode::BAD_REQUEST;
            response = again.into();
        }
    }
    let status = response.status();
    let protocol = |why: String| ExchangeError::Protocol {
        server: server.server.to_string(),
        status: status.as_u16(),
        why,
    };
    let body = match fetch::read_body(response).await {
        Ok(body) => body,
        Err(FetchError::TooLarge) => return Err(protocol("the answer is too large".to_owned())),
        Err(error) => return Err(network(error)),
    };
    if status == StatusCode::OK {
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|error| protocol(error.to_string()))?;
        // A token of the other kind would be good without what this side can show.
        if !answer.token_type.eq_ignore_ascii_case(asked) {
            return Err(protocol(format!("token_type {:?}", answer.token_type)));
        }
        if answer.expires_in <= 0 {
            return Err(protocol("the token is already expired".to_owned()));
        }
        return Ok(GrantToken {
            token: answer.access_token,
            expires_in: answer.expires_in,
            grant: answer.mcpx_grant,
            session: answer.mcpx_session,
        });
    }
    match serde_json::from_slice::<Refusal>(&body) {
        Ok(refusal) => Err(ExchangeError::Refused {
            description: refusal.error_description.unwrap_or_else(|| refusal.error.clone()),
            error: refusal.error,
            code: refusal.mcpx_code,
            hint: refusal.mcpx_hint,
        }),
        Err(error) => Err(protocol(error.to_string())),
    }
}

#[derive(Deserialize)]
struct Answer {
    access_token: Secret,
    token_type: String,
    expires_in: i64,
    #[serde(default)]
    mcpx_grant: Option<GrantId>,
    #[serde(default)]
    mcpx_session: Option<SessionId>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    error_description: Option<String>,
    mcpx_code: Option<String>,
    mcpx_hint: Option<String>,
}

/// The headers that authorise one request.
pub struct Authorization {
    /// Value of `Authorization`: `DPoP <token>` or `Bearer <token>`. A secret.
    pub authorization: Secret,
    /// Value of `DPoP`: good for this one request only. None where the connection's certificate
    /// does.
    pub proof: Option<String>,
}

/// Keeps one grant alive for one resource: a connection's URL, or the API.
///
/// The key is made here and dies with it, so every source is a grant of its own; except that of a
/// job whose commands have to share one ([`IdentitySource::key`]).
pub struct GrantSource {
    server: ServerInfo,
    http: reqwest::Client,
    identity: Arc<dyn IdentitySource>,
    resource: String,
    reason: Option<String>,
    hold: Hold,
    clock: Arc<dyn Clock>,
    live: RwLock<Option<Live>>,
    /// Held while renewing, so that many requests make one exchange.
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Live {
    grant: GrantToken,
    renew_at: i64,
    expires_at: i64,
}

impl GrantSource {
    /// A source that has not asked for anything yet. `resource` is the connection's URL or
    /// [`ServerInfo::api_resource`].
    ///
    /// # Errors
    /// [`ExchangeError`] when no key or HTTP client can be made.
    pub fn new(
        server: ServerInfo,
        identity: Arc<dyn IdentitySource>,
        resource: impl Into<String>,
        reason: Option<String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ExchangeError> {
        let network = |source| ExchangeError::Network { server: server.server.to_string(), source };
        let hold = match identity.key()? {
            Some(key) => Hold::of_key(key),
            None => Hold::new(&server)?,
        };
        let identity_shown = hold.identity().map_err(|error| network(FetchError::Client(error)))?;
        let http = fetch::client_for_as(&server.token_endpoint, identity_shown.as_ref())
            .map_err(network)?;
        Ok(Self {
            server,
            http,
            identity,
            resource: resource.into(),
            reason,
            hold,
            clock,
            live: RwLock::new(None),
            renewing: tokio::sync::Mutex::new(()),
        })
    }

    /// The grant token, renewed when less than a third of its life is left.
    ///
    /// # Errors
    /// [`ExchangeError`]. While the old token lives, a renewal that failed only for want of an
    /// answer is no error.
    pub async fn token(&self) -> Result<Secret, ExchangeError> {
        Ok(self.grant().await?.token)
    }

    /// Like [`Self::token`], with the grant's and the session's id.
    ///
    /// # Errors
    /// As [`Self::token`].
    pub async fn grant(&self) -> Result<GrantToken, ExchangeError> {
        if let Some(grant) = self.fresh() {
            return Ok(grant);
        }
        let _one_at_a_time = self.renewing.lock().await;
        if let Some(grant) = self.fresh() {
            return Ok(grant);
        }
        let old = self.current().filter(|live| live.expires_at > self.clock.now_seconds());
        match self.ask(old.as_ref()).await {
            Ok(live) => {
                let grant = live.grant.clone();
                self.set(Some(live));
                Ok(grant)
            }
            Err(error) => match old {
                Some(mut live) if error.is_retryable() => {
                    tracing::warn!(%error, "the grant could not be renewed yet");
                    live.renew_at = self.clock.now_seconds() + RENEWAL_PAUSE;
                    let grant = live.grant.clone();
                    self.set(Some(live));
                    Ok(grant)
                }
                _ => Err(error),
            },
        }
    }

    /// Renews the grant in time, for as long as there is one. Asks for none: once it is over, that
    /// is for whoever sends the next request.
    pub(super) async fn keep(&self) {
        // The end of the token for which the server gives no other.
        let mut last = None;
        loop {
            let now = self.clock.now_seconds();
            let due = self.current().filter(|live| {
                live.renew_at <= now && live.expires_at > now && last != Some(live.expires_at)
            });
            if let Some(old) = due
                && let Err(error) = self.grant().await
                && !error.is_retryable()
            {
                tracing::warn!(%error, "the grant is not renewed any more");
                last = Some(old.expires_at);
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }

    /// Forgets the token, so that the next request asks again: for when the server says that it is
    /// no longer good.
    pub fn forget(&self, token: &Secret) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if live.as_ref().is_some_and(|live| live.grant.token.matches(token.expose())) {
            *live = None;
        }
    }

    /// What the TLS client that sends requests must show; nothing where proofs do.
    ///
    /// # Errors
    /// What the HTTP library says of it.
    pub fn identity(&self) -> Result<Option<reqwest::Identity>, reqwest::Error> {
        self.hold.identity()
    }

    /// What is held: see [`Hold`].
    pub fn hold(&self) -> &Hold {
        &self.hold
    }

    /// Learns from a refusal how the server wants the same request. Says whether to send it again;
    /// [`Self::grant`] then gives the token to send it with.
    pub fn learn(&self, code: &str, headers: &HeaderMap, token: &Secret) -> bool {
        let learned = self.hold.learn(code, headers);
        if learned && code != USE_NONCE {
            self.forget(token);
        }
        learned
    }

    /// The headers for one request with this token.
    ///
    /// # Errors
    /// [`ExchangeError::Key`] when the proof cannot be signed.
    pub fn authorize(
        &self,
        method: &str,
        url: &Url,
        token: &Secret,
    ) -> Result<Authorization, ExchangeError> {
        let now = self.clock.now_seconds();
        let (proof, scheme) = self.hold.proof(method, url, Some(token.expose()), now)?;
        let authorization = Secret::new(format!("{scheme} {}", token.expose()));
        Ok(Authorization { authorization, proof })
    }

    async fn ask(&self, old: Option<&Live>) -> Result<Live, ExchangeError> {
        let id_token = match old {
            None => self.identity.id_token().await?,
            // A renewal is to find out what the issuer says of its user now. Processes that renew
            // at about the same time share an answer.
            Some(live) => self.identity.recent_id_token(live.grant.expires_in / 3).await?,
        };
        let now = self.clock.now_seconds();
        let renew = old.map(|live| &live.grant.token);
        let grant = exchange(
            &self.server,
            &self.http,
            &id_token,
            &self.identity.kind(),
            &self.hold,
            &self.resource,
            renew,
            self.reason.as_deref(),
            now,
        )
        .await?;
        let life = grant.expires_in;
        let after = |seconds| now.saturating_add(seconds);
        Ok(Live { renew_at: after(life - life / 3), expires_at: after(life), grant })
    }

    fn current(&self) -> Option<Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fresh(&self) -> Option<GrantToken> {
        let now = self.clock.now_seconds();
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.as_ref()
            .filter(|live| now < live.renew_at && now < live.expires_at)
            .map(|live| live.grant.clone())
    }

    fn set(&self, live: Option<Live>) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = live;
    }
}

#[cfg(test)]
mod tests;
