//! Who has been here: the link between an issuer's name for somebody and our opaque id.

use sqlx::Row as _;

use super::{Store, StoreError};
use crate::types::{Identity, Subject, SubjectId, SubjectKind, Timestamp};

impl Store {
    /// The subject for an identity, made known if it is new: a person, unless the caller knows
    /// better. The e-mail address follows the issuer's newest word.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn subject(&self, identity: Identity, now: Timestamp) -> Result<Subject, StoreError> {
        // Nearly everybody is known, and a write that changes nothing waits for the disk all the same.
        let known = sqlx::query("SELECT id, email FROM subjects WHERE issuer = $1 AND sub = $2")
            .bind(&identity.issuer)
            .bind(&identity.sub)
            .fetch_optional(&self.pool)
            .await?;
        if let Some(row) = known {
            let email: Option<String> = row.try_get("email")?;
            if identity.email.is_none() || identity.email == email {
                let id = super::parsed(row.try_get("id")?, "subject id")?;
                return Ok(Subject { id, kind: SubjectKind::Person, identity });
            }
        }
        let fresh = SubjectId::generate()?;
        let row = sqlx::query(
            "INSERT INTO subjects (id, issuer, sub, email, first_seen) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (issuer, sub) DO UPDATE SET email = coalesce(excluded.email, email)
             RETURNING id",
        )
        .bind(fresh.as_str())
        .bind(&identity.issuer)
        .bind(&identity.sub)
        .bind(&identity.email)
        .bind(now.as_millisecond())
        .fetch_one(&self.pool)
        .await?;
        let id = super::parsed(row.try_get("id")?, "subject id")?;
        Ok(Subject { id, kind: SubjectKind::Person, identity })
    }

    /// What to call a subject on a screen: e-mail address or the issuer's `sub`; the id itself
    /// once the rest has been erased.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn label(&self, id: &SubjectId) -> Result<String, StoreError> {
        let row = sqlx::query("SELECT coalesce(email, sub) AS label FROM subjects WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await?;
        match row {
            Some(row) => Ok(row.try_get("label")?),
            None => Ok(id.to_string()),
        }
    }

    /// Everybody who is called so: by id, e-mail address or the issuer's `sub`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn subjects_called(&self, name: &str) -> Result<Vec<SubjectId>, StoreError> {
        let rows = sqlx::query(
            "SELECT id FROM subjects
             WHERE id = $1 OR email = $1 COLLATE NOCASE OR sub = $1",
        )
        .bind(name)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| super::parsed(row.try_get("id")?, "subject id")).collect()
    }
}
