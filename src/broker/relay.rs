//! Carries what arrives on the local port to the gateway and back, streaming both answers and
//! events as they come.
//!
//! Copies MCP's headers and nothing of a login. A client that goes away takes its stream at the
//! gateway with it, because both live in the same future. A stream that ends without the answer it
//! was opened for, gets an error in its place ([`super::ending`]).

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;

use super::channel::Channel;
use super::ending::Asked;
use super::local::{Gate, Refusal};
use super::problem::Problem;
use crate::mcp::{Id, Kind, Limits, Message, Origin, headers};

/// The routes of a local port: everything goes through one handler, so that nothing can be
/// reached without passing the gate.
pub fn router(channel: Arc<Channel>, gate: Gate, limits: Limits) -> Router {
    let relay = Relay { channel, gate, limits };
    Router::new().fallback(handle).with_state(Arc::new(relay))
}

struct Relay {
    channel: Arc<Channel>,
    gate: Gate,
    limits: Limits,
}

async fn handle(State(relay): State<Arc<Relay>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if let Err(refusal) = relay.gate.admit(&parts.method, &parts.uri, &parts.headers) {
        tracing::warn!(?refusal, "refused a request on the local port");
        return answer(&refused(refusal), None);
    }
    if ![Method::POST, Method::GET, Method::DELETE].contains(&parts.method) {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return answer(&Problem::new(status, "failure", "only POST, GET and DELETE"), None);
    }
    let Ok(body) = to_bytes(body, relay.limits.bytes).await else {
        let message = format!("a message may have at most {} bytes", relay.limits.bytes);
        return answer(&Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "failure", message), None);
    };
    let copied = copy_request_headers(&parts.headers);
    match relay.channel.send(parts.method, copied, body.clone()).await {
        Ok(response) => pass_on(response, || {
            let message = Message::decode(body, Origin::Client, &relay.limits).ok()?;
            Asked::of(&message)
        }),
        Err(error) => {
            tracing::warn!(%error, "cannot reach the gateway");
            answer(&error.problem(), request_id(&body, &relay.limits).as_ref())
        }
    }
}

fn refused(refusal: Refusal) -> Problem {
    let (status, message) = match refusal {
        Refusal::Host => (StatusCode::FORBIDDEN, "this port answers to 127.0.0.1 only"),
        Refusal::Origin => (StatusCode::FORBIDDEN, "web pages may not use this port"),
        Refusal::NotFound => (StatusCode::NOT_FOUND, "there is nothing here"),
        Refusal::Secret => (StatusCode::FORBIDDEN, "the bearer token is missing or wrong"),
    };
    Problem::new(status, "forbidden", message)
}

fn copy_request_headers(from: &HeaderMap) -> HeaderMap {
    let copied = from.iter().filter(|(name, _)| headers::is_forwarded_request(name.as_str()));
    let mut to = HeaderMap::new();
    for (name, value) in copied {
        to.append(name.clone(), value.clone());
    }
    to
}

/// The gateway's answer for the local client; `asked` tells which request it answers, if any. 401 becomes 403: it would send clients looking for
/// an OAuth login on this port, where there is none.
fn pass_on(mut from: reqwest::Response, asked: impl FnOnce() -> Option<Asked>) -> Response {
    let status = match from.status() {
        StatusCode::UNAUTHORIZED => StatusCode::FORBIDDEN,
        status => status,
    };
    let all = std::mem::take(from.headers_mut());
    let kind = all.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let is_stream = kind.starts_with(headers::EVENT_STREAM.as_bytes());
    let body = match is_stream.then(asked).flatten() {
        Some(asked) => Body::from_stream(asked.answered(from.bytes_stream())),
        None => Body::from_stream(from.bytes_stream()),
    };
    let mut to = Response::new(body);
    *to.status_mut() = status;
    for (name, value) in &all {
        if headers::is_forwarded_response(name.as_str()) {
            to.headers_mut().append(name.clone(), value.clone());
        }
    }
    to
}

fn answer(problem: &Problem, id: Option<&Id>) -> Response {
    let mut response = Response::new(Body::from(problem.to_json_rpc(id)));
    *response.status_mut() = problem.status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(headers::JSON));
    response
}

