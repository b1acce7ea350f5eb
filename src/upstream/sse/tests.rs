//! Servers that do as HTTP+SSE says, and servers that do not.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::types::{Identity, Secret, SubjectId, SubjectKind};
use crate::upstream::Body;
use crate::upstream::secret::{Place, SecretSource};

type Said = mpsc::UnboundedSender<Result<Bytes, Infallible>>;

/// A server whose streams begin with what `begin` says for their path. What `answer` makes of a
/// message is said on the stream.
struct Server {
    base: String,
    state: Arc<Inner>,
}

struct Inner {
    begin: fn(&str) -> Option<String>,
    answer: fn(&str) -> String,
    /// Method, path and credential of every request.
    seen: SyncMutex<Vec<String>>,
    /// The one key that it lets in, if it looks.
    wants: SyncMutex<Option<&'static str>>,
    streams: SyncMutex<Vec<Said>>,
}

impl Server {
    async fn start(begin: fn(&str) -> Option<String>, answer: fn(&str) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (seen, streams) = (SyncMutex::default(), SyncMutex::default());
        let wants = SyncMutex::default();
        let state = Arc::new(Inner { begin, answer, seen, wants, streams });
        let router = Router::new()
            .route("/sse/{how}", get(open))
            .route("/message/{stream}", post(take))
            .with_state(Arc::clone(&state));
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { base, state }
    }

    fn upstream(&self, how: &str, most: usize) -> SseUpstream {
        let from = SecretSource::new("env:KEY", Place::Fixed(Secret::new("s3cret")));
        self.upstream_with(how, most, from)
    }

    fn upstream_with(&self, how: &str, most: usize, from: SecretSource) -> SseUpstream {
        let url = format!("{}/sse/{how}", self.base).parse().unwrap();
        let header = "x-key".parse().unwrap();
        let credential = Credential::header(header, "", from);
        let bounds =
            Bounds { message_bytes: 2000, event_bytes: 2000, first_byte: Duration::from_secs(20) };
        let client = http::HttpUpstream::client(bounds).unwrap();
        let limits = Limits { bytes: 2000, depth: 100 };
        SseUpstream::new(url, Some(credential), client, bounds, limits, most)
    }

    fn seen(&self) -> Vec<String> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Breaks every stream.
    fn hang_up(&self) {
        self.state.streams.lock().unwrap().clear();
    }
}

impl Inner {
    /// Notes a request; says whether it is let in.
    fn note(&self, request: &Request) -> bool {
        let key = request.headers().get("x-key").map_or("no key", |key| key.to_str().unwrap());
        let line = format!("{} {} {key}", request.method(), request.uri().path());
        self.seen.lock().unwrap().push(line);
        self.wants.lock().unwrap().is_none_or(|wanted| wanted == key)
    }
}

async fn open(
    State(state): State<Arc<Inner>>,
    Path(how): Path<String>,
    request: Request,
) -> Response {
    let begin = if state.note(&request) { (state.begin)(&how) } else { None };
    let Some(begin) = begin else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let (said, saying) = mpsc::unbounded_channel();
    let mut streams = state.streams.lock().unwrap();
    let begin = begin.replace("{n}", &streams.len().to_string());
    said.send(Ok(begin.into())).unwrap();
    if how != "short" {
        streams.push(said);
    }
    let saying = futures_util::stream::unfold(saying, async |mut saying| {
        Some((saying.recv().await?, saying))
    });
    let kind = if how == "page" { "text/html" } else { "text/event-stream; charset=utf-8" };
    ([("content-type", kind)], axum::body::Body::from_stream(saying.boxed())).into_response()
}

async fn take(
    State(state): State<Arc<Inner>>,
    Path(stream): Path<usize>,
    request: Request,
) -> StatusCode {
    if !state.note(&request) {
        return StatusCode::UNAUTHORIZED;
    }
    let body = axum::body::to_bytes(request.into_body(), 10_000).await.unwrap();
    let answer = (state.answer)(std::str::from_utf8(&body).unwrap());
    match state.streams.lock().unwrap().get(stream) {
        None => StatusCode::NOT_FOUND,
        Some(said) => {
            // A stream that was closed is no server's fault.
            let _closed = said.send(Ok(answer.into()));
            StatusCode::ACCEPTED
        }
    }
}

fn well(_how: &str) -> Option<String> {
    Some(": hello\n\nevent: endpoint\ndata: /message/{n}\n\n".to_owned())
}

