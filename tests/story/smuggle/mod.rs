//! Messages that two parsers read differently, on every transport and in both directions: refused
//! with a reason, a place and a record, or passed on byte for byte; never changed on the way, and
//! never the end of a session.

mod batches;
mod clients;
mod table;
mod upstream;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc;

use anyhow::Context as _;
use serde_json::{Value, json};

use self::batches::{batches_of_clients, batches_of_servers};
use self::table::{Fate, MESSAGE_BYTES, Row};
use self::upstream::Upstream;
use crate::support::proc::PATIENCE;
use crate::support::{Person, Raw, Server, Site, Target, World, http, raw};

crate::stories![
    hostile_clients_at_the_gateway,
    hostile_clients_at_the_local_port,
    hostile_clients_on_stdio,
    hostile_servers,
    streams_with_odd_fields,
    headers_that_say_something_else,
    batches_of_clients,
    batches_of_servers,
];

fn limits() -> String {
    format!("[limits]\nmessage_bytes = {MESSAGE_BYTES}\n")
}

/// A way for a client's bytes to an upstream.
trait Way {
    /// Sends bytes and gives the message that answers them, where one does.
    fn send(&mut self, bytes: &[u8]) -> anyhow::Result<Option<Value>>;
}

/// Sends the whole table one way, and a good message after each row of it.
fn hostile_clients(way: &mut dyn Way, upstream: &Upstream, rows: &[Row]) -> anyhow::Result<()> {
    for Row { what, bytes, fate } in rows {
        let answer = way.send(bytes).with_context(|| format!("{what}: no answer"))?;
        let arrived = upstream.take();
        match fate {
            Fate::Passed => {
                assert_eq!(arrived, std::slice::from_ref(bytes), "{what}: {answer:?}");
                assert_eq!(answer.context("no answer")?["result"], json!({}), "{what}");
            }
            Fate::Refused { says, pointer } => {
                assert!(arrived.is_empty(), "{what}: reached the server: {answer:?}");
                is_refusal(what, &answer.context("no answer")?["error"], says, *pointer);
            }
        }
        let good = r#"{"jsonrpc":"2.0","id":"next","method":"ping"}"#;
        let answer = way.send(good.as_bytes())?.context("no answer")?;
        assert_eq!((&answer["id"], &answer["result"]), (&json!("next"), &json!({})), "{what}");
        assert_eq!(upstream.take(), [good.as_bytes()], "after {what}");
    }
    Ok(())
}

/// Each refusal of the table is on record, once.
fn are_on_record(server: &Server, rows: &[Row]) {
    let refused = rows.iter().filter(|row| matches!(row.fate, Fate::Refused { .. })).count();
    assert_eq!(server.leaves_of("refused").len(), refused);
}

fn is_refusal(what: &str, error: &Value, says: &str, pointer: Option<&str>) {
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains(says), "{what}: {error}");
    let ours = &error["data"]["mcpx"];
    assert!(ours["code"].is_string(), "{what}: {error}");
    if let Some(pointer) = pointer {
        assert_eq!(ours["pointer"], pointer, "{what}: {error}");
        assert!(ours["byte"].is_u64(), "{what}: {error}");
    }
}

fn rows_on_one_line() -> Vec<Row> {
    let rows: Vec<_> = clients::table().into_iter().filter(Row::is_one_line).collect();
    assert!(rows.len() > 70, "{}", rows.len());
    rows
}

/// Straight to the gateway, with a grant and its key.
struct Direct {
    raw: Raw,
    token: String,
    url: String,
}

impl Way for Direct {
    fn send(&mut self, bytes: &[u8]) -> anyhow::Result<Option<Value>> {
        Ok(Some(self.post(&[], bytes)?.json()))
    }
}

impl Direct {
    /// Posts bytes with more headers than the usual ones.
    fn post(&self, headers: &[(&str, &str)], bytes: &[u8]) -> anyhow::Result<http::Answer> {
        let proof = self.raw.proof("POST", &self.url, Some(&self.token), |_| ())?;
        let mut request = http::client()
            .post(&self.url)
            .header("authorization", format!("DPoP {}", self.token))
            .header("dpop", proof)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        http::send(request.body(bytes.to_vec()))
    }
}

