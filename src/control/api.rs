//! The API that the command line uses. Every path needs a token (see [`super::session`]); what a
//! caller sees is theirs, or everybody's for auditors and operators. Looking at a session is
//! itself on record before anything is shown.

mod grants;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Control;
use super::approvals::why_not;
use super::error::ApiError;
use super::session::ApiCaller;
use crate::audit::{Entry, Record};
use crate::evidence::replay;
use crate::gateway::ports::ItemKind;
use crate::policy::Connect;
use crate::store::approvals::ApprovalRow;
use crate::store::index::SessionRow;
use crate::store::pins::PinRow;
use crate::types::{ApprovalId, SessionId, Subject, SubjectId};

/// How long an answer may wait for a decision.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// Rows in one answer.
const MOST: u32 = 500;
const USUAL: u32 = 50;
/// Requests for approval that are looked through for those that a caller may see.
const LOOKED_THROUGH: u32 = 10_000;

/// The API's routes. Not nested: a nested router would hide the prefix that proofs are made for.
pub fn router() -> Router<Arc<Control>> {
    Router::new()
        .route("/api/me", get(me))
        .route("/api/connections", get(connections))
        .route("/api/approvals", get(approvals))
        .route("/api/approvals/{id}", get(approval).post(decide))
        .route("/api/requests", post(grants::request))
        .route("/api/grants", get(grants::list))
        .route("/api/revocations", post(grants::revoke_many))
        .route("/api/grants/{id}/revoke", post(grants::revoke))
        .route("/api/tools", get(tools))
        .route("/api/tools/accept", post(accept_tool))
        .route("/api/sessions", get(sessions))
        .route("/api/sessions/{id}", get(session))
        .route("/api/log/{*path}", get(log))
}

type Answer = Result<Json<Value>, ApiError>;
type Shared = State<Arc<Control>>;

async fn me(State(control): Shared, ApiCaller(subject): ApiCaller) -> Answer {
    Ok(Json(json!({
        "id": subject.id,
        "label": subject.label(),
        "kind": subject.kind.word(),
        "rule": subject.kind.rule(),
        "issuer": subject.identity.issuer,
        "groups": subject.identity.groups,
        "auditor": control.is_auditor(&subject),
        "operator": control.is_operator(&subject),
    })))
}

async fn connections(State(control): Shared, ApiCaller(subject): ApiCaller) -> Answer {
    let policies = control.policies.load();
    let facts = control.facts(None, None, control.clock.now());
    let list: Vec<Value> = control
        .connections
        .iter()
        .filter_map(|(name, info)| {
            let asked = policies.may_connect(&subject, name, &facts).ok()?;
            Some(json!({
                "name": name,
                "description": info.description,
                "transport": info.transport,
                "url": format!("{}/mcp/{name}", control.public_url),
                "needs_approval": matches!(asked, Connect::NeedsApproval(_)),
            }))
        })
        .collect();
    Ok(Json(Value::from(list)))
}

#[derive(Deserialize)]
struct ApprovalsQuery {
    state: Option<String>,
    limit: Option<u32>,
}

async fn approvals(
    State(control): Shared,
    ApiCaller(subject): ApiCaller,
    Query(query): Query<ApprovalsQuery>,
) -> Answer {
    let pending_only = match query.state.as_deref() {
        None | Some("pending") => true,
        Some("all") => false,
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "state {other:?} is neither pending nor all"
            )));
        }
    };
    let limit = query.limit.unwrap_or(USUAL).min(MOST);
    // Chosen before they are counted: other people's requests must not crowd out the caller's.
    let rows = control.store.approvals(pending_only, control.clock.now(), LOOKED_THROUGH).await?;
    let theirs = rows.into_iter().filter(|row| may_see_approval(&control, &subject, row));
    let mut list = Vec::new();
    for row in theirs.take(usize::try_from(limit).unwrap_or(usize::MAX)) {
        list.push(show_approval(&control, &subject, &row).await?);
    }
    Ok(Json(Value::from(list)))
}

#[derive(Deserialize)]
struct Waiting {
    /// Seconds to wait for a decision.
    wait: Option<u64>,
}

async fn approval(
    State(control): Shared,
    ApiCaller(subject): ApiCaller,
    Path(id): Path<String>,
    Query(query): Query<Waiting>,
) -> Answer {
    let id = approval_id(&id)?;
    let seen = |row: Option<ApprovalRow>| {
        row.filter(|row| may_see_approval(&control, &subject, row))
            .ok_or_else(|| ApiError::not_found(format!("there is no approval {id}")))
    };
    let mut row = seen(control.store.approval(&id).await?)?;
    if let Some(seconds) = query.wait {
        let patience = Duration::from_secs(seconds).min(LONGEST_WAIT);
        row = seen(control.approvals.watch(&id, patience).await?)?;
    }
    Ok(Json(show_approval(&control, &subject, &row).await?))
}

