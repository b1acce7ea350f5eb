//! Servers that run as child processes: they crash, they talk, they take more than their share,
//! they reach for what is not theirs; and one process works for everybody.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::http::{self, Answer};
use crate::support::raw::call;
use crate::support::{Client, Idp, Person, Proc, Raw, Server, Site, Skip, World, ids, until};

crate::stories![
    a_server_that_keeps_dying,
    what_a_server_says_on_stderr,
    one_user_cannot_take_all_processes,
    a_sandbox_holds_a_server,
    real_servers_work_in_a_sandbox,
    one_process_for_everybody,
    one_handshake_for_everybody,
];

const SSN: &str = "078-05-1120";

/// The server that fails in every way.
fn crasher(world: &World, more: &[String]) -> anyhow::Result<Vec<String>> {
    let python = world.parts().python()?.display().to_string();
    let script = world.parts().script("crasher.py").display().to_string();
    Ok([&[python, script], more].concat())
}

/// Somebody with a grant of their own, who speaks the protocol themselves.
struct Caller {
    raw: Raw,
    token: String,
    url: String,
}

impl Caller {
    fn new(server: &Server, idp: &Idp, name: &str, connection: &str) -> anyhow::Result<Self> {
        let raw = Raw::new()?;
        let url = server.resource(connection);
        let id_token = idp.tokens(name)?["id_token"].as_str().unwrap_or_default().to_owned();
        let token = raw.token(server, &id_token, &url)?;
        Ok(Self { raw, token, url })
    }

    /// Calls a tool in the modern era.
    fn call(&self, tool: &str, arguments: &Value) -> anyhow::Result<Answer> {
        self.raw.post(&self.url, &self.token, &call(tool, arguments))
    }

    /// Sends a message in the legacy era.
    fn legacy(&self, session: Option<&str>, message: &Value) -> anyhow::Result<Answer> {
        let proof = self.raw.proof("POST", &self.url, Some(&self.token), |_| ())?;
        let mut request = http::client()
            .post(&self.url)
            .header("authorization", format!("DPoP {}", self.token))
            .header("dpop", proof)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(message.to_string());
        if let Some(session) = session {
            request = request.header("mcp-session-id", session);
        }
        http::send(request)
    }

    /// Opens a legacy session, as a client with these capabilities.
    fn greet(&self, capabilities: &Value) -> anyhow::Result<Answer> {
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": capabilities,
            "clientInfo": {"name": "story", "version": "1"},
        });
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        self.legacy(None, &hello)
    }
}

