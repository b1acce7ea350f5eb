//! Who may send what, and what then happens: one table of every method of every revision of MCP
//! (2024-11-05 to 2026-07-28), in both directions, both eras and over every transport.
//!
//! [`super::PolicySet::decide`], [`super::Call::new`] and the gateway's lists ask this table and
//! nothing else, so a method is what it is in one place. `docs/mediation.md` is made from it, and
//! `mediation/tests.rs` walks every cell with the real decision.
//!
//! A method of another era is not refused: it is judged like every call, and the server answers
//! that it has no such method. What only the other side may send is refused, and so is what would
//! be something else than it is named: a `tools/call` without id, a request named `response`.

use serde_json::Value;

use super::call::{Direction, NoTarget, Target};
use crate::mcp::Era;

/// What a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A JSON-RPC request.
    Request,
    /// A JSON-RPC notification.
    Notification,
    /// A JSON-RPC response.
    Response,
    /// An act of the transport without message (HTTP GET, DELETE), or of the control server.
    Act,
}

/// How the MCP server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Over Streamable HTTP.
    Http,
    /// Over HTTP+SSE (2024-11-05): one stream for everything, like a pipe.
    Sse,
    /// As a child process.
    Stdio,
}

/// Which way a call goes, in which era, to or from a server behind which transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// From whom to whom.
    pub direction: Direction,
    /// The era that client and server speak.
    pub era: Era,
    /// How the server is reached.
    pub transport: Transport,
}

/// Who may send something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The client only.
    Client,
    /// The server only.
    Server,
    /// Both.
    Either,
    /// Nobody: it is asked in another way, and its name is taken.
    Nobody,
}

/// What a message names, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Nothing inside the connection.
    Nothing,
    /// A tool, in `params.name`.
    Tool,
    /// A prompt, in `params.name`.
    Prompt,
    /// A resource, in `params.uri`.
    Resource,
    /// What is completed for, in `params.ref`: a prompt or a resource.
    Reference,
    /// Resources, in `params.notifications.resourceSubscriptions`.
    Subscriptions,
}

/// A list in a result, whose items are shown or cut out.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// The result's member that holds it.
    pub member: &'static str,
    /// The item's member that names it.
    pub key: &'static str,
    /// What is named.
    pub target: fn(String) -> Target,
}

/// One method, or one of the acts without message.
#[derive(Debug)]
pub struct Row {
    /// The MCP method, which is the Cedar action; with `*` at its end every other one that begins
    /// so.
    pub method: &'static str,
    /// What it is.
    pub shape: Shape,
    /// Who may send it.
    pub sender: Sender,
    /// The Cedar action groups that it is in.
    pub groups: &'static [&'static str],
    /// What it names: the Cedar resource.
    pub names: Names,
    /// Whether what it names must be something that a list may show: it tells of what is named
    /// without using it.
    pub listed: bool,
    /// Whether the modern era has it no more. It is judged all the same; but where it names nothing,
    /// it is the server's to say that it has no such method.
    pub gone: bool,
    /// What in its result is filtered.
    pub list: Option<List>,
    /// Whether its result says how long it may be kept, which the gateway narrows.
    pub hints: bool,
    /// Whether its result may ask the client for input, in the modern era.
    pub input: bool,
}

/// What decides of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The Cedar policies.
    Policy {
        /// Whether a person can be asked where they want one. Otherwise that is a denial.
        waits: bool,
    },
    /// Nobody any more: it answers a call that policies let through, and is filtered and masked.
    Answer,
    /// The protocol has no such thing there; no policy can permit it.
    Refused(&'static str),
}

/// Only the other side sends it.
pub const DIRECTION: &str = "protocol-direction";
/// It is named like something else than it is.
pub const SHAPE: &str = "protocol-shape";
/// The modern era has no such message there.
pub const ERA: &str = "protocol-era";

const fn row(
    method: &'static str,
    shape: Shape,
    sender: Sender,
    groups: &'static [&'static str],
) -> Row {
    let (names, list) = (Names::Nothing, None);
    let (listed, gone, hints, input) = (false, false, false, false);
    Row { method, shape, sender, groups, names, listed, gone, list, hints, input }
}

