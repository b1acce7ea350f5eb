//! Consents as rows. What is in one is sealed before it comes here.

use sqlx::Row as _;

use super::{Store, StoreError};
use crate::types::{ConnectionName, SubjectId, Timestamp};

impl Store {
    /// What a subject agreed to for a connection, sealed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn consent(
        &self,
        subject: &SubjectId,
        connection: &ConnectionName,
    ) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT sealed FROM consents WHERE subject = $1 AND connection = $2")
            .bind(subject.as_str())
            .bind(connection.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| Ok(row.try_get("sealed")?)).transpose()
    }

    /// Keeps it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_consent(
        &self,
        subject: &SubjectId,
        connection: &ConnectionName,
        sealed: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT OR REPLACE INTO consents (subject, connection, sealed, changed_at)
             VALUES ($1, $2, $3, $4)",
        )
        .bind(subject.as_str())
        .bind(connection.as_str())
        .bind(sealed)
        .bind(now.as_millisecond())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Keeps another one in place of `seen`, if that is still the one there; says whether it was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn replace_consent(
        &self,
        subject: &SubjectId,
        connection: &ConnectionName,
        seen: &str,
        sealed: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE consents SET sealed = $4, changed_at = $5
             WHERE subject = $1 AND connection = $2 AND sealed = $3",
        )
        .bind(subject.as_str())
        .bind(connection.as_str())
        .bind(seen)
        .bind(sealed)
        .bind(now.as_millisecond())
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Forgets `seen`, if that is still the one there; says whether it was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn void_consent(
        &self,
        subject: &SubjectId,
        connection: &ConnectionName,
        seen: &str,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "DELETE FROM consents WHERE subject = $1 AND connection = $2 AND sealed = $3",
        )
        .bind(subject.as_str())
        .bind(connection.as_str())
        .bind(seen)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Forgets it; says whether there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_consent(
        &self,
        subject: &SubjectId,
        connection: &ConnectionName,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM consents WHERE subject = $1 AND connection = $2")
            .bind(subject.as_str())
            .bind(connection.as_str())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
