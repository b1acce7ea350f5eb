//! Why a token was refused, and whose fault that is.

/// Who has to act before a refused token can be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller: the token is stale, foreign or forged. Trying again changes nothing.
    Caller,
    /// The identity provider: it did not answer, or answered nonsense. Trying again may help.
    Issuer,
}

/// A token that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The text is not a signed JWT of the expected shape.
    #[error("the token is malformed: {0}")]
    Malformed(String),
    /// The token is of another kind, such as an identity token where a grant token belongs.
    #[error("the token is of type {found:?}, where {expected:?} is expected")]
    WrongType {
        /// The `typ` header that is accepted here.
        expected: &'static str,
        /// The one the token has.
        found: String,
    },
    /// The signature algorithm is not on the issuer's list.
    #[error("the token is signed with {0:?}, which is not accepted from this issuer")]
    Algorithm(String),
    /// No issuer of that name is trusted here.
    #[error("the token comes from {0:?}, which is no issuer that this server trusts")]
    UnknownIssuer(String),
    /// The issuer publishes no key of that id.
    #[error("the token is signed with a key ({0:?}) that its issuer does not publish")]
    UnknownKey(String),
    /// The signature does not fit the issuer's key.
    #[error("the token's signature is wrong")]
    Signature,
    /// The token's life is over.
    #[error("the token expired {ago} s ago")]
    Expired {
        /// How long ago, in seconds.
        ago: i64,
    },
    /// The token's life has not begun; most often a clock is wrong.
    #[error("the token is valid only {ahead} s from now; compare the clocks of issuer and server")]
    NotYetValid {
        /// How far ahead, in seconds.
        ahead: i64,
    },
    /// The token was made for somebody else.
    #[error("the token was issued for another audience than {expected}")]
    WrongAudience {
        /// The audience that is accepted here.
        expected: String,
    },
    /// The token is not bound to a key that its holder must prove.
    #[error("the token is not bound to a key (no cnf)")]
    NotBound,
    /// The issuer left the user's groups out of the token, and nothing says where to ask for them.
    #[error(
        "the issuer {issuer} left this user's groups out of the token, because they are too many for it"
    )]
    GroupsLeftOut {
        /// The issuer's URL.
        issuer: String,
    },
    /// Groups that are not in the token could not be looked up.
    #[error("the groups that {issuer} left out of the token cannot be looked up: {why}")]
    GroupsUnavailable {
        /// The issuer's URL.
        issuer: String,
        /// What went wrong.
        why: String,
    },
    /// The issuer did not answer.
    #[error("the issuer {issuer} cannot be reached: {why}")]
    IssuerUnreachable {
        /// The issuer's URL.
        issuer: String,
        /// What went wrong.
        why: String,
    },
    /// The issuer answered with a document that cannot be used.
    #[error("the issuer {issuer} publishes unusable metadata: {why}")]
    IssuerUnusable {
        /// The issuer's URL.
        issuer: String,
        /// What is wrong with it.
        why: String,
    },
    /// The issuer signs tokens for jobs as well, and this one does not come of a login.
    #[error(
        "the token bears no sign of a login (auth_time or nonce), and its issuer signs jobs' tokens too"
    )]
    NoLogin,
    /// A claim is missing or is not what it has to be.
    #[error("the token's claim {name} {fault}")]
    Claim {
        /// The claim.
        name: &'static str,
        /// What is wrong with it.
        fault: &'static str,
    },
}

impl TokenError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "token_malformed",
            Self::WrongType { .. } => "token_type",
            Self::Algorithm(_) => "token_algorithm",
            Self::UnknownIssuer(_) => "unknown_issuer",
            Self::UnknownKey(_) => "token_key_unknown",
            Self::Signature => "token_signature",
            Self::Expired { .. } => "token_expired",
            Self::NotYetValid { .. } => "token_not_yet_valid",
            Self::WrongAudience { .. } => "wrong_audience",
            Self::NotBound => "token_not_bound",
            Self::GroupsLeftOut { .. } => "groups_left_out",
            Self::GroupsUnavailable { .. } => "groups_unavailable",
            Self::IssuerUnreachable { .. } => "issuer_unreachable",
            Self::IssuerUnusable { .. } => "issuer_unusable",
            Self::NoLogin => "token_no_login",
            Self::Claim { .. } => "token_claim",
        }
    }

    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::IssuerUnreachable { .. }
            | Self::IssuerUnusable { .. }
            | Self::GroupsUnavailable { .. } => Fault::Issuer,
            _ => Fault::Caller,
        }
    }

    /// What the caller can do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match (self.fault(), self) {
            (_, Self::GroupsLeftOut { .. }) => Some(
                "tell the server's administrator: issuer.group_lookup looks groups up, or the issuer sends only the groups assigned to the application",
            ),
            (_, Self::Algorithm(_) | Self::WrongAudience { .. }) => Some(
                "a new login does not change this: tell the server's administrator (issuer.audience, issuer.algorithms)",
            ),
            (_, Self::UnknownKey(_)) => Some(
                "if the issuer has just changed its keys, try again in a minute; else run `mcpx login` again",
            ),
            (_, Self::NoLogin) => Some("a job comes in under a trust rule: mcpx login --workload"),
            (Fault::Caller, _) => Some("run `mcpx login` again"),
            (Fault::Issuer, _) => None,
        }
    }
}
