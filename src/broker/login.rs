//! The login that many processes share: one user, one issuer, one server per home.
//!
//! A rotating refresh token may be used once; using an old one again ends the whole login at many
//! issuers. So a refresh happens under the home's lock, after reading the tokens again, and its
//! answer is on disk before anybody uses it. What remains is a crash between the issuer's answer
//! and our disk: the next refresh is then refused, and the user logs in again.

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::credentials::{Keyring, OsKeyring, StorageKind, TokenStore, Tokens};
use super::device::{Answer, BrowserPrompt, DevicePrompt, IssuerClient, VerifiedToken};
use super::grant::IdentitySource;
use super::home::{Home, HomeError};
use super::server::{IssuerInfo, ServerInfo};
use crate::identity::private_file;
use crate::types::{Clock, Identity, Secret};

pub use error::LoginError;

mod error;
mod recent;

const FILE: &str = "login.json";
const VERSION: u32 = 1;

/// An identity token is renewed when less than this is left of it, in seconds.
const MARGIN: i64 = 60;

/// An identity token with less than this left of it, in seconds, may be over when it arrives.
const LAST: i64 = 5;

/// What is known of a login without asking anybody.
#[derive(Clone, Debug, Serialize)]
pub struct LoginStatus {
    /// The server it is for.
    pub server: String,
    /// The issuer's name at that server.
    pub issuer_name: String,
    /// The issuer's URL.
    pub issuer: String,
    /// Who the identity token says this is.
    pub identity: Identity,
    /// When the login was made, in seconds since 1970.
    pub logged_in: i64,
    /// When the identity token expires; past or future.
    pub id_token_expires: i64,
    /// Whether it renews itself.
    pub renewable: bool,
    /// Where the tokens are kept.
    pub storage: StorageKind,
}

/// What a logout could do beyond deleting the tokens here.
#[derive(Debug)]
pub enum Revocation {
    /// The issuer confirmed that the refresh token is dead.
    Revoked,
    /// The issuer offers no way to revoke, or gave nothing to revoke.
    NotOffered,
    /// The issuer could not be told; the refresh token lives on there until it expires.
    Failed(LoginError),
}

/// A handle on the login in a home. Cheap to clone; as many as wanted, in any number of processes.
#[derive(Clone)]
pub struct Login {
    shared: Arc<Shared>,
}

struct Shared {
    home: Home,
    state: LoginState,
    store: TokenStore,
    clock: Arc<dyn Clock>,
    /// The newest tokens this handle has seen.
    seen: RwLock<Option<Tokens>>,
}

/// `login.json`. Nothing in it is secret.
#[derive(Clone, Serialize, Deserialize)]
struct LoginState {
    version: u32,
    server: ServerInfo,
    issuer: IssuerInfo,
    storage: StorageKind,
    logged_in: i64,
}

