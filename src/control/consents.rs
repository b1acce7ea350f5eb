//! What users agree to for MCP servers whose tokens are theirs: asking, keeping, forgetting.
//!
//! A user agrees with their own browser at the MCP server's authorization server. The code comes
//! back to their own command line, on loopback, and from there, under their own API token, to
//! here: so nobody can have another agree for them by sending them an address. The code is good
//! only with what this server alone knows (PKCE), for the subject who began, within ten minutes.
//!
//! Tokens lie in the database sealed (AES-256-GCM-SIV, bound to subject and connection) under a key
//! in a file of its own. That somebody agreed, and that they took it back, is on record first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Json, Router};
use futures_util::future::BoxFuture;
use openidconnect::{PkceCodeChallenge, PkceCodeVerifier};
use serde::Deserialize;
use serde_json::{Value, json};
use url::{Host, Url};

use super::Control;
use super::error::ApiError;
use super::session::ApiCaller;
use crate::audit::{Entry, Record, RefusalStage};
use crate::gateway::seal::{Of, Seal, Sealed};
use crate::policy::{Facts, Scope};
use crate::store::Store;
use crate::types::{Clock, ConnectionName, Secret, Subject, SubjectId};
use crate::upstream::credential::Credential;
use crate::upstream::credential::consent::{Consent, ConsentError, Consenting, Consents};

/// How long a user may take to agree, in seconds.
const OPEN: i64 = 600;
/// How many may be agreeing at a time, and how many times one of them.
const MOST: usize = 10_000;
const MOST_OF_ONE: usize = 16;

/// Who is agreeing to what, and what all have agreed to.
pub struct ConsentDesk {
    connections: BTreeMap<ConnectionName, Credential>,
    open: Mutex<HashMap<String, Open>>,
    kept: Kept,
}

struct Open {
    subject: SubjectId,
    connection: ConnectionName,
    redirect_uri: String,
    verifier: PkceCodeVerifier,
    until: i64,
}

#[derive(Clone)]
struct Kept {
    store: Store,
    seal: Arc<Seal>,
    clock: Arc<dyn Clock>,
}

/// The consents to one connection.
struct Of1 {
    connection: ConnectionName,
    kept: Kept,
}

impl ConsentDesk {
    /// A desk for these connections, which then find there what users agreed to.
    pub fn new(
        connections: BTreeMap<ConnectionName, Credential>,
        store: Store,
        seal: Seal,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let kept = Kept { store, seal: Arc::new(seal), clock };
        for (connection, credential) in &connections {
            let of = Of1 { connection: connection.clone(), kept: kept.clone() };
            let of: Arc<dyn Consents> = Arc::new(of);
            credential.kept_by(&of);
        }
        Self { connections, open: Mutex::default(), kept }
    }

