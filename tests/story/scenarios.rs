//! The client scenarios of the MCP conformance suite that are not about authorization: the suite
//! is the server, and sees no difference between a client and the same client behind `mcpx`.

use std::fs;

use crate::conformance::{EVERYTHING, MODERN, Meant, agree};
use crate::support::conformance::Run;
use crate::support::tap::Tap;
use crate::support::{Person, Site, World};

crate::stories![legacy_clients_look_the_same, modern_clients_look_the_same];

const LEGACY_SCENARIOS: [&str; 5] = [
    "initialize",
    "tools_call",
    "elicitation-sep1034-client-defaults",
    "sse-retry",
    "json-schema-2020-12-preservation",
];

const MODERN_SCENARIOS: [&str; 8] = [
    "tools_call",
    "request-metadata",
    "sep-2322-client-request-state",
    "http-standard-headers",
    "http-custom-headers",
    "http-invalid-tool-headers",
    "json-schema-ref-no-deref",
    "json-schema-2020-12-preservation",
];

/// Differences that are there on purpose; as in `conformance.rs` the list may only shrink.
const MEANT: &[Meant] = &[Meant {
    versions: &["2025-11-25"],
    scenario: "sse-retry",
    check: "incoming-request",
    at: &[
        "/details/headers/accept-encoding",
        "/details/headers/accept-language",
        "/details/headers/sec-fetch-mode",
        "/details/headers/user-agent",
    ],
    _because: "of a client's headers a server gets those that MCP names, and no others",
}];

fn legacy_clients_look_the_same(world: &World) -> anyhow::Result<()> {
    look_the_same(world, "2025-11-25", &LEGACY_SCENARIOS)
}

fn modern_clients_look_the_same(world: &World) -> anyhow::Result<()> {
    look_the_same(world, MODERN[0], &MODERN_SCENARIOS)
}

fn look_the_same(world: &World, version: &str, scenarios: &[&str]) -> anyhow::Result<()> {
    let direct = Run::of_client(world, "direct", version, scenarios, None)?;
    anyhow::ensure!(direct.passed, "the client itself does not conform: {}", direct.summary);

    // Each scenario is a connection of its own: all call their tools what they like. Its server
    // is there only while it runs, and the line before it learns where from the client.
    let ways = world.dir().join("ways");
    fs::create_dir_all(&ways)?;
    let idp = world.idp()?;
    let mut site = Site::new(world, &idp).policy("everything.cedar", EVERYTHING);
    let mut taps = vec![];
    for scenario in scenarios {
        let tap = Tap::follow(ways.join(format!("{scenario}.target")))?;
        site = site.http(&connection(scenario), &tap.url);
        taps.push(tap);
    }
    let server = site.start()?;
    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let mut connected = vec![];
    for scenario in scenarios {
        let port = alice.connect(&connection(scenario))?;
        fs::write(ways.join(format!("{scenario}.url")), &port.url)?;
        connected.push(port);
    }
    let through = Run::of_client(world, "through", version, scenarios, Some(&ways))?;
    assert!(taps.iter().all(|tap| !tap.passed().is_empty()), "a scenario went past the gateway");
    agree(version, MEANT, &direct, "through", &through);
    server.verify()?.exits(0);
    Ok(())
}

/// What a scenario's connection is called.
fn connection(scenario: &str) -> String {
    scenario.replace('_', "-")
}
