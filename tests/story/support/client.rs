//! The real MCP clients: each lists the tools of a server and calls one.

use std::path::Path;
use std::process::Command;

use anyhow::bail;
use serde_json::Value;

use super::proc::{Output, Proc};
use super::world::World;

/// A client by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// The Python SDK, newest protocol that the server speaks.
    Python,
    /// The Python SDK, beginning with `initialize`.
    PythonLegacy,
    /// The TypeScript SDK, version 1.
    TypeScript1,
    /// The TypeScript SDK, version 2, newest protocol that the server speaks.
    TypeScript2,
    /// The Python SDK, whose user is asked and goes on.
    PythonAsked,
    /// The Python SDK, whose user is asked and declines.
    PythonDeclines,
    /// The TypeScript SDK, version 2, whose user is asked and goes on.
    TypeScript2Asked,
    /// The MCP Inspector on the command line.
    Inspector,
}

/// Where a client finds its server.
#[derive(Clone, Debug)]
pub enum Target {
    /// At a URL.
    Url(String),
    /// It starts it and talks over its standard input and output.
    Command(Vec<String>),
}

/// What a client saw.
#[derive(Debug)]
pub struct Seen {
    /// The protocol version that was agreed on, where the client tells.
    pub protocol: Option<String>,
    /// The names of the tools.
    pub tools: Vec<String>,
    /// The result of the call.
    pub result: Value,
    /// The progress that was reported on the way.
    pub progress: Vec<Value>,
    /// What its user was asked.
    pub asked: Vec<Value>,
}

/// An error of the protocol, as a client reports it.
#[derive(Debug, thiserror::Error)]
#[error("the client reports {error}")]
pub struct Refused {
    /// `{code, message, data}`, as far as the client tells.
    pub error: Value,
}

impl Seen {
    /// The text blocks of the result.
    pub fn text(&self) -> String {
        let blocks = self.result["content"].as_array().map(Vec::as_slice).unwrap_or_default();
        let texts: Vec<_> = blocks.iter().filter_map(|block| block["text"].as_str()).collect();
        texts.join("\n")
    }

    /// Whether the result says that the tool failed.
    pub fn is_error(&self) -> bool {
        self.result["isError"] == Value::Bool(true)
    }
}

impl Client {
    /// Every client, as it comes.
    pub const ALL: [Self; 5] =
        [Self::Python, Self::PythonLegacy, Self::TypeScript1, Self::TypeScript2, Self::Inspector];

    /// Lists tools and calls one, as the program of the person whose `home` this is.
    ///
    /// # Errors
    /// [`Refused`] if the client reports an error; anything else if it does not work at all.
    pub fn call(
        self,
        world: &World,
        home: &Path,
        target: &Target,
        tool: &str,
        arguments: &Value,
    ) -> anyhow::Result<Seen> {
        self.start(world, home, target, tool, arguments)?.finish()
    }