    /// Its part of the API.
    pub fn router(self: &Arc<Self>) -> Router<Arc<Control>> {
        Router::new()
            .route("/api/connections/{name}/consent", post(begin))
            .route("/api/connections/{name}/consent/finish", post(finish))
            .route("/api/connections/{name}/consent/forget", post(forget))
            .layer(Extension(Arc::clone(self)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection of that name, if the subject may use it and has to be asked.
    fn connection(
        &self,
        control: &Control,
        subject: &Subject,
        name: &str,
    ) -> Result<(ConnectionName, &Credential, &Consenting), ApiError> {
        let unknown = || {
            let message = "there is no connection of that name that wants your consent";
            ApiError::not_found(message).hint("`mcpx ls` lists the connections").of(&subject.id)
        };
        if !subject.kind.is_person() {
            let message = "only people agree to what is done in their name; a job's token does not";
            let status = StatusCode::FORBIDDEN;
            return Err(
                ApiError::new(status, "access_denied", "not_a_person", message).of(&subject.id)
            );
        }
        let name: ConnectionName = name.parse().map_err(|_| unknown())?;
        let facts = Facts {
            now: control.clock.now(),
            source: None,
            grant_age_seconds: 0,
            reason: None,
            scope: Scope::default(),
        };
        // Who still needs somebody's yes to the grant may agree to this beforehand.
        let may = control.policies.load().may_connect(subject, &name, &facts).is_ok();
        let known = self.connections.get(&name).filter(|_| may);
        let credential = known.ok_or_else(unknown)?;
        let consenting = credential.consenting().ok_or_else(unknown)?;
        Ok((name, credential, consenting))
    }
}

type Answer = Result<Json<Value>, ApiError>;
type Shared = State<Arc<Control>>;
type Desk = Extension<Arc<ConsentDesk>>;

#[derive(Deserialize)]
struct Begin {
    redirect_uri: String,
}

async fn begin(
    State(control): Shared,
    Extension(desk): Desk,
    ApiCaller(subject): ApiCaller,
    Path(name): Path<String>,
    Json(asked): Json<Begin>,
) -> Answer {
    let begun = desk.begin(&control, &subject, &name, asked);
    on_record(&control, begun).await
}

#[derive(Deserialize)]
struct Finish {
    state: String,
    code: Secret,
    iss: Option<String>,
}

async fn finish(
    State(control): Shared,
    Extension(desk): Desk,
    ApiCaller(subject): ApiCaller,
    Path(name): Path<String>,
    Json(given): Json<Finish>,
) -> Answer {
    let finished = desk.finish(&control, &subject, &name, given).await;
    on_record(&control, finished).await
}

async fn forget(
    State(control): Shared,
    Extension(desk): Desk,
    ApiCaller(subject): ApiCaller,
    Path(name): Path<String>,
) -> Answer {
    let forgotten = desk.forget(&control, &subject, &name).await;
    on_record(&control, forgotten).await
}

impl ConsentDesk {
    fn begin(&self, control: &Control, subject: &Subject, name: &str, asked: Begin) -> Answer {
        let (connection, _, consenting) = self.connection(control, subject, name)?;
        if !is_own(&asked.redirect_uri) {
            let message = "the redirect_uri must be http://127.0.0.1:PORT/callback";
            return Err(ApiError::bad_request(message).of(&subject.id));
        }
        let state = Secret::generate().map_err(|error| ApiError::internal(&error))?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let url = consenting.address(&asked.redirect_uri, state.expose(), challenge.as_str());
        let now = control.clock.now_seconds();
        let mut open = self.lock();
        open.retain(|_, one| one.until > now);
        let own = open.values().filter(|one| one.subject == subject.id).count();
        if own >= MOST_OF_ONE || open.len() >= MOST {
            let message = "too many consents are being asked for; try again in ten minutes";
            return Err(ApiError::bad_request(message).of(&subject.id));
        }
        let subject = subject.id.clone();
        let redirect_uri = asked.redirect_uri;
        let one = Open { subject, connection, redirect_uri, verifier, until: now + OPEN };
        open.insert(state.expose().to_owned(), one);
        Ok(Json(json!({ "url": url, "state": state.expose() })))
    }

    async fn finish(
        &self,
        control: &Control,
        subject: &Subject,
        name: &str,
        given: Finish,
    ) -> Answer {
        let (connection, credential, consenting) = self.connection(control, subject, name)?;
        let refused = |message: &str| ApiError::forbidden(message).of(&subject.id).at(&connection);
        // Good once, and for whom it was made alone; another's is left as it is.
        let open = {
            let mut open = self.lock();
            let own = open.get(&given.state).is_some_and(|one| {
                one.subject == subject.id
                    && one.connection == connection
                    && one.until > control.clock.now_seconds()
            });
            if own { open.remove(&given.state) } else { None }
        };
        let open = open.ok_or_else(|| refused("this was not asked of you, or too long ago"))?;
        if let (Some(wanted), Some(found)) = (&consenting.issuer, &given.iss)
            && wanted != found
        {
            return Err(refused("another authorization server answered than was asked"));
        }
        let code = given.code.expose();
        let consent = consenting.finish(code, &open.redirect_uri, open.verifier.secret()).await;
        let consent = consent.map_err(|error| {
            tracing::warn!(%connection, %error, "a consent came to nothing");
            refused(&error.to_string())
        })?;
        let record =
            Record::ConsentGiven { connection: connection.clone(), subject: subject.id.clone() };
        control.recorder.append(Entry { record, body: None }).await?;
        let of = Of1 { connection: connection.clone(), kept: self.kept.clone() };
        of.put(&subject.id, &consent).await.map_err(|error| ApiError::internal(&error))?;
        credential.forget(&subject.id);
        let renews = consent.refresh.is_some();
        Ok(Json(json!({ "connection": connection, "agreed": true, "renews": renews })))
    }

    async fn forget(&self, control: &Control, subject: &Subject, name: &str) -> Answer {
        let (connection, credential, _) = self.connection(control, subject, name)?;
        let there = self.kept.store.consent(&subject.id, &connection).await?.is_some();
        if there {
            let record = Record::ConsentForgotten {
                connection: connection.clone(),
                subject: subject.id.clone(),
            };
            control.recorder.append(Entry { record, body: None }).await?;
            self.kept.store.delete_consent(&subject.id, &connection).await?;
        }
        credential.forget(&subject.id);
        Ok(Json(json!({ "connection": connection, "agreed": false, "forgotten": there })))
    }
}

/// Whether an address leads back to the machine of whoever asks.
fn is_own(redirect_uri: &str) -> bool {
    Url::parse(redirect_uri).is_ok_and(|url| {
        let loopback = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            _ => false,
        };
        let plain = url.username().is_empty() && url.password().is_none();
        let bare = url.query().is_none() && url.fragment().is_none();
        url.scheme() == "http" && loopback && plain && bare && url.path() == "/callback"
    })
}

async fn on_record(control: &Control, outcome: Answer) -> Answer {
    if let Err(error) = &outcome
        && (error.is_refusal() || error.subject.is_some())
    {
        let entry = error.entry(RefusalStage::Api, &control.masker);
        control.recorder.append(entry).await?;
    }
    outcome
}

impl Of1 {
    fn of<'a>(&'a self, subject: &'a SubjectId) -> Of<'a> {
        Of { subject, connection: &self.connection, session: None }
    }

    async fn get(&self, subject: &SubjectId) -> Result<Option<Consent>, ConsentError> {
        #[derive(Deserialize)]
        struct Stored {
            refresh: Option<Secret>,
            access: Secret,
            until: i64,
        }
        let unreadable = |_| ConsentError("what was agreed to cannot be read".to_owned());
        let sealed = self.kept.store.consent(subject, &self.connection).await;
        let Some(sealed) = sealed.map_err(|error| {
            tracing::error!(%error, "consents cannot be read");
            ConsentError("what was agreed to cannot be read".to_owned())
        })?
        else {
            return Ok(None);
        };
        let text = self.kept.seal.open(Sealed::Consent, &sealed, self.of(subject));
        let text = Secret::new(text.map_err(|_| {
            ConsentError("what was agreed to is sealed under another key".to_owned())
        })?);
        let Stored { refresh, access, until } =
            serde_json::from_str(text.expose()).map_err(unreadable)?;
        Ok(Some(Consent { refresh, access, until }))
    }

    async fn put(&self, subject: &SubjectId, consent: &Consent) -> Result<(), ConsentError> {
        let text = json!({
            "refresh": consent.refresh.as_ref().map(Secret::expose),
            "access": consent.access.expose(),
            "until": consent.until,
        });
        let text = Secret::new(text.to_string());
        let sealed = self.kept.seal.seal(Sealed::Consent, text.expose(), self.of(subject));
        let sealed = sealed.ok_or_else(|| ConsentError("it cannot be sealed".to_owned()))?;
        let now = self.kept.clock.now();
        let put = self.kept.store.put_consent(subject, &self.connection, &sealed, now).await;
        put.map_err(|error| {
            tracing::error!(%error, "a consent cannot be kept");
            ConsentError("what was agreed to cannot be kept".to_owned())
        })
    }

    async fn delete(&self, subject: &SubjectId) -> Result<(), ConsentError> {
        let deleted = self.kept.store.delete_consent(subject, &self.connection).await;
        deleted.map(drop).map_err(|error| {
            tracing::error!(%error, "a consent cannot be forgotten");
            ConsentError("what was agreed to cannot be forgotten".to_owned())
        })
    }
}

impl Consents for Of1 {
    fn load<'a>(
        &'a self,
        subject: &'a SubjectId,
    ) -> BoxFuture<'a, Result<Option<Consent>, ConsentError>> {
        Box::pin(self.get(subject))
    }

