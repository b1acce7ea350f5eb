//! Streams: each event by itself, no faster than it is read, bounded in number and time.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::hostile;
use crate::support::sse::{Legacy, Stream, token};
use crate::support::{Raw, Server, Site, World, http, raw, until};

crate::stories![
    each_event_goes_by_itself,
    a_client_that_stops_reading,
    as_many_streams_as_may_be,
    a_server_that_falls_silent,
    requests_that_arrive_slowly,
    an_event_that_is_too_long,
    a_stream_makes_two_records,
    subscriptions_end_in_good_order,
];

pub const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
const DONE: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;

/// A server that answers each POST as `answer` does on its connection.
pub fn upstream(
    answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    let answer = Arc::new(answer);
    // Ends with the process of the stories: it holds nothing.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || serve(stream, &*answer));
        }
    });
    Ok(url)
}

fn serve(
    mut stream: TcpStream,
    answer: &dyn Fn(&mut TcpStream) -> std::io::Result<()>,
) -> Option<()> {
    hostile::request(&mut stream)?;
    answer(&mut stream).ok()
}

pub fn step(number: u64, filler: &str) -> String {
    let data = json!({"step": number, "filler": filler});
    let message = json!({
        "jsonrpc": "2.0", "method": "notifications/message",
        "params": {"level": "info", "data": data},
    });
    format!("data: {message}\n\n")
}

/// One server on `mcpx`, and alice with a token for one of its connections.
struct Alice {
    raw: Raw,
    token: String,
    url: String,
}

impl Alice {
    fn new(server: &Server, idp: &crate::support::Idp, connection: &str) -> anyhow::Result<Self> {
        let (raw, url) = (Raw::new()?, server.resource(connection));
        let token = token(&raw, idp, server, "alice", &url)?;
        Ok(Self { raw, token, url })
    }

    /// A call in the newest protocol.
    fn call(&self) -> anyhow::Result<reqwest::RequestBuilder> {
        self.raw.request(&self.url, &self.token, &raw::call("x", &json!({})))
    }
}

fn code(answer: &Value) -> &str {
    answer["error"]["data"]["mcpx"]["code"].as_str().unwrap_or_default()
}

fn each_event_goes_by_itself(world: &World) -> anyhow::Result<()> {
    const EVENTS: u64 = 20;
    let idp = world.idp()?;
    let (seen, told) = channel::<()>();
    let told: Arc<Mutex<Receiver<()>>> = Arc::new(Mutex::new(told));
    // Sends an event only when the one before it has been seen.
    let url = upstream(move |stream| {
        stream.write_all(HEAD.as_bytes())?;
        for number in 0..EVENTS {
            stream.write_all(step(number, "").as_bytes())?;
            let told = told.lock().map_err(|_| std::io::ErrorKind::Other)?;
            told.recv().map_err(|_| std::io::ErrorKind::Other)?;
        }
        stream.write_all(format!("data: {DONE}\n\n").as_bytes())
    })?;
    let server = Site::new(world, &idp).http("steps", &url).start()?;
    let alice = Alice::new(&server, &idp, "steps")?;
    let mut stream = Stream::open(alice.call()?)?;
    for number in 0..EVENTS {
        assert_eq!(stream.event()?.json()["params"]["data"]["step"], number);
        seen.send(())?;
    }
    assert!(stream.event()?.json()["result"].is_object());
    assert!(stream.next()?.is_none());
    server.verify()?.exits(0);
    Ok(())
}

/// The memory that a process holds, in KiB.
fn memory(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(number.parse()?)
}

