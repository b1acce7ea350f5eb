//! Where it happens: configuration and policies in a fresh folder, the server's process, one
//! person's login, and one `mcpx connect`.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcpx::broker::credentials::StorageKind;
use mcpx::broker::device::DevicePrompt;
use mcpx::broker::grant::GrantSource;
use mcpx::broker::home::Home;
use mcpx::broker::login::{Login, LoginRequest};
use mcpx::broker::server::{self, ServerInfo};
use mcpx::control::issuer::password;
use mcpx::types::SystemClock;
use serde_json::Value;
use url::Url;

use super::journal::{Commits, Journal};
use super::process::{Process, cpu, resident};
use super::upstream::{CREDENTIAL, Upstream};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_mcpx");
pub const CONNECTION: &str = "bench";

/// How a call reaches the upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Straight.
    Direct,
    /// Through `mcpx serve`, with a proof for each request.
    Gateway,
    /// Through `mcpx connect`'s local port, then `mcpx serve`.
    Connect,
}

pub const WAYS: [Way; 3] = [Way::Direct, Way::Gateway, Way::Connect];

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Gateway => "gateway",
            Self::Connect => "connect",
        }
    }
}

/// Everything that runs. Dropped in this order: clients of a server before the server.
pub struct Place {
    connect: Process,
    pub local: Url,
    login: Login,
    info: ServerInfo,
    pub home: PathBuf,
    server: Process,
    upstream: Upstream,
    journal: RefCell<Journal>,
    folder: tempfile::TempDir,
}

impl Place {
    pub async fn open() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = folder.path();
        let upstream = Upstream::start();
        std::fs::create_dir(dir.join("policies")).expect("a folder");
        std::fs::write(dir.join("policies/bench.cedar"), POLICIES).expect("policies");
        let secret = "bench-password";
        let config = config(dir, upstream.port, &password::hash(secret).expect("randomness"));
        std::fs::write(dir.join("mcpx.toml"), config).expect("a configuration");
        let log = std::fs::File::create(dir.join("server.log")).expect("a log");
        let server = Command::new(PROGRAM)
            .arg("serve")
            .arg("--config")
            .arg(dir.join("mcpx.toml"))
            .arg("--ready-file")
            .arg(dir.join("ready.json"))
            .env("BENCH_CREDENTIAL", CREDENTIAL)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let server = Process(server.expect("mcpx serve starts"));
        let url = ready(dir);
        let home = dir.join("home");
        let (login, info) = log_in(&url, &home, secret).await;
        let (connect, local) = connect(&home);
        let journal = RefCell::new(Journal::new(&dir.join("data/log/journal")));
        Self { connect, local, login, info, home, server, upstream, journal, folder }
    }

    /// Machine and disk, which the figures depend on.
    pub fn describe(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let (median, p99) = syncs(self.folder.path());
        format!(
            "{cores} cores; fdatasync of 4 KiB in {}: p50 {median:.2?}, p99 {p99:.2?}",
            self.folder.path().parent().unwrap_or(Path::new("?")).display(),
        )
    }

    /// Where the upstream answers.
    pub fn upstream_url(&self) -> Url {
        format!("http://127.0.0.1:{}/mcp", self.upstream.port).parse().expect("a URL")
    }

    /// Where the gateway answers for it.
    pub fn gateway_url(&self) -> Url {
        format!("{}mcp/{CONNECTION}", self.info.server).parse().expect("a URL")
    }

    /// A grant of its own for the gateway.
    pub fn grant(&self) -> GrantSource {
        let clock = Arc::new(SystemClock);
        let login = Arc::new(self.login.clone());
        GrantSource::new(self.info.clone(), login, self.gateway_url().as_str(), None, clock)
            .expect("a key")
    }

    /// The processes on a way, the upstream first.
    fn processes(&self, way: Way) -> Vec<u32> {
        let pids = [self.upstream.pid(), self.server.0.id(), self.connect.0.id()];
        let used = match way {
            Way::Direct => 1,
            Way::Gateway => 2,
            Way::Connect => 3,
        };
        pids.into_iter().take(used).collect()
    }

    /// What the processes on a way have used so far.
    pub fn cpu(&self, way: Way) -> Option<Duration> {
        self.processes(way).into_iter().map(cpu).sum()
    }

    /// What the process nearest to the tool's caller keeps in memory, and the others before the
    /// upstream with it; for the direct way the upstream.
    pub fn resident(&self, way: Way) -> Option<f64> {
        let pids = self.processes(way);
        let counted = if pids.len() > 1 { &pids[1..] } else { &pids[..] };
        counted.iter().map(|pid| resident(*pid)).sum()
    }

    /// What the audit log committed since this was asked last.
    pub fn commits(&self) -> Commits {
        self.journal.borrow_mut().news()
    }

    /// Ends everything and checks what must be true at the end: every call reached the tool once,
    /// and the log verifies with a record of each.
    pub fn close(self, calls: u64) -> String {
        let Self { connect, server, upstream, folder, .. } = self;
        drop(connect);
        drop(server);
        let reached = upstream.close();
        assert_eq!(reached, calls, "calls that reached the tool, and calls that were answered");
        let data = folder.path().join("data");
        let verified = Command::new(PROGRAM).args(["audit", "verify", "--dir"]).arg(&data).output();
        let verified = verified.expect("mcpx audit verify starts");
        let said = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success(), "the log does not verify: {said}");
        let log = std::fs::read_to_string(folder.path().join("server.log")).unwrap_or_default();
        let complaints = log.lines().filter(|l| l.contains("WARN") || l.contains("ERROR")).count();
        format!(
            "{calls} calls were answered as they must be and reached the tool once; the log \
             verifies; {complaints} warnings of the server"
        )
    }
}

