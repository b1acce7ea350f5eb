//! What the server is configured with.

use std::path::Path;

use super::child;
use super::policies;
use super::tls;
use super::upstream::CREDENTIAL;
use super::ways::{Bound, Reach};
use mcpx::control::issuer::password;

/// How one place differs from another.
#[derive(Clone)]
pub struct Options {
    pub policies: usize,
    /// A connection for each, with so many tools to list.
    pub tools: Vec<usize>,
    /// The longest message, if not the default.
    pub message_bytes: Option<usize>,
    /// What `mcpx connect` runs for.
    pub connects: Vec<Reach>,
    pub nginx: bool,
    pub bound: Bound,
}

/// As many policies as the speed targets speak of.
pub const POLICIES: usize = 50;

impl Default for Options {
    fn default() -> Self {
        Self {
            policies: POLICIES,
            tools: Vec::new(),
            message_bytes: None,
            connects: Vec::new(),
            nginx: false,
            bound: Bound::Key,
        }
    }
}

pub const USER: &str = "bench";
pub const PASSWORD: &str = "bench-password";

/// The folder in which children leave their counts.
pub const COUNTS: &str = "counts";

/// The connection whose server has so many tools.
pub fn tools_connection(tools: usize) -> String {
    format!("tools-{tools}")
}

/// Writes `mcpx.toml`, the policies, and the folder for counts.
pub fn write(dir: &Path, port: u16, options: &Options) {
    std::fs::create_dir(dir.join("policies")).expect("a folder");
    std::fs::create_dir(dir.join(COUNTS)).expect("a folder");
    let policies = policies::generate(options.policies);
    std::fs::write(dir.join("policies/bench.cedar"), policies).expect("policies");
    std::fs::write(dir.join("mcpx.toml"), config(dir, port, options)).expect("a configuration");
}

fn config(dir: &Path, port: u16, options: &Options) -> String {
    let text = |path: &Path| toml::Value::from(path.to_string_lossy().into_owned());
    let data = text(&dir.join("data"));
    let password = password::hash(PASSWORD).expect("randomness");
    let limits = options.message_bytes.map(|bytes| format!("[limits]\nmessage_bytes = {bytes}\n"));
    let mut config = format!(
        r#"
[server]
listen = "127.0.0.1:0"
data_dir = {data}
drain = "2s"
{tls}
{limits}
[policy]
dir = "policies"

[local_issuer]
poll_interval = 1

[[local_issuer.users]]
name = "{USER}"
groups = ["bench", "staff", "team-0"]
password_hash = "{password}"

[[connection]]
name = "{child}"
command = [{program}, "{argument}", {counts}]
processes = 1024
"#,
        tls = match options.bound {
            Bound::Key => String::new(),
            Bound::Certificate => format!(
                "[server.tls]\ncertificate = {}\nkey = {}\n",
                text(&tls::certificate()),
                text(&tls::key())
            ),
        },
        limits = limits.unwrap_or_default(),
        child = Reach::Stdio.connection(),
        program = text(&std::env::current_exe().expect("this program's file")),
        argument = child::ARGUMENT,
        counts = text(&dir.join(COUNTS)),
    );
    let bench = (Reach::Http.connection().to_owned(), "/mcp".to_owned());
    let more = options.tools.iter().map(|n| (tools_connection(*n), format!("/mcp/{n}")));
    for (name, path) in std::iter::once(bench).chain(more) {
        config += &format!(
            r#"
[[connection]]
name = "{name}"
url = "http://127.0.0.1:{port}{path}"
[connection.credential]
header = "authorization"
prefix = "Bearer "
from = "env:{VARIABLE}"
"#
        );
    }
    config
}

/// The environment variable with the credential, and what it must hold.
pub const VARIABLE: &str = "BENCH_CREDENTIAL";

/// What the server's environment must hold.
pub fn environment() -> (&'static str, &'static str) {
    (VARIABLE, CREDENTIAL)
}
