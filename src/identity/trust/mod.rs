//! Trust rules: whose jobs and services come in with the token that they have already (RFC 8693,
//! section 2.1, with a JWT as subject token).
//!
//! | file | owns |
//! |---|---|
//! | [`rule`] | a rule, and what none may leave open |
//! | [`pattern`] | exact values and globs |
//! | [`judge`] | one token against one rule, claim by claim |
//!
//! A rule names an issuer, our own audience, algorithms, and claims that all have to be there. A
//! token that two rules take is refused: which groups it gets must not depend on their order.
//! `sub` is the subject's name and is never taken apart.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use self::judge::Token;
use super::error::TokenError;
use super::fetch::{self, FetchError};
use super::jwks::KeyCache;
use crate::types::{Identity, sha256};

pub use self::judge::{Check, Judgement, Verdict};
pub use self::pattern::{Glob, Pattern};
pub use self::rule::{ClaimRule, Rule, RuleError};

mod judge;
mod pattern;
mod rule;

const MAX_SUB: usize = 512;
const MAX_JTI: usize = 256;

/// Claims that say which run of which job it was: for the record, where the token has them.
const TRACES: &[&str] = &[
    "jti",
    "repository",
    "workflow_ref",
    "run_id",
    "run_attempt",
    "sha",
    "actor",
    "event_name",
    "project_path",
    "pipeline_id",
    "job_id",
    "user_login",
    "kubernetes.io.namespace",
    "kubernetes.io.pod.name",
];

/// The rules of a server.
#[derive(Default)]
pub struct TrustRules {
    rules: Vec<Trusted>,
}

/// A rule with what is needed to hold tokens against it.
struct Trusted {
    rule: Rule,
    audience: Vec<String>,
    keys: KeyCache,
}

/// A job whose token was accepted.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The rule that took it.
    pub rule: String,
    /// Who it is, with the groups that the rule gives.
    pub identity: Identity,
    /// When the token expires, in seconds since 1970: nothing lives longer.
    pub expires: i64,
    /// How long a grant can be renewed for, if the rule says.
    pub longest: Option<Duration>,
    /// What the token is known by, so that it serves one key only.
    pub mark: [u8; 32],
    /// The claims that the rule looked at, and those that say which run it was.
    pub evidence: Map<String, Value>,
}

/// A job's token that was not accepted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TrustError {
    /// The token itself is no good.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The job names a rule that is not there.
    #[error("there is no trust rule {0:?} here")]
    UnknownRule(String),
    /// The token is good, but not what the rule wants.
    #[error("the trust rule {rule} does not take this token: not as it wants are {}", claims.join(", "))]
    Mismatch {
        /// The rule that the job named.
        rule: String,
        /// The names of the claims.
        claims: Vec<String>,
        /// All that was found, for the record.
        inside: String,
    },
    /// The token is good, but no rule wants it.
    #[error("no trust rule takes this token")]
    NoRule {
        /// All that was found, for the record.
        inside: String,
    },
    /// Two rules take it.
    #[error("the trust rules {first} and {second} both take this token; name one")]
    Ambiguous {
        /// One rule.
        first: String,
        /// Another.
        second: String,
    },
}

impl TrustError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Token(error) => error.code(),
            Self::UnknownRule(_) => "trust_unknown",
            Self::Mismatch { .. } | Self::NoRule { .. } => "trust_mismatch",
            Self::Ambiguous { .. } => "trust_ambiguous",
        }
    }

    /// What belongs on record and not to the caller: what the rules want.
    pub fn inside(&self) -> Option<&str> {
        match self {
            Self::Mismatch { inside, .. } | Self::NoRule { inside } => Some(inside),
            Self::Token(_) | Self::UnknownRule(_) | Self::Ambiguous { .. } => None,
        }
    }
}

impl TrustRules {
    /// Rules that are ready for tokens. `own` is the server's URL: the audience of rules that name
    /// none. Keys are fetched when the first token comes.
    ///
    /// # Errors
    /// [`FetchError`] when no HTTP client can be made.
    pub fn new(rules: Vec<Rule>, own: &str) -> Result<Self, FetchError> {
        // Rules for one issuer share its keys, and the bound on how often they are fetched.
        let mut keys: BTreeMap<String, KeyCache> = BTreeMap::new();
        let mut ready = Vec::new();
        for rule in rules {
            let place = format!("{} {:?}", rule.issuer, rule.keys);
            let cache = match keys.get(&place) {
                Some(cache) => cache.clone(),
                None => {
                    let http = fetch::client_for(&fetch::safe_url(&rule.issuer)?)?;
                    let cache = KeyCache::found(&rule.issuer, rule.keys.clone(), http);
                    keys.insert(place, cache.clone());
                    cache
                }
            };
            let audience = match rule.audience.as_slice() {
                [] => vec![own.to_owned()],
                named => named.to_vec(),
            };
            ready.push(Trusted { rule, audience, keys: cache });
        }
        Ok(Self { rules: ready })
    }

