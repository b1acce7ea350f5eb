//! Somebody at their own machine: a home folder with a login in it, and the commands they run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use super::client::{Client, Seen, Target};
use super::idp::Idp;
use super::proc::{Output, Proc};
use super::site::{MCPX, Server};
use super::world::World;

/// Somebody with an account at the identity provider.
pub struct Person<'a> {
    world: &'a World<'a>,
    name: String,
    home: PathBuf,
    /// The certificate authority that their machine trusts besides the usual ones.
    trusted: Option<PathBuf>,
}

/// `mcpx connect` with a local port; it runs as long as this is held.
pub struct Connected {
    /// The local address for MCP clients.
    pub url: String,
    _proc: Proc,
}

impl Connected {
    /// What to give an MCP client.
    pub fn target(&self) -> Target {
        Target::Url(self.url.clone())
    }
}

/// `mcpx login` at the point where it waits for the person.
pub struct LoggingIn {
    /// The address to open, with the code in it.
    pub address: String,
    /// What it printed first.
    pub shown: Value,
    /// Its process.
    pub proc: Proc,
}

impl<'a> Person<'a> {
    /// Somebody who has never run the program before.
    ///
    /// # Errors
    /// Their home folder cannot be made.
    pub fn new(world: &'a World, name: &str) -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let home = world.dir().join("people").join(name);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&home)?;
        Ok(Self { world, name: name.to_owned(), home, trusted: None })
    }

    /// Somebody who has logged in.
    ///
    /// # Errors
    /// They cannot.
    pub fn logged_in(
        world: &'a World,
        name: &str,
        server: &Server,
        idp: &Idp,
    ) -> anyhow::Result<Self> {
        let person = Self::new(world, name)?;
        let login = person.login(server)?;
        idp.approve(&login.address, name)?;
        login.proc.finish()?.exits(0);
        Ok(person)
    }

    /// Makes their machine trust a certificate authority, as an administrator would.
    pub fn trust(&mut self, authority: &Path) {
        self.trusted = Some(authority.to_owned());
    }

    /// What the program keeps for them.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A command line of theirs.
    ///
    /// # Errors
    /// The world cannot hold it.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = self.world.command(MCPX)?;
        command.env("MCPX_HOME", &self.home).args(arguments);
        if let Some(authority) = &self.trusted {
            command.env("SSL_CERT_FILE", authority);
        }
        Ok(command)
    }

    /// Starts the program and returns at once.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, arguments: &[&str]) -> anyhow::Result<Proc> {
        let verb: Vec<_> = arguments.iter().take(2).copied().collect();
        let name = format!("{} {}", self.name, verb.join(" "));
        Proc::start(self.world, &name, self.command(arguments)?)
    }

    /// Runs the program to its end.
    ///
    /// # Errors
    /// It cannot be started or does not end.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.start(arguments)?.finish()
    }

    /// Begins a login.
    ///
    /// # Errors
    /// The program shows no address to open.
    pub fn login(&self, server: &Server) -> anyhow::Result<LoggingIn> {
        let arguments = ["login", "--server", &server.url];
        let flags = ["--insecure-file", "--no-browser", "--json"];
        let mut proc = self.start(&[&arguments[..], &flags].concat())?;
        let shown = proc.first_json_line()?;
        let address = shown["verification_uri_complete"]
            .as_str()
            .with_context(|| format!("no verification_uri_complete: {shown}"))?
            .to_owned();
        Ok(LoggingIn { address, shown, proc })
    }

    /// Begins a login through a browser on this machine; with `issuer`, at another than the first.
    ///
    /// # Errors
    /// The program shows no address to open.
    pub fn login_through_browser(
        &self,
        server: &Server,
        issuer: Option<&str>,
    ) -> anyhow::Result<LoggingIn> {
        let mut arguments = vec!["login", "--server", &server.url, "--browser", "--no-browser"];
        arguments.extend(["--insecure-file", "--json"]);
        arguments.extend(issuer.map(|name| ["--issuer", name]).into_iter().flatten());
        let mut proc = self.start(&arguments)?;
        let shown = proc.first_json_line()?;
        let address = shown["authorization_uri"]
            .as_str()
            .with_context(|| format!("no authorization_uri: {shown}"))?
            .to_owned();
        Ok(LoggingIn { address, shown, proc })
    }

    /// Opens a local port for MCP clients.
    ///
    /// # Errors
    /// The program prints no address.
    pub fn connect(&self, connection: &str) -> anyhow::Result<Connected> {
        let mut proc = self.start(&["connect", connection, "--json"])?;
        let line = proc.first_json_line()?;
        let url = line["url"].as_str().with_context(|| format!("no url: {line}"))?.to_owned();
        Ok(Connected { url, _proc: proc })
    }

    /// The command line that an MCP client is given for a connection over stdio.
    pub fn stdio(&self, connection: &str) -> Target {
        Target::Command(self.stdio_command(connection))
    }

    /// The words of [`Self::stdio`].
    pub fn stdio_command(&self, connection: &str) -> Vec<String> {
        // Some clients give their servers next to no environment: the home is an argument.
        let home = self.home().display().to_string();
        let argv = [MCPX, "--home", &home, "connect", connection, "--stdio"];
        argv.map(str::to_owned).to_vec()
    }

    /// Calls a tool with a real client over a local port that is open for that long.
    ///
    /// # Errors
    /// [`super::Refused`], or something does not work.
    pub fn call(
        &self,
        client: Client,
        connection: &str,
        tool: &str,
        arguments: &Value,
    ) -> anyhow::Result<Seen> {
        let connected = self.connect(connection)?;
        client.call(self.world, &self.home, &connected.target(), tool, arguments)
    }
}