fn a_client_that_stops_reading(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let (sent, cut) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, end) = (Arc::clone(&sent), Arc::clone(&cut));
    let endless = upstream(move |stream| {
        let event = step(0, &"x".repeat(64 * 1024));
        stream.write_all(HEAD.as_bytes())?;
        loop {
            if let Err(error) = stream.write_all(event.as_bytes()) {
                end.store(true, Ordering::Relaxed);
                return Err(error);
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
    })?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .http("endless", &endless)
        .http("ledger", &ledger.url)
        .extra("[streams]\nstalled = \"4s\"\n")
        .start()?;
    let alice = Alice::new(&server, &idp, "endless")?;
    let other = Alice::new(&server, &idp, "ledger")?;
    let mut stream = Stream::open(alice.call()?)?;
    stream.event()?;
    // Nothing is read from here on. Whatever lies in between fills up, and the server is not read
    // any further: it sends nothing for half the time after which the client is cut.
    let mut last = (sent.load(Ordering::Relaxed), std::time::Instant::now());
    until("the server is not read any further", || {
        let now = sent.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, std::time::Instant::now());
        }
        Ok((last.1.elapsed().as_secs() >= 2).then_some(()))
    })?;
    assert!(!cut.load(Ordering::Relaxed), "it was cut, not held up");
    let body = raw::call("note", &json!({"text": "meanwhile"}));
    let meanwhile = other.raw.post(&other.url, &other.token, &body)?;
    assert!(meanwhile.body.contains("noted: meanwhile"), "{meanwhile:?}");
    // Of the 64 KiB events fewer are under way than what sockets and buffers of this machine hold.
    assert!(sent.load(Ordering::Relaxed) < 1000, "{sent:?} events were read");
    assert!(
        memory(server.proc.id())? < 300 * 1024,
        "memory grows with a client that does not read"
    );

    until("the client is cut off, on record", || {
        let stalled = server.leaves_of("response").into_iter();
        Ok(stalled.into_iter().find(|leaf| leaf["outcome"] == "stalled"))
    })?;
    until("the server is left", || Ok(cut.load(Ordering::Relaxed).then_some(())))?;
    drop(stream);
    let again = other.raw.post(&other.url, &other.token, &body)?;
    assert_eq!(again.status, 200, "{again:?}");
    server.verify()?.exits(0);
    Ok(())
}

fn as_many_streams_as_may_be(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let open = upstream(|stream| {
        stream.write_all(HEAD.as_bytes())?;
        stream.write_all(step(0, "").as_bytes())?;
        // Until it is left.
        stream.read(&mut [0; 1]).map(drop)
    })?;
    let server = Site::new(world, &idp)
        .http("open", &open)
        .extra("[streams]\nper_session = 2\ntotal = 3\n")
        .start()?;
    let alice = Alice::new(&server, &idp, "open")?;
    let carol = Alice::new(&server, &idp, "open")?;
    let open = |who: &Alice| -> anyhow::Result<Stream> {
        let mut stream = Stream::open(who.call()?)?;
        stream.event()?;
        Ok(stream)
    };
    let first = open(&alice)?;
    let _second = open(&alice)?;
    let refused = http::send(alice.call()?)?;
    assert_eq!((refused.status, code(&refused.json())), (429, "too_many_streams"), "{refused:?}");
    assert_eq!(refused.json()["id"], 1, "{refused:?}");
    let _third = open(&carol)?;
    let refused = http::send(carol.call()?)?;
    assert_eq!((refused.status, code(&refused.json())), (503, "server_full"), "{refused:?}");
    let codes: Vec<_> =
        server.leaves_of("refused").iter().map(|leaf| leaf["code"].clone()).collect();
    assert_eq!(codes, ["too_many_streams", "server_full"]);
    // The session stays usable.
    drop(first);
    let _again = until("a slot is free again", || Ok(open(&alice).ok()))?;
    server.verify()?.exits(0);
    Ok(())
}

/// The command of the server that takes its time.
fn streamer(world: &World) -> anyhow::Result<[String; 3]> {
    let python = world.parts().python()?.display().to_string();
    let script = world.parts().script("streamer.py").display().to_string();
    Ok([python, script, world.dir().display().to_string()])
}

