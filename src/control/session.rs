//! Who calls the API: tokens that the exchange gave out, bound to a key, and kept only here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;

use super::Control;
use super::error::ApiError;
use crate::audit::RefusalStage;
use crate::identity::certificate::PeerCertificate;
use crate::identity::possession::{Presented, Shown};
use crate::types::Subject;

/// API tokens in use. They live for minutes; a restart forgets them, and the command line gets
/// new ones by itself.
#[derive(Default)]
pub struct ApiSessions {
    by_token: Mutex<HashMap<String, (Arc<Subject>, i64)>>,
}

impl ApiSessions {
    /// Remembers whose a token is, by its `jti`.
    pub fn add(&self, jti: String, subject: Arc<Subject>, expires: i64, now: i64) {
        let mut open = self.lock();
        open.retain(|_, (_, expires)| *expires > now);
        open.insert(jti, (subject, expires));
    }

    fn find(&self, jti: &str, now: i64) -> Option<Arc<Subject>> {
        let open = self.lock();
        open.get(jti).filter(|(_, expires)| *expires > now).map(|(subject, _)| Arc::clone(subject))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Arc<Subject>, i64)>> {
        self.by_token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An authenticated caller of the API.
#[derive(Clone, Debug)]
pub struct ApiCaller(pub Arc<Subject>);

impl FromRequestParts<Arc<Control>> for ApiCaller {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        control: &Arc<Control>,
    ) -> Result<Self, ApiError> {
        match authenticate(parts, control) {
            Ok(subject) => Ok(Self(subject)),
            Err(error) => {
                let source = parts.extensions.get::<ConnectInfo<SocketAddr>>();
                tracing::info!(code = error.code, ?source, "an API call was refused");
                control.recorder.append(error.entry(RefusalStage::Api, &control.masker)).await?;
                Err(error)
            }
        }
    }
}

fn authenticate(parts: &Parts, control: &Control) -> Result<Arc<Subject>, ApiError> {
    let missing = || {
        ApiError::unauthenticated("token_missing", "an API token bound to a key is needed")
            .hint("use the mcpx command line, after `mcpx login`")
    };
    let presented = Presented::of(&parts.headers).ok_or_else(missing)?;
    let now = control.clock.now_seconds();
    let claims = control
        .verifier
        .verify(presented.token(), &control.api_url(), now)
        .map_err(|error| ApiError::unauthenticated(error.code(), error.to_string()))?;
    let url = format!("{}{}", control.public_url, parts.uri.path());
    let source = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let shown = Shown {
        headers: &parts.headers,
        method: parts.method.as_str(),
        url: &url,
        source: source.map(|ConnectInfo(peer)| peer.ip()),
        certificate: parts.extensions.get::<PeerCertificate>(),
    };
    control.possession.check(&shown, presented, &claims.cnf, now).map_err(|error| {
        ApiError::unauthenticated(error.code(), error.to_string())
            .of(&claims.sub)
            .with_nonce(control.possession.nonce(now))
    })?;
    let subject = control.sessions.find(&claims.jti, now);
    subject.filter(|subject| subject.id == claims.sub).ok_or_else(|| {
        ApiError::unauthenticated("token_unknown", "this token is not known here any more")
            .of(&claims.sub)
    })
}
