//! The index over the audit log: what makes a session or a call quick to find.
//!
//! Filled in log order, in one transaction a batch, so its size is the next index to read.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::{Store, StoreError, json, parsed, time};
use crate::audit::{BodyLocation, Committed, Record};
use crate::types::{CallId, ConnectionName, SessionId, SubjectId, Timestamp};

/// Rows that one statement writes.
const ROWS: usize = 32;

/// A session in numbers.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub subject: SubjectId,
    /// To which MCP server.
    pub connection: ConnectionName,
    /// When its grant was given.
    pub started_at: Timestamp,
    /// Its newest record.
    pub last_at: Timestamp,
    /// Requests of the client.
    pub calls: i64,
    /// Calls that policy or a person denied.
    pub denied: i64,
    /// Calls that went through on an approval.
    pub approved: i64,
    /// Values that were masked in answers.
    pub masked: i64,
    /// Calls whose outcome is unknown.
    pub orphaned: i64,
}

impl Store {
    /// How many log entries are indexed: the index of the next one to read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn indexed(&self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT coalesce(max(idx) + 1, 0) AS size FROM records")
            .fetch_one(&self.pool)
            .await?;
        let size: i64 = row.try_get("size")?;
        u64::try_from(size).map_err(|_| StoreError::Unreadable { what: "index size" })
    }

    /// Indexes a run of entries that follows what is indexed.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of the run is indexed then.
    pub async fn index(&self, entries: &[Committed]) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let mut rest = entries;
        while !rest.is_empty() {
            // A statement costs more than the row that it writes, so rows that name their session
            // share statements, all of one length so that one is prepared.
            let run = rest.iter().take(ROWS).take_while(|entry| names_session(entry)).count();
            let (now, later) = rest.split_at(if run == ROWS { ROWS } else { 1 });
            let leaves = now.iter().map(|entry| serde_json::to_string(&entry.leaf));
            let leaves = leaves.collect::<Result<Vec<_>, _>>()?;
            let rows = now.iter().zip(&leaves).map(|(entry, leaf)| Row::read(entry, leaf));
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            insert(&rows).build().execute(&mut *transaction).await?;
            rest = later;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The forwarded calls of clients that have no end on record.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_calls(&self) -> Result<Vec<(CallId, SessionId)>, StoreError> {
        let rows = sqlx::query(
            "SELECT c.call, c.session FROM records c
             WHERE c.kind = 'call' AND c.forwarded = 1 AND c.direction = 'client_to_server'
               AND NOT EXISTS (SELECT 1 FROM records e
                               WHERE e.call = c.call AND (e.last = 1 OR e.kind = 'orphaned'))
             ORDER BY c.idx",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok((
                    parsed(row.try_get("call")?, "call id")?,
                    parsed(row.try_get("session")?, "session id")?,
                ))
            })
            .collect()
    }

    /// The newest sessions, at most `limit`; of one subject or with one id only, if given.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sessions(
        &self,
        of: Option<&SubjectId>,
        id: Option<&SessionId>,
        limit: u32,
    ) -> Result<Vec<SessionRow>, StoreError> {
        let rows = sqlx::query(
            "WITH opened AS (
                 SELECT session, subject, connection, at FROM records
                 WHERE kind = 'grant_issued' AND ($1 IS NULL OR subject = $1)
                   AND ($2 IS NULL OR session = $2)
                 ORDER BY idx DESC LIMIT $3)
             SELECT o.session, o.subject, o.connection, o.at AS started_at,
                    max(r.at) AS last_at,
                    count(DISTINCT CASE WHEN r.kind = 'call' AND r.shape = 'request'
                                         AND r.direction = 'client_to_server'
                                        THEN r.call END) AS calls,
                    count(DISTINCT CASE WHEN r.decision = 'deny' OR r.outcome = 'denied'
                                        THEN r.call END) AS denied,
                    count(DISTINCT CASE WHEN r.forwarded = 1 AND r.approval IS NOT NULL
                                        THEN r.call END) AS approved,
                    coalesce(sum(r.masked), 0) AS masked,
                    count(CASE WHEN r.kind = 'orphaned' THEN 1 END) AS orphaned
             FROM opened o JOIN records r ON r.session = o.session
             GROUP BY o.session ORDER BY o.at DESC",
        )
        .bind(of.map(SubjectId::as_str))
        .bind(id.map(SessionId::as_str))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(SessionRow {
                    id: parsed(row.try_get("session")?, "session id")?,
                    subject: parsed(row.try_get("subject")?, "subject id")?,
                    connection: parsed(row.try_get("connection")?, "connection name")?,
                    started_at: time(row.try_get("started_at")?)?,
                    last_at: time(row.try_get("last_at")?)?,
                    calls: row.try_get("calls")?,
                    denied: row.try_get("denied")?,
                    approved: row.try_get("approved")?,
                    masked: row.try_get("masked")?,
                    orphaned: row.try_get("orphaned")?,
                })
            })
            .collect()
    }

    /// Every record of a session, in log order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_records(&self, id: &SessionId) -> Result<Vec<Committed>, StoreError> {
        let rows = sqlx::query(
            "SELECT idx, leaf, segment, offset, length FROM records WHERE session = $1 ORDER BY idx",
        )
        .bind(id.as_str())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }
}

