//! Asking for a grant that a person must agree to, and what a yes is good for.
//!
//! A request is an approval like that of a call, with the same people and the same rules, and bound
//! in the same way: to subject, connection, scope, reason, duration, start, asking rules and policy
//! version. A yes gives one grant, or lets one live longer once. Every step is on record before it
//! takes effect; a yes is spent in the database first, so that a crash loses it and never doubles it.

use std::net::IpAddr;
use std::time::Duration;

use axum::http::StatusCode;
use jiff::SignedDuration;
use serde::Deserialize;

use super::Control;
use super::error::ApiError;
use super::exchange::later;
use crate::audit::{Entry, Record};
use crate::policy::connect::Ask;
use crate::policy::{Connect, Denial, Facts, Scope, Wanted};
use crate::store::approvals::{ApprovalRow, ApprovalState};
use crate::store::grants::GrantRow;
use crate::types::{ApprovalId, ConnectionName, GrantId, Subject, Timestamp};

/// What a grant is asked for with.
#[derive(Deserialize)]
pub struct RequestForm {
    connection: ConnectionName,
    reason: String,
    seconds: Option<i64>,
    #[serde(default)]
    tools: Vec<String>,
    from: Option<Timestamp>,
    extends: Option<GrantId>,
}

/// On what a grant is given or renewed.
pub(super) struct Basis {
    /// Why it was asked for.
    pub(super) reason: Option<String>,
    /// The yes to a new grant, to be used up with it.
    pub(super) yes: Option<Yes>,
}

/// A yes, and what it is to.
pub(super) struct Yes {
    pub(super) id: ApprovalId,
    pub(super) wanted: Wanted,
}

/// The most tools that a grant can be limited to, and the longest name of one.
const MOST_TOOLS: usize = 64;
const LONGEST_NAME: usize = 256;
/// How far ahead a grant can be asked for.
const MOST_AHEAD: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How many requests for grants one subject can have open.
const MOST_OPEN: u32 = 32;
/// For how long one is asked where nothing is said, in seconds.
const USUAL: i64 = 3600;
/// A grant is asked for at least so long, in seconds.
const SHORTEST: i64 = 1;

