//! The built-in issuer's logins and their refresh tokens, which are kept as hashes only.

use super::{Store, StoreError};

/// The SHA-256 of a refresh token.
pub type TokenHash = [u8; 32];

/// One login: what every refresh token that came of it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// A random id.
    pub id: String,
    /// The local user.
    pub user_name: String,
    /// The client that the user logged in with.
    pub client_id: String,
    /// The scopes that were granted, separated by spaces.
    pub scope: String,
    /// SHA-256 of the user's password hash at login.
    pub credential: Vec<u8>,
    /// When the user proved who they are, in seconds since 1970.
    pub auth_time: i64,
    /// When the login ends, however often it was refreshed.
    pub expires: i64,
}

type FamilyRow = (String, String, String, String, Vec<u8>, i64, i64);

impl From<FamilyRow> for Family {
    fn from((id, user_name, client_id, scope, credential, auth_time, expires): FamilyRow) -> Self {
        Self { id, user_name, client_id, scope, credential, auth_time, expires }
    }
}

/// What became of a refresh token that was presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It was good; its successor is stored.
    Rotated(Family),
    /// It had been used before: a copy is about, and the whole family is revoked now.
    Reused(Family),
    /// It is unknown, or its family expired or was revoked.
    Refused,
}

impl Store {
    /// Stores a new login and its first refresh token.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub async fn issuer_add_family(
        &self,
        family: &Family,
        token: &TokenHash,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(
            "INSERT INTO issuer_families
                 (id, user_name, client_id, scope, credential, auth_time, expires)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&family.id)
        .bind(&family.user_name)
        .bind(&family.client_id)
        .bind(&family.scope)
        .bind(&family.credential)
        .bind(family.auth_time)
        .bind(family.expires)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("INSERT INTO issuer_refresh_tokens (hash, family, issued) VALUES ($1, $2, $3)")
            .bind(token.as_slice())
            .bind(&family.id)
            .bind(family.auth_time)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Uses up a refresh token and stores its successor, in one transaction: of two that present
    /// the same token at once, one rotates it and the other is a reuse.
    ///
    /// # Errors
    /// [`StoreError::Query`]; nothing changed then.
    pub async fn issuer_rotate(
        &self,
        client_id: &str,
        token: &TokenHash,
        successor: &TokenHash,
        now: i64,
    ) -> Result<Rotation, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // A write first: it takes SQLite's write lock, so what is read next cannot change.
        let fresh = sqlx::query(
            "UPDATE issuer_refresh_tokens SET used = $1 WHERE hash = $2 AND used IS NULL",
        )
        .bind(now)
        .bind(token.as_slice())
        .execute(&mut *transaction)
        .await?
        .rows_affected()
            == 1;
        let row: Option<FamilyRow> = sqlx::query_as(
            "SELECT f.id, f.user_name, f.client_id, f.scope, f.credential, f.auth_time, f.expires
             FROM issuer_refresh_tokens t JOIN issuer_families f ON f.id = t.family
             WHERE t.hash = $1 AND f.client_id = $2 AND f.revoked IS NULL AND f.expires > $3",
        )
        .bind(token.as_slice())
        .bind(client_id)
        .bind(now)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(family) = row.map(Family::from) else {
            transaction.rollback().await?;
            return Ok(Rotation::Refused);
        };
        if !fresh {
            sqlx::query("UPDATE issuer_families SET revoked = $1 WHERE id = $2")
                .bind(now)
                .bind(&family.id)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            return Ok(Rotation::Reused(family));
        }
        sqlx::query("INSERT INTO issuer_refresh_tokens (hash, family, issued) VALUES ($1, $2, $3)")
            .bind(successor.as_slice())
            .bind(&family.id)
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Rotation::Rotated(family))
    }

    /// Revokes a login by its id.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub async fn issuer_revoke_family(&self, id: &str, now: i64) -> Result<(), StoreError> {
        sqlx::query("UPDATE issuer_families SET revoked = $1 WHERE id = $2 AND revoked IS NULL")
            .bind(now)
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Revokes the login that a refresh token belongs to; an unknown one is fine (RFC 7009).
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub async fn issuer_revoke_token(
        &self,
        client_id: &str,
        token: &TokenHash,
        now: i64,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE issuer_families SET revoked = $1
             WHERE revoked IS NULL AND client_id = $2
               AND id = (SELECT family FROM issuer_refresh_tokens WHERE hash = $3)",
        )
        .bind(now)
        .bind(client_id)
        .bind(token.as_slice())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Removes logins that expired before `before`, with all their tokens.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub async fn issuer_purge(&self, before: i64) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM issuer_families WHERE expires < $1")
            .bind(before)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("mcpx.db")).await.unwrap();
        (dir, store)
    }

    fn family(id: &str) -> Family {
        Family {
            id: id.to_owned(),
            user_name: "alice".to_owned(),
            client_id: "mcpx-cli".to_owned(),
            scope: "openid".to_owned(),
            credential: vec![7; 32],
            auth_time: 1000,
            expires: 2000,
        }
    }

    #[tokio::test]
    async fn a_replayed_token_revokes_its_family() {
        let (_dir, store) = store().await;
        store.issuer_add_family(&family("f"), &[1; 32]).await.unwrap();
        store.issuer_add_family(&family("g"), &[9; 32]).await.unwrap();
        let rotate = async |old: u8, new: u8| {
            store.issuer_rotate("mcpx-cli", &[old; 32], &[new; 32], 1100).await
        };
        assert_eq!(rotate(1, 2).await.unwrap(), Rotation::Rotated(family("f")));
        assert_eq!(rotate(2, 3).await.unwrap(), Rotation::Rotated(family("f")));
        assert_eq!(rotate(1, 4).await.unwrap(), Rotation::Reused(family("f")));
        assert_eq!(rotate(3, 5).await.unwrap(), Rotation::Refused, "the newest is dead too");
        assert_eq!(rotate(4, 5).await.unwrap(), Rotation::Refused, "a reuse gains nothing");
        assert_eq!(rotate(9, 10).await.unwrap(), Rotation::Rotated(family("g")));
    }

    #[tokio::test]
    async fn refuses_other_clients_late_and_revoked_ones_without_using_them_up() {
        let (_dir, store) = store().await;
        store.issuer_add_family(&family("f"), &[1; 32]).await.unwrap();
        let refused = Rotation::Refused;
        assert_eq!(store.issuer_rotate("other", &[1; 32], &[2; 32], 1100).await.unwrap(), refused);
        assert_eq!(
            store.issuer_rotate("mcpx-cli", &[1; 32], &[2; 32], 2000).await.unwrap(),
            refused
        );
        let rotated = store.issuer_rotate("mcpx-cli", &[1; 32], &[2; 32], 1999).await.unwrap();
        assert_eq!(rotated, Rotation::Rotated(family("f")));
        store.issuer_revoke_token("other", &[2; 32], 1999).await.unwrap();
        store.issuer_revoke_token("mcpx-cli", &[2; 32], 1999).await.unwrap();
        assert_eq!(
            store.issuer_rotate("mcpx-cli", &[2; 32], &[3; 32], 1999).await.unwrap(),
            refused
        );
        assert_eq!(store.issuer_purge(2001).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn one_of_many_at_once_wins() {
        let (_dir, store) = store().await;
        store.issuer_add_family(&family("f"), &[1; 32]).await.unwrap();
        let tries = (0..8u8).map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                store.issuer_rotate("mcpx-cli", &[1; 32], &[100 + n; 32], 1100).await.unwrap()
            })
        });
        let mut rotated = 0;
        for task in tries.collect::<Vec<_>>() {
            rotated += usize::from(matches!(task.await.unwrap(), Rotation::Rotated(_)));
        }
        assert_eq!(rotated, 1);
    }
}
