//! The index over the audit log: what makes a session or a call quick to find.
//!
//! It keeps what a session's records add up to, and where in the journal they lie; what they say
//! is read there. Filled in log order, in one transaction a batch.

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use super::indexer::{Gained, Hashed, Indexer, Linked, OPEN, OpenCall};
use super::{Store, StoreError, parsed, time};
use crate::audit::Place;
use crate::types::{CallId, ConnectionName, SessionId, SubjectId, Timestamp};

/// How many rows one statement writes: few lengths, so that statements are prepared once, and
/// long ones, since a statement costs more than a row.
const ROWS: [usize; 3] = [64, 8, 1];

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
        let row = sqlx::query("SELECT coalesce(max(size), 0) AS size FROM log_indexed")
            .fetch_one(&self.pool)
            .await?;
        unsigned(row.try_get("size")?)
    }

    /// Where the last indexed entry lies in the log, with its index and its leaf's SHA-256.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn index_end(&self) -> Result<Option<(u64, Place, [u8; 32])>, StoreError> {
        let row = sqlx::query("SELECT size, segment, offset, hash FROM log_indexed WHERE size > 0")
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let place = Place {
            segment: unsigned(row.try_get("segment")?)?,
            offset: unsigned(row.try_get("offset")?)?,
        };
        let hash: &[u8] = row.try_get("hash")?;
        let hash = hash.try_into().map_err(|_| UNREADABLE)?;
        Ok(Some((unsigned(row.try_get("size")?)?.saturating_sub(1), place, hash)))
    }

    /// Forgets the whole index, to be made from the log again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_index(&self) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        for forget in [
            "DELETE FROM log_indexed",
            "DELETE FROM log_sessions",
            "DELETE FROM log_runs",
            "DELETE FROM log_calls",
            "DELETE FROM log_links",
            "DELETE FROM grant_records",
        ] {
            sqlx::query(forget).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// What takes in log entries where the index ends.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn indexer(&self) -> Result<Indexer, StoreError> {
        let size = self.indexed().await?;
        if size == 0 {
            self.forget_index().await?;
        }
        let row = sqlx::query("SELECT coalesce(max(id), 0) AS newest FROM log_runs")
            .fetch_one(&self.pool)
            .await?;
        let newest: i64 = row.try_get("newest")?;
        let rows = sqlx::query("SELECT call, session, idx, marks FROM log_calls")
            .fetch_all(&self.pool)
            .await?;
        let mut calls = Hashed::default();
        for row in &rows {
            let session: String = row.try_get("session")?;
            let call: String = row.try_get("call")?;
            let marks = row.try_get("marks")?;
            let index = unsigned(row.try_get("idx")?)?;
            let open = OpenCall { session: session.into(), index, marks, stored: Some(marks) };
            calls.insert(call.into(), open);
        }
        Ok(Indexer::new(size, newest + 1, calls))
    }

    /// Writes what the indexer has gathered.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is written then, and the indexer must not be used any more.
    pub async fn index(&self, indexer: &mut Indexer) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        write_links(&mut transaction, indexer).await?;
        for linked in std::mem::take(&mut indexer.gathered.linked) {
            if let Some(id) = session_of(&mut transaction, &linked).await?
                && let Some(session) = indexer.gathered.session(&id)
            {
                session.add(linked.index, linked.place, linked.at, linked.masked);
            }
        }
        write_sessions(&mut transaction, indexer).await?;
        write_calls(&mut transaction, indexer).await?;
        write_of_grants(&mut transaction, indexer).await?;
        if let Some((place, hash)) = &indexer.end {
            sqlx::query(
                "INSERT OR REPLACE INTO log_indexed (one, size, segment, offset, hash)
                 VALUES (1, $1, $2, $3, $4)",
            )
            .bind(signed(indexer.size)?)
            .bind(signed(place.segment)?)
            .bind(signed(place.offset)?)
            .bind(hash.as_slice())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        indexer.written();
        Ok(())
    }

    /// The forwarded calls of clients that have no end on record.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_calls(&self) -> Result<Vec<(CallId, SessionId)>, StoreError> {
        let rows =
            sqlx::query("SELECT call, session FROM log_calls WHERE marks & $1 <> 0 ORDER BY idx")
                .bind(OPEN)
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
        // Which of them are given is said in the statement, so that an index serves each.
        let meant = match (of, id) {
            (None, None) => "$1 IS NULL AND $2 IS NULL",
            (Some(_), None) => "subject = $1 AND $2 IS NULL",
            (None, Some(_)) => "$1 IS NULL AND id = $2",
            (Some(_), Some(_)) => "subject = $1 AND id = $2",
        };
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT * FROM (SELECT * FROM log_sessions WHERE opened IS NOT NULL AND {meant}
                            ORDER BY opened DESC LIMIT $3)
             ORDER BY started_at DESC, opened DESC"
        ));
        let rows = sqlx::query(sql)
            .bind(of.map(SubjectId::as_str))
            .bind(id.map(SessionId::as_str))
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(SessionRow {
                    id: parsed(row.try_get("id")?, "session id")?,
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

    /// Every record of a session, in log order: its index, and where the log has it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session_records(&self, id: &SessionId) -> Result<Vec<(u64, Place)>, StoreError> {
        let rows = sqlx::query(
            "WITH RECURSIVE chain AS (
                 SELECT r.* FROM log_sessions s JOIN log_runs r ON r.id = s.run WHERE s.id = $1
                 UNION ALL
                 SELECT r.* FROM chain c JOIN log_runs r ON r.id = c.prev)
             SELECT segment, first, offset, rest FROM chain ORDER BY first",
        )
        .bind(id.as_str())
        .fetch_all(&self.pool)
        .await?;
        let mut records = Vec::new();
        for row in &rows {
            read_run(row, &mut records)?;
        }
        Ok(records)
    }
}

