//! Real MCP clients by three makers, over a local port and over stdio.

use serde_json::json;

use crate::support::{Client, Person, Raw, Site, World, http, ids, raw, until};

crate::stories![
    clients_over_http,
    clients_over_stdio,
    a_script_under_exec,
    many_clients_at_once,
    a_client_that_leaves,
];

fn clients_over_http(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let everything = world.everything()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .http("everything", &everything.url)
        .http("ledger", &ledger.url)
        .start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let legacy = alice.connect("everything")?;
    let modern = alice.connect("ledger")?;
    for client in Client::ALL {
        let arguments = json!({"message": format!("from {client:?}")});
        let seen = client.call(world, alice.home(), &legacy.target(), "echo", &arguments)?;
        assert_eq!(seen.text(), format!("Echo: from {client:?}"));
        assert!(seen.tools.contains(&"get-sum".to_owned()), "{client:?}: {seen:#?}");
        let arguments = json!({"text": format!("from {client:?}")});
        let seen = client.call(world, alice.home(), &modern.target(), "note", &arguments)?;
        assert_eq!(seen.text(), format!("noted: from {client:?}"));
        assert_eq!(seen.tools, ["note", "slow", "transfer", "customer", "fails"], "{client:?}");
        // The gateway neither upgrades nor downgrades anybody.
        let newest = matches!(client, Client::Python | Client::TypeScript2);
        assert_eq!(seen.protocol.as_deref() == Some("2026-07-28"), newest, "{client:?}");
    }
    every_call_is_replayed(world, &alice)?;
    server.verify()?.exits(0);
    Ok(())
}

fn clients_over_stdio(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let everything = world.everything_stdio()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .stdio("everything", &everything)
        .http("ledger", &ledger.url)
        .start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    for client in Client::ALL {
        let arguments = json!({"message": format!("from {client:?}")});
        let target = alice.stdio("everything");
        let seen = client.call(world, alice.home(), &target, "echo", &arguments)?;
        assert_eq!(seen.text(), format!("Echo: from {client:?}"));
        let arguments = json!({"text": format!("from {client:?}")});
        let target = alice.stdio("ledger");
        let seen = client.call(world, alice.home(), &target, "note", &arguments)?;
        assert_eq!(seen.text(), format!("noted: from {client:?}"));
        assert_eq!(seen.tools, ["note", "slow", "transfer", "customer", "fails"], "{client:?}");
    }
    every_call_is_replayed(world, &alice)?;
    server.verify()?.exits(0);
    Ok(())
}

/// Each client called each server once, with words of its own.
fn every_call_is_replayed(world: &World, alice: &Person) -> anyhow::Result<()> {
    let sessions = alice.run(&["sessions", "--json"])?.exits(0);
    let mut replayed = String::new();
    for session in ids(&sessions.stdout, "ses_") {
        replayed.push_str(&alice.run(&["replay", &session, "--json"])?.exits(0).stdout);
    }
    for client in Client::ALL {
        for words in [format!("Echo: from {client:?}"), format!("noted: from {client:?}")] {
            assert!(replayed.contains(&words), "{words:?} is not in the replay: {replayed}");
        }
    }
    assert_eq!(world.executed().len(), Client::ALL.len());
    Ok(())
}

fn a_script_under_exec(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let python = world.parts().python()?.display().to_string();
    let script = world.parts().script("client.py").display().to_string();
    let job = format!(r#"exec '{python}' '{script}' auto note '{{"text":"job"}}' "$MCPX_URL""#);
    let output = alice.run(&["exec", "ledger", "--", "sh", "-c", &job])?.exits(0);
    assert!(output.stdout.contains("noted: job"), "{output:#?}");
    // The command's own end is passed on, its code and its signal.
    alice.run(&["exec", "ledger", "--", "sh", "-c", "exit 23"])?.exits(23);
    let output = alice.run(&["exec", "ledger", "--", "sh", "-c", "kill -TERM $$"])?;
    assert_eq!(output.code, 128 + 15, "{output:#?}");
    // Nothing in the command's environment opens more than this connection.
    let output = alice.run(&["exec", "ledger", "--", "env"])?.exits(0);
    assert!(!output.stdout.contains("eyJ"), "a token is in the environment: {output:#?}");
    Ok(())
}

fn many_clients_at_once(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let connected = alice.connect("ledger")?;
    let calls = (0..6)
        .map(|number| {
            let arguments = json!({"text": format!("number {number}")});
            let client = if number % 2 == 0 { Client::Python } else { Client::TypeScript1 };
            client.start(world, alice.home(), &connected.target(), "note", &arguments)
        })
        .collect::<Result<Vec<_>, _>>()?;
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.finish()?.text(), format!("noted: number {number}"));
    }
    assert_eq!(world.executed().len(), 6);
    server.verify()?.exits(0);
    Ok(())
}

fn a_client_that_leaves(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .http("http", &ledger.url)
        .stdio("stdio", &world.ledger_stdio()?)
        .start()?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let raw = Raw::new()?;
    for connection in ["http", "stdio"] {
        let url = server.resource(connection);
        let token = raw.token(&server, &id_token, &url)?;
        let body = raw::call("slow", &json!({"text": connection, "seconds": 600}));
        let request = raw.request(&url, &token, &body)?;
        let waiting = http::runtime().spawn(async { request.send().await });
        let reached = |tool: &str| {
            let call = json!({"tool": tool, "text": connection});
            until(tool, || Ok(world.executed().contains(&call).then_some(())))
        };
        reached("slow")?;
        // In the newest protocol whoever closes the connection cancels, and so the server is told.
        // What is answered slowly may be a stream by now, which ends when it is dropped.
        waiting.abort();
        drop(waiting);
        reached("cancelled")?;
        until("the record", || {
            let responses = server.leaves_of("response");
            let ended = responses.iter().filter(|leaf| leaf["outcome"] == "cancelled").count();
            Ok((ended == if connection == "http" { 1 } else { 2 }).then_some(()))
        })?;
    }
    server.verify()?.exits(0);
    Ok(())
}
