//! Batches of 2025-03-26: every message of one is judged, recorded and answered by itself, and no
//! other version has them.

use std::io::Write as _;

use serde_json::{Value, json};

use super::upstream::{self, Upstream};
use super::{Direct, Line, Way as _, is_refusal};
use crate::support::{Person, Raw, Site, World, http};

/// Begins a legacy session of a version, and gives its sealed id.
fn initialize(way: &Direct, version: &str) -> anyhow::Result<String> {
    let params = json!({
        "protocolVersion": version,
        "capabilities": {},
        "clientInfo": {"name": "story", "version": "1"},
    });
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    let answer = way.post(&[], body.to_string().as_bytes())?;
    assert_eq!(answer.json()["result"]["protocolVersion"], version, "{answer:?}");
    Ok(answer.header("mcp-session-id").to_owned())
}

/// The messages of an event stream.
fn messages(answer: &http::Answer) -> Vec<Value> {
    let data = answer.body.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| !data.trim().is_empty())
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

const INITIALIZED: &str = r#"[{"jsonrpc":"2.0","method":"notifications/initialized"}]"#;

/// Permitted, denied, and no messages at all.
const MIXED: &str = r#"[
    {"jsonrpc":"2.0","id":1,"method":"ping"},
    {"jsonrpc":"2.0","id":"two","method":"tools/call","params":{"name":"echo","arguments":{"message":"hi"}}},
    {"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"get-sum","arguments":{"a":1,"b":2}}},
    {"jsonrpc":"2.0","id":4,"method":"ping","method":"tools/call"},
    {"jsonrpc":"2.0","id":5,"method":"initialize","params":{"protocolVersion":"2025-03-26"}},
    [], 7,
    {"jsonrpc":"2.0","id":8,"method":"tools/list"}]"#;

fn mixed_is_answered(messages: &[Value]) {
    let of = |id: Value| {
        let found: Vec<_> =
            messages.iter().filter(|message| message.get("id") == Some(&id)).collect();
        assert_eq!(found.len(), 1, "{id}: {messages:#?}");
        found[0]
    };
    assert_eq!(of(json!(1))["result"], json!({}));
    assert_eq!(of(json!("two"))["result"]["content"][0]["text"], "Echo: hi");
    assert_eq!(of(json!(3))["error"]["code"], -31003);
    is_refusal("initialize", &of(json!(5))["error"], "part of a batch", Some("/4"));
    let tools = of(json!(8))["result"]["tools"].as_array().unwrap();
    let named = |name: &str| tools.iter().any(|tool| tool["name"] == name);
    assert!(named("echo") && !named("get-sum"), "{tools:#?}");
    let errors = messages.iter().filter(|message| message["error"].is_object());
    let mut places: Vec<_> =
        errors.filter_map(|error| error["error"]["data"]["mcpx"]["pointer"].as_str()).collect();
    places.sort_unstable();
    assert_eq!(places, ["/3/method", "/4", "/5", "/6"]);
}

