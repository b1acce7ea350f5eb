//! The table of who may send what (`docs/mediation.md`), walked with a real gateway between a raw
//! client and servers that note what reaches them; and what policy hides stays hidden.

use std::collections::HashMap;
use std::sync::Mutex;

use mcpx::mcp::Era;
use mcpx::policy::mediation::{Names, ROWS, Row, Rule, Shape};
use mcpx::policy::{Direction, Transport, Way};
use serde_json::{Value, json};

use crate::hostile::{OK_JSON, OK_STREAM, upstream, whole};
use crate::support::{Idp, Raw, Server, Site, World, http};

crate::stories![
    every_cell_towards_the_server,
    every_cell_towards_the_client,
    what_is_hidden_is_not_there,
    lists_come_page_by_page,
    headers_that_repeat_arguments,
    errors_pass_as_they_are,
];

const VERSION: &str = "2026-07-28";
const CONNECT: &str = r#"permit(principal, action == Action::"connect", resource);"#;

/// Somebody with a grant for one connection.
struct Wire {
    raw: Raw,
    url: String,
    token: String,
}

impl Wire {
    fn new(server: &Server, idp: &Idp, connection: &str) -> anyhow::Result<Self> {
        let (raw, url) = (Raw::new()?, server.resource(connection));
        let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
        let token = raw.token(server, &id_token, &url)?;
        Ok(Self { raw, url, token })
    }

    fn send(
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
    fn message(&self, era: Era, session: &str, message: &Value) -> anyhow::Result<http::Answer> {
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
                        Transport::Http => {
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

const SECRET: &str = "payroll_export";

/// A server that has something that alice may use, something that she may not, and a cursor.
fn offers(head: &str, body: &str) -> String {
    REACHED.lock().unwrap().push(format!("{head}\n{body}"));
    let asked: Value = serde_json::from_str(body).unwrap_or_default();
    let page = asked["params"]["cursor"].as_str().unwrap_or("1");
    let more = |items: [Value; 3], member: &str| {
        let number: usize = page.parse().unwrap_or(1);
        let mut result =
            json!({member: [items[number - 1]], "ttlMs": 60_000, "cacheScope": "public"});
        if number < 3 {
            result["nextCursor"] = json!((number + 1).to_string());
        }
        result
    };
    let named = |key: &str, names: [&str; 3]| {
        names.map(|name| {
            let mut item = json!({key: name, "name": name, "inputSchema": {"type": "object"}});
            // In quarantine as well, which nobody hears of who may not use it.
            if name == SECRET {
                item["description"] = json!("hides\u{200b}something");
            }
            item
        })
    };
    let result = match asked["method"].as_str().unwrap_or_default() {
        "tools/list" => more(named("name", ["open", SECRET, "shut"]), "tools"),
        "prompts/list" => more(named("name", ["open", SECRET, "shut"]), "prompts"),
        "resources/list" => {
            more(named("uri", ["x:open", "x:payroll_export", "x:shut"]), "resources")
        }
        "resources/templates/list" => {
            let templates = ["x:open/{n}", "x:payroll_export/{n}", "x:shut/{n}"];
            more(named("uriTemplate", templates), "resourceTemplates")
        }
        "tools/call" => {
            let told = |method: &str, uri: &str| json!({"jsonrpc": "2.0", "method": method, "params": {"uri": uri}});
            let events = [
                told("notifications/resources/updated", "x:open"),
                told("notifications/resources/updated", "x:payroll_export"),
                json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}),
                json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"content": []}}),
            ];
            let text: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
            return whole(OK_STREAM, &text);
        }
        _ => json!({}),
    };
    whole(OK_JSON, &json!({"jsonrpc": "2.0", "id": asked["id"], "result": result}).to_string())
}

