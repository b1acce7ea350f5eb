//! Grants that a person agrees to: asked for, given, limited, prolonged, ended.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::streams::{HEAD, step, upstream};
use crate::support::site::ENGINEERS;
use crate::support::sse::Stream;
use crate::support::{
    Client, Idp, Person, Raw, Refused, Server, Site, World, http, ids, raw, until,
};

crate::stories![
    a_lead_lets_somebody_in,
    a_yes_is_for_one_grant,
    connecting_waits_in_place,
    a_lead_says_no,
    nobody_decides_in_time,
    nobody_lets_themselves_in,
    a_grant_ends_and_its_streams_with_it,
    living_longer_needs_another_yes,
    not_for_longer_and_not_before,
    a_standing_grant_is_renewed_in_silence,
    on_a_terminal_the_reason_is_asked_for,
];

/// Whoever wants the ledger needs a lead's yes.
pub const LEADS: &str = r#"
@id("the-ledger-needs-a-lead")
@approval("group:leads")
@max_life("1h")
forbid(principal, action == Action::"connect", resource == Connection::"ledger")
unless { context.approved };
"#;

pub fn site<'a>(world: &'a World, idp: &Idp, url: &str) -> Site<'a> {
    Site::new(world, idp).policy("leads.cedar", LEADS).http("ledger", url)
}

/// An MCP server whose answers are streams without an end.
pub fn endless() -> anyhow::Result<String> {
    upstream(|stream| {
        stream.write_all(HEAD.as_bytes())?;
        stream.write_all(step(0, "").as_bytes())?;
        // Until it is left.
        stream.read(&mut [0; 1]).map(drop)
    })
}

/// The id of what somebody asked for.
#[track_caller]
pub fn asked(output: &crate::support::proc::Output) -> String {
    ids(&output.stdout, "apr_").pop().unwrap_or_else(|| panic!("no approval is named: {output:#?}"))
}

/// Waits until somebody sees a request for approval that is not in `known`.
fn pending(person: &Person, known: &[String]) -> anyhow::Result<String> {
    until("there is something to approve", || {
        let listed = person.run(&["approve", "--json"])?.exits(0);
        Ok(ids(&listed.stdout, "apr_").into_iter().find(|id| !known.contains(id)))
    })
}

/// What somebody sees of grants.
pub fn grants(person: &Person) -> anyhow::Result<Vec<Value>> {
    let listed = person.run(&["grants", "--all", "--json"])?.exits(0);
    Ok(serde_json::from_str(&listed.stdout)?)
}

pub fn code(answer: &Value) -> &str {
    answer["error"]["data"]["mcpx"]["code"].as_str().unwrap_or_default()
}

/// Somebody who speaks for themselves, with what the provider says of them.
pub struct Oneself {
    pub raw: Raw,
    pub id_token: String,
    pub url: String,
}

impl Oneself {
    pub fn new(server: &Server, idp: &Idp, name: &str, connection: &str) -> anyhow::Result<Self> {
        let id_token = idp.tokens(name)?["id_token"].as_str().unwrap_or_default().to_owned();
        Ok(Self { raw: Raw::new()?, id_token, url: server.resource(connection) })
    }

    pub fn exchange(&self, server: &Server) -> anyhow::Result<http::Answer> {
        self.raw.exchange(server, &self.id_token, &self.url)
    }

    pub fn token(&self, server: &Server) -> anyhow::Result<String> {
        self.raw.token(server, &self.id_token, &self.url)
    }

    pub fn call(&self, token: &str, tool: &str) -> anyhow::Result<reqwest::RequestBuilder> {
        self.raw.request(&self.url, token, &raw::call(tool, &json!({"text": "x"})))
    }

    /// A stream that runs, with its first event read.
    pub fn stream(&self, token: &str) -> anyhow::Result<Stream> {
        let mut stream = Stream::open(self.call(token, "note")?)?;
        stream.event()?;
        Ok(stream)
    }
}

/// How a stream that runs under a lost grant ends, and after how long.
pub fn ends(mut stream: Stream) -> anyhow::Result<(String, Duration)> {
    let started = Instant::now();
    let last = stream.event()?.json();
    assert!(stream.next()?.is_none(), "it goes on after {last}");
    Ok((code(&last).to_owned(), started.elapsed()))
}

