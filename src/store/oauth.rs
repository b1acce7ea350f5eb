//! Grants that access tokens of an identity provider opened, by what such tokens have in common.

use sqlx::Row as _;

use super::{Store, StoreError, parsed, time};
use crate::types::{ConnectionName, GrantId, SubjectId, Timestamp};

/// What the tokens of one client of one subject have in common.
#[derive(Clone, Copy, Debug)]
pub struct AccessKey<'a> {
    /// Who logged in.
    pub subject: &'a SubjectId,
    /// What for.
    pub connection: &'a ConnectionName,
    /// The issuer's id for the client.
    pub client: &'a str,
    /// The issuer's name for the login; empty where it tells none.
    pub login: &'a str,
}

/// A grant that such a token opened.
#[derive(Clone, Debug)]
pub struct AccessGrant {
    /// The grant.
    pub id: GrantId,
    /// The `iat` of the newest token seen, in seconds since 1970.
    pub newest: i64,
    /// When the grant ends for good.
    pub ends_at: Timestamp,
}

const OF: &str = "FROM oauth_grants o JOIN grants g ON g.id = o.grant_id
    WHERE g.subject = $1 AND g.connection = $2 AND o.client = $3 AND o.login = $4";

impl Store {
    /// Notes that a grant was opened by a token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert_access_grant(
        &self,
        id: &GrantId,
        key: AccessKey<'_>,
        newest: i64,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO oauth_grants (grant_id, client, login, newest) \
                   VALUES ($1, $2, $3, $4)";
        sqlx::query(sql)
            .bind(id.as_str())
            .bind(key.client)
            .bind(key.login)
            .bind(newest)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Notes that a newer token of the same client came.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn saw_access_token(&self, id: &GrantId, newest: i64) -> Result<(), StoreError> {
        sqlx::query("UPDATE oauth_grants SET newest = $2 WHERE grant_id = $1 AND newest < $2")
            .bind(id.as_str())
            .bind(newest)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The newest grant of a client that is neither revoked nor at its last end, with the binding
    /// that `thumbprint` says.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn access_grant(
        &self,
        key: AccessKey<'_>,
        thumbprint: &str,
        now: Timestamp,
    ) -> Result<Option<AccessGrant>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT g.id, g.ends_at, o.newest {OF} AND g.thumbprint = $5
             AND g.revoked_at IS NULL AND g.ends_at > $6 ORDER BY g.issued_at DESC LIMIT 1"
        ));
        let row = sqlx::query(sql)
            .bind(key.subject.as_str())
            .bind(key.connection.as_str())
            .bind(key.client)
            .bind(key.login)
            .bind(thumbprint)
            .bind(now.as_millisecond())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| {
            Ok(AccessGrant {
                id: parsed(row.try_get("id")?, "grant id")?,
                newest: row.try_get("newest")?,
                ends_at: time(row.try_get("ends_at")?)?,
            })
        })
        .transpose()
    }

    /// Whether a revocation holds for a token that was issued and whose login was at these seconds
    /// since 1970. It does for every token from before it; and until the revoked grant would have
    /// ended for good, for every later one as well, unless somebody has logged in since: a client
    /// refreshes its token by itself, and would undo the revocation. What ended on policy's word is
    /// policy's to give again, to a later token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn access_revoked(
        &self,
        key: AccessKey<'_>,
        issued: i64,
        authenticated: Option<i64>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT count(*) AS revoked {OF} AND g.revoked_at IS NOT NULL
             AND (g.revoked_at >= $5 * 1000
                  OR (g.ended_by IS NULL AND g.ends_at > $7 AND ($6 IS NULL OR g.revoked_at >= $6 * 1000)))"
        ));
        let row = sqlx::query(sql)
            .bind(key.subject.as_str())
            .bind(key.connection.as_str())
            .bind(key.client)
            .bind(key.login)
            .bind(issued)
            .bind(authenticated)
            .bind(now.as_millisecond())
            .fetch_one(&self.pool)
            .await?;
        let revoked: i64 = row.try_get("revoked")?;
        Ok(revoked > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::grants::{GrantRow, Which};
    use crate::types::{Identity, SessionId};

    #[tokio::test]
    async fn one_whose_token_has_run_out_can_still_be_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("mcpx.db")).await.unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let identity =
            Identity { issuer: "i".into(), sub: "s".into(), email: None, groups: vec![] };
        let subject = store.subject(identity, at(0)).await.unwrap();
        let connection: ConnectionName = "crm".parse().unwrap();
        let grant = || GrantRow {
            id: GrantId::generate().unwrap(),
            session: SessionId::generate().unwrap(),
            subject: subject.clone(),
            connection: connection.clone(),
            thumbprint: "bearer".to_owned(),
            reason: None,
            issued_at: at(0),
            expires_at: at(300),
            ends_at: at(3600),
            revoked_at: None,
            ended_by: None,
            scope: Default::default(),
            approval: None,
            approver: None,
        };
        let (access, other) = (grant(), grant());
        store.insert_grant(&access).await.unwrap();
        store.insert_grant(&other).await.unwrap();
        let key = AccessKey {
            subject: &subject.id,
            connection: &connection,
            client: "client",
            login: "",
        };
        store.insert_access_grant(&access.id, key, 0).await.unwrap();
        let live = async |second| {
            let live = store.live_grants(&Which::Connection(connection.clone()), at(second)).await;
            live.unwrap().into_iter().map(|row| row.id).collect::<Vec<_>>()
        };
        assert_eq!(live(299).await.len(), 2);
        assert_eq!(live(301).await, std::slice::from_ref(&access.id));
        assert!(live(3600).await.is_empty());
    }
}
