//! One token held against one rule, claim by claim.
//!
//! Everything is looked at even after something was found wrong, so that one run tells all. Only
//! keys are not fetched for a token that could not be accepted anyway.

use std::str::FromStr as _;

use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::rule::{ClaimRule, Twice, find};
use super::{MAX_SUB, Trusted};
use crate::identity::error::TokenError;
use crate::identity::oidc::{self, malformed};

/// A token taken apart, of which nothing is proved yet.
pub(super) struct Token<'a> {
    header: Header,
    signed: &'a [u8],
    signature: &'a str,
    pub(super) claims: Map<String, Value>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    crit: Option<Value>,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug)]
pub struct Check {
    /// What: `signature`, `issuer`, or a claim's path.
    pub what: String,
    /// What the rule wants.
    pub wanted: String,
    /// What the token says, as JSON; none if it says nothing.
    pub found: Option<String>,
    /// How it went.
    pub verdict: Verdict,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As wanted.
    Good,
    /// Not as wanted.
    Wrong,
    /// It could not be looked at.
    Open,
}

/// A rule's judgement of a token.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The rule.
    pub rule: String,
    /// Everything that was looked at.
    pub checks: Vec<Check>,
    /// What is wrong with the token itself, first things first.
    pub fault: Option<TokenError>,
}

impl Judgement {
    /// Whether the rule takes the token.
    pub fn matches(&self) -> bool {
        self.fault.is_none() && self.checks.iter().all(|check| check.verdict == Verdict::Good)
    }

    /// The checks that failed, for the record.
    pub(super) fn told(&self) -> String {
        let wrong = self.checks.iter().filter(|check| check.verdict == Verdict::Wrong);
        let wrong: Vec<_> = wrong
            .map(|check| {
                let found = check.found.as_deref().unwrap_or("nothing");
                format!("{} is {found}, wanted {}", check.what, check.wanted)
            })
            .collect();
        format!("rule {}: {}", self.rule, wrong.join("; "))
    }

    /// The claims that are not as wanted, by name only.
    pub(super) fn wrong_claims(&self) -> Vec<String> {
        let wrong = self.checks.iter().filter(|check| check.verdict == Verdict::Wrong);
        wrong.map(|check| check.what.clone()).collect()
    }
}

impl<'a> Token<'a> {
    pub(super) fn take_apart(token: &'a str) -> Result<Self, TokenError> {
        let (header, signed, signature) = oidc::split(token)?;
        Ok(Self { header, signed, signature, claims: oidc::claims(token)? })
    }

    pub(super) fn text(&self, name: &str) -> Result<&str, TokenError> {
        let text = self.claims.get(name).and_then(Value::as_str);
        text.ok_or_else(|| malformed(&format!("it has no {name}, or one that is no text")))
    }

    /// What the issuer signed.
    pub(super) fn signed(&self) -> &[u8] {
        self.signed
    }

    /// Seconds since 1970; RFC 7519 allows a fraction, which some issuers send.
    pub(super) fn time(&self, name: &str) -> Result<Option<i64>, TokenError> {
        let Some(value) = self.claims.get(name) else { return Ok(None) };
        let whole = value.as_i64().or_else(|| {
            let seconds = value.as_f64()?.floor();
            #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
            (seconds.abs() < 9e15).then_some(seconds as i64)
        });
        whole.map(Some).ok_or_else(|| malformed(&format!("{name} is not a time")))
    }

    fn algorithm(&self, accepted: &[Algorithm]) -> Result<Algorithm, TokenError> {
        let header = &self.header;
        if let Some(typ) = &header.typ
            && !["JWT", "JOSE", "at+jwt"].iter().any(|known| known.eq_ignore_ascii_case(typ))
        {
            return Err(TokenError::WrongType { expected: "JWT", found: typ.clone() });
        }
        if header.crit.is_some() {
            return Err(malformed("it has critical extensions that are not known here"));
        }
        if self.claims.contains_key("cnf") {
            return Err(malformed("it is bound to a key (cnf), whose proof is not asked for here"));
        }
        Algorithm::from_str(&header.alg)
            .ok()
            .filter(|algorithm| accepted.contains(algorithm))
            .ok_or_else(|| TokenError::Algorithm(header.alg.clone()))
    }

