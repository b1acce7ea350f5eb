//! Grants over the API: asking for one, looking at them, ending them.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, MOST, Shared, on_record, person, show_approval};
use crate::control::Control;
use crate::control::error::ApiError;
use crate::control::requests::RequestForm;
use crate::control::revoke::Revocation;
use crate::control::session::ApiCaller;
use crate::store::approvals::ApprovalRow;
use crate::store::grants::GrantRow;
use crate::types::{GrantId, Subject, Timestamp};

pub(super) async fn request(
    State(control): Shared,
    ApiCaller(subject): ApiCaller,
    peer: Option<axum::Extension<ConnectInfo<SocketAddr>>>,
    Json(form): Json<RequestForm>,
) -> Answer {
    let source = peer.map(|axum::Extension(ConnectInfo(peer))| peer.ip());
    let asked = control.request_grant(&subject, form, source).await;
    let row = on_record(&control, asked).await?;
    Ok(Json(show_approval(&control, &subject, &row).await?))
}

/// Grants that exist, and those that are asked for, the newest first.
pub(super) async fn list(State(control): Shared, ApiCaller(subject): ApiCaller) -> Answer {
    let everybody = control.is_operator(&subject) || control.is_auditor(&subject);
    let of = (!everybody).then_some(&subject.id);
    let now = control.clock.now();
    let mut list = Vec::new();
    for row in control.store.requests(of, now, MOST).await? {
        list.push(show_request(&control, &row).await?);
    }
    let rows = control.store.grants(of, MOST).await?;
    list.extend(rows.iter().map(|row| show_grant(row, now)));
    Ok(Json(Value::from(list)))
}

fn show_grant(row: &GrantRow, now: Timestamp) -> Value {
    let state = if row.revoked_at.is_some() && row.ended_by.is_none() {
        "revoked"
    } else if row.revoked_at.is_some() || row.expires_at <= now {
        "ended"
    } else {
        "active"
    };
    json!({
        "id": row.id,
        "session": row.session,
        "subject": { "id": row.subject.id, "label": row.subject.label() },
        "trust_rule": row.subject.kind.rule(),
        "connection": row.connection,
        "reason": row.reason,
        "tools": row.scope,
        "approval": row.approval,
        "approver": row.approver,
        "issued_at": row.issued_at,
        "expires_at": row.expires_at,
        "ends_at": row.ends_at,
        "ended_by": row.ended_by,
        "state": state,
    })
}

/// A grant that does not exist yet, in the shape of those that do.
async fn show_request(control: &Control, row: &ApprovalRow) -> Result<Value, ApiError> {
    let wanted = row.wanted.as_ref();
    let approver = match &row.decided_by {
        None => None,
        Some(by) => Some(control.store.label(by).await?),
    };
    Ok(json!({
        "id": row.id,
        "session": null,
        "subject": person(control, &row.subject).await?,
        "connection": row.connection,
        "reason": wanted.map(|wanted| &wanted.reason),
        "tools": wanted.map(|wanted| &wanted.scope),
        "extends": wanted.and_then(|wanted| wanted.extends.as_ref()),
        "from": wanted.and_then(|wanted| wanted.from),
        "seconds": wanted.map(|wanted| wanted.seconds),
        "approval": row.id,
        "approver": approver,
        "issued_at": row.requested_at,
        "expires_at": row.expires_at,
        "ends_at": null,
        "state": "pending",
    }))
}

#[derive(Default, Deserialize)]
pub(super) struct Why {
    reason: Option<String>,
}

pub(super) async fn revoke(
    State(control): Shared,
    ApiCaller(subject): ApiCaller,
    Path(id): Path<String>,
    why: Option<Json<Why>>,
) -> Answer {
    let id: GrantId = id.parse().map_err(|error| ApiError::bad_request(format!("{error}")))?;
    let Json(Why { reason }) = why.unwrap_or_default();
    let revoked = revoked(&control, subject, Revocation::of_grant(id.clone(), reason)).await?;
    if let Some(revoked) = revoked.into_iter().next() {
        return Ok(Json(revoked));
    }
    // It is over already: that is told as it is.
    let row = control.store.grant(&id).await?;
    let row = row.ok_or_else(|| ApiError::not_found(format!("there is no grant {id}")))?;
    Ok(Json(show_grant(&row, control.clock.now())))
}

pub(super) async fn revoke_many(
    State(control): Shared,
    ApiCaller(subject): ApiCaller,
    Json(what): Json<Revocation>,
) -> Answer {
    Ok(Json(Value::from(revoked(&control, subject, what).await?)))
}

/// Revokes, in a task of its own: what is on record happens, whatever becomes of the caller.
async fn revoked(
    control: &Arc<Control>,
    subject: Arc<Subject>,
    what: Revocation,
) -> Result<Vec<Value>, ApiError> {
    let task = Arc::clone(control);
    let revoking = tokio::spawn(async move { task.revoke(&subject, what).await });
    let outcome = revoking.await.map_err(|error| ApiError::internal(&error))?;
    let now = control.clock.now();
    let mut shown = Vec::new();
    for (grant, cut) in on_record(control, outcome).await? {
        let row = control.store.grant(&grant.id).await?.unwrap_or(grant);
        let mut grant = show_grant(&row, now);
        grant["cut"] = json!(cut);
        shown.push(grant);
    }
    Ok(shown)
}
