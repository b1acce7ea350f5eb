//! What the log can say: one closed enum, whose JSON form is kept for ever.
//!
//! A record holds ids, names of ours and small words. It never holds an e-mail address, an
//! argument, a URI or a caller's free text: those stand, masked, in the body, of which the leaf
//! keeps only a salted commitment, so that a body can be erased and the log still verifies.
//!
//! A variant or field that has been written once stays readable: new fields are optional, and the
//! test at the end keeps one stored line of every variant.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::policy::Direction;
use crate::types::{ApprovalId, CallId, ConnectionName, GrantId, SessionId, SubjectId, Timestamp};

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// A server began to use this log.
    Started {
        /// Its version.
        version: String,
        /// SHA-256 of the configuration file.
        config_hash: String,
    },
    /// The server stopped in an orderly way. A `started` with none before it follows a crash.
    Stopped,
    /// Policies came into force.
    PolicyLoaded {
        /// Hash of the policy set.
        hash: String,
    },
    /// A subject may use a connection.
    GrantIssued {
        /// The grant.
        grant: GrantId,
        /// The session that the grant opens.
        session: SessionId,
        /// Who may.
        subject: SubjectId,
        /// What they may use.
        connection: ConnectionName,
        /// Until when.
        expires: Timestamp,
        /// The yes that was used up for it, where policy did not give it by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approval: Option<ApprovalId>,
        /// Until when it can be renewed at most, where a yes says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ends: Option<Timestamp>,
    },
    /// A grant's end moved.
    GrantRenewed {
        /// The grant.
        grant: GrantId,
        /// Whose it is.
        subject: SubjectId,
        /// Its new end.
        expires: Timestamp,
    },
    /// A grant ended early.
    GrantRevoked {
        /// The grant.
        grant: GrantId,
        /// Who ended it.
        by: SubjectId,
    },
    /// A subject got a token for something other than a connection.
    TokenIssued {
        /// Who got it.
        subject: SubjectId,
        /// What accepts it, a word of ours such as `api`.
        audience: String,
    },
    /// Somebody was turned away before a call came about.
    Refused {
        /// How far they came.
        stage: RefusalStage,
        /// Our own stable word for why, such as `token_expired`.
        code: String,
        /// Who, where that was known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<SubjectId>,
        /// Where they wanted to go, where that was known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connection: Option<ConnectionName>,
        /// In which session, where that was known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionId>,
    },
    /// A message crosses the gateway, and what was decided of it.
    Call {
        /// The gateway's id for it.
        call: CallId,
        /// The session it belongs to.
        session: SessionId,
        /// Whose session.
        subject: SubjectId,
        /// The MCP server at the other end.
        connection: ConnectionName,
        /// Which way it goes.
        direction: Direction,
        /// What sort of message it is.
        shape: Shape,
        /// The MCP method. Written as `?` when it does not look like one ([`Record::tidy`]).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        method: Option<String>,
        /// What policy said.
        decision: Verdict,
        /// The rules that said it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        rules: Vec<String>,
        /// The approval that lifted or is to lift it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approval: Option<ApprovalId>,
        /// Hash of the policy set that was asked.
        policy: String,
        /// Whether it is forwarded once this record is durable. A request with `true` here and no
        /// last response after it ended in a crash: its outcome is unknown.
        forwarded: bool,
    },
    /// What came back for a call, or instead of it.
    Response {
        /// The call.
        call: CallId,
        /// Its session.
        session: SessionId,
        /// How it went.
        outcome: Outcome,
        /// How many values of each class were found and masked.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        findings: BTreeMap<String, u32>,
        /// The upstream's HTTP status, if it was reached over HTTP.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upstream_status: Option<u16>,
        /// Whether no further response record of this call follows.
        last: bool,
    },
    /// A call waits for a human.
    ApprovalRequested {
        /// The approval.
        approval: ApprovalId,
        /// The call that waits.
        call: CallId,
        /// Its session.
        session: SessionId,
        /// Who asks.
        subject: SubjectId,
        /// What they want to use.
        connection: ConnectionName,
        /// The rule that demands it.
        rule: String,
        /// The groups that may say yes.
        from_groups: Vec<String>,
        /// SHA-256 of the canonical call that a yes will hold for, in hex.
        binding: String,
        /// Until when a yes can be given.
        expires: Timestamp,
    },
    /// A human answered.
    ApprovalDecided {
        /// The approval.
        approval: ApprovalId,
        /// Who answered.
        by: SubjectId,
        /// Whether it was a yes.
        approved: bool,
    },
    /// A yes was used up by a call.
    ApprovalUsed {
        /// The approval.
        approval: ApprovalId,
        /// The call.
        call: CallId,
    },
    /// Nobody answered, or the yes was not used, in time.
    ApprovalExpired {
        /// The approval.
        approval: ApprovalId,
    },
    /// A forwarded call whose end was lost in a crash: its outcome is unknown.
    Orphaned {
        /// The call.
        call: CallId,
        /// Its session.
        session: SessionId,
    },
    /// A tool's or prompt's first definition was taken as the accepted one.
    Pinned {
        /// The MCP server.
        connection: ConnectionName,
        /// SHA-256 of the canonical definition, in hex. Name and definition are in the body.
        hash: String,
    },
    /// A definition was put in quarantine: its tool or prompt is refused until it is accepted.
    Quarantined {
        /// The MCP server.
        connection: ConnectionName,
        /// The hash of the definition.
        hash: String,
        /// The hash of the accepted one, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        accepted: Option<String>,
        /// A word of ours for why.
        code: String,
    },
    /// Somebody accepted a definition that was in quarantine.
    Accepted {
        /// The MCP server.
        connection: ConnectionName,
        /// The hash of the definition.
        hash: String,
        /// Who accepted it.
        by: SubjectId,
    },
    /// A child process of an MCP server was started. What its sandbox lacks is in the body.
    ChildStarted {
        /// The MCP server.
        connection: ConnectionName,
        /// The operating system's number for the process.
        process: u32,
        /// The session that it works for; none for one that all share.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionId>,
        /// How much of its sandbox the kernel holds it to.
        sandbox: Confinement,
        /// The version of Landlock's interface that is in force, if it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        landlock: Option<u32>,
    },
    /// A child process ended.
    ChildEnded {
        /// The MCP server.
        connection: ConnectionName,
        /// The process.
        process: u32,
        /// Its session, if it worked for one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionId>,
        /// Whether it was asked to; if not, it died.
        asked: bool,
        /// Its exit code, if it had one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<i32>,
        /// The signal that ended it, if one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
    },
    /// A child process wrote to its standard error. The masked text is in the body.
    ChildStderr {
        /// The MCP server.
        connection: ConnectionName,
        /// The process.
        process: u32,
        /// Its session, if it works for one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionId>,
        /// How many lines the body has.
        lines: u32,
        /// How many more were written than are kept.
        #[serde(default, skip_serializing_if = "is_zero")]
        dropped: u64,
    },
    /// Messages of a child process went to nobody.
    ChildDropped {
        /// The MCP server.
        connection: ConnectionName,
        /// The process.
        process: u32,
        /// Its session, if it works for one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionId>,
        /// A word of ours for why.
        code: String,
        /// How many.
        count: u64,
    },
    /// Somebody read a session's recorded bodies.
    Viewed {
        /// The session.
        session: SessionId,
        /// Who read.
        by: SubjectId,
    },
    /// Another key signs grant tokens from here on.
    KeyRotated {
        /// Its id, the thumbprint of its public half.
        key: String,
        /// The key that signed before.
        previous: String,
        /// Until when that one verifies.
        until: Timestamp,
    },
    /// A key that signed before verifies no more.
    KeyRetired {
        /// Its id.
        key: String,
    },
    /// Somebody asks for a grant that a human must agree to. Why and for what is in the body.
    GrantRequested {
        /// The approval.
        approval: ApprovalId,
        /// Who asks.
        subject: SubjectId,
        /// What they want to use.
        connection: ConnectionName,
        /// The rule that demands a yes.
        rule: String,
        /// The groups that may say it.
        from_groups: Vec<String>,
        /// SHA-256 of the grant that a yes will hold for, in hex.
        binding: String,
        /// For how long, in seconds.
        seconds: i64,
        /// The grant that is to live longer, where no new one is asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        extends: Option<GrantId>,
        /// Until when a yes can be given and used.
        expires: Timestamp,
    },
    /// A yes was used up to let a grant live longer.
    GrantExtended {
        /// The grant.
        grant: GrantId,
        /// Whose it is.
        subject: SubjectId,
        /// The yes.
        approval: ApprovalId,
        /// Until when it can be renewed now.
        ends: Timestamp,
    },
    /// A grant ended early, since what it stood on is gone: at its renewal policy said no.
    GrantEnded {
        /// The grant.
        grant: GrantId,
        /// Whose it was.
        subject: SubjectId,
        /// Our own stable word for why.
        code: String,
    },
    /// Nothing runs any more under a grant that was revoked or ended.
    RevocationEnforced {
        /// The grant.
        grant: GrantId,
        /// How many calls and streams were open under it.
        streams: u32,
        /// How long it took, in milliseconds: from the request to revoke it, or the refused
        /// renewal, to the end of the last one.
        millis: u64,
        /// How many were still open when nobody waited for them any more.
        #[serde(default, skip_serializing_if = "none_left")]
        left: u32,
    },
    /// A user agreed that the gateway uses an MCP server in their name.
    ConsentGiven {
        /// The MCP server.
        connection: ConnectionName,
        /// Who agreed.
        subject: SubjectId,
    },
    /// A user took that back.
    ConsentForgotten {
        /// The MCP server.
        connection: ConnectionName,
        /// Who.
        subject: SubjectId,
    },
    /// What calls of a connection get from now on. Kind and source are in the body.
    CredentialConfigured {
        /// The MCP server.
        connection: ConnectionName,
        /// A word of ours for the kind, such as `header`.
        credential: String,
    },
}

