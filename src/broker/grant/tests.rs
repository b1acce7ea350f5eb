//! Against a token endpoint that checks what a real one checks.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::extract::{Form, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router, routing::post};
use serde_json::json;

use super::*;
use crate::identity::dpop::{ReplayCache, Thumbprint, verify_proof};
use crate::types::{SystemClock, Timestamp};

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

struct Identified;

impl IdentitySource for Identified {
    fn id_token(&self) -> BoxFuture<'_, Result<Secret, LoginError>> {
        Box::pin(async { Ok(Secret::new("the-id-token")) })
    }
}

type Fields = std::collections::HashMap<String, String>;

struct Server {
    url: Url,
    clock: Arc<TestClock>,
    seen: ReplayCache,
    exchanges: Mutex<Vec<(Fields, Thumbprint)>>,
    /// What to answer instead of a token.
    instead: Mutex<Option<(u16, String)>>,
}

impl Server {
    async fn start() -> (Arc<Self>, ServerInfo) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let url = |path: &str| Url::parse(&format!("{base}{path}")).unwrap();
        let server = Arc::new(Self {
            url: url("/oauth/token"),
            clock: Arc::new(TestClock(AtomicI64::new(SystemClock.now_seconds()))),
            seen: ReplayCache::new(1000),
            exchanges: Mutex::default(),
            instead: Mutex::default(),
        });
        let router =
            Router::new().route("/oauth/token", post(answer)).with_state(Arc::clone(&server));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let info = ServerInfo {
            version: 1,
            server: url(""),
            issuers: Vec::new(),
            token_endpoint: server.url.clone(),
            api: url("/api"),
            log_key: String::new(),
            certificates: false,
        };
        (server, info)
    }

    fn answer_with(&self, status: u16, body: &str) {
        *self.instead.lock().unwrap() = Some((status, body.to_owned()));
    }

    fn exchanges(&self) -> Vec<(Fields, Thumbprint)> {
        self.exchanges.lock().unwrap().clone()
    }

    fn advance(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

async fn answer(
    State(server): State<Arc<Server>>,
    headers: HeaderMap,
    Form(form): Form<Fields>,
) -> Response {
    let proof = headers["dpop"].to_str().unwrap();
    let now = server.clock.now_seconds();
    let key = verify_proof(proof, "POST", &server.url, None, now, &server.seen).unwrap();
    let mut exchanges = server.exchanges.lock().unwrap();
    exchanges.push((form, key));
    if let Some((status, body)) = &*server.instead.lock().unwrap() {
        let status = StatusCode::from_u16(*status).unwrap();
        return (status, [("location", "http://192.0.2.1/")], body.clone()).into_response();
    }
    Json(json!({
        "access_token": format!("grant-{}", exchanges.len()),
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "DPoP",
        "expires_in": 300,
        "mcpx_grant": "gr_0123456789abcdef",
        "mcpx_session": "ses_0123456789abcdef",
    }))
    .into_response()
}

fn source(server: &Server, info: ServerInfo) -> GrantSource {
    let clock = Arc::clone(&server.clock) as Arc<dyn Clock>;
    let reason = Some("ticket 7".to_owned());
    GrantSource::new(info, Arc::new(Identified), "https://mcpx.example/c/crm", reason, clock)
        .unwrap()
}

#[tokio::test]
async fn asks_as_the_specification_says() {
    let (server, info) = Server::start().await;
    let grant = source(&server, info).grant().await.unwrap();
    assert_eq!(grant.token.expose(), "grant-1");
    assert!(grant.grant.is_some() && grant.session.is_some());
    let (form, _) = server.exchanges().remove(0);
    let expected = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", "the-id-token"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token"),
        ("resource", "https://mcpx.example/c/crm"),
        ("mcpx_reason", "ticket 7"),
    ];
    let expected: Fields = expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!(form, expected);
}

