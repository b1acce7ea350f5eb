//! Jobs and services at the token endpoint: their own token, under a trust rule, for a grant.
//!
//! A token is bound to the first key that used it, in the database and before anything else
//! happens, so that a job may exchange it for each of its connections and again to renew, and
//! nobody else may at all. What comes of it never outlives it: each grant token ends with the
//! token that was shown for it, at the latest.

use std::time::Duration;

use axum::http::StatusCode;
use jiff::SignedDuration;
use serde_json::{Map, Value, json};

use super::Control;
use super::error::ApiError;
use crate::gateway::records::recordable;
use crate::identity::grant::Confirmation;
use crate::identity::trust::{Admitted, TrustError};
use crate::identity::{Fault, TokenError};
use crate::types::{Secret, Subject, SubjectKind, Timestamp};

/// The type of a job's token (RFC 8693, section 3).
pub(super) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// Who proved themselves at the token endpoint, and what bounds what they get.
pub(super) struct Proven {
    pub(super) subject: Subject,
    /// Nothing lives longer than this.
    until: Option<Timestamp>,
    /// No grant is renewed for longer than this.
    longest: Option<Duration>,
    /// What is recorded of a job.
    evidence: Option<Value>,
}

impl Proven {
    /// Somebody who logged in.
    pub(super) fn person(subject: Subject) -> Self {
        Self { subject, until: None, longest: None, evidence: None }
    }

    /// An expiry that does not go beyond what proved the subject.
    pub(super) fn until(&self, wanted: Timestamp) -> Timestamp {
        self.until.map_or(wanted, |until| wanted.min(until))
    }

    /// The end of all renewals.
    pub(super) fn ends(&self, wanted: Timestamp, now: Timestamp) -> Timestamp {
        let longest = self.longest.and_then(|longest| SignedDuration::try_from(longest).ok());
        let end = longest.and_then(|longest| now.checked_add(longest).ok());
        end.map_or(wanted, |end| wanted.min(end))
    }

    /// What is recorded of a job, besides who it is.
    pub(super) fn evidence(&self) -> Option<&Value> {
        self.evidence.as_ref()
    }
}

impl Control {
    /// Takes a job's token.
    pub(super) async fn workload(
        &self,
        token: &Secret,
        rule: Option<&str>,
        key: &Confirmation,
        now: Timestamp,
    ) -> Result<Proven, ApiError> {
        // What a balancer says of a certificate is weaker than a proof, and no job needs it.
        let Confirmation::Key(_) = key else {
            let message = "a job's token is bound to a key: exactly one DPoP proof is needed";
            let status = StatusCode::BAD_REQUEST;
            return Err(ApiError::new(status, "invalid_dpop_proof", "dpop_missing", message));
        };
        let admitted = self
            .trust
            .admit(token.expose(), rule, now.as_second())
            .await
            .map_err(|error| refused(&error))?;
        let Admitted { rule, identity, expires, longest, mark, evidence } = admitted;
        let until = Timestamp::from_second(expires).map_err(|error| ApiError::internal(&error))?;
        let subject = self.store.subject(identity, now).await?;
        let first = self.store.bind_workload_token(&mark, &key.text(), until, now).await?;
        if !first {
            let message = "this job's token was used with another key before";
            let status = StatusCode::BAD_REQUEST;
            return Err(ApiError::new(status, "invalid_grant", "token_replayed", message)
                .hint(
                    "commands of one job that share a token share MCPX_HOME as well; anybody else \
                     needs a token of their own",
                )
                .of(&subject.id));
        }
        let claims: Map<String, Value> =
            evidence.into_iter().map(|(name, value)| (name, self.masked(value))).collect();
        let evidence = Some(json!({ "rule": rule, "claims": claims }));
        let subject = Subject { kind: SubjectKind::Workload { rule }, ..subject };
        Ok(Proven { subject, until: Some(until), longest, evidence })
    }

    /// A claim as it may be kept.
    fn masked(&self, claim: Value) -> Value {
        let text = match claim {
            Value::Null | Value::Bool(_) | Value::Number(_) => return claim,
            Value::String(text) => text,
            other => other.to_string(),
        };
        recordable(&text, &self.masker).into()
    }
}

fn refused(error: &TrustError) -> ApiError {
    let issuers = matches!(error, TrustError::Token(error) if error.fault() == Fault::Issuer);
    let (status, oauth) = match error {
        _ if issuers => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
        TrustError::Token(_) => (StatusCode::BAD_REQUEST, "invalid_grant"),
        _ => (StatusCode::FORBIDDEN, "access_denied"),
    };
    let mut refusal = ApiError::new(status, oauth, error.code(), error.to_string());
    refusal.inside = error.inside().map(str::to_owned);
    match error {
        TrustError::Token(TokenError::WrongAudience { expected }) => {
            refusal.hint(format!("the job asks for a token with the audience {expected}"))
        }
        TrustError::Token(TokenError::Expired { .. }) => {
            refusal.hint("the job has to show a token that still lives")
        }
        TrustError::Token(_) => refusal,
        TrustError::Ambiguous { .. } => refusal.hint("name the rule: --trust NAME, or MCPX_TRUST"),
        TrustError::UnknownRule(_) | TrustError::Mismatch { .. } | TrustError::NoRule { .. } => {
            refusal.hint(
                "whoever keeps mcpx.toml finds out with `mcpx trust test RULE --token-file FILE`",
            )
        }
    }
}
