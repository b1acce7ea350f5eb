//! What the data path needs from the control server, as small traits that `control` implements.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::seal::Of;
use crate::mcp::mirror::Mirrored;
use crate::policy::{Approved, Need, Scope};
use crate::types::{
    ApprovalId, CallId, Clock, ConnectionName, GrantId, SessionId, Subject, Timestamp,
};

/// Something behind a port did not work; the call is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PortError(pub String);

/// How a grant stands at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantState {
    /// When it ends unless renewed.
    pub expires_at: Timestamp,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// Why a grant is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its time ran out.
    Expired,
    /// Somebody revoked it.
    Revoked,
}

/// A grant that the data path is using.
#[derive(Clone, Debug)]
pub struct LiveGrant {
    /// Its id.
    pub id: GrantId,
    /// The session that runs under it.
    pub session: SessionId,
    /// Who has it.
    pub subject: Arc<Subject>,
    /// For which MCP server.
    pub connection: ConnectionName,
    /// When it was given.
    pub issued_at: Timestamp,
    /// Why it was asked for.
    pub reason: Option<String>,
    /// What it is limited to.
    pub scope: Scope,
    /// How it stands, followed while streams run under it.
    pub state: watch::Receiver<GrantState>,
}

impl LiveGrant {
    /// For whom what the gateway seals under this grant opens.
    pub(super) fn seals(&self) -> Of<'_> {
        let (subject, connection) = (&self.subject.id, &self.connection);
        Of { subject, connection, session: Some(&self.session) }
    }

    /// Whether the grant is over, and why.
    pub fn has_ended(&self, now: Timestamp) -> Option<Ended> {
        let state = *self.state.borrow();
        if state.revoked {
            Some(Ended::Revoked)
        } else if state.expires_at <= now {
            Some(Ended::Expired)
        } else {
            None
        }
    }

    /// How long it lasts from now on unless renewed, in milliseconds.
    pub fn life(&self, now: Timestamp) -> u64 {
        let left = self.state.borrow().expires_at.duration_since(now);
        u64::try_from(left.as_millis()).unwrap_or(0)
    }

    /// Waits until the grant is revoked, if it ever is.
    pub async fn revoked(&mut self) {
        loop {
            if self.state.borrow_and_update().revoked {
                return;
            }
            if self.state.changed().await.is_err() {
                // Expired and forgotten: it can no longer be revoked.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the grant is over.
    pub async fn ended(&mut self, clock: &dyn Clock) -> Ended {
        loop {
            let now = clock.now();
            if let Some(ended) = self.has_ended(now) {
                return ended;
            }
            let left = self.state.borrow_and_update().expires_at.duration_since(now);
            let left = std::time::Duration::try_from(left).unwrap_or_default();
            let changed = tokio::time::timeout(left, self.state.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                // Nobody keeps this grant any more.
                return Ended::Revoked;
            }
        }
    }
}

/// Where grants are looked up.
pub trait Grants: Send + Sync {
    /// The grant of an id, whether or not it is over; `None` if there is none.
    ///
    /// # Errors
    /// [`PortError`] when that cannot be told.
    fn find<'a>(&'a self, id: &'a GrantId) -> BoxFuture<'a, Result<Option<LiveGrant>, PortError>>;
}

/// How a request for approval stands after waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes; and this was its one use.
    Yes(Approved),
    /// No.
    No {
        /// Why, in the approver's words.
        reason: Option<String>,
    },
    /// It lapsed.
    Expired,
    /// Yes, but another call used it up.
    Taken,
    /// Nobody has decided yet.
    Pending,
}

/// Where people are asked.
pub trait Approvals: Send + Sync {
    /// Asks for a yes to a call, or finds the request that is open for the same call.
    ///
    /// # Errors
    /// [`PortError`]; nobody has been asked then.
    fn ask<'a>(&'a self, need: &'a Need) -> BoxFuture<'a, Result<ApprovalId, PortError>>;

    /// Waits until `until` for the answer. A yes is used up for `call` in the same step.
    ///
    /// # Errors
    /// [`PortError`]; whether the yes is used up is unknown then, and it lifts nothing.
    fn answer<'a>(
        &'a self,
        id: &'a ApprovalId,
        call: &'a CallId,
        until: Timestamp,
    ) -> BoxFuture<'a, Result<Answer, PortError>>;
}

/// What a pin is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ItemKind {
    /// A tool.
    Tool,
    /// A prompt.
    Prompt,
}

impl ItemKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
        }
    }
}

/// What makes a definition suspect by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It holds characters that a person does not see.
    HiddenCharacters,
}

/// The definition of a tool or prompt, as a server lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Of what.
    pub kind: ItemKind,
    /// Its name.
    pub name: String,
    /// SHA-256 of its canonical form, in hexadecimal.
    pub hash: String,
    /// Its JSON text, raw.
    pub text: String,
    /// What its name looks like: names with one skeleton cannot be told apart by eye.
    pub skeleton: String,
    /// What is wrong with it, if anything.
    pub flaw: Option<Flaw>,
}

/// How a tool or prompt stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was never listed.
    Unknown,
    /// Its definition is the accepted one.
    Accepted {
        /// The definition's hash.
        hash: String,
        /// What a call of it repeats in headers.
        mirrored: Arc<[Mirrored]>,
    },
    /// It may not be used until somebody accepts it.
    Quarantined {
        /// Why not, in one clause.
        reason: String,
    },
}

/// Where definitions are pinned.
pub trait Pins: Send + Sync {
    /// How a tool or prompt stands.
    ///
    /// # Errors
    /// [`PortError`] when that cannot be told.
    fn standing<'a>(
        &'a self,
        connection: &'a ConnectionName,
        kind: ItemKind,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Standing, PortError>>;

    /// Takes note of definitions as a server lists them, and says how each stands now. What
    /// changes by it is on record first.
    ///
    /// # Errors
    /// [`PortError`]; none of them may be shown then.
    fn see<'a>(
        &'a self,
        connection: &'a ConnectionName,
        definitions: Vec<Definition>,
    ) -> BoxFuture<'a, Result<Vec<Standing>, PortError>>;
}