/// Answers by the request's method.
fn by_method(body: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(body).unwrap();
    let id = &value["id"];
    match value["method"].as_str().unwrap_or_default() {
        "initialize" | "ping" | "server/discover" => {
            format!("event: message\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n\n")
        }
        "slow" => {
            let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#;
            let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
            format!("data: {progress}\n\nevent: other\ndata: x\n\ndata: {answer}\n\n")
        }
        "twice" => {
            format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"id\":{id},\"result\":{{}}}}\n\n")
        }
        "inside" => {
            format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"a\":1,\"a\":2}}}}\n\n")
        }
        "noise" => "data: what is this\n\n".to_owned(),
        "long" => format!("data: {}\n\n", "x".repeat(3000)),
        _ => ": nothing\n\n".to_owned(),
    }
}

fn message(text: &str) -> Message {
    let text = Bytes::from(text.to_owned());
    Message::decode(text, Origin::Client, &Limits::default()).unwrap()
}

fn request(id: usize, method: &str) -> Message {
    message(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{}}}}"#))
}

fn text(incoming: Option<Result<Incoming, UpstreamError>>) -> String {
    match incoming.unwrap().unwrap() {
        Incoming::Message(message) => String::from_utf8(message.raw().to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn route(protocol_session: Option<String>) -> Route {
    Route { session: SessionId::generate().unwrap(), protocol_session }
}

fn somebody() -> Subject {
    let identity = Identity { issuer: "i".into(), sub: "s".into(), email: None, groups: vec![] };
    Subject { id: SubjectId::generate().unwrap(), kind: SubjectKind::Person, identity }
}

async fn initialize(upstream: &SseUpstream) -> Result<Route, UpstreamError> {
    let (hello, somebody) = (request(0, "initialize"), somebody());
    let answer = upstream.message(&hello, &route(None), &HeaderMap::new(), &somebody).await?;
    assert!(matches!(answer.body, Body::Decoded(_)), "{answer:?}");
    Ok(route(Some(answer.headers[headers::SESSION_ID].to_str().unwrap().to_owned())))
}

async fn send(
    upstream: &SseUpstream,
    route: &Route,
    message: &Message,
) -> Result<Answer, UpstreamError> {
    let caller = HeaderMap::new();
    let somebody = somebody();
    let sent = upstream.message(message, route, &caller, &somebody);
    tokio::time::timeout(Duration::from_secs(60), sent).await.expect("it hangs")
}

#[tokio::test]
async fn a_session_is_a_stream_and_the_credential_goes_on_both_ways() {
    let server = Server::start(well, by_method).await;
    let upstream = server.upstream("well", 2);
    let route = initialize(&upstream).await.unwrap();
    let told = message(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    let answer = send(&upstream, &route, &told).await.unwrap();
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let answer = send(&upstream, &route, &request(1, "slow")).await.unwrap();
    let Body::Stream(mut events) = answer.body else { panic!("{answer:?}") };
    let progress = text(events.next().await);
    assert!(progress.contains("notifications/progress"), "{progress}");
    assert!(text(events.next().await).contains("\"id\":1"));
    assert!(events.next().await.is_none(), "an answer is the end");
    assert_eq!(
        server.seen(),
        [
            "GET /sse/well s3cret",
            "POST /message/0 s3cret",
            "POST /message/0 s3cret",
            "POST /message/0 s3cret"
        ]
    );
    upstream.end_session(&route.session).await;
    send(&upstream, &route, &request(2, "ping")).await.expect("it is another session's");
}

#[tokio::test]
async fn a_credential_that_was_rotated_mends_the_next_request() {
    let server = Server::start(well, by_method).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let rotate = |key: &'static str| {
        std::fs::write(&file, key).unwrap();
        *server.state.wants.lock().unwrap() = Some(key);
    };
    rotate("one");
    let from = SecretSource::new("file:key", Place::File(file.clone()));
    let from = from.kept_for(Some(Duration::from_secs(60)));
    let upstream = server.upstream_with("well", 2, from);
    let route = initialize(&upstream).await.unwrap();
    rotate("two");
    let refused = send(&upstream, &route, &request(1, "ping")).await.unwrap_err();
    assert!(refused.to_string().contains("file:key"), "{refused}");
    assert_eq!(refused.code(), "upstream_credential");
    let answer = send(&upstream, &route, &request(2, "slow")).await.unwrap();
    assert!(matches!(answer.body, Body::Stream(_)), "{answer:?}");
    initialize(&upstream).await.unwrap();
}

#[tokio::test]
async fn a_stream_must_begin_by_naming_an_endpoint_of_its_own_origin() {
    fn begin(how: &str) -> Option<String> {
        let named = |endpoint: &str| Some(format!("event: endpoint\ndata: {endpoint}\n\n"));
        match how {
            "elsewhere" => named("http://127.0.0.1:9/message/0"),
            "otherhost" => named("//localhost/message/0"),
            "encrypted" => named("https://127.0.0.1/message/0"),
            "someone" => named("http://me:pw@127.0.0.1/message/0"),
            "file" => named("file:///etc/passwd"),
            "nowhere" => named("http://["),
            "early" => Some("data: {}\n\nevent: endpoint\ndata: /message/0\n\n".to_owned()),
            "closed" => None,
            _ => Some(": nothing\n\n".to_owned()),
        }
    }
    let server = Server::start(begin, by_method).await;
    for (how, code) in [
        ("elsewhere", "upstream_foreign_endpoint"),
        ("otherhost", "upstream_foreign_endpoint"),
        ("encrypted", "upstream_foreign_endpoint"),
        ("someone", "upstream_foreign_endpoint"),
        ("file", "upstream_foreign_endpoint"),
        ("nowhere", "upstream_not_mcp"),
        ("early", "upstream_not_mcp"),
        ("short", "upstream_not_mcp"),
        ("page", "upstream_not_mcp"),
        ("closed", "upstream_credential"),
    ] {
        let upstream = server.upstream(how, 1);
        // Twice: a stream that was refused takes nobody's place.
        for _ in 0..2 {
            assert_eq!(initialize(&upstream).await.unwrap_err().code(), code, "{how}");
        }
    }
    assert!(server.seen().iter().all(|line| line.starts_with("GET")), "{:?}", server.seen());
}

#[tokio::test]
async fn a_broken_stream_ends_what_is_in_flight_and_the_session() {
    let server = Server::start(well, by_method).await;
    let upstream = server.upstream("well", 1);
    let route = initialize(&upstream).await.unwrap();
    let listener = upstream.sessions.lock().await.values().next().unwrap().1.desk.clone();
    let (first, second) = (request(1, "never"), request(2, "never"));
    let waiting =
        async { tokio::join!(send(&upstream, &route, &first), send(&upstream, &route, &second)) };
    let breaking = async {
        while !(1..=2).all(|id| lock(&listener).asked(&id.to_string()).is_some()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.hang_up();
    };
    let ((first, second), ()) = tokio::join!(waiting, breaking);
    for answer in [first, second] {
        assert_eq!(answer.unwrap_err().code(), "upstream_broke_off");
    }
    // No stream is opened in its place: nobody has initialized it.
    assert_eq!(
        send(&upstream, &route, &request(3, "ping")).await.unwrap_err().code(),
        "session_gone"
    );
    // The bound counts open streams only.
    initialize(&upstream).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_to_its_own_call_and_ends_nothing_else() {
    let server = Server::start(well, by_method).await;
    let upstream = server.upstream("well", 4);
    let route = initialize(&upstream).await.unwrap();
    let answer = send(&upstream, &route, &request(1, "inside")).await.unwrap();
    let Body::Message(raw) = answer.body else { panic!("{answer:?}") };
    assert!(raw.ends_with(b"\"a\":2}}"), "as it came, for the gateway to refuse: {raw:?}");
    send(&upstream, &route, &request(2, "ping")).await.unwrap();
    // Whose these are, nobody can say: whoever waits is told.
    for (id, method) in [(3, "noise"), (4, "twice"), (5, "long")] {
        let route = initialize(&upstream).await.unwrap();
        let error = send(&upstream, &route, &request(id, method)).await.unwrap_err();
        assert_eq!(error.code(), "upstream_broke_off", "{method}: {error}");
    }
}

#[tokio::test]
async fn streams_are_bounded_and_modern_requests_have_their_own() {
    let server = Server::start(well, by_method).await;
    let upstream = server.upstream("well", 1);
    let modern = message(
        r#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
    );
    for _ in 0..3 {
        let answer = send(&upstream, &route(None), &modern).await.unwrap();
        assert!(matches!(answer.body, Body::Decoded(_)), "{answer:?}");
        assert!(!answer.headers.contains_key(headers::SESSION_ID));
    }
    let kept = initialize(&upstream).await.unwrap();
    for method in ["initialize", "server/discover"] {
        let asked = if method == "initialize" { request(2, method) } else { modern.clone() };
        let busy = send(&upstream, &route(None), &asked).await.unwrap_err();
        assert_eq!(busy.code(), "upstream_busy", "{method}");
    }
    let error = send(&upstream, &route(None), &request(3, "ping")).await.unwrap_err();
    assert_eq!(error.code(), "session_needed");
    upstream.shutdown().await;
    assert_eq!(
        send(&upstream, &kept, &request(4, "ping")).await.unwrap_err().code(),
        "session_gone"
    );
    initialize(&upstream).await.unwrap();
}
