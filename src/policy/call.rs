//! The call: one thing crossing the gateway, with who does it and what it reaches.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::mediation::{Row, Rule, Shape, Transport, Way};
use crate::mcp::mirror::Mirrored;
use crate::mcp::{Era, Kind, Message};
use crate::types::{CallId, ConnectionName, SessionId, Subject};

/// Which way a call crosses the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the MCP client to the MCP server.
    ClientToServer,
    /// From the MCP server to the MCP client: sampling, elicitation, roots, notifications.
    ServerToClient,
}

/// What is done.
#[derive(Clone, Debug)]
pub enum Act {
    /// A JSON-RPC message is sent.
    Message(Message),
    /// The client opens the stream for the server's own messages (HTTP GET), perhaps resuming.
    Listen,
    /// The client ends its protocol session (HTTP DELETE).
    End,
}

/// What a call reaches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The connection as a whole: everything that names nothing inside it.
    Connection,
    /// One tool, by name.
    Tool(String),
    /// One prompt, by name.
    Prompt(String),
    /// One resource, by URI.
    Resource(String),
}

impl Target {
    /// The name or URI, unless it is the whole connection.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Connection => None,
            Self::Tool(name) | Self::Prompt(name) | Self::Resource(name) => Some(name),
        }
    }
}

/// A message that names no target where its method needs one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{method} needs a target in \"params.{field}\"")]
pub struct NoTarget {
    /// The method.
    pub method: String,
    /// The missing parameter.
    pub field: &'static str,
}

/// One JSON-RPC request, notification or response crossing the gateway, in either direction, or
/// one of the two acts of the transport that carry no message.
#[derive(Clone, Debug)]
pub struct Call {
    /// The gateway's own id for it.
    pub id: CallId,
    /// The session it belongs to.
    pub session: SessionId,
    /// Who makes it; for a server's own message, whose session it comes out of.
    pub subject: Arc<Subject>,
    /// The MCP server it goes to or comes from.
    pub connection: ConnectionName,
    /// Which way it goes.
    pub direction: Direction,
    /// The era that client and server speak.
    pub era: Era,
    /// How the MCP server is reached.
    pub transport: Transport,
    /// What is done.
    pub act: Act,
    /// Where the caller's network connection comes from.
    pub source: Option<IpAddr>,
    /// The message as records, approvers and screens may see it: masked. Empty without message.
    pub shown: Bytes,
    /// The hash of the accepted definition of the tool or prompt that is used, once it has one.
    pub pin: Option<String>,
    /// What a call of that tool repeats in headers.
    pub mirrored: Arc<[Mirrored]>,
    /// Headers `Mcp-Param-…` that the call came with, masked: they go on and nothing is decided
    /// by them.
    pub extra: Vec<(String, String)>,
    row: &'static Row,
    target: Target,
    mentions: Vec<Target>,
    params: Option<Value>,
}

impl Call {
    /// Makes a call of an act, reading from its message what it reaches.
    ///
    /// # Errors
    /// [`NoTarget`] where the method names a tool, prompt or resource and the message does not.
    pub fn new(
        id: CallId,
        session: SessionId,
        subject: Arc<Subject>,
        connection: ConnectionName,
        way: Way,
        act: Act,
    ) -> Result<Self, NoTarget> {
        let Way { direction, era, transport } = way;
        let (source, shown, pin) = (None, Bytes::new(), None);
        let params = match &act {
            Act::Message(message) => message.params_value(),
            Act::Listen | Act::End => None,
        };
        let row = Row::of(action(&act), shape(&act));
        let (target, mentions) = row.targets(params.as_ref(), way)?;
        Ok(Self {
            id,
            session,
            subject,
            connection,
            direction,
            era,
            transport,
            act,
            source,
            shown,
            pin,
            mirrored: Arc::default(),
            extra: Vec::new(),
            row,
            target,
            mentions,
            params,
        })
    }

    /// What policies call this act: the MCP method, or `response`, `transport/listen`,
    /// `transport/end`.
    pub fn action(&self) -> &str {
        action(&self.act)
    }

    /// Its row in the mediation table.
    pub fn row(&self) -> &'static Row {
        self.row
    }

    /// What decides of it, by that table.
    pub fn rule(&self) -> Rule {
        let Self { direction, era, transport, .. } = *self;
        self.row.rule(Way { direction, era, transport })
    }

    /// What the call tells of beside its target.
    pub fn mentions(&self) -> &[Target] {
        &self.mentions
    }

    /// What the call reaches.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The message, if the act carries one.
    pub fn message(&self) -> Option<&Message> {
        match &self.act {
            Act::Message(message) => Some(message),
            Act::Listen | Act::End => None,
        }
    }

    /// Whether an answer to it is expected.
    pub fn is_request(&self) -> bool {
        self.message().is_some_and(|message| matches!(message.kind(), Kind::Request { .. }))
    }

    /// The message's `params`, for deciding.
    pub fn params(&self) -> Option<&Value> {
        self.params.as_ref()
    }

    /// The arguments of a tool call or prompt.
    pub fn arguments(&self) -> Option<&Value> {
        self.params.as_ref()?.get("arguments")
    }
}

fn action(act: &Act) -> &str {
    match act {
        Act::Message(message) => message.method().unwrap_or("response"),
        Act::Listen => "transport/listen",
        Act::End => "transport/end",
    }
}

fn shape(act: &Act) -> Shape {
    match act {
        Act::Message(message) => match message.kind() {
            Kind::Request { .. } => Shape::Request,
            Kind::Notification { .. } => Shape::Notification,
            Kind::Response { .. } => Shape::Response,
        },
        Act::Listen | Act::End => Shape::Act,
    }
}
