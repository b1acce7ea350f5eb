//! Tokens that a user agreed to themselves: the authorization code grant (RFC 6749, 4.1) with PKCE
//! (RFC 7636), and the refresh token that comes of it.
//!
//! Nobody but this server ever holds the tokens. What is agreed to is kept sealed by [`Consents`],
//! which `control` implements. A refresh token that is replaced by another is on disk before the
//! access token that came with it is used, and one that the authorization server refuses is
//! forgotten: the user has to agree again.
//!
//! What a user takes back, or agrees to anew, while a refresh is under way stays as the user left
//! it: a refresh replaces only what it was made from. What one user agreed to for one connection is
//! used and changed by one at a time ([`Turns`]), since many authorization servers take a refresh
//! token that comes twice for a stolen one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use reqwest::Url;
use tokio::sync::OwnedMutexGuard;

use super::Life;
use crate::types::{Clock as _, ConnectionName, Secret, SubjectId, SystemClock};
use crate::upstream::token::{Given, TokenEndpoint, TokenError, life};

/// How long a kept access token must still live to be used, if there is a way to another: longer
/// than before its end another one is asked for.
const WORTH: i64 = 90;
/// How many consents may be in use at a time.
const TURNS: usize = 10_000;
/// How often a consent that changes while it is used is looked at again.
const ROUNDS: usize = 3;

/// What a user has agreed to.
pub struct Consent {
    /// What further tokens are got with.
    pub refresh: Option<Secret>,
    /// The newest access token.
    pub access: Secret,
    /// When that one ends, in seconds since 1970.
    pub until: i64,
}

/// Which consent was loaded: no two that are kept have the same.
pub struct Seen(pub String);

/// Where consents to one connection are kept.
pub trait Consents: Send + Sync {
    /// Waits until nobody else uses or changes what a subject agreed to.
    fn turn<'a>(&'a self, subject: &'a SubjectId) -> BoxFuture<'a, Result<Turn, ConsentError>>;

    /// What a subject agreed to.
    fn load<'a>(
        &'a self,
        subject: &'a SubjectId,
    ) -> BoxFuture<'a, Result<Option<(Consent, Seen)>, ConsentError>>;

    /// Keeps another one in place of the one seen, durably; if that is not there any more, nothing
    /// changes. Says whether it was.
    fn replace<'a>(
        &'a self,
        subject: &'a SubjectId,
        seen: &'a Seen,
        consent: &'a Consent,
    ) -> BoxFuture<'a, Result<bool, ConsentError>>;

    /// Forgets the one seen, and no other. Says whether it was still there.
    fn void<'a>(
        &'a self,
        subject: &'a SubjectId,
        seen: &'a Seen,
    ) -> BoxFuture<'a, Result<bool, ConsentError>>;
}