const POLICIES: &str = r#"
@id("bench-may-connect")
permit (
    principal in Group::"bench",
    action in [Action::"connect", Action::"protocol", Action::"read"],
    resource in Connection::"bench"
);

@id("bench-may-call")
permit (
    principal in Group::"bench",
    action == Action::"tools/call",
    resource in Connection::"bench"
);

@id("deletion-needs-a-lead")
@approval("group:leads")
forbid (
    principal,
    action == Action::"tools/call",
    resource == Tool::"bench/delete"
) unless { context.approved };

@id("no-export")
forbid (principal, action == Action::"tools/call", resource == Tool::"bench/export");
"#;

fn config(dir: &Path, port: u16, password: &str) -> String {
    let data = toml::Value::from(dir.join("data").to_string_lossy().into_owned());
    format!(
        r#"
[server]
listen = "127.0.0.1:0"
data_dir = {data}
drain = "2s"

[policy]
dir = "policies"

[[connection]]
name = "{CONNECTION}"
url = "http://127.0.0.1:{port}/mcp"

[connection.credential]
header = "authorization"
prefix = "Bearer "
from = "env:BENCH_CREDENTIAL"

[local_issuer]
poll_interval = 1

[[local_issuer.users]]
name = "{USER}"
groups = ["bench"]
password_hash = "{password}"
"#
    )
}

const USER: &str = "bench";

/// How long anything may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

fn ready(dir: &Path) -> String {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Ok(text) = std::fs::read_to_string(dir.join("ready.json")) {
            let ready: Value = serde_json::from_str(&text).expect("JSON");
            return ready["server"].as_str().expect("a URL").to_owned();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{}", std::fs::read_to_string(dir.join("server.log")).unwrap_or_default());
}

/// Logs in by device code, with somebody at the browser.
async fn log_in(server: &str, home: &Path, password: &str) -> (Login, ServerInfo) {
    let info = server::fetch(server).await.expect("an mcpx server");
    let home = Home::open(home).expect("a home");
    let (shown, page) = tokio::sync::oneshot::channel();
    let request = LoginRequest {
        home: &home,
        server: &info,
        issuer: info.issuer(None).expect("an issuer"),
        storage: StorageKind::File,
        clock: Arc::new(SystemClock),
    };
    let prompt = |prompt: &DevicePrompt| {
        let page = prompt.verification_uri_complete.clone().expect("a page");
        shown.send(page).expect("a browser");
    };
    let login = Login::device(request, prompt, std::future::pending());
    let browser = async { confirm(page.await.expect("a page"), password).await };
    let (login, ()) = tokio::join!(login, browser);
    (login.expect("a login"), info)
}

async fn confirm(page: Url, password: &str) {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let shown = http.get(page.clone()).send().await.expect("the page");
    let cookie = shown.headers()["set-cookie"].to_str().expect("a cookie");
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    let html = shown.text().await.expect("the page");
    let field = |name: &str| {
        let rest = html.split_once(&format!("name=\"{name}\"")).expect("a field").1;
        rest.split_once("value=\"").expect("a value").1.split('"').next().unwrap_or_default()
    };
    let (token, code) = (field("form_token"), field("user_code"));
    let mut action = page.clone();
    action.set_query(None);
    let sent = http
        .post(action)
        .header("cookie", cookie)
        .header("origin", page.origin().ascii_serialization())
        .form(&[
            ("form_token", token),
            ("user_code", code),
            ("name", USER),
            ("password", password),
            ("action", "approve"),
        ])
        .send()
        .await
        .expect("an answer");
    assert!(sent.status().is_success(), "{}", sent.status());
}

fn connect(home: &Path) -> (Process, Url) {
    let mut child = Command::new(PROGRAM)
        .args(["connect", CONNECTION, "--json"])
        .env("MCPX_HOME", home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("mcpx connect starts");
    let output = child.stdout.take().expect("its output");
    let process = Process(child);
    let mut text = String::new();
    let mut lines = BufReader::new(output).lines();
    let opened = loop {
        text.push_str(&lines.next().expect("mcpx connect says its URL").expect("text"));
        if let Ok(opened) = serde_json::from_str::<Value>(&text) {
            break opened;
        }
    };
    (process, opened["url"].as_str().expect("a URL").parse().expect("a URL"))
}

/// What one sync costs on the disk that the audit log will be on: median and 99th percentile.
fn syncs(folder: &Path) -> (Duration, Duration) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(folder.join("sync")).expect("a file");
    let mut times: Vec<Duration> = (0..100)
        .map(|_| {
            let begun = Instant::now();
            file.write_all(&[7; 4096]).expect("a write");
            file.sync_data().expect("a sync");
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}