/// What alice may use is named; everything else is not there for her.
const SHOWN: &str = r#"
permit(principal, action == Action::"connect", resource);
permit(principal, action in Action::"protocol", resource);
permit(principal, action in [
    Action::"tools/list", Action::"prompts/list", Action::"resources/list",
    Action::"resources/templates/list", Action::"completion/complete",
    Action::"resources/subscribe", Action::"resources/unsubscribe"
], resource);
permit(principal, action, resource == Tool::"offers/open");
permit(principal, action, resource == Tool::"offers/shut");
permit(principal, action, resource == Prompt::"offers/open");
permit(principal, action, resource == Prompt::"offers/shut");
permit(principal, action, resource == Resource::"offers/x:open");
permit(principal, action, resource == Resource::"offers/x:shut");
permit(principal, action, resource == Resource::"offers/x:open/{n}");
permit(principal, action, resource == Resource::"offers/x:shut/{n}");
"#;

fn request(method: &str, params: Value) -> Value {
    let mut params = params;
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

/// An answer without what is its own: the id of the call.
fn bytes(answer: &http::Answer) -> String {
    let call = regex::Regex::new("call_[0-9a-z]{16}").unwrap();
    format!("{} {}", answer.status, call.replace_all(&answer.body, "CALL"))
}

fn what_is_hidden_is_not_there(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp)
        .policy("engineers.cedar", SHOWN)
        .http("offers", &upstream(offers)?)
        .start()?;
    let wire = Wire::new(&server, &idp, "offers")?;
    let send =
        |method: &str, params: Value| wire.message(Era::Modern, "", &request(method, params));
    // The pins know of all of it, as they do once anybody has listed it.
    for list in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
        for page in ["1", "2", "3"] {
            let answer = send(list, json!({"cursor": page}))?;
            assert!(!answer.body.contains("payroll"), "{list}: {answer:?}");
        }
    }
    let asked: [(&str, fn(&str) -> Value); 9] = [
        ("tools/call", |name| json!({"name": name, "arguments": {}})),
        ("prompts/get", |name| json!({"name": name})),
        ("resources/read", |name| json!({"uri": format!("x:{name}")})),
        ("resources/read", |name| json!({"uri": format!("x:{name}/7")})),
        ("resources/subscribe", |name| json!({"uri": format!("x:{name}")})),
        ("resources/unsubscribe", |name| json!({"uri": format!("x:{name}")})),
        (
            "completion/complete",
            |name| json!({"ref": {"type": "ref/prompt", "name": name}, "argument": {"name": "a", "value": ""}}),
        ),
        ("completion/complete", |name| {
            json!({"ref": {"type": "ref/resource", "uri": format!("x:{name}/{{n}}")},
                   "argument": {"name": "n", "value": ""}})
        }),
        (
            "subscriptions/listen",
            |name| json!({"notifications": {"resourceSubscriptions": ["x:open", format!("x:{name}")]}}),
        ),
    ];
    for (method, params) in asked {
        let there = send(method, params(SECRET))?;
        let nowhere = send(method, params("payroll_nowhere"))?;
        assert_eq!(bytes(&there), bytes(&nowhere), "{method}");
        assert!(!there.body.contains("payroll"), "{method}: {there:?}");
        assert!(there.body.contains("default-deny"), "{method}: {there:?}");
    }
    // Nothing of that took the time of the server.
    assert!(!REACHED.lock().unwrap().iter().any(|one| one.contains("payroll")));

    // News of what is hidden do not arrive, and are on record.
    let answer = send("tools/call", json!({"name": "open", "arguments": {}}))?;
    assert!(answer.body.contains("x:open") && answer.body.contains("list_changed"), "{answer:?}");
    assert!(!answer.body.contains("payroll"), "{answer:?}");
    let calls = server.leaves_of("call");
    let updates: Vec<_> =
        calls.iter().filter(|leaf| leaf["method"] == "notifications/resources/updated").collect();
    let decided: Vec<_> = updates.iter().map(|leaf| leaf["decision"].clone()).collect();
    assert_eq!(decided, ["allow", "deny"]);
    server.verify()?.exits(0);
    Ok(())
}