/// What a login needs.
pub struct LoginRequest<'a> {
    /// Where to keep it.
    pub home: &'a Home,
    /// The server to log in to.
    pub server: &'a ServerInfo,
    /// Which of its issuers.
    pub issuer: &'a IssuerInfo,
    /// How to keep the tokens.
    pub storage: StorageKind,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Login {
    /// Logs in with the device flow: `on_prompt` shows the user where to go, and the login is kept
    /// when this returns. A previous login in the same home is replaced.
    ///
    /// # Errors
    /// [`LoginError`]: denied, expired, cancelled, or what stood in the way.
    pub async fn device(
        request: LoginRequest<'_>,
        on_prompt: impl FnOnce(&DevicePrompt),
        cancel: impl Future<Output = ()>,
    ) -> Result<Self, LoginError> {
        Self::device_with(request, Arc::new(OsKeyring), on_prompt, cancel).await
    }

    /// Like [`Self::device`], with another keyring.
    ///
    /// # Errors
    /// As [`Self::device`].
    pub async fn device_with(
        request: LoginRequest<'_>,
        keyring: Arc<dyn Keyring>,
        on_prompt: impl FnOnce(&DevicePrompt),
        cancel: impl Future<Output = ()>,
    ) -> Result<Self, LoginError> {
        let (login, issuer) = Self::begin(request, keyring).await?;
        let answer = issuer.device_flow(on_prompt, cancel).await?;
        login.keep(answer).await
    }

    /// Logs in through a browser on this machine: `on_prompt` opens it, and the login is kept when
    /// this returns. A previous login in the same home is replaced.
    ///
    /// # Errors
    /// [`LoginError::NoBrowserFlow`] before anything was shown, where the issuer offers none; and as
    /// [`Self::device`].
    pub async fn browser(
        request: LoginRequest<'_>,
        on_prompt: impl FnOnce(&BrowserPrompt),
        cancel: impl Future<Output = ()>,
    ) -> Result<Self, LoginError> {
        let (login, issuer) = Self::begin(request, Arc::new(OsKeyring)).await?;
        let answer = issuer.browser_flow(on_prompt, cancel).await?;
        login.keep(answer).await
    }

    /// What comes before the user is asked for anything.
    async fn begin(
        request: LoginRequest<'_>,
        keyring: Arc<dyn Keyring>,
    ) -> Result<(Self, IssuerClient), LoginError> {
        let now = request.clock.now_seconds();
        let state = LoginState {
            version: VERSION,
            server: request.server.clone(),
            issuer: request.issuer.clone(),
            storage: request.storage,
            logged_in: now,
        };
        let login = Self::from_state(request.home.clone(), state, request.clock, keyring);
        login.shared.store.check().await?;
        let issuer = IssuerClient::discover(request.issuer, request.home, now).await?;
        Ok((login, issuer))
    }

    async fn keep(self, answer: Answer) -> Result<Self, LoginError> {
        let shared = &self.shared;
        let tokens = Tokens::from_answer(answer.id_token?, answer.refresh_token, shared.now());
        let lock = shared.home.lock().await?;
        // Tokens before state: between the two, the old state meets tokens it cannot open or that
        // name another issuer, and asks for a login. Never does an old state use new tokens.
        shared.store.save(tokens.clone()).await?;
        shared.home.write_json(FILE, &shared.state)?;
        drop(lock);
        shared.remember(tokens);
        Ok(self)
    }

    /// The login in a home, if there is one. Reads only what is not secret.
    ///
    /// # Errors
    /// [`LoginError::Home`] when the home is damaged or open to others.
    pub fn load(home: &Home, clock: Arc<dyn Clock>) -> Result<Option<Self>, LoginError> {
        Self::load_with(home, clock, Arc::new(OsKeyring))
    }

    /// Like [`Self::load`], with another keyring.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(
        home: &Home,
        clock: Arc<dyn Clock>,
        keyring: Arc<dyn Keyring>,
    ) -> Result<Option<Self>, LoginError> {
        let Some(state) = home.read_json::<LoginState>(FILE)? else {
            return Ok(None);
        };
        if state.version != VERSION {
            let why = "this login was made by another version of mcpx".to_owned();
            return Err(LoginError::LoginNeeded { why });
        }
        Ok(Some(Self::from_state(home.clone(), state, clock, keyring)))
    }

    fn from_state(
        home: Home,
        state: LoginState,
        clock: Arc<dyn Clock>,
        keyring: Arc<dyn Keyring>,
    ) -> Self {
        let server = state.server.server.as_str();
        let store = TokenStore::new(home.clone(), state.storage, server, keyring);
        Self { shared: Arc::new(Shared { home, state, store, clock, seen: RwLock::new(None) }) }
    }

    /// The server that this login is for, as it described itself then.
    pub fn server(&self) -> &ServerInfo {
        &self.shared.state.server
    }

    /// The issuer that this login is from.
    pub fn issuer(&self) -> &IssuerInfo {
        &self.shared.state.issuer
    }

    /// An identity token with time left; renewed if need be, by one process for all.
    ///
    /// # Errors
    /// [`LoginError::LoginNeeded`] when only the user can help, [`LoginError::Network`] when later
    /// may do, and the rest.
    pub async fn id_token(&self) -> Result<Secret, LoginError> {
        let shared = &self.shared;
        if let Some(token) = shared.fresh() {
            return Ok(token);
        }
        // A task of its own: a caller that goes away between the issuer's answer and the disk
        // would take the only good refresh token with it.
        let worker = Arc::clone(shared);
        let work = tokio::spawn(async move { worker.renew().await });
        work.await.unwrap_or_else(|_| {
            Err(LoginError::LoginNeeded { why: "the renewal was interrupted".to_owned() })
        })
    }

    /// What is known of this login, from disk.
    ///
    /// # Errors
    /// [`LoginError`] when the tokens cannot be read.
    pub async fn status(&self) -> Result<LoginStatus, LoginError> {
        let shared = &self.shared;
        let tokens = shared.stored().await?;
        let state = &shared.state;
        Ok(LoginStatus {
            server: state.server.server.to_string(),
            issuer_name: state.issuer.name.clone(),
            issuer: state.issuer.url.clone(),
            identity: tokens.identity.clone(),
            logged_in: state.logged_in,
            id_token_expires: tokens.expires,
            renewable: tokens.refresh_token.is_some(),
            storage: state.storage,
        })
    }

    /// Ends the login: revokes the refresh token at the issuer if that offers it, and deletes
    /// everything here in any case.
    ///
    /// # Errors
    /// [`LoginError`] when something here cannot be deleted.
    pub async fn logout(self) -> Result<Revocation, LoginError> {
        let shared = &self.shared;
        let _lock = shared.home.lock().await?;
        let refresh_token = match shared.store.load().await {
            Ok(tokens) => tokens.and_then(|tokens| tokens.refresh_token.clone()),
            Err(_) => None,
        };
        let revocation = match refresh_token {
            None => Revocation::NotOffered,
            Some(token) => match shared.revoke(&token).await {
                Ok(true) => Revocation::Revoked,
                Ok(false) => Revocation::NotOffered,
                Err(error) => Revocation::Failed(error),
            },
        };
        private_file::remove(&shared.home.file(FILE)).map_err(HomeError::from)?;
        IssuerClient::forget(&shared.home)?;
        shared.store.clear().await?;
        Ok(revocation)
    }
}