impl Record {
    /// The record as it may be written. The method is the one text in it that a caller chooses,
    /// so one that is longer than 64 bytes or has other characters than MCP's methods becomes
    /// `?`: nobody can smuggle a name or an address into a leaf. The body has the method as sent.
    #[must_use]
    pub fn tidy(mut self) -> Self {
        if let Self::Call { method: Some(method), .. } = &mut self {
            let plain = (1..=MAX_METHOD).contains(&method.len())
                && method.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_.$-".contains(&b));
            if !plain {
                "?".clone_into(method);
            }
        }
        self
    }
}

/// How much of a child's sandbox the kernel holds it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confinement {
    /// None was asked for.
    Off,
    /// One was asked for, and nothing of it is held.
    None,
    /// A part.
    Partial,
    /// All of it.
    Full,
}

fn none_left(number: &u32) -> bool {
    *number == 0
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How far somebody came before being turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalStage {
    /// The TLS handshake.
    Tls,
    /// No valid token, or no proof of its key.
    Authenticate,
    /// The exchange of an identity token for a grant.
    Exchange,
    /// A message that does not decode.
    Decode,
    /// No such connection, method or path.
    Route,
    /// Too much, too many or too fast.
    Limit,
    /// The control server's own API.
    Api,
    /// A login over SAML.
    Login,
}

/// What sort of JSON-RPC message a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Wants an answer.
    Request,
    /// Wants none.
    Notification,
    /// Answers a request of the other side.
    Response,
}