fn hostile_clients_at_the_gateway(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let upstream = Upstream::start(upstream::pong)?;
    let server = Site::new(world, &idp).http("pong", &upstream.url).extra(&limits()).start()?;
    let url = server.resource("pong");
    let raw = Raw::new()?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let token = raw.token(&server, &id_token, &url)?;
    let mut way = Direct { raw, token, url };
    hostile_clients(&mut way, &upstream, &clients::table())?;
    are_on_record(&server, &clients::table());
    server.verify()?.exits(0);
    Ok(())
}

/// The local port of `mcpx connect`.
struct Port(String);

impl Way for Port {
    fn send(&mut self, bytes: &[u8]) -> anyhow::Result<Option<Value>> {
        let request = http::client()
            .post(&self.0)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        Ok(Some(http::send(request.body(bytes.to_vec()))?.json()))
    }
}

fn hostile_clients_at_the_local_port(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let upstream = Upstream::start(upstream::pong)?;
    let server = Site::new(world, &idp).http("pong", &upstream.url).extra(&limits()).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let connected = alice.connect("pong")?;
    hostile_clients(&mut Port(connected.url.clone()), &upstream, &clients::table())?;
    are_on_record(&server, &clients::table());
    server.verify()?.exits(0);
    Ok(())
}

/// `mcpx connect --stdio`, as an MCP client starts it.
struct Line {
    child: Child,
    input: ChildStdin,
    output: mpsc::Receiver<String>,
}

impl Line {
    fn start(world: &World, target: &Target) -> anyhow::Result<Self> {
        let Target::Command(argv) = target else { anyhow::bail!("not a command") };
        let (program, arguments) = argv.split_first().context("no program")?;
        let mut command = world.command(program)?;
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (say, lines) = mpsc::channel();
        let output = BufReader::new(output.context("no stdout")?);
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|l| say.send(l))
        });
        Ok(Self { child, input: input.context("no stdin")?, output: lines })
    }

    fn next(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.output.recv_timeout(PATIENCE)?)?)
    }
}

