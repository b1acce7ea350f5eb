//! MCP's own OAuth: a verified access token of the organisation's identity provider becomes a grant,
//! if policy lets its subject connect; and the metadata by which clients find that provider.
//!
//! A grant is on record before it exists, as in [`super::exchange`]. The tokens that one client gets
//! by refreshing are of one grant, and so of one session: a newer token renews it, with the groups
//! that the issuer vouches for now, up to `grants.max`; or ends it, if policy says no by then. A
//! revocation holds against the client, not only against the token that it has at the moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::future::BoxFuture;
use jiff::SignedDuration;
use serde_json::json;

use super::grants::GrantBook;
use super::revoke::cut;
use crate::audit::{Entry, Record, RecordError, Recorder};
use crate::gateway::Gateway;
use crate::gateway::oauth::{AccessGrants, Asked, NoGrant, WELL_KNOWN, Why};
use crate::gateway::ports::{Ended, Grants as _, LiveGrant, PortError};
use crate::gateway::records::recordable;
use crate::gateway::slots::Slots;
use crate::identity::access::AccessClaims;
use crate::mask::Masker;
use crate::policy::{Connect, Facts, PolicySet, Scope};
use crate::store::grants::GrantRow;
use crate::store::oauth::AccessKey;
use crate::store::{Store, StoreError};
use crate::types::{Clock, GrantId, RandomError, SessionId, Subject, Timestamp, sha256};

/// Tokens whose grant is remembered.
const KNOWN: usize = 8192;
/// How many clients may get a grant at the same time; those of one client never do.
const TURNS: usize = 16;

/// Where access tokens become grants.
pub struct AccessDesk {
    /// The database.
    pub store: Store,
    /// The audit log's writer.
    pub recorder: Recorder,
    /// The masking engine, for what the issuer wrote in its own words.
    pub masker: Arc<Masker>,
    /// The policies in force.
    pub policies: Arc<ArcSwap<PolicySet>>,
    /// Grants in use.
    pub grants: Arc<GrantBook>,
    /// Calls and streams that are open.
    pub slots: Arc<Slots>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// How long a grant can be renewed for.
    pub grant_max: std::time::Duration,
    /// What was found out before.
    pub known: KnownTokens,
}

/// Tokens and their grants, by the token's hash. A grant's end is not here but with the grant.
#[derive(Default)]
pub struct KnownTokens {
    grants: Mutex<HashMap<[u8; 32], (GrantId, i64)>>,
    turns: [tokio::sync::Mutex<()>; TURNS],
}

impl KnownTokens {
    fn find(&self, hash: &[u8; 32]) -> Option<GrantId> {
        self.lock().get(hash).map(|(grant, _)| grant.clone())
    }

    fn forget(&self, hash: &[u8; 32]) {
        self.lock().remove(hash);
    }

    fn add(&self, claims: &AccessClaims, grant: GrantId, now: i64) {
        let mut grants = self.lock();
        if grants.len() >= KNOWN {
            grants.retain(|_, (_, until)| *until > now);
            // All alive: start over. It costs questions to the database, never a wrong answer.
            if grants.len() >= KNOWN {
                grants.clear();
            }
        }
        grants.insert(claims.hash, (grant, claims.until));
    }

    /// The turn of a client.
    fn turn(&self, key: AccessKey<'_>) -> &tokio::sync::Mutex<()> {
        let AccessKey { subject, connection, client, login } = key;
        let [first, ..] = sha256(format!("{subject} {connection} {client} {login}").as_bytes());
        let [turn, ..] = &self.turns;
        self.turns.get(usize::from(first) % TURNS).unwrap_or(turn)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], (GrantId, i64)>> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccessGrants for AccessDesk {
    fn grant<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, Result<LiveGrant, NoGrant>> {
        Box::pin(async move {
            if let Some(grant) = self.find(asked.claims).await? {
                return Ok(grant);
            }
            let now = self.clock.now();
            let identity = asked.claims.identity.clone();
            let subject = self.store.subject(identity, now).await?;
            let id = subject.id.clone();
            self.admit(asked, subject, now).await.map_err(|why| NoGrant { subject: Some(id), why })
        })
    }
}

impl AccessDesk {
    /// The grant of a token that was here before, unless the grant was too short for it.
    async fn find(&self, claims: &AccessClaims) -> Result<Option<LiveGrant>, PortError> {
        let Some(grant) = self.known.find(&claims.hash) else { return Ok(None) };
        let grant = self.grants.find(&grant).await?;
        let grant = grant.filter(|grant| grant.has_ended(self.clock.now()) != Some(Ended::Expired));
        if grant.is_none() {
            self.known.forget(&claims.hash);
        }
        Ok(grant)
    }

