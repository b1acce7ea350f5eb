//! An HTTP server that keeps the very bytes that it was sent, and answers with any bytes.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::table;

/// What arrived: the head as text, and the body.
pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    fn message(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

type Answer = fn(&Request) -> Vec<u8>;

/// A running server; it ends with the process of the stories.
pub struct Upstream {
    pub url: String,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Upstream {
    /// Starts one that answers so.
    pub fn start(answer: Answer) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/mcp", listener.local_addr()?);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || serve(stream, answer, &kept));
            }
        });
        Ok(Self { url, seen })
    }

    /// The bodies that arrived since this was last asked.
    pub fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

fn serve(mut stream: TcpStream, answer: Answer, seen: &Mutex<Vec<Vec<u8>>>) -> Option<()> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        all.extend_from_slice(buffer.get(..read)?);
        let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(all.get(..end)?).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        let body = all.get(end + 4..)?.to_vec();
        if body.len() >= length {
            let request = Request { head, body };
            if request.head.starts_with("post") {
                seen.lock().ok()?.push(request.body.clone());
            }
            return stream.write_all(&answer(&request)).ok();
        }
    }
}

fn whole(head: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn json(body: &[u8]) -> Vec<u8> {
    whole("200 OK\r\ncontent-type: application/json", body)
}

fn events(body: &[u8]) -> Vec<u8> {
    whole("200 OK\r\ncontent-type: text/event-stream", body)
}

/// Answers every request with an empty result, and its id just as it was written.
pub fn pong(request: &Request) -> Vec<u8> {
    let body = String::from_utf8_lossy(&request.body);
    let id = body.split_once("\"id\":").map_or("", |(_, rest)| rest);
    let id = id.get(..id.find([',', '}']).unwrap_or(0)).unwrap_or_default();
    if id.is_empty() {
        return whole("202 Accepted", b"");
    }
    json(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#).as_bytes())
}

/// The row of the table that the tool called is named after.
fn told(request: &Request) -> Vec<u8> {
    let message = request.message();
    let name = message["params"]["name"].as_str().unwrap_or_default();
    let row = table::of_servers().into_iter().find(|row| row.what == name);
    row.map_or_else(Vec::new, |row| row.bytes)
}

/// Answers with a row of the table, as a JSON body.
pub fn says_json(request: &Request) -> Vec<u8> {
    json(&told(request))
}

/// Answers with a row of the table, as an event.
pub fn says_event(request: &Request) -> Vec<u8> {
    events(&[b"data: ", told(request).as_slice(), b"\n\n"].concat())
}

/// Event streams with odd line ends and fields, by name; and whether the answer in them passes.
pub const STREAMS: &[(&str, &str, bool)] = &[
    ("a CR ends a field", "id: a\rdata: GOOD\n\n", true),
    ("a CR in data", "data: GOOD\rdata: BAD\n\n", false),
    ("CR and LF in data", "data: GOOD\r\ndata: BAD\r\n\r\n", false),
    ("a field after CR in an id", "id: a\rdata: BAD\rdata: GOOD\n\n", false),
    ("another event", "event: error\ndata: BAD\n\ndata: GOOD\n\n", true),
    ("another event by CR", "event: error\rdata: BAD\r\rdata: GOOD\n\n", true),
    ("a field by another case", "DATA: BAD\n\ndata: GOOD\n\n", true),
    ("a blank before a field", " data: BAD\n\ndata: GOOD\n\n", true),
    ("a NUL in an id", "id: BAD\0\ndata: GOOD\n\n", true),
    ("a comment", ": data: BAD\n\ndata: GOOD\n\n", true),
    ("a retry that is none", "retry: BAD\ndata: GOOD\n\n", true),
    ("a byte order mark", "\u{feff}data: GOOD\n\n", true),
    ("a byte order mark later on", ": x\n\n\u{feff}data: BAD\n\ndata: GOOD\n\n", true),
    ("an event without its end", "data: GOOD\n\ndata: BAD", true),
];

/// What stands for the answer in them, and for what nobody may get.
pub const GOOD: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"a":"good"}}"#;
const BAD: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"a":"SMUGGLED"}}"#;

/// Answers with the stream that the tool called is named after.
pub fn streams(request: &Request) -> Vec<u8> {
    let message = request.message();
    let name = message["params"]["name"].as_str().unwrap_or_default();
    let found = STREAMS.iter().find(|(what, ..)| *what == name);
    let text =
        found.map_or(String::new(), |(_, text, _)| text.replace("GOOD", GOOD).replace("BAD", BAD));
    events(text.as_bytes())
}

/// What a server of 2025-03-26 may answer to the request 1 all at once.
pub const BATCH: &str = r#"[{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"078-05-1120"}},{"jsonrpc":"2.0","id":1,"result":{"text":"078-05-1120"}}]"#;

/// Opens a session of any version, and answers in batches in it.
pub fn batches(request: &Request) -> Vec<u8> {
    let message = request.message();
    match message["method"].as_str().unwrap_or_default() {
        "initialize" => {
            let version = &message["params"]["protocolVersion"];
            let body = format!(
                "id: 0\ndata:\n\ndata: {{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{\"protocolVersion\":{version},\
                 \"capabilities\":{{}},\"serverInfo\":{{\"name\":\"b\",\"version\":\"1\"}}}}}}\n\n"
            );
            let head = "200 OK\r\ncontent-type: text/event-stream\r\nmcp-session-id: s-1";
            whole(head, body.as_bytes())
        }
        "ping" => json(BATCH.as_bytes()),
        _ => events(format!("id: e\ndata: {BATCH}\n\n").as_bytes()),
    }
}
