//! Real servers and real clients, each pair of them, through the gateway and without it.
//!
//! Every client asks every server for its lists, calls, reads resources, gets prompts, receives
//! progress, cancels, and takes up a stream that was cut, as far as the two have it. Taps stand
//! in the line on both sides of the gateway ([`crate::support::tap`]): what passes it is the same
//! byte for byte, but for masked values, and the same as without it, but for what no two runs
//! have in common. What a pair does is written to `target/tmp/matrix/`, a file for each story.
//!
//! | file | owns |
//! |---|---|
//! | [`shelf`] | the servers |
//! | [`drive`] | the clients |
//! | [`wire`] | the comparison |
//! | [`table`] | the table |

mod drive;
mod shelf;
mod table;
mod wire;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use self::drive::{Driver, Sight, Target};
use self::shelf::{Place, Shelf, Shelved};
use self::table::Table;
use self::wire::Flow;
use crate::support::person::Connected;
use crate::support::tap::{StdioTap, Tap};
use crate::support::{Person, Site, World, until};

crate::stories![
    the_python_sdk_and_every_server,
    the_typescript_sdks_and_every_server,
    command_lines_and_every_server,
];

/// Everything goes, so that only the gateway itself can make a difference.
const EVERYTHING: &str = r#"@id("everything") permit(principal, action, resource);"#;

fn the_python_sdk_and_every_server(world: &World) -> anyhow::Result<()> {
    let drivers = ["legacy", "auto", "2026-07-28"].map(Driver::Python);
    every_server(world, "python-sdk", &drivers)
}

fn the_typescript_sdks_and_every_server(world: &World) -> anyhow::Result<()> {
    let drivers = ["v1", "auto", "2026-07-28"].map(Driver::TypeScript);
    every_server(world, "typescript-sdks", &drivers)
}

fn command_lines_and_every_server(world: &World) -> anyhow::Result<()> {
    let drivers = [Driver::Inspector, Driver::FastMcp, Driver::Remote];
    every_server(world, "command-lines", &drivers)
}

/// How a client comes to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// Without the gateway, on the server's own transport.
    Direct,
    /// Over the local port of `mcpx connect`.
    Port,
    /// Over `mcpx connect --stdio`.
    Stdio,
}

/// The line of one server: its taps, and what is connected to it.
struct Line<'a> {
    server: &'a Shelved,
    /// Right before the server.
    behind: Behind,
    /// Between a client on the local port and the gateway.
    port: Tap,
    /// Between a client on stdio and the gateway.
    stdio: StdioTap,
    _connected: Connected,
}

