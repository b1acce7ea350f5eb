//! How often a user's password may be guessed.
//!
//! An attempt is counted before the password is checked, so that many at once gain nothing; a
//! right password clears the count. Names that belong to nobody are counted alike, or the limit
//! would tell who exists.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Attempts in one window.
const ATTEMPTS: u32 = 10;
/// The window, in seconds, from the first attempt in it.
const WINDOW: i64 = 15 * 60;
/// Names that are counted at one time; past it, all further names share one count.
const NAMES: usize = 10_000;

#[derive(Default)]
pub(super) struct Limits {
    counts: Mutex<HashMap<String, Count>>,
}

struct Count {
    since: i64,
    attempts: u32,
}

impl Limits {
    /// Counts an attempt. `Err` holds the seconds until the next is allowed.
    pub(super) fn attempt(&self, name: &str, now: i64) -> Result<(), i64> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= NAMES {
            counts.retain(|_, count| now - count.since < WINDOW);
        }
        let name = if counts.len() >= NAMES && !counts.contains_key(name) { "" } else { name };
        let count = counts.entry(name.to_owned()).or_insert(Count { since: now, attempts: 0 });
        if now - count.since >= WINDOW {
            *count = Count { since: now, attempts: 0 };
        }
        if count.attempts >= ATTEMPTS {
            return Err(count.since + WINDOW - now);
        }
        count.attempts += 1;
        Ok(())
    }

    /// Forgets a user's attempts: the password was right.
    pub(super) fn clear(&self, name: &str) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_guessing_and_lets_go() {
        let limits = Limits::default();
        for n in 0..ATTEMPTS {
            assert_eq!(limits.attempt("alice", 1000 + i64::from(n)), Ok(()));
        }
        assert_eq!(limits.attempt("alice", 1100), Err(WINDOW - 100));
        assert_eq!(limits.attempt("bob", 1100), Ok(()));
        assert_eq!(limits.attempt("alice", 1000 + WINDOW), Ok(()));
    }

    #[test]
    fn a_right_password_clears() {
        let limits = Limits::default();
        for n in 0..ATTEMPTS * 3 {
            assert_eq!(limits.attempt("alice", i64::from(n)), Ok(()));
            limits.clear("alice");
        }
    }

    #[test]
    fn a_flood_of_names_is_bounded() {
        let limits = Limits::default();
        for n in 0..NAMES * 2 {
            limits.attempt(&format!("u{n}"), 1000).ok();
        }
        assert!(limits.counts.lock().unwrap().len() <= NAMES + 1);
        assert!(limits.attempt("yet-another", 1000).is_err());
        assert_eq!(limits.attempt("u1", 1000), Ok(()), "known names keep their own count");
    }
}