fn a_lead_lets_somebody_in(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).start()?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;

    let listed = carol.run(&["ls"])?.exits(0).stdout;
    assert!(listed.contains("ledger") && listed.contains("needs approval"), "{listed}");
    // Without a reason nobody is asked; the next step is named.
    let refused = carol.run(&["connect", "ledger"])?.exits(5);
    assert!(refused.stderr.contains("mcpx request ledger"), "{refused:#?}");
    assert!(server.leaves_of("grant_requested").is_empty());

    let wanted = ["--reason", "ticket OPS-7", "--for", "10m", "--tool", "note", "--tool", "slow"];
    let request = carol.run(&[&["request", "ledger"][..], &wanted].concat())?.exits(0);
    let id = asked(&request);
    let same = carol.run(&[&["request", "ledger"][..], &wanted].concat())?.exits(0);
    assert_eq!(asked(&same), id, "the same is asked for once");
    let early = carol.run(&["connect", "ledger", "--wait", "0s"])?.exits(5);
    assert!(early.stderr.contains(&format!("mcpx approve {id}")), "{early:#?}");
    let pending = grants(&carol)?;
    assert_eq!(pending[0]["state"], "pending", "{pending:#?}");

    // Who decides sees all that the yes is for.
    let approved = bob.run(&["approve", &id, "--yes", "--reason", "for the audit"])?.exits(0);
    for shown in [
        "carol@example.test",
        "ledger",
        "10 min",
        "ticket OPS-7",
        "note, slow",
        "127.0.0.1",
        "lead",
    ] {
        assert!(
            approved.stderr.contains(shown),
            "the approver is not told {shown:?}: {approved:#?}"
        );
    }

    let connected = carol.connect("ledger")?;
    let call = |tool: &str, arguments: &Value| {
        Client::PythonLegacy.call(world, carol.home(), &connected.target(), tool, arguments)
    };
    let seen = call("note", &json!({"text": "within"}))?;
    assert!(!seen.is_error(), "{seen:#?}");
    let mut tools = seen.tools;
    tools.sort();
    assert_eq!(tools, ["note", "slow"], "what the grant does not reach is listed");
    // What is there and what nobody has are refused alike.
    let refusal = |tool: &str| match call(tool, &json!({"amount": 1, "to": "ACME"})) {
        Ok(seen) => panic!("{tool} was called: {seen:#?}"),
        Err(error) => {
            let error = &error.downcast_ref::<Refused>().expect("a refusal").error;
            error.to_string().replace(tool, "TOOL")
        }
    };
    let (there, nowhere) = (refusal("transfer"), refusal("nothing"));
    assert!(there.contains("grant_scope"), "{there}");
    let plain = |text: &str| {
        let call = ids(text, "call_").pop().unwrap_or_default();
        text.replace(&call, "CALL")
    };
    assert_eq!(plain(&there), plain(&nowhere));
    assert!(world.executed().iter().all(|call| call["tool"] == "note"));

    let shown = grants(&carol)?;
    let active = shown.iter().find(|grant| grant["state"] == "active").expect("an active grant");
    assert_eq!(active["approver"], "bob@example.test", "{active:#}");
    assert_eq!(active["reason"], "ticket OPS-7");
    assert_eq!(active["tools"], json!(["note", "slow"]));
    let table = carol.run(&["grants"])?.exits(0).stdout;
    assert!(table.contains("bob@example.test") && table.contains("9 min"), "{table}");

    let requested = &server.leaves_of("grant_requested")[0];
    assert_eq!((&requested["approval"], &requested["seconds"]), (&json!(id), &json!(600)));
    let issued = &server.leaves_of("grant_issued")[0];
    assert_eq!(issued["approval"], json!(id), "{issued:#}");
    let denied = server.leaves_of("call").into_iter().filter(|leaf| leaf["decision"] == "deny");
    assert!(denied.into_iter().all(|leaf| leaf["rules"] == json!(["grant-scope"])));
    let refused: Vec<_> =
        server.leaves_of("refused").iter().map(|leaf| leaf["code"].clone()).collect();
    assert!(refused.contains(&json!("needs_approval")), "{refused:?}");
    server.verify()?.exits(0);
    Ok(())
}