impl Control {
    /// Asks for a grant, or finds the open request for the same.
    ///
    /// # Errors
    /// [`ApiError`]: policy refuses it, or allows it without anybody's yes, or not for so long.
    pub async fn request_grant(
        &self,
        subject: &Subject,
        form: RequestForm,
        source: Option<IpAddr>,
    ) -> Result<ApprovalRow, ApiError> {
        let now = self.clock.now();
        let connection = form.connection.clone();
        if !self.connections.contains_key(&connection) {
            return Err(ApiError::not_found(format!("there is no connection {connection}"))
                .hint("`mcpx ls` lists the connections that you may use")
                .of(&subject.id));
        }
        let any_life = form.seconds.is_none();
        let mut wanted = self.wanted(form, source, now)?;
        wanted.groups.clone_from(&subject.identity.groups);
        if let Some(id) = &wanted.extends {
            let grant = self.store.grant(id).await?;
            let grant = grant.filter(|grant| {
                grant.subject.id == subject.id
                    && grant.subject.kind == subject.kind
                    && grant.connection == connection
                    && grant.revoked_at.is_none()
                    && grant.approval.is_some()
                    && grant.ends_at > now
            });
            let grant = grant.ok_or_else(|| {
                ApiError::not_found(format!(
                    "{id} is no live grant of yours that could be extended"
                ))
                .hint("`mcpx grants` lists yours")
                .of(&subject.id)
            })?;
            if grant.ends_at >= self.last_end(&grant)? {
                let message = format!("{id} has the longest life that a grant may have");
                let (status, code) = (StatusCode::CONFLICT, "grant_too_long");
                return Err(ApiError::new(status, "invalid_request", code, message)
                    .hint("ask for a new grant instead")
                    .of(&subject.id)
                    .at(&connection));
            }
            // It lives longer as what it is.
            wanted.scope = grant.scope;
        }
        let facts = self.facts(source, Some(wanted.reason.clone()), now);
        let asked = self.policies.load().may_connect(subject, &connection, &facts);
        let ask = match asked.map_err(|denial| denied(denial, subject, &connection))? {
            Connect::NeedsApproval(ask) => ask,
            Connect::Allowed => {
                let message = format!("policy lets you use {connection} without anybody's yes");
                let (status, code) = (StatusCode::CONFLICT, "approval_not_needed");
                return Err(ApiError::new(status, "invalid_request", code, message)
                    .hint(format!("run `mcpx connect {connection}`")));
            }
        };
        let longest = self.longest(&ask);
        if any_life {
            wanted.seconds = wanted.seconds.min(longest);
        }
        if wanted.seconds > longest {
            let message = format!(
                "a grant for {connection} can be given for {:#} at most",
                SignedDuration::from_secs(longest)
            );
            let status = StatusCode::BAD_REQUEST;
            return Err(ApiError::new(status, "invalid_request", "grant_too_long", message)
                .hint(format!("ask with `--for \"{:#}\"`", SignedDuration::from_secs(longest)))
                .of(&subject.id)
                .at(&connection));
        }
        let open = self.store.requests(Some(&subject.id), now, MOST_OPEN).await?;
        if open.len() >= usize::try_from(MOST_OPEN).unwrap_or(usize::MAX) {
            let message = format!("you have {MOST_OPEN} requests open, the most you may have");
            let (status, code) = (StatusCode::TOO_MANY_REQUESTS, "too_many_requests");
            return Err(ApiError::new(status, "invalid_request", code, message)
                .hint("`mcpx grants` lists them; they end by themselves")
                .of(&subject.id)
                .at(&connection));
        }
        self.approvals.ask_for_grant(subject, connection, wanted, ask, now).await
    }

