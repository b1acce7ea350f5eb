//! Promise: a login works end to end against a real issuer, is shared by any number of processes
//! without replaying a refresh token, and ends when it should.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use mcpx::broker::credentials::{Keyring, StorageKind};
use mcpx::broker::device::DevicePrompt;
use mcpx::broker::home::Home;
use mcpx::broker::login::{Login, LoginError, LoginRequest, Revocation};
use mcpx::broker::server::{IssuerInfo, ServerInfo};
use mcpx::control::issuer::{LocalIssuer, LocalIssuerSettings, LocalUser, password};
use mcpx::identity::IssuerVerifier;
use mcpx::identity::fetch::{self, Route};
use mcpx::identity::key::SigningKey;
use mcpx::store::Store;
use mcpx::types::{Clock, Secret, SystemClock, Timestamp};
use zeroize::Zeroizing;

/// The real time plus a distance that tests move.
#[derive(Clone, Default)]
struct TestClock(Arc<AtomicI64>);

impl TestClock {
    fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let ahead = self.0.load(Ordering::SeqCst);
        Timestamp::from_second(SystemClock.now_seconds() + ahead).unwrap()
    }
}

#[derive(Default)]
struct MemoryKeyring {
    secrets: Mutex<HashMap<String, Vec<u8>>>,
    broken: bool,
}

impl Keyring for MemoryKeyring {
    fn get(&self, user: &str) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        if self.broken {
            return Err("no desktop".to_owned());
        }
        Ok(self.secrets.lock().unwrap().get(user).cloned().map(Zeroizing::new))
    }
    fn set(&self, user: &str, secret: &[u8]) -> Result<(), String> {
        self.secrets.lock().unwrap().insert(user.to_owned(), secret.to_vec());
        Ok(())
    }
    fn delete(&self, user: &str) -> Result<(), String> {
        self.secrets.lock().unwrap().remove(user);
        Ok(())
    }
}

/// What the issuer's front does to requests.
#[derive(Default)]
struct Front {
    refreshes: AtomicUsize,
    down: AtomicBool,
    drop_id_token: AtomicBool,
}

