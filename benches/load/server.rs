//! `mcpx serve` and `mcpx connect` as processes.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use url::Url;

use super::config;
use super::process::Process;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_mcpx");

/// A server that takes requests.
pub struct Server {
    process: Process,
    pub url: String,
    /// From the start of the process until it took requests.
    pub started_in: Duration,
}

impl Server {
    /// Starts it on the configuration in `dir`.
    pub fn start(dir: &Path) -> Self {
        let ready = dir.join("ready.json");
        if ready.exists() {
            std::fs::remove_file(&ready).expect("an old file goes");
        }
        let log = std::fs::File::create(dir.join("server.log")).expect("a log");
        let (variable, credential) = config::environment();
        let begun = Instant::now();
        let server = Command::new(PROGRAM)
            .arg("serve")
            .arg("--config")
            .arg(dir.join("mcpx.toml"))
            .arg("--ready-file")
            .arg(&ready)
            .env(variable, credential)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let mut process = Process(server.expect("mcpx serve starts"));
        while begun.elapsed() < PATIENCE && matches!(process.0.try_wait(), Ok(None)) {
            if let Ok(text) = std::fs::read_to_string(&ready) {
                let started_in = begun.elapsed();
                let told: Value = serde_json::from_str(&text).expect("JSON");
                let url = told["server"].as_str().expect("a URL").to_owned();
                return Self { process, url, started_in };
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("{}", std::fs::read_to_string(dir.join("server.log")).unwrap_or_default());
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }
}

/// How long a server may take to start: it may have a long log to read.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Starts `mcpx connect`; its local URL.
pub fn connect(home: &Path, connection: &str) -> (Process, Url) {
    let mut child = Command::new(PROGRAM)
        .args(["connect", connection, "--json"])
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

/// Checks the log in a data directory; what the command says on failure.
pub fn verify(data: &Path) -> Result<(), String> {
    let verified = Command::new(PROGRAM).args(["audit", "verify", "--dir"]).arg(data).output();
    let verified = verified.expect("mcpx audit verify starts");
    if verified.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&verified.stderr).into_owned())
}