/// What policy said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may pass.
    Allow,
    /// It may not.
    Deny,
    /// It may once a human says yes.
    NeedsApproval,
}

/// How a call went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A JSON-RPC result.
    Result,
    /// A tool result with `isError`.
    ToolError,
    /// A JSON-RPC error.
    Error,
    /// One event of a stream.
    StreamEvent,
    /// A stream's end.
    StreamEnd,
    /// Taken without an answer, as a notification is.
    Accepted,
    /// The upstream could not be reached, or broke off.
    UpstreamFailed,
    /// Answered by the gateway: denied.
    Denied,
    /// Answered by the gateway: the grant or the approval ran out.
    Expired,
    /// Given up by the client.
    Cancelled,
    /// Answered by the gateway: the upstream said nothing for too long.
    TimedOut,
    /// The client was cut off, as it did not read for too long.
    Stalled,
}

/// The longest method that a leaf names.
const MAX_METHOD: usize = 64;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::audit::leaf::Leaf;

    /// One line of each variant as version 1 wrote it. Never edit a line: add new ones.
    pub(crate) const STORED: &[&str] = &[
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"started","version":"0.1.0","config_hash":"00ff"}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00.000001Z","kind":"stopped"}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"policy_loaded","hash":"ab12"}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"grant_issued","grant":"gr_0000000000000000","session":"ses_0000000000000000","subject":"sub_0000000000000000","connection":"crm","expires":"2026-08-01T11:00:00Z"}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"grant_renewed","grant":"gr_0000000000000000","subject":"sub_0000000000000000","expires":"2026-08-01T11:00:00Z"}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"grant_revoked","grant":"gr_0000000000000000","by":"sub_0000000000000000"}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"token_issued","subject":"sub_0000000000000000","audience":"api"}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"refused","stage":"tls","code":"token_expired"}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"refused","stage":"authenticate","code":"token_expired","subject":"sub_0000000000000000","connection":"crm","session":"ses_0000000000000000"}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"call","call":"call_0000000000000000","session":"ses_0000000000000000","subject":"sub_0000000000000000","connection":"crm","direction":"client_to_server","shape":"request","method":"tools/call","decision":"needs_approval","rules":["r1"],"approval":"apr_0000000000000000","policy":"ab12","forwarded":false,"body":"0000000000000000000000000000000000000000000000000000000000000000"}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"call","call":"call_0000000000000000","session":"ses_0000000000000000","subject":"sub_0000000000000000","connection":"crm","direction":"server_to_client","shape":"response","decision":"allow","policy":"ab12","forwarded":true}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"response","call":"call_0000000000000000","session":"ses_0000000000000000","outcome":"tool_error","findings":{"pci.card":1,"pii.ssn":2},"upstream_status":200,"last":true,"body":"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"response","call":"call_0000000000000000","session":"ses_0000000000000000","outcome":"stream_event","last":false}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"response","call":"call_0000000000000000","session":"ses_0000000000000000","outcome":"timed_out","last":true}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"response","call":"call_0000000000000000","session":"ses_0000000000000000","outcome":"stalled","last":false}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"approval_requested","approval":"apr_0000000000000000","call":"call_0000000000000000","session":"ses_0000000000000000","subject":"sub_0000000000000000","connection":"crm","rule":"r1","from_groups":["leads"],"binding":"00ff","expires":"2026-08-01T11:00:00Z"}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"approval_decided","approval":"apr_0000000000000000","by":"sub_0000000000000000","approved":true}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"approval_used","approval":"apr_0000000000000000","call":"call_0000000000000000"}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"approval_expired","approval":"apr_0000000000000000"}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"orphaned","call":"call_0000000000000000","session":"ses_0000000000000000"}"#,
        r#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"viewed","session":"ses_0000000000000000","by":"sub_0000000000000000"}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"pinned","connection":"crm","hash":"00ff","body":"0000000000000000000000000000000000000000000000000000000000000000"}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"quarantined","connection":"crm","hash":"00ff","accepted":"11ee","code":"changed"}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"accepted","connection":"crm","hash":"00ff","by":"sub_0000000000000000"}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"child_started","connection":"crm","process":7,"session":"ses_0000000000000000","sandbox":"partial","landlock":3,"body":"0000000000000000000000000000000000000000000000000000000000000000"}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"child_started","connection":"crm","process":7,"sandbox":"off"}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"child_ended","connection":"crm","process":7,"session":"ses_0000000000000000","asked":false,"exit":3}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"child_ended","connection":"crm","process":7,"asked":true,"signal":9}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"child_stderr","connection":"crm","process":7,"session":"ses_0000000000000000","lines":2,"dropped":9,"body":"0000000000000000000000000000000000000000000000000000000000000000"}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"child_dropped","connection":"crm","process":7,"code":"no_owner","count":4}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"key_rotated","key":"k2","previous":"k1","until":"2026-11-20T10:16:00Z"}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"key_retired","key":"k1"}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"grant_issued","grant":"gr_0000000000000000","session":"ses_0000000000000000","subject":"sub_0000000000000000","connection":"crm","expires":"2026-11-20T10:15:00Z","approval":"apr_0000000000000000","ends":"2026-11-20T11:00:00Z"}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"grant_requested","approval":"apr_0000000000000000","subject":"sub_0000000000000000","connection":"crm","rule":"r1","from_groups":["leads"],"binding":"00ff","seconds":3600,"expires":"2026-11-20T11:00:00Z","body":"0000000000000000000000000000000000000000000000000000000000000000"}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"grant_requested","approval":"apr_0000000000000000","subject":"sub_0000000000000000","connection":"crm","rule":"r1","from_groups":["leads"],"binding":"00ff","seconds":3600,"extends":"gr_0000000000000000","expires":"2026-11-20T11:00:00Z"}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"grant_extended","grant":"gr_0000000000000000","subject":"sub_0000000000000000","approval":"apr_0000000000000000","ends":"2026-11-20T11:00:00Z"}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"grant_ended","grant":"gr_0000000000000000","subject":"sub_0000000000000000","code":"policy_denied"}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"revocation_enforced","grant":"gr_0000000000000000","streams":3,"millis":12}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"revocation_enforced","grant":"gr_0000000000000000","streams":3,"millis":2000,"left":1}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"consent_given","connection":"crm","subject":"sub_0000000000000000"}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"consent_forgotten","connection":"crm","subject":"sub_0000000000000000"}"#,
        r#"{"v":1,"at":"2026-11-20T10:00:00Z","kind":"credential_configured","connection":"crm","credential":"id-jag","body":"0000000000000000000000000000000000000000000000000000000000000000"}"#,
    ];

    #[test]
    fn every_stored_line_stays_readable() {
        for line in STORED {
            let leaf = Leaf::decode(line.as_bytes()).unwrap_or_else(|e| panic!("{line}: {e}"));
            // And version 1 still writes exactly what it wrote.
            assert_eq!(String::from_utf8(leaf.encode().unwrap()).unwrap(), *line);
        }
        // The match has no wildcard, so a new variant does not compile until it is listed here,
        // and the count below fails until STORED has a line of it.
        let name = |record: &Record| match record {
            Record::Started { .. } => 0,
            Record::Stopped => 1,
            Record::PolicyLoaded { .. } => 2,
            Record::GrantIssued { .. } => 3,
            Record::GrantRenewed { .. } => 4,
            Record::GrantRevoked { .. } => 5,
            Record::TokenIssued { .. } => 6,
            Record::Refused { .. } => 7,
            Record::Call { .. } => 8,
            Record::Response { .. } => 9,
            Record::ApprovalRequested { .. } => 10,
            Record::ApprovalDecided { .. } => 11,
            Record::ApprovalUsed { .. } => 12,
            Record::ApprovalExpired { .. } => 13,
            Record::Orphaned { .. } => 14,
            Record::Viewed { .. } => 15,
            Record::Pinned { .. } => 16,
            Record::Quarantined { .. } => 17,
            Record::Accepted { .. } => 18,
            Record::ChildStarted { .. } => 19,
            Record::ChildEnded { .. } => 20,
            Record::ChildStderr { .. } => 21,
            Record::ChildDropped { .. } => 22,
            Record::KeyRotated { .. } => 23,
            Record::KeyRetired { .. } => 24,
            Record::GrantRequested { .. } => 25,
            Record::GrantExtended { .. } => 26,
            Record::GrantEnded { .. } => 27,
            Record::RevocationEnforced { .. } => 28,
            Record::ConsentGiven { .. } => 29,
            Record::ConsentForgotten { .. } => 30,
            Record::CredentialConfigured { .. } => 31,
        };
        let seen: std::collections::BTreeSet<usize> =
            STORED.iter().map(|l| name(&Leaf::decode(l.as_bytes()).unwrap().record)).collect();
        assert_eq!(seen.len(), 32);
    }

    #[test]
    fn a_method_cannot_carry_free_text() {
        let line = STORED.iter().find(|l| l.contains("\"method\"")).unwrap();
        let with = |method: &str| {
            let text = line.replace("tools/call", method);
            match Leaf::decode(text.as_bytes()).unwrap().record.tidy() {
                Record::Call { method, .. } => method.unwrap(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(with("notifications/tools/list_changed"), "notifications/tools/list_changed");
        assert_eq!(with(&"a".repeat(64)), "a".repeat(64));
        for bad in ["", "alice@example.com", "a b", "a:b", "é", &"a".repeat(65)] {
            assert_eq!(with(bad), "?", "{bad:?}");
        }
    }
}