#[derive(Deserialize)]
struct Decision {
    decision: String,
    reason: Option<String>,
}

async fn decide(
    State(control): Shared,
    ApiCaller(subject): ApiCaller,
    Path(id): Path<String>,
    Json(decision): Json<Decision>,
) -> Answer {
    let id = approval_id(&id)?;
    let yes = match decision.decision.as_str() {
        "approve" => true,
        "deny" => false,
        other => {
            let message = format!("decision {other:?} is neither approve nor deny");
            return Err(ApiError::bad_request(message));
        }
    };
    let reason = decision.reason.map(|reason| control.masker.text(&reason).0.into_owned());
    // In a task of its own: what is on record happens, whatever becomes of the caller.
    let deciding = tokio::spawn(async move {
        let decided = control.approvals.decide(&id, &subject, yes, reason.as_deref()).await;
        let row = on_record(&control, decided).await?;
        control.follow(&row).await?;
        Ok(Json(show_approval(&control, &subject, &row).await?))
    });
    deciding.await.map_err(|error| ApiError::internal(&error))?
}

fn may_see_approval(control: &Control, subject: &Subject, row: &ApprovalRow) -> bool {
    row.subject == subject.id || control.is_auditor(subject) || super::in_any(subject, &row.groups)
}

async fn show_approval(
    control: &Control,
    subject: &Subject,
    row: &ApprovalRow,
) -> Result<Value, ApiError> {
    let requester = control.store.label(&row.subject).await?;
    let decided_by = match &row.decided_by {
        None => None,
        Some(by) => Some(person(control, by).await?),
    };
    let arguments: Value = serde_json::from_str(&row.arguments).unwrap_or(Value::Null);
    let open = row.state == crate::store::approvals::ApprovalState::Pending;
    let why_not = if open { why_not(row, subject, &requester) } else { None };
    Ok(json!({
        "id": row.id,
        "state": row.state,
        "requested_by": { "id": row.subject, "label": requester },
        "connection": row.connection,
        "session": row.session,
        "action": row.action,
        "tool": row.target,
        "arguments": arguments,
        "rule": row.rule,
        "groups": row.groups,
        "requested_at": row.requested_at,
        "expires_at": row.expires_at,
        "decided_by": decided_by,
        "reason": row.reason,
        "wanted": row.wanted,
        "may_decide": open && why_not.is_none(),
        "why_not": why_not,
    }))
}

#[derive(Deserialize)]
struct ToolsQuery {
    connection: Option<String>,
}

async fn tools(
    State(control): Shared,
    ApiCaller(subject): ApiCaller,
    Query(query): Query<ToolsQuery>,
) -> Answer {
    watches_tools(&control, &subject).await?;
    let connection = query.connection.map(|name| connection_name(&name)).transpose()?;
    let rows = control.store.pins(connection.as_ref()).await?;
    Ok(Json(rows.iter().map(show_pin).collect()))
}

#[derive(Deserialize)]
struct Acceptance {
    connection: String,
    kind: String,
    name: String,
    hash: String,
}

async fn accept_tool(
    State(control): Shared,
    ApiCaller(subject): ApiCaller,
    Json(what): Json<Acceptance>,
) -> Answer {
    let connection = connection_name(&what.connection)?;
    if !control.is_operator(&subject) {
        let refusal = ApiError::forbidden("only operators accept definitions");
        return on_record(&control, Err(refusal.of(&subject.id).at(&connection))).await;
    }
    if !subject.kind.is_person() {
        let message = "only people accept definitions; a job's token accepts nothing";
        let status = axum::http::StatusCode::FORBIDDEN;
        let refusal = ApiError::new(status, "access_denied", "not_a_person", message);
        return on_record(&control, Err(refusal.of(&subject.id).at(&connection))).await;
    }
    let kind = match what.kind.as_str() {
        "tool" => ItemKind::Tool,
        "prompt" => ItemKind::Prompt,
        other => {
            return Err(ApiError::bad_request(format!("{other:?} is neither tool nor prompt")));
        }
    };
    let row = control.pins.accept(&connection, kind, &what.name, &what.hash, &subject).await?;
    Ok(Json(show_pin(&row)))
}

async fn watches_tools(control: &Control, subject: &Subject) -> Result<(), ApiError> {
    if control.is_operator(subject) || control.is_auditor(subject) {
        return Ok(());
    }
    let refusal = ApiError::forbidden("only operators and auditors see definitions");
    on_record(control, Err(refusal.of(&subject.id))).await
}