/// Lists change nothing but what they hide: pages, cursors and order stay, and a page with nothing
/// to show is not the end.
fn lists_come_page_by_page(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp)
        .policy("engineers.cedar", SHOWN)
        .http("offers", &upstream(offers)?)
        .start()?;
    let wire = Wire::new(&server, &idp, "offers")?;
    let lists = [
        ("tools/list", "tools", "name", ["open", "shut"]),
        ("prompts/list", "prompts", "name", ["open", "shut"]),
        ("resources/list", "resources", "uri", ["x:open", "x:shut"]),
        (
            "resources/templates/list",
            "resourceTemplates",
            "uriTemplate",
            ["x:open/{n}", "x:shut/{n}"],
        ),
    ];
    for (method, member, key, expected) in lists {
        let (mut cursor, mut seen, mut pages) = (Value::Null, Vec::new(), Vec::new());
        loop {
            let params = if cursor.is_null() { json!({}) } else { json!({"cursor": cursor}) };
            let answer = wire.message(Era::Modern, "", &request(method, params))?;
            let result = answer.json()["result"].clone();
            let items = result[member].as_array().cloned().unwrap_or_default();
            pages.push(items.len());
            seen.extend(items.iter().map(|item| item[key].clone()));
            cursor = result["nextCursor"].clone();
            if cursor.is_null() {
                break;
            }
        }
        assert_eq!(pages, [1, 0, 1], "{method}");
        assert_eq!(seen, expected, "{method}");
    }
    Ok(())
}

/// A tool of which requests repeat two arguments as headers.
fn mirrors(head: &str, body: &str) -> String {
    REACHED.lock().unwrap().push(format!("{head}\n{body}"));
    let asked: Value = serde_json::from_str(body).unwrap_or_default();
    let schema = json!({"type": "object", "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "n": {"type": "integer", "x-mcp-header": "N"},
    }});
    let tools = ["mirrored", SECRET].map(|name| json!({"name": name, "inputSchema": schema}));
    let result = match asked["method"].as_str().unwrap_or_default() {
        "tools/list" => json!({"tools": tools, "ttlMs": 86_400_000, "cacheScope": "public"}),
        _ => json!({"content": []}),
    };
    whole(OK_JSON, &json!({"jsonrpc": "2.0", "id": asked["id"], "result": result}).to_string())
}

