//! Every way of a client to the gateway with every way of the gateway to a server, in both eras:
//! one real client walks through them, and everything it does arrives, comes back, and is on
//! record.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::hostile;
use crate::support::http;
use crate::support::proc::Proc;
use crate::support::relay::Relay;
use crate::support::site::Server;
use crate::support::{Idp, Person, Raw, Site, Target, World, raw, until};

crate::stories![
    from_a_local_port,
    from_stdio,
    from_the_gateways_own_endpoint,
    legacy_clients_that_hang_up_cancel_nothing,
    an_event_stream_that_breaks,
    an_event_stream_that_points_elsewhere,
];

/// What a client gets to a server: its name at the gateway, how the client begins, and which
/// protocol they agree on.
struct Pair {
    connection: &'static str,
    mode: &'static str,
    protocol: &'static str,
}

const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

const PAIRS: &[Pair] = &[
    Pair { connection: "http", mode: "legacy", protocol: LEGACY },
    Pair { connection: "http", mode: "auto", protocol: MODERN },
    Pair { connection: "stdio", mode: "legacy", protocol: LEGACY },
    Pair { connection: "stdio", mode: "auto", protocol: MODERN },
    Pair { connection: "sse", mode: "legacy", protocol: LEGACY },
    // This SDK's server speaks the modern era over a transport that has none: its own choice.
    Pair { connection: "sse", mode: "auto", protocol: MODERN },
    // A server of the legacy era says so, whatever the client would like.
    Pair { connection: "everything", mode: "auto", protocol: LEGACY },
    Pair { connection: "everything", mode: "legacy", protocol: LEGACY },
];

fn from_a_local_port(world: &World) -> anyhow::Result<()> {
    walk_all(world, |alice, _server, _idp, connection| {
        let connected = alice.connect(connection)?;
        Ok((connected.target(), Box::new(connected)))
    })
}

fn from_stdio(world: &World) -> anyhow::Result<()> {
    walk_all(world, |alice, _server, _idp, connection| Ok((alice.stdio(connection), Box::new(()))))
}

/// With a grant token and a proof of its own in every request (RFC 9449), and no `mcpx` beside the
/// client.
fn from_the_gateways_own_endpoint(world: &World) -> anyhow::Result<()> {
    walk_all(world, |_alice, server, idp, connection| {
        let relay = relay(server, idp, connection)?;
        Ok((Target::Url(relay.url.clone()), Box::new(relay)))
    })
}

/// Where a client finds a connection, and what must be held for that long.
type Reached = (Target, Box<dyn std::any::Any>);

fn walk_all(
    world: &World,
    reach: impl Fn(&Person, &Server, &Idp, &str) -> anyhow::Result<Reached>,
) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let (http, sse, everything) = (world.fixture()?, world.fixture_sse()?, world.everything_sse()?);
    let server = Site::new(world, &idp)
        .http("http", &http.url)
        .sse("sse", &sse.url)
        .sse("everything", &everything.url)
        .stdio("stdio", &world.fixture_stdio()?)
        .start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    for pair in PAIRS {
        let before = server.leaves_of("call").len();
        let (target, held) = reach(&alice, &server, &idp, pair.connection)?;
        let name = format!("{} {}", pair.connection, pair.mode);
        if pair.connection == "everything" {
            everything_arrives(world, &alice, &target, pair, &name)?;
        } else {
            all_arrives(world, &alice, &target, pair, &name)?;
        }
        drop(held);
        let calls = server.leaves_of("call").split_off(before);
        all_is_on_record(&calls, pair, &name);
    }
    every_request_has_an_end(&server)?;
    server.verify()?.exits(0);
    Ok(())
}

