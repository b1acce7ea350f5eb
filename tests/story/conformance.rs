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
    legacy_scenarios_in_front_of_sse,
];

/// Everything goes, so that only the gateway itself can make a difference.
pub const EVERYTHING: &str = r#"@id("everything") permit(principal, action, resource);"#;

/// A difference that is there on purpose. The list may only shrink: an entry that nothing differs
/// by any more fails its story.
#[derive(Clone, Copy)]
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
        _because: "the gateway refuses headers that do not repeat their argument, in its own words",
    },
    Meant {
        versions: MODERN,
        scenario: "http-custom-header-server-validation",
        check: "sep-2243-server-reject-param-mismatch",
        at: &["/details/responseBody/error/data", "/details/responseBody/error/message"],
        _because: "the gateway refuses headers that do not repeat their argument, in its own words",
    },
    Meant {
        versions: MODERN,
        scenario: "http-custom-header-server-validation",
        check: "sep-2243-server-validate-param-match",
        at: &["/details/responseBody/error/data", "/details/responseBody/error/message"],
        _because: "the gateway refuses headers that do not repeat their argument, in its own words",
    },
];

/// Caching hints, whatever the server: what an answer holds depends on who asked, so it is kept for
/// nobody else.
const PRIVATE: &[Meant] = &[
    Meant {
        versions: MODERN,
        scenario: "caching",
        check: "sep-2549-cache-scope-valid",
        at: &[
            "/details/endpoints/0/cacheScope",
            "/details/endpoints/1/cacheScope",
            "/details/endpoints/2/cacheScope",
            "/details/endpoints/3/cacheScope",
            "/details/endpoints/4/cacheScope",
        ],
        _because: "what an answer holds depends on who asked: it is kept for nobody else",
    },
    Meant {
        versions: MODERN,
        scenario: "caching",
        check: "sep-2549-prompts-list-caching-hints",
        at: &["/details/cacheScope"],
        _because: "what an answer holds depends on who asked: it is kept for nobody else",
    },
    Meant {
        versions: MODERN,
        scenario: "caching",
        check: "sep-2549-resources-list-caching-hints",
        at: &["/details/cacheScope"],
        _because: "what an answer holds depends on who asked: it is kept for nobody else",
    },
    Meant {
        versions: MODERN,
        scenario: "caching",
        check: "sep-2549-resources-read-caching-hints",
        at: &["/details/cacheScope"],
        _because: "what an answer holds depends on who asked: it is kept for nobody else",
    },
    Meant {
        versions: MODERN,
        scenario: "caching",
        check: "sep-2549-resources-templates-list-caching-hints",
        at: &["/details/cacheScope"],
        _because: "what an answer holds depends on who asked: it is kept for nobody else",
    },
    Meant {
        versions: MODERN,
        scenario: "caching",
        check: "sep-2549-tools-list-caching-hints",
        at: &["/details/cacheScope"],
        _because: "what an answer holds depends on who asked: it is kept for nobody else",
    },
    Meant {
        versions: MODERN,
        scenario: "http-header-validation",
        check: "sep-2243-header-name-case-insensitive",
        at: &["/details/responseBody/result/cacheScope"],
        _because: "what an answer holds depends on who asked: it is kept for nobody else",
    },
    Meant {
        versions: MODERN,
        scenario: "stateless",
        check: "sep-2575-discover-capabilities-match-handlers",
        at: &["/details/response/result/cacheScope"],
        _because: "what an answer holds depends on who asked: it is kept for nobody else",
    },
    Meant {
        versions: MODERN,
        scenario: "stateless",
        check: "sep-2575-server-declares-prompts-in-discover",
        at: &["/details/response/result/cacheScope"],
        _because: "what an answer holds depends on who asked: it is kept for nobody else",
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
        check: "sep-2243-server-validate-param-match",
        at: REFUSED,
        _because: "the gateway refuses headers that differ from the arguments; the server does not",
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

/// What a pipe cannot carry, between the same server on stdio or HTTP+SSE and on Streamable HTTP.
const MEANT_OF_PIPES: &[Meant] = &[
    Meant {
        versions: &["2025-11-25"],
        scenario: "sse-polling",
        check: "server-sse-disconnect-resume",
        at: &[""],
        _because: "a pipe is not closed in the middle, so there is nothing to take up",
    },
    Meant {
        versions: &["2025-11-25"],
        scenario: "sse-multiple-streams",
        check: "server-sse-streams-functional",
        at: &[""],
        _because: "an answer that nothing precedes comes as JSON, which is the server's choice",
    },
];

fn legacy_scenarios_see_no_gateway(world: &World) -> anyhow::Result<()> {
    see_no_gateway(world, "2025-11-25", |world| world.fixture(), &[MEANT, PRIVATE].concat())
}

fn modern_scenarios_see_no_gateway(world: &World) -> anyhow::Result<()> {
    see_no_gateway(world, "2026-07-28", |world| world.fixture(), &[MEANT, PRIVATE].concat())
}

fn legacy_scenarios_of_the_typescript_sdk(world: &World) -> anyhow::Result<()> {
    see_no_gateway(
        world,
        "2025-11-25",
        |world| world.typescript_fixture(),
        &[MEANT_OF_TYPESCRIPT, PRIVATE].concat(),
    )
}

fn modern_scenarios_of_the_typescript_sdk(world: &World) -> anyhow::Result<()> {
    see_no_gateway(
        world,
        "2026-07-28",
        |world| world.typescript_fixture(),
        &[MEANT_OF_TYPESCRIPT, PRIVATE].concat(),
    )
}

fn legacy_scenarios_in_front_of_stdio(world: &World) -> anyhow::Result<()> {
    let command = world.fixture_stdio()?;
    see_no_pipe(world, "2025-11-25", |site| site.stdio("fixture", &command))
}

fn modern_scenarios_in_front_of_stdio(world: &World) -> anyhow::Result<()> {
    let command = world.fixture_stdio()?;
    see_no_pipe(world, "2026-07-28", |site| site.stdio("fixture", &command))
}

fn legacy_scenarios_in_front_of_sse(world: &World) -> anyhow::Result<()> {
    let fixture = world.fixture_sse()?;
    see_no_pipe(world, "2025-11-25", |site| site.sse("fixture", &fixture.url))
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

/// The server speaks through one pipe and the gateway is its Streamable HTTP: compared with what
/// the SDK itself gives the same server.
fn see_no_pipe<'a>(
    world: &'a World<'a>,
    version: &str,
    register: impl FnOnce(Site<'a>) -> Site<'a>,
) -> anyhow::Result<()> {
    let idp = world.idp()?;
    let http = world.fixture()?;
    let site = Site::new(world, &idp).policy("everything.cedar", EVERYTHING);
    let server = register(site).start()?;
    let direct = Run::new(world, "direct", version, &http.url)?;
    let relay = relay(&server, &idp, "fixture")?;
    let pipe = Run::new(world, "pipe", version, &relay.url)?;
    agree(version, MEANT_OF_PIPES, &direct.outcomes(), "pipe", &pipe.outcomes());
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
