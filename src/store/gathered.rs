//! New grants, written together: a transaction waits for the disk, so those that come while one is
//! under way share the next. Nobody waits for a timer, and nobody hears of success before the disk
//! has it.

use sqlx::SqlitePool;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::grants::{self, GrantRow};

/// Grants of one transaction at most.
const MOST: usize = 256;

/// Where new grants are brought. Clones share one line.
#[derive(Clone, Debug)]
pub(super) struct Gathered {
    line: mpsc::Sender<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    grant: GrantRow,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

impl Gathered {
    /// Begins to write what is brought. It ends with the last clone.
    pub(super) fn start(pool: SqlitePool) -> Self {
        let (line, mut waiting) = mpsc::channel::<Waiting>(MOST);
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while waiting.recv_many(&mut batch, MOST).await > 0 {
                if let Err(error) = together(&pool, &batch).await {
                    // One that cannot be written must not take the others with it.
                    tracing::debug!(%error, grants = batch.len(), "grants are written one by one");
                    for Waiting { grant, answer } in batch.drain(..) {
                        drop(answer.send(alone(&pool, &grant).await));
                    }
                }
                for Waiting { answer, .. } in batch.drain(..) {
                    drop(answer.send(Ok(())));
                }
            }
        });
        Self { line }
    }

    /// Writes one grant, with others perhaps.
    pub(super) async fn insert(&self, grant: &GrantRow) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        let closed = || StoreError::Query(sqlx::Error::PoolClosed);
        let waiting = Waiting { grant: grant.clone(), answer };
        self.line.send(waiting).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

/// All or none of them.
async fn together(pool: &SqlitePool, batch: &[Waiting]) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    for Waiting { grant, .. } in batch {
        grants::insert(&mut transaction, grant).await?;
    }
    transaction.commit().await?;
    Ok(())
}

async fn alone(pool: &SqlitePool, grant: &GrantRow) -> Result<(), StoreError> {
    grants::insert(&mut *pool.acquire().await?, grant).await
}

#[cfg(test)]
mod tests {
    use crate::store::Store;
    use crate::store::grants::GrantRow;
    use crate::types::{GrantId, Identity, SessionId, Timestamp};

    #[tokio::test]
    async fn one_that_cannot_be_written_takes_no_other_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("mcpx.db")).await.unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let identity =
            Identity { issuer: "i".into(), sub: "s".into(), email: None, groups: vec![] };
        let subject = store.subject(identity, now).await.unwrap();
        let grant = || GrantRow {
            id: GrantId::generate().unwrap(),
            session: SessionId::generate().unwrap(),
            subject: subject.clone(),
            connection: "crm".parse().unwrap(),
            thumbprint: "k".to_owned(),
            reason: None,
            issued_at: now,
            expires_at: now,
            ends_at: now,
            revoked_at: None,
            ended_by: None,
            scope: Default::default(),
            approval: None,
            approver: None,
        };
        let mut grants: Vec<_> = (0..40).map(|_| grant()).collect();
        // A session has one grant.
        grants[7].session = grants[3].session.clone();
        let written = grants.iter().map(|grant| store.insert_grant(grant));
        let written = futures_util::future::join_all(written).await;
        let refused: Vec<_> = (0..40).filter(|number| written[*number].is_err()).collect();
        assert_eq!(refused, [7]);
        for (number, row) in grants.iter().enumerate() {
            assert_eq!(store.grant(&row.id).await.unwrap().is_some(), number != 7, "{number}");
        }
    }
}
