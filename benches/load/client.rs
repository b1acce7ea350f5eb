//! One session of an MCP client, of either era, over HTTP or straight to a child, as light as can
//! be: what it costs is not what is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use mcpx::broker::grant::GrantSource;
use mcpx::mcp::sse::Decoder;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;

use super::answers::{MODERN, envelope, for_era};
use super::child::Pipe;
use super::payload::{self, Payload};
use super::place::Place;
use super::tls;
use super::upstream::CREDENTIAL;
use super::ways::{Era, Reach, Route, Way};

/// A session that is ready for calls.
pub struct Client {
    era: Era,
    link: Link,
    next: u64,
}

enum Link {
    Http(Box<Http>),
    Pipe(Box<Pipe>),
}

static OPENED: AtomicU64 = AtomicU64::new(0);
/// As many as one session may use in a run.
const IDS: u64 = 10_000_000;

/// What every answer to one tool must be: all of it but the id.
#[derive(Clone)]
pub struct Expected {
    payload: Payload,
    result: Arc<str>,
}

impl Client {
    pub async fn open(place: &Place, way: Way, route: Route) -> Self {
        Self::open_to(place, way, route, route.reach.connection(), "/mcp").await
    }

    /// Opens a session with a certain connection, whose server is at `path` of the upstream.
    pub async fn open_to(place: &Place, way: Way, route: Route, name: &str, path: &str) -> Self {
        let link = if route.reach == Reach::Stdio && way == Way::Direct {
            Link::Pipe(Box::new(Pipe::start(&place.counts())))
        } else {
            Link::Http(Box::new(Http::new(place, way, place.url(way, route.reach, name, path))))
        };
        // No id is used twice: sessions behind one local port may share a child.
        let next = 1 + OPENED.fetch_add(1, Ordering::Relaxed) * IDS;
        let mut client = Self { era: route.era, link, next };
        if route.era == Era::Legacy {
            client.shake_hands(way).await;
        }
        client
    }

    async fn shake_hands(&mut self, way: Way) {
        let hello = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;
        let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        match &mut self.link {
            Link::Http(http) => {
                let (head, body) = http.post(hello.to_owned(), &[]).await;
                assert_eq!(head.status, StatusCode::OK, "{way:?}: {body:?}");
                http.session = head.headers["mcp-session-id"].to_str().expect("ASCII").to_owned();
                let (head, body) = http.post(ready.to_owned(), &[]).await;
                assert_eq!(head.status, StatusCode::ACCEPTED, "{way:?}: {body:?}");
            }
            Link::Pipe(pipe) => {
                pipe.send(hello.to_owned()).await;
                let answer = pipe.receive().await;
                assert!(answer.contains("serverInfo"), "{answer}");
                pipe.send(ready.to_owned()).await;
            }
        }
    }

    /// Begins a slot: a new TCP connection, since servers close those that are quiet.
    pub async fn reconnect(&mut self) {
        if let Link::Http(http) = &mut self.link {
            http.sender = None;
            http.sender().await;
        }
    }

    /// Opens the listening stream, which stays open for as long as what is given back lives. The
    /// session itself rests from here on: it keeps neither connection nor grant.
    pub async fn listen(self) -> Response<Incoming> {
        let Link::Http(mut http) = self.link else { panic!("a child has no such stream") };
        let response = http.send(Method::GET, String::new(), &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        response
    }

    pub async fn close(self) {
        if let Link::Pipe(pipe) = self.link {
            pipe.close().await;
        }
    }

    /// Makes one call whose answer is read in full: raw on ways without mcpx, and masked on others.
    pub async fn learn(&mut self, payload: Payload, way: Way) -> Expected {
        let (id, message) = self.call_tool(payload).await;
        let start = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"#);
        let result = message.strip_prefix(&start).and_then(|rest| rest.strip_suffix('}'));
        let result = result.unwrap_or_else(|| panic!("{way:?}: not an answer: {message}"));
        let raw = payload.result();
        let raw = for_era(&raw, self.era == Era::Modern);
        if !way.is_ours() {
            assert_eq!(result, raw);
        } else if let Err(why) = payload::check_masked(&raw, result) {
            panic!("{way:?}: {why}");
        }
        Expected { payload, result: result.into() }
    }

    /// Makes one call and checks its answer.
    pub async fn call(&mut self, expected: &Expected) {
        let (id, message) = self.call_tool(expected.payload).await;
        if message != envelope(id, &expected.result) {
            panic!("call {id} was answered with {message}");
        }
    }

    async fn call_tool(&mut self, payload: Payload) -> (u64, String) {
        let tool = payload.tool();
        let params = format!(
            r#""name":"{tool}","arguments":{{"query":"customers on plan pro","limit":50}}"#
        );
        self.request("tools/call", &params, Some(tool), payload.is_stream()).await
    }

    /// Asks for the tools; the request's id and the answer.
    pub async fn list_tools(&mut self) -> (u64, String) {
        self.request("tools/list", "", None, false).await
    }

    /// Makes a request with these members in its `params`; its id and the answer.
    async fn request(
        &mut self,
        method: &str,
        params: &str,
        name: Option<&str>,
        stream: bool,
    ) -> (u64, String) {
        let id = self.next;
        self.next += 1;
        let comma = if params.is_empty() { "" } else { "," };
        let meta = match self.era {
            Era::Legacy => String::new(),
            Era::Modern => format!("{comma}{META}"),
        };
        let message = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}{meta}}}}}"#
        );
        let http = match &mut self.link {
            Link::Http(http) => http,
            Link::Pipe(pipe) => {
                pipe.send(message).await;
                return (id, pipe.receive().await);
            }
        };
        let mut headers = Vec::new();
        if self.era == Era::Modern {
            headers.extend([("mcp-protocol-version", MODERN), ("mcp-method", method)]);
            headers.extend(name.map(|name| ("mcp-name", name)));
        }
        let (head, body) = http.post(message, &headers).await;
        let text = String::from_utf8(body.into()).expect("UTF-8");
        assert_eq!(head.status, StatusCode::OK, "request {id}: {text}");
        let kind = head.headers[header::CONTENT_TYPE].to_str().expect("ASCII");
        if !stream {
            assert_eq!(kind, "application/json");
            return (id, text);
        }
        assert_eq!(kind, "text/event-stream");
        let mut decoder = Decoder::new(1 << 20);
        decoder.push(text.as_bytes()).expect("a small event");
        let mut messages = std::iter::from_fn(|| decoder.next()).filter_map(|event| event.data);
        let message = messages.next().expect("a message");
        assert_eq!(messages.next(), None, "more than one message");
        (id, message)
    }
}

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"}}"#;

