//! How many streams are open, so that one session cannot take all of them.
//!
//! A slot is taken before a call is forwarded, since whether its answer is a stream is known only
//! afterwards: what is refused here never reached a server. It is given back when the answer has
//! ended, also where nobody reads it any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::types::SessionId;

/// Streams that are open, and calls that may become one.
#[derive(Debug)]
pub struct Slots {
    per_session: usize,
    total: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_session: HashMap<SessionId, usize>,
}

/// There is no slot left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The session has as many as a session may have.
    Session {
        /// The bound.
        limit: usize,
    },
    /// All sessions together have.
    All {
        /// The bound.
        limit: usize,
    },
}

/// One slot; dropped, it is free again.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    session: SessionId,
}

impl Slots {
    /// As many slots as each session and all together may have.
    pub fn new(per_session: usize, total: usize) -> Self {
        Self { per_session, total, taken: Mutex::default() }
    }

    /// Takes a slot.
    ///
    /// # Errors
    /// [`Full`].
    pub fn take(self: &Arc<Self>, session: &SessionId) -> Result<Slot, Full> {
        let mut taken = self.lock();
        if taken.all >= self.total {
            return Err(Full::All { limit: self.total });
        }
        let own = taken.by_session.entry(session.clone()).or_default();
        if *own >= self.per_session {
            return Err(Full::Session { limit: self.per_session });
        }
        *own += 1;
        taken.all += 1;
        Ok(Slot { slots: Arc::clone(self), session: session.clone() })
    }

    /// How many a session has taken.
    pub fn open(&self, session: &SessionId) -> usize {
        self.lock().by_session.get(session).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // The counts are consistent after every statement but one, which cannot fail.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.by_session.get_mut(&self.session) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.by_session.remove(&self.session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_and_all_of_them_have_a_bound() {
        let slots = Arc::new(Slots::new(2, 3));
        let [alice, bob] = [SessionId::generate().unwrap(), SessionId::generate().unwrap()];
        let first = slots.take(&alice).unwrap();
        let _second = slots.take(&alice).unwrap();
        assert_eq!(slots.take(&alice).unwrap_err(), Full::Session { limit: 2 });
        assert_eq!((slots.open(&alice), slots.open(&bob)), (2, 0));
        let _third = slots.take(&bob).unwrap();
        assert_eq!(slots.take(&bob).unwrap_err(), Full::All { limit: 3 });
        drop(first);
        let again = slots.take(&alice).unwrap();
        drop((again, _second, _third));
        assert_eq!(slots.lock().all, 0);
        assert!(slots.lock().by_session.is_empty(), "nothing is kept of sessions that are idle");
    }
}