pub(super) fn batches_of_clients(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let everything = world.everything()?;
    let forbid = r#"@id("no-sums") forbid(principal, action == Action::"tools/call", resource)
        when { resource == Tool::"http/get-sum" || resource == Tool::"child/get-sum" };"#;
    let server = Site::new(world, &idp)
        .http("http", &everything.url)
        .stdio("child", &world.everything_stdio()?)
        .policy("no-sums.cedar", forbid)
        .start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    for connection in ["http", "child"] {
        let (raw, url) = (Raw::new()?, server.resource(connection));
        let token = raw.token(&server, &id_token, &url)?;
        let way = Direct { raw, token, url };
        let session = initialize(&way, "2025-03-26")?;
        let inside = ("mcp-session-id", session.as_str());
        let told = way.post(&[inside], INITIALIZED.as_bytes())?;
        assert_eq!((told.status, told.body.as_str()), (202, ""), "{connection}");

        let before = server.leaves_of("call").len();
        let refused = server.leaves_of("refused").len();
        let answer = way.post(&[inside], MIXED.as_bytes())?;
        assert_eq!(answer.status, 200, "{connection}: {answer:?}");
        mixed_is_answered(&messages(&answer));
        let calls = server.leaves_of("call").split_off(before);
        let of_client = calls.iter().filter(|leaf| leaf["direction"] == "client_to_server");
        let mut decided: Vec<_> =
            of_client.map(|leaf| format!("{} {}", leaf["method"], leaf["decision"])).collect();
        decided.sort_unstable();
        let expected = [
            r#""ping" "allow""#,
            r#""tools/call" "allow""#,
            r#""tools/call" "deny""#,
            r#""tools/list" "allow""#,
        ];
        assert_eq!(decided, expected, "{connection}");
        assert_eq!(server.leaves_of("refused").len(), refused + 4, "{connection}");

        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let batch = format!("[{ping}]");
        let many = format!("[{}]", vec![ping; 65].join(","));
        let later = initialize(&way, "2025-11-25")?;
        let (later, version) = (("mcp-session-id", later.as_str()), "mcp-protocol-version");
        type Headers<'a> = &'a [(&'a str, &'a str)];
        let rows: &[(&str, Headers<'_>, &str, &str)] = &[
            ("in a session of another version", &[later], &batch, "batches"),
            ("in one that says otherwise", &[later, (version, "2025-03-26")], &batch, "batches"),
            ("with another version", &[inside, (version, "2025-11-25")], &batch, "batches"),
            ("without a session", &[(version, "2025-03-26")], &batch, "batches"),
            ("of too many", &[inside], &many, "at most 64"),
            ("of none", &[inside], "[]", "at least one"),
            ("that ends too early", &[inside], "[{}", "malformed JSON"),
            ("with text behind it", &[inside], &format!("{batch}{batch}"), "malformed JSON"),
        ];
        for (what, headers, body, says) in rows {
            let answer = way.post(headers, body.as_bytes())?;
            assert_eq!(answer.status, 400, "{connection}: a batch {what}: {answer:?}");
            is_refusal(what, &answer.json()["error"], says, None);
            let good = way.post(&[headers[0]], ping.as_bytes())?;
            let lost = headers[0].0 == version;
            assert!(lost || good.json()["result"] == json!({}), "after a batch {what}: {good:?}");
        }
        let two = way.post(&[inside, later], ping.as_bytes())?;
        assert_eq!(two.status, 404, "{connection}: two sessions at once: {two:?}");
        let one = way.post(&[inside], batch.as_bytes())?;
        assert_eq!(messages(&one), [json!({"jsonrpc": "2.0", "id": 1, "result": {}})]);
    }
    // On stdio each message of a batch is answered on a line of its own.
    let mut line = Line::start(world, &alice.stdio("child"))?;
    let hello = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"VERSION","capabilities":{},"clientInfo":{"name":"story","version":"1"}}}"#;
    let refused = line.send(MIXED.replace('\n', " ").as_bytes())?;
    is_refusal("before the handshake", &refused.unwrap_or_default()["error"], "batches", None);
    let settled = line.send(hello.replace("VERSION", "2025-03-26").as_bytes())?;
    assert_eq!(settled.unwrap_or_default()["result"]["protocolVersion"], "2025-03-26");
    line.input.write_all(format!("{INITIALIZED}\n{}\n", MIXED.replace('\n', " ")).as_bytes())?;
    let mut answers = Vec::new();
    while answers.iter().filter(|answer: &&Value| answer.get("id").is_some()).count() < 8 {
        answers.push(line.next()?);
    }
    mixed_is_answered(&answers);
    server.verify()?.exits(0);
    Ok(())
}

pub(super) fn batches_of_servers(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let upstream = Upstream::start(upstream::batches)?;
    let hex: String = upstream::BATCH.bytes().map(|byte| format!("{byte:02x}")).collect();
    let file = world.write("parrot.json", &json!({"x": hex}).to_string())?;
    let parrot = world.parts().script("parrot.py").display().to_string();
    let command =
        [world.parts().python()?.display().to_string(), parrot, file.display().to_string()];
    let server =
        Site::new(world, &idp).http("event", &upstream.url).stdio("line", &command).start()?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    for connection in ["event", "line"] {
        let (raw, url) = (Raw::new()?, server.resource(connection));
        let token = raw.token(&server, &id_token, &url)?;
        let way = Direct { raw, token, url };
        for (version, taken) in [("2025-03-26", true), ("2025-11-25", false)] {
            let session = initialize(&way, version)?;
            let inside = ("mcp-session-id", session.as_str());
            let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#;
            let before = server.leaves_of("call").len();
            let answer = way.post(&[inside], call.as_bytes())?;
            assert!(!answer.body.contains("078-05-1120"), "{connection} {version}: {answer:?}");
            if taken {
                let messages = messages(&answer);
                let methods: Vec<_> = messages.iter().map(|m| &m["method"]).collect();
                assert_eq!(methods, [&json!("notifications/message"), &Value::Null], "{answer:?}");
                assert!(messages[1]["result"]["text"].is_string(), "{answer:?}");
                let own = server.leaves_of("call").split_off(before);
                assert!(own.iter().any(|l| l["direction"] == "server_to_client"), "{own:#?}");
            } else {
                let what = format!("{connection} {version}");
                is_refusal(&what, &answer.json()["error"], "batches", None);
            }
            if connection == "event" {
                // A whole body answers one message, in every version.
                let ping = way.post(&[inside], br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)?;
                is_refusal("a body", &ping.json()["error"], "batches", None);
            }
        }
    }
    server.verify()?.exits(0);
    Ok(())
}