/// A connection, and what goes with each request on it.
struct Http {
    url: Url,
    authorization: Authorization,
    /// Empty before the handshake, and in the modern era.
    session: String,
    sender: Option<SendRequest<Full<Bytes>>>,
}

enum Authorization {
    Nothing,
    Credential,
    Grant(Box<GrantSource>),
}

impl Http {
    fn new(place: &Place, way: Way, url: Url) -> Self {
        let authorization = match way {
            Way::Direct | Way::Nginx => Authorization::Credential,
            Way::Gateway => Authorization::Grant(Box::new(place.grant(&url))),
            Way::Connect => Authorization::Nothing,
        };
        Self { url, authorization, session: String::new(), sender: None }
    }

    async fn post(
        &mut self,
        body: String,
        headers: &[(&str, &str)],
    ) -> (hyper::http::response::Parts, Bytes) {
        let (head, body) = self.send(Method::POST, body, headers).await.into_parts();
        (head, body.collect().await.expect("a whole body").to_bytes())
    }

    async fn send(
        &mut self,
        method: Method,
        body: String,
        headers: &[(&str, &str)],
    ) -> Response<Incoming> {
        let path = self.url.path();
        let mut request = Request::builder()
            .method(&method)
            .uri(path)
            .header(header::HOST, format!("127.0.0.1:{}", self.url.port().expect("a port")));
        request = match method {
            Method::GET => request.header(header::ACCEPT, "text/event-stream"),
            _ => request
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::ACCEPT, "application/json, text/event-stream"),
        };
        if !self.session.is_empty() {
            request = request
                .header("mcp-session-id", &self.session)
                .header("mcp-protocol-version", "2025-11-25");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match &self.authorization {
            Authorization::Nothing => {}
            Authorization::Credential => {
                request = request.header(header::AUTHORIZATION, format!("Bearer {CREDENTIAL}"));
            }
            Authorization::Grant(source) => {
                let token = source.token().await.expect("a grant");
                let made = source.authorize(method.as_str(), &self.url, &token).expect("a proof");
                request = request.header(header::AUTHORIZATION, made.authorization.expose());
                if let Some(proof) = made.proof {
                    request = request.header("dpop", proof);
                }
            }
        }
        let request = request.body(Full::from(body)).expect("a request");
        let sender = self.sender().await;
        sender.ready().await.expect("an open connection");
        sender.send_request(request).await.expect("a response")
    }

    async fn sender(&mut self) -> &mut SendRequest<Full<Bytes>> {
        if self.sender.is_none() {
            let address = ("127.0.0.1", self.url.port().expect("a port"));
            let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
            stream.set_nodelay(true).expect("TCP_NODELAY");
            self.sender = Some(if self.url.scheme() == "https" {
                let shown = match &self.authorization {
                    Authorization::Grant(source) => source.hold().pem(),
                    Authorization::Nothing | Authorization::Credential => None,
                };
                let name = ServerName::try_from("127.0.0.1").expect("an address");
                let stream = tls::connector(shown).connect(name, stream).await;
                speak(stream.expect("a handshake")).await
            } else {
                speak(stream).await
            });
        }
        self.sender.as_mut().expect("just made")
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    sender
}
