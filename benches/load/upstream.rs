//! A fast MCP server over Streamable HTTP, of both eras: its own process, one thread, no work but
//! its answers. Ends when its standard input does, and then says how many tools it was asked for.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;

use super::answers::{Answer, Answers, MODERN};

/// What every call must carry: the gateway adds it, and the direct way knows it.
pub const CREDENTIAL: &str = "bench-upstream-credential";
const SESSION: &str = "bench-upstream-session";

/// Its first argument.
pub const ARGUMENT: &str = "upstream";

/// The upstream's process.
pub struct Upstream {
    child: Child,
    pub port: u16,
}

impl Upstream {
    pub fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program's file"))
            .arg(ARGUMENT)
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
    let answers = Rc::new(Answers::default());
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
            let answers = Rc::clone(&answers);
            tokio::task::spawn_local(async move {
                let service = service_fn(|request| {
                    let answers = Rc::clone(&answers);
                    async move { Ok::<_, Infallible>(serve(&answers, request).await) }
                });
                let serving = hyper::server::conn::http1::Builder::new();
                // A client that leaves is no error here.
                drop(serving.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    println!("{}", answers.calls.get());
}

type Reply = Response<BoxBody<Bytes, Infallible>>;

async fn serve(answers: &Answers, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    let given = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok());
    if given("authorization").is_none_or(|value| value != format!("Bearer {CREDENTIAL}")) {
        return status(StatusCode::UNAUTHORIZED);
    }
    let in_session = given("mcp-session-id") == Some(SESSION);
    match head.method {
        Method::POST => {}
        Method::GET if in_session => return silence(),
        _ => return status(StatusCode::METHOD_NOT_ALLOWED),
    }
    let Ok(body) = body.collect().await else {
        return status(StatusCode::BAD_REQUEST);
    };
    // `/mcp/100` is a server with so many tools.
    let tools = head.uri.path().rsplit('/').next().and_then(|last| last.parse().ok()).unwrap_or(0);
    let (answer, modern) = answers.to(&body.to_bytes(), tools);
    if modern {
        let complete =
            given("mcp-protocol-version") == Some(MODERN) && given("mcp-method").is_some();
        if !complete {
            return status(StatusCode::BAD_REQUEST);
        }
    }
    match answer {
        Answer::Nothing => status(StatusCode::ACCEPTED),
        Answer::Session(message) => {
            let mut response = typed("application/json", message);
            response.headers_mut().insert("mcp-session-id", SESSION.parse().expect("ASCII"));
            response
        }
        _ if !in_session && !modern => status(StatusCode::NOT_FOUND),
        Answer::Message(message) => typed("application/json", message),
        Answer::Event(message) => {
            typed("text/event-stream", format!("event: message\ndata: {message}\n\n"))
        }
        Answer::Unknown => status(StatusCode::BAD_REQUEST),
    }
}

/// A listening stream on which nothing comes.
fn silence() -> Reply {
    let opened =
        futures_util::stream::once(async { Frame::data(Bytes::from_static(b": open\n\n")) });
    let never = opened.chain(futures_util::stream::pending()).map(Ok);
    let mut response = Response::new(BoxBody::new(StreamBody::new(never)));
    let kind = header::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn typed(kind: &'static str, body: String) -> Reply {
    let mut response = Response::new(Full::from(body).boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn status(status: StatusCode) -> Reply {
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = status;
    response
}
