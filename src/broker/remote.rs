//! The control server's API, as the command line uses it.
//!
//! Owns the shapes of its answers and nothing else: no decision is taken here. Times are RFC 3339;
//! what a server adds later is ignored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, header};
use bytes::{Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use url::Url;

use super::channel::{Channel, ChannelError};
use super::grant::{ExchangeError, GrantSource, IdentitySource};
use super::problem::Problem;
use super::requests::{CutInfo, WantedInfo};
use super::server::ServerInfo;
use crate::types::{Clock, Secret, Timestamp};

/// Somebody, as the server shows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The opaque id under which the log knows them.
    pub id: String,
    /// What to call them.
    pub label: String,
}

/// The caller, as the server sees them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Me {
    /// The opaque id under which the log knows them.
    pub id: String,
    /// What to call them.
    pub label: String,
    /// `person` or `workload`.
    #[serde(default)]
    pub kind: Option<String>,
    /// The trust rule that let a workload in.
    #[serde(default)]
    pub rule: Option<String>,
    /// The groups that decide what they may do.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// A registered MCP server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: Option<String>,
    /// How the gateway reaches it.
    #[serde(default)]
    pub transport: Option<String>,
    /// Whether a person has to agree to a grant for it.
    #[serde(default)]
    pub needs_approval: bool,
}

/// Where a user is asked for consent.
#[derive(Deserialize)]
pub struct ConsentAsked {
    /// The page to open.
    pub url: String,
    /// What the browser has to bring back.
    pub state: String,
}

/// How a consent stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConsentInfo {
    /// For which connection.
    pub connection: String,
    /// Whether there is one.
    pub agreed: bool,
    /// Whether further tokens can be got with it.
    #[serde(default)]
    pub renews: bool,
}

/// One request for a human's yes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApprovalInfo {
    /// Its id.
    pub id: String,
    /// `pending`, `approved`, `denied`, `used` or `expired`.
    pub state: String,
    /// Who wants to make the call.
    pub requested_by: Person,
    /// Where it goes.
    pub connection: String,
    /// The tool, if it calls one.
    #[serde(default)]
    pub tool: Option<String>,
    /// The masked arguments.
    #[serde(default)]
    pub arguments: Option<Box<RawValue>>,
    /// The rule that asks.
    #[serde(default)]
    pub rule: Option<String>,
    /// Whose yes it takes.
    #[serde(default)]
    pub groups: Vec<String>,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// Who decided.
    #[serde(default)]
    pub decided_by: Option<Person>,
    /// Whether the caller may decide it.
    #[serde(default)]
    pub may_decide: bool,
    /// Why not.
    #[serde(default)]
    pub why_not: Option<String>,
    /// What whoever decided said of it.
    #[serde(default)]
    pub reason: Option<String>,
    /// The grant that is asked for, where it is no call.
    #[serde(default)]
    pub wanted: Option<WantedInfo>,
}

/// What an approver says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Yes, once, to exactly this call.
    Approve,
    /// No.
    Deny,
}

/// A grant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GrantInfo {
    /// Its id.
    pub id: String,
    /// The session of its calls; none where the grant is only asked for.
    #[serde(default)]
    pub session: Option<String>,
    /// Whose it is.
    pub subject: Person,
    /// What it reaches.
    pub connection: String,
    /// Since when.
    pub issued_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
    /// `active`, `pending`, `ended` or `revoked`.
    pub state: String,
    /// Why it was asked for.
    #[serde(default)]
    pub reason: Option<String>,
    /// The tools that it is limited to.
    #[serde(default)]
    pub tools: Option<Vec<String>>,
    /// The approval that it stands on, or waits for.
    #[serde(default)]
    pub approval: Option<String>,
    /// Who said yes.
    #[serde(default)]
    pub approver: Option<String>,
    /// Until when it can be renewed.
    #[serde(default)]
    pub ends_at: Option<Timestamp>,
    /// Why it ended, where nobody revoked it.
    #[serde(default)]
    pub ended_by: Option<String>,
    /// Of one that is asked for: for how long.
    #[serde(default)]
    pub seconds: Option<i64>,
    /// Of one that is asked for: not before.
    #[serde(default)]
    pub from: Option<Timestamp>,
    /// Of one that is asked for: the grant that is to live longer.
    #[serde(default)]
    pub extends: Option<String>,
    /// Of one that was just revoked: how long it took until nothing ran under it.
    #[serde(default)]
    pub cut: Option<CutInfo>,
}