async fn front(State(front): State<Arc<Front>>, request: Request, next: Next) -> Response {
    if front.down.load(Ordering::SeqCst) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    if request.uri().path() != "/issuer/token" {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    if String::from_utf8_lossy(&body).contains("grant_type=refresh_token") {
        front.refreshes.fetch_add(1, Ordering::SeqCst);
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if !front.drop_id_token.load(Ordering::SeqCst) || response.status() != StatusCode::OK {
        return response;
    }
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let mut body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    body.as_object_mut().unwrap().remove("id_token");
    axum::Json(body).into_response()
}

/// A running issuer, a home, and a browser.
struct World {
    base: String,
    issuer: LocalIssuer,
    front: Arc<Front>,
    clock: TestClock,
    keyring: Arc<MemoryKeyring>,
    home: Home,
    http: reqwest::Client,
    _dirs: [tempfile::TempDir; 2],
}

impl World {
    async fn new() -> Self {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/issuer", listener.local_addr().unwrap());
        let few = NonZeroU32::new(1000).unwrap();
        let user = |name: &str, groups: &[&str]| LocalUser {
            name: name.to_owned(),
            email: Some(format!("{name}@example.test")),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            password_hash: Secret::new(password::hash_with(&format!("{name}-pw"), few).unwrap()),
        };
        let settings = LocalIssuerSettings {
            users: vec![user("alice", &["eng", "admins"]), user("bob", &[])],
            client_id: "mcpx-cli".to_owned(),
            poll_interval: 1,
            code_lifetime: 600,
            login_lifetime: 86_400,
        };
        let clock = TestClock::default();
        let store = Store::open(&dirs[0].path().join("mcpx.db")).await.unwrap();
        let key = SigningKey::generate().unwrap();
        let issuer =
            LocalIssuer::new(settings, &base, key, store, Arc::new(clock.clone())).unwrap();
        let front = Arc::new(Front::default());
        let router = Router::new()
            .nest("/issuer", issuer.router())
            .layer(middleware::from_fn_with_state(Arc::clone(&front), self::front));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let home = Home::open(dirs[1].path().join("home")).unwrap();
        let http = fetch::client(Route::Direct).unwrap();
        let keyring = Arc::default();
        Self { base, issuer, front, clock, keyring, home, http, _dirs: dirs }
    }

    fn server(&self) -> ServerInfo {
        let url = |path: &str| {
            let origin = self.base.trim_end_matches("/issuer");
            format!("{origin}{path}").parse().unwrap()
        };
        ServerInfo {
            version: 1,
            server: url(""),
            issuers: vec![IssuerInfo {
                name: "local".to_owned(),
                url: self.base.clone(),
                client_id: "mcpx-cli".to_owned(),
                scopes: vec!["openid".to_owned(), "offline_access".to_owned()],
                ..IssuerInfo::default()
            }],
            token_endpoint: url("/oauth/token"),
            api: url("/api"),
            log_key: "x".to_owned(),
            certificates: false,
        }
    }

    /// Logs in; `user` is what the user does with the prompt, in their browser.
    async fn login_with<F>(
        &self,
        storage: StorageKind,
        user: impl FnOnce(DevicePrompt) -> F,
    ) -> Result<Login, LoginError>
    where
        F: Future<Output = ()>,
    {
        let server = self.server();
        let request = LoginRequest {
            home: &self.home,
            server: &server,
            issuer: server.issuer(None).unwrap(),
            storage,
            clock: Arc::new(self.clock.clone()),
        };
        let (tell, told) = tokio::sync::oneshot::channel();
        let show = |prompt: &DevicePrompt| tell.send(prompt.clone()).unwrap();
        let keyring = Arc::clone(&self.keyring) as Arc<dyn Keyring>;
        let login = Login::device_with(request, keyring, show, std::future::pending());
        let browser = async {
            if let Ok(prompt) = told.await {
                user(prompt).await;
            }
        };
        tokio::join!(login, browser).0
    }

    async fn login(&self, storage: StorageKind) -> Login {
        let answer = async |prompt: DevicePrompt| {
            let status =
                Browser::open(self, &prompt).await.send("alice", "alice-pw", "approve").await;
            assert_eq!(status.0, StatusCode::OK, "{}", status.1);
        };
        self.login_with(storage, answer).await.unwrap()
    }

    /// Another process's view of the same login.
    fn load(&self) -> Login {
        let keyring = Arc::clone(&self.keyring) as Arc<dyn Keyring>;
        Login::load_with(&self.home, Arc::new(self.clock.clone()), keyring).unwrap().unwrap()
    }

    fn refreshes(&self) -> usize {
        self.front.refreshes.load(Ordering::SeqCst)
    }

    fn plain_tokens(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.home.file("tokens")).unwrap()).unwrap()
    }
}

/// A browser that knows of forms and cookies what it must.
struct Browser<'a> {
    world: &'a World,
    cookie: String,
    form_token: String,
    code: String,
    html: String,
}

impl<'a> Browser<'a> {
    async fn open(world: &'a World, prompt: &DevicePrompt) -> Self {
        let page = prompt.verification_uri_complete.clone().unwrap();
        let response = world.http.get(page).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        let cookie = header("set-cookie");
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        assert_eq!(header("x-frame-options"), "DENY");
        assert_eq!(header("cache-control"), "no-store");
        assert!(header("content-security-policy").starts_with("default-src 'none'"));
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let html = response.text().await.unwrap();
        assert!(html.contains(&format!("value=\"{}\"", prompt.user_code)));
        let form_token = between(&html, "name=\"form_token\" value=\"", "\"");
        Self { world, cookie, form_token, code: prompt.user_code.clone(), html }
    }

    async fn send(&self, name: &str, password: &str, action: &str) -> (StatusCode, String) {
        let cookie = Some(self.cookie.as_str());
        self.post(cookie, None, &self.form_token, name, password, action).await
    }

    async fn post(
        &self,
        cookie: Option<&str>,
        origin: Option<&str>,
        form_token: &str,
        name: &str,
        password: &str,
        action: &str,
    ) -> (StatusCode, String) {
        let form = [
            ("form_token", form_token),
            ("user_code", &self.code),
            ("name", name),
            ("password", password),
            ("action", action),
        ];
        let mut request = self.world.http.post(format!("{}/device", self.world.base)).form(&form);
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let response = request.send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }
}

fn between(text: &str, start: &str, end: &str) -> String {
    let (_, rest) = text.split_once(start).unwrap();
    rest.split_once(end).unwrap().0.to_owned()
}

fn assert_login_needed<T>(result: Result<T, LoginError>) {
    match result {
        Err(error) => assert!(error.needs_login(), "{error}"),
        Ok(_) => panic!("a login that has ended still works"),
    }
}

