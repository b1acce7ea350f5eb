//! What users agree to for MCP servers whose tokens are theirs: asking, keeping, forgetting.
//!
//! A user agrees with their own browser at the MCP server's authorization server. The code comes
//! back to their own command line, on loopback, and from there, under their own API token, to
//! here: so nobody can have another agree for them by sending them an address. The code is good
//! only with what this server alone knows (PKCE), for the subject who began, within ten minutes.
//!
//! Tokens lie in the database sealed (AES-256-GCM-SIV, bound to subject and connection) under a key
//! in a file of its own. That somebody agreed, and that they took it back, is on record first. Both
//! wait until no refresh of what was kept is under way, and are done to the end even if whoever asked
//! for it does not wait.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
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
use crate::store::{Store, StoreError};
use crate::types::{Clock, ConnectionName, Secret, Subject, SubjectId};
use crate::upstream::credential::Credential;
use crate::upstream::credential::consent::{
    Consent, ConsentError, Consenting, Consents, Seen, Turn, Turns,
};

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
    turns: Arc<Turns>,
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
        let kept = Kept { store, seal: Arc::new(seal), clock, turns: Arc::default() };
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
    to_the_end(async move {
        let finished = desk.finish(&control, &subject, &name, given).await;
        on_record(&control, finished).await
    })
    .await
}

async fn forget(
    State(control): Shared,
    Extension(desk): Desk,
    ApiCaller(subject): ApiCaller,
    Path(name): Path<String>,
) -> Answer {
    to_the_end(async move {
        let forgotten = desk.forget(&control, &subject, &name).await;
        on_record(&control, forgotten).await
    })
    .await
}

/// In a task of its own: whoever hangs up does not leave what is on record undone.
async fn to_the_end(task: impl Future<Output = Answer> + Send + 'static) -> Answer {
    tokio::spawn(task).await.unwrap_or_else(|error| Err(ApiError::internal(&error)))
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
        let recorded = async {
            control.recorder.append(Entry { record, body: None }).await?;
            Ok(())
        };
        let of = Of1 { connection: connection.clone(), kept: self.kept.clone() };
        of.agree(credential, &subject.id, &consent, recorded).await?;
        let renews = consent.refresh.is_some();
        Ok(Json(json!({ "connection": connection, "agreed": true, "renews": renews })))
    }

    async fn forget(&self, control: &Control, subject: &Subject, name: &str) -> Answer {
        let (connection, credential, _) = self.connection(control, subject, name)?;
        let record = Record::ConsentForgotten {
            connection: connection.clone(),
            subject: subject.id.clone(),
        };
        let recorded = async {
            control.recorder.append(Entry { record, body: None }).await?;
            Ok(())
        };
        let of = Of1 { connection: connection.clone(), kept: self.kept.clone() };
        let there = of.take_back(credential, &subject.id, recorded).await?;
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

    /// Keeps what a subject agreed to, in place of what there was, once that is on record.
    async fn agree(
        &self,
        credential: &Credential,
        subject: &SubjectId,
        consent: &Consent,
        recorded: impl Future<Output = Result<(), ApiError>> + Send,
    ) -> Result<(), ApiError> {
        let internal = |error| ApiError::internal(&error);
        let _turn = self.kept.turns.at(subject, &self.connection).await.map_err(internal)?;
        recorded.await?;
        self.put(subject, consent).await.map_err(internal)?;
        credential.forget(subject);
        Ok(())
    }

    /// Forgets what a subject agreed to, once that is on record; says whether there was something.
    async fn take_back(
        &self,
        credential: &Credential,
        subject: &SubjectId,
        recorded: impl Future<Output = Result<(), ApiError>> + Send,
    ) -> Result<bool, ApiError> {
        let turn = self.kept.turns.at(subject, &self.connection).await;
        let _turn = turn.map_err(|error| ApiError::internal(&error))?;
        let there = self.kept.store.consent(subject, &self.connection).await?.is_some();
        if there {
            recorded.await?;
            self.kept.store.delete_consent(subject, &self.connection).await?;
        }
        credential.forget(subject);
        Ok(there)
    }

    async fn get(&self, subject: &SubjectId) -> Result<Option<(Consent, Seen)>, ConsentError> {
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
        Ok(Some((Consent { refresh, access, until }, Seen(sealed))))
    }

    /// Two of the same never are the same: each is sealed with a nonce of its own.
    fn sealed(&self, subject: &SubjectId, consent: &Consent) -> Result<String, ConsentError> {
        let text = json!({
            "refresh": consent.refresh.as_ref().map(Secret::expose),
            "access": consent.access.expose(),
            "until": consent.until,
        });
        let text = Secret::new(text.to_string());
        let sealed = self.kept.seal.seal(Sealed::Consent, text.expose(), self.of(subject));
        sealed.ok_or_else(|| ConsentError("it cannot be sealed".to_owned()))
    }

    async fn put(&self, subject: &SubjectId, consent: &Consent) -> Result<(), ConsentError> {
        let sealed = self.sealed(subject, consent)?;
        let now = self.kept.clock.now();
        let put = self.kept.store.put_consent(subject, &self.connection, &sealed, now).await;
        put.map_err(|error| unkept(&error))
    }

    async fn swap(
        &self,
        subject: &SubjectId,
        Seen(seen): &Seen,
        consent: &Consent,
    ) -> Result<bool, ConsentError> {
        let sealed = self.sealed(subject, consent)?;
        let now = self.kept.clock.now();
        let store = &self.kept.store;
        let swapped = store.replace_consent(subject, &self.connection, seen, &sealed, now).await;
        swapped.map_err(|error| unkept(&error))
    }

    async fn delete(&self, subject: &SubjectId, Seen(seen): &Seen) -> Result<bool, ConsentError> {
        let deleted = self.kept.store.void_consent(subject, &self.connection, seen).await;
        deleted.map_err(|error| {
            tracing::error!(%error, "a consent cannot be forgotten");
            ConsentError("what was agreed to cannot be forgotten".to_owned())
        })
    }
}