fn a_yes_is_for_one_grant(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).start()?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let id = asked(&carol.run(&["request", "ledger", "--reason", "once"])?.exits(0));
    bob.run(&["approve", &id, "--yes"])?.exits(0);
    // It is hers, and nobody else's.
    let alice = Oneself::new(&server, &idp, "alice", "ledger")?;
    let other = alice.exchange(&server)?;
    assert_eq!(other.json()["mcpx_code"], "needs_approval", "{other:?}");
    // Of many at once one has it.
    let hers = Oneself::new(&server, &idp, "carol", "ledger")?;
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(|| hers.exchange(&server))).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    let mut given = 0;
    for answer in answers {
        let answer = answer?;
        if answer.status == 200 {
            given += 1;
        } else {
            let code = answer.json()["mcpx_code"].clone();
            assert!(code == "needs_approval" || code == "approval_used", "{answer:?}");
        }
    }
    assert_eq!(given, 1, "one yes gave {given} grants");
    carol.run(&["connect", "ledger", "--json"])?.exits(5);
    assert_eq!(server.leaves_of("grant_issued").len(), 1);
    // What is decided stays decided.
    assert_ne!(bob.run(&["approve", &id, "--yes"])?.code, 0);
    server.verify()?.exits(0);
    Ok(())
}

fn connecting_waits_in_place(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).start()?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;

    let ask = ["connect", "ledger", "--json", "--reason", "in place", "--for", "5m"];
    let mut connecting = carol.start(&ask)?;
    let id = pending(&bob, &[])?;
    let status = connecting.until("says what it waits for", |this| {
        let said = this.stderr();
        Ok(said.contains("waits for").then_some(said))
    })?;
    assert!(status.contains(&id) && status.contains("leads"), "{status}");
    assert_eq!(connecting.stdout(), "", "it went on without a yes");
    bob.run(&["approve", &id, "--yes"])?.exits(0);
    let line = connecting.first_json_line()?;
    let target = crate::support::Target::Url(line["url"].as_str().unwrap_or_default().to_owned());
    let text = json!({"text": "after the yes"});
    let seen = Client::PythonLegacy.call(world, carol.home(), &target, "note", &text)?;
    assert!(!seen.is_error(), "{seen:#?}");

    // The same for a command, which runs once the yes is there and not before.
    let exec = ["exec", "ledger", "--reason", "a job", "--", "sh", "-c", "echo $MCPX_URL"];
    let running = carol.start(&exec)?;
    let second = pending(&bob, std::slice::from_ref(&id))?;
    bob.run(&["approve", &second, "--yes"])?.exits(0);
    let ran = running.finish()?.exits(0);
    assert!(ran.stdout.starts_with("http://127.0.0.1:"), "{ran:#?}");

    // And for a client that starts it: its first message waits.
    let mut command = carol.stdio_command("ledger");
    command.extend(["--reason", "a client"].map(str::to_owned));
    let target = crate::support::Target::Command(command);
    let call = Client::PythonLegacy.start(world, carol.home(), &target, "note", &text)?;
    let third = pending(&bob, &[id, second])?;
    bob.run(&["approve", &third, "--yes"])?.exits(0);
    let seen = call.finish()?;
    assert!(!seen.is_error(), "{seen:#?}");
    server.verify()?.exits(0);
    Ok(())
}

fn a_lead_says_no(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).start()?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let running = carol.start(&["exec", "ledger", "--reason", "please", "--", "true"])?;
    let id = pending(&bob, &[])?;
    bob.run(&["deny", &id, "--reason", "not on a Friday"])?.exits(0);
    let denied = running.finish()?.exits(5);
    assert!(denied.stderr.contains("not on a Friday"), "{denied:#?}");
    assert!(server.leaves_of("grant_issued").is_empty());
    let again = carol.run(&["request", "ledger", "--reason", "please"])?.exits(0);
    assert_ne!(asked(&again), id, "a new request is a new question");
    server.verify()?.exits(0);
    Ok(())
}

fn nobody_decides_in_time(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).approvals("1s", "3s").start()?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let waiting = ["request", "ledger", "--reason", "soon", "--wait", "1s", "--json"];
    let pending = carol.run(&waiting)?.exits(5);
    assert!(pending.stderr.contains("approval_pending"), "{pending:#?}");
    let over = carol.run(&["exec", "ledger", "--reason", "soon", "--", "true"])?.exits(5);
    assert!(over.stderr.contains("in time"), "{over:#?}");
    let id = ids(&over.stderr, "apr_").pop().unwrap_or_default();
    bob.run(&["approve", &id, "--yes"])?.exits(5);
    until("it is on record", || {
        let expired = server.leaves_of("approval_expired");
        Ok(expired.iter().any(|leaf| leaf["approval"] == json!(id)).then_some(()))
    })?;
    // A yes that is not used in time is gone as well.
    let id = asked(&carol.run(&["request", "ledger", "--reason", "late"])?.exits(0));
    bob.run(&["approve", &id, "--yes"])?.exits(0);
    std::thread::sleep(Duration::from_secs(4));
    carol.run(&["connect", "ledger", "--wait", "0s"])?.exits(5);
    assert!(server.leaves_of("grant_issued").is_empty());
    Ok(())
}

