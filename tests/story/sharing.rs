//! One login, many processes: they renew it once, and one that dies while it does so leaves a login
//! that works or one that has ended, never half of one.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::site::files;
use crate::support::{Person, Proc, Quirky, Server, Site, Skip, World, debian, http, until};

crate::stories![
    thirty_two_connections_on_one_expired_token,
    killed_before_the_provider_answered,
    killed_after_the_provider_answered,
    killed_at_every_write,
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

/// `kill -9` at each step of writing things down, in order: the issuer's metadata, which is written
/// before the refresh token is used, and the tokens, which come after. `strace` kills at the system
/// call, before it takes effect.
fn killed_at_every_write(world: &World) -> anyhow::Result<()> {
    if !debian::provides("strace -f -e trace=none true", &["strace"]) {
        return Err(Skip("there is no strace that may trace here".to_owned()).into());
    }
    let (quirky, server, alice) = expiring(world)?;
    // Whether the metadata has to be written first; the call, and which one of its kind; whether the
    // login goes on, and how many refreshes there were.
    let table = [
        (true, "fsync", 1, true, 0),
        (true, "rename", 1, true, 0),
        (true, "fsync", 2, true, 0),
        (false, "fsync", 1, false, 1),
        (false, "rename", 1, false, 1),
        (false, "fsync", 2, true, 1),
    ];
    let refreshed = || anyhow::Ok(quirky.seen("plain")?["refreshed"].as_u64().unwrap_or_default());
    let left = || files(alice.home()).iter().filter(|file| is_left(file)).count();
    let mut replayed = 0;
    for (metadata, call, which, goes_on, refreshes) in table {
        if metadata {
            std::fs::remove_file(alice.home().join("issuer.json"))?;
        }
        let before = refreshed()?;
        let mut strace = world.command("strace")?;
        let inject = format!("inject={call}:signal=SIGKILL:when={which}");
        strace.args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={call}"),
            "-e",
            &inject,
        ]);
        strace.arg(crate::support::site::MCPX).arg("ls").env("MCPX_HOME", alice.home());
        let died = Proc::run(world, "strace", strace)?;
        assert_eq!(died.code, 128 + 9, "{call} {which}: {died:#?}");
        readable(&alice)?;
        assert_eq!(refreshed()? - before, refreshes, "{call} {which}");
        // Half a file of tokens may be there, readable for its owner alone, until the next write.
        if !goes_on && call == "rename" {
            assert_eq!(left(), 1, "{:?}", files(alice.home()));
        }
        let next = alice.run(&["ls"])?;
        if goes_on {
            next.exits(0);
        } else {
            next.exits(4).says("mcpx login");
            replayed += 1;
            log_in(&alice, &server)?;
        }
        assert_eq!(quirky.seen("plain")?["replayed"], replayed, "{call} {which}");
        assert_eq!(left(), 0, "{call} {which}: {:?}", files(alice.home()));
        std::thread::sleep(Duration::from_millis(2100));
    }
    Ok(())
}

fn is_left(file: &std::path::Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.starts_with("tokens.")
}

/// `kill -9` at every moment of a command that renews the login and writes it down.
fn killed_anywhere(world: &World) -> anyhow::Result<()> {
    let (quirky, server, alice) = expiring(world)?;
    let (mut went_on, mut ended) = (0, 0);
    for round in 0..12_u64 {
        let before = quirky.seen("plain")?["refreshed"].clone();
        let mut dying = alice.start(&["ls"])?;
        // The first ones die early; the later ones around the moment when the provider answers.
        if round % 3 == 0 {
            std::thread::sleep(Duration::from_millis(round * 6));
        } else {
            // Asked without a pause: the moments that matter are short.
            let patience = Instant::now();
            while quirky.seen("plain")?["refreshed"] == before {
                assert!(patience.elapsed() < Duration::from_secs(60), "nothing was renewed");
            }
            std::thread::sleep(Duration::from_micros(round * 300));
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
        assert!(!files(alice.home()).iter().any(|file| is_left(file)), "{:?}", alice.home());
        std::thread::sleep(Duration::from_millis(2100));
    }
    assert!(went_on > 0, "went on: {went_on}, ended: {ended}");
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
    quirky.set("plain", &json!({ "life": 2 }))?;
    let server =
        Site::new(world, &quirky.plain).http("ledger", "http://127.0.0.1:9/mcp").start()?;
    let alice = Person::new(world, "alice")?;
    log_in(&alice, &server)?;
    std::thread::sleep(Duration::from_secs(2));
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