#[tokio::test]
async fn the_whole_way() {
    let world = World::new().await;
    let login = world.login(StorageKind::File).await;
    let token = login.id_token().await.unwrap();

    // The server believes it, by the issuer's published keys and by those it has already.
    let now = world.clock.now_seconds();
    let settings = world.issuer.issuer_settings("local");
    let fetching = IssuerVerifier::new(settings, fetch::client(Route::Direct).unwrap()).unwrap();
    for verifier in [fetching, world.issuer.verifier("local").unwrap()] {
        let verified = verifier.verify(token.expose(), now).await.unwrap();
        assert_eq!(verified.identity.sub, "alice");
        assert_eq!(verified.identity.email.as_deref(), Some("alice@example.test"));
        assert_eq!(verified.identity.groups, ["admins", "eng"]);
    }

    let status = world.load().status().await.unwrap();
    assert_eq!(status.identity.sub, "alice");
    assert_eq!(status.issuer, world.base);
    assert!(status.renewable && status.id_token_expires > now);

    assert!(matches!(world.load().logout().await.unwrap(), Revocation::Revoked));
    let keyring = Arc::clone(&world.keyring) as Arc<dyn Keyring>;
    let gone = Login::load_with(&world.home, Arc::new(world.clock.clone()), keyring).unwrap();
    assert!(gone.is_none());
    assert!(!world.home.file("tokens").exists());
    // A process that still runs learns it, too.
    world.clock.advance(580);
    assert_login_needed(login.id_token().await);
}

#[tokio::test]
async fn logout_revokes_at_the_issuer() {
    let world = World::new().await;
    world.login(StorageKind::File).await;
    let saved = std::fs::read(world.home.file("tokens")).unwrap();
    let login = world.load();
    assert!(matches!(world.load().logout().await.unwrap(), Revocation::Revoked));
    // A thief's copy of the file is worth nothing after the logout.
    mcpx::identity::private_file::write(&world.home.file("tokens"), &saved).unwrap();
    world.clock.advance(580);
    assert_login_needed(login.id_token().await);
    assert_eq!(world.refreshes(), 1);
}

#[tokio::test]
async fn denied_expired_and_cancelled_are_told_apart() {
    let world = World::new().await;
    let denied = world.login_with(StorageKind::File, async |prompt: DevicePrompt| {
        let browser = Browser::open(&world, &prompt).await;
        assert_eq!(browser.send("", "", "deny").await.0, StatusCode::OK);
        let again = browser.send("alice", "alice-pw", "approve").await;
        assert_eq!(again.0, StatusCode::BAD_REQUEST, "a denied code cannot be approved");
    });
    assert!(matches!(denied.await, Err(LoginError::Denied)));

    let expired = world.login_with(StorageKind::File, async |prompt: DevicePrompt| {
        let browser = Browser::open(&world, &prompt).await;
        world.clock.advance(601);
        let late = browser.send("alice", "alice-pw", "approve").await;
        assert_eq!(late.0, StatusCode::BAD_REQUEST);
        assert!(late.1.contains("No login waits"));
    });
    assert!(matches!(expired.await, Err(LoginError::Expired)));

    let server = world.server();
    let request = LoginRequest {
        home: &world.home,
        server: &server,
        issuer: server.issuer(None).unwrap(),
        storage: StorageKind::File,
        clock: Arc::new(world.clock.clone()),
    };
    let cancelled = Login::device(request, |_| {}, std::future::ready(())).await;
    assert!(matches!(cancelled, Err(LoginError::Cancelled)));
    assert!(!world.home.file("login.json").exists());
}

