//! One login, many processes: they renew it once, and one that dies while it does so leaves a login
//! that works or one that has ended, never half of one.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::site::files;
use crate::support::{Person, Proc, Quirky, Server, Site, World, http, until};

crate::stories![
    thirty_two_connections_on_one_expired_token,
    killed_before_the_provider_answered,
    killed_after_the_provider_answered,
    killed_anywhere,
    killed_while_others_wait,
];

const MANY: usize = 32;

/// oidc-provider revokes the whole grant when a refresh token is used twice.
fn thirty_two_connections_on_one_expired_token(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp).http("ledger", &ledger.url).start()?;
    idp.set("id-seconds/2")?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    idp.set("id-seconds/3600")?;
    std::thread::sleep(Duration::from_secs(2));
    let mut connections: Vec<Proc> = (0..MANY)
        .map(|_| alice.start(&["connect", "ledger", "--json"]))
        .collect::<Result<_, _>>()?;
    let mut told = vec![];
    for connection in &mut connections {
        let line = connection.first_json_line()?;
        let answer = initialize(line["url"].as_str().unwrap_or_default())?;
        assert_eq!(answer["result"]["protocolVersion"], "2025-06-18", "{answer}");
        told.push(line["session"].as_str().unwrap_or_default().to_owned());
    }
    told.sort();
    told.dedup();
    assert_eq!(told.len(), MANY, "{told:?}");
    let stats = idp.stats()?;
    assert_eq!((&stats["refreshed"], &stats["revoked"]), (&json!(1), &json!(0)), "{stats}");
    let mut sessions: Vec<String> = server
        .leaves_of("grant_issued")
        .iter()
        .map(|leaf| leaf["session"].as_str().unwrap_or_default().to_owned())
        .collect();
    sessions.sort();
    sessions.dedup();
    assert_eq!(sessions, told);
    alice.run(&["ls"])?.exits(0);
    Ok(())
}

fn killed_before_the_provider_answered(world: &World) -> anyhow::Result<()> {
    let (quirky, server, alice) = expiring(world)?;
    quirky.set("plain", &json!({ "hold": "before" }))?;
    let mut dying = alice.start(&["ls"])?;
    waits(&quirky)?;
    dying.kill();
    // The provider takes it all the same: the connection is gone, the request is not.
    quirky.go("plain")?;
    until("the provider is done", || Ok((quirky.seen("plain")?["refreshed"] == 1).then_some(())))?;
    ended_cleanly(&quirky, &server, &alice)
}

fn killed_after_the_provider_answered(world: &World) -> anyhow::Result<()> {
    let (quirky, server, alice) = expiring(world)?;
    quirky.set("plain", &json!({ "hold": "after" }))?;
    let mut dying = alice.start(&["ls"])?;
    waits(&quirky)?;
    dying.kill();
    quirky.go("plain")?;
    ended_cleanly(&quirky, &server, &alice)
}

/// The new refresh token is lost, and nobody but the user can help: everything says so.
fn ended_cleanly(quirky: &Quirky, server: &Server, alice: &Person) -> anyhow::Result<()> {
    readable(alice)?;
    alice.run(&["ls"])?.exits(4).says("mcpx login");
    assert_eq!(quirky.seen("plain")?["replayed"], 1, "{}", quirky.seen("plain")?);
    alice.run(&["status"])?;
    log_in(alice, server)?;
    alice.run(&["ls"])?.exits(0);
    Ok(())
}

/// `kill -9` at every moment of a command that renews the login and writes it down.
fn killed_anywhere(world: &World) -> anyhow::Result<()> {
    let (quirky, server, alice) = expiring(world)?;
    let (mut went_on, mut ended) = (0, 0);
    for round in 0..24_u64 {
        let before = quirky.seen("plain")?["refreshed"].clone();
        let mut dying = alice.start(&["ls"])?;
        // The first ones die early; the later ones around the moment when the provider answers.
        if round % 3 == 0 {
            std::thread::sleep(Duration::from_millis(round * 6));
        } else {
            until("it is renewed", || {
                Ok((quirky.seen("plain")?["refreshed"] != before).then_some(()))
            })?;
            std::thread::sleep(Duration::from_micros(round * 150));
        }
        dying.kill();
        readable(&alice)?;
        let next = alice.run(&["ls"])?;
        match next.code {
            0 => went_on += 1,
            4 => {
                next.says("mcpx login");
                ended += 1;
                log_in(&alice, &server)?;
            }
            _ => panic!("neither a login nor none: {next:#?}"),
        }
        // The next one to write tokens has swept up what the dead one had begun to.
        let tmp = |file: &std::path::PathBuf| file.to_string_lossy().contains("tokens.");
        assert!(!files(alice.home()).iter().any(tmp), "{:?}", files(alice.home()));
        std::thread::sleep(Duration::from_millis(700));
    }
    assert!(went_on > 0, "every login ended: {ended}");
    Ok(())
}

fn killed_while_others_wait(world: &World) -> anyhow::Result<()> {
    let (quirky, _server, alice) = expiring(world)?;
    // The one that holds the lock dies before it has asked; the others take over.
    quirky.set("plain", &json!({ "down": true, "life": 3600 }))?;
    let mut dying = alice.start(&["ls"])?;
    std::thread::sleep(Duration::from_millis(20));
    dying.kill();
    quirky.set("plain", &json!({ "down": false }))?;
    let others = (0..6).map(|_| alice.start(&["ls"])).collect::<Result<Vec<_>, _>>()?;
    for other in others {
        other.finish()?.exits(0);
    }
    let seen = quirky.seen("plain")?;
    assert_eq!((&seen["refreshed"], &seen["replayed"]), (&json!(1), &json!(0)), "{seen}");
    Ok(())
}

/// Somebody whose identity token has expired, at a provider whose refresh tokens are good once.
fn expiring<'a>(world: &'a World) -> anyhow::Result<(Quirky, Server<'a>, Person<'a>)> {
    let quirky = Quirky::start(world)?;
    quirky.set("plain", &json!({ "life": 1 }))?;
    let server = Site::new(world, &quirky.plain).http("ledger", "http://127.0.0.1:9/mcp").start()?;
    let alice = Person::new(world, "alice")?;
    log_in(&alice, &server)?;
    std::thread::sleep(Duration::from_secs(1));
    Ok((quirky, server, alice))
}

fn log_in(person: &Person, server: &Server) -> anyhow::Result<()> {
    let flags = ["--device", "--no-browser", "--insecure-file"];
    let arguments = [&["login", "--server", &server.url], &flags[..]].concat();
    person.run(&arguments)?.exits(0);
    Ok(())
}

fn waits(quirky: &Quirky) -> anyhow::Result<()> {
    until("a refresh is held back", || Ok((quirky.seen("plain")?["waiting"] == 1).then_some(())))
}

fn initialize(url: &str) -> anyhow::Result<Value> {
    let params = json!({
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": { "name": "story", "version": "1" },
    });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
    let request = http::client().post(url).header("content-type", "application/json");
    let request = request.header("accept", "application/json, text/event-stream");
    Ok(http::send(request.body(message.to_string()))?.json())
}

/// Whatever a killed process left behind can be read whole.
fn readable(person: &Person) -> anyhow::Result<()> {
    for file in ["login.json", "tokens"] {
        let text = std::fs::read_to_string(person.home().join(file))?;
        serde_json::from_str::<Value>(&text)?;
    }
    Ok(())
}
