//! The bridge against a gateway made up for the test, over in-memory pipes.

use axum::body::Body;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, Lines};

use super::super::testing::{Gateway, Nobody, Seen, events, json as answer, stream};
use super::*;

/// A client of a running bridge.
struct Client {
    input: Option<DuplexStream>,
    output: Lines<BufReader<DuplexStream>>,
    done: tokio::task::JoinHandle<io::Result<()>>,
}

impl Client {
    fn start(channel: Arc<Channel>) -> Self {
        let (input, theirs) = tokio::io::duplex(1 << 16);
        let (ours, output) = tokio::io::duplex(1 << 16);
        let limits = Limits { bytes: 5000, depth: 100 };
        let done = tokio::spawn(async move {
            run(channel, limits, BufReader::new(theirs), ours, std::future::pending()).await
        });
        Self { input: Some(input), output: BufReader::new(output).lines(), done }
    }

    async fn send(&mut self, line: impl AsRef<str>) {
        let line = format!("{}\n", line.as_ref());
        self.input.as_mut().unwrap().write_all(line.as_bytes()).await.unwrap();
    }

    async fn next(&mut self) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(20), self.output.next_line());
        serde_json::from_str(&line.await.unwrap().unwrap().unwrap()).unwrap()
    }

    /// Closes stdin and gives what still comes.
    async fn finish(mut self) -> Vec<String> {
        drop(self.input.take());
        let mut rest = Vec::new();
        while let Some(line) = self.output.next_line().await.unwrap() {
            rest.push(line);
        }
        self.done.await.unwrap().unwrap();
        rest
    }
}

fn method(seen: &Seen) -> String {
    let value: Value = serde_json::from_str(&seen.body).unwrap_or_default();
    value["method"].as_str().unwrap_or_default().to_owned()
}

fn result(id: u32, result: Value) -> String {
    json!({"jsonrpc":"2.0","id":id,"result":result}).to_string()
}

/// A legacy server: initialize opens a session, GET is not offered, tools/call answers by name.
async fn legacy(seen: Seen) -> Response {
    match (seen.method.as_str(), method(&seen).as_str()) {
        ("POST", "initialize") => {
            // Slow, so that what was sent behind it would overtake it.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let text = format!("data: {}\n\n", result(0, json!({"protocolVersion":"2025-06-18"})));
            let mut response = events(&[&text]);
            response.headers_mut().insert("mcp-session-id", "s-1".parse().unwrap());
            response
        }
        ("POST", "tools/list") => answer(200, result(1, json!({"tools":[]}))),
        ("POST", _) => answer(202, ""),
        ("DELETE", _) => answer(200, ""),
        _ => answer(405, ""),
    }
}

const INITIALIZE: &str =
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;

#[tokio::test]
async fn a_legacy_session_from_handshake_to_farewell() {
    let gateway = Gateway::start(legacy).await;
    let mut client = Client::start(gateway.channel());
    // All at once: the bridge must keep the order itself.
    client.send(format!("{INITIALIZE}\n{INITIALIZED}\n{LIST}")).await;
    assert_eq!(client.next().await["result"]["protocolVersion"], "2025-06-18");
    assert_eq!(client.next().await["id"], 1);
    assert!(client.finish().await.is_empty());
    let seen = gateway.seen();
    let posts: Vec<_> = seen.iter().filter(|s| s.method == "POST").map(method).collect();
    assert_eq!(posts, ["initialize", "notifications/initialized", "tools/list"]);
    assert_eq!(seen[0].header("mcp-session-id"), "");
    assert_eq!(seen[0].header("accept"), headers::ACCEPT_BOTH);
    for later in &seen[1..] {
        assert_eq!(later.header("mcp-session-id"), "s-1", "{later:?}");
        assert_eq!(later.header("mcp-protocol-version"), "2025-06-18", "the negotiated one");
    }
    assert_eq!(seen.last().unwrap().method, "DELETE");
}

