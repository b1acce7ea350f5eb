//! Asking for grants, waiting for a person's yes, and ending grants, over the API.

use axum::http::Method;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::remote::{ApprovalInfo, GrantInfo, Remote, RemoteError};
use crate::types::{ConnectionName, Timestamp};

/// A grant that is asked for, as who decides sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WantedInfo {
    /// Why.
    pub reason: String,
    /// For how long.
    pub seconds: i64,
    /// The tools that it is limited to.
    #[serde(default)]
    pub tools: Option<Vec<String>>,
    /// Not before.
    #[serde(default)]
    pub from: Option<Timestamp>,
    /// The grant that is to live longer.
    #[serde(default)]
    pub extends: Option<String>,
    /// Where it was asked from.
    #[serde(default)]
    pub source: Option<String>,
}

/// How long it took until nothing ran under a revoked grant.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CutInfo {
    /// Calls and streams that were open.
    pub streams: u32,
    /// Milliseconds until the last of them had ended.
    pub millis: u64,
    /// How many had not.
    #[serde(default)]
    pub left: u32,
}

/// What to ask for.
#[derive(Clone, Debug, Serialize)]
pub struct NewRequest {
    /// The MCP server.
    pub connection: ConnectionName,
    /// Why.
    pub reason: String,
    /// For how long; without it the server decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
    /// The tools to be limited to; none: all of the connection.
    pub tools: Vec<String>,
    /// Not before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// The grant that is to live longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extends: Option<String>,
}

/// Which grants are to end: exactly one of the first four.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Revocation {
    /// One.
    pub grant: Option<String>,
    /// Those of somebody.
    pub subject: Option<String>,
    /// Those for a connection.
    pub connection: Option<ConnectionName>,
    /// Those of the members of a group.
    pub group: Option<String>,
    /// A sentence for the record.
    pub reason: Option<String>,
}

impl Remote {
    /// Asks for a grant, or finds the open request for the same.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn request(&self, wanted: &NewRequest) -> Result<ApprovalInfo, RemoteError> {
        self.post(&["requests"], wanted).await
    }

    /// One approval, once it is decided or `seconds` have passed.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn decided(&self, id: &str, seconds: u64) -> Result<ApprovalInfo, RemoteError> {
        let url = self.url(&["approvals", id], &[("wait", &seconds.to_string())])?;
        self.ask(Method::GET, url, Bytes::new()).await
    }

    /// Revokes one grant at once.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn revoke(&self, id: &str, reason: Option<&str>) -> Result<GrantInfo, RemoteError> {
        let body = serde_json::json!({ "reason": reason });
        self.post(&["grants", id, "revoke"], &body).await
    }

    /// Revokes every live grant that is meant, at once.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn revoke_all(&self, what: &Revocation) -> Result<Vec<GrantInfo>, RemoteError> {
        self.post(&["revocations"], what).await
    }
}