    /// What is asked for, with its words masked and its numbers in bounds.
    fn wanted(
        &self,
        form: RequestForm,
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Wanted, ApiError> {
        let RequestForm { reason, tools, from, extends, .. } = form;
        let seconds = form.seconds.unwrap_or(USUAL);
        let reason = self.checked_reason(reason.trim())?;
        if reason.is_empty() {
            return Err(ApiError::bad_request("a reason is needed, for whoever decides"));
        }
        if seconds < SHORTEST {
            return Err(ApiError::bad_request("a grant must be asked for some time"));
        }
        if tools.len() > MOST_TOOLS || tools.iter().any(|name| name.len() > LONGEST_NAME) {
            return Err(ApiError::bad_request(format!(
                "at most {MOST_TOOLS} tools can be named, each with {LONGEST_NAME} bytes at most"
            )));
        }
        // They go into records, where nothing stands that masking would find.
        if tools.iter().any(|name| *self.masker.text(name).0 != **name) {
            return Err(ApiError::bad_request(
                "the name of a tool looks like a secret or personal data",
            ));
        }
        let from = from.filter(|from| *from > now);
        if from.is_some_and(|from| from.duration_since(now) > MOST_AHEAD) {
            return Err(ApiError::bad_request("a grant can be asked for seven days ahead at most"));
        }
        let scope = Scope::of_tools(tools);
        Ok(Wanted { reason, seconds, scope, from, extends, source, groups: Vec::new() })
    }

    /// What policy is told of a subject who has no grant yet.
    pub(super) fn facts(
        &self,
        source: Option<IpAddr>,
        reason: Option<String>,
        now: Timestamp,
    ) -> Facts {
        Facts { now, source, grant_age_seconds: 0, reason, scope: Scope::default() }
    }

    /// The longest life of a grant that these rules ask a yes for, in seconds.
    fn longest(&self, ask: &Ask) -> i64 {
        let most = ask.longest.unwrap_or(Duration::MAX).min(self.settings.grant_max_jit);
        i64::try_from(most.as_secs()).unwrap_or(i64::MAX)
    }

    /// On what a subject may have a new grant: policy, or a yes that waits to be used.
    pub(super) async fn basis(
        &self,
        subject: &Subject,
        connection: &ConnectionName,
        reason: Option<String>,
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Basis, ApiError> {
        let policies = self.policies.load_full();
        let facts = self.facts(source, reason.clone(), now);
        let asked = policies.may_connect(subject, connection, &facts);
        if matches!(asked, Ok(Connect::Allowed)) {
            return Ok(Basis { reason, yes: None });
        }
        let open = self.store.open_requests(&subject.id, connection, now).await?;
        let mut later = None;
        for row in &open {
            let Some(wanted) = row.wanted.as_ref() else { continue };
            if row.state != ApprovalState::Approved {
                continue;
            }
            // What the yes was given to is judged, not what is said now.
            let facts = self.facts(source, Some(wanted.reason.clone()), now);
            let asked = policies.may_connect(subject, connection, &facts);
            let Ok(Connect::NeedsApproval(ask)) = asked else { continue };
            if wanted.binding(subject, connection, &ask).as_str() != row.binding {
                continue;
            }
            if let Some(from) = wanted.from.filter(|from| *from > now) {
                later = Some((row.id.clone(), from));
                continue;
            }
            let seconds = wanted.seconds.min(self.longest(&ask));
            let wanted = Wanted { seconds, ..wanted.clone() };
            let reason = Some(wanted.reason.clone());
            return Ok(Basis { reason, yes: Some(Yes { id: row.id.clone(), wanted }) });
        }
        let ask = match asked {
            Err(denial) => return Err(denied(denial, subject, connection)),
            Ok(Connect::Allowed) => return Ok(Basis { reason, yes: None }),
            Ok(Connect::NeedsApproval(ask)) => ask,
        };
        let pending = open.iter().find(|row| row.state == ApprovalState::Pending);
        let groups = ask.groups.join(" or ");
        let (code, message, hint) = match (later, pending) {
            (Some((id, from)), _) => (
                "grant_not_begun",
                format!("the grant of {id} begins at {from}"),
                "connect again then".to_owned(),
            ),
            (None, Some(row)) => (
                "approval_pending",
                format!("{} waits for approval by somebody of {groups}", row.id),
                format!("ask them to run `mcpx approve {}`", row.id),
            ),
            (None, None) => (
                "needs_approval",
                format!(
                    "a grant for {connection} needs approval by somebody of {groups} (rule {})",
                    ask.rules.join(", ")
                ),
                format!("run `mcpx request {connection} --reason TEXT`"),
            ),
        };
        Err(ApiError::new(StatusCode::FORBIDDEN, "access_denied", code, message)
            .hint(hint)
            .of(&subject.id)
            .at(connection))
    }

    /// Whether a grant may be renewed: what it stands on is looked at anew, with the groups that
    /// the issuer vouches for now.
    ///
    /// # Errors
    /// [`ApiError`]: it stands on nothing any more, and must end.
    pub(super) async fn still_stands(
        &self,
        subject: &Subject,
        grant: &GrantRow,
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let yes = match &grant.approval {
            None => None,
            Some(id) => self.store.approval(id).await?,
        };
        let wanted = yes.as_ref().and_then(|row| row.wanted.as_ref());
        // Of an extension the reason is another one; each was judged with its own.
        let reason = wanted.map(|wanted| wanted.reason.clone()).or_else(|| grant.reason.clone());
        let facts = self.facts(source, reason, now);
        let connection = &grant.connection;
        let asked = self.policies.load().may_connect(subject, connection, &facts);
        let ask = match asked.map_err(|denial| denied(denial, subject, connection))? {
            Connect::Allowed => return Ok(()),
            Connect::NeedsApproval(ask) => ask,
        };
        let stands = yes.as_ref().zip(wanted).is_some_and(|(row, wanted)| {
            wanted.binding(subject, connection, &ask).as_str() == row.binding
        });
        if stands {
            return Ok(());
        }
        let message = format!(
            "a grant for {connection} now needs another approval (rule {})",
            ask.rules.join(", ")
        );
        Err(ApiError::new(StatusCode::FORBIDDEN, "access_denied", "needs_approval", message)
            .hint(format!("run `mcpx request {connection} --reason TEXT`"))
            .of(&subject.id)
            .at(connection))
    }

    /// Lets a grant live longer, where there is a yes to that.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(super) async fn extended(
        &self,
        grant: &mut GrantRow,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        // What policy gives by itself has no end that a yes could move.
        if grant.approval.is_none() {
            return Ok(());
        }
        let Some(row) = self.store.yes_to_extend(&grant.id, now).await? else { return Ok(()) };
        let Some(wanted) = row.wanted else { return Ok(()) };
        if grant.revoked_at.is_some() || grant.ends_at <= now {
            return Ok(());
        }
        // Policy may have changed since the yes.
        let asked = self.policies.load().may_connect(
            &grant.subject,
            &grant.connection,
            &self.facts(wanted.source, Some(wanted.reason.clone()), now),
        );
        let Ok(Connect::NeedsApproval(ask)) = asked else { return Ok(()) };
        if wanted.binding(&grant.subject, &grant.connection, &ask).as_str() != row.binding {
            return Ok(());
        }
        let longest = Duration::from_secs(self.longest(&ask).unsigned_abs());
        let more = Duration::from_secs(wanted.seconds.unsigned_abs());
        let ends = later(grant.ends_at, more)?.min(later(now, longest)?);
        let ends = ends.min(self.last_end(grant)?);
        if !self.store.use_approval(&row.id, grant.id.as_str(), now).await? {
            return Ok(());
        }
        let ends = ends.max(grant.ends_at);
        let record = Record::GrantExtended {
            grant: grant.id.clone(),
            subject: grant.subject.id.clone(),
            approval: row.id.clone(),
            ends,
        };
        self.recorder.append(Entry { record, body: None }).await?;
        if self.store.extend_grant(&grant.id, ends, &row.id).await? {
            grant.ends_at = ends;
            grant.approval = Some(row.id);
        }
        Ok(())
    }

    /// When a grant ends at the latest, whoever agrees to more.
    fn last_end(&self, grant: &GrantRow) -> Result<Timestamp, ApiError> {
        let mut most = self.settings.grant_max;
        if let Some(rule) = grant.subject.kind.rule() {
            // Nobody gets more under a rule that is gone.
            let Ok(longest) = self.trust.longest(rule) else { return Ok(grant.issued_at) };
            most = most.min(longest.unwrap_or(most));
        }
        later(grant.issued_at, most)
    }

    /// What follows at once from a decision: an approved extension takes effect.
    ///
    /// # Errors
    /// [`ApiError`].
    pub(super) async fn follow(&self, decided: &ApprovalRow) -> Result<(), ApiError> {
        let Some(id) = decided.wanted.as_ref().and_then(|wanted| wanted.extends.as_ref()) else {
            return Ok(());
        };
        if decided.state == ApprovalState::Approved
            && let Some(mut grant) = self.store.grant(id).await?
        {
            self.extended(&mut grant, self.clock.now()).await?;
        }
        Ok(())
    }

    /// Uses up the yes that a new grant stands on.
    ///
    /// # Errors
    /// [`ApiError`]: another grant was faster.
    pub(super) async fn spend(
        &self,
        yes: &ApprovalId,
        grant: &GrantId,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        if self.store.use_approval(yes, grant.as_str(), now).await? {
            return Ok(());
        }
        let message = format!("approval {yes} was used for another grant, or taken back");
        let status = StatusCode::BAD_REQUEST;
        Err(ApiError::new(status, "invalid_grant", "approval_used", message)
            .hint("ask again with `mcpx request`"))
    }
}

fn denied(denial: Denial, subject: &Subject, connection: &ConnectionName) -> ApiError {
    ApiError::from(denial).of(&subject.id).at(connection)
}