fn nobody_lets_themselves_in(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).start()?;
    idp.set("groups/carol/eng,leads")?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    let id = asked(&carol.run(&["request", "ledger", "--reason", "mine"])?.exits(0));
    let refused = carol.run(&["approve", &id, "--yes"])?.exits(3);
    assert!(refused.stderr.contains("their own request"), "{refused:#?}");
    // Somebody of another group does not even see it.
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    idp.set("groups/alice/eng")?;
    assert_ne!(alice.run(&["approve", &id, "--yes"])?.code, 0);
    assert!(server.leaves_of("approval_decided").is_empty());
    carol.run(&["connect", "ledger", "--wait", "0s"])?.exits(5);
    Ok(())
}

fn a_grant_ends_and_its_streams_with_it(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = site(world, &idp, &endless()?).start()?;
    let person = Person::logged_in(world, "carol", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let request = ["request", "ledger", "--reason", "a moment", "--for", "5s"];
    let id = asked(&person.run(&request)?.exits(0));
    bob.run(&["approve", &id, "--yes"])?.exits(0);
    let carol = Oneself::new(&server, &idp, "carol", "ledger")?;
    let started = Instant::now();
    let answer = carol.exchange(&server)?.json();
    assert!(answer["expires_in"].as_i64().is_some_and(|left| left <= 5), "{answer}");
    let token = answer["access_token"].as_str().unwrap_or_default();
    let stream = carol.stream(token)?;
    let (ended, _) = ends(stream)?;
    assert_eq!(ended, "grant_expired");
    let took = started.elapsed();
    assert!((4..15).contains(&took.as_secs()), "it ended after {took:?}");
    let late = http::send(carol.call(token, "note")?)?;
    assert_eq!(late.status, 401, "{late:?}");
    // It cannot be renewed either.
    let more = [("mcpx_grant", token)];
    let renewed = carol.raw.exchange_with(&server, &carol.id_token, &carol.url, &more)?;
    assert_eq!(renewed.json()["mcpx_code"], "grant_expired", "{renewed:?}");
    assert_eq!(grants(&person)?[0]["state"], "ended");
    server.verify()?.exits(0);
    Ok(())
}

fn living_longer_needs_another_yes(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).start()?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let request = ["request", "ledger", "--reason", "first", "--for", "40s", "--tool", "note"];
    let id = asked(&carol.run(&request)?.exits(0));
    bob.run(&["approve", &id, "--yes"])?.exits(0);
    let connected = carol.connect("ledger")?;
    let extend = ["request", "ledger", "--extend", "--reason", "not done", "--for", "10m"];
    let second = asked(&carol.run(&extend)?.exits(0));
    assert_ne!(second, id);
    let active = || -> anyhow::Result<Value> {
        let found = grants(&carol)?.into_iter().find(|grant| grant["state"] == "active");
        found.ok_or_else(|| anyhow::anyhow!("no grant is active"))
    };
    let before = active()?;
    let shown = bob.run(&["approve", &second, "--yes"])?.exits(0);
    assert!(shown.stderr.contains("longer"), "{shown:#?}");
    let after = active()?;
    assert_eq!(after["id"], before["id"], "it is the same grant");
    assert!(after["ends_at"].as_str() > before["ends_at"].as_str(), "{before:#} {after:#}");
    assert_eq!(after["tools"], json!(["note"]), "it lives longer as what it is");
    let extended = &server.leaves_of("grant_extended")[0];
    assert_eq!(extended["approval"], json!(second), "{extended:#}");
    // Without anybody having called anything, it is renewed beyond its first end.
    until("it is renewed", || {
        let renewed = server.leaves_of("grant_renewed");
        let beyond = |leaf: &Value| leaf["expires"].as_str() > before["ends_at"].as_str();
        Ok(renewed.iter().any(beyond).then_some(()))
    })?;
    let text = json!({"text": "still here"});
    let seen =
        Client::PythonLegacy.call(world, carol.home(), &connected.target(), "note", &text)?;
    assert!(!seen.is_error(), "{seen:#?}");
    assert_eq!(server.leaves_of("grant_issued").len(), 1, "it was renewed and not given anew");
    // The yes was for once.
    bob.run(&["approve", &second, "--yes"])?.exits(1);
    assert_eq!(server.leaves_of("grant_extended").len(), 1);
    server.verify()?.exits(0);
    Ok(())
}

