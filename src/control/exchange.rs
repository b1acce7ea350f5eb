//! The token endpoint: an identity token becomes a grant token (RFC 8693) that is bound to the
//! caller's key (RFC 9449) or certificate (RFC 8705) and good for one resource (RFC 8707).
//!
//! A grant is on record before it exists, and exists before its token leaves.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{ConnectInfo, Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::json;

use super::Control;
use super::error::ApiError;
use super::requests::Basis;
use super::workload::{JWT, Proven};
use crate::audit::{Entry, Record, RefusalStage};
use crate::identity::certificate::PeerCertificate;
use crate::identity::dpop::Unused;
use crate::identity::grant::{Confirmation, GrantClaims, GrantDetail, GrantKind};
use crate::identity::possession::{PossessionError, Shown};
use crate::identity::{Fault, TokenError};
use crate::store::grants::GrantRow;
use crate::types::{ConnectionName, GrantId, Secret, SessionId, Subject, Timestamp};

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// An API token's life.
pub(super) const API_TTL: Duration = Duration::from_secs(300);
/// A reason longer than this, in characters, is refused.
const LONGEST_REASON: usize = 500;

/// The form of a token exchange.
#[derive(Deserialize)]
pub struct ExchangeForm {
    grant_type: String,
    subject_token: Secret,
    subject_token_type: String,
    resource: String,
    mcpx_reason: Option<String>,
    mcpx_grant: Option<Secret>,
    mcpx_trust: Option<String>,
}

/// `POST /oauth/token`. In a task of its own: what was begun, a yes used up or an end on record, is
/// done, whatever becomes of the caller.
pub async fn token(
    State(control): State<Arc<Control>>,
    peer: Option<axum::Extension<ConnectInfo<SocketAddr>>>,
    certificate: Option<axum::Extension<PeerCertificate>>,
    headers: HeaderMap,
    form: Result<Form<ExchangeForm>, axum::extract::rejection::FormRejection>,
) -> Response {
    let source = peer.map(|axum::Extension(ConnectInfo(peer))| peer);
    let certificate = certificate.map(|axum::Extension(certificate)| certificate);
    let exchanging = tokio::spawn(answered(control, source, certificate, headers, form));
    exchanging.await.unwrap_or_else(|error| ApiError::internal(&error).into_token_response())
}

async fn answered(
    control: Arc<Control>,
    source: Option<SocketAddr>,
    certificate: Option<PeerCertificate>,
    headers: HeaderMap,
    form: Result<Form<ExchangeForm>, axum::extract::rejection::FormRejection>,
) -> Response {
    let exchanged = match form {
        Ok(Form(form)) => control.exchange(form, &headers, certificate.as_ref(), source).await,
        Err(error) => Err(ApiError::bad_request(error.body_text())),
    };
    match exchanged {
        Ok(answer) => {
            (StatusCode::OK, [("cache-control", "no-store")], Json(answer)).into_response()
        }
        Err(error) => {
            if !error.status.is_server_error()
                && let Err(error) = control
                    .recorder
                    .append(error.entry(RefusalStage::Exchange, &control.masker))
                    .await
            {
                return ApiError::from(error).into_token_response();
            }
            error.into_token_response()
        }
    }
}