/// The tap right before a server, of which the gateway and the direct client each have their own
/// way in.
enum Behind {
    Http(Tap),
    Stdio { gateway: StdioTap, direct: StdioTap, env: Vec<(&'static str, String)> },
}

fn every_server(world: &World, name: &str, drivers: &[Driver]) -> anyhow::Result<()> {
    let shelf = Shelf::open(world)?;
    let idp = world.idp()?;
    let mut site = Site::new(world, &idp).policy("everything.cedar", EVERYTHING);
    let mut behind = vec![];
    for server in &shelf.servers {
        match &server.place {
            Place::Http(url) => {
                let tap = Tap::start(url)?;
                site = site.http(server.name, &tap.url);
                behind.push(Behind::Http(tap));
            }
            Place::Stdio(command, env) => {
                let tap =
                    |side: &str| StdioTap::new(world, &format!("{}-{side}", server.name), command);
                let (gateway, direct) = (tap("gateway")?, tap("direct")?);
                site = site.stdio(server.name, gateway.command());
                for (name, value) in env {
                    site = site.with(&format!("{name} = {value:?}"));
                }
                behind.push(Behind::Stdio { gateway, direct, env: env.clone() });
            }
        }
    }
    let mcpx = site.start()?;
    let alice = Person::logged_in(world, "alice", &mcpx, &idp)?;
    let mut lines = vec![];
    for (server, behind) in shelf.servers.iter().zip(behind) {
        let connected = alice.connect(server.name)?;
        let port = Tap::start(&connected.url)?;
        port.cuts(true);
        let stdio = alice.stdio_command(server.name);
        let stdio = StdioTap::new(world, &format!("{}-client", server.name), &stdio)?;
        lines.push(Line { server, behind, port, stdio, _connected: connected });
    }
    let mut table = Table::default();
    let mut wrong = vec![];
    for driver in drivers {
        let direct = run(world, *driver, &lines, Route::Direct)?;
        for line in &lines {
            let problem = line.holds(*driver, direct.get(line.server.name));
            wrong.extend(problem.into_iter().map(|what| format!("{driver:?} direct: {what}")));
        }
        let before = flows(&lines, Route::Direct);
        for route in [Route::Port, Route::Stdio] {
            if driver.needs_url() && route == Route::Stdio {
                continue;
            }
            let through = run(world, *driver, &lines, route)?;
            for line in &lines {
                let name = line.server.name;
                let mut found = line.seen(*driver, route, direct.get(name), through.get(name));
                found.extend(line.cancelled(*driver, through.get(name))?);
                found.extend(line.wires(route, before.get(name)));
                table.row(*driver, route, line, through.get(name));
                let told = |what| format!("{driver:?} {route:?} {name}: {what}");
                wrong.extend(found.into_iter().map(told));
            }
        }
    }
    table.write(name)?;
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
    mcpx.verify()?.exits(0);
    Ok(())
}

/// Takes a client through all servers on one route.
fn run(
    world: &World,
    driver: Driver,
    lines: &[Line],
    route: Route,
) -> anyhow::Result<BTreeMap<String, Sight>> {
    let mut plans = vec![];
    for line in lines {
        line.forget();
        if let Some(target) = line.target(driver, route) {
            plans.push((line.server.name, target, line.steps(driver, route)));
        }
    }
    driver.run(world, &plans)
}

/// What passed on every line before the gateway, or to the server where there is none.
fn flows(lines: &[Line], route: Route) -> BTreeMap<&'static str, Flow> {
    lines.iter().map(|line| (line.server.name, line.before(route))).collect()
}

impl Line<'_> {
    fn target(&self, driver: Driver, route: Route) -> Option<Target> {
        match (route, &self.behind) {
            (Route::Direct, Behind::Http(tap)) => {
                tap.cuts(true);
                Some(Target::Url(tap.url.clone()))
            }
            (Route::Direct, Behind::Stdio { .. }) if driver.needs_url() => None,
            (Route::Direct, Behind::Stdio { direct, env, .. }) => {
                Some(Target::Command(direct.command().to_vec(), env.clone()))
            }
            (Route::Port, behind) => {
                if let Behind::Http(tap) = behind {
                    // The cut is before the gateway.
                    tap.cuts(false);
                }
                Some(Target::Url(self.port.url.clone()))
            }
            (Route::Stdio, _) => Some(Target::Command(self.stdio.command().to_vec(), vec![])),
        }
    }

    /// Whether a client and the server speak the newest protocol with each other.
    fn speaks_modern(&self, driver: Driver) -> bool {
        driver.modern() && self.server.modern
    }

    /// Whether a client and the server have no protocol in common.
    fn strangers(&self, driver: Driver) -> bool {
        driver.pinned() && !self.server.modern
    }

    /// Whether a client can take up a stream that was cut: a legacy one over HTTP, whose events
    /// have ids.
    fn resumes(&self, driver: Driver, route: Route) -> bool {
        let http = matches!(self.behind, Behind::Http(_)) && route != Route::Stdio;
        http && !self.speaks_modern(driver) && driver.takes("resume")
    }

    fn steps(&self, driver: Driver, route: Route) -> Vec<Value> {
        let mut steps = self.server.steps.clone();
        steps.retain(|step| driver.takes(step["step"].as_str().unwrap_or_default()));
        steps.retain(|step| step["step"] != "resume" || self.resumes(driver, route));
        for step in &mut steps {
            if step.get("go").is_some() {
                let go = match &self.behind {
                    Behind::Stdio { direct, .. } if route == Route::Direct => direct.go(),
                    Behind::Stdio { gateway, .. } => gateway.go(),
                    Behind::Http(_) => continue,
                };
                step["go"] = json!(go);
            }
        }
        steps
    }

    fn forget(&self) {
        self.port.forget();
        self.stdio.forget();
        match &self.behind {
            Behind::Http(tap) => tap.forget(),
            Behind::Stdio { gateway, direct, .. } => {
                gateway.forget();
                direct.forget();
            }
        }
    }

    /// What passed next to the client.
    fn before(&self, route: Route) -> Flow {
        match (route, &self.behind) {
            (Route::Direct, Behind::Http(tap)) => tap.passed().as_slice().into(),
            (Route::Direct, Behind::Stdio { direct, .. }) => direct.passed().into(),
            (Route::Port, _) => self.port.passed().as_slice().into(),
            (Route::Stdio, _) => self.stdio.passed().into(),
        }
    }

