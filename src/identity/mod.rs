//! Who is calling, proved: identity tokens, grant tokens, and proof of possession.
//!
//! | file | owns | specification |
//! |---|---|---|
//! | [`oidc`] | verifying an issuer's identity tokens on the server side | OpenID Connect Core 1.0 |
//! | [`access`] | access tokens of an organisation's own authorization server | RFC 9068, RFC 8707 |
//! | [`jwks`] | an issuer's published keys, cached | RFC 7517 |
//! | [`dpop`] | proofs that the caller holds a key, and their single use | RFC 9449 |
//! | [`grant`] | grant tokens: signing and verifying | RFC 9068, RFC 7800 |
//! | [`possession`] | what a token is bound to, and whether a request shows it | RFC 7800 |
//! | [`certificate`] | client certificates that stand for their key | RFC 8705, RFC 9440 |
//! | [`signer`], [`ring`] | who signs grant tokens, and how one key follows another | RFC 7517 |
//! | [`key`] | a signing key and the private file it lives in | RFC 7518 |
//! | [`fetch`] | HTTP to issuers: no redirects, capped bodies, https or loopback | |
//! | [`private_file`] | files that only their owner may read | |
//! | [`trust`] | which jobs' own tokens are accepted, and what for | RFC 7519, RFC 7523 |
//!
//! Nothing here decides what a subject may do, and nothing here talks to an MCP server.

pub mod access;
pub mod certificate;
pub mod dpop;
mod error;
pub mod fetch;
pub mod grant;
pub mod jwks;
pub mod key;
pub mod oidc;
pub mod possession;
pub mod private_file;
pub mod ring;
pub mod signer;
pub mod trust;

pub use error::{Fault, TokenError};
pub use oidc::{IssuerSettings, IssuerVerifier, Issuers, VerifiedIdentity};