fn text(answer: &Answer) -> String {
    answer.json()["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned()
}

fn code(answer: &Answer) -> String {
    answer.json()["error"]["data"]["mcpx"]["code"].as_str().unwrap_or_default().to_owned()
}

fn a_server_that_keeps_dying(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let switch = world.dir().join("die-at-once");
    let command = crasher(world, &[switch.display().to_string()])?;
    let server = Site::new(world, &idp)
        .stdio("crasher", &command)
        .with("[connection.restart]\nfirst = \"2s\"\nmost = \"3s\"\nsteady = \"1h\"")
        .start()?;
    let alice = Caller::new(&server, &idp, "alice", "crasher")?;
    let first = text(&alice.call("who", &json!({}))?);

    // A crash is an answer to who waits, and the next call finds a server again.
    let died = alice.call("die", &json!({}))?;
    assert_eq!((died.status, code(&died).as_str()), (502, "upstream_broke_off"), "{died:?}");
    let second = text(&alice.call("who", &json!({}))?);
    assert!(!second.is_empty() && second != first, "{first} {second}");

    // One that dies again and again is waited for, and the caller is told how long.
    std::fs::write(&switch, "")?;
    assert_eq!(code(&alice.call("die", &json!({}))?), "upstream_broke_off");
    let refused = alice.call("who", &json!({}))?;
    assert_eq!((refused.status, code(&refused).as_str()), (503, "upstream_restarting"));
    let data = &refused.json()["error"]["data"]["mcpx"];
    assert!(matches!(data["retry_after"].as_u64(), Some(1..=3)), "{data}");
    let sentence = refused.json()["error"]["message"].to_string();
    assert!(sentence.contains("started again in"), "{sentence}");

    // Somebody else did not kill it, and does not wait.
    std::fs::remove_file(&switch)?;
    let carol = Caller::new(&server, &idp, "carol", "crasher")?;
    assert!(!text(&carol.call("who", &json!({}))?).is_empty());

    // When the wait is over, it is there again.
    let third = until("it is started again", || {
        let answer = alice.call("who", &json!({}))?;
        Ok((code(&answer) != "upstream_restarting").then(|| text(&answer)))
    })?;
    assert!(!third.is_empty());

    let failed = server.leaves_of("response");
    let failed = failed.iter().filter(|leaf| leaf["outcome"] == "upstream_failed").count();
    assert!(failed >= 3, "refusals are on record: {failed}");
    let ended = server.leaves_of("child_ended");
    assert!(ended.iter().any(|leaf| leaf["exit"] == 7 && leaf["asked"] == false), "{ended:#?}");
    server.verify()?.exits(0);
    Ok(())
}

fn what_a_server_says_on_stderr(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp).stdio("crasher", &crasher(world, &[])?).start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let seen = alice.call(Client::TypeScript1, "crasher", "grumble", &json!({}))?;
    assert_eq!(seen.text(), "grumbled");
    let said = until("it is on record", || Ok(server.leaves_of("child_stderr").pop()))?;
    assert_eq!(said["lines"], 1, "{said}");

    let sessions = alice.run(&["sessions", "--json"])?.exits(0);
    let session = ids(&sessions.stdout, "ses_").remove(0);
    assert_eq!(said["session"], session.as_str());
    let replay = alice.run(&["replay", &session])?.exits(0);
    assert!(replay.stdout.contains("1 line on stderr"), "{replay:#?}");
    let replay = alice.run(&["replay", &session, "--full"])?.exits(0);
    assert!(replay.stdout.contains("is unhappy"), "{replay:#?}");

    // A flood is counted; the call that made it is answered.
    let flood = json!({"lines": 1000});
    let seen = alice.call(Client::TypeScript1, "crasher", "grumble", &flood)?;
    assert_eq!(seen.text(), "grumbled");
    until("the rest is counted", || {
        let said = server.leaves_of("child_stderr");
        Ok(said.iter().any(|leaf| leaf["dropped"].as_u64() > Some(100)).then_some(()))
    })?;
    server.holds_none_of([SSN]);
    server.verify()?.exits(0);
    Ok(())
}

fn one_user_cannot_take_all_processes(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp)
        .stdio("crasher", &crasher(world, &[])?)
        .keyed("processes = 3\nprocesses_per_subject = 2")
        .start()?;
    let sessions: Vec<_> = (0..3)
        .map(|_| Caller::new(&server, &idp, "alice", "crasher"))
        .collect::<anyhow::Result<_>>()?;
    for session in &sessions[..2] {
        assert!(!text(&session.call("who", &json!({}))?).is_empty());
    }
    let refused = sessions[2].call("who", &json!({}))?;
    assert_eq!((refused.status, code(&refused).as_str()), (503, "subject_busy"), "{refused:?}");
    let carol = Caller::new(&server, &idp, "carol", "crasher")?;
    assert!(!text(&carol.call("who", &json!({}))?).is_empty(), "there is one left for carol");
    let again = Caller::new(&server, &idp, "carol", "crasher")?;
    assert_eq!(code(&again.call("who", &json!({}))?), "upstream_busy");

    // A process that is gone makes room.
    assert_eq!(code(&sessions[0].call("die", &json!({}))?), "upstream_broke_off");
    let third = until("there is room", || {
        let answer = sessions[2].call("who", &json!({}))?;
        Ok((code(&answer) != "subject_busy").then_some(answer))
    })?;
    assert!(!text(&third).is_empty(), "{third:?}");
    server.verify()?.exits(0);
    Ok(())
}