const fn request(method: &'static str, sender: Sender, groups: &'static [&'static str]) -> Row {
    row(method, Shape::Request, sender, groups)
}

const fn told(method: &'static str, sender: Sender) -> Row {
    row(method, Shape::Notification, sender, PROTOCOL)
}

impl Row {
    const fn names(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    const fn listed(mut self) -> Self {
        self.listed = true;
        self
    }

    const fn gone(mut self) -> Self {
        self.gone = true;
        self
    }

    const fn lists(
        mut self,
        member: &'static str,
        key: &'static str,
        target: fn(String) -> Target,
    ) -> Self {
        self.list = Some(List { member, key, target });
        self.hints = true;
        self
    }

    const fn hints(mut self) -> Self {
        self.hints = true;
        self
    }

    const fn input(mut self) -> Self {
        self.input = true;
        self
    }
}

use Sender::{Client, Either, Nobody, Server};

const PROTOCOL: &[&str] = &["protocol"];
const READ: &[&str] = &["read"];
const SERVER: &[&str] = &["server"];
/// Not among the harmless: an MCP server knows the gateway's one credential and not the subjects
/// behind it, so `tasks/list` shows everybody's tasks to everybody.
const TASKS: &[&str] = &["tasks"];

/// The table. Its last rows are for what is not named above them.
pub static ROWS: &[Row] = &[
    request("initialize", Client, PROTOCOL).gone(),
    request("server/discover", Client, PROTOCOL).hints(),
    request("ping", Either, PROTOCOL).gone(),
    request("logging/setLevel", Client, PROTOCOL).gone(),
    request("tools/list", Client, READ).lists("tools", "name", Target::Tool),
    request("tools/call", Client, &[]).names(Names::Tool).input(),
    request("prompts/list", Client, READ).lists("prompts", "name", Target::Prompt),
    request("prompts/get", Client, READ).names(Names::Prompt).input(),
    request("resources/list", Client, READ).lists("resources", "uri", Target::Resource),
    request("resources/templates/list", Client, READ).lists(
        "resourceTemplates",
        "uriTemplate",
        Target::Resource,
    ),
    request("resources/read", Client, READ).names(Names::Resource).hints().input(),
    request("resources/subscribe", Client, READ).names(Names::Resource).listed().gone(),
    request("resources/unsubscribe", Client, READ).names(Names::Resource).listed().gone(),
    request("subscriptions/listen", Client, PROTOCOL).names(Names::Subscriptions).listed(),
    request("completion/complete", Client, READ).names(Names::Reference).listed(),
    request("sampling/createMessage", Server, SERVER),
    request("elicitation/create", Server, SERVER),
    request("roots/list", Server, SERVER),
    request("tasks/get", Either, TASKS),
    request("tasks/result", Either, TASKS).gone(),
    request("tasks/list", Either, TASKS).gone(),
    request("tasks/cancel", Either, TASKS),
    request("tasks/update", Client, TASKS),
    told("notifications/initialized", Client).gone(),
    told("notifications/cancelled", Either),
    told("notifications/progress", Either),
    told("notifications/roots/list_changed", Client).gone(),
    told("notifications/message", Server),
    told("notifications/tools/list_changed", Server),
    told("notifications/prompts/list_changed", Server),
    told("notifications/resources/list_changed", Server),
    told("notifications/resources/updated", Server).names(Names::Resource).listed(),
    told("notifications/elicitation/complete", Server).gone(),
    told("notifications/subscriptions/acknowledged", Server),
    told("notifications/tasks", Server),
    told("notifications/tasks/status", Either),
    row("response", Shape::Response, Either, PROTOCOL),
    row("transport/listen", Shape::Act, Client, PROTOCOL),
    row("transport/end", Shape::Act, Client, PROTOCOL),
    row("connect", Shape::Act, Nobody, &[]),
    request("tasks/*", Either, TASKS),
    request("*", Either, &[]),
    told("notifications/*", Either),
    row("*", Shape::Notification, Either, &[]),
];

/// Stands in for a row where a name is taken by something of another shape.
static MISNAMED: &Row = &row("*", Shape::Request, Nobody, &[]);

impl Row {
    /// The row of a method or act.
    pub fn of(method: &str, shape: Shape) -> &'static Self {
        if let Some(row) = ROWS.iter().find(|row| row.method == method) {
            return if row.shape == shape { row } else { MISNAMED };
        }
        let begins = |row: &Self| {
            row.method.strip_suffix('*').is_some_and(|begin| method.starts_with(begin))
        };
        ROWS.iter().find(|row| row.shape == shape && begins(row)).unwrap_or(MISNAMED)
    }

    /// What decides of this on its way.
    pub fn rule(&self, way: Way) -> Rule {
        let (asks, answers) = (self.shape == Shape::Request, self.shape == Shape::Response);
        let from_server = way.direction == Direction::ServerToClient;
        match (self.sender, from_server) {
            (Nobody, _) => return Rule::Refused(SHAPE),
            (Client, true) | (Server, false) => return Rule::Refused(DIRECTION),
            _ => {}
        }
        if answers && from_server {
            return Rule::Answer;
        }
        // The modern era has requests in one direction only, and so answers in the other.
        let modern = way.era == Era::Modern;
        if modern && (answers || asks && from_server) {
            return Rule::Refused(ERA);
        }
        // On Streamable HTTP this is the server's to say. In a pipe it would turn a server that
        // others share into a legacy one.
        if modern && way.transport != Transport::Http && self.method == "initialize" {
            return Rule::Refused(ERA);
        }
        Rule::Policy { waits: asks && !from_server }
    }

    /// What decides of it as a server's request inside an `input_required` result, which is how the
    /// modern era asks a client.
    pub fn rule_within(&self) -> Rule {
        match (self.shape, self.sender) {
            (Shape::Request, Server | Either) => Rule::Policy { waits: false },
            _ => Rule::Refused(DIRECTION),
        }
    }

    /// What a message of this row names, beside the connection: the one thing that it reaches,
    /// and whatever it mentions.
    pub(super) fn targets(
        &self,
        params: Option<&Value>,
        way: Way,
    ) -> Result<(Target, Vec<Target>), NoTarget> {
        let text = |field: &str| Some(params?.get(field)?.as_str()?.to_owned());
        let (field, target) = match self.names {
            Names::Nothing => return Ok((Target::Connection, Vec::new())),
            Names::Tool => ("name", text("name").map(Target::Tool)),
            Names::Prompt => ("name", text("name").map(Target::Prompt)),
            Names::Resource => ("uri", text("uri").map(Target::Resource)),
            // What is completed belongs to a prompt or a resource, and tells of it.
            Names::Reference => {
                let reference = params.and_then(|params| params.get("ref"));
                let of = |field: &str| Some(reference?.get(field)?.as_str()?.to_owned());
                let target = match of("type").as_deref() {
                    Some("ref/prompt") => of("name").map(Target::Prompt),
                    Some("ref/resource") => of("uri").map(Target::Resource),
                    _ => None,
                };
                ("ref", target)
            }
            Names::Subscriptions => {
                let asked = params.and_then(|p| p.get("notifications"));
                let uris = match asked.and_then(|asked| asked.get("resourceSubscriptions")) {
                    None | Some(Value::Null) => Some(Vec::new()),
                    Some(Value::Array(uris)) => uris
                        .iter()
                        .map(|uri| uri.as_str().map(|uri| Target::Resource(uri.to_owned())))
                        .collect(),
                    Some(_) => None,
                };
                let field = "notifications.resourceSubscriptions";
                let uris = uris.ok_or_else(|| self.no_target(field))?;
                return Ok((Target::Connection, uris));
            }
        };
        match target {
            Some(target) => Ok((target, Vec::new())),
            // What a server says without naming anything tells of nothing.
            None if way.direction == Direction::ServerToClient => {
                Ok((Target::Connection, Vec::new()))
            }
            None if self.gone
                && way.era == Era::Modern
                && params.is_none_or(|params| params.get(field).is_none()) =>
            {
                Ok((Target::Connection, Vec::new()))
            }
            None => Err(self.no_target(field)),
        }
    }

    fn no_target(&self, field: &'static str) -> NoTarget {
        NoTarget { method: self.method.to_owned(), field }
    }
}

/// The lists that results can hold, by the method that asks for them.
pub fn lists() -> impl Iterator<Item = (&'static str, List)> {
    ROWS.iter().filter_map(|row| Some((row.method, row.list?)))
}

/// Why something was refused by the protocol alone, for whoever sent it.
pub(super) fn reason(rule: &str, method: &str) -> String {
    match rule {
        DIRECTION => format!("{method:?} is not for this side to send"),
        ERA => format!("the protocol from 2026-07-28 on has no {method:?} here"),
        _ => format!("{method:?} is the name of something else than this message is"),
    }
}

#[cfg(test)]
mod tests;