fn request_id(body: &bytes::Bytes, limits: &Limits) -> Option<Id> {
    match Message::decode(body.clone(), Origin::Client, limits).ok()?.kind() {
        Kind::Request { id, .. } => Some(id.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::super::local::Local;
    use super::super::testing::{Gateway, Nobody, events, json, stream};
    use super::*;

    async fn open(channel: Arc<Channel>) -> (String, u16) {
        let local = Local::bind(0).await.unwrap();
        let (url, port) = (local.url(), local.port());
        let router = router(channel, local.gate(), Limits { bytes: 2000, depth: 100 });
        tokio::spawn(local.serve(router, std::future::pending()));
        (url, port)
    }

    fn client() -> reqwest::Client {
        reqwest::Client::builder().no_proxy().build().unwrap()
    }

    const PING: &str = r#"{"jsonrpc":"2.0","id":"a-1","method":"ping"}"#;

    #[tokio::test]
    async fn copies_what_is_mcp_and_nothing_of_a_login() {
        let gateway = Gateway::start(|_| async {
            let mut response = json(202, "");
            let headers = response.headers_mut();
            headers.insert("mcp-session-id", "s1".parse().unwrap());
            headers.insert("x-accel-buffering", "no".parse().unwrap());
            headers.insert("set-cookie", "a=b".parse().unwrap());
            headers.insert("access-control-allow-origin", "*".parse().unwrap());
            response
        })
        .await;
        let (url, _) = open(gateway.channel()).await;
        let response = client()
            .post(&url)
            .header("content-type", "application/json")
            .header("mcp-protocol-version", "2025-11-25")
            .header("mcp-param-region", "eu")
            .header("cookie", "secret")
            .header("authorization", "Bearer stolen")
            .header("accept-encoding", "gzip")
            .body(PING)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 202);
        assert_eq!(response.headers()["mcp-session-id"], "s1");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        assert!(!response.headers().contains_key("set-cookie"));
        assert!(!response.headers().contains_key("access-control-allow-origin"));
        let seen = gateway.seen().remove(0);
        assert_eq!(seen.body, PING);
        assert_eq!(seen.header("mcp-protocol-version"), "2025-11-25");
        assert_eq!(seen.header("mcp-param-region"), "eu");
        assert_eq!(seen.header("cookie"), "");
        assert_eq!(seen.header("accept-encoding"), "");
        assert_eq!(seen.header("authorization"), "DPoP grant0");
    }

    #[tokio::test]
    async fn events_come_through_one_by_one() {
        let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let receiver = std::sync::Mutex::new(Some(receiver));
        let gateway = Gateway::start(move |_| {
            let mut receiver = receiver.lock().unwrap().take().unwrap();
            let chunks = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
            async { stream(Body::from_stream(chunks)) }
        })
        .await;
        let (url, _) = open(gateway.channel()).await;
        let mut response = client().get(&url).send().await.unwrap();
        // Each is read before the next one is sent: a buffering relay would hang here.
        for text in ["data: 1\n\n", ": ping\n\n", "data: 2\n\n"] {
            sender.send(Ok(text.into())).await.unwrap();
            assert_eq!(response.chunk().await.unwrap().unwrap(), text);
        }
        // The client goes away; so must the stream at the gateway.
        drop(response);
        tokio::time::timeout(Duration::from_secs(10), sender.closed()).await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_leaves_while_waiting_takes_its_request_along() {
        let (gone, left) = mpsc::channel::<()>(1);
        let gateway = Gateway::start(move |_| {
            let alive = gone.clone();
            async move {
                let _alive = alive;
                std::future::pending::<Response>().await
            }
        })
        .await;
        let (url, _) = open(gateway.channel()).await;
        let waiting = tokio::spawn(client().post(&url).body(PING).send());
        // One sender is the factory's, the other the waiting handler's: only that one can go.
        while left.sender_strong_count() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        waiting.abort();
        let dropped = async {
            while left.sender_strong_count() > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), dropped).await.unwrap();
    }

    #[tokio::test]
    async fn an_expired_grant_is_renewed_once_and_a_revoked_one_is_not() {
        let gateway = Gateway::start(|seen| async move {
            match seen.header("authorization") {
                // As the gateway says it.
                "DPoP grant0" => json(
                    401,
                    r#"{"jsonrpc":"2.0","id":null,"error":{"code":-31006,"message":"x","data":{"mcpx":{"code":"grant_expired"}}}}"#,
                ),
                _ if seen.body.contains("again") => {
                    json(401, r#"{"error":{"code":"grant_revoked","message":"revoked"}}"#)
                }
                _ => json(200, "{}"),
            }
        })
        .await;
        let (url, _) = open(gateway.channel()).await;
        let response = client().post(&url).body(PING).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!((gateway.seen().len(), gateway.grants()), (2, 2));
        let response = client().post(&url).body("again").send().await.unwrap();
        assert_eq!(response.status(), 403, "401 would start an OAuth login at this port");
        assert!(response.text().await.unwrap().contains("grant_revoked"));
        assert_eq!((gateway.seen().len(), gateway.grants()), (3, 2));
    }

    #[tokio::test]
    async fn what_cannot_be_carried_is_answered() {
        let gateway = Gateway::start(|_| async { events(&[]) }).await;
        let mut dead = gateway.clone();
        dead.info.server = "http://127.0.0.1:9/".parse().unwrap();
        let (url, _) = open(dead.channel()).await;
        let response = client().post(&url).body(PING).send().await.unwrap();
        assert_eq!(response.status(), 502);
        let body = response.text().await.unwrap();
        assert!(body.contains(r#""id":"a-1""#) && body.contains(r#""unreachable""#), "{body}");

        let (url, _) = open(gateway.channel_as(Arc::new(Nobody))).await;
        let response = client().post(&url).body(PING).send().await.unwrap();
        assert_eq!(response.status(), 403);
        let body = response.text().await.unwrap();
        assert!(body.contains("login_needed") && body.contains("mcpx login"), "{body}");

        let response = client().post(&url).body("x".repeat(2001)).send().await.unwrap();
        assert_eq!(response.status(), 413);
        let response = client().put(&url).send().await.unwrap();
        assert_eq!(response.status(), 405);
    }

    #[tokio::test]
    async fn strangers_reach_nothing() {
        let gateway = Gateway::start(|_| async { json(200, "{}") }).await;
        let (url, port) = open(gateway.channel()).await;
        let bare = format!("http://127.0.0.1:{port}");
        let get = |url: String, name: &'static str, value: &'static str| {
            client().get(url).header(name, value).send()
        };
        assert_eq!(get(url.clone(), "host", "evil.example").await.unwrap().status(), 403);
        assert_eq!(get(url, "origin", "https://evil.example").await.unwrap().status(), 403);
        assert_eq!(get(format!("{bare}/x/mcp"), "a", "b").await.unwrap().status(), 404);
        assert_eq!(get(format!("{bare}/mcp"), "a", "b").await.unwrap().status(), 403);
        assert!(gateway.seen().is_empty());
    }
}
