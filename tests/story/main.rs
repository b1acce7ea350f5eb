//! User stories, told with real parts: the `mcpx` binary, an OpenID provider, MCP servers and MCP
//! clients by other people, all on 127.0.0.1.
//!
//! `cargo test --test story` installs what a fresh machine lacks into `target/parts` first (see
//! `tests/parts/setup.py`). A story that cannot be told here says why and counts as skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    missing_docs,
    reason = "this is a test; a panic is a failed story"
)]

mod approve;
mod audit;
mod baseline;
mod bound;
mod browser;
mod children;
mod clients;
mod conformance;
mod crash;
mod credentials;
mod demo;
mod disk;
mod faults;
mod grants;
mod hidden;
mod hostile;
mod keyring;
mod login;
mod matrix;
mod mediation;
mod oauth;
mod pairs;
mod providers;
mod refused;
mod resume;
mod revoked;
mod saml;
mod scenarios;
mod servers;
mod serving;
mod sharing;
mod smuggle;
mod strangers;
mod streams;
mod support;
mod tools;
mod workload;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::runner::run(&[
        ("baseline", baseline::STORIES),
        ("demo", demo::STORIES),
        ("login", login::STORIES),
        ("keyring", keyring::STORIES),
        ("providers", providers::STORIES),
        ("browser", browser::STORIES),
        ("sharing", sharing::STORIES),
        ("saml", saml::STORIES),
        ("servers", servers::STORIES),
        ("serving", serving::STORIES),
        ("children", children::STORIES),
        ("clients", clients::STORIES),
        ("streams", streams::STORIES),
        ("resume", resume::STORIES),
        ("conformance", conformance::STORIES),
        ("pairs", pairs::STORIES),
        ("scenarios", scenarios::STORIES),
        ("matrix", matrix::STORIES),
        ("approve", approve::STORIES),
        ("grants", grants::STORIES),
        ("revoked", revoked::STORIES),
        ("refused", refused::STORIES),
        ("bound", bound::STORIES),
        ("faults", faults::STORIES),
        ("hostile", hostile::STORIES),
        ("smuggle", smuggle::STORIES),
        ("strangers", strangers::STORIES),
        ("mediation", mediation::STORIES),
        ("oauth", oauth::STORIES),
        ("oauth-logins", oauth::logins::STORIES),
        ("oauth-faults", oauth::faults::STORIES),
        ("oauth-beside", oauth::beside::STORIES),
        ("hidden", hidden::STORIES),
        ("crash", crash::STORIES),
        ("credentials", credentials::STORIES),
        ("disk", disk::STORIES),
        ("audit", audit::STORIES),
        ("tools", tools::STORIES),
        ("workload", workload::STORIES),
    ])
}