fn all_arrives(
    world: &World,
    alice: &Person,
    target: &Target,
    pair: &Pair,
    name: &str,
) -> anyhow::Result<()> {
    let file = world.dir().join(format!("{}-{}", pair.connection, pair.mode));
    drop(fs::remove_file(&file));
    let modern = pair.protocol == MODERN;
    let asks = if modern { "test_input_required_result_sampling" } else { "test_sampling" };
    let steps = json!([
        {"tool": "test_simple_text"},
        {"tool": "test_tool_with_progress"},
        {"tool": asks, "arguments": {"prompt": "hi"}},
        {"tool": "test_error_handling"},
        {"tool": "no_such_tool"},
        // In the modern era these are repeated as headers, which the server compares.
        {"tool": "test_mirrored_headers", "arguments": {"region": "Zürich", "priority": 7}},
        {"tool": "test_slow_in_file", "arguments": {"file": &file}, "cancel": &file},
        {"tool": "test_simple_text"},
    ]);
    let seen = walk(world, alice, target, pair.mode, &steps)?.finish()?.exits(0);
    let seen: Value = serde_json::from_str(seen.stdout.trim())?;
    assert_eq!(seen["protocol"], pair.protocol, "{name}: {seen:#}");
    let tools = seen["tools"].as_array().map_or(0, Vec::len);
    assert!(tools > 25, "{name}: {seen:#}");
    let [simple, progress, asked, failed, unknown, mirrored, cancelled, again] =
        seen["steps"].as_array().map(Vec::as_slice).unwrap_or_default()
    else {
        panic!("{name}: {seen:#}")
    };
    for simple in [simple, again] {
        assert_eq!(text(simple), "This is a simple text response for testing.", "{name}: {seen:#}");
    }
    let steps: Vec<_> = [0, 50, 100].map(|done| json!([f64::from(done), 100.0])).into();
    assert_eq!(progress["progress"], json!(steps), "{name}: {seen:#}");
    assert_eq!(asked["asked"], json!(["sampling"]), "{name}: {seen:#}");
    assert!(text(asked).contains("1 message sampled"), "{name}: {seen:#}");
    assert_eq!(failed["result"]["isError"], true, "{name}: {seen:#}");
    assert_eq!(unknown["error"]["code"], -32602, "{name}: {seen:#}");
    assert_eq!(text(mirrored), r#"{"priority": 7, "region": "Z\u00fcrich"}"#, "{name}: {seen:#}");
    assert_eq!(cancelled["cancelled"], true, "{name}: {seen:#}");
    until("the server is told", || Ok((says(&file) == "cancelled").then_some(())))?;
    Ok(())
}

fn everything_arrives(
    world: &World,
    alice: &Person,
    target: &Target,
    pair: &Pair,
    name: &str,
) -> anyhow::Result<()> {
    let steps = json!([
        {"tool": "echo", "arguments": {"message": "hi"}},
        {"tool": "trigger-long-running-operation", "arguments": {"duration": 0.2, "steps": 2}},
        {"tool": "trigger-sampling-request", "arguments": {"prompt": "hi"}},
        {"tool": "trigger-elicitation-request"},
        {"tool": "no_such_tool"},
    ]);
    let seen = walk(world, alice, target, pair.mode, &steps)?.finish()?.exits(0);
    let seen: Value = serde_json::from_str(seen.stdout.trim())?;
    assert_eq!(seen["protocol"], pair.protocol, "{name}: {seen:#}");
    let [echo, progress, sampled, elicited, unknown] =
        seen["steps"].as_array().map(Vec::as_slice).unwrap_or_default()
    else {
        panic!("{name}: {seen:#}")
    };
    assert_eq!(text(echo), "Echo: hi", "{name}: {seen:#}");
    assert_eq!(progress["progress"], json!([[1.0, 2.0], [2.0, 2.0]]), "{name}: {seen:#}");
    assert!(text(sampled).contains("1 message sampled"), "{name}: {seen:#}");
    assert_eq!(elicited["asked"], json!(["elicitation"]), "{name}: {seen:#}");
    assert_eq!(unknown["result"]["isError"], true, "{name}: {seen:#}");
    Ok(())
}

/// Fails unless every call of a walk is on record as one that was forwarded.
#[track_caller]
fn all_is_on_record(calls: &[Value], pair: &Pair, name: &str) {
    let told: Vec<_> =
        calls.iter().map(|leaf| format!("{} {}", leaf["direction"], leaf["method"])).collect();
    let count = |method: &str, direction: &str| {
        let is = |leaf: &&Value| {
            leaf["connection"] == pair.connection
                && leaf["method"] == method
                && leaf["direction"] == direction
                && leaf["forwarded"] == true
        };
        calls.iter().filter(is).count()
    };
    let (to_server, to_client) = ("client_to_server", "server_to_client");
    assert!(count("tools/list", to_server) >= 1, "{name}: {told:#?}");
    let modern = pair.protocol == MODERN;
    let (expected, progress) = match (pair.connection, modern) {
        ("everything", _) => (5, 2),
        // What a server of the modern era needs to know, it asks in a result, and is called again.
        (_, true) => (9, 3),
        (_, false) => (8, 3),
    };
    assert_eq!(count("tools/call", to_server), expected, "{name}: {told:#?}");
    assert_eq!(count("notifications/progress", to_client), progress, "{name}: {told:#?}");
    let asked = count("sampling/createMessage", to_client);
    assert_eq!(asked, usize::from(!modern), "{name}: {told:#?}");
    if pair.connection != "everything" {
        // In the modern era to cancel is to hang up, which the end of the call records.
        let cancelled = count("notifications/cancelled", to_server);
        assert_eq!(cancelled, usize::from(!modern), "{name}: {told:#?}");
    }
}

fn every_request_has_an_end(server: &Server) -> anyhow::Result<()> {
    until("every request has an end on record", || {
        let leaves = server.leaves();
        let ends: std::collections::BTreeSet<_> = leaves
            .iter()
            .filter(|leaf| leaf["kind"] == "response" && leaf["last"] == true)
            .map(|leaf| leaf["call"].to_string())
            .collect();
        let open = leaves.iter().filter(|leaf| {
            leaf["kind"] == "call"
                && leaf["shape"] == "request"
                && leaf["direction"] == "client_to_server"
                && leaf["forwarded"] == true
                && !ends.contains(&leaf["call"].to_string())
        });
        Ok((open.count() == 0).then_some(()))
    })
}

/// In the legacy era whoever closes a connection has cancelled nothing: the server goes on.
fn legacy_clients_that_hang_up_cancel_nothing(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let sse = world.fixture_sse()?;
    let server = Site::new(world, &idp)
        .stdio("stdio", &world.fixture_stdio()?)
        .sse("sse", &sse.url)
        .start()?;
    for connection in ["stdio", "sse"] {
        let relay = relay(&server, &idp, connection)?;
        let hello = json!({"protocolVersion": LEGACY, "capabilities": {},
            "clientInfo": {"name": "story", "version": "1"}});
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello});
        let answer = http::send(post(&relay.url, None).body(hello.to_string()))?;
        let session = answer.header("mcp-session-id").to_owned();
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        http::send(post(&relay.url, Some(&session)).body(ready.to_string()))?;

        let file = world.dir().join(connection);
        let call = |id: u8, tool: &str| {
            let params = json!({"name": tool, "arguments": {"file": &file}});
            json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
        };
        let slow = post(&relay.url, Some(&session)).body(call(1, "test_slow_in_file").to_string());
        let waiting = http::runtime().spawn(async { slow.send().await });
        until("the call is under way", || Ok((says(&file) == "begun").then_some(())))?;
        waiting.abort();
        // Whatever the server would be told of it, it is told before this.
        let next = post(&relay.url, Some(&session)).body(call(2, "test_simple_text").to_string());
        let next = http::send(next)?;
        assert_eq!(next.status, 200, "{connection}: {next:#?}");
        fs::write(&file, "end")?;
        until("the call ends by itself", || Ok((says(&file) == "ended").then_some(())))?;
    }
    every_request_has_an_end(&server)?;
    let cancelled = |leaf: &Value| leaf["method"] == "notifications/cancelled";
    assert!(!server.leaves_of("call").iter().any(cancelled));
    server.verify()?.exits(0);
    Ok(())
}