impl Way for Line {
    fn send(&mut self, bytes: &[u8]) -> anyhow::Result<Option<Value>> {
        self.input.write_all(&[bytes, b"\n"].concat())?;
        self.next().map(Some)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn hostile_clients_on_stdio(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let upstream = Upstream::start(upstream::pong)?;
    let server = Site::new(world, &idp).http("pong", &upstream.url).extra(&limits()).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let mut line = Line::start(world, &alice.stdio("pong"))?;
    hostile_clients(&mut line, &upstream, &rows_on_one_line())?;
    // A message with a line break in it is two lines, and neither is a message.
    line.input.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\n\"method\":\"ping\"}\n")?;
    for _ in 0..2 {
        assert!(line.next()?["error"]["data"]["mcpx"]["byte"].is_u64());
    }
    assert!(upstream.take().is_empty());
    server.verify()?.exits(0);
    Ok(())
}

fn hostile_servers(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let rows = table::of_servers();
    let json = Upstream::start(upstream::says_json)?;
    let event = Upstream::start(upstream::says_event)?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines: serde_json::Map<String, Value> =
        rows.iter().map(|row| (row.what.to_owned(), json!(hex(&row.bytes)))).collect();
    let file = world.write("parrot.json", &Value::from(lines).to_string())?;
    let parrot = world.parts().script("parrot.py").display().to_string();
    let command =
        [world.parts().python()?.display().to_string(), parrot, file.display().to_string()];
    let server = Site::new(world, &idp)
        .http("json", &json.url)
        .http("event", &event.url)
        .stdio("line", &command)
        .extra(&limits())
        .start()?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    for connection in ["json", "event", "line"] {
        let url = server.resource(connection);
        let raw = Raw::new()?;
        let token = raw.token(&server, &id_token, &url)?;
        for Row { what, bytes, fate } in &rows {
            let what = format!("{connection}: {what}");
            let call = raw::call(what.split_once(": ").unwrap_or_default().1, &json!({}));
            let answer = raw.post(&url, &token, &call)?;
            match fate {
                Fate::Passed => {
                    let body =
                        answer.body.trim_end().strip_prefix("data: ").unwrap_or(&answer.body);
                    assert_eq!(body.as_bytes(), bytes, "{what}");
                }
                Fate::Refused { says, pointer } => {
                    assert!(!answer.body.contains("SMUGGLED"), "{what}: {answer:?}");
                    let answer = answer.json();
                    assert_eq!(answer["id"], 1, "{what}: {answer}");
                    assert_eq!(answer["error"]["code"], -31007, "{what}: {answer}");
                    let in_event = connection == "event" && *says == "UTF-8";
                    is_refusal(&what, &answer["error"], says, pointer.filter(|_| !in_event));
                }
            }
            let good = raw.post(&url, &token, &raw::call("an empty result", &json!({})))?;
            assert_eq!(good.json()["result"], json!({}), "after {what}: {good:?}");
        }
    }
    let refused = rows.iter().filter(|row| matches!(row.fate, Fate::Refused { .. })).count();
    let responses = server.leaves_of("response");
    let failed = responses.iter().filter(|leaf| leaf["outcome"] == "upstream_failed").count();
    assert_eq!(failed, 3 * refused, "not all are on record");
    server.verify()?.exits(0);
    Ok(())
}

fn streams_with_odd_fields(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let upstream = Upstream::start(upstream::streams)?;
    let server = Site::new(world, &idp).http("odd", &upstream.url).start()?;
    let url = server.resource("odd");
    let raw = Raw::new()?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let token = raw.token(&server, &id_token, &url)?;
    for (what, _, passes) in upstream::STREAMS {
        let answer = raw.post(&url, &token, &raw::call(what, &json!({})))?;
        assert!(!answer.body.contains("SMUGGLED"), "{what}: {answer:?}");
        let data: Vec<_> = answer.body.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
        if *passes {
            assert_eq!(data, [upstream::GOOD], "{what}");
        } else {
            is_refusal(what, &answer.json()["error"], "malformed JSON", None);
        }
    }
    server.verify()?.exits(0);
    Ok(())
}

fn headers_that_say_something_else(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let upstream = Upstream::start(upstream::pong)?;
    let server = Site::new(world, &idp).http("pong", &upstream.url).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let connected = alice.connect("pong")?;
    let url = server.resource("pong");
    let raw = Raw::new()?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let token = raw.token(&server, &id_token, &url)?;
    let way = Direct { raw, token, url };
    let body = raw::call("Zürich", &json!({"region": "eu", "n": 7}));
    let good = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "=?base64?WsO8cmljaA==?="),
    ];
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let rows: &[(&str, Headers<'_>, bool)] = &[
        ("what the body says", &[], true),
        ("the same twice", &[("mcp-method", "tools/call")], true),
        ("an argument", &[("mcp-param-region", "eu")], true),
        ("an argument in base64", &[("mcp-param-region", "=?base64?ZXU=?=")], true),
        ("another method as well", &[("mcp-method", "ping")], false),
        ("another case", &[("mcp-method", "Tools/Call")], false),
        ("another name as well", &[("mcp-name", "note")], false),
        ("no padding", &[("mcp-name", "=?base64?WsO8cmljaA?=")], false),
        ("too much padding", &[("mcp-name", "=?base64?WsO8cmljaA===?=")], false),
        ("no base64", &[("mcp-name", "=?base64?***?=")], false),
        ("no text", &[("mcp-name", "=?base64?/w==?=")], false),
        ("another alphabet", &[("mcp-name", "=?base64?WsO8cmljaA==?= ,note")], false),
        ("another version as well", &[("mcp-protocol-version", "2025-11-25")], false),
        ("two versions in one", &[("mcp-protocol-version", "2026-07-28, 2025-11-25")], false),
        ("no argument", &[("mcp-param-region", "us")], false),
        ("an argument and none", &[("mcp-param-region", "eu"), ("mcp-param-region", "us")], false),
    ];
    for (what, more, passes) in rows {
        let headers = [&good[..], more].concat();
        for place in ["gateway", "local port"] {
            let answer = if place == "gateway" {
                way.post(&headers, body.as_bytes())?
            } else {
                let request = http::client().post(&connected.url).body(body.clone());
                let add = |request: reqwest::RequestBuilder, (name, value): &(&str, &str)| {
                    request.header(*name, *value)
                };
                http::send(headers.iter().fold(request, add))?
            };
            let arrived = upstream.take();
            if *passes {
                assert_eq!((answer.status, arrived.len()), (200, 1), "{what}, {place}: {answer:?}");
            } else {
                assert!(arrived.is_empty(), "{what}, {place}: {answer:?}");
                let error = &answer.json()["error"];
                assert_eq!(
                    (answer.status, &error["code"]),
                    (400, &json!(-32020)),
                    "{what}: {error}"
                );
                assert!(error["message"].as_str().is_some_and(|m| m.contains("mcp-")), "{error}");
            }
        }
    }
    server.verify()?.exits(0);
    Ok(())
}