#[tokio::test]
async fn a_legacy_server_speaks_unasked_and_is_resumed() {
    let gateway = Gateway::start(|seen: Seen| async move {
        match (seen.method.as_str(), seen.header("last-event-id")) {
            ("GET", "") => events(&[
                "retry: 1\nid: e1\ndata: {\"jsonrpc\":\"2.0\",",
                "\ndata: \"method\":\"notifications/one\"}\n\n",
                "event: other\ndata: not for clients\n\n",
            ]),
            ("GET", "e1") => {
                events(&["id: e2\ndata: {\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"ping\"}\n\n"])
            }
            ("GET", _) => answer(405, ""),
            _ => legacy(seen).await,
        }
    })
    .await;
    let mut client = Client::start(gateway.channel());
    client.send(format!("{INITIALIZE}\n{INITIALIZED}")).await;
    assert_eq!(client.next().await["id"], 0);
    assert_eq!(client.next().await["method"], "notifications/one");
    assert_eq!(client.next().await["method"], "ping");
    client.send(r#"{"jsonrpc":"2.0","id":9,"result":{}}"#).await;
    client.finish().await;
    let answered = gateway.seen().into_iter().any(|s| s.body.contains(r#""id":9,"result""#));
    assert!(answered, "the client's own answer is a POST");
}

#[tokio::test]
async fn a_stream_that_ends_early_is_resumed_and_never_posted_twice() {
    let gateway = Gateway::start(|seen: Seen| async move {
        match seen.method.as_str() {
            "POST" => events(&["retry: 1\nid: p1\ndata:\n\n"]),
            _ => {
                assert_eq!(seen.header("last-event-id"), "p1");
                events(&[&format!("id: p2\ndata: {}\n\n", result(1, json!({"tools":[]})))])
            }
        }
    })
    .await;
    let mut client = Client::start(gateway.channel());
    client.send(LIST).await;
    assert!(client.next().await["result"].is_object());
    client.finish().await;
    let posts = gateway.seen().iter().filter(|s| s.method == "POST").count();
    assert_eq!(posts, 1);
}

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;

#[tokio::test]
async fn modern_requests_get_their_headers_and_their_cancellation() {
    let (gone, left) = mpsc::channel::<()>(1);
    let gateway = Gateway::start(move |seen: Seen| {
        let alive = gone.clone();
        async move {
            match method(&seen).as_str() {
                "tools/list" => answer(
                    200,
                    result(
                        1,
                        json!({"tools":[{"name":"q","inputSchema":{"properties":{
                        "region":{"type":"string","x-mcp-header":"Region"}}}}]}),
                    ),
                ),
                "tools/call" => answer(200, result(2, json!({"content":[]}))),
                _ => {
                    let chunks = futures_util::stream::poll_fn(move |_| {
                        let _alive = &alive;
                        std::task::Poll::<Option<io::Result<Bytes>>>::Pending
                    });
                    stream(Body::from_stream(chunks))
                }
            }
        }
    })
    .await;
    let mut client = Client::start(gateway.channel());
    client
        .send(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{META}}}}}"#))
        .await;
    client.next().await;
    client.send(format!(r#"{{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{{{META},"name":"q","arguments":{{"region":"eu"}}}}}}"#)).await;
    client.next().await;
    let seen = gateway.seen();
    assert_eq!(seen[0].header("mcp-method"), "tools/list");
    assert_eq!(seen[1].header("mcp-protocol-version"), "2026-07-28");
    assert_eq!(seen[1].header("mcp-name"), "q");
    assert_eq!(seen[1].header("mcp-param-region"), "eu");
    assert_eq!(seen[1].header("mcp-session-id"), "");

    client
        .send(format!(
            r#"{{"jsonrpc":"2.0","id":"l","method":"subscriptions/listen","params":{{{META}}}}}"#
        ))
        .await;
    while gateway.seen().len() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(left.sender_strong_count(), 2);
    client
        .send(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"l"}}"#)
        .await;
    while left.sender_strong_count() > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(client.finish().await.is_empty(), "a cancelled request is not answered");
    assert_eq!(gateway.seen().len(), 3, "in the modern era cancelling is no message");
}

#[tokio::test]
async fn a_slow_request_holds_up_no_other() {
    let gateway = Gateway::start(|seen: Seen| async move {
        if seen.body.contains("slow") {
            tokio::time::sleep(Duration::from_millis(300)).await;
            return answer(200, result(1, json!("slow")));
        }
        answer(200, result(2, json!("fast")))
    })
    .await;
    let mut client = Client::start(gateway.channel());
    client.send(r#"{"jsonrpc":"2.0","id":1,"method":"slow"}"#).await;
    client.send(r#"{"jsonrpc":"2.0","id":2,"method":"fast"}"#).await;
    assert_eq!(client.next().await["result"], "fast");
    assert_eq!(client.finish().await.len(), 1, "the slow one is waited for after end of input");
}

#[tokio::test]
async fn everything_is_answered_whatever_happens() {
    let gateway = Gateway::start(|seen: Seen| async move {
        match method(&seen).as_str() {
            "empty" => answer(202, ""),
            "html" => answer(500, "<html>"),
            "denied" => answer(403, r#"{"error":{"code":"policy_denied","message":"rule 7","hint":"ask"}}"#),
            "nullid" => answer(400, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"m","data":{"x":1.50}}}"#),
            "other" => answer(200, result(99, json!(1))),
            "junk" => answer(200, r#"{"jsonrpc":"2.0","id":1,"result":1,"result":2}"#),
            "cut" => events(&["data: {\"jsonrpc\""]),
            "badevent" => events(&["data: nonsense\n\n"]),
            _ => {
                let broken = [Ok(Bytes::from_static(b": x\n\n")), Err(io::Error::other("x"))];
                stream(Body::from_stream(futures_util::stream::iter(broken)))
            }
        }
    })
    .await;
    let mut client = Client::start(gateway.channel());
    let cases = [
        ("empty", "failure"),
        ("html", "failure"),
        ("denied", "policy_denied"),
        ("other", "failure"),
        ("junk", "failure"),
        ("cut", "outcome_unknown"),
        ("badevent", "outcome_unknown"),
        ("broken", "outcome_unknown"),
    ];
    for (method, code) in cases {
        client.send(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#)).await;
        let message = client.next().await;
        assert_eq!(message["id"], 1, "{method}: {message}");
        assert_eq!(message["error"]["data"]["mcpx"]["code"], code, "{method}: {message}");
    }
    client.send(r#"{"jsonrpc":"2.0","id":1,"method":"nullid"}"#).await;
    let message = client.next().await;
    assert_eq!((&message["id"], &message["error"]["code"]), (&json!(1), &json!(-32600)));
    assert_eq!(message["error"]["data"]["x"], 1.5);
    assert!(client.finish().await.is_empty());
}

#[tokio::test]
async fn malformed_lines_are_refused_and_the_next_one_is_read() {
    let gateway = Gateway::start(legacy).await;
    let mut client = Client::start(gateway.channel());
    for (line, code, id) in [
        ("{nonsense".to_owned(), -32700, json!(null)),
        ("[]".to_owned(), -32600, json!(null)),
        (format!("\"{}\"", "x".repeat(6000)), -32600, json!(null)),
        (
            r#"{"jsonrpc":"2.0","id":"k","method":"ping","Params":{}}"#.to_owned(),
            -32600,
            json!("k"),
        ),
    ] {
        client.send(&line).await;
        let message = client.next().await;
        assert_eq!(message["error"]["code"], code, "{line:.80}: {message}");
        assert_eq!(message["id"], id, "{line:.80}: {message}");
    }
    client.send(LIST).await;
    assert_eq!(client.next().await["id"], 1);
    client.finish().await;
    assert_eq!(gateway.seen().len(), 1, "nothing refused went out");
}

#[tokio::test]
async fn a_batch_is_taken_apart_where_there_are_batches() {
    let gateway = Gateway::start(|seen: Seen| async move {
        match method(&seen).as_str() {
            "initialize" => answer(200, result(0, json!({"protocolVersion":"2025-03-26"}))),
            _ => legacy(seen).await,
        }
    })
    .await;
    let mut client = Client::start(gateway.channel());
    let batch = format!(r#"[{INITIALIZED},{LIST},{{"id":2}},{INITIALIZE}]"#);
    client.send(&batch).await;
    assert_eq!(client.next().await["error"]["data"]["mcpx"]["byte"], 0, "not before the handshake");
    client.send(INITIALIZE).await;
    assert_eq!(client.next().await["id"], 0);
    client.send(&batch).await;
    let mut places = Vec::new();
    for _ in 0..3 {
        let message = client.next().await;
        match message["error"]["data"]["mcpx"]["pointer"].as_str() {
            Some(place) => places.push(place.to_owned()),
            None => {
                assert_eq!((&message["id"], &message["result"]), (&json!(1), &json!({"tools":[]})))
            }
        }
    }
    assert_eq!(places, ["/2", "/3"]);
    client.finish().await;
    let posts = gateway.seen();
    let posts: Vec<_> = posts.iter().filter(|seen| seen.method == "POST").map(method).collect();
    assert_eq!(posts, ["initialize", "notifications/initialized", "tools/list"]);
}

#[tokio::test]
async fn without_a_login_requests_fail_with_what_to_do() {
    let gateway = Gateway::start(legacy).await;
    let mut client = Client::start(gateway.channel_as(Arc::new(Nobody)));
    client.send(INITIALIZE).await;
    let message = client.next().await;
    assert_eq!(message["error"]["data"]["mcpx"]["code"], "login_needed");
    assert!(message["error"]["data"]["mcpx"]["hint"].as_str().unwrap().contains("mcpx login"));
    assert!(client.finish().await.is_empty());
}

#[tokio::test]
async fn a_client_that_reads_no_more_ends_the_bridge() {
    let gateway = Gateway::start(legacy).await;
    let mut client = Client::start(gateway.channel());
    let (nobody, _) = tokio::io::duplex(1);
    client.output = BufReader::new(nobody).lines();
    client.send(LIST).await;
    tokio::time::timeout(Duration::from_secs(20), client.done).await.unwrap().unwrap().unwrap();
}
