//! The whole server as one HTTP service: control server, gateway, built-in issuer, health.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::issuer::LocalIssuer;
use super::{Control, api, exchange, oauth, page};
use crate::gateway::Gateway;

/// Whether the server takes new work: false while it drains.
#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says whether new work is taken.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// Whether new work is taken.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// All routes.
pub fn router(
    control: Arc<Control>,
    gateway: Arc<Gateway>,
    issuer: Option<&LocalIssuer>,
    readiness: Readiness,
) -> Router {
    let health = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state((readiness, Arc::clone(&control)));
    let metadata = oauth::router(Arc::clone(&gateway));
    let mcp = Router::new().route("/mcp/{connection}", any(call)).with_state(gateway);
    let mut router = Router::new()
        .route("/.well-known/mcpx", get(describe))
        .route("/.well-known/jwks.json", get(super::keys::publish))
        .route("/oauth/token", post(exchange::token))
        .route("/approvals/{id}", get(page::approval))
        .merge(api::router())
        .with_state(control)
        .merge(health)
        .merge(mcp)
        .merge(metadata);
    if let Some(issuer) = issuer {
        router = router.nest("/issuer", issuer.router());
    }
    router
}

/// Ready means: not draining, and the audit log took its newest write.
async fn ready(
    State((readiness, control)): State<(Readiness, Arc<Control>)>,
) -> (StatusCode, &'static str) {
    if !readiness.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    match control.recorder.publish().await {
        Ok(_) => (StatusCode::OK, "ready\n"),
        Err(error) => {
            tracing::error!(%error, "not ready: the audit log cannot be written");
            (StatusCode::SERVICE_UNAVAILABLE, "the audit log cannot be written\n")
        }
    }
}

async fn call(
    State(gateway): State<Arc<Gateway>>,
    Path(connection): Path<String>,
    request: Request,
) -> Response<Body> {
    gateway.handle(connection, request).await
}

/// `/.well-known/mcpx`: what a broker needs to know before it can log in.
async fn describe(State(control): State<Arc<Control>>) -> Json<Value> {
    let issuers: Vec<Value> = control
        .issuers
        .iter()
        .map(|verifier| {
            let settings = verifier.settings();
            json!({
                "name": settings.name,
                "url": settings.url,
                "client_id": settings.client_id,
                "scopes": settings.scopes,
                "logins": settings.logins,
                "redirect_uri": settings.redirect_uri,
                "resource": settings.resource,
                "client_secret": settings.published_client_secret,
                "groups_claim": settings.groups_claim,
            })
        })
        .collect();
    Json(json!({
        "version": 1,
        "server": control.public_url,
        "issuers": issuers,
        "token_endpoint": format!("{}/oauth/token", control.public_url),
        "jwks_uri": format!("{}/.well-known/jwks.json", control.public_url),
        // As RFC 8414, RFC 9449 and RFC 8705 name these.
        "dpop_signing_alg_values_supported": ["EdDSA", "ES256"],
        "tls_client_certificate_bound_access_tokens": control.certificates,
        "api": control.api_url(),
        "log_key": control.log_key,
    }))
}