/// The pin of a tool or prompt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ToolInfo {
    /// The MCP server.
    pub connection: String,
    /// `tool` or `prompt`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// `accepted` or `quarantined`.
    pub state: String,
    /// Why it is in quarantine.
    #[serde(default)]
    pub reason: Option<String>,
    /// The accepted definition, masked.
    #[serde(default)]
    pub definition: Option<Box<RawValue>>,
    /// The hash of the definition in quarantine.
    #[serde(default)]
    pub offered: Option<String>,
    /// That definition, masked.
    #[serde(default)]
    pub proposal: Option<Box<RawValue>>,
    /// When the pin last changed.
    pub changed_at: Timestamp,
}

/// A session in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its id.
    pub id: String,
    /// Whose calls.
    pub subject: Person,
    /// Where they went.
    pub connection: String,
    /// The first call.
    pub started_at: Timestamp,
    /// The last one.
    #[serde(default)]
    pub last_at: Option<Timestamp>,
    /// How many.
    #[serde(default)]
    pub calls: u64,
    /// How many were denied.
    #[serde(default)]
    pub denied: u64,
    /// How many went through with an approval.
    #[serde(default)]
    pub approved: u64,
    /// How many values were masked.
    #[serde(default)]
    pub masked: u64,
    /// How many have an unknown outcome.
    #[serde(default)]
    pub orphaned: u64,
}

/// One session with everything that was recorded of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The session.
    pub session: SessionInfo,
    /// Its records, in log order.
    pub events: Vec<EventInfo>,
    /// The signed checkpoint that covers them.
    #[serde(default)]
    pub checkpoint: Option<String>,
}

/// One record of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventInfo {
    /// Its place in the log.
    pub index: u64,
    /// When.
    pub at: Timestamp,
    /// What kind of record.
    pub kind: String,
    /// The call that it belongs to.
    #[serde(default)]
    pub call: Option<String>,
    /// `to_server` or `to_client`.
    #[serde(default)]
    pub direction: Option<String>,
    /// The MCP method.
    #[serde(default)]
    pub method: Option<String>,
    /// The tool.
    #[serde(default)]
    pub tool: Option<String>,
    /// What policy said.
    #[serde(default)]
    pub decision: Option<String>,
    /// The rules that said so.
    #[serde(default)]
    pub rules: Vec<String>,
    /// The approval that lifted them.
    #[serde(default)]
    pub approval: Option<EventApproval>,
    /// How it ended.
    #[serde(default)]
    pub outcome: Option<String>,
    /// Of a child process: how many lines of its stderr are kept.
    #[serde(default)]
    pub lines: Option<u64>,
    /// Of a child process: how many more lines it wrote.
    #[serde(default)]
    pub dropped: Option<u64>,
    /// Of a child process: whether it was asked to end.
    #[serde(default)]
    pub asked: Option<bool>,
    /// Of a child process: how much of its sandbox is in force.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// How many values of which class were masked.
    #[serde(default)]
    pub findings: BTreeMap<String, u64>,
    /// The masked body; none if there was none, or it was erased.
    #[serde(default)]
    pub body: Option<Box<RawValue>>,
}

/// Who let a call through.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventApproval {
    /// The approval.
    pub id: String,
    /// The approver's id.
    #[serde(default)]
    pub by: Option<String>,
    /// What to call them.
    #[serde(default)]
    pub by_label: Option<String>,
    /// What they said; none while nobody has.
    #[serde(default)]
    pub approved: Option<bool>,
}

