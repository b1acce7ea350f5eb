//! The laptop and CI side: a login, short-lived grants, and never an upstream secret.
//!
//! | file | owns |
//! |---|---|
//! | [`home`] | the directory that holds a user's login state |
//! | [`credentials`] | tokens at rest: sealed under a keyring's key, or in a private file |
//! | [`device`] | OpenID Connect with the issuer: discovery, device flow, refresh, revocation |
//! | [`login`] | the login that many processes share |
//! | [`server`] | what a control server says about itself |
//! | [`grant`] | identity token and key for a grant token, renewed in time |

pub mod credentials;
pub mod device;
pub mod grant;
pub mod home;
pub mod login;
pub mod server;
