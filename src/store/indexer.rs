//! What log entries mean for the index, gathered in memory until it is written in one transaction.
//!
//! Pure: reads leaves and adds up. Of a leaf it reads the few fields that the index asks for, by
//! their names, so a kind of record that is new needs nothing here.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;

use crate::audit::{Commit, Place, ReadError};
use crate::types::{Timestamp, sha256};

/// Denied calls without an end that are remembered, so that none counts twice. What denies a call
/// follows within a moment if it comes twice.
const DENIED_KEPT: usize = 4096;

/// An entry could not be taken into the index.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// Not a leaf that this version can index.
    #[error("entry {index} of the audit log cannot be indexed")]
    Leaf {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// Reads entries in log order, and remembers what they add to the index until it is written. From
/// [`Store::indexer`](super::Store::indexer); there is one at a time.
#[derive(Debug)]
pub struct Indexer {
    /// How many entries have been taken in: the index of the next one.
    pub(super) size: u64,
    /// Where the last of them lies, and its leaf's hash.
    pub(super) end: Option<(Place, [u8; 32])>,
    /// The number of the next run.
    pub(super) next_run: i64,
    /// Calls of which more can be said.
    pub(super) calls: Hashed<Box<str>, OpenCall>,
    pub(super) gathered: Gathered,
}

/// What the entries since the last writing add up to.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) entries: usize,
    pub(super) sessions: Vec<Gained>,
    by_id: Hashed<Arc<str>, usize>,
    /// Grants and approvals whose session has been named.
    pub(super) links: BTreeMap<Box<str>, Arc<str>>,
    /// Entries that name no session, but a grant or approval.
    pub(super) linked: Vec<Linked>,
    /// Calls that the database holds and need not any more.
    pub(super) over: Vec<Box<str>>,
    pub(super) of_grants: Vec<OfGrant>,
}

/// What a session gained.
#[derive(Debug)]
pub(super) struct Gained {
    pub(super) id: Arc<str>,
    pub(super) opened: Option<Opened>,
    pub(super) last_at: i64,
    pub(super) calls: i64,
    pub(super) denied: i64,
    pub(super) approved: i64,
    pub(super) masked: i64,
    pub(super) orphaned: i64,
    pub(super) places: Vec<(u64, Place)>,
}

/// The record that opened a session.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) index: u64,
    pub(super) at: i64,
    pub(super) subject: Option<Box<str>>,
    pub(super) connection: Option<Box<str>>,
}

/// An entry whose session stands elsewhere.
#[derive(Debug)]
pub(super) struct Linked {
    pub(super) index: u64,
    pub(super) place: Place,
    pub(super) at: i64,
    pub(super) masked: i64,
    /// What may know the session, the likelier first.
    pub(super) by: Vec<Box<str>>,
}

/// A record of a grant that says how it ended.
#[derive(Debug)]
pub(super) struct OfGrant {
    pub(super) index: u64,
    pub(super) at: i64,
    pub(super) kind: Box<str>,
    pub(super) grant: Box<str>,
    pub(super) leaf: String,
}

/// A call of which more can be said.
#[derive(Clone, Debug)]
pub(super) struct OpenCall {
    pub(super) session: Arc<str>,
    pub(super) index: u64,
    pub(super) marks: u8,
    /// The marks that the database holds.
    pub(super) stored: Option<u8>,
}

/// Marks of a call. It was forwarded for a client and has no end:
pub(super) const OPEN: u8 = 1;
/// it waits for an approval, after which it is put on record once more:
const WAITING: u8 = 2;
/// it has been counted among those that were denied;
const DENIED: u8 = 4;
/// among the client's requests;
const REQUEST: u8 = 8;
/// among those that went through on an approval.
const APPROVED: u8 = 16;

/// Ids are random or ours, so nobody can choose them to collide.
pub(super) type Hashed<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The fields of a leaf that the index asks for.
#[derive(Deserialize)]
struct Fields<'a> {
    v: u8,
    at: Timestamp,
    kind: &'a str,
    session: Option<&'a str>,
    call: Option<&'a str>,
    subject: Option<&'a str>,
    connection: Option<&'a str>,
    grant: Option<&'a str>,
    approval: Option<&'a str>,
    direction: Option<&'a str>,
    shape: Option<&'a str>,
    decision: Option<&'a str>,
    #[serde(default)]
    forwarded: bool,
    outcome: Option<&'a str>,
    #[serde(borrow, default)]
    findings: BTreeMap<Cow<'a, str>, i64>,
    #[serde(default)]
    last: bool,
}

