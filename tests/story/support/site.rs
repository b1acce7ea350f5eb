//! An organisation's installation: its `mcpx.toml`, its policies, and the server that runs them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::idp::Idp;
use super::proc::{Output, Proc};
use super::world::World;

/// The program under test.
pub const MCPX: &str = env!("CARGO_BIN_EXE_mcpx");

/// Lets engineers use everything; stories add their own `forbid`s.
pub const ENGINEERS: &str = r#"
@id("engineers-connect")
permit(principal in Group::"eng", action == Action::"connect", resource);

@id("engineers-use")
permit(
    principal in Group::"eng",
    action in [Action::"protocol", Action::"read", Action::"server", Action::"tools/call"],
    resource
);
"#;

/// A second person has to look at every transfer of money.
pub const TRANSFERS: &str = r#"
@id("transfers-need-a-lead")
@approval("group:leads")
forbid(principal, action == Action::"tools/call", resource == Tool::"ledger/transfer")
unless { context.approved };
"#;

/// What goes into `mcpx.toml`, before it is written.
pub struct Site<'a> {
    world: &'a World<'a>,
    issuer: String,
    connections: String,
    policies: Vec<(String, String)>,
    listen: String,
    server: String,
    data_dir: String,
    grant_ttl: String,
    wait: String,
    expire: String,
    extra: String,
}

impl<'a> Site<'a> {
    /// An organisation with an identity provider, and engineers who may use what is connected.
    pub fn new(world: &'a World, idp: &Idp) -> Self {
        Self {
            world,
            issuer: idp.url.clone(),
            connections: String::new(),
            policies: vec![("engineers.cedar".to_owned(), ENGINEERS.to_owned())],
            listen: "127.0.0.1:0".to_owned(),
            server: String::new(),
            data_dir: "data".to_owned(),
            grant_ttl: "15m".to_owned(),
            wait: "30s".to_owned(),
            expire: "10m".to_owned(),
            extra: String::new(),
        }
    }

    /// An organisation without an OpenID provider: what else people log in with is in `extra`.
    pub fn alone(world: &'a World) -> Self {
        Self {
            world,
            issuer: String::new(),
            connections: String::new(),
            policies: vec![("engineers.cedar".to_owned(), ENGINEERS.to_owned())],
            listen: "127.0.0.1:0".to_owned(),
            server: String::new(),
            data_dir: "data".to_owned(),
            grant_ttl: "15m".to_owned(),
            wait: "30s".to_owned(),
            expire: "10m".to_owned(),
            extra: String::new(),
        }
    }

    /// Registers a server at a URL.
    pub fn http(mut self, name: &str, url: &str) -> Self {
        write!(self.connections, "\n[[connection]]\nname = {name:?}\nurl = {url:?}\n").unwrap();
        self
    }

    /// Registers a server that speaks HTTP+SSE.
    pub fn sse(self, name: &str, url: &str) -> Self {
        self.http(name, url).with("transport = \"sse\"")
    }

    /// Registers a server that is started as a child.
    pub fn stdio(mut self, name: &str, command: &[String]) -> Self {
        write!(
            self.connections,
            "\n[[connection]]\nname = {name:?}\ncommand = {command:?}\n\
             [connection.env]\nPATH = \"/usr/local/bin:/usr/bin:/bin\"\n"
        )
        .unwrap();
        self
    }

    /// Adds lines to the connection registered last, such as a credential.
    pub fn with(mut self, lines: &str) -> Self {
        self.connections.push_str(lines);
        self.connections.push('\n');
        self
    }

    /// Adds keys to the connection registered last, which `with` would put into its last table.
    pub fn keyed(mut self, lines: &str) -> Self {
        let table = "[[connection]]\n";
        let at = self.connections.rfind(table).map_or(0, |at| at + table.len());
        self.connections.insert_str(at, &format!("{lines}\n"));
        self
    }

    /// Adds or replaces a policy file.
    pub fn policy(mut self, file: &str, text: &str) -> Self {
        self.policies.retain(|(name, _)| name != file);
        self.policies.push((file.to_owned(), text.to_owned()));
        self
    }

    /// How long grants live.
    pub fn grant_ttl(mut self, ttl: &str) -> Self {
        ttl.clone_into(&mut self.grant_ttl);
        self
    }

    /// How long a call waits for an approver, and how long the approver has.
    pub fn approvals(mut self, wait: &str, expire: &str) -> Self {
        wait.clone_into(&mut self.wait);
        expire.clone_into(&mut self.expire);
        self
    }

    /// Where it listens, if not on any free port.
    pub fn listen(mut self, address: &str) -> Self {
        address.clone_into(&mut self.listen);
        self
    }

    /// Adds keys to `[server]`.
    pub fn server(mut self, lines: &str) -> Self {
        self.server.push_str(lines);
        self.server.push('\n');
        self
    }

    /// Where the server keeps its data.
    pub fn data_dir(mut self, dir: &Path) -> Self {
        self.data_dir = dir.display().to_string();
        self
    }

    /// Adds anything else to the configuration.
    pub fn extra(mut self, lines: &str) -> Self {
        self.extra.push_str(lines);
        self
    }