fn an_event_stream_that_breaks(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let mut sse = world.fixture_sse()?;
    let server = Site::new(world, &idp).sse("sse", &sse.url).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let connected = alice.connect("sse")?;
    let file = world.dir().join("slow");
    let steps = json!([{"tool": "test_slow_in_file", "arguments": {"file": &file}}]);
    let walking = walk(world, &alice, &connected.target(), "legacy", &steps)?;
    until("the call is under way", || Ok((says(&file) == "begun").then_some(())))?;
    sse.kill();
    let seen = walking.finish()?;
    assert!(seen.stdout.contains("its event stream"), "{seen:#?}");
    let failed = |leaf: &Value| leaf["outcome"] == "upstream_failed" && leaf["last"] == true;
    until("the end is on record", || {
        Ok(server.leaves_of("response").iter().any(failed).then_some(()))
    })?;
    every_request_has_an_end(&server)?;
    server.verify()?.exits(0);
    Ok(())
}

/// The credential goes to the configured server: one that wants messages elsewhere gets none.
fn an_event_stream_that_points_elsewhere(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let begin = |_: &str, _: &str| {
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
         event: endpoint\ndata: http://127.0.0.1:9/078-05-1120\n\n"
            .to_owned()
    };
    let url = hostile::upstream(begin)?;
    let server = Site::new(world, &idp).sse("elsewhere", &url).start()?;
    let resource = server.resource("elsewhere");
    let who = Raw::new()?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let token = who.token(&server, &id_token, &resource)?;
    let answer = who.post(&resource, &token, &raw::call("test_simple_text", &json!({})))?;
    assert_eq!(answer.status, 502, "{answer:#?}");
    assert_eq!(
        answer.json()["error"]["data"]["mcpx"]["code"],
        "upstream_foreign_endpoint",
        "{answer:#?}"
    );
    let failed = |leaf: &Value| leaf["outcome"] == "upstream_failed";
    assert!(server.leaves_of("response").iter().any(failed));
    server.holds_none_of(["078-05-1120"]);
    server.verify()?.exits(0);
    Ok(())
}

/// Starts the client that takes steps.
fn walk(
    world: &World,
    alice: &Person,
    target: &Target,
    mode: &str,
    steps: &Value,
) -> anyhow::Result<Proc> {
    let mut command = world.command(world.parts().python()?)?;
    command.env("MCPX_HOME", alice.home());
    command.arg(world.parts().script("walk.py")).args([mode, &steps.to_string()]);
    match target {
        Target::Url(url) => command.arg(url),
        Target::Command(argv) => command.arg("--").args(argv),
    };
    Proc::start(world, &format!("walk {mode}"), command)
}

/// A way to a connection's endpoint for clients without proofs.
fn relay(server: &Server, idp: &Idp, connection: &str) -> anyhow::Result<Relay> {
    let raw = Raw::new()?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let resource = server.resource(connection);
    let token = raw.token(server, &id_token, &resource)?;
    Relay::start(raw, token, resource)
}

fn post(url: &str, session: Option<&str>) -> reqwest::RequestBuilder {
    let request = http::client()
        .post(url)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream");
    match session {
        Some(session) => request.header("mcp-session-id", session),
        None => request,
    }
}

fn text(step: &Value) -> &str {
    step["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

fn says(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}