impl Control {
    async fn exchange(
        &self,
        form: ExchangeForm,
        headers: &HeaderMap,
        certificate: Option<&PeerCertificate>,
        source: Option<SocketAddr>,
    ) -> Result<serde_json::Value, ApiError> {
        if form.grant_type != TOKEN_EXCHANGE {
            let message = format!("the grant type must be {TOKEN_EXCHANGE}");
            let status = StatusCode::BAD_REQUEST;
            return Err(ApiError::new(status, "unsupported_grant_type", "bad_request", message));
        }
        let now = self.clock.now();
        let (key, proof) = self.key_of(headers, certificate, source, now)?;
        let proven = match form.subject_token_type.as_str() {
            ID_TOKEN => Proven::person(self.logged_in(&form.subject_token, now).await?),
            JWT => {
                let rule = form.mcpx_trust.as_deref();
                self.workload(&form.subject_token, rule, &key, now).await?
            }
            _ => {
                let message = format!("the subject token's type must be {ID_TOKEN} or {JWT}");
                return Err(ApiError::bad_request(message));
            }
        };
        // Only now that it is known who shows it: strangers must not fill the memory of proofs. A
        // job's token is bound before, and to no other key than the one that signed the proof.
        self.possession.use_up(proof, now.as_second()).map_err(|e| self.unproved(&e, now))?;
        let subject = &proven.subject;
        if form.resource == self.api_url() {
            return self.api_token(proven, key, now).await;
        }
        let connection = self.connection_of(&form.resource).ok_or_else(|| {
            let message = format!("there is no connection at {:?}", form.resource);
            ApiError::new(StatusCode::BAD_REQUEST, "invalid_target", "connection_unknown", message)
                .hint("`mcpx ls` lists the connections that you may use")
                .of(&subject.id)
        })?;
        let reason = form.mcpx_reason.map(|reason| self.checked_reason(&reason)).transpose()?;
        let from = source.map(|peer| peer.ip());
        match form.mcpx_grant {
            None => {
                let basis = self.basis(subject, &connection, reason, from, now).await?;
                self.new_grant(proven, connection, key, basis, from, now).await
            }
            Some(token) => self.renewed_grant(proven, connection, key, &token, from, now).await,
        }
    }

    /// Somebody with an identity token of a trusted issuer.
    async fn logged_in(&self, token: &Secret, now: Timestamp) -> Result<Subject, ApiError> {
        let verified = self.issuers.verify(token.expose(), now.as_second()).await;
        let verified = verified.map_err(|error| refused_identity(&error))?;
        Ok(self.store.subject(verified.identity, now).await?)
    }

    /// The key or certificate that the caller proves at this endpoint, and the proof to use up.
    fn key_of(
        &self,
        headers: &HeaderMap,
        certificate: Option<&PeerCertificate>,
        source: Option<SocketAddr>,
        now: Timestamp,
    ) -> Result<(Confirmation, Option<Unused>), ApiError> {
        let url = format!("{}/oauth/token", self.public_url);
        let source = source.map(|peer| peer.ip());
        let shown = Shown { headers, method: "POST", url: &url, source, certificate };
        let confirmed = self.possession.confirm(&shown, now.as_second());
        confirmed.map_err(|error| self.unproved(&error, now))
    }

    fn unproved(&self, error: &PossessionError, now: Timestamp) -> ApiError {
        let oauth = match error.code() {
            "use_dpop_nonce" => "use_dpop_nonce",
            _ if matches!(error, PossessionError::Certificate(_)) => "invalid_request",
            _ => "invalid_dpop_proof",
        };
        ApiError::new(StatusCode::BAD_REQUEST, oauth, error.code(), error.to_string())
            .with_nonce(self.possession.nonce(now.as_second()))
    }

    fn connection_of(&self, resource: &str) -> Option<ConnectionName> {
        let name = resource.strip_prefix(&self.public_url)?.strip_prefix("/mcp/")?;
        name.parse().ok().filter(|name| self.connections.contains_key(name))
    }

    /// A reason as it may be kept: masked, and of bearable length.
    pub(super) fn checked_reason(&self, reason: &str) -> Result<String, ApiError> {
        if reason.chars().count() > LONGEST_REASON {
            let message = format!("a reason may have at most {LONGEST_REASON} characters");
            return Err(ApiError::bad_request(message));
        }
        Ok(self.masker.text(reason).0.into_owned())
    }

