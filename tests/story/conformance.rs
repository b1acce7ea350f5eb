//! The scenarios of the MCP conformance suite, which we did not write, see no difference between
//! a server and the same server behind the gateway: every check ends the same, and what it noted
//! on the way is the same but for what no two runs have in common.

use crate::support::conformance::{Difference, Run};
use crate::support::relay::Relay;
use crate::support::site::Server;
use crate::support::world::Upstream;
use crate::support::{Idp, Person, Raw, Site, World};

crate::stories![
    legacy_scenarios_see_no_gateway,
    modern_scenarios_see_no_gateway,
    legacy_scenarios_of_the_typescript_sdk,
    modern_scenarios_of_the_typescript_sdk,
    legacy_scenarios_in_front_of_stdio,
    modern_scenarios_in_front_of_stdio,
];

/// Everything goes, so that only the gateway itself can make a difference.
pub const EVERYTHING: &str = r#"@id("everything") permit(principal, action, resource);"#;

/// A difference that is there on purpose. The list may only shrink: an entry that nothing differs
/// by any more fails its story.
pub struct Meant {
    pub versions: &'static [&'static str],
    pub scenario: &'static str,
    pub check: &'static str,
    /// Members of the check, as JSON pointers without array indices.
    pub at: &'static [&'static str],
    /// Why it is meant. Read by people.
    pub _because: &'static str,
}

const BOTH: &[&str] = &["2025-11-25", "2026-07-28"];
pub const MODERN: &[&str] = &["2026-07-28"];

const MEANT: &[Meant] = &[
    Meant {
        versions: BOTH,
        scenario: "dns-rebinding-protection",
        check: "localhost-host-rebinding-rejected",
        at: &["/details/body", "/details/statusCode"],
        _because: "whoever listens refuses strangers itself, in its own words, and asks nobody",
    },
    Meant {
        versions: &["2025-11-25"],
        scenario: "sse-polling",
        check: "incoming-response",
        at: &["/details/headers/cache-control"],
        _because: "what an answer holds depends on who asked: nobody may keep it for another",
    },
    Meant {
        versions: &["2025-11-25"],
        scenario: "sse-polling",
        check: "incoming-response",
        at: &["/details/headers/server"],
        _because: "headers that nobody needs could carry what nobody masks",
    },
    Meant {
        versions: MODERN,
        scenario: "http-header-validation",
        check: "sep-2243-server-reject-error-code",
        at: &["/details/responseBody/error/data", "/details/responseBody/error/message"],
        _because: "who reads the body compares the headers: the gateway refuses, in its own words",
    },
    Meant {
        versions: MODERN,
        scenario: "http-header-validation",
        check: "sep-2243-server-reject-invalid-headers",
        at: &["/details/responseBody/error/data", "/details/responseBody/error/message"],
        _because: "who reads the body compares the headers: the gateway refuses, in its own words",
    },
    Meant {
        versions: MODERN,
        scenario: "http-custom-header-server-validation",
        check: "sep-2243-server-reject-invalid-param-chars",
        at: &["/details/responseBody/error/data", "/details/responseBody/error/message"],
        _because: "the gateway refuses headers that repeat no argument, in its own words",
    },
    Meant {
        versions: MODERN,
        scenario: "http-custom-header-server-validation",
        check: "sep-2243-server-reject-param-mismatch",
        at: &["/details/responseBody/error/data", "/details/responseBody/error/message"],
        _because: "the gateway refuses headers that repeat no argument, in its own words",
    },
    Meant {
        versions: MODERN,
        scenario: "stateless",
        check: "sep-2575-http-server-method-not-found-404-resources-subscribe",
        at: &["/details/response", "/errorMessage", "/status"],
        _because: "the suite names no resource, and nothing passes of which policy cannot be asked \
                   what it reaches; with a resource named, the server's own 404 arrives",
    },
    Meant {
        versions: MODERN,
        scenario: "stateless",
        check: "sep-2575-http-server-method-not-found-404-resources-unsubscribe",
        at: &["/details/response", "/errorMessage", "/status"],
        _because: "as for resources/subscribe",
    },
];

