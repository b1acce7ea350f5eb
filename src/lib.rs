//! `mcpx`: an access broker for people, CI jobs and agents, and an enforcing gateway for MCP
//! servers.
//!
//! The library target exists for tests, benches and fuzz targets; it is not a stable interface.
//!
//! # The map, in the order of the data path
//! A call comes from a laptop through [`broker`], is judged and sent on by [`gateway`], and what
//! comes back passes [`mask`] and [`audit`] before anyone sees it:
//!
//! | module | owns |
//! |---|---|
//! | [`types`] | ids, names, subjects, secrets, time |
//! | [`mcp`] | the protocol: messages, event streams, headers (pure) |
//! | [`policy`] | Cedar policies; a decision is the only source of a [`policy::Permit`] (pure) |
//! | [`mask`] | finding and masking of sensitive values (pure) |
//! | [`audit`] | records, the Merkle log, the recorder that makes [`audit::Durable`], verification |
//! | [`identity`] | OIDC, device flow, signing keys, grant tokens, DPoP |
//! | [`upstream`] | reaching an MCP server over HTTP or as a child process |
//! | [`gateway`] | the data path itself: start reading at [`gateway`] |
//! | [`store`] | all SQL |
//! | [`config`] | `mcpx.toml` to checked settings |
//! | [`control`] | control server: token exchange, approvals, pages, the built-in issuer |
//! | [`broker`] | laptop side: login, local port, stdio bridge |
//! | [`evidence`] | sessions and replay from the sealed records |
//! | [`cli`] | one file per verb; the only code that prints |
//!
//! Which module may use which is written down, with reasons, in `docs/architecture.md`, and held
//! by `tests/layout.rs`.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)
)]

pub mod audit;
pub mod broker;
pub mod cli;
pub mod config;
pub mod control;
pub mod evidence;
pub mod gateway;
pub mod identity;
pub mod mask;
pub mod mcp;
pub mod policy;
pub mod store;
pub mod types;
pub mod upstream;