    /// `aud`, which is one text or several.
    fn audience(&self) -> Result<Vec<&str>, TokenError> {
        let wrong = || malformed("it has no aud, or one that is neither text nor texts");
        match self.claims.get("aud") {
            Some(Value::String(one)) => Ok(vec![one]),
            Some(Value::Array(several)) => {
                several.iter().map(Value::as_str).collect::<Option<_>>().ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }
}

impl Trusted {
    /// Holds a token against this rule.
    pub(super) async fn judge(&self, token: &Token<'_>, now: i64) -> Judgement {
        let mut judgement =
            Judgement { rule: self.rule.name.clone(), checks: Vec::new(), fault: None };
        let names: Vec<String> =
            self.rule.algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect();
        let algorithm = token.algorithm(&self.rule.algorithms);
        judgement.note(
            "algorithm",
            names.join(" or "),
            Some(quoted(&token.header.alg)),
            &algorithm,
        );

        let issuer = token.text("iss").and_then(|issuer| {
            let same = issuer == self.rule.issuer;
            same.then_some(()).ok_or_else(|| TokenError::UnknownIssuer(issuer.to_owned()))
        });
        let found = token.claims.get("iss").map(Value::to_string);
        judgement.note("issuer", quoted(&self.rule.issuer), found, &issuer);

        let kid = token.header.kid.as_deref();
        let signature = match (algorithm, issuer) {
            (Ok(algorithm), Ok(())) => self.verify(token, algorithm, now).await.map(Some),
            // A stranger's token must not make us ask anybody for keys.
            _ => Ok(None),
        };
        let found = Some(kid.map_or_else(|| "no key id".to_owned(), |kid| format!("key {kid:?}")));
        match signature {
            Ok(Some(())) => judgement.note("signature", "valid".to_owned(), found, &Ok(())),
            Ok(None) => judgement.open("signature", "valid", found),
            Err(error) => {
                judgement.note("signature", "valid".to_owned(), found, &Err::<(), _>(error))
            }
        }

        self.judge_times(token, now, &mut judgement);
        let audience = token.audience().and_then(|found| {
            // Whoever else it is for could use it here before the job does.
            let ours = !found.is_empty()
                && found.iter().all(|one| self.audience.iter().any(|own| own == one));
            let expected = self.audience.join(" or ");
            ours.then_some(()).ok_or(TokenError::WrongAudience { expected })
        });
        let found = token.claims.get("aud").map(Value::to_string);
        let wanted = self.audience.iter().map(|own| quoted(own)).collect::<Vec<_>>().join(" or ");
        judgement.note("audience", wanted, found, &audience);

        let sub = token.text("sub").and_then(|sub| {
            let printable = !sub.chars().any(char::is_control);
            let good = !sub.is_empty() && sub.len() <= MAX_SUB && printable;
            good.then_some(()).ok_or_else(|| malformed("sub is empty, too long or not printable"))
        });
        if let Err(error) = &sub {
            let found = token.claims.get("sub").map(Value::to_string);
            judgement.note("sub", "a name".to_owned(), found, &Err::<(), _>(error.clone()));
        }
        for claim in &self.rule.claims {
            judgement.checks.push(judge_claim(claim, &token.claims));
        }
        judgement
    }

    async fn verify(
        &self,
        token: &Token<'_>,
        algorithm: Algorithm,
        now: i64,
    ) -> Result<(), TokenError> {
        let key = self.keys.key(token.header.kid.as_deref(), algorithm, now).await?;
        match jsonwebtoken::crypto::verify(token.signature, token.signed, &key, algorithm) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(TokenError::Signature),
        }
    }

    fn judge_times(&self, token: &Token<'_>, now: i64, judgement: &mut Judgement) {
        let times = || {
            let exp = token.time("exp")?.ok_or_else(|| malformed("it has no exp"))?;
            let (nbf, iat) = (token.time("nbf")?, token.time("iat")?);
            // No leeway for the end: nothing that comes of the token outlives it.
            oidc::check_times(exp, nbf, iat, now, 0)
        };
        let shown = ["nbf", "iat", "exp"].into_iter().filter_map(|name| {
            let value = token.claims.get(name)?;
            let off = token.time(name).ok().flatten().map(|time| time.saturating_sub(now));
            Some(off.map_or_else(|| format!("{name} {value}"), |off| format!("{name} {off:+} s")))
        });
        let found = Some(shown.collect::<Vec<_>>().join(", "));
        judgement.note("times", "begun and not over".to_owned(), found, &times());
    }
}

impl Judgement {
    fn note<T>(
        &mut self,
        what: &str,
        wanted: String,
        found: Option<String>,
        outcome: &Result<T, TokenError>,
    ) {
        let verdict = match outcome {
            Ok(_) => Verdict::Good,
            Err(TokenError::IssuerUnreachable { .. }) => Verdict::Open,
            Err(_) => Verdict::Wrong,
        };
        if let Err(error) = outcome
            && self.fault.is_none()
        {
            self.fault = Some(error.clone());
        }
        self.checks.push(Check { what: what.to_owned(), wanted, found, verdict });
    }

    fn open(&mut self, what: &str, wanted: &str, found: Option<String>) {
        let (what, wanted) = (what.to_owned(), wanted.to_owned());
        self.checks.push(Check { what, wanted, found, verdict: Verdict::Open });
    }
}

fn judge_claim(rule: &ClaimRule, claims: &Map<String, Value>) -> Check {
    let wanted: Vec<_> = rule.accepts.iter().map(super::Pattern::shown).collect();
    let (found, good) = match find(claims, &rule.path) {
        Ok(Some(value)) => {
            (Some(value.to_string()), rule.accepts.iter().any(|pattern| pattern.accepts(value)))
        }
        Ok(None) => (None, false),
        Err(Twice) => (Some("two claims of that path".to_owned()), false),
    };
    let verdict = if good { Verdict::Good } else { Verdict::Wrong };
    Check { what: rule.path.clone(), wanted: wanted.join(" or "), found, verdict }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