fn a_server_that_falls_silent(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let silent = upstream(|stream| {
        stream.write_all(HEAD.as_bytes())?;
        stream.write_all(step(0, "").as_bytes())?;
        // Comments are signs of life of the server, not of the call.
        while stream.write_all(b": still here\n\n").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        Ok(())
    })?;
    let server = Site::new(world, &idp)
        .http("silent", &silent)
        .stdio("streamer", &streamer(world)?)
        .extra("[limits]\ncall_timeout = \"2s\"\n")
        .start()?;
    let alice = Alice::new(&server, &idp, "silent")?;
    let mut stream = Stream::open(alice.call()?)?;
    stream.event()?;
    let ended = stream.event()?.json();
    assert_eq!(
        (code(&ended), &ended["error"]["code"]),
        ("call_timeout", &json!(-31007)),
        "{ended}"
    );
    assert!(stream.next()?.is_none());

    let alice = Alice::new(&server, &idp, "streamer")?;
    let legacy = Legacy::begin(&alice.raw, &alice.token, &alice.url)?;
    let ended = http::send(legacy.call(1, "hush", &json!({}))?)?;
    assert_eq!(code(&ended.json()), "call_timeout", "{ended:?}");
    let answer = http::send(legacy.call(2, "quick", &json!({}))?)?;
    assert!(answer.body.contains("quick"), "the session is not usable any more: {answer:?}");
    let outcomes: Vec<_> = server.leaves_of("response");
    let timed_out = outcomes.iter().filter(|leaf| leaf["outcome"] == "timed_out");
    assert!(timed_out.clone().all(|leaf| leaf["last"] == true) && timed_out.count() == 2);
    server.verify()?.exits(0);
    Ok(())
}

fn requests_that_arrive_slowly(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .http("ledger", &ledger.url)
        .extra("[limits]\nbody_timeout = \"1s\"\nhead_timeout = \"1s\"\n")
        .start()?;
    let alice = Alice::new(&server, &idp, "ledger")?;
    let address = server.url.trim_start_matches("http://");
    let proof = alice.raw.proof("POST", &alice.url, Some(&alice.token), |_| ())?;
    let head = format!(
        "POST /mcp/ledger HTTP/1.1\r\nhost: {address}\r\nauthorization: DPoP {}\r\ndpop: {proof}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{{",
        alice.token
    );
    let mut slow = TcpStream::connect(address)?;
    slow.write_all(head.as_bytes())?;
    let mut answer = String::new();
    slow.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("body_timeout"), "{answer}");
    let refused = server.leaves_of("refused");
    assert!(refused.iter().any(|leaf| leaf["code"] == "body_timeout"), "{refused:#?}");

    // A head that does not end is nobody's call: the connection is closed.
    let mut slow = TcpStream::connect(address)?;
    slow.write_all(b"POST /mcp/ledger HTTP/1.1\r\nhost: ")?;
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer)?;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

fn an_event_that_is_too_long(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let long = upstream(|stream| {
        stream.write_all(HEAD.as_bytes())?;
        stream.write_all(step(0, &"x".repeat(9000)).as_bytes())
    })?;
    let fields = upstream(|stream| {
        stream.write_all(HEAD.as_bytes())?;
        stream.write_all(format!("x: {}\ndata: {DONE}\n\n", "y".repeat(9000)).as_bytes())
    })?;
    let server = Site::new(world, &idp)
        .http("message", &long)
        .http("fields", &fields)
        .extra("[limits]\nmessage_bytes = 4000\nevent_bytes = 8000\n")
        .start()?;
    for connection in ["message", "fields"] {
        let alice = Alice::new(&server, &idp, connection)?;
        let answer = http::send(alice.call()?)?;
        let told = answer.json();
        assert_eq!(code(&told), "upstream_event_too_large", "{connection}: {answer:?}");
        assert!(told.to_string().contains("8000"), "the bound is not named: {answer:?}");
    }
    server.verify()?.exits(0);
    Ok(())
}