/// An API call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It could not be carried.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The server said no.
    #[error("{}", .0.message)]
    Refused(Problem),
    /// The server gave no answer in time.
    #[error("the server {server} gave no answer within {} s", PATIENCE.as_secs())]
    Slow {
        /// The server.
        server: String,
    },
    /// The server answered with something else.
    #[error("the server's answer to {path} cannot be read: {why}")]
    Unreadable {
        /// What was asked.
        path: String,
        /// What is wrong with the answer.
        why: String,
    },
}

impl RemoteError {
    /// The same as a local client would be told: a code, a message, a hint.
    pub fn problem(&self) -> Problem {
        use axum::http::StatusCode;
        match self {
            Self::Channel(error) => error.problem(),
            Self::Refused(problem) => problem.clone(),
            Self::Slow { .. } => {
                Problem::new(StatusCode::GATEWAY_TIMEOUT, "unreachable", self.to_string())
            }
            Self::Unreadable { .. } => {
                Problem::new(StatusCode::BAD_GATEWAY, "failure", self.to_string())
            }
        }
    }
}

/// The API of one server, as one subject may use it.
pub struct Remote {
    channel: Channel,
    api: String,
}

impl Remote {
    /// A client for the server's API, under a grant of its own.
    ///
    /// # Errors
    /// [`ChannelError`] when no key or HTTP client can be made.
    pub fn new(
        server: &ServerInfo,
        identity: Arc<dyn IdentitySource>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ChannelError> {
        let resource = server.api_resource();
        let source = GrantSource::new(server.clone(), identity, resource, None, clock)
            .map_err(ChannelError::Grant)?;
        Ok(Self { channel: Channel::new(server.api.clone(), source)?, api: resource.to_owned() })
    }

    /// Who the server takes the caller for.
    ///
    /// # Errors
    /// [`RemoteError`], here and below.
    pub async fn me(&self) -> Result<Me, RemoteError> {
        self.get("me", &[]).await
    }

    /// The connections that the caller may use.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn connections(&self) -> Result<Vec<ConnectionInfo>, RemoteError> {
        self.get("connections", &[]).await
    }