/// What the parts need to read of their own.
fn parts(world: &World) -> anyhow::Result<String> {
    let script = world.parts().script("x");
    let python = world.parts().python()?;
    let venv = python.ancestors().nth(2).unwrap_or(python);
    // The interpreter that the virtual environment is made of, wherever somebody has installed it.
    let real = python.canonicalize()?;
    let prefix = real.ancestors().nth(2).unwrap_or(&real);
    let node = world.parts().node()?;
    let paths = [script.parent().unwrap_or(&script), venv, prefix, node];
    Ok(format!("read = {paths:?}"))
}

/// Skips where the kernel cannot hold a whole sandbox, with what it lacks.
fn needs_sandbox(world: &World, config: &std::path::Path) -> anyhow::Result<()> {
    let mut check = world.command(crate::support::site::MCPX)?;
    check.args(["serve", "--check", "--config"]).arg(config);
    let check = Proc::run(world, "serve --check", check)?.exits(0);
    if check.stdout.contains("sandbox in full") {
        return Ok(());
    }
    Err(Skip(format!("this kernel holds no whole sandbox: {}", check.stdout)).into())
}

fn a_sandbox_holds_a_server(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let room = world.dir().join("room");
    std::fs::create_dir_all(&room)?;
    let held = format!("sandbox = \"try\"\n{}\nwrite = [{room:?}]", parts(world)?);
    let site = Site::new(world, &idp)
        .stdio("free", &crasher(world, &[])?)
        .stdio("held", &crasher(world, &[])?)
        .keyed(&held.replace("\"try\"", "\"require\""));
    needs_sandbox(world, &site.write()?)?;
    let server = site.start()?;
    let free = Caller::new(&server, &idp, "alice", "free")?;
    let held = Caller::new(&server, &idp, "alice", "held")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let key = server.data().join("keys").join("grant.key");
    let proc = format!("/proc/{}/environ", server.proc.id());
    let outside = world.dir().join("outside");
    for (tool, arguments) in [
        ("read", json!({"path": key})),
        ("read", json!({"path": "/etc/shadow"})),
        ("read", json!({"path": proc})),
        ("dial", json!({"port": port})),
        ("touch", json!({"path": outside})),
        ("kill", json!({"process": server.proc.id()})),
    ] {
        let could = free.call(tool, &arguments)?;
        assert_eq!(could.json()["result"]["isError"], false, "{tool} {arguments}: {could:?}");
        std::fs::remove_file(&outside).ok();
        let cannot = held.call(tool, &arguments)?;
        assert_eq!(cannot.json()["result"]["isError"], true, "{tool} {arguments}: {cannot:?}");
        let told = text(&cannot);
        assert!(told.contains("PermissionError"), "{tool} {arguments}: {told}");
    }
    let inside = json!({"path": room.join("file")});
    assert_eq!(text(&held.call("touch", &inside)?), "written");
    assert_eq!(text(&held.call("read", &inside)?), "x");

    let started = server.leaves_of("child_started");
    let level = |name: &str| {
        let mut of = started.iter().filter(|leaf| leaf["connection"] == name);
        of.next().map(|leaf| leaf["sandbox"].clone()).unwrap_or_default()
    };
    assert_eq!((level("free"), level("held")), (json!("off"), json!("full")), "{started:#?}");
    server.verify()?.exits(0);
    Ok(())
}

fn real_servers_work_in_a_sandbox(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    // By its interpreter, which the first line of the program may name by another path.
    let python = world.parts().python()?.display().to_string();
    let git = [&[python][..], &world.git_stdio()?].concat();
    let everything = world.everything_stdio()?;
    let held = format!("sandbox = \"require\"\n{}", parts(world)?);
    let repository = world.repository();
    let site = Site::new(world, &idp)
        .stdio("git", &git)
        .keyed(&format!("{held}\nwrite = [{repository:?}]"))
        .stdio("everything", &everything)
        .keyed(&held);
    needs_sandbox(world, &site.write()?)?;
    let server = site.start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let log = json!({"repo_path": repository});
    let seen = alice.call(Client::Python, "git", "git_log", &log)?;
    assert!(seen.text().contains("Begin the story"), "{seen:#?}");
    let seen =
        alice.call(Client::TypeScript1, "everything", "get-sum", &json!({"a": 1, "b": 2}))?;
    assert!(seen.text().contains('3'), "{seen:#?}");
    Ok(())
}

