//! The official SDKs' OAuth clients, and `mcp-remote`, log in at a connection of which they know the
//! URL and nothing else.

use std::time::Duration;

use serde_json::{Value, json};

use super::{SCOPED, code};
use crate::support::oauth::{self, OAuthClient, Sdk, bearer, call, wait};
use crate::support::{Person, Proc, Site, World, raw};

crate::stories![
    the_python_sdk_logs_in,
    the_python_sdk_logs_in_with_the_legacy_protocol,
    the_typescript_sdk_1_logs_in,
    the_typescript_sdk_2_logs_in,
    the_typescript_sdk_2_logs_in_with_a_key_of_its_own,
    clients_without_registration_log_in,
    mcp_remote_logs_in,
];

fn the_python_sdk_logs_in(world: &World) -> anyhow::Result<()> {
    logs_in_and_works(world, Sdk::Python, "2026-07-28")
}

fn the_python_sdk_logs_in_with_the_legacy_protocol(world: &World) -> anyhow::Result<()> {
    logs_in_and_works(world, Sdk::PythonLegacy, "2025-11-25")
}

fn the_typescript_sdk_1_logs_in(world: &World) -> anyhow::Result<()> {
    logs_in_and_works(world, Sdk::TypeScript1, "2025-11-25")
}

fn the_typescript_sdk_2_logs_in(world: &World) -> anyhow::Result<()> {
    logs_in_and_works(world, Sdk::TypeScript2, "2026-07-28")
}

/// From a URL alone: discovery, registration, login, calls, a refresh, a revocation and a new login.
fn logs_in_and_works(world: &World, sdk: Sdk, protocol: &str) -> anyhow::Result<()> {
    let idp = world.idp()?;
    idp.set("access-seconds/8")?;
    idp.set("auth-time/1")?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .http("ledger", &ledger.url)
        .with("oauth = true")
        .extra(SCOPED)
        .start()?;
    let note = |text: &str| call("note", &json!({"text": text}));
    let mut steps = vec![
        note("first"),
        json!({"step": "tokens"}),
        wait(world, "expired"),
        note("second"),
        json!({"step": "tokens"}),
        wait(world, "revoked"),
        note("third"),
    ];
    let is_typescript = matches!(sdk, Sdk::TypeScript1 | Sdk::TypeScript2);
    if is_typescript {
        let leave = json!({"step": "leave"});
        steps.extend([leave, wait(world, "given up"), json!({"step": "login"})]);
    }
    steps.push(note("fourth"));
    let plan = json!({ "steps": steps });
    let mut client = OAuthClient::start(world, sdk, &server.resource("ledger"), &plan)?;
    let address = client.log_in("carol")?;
    let asked = reqwest::Url::parse(&address)?;
    let asked: std::collections::BTreeMap<_, _> = asked.query_pairs().into_owned().collect();
    assert_eq!(asked["resource"], server.resource("ledger"));
    assert_eq!((&*asked["code_challenge_method"], &*asked["response_type"]), ("S256", "code"));
    assert!(asked["scope"].starts_with("mcp:ledger mcp"), "{asked:?}");

    let connected = client.seen()?;
    assert_eq!(connected["protocol"], protocol);
    assert!(connected["tools"].as_array().unwrap().contains(&json!("note")), "{connected}");
    assert_eq!(client.seen()?["content"][0]["text"], "noted: first");
    let tokens = client.seen()?;
    let given = tokens["given"].as_u64();
    let newest = tokens["newest"].as_str().unwrap_or_default().to_owned();

    // The token runs out; the client refreshes it by itself, and goes on in the same session.
    std::thread::sleep(Duration::from_secs(9));
    world.write("expired", "")?;
    client.seen()?;
    assert_eq!(client.seen()?["content"][0]["text"], "noted: second");
    let tokens = client.seen()?;
    assert!(tokens["given"].as_u64() > given, "nothing was refreshed: {tokens}");
    assert_ne!(tokens["newest"], newest.as_str());
    assert_eq!(client.pages(), 1, "somebody had to log in again");
    let issued = server.leaves_of("grant_issued");
    let sessions: Vec<_> = issued.iter().map(|leaf| leaf["session"].clone()).collect();
    assert_eq!(sessions.len(), 1, "{issued:?}");
    assert!(!server.leaves_of("grant_renewed").is_empty());

    // It is a session like any other.
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let session = sessions.first().and_then(Value::as_str).unwrap_or_default();
    let listed = alice.run(&["sessions"])?.exits(0).stdout;
    assert!(listed.contains(session) && listed.contains("ledger"), "{listed}");
    let replay = alice.run(&["replay", session])?.exits(0).stdout;
    assert!(replay.contains("tools/call") && replay.contains("note"), "{replay}");

    // Revoked, the client is out, however often it refreshes; a person has to log in anew.
    let grant = issued[0]["grant"].as_str().unwrap_or_default();
    std::thread::sleep(Duration::from_millis(1100));
    alice.run(&["revoke", grant])?.exits(0);
    idp.set("access-seconds/600")?;
    std::thread::sleep(Duration::from_millis(1100));
    world.write("revoked", "")?;
    client.seen()?;
    let expected: &[&str] = match sdk {
        // This one sends its user to log in as soon as it is refused.
        Sdk::Python => {
            client.log_in("carol")?;
            client.seen()?;
            client.seen()?;
            &["first", "second", "third", "fourth"]
        }
        // So does this, but its protocol session went with the grant, and it does not begin another.
        Sdk::PythonLegacy => {
            client.log_in("carol")?;
            assert_eq!(code(&client.step()?), "session_unknown");
            assert_eq!(code(&client.step()?), "session_unknown");
            &["first", "second"]
        }
        // These refresh, are refused again, and give up until they are told to log in.
        Sdk::TypeScript1 | Sdk::TypeScript2 => {
            let third = client.step()?;
            assert!(third["error"]["message"].is_string(), "{third}");
            // Its stream may still be sending its user to log in.
            client.seen()?;
            client.forget_pages();
            world.write("given up", "")?;
            client.seen()?;
            client.log_in("carol")?;
            client.seen()?;
            client.seen()?;
            &["first", "second", "fourth"]
        }
    };
    let refused = server.leaves_of("refused");
    assert!(refused.iter().any(|leaf| leaf["code"] == "grant_revoked"), "{refused:?}");
    let executed: Vec<_> = world.executed().iter().map(|call| call["text"].clone()).collect();
    assert_eq!(executed, expected);
    assert_eq!(server.leaves_of("grant_issued").len(), 2, "a login is a grant, a refresh is none");

    server.holds_none_of([&*newest]);
    server.verify()?.exits(0);
    Ok(())
}