    /// Writes the configuration and its policies.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&self) -> anyhow::Result<PathBuf> {
        for (name, text) in &self.policies {
            self.world.write(&format!("server/policies/{name}"), text)?;
        }
        let Self { issuer, connections, data_dir, grant_ttl, wait, expire, extra, .. } = self;
        let Self { listen, server, .. } = self;
        let issuer = match issuer.as_str() {
            "" => String::new(),
            url => format!(
                "[[issuer]]\nname = \"corp\"\nurl = {url:?}\nclient_id = \"mcpx-cli\"\n\
                 scopes = [\"openid\", \"offline_access\", \"email\", \"groups\"]\n"
            ),
        };
        self.world.write(
            "server/mcpx.toml",
            &format!(
                r#"[server]
listen = {listen:?}
data_dir = {data_dir:?}
{server}

{issuer}
[policy]
dir = "policies"

[grants]
ttl = {grant_ttl:?}

[approvals]
wait = {wait:?}
expire = {expire:?}

[roles]
auditors = ["mcp-admins"]
operators = ["mcp-admins"]
{connections}
{extra}
"#
            ),
        )
    }

    /// Writes the configuration and starts the server.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(self) -> anyhow::Result<Server<'a>> {
        let config = self.write()?;
        let data = config.parent().unwrap_or(self.world.dir()).join(&self.data_dir);
        Server::start(self.world, config, data, |_command| ())
    }

    /// As [`Self::start`], with a change to the command: limits, environment.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_with(self, change: impl FnOnce(&mut Command)) -> anyhow::Result<Server<'a>> {
        let config = self.write()?;
        let data = config.parent().unwrap_or(self.world.dir()).join(&self.data_dir);
        Server::start(self.world, config, data, change)
    }
}

/// A running `mcpx serve`.
pub struct Server<'a> {
    world: &'a World<'a>,
    config: PathBuf,
    data: PathBuf,
    /// Where it listens.
    pub url: String,
    /// Its process.
    pub proc: Proc,
}

impl<'a> Server<'a> {
    fn start(
        world: &'a World,
        config: PathBuf,
        data: PathBuf,
        change: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        let ready = config.with_file_name("ready.json");
        drop(fs::remove_file(&ready));
        let mut command = serve(world, &config)?;
        command.arg("--ready-file").arg(&ready);
        change(&mut command);
        let mut proc = Proc::start(world, "serve", command)?;
        let url = proc.until("is ready", |_| {
            let text = fs::read_to_string(&ready).unwrap_or_default();
            let Some((line, _)) = text.split_once('\n') else { return Ok(None) };
            let line: Value = serde_json::from_str(line)?;
            Ok(line["server"].as_str().map(str::to_owned))
        })?;
        Ok(Self { world, config, data, url, proc })
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.proc.kill();
    }

    /// Starts it again on the same configuration and data, and the same port, so that whoever is
    /// logged in finds it.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.proc.kill();
        let address = self.url.trim_start_matches("http://");
        let text = fs::read_to_string(&self.config)?.replace("127.0.0.1:0", address);
        fs::write(&self.config, text)?;
        let (config, data) = (self.config.clone(), self.data.clone());
        *self = Self::start(self.world, config, data, |_command| ())?;
        Ok(())
    }

    /// Its configuration.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Where the server keeps its data.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The MCP endpoint of a connection, and the audience of its grants.
    pub fn resource(&self, connection: &str) -> String {
        format!("{}/mcp/{connection}", self.url)
    }

    /// What the audit log on disk says, oldest first: every leaf that lies in it as text. Read
    /// without the program's help, so that it cannot show something else than it wrote.
    pub fn leaves(&self) -> Vec<Value> {
        let mut found = std::collections::BTreeSet::new();
        for file in files(&self.data) {
            let bytes = fs::read(file).unwrap_or_default();
            let mut rest = bytes.as_slice();
            while let Some(start) = find(rest, br#"{"v":1,"at":""#) {
                rest = rest.get(start..).unwrap_or_default();
                let mut leaf = serde_json::Deserializer::from_slice(rest).into_iter::<Value>();
                if let Some(Ok(leaf)) = leaf.next() {
                    found.insert((leaf["at"].to_string(), leaf.to_string()));
                }
                rest = rest.get(1..).unwrap_or_default();
            }
        }
        found.iter().map(|(_, leaf)| serde_json::from_str(leaf).unwrap()).collect()
    }

    /// The leaves of one kind.
    pub fn leaves_of(&self, kind: &str) -> Vec<Value> {
        self.leaves().into_iter().filter(|leaf| leaf["kind"] == kind).collect()
    }

    /// Fails if any of these texts lies readable in the server's data or in what it printed.
    #[track_caller]
    pub fn holds_none_of<'t>(&self, texts: impl IntoIterator<Item = &'t str>) {
        let texts: Vec<_> = texts.into_iter().collect();
        for file in files(&self.data).into_iter().chain(self.proc.log_files()) {
            let bytes = fs::read(&file).unwrap_or_default();
            for text in &texts {
                assert!(
                    find(&bytes, text.as_bytes()).is_none(),
                    "{text:?} lies readable in {}",
                    file.display()
                );
            }
        }
    }

    /// Verifies the audit log, as whoever holds the data folder.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn verify(&self) -> anyhow::Result<Output> {
        let mut command = self.world.command(MCPX)?;
        command.args(["audit", "verify", "--dir"]).arg(&self.data);
        Proc::run(self.world, "audit verify", command)
    }
}

/// Runs `mcpx serve` on a configuration that is expected to be refused.
///
/// # Errors
/// The program cannot be run, or does not end.
pub fn serve_refuses(world: &World, config: &Path) -> anyhow::Result<Output> {
    Proc::run(world, "serve", serve(world, config)?)
}

fn serve(world: &World, config: &Path) -> anyhow::Result<Command> {
    let mut command = world.command(MCPX)?;
    command.args(["serve", "--config"]).arg(config);
    Ok(command)
}

/// Every file below a folder.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files = vec![];
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, text)
}