#[tokio::test]
async fn wrong_passwords_are_refused_and_counted() {
    let world = World::new().await;
    let result = world.login_with(StorageKind::File, async |prompt: DevicePrompt| {
        let browser = Browser::open(&world, &prompt).await;
        for (name, password) in
            [("alice", "bob-pw"), ("nobody", "alice-pw"), ("", ""), ("Alice", "alice-pw")]
        {
            let (status, html) = browser.send(name, password, "approve").await;
            assert_eq!(status, StatusCode::FORBIDDEN);
            assert!(html.contains("Name or password is wrong"), "{html}");
        }
        // The fifth wrong one closes the code, and the right one comes too late.
        let (status, html) = browser.send("alice", "x", "approve").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(html.contains("too many wrong passwords"));
        assert_eq!(browser.send("alice", "alice-pw", "approve").await.0, StatusCode::BAD_REQUEST);
    });
    assert!(matches!(result.await, Err(LoginError::Denied)));

    // One name, many codes.
    let mut limited = None;
    for _ in 0..3 {
        let attempt = world.login_with(StorageKind::File, async |prompt: DevicePrompt| {
            let browser = Browser::open(&world, &prompt).await;
            for _ in 0..4 {
                let (status, html) = browser.send("bob", "wrong", "approve").await;
                if status == StatusCode::TOO_MANY_REQUESTS {
                    limited = Some(html);
                }
            }
            if limited.is_some() {
                let right = browser.send("bob", "bob-pw", "approve").await;
                assert_eq!(right.0, StatusCode::TOO_MANY_REQUESTS);
                let other = browser.send("alice", "alice-pw", "approve").await;
                assert_eq!(other.0, StatusCode::OK, "others are not held up");
            } else {
                browser.send("", "", "deny").await;
            }
        });
        drop(attempt.await);
    }
    assert!(limited.unwrap().contains("Too many attempts for this name"));
}