    async fn api_token(
        &self,
        proven: Proven,
        key: Confirmation,
        now: Timestamp,
    ) -> Result<serde_json::Value, ApiError> {
        let ends = proven.until(later(now, API_TTL)?);
        let body = proven.evidence().map(|workload| json!({ "workload": workload }));
        let subject = proven.subject;
        let record =
            Record::TokenIssued { subject: subject.id.clone(), audience: "api".to_owned() };
        let body = body.map(|body| body.to_string().into());
        self.recorder.append(Entry { record, body }).await?;
        let jti = GrantId::generate().map_err(|error| ApiError::internal(&error))?;
        // Not a grant: the prefix would make it one.
        let jti = jti.as_str().replace(GrantId::PREFIX, "api_");
        let (issued, expires) = (now.as_second(), ends.as_second());
        let detail = GrantDetail { kind: GrantKind::Api, session: None, connection: None };
        let (kind, life) = (key.token_type(), (issued, expires));
        let token = self.sign(&subject, self.api_url(), &jti, key, life, detail).await?;
        self.sessions.add(jti, Arc::new(subject), expires, issued);
        Ok(answer(&token, kind, expires - issued, None))
    }

    async fn new_grant(
        &self,
        proven: Proven,
        connection: ConnectionName,
        key: Confirmation,
        basis: Basis,
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<serde_json::Value, ApiError> {
        let internal = |error| ApiError::internal(&error);
        let Basis { reason, yes } = basis;
        let mut ends_at = proven.ends(later(now, self.settings.grant_max)?, now);
        if let Some(yes) = &yes {
            let begins = yes.wanted.from.unwrap_or(now);
            let life = Duration::from_secs(yes.wanted.seconds.unsigned_abs());
            ends_at = ends_at.min(later(begins, life)?);
        }
        let row = GrantRow {
            id: GrantId::generate().map_err(internal)?,
            session: SessionId::generate().map_err(internal)?,
            thumbprint: key.text(),
            issued_at: now,
            expires_at: proven.until(later(now, self.settings.grant_ttl)?).min(ends_at),
            ends_at,
            revoked_at: None,
            ended_by: None,
            scope: yes.as_ref().map(|yes| yes.wanted.scope.clone()).unwrap_or_default(),
            approval: yes.as_ref().map(|yes| yes.id.clone()),
            approver: None,
            reason,
            subject: proven.subject.clone(),
            connection,
        };
        let _giving = self.grants.giving().await;
        if let Some(yes) = &row.approval {
            self.spend(yes, &row.id, now).await?;
        }
        let mut body = json!({
            "subject": row.subject.identity,
            "reason": row.reason,
            "source": source,
            "tools": row.scope,
            "key": row.thumbprint,
        });
        if let Some(workload) = proven.evidence() {
            body["workload"] = workload.clone();
        }
        let record = Record::GrantIssued {
            grant: row.id.clone(),
            session: row.session.clone(),
            subject: row.subject.id.clone(),
            connection: row.connection.clone(),
            expires: row.expires_at,
            approval: row.approval.clone(),
            ends: row.approval.is_some().then_some(row.ends_at),
        };
        let entry = Entry { record, body: Some(body.to_string().into()) };
        self.recorder.append(entry).await?;
        self.grants.add(&row).await?;
        self.grant_token(&row, key, row.expires_at, now).await
    }

    async fn renewed_grant(
        &self,
        proven: Proven,
        connection: ConnectionName,
        key: Confirmation,
        token: &Secret,
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<serde_json::Value, ApiError> {
        let subject = &proven.subject;
        let over = |code, message: &str| {
            ApiError::new(StatusCode::BAD_REQUEST, "invalid_grant", code, message)
                .hint("connect again to ask for a new grant")
                .of(&subject.id)
                .at(&connection)
        };
        let audience = format!("{}/mcp/{connection}", self.public_url);
        let claims = self
            .verifier
            .verify(token.expose(), &audience, now.as_second())
            .map_err(|error| over(expired_or(&error), &error.to_string()))?;
        let id = claims.grant().ok_or_else(|| over("grant_unknown", "this is not a grant"))?;
        let row = self.store.grant(&id).await?;
        let row = row.filter(|row| {
            row.subject.id == subject.id
                && row.subject.kind == subject.kind
                && row.connection == connection
                && claims.sub == subject.id
                && claims.cnf == key
                && row.thumbprint == key.text()
        });
        let mut row =
            row.ok_or_else(|| over("grant_unknown", "this grant is not yours to renew"))?;
        if row.revoked_at.is_some() {
            return Err(over("grant_revoked", "the grant has been revoked"));
        }
        self.extended(&mut row, now).await?;
        if let Err(refusal) = self.still_stands(subject, &row, source, now).await {
            // What policy refuses ends at once; what could not be asked may be asked again.
            let ends = refusal.status == StatusCode::FORBIDDEN;
            return Err(if ends { self.ended(&row, refusal).await } else { refusal });
        }
        // The trust rule may have changed since it was given.
        let ends_at = proven.ends(row.ends_at, row.issued_at);
        let expires = proven.until(later(now, self.settings.grant_ttl)?).min(ends_at);
        if ends_at <= now {
            return Err(over("grant_expired", "the grant cannot be renewed any longer"));
        }
        let record =
            Record::GrantRenewed { grant: id.clone(), subject: subject.id.clone(), expires };
        self.recorder.append(Entry { record, body: None }).await?;
        if !self.grants.renew(&id, expires, subject).await? {
            return Err(over("grant_revoked", "the grant has been revoked"));
        }
        self.grant_token(&row, key, expires, now).await
    }

    async fn grant_token(
        &self,
        row: &GrantRow,
        key: Confirmation,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<serde_json::Value, ApiError> {
        let audience = format!("{}/mcp/{}", self.public_url, row.connection);
        let detail = GrantDetail {
            kind: GrantKind::Connection,
            session: Some(row.session.clone()),
            connection: Some(row.connection.clone()),
        };
        let life = (now.as_second(), expires.as_second());
        let (kind, id) = (key.token_type(), row.id.as_str());
        let token = self.sign(&row.subject, audience, id, key, life, detail).await?;
        Ok(answer(&token, kind, life.1 - life.0, Some(row)))
    }

    async fn sign(
        &self,
        subject: &Subject,
        aud: String,
        jti: &str,
        key: Confirmation,
        (iat, exp): (i64, i64),
        mcpx: GrantDetail,
    ) -> Result<String, ApiError> {
        let claims = GrantClaims {
            iss: self.signer.issuer().to_owned(),
            sub: subject.id.clone(),
            aud,
            exp,
            iat,
            jti: jti.to_owned(),
            cnf: key,
            mcpx,
        };
        self.signer.sign(&claims).await.map_err(|error| ApiError::internal(&error))
    }
}

fn answer(token: &str, kind: &str, expires_in: i64, grant: Option<&GrantRow>) -> serde_json::Value {
    json!({
        "access_token": token,
        "issued_token_type": ACCESS_TOKEN,
        "token_type": kind,
        "expires_in": expires_in,
        "mcpx_grant": grant.map(|grant| &grant.id),
        "mcpx_session": grant.map(|grant| &grant.session),
    })
}

pub(super) fn later(now: Timestamp, by: Duration) -> Result<Timestamp, ApiError> {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| now.checked_add(by).ok())
        .ok_or_else(|| ApiError::bad_request("the configured life of grants is beyond all time"))
}

fn expired_or(error: &TokenError) -> &'static str {
    match error {
        TokenError::Expired { .. } => "grant_expired",
        other => other.code(),
    }
}

fn refused_identity(error: &TokenError) -> ApiError {
    let status = match error.fault() {
        Fault::Caller => StatusCode::BAD_REQUEST,
        Fault::Issuer => StatusCode::SERVICE_UNAVAILABLE,
    };
    let oauth = match error.fault() {
        Fault::Caller => "invalid_grant",
        Fault::Issuer => "temporarily_unavailable",
    };
    let refusal = ApiError::new(status, oauth, error.code(), error.to_string());
    match error.hint() {
        Some(hint) => refusal.hint(hint),
        None => refusal,
    }
}