    /// The names of the rules.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|trusted| trusted.rule.name.as_str())
    }

    /// How long a job's grant can be renewed for under a rule, if the rule says.
    ///
    /// # Errors
    /// [`TrustError`] when there is no such rule any more.
    pub fn longest(&self, rule: &str) -> Result<Option<Duration>, TrustError> {
        Ok(self.named(rule)?.rule.max)
    }

    /// Holds a token against one rule and tells everything.
    ///
    /// # Errors
    /// [`TrustError`] when there is no such rule, or no token to speak of.
    pub async fn explain(
        &self,
        token: &str,
        rule: &str,
        now: i64,
    ) -> Result<Judgement, TrustError> {
        let trusted = self.named(rule)?;
        let token = Token::take_apart(token)?;
        Ok(trusted.judge(&token, now).await)
    }

    /// Takes a job's token under the rule that it names, or the one that fits.
    ///
    /// # Errors
    /// [`TrustError`].
    pub async fn admit(
        &self,
        token: &str,
        named: Option<&str>,
        now: i64,
    ) -> Result<Admitted, TrustError> {
        let named = named.map(|name| self.named(name)).transpose()?;
        let token = Token::take_apart(token)?;
        let issuer = token.text("iss")?;
        let candidates: Vec<&Trusted> = match named {
            Some(trusted) => vec![trusted],
            None => self.rules.iter().filter(|trusted| trusted.rule.issuer == issuer).collect(),
        };
        let mut judged = Vec::new();
        for trusted in candidates {
            judged.push((trusted, trusted.judge(&token, now).await));
        }
        let mut matching = judged.iter().filter(|(_, judgement)| judgement.matches());
        match (matching.next(), matching.next()) {
            (Some((trusted, _)), None) => trusted.admitted(&token),
            (Some((first, _)), Some((second, _))) => Err(TrustError::Ambiguous {
                first: first.rule.name.clone(),
                second: second.rule.name.clone(),
            }),
            (None, _) => {
                let judged = judged.into_iter().map(|(_, judgement)| judgement).collect();
                Err(refusal(judged, named.is_some(), issuer))
            }
        }
    }

    fn named(&self, name: &str) -> Result<&Trusted, TrustError> {
        let trusted = self.rules.iter().find(|trusted| trusted.rule.name == name);
        trusted.ok_or_else(|| TrustError::UnknownRule(name.to_owned()))
    }
}

impl Trusted {
    fn admitted(&self, token: &Token<'_>) -> Result<Admitted, TrustError> {
        let expires = token.time("exp")?.unwrap_or_default();
        let looked_at = self.rule.claims.iter().map(|claim| claim.path.as_str());
        let evidence = looked_at
            .chain(TRACES.iter().copied())
            .filter_map(|path| {
                let value = rule::find(&token.claims, path).ok().flatten()?;
                Some((path.to_owned(), value.clone()))
            })
            .collect();
        Ok(Admitted {
            rule: self.rule.name.clone(),
            identity: Identity {
                issuer: token.text("iss")?.to_owned(),
                sub: token.text("sub")?.to_owned(),
                // A job is not the person who started it.
                email: None,
                groups: self.rule.groups.clone(),
            },
            expires,
            longest: self.rule.max,
            mark: mark(token)?,
            evidence,
        })
    }
}

/// A token by its issuer and `jti`; one without `jti` by all that was signed.
fn mark(token: &Token<'_>) -> Result<[u8; 32], TrustError> {
    let mut text = token.text("iss")?.as_bytes().to_vec();
    text.push(0);
    let jti = token.claims.get("jti").and_then(Value::as_str);
    let usable =
        |jti: &&str| !jti.is_empty() && jti.len() <= MAX_JTI && !jti.chars().any(char::is_control);
    match jti.filter(usable) {
        Some(jti) => text.extend_from_slice(jti.as_bytes()),
        None => {
            // No usable jti has a NUL, so that no token can be taken for another.
            text.push(0);
            text.extend_from_slice(&sha256(token.signed()));
        }
    }
    Ok(sha256(&text))
}

/// Why nothing matched. Of several rules the one that came furthest speaks.
fn refusal(judged: Vec<Judgement>, named: bool, issuer: &str) -> TrustError {
    let inside = judged.iter().map(Judgement::told).collect::<Vec<_>>().join(" | ");
    // A rule whose only complaint is about claims came further than one with a bad token.
    if let Some(judgement) = judged.iter().find(|judgement| judgement.fault.is_none()) {
        return if named {
            let (rule, claims) = (judgement.rule.clone(), judgement.wrong_claims());
            TrustError::Mismatch { rule, claims, inside }
        } else {
            TrustError::NoRule { inside }
        };
    }
    let faults = judged.into_iter().filter_map(|judgement| judgement.fault);
    let furthest = faults.max_by_key(|fault| match fault {
        TokenError::UnknownIssuer(_) => 0,
        TokenError::Algorithm(_) | TokenError::WrongType { .. } => 1,
        TokenError::WrongAudience { .. } => 4,
        TokenError::Expired { .. } | TokenError::NotYetValid { .. } => 3,
        _ => 2,
    });
    TrustError::Token(furthest.unwrap_or_else(|| TokenError::UnknownIssuer(issuer.to_owned())))
}

#[cfg(test)]
mod tests;