/// The same with the server on the TypeScript SDK, which says less about headers.
const MEANT_OF_TYPESCRIPT: &[Meant] = &[
    Meant {
        versions: BOTH,
        scenario: "dns-rebinding-protection",
        check: "localhost-host-rebinding-rejected",
        at: &[
            "/details/body/error/code",
            "/details/body/error/data",
            "/details/body/error/message",
        ],
        _because: "whoever listens refuses strangers itself, in its own words, and asks nobody",
    },
    Meant {
        versions: &["2025-11-25"],
        scenario: "sse-polling",
        check: "incoming-response",
        at: &["/details/headers/cache-control"],
        _because: "what an answer holds depends on who asked: nobody may keep it for another",
    },
    Meant {
        versions: MODERN,
        scenario: "http-header-validation",
        check: "sep-2243-server-reject-error-code",
        at: OWN_WORDS,
        _because: "who reads the body compares the headers: the gateway refuses, in its own words",
    },
    Meant {
        versions: MODERN,
        scenario: "http-header-validation",
        check: "sep-2243-server-reject-invalid-headers",
        at: OWN_WORDS,
        _because: "as above",
    },
    Meant {
        versions: MODERN,
        scenario: "http-custom-header-server-validation",
        check: "sep-2243-server-reject-invalid-param-chars",
        at: REFUSED,
        _because: "the gateway refuses headers that repeat no argument; the server lets them pass",
    },
    Meant {
        versions: MODERN,
        scenario: "http-custom-header-server-validation",
        check: "sep-2243-server-reject-param-mismatch",
        at: REFUSED,
        _because: "as above",
    },
    Meant {
        versions: MODERN,
        scenario: "stateless",
        check: "sep-2575-http-server-method-not-found-404-resources-subscribe",
        at: &["/details/response", "/errorMessage", "/status"],
        _because: "no resource is named, see MEANT",
    },
    Meant {
        versions: MODERN,
        scenario: "stateless",
        check: "sep-2575-http-server-method-not-found-404-resources-unsubscribe",
        at: &["/details/response", "/errorMessage", "/status"],
        _because: "no resource is named, see MEANT",
    },
];

/// The error that the gateway makes in a server's stead.
const OWN_WORDS: &[&str] = &[
    "/details/responseBody/error/message",
    "/details/responseBody/error/data/mcpx",
    "/details/responseBody/error/data/mismatch",
];

/// An error where the server has a result.
const REFUSED: &[&str] = &[
    "/details/responseBody/error",
    "/details/responseBody/result",
    "/details/responseStatus",
    "/errorMessage",
    "/status",
];

/// What a pipe cannot carry, between the same server on stdio and on HTTP.
const MEANT_OF_STDIO: &[Meant] = &[
    Meant {
        versions: &["2025-11-25"],
        scenario: "sse-polling",
        check: "server-sse-priming-event",
        at: &["/status"],
        _because: "events of a pipe have no ids; taking up a stream again is optional",
    },
    Meant {
        versions: &["2025-11-25"],
        scenario: "sse-polling",
        check: "server-sse-retry-field",
        at: &["/status"],
        _because: "as above",
    },
    Meant {
        versions: &["2025-11-25"],
        scenario: "sse-polling",
        check: "server-sse-disconnect-resume",
        at: &[""],
        _because: "as above",
    },
    Meant {
        versions: &["2025-11-25"],
        scenario: "sse-multiple-streams",
        check: "server-sse-streams-functional",
        at: &[""],
        _because: "an answer that nothing precedes comes as JSON, which is the server's choice",
    },
    Meant {
        versions: MODERN,
        scenario: "http-custom-header-server-validation",
        check: "sep-2243-server-reject-param-mismatch",
        at: &["/status"],
        _because: "the gateway does not keep the schemas of tools: it refuses a Mcp-Param header \
                   that repeats no argument, and does not miss one that should be there; neither \
                   policy nor a server on stdio decides by them",
    },
    Meant {
        versions: MODERN,
        scenario: "http-custom-header-server-validation",
        check: "sep-2243-server-validate-param-match",
        at: &["/status"],
        _because: "as above",
    },
    Meant {
        versions: MODERN,
        scenario: "stateless",
        check: "sep-2575-http-server-method-not-found-404-resources-subscribe",
        at: &["/status"],
        _because: "no resource is named, see MEANT",
    },
    Meant {
        versions: MODERN,
        scenario: "stateless",
        check: "sep-2575-http-server-method-not-found-404-resources-unsubscribe",
        at: &["/status"],
        _because: "no resource is named, see MEANT",
    },
];

fn legacy_scenarios_see_no_gateway(world: &World) -> anyhow::Result<()> {
    see_no_gateway(world, "2025-11-25", |world| world.fixture(), MEANT)
}

fn modern_scenarios_see_no_gateway(world: &World) -> anyhow::Result<()> {
    see_no_gateway(world, "2026-07-28", |world| world.fixture(), MEANT)
}