fn the_typescript_sdk_2_logs_in_with_a_key_of_its_own(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .http("ledger", &ledger.url)
        .with("oauth = true")
        .extra(SCOPED)
        .start()?;
    let url = server.resource("ledger");
    let plan = json!({"dpop": true, "steps": [
        call("note", &json!({"text": "bound"})), {"step": "tokens"},
    ]});
    let mut client = OAuthClient::start(world, Sdk::TypeScript2, &url, &plan)?;
    client.log_in("carol")?;
    client.seen()?;
    assert_eq!(client.seen()?["content"][0]["text"], "noted: bound");
    let tokens = client.seen()?;
    assert_eq!(tokens["type"], "DPoP", "the provider bound nothing: {tokens}");
    let stolen = tokens["newest"].as_str().unwrap_or_default();
    let answer = bearer(&url, stolen, &raw::call("note", &json!({"text": "stolen"})))?;
    assert_eq!(answer.json()["error"]["data"]["mcpx"]["code"], "token_needs_proof", "{answer:?}");
    let thief = crate::support::Raw::new()?;
    let answer = thief.post(&url, stolen, &raw::call("note", &json!({"text": "stolen"})))?;
    assert_eq!(answer.json()["error"]["data"]["mcpx"]["code"], "dpop_other_key", "{answer:?}");
    assert_eq!(world.executed().len(), 1);
    server.verify()?.exits(0);
    Ok(())
}

fn clients_without_registration_log_in(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .http("ledger", &ledger.url)
        .with("oauth = true")
        .extra(SCOPED)
        .start()?;
    let cimd = "https://client.example/oauth/metadata.json";
    for sdk in [Sdk::Python, Sdk::TypeScript1, Sdk::TypeScript2] {
        let text = format!("{sdk:?}");
        let plan = json!({"cimd": cimd, "steps": [
            call("note", &json!({"text": text})), {"step": "tokens"},
        ]});
        let mut client = OAuthClient::start(world, sdk, &server.resource("ledger"), &plan)?;
        client.log_in("carol")?;
        client.seen()?;
        assert_eq!(client.seen()?["content"][0]["text"], format!("noted: {text}"));
        assert_eq!(client.seen()?["client"], cimd);
    }
    assert_eq!(world.executed().len(), 3);
    server.verify()?.exits(0);
    Ok(())
}

/// A program that many clients run for the sake of its OAuth.
fn mcp_remote_logs_in(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .http("ledger", &ledger.url)
        .with("oauth = true")
        .extra(SCOPED)
        .start()?;
    let parts = world.parts();
    let mut command = world.command(parts.python()?)?;
    command.env("MCP_REMOTE_CONFIG_DIR", world.dir().join("remote"));
    command.arg(parts.script("client.py")).args([
        "legacy",
        "note",
        r#"{"text": "from afar"}"#,
        "--",
    ]);
    command.arg(parts.node()?).arg(parts.package("mcp-remote/dist/proxy.js"));
    command.args([&server.resource("ledger"), "--allow-http", "--transport", "http-only"]);
    let mut client = Proc::start(world, "mcp-remote", command)?;
    let address = client.until("shows where to log in", |client| {
        let said = client.stderr();
        let rest = said.split_once("by visiting:").map_or("", |(_, rest)| rest).trim_start();
        Ok(rest.split_once('\n').map(|(address, _)| address.trim().to_owned()))
    })?;
    oauth::log_in(&address, "carol")?;
    let output = client.finish()?.exits(0);
    assert_eq!(output.json_lines()[0]["result"]["content"][0]["text"], "noted: from afar");
    assert_eq!(server.leaves_of("grant_issued").len(), 1);
    server.verify()?.exits(0);
    Ok(())
}
