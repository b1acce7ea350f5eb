//! One session of an MCP client (2025-11-25, Streamable HTTP), as light as can be: what it costs is
//! not what is measured.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use mcpx::broker::grant::GrantSource;
use mcpx::mcp::sse::Decoder;
use url::Url;

use super::payload::{self, Payload};
use super::place::{Place, Way};
use super::upstream::{CREDENTIAL, envelope};

/// A session that has been initialized.
pub struct Client {
    url: Url,
    authorization: Authorization,
    session: String,
    sender: Option<SendRequest<Full<Bytes>>>,
    next: u64,
}

enum Authorization {
    Nothing,
    Credential,
    Grant(Arc<GrantSource>),
}

/// What every answer to one tool must be: all of it but the id.
#[derive(Clone)]
pub struct Expected {
    payload: Payload,
    result: Arc<str>,
}

impl Client {
    pub async fn open(place: &Place, way: Way) -> Self {
        let (url, authorization) = match way {
            Way::Direct => (place.upstream_url(), Authorization::Credential),
            Way::Gateway => (place.gateway_url(), Authorization::Grant(place.grant().into())),
            Way::Connect => (place.local.clone(), Authorization::Nothing),
        };
        let session = String::new();
        let mut client = Self { url, authorization, session, sender: None, next: 1 };
        let hello = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;
        let (head, body) = client.send(hello.to_owned()).await;
        assert_eq!(head.status, StatusCode::OK, "{way:?}: {body:?}");
        client.session = head.headers["mcp-session-id"].to_str().expect("ASCII").to_owned();
        let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        let (head, body) = client.send(ready.to_owned()).await;
        assert_eq!(head.status, StatusCode::ACCEPTED, "{way:?}: {body:?}");
        client
    }

    /// Begins a slot: a new TCP connection, since servers close those that are quiet.
    pub async fn reconnect(&mut self) {
        self.sender = None;
        self.sender().await;
    }

    /// Makes one call whose answer is read in full: raw on the direct way, and masked on others.
    pub async fn learn(&mut self, payload: Payload, way: Way) -> Expected {
        let (id, message) = self.call_tool(payload).await;
        let start = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"#);
        let result = message.strip_prefix(&start).and_then(|rest| rest.strip_suffix('}'));
        let result = result.unwrap_or_else(|| panic!("{way:?}: not an answer: {message}"));
        let raw = payload.result();
        if way == Way::Direct {
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
        let id = self.next;
        self.next += 1;
        let tool = payload.tool();
        let call = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"query":"customers on plan pro","limit":50}}}}}}"#
        );
        let (head, body) = self.send(call).await;
        let text = String::from_utf8(body.into()).expect("UTF-8");
        assert_eq!(head.status, StatusCode::OK, "call {id}: {text}");
        let kind = head.headers[header::CONTENT_TYPE].to_str().expect("ASCII");
        if !payload.is_stream() {
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

    async fn send(&mut self, body: String) -> (hyper::http::response::Parts, Bytes) {
        let path = self.url.path();
        let mut request = Request::post(path)
            .header(header::HOST, format!("127.0.0.1:{}", self.url.port().expect("a port")))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream");
        if !self.session.is_empty() {
            request = request
                .header("mcp-session-id", &self.session)
                .header("mcp-protocol-version", "2025-11-25");
        }
        match &self.authorization {
            Authorization::Nothing => {}
            Authorization::Credential => {
                request = request.header(header::AUTHORIZATION, format!("Bearer {CREDENTIAL}"));
            }
            Authorization::Grant(source) => {
                let token = source.token().await.expect("a grant");
                let made = source.authorize("POST", &self.url, &token).expect("a proof");
                request = request
                    .header(header::AUTHORIZATION, made.authorization.expose())
                    .header("dpop", made.proof);
            }
        }
        let request = request.body(Full::from(body)).expect("a request");
        let sender = self.sender().await;
        sender.ready().await.expect("an open connection");
        let response = sender.send_request(request).await.expect("a response");
        let (head, body) = response.into_parts();
        (head, body.collect().await.expect("a whole body").to_bytes())
    }

    async fn sender(&mut self) -> &mut SendRequest<Full<Bytes>> {
        if self.sender.is_none() {
            let address = ("127.0.0.1", self.url.port().expect("a port"));
            let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
            stream.set_nodelay(true).expect("TCP_NODELAY");
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
            tokio::spawn(connection);
            self.sender = Some(sender);
        }
        self.sender.as_mut().expect("just made")
    }
}