/// Whoever has this uses or changes a consent.
pub struct Turn(#[expect(dead_code, reason = "held, not read")] OwnedMutexGuard<()>);

type Using = HashMap<(SubjectId, ConnectionName), Arc<tokio::sync::Mutex<()>>>;

/// Who uses or changes which consent.
#[derive(Default)]
pub struct Turns(Mutex<Using>);

impl Turns {
    /// Waits for a turn at what a subject agreed to for a connection.
    ///
    /// # Errors
    /// [`ConsentError`] if as many as there may be are in use.
    pub async fn at(
        &self,
        subject: &SubjectId,
        connection: &ConnectionName,
    ) -> Result<Turn, ConsentError> {
        let of = (subject.clone(), connection.clone());
        let one = {
            let mut using = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if using.len() >= TURNS && !using.contains_key(&of) {
                // Whoever has a turn or waits for one holds on to it.
                using.retain(|_, one| Arc::strong_count(one) > 1);
                if using.len() >= TURNS {
                    return Err(ConsentError("too many consents are in use".to_owned()));
                }
            }
            Arc::clone(using.entry(of).or_default())
        };
        Ok(Turn(one.lock_owned().await))
    }
}

/// What is kept cannot be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConsentError(pub String);

/// An authorization server that asks users.
pub struct Consenting {
    /// Where tokens are given, and to which client.
    pub endpoint: TokenEndpoint,
    /// Where users are asked.
    pub authorization: Url,
    /// Its own name for itself, which it may repeat (RFC 9207).
    pub issuer: Option<String>,
    /// The MCP server, as it knows it (RFC 8707).
    pub resource: Option<String>,
    /// What is asked for.
    pub scope: Option<String>,
}

impl Consenting {
    pub(super) fn name(&self) -> String {
        format!("authorization-code of {}", self.endpoint.client_id())
    }

    /// The address at which the user is asked.
    pub fn address(&self, redirect_uri: &str, state: &str, challenge: &str) -> Url {
        let mut url = self.authorization.clone();
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("response_type", "code");
            query.append_pair("client_id", self.endpoint.client_id());
            query.append_pair("redirect_uri", redirect_uri);
            query.append_pair("state", state);
            query.append_pair("code_challenge", challenge);
            query.append_pair("code_challenge_method", "S256");
            for (name, value) in [("scope", &self.scope), ("resource", &self.resource)] {
                if let Some(value) = value {
                    query.append_pair(name, value);
                }
            }
        }
        url
    }

    /// What the code that the user was given is good for.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn finish(
        &self,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
    ) -> Result<Consent, TokenError> {
        let mut grant = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ];
        grant.extend(self.resource.as_deref().map(|resource| ("resource", resource)));
        let given = self.endpoint.ask_for(&grant).await?;
        Ok(consent(given, None))
    }

    pub(super) async fn token(
        &self,
        subject: &SubjectId,
        consents: &dyn Consents,
        mut anew: bool,
    ) -> Result<(Secret, Life), TokenError> {
        let unkept = |ConsentError(why)| TokenError::Unavailable(format!("is not asked: {why}"));
        let _turn = consents.turn(subject).await.map_err(unkept)?;
        for _ in 0..ROUNDS {
            let loaded = consents.load(subject).await.map_err(unkept)?;
            let (kept, seen) = loaded.ok_or(TokenError::NoConsent)?;
            let left = kept.until - SystemClock.now_seconds();
            let enough = if kept.refresh.is_some() { WORTH } else { 0 };
            if !anew && left > enough {
                let left = std::time::Duration::from_secs(u64::try_from(left).unwrap_or(0));
                return Ok((kept.access, life(Some(left))));
            }
            let Some(refresh) = kept.refresh else { return Err(TokenError::NoConsent) };
            let given = self.refreshed(&refresh).await;
            if let Err(TokenError::Refused { code: "invalid_grant", .. }) = given {
                if consents.void(subject, &seen).await.map_err(unkept)? {
                    return Err(TokenError::NoConsent);
                }
            } else {
                let given = given?;
                let life = given.life;
                let next = consent(given, Some(refresh));
                if consents.replace(subject, &seen, &next).await.map_err(unkept)? {
                    return Ok((next.access, life));
                }
            }
            // It was taken back meanwhile, or there is a newer one, which nobody has refused yet.
            anew = false;
        }
        Err(unkept(ConsentError("what was agreed to changes all the time".to_owned())))
    }

    async fn refreshed(&self, refresh: &Secret) -> Result<Given, TokenError> {
        let mut grant = vec![("grant_type", "refresh_token"), ("refresh_token", refresh.expose())];
        grant.extend(self.resource.as_deref().map(|resource| ("resource", resource)));
        self.endpoint.ask_for(&grant).await
    }
}

fn consent(given: Given, before: Option<Secret>) -> Consent {
    let hard = given.life.hard.unwrap_or_default().as_secs();
    let until = SystemClock.now_seconds().saturating_add_unsigned(hard);
    Consent { refresh: given.refresh.or(before), access: given.token, until }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_are_bounded_and_those_in_use_stay() {
        let turns = Turns::default();
        let crm: ConnectionName = "crm".parse().unwrap();
        let alice = SubjectId::generate().unwrap();
        let used = turns.at(&alice, &crm).await.unwrap();
        for _ in 0..TURNS + 9 {
            drop(turns.at(&SubjectId::generate().unwrap(), &crm).await.unwrap());
        }
        assert!(turns.0.lock().unwrap().len() <= TURNS);
        let again = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(again, turns.at(&alice, &crm)).await.is_err());
        let other = "other".parse().unwrap();
        assert!(tokio::time::timeout(again, turns.at(&alice, &other)).await.is_ok());
        drop(used);
        assert!(tokio::time::timeout(again, turns.at(&alice, &crm)).await.is_ok());
        let mut all = Vec::new();
        for _ in 0..TURNS {
            all.push(turns.at(&SubjectId::generate().unwrap(), &crm).await.unwrap());
        }
        assert!(turns.at(&alice, &crm).await.is_err());
    }
}