impl IdentitySource for Login {
    fn id_token(&self) -> BoxFuture<'_, Result<Secret, LoginError>> {
        Box::pin(Self::id_token(self))
    }

    fn recent_id_token(&self, age: i64) -> BoxFuture<'_, Result<Secret, LoginError>> {
        Box::pin(self.recent(age))
    }
}

impl Shared {
    async fn renew(&self) -> Result<Secret, LoginError> {
        let _lock = self.home.lock().await?;
        // Whoever had the lock before may have done it already.
        let tokens = self.stored().await?;
        if let Some(token) = self.fresh() {
            return Ok(token);
        }
        let Some(refresh_token) = &tokens.refresh_token else {
            let why = "the identity token expired, and the issuer gave nothing to renew it with";
            return Err(LoginError::LoginNeeded { why: why.to_owned() });
        };
        match self.refresh(&tokens, refresh_token).await {
            Err(error) if error.is_retryable() && tokens.expires > self.now() + LAST => {
                tracing::warn!(%error, "the identity token could not be renewed yet");
                Ok(tokens.id_token.clone())
            }
            result => result,
        }
    }

    /// Called with the lock held and `old` just read.
    async fn refresh(&self, old: &Tokens, refresh_token: &Secret) -> Result<Secret, LoginError> {
        let (info, now) = (&self.state.issuer, self.now());
        let issuer = IssuerClient::discover_or_recall(info, &self.home, now).await?;
        let Answer { refresh_token: rotated, id_token } = issuer.refresh(refresh_token).await?;
        let next = rotated.or_else(|| Some(refresh_token.clone()));
        let checked = id_token.and_then(|token| self.same_subject(old, token));
        let (tokens, result) = match checked {
            Ok(token) => {
                let tokens = Tokens::from_answer(token, next, self.now());
                let id_token = tokens.id_token.clone();
                (tokens, Ok(id_token))
            }
            // The old refresh token is dead all the same: keep its successor.
            Err(error) => {
                let result = self.without_new_identity(old, error);
                (Tokens { refresh_token: next, ..old.clone() }, result)
            }
        };
        self.store.save(tokens.clone()).await?;
        self.remember(tokens);
        result
    }