fn not_for_longer_and_not_before(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).http("free", &ledger.url).start()?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let long = ["request", "ledger", "--reason", "x", "--for", "61m", "--json"];
    let refused = carol.run(&long)?.exits(1);
    assert!(refused.stderr.contains("grant_too_long") && refused.stderr.contains("1h"));
    let later = ["request", "ledger", "--reason", "x", "--for", "30m", "--from", "1h"];
    let id = asked(&carol.run(&later)?.exits(0));
    bob.run(&["approve", &id, "--yes"])?.exits(0);
    let early = carol.run(&["connect", "ledger", "--json"])?.exits(6);
    assert!(early.stderr.contains("grant_not_begun"), "{early:#?}");
    // What policy allows by itself needs no request.
    let free = carol.run(&["request", "free", "--reason", "x", "--json"])?.exits(0);
    assert!(free.stdout.contains("not_needed"), "{free:#?}");
    carol.run(&["request", "nothing", "--reason", "x"])?.exits(1);
    carol.run(&["request", "ledger", "--reason", " "])?.exits(1);
    assert!(server.leaves_of("grant_issued").is_empty());
    // Neither does bob get anything, whom no policy lets in.
    bob.run(&["request", "ledger", "--reason", "me too"])?.exits(3);
    assert_eq!(server.leaves_of("grant_requested").len(), 1);
    Ok(())
}

fn a_standing_grant_is_renewed_in_silence(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = Site::new(world, &idp)
        .policy("engineers.cedar", ENGINEERS)
        .http("ledger", &ledger.url)
        .grant_ttl("6s")
        .start()?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    let connected = carol.connect("ledger")?;
    // Nobody calls anything, and the grant goes on.
    until("it is renewed twice", || {
        Ok((server.leaves_of("grant_renewed").len() >= 2).then_some(()))
    })?;
    let text = json!({"text": "still here"});
    let seen =
        Client::PythonLegacy.call(world, carol.home(), &connected.target(), "note", &text)?;
    assert!(!seen.is_error(), "{seen:#?}");
    assert_eq!(server.leaves_of("grant_issued").len(), 1, "it is one grant");
    Ok(())
}

/// Runs a program on a terminal, answers what it asks, and shows what it prints.
const TERMINAL: &str = r#"
import os, pty, sys
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[2], sys.argv[2:])
asked = b""
while True:
    try:
        read = os.read(terminal, 4096)
    except OSError:
        break
    if not read:
        break
    asked += read
    sys.stdout.write(read.decode(errors="replace"))
    sys.stdout.flush()
    if b"?" in asked:
        os.write(terminal, sys.argv[1].encode() + b"\n")
        asked = b""
"#;

fn on_a_terminal_the_reason_is_asked_for(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let ledger = world.ledger()?;
    let server = site(world, &idp, &ledger.url).start()?;
    let carol = Person::logged_in(world, "carol", &server, &idp)?;
    let bob = Person::logged_in(world, "bob", &server, &idp)?;
    let mut command = world.command(world.parts().python()?)?;
    command.env("MCPX_HOME", carol.home()).env("TERM", "xterm").args(["-c", TERMINAL]);
    command.args(["typed by hand", crate::support::site::MCPX, "connect", "ledger"]);
    let mut connecting = crate::support::Proc::start(world, "terminal", command)?;
    let id = pending(&bob, &[])?;
    let shown = bob.run(&["approve", &id, "--yes"])?.exits(0);
    assert!(shown.stderr.contains("typed by hand"), "{shown:#?}");
    let said = connecting.until("goes on", |this| {
        let said = this.stdout();
        Ok(said.contains("http://127.0.0.1:").then_some(said))
    })?;
    assert!(said.contains("Why do you need ledger?") && said.contains("Approved"), "{said}");
    Ok(())
}
