//! Which key used a job's token first.
//!
//! A job may exchange one token several times, for its connections and to renew a grant, always
//! with the key that it began with. Whoever comes with another key has stolen the token.

use sqlx::Row as _;

use super::{Store, StoreError};
use crate::types::Timestamp;

impl Store {
    /// Binds a job's token, known by its mark, to the first key that used it, and says whether
    /// that is this one. What has expired is forgotten: nobody accepts such a token any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn bind_workload_token(
        &self,
        mark: &[u8],
        thumbprint: &str,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        sqlx::query("DELETE FROM workload_tokens WHERE expires_at < $1")
            .bind(now.as_millisecond())
            .execute(&self.pool)
            .await?;
        // The update changes nothing: it makes the row that was there come back.
        let row = sqlx::query(
            "INSERT INTO workload_tokens (mark, thumbprint, expires_at) VALUES ($1, $2, $3)
             ON CONFLICT (mark) DO UPDATE SET thumbprint = workload_tokens.thumbprint
             RETURNING thumbprint",
        )
        .bind(mark)
        .bind(thumbprint)
        .bind(expires.as_millisecond())
        .fetch_one(&self.pool)
        .await?;
        let first: String = row.try_get("thumbprint")?;
        Ok(first == thumbprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SubjectKind;

    /// A database of a version before jobs, with a person's grant in it: of the one just before in
    /// number, and of one that knew later things already.
    #[tokio::test]
    async fn grants_from_before_are_peoples() {
        from_before(|version| version < 5).await;
        from_before(|version| version != 5).await;
    }

    async fn from_before(had: fn(i64) -> bool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mcpx.db");
        let url = format!("sqlite://{}?mode=rwc", path.display());
        let old = sqlx::SqlitePool::connect(&url).await.unwrap();
        let before = crate::store::migrations().into_iter().filter(|one| had(one.version));
        sqlx::migrate::Migrator::with_migrations(before.collect()).run(&old).await.unwrap();
        for sql in [
            "INSERT INTO subjects VALUES ('sub_0000000000000001', 'i', 's', NULL, 1)",
            "INSERT INTO grants (id, session, subject, connection, groups, thumbprint, issued_at,
                                 expires_at, ends_at)
             VALUES ('gr_0000000000000001', 'ses_0000000000000001', 'sub_0000000000000001', 'crm',
                     '[]', 'key', 1, 2, 3)",
        ] {
            sqlx::query(sql).execute(&old).await.unwrap();
        }
        old.close().await;
        let store = Store::open(&path).await.unwrap();
        let id = "gr_0000000000000001".parse().unwrap();
        let mut grant = store.grant(&id).await.unwrap().unwrap();
        assert_eq!(grant.subject.kind, SubjectKind::Person);
        // And a job's stays a job's.
        grant.subject.kind = SubjectKind::Workload { rule: "deploy".to_owned() };
        grant.id = "gr_0000000000000002".parse().unwrap();
        grant.session = "ses_0000000000000002".parse().unwrap();
        store.insert_grant(&grant).await.unwrap();
        let read = store.grant(&grant.id).await.unwrap().unwrap();
        assert_eq!(read.subject.kind.rule(), Some("deploy"));
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[tokio::test]
    async fn the_first_key_keeps_a_token_until_it_expires() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mcpx.db");
        let store = Store::open(&path).await.unwrap();
        let used = async |store: &Store, mark: u8, key: &str, now: i64| {
            store.bind_workload_token(&[mark; 32], key, at(100), at(now)).await.unwrap()
        };
        assert!(used(&store, 1, "mine", 10).await);
        assert!(used(&store, 1, "mine", 11).await, "a job exchanges its token again");
        assert!(!used(&store, 1, "theirs", 12).await);
        assert!(used(&store, 2, "theirs", 13).await);
        // A restart forgets nothing.
        drop(store);
        let store = Store::open(&path).await.unwrap();
        assert!(!used(&store, 1, "theirs", 14).await);
        assert!(used(&store, 1, "theirs", 101).await, "an expired token is nobody's any more");
    }
}