fn a_stream_makes_two_records(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let stream = upstream(|stream| {
        stream.write_all(HEAD.as_bytes())?;
        stream.write_all(format!("data: {DONE}\n\n").as_bytes())
    })?;
    let server = Site::new(world, &idp).http("one", &stream).start()?;
    let alice = Alice::new(&server, &idp, "one")?;
    let answer = http::send(alice.call()?)?;
    assert_eq!(answer.header("content-type"), "text/event-stream", "{answer:?}");
    assert!(answer.json()["result"].is_object(), "{answer:?}");
    let (calls, responses) = (server.leaves_of("call"), server.leaves_of("response"));
    assert_eq!((calls.len(), responses.len()), (1, 1), "{responses:#?}");
    let last = (&responses[0]["outcome"], &responses[0]["last"], &responses[0]["upstream_status"]);
    assert_eq!(last, (&json!("result"), &json!(true), &json!(200)));
    Ok(())
}

fn subscriptions_end_in_good_order(world: &World) -> anyhow::Result<()> {
    const ID: &str = "io.modelcontextprotocol/subscriptionId";
    let idp = world.idp()?;
    let fixture = world.fixture()?;
    let mut server = Site::new(world, &idp)
        .http("fixture", &fixture.url)
        .stdio("streamer", &streamer(world)?)
        .extra("[limits]\ncall_timeout = \"1s\"\nkeep_alive = \"1s\"\n")
        .start()?;
    let listen = json!({
        "jsonrpc": "2.0", "id": "sub-1", "method": "subscriptions/listen",
        "params": {
            "notifications": {"toolsListChanged": true},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {"name": "story", "version": "1"},
            },
        },
    });
    let open = |who: &Alice| -> anyhow::Result<Stream> {
        let body = listen.to_string();
        let mut stream = Stream::open(who.raw.request(&who.url, &who.token, &body)?)?;
        let first = stream.event()?.json();
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");
        assert_eq!(first["params"]["_meta"][ID], "sub-1", "{first}");
        Ok(stream)
    };
    // The server on stdio ends it: what it says goes on, and is the end.
    let alice = Alice::new(&server, &idp, "streamer")?;
    let mut stream = open(&alice)?;
    let end = alice.raw.post(&alice.url, &alice.token, &raw::call("end", &json!({})))?;
    assert!(end.body.contains("ended"), "{end:?}");
    let last = stream.event()?.json();
    assert_eq!(last["method"], "notifications/cancelled", "{last}");
    assert_eq!(last["params"]["requestId"], "sub-1", "{last}");
    assert!(stream.next()?.is_none());

    // A revoked grant ends it with an error. It has outlived the time that a call may be silent.
    let mut stream = open(&alice)?;
    for _ in 0..3 {
        stream.comment()?;
    }
    let operator = crate::support::Person::logged_in(world, "alice", &server, &idp)?;
    let grants = server.leaves_of("grant_issued");
    let grant = grants[0]["grant"].as_str().unwrap_or_default();
    operator.run(&["revoke", grant])?.exits(0);
    let last = stream.event()?.json();
    assert_eq!((&last["id"], code(&last)), (&json!("sub-1"), "grant_revoked"), "{last}");
    assert!(stream.next()?.is_none());

    // A server that stops ends it with its result.
    let (alice, over_http) =
        (Alice::new(&server, &idp, "streamer")?, Alice::new(&server, &idp, "fixture")?);
    let streams = [open(&alice)?, open(&over_http)?];
    server.proc.terminate();
    for mut stream in streams {
        let last = stream.event()?.json();
        assert_eq!((&last["id"], &last["result"]["_meta"][ID]), (&json!("sub-1"), &json!("sub-1")));
        assert_eq!(last["result"]["resultType"], "complete", "{last}");
    }
    assert!(server.proc.wait()?.success());
    server.verify()?.exits(0);
    Ok(())
}
