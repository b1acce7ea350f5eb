//! A gateway made up for tests: it gives grants to anybody, checks that every request carries one
//! with a proof, and answers as the test says.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use axum::{Router, body};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;

use super::channel::Channel;
use super::grant::{GrantSource, IdentitySource};
use super::login::LoginError;
use super::server::ServerInfo;
use crate::types::{Secret, SystemClock};

/// One request as the gateway saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

type Handler = Arc<dyn Fn(Seen) -> BoxFuture<'static, Response> + Send + Sync>;

/// A running gateway.
#[derive(Clone)]
pub(super) struct Gateway {
    pub(super) info: ServerInfo,
    state: Arc<Inner>,
}

struct Inner {
    handler: Handler,
    seen: Mutex<Vec<Seen>>,
    tokens: Mutex<Vec<String>>,
}

impl Gateway {
    /// Starts one whose `/mcp/crm` answers by `handler`.
    pub(super) async fn start<F>(handler: impl Fn(Seen) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Inner {
            handler: Arc::new(move |seen| Box::pin(handler(seen))),
            seen: Mutex::default(),
            tokens: Mutex::default(),
        });
        let router = Router::new()
            .route("/token", axum::routing::post(token))
            .fallback(serve)
            .with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let info = serde_json::from_value(serde_json::json!({
            "version": 1,
            "server": base,
            "issuers": [],
            "token_endpoint": format!("{base}/token"),
            "api": format!("{base}/api"),
            "log_key": "k",
        }))
        .unwrap();
        Self { info, state }
    }

    /// A channel to it, with a login that always works.
    pub(super) fn channel(&self) -> Arc<Channel> {
        self.channel_as(Arc::new(Anybody))
    }

    pub(super) fn channel_as(&self, who: Arc<dyn IdentitySource>) -> Arc<Channel> {
        let url = self.info.server.join("/mcp/crm").unwrap();
        let source =
            GrantSource::new(self.info.clone(), who, url.as_str(), None, Arc::new(SystemClock));
        Arc::new(Channel::new(url, source.unwrap()).unwrap())
    }

    /// What has arrived so far, apart from token requests.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// How many grants were given.
    pub(super) fn grants(&self) -> usize {
        self.state.tokens.lock().unwrap().len()
    }
}

/// A login that always works.
pub(super) struct Anybody;

impl IdentitySource for Anybody {
    fn id_token(&self) -> BoxFuture<'_, Result<Secret, LoginError>> {
        Box::pin(async { Ok(Secret::new("id")) })
    }
}

/// A login that has ended.
pub(super) struct Nobody;

impl IdentitySource for Nobody {
    fn id_token(&self) -> BoxFuture<'_, Result<Secret, LoginError>> {
        Box::pin(async { Err(LoginError::LoginNeeded { why: "test".to_owned() }) })
    }
}

/// A JSON answer.
pub(super) fn json(status: u16, text: impl Into<String>) -> Response {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Body::from(text.into()))
        .unwrap()
}

/// A stream of these chunks, which ends after the last.
pub(super) fn events(chunks: &[&str]) -> Response {
    let chunks: Vec<_> =
        chunks.iter().map(|c| Ok::<_, std::io::Error>(Bytes::from((*c).to_owned()))).collect();
    stream(Body::from_stream(futures_util::stream::iter(chunks)))
}

/// An event stream with this body.
pub(super) fn stream(body: Body) -> Response {
    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}

async fn token(State(state): State<Arc<Inner>>, headers: HeaderMap) -> Response {
    assert!(headers.contains_key("dpop"), "a token request without a proof");
    let mut tokens = state.tokens.lock().unwrap();
    let token = format!("grant{}", tokens.len());
    tokens.push(token.clone());
    let session = crate::types::SessionId::generate().unwrap();
    json(
        200,
        serde_json::json!({
            "access_token": token, "token_type": "DPoP", "expires_in": 600,
            "mcpx_session": session,
        })
        .to_string(),
    )
}

async fn serve(State(state): State<Arc<Inner>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = String::from_utf8(body::to_bytes(body, 1 << 24).await.unwrap().to_vec()).unwrap();
    let seen = Seen { method: parts.method, headers: parts.headers, body };
    let newest = state.tokens.lock().unwrap().last().cloned().unwrap_or_default();
    if seen.header("authorization") != format!("DPoP {newest}") || seen.header("dpop").is_empty() {
        let mut response = json(401, r#"{"error":{"code":"login_needed","message":"who?"}}"#);
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        return response;
    }
    state.seen.lock().unwrap().push(seen.clone());
    (state.handler)(seen).await
}
