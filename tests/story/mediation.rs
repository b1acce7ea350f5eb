//! The table of who may send what (`docs/mediation.md`), walked with a real gateway between a raw
//! client and servers that note what reaches them.

use std::collections::HashMap;
use std::sync::Mutex;

use mcpx::mcp::Era;
use mcpx::policy::mediation::{Names, ROWS, Row, Rule, Shape};
use mcpx::policy::{Direction, Transport, Way};
use serde_json::{Value, json};

use crate::hostile::{OK_JSON, OK_STREAM, upstream, whole};
use crate::support::{Idp, Raw, Server, Site, World, http};

crate::stories![every_cell_towards_the_server, every_cell_towards_the_client,];

pub(crate) const VERSION: &str = "2026-07-28";
pub(crate) const CONNECT: &str = r#"permit(principal, action == Action::"connect", resource);"#;

/// Somebody with a grant for one connection.
pub(crate) struct Wire {
    raw: Raw,
    url: String,
    token: String,
}

impl Wire {
    pub(crate) fn new(server: &Server, idp: &Idp, connection: &str) -> anyhow::Result<Self> {
        let (raw, url) = (Raw::new()?, server.resource(connection));
        let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
        let token = raw.token(server, &id_token, &url)?;
        Ok(Self { raw, url, token })
    }

    pub(crate) fn send(
        &self,
        method: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> anyhow::Result<http::Answer> {
        let proof = self.raw.proof(method, &self.url, Some(&self.token), |_| ())?;
        let mut request = http::client()
            .request(method.parse()?, &self.url)
            .header("authorization", format!("DPoP {}", self.token))
            .header("dpop", proof)
            .header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        http::send(request.body(body.to_owned()))
    }

    /// Sends a message with the headers of its era.
    pub(crate) fn message(
        &self,
        era: Era,
        session: &str,
        message: &Value,
    ) -> anyhow::Result<http::Answer> {
        let mut headers = vec![("content-type", "application/json")];
        let method = message["method"].as_str().unwrap_or_default();
        let params = &message["params"];
        let name = if method == "resources/read" { &params["uri"] } else { &params["name"] };
        match era {
            Era::Legacy => headers.push(("mcp-protocol-version", "2025-11-25")),
            Era::Modern => {
                headers.push(("mcp-protocol-version", VERSION));
                headers.push(("mcp-method", method));
                if matches!(method, "tools/call" | "prompts/get" | "resources/read") {
                    headers.push(("mcp-name", name.as_str().unwrap_or_default()));
                }
            }
        }
        if !session.is_empty() {
            headers.push(("mcp-session-id", session));
        }
        self.send("POST", &headers, &message.to_string())
    }
}

/// A method that the row stands for.
fn method(row: &Row) -> String {
    row.method.replace('*', if row.method == "*" { "x/unheard" } else { "unheard" })
}

/// A message of the row with a mark to know it by.
fn message(row: &Row, era: Era, mark: &str) -> Value {
    let mut params = json!({
        "name": "t", "uri": "x:y", "ref": {"type": "ref/prompt", "name": "p"},
        "notifications": {}, "mark": mark,
    });
    if era == Era::Modern {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientCapabilities": {},
        });
    }
    match row.shape {
        Shape::Response => json!({"jsonrpc": "2.0", "id": 1, "result": {"mark": mark}}),
        Shape::Notification => json!({"jsonrpc": "2.0", "method": method(row), "params": params}),
        Shape::Request | Shape::Act => {
            json!({"jsonrpc": "2.0", "id": 1, "method": method(row), "params": params})
        }
    }
}

/// What reached the servers over HTTP, by head and body.
static REACHED: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn note(head: &str, body: &str) -> String {
    REACHED.lock().unwrap().push(format!("{head}\n{body}"));
    if !head.starts_with("POST") {
        return whole("HTTP/1.1 405 Method Not Allowed", "");
    }
    if body.contains(r#""id":1"#) && body.contains(r#""method""#) {
        return whole(OK_JSON, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    }
    whole("HTTP/1.1 202 Accepted", "")
}

/// A server on stdio that notes what reaches it and answers everything that wants an answer.
const NOTES: &str = r#"while IFS= read -r line; do printf '%s\n' "$line" >> "$0"
case "$line" in *'"method"'*'"id":1'*|*'"id":1'*'"method"'*) echo '{"jsonrpc":"2.0","id":1,"result":{}}';; esac; done"#;