fn one_process_for_everybody(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp)
        .stdio("crasher", &crasher(world, &[])?)
        .keyed("share = \"connection\"")
        .start()?;
    let alice = Caller::new(&server, &idp, "alice", "crasher")?;
    let carol = Caller::new(&server, &idp, "carol", "crasher")?;
    let process = text(&alice.call("who", &json!({}))?);
    assert_eq!(text(&carol.call("who", &json!({}))?), process);

    // The same id and the same progress token at the same time, again and again.
    let message = |name: &str, data: &str| {
        let mut message: Value = serde_json::from_str(&call(name, &json!({"data": data}))).unwrap();
        message["params"]["_meta"]["progressToken"] = json!("t");
        message.to_string()
    };
    std::thread::scope(|scope| {
        let both = [(&alice, "of-alice"), (&carol, "of-carol")].map(|(caller, own)| {
            scope.spawn(move || -> anyhow::Result<()> {
                for _ in 0..10 {
                    let message = message("leak", own);
                    let answer = caller.raw.post(&caller.url, &caller.token, &message)?;
                    assert_eq!(text(&answer), "leaked", "{answer:?}");
                    assert_eq!(answer.json()["id"], 1, "{answer:?}");
                    assert!(answer.body.contains(r#""progressToken": "t""#), "{answer:?}");
                    // What names nobody reaches nobody, not even whom it is about.
                    assert!(!answer.body.contains("of-"), "{answer:?}");
                }
                Ok(())
            })
        });
        both.into_iter().try_for_each(|caller| caller.join().unwrap())
    })?;
    let lost = until("what reached nobody is on record", || {
        let lost = server.leaves_of("child_dropped");
        let count: u64 = lost.iter().filter_map(|leaf| leaf["count"].as_u64()).sum();
        Ok((count >= 20).then_some(lost))
    })?;
    assert!(lost.iter().all(|leaf| leaf["code"] == "no_owner"), "{lost:#?}");
    let started = server.leaves_of("child_started");
    assert_eq!(started.len(), 1, "{started:#?}");
    assert!(started[0].get("session").is_none(), "it is nobody's: {started:#?}");
    server.verify()?.exits(0);
    Ok(())
}

fn one_handshake_for_everybody(world: &World) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let server = Site::new(world, &idp)
        .stdio("crasher", &crasher(world, &[])?)
        .keyed("share = \"connection\"")
        .start()?;
    let alice = Caller::new(&server, &idp, "alice", "crasher")?;
    let carol = Caller::new(&server, &idp, "carol", "crasher")?;
    let first = alice.greet(&json!({"roots": {}}))?;
    let second = carol.greet(&json!({"roots": {}}))?;
    assert_eq!(first.json()["result"], second.json()["result"]);
    let (of_alice, of_carol) = (first.header("mcp-session-id"), second.header("mcp-session-id"));
    assert!(!of_alice.is_empty() && of_alice != of_carol);
    let other = carol.greet(&json!({"sampling": {}}))?;
    assert_eq!((other.status, code(&other).as_str()), (400, "handshake_differs"), "{other:?}");

    let tool = |name: &str| {
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
               "params": {"name": name, "arguments": {}}})
    };
    let process = text(&alice.legacy(Some(of_alice), &tool("who"))?);
    assert_eq!(text(&carol.legacy(Some(of_carol), &tool("who"))?), process);
    // An answer to what was never asked goes nowhere.
    let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {}});
    let refused = alice.legacy(Some(of_alice), &answer)?;
    assert_eq!(refused.status, 400, "{refused:?}");

    // Who kills it kills it for all: each session is over, and each can begin anew.
    assert_eq!(code(&alice.legacy(Some(of_alice), &tool("die"))?), "upstream_broke_off");
    let gone = carol.legacy(Some(of_carol), &tool("who"))?;
    assert_eq!((gone.status, code(&gone).as_str()), (404, "session_gone"), "{gone:?}");
    let again = carol.greet(&json!({"sampling": {}}))?;
    let session = again.header("mcp-session-id");
    let another = text(&carol.legacy(Some(session), &tool("who"))?);
    assert!(!another.is_empty() && another != process, "{another}");
    server.verify()?.exits(0);
    Ok(())
}