    /// Begins [`Self::call`] and returns at once.
    ///
    /// # Errors
    /// The client cannot be started.
    pub fn start(
        self,
        world: &World,
        home: &Path,
        target: &Target,
        tool: &str,
        arguments: &Value,
    ) -> anyhow::Result<Calling> {
        if self == Self::Inspector {
            let mut list = inspector(world, home, target)?;
            list.args(["--method", "tools/list"]);
            let list = Proc::run(world, "inspector list", list)?;
            let mut call = inspector(world, home, target)?;
            call.args(["--method", "tools/call", "--tool-name", tool]);
            for (name, value) in arguments.as_object().into_iter().flatten() {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                call.args(["--tool-arg", &format!("{name}={value}")]);
            }
            let proc = Proc::start(world, "inspector call", call)?;
            return Ok(Calling { client: self, proc, list: Some(list) });
        }
        let parts = world.parts();
        let (program, script, mode) = match self {
            Self::Python | Self::PythonAsked | Self::PythonDeclines => {
                (parts.python()?, "client.py", "auto")
            }
            Self::PythonLegacy => (parts.python()?, "client.py", "legacy"),
            Self::TypeScript1 => (parts.node()?, "client.mjs", "v1"),
            Self::TypeScript2 | Self::TypeScript2Asked | Self::Inspector => {
                (parts.node()?, "client.mjs", "v2")
            }
        };
        let mut command = world.command(program)?;
        command.env("MCPX_HOME", home).env("CLIENT_PROGRESS", "1");
        match self {
            Self::PythonAsked | Self::TypeScript2Asked => command.env("CLIENT_ANSWERS", "accept"),
            Self::PythonDeclines => command.env("CLIENT_ANSWERS", "decline"),
            _ => &mut command,
        };
        command.arg(parts.script(script)).args([mode, tool, &arguments.to_string()]);
        match target {
            Target::Url(url) => command.arg(url),
            Target::Command(argv) => command.arg("--").args(argv),
        };
        let proc = Proc::start(world, &format!("{self:?} {tool}"), command)?;
        Ok(Calling { client: self, proc, list: None })
    }
}

/// A call under way.
pub struct Calling {
    client: Client,
    /// The client's process.
    pub proc: Proc,
    list: Option<Output>,
}

impl Calling {
    /// Waits for what the client saw.
    ///
    /// # Errors
    /// [`Refused`] if the client reports an error; anything else if it does not work at all.
    pub fn finish(self) -> anyhow::Result<Seen> {
        let output = self.proc.finish()?;
        let Ok(mut printed) = parse(&output) else {
            bail!("{:?} does not work: {output:#?}", self.client);
        };
        if let Some(error) = printed.get_mut("error") {
            return Err(Refused { error: error.take() }.into());
        }
        if let Some(list) = self.list {
            let listed = parse(&list)?;
            let tools = listed["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
            let tools = tools.iter().filter_map(|tool| tool["name"].as_str());
            return Ok(Seen {
                protocol: None,
                tools: tools.map(str::to_owned).collect(),
                result: printed,
                progress: vec![],
                asked: vec![],
            });
        }
        let list = |name: &str| printed[name].as_array().cloned().unwrap_or_default();
        Ok(Seen {
            protocol: printed["protocol"].as_str().map(str::to_owned),
            tools: list("tools").iter().filter_map(|t| t.as_str()).map(str::to_owned).collect(),
            result: printed["result"].clone(),
            progress: list("progress"),
            asked: list("asked"),
        })
    }
}

fn inspector(world: &World, home: &Path, target: &Target) -> anyhow::Result<Command> {
    let parts = world.parts();
    let script = "@modelcontextprotocol/inspector/clients/launcher/build/index.js";
    let mut command = world.command(parts.node()?)?;
    command.env("MCPX_HOME", home).arg(parts.package(script)).arg("--cli");
    match target {
        Target::Url(url) => command.arg(url).args(["--transport", "http"]),
        // The Inspector would read the options of a command line as its own.
        Target::Command(argv) => command.arg(world.write_program("bin/inspected", argv)?),
    };
    Ok(command)
}

/// What a client printed: its last line as JSON, or all of it. The Inspector prints its errors as
/// JSON too, but on standard error.
fn parse(output: &Output) -> anyhow::Result<Value> {
    let last = |text: &str| text.lines().last().unwrap_or_default().to_owned();
    if output.code == 0 {
        return serde_json::from_str(&output.stdout)
            .or_else(|_| serde_json::from_str(&last(&output.stdout)))
            .map_err(Into::into);
    }
    [last(&output.stdout), last(&output.stderr)]
        .iter()
        .find_map(|line| {
            serde_json::from_str::<Value>(line).ok().filter(|v| v.get("error").is_some())
        })
        .ok_or_else(|| anyhow::anyhow!("no JSON: {output:#?}"))
}
