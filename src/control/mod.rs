//! The control server: who may have a grant, who may approve, who may look.
//!
//! | file | owns |
//! |---|---|
//! | [`exchange`] | identity token → grant token (RFC 8693), bound to a key or certificate |
//! | [`workload`] | a job's own token instead, under a trust rule |
//! | [`grants`] | grants that are in use, their renewal and revocation |
//! | [`approvals`] | asking people, and using a yes up |
//! | [`asking`] | the same for grants |
//! | [`session`] | who calls the API |
//! | [`api`] | the API that the command line uses |
//! | [`index`] | following the audit log into the database |
//! | [`issuer`] | the built-in OpenID provider for teams without one |
//! | [`oauth`] | MCP's own OAuth: access token → grant, and where clients find the issuer |
//! | [`requests`] | asking for a grant that a person must agree to, and what a yes is good for |
//! | [`revoke`] | ending grants, and measuring until nothing runs under them |
//! | [`page`] | what pages for people look like; the one on which a call waits |
//! | [`pins`] | accepted definitions of tools, and quarantine |
//! | [`keys`] | one signing key after the other, on record |
//! | [`listen`] | TCP, TLS, and an orderly end |
//! | [`routes`] | all of it, and the gateway, as one HTTP service |
//!
//! Never holds an issuer's refresh token or anybody's password at another issuer, and never sees
//! an upstream's credential.

pub mod api;
pub mod approvals;
mod asking;
pub mod assertions;
pub mod consents;
pub mod error;
pub mod exchange;
pub mod grants;
pub mod index;
pub mod issuer;
pub mod keys;
pub mod listen;
pub mod oauth;
mod page;
pub mod pins;
pub mod requests;
pub mod revoke;
pub mod routes;
pub mod session;
mod workload;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use self::approvals::ApprovalDesk;
use self::grants::GrantBook;
use self::index::Index;
use self::pins::PinBoard;
use self::session::ApiSessions;
use crate::audit::{Reader, Recorder};
use crate::gateway::slots::Slots;
use crate::identity::Issuers;
use crate::identity::grant::{GrantSigner, GrantVerifier};
use crate::identity::possession::Possession;
use crate::identity::trust::TrustRules;
use crate::mask::Masker;
use crate::policy::PolicySet;
use crate::store::Store;
use crate::types::{Clock, ConnectionName, Subject};

/// How long grants live, and who may do what besides calling.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A grant's life before it has to be renewed.
    pub grant_ttl: Duration,
    /// How long a grant can be renewed for.
    pub grant_max: Duration,
    /// The longest life that a person's yes can give a grant.
    pub grant_max_jit: Duration,
    /// Groups that may see every session, approval and record.
    pub auditors: Vec<String>,
    /// Groups that may revoke anybody's grant.
    pub operators: Vec<String>,
}

/// A registered MCP server, as it is shown to people.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// What it is for.
    pub description: String,
    /// How it is reached: `http` or `stdio`.
    pub transport: &'static str,
}

/// Everything that the control server uses.
pub struct Control {
    /// The server's public URL, without a slash at its end.
    pub public_url: String,
    /// The trusted issuers.
    pub issuers: Issuers,
    /// Whose jobs come in with their own token.
    pub trust: TrustRules,
    /// Signs grant tokens.
    pub signer: GrantSigner,
    /// Verifies them.
    pub verifier: Arc<GrantVerifier>,
    /// Judges whether a request shows the key that it speaks of.
    pub possession: Possession,
    /// Whether brokers are told that a certificate will do.
    pub certificates: bool,
    /// The policies in force.
    pub policies: Arc<ArcSwap<PolicySet>>,
    /// The masking engine, for what callers write in their own words.
    pub masker: Arc<Masker>,
    /// The registered MCP servers.
    pub connections: BTreeMap<ConnectionName, ConnectionInfo>,
    /// Grants in use.
    pub grants: Arc<GrantBook>,
    /// Calls and streams that are open.
    pub slots: Arc<Slots>,
    /// Requests for approval.
    pub approvals: Arc<ApprovalDesk>,
    /// Accepted definitions.
    pub pins: Arc<PinBoard>,
    /// API tokens in use.
    pub sessions: ApiSessions,
    /// The database.
    pub store: Store,
    /// The audit log's writer.
    pub recorder: Recorder,
    /// The audit log's reader.
    pub reader: Reader,
    /// The log's index in the database.
    pub index: Index,
    /// The audit log's public key, as signed notes write it.
    pub log_key: String,
    /// Times and roles.
    pub settings: Settings,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

impl Control {
    /// The API's URL: what its tokens are for.
    pub fn api_url(&self) -> String {
        format!("{}/api", self.public_url)
    }

    /// Whether a subject may see everybody's sessions and records.
    pub fn is_auditor(&self, subject: &Subject) -> bool {
        in_any(subject, &self.settings.auditors)
    }

    /// Whether a subject may revoke everybody's grants.
    pub fn is_operator(&self, subject: &Subject) -> bool {
        in_any(subject, &self.settings.operators)
    }
}

/// Whether a subject is in one of some groups.
fn in_any(subject: &Subject, groups: &[String]) -> bool {
    subject.identity.groups.iter().any(|group| groups.contains(group))
}