    /// The approvals that the caller may see: those that wait, or all.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn approvals(&self, all: bool) -> Result<Vec<ApprovalInfo>, RemoteError> {
        self.get("approvals", &[("state", if all { "all" } else { "pending" })]).await
    }

    /// Decides one approval.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn decide(
        &self,
        id: &str,
        verdict: Verdict,
        reason: Option<&str>,
    ) -> Result<ApprovalInfo, RemoteError> {
        #[derive(Serialize)]
        struct Body<'a> {
            decision: Verdict,
            reason: Option<&'a str>,
        }
        self.post(&["approvals", id], &Body { decision: verdict, reason }).await
    }

    /// The pins of all connections, or of one.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn tools(&self, connection: Option<&str>) -> Result<Vec<ToolInfo>, RemoteError> {
        let query: Vec<_> = connection.map(|name| ("connection", name)).into_iter().collect();
        self.get("tools", &query).await
    }

    /// Accepts the definition that `tool` has in quarantine.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn accept_tool(&self, tool: &ToolInfo) -> Result<ToolInfo, RemoteError> {
        #[derive(Serialize)]
        struct Body<'a> {
            connection: &'a str,
            kind: &'a str,
            name: &'a str,
            hash: &'a str,
        }
        let body = Body {
            connection: &tool.connection,
            kind: &tool.kind,
            name: &tool.name,
            hash: tool.offered.as_deref().unwrap_or_default(),
        };
        self.post(&["tools", "accept"], &body).await
    }

    /// The grants that the caller may see.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn grants(&self) -> Result<Vec<GrantInfo>, RemoteError> {
        self.get("grants", &[]).await
    }

    /// Asks where to agree that the gateway uses a connection in the caller's name.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn begin_consent(
        &self,
        connection: &str,
        redirect_uri: &str,
    ) -> Result<ConsentAsked, RemoteError> {
        #[derive(Serialize)]
        struct Body<'a> {
            redirect_uri: &'a str,
        }
        self.post(&["connections", connection, "consent"], &Body { redirect_uri }).await
    }

    /// Hands over what the browser brought back.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn finish_consent(
        &self,
        connection: &str,
        state: &str,
        code: &Secret,
        iss: Option<&str>,
    ) -> Result<ConsentInfo, RemoteError> {
        #[derive(Serialize)]
        struct Body<'a> {
            state: &'a str,
            code: &'a str,
            iss: Option<&'a str>,
        }
        let body = Body { state, code: code.expose(), iss };
        self.post(&["connections", connection, "consent", "finish"], &body).await
    }

    /// Takes it back.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn forget_consent(&self, connection: &str) -> Result<ConsentInfo, RemoteError> {
        let path = ["connections", connection, "consent", "forget"];
        self.post(&path, &serde_json::Map::new()).await
    }

    /// The newest sessions that the caller may see.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn sessions(&self, limit: u32) -> Result<Vec<SessionInfo>, RemoteError> {
        self.get("sessions", &[("limit", &limit.to_string())]).await
    }

    /// One session with its records.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn session(&self, id: &str) -> Result<SessionRecord, RemoteError> {
        let url = self.url(&["sessions", id], &[])?;
        self.ask(Method::GET, url, Bytes::new()).await
    }

    /// One file of the audit log, by its path in tlog-tiles (`checkpoint`, `tile/…`).
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn log_file(&self, path: &str) -> Result<Bytes, RemoteError> {
        let mut segments = vec!["log"];
        segments.extend(path.split('/'));
        let url = self.url(&segments, &[])?;
        self.fetch(Method::GET, url, Bytes::new()).await
    }

    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, RemoteError> {
        self.ask(Method::GET, self.url(&[path], query)?, Bytes::new()).await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, RemoteError> {
        let url = self.url(path, &[])?;
        let body = serde_json::to_vec(body).map_err(|error| RemoteError::Unreadable {
            path: url.path().to_owned(),
            why: error.to_string(),
        })?;
        self.ask(Method::POST, url, body.into()).await
    }

    /// Ids come from people: each is one escaped segment, so that `../` stays a name.
    pub(super) fn url(
        &self,
        segments: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Url, RemoteError> {
        let unusable =
            || RemoteError::Unreadable { path: segments.join("/"), why: "no such path".to_owned() };
        if segments.iter().any(|s| s.is_empty() || matches!(*s, "." | "..")) {
            return Err(unusable());
        }
        let mut url = Url::parse(&self.api).map_err(|_| unusable())?;
        url.path_segments_mut().map_err(|()| unusable())?.pop_if_empty().extend(segments);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        body: Bytes,
    ) -> Result<T, RemoteError> {
        let path = url.path().to_owned();
        let answer = self.fetch(method, url, body).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| RemoteError::Unreadable { path, why: error.to_string() })
    }

    async fn fetch(&self, method: Method, url: Url, body: Bytes) -> Result<Bytes, RemoteError> {
        tokio::time::timeout(PATIENCE, self.exchange(method, url, body)).await.unwrap_or_else(
            |_| {
                Err(RemoteError::Slow { server: self.channel.url().origin().ascii_serialization() })
            },
        )
    }

    async fn exchange(&self, method: Method, url: Url, body: Bytes) -> Result<Bytes, RemoteError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if !body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let mut response = self.channel.send_to(&url, method, headers, body).await?;
        let mut answer = BytesMut::new();
        loop {
            let chunk = response.chunk().await.map_err(|error| RemoteError::Unreadable {
                path: url.path().to_owned(),
                why: error.without_url().to_string(),
            })?;
            let Some(chunk) = chunk else { break };
            if answer.len() + chunk.len() > ANSWER_BYTES {
                let why = format!("it is longer than {ANSWER_BYTES} bytes");
                return Err(RemoteError::Unreadable { path: url.path().to_owned(), why });
            }
            answer.extend_from_slice(&chunk);
        }
        if !response.status().is_success() {
            return Err(RemoteError::Refused(Problem::of_answer(response.status(), &answer)));
        }
        Ok(answer.freeze())
    }
}

impl From<ExchangeError> for RemoteError {
    fn from(error: ExchangeError) -> Self {
        Self::Channel(ChannelError::Grant(error))
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER_BYTES: usize = 64 * 1024 * 1024;
