//! All SQL: the SQLite database that holds what changes (subjects, grants, approvals, pins,
//! the local issuer's refresh tokens) and an index over the audit log that can be rebuilt from it.
//!
//! The audit log itself is not here: it is the folder that [`crate::audit`] owns.

pub mod approvals;
pub mod consents;
pub mod customers;
mod gathered;
pub mod grants;
pub mod index;
pub mod indexer;
pub mod issuer;
pub mod oauth;
pub mod pins;
pub mod requests;
pub mod saml;
mod subjects;
mod workloads;

use std::path::Path;
use std::str::FromStr;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use self::gathered::Gathered;
use crate::types::{RandomError, Timestamp};

/// The database could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be opened or brought to the current schema.
    #[error("cannot open the database {path}")]
    Open {
        /// The database file.
        path: String,
        /// What SQLite said.
        #[source]
        source: sqlx::Error,
    },
    /// The schema could not be brought up to date.
    #[error("cannot bring the database {path} to the current schema")]
    Migrate {
        /// The database file.
        path: String,
        /// What went wrong.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    /// A statement failed.
    #[error("the database refused a statement")]
    Query(#[from] sqlx::Error),
    /// A row holds what this version cannot read.
    #[error("the database holds an unreadable {what}")]
    Unreadable {
        /// Which column or value.
        what: &'static str,
    },
    /// A value that cannot be stored.
    #[error("a value cannot be stored")]
    Unstorable(#[from] serde_json::Error),
    /// No fresh id could be made.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The open database. Cheap to clone; all clones share one pool.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) pool: sqlx::SqlitePool,
    gathered: Gathered,
}

impl Store {
    /// Opens (and creates, mode 0600 on Unix through the data directory's own 0700) the database
    /// and applies every migration that it lacks. WAL, `synchronous = FULL`.
    ///
    /// # Errors
    /// [`StoreError::Open`] or [`StoreError::Migrate`], naming the file.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let name = path.display().to_string();
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(std::time::Duration::from_secs(5));
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await
            .map_err(|source| StoreError::Open { path: name.clone(), source })?;
        Migrator::with_migrations(migrations())
            .run(&pool)
            .await
            .map_err(|source| StoreError::Migrate { path: name, source })?;
        let gathered = Gathered::start(pool.clone());
        Ok(Self { pool, gathered })
    }
}

fn parsed<T: FromStr>(text: String, what: &'static str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Unreadable { what })
}

fn json<T: serde::de::DeserializeOwned>(text: String, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(&text).map_err(|_| StoreError::Unreadable { what })
}

fn time(milliseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(milliseconds).map_err(|_| StoreError::Unreadable { what: "time" })
}

/// Every migration, oldest first. One that has shipped is never changed: SQLite's copy carries its
/// hash, and a database that disagrees is refused.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "state", include_str!("migrations/0001_state.sql")),
    (2, "issuer", include_str!("migrations/0002_issuer.sql")),
    (3, "index", include_str!("migrations/0003_index.sql")),
    (4, "pins", include_str!("migrations/0004_pins.sql")),
    (5, "workloads", include_str!("migrations/0005_workloads.sql")),
    (6, "consents", include_str!("migrations/0006_consents.sql")),
    (7, "oauth", include_str!("migrations/0007_oauth.sql")),
    (8, "grants", include_str!("migrations/0008_grants.sql")),
    (11, "log index", include_str!("migrations/0011_index.sql")),
    (12, "saml", include_str!("migrations/0012_saml.sql")),
];

fn migrations() -> Vec<Migration> {
    MIGRATIONS
        .iter()
        .map(|&(version, name, sql)| {
            let sql = sql.into_sql_str();
            Migration::new(version, name.into(), MigrationType::Simple, sql, false)
        })
        .collect()
}
