//! What policy hides is not there, whatever is asked; and what the gateway does with answers,
//! headers and errors beside deciding changes nothing else.

use std::sync::Mutex;

use mcpx::mcp::Era;
use serde_json::{Value, json};

use crate::hostile::{OK_JSON, OK_STREAM, upstream, whole};
use crate::mediation::{CONNECT, VERSION, Wire};
use crate::support::{Site, World, http};

crate::stories![
    what_is_hidden_is_not_there,
    lists_come_page_by_page,
    headers_that_repeat_arguments,
    errors_pass_as_they_are,
];

/// What reached the servers, by head and body.
static REACHED: Mutex<Vec<String>> = Mutex::new(Vec::new());

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

/// What is asked about something, by its name.
type Asked = (&'static str, fn(&str) -> Value);
/// Arguments, the headers that repeat them, and the status that they get.
type Repeats<'a> = (Value, &'a [(&'a str, &'a str)], u16);

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
    let asked: [Asked; 9] = [
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
        let rows: &[Repeats] = &[
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