    fn keep<'a>(
        &'a self,
        subject: &'a SubjectId,
        consent: &'a Consent,
    ) -> BoxFuture<'a, Result<(), ConsentError>> {
        Box::pin(self.put(subject, consent))
    }

    fn forget<'a>(&'a self, subject: &'a SubjectId) -> BoxFuture<'a, Result<(), ConsentError>> {
        Box::pin(self.delete(subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SystemClock;

    #[test]
    fn a_code_goes_back_to_who_asked_alone() {
        for good in ["http://127.0.0.1:4711/callback", "http://[::1]:4711/callback"] {
            assert!(is_own(good), "{good}");
        }
        for bad in [
            "https://evil.example/callback",
            "http://localhost.evil.example/callback",
            "http://127.0.0.1.evil.example/callback",
            "http://127.0.0.1@evil.example/callback",
            "http://127.0.0.1:1/other",
            "http://127.0.0.1:1/callback?x=1",
            "http://127.0.0.1:1/callback#x",
            "http://10.0.0.1/callback",
            "nonsense",
        ] {
            assert!(!is_own(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn what_is_kept_is_sealed_and_for_one_subject_and_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mcpx.db");
        let store = Store::open(&path).await.unwrap();
        let kept = Kept {
            store: store.clone(),
            seal: Arc::new(Seal::new(&[7; 32]).unwrap()),
            clock: Arc::new(SystemClock),
        };
        let of = |name: &str| Of1 { connection: name.parse().unwrap(), kept: kept.clone() };
        let (alice, bob) = (SubjectId::generate().unwrap(), SubjectId::generate().unwrap());
        let crm = of("crm");
        let consent = Consent {
            refresh: Some(Secret::new("refresh-hunter2")),
            access: Secret::new("access-hunter2"),
            until: 9,
        };
        crm.put(&alice, &consent).await.unwrap();
        let found = crm.get(&alice).await.unwrap().unwrap();
        assert!(found.refresh.unwrap().matches("refresh-hunter2") && found.until == 9);
        assert!(
            crm.get(&bob).await.unwrap().is_none() && of("x").get(&alice).await.unwrap().is_none()
        );
        // Moved to another's row, it does not open.
        let sealed = store.consent(&alice, &crm.connection).await.unwrap().unwrap();
        store.put_consent(&bob, &crm.connection, &sealed, SystemClock.now()).await.unwrap();
        assert!(crm.get(&bob).await.is_err());
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(memchr::memmem::find(&bytes, b"hunter2").is_none());
        }
        crm.delete(&alice).await.unwrap();
        assert!(crm.get(&alice).await.unwrap().is_none());
    }
}