#[tokio::test]
async fn many_requests_make_one_exchange_and_renewal_continues_the_grant() {
    let (server, info) = Server::start().await;
    let source = Arc::new(source(&server, info));
    for (wait, exchanges, token) in [(0, 1, "grant-1"), (199, 1, "grant-1"), (1, 2, "grant-2")] {
        server.advance(wait);
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let source = Arc::clone(&source);
                tokio::spawn(async move { source.token().await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap().expose(), token);
        }
        assert_eq!(server.exchanges().len(), exchanges);
    }
    let made = server.exchanges();
    assert_eq!(made[1].0["mcpx_grant"], "grant-1");
    assert_eq!(made[0].1, made[1].1, "a grant keeps its key");
    // An expired grant is not continued: it is a new one.
    server.advance(300);
    source.token().await.unwrap();
    assert!(!server.exchanges()[2].0.contains_key("mcpx_grant"));
}

#[tokio::test]
async fn an_outage_is_bridged_while_the_token_lives() {
    let (server, info) = Server::start().await;
    let source = source(&server, info);
    source.token().await.unwrap();
    server.answer_with(503, "<html>");
    server.advance(250);
    assert_eq!(source.token().await.unwrap().expose(), "grant-1");
    assert_eq!(source.token().await.unwrap().expose(), "grant-1");
    assert_eq!(server.exchanges().len(), 2, "it waits between two attempts");
    server.advance(50);
    let error = source.token().await.err().unwrap();
    assert!(error.is_retryable(), "{error}");
}

#[tokio::test]
async fn a_refusal_ends_the_grant_at_once() {
    let (server, info) = Server::start().await;
    let source = source(&server, info);
    source.token().await.unwrap();
    let refusal = json!({
        "error": "access_denied", "error_description": "the grant was revoked by carol",
        "mcpx_code": "grant_revoked", "mcpx_hint": "mcpx request crm",
    });
    server.answer_with(400, &refusal.to_string());
    server.advance(250);
    match source.token().await.err().unwrap() {
        ExchangeError::Refused { error, description, code, hint } => {
            assert_eq!(error, "access_denied");
            assert_eq!(description, "the grant was revoked by carol");
            assert_eq!(code.as_deref(), Some("grant_revoked"));
            assert_eq!(hint.as_deref(), Some("mcpx request crm"));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn forgets_only_the_token_that_was_refused() {
    let (server, info) = Server::start().await;
    let source = source(&server, info);
    let first = source.token().await.unwrap();
    source.forget(&Secret::new("another"));
    source.token().await.unwrap();
    assert_eq!(server.exchanges().len(), 1);
    source.forget(&first);
    assert_eq!(source.token().await.unwrap().expose(), "grant-2");
}

#[tokio::test]
async fn nonsense_is_no_token() {
    let (server, info) = Server::start().await;
    let good = json!({"access_token": "t", "token_type": "DPoP", "expires_in": 300});
    let with = |name: &str, value: serde_json::Value| {
        let mut body = good.clone();
        body[name] = value;
        body.to_string()
    };
    let cases = [
        (200, with("token_type", json!("Bearer"))),
        (200, with("expires_in", json!(0))),
        (200, with("expires_in", json!(-1))),
        (200, with("mcpx_grant", json!("../../x"))),
        (200, with("access_token", json!(null))),
        (200, "{}".to_owned()),
        (200, "<html>".to_owned()),
        (200, " ".repeat(fetch::MAX_ANSWER + 1)),
        (302, good.to_string()),
        (307, good.to_string()),
        (404, "not found".to_owned()),
    ];
    for (status, body) in cases {
        server.answer_with(status, &body);
        let error = source(&server, info.clone()).token().await.err().unwrap();
        assert!(matches!(error, ExchangeError::Protocol { .. }), "{status} {error}");
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn authorises_one_request() {
    let (server, info) = Server::start().await;
    let source = source(&server, info);
    let token = source.token().await.unwrap();
    let url = Url::parse("https://mcpx.example/c/crm").unwrap();
    let headers = source.authorize("POST", &url, &token).unwrap();
    assert_eq!(headers.authorization.expose(), "DPoP grant-1");
    let now = server.clock.now_seconds();
    let key =
        verify_proof(&headers.proof.unwrap(), "POST", &url, Some("grant-1"), now, &server.seen)
            .unwrap();
    assert_eq!(key, server.exchanges()[0].1, "the key of the exchange");
}