impl<'a> Fields<'a> {
    fn read(leaf: &'a [u8]) -> Result<Self, serde_json::Error> {
        let fields: Self = serde_json::from_slice(leaf)?;
        if fields.v != 1 {
            let found = format!("the leaf has version {}; this program reads version 1", fields.v);
            return Err(serde::de::Error::custom(found));
        }
        Ok(fields)
    }
}

impl Indexer {
    pub(super) fn new(size: u64, next_run: i64, calls: Hashed<Box<str>, OpenCall>) -> Self {
        Self { size, end: None, next_run, calls, gathered: Gathered::default() }
    }

    /// How many entries have been taken in: the index of the next one.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many of them have not been written.
    pub fn gathered(&self) -> usize {
        self.gathered.entries
    }

    /// Takes in the entries of a commit.
    ///
    /// # Errors
    /// [`TakeError`]; the indexer must not be used any more then.
    pub fn take(&mut self, commit: &Commit) -> Result<(), TakeError> {
        let place = commit.place();
        let mut last = None;
        for (index, leaf) in commit.leaves()? {
            self.leaf(index, place, leaf).map_err(|source| TakeError::Leaf { index, source })?;
            last = Some(leaf);
        }
        self.end = last.map(|leaf| (place, sha256(leaf)));
        Ok(())
    }

    fn leaf(&mut self, index: u64, place: Place, leaf: &[u8]) -> Result<(), serde_json::Error> {
        let fields = Fields::read(leaf)?;
        let at = fields.at.as_millisecond();
        let masked = fields.findings.values().sum();
        self.size = index + 1;
        self.gathered.entries += 1;
        if let Some(grant) = fields.grant
            && !matches!(fields.kind, "grant_issued" | "grant_renewed")
        {
            self.gathered.of_grants.push(OfGrant {
                index,
                at,
                kind: fields.kind.into(),
                grant: grant.into(),
                leaf: String::from_utf8_lossy(leaf).into_owned(),
            });
        }
        let links = [fields.approval, fields.grant];
        let Some(id) = fields.session else {
            // A decision on an approval, and a grant's renewal, name no session; they belong to
            // the session of the approval or grant that they speak of.
            let by: Vec<Box<str>> = links.into_iter().flatten().map(Into::into).collect();
            if !by.is_empty() {
                self.gathered.linked.push(Linked { index, place, at, masked, by });
            } else if fields.kind == "started" {
                self.forget(|call| call.marks & OPEN == 0);
            }
            return Ok(());
        };
        let Gathered { sessions, by_id, links: known, over, .. } = &mut self.gathered;
        let slot = by_id.get(id).copied().unwrap_or_else(|| {
            let id: Arc<str> = id.into();
            by_id.insert(Arc::clone(&id), sessions.len());
            sessions.push(Gained::new(id));
            sessions.len() - 1
        });
        let Some(session) = sessions.get_mut(slot) else { return Ok(()) };
        session.add(index, place, at, masked);
        if fields.kind == "grant_issued" {
            session.opened = Some(Opened {
                index,
                at,
                subject: fields.subject.map(Into::into),
                connection: fields.connection.map(Into::into),
            });
        }
        session.orphaned += i64::from(fields.kind == "orphaned");
        if let Some(call) = fields.call {
            take_call(session, &mut self.calls, over, call, index, &fields);
        }
        for link in links.into_iter().flatten() {
            if !known.contains_key(link) {
                known.insert(link.into(), Arc::clone(&session.id));
            }
        }
        Ok(())
    }