    /// OpenID Connect Core, section 12.2, lets an issuer renew without a new identity token. Then the
    /// old one serves as long as it lasts, and after that the user has to log in: nothing else that
    /// the issuer gives (an access token, user info) is signed proof of who they are for the server.
    fn without_new_identity(&self, old: &Tokens, error: LoginError) -> Result<Secret, LoginError> {
        match error {
            LoginError::NoIdToken { .. } if old.expires > self.now() + LAST => {
                Ok(old.id_token.clone())
            }
            LoginError::NoIdToken { issuer } => {
                let why = format!(
                    "the identity token expired, and {issuer} gives no new one when it renews a login"
                );
                Err(LoginError::LoginNeeded { why })
            }
            error => Err(error),
        }
    }

    /// OpenID Connect Core, section 12.2: a refreshed token names the same user.
    fn same_subject(&self, old: &Tokens, new: VerifiedToken) -> Result<VerifiedToken, LoginError> {
        if new.identity.issuer == old.identity.issuer && new.identity.sub == old.identity.sub {
            return Ok(new);
        }
        let why = "it names another user than the one who logged in".to_owned();
        Err(LoginError::IdToken { issuer: self.state.issuer.url.clone(), why })
    }

    async fn revoke(&self, token: &Secret) -> Result<bool, LoginError> {
        let (info, now) = (&self.state.issuer, self.now());
        let issuer = IssuerClient::discover_or_recall(info, &self.home, now).await?;
        issuer.revoke(token).await
    }

    async fn stored(&self) -> Result<Tokens, LoginError> {
        let needed = |why: &str| LoginError::LoginNeeded { why: why.to_owned() };
        let tokens = self.store.load().await?.ok_or_else(|| needed("the tokens are gone"))?;
        if tokens.identity.issuer != self.state.issuer.url {
            return Err(needed("the tokens are from another issuer"));
        }
        self.remember(tokens.clone());
        Ok(tokens)
    }

    fn remember(&self, tokens: Tokens) {
        *self.seen.write().unwrap_or_else(PoisonError::into_inner) = Some(tokens);
    }

    fn fresh(&self) -> Option<Secret> {
        let now = self.now();
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        seen.as_ref().filter(|tokens| tokens.is_fresh(now)).map(|tokens| tokens.id_token.clone())
    }

    fn now(&self) -> i64 {
        self.clock.now_seconds()
    }
}

impl Tokens {
    fn from_answer(token: VerifiedToken, refresh_token: Option<Secret>, now: i64) -> Self {
        Self {
            id_token: token.token,
            obtained: now,
            // A clock here that is behind must not make the token look good after its end.
            expires: token.expires.min(now.saturating_add(token.expires - token.issued)),
            refresh_token,
            identity: token.identity,
        }
    }

    /// Tokens that live for minutes are used for three quarters of their life, so that an issuer
    /// with very short ones is not asked for every request.
    fn is_fresh(&self, now: i64) -> bool {
        let life = self.expires.saturating_sub(self.obtained);
        self.expires.saturating_sub(now) > MARGIN.min(life / 4)
    }
}
