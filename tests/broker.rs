//! The laptop side as processes: the real binary, logged in, against a server made up here. What
//! scripts and MCP clients see is checked: stdout, exit codes, signals, files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![cfg(unix)]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::Response;
use mcpx::audit::{Entry, LogKey, Record, Recorder};
use mcpx::broker::credentials::{OsKeyring, StorageKind, TokenStore, Tokens};
use mcpx::broker::home::Home;
use mcpx::types::{Clock as _, Identity, Secret, SystemClock};
use serde_json::{Value, json};

/// A server that plays control server and gateway, and a home that is logged in to it.
struct World {
    directory: tempfile::TempDir,
    base: String,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct Shared {
    /// `METHOD /path` to status and body.
    answers: Mutex<HashMap<String, (u16, String)>>,
    seen: Mutex<Vec<(String, String)>>,
    log: Mutex<Option<PathBuf>>,
}

impl World {
    fn new() -> Self {
        Self::with_log_key("none")
    }

    fn with_log_key(log_key: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let shared = Arc::new(Shared::default());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(serve).with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let directory = tempfile::tempdir().unwrap();
        let world = Self { directory, base, shared, _runtime: runtime };
        world.log_in(log_key);
        world
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    fn log_in(&self, log_key: &str) {
        let home = Home::open(self.home()).unwrap();
        let issuer = json!({"name": "test", "url": "http://127.0.0.1:9", "client_id": "c"});
        let server = json!({
            "version": 1, "server": self.base, "issuers": [issuer],
            "token_endpoint": format!("{}/token", self.base), "api": format!("{}/api", self.base),
            "log_key": log_key,
        });
        let now = SystemClock.now_seconds();
        let state = json!({
            "version": 1, "server": server, "issuer": issuer, "storage": "file", "logged_in": now,
        });
        home.write_json("login.json", &state).unwrap();
        let server = url::Url::parse(&self.base).unwrap();
        let store = TokenStore::new(home, StorageKind::File, server.as_str(), Arc::new(OsKeyring));
        let identity = Identity {
            issuer: "http://127.0.0.1:9".into(),
            sub: "ann".into(),
            email: Some("ann@example.com".into()),
            groups: vec!["eng".into()],
        };
        let tokens = Tokens {
            id_token: Secret::new("id-token"),
            obtained: now,
            expires: now + 3600,
            refresh_token: None,
            identity,
        };
        self._runtime.block_on(store.save(tokens)).unwrap();
    }

    fn answer(&self, request: &str, status: u16, body: Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.shared.answers.lock().unwrap().insert(request.into(), (status, body));
    }

    fn seen(&self) -> Vec<(String, String)> {
        self.shared.seen.lock().unwrap().clone()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcpx"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("MCPX_HOME", self.home())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().unwrap()
    }

    /// Runs, expects success, and gives stdout.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout).to_owned()
    }
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
    let path = parts.uri.path().to_owned();
    let reply = |status: u16, body: Vec<u8>| {
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .header("mcp-session-id", "s1")
            .body(Body::from(body))
            .unwrap()
    };
    if path == "/token" {
        assert!(body.contains("subject_token=id-token"), "{body}");
        let token = json!({"access_token": "grant", "token_type": "DPoP", "expires_in": 600,
            "mcpx_session": "ses_0123456789abcdef"});
        return reply(200, token.to_string().into());
    }
    assert_eq!(parts.headers["authorization"], "DPoP grant");
    assert!(parts.headers.contains_key("dpop"));
    let log = shared.log.lock().unwrap().clone();
    if let (Some(file), Some(log)) = (path.strip_prefix("/api/log/"), log) {
        return std::fs::read(log.join(file))
            .map_or_else(|_| reply(404, Vec::new()), |bytes| reply(200, bytes));
    }
    let request = format!("{} {path}", parts.method);
    shared.seen.lock().unwrap().push((request.clone(), body.clone()));
    if let Some((status, body)) = shared.answers.lock().unwrap().get(&request) {
        return reply(*status, body.clone().into());
    }
    if parts.method == Method::POST && path == "/mcp/crm" {
        let message: Value = serde_json::from_str(&body).unwrap();
        let result = json!({"jsonrpc": "2.0", "id": message["id"],
            "result": {"protocolVersion": "2025-11-25", "method": message["method"]}});
        return match message.get("id") {
            Some(_) => reply(200, result.to_string().into()),
            None => reply(202, Vec::new()),
        };
    }
    let problem = json!({"error": {"code": "not_found", "message": "no such thing"}});
    reply(if parts.method == Method::GET { 404 } else { 200 }, problem.to_string().into())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

#[test]
fn stdio_speaks_the_protocol_and_nothing_else() {
    let world = World::new();
    let mut child = world
        .command()
        .args(["connect", "crm", "--stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    writeln!(input, r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{}}}}"#).unwrap();
    let answer: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(answer["id"], 0);
    writeln!(input, r#"{{"jsonrpc":"2.0","method":"notifications/initialized"}}"#).unwrap();
    writeln!(input, r#"{{"jsonrpc":"2.0","id":"1","method":"tools/list"}}"#).unwrap();
    let answer: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&answer["id"], &answer["result"]["method"]), (&json!("1"), &json!("tools/list")));
    drop(input);
    assert!(lines.next().is_none());
    assert!(child.wait().unwrap().success());
    assert_eq!(world.seen().last().unwrap().0, "DELETE /mcp/crm");
}

/// What `mcpx client add` writes is what a client can start, with no environment at all.
#[test]
fn the_entry_in_a_clients_file_starts_the_connection() {
    let world = World::new();
    let user = world.directory.path().join("user");
    std::fs::create_dir(&user).unwrap();
    let mut add = world.command();
    let added = add.env("HOME", &user).args(["client", "add", "crm", "--to", "cursor"]).output();
    assert!(added.unwrap().status.success());
    let file = std::fs::read(user.join(".cursor/mcp.json")).unwrap();
    let entry = serde_json::from_slice::<Value>(&file).unwrap()["mcpServers"]["crm"].clone();
    let args = entry["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
    let mut child = Command::new(entry["command"].as_str().unwrap())
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    writeln!(input, r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{}}}}"#).unwrap();
    let answer: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(answer["result"]["method"], "initialize");
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn stdio_without_a_login_tells_the_client() {
    let world = World::new();
    let nobody = world.directory.path().join("nobody");
    let mut child = world
        .command()
        .env("MCPX_HOME", nobody)
        .args(["connect", "crm", "--stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, r#"{{"jsonrpc":"2.0","id":"i","method":"initialize"}}"#).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&answer["id"], &answer["error"]["data"]["mcpx"]["code"]),
        (&json!("i"), &json!("login_needed"))
    );
    assert!(answer["error"]["data"]["mcpx"]["hint"].as_str().unwrap().contains("mcpx login"));
    drop(input);
}

#[test]
fn stdio_ends_on_a_signal_while_the_client_keeps_stdin_open() {
    let world = World::new();
    let mut child = world
        .command()
        .args(["connect", "crm", "--stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    writeln!(input, r#"{{"jsonrpc":"2.0","id":0,"method":"ping"}}"#).unwrap();
    lines.next().unwrap().unwrap();
    signal(&child, "-TERM");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_local_port_serves_until_it_is_told_to_stop() {
    let world = World::new();
    let mut child = world
        .command()
        .args(["connect", "crm", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let opened: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(opened["connection"], "crm");
    assert_eq!(opened["session"], "ses_0123456789abcdef");
    let answer = world._runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let body = r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#;
        let sent = client.post(opened["url"].as_str().unwrap()).body(body).send();
        sent.await.unwrap().text().await.unwrap()
    });
    assert!(answer.contains(r#""id":5"#), "{answer}");
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(text(&output.stderr), "", "nothing but data with --json");
}

#[test]
fn exec_gives_the_url_and_takes_code_and_signals() {
    let world = World::new();
    let out = world.run(&["exec", "crm", "--", "sh", "-c", "echo \"$MCPX_URL\"; exit 7"]);
    assert_eq!(out.status.code(), Some(7));
    assert!(text(&out.stdout).starts_with("http://127.0.0.1:"), "{}", text(&out.stdout));
    assert_eq!(text(&out.stderr), "", "the command speaks, not we");
    assert_eq!(world.run(&["exec", "crm", "--", "/nonexistent"]).status.code(), Some(127));

    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = world
        .command()
        .args(["exec", "crm", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn the_servers_codes_become_exit_codes() {
    let world = World::new();
    for (status, code, exit) in [
        (403, "policy_denied", 3),
        (401, "login_needed", 4),
        (409, "approval_expired", 5),
        (401, "grant_revoked", 6),
        (502, "unreachable", 7),
        (500, "integrity", 8),
        (500, "anything", 1),
    ] {
        let body = json!({"error": {"code": code, "message": "said \u{1b}[31mso", "hint": "do x"}});
        world.answer("GET /api/connections", status, body);
        let plain = world.run(&["ls"]);
        assert_eq!(plain.status.code(), Some(exit), "{code}: {}", text(&plain.stderr));
        assert_eq!(text(&plain.stderr), "error: said [31mso\nhint: do x\n");
        let json = world.run(&["ls", "--json"]);
        let error: Value = serde_json::from_slice(&json.stderr).unwrap();
        assert_eq!(
            (&error["error"]["code"], &error["error"]["exit_code"]),
            (&json!(code), &json!(exit))
        );
    }
}

#[test]
fn lists_are_clean_text_or_json() {
    let world = World::new();
    let evil = "x\u{1b}]0;pwned\u{7}\u{202e}";
    world.answer(
        "GET /api/connections",
        200,
        json!([
            {"name": "crm", "description": evil, "transport": "http", "needs_approval": true},
            {"name": "dbs", "description": "Tables", "transport": "stdio"},
        ]),
    );
    let shown = "NAME  TRANSPORT  ACCESS          DESCRIPTION\n\
                 crm   http       needs approval  x]0;pwned\n\
                 dbs   stdio                      Tables\n";
    assert_eq!(world.ok(&["ls"]), shown);
    let out = world.ok(&["ls", "--json"]);
    assert!(out.is_ascii());
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()[0]["description"], evil);
    assert!(world.ok(&["status"]).starts_with("ann@example.com at http://127.0.0.1:"));
    let other = world.run(&["ls", "--server", "https://other.example"]);
    assert_eq!(other.status.code(), Some(4), "{}", text(&other.stderr));
}

fn approval(id: &str, state: &str) -> Value {
    json!({
        "id": id, "state": state, "requested_by": {"id": "sub_1", "label": "bob"},
        "connection": "crm", "tool": "execute_sql",
        "arguments": {"sql": "select 1 \u{202e}", "n": 12345678901234567890u64}, "rule": "big",
        "groups": ["leads"], "requested_at": "2026-01-01T00:00:00Z",
        "expires_at": "2999-01-01T00:00:00Z", "decided_by": null, "may_decide": true,
    })
}

#[test]
fn approving_shows_exactly_what_is_approved() {
    let world = World::new();
    let all = json!([approval("apr_aaaa", "pending"), approval("apr_aabb", "used")]);
    world.answer("GET /api/approvals", 200, all);
    world.answer("POST /api/approvals/apr_aaaa", 200, approval("apr_aaaa", "approved"));
    assert!(world.ok(&["approve"]).contains("waits for you"));
    for (args, code) in [
        (&["approve", "apr_aa", "--yes"][..], 2),
        (&["approve", "zz", "--yes"], 1),
        (&["approve", "aabb", "--yes"], 1),
    ] {
        let output = world.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stderr));
    }
    assert!(world.seen().iter().all(|(request, _)| request.starts_with("GET")));
    let output = world.run(&["approve", "aaaa", "--yes", "--reason", "ok"]);
    assert!(output.status.success());
    let shown = text(&output.stderr);
    assert!(
        shown.contains(r"select 1 \u{202e}") && shown.contains("12345678901234567890"),
        "{shown}"
    );
    let (request, body) = world.seen().pop().unwrap();
    assert_eq!(request, "POST /api/approvals/apr_aaaa");
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        json!({"decision": "approve", "reason": "ok"})
    );
    world.ok(&["approve", "aaaa"]);
    assert!(world.seen().pop().unwrap().1.contains(r#""decision":"approve""#), "nobody to ask");
    world.ok(&["deny", "aaaa"]);
    assert!(world.seen().pop().unwrap().1.contains(r#""decision":"deny""#));
}

#[test]
fn revoking_a_session_ends_every_living_grant_of_it() {
    let world = World::new();
    let grant = |id: &str, session: &str, state: &str| {
        json!({"id": id, "session": session, "subject": {"id": "s", "label": "bob"},
            "connection": "crm", "issued_at": "2026-01-01T00:00:00Z",
            "expires_at": "2026-01-02T00:00:00Z", "state": state})
    };
    let grants = json!([
        grant("gr_1", "ses_x1", "active"),
        grant("gr_2", "ses_x1", "expired"),
        grant("gr_3", "ses_x1", "active"),
        grant("gr_4", "ses_y", "active"),
    ]);
    world.answer("GET /api/grants", 200, grants);
    for id in ["gr_1", "gr_3", "gr_4"] {
        let gone = grant(id, "ses_x1", "revoked");
        world.answer(&format!("POST /api/grants/{id}/revoke"), 200, gone);
    }
    world.ok(&["revoke", "ses_x"]);
    world.ok(&["revoke", "gr_4"]);
    let posts: Vec<_> =
        world.seen().into_iter().map(|s| s.0).filter(|r| r.starts_with("POST")).collect();
    assert_eq!(posts, ["gr_1", "gr_3", "gr_4"].map(|id| format!("POST /api/grants/{id}/revoke")));
}

#[test]
fn a_session_is_found_by_the_beginning_of_its_id() {
    let world = World::new();
    let session = json!({"id": "ses_abcd", "subject": {"id": "s", "label": "bob"},
        "connection": "crm", "started_at": "2026-01-01T00:00:00Z", "calls": 3});
    world.answer("GET /api/sessions", 200, json!([session]));
    let record = json!({"session": session, "events": [], "checkpoint": null});
    world.answer("GET /api/sessions/ses_abcd", 200, record);
    assert!(world.ok(&["sessions"]).contains("ses_abcd"));
    assert!(world.ok(&["replay", "abc"]).contains("ses_abcd"));
    assert_eq!(world.run(&["replay", "zzz"]).status.code(), Some(1));
    assert_eq!(world.run(&["replay", "../grants"]).status.code(), Some(1));
}

/// A log with a few records, published.
fn log(folder: &Path, key: LogKey, records: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (recorder, _) = Recorder::open(folder, key, Arc::new(SystemClock)).unwrap();
        for _ in 0..records {
            recorder.append(Entry { record: Record::Stopped, body: None }).await.unwrap();
        }
        recorder.publish().await.unwrap();
        recorder.shutdown().await.unwrap();
    });
}

#[test]
fn the_log_is_verified_here_and_the_checkpoint_remembered() {
    let keys = tempfile::tempdir().unwrap();
    let key = |name: &str| LogKey::load_or_create(&keys.path().join(name), "example/log").unwrap();
    let folder = keys.path().join("log");
    log(&folder, key("k"), 300);
    let vkey = key("k").vkey().to_string();
    let world = World::with_log_key(&vkey);
    *world.shared.log.lock().unwrap() = Some(folder.clone());
    let verify = || world.run(&["audit", "verify", "--json"]);
    let first: Value = serde_json::from_slice(&verify().stdout).unwrap();
    assert_eq!((&first["size"], &first["consistent_with"]), (&json!(300), &Value::Null));
    log(&folder, key("k"), 5);
    let second: Value = serde_json::from_slice(&verify().stdout).unwrap();
    assert_eq!((&second["size"], &second["consistent_with"]), (&json!(305), &json!(300)));
    let local = folder.to_str().unwrap();
    assert!(world.ok(&["audit", "verify", "--dir", local, "--key", &vkey]).contains("305 records"));

    // One record changed in what the server publishes.
    let tile = folder.join("tile/entries/000");
    let good = std::fs::read(&tile).unwrap();
    let mut bad = good.clone();
    let at = 40 * good.len() / 256;
    bad[at] ^= 1;
    std::fs::write(&tile, &bad).unwrap();
    let output = verify();
    assert_eq!(output.status.code(), Some(8), "{}", text(&output.stderr));
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("from record"), "{error}");
    std::fs::write(&tile, &good).unwrap();
    assert!(verify().status.success());

    // The same key's holder begins anew: every signature is right, and yet it is noticed.
    let rewritten = keys.path().join("rewritten");
    log(&rewritten, key("k"), 400);
    *world.shared.log.lock().unwrap() = Some(rewritten);
    let output = verify();
    assert_eq!(output.status.code(), Some(8), "{}", text(&output.stdout));
}
