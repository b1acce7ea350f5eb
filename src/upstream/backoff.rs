//! When a child that died may be started again.
//!
//! The first early death costs nothing: the next call starts another child at once. After two in
//! a row each further start waits, twice as long every time, up to a bound. A child that lived for
//! a while forgives what was before, and so does time in which nobody needed one. Pure: what time
//! it is, the caller says.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// How often a child that keeps dying is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// The wait after the second early death in a row.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
    /// A child that lived so long did not die early.
    pub steady: Duration,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            most: Duration::from_secs(30),
            steady: Duration::from_secs(10),
        }
    }
}

impl Restart {
    fn wait(&self, deaths: u32) -> Duration {
        match deaths {
            0 | 1 => Duration::ZERO,
            // 2³² times the first wait is over any bound that makes sense.
            more => self.first.saturating_mul(1 << (more - 2).min(31)).min(self.most),
        }
    }
}

/// A start that has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// How many died early, one after the other.
    pub(super) deaths: u32,
    /// How long from now.
    pub(super) left: Duration,
}

/// The deaths of the children of each owner: somebody whose calls kill the server waits alone.
#[derive(Debug)]
pub(super) struct Backoff<K> {
    restart: Restart,
    deaths: HashMap<K, Deaths>,
}

#[derive(Clone, Copy, Debug)]
struct Deaths {
    in_a_row: u32,
    last: Instant,
}

impl<K: Clone + Eq + Hash> Backoff<K> {
    pub(super) fn new(restart: Restart) -> Self {
        Self { restart, deaths: HashMap::new() }
    }

    /// Whether an owner's child may be started now.
    pub(super) fn check(&self, owner: &K, now: Instant) -> Result<(), Wait> {
        let Some(deaths) = self.deaths.get(owner) else { return Ok(()) };
        let due = deaths.last + self.restart.wait(deaths.in_a_row);
        let left = due.saturating_duration_since(now);
        if left.is_zero() { Ok(()) } else { Err(Wait { deaths: deaths.in_a_row, left }) }
    }

    /// Takes note that a child ended that nobody had asked to, or that could not be started.
    pub(super) fn died(&mut self, owner: K, lived: Duration, now: Instant) {
        let Restart { most, steady, .. } = self.restart;
        // What died so long ago that any wait is over and a steady life more has passed is
        // forgiven, which also bounds the map.
        let forgiven = most.max(steady).saturating_add(steady);
        self.deaths.retain(|_, deaths| now.saturating_duration_since(deaths.last) < forgiven);
        if lived >= steady {
            self.deaths.remove(&owner);
            return;
        }
        let deaths = self.deaths.entry(owner).or_insert(Deaths { in_a_row: 0, last: now });
        deaths.in_a_row = deaths.in_a_row.saturating_add(1);
        deaths.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn backoff() -> Backoff<&'static str> {
        Backoff::new(Restart { first: SECOND, most: 5 * SECOND, steady: 60 * SECOND })
    }

    #[test]
    fn the_wait_doubles_up_to_the_bound() {
        let mut backoff = backoff();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..6 {
            backoff.died("a", SECOND, now);
            let wait = backoff.check(&"a", now).err();
            waits.push(wait.map_or(0, |wait| wait.left.as_secs()));
            assert_eq!(backoff.check(&"b", now), Ok(()), "another owner waits for nobody");
            now += wait.map_or(Duration::ZERO, |wait| wait.left);
            assert_eq!(backoff.check(&"a", now), Ok(()), "the wait is over");
        }
        assert_eq!(waits, [0, 1, 2, 4, 5, 5]);
    }

    #[test]
    fn a_wait_says_what_is_left_of_it() {
        let mut backoff = backoff();
        let now = Instant::now();
        for _ in 0..3 {
            backoff.died("a", SECOND, now);
        }
        let wait = backoff.check(&"a", now + SECOND / 2).unwrap_err();
        assert_eq!(wait, Wait { deaths: 3, left: SECOND * 3 / 2 });
    }

    #[test]
    fn a_steady_life_and_a_long_time_forgive() {
        let mut backoff = backoff();
        let mut now = Instant::now();
        for _ in 0..4 {
            backoff.died("a", SECOND, now);
        }
        now += 70 * SECOND;
        backoff.died("a", 60 * SECOND, now);
        backoff.died("a", SECOND, now);
        assert_eq!(backoff.check(&"a", now), Ok(()), "it ran well in between");

        for _ in 0..4 {
            backoff.died("a", SECOND, now);
        }
        now += 121 * SECOND;
        backoff.died("a", SECOND, now);
        assert_eq!(backoff.check(&"a", now), Ok(()), "that was long ago");
        assert_eq!(backoff.deaths.len(), 1);
    }

    #[test]
    fn the_wait_cannot_overflow() {
        let restart =
            Restart { first: Duration::MAX / 2, most: Duration::MAX, ..Restart::default() };
        assert_eq!(restart.wait(u32::MAX), Duration::MAX);
    }
}
