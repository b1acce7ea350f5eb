//! What the control server answers when it does not do what was asked.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::audit::{Entry, Record, RecordError, RefusalStage};
use crate::gateway::ports::PortError;
use crate::gateway::records::recordable;
use crate::mask::Masker;
use crate::policy::Denial;
use crate::store::StoreError;
use crate::types::{ConnectionName, SubjectId};

/// A refusal of the control server, with one sentence for the caller. What went wrong inside goes
/// to the server's log only.
#[derive(Debug)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// OAuth's word for it, at the token endpoint.
    pub oauth: &'static str,
    /// Our own stable word.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Who was refused, where that is known.
    pub subject: Option<SubjectId>,
    /// What they wanted to reach, where that is known.
    pub connection: Option<ConnectionName>,
    /// The nonce that the next proof must have (RFC 9449, section 8).
    pub nonce: Option<String>,
    /// What goes on record besides, and never to the caller.
    pub inside: Option<String>,
}

impl ApiError {
    /// An error with the words for both kinds of endpoint.
    pub fn new(
        status: StatusCode,
        oauth: &'static str,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            oauth,
            code,
            message: message.into(),
            hint: None,
            subject: None,
            connection: None,
            nonce: None,
            inside: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds who was refused.
    #[must_use]
    pub fn of(mut self, subject: &SubjectId) -> Self {
        self.subject = Some(subject.clone());
        self
    }

    /// Adds what they wanted to reach.
    #[must_use]
    pub fn at(mut self, connection: &ConnectionName) -> Self {
        self.connection = Some(connection.clone());
        self
    }

    /// Adds the server's nonce, where it is what the proof was refused for.
    #[must_use]
    pub fn with_nonce(mut self, nonce: Option<String>) -> Self {
        self.nonce = nonce.filter(|_| self.code == "use_dpop_nonce");
        self
    }

    /// A request that is not understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", "bad_request", message)
    }

    /// Something that is not there, or not for this caller to know of.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request", "not_found", message)
    }

    /// Something this caller may not do.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "access_denied", "forbidden", message)
    }

    /// No valid token.
    pub fn unauthenticated(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_token", code, message)
    }

    /// Something inside failed; the caller learns that, and no more.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        let mut chain = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            chain.push_str(": ");
            chain.push_str(&inner.to_string());
            source = inner.source();
        }
        tracing::error!(error = %chain, "the control server failed");
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let message = "the server cannot do this now; its log says why";
        Self::new(status, "temporarily_unavailable", "unavailable", message)
    }

    /// The record of this refusal, with its sentence masked and cut.
    pub fn entry(&self, stage: RefusalStage, masker: &Masker) -> Entry {
        let message = recordable(&self.message, masker);
        let inside = self.inside.as_deref().map(|inside| recordable(inside, masker));
        let body = match inside {
            None => json!({ "message": message }),
            Some(inside) => json!({ "message": message, "inside": inside }),
        };
        Entry {
            record: Record::Refused {
                stage,
                code: self.code.to_owned(),
                subject: self.subject.clone(),
                connection: self.connection.clone(),
                session: None,
            },
            body: Some(body.to_string().into()),
        }
    }

    /// Whether a refusal like this belongs on record: what an intruder would cause, not what a
    /// failing server does.
    pub fn is_refusal(&self) -> bool {
        matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    }

    /// The answer at the token endpoint (RFC 6749, section 5.2).
    pub fn into_token_response(self) -> Response {
        let body = json!({
            "error": self.oauth,
            "error_description": self.message,
            "mcpx_code": self.code,
            "mcpx_hint": self.hint,
        });
        let status = match self.status {
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => StatusCode::BAD_REQUEST,
            status => status,
        };
        let nonce = self.nonce;
        with_nonce((status, [("cache-control", "no-store")], Json(body)).into_response(), nonce)
    }
}

fn with_nonce(mut response: Response, nonce: Option<String>) -> Response {
    if let Some(nonce) = nonce.and_then(|nonce| nonce.parse().ok()) {
        response.headers_mut().insert("dpop-nonce", nonce);
    }
    response
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({
            "error": { "code": self.code, "message": self.message, "hint": self.hint },
        });
        let mut response =
            (self.status, [("cache-control", "no-store")], Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = axum::http::HeaderValue::from_static(match self.nonce {
                Some(_) => "DPoP error=\"use_dpop_nonce\", algs=\"EdDSA ES256\"",
                None => "DPoP error=\"invalid_token\", algs=\"EdDSA ES256\"",
            });
            response.headers_mut().insert("www-authenticate", challenge);
        }
        with_nonce(response, self.nonce)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<RecordError> for ApiError {
    fn from(error: RecordError) -> Self {
        let mut refusal = Self::internal(&error);
        refusal.code = "audit_unavailable";
        "the audit log cannot be written, so this was refused".clone_into(&mut refusal.message);
        refusal
    }
}

impl From<PortError> for ApiError {
    fn from(error: PortError) -> Self {
        Self::internal(&error)
    }
}

impl From<Denial> for ApiError {
    fn from(denial: Denial) -> Self {
        let rules = denial.rules.join(", ");
        let message = format!("{} (rule {rules})", denial.reason);
        Self::new(StatusCode::FORBIDDEN, "access_denied", "policy_denied", message)
            .hint("ask whoever keeps the policies to let one of your groups in")
    }
}