/// Whether an entry says itself which session it belongs to.
fn names_session(entry: &Committed) -> bool {
    matches!(
        entry.leaf.record,
        Record::Call { .. } | Record::Response { .. } | Record::GrantIssued { .. }
    )
}

/// The columns of an entry, out of its leaf.
#[derive(Deserialize)]
struct Fields<'a> {
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

struct Row<'a> {
    index: i64,
    at: i64,
    fields: Fields<'a>,
    leaf: &'a str,
    segment: Option<i64>,
    offset: Option<i64>,
    length: Option<i64>,
}

impl<'a> Row<'a> {
    fn read(entry: &Committed, leaf: &'a str) -> Result<Self, StoreError> {
        let body = entry.body_at.as_ref();
        Ok(Self {
            index: number(entry.index)?,
            at: entry.leaf.at.as_millisecond(),
            fields: serde_json::from_str(leaf)?,
            leaf,
            segment: body.map(|at| number(at.segment)).transpose()?,
            offset: body.map(|at| number(at.offset)).transpose()?,
            length: body.map(|at| i64::from(at.length)),
        })
    }
}

/// The statement that writes `rows`.
fn insert(rows: &[Row<'_>]) -> QueryBuilder<Sqlite> {
    let mut statement = QueryBuilder::new(
        "INSERT OR IGNORE INTO records (idx, at, kind, session, call, subject, connection, grant_id,
                              approval, direction, shape, decision, forwarded, outcome,
                              masked, last, leaf, segment, offset, length) ",
    );
    statement.push_values(rows, |mut values, row| {
        let fields = &row.fields;
        values.push_bind(row.index).push_bind(row.at).push_bind(fields.kind.to_owned());
        // A decision on an approval, and a grant's renewal, name no session; they belong to
        // the session of the approval or grant that they speak of.
        match fields.session {
            Some(session) => values.push_bind(session.to_owned()),
            None => values
                .push(
                    "coalesce((SELECT session FROM records
                               WHERE session IS NOT NULL AND approval = ",
                )
                .push_bind_unseparated(fields.approval.map(str::to_owned))
                .push_unseparated(
                    " LIMIT 1), (SELECT session FROM records
                                 WHERE session IS NOT NULL AND grant_id = ",
                )
                .push_bind_unseparated(fields.grant.map(str::to_owned))
                .push_unseparated(" LIMIT 1))"),
        };
        let text = [
            fields.call,
            fields.subject,
            fields.connection,
            fields.grant,
            fields.approval,
            fields.direction,
            fields.shape,
            fields.decision,
        ];
        for text in text {
            values.push_bind(text.map(str::to_owned));
        }
        values
            .push_bind(fields.forwarded)
            .push_bind(fields.outcome.map(str::to_owned))
            .push_bind(fields.findings.values().sum::<i64>())
            .push_bind(fields.last)
            .push_bind(row.leaf.to_owned())
            .push_bind(row.segment)
            .push_bind(row.offset)
            .push_bind(row.length);
    });
    statement
}

fn number(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Unreadable { what: "index" })
}

fn read(row: &SqliteRow) -> Result<Committed, StoreError> {
    let unreadable = |what| move |_| StoreError::Unreadable { what };
    let index: i64 = row.try_get("idx")?;
    let (segment, offset, length): (Option<i64>, Option<i64>, Option<i64>) =
        (row.try_get("segment")?, row.try_get("offset")?, row.try_get("length")?);
    let body_at = match (segment, offset, length) {
        (Some(segment), Some(offset), Some(length)) => Some(BodyLocation {
            segment: segment.try_into().map_err(unreadable("body location"))?,
            offset: offset.try_into().map_err(unreadable("body location"))?,
            length: length.try_into().map_err(unreadable("body location"))?,
        }),
        _ => None,
    };
    Ok(Committed {
        index: index.try_into().map_err(unreadable("index"))?,
        leaf: json(row.try_get("leaf")?, "leaf")?,
        body_at,
    })
}