fn every_cell_towards_the_server(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let url = upstream(note)?;
    let file = world.dir().join("reached.jsonl");
    let sh = |name: &str| -> [String; 4] {
        ["/bin/sh".into(), "-c".into(), NOTES.into(), format!("{}.{name}", file.display())]
    };
    // One connection for each row, on which a policy permits exactly that; on stdio also what
    // opens a legacy session. One on which nothing is permitted, and one with everything.
    let mut policies = format!("{CONNECT}\n");
    let mut site = Site::new(world, &idp);
    let open = r#"permit(principal, action == Action::"initialize", resource in Connection::"#;
    for way in ["http", "stdio"] {
        let names = ROWS.iter().enumerate().map(|(n, row)| (format!("{way}-{n}"), Some(row)));
        let others = ["none", "all"].map(|name| (format!("{way}-{name}"), None));
        for (name, row) in names.chain(others) {
            site = match way {
                "http" => site.http(&name, &url),
                _ => site.stdio(&name, &sh(&name)),
            };
            if way == "stdio" {
                policies.push_str(&format!("{open}\"{name}\");\n"));
            }
            if name.ends_with("all") {
                policies.push_str(&format!(
                    "permit(principal, action, resource in Connection::\"{name}\");\n"
                ));
            }
            let Some(row) = row else { continue };
            let mut actions = vec![method(row)];
            if row.listed {
                // What is told of must be what may be shown.
                actions.extend(["prompts/get".to_owned(), "resources/read".to_owned()]);
            }
            for action in actions {
                policies.push_str(&format!(
                    "permit(principal, action == Action::\"{action}\", resource in Connection::\"{name}\");\n"
                ));
            }
        }
    }
    let server = site.policy("engineers.cedar", &policies).start()?;
    let mut wires = HashMap::new();
    let mut sessions: HashMap<String, String> = HashMap::new();
    let mut count = 0;
    for (number, row) in ROWS.iter().enumerate() {
        for era in [Era::Legacy, Era::Modern] {
            for (prefix, transport) in [("http", Transport::Http), ("stdio", Transport::Stdio)] {
                let way = Way { direction: Direction::ClientToServer, era, transport };
                for (which, permits) in [
                    (number.to_string(), true),
                    ("none".to_owned(), false),
                    ("all".to_owned(), true),
                ] {
                    let name = format!("{prefix}-{which}");
                    if row.method == "connect" {
                        continue;
                    }
                    // A legacy stdio session is opened by `initialize`, which is on the way there.
                    if row.method == "initialize" && transport == Transport::Stdio {
                        continue;
                    }
                    if !wires.contains_key(&name) {
                        wires.insert(name.clone(), Wire::new(&server, &idp, &name)?);
                    }
                    let wire = &wires[&name];
                    let legacy_stdio = transport == Transport::Stdio && era == Era::Legacy;
                    if legacy_stdio && !sessions.contains_key(&name) {
                        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}});
                        let answer = wire.message(era, "", &hello)?;
                        let session = answer.header("mcp-session-id").to_owned();
                        assert!(!session.is_empty(), "{name}: {answer:?}");
                        sessions.insert(name.clone(), session);
                    }
                    let session = if legacy_stdio { sessions[&name].as_str() } else { "" };
                    let mark = format!("mark-{count}-");
                    count += 1;
                    let cell = format!("{} {:?} {way:?} {which}", row.method, row.shape);
                    let version = if era == Era::Modern { VERSION } else { "2025-11-25" };
                    let answer = match row.shape {
                        Shape::Act => {
                            let mut headers =
                                vec![("mcp-protocol-version", version), ("tracestate", &*mark)];
                            if !session.is_empty() {
                                headers.push(("mcp-session-id", session));
                            }
                            // The stream of a child stays open; that it opens is another story.
                            if transport == Transport::Stdio && permits {
                                continue;
                            }
                            let act = if row.method == "transport/end" { "DELETE" } else { "GET" };
                            wire.send(act, &headers, "")?
                        }
                        _ => wire.message(era, session, &message(row, era, &mark))?,
                    };
                    let reached = match transport {
                        Transport::Http | Transport::Sse => {
                            REACHED.lock().unwrap().iter().any(|one| one.contains(&mark))
                        }
                        Transport::Stdio => {
                            let file = format!("{}.{name}", file.display());
                            let asked = row.shape == Shape::Request;
                            let noted = || {
                                Ok::<_, anyhow::Error>(
                                    std::fs::read_to_string(&file)
                                        .unwrap_or_default()
                                        .contains(&mark),
                                )
                            };
                            // What wants no answer may still be on its way.
                            let passes = permits && matches!(row.rule(way), Rule::Policy { .. });
                            if passes && !asked {
                                crate::support::until("it arrives", || Ok(noted()?.then_some(())))?;
                            }
                            noted()?
                        }
                    };
                    match row.rule(way) {
                        Rule::Policy { .. } => assert_eq!(reached, permits, "{cell}: {answer:?}"),
                        Rule::Answer => unreachable!("a client's message is a call"),
                        Rule::Refused(rule) => {
                            assert!(!reached, "{cell}: {answer:?}");
                            if row.shape == Shape::Request {
                                assert!(answer.body.contains(rule), "{cell}: {answer:?}");
                            } else {
                                assert_eq!((answer.status, &*answer.body), (202, ""), "{cell}");
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(count > 400, "{count}");
    // Every refusal by the protocol's own rules is on record as a call that was not forwarded.
    let calls = server.leaves_of("call");
    let ours = |leaf: &&Value| leaf["rules"].to_string().contains("protocol-");
    assert!(calls.iter().filter(ours).count() > 30);
    assert!(calls.iter().filter(ours).all(|leaf| leaf["forwarded"] == false));
    server.verify()?.exits(0);
    Ok(())
}

/// Answers a call with what its arguments say that the server says.
fn says(_head: &str, body: &str) -> String {
    let call: Value = serde_json::from_str(body).unwrap_or_default();
    let own = &call["params"]["arguments"];
    let done = json!({"jsonrpc": "2.0", "id": 1, "result": {"content": []}});
    if own["inputRequests"].is_object() {
        let mut result = own.clone();
        result["resultType"] = json!("input_required");
        return whole(OK_JSON, &json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string());
    }
    whole(OK_STREAM, &format!("data: {own}\n\ndata: {done}\n\n"))
}

fn call(era: Era, arguments: &Value) -> Value {
    let mut params = json!({"name": "says", "arguments": arguments});
    if era == Era::Modern {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientCapabilities": {"sampling": {}, "elicitation": {}, "roots": {}},
        });
    }
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
}

fn every_cell_towards_the_client(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let url = upstream(says)?;
    let mut policies = format!(
        "{CONNECT}\npermit(principal, action == Action::\"tools/call\", resource);\n\
         permit(principal, action, resource in Connection::\"all\");\n"
    );
    let mut site = Site::new(world, &idp).http("none", &url).http("all", &url);
    for (number, row) in ROWS.iter().enumerate() {
        let name = format!("row-{number}");
        site = site.http(&name, &url);
        let mut actions = vec![method(row)];
        if row.listed {
            actions.push("resources/read".to_owned());
        }
        for action in actions {
            policies.push_str(&format!(
                "permit(principal, action == Action::\"{action}\", resource in Connection::\"{name}\");\n"
            ));
        }
    }
    let server = site.policy("engineers.cedar", &policies).start()?;
    let mut count = 0;
    let (none, all) = (Wire::new(&server, &idp, "none")?, Wire::new(&server, &idp, "all")?);
    for (number, row) in ROWS.iter().enumerate() {
        if matches!(row.shape, Shape::Act | Shape::Response) || row.names == Names::Tool {
            continue;
        }
        let own = Wire::new(&server, &idp, &format!("row-{number}"))?;
        for era in [Era::Legacy, Era::Modern] {
            let way = Way { direction: Direction::ServerToClient, era, transport: Transport::Http };
            let cell = format!("{} {way:?}", row.method);
            let mark = format!("mark-{number}-{era:?}-");
            let mut alone = message(row, Era::Legacy, &mark);
            if row.shape == Shape::Request {
                alone["id"] = json!("own");
            }
            let request = json!({"method": method(row), "params": {"mark": mark}});
            let within = json!({"inputRequests": {"a": request}});
            let passes = matches!(row.rule(way), Rule::Policy { .. });
            let asks = matches!(row.rule_within(), Rule::Policy { .. });
            let mut ways = vec![(alone, passes)];
            if row.shape == Shape::Request {
                ways.push((within, asks));
            }
            for (said, passes) in ways {
                for (wire, permits) in [(&none, false), (&own, true), (&all, true)] {
                    let answer = wire.message(era, "", &call(era, &said))?;
                    count += 1;
                    let seen = answer.body.contains(&mark);
                    assert_eq!(seen, passes && permits, "{cell}: {said} {answer:?}");
                    // Whatever the server says, its client gets an answer.
                    let last = answer.json();
                    assert_eq!(last["id"], 1, "{cell}: {answer:?}");
                }
            }
        }
    }
    assert!(count > 200, "{count}");
    server.verify()?.exits(0);
    Ok(())
}