    async fn admit(
        &self,
        asked: Asked<'_>,
        subject: Subject,
        now: Timestamp,
    ) -> Result<LiveGrant, Why> {
        let Asked { claims, connection, scopes, source } = asked;
        if !scopes.iter().all(|scope| claims.scopes.contains(scope)) {
            return Err(Why::Scope);
        }
        let scope = Scope::default();
        let facts = Facts { now, source, grant_age_seconds: 0, reason: None, scope };
        let refused = match self.policies.load().may_connect(&subject, connection, &facts) {
            Ok(Connect::Allowed) => None,
            Ok(Connect::NeedsApproval(ask)) => Some(("needs_approval", Why::NeedsApproval(ask))),
            Err(denial) => Some(("policy_denied", Why::Denied(Box::new(denial)))),
        };
        let subject_id = subject.id.clone();
        let login = claims.login.as_deref().unwrap_or_default();
        let key = AccessKey { subject: &subject_id, connection, client: &claims.client, login };
        let _turn = self.known.turn(key).lock().await;
        if let Some(grant) = self.find(claims).await? {
            return Ok(grant);
        }
        let binding = binding(claims);
        let until = Timestamp::from_second(claims.until).map_err(|error| failed(&error))?;
        let held = self.store.access_grant(key, &binding, now).await?;
        if let Some((code, why)) = refused {
            // What policy refuses to renew ends at once; an older token says nothing of now.
            if let Some(held) = held.filter(|held| held.newest < claims.issued) {
                self.end(&held.id, code, now).await?;
            }
            return Err(why);
        }
        // Only after that: a grant that was revoked meanwhile is not held, and would be replaced.
        let (issued, since) = (claims.issued, claims.authenticated);
        if self.store.access_revoked(key, issued, since, now).await? {
            return Err(Why::Revoked);
        }
        let grant = match held {
            Some(held) if held.newest < issued => {
                let expires = until.min(held.ends_at);
                let (grant, subject_id) = (held.id.clone(), subject_id.clone());
                let record = Record::GrantRenewed { grant, subject: subject_id, expires };
                self.recorder.append(Entry { record, body: None }).await?;
                if !self.grants.renew(&held.id, expires, &subject).await? {
                    return Err(Why::Revoked);
                }
                self.store.saw_access_token(&held.id, issued).await?;
                held.id
            }
            // An older token lends nothing to a grant that a newer one has renewed.
            Some(held) => held.id,
            None => self.issue(asked, subject, binding, until, now).await?,
        };
        self.known.add(claims, grant.clone(), now.as_second());
        let live = self.grants.find(&grant).await?;
        live.ok_or_else(|| Why::Failed(PortError("a grant vanished".to_owned())))
    }

    /// Ends a grant, on our own word for why.
    async fn end(&self, grant: &GrantId, code: &str, now: Timestamp) -> Result<(), Why> {
        let since = Instant::now();
        // Its token may have run out: the client's next one would renew it all the same.
        let Some(row) = self.store.grant(grant).await?.filter(|row| row.ends_at > now) else {
            return Ok(());
        };
        let (grant, subject) = (row.id.clone(), row.subject.id.clone());
        let record = Record::GrantEnded { grant, subject, code: code.to_owned() };
        self.recorder.append(Entry { record, body: None }).await?;
        let (rows, since) = ([row], (since, now));
        // How long it takes is measured and recorded; the client need not wait for it.
        let _measured =
            cut(&self.grants, &self.slots, &self.recorder, &rows, Err(code), since).await?;
        Ok(())
    }

