//! A client's own proxy in front of the gateway: it adds the grant token and a proof to every
//! request (RFC 9449, section 7) and changes nothing else, so that clients which know nothing of
//! either reach the gateway without `mcpx connect` in between.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::http;
use super::raw::Raw;

/// A listening relay; it runs as long as this is held.
pub struct Relay {
    /// Where clients find it.
    pub url: String,
    serving: AbortHandle,
}

struct Target {
    /// Without a key the token is sent as Bearer.
    raw: Option<Raw>,
    token: String,
    url: String,
    /// How a browser would name this relay, and how it would name the gateway.
    origins: [String; 2],
    /// How many streams are still to be cut in the middle.
    cuts: Arc<AtomicUsize>,
}

impl Relay {
    /// A relay to the gateway's `url`.
    ///
    /// # Errors
    /// No port is free.
    pub fn start(raw: Raw, token: String, url: String) -> anyhow::Result<Self> {
        Self::start_cutting(raw, token, url, Arc::default())
    }

    /// A relay that cuts as many streams as `cuts` says, each after its first message.
    ///
    /// # Errors
    /// No port is free.
    pub fn start_cutting(
        raw: Raw,
        token: String,
        url: String,
        cuts: Arc<AtomicUsize>,
    ) -> anyhow::Result<Self> {
        Self::listening(Some(raw), token, url, cuts)
    }

    /// A relay that adds a token that is bound to no key.
    ///
    /// # Errors
    /// No port is free.
    pub fn bearer(token: String, url: String) -> anyhow::Result<Self> {
        Self::listening(None, token, url, Arc::default())
    }

    fn listening(
        raw: Option<Raw>,
        token: String,
        url: String,
        cuts: Arc<AtomicUsize>,
    ) -> anyhow::Result<Self> {
        let listener = http::block(TcpListener::bind("127.0.0.1:0"))?;
        let here = format!("http://{}", listener.local_addr()?);
        let there = reqwest::Url::parse(&url)?.origin().ascii_serialization();
        let target = Target { raw, token, url, origins: [here.clone(), there], cuts };
        let router = Router::new().fallback(pass).with_state(Arc::new(target));
        let serving = http::runtime().spawn(async { axum::serve(listener, router).await });
        Ok(Self { url: format!("{here}/mcp"), serving: serving.abort_handle() })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass(State(target): State<Arc<Target>>, request: Request) -> Response {
    match target.pass(request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

impl Target {
    async fn pass(&self, request: Request) -> anyhow::Result<Response> {
        let (mut head, body) = request.into_parts();
        let mut scheme = "Bearer";
        if let Some(raw) = &self.raw {
            let proof = raw.proof(head.method.as_str(), &self.url, Some(&self.token), |_| ())?;
            head.headers.insert("dpop", HeaderValue::from_str(&proof)?);
            scheme = "DPoP";
        }
        let authorization = format!("{scheme} {}", self.token);
        head.headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&authorization)?);
        head.headers.remove(header::HOST);
        let [here, there] = &self.origins;
        if head.headers.get(header::ORIGIN).is_some_and(|origin| origin == here.as_str()) {
            head.headers.insert(header::ORIGIN, HeaderValue::from_str(there)?);
        }
        let body = axum::body::to_bytes(body, usize::MAX).await?;
        let sent = http::client().request(head.method, &self.url).headers(head.headers);
        let mut answer = sent.body(body).send().await?;
        let status = answer.status();
        let headers = std::mem::take(answer.headers_mut());
        let kind = headers.get(header::CONTENT_TYPE);
        let is_stream = kind.is_some_and(|kind| kind == "text/event-stream");
        let cuts = Arc::clone(&self.cuts);
        let chunks = stream::unfold(Some((answer, false)), move |state| {
            let cuts = Arc::clone(&cuts);
            async move {
                let (mut answer, cut) = state?;
                if cut {
                    return Some((Err(anyhow::anyhow!("cut")), None));
                }
                match answer.chunk().await {
                    Ok(Some(chunk)) => {
                        let message = String::from_utf8_lossy(&chunk).contains("jsonrpc");
                        let one_less = |left: usize| left.checked_sub(1);
                        let cut = is_stream
                            && message
                            && cuts.fetch_update(SeqCst, SeqCst, one_less).is_ok();
                        Some((Ok(chunk), Some((answer, cut))))
                    }
                    Ok(None) => None,
                    Err(error) => Some((Err(error.into()), None)),
                }
            }
        });
        let mut response = Response::new(Body::from_stream(chunks));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        // Both belong to one hop.
        response.headers_mut().remove(header::TRANSFER_ENCODING);
        response.headers_mut().remove(header::CONNECTION);
        Ok(response)
    }
}