fn unkept(error: &StoreError) -> ConsentError {
    tracing::error!(%error, "a consent cannot be kept");
    ConsentError("what was agreed to cannot be kept".to_owned())
}

impl Consents for Of1 {
    fn turn<'a>(&'a self, subject: &'a SubjectId) -> BoxFuture<'a, Result<Turn, ConsentError>> {
        Box::pin(self.kept.turns.at(subject, &self.connection))
    }

    fn load<'a>(
        &'a self,
        subject: &'a SubjectId,
    ) -> BoxFuture<'a, Result<Option<(Consent, Seen)>, ConsentError>> {
        Box::pin(self.get(subject))
    }

    fn replace<'a>(
        &'a self,
        subject: &'a SubjectId,
        seen: &'a Seen,
        consent: &'a Consent,
    ) -> BoxFuture<'a, Result<bool, ConsentError>> {
        Box::pin(self.swap(subject, seen, consent))
    }

    fn void<'a>(
        &'a self,
        subject: &'a SubjectId,
        seen: &'a Seen,
    ) -> BoxFuture<'a, Result<bool, ConsentError>> {
        Box::pin(self.delete(subject, seen))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use axum::Form;
    use reqwest::header::AUTHORIZATION;
    use tokio::sync::Semaphore;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::types::{Identity, SubjectKind, SystemClock};
    use crate::upstream::secret::ask;
    use crate::upstream::token::{ClientAuth, TokenEndpoint};

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

    fn kept(store: Store) -> Kept {
        let seal = Arc::new(Seal::new(&[7; 32]).unwrap());
        Kept { store, seal, clock: Arc::new(SystemClock), turns: Arc::default() }
    }

    #[tokio::test]
    async fn what_is_kept_is_sealed_and_for_one_subject_and_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mcpx.db");
        let store = Store::open(&path).await.unwrap();
        let kept = kept(store.clone());
        let of = |name: &str| Of1 { connection: name.parse().unwrap(), kept: kept.clone() };
        let (alice, bob) = (SubjectId::generate().unwrap(), SubjectId::generate().unwrap());
        let crm = of("crm");
        let consent = Consent {
            refresh: Some(Secret::new("refresh-hunter2")),
            access: Secret::new("access-hunter2"),
            until: 9,
        };
        crm.put(&alice, &consent).await.unwrap();
        let (found, seen) = crm.get(&alice).await.unwrap().unwrap();
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
        assert!(crm.delete(&alice, &seen).await.unwrap());
        assert!(crm.get(&alice).await.unwrap().is_none());
    }

    struct Refreshing {
        asked: Mutex<Vec<String>>,
        let_go: Semaphore,
        refuses: AtomicBool,
    }

    async fn token(
        State(server): State<Arc<Refreshing>>,
        Form(form): Form<HashMap<String, String>>,
    ) -> (StatusCode, Json<Value>) {
        server.asked.lock().unwrap().push(form["refresh_token"].clone());
        server.let_go.acquire().await.unwrap().forget();
        if server.refuses.load(Ordering::SeqCst) {
            return (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" })));
        }
        let given = json!({ "access_token": "refreshed", "refresh_token": "rotated",
            "token_type": "bearer", "expires_in": 3600 });
        (StatusCode::OK, Json(given))
    }

    /// It, and one user who agreed to `first`.
    struct Scene {
        server: Arc<Refreshing>,
        of: Arc<Of1>,
        credential: Credential,
        alice: Subject,
        _dir: tempfile::TempDir,
    }

    fn agreed(name: &str, seconds: i64) -> Consent {
        Consent {
            refresh: Some(Secret::new(format!("{name}-refresh"))),
            access: Secret::new(format!("{name}-access")),
            until: SystemClock.now_seconds() + seconds,
        }
    }

    impl Scene {
        /// With the refresh of `first` under way.
        async fn start() -> (Self, JoinHandle<String>) {
            let server = Arc::new(Refreshing {
                asked: Mutex::default(),
                let_go: Semaphore::new(0),
                refuses: false.into(),
            });
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
            let router = Router::new().route("/", post(token)).with_state(Arc::clone(&server));
            tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
            let http = ask::client(None).unwrap();
            let endpoint =
                TokenEndpoint::new(url.clone(), "gate".to_owned(), ClientAuth::Public, http);
            let (issuer, resource, scope) = (None, None, None);
            let consenting = Consenting { endpoint, authorization: url, issuer, resource, scope };
            let credential = Credential::consented(AUTHORIZATION, consenting);
            let dir = tempfile::tempdir().unwrap();
            let kept = kept(Store::open(&dir.path().join("mcpx.db")).await.unwrap());
            let of = Arc::new(Of1 { connection: "crm".parse().unwrap(), kept });
            let consents: Arc<dyn Consents> = Arc::clone(&of) as _;
            credential.kept_by(&consents);
            let identity =
                Identity { issuer: "i".into(), sub: "alice".into(), email: None, groups: vec![] };
            let id = SubjectId::generate().unwrap();
            let alice = Subject { id, kind: SubjectKind::Person, identity };
            of.put(&alice.id, &agreed("first", 1)).await.unwrap();
            let scene = Self { server, of, credential, alice, _dir: dir };
            let first = scene.used();
            while scene.asked().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (scene, first)
        }

        /// What a call of hers sends, or what keeps it from going out.
        fn used(&self) -> JoinHandle<String> {
            let (credential, alice) = (self.credential.clone(), self.alice.clone());
            tokio::spawn(async move {
                match credential.value(&alice).await {
                    Ok(value) => value.to_str().unwrap().to_owned(),
                    Err(error) if error.wants_consent() => "no consent".to_owned(),
                    Err(error) => error.to_string(),
                }
            })
        }

        fn asked(&self) -> Vec<String> {
            self.server.asked.lock().unwrap().clone()
        }

        async fn there(&self) -> Option<String> {
            let there = self.of.get(&self.alice.id).await.unwrap();
            there.map(|(consent, _)| consent.refresh.unwrap().expose().to_owned())
        }
    }

    async fn a_while() {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    #[tokio::test]
    async fn a_user_who_takes_it_back_waits_for_the_refresh_and_nothing_is_left() {
        let (scene, first) = Scene::start().await;
        let on_record = Arc::new(AtomicBool::new(false));
        let (of, credential) = (Arc::clone(&scene.of), scene.credential.clone());
        let (alice, recorded) = (scene.alice.id.clone(), Arc::clone(&on_record));
        let back = tokio::spawn(async move {
            let recorded = async move {
                recorded.store(true, Ordering::SeqCst);
                Ok(())
            };
            of.take_back(&credential, &alice, recorded).await.is_ok_and(|there| there)
        });
        a_while().await;
        assert!(!back.is_finished() && !on_record.load(Ordering::SeqCst));
        // Another maker does not use the same refresh token beside it.
        scene.credential.forget(&scene.alice.id);
        let second = scene.used();
        a_while().await;
        assert_eq!(scene.asked(), ["first-refresh"]);
        scene.server.let_go.add_permits(9);
        assert_eq!(first.await.unwrap(), "Bearer refreshed");
        assert!(back.await.unwrap() && on_record.load(Ordering::SeqCst));
        assert_eq!(second.await.unwrap(), "no consent");
        assert_eq!(scene.used().await.unwrap(), "no consent");
        assert_eq!((scene.there().await, scene.asked().len()), (None, 1));
    }

    #[tokio::test]
    async fn a_user_who_agrees_anew_waits_for_the_refresh_and_the_newer_one_is_used() {
        let (scene, first) = Scene::start().await;
        let (of, credential) = (Arc::clone(&scene.of), scene.credential.clone());
        let alice = scene.alice.id.clone();
        let anew = tokio::spawn(async move {
            let recorded = async { Ok(()) };
            of.agree(&credential, &alice, &agreed("second", 3600), recorded).await.is_ok()
        });
        a_while().await;
        assert!(!anew.is_finished());
        scene.server.let_go.add_permits(9);
        assert_eq!(first.await.unwrap(), "Bearer refreshed");
        assert!(anew.await.unwrap());
        assert_eq!(scene.used().await.unwrap(), "Bearer second-access");
        assert_eq!(scene.there().await.as_deref(), Some("second-refresh"));
        assert_eq!(scene.asked(), ["first-refresh"]);
    }

    /// Even if the row is changed by somebody who does not wait for a turn.
    #[tokio::test]
    async fn a_refresh_replaces_only_what_it_was_made_from() {
        for refuses in [false, true] {
            let (scene, first) = Scene::start().await;
            let (store, alice) = (&scene.of.kept.store, &scene.alice.id);
            assert!(store.delete_consent(alice, &scene.of.connection).await.unwrap());
            scene.server.refuses.store(refuses, Ordering::SeqCst);
            scene.server.let_go.add_permits(9);
            assert_eq!(first.await.unwrap(), "no consent");
            assert_eq!(scene.there().await, None);
            // The same with a newer one there.
            let (scene, first) = Scene::start().await;
            scene.of.put(&scene.alice.id, &agreed("second", 3600)).await.unwrap();
            scene.server.refuses.store(refuses, Ordering::SeqCst);
            scene.server.let_go.add_permits(9);
            assert_eq!(first.await.unwrap(), "Bearer second-access");
            assert_eq!(scene.there().await.as_deref(), Some("second-refresh"));
            assert_eq!(scene.asked(), ["first-refresh"]);
        }
        // What nobody touches is replaced, or forgotten if it is refused.
        for (refuses, used, left) in
            [(false, "Bearer refreshed", Some("rotated")), (true, "no consent", None)]
        {
            let (scene, first) = Scene::start().await;
            scene.server.refuses.store(refuses, Ordering::SeqCst);
            scene.server.let_go.add_permits(9);
            assert_eq!(first.await.unwrap(), used);
            assert_eq!(scene.there().await.as_deref(), left);
        }
    }
}
