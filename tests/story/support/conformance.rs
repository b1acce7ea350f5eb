//! The MCP conformance suite: runs its scenarios against a server and reads what it noted, so
//! that two runs can be compared check by check.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use anyhow::Context as _;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::proc::{PATIENCE, Proc};
use super::world::World;

/// What one run noted: for each scenario its checks in order, without what differs between any
/// two runs.
#[derive(Debug)]
pub struct Run {
    /// Checks by scenario.
    pub scenarios: BTreeMap<String, Vec<Value>>,
    /// Whether the suite found every requirement kept.
    pub passed: bool,
    /// What it printed at the end.
    pub summary: String,
}

const SUITE: &str = "@modelcontextprotocol/conformance/dist/index.js";

/// What a run noted in its folder, a folder for each scenario.
fn noted(out: &Path, prefix: &str) -> anyhow::Result<BTreeMap<String, Vec<Value>>> {
    let mut scenarios = BTreeMap::new();
    for entry in fs::read_dir(out).context("no results")? {
        let entry = entry?;
        let folder = entry.file_name().to_string_lossy().into_owned();
        let scenario = STAMP.replace(&folder, "").trim_start_matches(prefix).to_owned();
        // A scenario that broke down leaves nothing.
        let text = fs::read_to_string(entry.path().join("checks.json"));
        let text = text.unwrap_or_else(|_| r#"[{"id":"scenario-broke-down"}]"#.to_owned());
        let mut checks: Vec<Value> = serde_json::from_str(&text)?;
        checks.iter_mut().for_each(steady);
        scenarios.insert(scenario, checks);
    }
    Ok(scenarios)
}

/// Something that two runs saw differently.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The scenario.
    pub scenario: String,
    /// The check's id.
    pub check: String,
    /// Which member of the check, as a JSON pointer.
    pub at: String,
    /// What the first run saw.
    pub first: String,
    /// What the second run saw.
    pub second: String,
}

impl Run {
    /// Runs every server scenario of a protocol version against `url`.
    ///
    /// # Errors
    /// The suite cannot be run.
    pub fn new(world: &World, name: &str, version: &str, url: &str) -> anyhow::Result<Self> {
        let out = world.dir().join("conformance").join(name);
        let mut command = world.command(world.parts().node()?)?;
        command.arg(world.parts().package(SUITE)).args(["server", "--url", url]);
        command.args(["--requirements", version, "--output-dir"]).arg(&out);
        // It runs some fifty scenarios.
        let proc = Proc::start(world, &format!("conformance {name}"), command)?;
        let output = proc.finish_within(5 * PATIENCE)?;
        let scenarios = noted(&out, "server-").with_context(|| format!("{output:#?}"))?;
        let summary = output.stdout.split("=== SUMMARY ===").nth(1).unwrap_or_default().to_owned();
        Ok(Self { scenarios, passed: output.code == 0, summary })
    }

    /// Runs client scenarios of a protocol version, each against a client that `command` starts,
    /// a few at a time. `ways` is what the client finds in `SCENARIO_WAYS`; see
    /// `tests/parts/scenario.mjs`.
    ///
    /// # Errors
    /// The suite cannot be run.
    pub fn of_client(
        world: &World,
        name: &str,
        version: &str,
        scenarios: &[&str],
        ways: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let parts = world.parts();
        let out = world.dir().join("conformance").join(name);
        let preload = parts.script("loopback.cjs");
        let client = [parts.node()?.display(), parts.script("scenario.mjs").display()]
            .map(|word| word.to_string())
            .join(" ");
        let (mut passed, mut summary) = (true, String::new());
        for few in scenarios.chunks(3) {
            let mut running = vec![];
            for scenario in few {
                let mut command = world.command(parts.node()?)?;
                // The scenarios' servers listen on every interface otherwise.
                command.env("NODE_OPTIONS", format!("--require {}", preload.display()));
                if let Some(ways) = ways {
                    command.env("SCENARIO_WAYS", ways);
                }
                command.arg(parts.package(SUITE)).args(["client", "--command", &client]);
                command.args(["--scenario", scenario, "--spec-version", version, "--output-dir"]);
                command.arg(&out);
                running.push(Proc::start(world, scenario, command)?);
            }
            for proc in running {
                let output = proc.finish_within(2 * PATIENCE)?;
                passed &= output.code == 0;
                summary.push_str(&output.stdout);
            }
        }
        Ok(Self { scenarios: noted(&out, "")?, passed, summary })
    }

