//! The laptop and CI side: a login, short-lived grants, and never an upstream secret.
//!
//! | file | owns |
//! |---|---|
//! | [`home`] | the directory that holds a user's login state |
//! | [`credentials`] | tokens at rest: sealed under a keyring's key, or in a private file |
//! | [`device`] | OpenID Connect with the issuer: discovery, code and browser flow, refresh, revocation |
//! | [`login`] | the login that many processes share |
//! | [`workload`] | a job's own token in place of a login |
//! | [`server`] | what a control server says about itself |
//! | [`grant`] | identity token and key for a grant token, renewed in time |
//! | [`hold`] | the key or certificate that a grant is bound to, and how it is shown |
//! | [`channel`] | one authorised way to a connection, or to the API |
//! | [`local`], [`relay`] | the local port, and what arrives there carried to the gateway |
//! | [`ending`] | an answer's stream that ends without the answer |
//! | [`stdio`] | the same on stdin and stdout |
//! | [`exec`] | a child process that is given the local port |
//! | [`client`] | the entries in MCP clients' own files that start `mcpx connect` |
//! | [`remote`] | the control server's API |
//! | [`requests`] | the part of it that asks for grants and ends them |
//! | [`problem`] | what a local client is told when its message cannot be carried |

pub mod channel;
pub mod client;
pub mod credentials;
pub mod device;
mod ending;
pub mod exec;
pub mod grant;
pub mod hold;
pub mod home;
pub mod local;
pub mod login;
pub mod problem;
pub mod redirect;
pub mod relay;
pub mod remote;
pub mod requests;
pub mod server;
pub mod stdio;
pub mod workload;

#[cfg(test)]
mod testing;