fn headers_that_repeat_arguments(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let url = upstream(mirrors)?;
    let policies = format!(
        "{CONNECT}\npermit(principal, action == Action::\"tools/list\", resource);\n\
         permit(principal, action, resource == Tool::\"mirrors/mirrored\");\n"
    );
    let mut server = Site::new(world, &idp)
        .policy("engineers.cedar", &policies)
        .http("mirrors", &url)
        .start()?;
    let mut wire = Wire::new(&server, &idp, "mirrors")?;
    let call = |wire: &Wire, tool: &str, arguments: &Value, more: &[(&str, &str)]| {
        let mut headers = vec![
            ("content-type", "application/json"),
            ("mcp-protocol-version", VERSION),
            ("mcp-method", "tools/call"),
            ("mcp-name", tool),
        ];
        headers.extend(more);
        let params = json!({"name": tool, "arguments": arguments});
        wire.send("POST", &headers, &request("tools/call", params).to_string())
    };
    // Nobody has listed it yet: every such header is unheard of, and goes on.
    let early = call(&wire, "mirrored", &json!({"region": "eu"}), &[("mcp-param-region", "us")])?;
    assert_eq!(early.status, 200, "{early:?}");
    let list = wire.message(Era::Modern, "", &request("tools/list", json!({})))?;
    let (tools, hints) = (list.json()["result"]["tools"].clone(), list.json()["result"].clone());
    assert_eq!(tools.as_array().map(Vec::len), Some(1), "{list:?}");
    // What is hidden from one is hidden in what others keep, and ends with the grant (15 minutes).
    assert_eq!(hints["cacheScope"], "private");
    let ttl = hints["ttlMs"].as_u64().unwrap_or_default();
    assert!(ttl > 0 && ttl <= 15 * 60 * 1000, "{ttl}");

    let zurich = "=?base64?WsO8cmljaA==?=";
    for restarted in [false, true] {
        if restarted {
            server.restart()?;
            wire = Wire::new(&server, &idp, "mirrors")?;
        }
        let rows: &[(Value, &[(&str, &str)], u16)] = &[
            (json!({"region": "eu"}), &[("mcp-param-region", "eu")], 200),
            (json!({"region": "Zürich"}), &[("mcp-param-region", zurich)], 200),
            (json!({"n": 7}), &[("mcp-param-n", "7.0")], 200),
            (json!({"region": null}), &[], 200),
            (json!({}), &[("mcp-param-unheard", "4111 1111 1111 1111")], 200),
            (json!({"region": "eu"}), &[], 400),
            (json!({"region": "eu"}), &[("mcp-param-region", "us")], 400),
            (json!({"region": "eu"}), &[("mcp-param-region", "=?base64?!?=")], 400),
            (json!({"region": "eu", "n": 7}), &[("mcp-param-region", "eu")], 400),
            (json!({}), &[("mcp-param-region", "eu")], 400),
        ];
        for (number, (arguments, given, status)) in rows.iter().enumerate() {
            let mut arguments = arguments.clone();
            let mark = format!("row-{restarted}-{number}-");
            arguments["mark"] = json!(mark);
            let answer = call(&wire, "mirrored", &arguments, given)?;
            assert_eq!(answer.status, *status, "{arguments} {given:?}: {answer:?}");
            let reached = REACHED.lock().unwrap().iter().find(|one| one.contains(&mark)).cloned();
            assert_eq!(reached.is_some(), *status == 200, "{arguments} {given:?}");
            if *status == 400 {
                assert_eq!(answer.json()["error"]["code"], -32020, "{answer:?}");
                assert_eq!(answer.json()["id"], 1, "{answer:?}");
            }
            for (name, value) in given.iter().filter(|_| *status == 200) {
                let head = format!("{name}: {value}");
                assert!(reached.as_ref().is_some_and(|one| one.contains(&head)), "{head}");
            }
        }
        // Of a hidden tool not even its headers are told.
        let there = call(&wire, SECRET, &json!({"region": "eu"}), &[])?;
        let nowhere = call(&wire, "payroll_nowhere", &json!({"region": "eu"}), &[])?;
        assert_eq!(bytes(&there), bytes(&nowhere));
    }
    // What goes on is on record, masked.
    server.holds_none_of(["4111 1111 1111 1111"]);
    server.verify()?.exits(0);
    Ok(())
}

/// Answers with the status and the error that the tool's name spells.
fn fails(_head: &str, body: &str) -> String {
    let asked: Value = serde_json::from_str(body).unwrap_or_default();
    let name = asked["params"]["name"].as_str().unwrap_or_default();
    let (status, code) = name.split_once(' ').unwrap_or(("200", "-1"));
    if code == "none" {
        return whole(&format!("HTTP/1.1 {status} X"), "");
    }
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json");
    whole(&head, &error_of(code))
}

fn error_of(code: &str) -> String {
    // Not as any JSON library writes it, so that only the bytes themselves are the same.
    format!(
        r#"{{ "error":{{"data":{{"supported":["2026-07-28"],"n":1.50,"x":9007199254740993}},"code":{code} ,"message":"n\u006f"}},"id":1,"jsonrpc":"2.0" }}"#
    )
}

fn errors_pass_as_they_are(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp).http("fails", &upstream(fails)?).start()?;
    let wire = Wire::new(&server, &idp, "fails")?;
    for (status, code) in [
        (404, "-32601"),
        (400, "-32602"),
        (400, "-32600"),
        (400, "-32020"),
        (400, "-32021"),
        (400, "-32022"),
        (200, "-32002"),
        (200, "-32042"),
        (200, "-32603"),
        (200, "7"),
        (500, "-32603"),
        (429, "-32000"),
    ] {
        let params = json!({"name": format!("{status} {code}"), "arguments": {}});
        let answer = wire.message(Era::Modern, "", &request("tools/call", params))?;
        assert_eq!((answer.status, answer.body), (status, error_of(code)));
    }
    for status in [404, 405] {
        let params = json!({"name": format!("{status} none"), "arguments": {}});
        let answer = wire.message(Era::Modern, "", &request("tools/call", params))?;
        assert_eq!((answer.status, &*answer.body), (status, ""));
    }
    server.verify()?.exits(0);
    Ok(())
}