#[tokio::test]
async fn forged_forms_and_markup_go_nowhere() {
    let world = World::new().await;
    let result = world.login_with(StorageKind::File, async |prompt: DevicePrompt| {
        let browser = Browser::open(&world, &prompt).await;
        let other = Browser::open(&world, &prompt).await;
        let cookie = Some(browser.cookie.as_str());
        let own_origin = world.base.trim_end_matches("/issuer");
        let attempts = [
            (None, None, browser.form_token.as_str()),
            (cookie, None, ""),
            (cookie, None, other.form_token.as_str()),
            (Some("mcpx_form=x"), None, browser.form_token.as_str()),
            (cookie, Some("https://evil.example"), browser.form_token.as_str()),
            (cookie, Some("null"), browser.form_token.as_str()),
        ];
        for (cookie, origin, token) in attempts {
            for action in ["approve", "deny"] {
                let sent = browser.post(cookie, origin, token, "alice", "alice-pw", action).await;
                assert_eq!(sent.0, StatusCode::FORBIDDEN);
            }
        }
        let (_, html) = browser.send("\"><script>alert(1)</script>'", "x", "approve").await;
        assert!(!html.contains("<script>"), "{html}");
        let page = format!("{}/device?user_code=%22%3E%3Cscript%3E", world.base);
        let html = world.http.get(page).send().await.unwrap().text().await.unwrap();
        assert!(!html.contains("<script>"), "{html}");
        for needed in
            ["<label for=\"password\">", "<html lang=\"en\">", "autocomplete=\"current-password\""]
        {
            assert!(browser.html.contains(needed));
        }
        let sent = browser.post(
            cookie,
            Some(own_origin),
            &browser.form_token,
            "alice",
            "alice-pw",
            "approve",
        );
        assert_eq!(sent.await.0, StatusCode::OK);
    });
    result.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_users_of_one_login_make_one_refresh() {
    let world = World::new().await;
    let first = world.login(StorageKind::File).await.id_token().await.unwrap();
    for round in 1..=3 {
        world.clock.advance(580);
        let tasks: Vec<_> = (0..32)
            .map(|_| {
                let login = world.load();
                tokio::spawn(async move { login.id_token().await })
            })
            .collect();
        let mut tokens = Vec::new();
        for task in tasks {
            tokens.push(task.await.unwrap().unwrap());
        }
        assert_eq!(world.refreshes(), round);
        assert!(!tokens[0].matches(first.expose()));
        assert!(tokens.iter().all(|token| token.matches(tokens[0].expose())));
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_no_token_with_it() {
    let world = World::new().await;
    let login = world.login(StorageKind::File).await;
    for round in 0..10 {
        world.clock.advance(580);
        let abandoned = login.clone();
        let task = tokio::spawn(async move { abandoned.id_token().await });
        // The issuer has the old refresh token now, and nobody has the new one.
        while world.refreshes() == round {
            tokio::task::yield_now().await;
        }
        task.abort();
        login.id_token().await.unwrap();
        assert_eq!(world.refreshes(), round + 1);
    }
}

#[tokio::test]
async fn a_stolen_refresh_token_ends_the_login() {
    let world = World::new().await;
    let login = world.login(StorageKind::File).await;
    let stolen = world.plain_tokens()["tokens"]["refresh_token"].as_str().unwrap().to_owned();
    world.clock.advance(580);
    login.id_token().await.unwrap();
    let form =
        [("grant_type", "refresh_token"), ("client_id", "mcpx-cli"), ("refresh_token", &stolen)];
    let request = world.http.post(format!("{}/token", world.base)).form(&form);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(response.text().await.unwrap().contains("invalid_grant"));
    world.clock.advance(580);
    assert_login_needed(login.id_token().await);
}

#[tokio::test]
async fn outages_are_not_logouts() {
    let world = World::new().await;
    let login = world.login(StorageKind::File).await;
    let first = login.id_token().await.unwrap();
    world.front.down.store(true, Ordering::SeqCst);
    world.clock.advance(560);
    // It has seconds left: better than nothing.
    assert!(login.id_token().await.unwrap().matches(first.expose()));
    world.clock.advance(60);
    let error = login.id_token().await.err().unwrap();
    assert!(error.is_retryable() && !error.needs_login(), "{error}");
    world.front.down.store(false, Ordering::SeqCst);
    assert!(!login.id_token().await.unwrap().matches(first.expose()));
    // Also logout: what can be done here is done.
    world.front.down.store(true, Ordering::SeqCst);
    assert!(matches!(login.logout().await.unwrap(), Revocation::Failed(_)));
    assert!(!world.home.file("tokens").exists());
}

#[tokio::test]
async fn a_refresh_without_identity_token_keeps_the_new_refresh_token() {
    let world = World::new().await;
    let login = world.login(StorageKind::File).await;
    world.front.drop_id_token.store(true, Ordering::SeqCst);
    let first = login.id_token().await.unwrap();
    world.clock.advance(580);
    // The old identity token has seconds left, and serves as long.
    assert!(login.id_token().await.unwrap().matches(first.expose()));
    world.clock.advance(20);
    let error = login.id_token().await.err().unwrap();
    assert!(error.needs_login() && error.to_string().contains("no new one"), "{error}");
    // Each try has used a refresh token up and kept its successor.
    world.front.drop_id_token.store(false, Ordering::SeqCst);
    assert!(!login.id_token().await.unwrap().matches(first.expose()));
    assert_eq!(world.refreshes(), 3);
}

#[tokio::test]
async fn a_login_ends_after_its_lifetime() {
    let world = World::new().await;
    let login = world.login(StorageKind::File).await;
    world.clock.advance(86_000);
    login.id_token().await.unwrap();
    world.clock.advance(600);
    assert_login_needed(login.id_token().await);
}

#[tokio::test]
async fn with_a_keyring_nothing_readable_lies_about() {
    let world = World::new().await;
    let login = world.login(StorageKind::Keyring).await;
    let token = login.id_token().await.unwrap();
    for entry in std::fs::read_dir(world.home.path()).unwrap() {
        let text =
            String::from_utf8_lossy(&std::fs::read(entry.unwrap().path()).unwrap()).into_owned();
        assert!(!text.contains(token.expose()) && !text.contains("refresh_token\":"), "{text}");
    }
    world.clock.advance(580);
    world.load().id_token().await.unwrap();

    // Another key in the keyring opens nothing; no key neither.
    let sealed = std::fs::read(world.home.file("tokens")).unwrap();
    for secret in world.keyring.secrets.lock().unwrap().values_mut() {
        secret[0] ^= 1;
    }
    assert_login_needed(world.load().status().await);
    world.keyring.secrets.lock().unwrap().clear();
    assert_login_needed(world.load().status().await);
    assert_eq!(sealed, std::fs::read(world.home.file("tokens")).unwrap());
    world.load().logout().await.unwrap();
    assert!(world.keyring.secrets.lock().unwrap().is_empty());
}

#[tokio::test]
async fn without_a_keyring_the_user_is_told_before_logging_in() {
    let mut world = World::new().await;
    world.keyring = Arc::new(MemoryKeyring { broken: true, ..MemoryKeyring::default() });
    let result = world
        .login_with(StorageKind::Keyring, async |_| panic!("asked to log in for nothing"))
        .await;
    let error = result.err().unwrap().to_string();
    assert!(error.contains("--insecure-file"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn exposed_files_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new().await;
    let login = world.login(StorageKind::File).await;
    let chmod = |name: &str, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(world.home.file(name), mode).unwrap();
    };
    chmod("tokens", 0o644);
    let error = login.status().await.err().unwrap().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    world.clock.advance(580);
    assert!(login.id_token().await.is_err(), "a cached token hides the exposed file");
    chmod("tokens", 0o600);
    login.id_token().await.unwrap();
    chmod("", 0o755);
    assert!(Home::open(world.home.path()).is_err());
}
