//! A fast MCP server over Streamable HTTP (2025-11-25): its own process, one thread, no work but
//! its answers. Ends when its standard input does, and then says how many tools it was asked for.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::cell::Cell;

use super::payload::{PAYLOADS, Payload};

/// What every call must carry: the gateway adds it, and the direct way knows it.
pub const CREDENTIAL: &str = "bench-upstream-credential";
const SESSION: &str = "bench-upstream-session";

/// The upstream's process.
pub struct Upstream {
    child: Child,
    pub port: u16,
}

impl Upstream {
    pub fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program's file"))
            .arg("upstream")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the upstream starts");
        let mut line = [0; 6];
        child.stdout.as_mut().expect("its output").read_exact(&mut line).expect("its port");
        let port = std::str::from_utf8(&line).expect("digits").trim().parse().expect("a port");
        Self { child, port }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it; how many tool calls it answered.
    pub fn close(mut self) -> u64 {
        drop(self.child.stdin.take());
        let mut told = String::new();
        self.child.stdout.take().expect("its output").read_to_string(&mut told).expect("its count");
        self.child.wait().expect("its end");
        told.trim().parse().expect("a number")
    }
}

pub fn main() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let served = Rc::new(Served::default());
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{:05}", listener.local_addr().expect("its address").port());
        std::io::stdout().flush().expect("somebody reads");
        let (ended, mut end) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            drop(std::io::stdin().read_to_end(&mut Vec::new()));
            drop(ended);
        });
        loop {
            let (stream, _) = tokio::select! {
                _ = &mut end => break,
                accepted = listener.accept() => accepted.expect("a connection"),
            };
            stream.set_nodelay(true).expect("TCP_NODELAY");
            let served = Rc::clone(&served);
            tokio::task::spawn_local(async move {
                let service = service_fn(|request| {
                    let served = Rc::clone(&served);
                    async move { Ok::<_, Infallible>(served.answer(request).await) }
                });
                let serving = hyper::server::conn::http1::Builder::new();
                // A client that leaves is no error here.
                drop(serving.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    println!("{}", served.calls.get());
}

struct Served {
    /// The results, by tool, made once.
    results: [(Payload, String); 3],
    calls: Cell<u64>,
}

impl Default for Served {
    fn default() -> Self {
        Self { results: PAYLOADS.map(|payload| (payload, payload.result())), calls: Cell::new(0) }
    }
}

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: &'a str,
    params: Option<Params<'a>>,
}

#[derive(Deserialize)]
struct Params<'a> {
    name: Option<&'a str>,
}

impl Served {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let given = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
        if given("authorization").is_none_or(|value| value != format!("Bearer {CREDENTIAL}")) {
            return status(StatusCode::UNAUTHORIZED);
        }
        let in_session = given("mcp-session-id") == Some(SESSION);
        if request.method() != Method::POST {
            return status(StatusCode::METHOD_NOT_ALLOWED);
        }
        let Ok(body) = request.into_body().collect().await else {
            return status(StatusCode::BAD_REQUEST);
        };
        let body = body.to_bytes();
        let Ok(asked) = serde_json::from_slice::<Asked<'_>>(&body) else {
            return status(StatusCode::BAD_REQUEST);
        };
        let Some(id) = asked.id else { return status(StatusCode::ACCEPTED) };
        match asked.method {
            "initialize" => {
                let mut response = json(&envelope(id, INITIALIZED));
                response.headers_mut().insert("mcp-session-id", SESSION.parse().expect("ASCII"));
                response
            }
            _ if !in_session => status(StatusCode::NOT_FOUND),
            "tools/call" => {
                let name = asked.params.and_then(|params| params.name);
                let tool = self.results.iter().find(|(tool, _)| Some(tool.tool()) == name);
                let Some((payload, result)) = tool else { return status(StatusCode::BAD_REQUEST) };
                self.calls.set(self.calls.get() + 1);
                let message = envelope(id, result);
                if payload.is_stream() { event(&message) } else { json(&message) }
            }
            _ => status(StatusCode::BAD_REQUEST),
        }
    }
}

const INITIALIZED: &str = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"bench","version":"1"}}"#;

/// An answer, as [`super::client`] expects it.
pub fn envelope(id: impl std::fmt::Display, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

fn json(message: &str) -> Response<Full<Bytes>> {
    typed("application/json", message.to_owned())
}

fn event(message: &str) -> Response<Full<Bytes>> {
    typed("text/event-stream", format!("event: message\ndata: {message}\n\n"))
}

fn typed(kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
