//! The clients of the matrix: each goes through one plan for all servers in one process.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::shelf::PATH;
use crate::support::proc::PATIENCE;
use crate::support::{Proc, World};

/// A client that does as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The Python SDK in one of its modes.
    Python(&'static str),
    /// A TypeScript SDK: `v1`, or a mode of version 2.
    TypeScript(&'static str),
    /// `mcp-remote`, which a TypeScript client of version 1 starts as its server.
    Remote,
    /// The MCP Inspector on the command line: a process for each step.
    Inspector,
    /// The command line of `fastmcp`: a process for each step.
    FastMcp,
}

/// Where a client finds a server.
pub enum Target {
    /// At a URL.
    Url(String),
    /// It starts it, with this environment besides `PATH`.
    Command(Vec<String>, Vec<(&'static str, String)>),
}

/// What a client saw of one server: each step, and what came of it.
pub type Sight = Vec<(String, Value)>;

impl Driver {
    /// What people call it.
    pub fn name(self) -> String {
        match self {
            Self::Python(mode) => format!("Python SDK, {mode}"),
            Self::TypeScript("v1") => "TypeScript SDK v1".to_owned(),
            Self::TypeScript(mode) => format!("TypeScript SDK v2, {mode}"),
            Self::Remote => "mcp-remote (TypeScript SDK v1)".to_owned(),
            Self::Inspector => "Inspector CLI".to_owned(),
            Self::FastMcp => "fastmcp CLI".to_owned(),
        }
    }

    /// Whether it takes the newest protocol where a server speaks it.
    pub fn modern(self) -> bool {
        match self {
            Self::Python(mode) => mode != "legacy",
            Self::TypeScript(mode) => mode != "v1",
            Self::FastMcp => true,
            Self::Remote | Self::Inspector => false,
        }
    }

    /// Whether it stands before a URL only, here.
    pub fn needs_url(self) -> bool {
        matches!(self, Self::Remote | Self::Inspector | Self::FastMcp)
    }

    /// Whether it can take a step at all.
    pub fn takes(self, step: &str) -> bool {
        match self {
            Self::Inspector | Self::FastMcp => {
                matches!(step, "list" | "call" | "read" | "prompt")
            }
            Self::Remote => step != "resume",
            _ => true,
        }
    }

    /// Whether it takes nothing else.
    pub fn pinned(self) -> bool {
        matches!(self, Self::Python("2026-07-28") | Self::TypeScript("2026-07-28"))
    }

    /// Takes each server through its steps, one after the other.
    ///
    /// # Errors
    /// The client breaks down.
    pub fn run(
        self,
        world: &World,
        plans: &[(&str, Target, Vec<Value>)],
    ) -> anyhow::Result<BTreeMap<String, Sight>> {
        if matches!(self, Self::Inspector | Self::FastMcp) {
            return self.step_by_step(world, plans);
        }
        let parts = world.parts();
        let plans: Vec<Value> = plans
            .iter()
            .map(|(server, target, steps)| {
                let mut plan = json!({"server": server, "steps": steps, "env": {"PATH": PATH}});
                match (self, target) {
                    (Self::Remote, Target::Url(url)) => {
                        let remote = parts.package("mcp-remote/dist/proxy.js");
                        let node = parts.node()?;
                        plan["env"]["MCP_REMOTE_CONFIG_DIR"] = json!(world.dir().join("remote"));
                        plan["command"] =
                            json!([node, remote, url, "--allow-http", "--transport", "http-only"]);
                    }
                    (_, Target::Url(url)) => plan["url"] = json!(url),
                    (_, Target::Command(command, env)) => {
                        plan["command"] = json!(command);
                        for (name, value) in env {
                            plan["env"][*name] = json!(value);
                        }
                    }
                }
                Ok(plan)
            })
            .collect::<anyhow::Result<_>>()?;
        let file = world.write("plan.json", &json!(plans).to_string())?;
        let (program, script, mode): (&Path, _, _) = match self {
            Self::Python(mode) => (parts.python()?, "driver.py", mode),
            Self::TypeScript(mode) => (parts.node()?, "driver.mjs", mode),
            Self::Remote | Self::Inspector | Self::FastMcp => (parts.node()?, "driver.mjs", "v1"),
        };
        let mut command = world.command(program)?;
        command.arg(parts.script(script)).arg(mode).arg(file);
        let proc = Proc::start(world, &format!("drive {self:?}"), command)?;
        let output = proc.finish_within(4 * PATIENCE)?.exits(0);
        let mut seen: BTreeMap<String, Sight> = BTreeMap::new();
        for mut line in output.json_lines() {
            let server = line["server"].as_str().context("no server")?.to_owned();
            let step = line["step"].as_str().context("no step")?.to_owned();
            let what = line.as_object_mut().context("no object")?;
            what.retain(|key, _| key == "seen" || key == "error");
            seen.entry(server).or_default().push((step, line));
        }
        Ok(seen)
    }

    /// One process after the other: lists, and the first step of each kind.
    fn step_by_step(
        self,
        world: &World,
        plans: &[(&str, Target, Vec<Value>)],
    ) -> anyhow::Result<BTreeMap<String, Sight>> {
        let mut seen: BTreeMap<String, Sight> = BTreeMap::new();
        for (server, target, steps) in plans {
            let Target::Url(url) = target else { continue };
            let sight = seen.entry((*server).to_owned()).or_default();
            let list = json!({"step": "list"});
            for step in std::iter::once(&list).chain(steps) {
                let kind = step["step"].as_str().context("no step")?;
                if !self.takes(kind) || sight.iter().any(|(taken, _)| taken == kind) {
                    continue;
                }
                let has = |kind: &str| steps.iter().any(|step| step["step"] == kind);
                let command = match self {
                    Self::FastMcp if kind == "list" => {
                        let mut command = fastmcp(world, url, step)?;
                        // It fails where a server has none.
                        command.args(has("read").then_some("--resources"));
                        command.args(has("prompt").then_some("--prompts"));
                        command
                    }
                    Self::FastMcp => fastmcp(world, url, step)?,
                    _ => inspector(world, url, step)?,
                };
                let output = Proc::run(world, &format!("{self:?} {server} {kind}"), command)?;
                let what = match serde_json::from_str::<Value>(&output.stdout) {
                    Ok(seen) if output.code == 0 => json!({"seen": seen}),
                    _ => json!({"error": format!("{output:?}")}),
                };
                sight.push((kind.to_owned(), what));
            }
        }
        Ok(seen)
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn inspector(world: &World, url: &str, step: &Value) -> anyhow::Result<Command> {
    let script = "@modelcontextprotocol/inspector/clients/launcher/build/index.js";
    let mut command = world.command(world.parts().node()?)?;
    command.arg(world.parts().package(script));
    command.args(["--cli", url, "--transport", "http", "--method"]);
    let mut arguments = "";
    match step["step"].as_str() {
        Some("call") => {
            command.args(["tools/call", "--tool-name", &text(&step["name"])]);
            arguments = "--tool-arg";
        }
        Some("read") => drop(command.args(["resources/read", "--uri", &text(&step["uri"])])),
        Some("prompt") => {
            command.args(["prompts/get", "--prompt-name", &text(&step["name"])]);
            arguments = "--prompt-args";
        }
        _ => drop(command.arg("tools/list")),
    }
    for (name, value) in step["arguments"].as_object().into_iter().flatten() {
        command.args([arguments, &format!("{name}={}", text(value))]);
    }
    Ok(command)
}

fn fastmcp(world: &World, url: &str, step: &Value) -> anyhow::Result<Command> {
    let mut command = world.command(world.parts().python_program("fastmcp")?)?;
    let kind = step["step"].as_str();
    command.arg(if kind == Some("list") { "list" } else { "call" }).arg(url);
    command.args(["--json", "--auth", "none"]);
    match kind {
        Some("read") => drop(command.args(["--target", &text(&step["uri"])])),
        Some("call" | "prompt") => {
            command.args(["--target", &text(&step["name"])]);
            command.args(["--input-json", &step["arguments"].to_string()]);
            if kind == Some("prompt") {
                command.arg("--prompt");
            }
        }
        _ => {}
    }
    Ok(command)
}
