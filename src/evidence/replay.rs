//! A session's records, told as events.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::Value;

use crate::audit::{Committed, ReadError, Reader, Record};
use crate::store::{Store, StoreError};
use crate::types::{ApprovalId, SessionId, SubjectId, Timestamp};

/// Somebody, as a screen shows them.
#[derive(Clone, Debug, Serialize)]
pub struct Person {
    /// The opaque id.
    pub id: SubjectId,
    /// E-mail address or the issuer's name for them.
    pub label: String,
}

/// An approval, as an event shows it.
#[derive(Clone, Debug, Serialize)]
pub struct ApprovalMark {
    /// Its id.
    pub id: ApprovalId,
    /// Who decided, once somebody has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<SubjectId>,
    /// What to call them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_label: Option<String>,
    /// What they said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved: Option<bool>,
}

/// One record of a session.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Its place in the log.
    pub index: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// The record's kind.
    pub kind: String,
    /// The record's own fields, as the leaf holds them.
    #[serde(flatten)]
    pub fields: BTreeMap<String, Value>,
    /// The tool, prompt or resource of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The approval that it speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalMark>,
    /// The masked body; none where the record has none.
    pub body: Option<Value>,
}

/// A replay could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The index failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log failed, or a body is not the one that was committed.
    #[error("the audit log cannot be read")]
    Log(#[from] ReadError),
    /// A leaf cannot be shown.
    #[error("a record cannot be shown")]
    Leaf(#[from] serde_json::Error),
}

/// The events of a session, in log order.
///
/// # Errors
/// [`ReplayError`]; nothing half-read is given.
pub async fn replay(
    store: &Store,
    reader: &Reader,
    session: &SessionId,
) -> Result<Vec<Event>, ReplayError> {
    let mut lookup = reader.lookup();
    let records = store.session_records(session).await?.into_iter();
    let records = records.map(|(index, at)| lookup.entry(index, at));
    let records = records.collect::<Result<Vec<_>, _>>()?;
    let mut approvers: HashMap<ApprovalId, (SubjectId, bool)> = HashMap::new();
    for entry in &records {
        if let Record::ApprovalDecided { approval, by, approved } = &entry.leaf.record {
            approvers.insert(approval.clone(), (by.clone(), *approved));
        }
    }
    let mut labels: HashMap<SubjectId, String> = HashMap::new();
    for (by, _) in approvers.values() {
        labels.insert(by.clone(), store.label(by).await?);
    }
    records.iter().map(|entry| event(entry, reader, &approvers, &labels)).collect()
}

fn event(
    entry: &Committed,
    reader: &Reader,
    approvers: &HashMap<ApprovalId, (SubjectId, bool)>,
    labels: &HashMap<SubjectId, String>,
) -> Result<Event, ReplayError> {
    let body = match (&entry.body_at, &entry.leaf.body) {
        (Some(at), Some(commitment)) => Some(reader.body(at, commitment)?),
        _ => None,
    };
    let body: Option<Value> = body.map(|bytes| {
        serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()))
    });
    let Value::Object(members) = serde_json::to_value(&entry.leaf)? else {
        return Err(ReplayError::Leaf(serde::ser::Error::custom("a leaf is an object")));
    };
    let mut fields: BTreeMap<String, Value> = members.into_iter().collect();
    // What stands beside the fields, or says nothing to a reader.
    for beside in ["v", "at", "body"] {
        fields.remove(beside);
    }
    let kind = fields.remove("kind").and_then(|kind| kind.as_str().map(str::to_owned));
    let approval = fields
        .remove("approval")
        .and_then(|id| id.as_str()?.parse::<ApprovalId>().ok())
        .map(|id| {
            let (by, approved) = approvers.get(&id).cloned().unzip();
            let by_label = by.as_ref().and_then(|by| labels.get(by).cloned());
            ApprovalMark { id, by, by_label, approved }
        });
    let tool = body
        .as_ref()
        .and_then(|body| body.get("target"))
        .and_then(Value::as_str)
        .map(str::to_owned);
    Ok(Event {
        index: entry.index,
        at: entry.leaf.at,
        kind: kind.unwrap_or_default(),
        fields,
        tool,
        approval,
        body,
    })
}
