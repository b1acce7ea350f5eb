//! What the SAML service provider must not forget: responses that were taken once, and who its
//! logins belong to.

use super::{Store, StoreError, json};
use crate::types::Identity;

impl Store {
    /// Remembers the id of a response or assertion until `expires`. `false` if it was there
    /// already; of two that ask at once, one is told so.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub async fn saml_first_seen(
        &self,
        key: &str,
        expires: i64,
        now: i64,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // Each response pays for the removal of old ones.
        sqlx::query("DELETE FROM saml_seen WHERE expires < $1")
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        let added = sqlx::query(
            "INSERT INTO saml_seen (key, expires) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING",
        )
        .bind(key)
        .bind(expires)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(added.rows_affected() == 1)
    }

    /// Stores who a login belongs to.
    ///
    /// # Errors
    /// [`StoreError::Query`], also when there is no such login.
    pub async fn saml_add_login(
        &self,
        family: &str,
        identity: &Identity,
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO saml_logins (family, identity) VALUES ($1, $2)")
            .bind(family)
            .bind(serde_json::to_string(identity)?)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Who a login belongs to; none for one that did not come over SAML.
    ///
    /// # Errors
    /// [`StoreError::Query`] or [`StoreError::Unreadable`].
    pub async fn saml_login(&self, family: &str) -> Result<Option<Identity>, StoreError> {
        let row: Option<(String,)> =
            sqlx::query_as("SELECT identity FROM saml_logins WHERE family = $1")
                .bind(family)
                .fetch_optional(&self.pool)
                .await?;
        row.map(|(text,)| json(text, "SAML identity")).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::issuer::Family;

    #[tokio::test]
    async fn an_id_is_new_once_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mcpx.db");
        let store = Store::open(&path).await.unwrap();
        assert!(store.saml_first_seen("assertion_id:_a", 2000, 1000).await.unwrap());
        assert!(!store.saml_first_seen("assertion_id:_a", 2000, 1001).await.unwrap());
        assert!(store.saml_first_seen("response_id:_a", 2000, 1001).await.unwrap());
        drop(store);
        let store = Store::open(&path).await.unwrap();
        assert!(!store.saml_first_seen("assertion_id:_a", 2000, 2000).await.unwrap());
        assert!(store.saml_first_seen("assertion_id:_a", 3000, 2001).await.unwrap(), "it is over");
    }

    #[tokio::test]
    async fn a_login_goes_with_its_family() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("mcpx.db")).await.unwrap();
        let identity = Identity {
            issuer: "https://mcpx.example/issuer".to_owned(),
            sub: "saml_x".to_owned(),
            email: None,
            groups: vec!["eng".to_owned()],
        };
        assert!(store.saml_add_login("f", &identity).await.is_err(), "there is no such family");
        let family = Family {
            id: "f".to_owned(),
            user_name: identity.sub.clone(),
            client_id: "mcpx-cli".to_owned(),
            scope: "openid".to_owned(),
            credential: vec![7; 32],
            auth_time: 1000,
            expires: 2000,
        };
        store.issuer_add_family(&family, &[1; 32]).await.unwrap();
        store.saml_add_login("f", &identity).await.unwrap();
        assert_eq!(store.saml_login("f").await.unwrap(), Some(identity));
        assert_eq!(store.saml_login("g").await.unwrap(), None);
        store.issuer_purge(2001).await.unwrap();
        assert_eq!(store.saml_login("f").await.unwrap(), None);
    }
}
