//! Pins as rows.

use sqlx::Row as _;

use super::{Store, StoreError, parsed, time};
use crate::types::{ConnectionName, Timestamp};

/// The pin of one tool or prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRow {
    /// The MCP server.
    pub connection: ConnectionName,
    /// `tool` or `prompt`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The hash of the accepted definition.
    pub accepted: Option<String>,
    /// That definition, masked.
    pub definition: Option<String>,
    /// The hash of the definition in quarantine.
    pub offered: Option<String>,
    /// That definition, masked.
    pub proposal: Option<String>,
    /// Why it is in quarantine.
    pub reason: Option<String>,
    /// When the pin last changed.
    pub changed_at: Timestamp,
}

impl Store {
    /// Every pin; of one connection only, if given.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn pins(&self, of: Option<&ConnectionName>) -> Result<Vec<PinRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM pins WHERE $1 IS NULL OR connection = $1 ORDER BY connection, kind, name",
        )
        .bind(of.map(ConnectionName::as_str))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(PinRow {
                    connection: parsed(row.try_get("connection")?, "connection name")?,
                    kind: row.try_get("kind")?,
                    name: row.try_get("name")?,
                    accepted: row.try_get("accepted")?,
                    definition: row.try_get("definition")?,
                    offered: row.try_get("offered")?,
                    proposal: row.try_get("proposal")?,
                    reason: row.try_get("reason")?,
                    changed_at: time(row.try_get("changed_at")?)?,
                })
            })
            .collect()
    }

    /// Keeps a pin as it stands now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_pin(&self, pin: &PinRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT OR REPLACE INTO pins (connection, kind, name, accepted, definition, offered,
                                          proposal, reason, changed_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(pin.connection.as_str())
        .bind(&pin.kind)
        .bind(&pin.name)
        .bind(&pin.accepted)
        .bind(&pin.definition)
        .bind(&pin.offered)
        .bind(&pin.proposal)
        .bind(&pin.reason)
        .bind(pin.changed_at.as_millisecond())
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
