//! A story's own world: a fresh folder, and the real servers it starts in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::idp::Idp;
use super::parts::Parts;
use super::proc::Proc;

/// A folder of its own, and the parts to fill it with.
pub struct World<'a> {
    dir: PathBuf,
    parts: &'a Parts,
    started: AtomicUsize,
}

/// An MCP server; it runs as long as this is held.
pub struct Upstream {
    /// Where it listens.
    pub url: String,
    proc: Proc,
}

impl Upstream {
    /// `kill -9`.
    pub fn kill(&mut self) {
        self.proc.kill();
    }
}

impl<'a> World<'a> {
    /// A fresh folder for a story.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(name: &str, parts: &'a Parts) -> anyhow::Result<Self> {
        let dir =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("story").join(name.replace("::", "-"));
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(dir.join("logs"))?;
        Ok(Self { dir, parts, started: AtomicUsize::new(0) })
    }

    /// The story's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is installed.
    pub fn parts(&self) -> &Parts {
        self.parts
    }

    /// Writes a file, and the folders above it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&self.dir))?;
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Writes a program that runs `command`, for clients that take one path.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_program(&self, name: &str, command: &[String]) -> anyhow::Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let quoted: Vec<_> =
            command.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
        let path = self.write(name, &format!("#!/bin/sh\nexec {}\n", quoted.join(" ")))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// Forgets the folder, after a story that went well.
    pub fn remove(&self) {
        drop(fs::remove_dir_all(&self.dir));
    }

    /// The two files that take a process's output.
    pub fn log_files(&self, name: &str) -> (PathBuf, PathBuf) {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let stem = format!("{number:02}-{}", name.replace(['/', ' '], "-"));
        let logs = self.dir.join("logs");
        (logs.join(format!("{stem}.out")), logs.join(format!("{stem}.err")))
    }

    /// A command in this world: nothing of the caller's environment but `PATH`, and a home folder
    /// in which nobody has configured anything.
    ///
    /// # Errors
    /// The home folder cannot be made.
    pub fn command(&self, program: impl AsRef<Path>) -> anyhow::Result<Command> {
        let home = self.dir.join("home");
        fs::create_dir_all(&home)?;
        let mut command = Command::new(program.as_ref());
        command.env_clear().current_dir(&self.dir).env("HOME", home);
        // LLVM_PROFILE_FILE: coverage of the program under test.
        for kept in ["PATH", "TMPDIR", "LANG", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        Ok(command)
    }

    /// The organisation's identity provider.
    ///
    /// # Errors
    /// It does not start.
    pub fn idp(&self) -> anyhow::Result<Idp> {
        let mut command = self.command(self.parts.node()?)?;
        command.arg(self.parts.script("idp.mjs")).arg("0");
        let mut proc = Proc::start(self, "idp", command)?;
        let ready = proc.first_json_line()?;
        Ok(Idp::new(ready["issuer"].as_str().unwrap_or_default().to_owned(), proc))
    }

    /// `server-everything` over HTTP.
    ///
    /// # Errors
    /// It does not start.
    pub fn everything(&self) -> anyhow::Result<Upstream> {
        let [node, script, _] = self.everything_stdio()?;
        let mut command = self.command(node)?;
        command.args([&script, "streamableHttp"]).env("PORT", "0");
        self.http_server("everything", "mcp", command)
    }

    /// `server-everything` over HTTP+SSE.
    ///
    /// # Errors
    /// It does not start.
    pub fn everything_sse(&self) -> anyhow::Result<Upstream> {
        let [node, script, _] = self.everything_stdio()?;
        let mut command = self.command(node)?;
        command.args([&script, "sse"]).env("PORT", "0");
        self.http_server("everything-sse", "sse", command)
    }

    /// `server-everything` over stdio.
    ///
    /// # Errors
    /// It is not installed.
    pub fn everything_stdio(&self) -> anyhow::Result<[String; 3]> {
        let script = self.parts.package("@modelcontextprotocol/server-everything/dist/index.js");
        Ok([text(self.parts.node()?), text(&script), "stdio".to_owned()])
    }

    /// DBHub over HTTP on a fresh database of customers.
    ///
    /// # Errors
    /// It does not start.
    pub fn dbhub(&self) -> anyhow::Result<Upstream> {
        self.dbhub_with(&[])
    }

    /// As [`Self::dbhub`], with more arguments.
    ///
    /// # Errors
    /// It does not start.
    pub fn dbhub_with(&self, more: &[&str]) -> anyhow::Result<Upstream> {
        let [node, arguments @ ..] = self.dbhub_stdio()?;
        let mut command = self.command(node)?;
        command.args(arguments).args(["--transport", "http", "--port", "0"]).args(more);
        self.http_server("dbhub", "mcp", command)
    }

    /// DBHub over stdio on a fresh database of customers.
    ///
    /// # Errors
    /// It is not installed, or the database cannot be made.
    pub fn dbhub_stdio(&self) -> anyhow::Result<[String; 4]> {
        let file = self.dir.join("customers.db");
        if !file.exists() {
            let mut seed = self.command(self.parts.python()?)?;
            seed.arg(self.parts.script("customers.py")).arg(&file);
            Proc::run(self, "customers", seed)?.exits(0);
        }
        let script = self.parts.package("@bytebase/dbhub/dist/index.js");
        let dsn = format!("sqlite://{}", file.display());
        Ok([text(self.parts.node()?), text(&script), "--dsn".to_owned(), dsn])
    }

    /// `mcp-server-git` over stdio on a fresh repository with one commit.
    ///
    /// # Errors
    /// It is not installed, or there is no git.
    pub fn git_stdio(&self) -> anyhow::Result<[String; 3]> {
        let program = self.parts.python_program("mcp-server-git")?;
        let repository = self.repository();
        fs::create_dir_all(&repository)?;
        fs::write(repository.join("README"), "A repository for a story.\n")?;
        for arguments in [
            &["init", "--quiet", "--initial-branch=main"][..],
            &["add", "README"],
            &["commit", "--quiet", "--message", "Begin the story"],
        ] {
            let mut git = self.command("git")?;
            git.current_dir(&repository).args(arguments);
            for who in ["AUTHOR", "COMMITTER"] {
                git.env(format!("GIT_{who}_NAME"), "Grace Story");
                git.env(format!("GIT_{who}_EMAIL"), "grace.story@example.com");
            }
            Proc::run(self, "git", git)?.exits(0);
        }
        Ok([text(&program), "--repository".to_owned(), text(&repository)])
    }

    /// The repository of [`Self::git_stdio`].
    pub fn repository(&self) -> PathBuf {
        self.dir.join("repository")
    }

    /// The server that writes down what it executes, over HTTP. See [`Self::executed`].
    ///
    /// # Errors
    /// It does not start.
    pub fn ledger(&self) -> anyhow::Result<Upstream> {
        let [python, script, file] = self.ledger_stdio()?;
        let mut command = self.command(python)?;
        command.args([&script, &file, "--http"]);
        let mut proc = Proc::start(self, "ledger", command)?;
        let port = proc.first_json_line()?["port"].clone();
        Ok(Upstream { url: format!("http://127.0.0.1:{port}/mcp"), proc })
    }

    /// The server that the conformance suite is content with, over HTTP.
    ///
    /// # Errors
    /// It does not start.
    pub fn fixture(&self) -> anyhow::Result<Upstream> {
        self.fixture_over("--http", "mcp")
    }

    /// The server that the conformance suite is content with, over HTTP+SSE.
    ///
    /// # Errors
    /// It does not start.
    pub fn fixture_sse(&self) -> anyhow::Result<Upstream> {
        self.fixture_over("--sse", "sse")
    }

    fn fixture_over(&self, transport: &str, path: &str) -> anyhow::Result<Upstream> {
        let [python, script] = self.fixture_stdio()?;
        let mut command = self.command(python)?;
        command.args([&script, transport]);
        let mut proc = Proc::start(self, "fixture", command)?;
        let port = proc.first_json_line()?["port"].clone();
        Ok(Upstream { url: format!("http://127.0.0.1:{port}/{path}"), proc })
    }

    /// The same server on the TypeScript SDK, over HTTP.
    ///
    /// # Errors
    /// It does not start.
    pub fn typescript_fixture(&self) -> anyhow::Result<Upstream> {
        let mut command = self.command(self.parts.node()?)?;
        command.arg(self.parts.script("fixture.mjs"));
        let mut proc = Proc::start(self, "typescript fixture", command)?;
        let port = proc.first_json_line()?["port"].clone();
        Ok(Upstream { url: format!("http://127.0.0.1:{port}/mcp"), proc })
    }

    /// The server that the conformance suite is content with, over stdio.
    ///
    /// # Errors
    /// It is not installed.
    pub fn fixture_stdio(&self) -> anyhow::Result<[String; 2]> {
        Ok([text(self.parts.python()?), text(&self.parts.script("fixture.py"))])
    }

    /// The server that writes down what it executes, over stdio. See [`Self::executed`].
    ///
    /// # Errors
    /// It is not installed.
    pub fn ledger_stdio(&self) -> anyhow::Result<[String; 3]> {
        let script = self.parts.script("ledger.py");
        Ok([text(self.parts.python()?), text(&script), text(&self.dir.join("ledger.jsonl"))])
    }

    /// The calls that the ledger servers of this story executed.
    pub fn executed(&self) -> Vec<Value> {
        let ledger = fs::read_to_string(self.dir.join("ledger.jsonl")).unwrap_or_default();
        ledger.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Starts a Node server of somebody else's on a free port of 127.0.0.1.
    fn http_server(
        &self,
        name: &str,
        path: &str,
        mut command: Command,
    ) -> anyhow::Result<Upstream> {
        let file = self.dir.join(format!("{name}.port"));
        let preload = self.parts.script("loopback.cjs");
        command
            .env("NODE_OPTIONS", format!("--require {}", preload.display()))
            .env("PARTS_PORT_FILE", &file);
        let mut proc = Proc::start(self, name, command)?;
        let port = proc.until("listens", |_| {
            let Ok(ready) = fs::read(&file) else { return Ok(None) };
            Ok(Some(serde_json::from_slice::<Value>(&ready)?["port"].clone()))
        })?;
        Ok(Upstream { url: format!("http://127.0.0.1:{port}/{path}"), proc })
    }
}

/// The values in the database of customers that nobody may see.
pub fn customers() -> Value {
    json!({
        "email": ["ada.moreno@example.com", "bjorn@example.org", "chidi.okafor@example.net"],
        "ssn": ["219-09-9999", "078-05-1120", "721-07-4426"],
        "card": ["4111 1111 1111 1111", "5555555555554444", "378282246310005"],
    })
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