fn show_pin(row: &PinRow) -> Value {
    let json = |text: &Option<String>| {
        text.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok())
    };
    let state = match (&row.offered, &row.accepted) {
        (Some(_), _) => "quarantined",
        (None, Some(_)) => "accepted",
        (None, None) => "unknown",
    };
    json!({
        "connection": row.connection,
        "kind": row.kind,
        "name": row.name,
        "state": state,
        "reason": row.reason,
        "accepted": row.accepted,
        "definition": json(&row.definition),
        "offered": row.offered,
        "proposal": json(&row.proposal),
        "changed_at": row.changed_at,
    })
}

fn connection_name(text: &str) -> Result<crate::types::ConnectionName, ApiError> {
    text.parse().map_err(|error| ApiError::bad_request(format!("{error}")))
}

#[derive(Deserialize)]
struct SessionsQuery {
    limit: Option<u32>,
}

async fn sessions(
    State(control): Shared,
    ApiCaller(subject): ApiCaller,
    Query(query): Query<SessionsQuery>,
) -> Answer {
    control.index.up_to_date().await;
    let of = (!control.is_auditor(&subject)).then_some(&subject.id);
    let limit = query.limit.unwrap_or(USUAL).min(MOST);
    let mut list = Vec::new();
    for row in control.store.sessions(of, None, limit).await? {
        list.push(show_session(&control, &row).await?);
    }
    Ok(Json(Value::from(list)))
}

async fn session(
    State(control): Shared,
    ApiCaller(subject): ApiCaller,
    Path(id): Path<String>,
) -> Answer {
    let id: SessionId = id.parse().map_err(|error| ApiError::bad_request(format!("{error}")))?;
    control.index.up_to_date().await;
    let row = control.store.sessions(None, Some(&id), 1).await?.pop();
    let allowed = |row: &SessionRow| row.subject == subject.id || control.is_auditor(&subject);
    let Some(row) = row.filter(allowed) else {
        let message = format!("there is no session {id} that you may see");
        let refusal = Err(ApiError::not_found(message).of(&subject.id));
        return on_record(&control, refusal).await;
    };
    let viewed = Record::Viewed { session: id.clone(), by: subject.id.clone() };
    control.recorder.append(Entry { record: viewed, body: None }).await?;
    let events = replay::replay(&control.store, &control.reader, &id)
        .await
        .map_err(|error| ApiError::internal(&error))?;
    Ok(Json(json!({
        "session": show_session(&control, &row).await?,
        "events": events,
        "checkpoint": control.recorder.checkpoint().note(),
    })))
}

async fn show_session(control: &Control, row: &SessionRow) -> Result<Value, ApiError> {
    Ok(json!({
        "id": row.id,
        "subject": person(control, &row.subject).await?,
        "connection": row.connection,
        "started_at": row.started_at,
        "last_at": row.last_at,
        "calls": row.calls,
        "denied": row.denied,
        "approved": row.approved,
        "masked": row.masked,
        "orphaned": row.orphaned,
    }))
}

/// The published log. Checkpoint and hashes are everybody's; the entries say who called what, by
/// ids, and are for auditors.
async fn log(
    State(control): Shared,
    ApiCaller(subject): ApiCaller,
    Path(path): Path<String>,
) -> Result<Response, ApiError> {
    if path.starts_with("tile/entries") && !control.is_auditor(&subject) {
        let refusal = ApiError::forbidden("only auditors read the entries of the log");
        return on_record(&control, Err(refusal.of(&subject.id))).await;
    }
    if path == "checkpoint" {
        control.recorder.publish().await?;
    }
    let published = control.reader.published(&path).map_err(|error| match error {
        crate::audit::ReadError::Path { .. } => ApiError::bad_request(error.to_string()),
        other => ApiError::internal(&other),
    })?;
    let bytes = published.ok_or_else(|| ApiError::not_found(format!("the log has no {path}")))?;
    let kind =
        if path == "checkpoint" { "text/plain; charset=utf-8" } else { "application/octet-stream" };
    Ok(([(CONTENT_TYPE, kind)], bytes).into_response())
}

async fn person(control: &Control, id: &SubjectId) -> Result<Value, ApiError> {
    Ok(json!({ "id": id, "label": control.store.label(id).await? }))
}

fn approval_id(text: &str) -> Result<ApprovalId, ApiError> {
    text.parse().map_err(|error| ApiError::bad_request(format!("{error}")))
}

/// Puts a refusal on record before its caller learns of it.
async fn on_record<T>(control: &Control, outcome: Result<T, ApiError>) -> Result<T, ApiError> {
    if let Err(error) = &outcome
        && (error.is_refusal() || error.subject.is_some())
    {
        control
            .recorder
            .append(error.entry(crate::audit::RefusalStage::Api, &control.masker))
            .await?;
    }
    outcome
}