/// Says which sessions grants and approvals belong to. What was said first stands.
async fn write_links(
    connection: &mut SqliteConnection,
    indexer: &Indexer,
) -> Result<(), StoreError> {
    for (id, session) in &indexer.gathered.links {
        sqlx::query("INSERT OR IGNORE INTO log_links (id, session) VALUES ($1, $2)")
            .bind(&**id)
            .bind(&**session)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// The session of an entry that does not name it.
async fn session_of(
    connection: &mut SqliteConnection,
    linked: &Linked,
) -> Result<Option<String>, StoreError> {
    for id in &linked.by {
        let row = sqlx::query("SELECT session FROM log_links WHERE id = $1")
            .bind(&**id)
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(row) = row {
            return Ok(Some(row.try_get("session")?));
        }
    }
    Ok(None)
}

async fn write_sessions(
    connection: &mut SqliteConnection,
    indexer: &mut Indexer,
) -> Result<(), StoreError> {
    let mut runs = Vec::new();
    let mut sessions = Vec::new();
    for session in &mut indexer.gathered.sessions {
        session.places.sort_unstable_by_key(|(index, _)| *index);
        let mut prev = None;
        let mut rest = session.places.as_slice();
        while let Some((run, after)) = cut_run(rest) {
            runs.push((indexer.next_run, prev, session.id.to_string(), run));
            prev = Some(indexer.next_run);
            indexer.next_run += 1;
            rest = after;
        }
        if let Some(run) = prev {
            sessions.push(SessionWrite::new(session, run)?);
        }
    }
    // Before the sessions, which still say what their newest run was.
    for rows in portions(&runs) {
        let mut statement = QueryBuilder::<Sqlite>::new(
            "INSERT INTO log_runs (id, prev, segment, first, offset, rest) ",
        );
        statement.push_values(rows, |mut values, (id, prev, session, run)| {
            values
                .push_bind(*id)
                .push("coalesce(")
                .push_bind_unseparated(*prev)
                .push_unseparated(", (SELECT run FROM log_sessions WHERE id = ")
                .push_bind_unseparated(session.clone())
                .push_unseparated("))")
                .push_bind(run.segment)
                .push_bind(run.first)
                .push_bind(run.offset)
                .push_bind(run.rest.clone());
        });
        statement.build().execute(&mut *connection).await?;
    }
    for rows in portions(&sessions) {
        let mut statement = QueryBuilder::<Sqlite>::new(
            "INSERT INTO log_sessions (id, subject, connection, opened, started_at, last_at, calls,
                                       denied, approved, masked, orphaned, run) ",
        );
        statement.push_values(rows, |mut values, row| {
            values.push_bind(row.id.clone());
            values.push_bind(row.subject.clone()).push_bind(row.connection.clone());
            values.push_bind(row.opened).push_bind(row.started_at);
            for number in row.numbers {
                values.push_bind(number);
            }
        });
        statement.push(
            " ON CONFLICT (id) DO UPDATE SET
                 subject = coalesce(subject, excluded.subject),
                 connection = coalesce(connection, excluded.connection),
                 opened = coalesce(opened, excluded.opened),
                 started_at = coalesce(started_at, excluded.started_at),
                 last_at = max(last_at, excluded.last_at),
                 calls = calls + excluded.calls,
                 denied = denied + excluded.denied,
                 approved = approved + excluded.approved,
                 masked = masked + excluded.masked,
                 orphaned = orphaned + excluded.orphaned,
                 run = excluded.run",
        );
        statement.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// A session's row, or what is added to it.
struct SessionWrite {
    id: String,
    subject: Option<String>,
    connection: Option<String>,
    opened: Option<i64>,
    started_at: Option<i64>,
    /// From `last_at` on.
    numbers: [i64; 7],
}

impl SessionWrite {
    fn new(gained: &Gained, run: i64) -> Result<Self, StoreError> {
        let opened = gained.opened.as_ref();
        Ok(Self {
            id: gained.id.to_string(),
            subject: opened.and_then(|opened| opened.subject.as_deref()).map(str::to_owned),
            connection: opened.and_then(|opened| opened.connection.as_deref()).map(str::to_owned),
            opened: opened.map(|opened| signed(opened.index)).transpose()?,
            started_at: opened.map(|opened| opened.at),
            numbers: [
                gained.last_at,
                gained.calls,
                gained.denied,
                gained.approved,
                gained.masked,
                gained.orphaned,
                run,
            ],
        })
    }
}

async fn write_calls(
    connection: &mut SqliteConnection,
    indexer: &Indexer,
) -> Result<(), StoreError> {
    for calls in portions(&indexer.gathered.over) {
        let mut statement = QueryBuilder::<Sqlite>::new("DELETE FROM log_calls WHERE call IN (");
        let mut list = statement.separated(", ");
        for call in calls {
            list.push_bind(call.to_string());
        }
        statement.push(")");
        statement.build().execute(&mut *connection).await?;
    }
    let changed = indexer.calls.iter().filter(|(_, call)| call.stored != Some(call.marks));
    let mut rows = Vec::new();
    for (id, call) in changed {
        rows.push((id.to_string(), call.session.to_string(), signed(call.index)?, call.marks));
    }
    for rows in portions(&rows) {
        let mut statement = QueryBuilder::<Sqlite>::new(
            "INSERT OR REPLACE INTO log_calls (call, session, idx, marks) ",
        );
        statement.push_values(rows, |mut values, (call, session, index, marks)| {
            values.push_bind(call.clone()).push_bind(session.clone());
            values.push_bind(*index).push_bind(*marks);
        });
        statement.build().execute(&mut *connection).await?;
    }
    Ok(())
}

async fn write_of_grants(
    connection: &mut SqliteConnection,
    indexer: &Indexer,
) -> Result<(), StoreError> {
    for record in &indexer.gathered.of_grants {
        sqlx::query(
            "INSERT INTO grant_records (idx, at, kind, grant_id, leaf) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(signed(record.index)?)
        .bind(record.at)
        .bind(&*record.kind)
        .bind(&*record.grant)
        .bind(&record.leaf)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Rows, in portions of the lengths that statements have.
fn portions<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let length = ROWS.into_iter().find(|length| *length <= rest.len())?;
        let (portion, after) = rest.split_at(length);
        rest = after;
        Some(portion)
    })
}

/// A run as it is stored: the first record's index and place, and how much further the others are.
struct Run {
    segment: i64,
    first: i64,
    offset: i64,
    rest: Vec<u8>,
}

/// The longest run that the records begin with, and those after it.
fn cut_run(records: &[(u64, Place)]) -> Option<(Run, &[(u64, Place)])> {
    let ((first, start), others) = records.split_first()?;
    let further = |index: u64, place: &Place| {
        let far = (index.checked_sub(*first)?, place.offset.checked_sub(start.offset)?);
        let far = (u32::try_from(far.0).ok()?, u32::try_from(far.1).ok()?);
        (place.segment == start.segment).then_some(far)
    };
    let mut rest = Vec::with_capacity(others.len() * 8);
    let mut count = 0;
    for (index, place) in others {
        let Some((index, offset)) = further(*index, place) else { break };
        rest.extend(index.to_be_bytes());
        rest.extend(offset.to_be_bytes());
        count += 1;
    }
    let number = |number: u64| i64::try_from(number).ok();
    let run = Run {
        segment: number(start.segment)?,
        first: number(*first)?,
        offset: number(start.offset)?,
        rest,
    };
    Some((run, others.get(count..)?))
}

fn read_run(row: &SqliteRow, records: &mut Vec<(u64, Place)>) -> Result<(), StoreError> {
    let segment = unsigned(row.try_get("segment")?)?;
    let first = unsigned(row.try_get("first")?)?;
    let offset = unsigned(row.try_get("offset")?)?;
    let rest: &[u8] = row.try_get("rest")?;
    records.push((first, Place { segment, offset }));
    let (others, []) = rest.as_chunks::<8>() else { return Err(UNREADABLE) };
    for &[a, b, c, d, e, f, g, h] in others {
        let index = first.saturating_add(u32::from_be_bytes([a, b, c, d]).into());
        let offset = offset.saturating_add(u32::from_be_bytes([e, f, g, h]).into());
        records.push((index, Place { segment, offset }));
    }
    Ok(())
}

const UNREADABLE: StoreError = StoreError::Unreadable { what: "place in the log" };

fn signed(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| UNREADABLE)
}

fn unsigned(value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| UNREADABLE)
}

#[cfg(test)]
mod tests;