    async fn issue(
        &self,
        asked: Asked<'_>,
        subject: Subject,
        thumbprint: String,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<GrantId, Why> {
        let Asked { claims, connection, source, .. } = asked;
        let ends_at = SignedDuration::try_from(self.grant_max).map_err(|error| failed(&error))?;
        let ends_at = now.checked_add(ends_at).map_err(|error| failed(&error))?;
        let row = GrantRow {
            id: GrantId::generate()?,
            session: SessionId::generate()?,
            thumbprint,
            issued_at: now,
            expires_at: until.min(ends_at),
            ends_at,
            revoked_at: None,
            ended_by: None,
            scope: Scope::default(),
            approval: None,
            approver: None,
            reason: None,
            subject,
            connection: connection.clone(),
        };
        let words = |text: &str| recordable(text, &self.masker);
        let body = json!({
            "subject": row.subject.identity,
            "source": source,
            "key": row.thumbprint,
            "oauth": {
                "client": words(&claims.client),
                "jti": claims.jti.as_deref().map(words),
                "scopes": claims.scopes.iter().map(|scope| words(scope)).collect::<Vec<_>>(),
            },
        });
        let record = Record::GrantIssued {
            grant: row.id.clone(),
            session: row.session.clone(),
            subject: row.subject.id.clone(),
            connection: row.connection.clone(),
            expires: row.expires_at,
            approval: None,
            ends: None,
        };
        let entry = Entry { record, body: Some(body.to_string().into()) };
        self.recorder.append(entry).await?;
        self.grants.add(&row).await?;
        let login = claims.login.as_deref().unwrap_or_default();
        let (subject, client) = (&row.subject.id, claims.client.as_str());
        let key = AccessKey { subject, connection, client, login };
        self.store.insert_access_grant(&row.id, key, claims.issued).await?;
        Ok(row.id)
    }
}

/// What a grant's row says of the key of its holder. Never a thumbprint by itself, nor one of a
/// certificate as [`Confirmation::text`](crate::identity::possession::Confirmation::text) writes it, so
/// that nothing that a broker shows fits it.
fn binding(claims: &AccessClaims) -> String {
    claims.jkt.as_ref().map_or_else(|| "bearer".to_owned(), |jkt| format!("dpop:{jkt}"))
}

fn failed(error: &dyn std::error::Error) -> Why {
    Why::Failed(PortError(error.to_string()))
}

impl From<StoreError> for Why {
    fn from(error: StoreError) -> Self {
        failed(&error)
    }
}

impl From<RecordError> for Why {
    fn from(error: RecordError) -> Self {
        failed(&error)
    }
}

impl From<RandomError> for Why {
    fn from(error: RandomError) -> Self {
        failed(&error)
    }
}

impl From<PortError> for Why {
    fn from(error: PortError) -> Self {
        Self::Failed(error)
    }
}

impl<E: Into<Why>> From<E> for NoGrant {
    fn from(error: E) -> Self {
        Self { subject: None, why: error.into() }
    }
}

/// The metadata of protected resources; no route where there are none.
pub fn router(gateway: Arc<Gateway>) -> Router {
    if gateway.oauth.is_none() {
        return Router::new();
    }
    Router::new()
        .route(WELL_KNOWN, get(only_resource))
        .route(&format!("{WELL_KNOWN}/mcp/{{connection}}"), get(resource))
        .with_state(gateway)
}

async fn only_resource(State(gateway): State<Arc<Gateway>>) -> Response {
    metadata(&gateway, None)
}

async fn resource(State(gateway): State<Arc<Gateway>>, Path(connection): Path<String>) -> Response {
    metadata(&gateway, Some(&connection))
}

fn metadata(gateway: &Gateway, connection: Option<&str>) -> Response {
    match gateway.oauth.as_ref().and_then(|oauth| oauth.metadata(connection)) {
        Some(metadata) => {
            ([(header::CACHE_CONTROL, "max-age=300")], Json(metadata)).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
