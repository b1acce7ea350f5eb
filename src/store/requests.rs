//! Requests for grants, which are approvals of a kind of their own: found by who asks for what.

use sqlx::Row as _;

use super::approvals::{ApprovalRow, read};
use super::grants::Which;
use super::{Store, StoreError, parsed};
use crate::types::{ApprovalId, ConnectionName, GrantId, SubjectId, Timestamp};

impl Store {
    /// The open requests of a subject for a new grant on a connection, the newest first: pending,
    /// or approved and not used yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_requests(
        &self,
        subject: &SubjectId,
        connection: &ConnectionName,
        now: Timestamp,
    ) -> Result<Vec<ApprovalRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM approvals
             WHERE subject = $1 AND connection = $2 AND wanted IS NOT NULL AND extends IS NULL
               AND state IN ('pending', 'approved') AND expires_at > $3
             ORDER BY requested_at DESC",
        )
        .bind(subject.as_str())
        .bind(connection.as_str())
        .bind(now.as_millisecond())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// The open requests for grants, the newest first; of one subject only, if given.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn requests(
        &self,
        of: Option<&SubjectId>,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<ApprovalRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM approvals
             WHERE wanted IS NOT NULL AND ($1 IS NULL OR subject = $1)
               AND state IN ('pending', 'approved') AND expires_at > $2
             ORDER BY requested_at DESC LIMIT $3",
        )
        .bind(of.map(SubjectId::as_str))
        .bind(now.as_millisecond())
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// A yes to let a grant live longer that has not been used yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn yes_to_extend(
        &self,
        grant: &GrantId,
        now: Timestamp,
    ) -> Result<Option<ApprovalRow>, StoreError> {
        let row = sqlx::query(
            "SELECT * FROM approvals
             WHERE extends = $1 AND state = 'approved' AND expires_at > $2
             ORDER BY requested_at LIMIT 1",
        )
        .bind(grant.as_str())
        .bind(now.as_millisecond())
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// The open requests that a revocation takes with it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn requests_to_void(&self, which: &Which) -> Result<Vec<ApprovalId>, StoreError> {
        let (meant, value) = match which {
            // The request that it came of is used up.
            Which::Grant(id) => ("a.extends = $1", id.as_str()),
            Which::Subject(who) => {
                ("(s.id = $1 OR s.email = $1 COLLATE NOCASE OR s.sub = $1)", &**who)
            }
            Which::Connection(name) => ("a.connection = $1", name.as_str()),
            Which::Group(name) => {
                ("EXISTS (SELECT 1 FROM json_each(a.wanted, '$.groups') WHERE value = $1)", &**name)
            }
        };
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT a.id FROM approvals a JOIN subjects s ON s.id = a.subject
             WHERE a.wanted IS NOT NULL AND a.state IN ('pending', 'approved') AND {meant}"
        ));
        let rows = sqlx::query(sql).bind(value).fetch_all(&self.pool).await?;
        rows.iter().map(|row| parsed(row.try_get("id")?, "approval id")).collect()
    }
}

#[cfg(test)]
mod tests {
    use sqlx::migrate::Migrator;

    use super::super::{Store, migrations};
    use crate::store::approvals::ApprovalState;
    use crate::store::grants::Which;
    use crate::types::Timestamp;

    /// What a version before grants on a yes has written is read as what it was.
    #[tokio::test]
    async fn old_rows_stay_readable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mcpx.db");
        let options =
            sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
        let old: Vec<_> = migrations().into_iter().filter(|each| each.version < 5).collect();
        Migrator::with_migrations(old).run(&pool).await.unwrap();
        for statement in [
            "INSERT INTO subjects VALUES ('sub_0000000000000000', 'https://i', 'a', 'A@b.c', 1)",
            "INSERT INTO subjects VALUES ('sub_0000000000000001', 'https://i', 'b', NULL, 1)",
            "INSERT INTO grants VALUES ('gr_0000000000000000', 'ses_0000000000000000',
             'sub_0000000000000000', 'crm', '[\"eng\"]', 'key', NULL, 1, 5000, 9000, NULL, NULL)",
            "INSERT INTO approvals VALUES ('apr_0000000000000000', 'bound', 'call_0000000000000000',
             'ses_0000000000000000', 'sub_0000000000000000', 'crm', 'tools/call', 'export', '{}',
             'r', '[\"leads\"]', 1, 9000, 'approved', 'sub_0000000000000001', 2, 'ok', NULL)",
        ] {
            sqlx::query(statement).execute(&pool).await.unwrap();
        }
        pool.close().await;

        let store = Store::open(&path).await.unwrap();
        let now = Timestamp::from_millisecond(1000).unwrap();
        let approval = store.open_approval("bound", now).await.unwrap().unwrap();
        assert_eq!((approval.state, approval.wanted), (ApprovalState::Approved, None));
        assert_eq!(approval.call.unwrap().as_str(), "call_0000000000000000");
        let subject = approval.subject;
        let crm = "crm".parse().unwrap();
        assert!(store.open_requests(&subject, &crm, now).await.unwrap().is_empty());
        let crm_requests = store.requests_to_void(&Which::Connection(crm.clone())).await;
        assert!(crm_requests.unwrap().is_empty(), "a call's approval is no request");
        let grant = store.grant(&"gr_0000000000000000".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!((grant.scope.tools(), &grant.approval, &grant.ended_by), (None, &None, &None));

        // And what is meant by a name is found, and nothing else.
        let found = async |which: Which, at| store.live_grants(&which, at).await.unwrap().len();
        for (which, count) in [
            (Which::Grant(grant.id.clone()), 1),
            (Which::Subject("a@B.c".to_owned()), 1),
            (Which::Subject("a".to_owned()), 1),
            (Which::Subject("b".to_owned()), 0),
            (Which::Connection(crm), 1),
            (Which::Connection("erp".parse().unwrap()), 0),
            (Which::Group("eng".to_owned()), 1),
            (Which::Group("en".to_owned()), 0),
        ] {
            assert_eq!(found(which.clone(), now).await, count, "{which:?}");
            let late = Timestamp::from_millisecond(5000).unwrap();
            assert_eq!(found(which.clone(), late).await, 0, "{which:?}: it is over");
        }
        store.end_grants(&[&grant.id], Err("policy_denied"), now).await.unwrap();
        assert_eq!(found(Which::Grant(grant.id.clone()), now).await, 0);
        let ended = store.grant(&grant.id).await.unwrap().unwrap();
        assert_eq!(ended.ended_by.as_deref(), Some("policy_denied"));
    }
}