    /// What has been gathered has been written.
    pub(super) fn written(&mut self) {
        self.gathered = Gathered::default();
        for call in self.calls.values_mut() {
            call.stored = Some(call.marks);
        }
        if self.calls.len() > 2 * DENIED_KEPT {
            let denied = self.calls.values().filter(|call| call.marks & (OPEN | WAITING) == 0);
            let mut denied: Vec<u64> = denied.map(|call| call.index).collect();
            denied.sort_unstable_by(|a, b| b.cmp(a));
            if let Some(oldest) = denied.get(DENIED_KEPT).copied() {
                self.forget(|call| call.marks & (OPEN | WAITING) == 0 && call.index <= oldest);
            }
        }
    }

    fn forget(&mut self, which: impl Fn(&OpenCall) -> bool) {
        let gone = self.calls.extract_if(|_, call| which(call));
        let stored = gone.filter(|(_, call)| call.stored.is_some()).map(|(id, _)| id);
        self.gathered.over.extend(stored);
    }
}

/// What a record of a call says of it.
fn take_call(
    session: &mut Gained,
    calls: &mut Hashed<Box<str>, OpenCall>,
    over: &mut Vec<Box<str>>,
    call: &str,
    index: u64,
    fields: &Fields<'_>,
) {
    let ends = fields.last || fields.kind == "orphaned";
    let (mut known, mut ended) = (None, None);
    if ends {
        ended = calls.remove_entry(call);
    } else {
        known = calls.get_mut(call);
    }
    let before = known.as_deref().or(ended.as_ref().map(|(_, call)| call));
    let mut marks = before.map_or(0, |call| call.marks);
    let mut once = |mark, holds, count: &mut i64| {
        if holds && marks & mark == 0 {
            marks |= mark;
            *count += 1;
        }
    };
    let decided = fields.kind == "call";
    let of_client = decided && fields.direction == Some("client_to_server");
    let denied = fields.decision == Some("deny") || fields.outcome == Some("denied");
    once(REQUEST, of_client && fields.shape == Some("request"), &mut session.calls);
    once(DENIED, denied, &mut session.denied);
    once(APPROVED, fields.forwarded && fields.approval.is_some(), &mut session.approved);
    if ends {
        over.extend(ended.filter(|(_, call)| call.stored.is_some()).map(|(id, _)| id));
        return;
    }
    if of_client && fields.forwarded {
        marks |= OPEN;
    }
    if decided {
        marks &= !WAITING;
        if fields.decision == Some("needs_approval") {
            marks |= WAITING;
        }
    }
    match known {
        Some(known) => known.marks = marks,
        None if marks & (OPEN | WAITING | DENIED) != 0 => {
            let session = Arc::clone(&session.id);
            calls.insert(call.into(), OpenCall { session, index, marks, stored: None });
        }
        None => {}
    }
}

impl Gained {
    pub(super) fn new(id: Arc<str>) -> Self {
        let (places, opened, last_at) = (Vec::new(), None, i64::MIN);
        let [calls, denied, approved, masked, orphaned] = [0; 5];
        Self { id, opened, last_at, calls, denied, approved, masked, orphaned, places }
    }

    pub(super) fn add(&mut self, index: u64, place: Place, at: i64, masked: i64) {
        self.places.push((index, place));
        self.last_at = self.last_at.max(at);
        self.masked += masked;
    }
}

impl Gathered {
    /// The session of this id.
    pub(super) fn session(&mut self, id: &str) -> Option<&mut Gained> {
        let slot = *self.by_id.entry(Arc::from(id)).or_insert_with_key(|id| {
            self.sessions.push(Gained::new(Arc::clone(id)));
            self.sessions.len() - 1
        });
        self.sessions.get_mut(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::STORED;

    #[test]
    fn every_kind_of_record_can_be_indexed() {
        for line in STORED {
            let read = Fields::read(line.as_bytes()).unwrap_or_else(|e| panic!("{line}: {e}"));
            let all: serde_json::Value = serde_json::from_str(line).unwrap();
            let read = [Some(read.kind), read.session, read.call, read.grant, read.approval];
            for (name, read) in ["kind", "session", "call", "grant", "approval"].iter().zip(read) {
                assert_eq!(all.get(name).and_then(serde_json::Value::as_str), read, "{line}");
            }
        }
        assert!(Fields::read(br#"{"v":2,"at":"2026-08-01T10:00:00Z","kind":"stopped"}"#).is_err());
    }
}
