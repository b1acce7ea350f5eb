//! An identity token that says what the issuer says now, and not what it said an hour ago: what a
//! grant is renewed with, so that somebody who has left, or has left a group, is out with it.

use std::sync::Arc;

use super::{Login, LoginError, Shared};
use crate::broker::credentials::Tokens;
use crate::types::Secret;

impl Login {
    /// An identity token that was obtained at most `age` seconds ago, renewed by one process for
    /// all; an older one where the issuer is not reached, or gives nothing to renew it with.
    pub(super) async fn recent(&self, age: i64) -> Result<Secret, LoginError> {
        let shared = &self.shared;
        if let Some(token) = shared.seen_recently(age) {
            return Ok(token);
        }
        // A task of its own, as every renewal.
        let worker = Arc::clone(shared);
        let work = tokio::spawn(async move { worker.renew_older(age).await });
        work.await.unwrap_or_else(|_| {
            Err(LoginError::LoginNeeded { why: "the renewal was interrupted".to_owned() })
        })
    }
}

impl Shared {
    async fn renew_older(&self, age: i64) -> Result<Secret, LoginError> {
        let lock = self.home.lock().await?;
        // Whoever had the lock before may have done it already.
        let tokens = self.stored().await?;
        if tokens.is_recent(age, self.now()) {
            return Ok(tokens.id_token.clone());
        }
        let Some(refresh_token) = tokens.refresh_token.as_ref() else {
            drop(lock);
            return self.renew().await;
        };
        match self.refresh(&tokens, refresh_token).await {
            Err(error) if error.is_retryable() && tokens.is_fresh(self.now()) => {
                tracing::warn!(%error, "the identity token could not be renewed yet");
                Ok(tokens.id_token.clone())
            }
            Err(error) if error.needs_login() => {
                // The login is over, and so is what it gave: the identity token is signed still, but
                // the issuer does not stand by it any more.
                let tokens = Tokens { expires: self.now(), ..tokens };
                self.store.save(tokens.clone()).await?;
                self.remember(tokens);
                Err(error)
            }
            result => result,
        }
    }

    fn seen_recently(&self, age: i64) -> Option<Secret> {
        let seen = self.seen.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let recent = seen.as_ref().filter(|tokens| tokens.is_recent(age, self.now()));
        recent.map(|tokens| tokens.id_token.clone())
    }
}

impl Tokens {
    fn is_recent(&self, age: i64, now: i64) -> bool {
        self.is_fresh(now) && now.saturating_sub(self.obtained) <= age
    }
}
