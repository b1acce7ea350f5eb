//! What can stand between a user and an identity token, told apart by what helps.

use crate::broker::credentials::CredentialError;
use crate::broker::home::HomeError;
use crate::broker::workload::WorkloadError;
use crate::identity::fetch::FetchError;

/// A login could not be made, used or renewed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The user, or somebody who holds the code, said no.
    #[error("the login was denied")]
    Denied,
    /// Nobody confirmed in time.
    #[error("the login expired before it was confirmed; run: mcpx login")]
    Expired,
    /// The user broke it off here.
    #[error("the login was cancelled")]
    Cancelled,
    /// There is no usable login (any more).
    #[error("log in again, run: mcpx login ({why})")]
    LoginNeeded {
        /// Why.
        why: String,
    },
    /// The issuer does not answer; the same may work later.
    #[error("the issuer {issuer} does not answer")]
    Network {
        /// The issuer's URL.
        issuer: String,
        /// What went wrong.
        #[source]
        source: FetchError,
    },
    /// The issuer refused or answered nonsense.
    #[error("the issuer {issuer} cannot be used: {why}")]
    Issuer {
        /// The issuer's URL.
        issuer: String,
        /// What is wrong.
        why: String,
    },
    /// The issuer offers no device flow.
    #[error(
        "the issuer {issuer} offers no device login (RFC 8628); its administrator can allow it, or run: mcpx login --browser"
    )]
    NoDeviceFlow {
        /// The issuer's URL.
        issuer: String,
    },
    /// The issuer offers no authorization code with PKCE.
    #[error(
        "the issuer {issuer} offers no login through a browser (authorization code with PKCE); run: mcpx login --device"
    )]
    NoBrowserFlow {
        /// The issuer's URL.
        issuer: String,
    },
    /// The port that a browser comes back to cannot be had.
    #[error("cannot listen on {address} for the browser to come back to; run: mcpx login --device")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The issuer gave tokens, but none that says who the user is.
    #[error(
        "the issuer {issuer} answered without an identity token; the client there needs the scope openid"
    )]
    NoIdToken {
        /// The issuer's URL.
        issuer: String,
    },
    /// The identity token is not good.
    #[error("the issuer {issuer} gave an identity token that is not valid: {why}")]
    IdToken {
        /// The issuer's URL.
        issuer: String,
        /// What is wrong with it.
        why: String,
    },
    /// What the issuer wants shown must not be.
    #[error("the issuer sent {what}, which is not safe to show or open")]
    UnsafePrompt {
        /// What it sent.
        what: String,
    },
    /// The tokens cannot be kept or had back.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A job's own token cannot be had.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
}

impl LoginError {
    /// Whether the same may work later without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Workload(error) => error.is_retryable(),
            other => matches!(other, Self::Network { .. }),
        }
    }

    /// Whether a new login is what helps.
    pub fn needs_login(&self) -> bool {
        matches!(
            self,
            Self::LoginNeeded { .. }
                | Self::Expired
                | Self::Credentials(CredentialError::Unreadable { .. })
        )
    }
}