    /// What is wrong with what a client saw without a gateway: then a part is at fault.
    fn holds(&self, driver: Driver, sight: Option<&Sight>) -> Vec<String> {
        let name = self.server.name;
        let Some(sight) = sight else { return vec![] };
        let mut wrong = vec![];
        for (step, what) in sight {
            let seen = &what["seen"];
            let good = match step.as_str() {
                _ if what.get("error").is_some() => self.strangers(driver),
                "call" => {
                    let failed = [&seen["isError"], &seen["is_error"]];
                    !failed.contains(&&json!(true)) && seen["content"].is_array()
                }
                "progress" => seen["steps"].as_array().is_some_and(|steps| !steps.is_empty()),
                "cancel" => seen["ended"] == json!([]) && seen["after"]["content"].is_array(),
                "resume" => seen["result"]["content"].is_array(),
                "list" => seen["tools"].as_array().is_some_and(|tools| !tools.is_empty()),
                _ => true,
            };
            if !good {
                wrong.push(format!("{name} {step}: {what}"));
            }
        }
        for step in self.steps(driver, Route::Direct) {
            let taken = sight.iter().any(|(taken, _)| step["step"] == *taken);
            // Nothing is cut on a way over stdio, and who has no version in common stops early.
            if !taken && step["step"] != "resume" && !self.strangers(driver) {
                wrong.push(format!("{name}: {} was not tried", step["step"]));
            }
        }
        wrong
    }

    /// What a client saw through the gateway that it did not see without it.
    fn seen(
        &self,
        driver: Driver,
        route: Route,
        direct: Option<&Sight>,
        through: Option<&Sight>,
    ) -> Vec<String> {
        let Some(through) = through else { return vec!["nothing was seen".to_owned()] };
        let Some(direct) = direct else { return self.holds(driver, Some(through)) };
        let kept = |sight: &Sight| -> Vec<String> {
            let sight =
                sight.iter().filter(|(step, _)| step != "resume" || self.resumes(driver, route));
            sight
                .map(|(step, what)| {
                    let mut what = what.clone();
                    // A client that has the result may drop a step that it has not looked at yet;
                    // that all of them came is seen on the wire.
                    if let Some(seen) = what.get_mut("seen").and_then(Value::as_object_mut) {
                        seen.remove("steps");
                    }
                    format!("{step} {}", wire::steady(&what))
                })
                .collect()
        };
        let (direct, through) = (kept(direct), kept(through));
        let pairs = direct.iter().zip(&through).filter(|(one, other)| one != other);
        let mut found: Vec<_> = pairs
            .map(|(one, other)| format!("saw\n    {other}\n  instead of\n    {one}"))
            .collect();
        if direct.len() != through.len() {
            found.push(format!("saw {} steps instead of {}", through.len(), direct.len()));
        }
        found
    }

    /// Waits until the server has been told that a call was cancelled, if one was.
    fn cancelled(&self, driver: Driver, sight: Option<&Sight>) -> anyhow::Result<Vec<String>> {
        if !sight.is_some_and(|sight| sight.iter().any(|(step, _)| step == "cancel")) {
            return Ok(vec![]);
        }
        let told = until("the server is told of the cancelled call", || {
            let told = match &self.behind {
                Behind::Http(tap) if self.speaks_modern(driver) => {
                    tap.passed().iter().any(|one| one.method == "POST" && one.over && !one.whole)
                }
                Behind::Http(tap) => Flow::from(tap.passed().as_slice()).tells_of_cancelling(),
                Behind::Stdio { gateway, .. } => Flow::from(gateway.passed()).tells_of_cancelling(),
            };
            Ok(told.then_some(()))
        });
        Ok(told.err().map(|error| error.to_string()).into_iter().collect())
    }

    /// What the gateway changed on the wire.
    fn wires(&self, route: Route, direct: Option<&Flow>) -> Vec<String> {
        let before = self.before(route);
        let mut found = match (&self.behind, route) {
            (Behind::Http(tap), Route::Port) => wire::changes(&self.port.passed(), &tap.passed()),
            (Behind::Http(tap), _) => before.changes(&tap.passed().as_slice().into()),
            (Behind::Stdio { gateway, .. }, _) => before.changes(&gateway.passed().into()),
        };
        if before.len() == 0 {
            found.push("nothing passed".to_owned());
        }
        let same_transport = matches!(
            (&self.behind, route),
            (Behind::Http(_), Route::Port) | (Behind::Stdio { .. }, Route::Stdio)
        );
        if let (true, Some(direct)) = (same_transport, direct) {
            found.extend(before.differences(direct));
        }
        found
    }
}