fn legacy_scenarios_of_the_typescript_sdk(world: &World) -> anyhow::Result<()> {
    see_no_gateway(world, "2025-11-25", |world| world.typescript_fixture(), MEANT_OF_TYPESCRIPT)
}

fn modern_scenarios_of_the_typescript_sdk(world: &World) -> anyhow::Result<()> {
    see_no_gateway(world, "2026-07-28", |world| world.typescript_fixture(), MEANT_OF_TYPESCRIPT)
}

fn legacy_scenarios_in_front_of_stdio(world: &World) -> anyhow::Result<()> {
    see_no_stdio(world, "2025-11-25")
}

fn modern_scenarios_in_front_of_stdio(world: &World) -> anyhow::Result<()> {
    see_no_stdio(world, "2026-07-28")
}

fn see_no_gateway(
    world: &World,
    version: &str,
    fixture: impl Fn(&World) -> anyhow::Result<Upstream>,
    meant: &[Meant],
) -> anyhow::Result<()> {
    let idp = world.idp()?;
    // Each run gets a server in the same state.
    let (first, second, third) = (fixture(world)?, fixture(world)?, fixture(world)?);
    let server = Site::new(world, &idp)
        .http("gateway", &second.url)
        .http("connect", &third.url)
        .policy("everything.cedar", EVERYTHING)
        .start()?;

    let direct = Run::new(world, "direct", version, &first.url)?;
    anyhow::ensure!(direct.passed, "the server itself does not conform: {}", direct.summary);

    let relay = relay(&server, &idp, "gateway")?;
    let gateway = Run::new(world, "gateway", version, &relay.url)?;

    let alice = Person::logged_in(world, "alice", &server, &idp)?;
    let connected = alice.connect("connect")?;
    let connect = Run::new(world, "connect", version, &connected.url)?;

    agree(version, meant, &direct, "gateway", &gateway);
    agree(version, meant, &direct, "connect", &connect);
    server.verify()?.exits(0);
    Ok(())
}

/// The server speaks stdio and the gateway is its HTTP: compared with the HTTP that the SDK
/// itself gives the same server.
fn see_no_stdio(world: &World, version: &str) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let http = world.fixture()?;
    let server = Site::new(world, &idp)
        .stdio("fixture", &world.fixture_stdio()?)
        .policy("everything.cedar", EVERYTHING)
        .start()?;
    let direct = Run::new(world, "direct", version, &http.url)?;
    let relay = relay(&server, &idp, "fixture")?;
    let stdio = Run::new(world, "stdio", version, &relay.url)?;
    agree(version, MEANT_OF_STDIO, &direct.outcomes(), "stdio", &stdio.outcomes());
    server.verify()?.exits(0);
    Ok(())
}

/// A way to a connection's endpoint for clients without proofs.
fn relay(server: &Server, idp: &Idp, connection: &str) -> anyhow::Result<Relay> {
    let raw = Raw::new()?;
    let id_token = idp.tokens("alice")?["id_token"].as_str().unwrap_or_default().to_owned();
    let resource = server.resource(connection);
    let token = raw.token(server, &id_token, &resource)?;
    Relay::start(raw, token, resource)
}

/// Fails unless a run differs from the direct one in what is meant, and in all of it.
#[track_caller]
pub fn agree(version: &str, meant: &[Meant], direct: &Run, name: &str, run: &Run) {
    let meant: Vec<_> = meant.iter().filter(|meant| meant.versions.contains(&version)).collect();
    let counts = format!("direct {:?}, {name} {:?}", direct.counts(), run.counts());
    let differences = direct.differences(run);
    let unmeant: Vec<_> = differences
        .iter()
        .filter(|difference| !meant.iter().any(|meant| meant.covers(difference)))
        .map(ToString::to_string)
        .collect();
    assert!(unmeant.is_empty(), "{counts}; not meant:\n{}", unmeant.join("\n"));
    for meant in &meant {
        let found = differences.iter().any(|difference| meant.covers(difference));
        assert!(found, "{name}: {} {} no longer differs", meant.scenario, meant.check);
    }
}

impl Meant {
    fn covers(&self, difference: &Difference) -> bool {
        // Checks of one id stand in an array; which of them it is does not matter.
        let at = difference.at.trim_start_matches(|c: char| c == '/' || c.is_ascii_digit());
        self.scenario == difference.scenario
            && self.check == difference.check
            && self.at.iter().any(|meant| meant.trim_start_matches('/') == at)
    }
}