    /// How many checks ended in which way.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for check in self.scenarios.values().flatten() {
            let status = check["status"].as_str().unwrap_or("none").to_owned();
            *counts.entry(status).or_default() += 1;
        }
        counts
    }

    /// The same with nothing but how each check ended: between transports.
    #[must_use]
    pub fn outcomes(&self) -> Self {
        let outcome = |check: &Value| json!({"id": check["id"], "status": check["status"]});
        let scenarios = self.scenarios.iter().map(|(name, checks)| {
            // What was noted on the way is not checked, and differs.
            let checks = checks.iter().filter(|check| check["status"] != "INFO");
            (name.clone(), checks.map(outcome).collect())
        });
        Self { scenarios: scenarios.collect(), passed: self.passed, summary: self.summary.clone() }
    }

    /// Everything that another run saw differently.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut found = vec![];
        let none = vec![];
        let names = self.scenarios.keys().chain(other.scenarios.keys());
        for scenario in names.collect::<std::collections::BTreeSet<_>>() {
            let first = by_id(self.scenarios.get(scenario).unwrap_or(&none));
            let second = by_id(other.scenarios.get(scenario).unwrap_or(&none));
            let ids = first.keys().chain(second.keys());
            for check in ids.collect::<std::collections::BTreeSet<_>>() {
                let mut places = vec![];
                compare("", first.get(check), second.get(check), &mut places);
                found.extend(places.into_iter().map(|(at, first, second)| Difference {
                    scenario: scenario.clone(),
                    check: check.clone(),
                    at,
                    first,
                    second,
                }));
            }
        }
        found
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { scenario, check, at, first, second } = self;
        write!(f, "{scenario} {check} {at}:\n    {first}\n    {second}")
    }
}

/// The checks by id; those of one id, which a scenario may repeat, as an array.
fn by_id(checks: &[Value]) -> BTreeMap<String, Value> {
    let mut ids: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for check in checks {
        let id = check["id"].as_str().unwrap_or("none").to_owned();
        ids.entry(id).or_default().push(check.clone());
    }
    ids.into_iter().map(|(id, checks)| (id, Value::Array(checks))).collect()
}

fn compare(
    at: &str,
    first: Option<&Value>,
    second: Option<&Value>,
    found: &mut Vec<(String, String, String)>,
) {
    let text = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    match (first, second) {
        (first, second) if first == second => {}
        (Some(Value::Object(first)), Some(Value::Object(second))) => {
            let keys: std::collections::BTreeSet<_> = first.keys().chain(second.keys()).collect();
            for key in keys {
                compare(&format!("{at}/{key}"), first.get(key), second.get(key), found);
            }
        }
        (Some(Value::Array(first)), Some(Value::Array(second))) => {
            for index in 0..first.len().max(second.len()) {
                compare(&format!("{at}/{index}"), first.get(index), second.get(index), found);
            }
        }
        _ => found.push((at.to_owned(), text(first), text(second))),
    }
}

/// The end of a result folder's name.
static STAMP: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\d+Z$").unwrap());

/// What no two runs have in common, and what stands for it.
static VOLATILE: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", "ISO"),
        (r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", "DATE"),
        // The local port of `mcpx connect` has a secret in its path.
        (r"(127\.0\.0\.1|localhost):\d+(/[A-Za-z0-9_-]{20,}/mcp)", "HERE/mcp"),
        (r"(127\.0\.0\.1|localhost):\d+", "HERE"),
        (r"\(id: [A-Za-z0-9_-]+\)", "(id: EVENT)"),
    ]
    .map(|(pattern, name)| (Regex::new(pattern).unwrap(), name))
    .into()
});

/// Puts names in the place of what no two runs have in common.
fn steady(value: &mut Value) {
    match value {
        Value::String(text) => {
            for (pattern, name) in VOLATILE.iter() {
                *text = pattern.replace_all(text, *name).into_owned();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(steady),
        Value::Object(members) => steady_members(members),
        _ => {}
    }
}

fn steady_members(members: &mut Map<String, Value>) {
    // Headers of one hop, which no proxy may pass on (RFC 9110, section 7.6.1).
    members.retain(|key, _| !matches!(key.as_str(), "connection" | "transfer-encoding"));
    for (key, value) in members.iter_mut() {
        match key.as_str() {
            // That it is there is all that two runs have in common.
            "timestamp"
            | "requestState"
            | "mcp-session-id"
            | "sessionId"
            | "sessionIdSent"
            | "subscriptionId"
            | "io.modelcontextprotocol/subscriptionId"
            | "eventId"
            | "lastEventId"
            | "lastEventIdUsed"
            | "last-event-id"
            | "actualDelayMs" => *value = json!(key),
            // An event as the suite's reader gives it.
            "event" if value.get("id").is_some() => {
                value["id"] = json!("EVENT");
                steady(value);
            }
            _ => steady(value),
        }
    }
}
