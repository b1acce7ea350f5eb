//! Which proofs were used already.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest;

use super::head::Heads;
use super::nonce::Nonces;
use super::{DpopError, Thumbprint, WINDOW};

const SHARDS: usize = 16;

/// Remembers every accepted proof for as long as it could be accepted again.
///
/// Holds a bounded number; past it, proofs are refused rather than forgotten. One cache serves one
/// process: a proof is made for one URL, so several gateways behind one name share the work but
/// not the memory, and a proof replayed within its window at another gateway is seen only there.
pub struct ReplayCache {
    shards: [Mutex<Shard>; SHARDS],
    shard_capacity: usize,
    /// Proofs made before this were perhaps used already, with nobody left who remembers.
    since: i64,
    /// Keys that made good proofs.
    pub(super) heads: Heads,
    nonces: Option<Arc<Nonces>>,
}

/// The first 16 bytes of a hash: 2^64 proofs would be needed for two to meet.
type Mark = [u8; 16];

#[derive(Default)]
struct Shard {
    /// Marks by the minute their `iat` lies in, so that forgetting drops whole minutes.
    minutes: BTreeMap<i64, HashSet<Mark>>,
    held: usize,
}

impl ReplayCache {
    /// A cache for about `capacity` proofs in any three minutes.
    pub fn new(capacity: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            shard_capacity: capacity.div_ceil(SHARDS),
            since: i64::MIN,
            heads: Heads::default(),
            nonces: None,
        }
    }

    /// Asks for a nonce of this server's in each proof.
    #[must_use]
    pub fn with_nonces(self, nonces: Option<Arc<Nonces>>) -> Self {
        Self { nonces, ..self }
    }

    /// The nonce that a proof made now must have, if it must have one.
    pub fn nonce(&self, now: i64) -> Option<String> {
        self.nonces.as_ref().map(|nonces| nonces.current(now))
    }

    pub(super) fn check_nonce(&self, nonce: Option<&str>, now: i64) -> Result<(), DpopError> {
        match &self.nonces {
            Some(nonces) if !nonce.is_some_and(|nonce| nonces.accepts(nonce, now)) => {
                Err(DpopError::Nonce)
            }
            _ => Ok(()),
        }
    }

    /// Refuses proofs made before `since`, the start of this process: what the one before it
    /// accepted is not known here. A client whose clock is behind is refused for as long after a
    /// start as it is behind.
    #[must_use]
    pub fn since(self, since: i64) -> Self {
        Self { since, ..self }
    }

    /// Uses up one proof.
    ///
    /// # Errors
    /// [`DpopError::Replayed`] the second time, [`DpopError::BeforeStart`] when that cannot be
    /// told, [`DpopError::Full`] when it cannot be remembered.
    pub(super) fn use_once(
        &self,
        key: &Thumbprint,
        jti: &str,
        iat: i64,
        now: i64,
    ) -> Result<(), DpopError> {
        if iat < self.since {
            return Err(DpopError::BeforeStart);
        }
        // The thumbprint has a fixed length, so no other pair concatenates to the same text.
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(key.as_str().as_bytes());
        context.update(jti.as_bytes());
        let hash = context.finish();
        let mut mark = Mark::default();
        mark.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        let [first, ..] = mark;
        let Some(shard) = self.shards.get(usize::from(first) % SHARDS) else {
            return Err(DpopError::Full);
        };
        // A panic elsewhere cannot leave a shard half-changed: each change is one insert.
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.forget_before(now.saturating_sub(WINDOW));
        let minute = iat.div_euclid(60);
        if shard.minutes.get(&minute).is_some_and(|marks| marks.contains(&mark)) {
            return Err(DpopError::Replayed);
        }
        if shard.held >= self.shard_capacity {
            return Err(DpopError::Full);
        }
        shard.minutes.entry(minute).or_default().insert(mark);
        shard.held += 1;
        Ok(())
    }
}

impl Default for ReplayCache {
    /// Room for half a million proofs: 2,900 requests a second, for at most some 20 MB.
    fn default() -> Self {
        Self::new(512 * 1024)
    }
}

impl Shard {
    /// Drops minutes of which every proof is too old to be accepted anyway.
    fn forget_before(&mut self, oldest_acceptable: i64) {
        let keep_from = oldest_acceptable.div_euclid(60);
        while let Some(entry) = self.minutes.first_entry() {
            if *entry.key() >= keep_from {
                break;
            }
            self.held = self.held.saturating_sub(entry.remove().len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Thumbprint {
        Thumbprint("k".repeat(43))
    }

    #[test]
    fn once_is_all() {
        let cache = ReplayCache::new(1000);
        for iat in [940, 1000, 1060] {
            assert_eq!(cache.use_once(&key(), "a", iat, 1000), Ok(()), "{iat}");
        }
        assert_eq!(cache.use_once(&key(), "a", 940, 1000), Err(DpopError::Replayed));
        assert_eq!(cache.use_once(&Thumbprint("j".repeat(43)), "a", 1000, 1000), Ok(()));
    }

    #[test]
    fn remembers_to_the_end_of_the_window_then_forgets() {
        let cache = ReplayCache::new(1000);
        // Made a minute ahead of the server's clock: acceptable for two minutes.
        assert_eq!(cache.use_once(&key(), "a", 1060, 1000), Ok(()));
        assert_eq!(cache.use_once(&key(), "a", 1060, 1120), Err(DpopError::Replayed));
        assert_eq!(cache.use_once(&key(), "b", 2000, 2000), Ok(()));
        let held: usize = cache.shards.iter().map(|s| s.lock().unwrap().held).sum();
        assert!(held <= 2);
    }

    #[test]
    fn what_was_used_before_a_restart_is_not_used_again() {
        let cache = ReplayCache::new(1000);
        assert_eq!(cache.use_once(&key(), "a", 1000, 1000), Ok(()));
        let restarted = ReplayCache::new(1000).since(1001);
        assert_eq!(restarted.use_once(&key(), "a", 1000, 1001), Err(DpopError::BeforeStart));
        assert_eq!(restarted.use_once(&key(), "b", 1001, 1001), Ok(()));
    }

    #[test]
    fn full_refuses_and_recovers() {
        let cache = ReplayCache::new(16);
        let refused = (0..200)
            .filter(|n| cache.use_once(&key(), &n.to_string(), 1000, 1000) == Err(DpopError::Full))
            .count();
        assert!(refused >= 200 - 16);
        let later = (0..200)
            .filter(|n| cache.use_once(&key(), &format!("l{n}"), 1200, 1200).is_ok())
            .count();
        assert!(later > 0);
    }
}
