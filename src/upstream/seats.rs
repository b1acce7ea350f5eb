//! How many children may run, in all and for one subject.
//!
//! A seat is taken before a child is started and is free again when its process is gone, not when
//! it was asked to go: what is counted is what runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::UpstreamError;
use crate::types::SubjectId;

/// The bounds, and who has how many.
#[derive(Clone, Debug)]
pub(super) struct Seats {
    most: usize,
    per_subject: usize,
    taken: Arc<Mutex<HashMap<Option<SubjectId>, usize>>>,
}

/// The right to run one child; free again when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    owner: Option<SubjectId>,
    seats: Seats,
}

impl Seats {
    pub(super) fn new(most: usize, per_subject: usize) -> Self {
        Self { most, per_subject, taken: Arc::default() }
    }

    /// A seat for a subject's child, or with no owner for one that all share.
    pub(super) fn take(&self, owner: Option<&SubjectId>) -> Result<Seat, UpstreamError> {
        let mut taken = self.lock();
        if taken.values().sum::<usize>() >= self.most {
            return Err(UpstreamError::TooManyChildren { limit: self.most });
        }
        let own = taken.entry(owner.cloned()).or_default();
        if owner.is_some() && *own >= self.per_subject {
            return Err(UpstreamError::TooManyOfYours { limit: self.per_subject });
        }
        *own += 1;
        Ok(Seat { owner: owner.cloned(), seats: self.clone() })
    }

    /// A count is right after every statement, so a poisoned one is still a count.
    fn lock(&self) -> MutexGuard<'_, HashMap<Option<SubjectId>, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        if let Some(own) = taken.get_mut(&self.owner) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_subject_cannot_take_all() {
        let seats = Seats::new(3, 2);
        let (alice, bob) = (SubjectId::generate().unwrap(), SubjectId::generate().unwrap());
        let first = seats.take(Some(&alice)).unwrap();
        let _second = seats.take(Some(&alice)).unwrap();
        let refused = seats.take(Some(&alice)).unwrap_err();
        assert!(matches!(refused, UpstreamError::TooManyOfYours { limit: 2 }), "{refused}");
        let bobs = seats.take(Some(&bob)).unwrap();
        let refused = seats.take(Some(&bob)).unwrap_err();
        assert!(matches!(refused, UpstreamError::TooManyChildren { limit: 3 }), "{refused}");
        drop(first);
        let _shared = seats.take(None).unwrap();
        drop(bobs);
        let _again = seats.take(Some(&alice)).unwrap();
        assert_eq!(seats.lock().len(), 2, "who has none is forgotten");
    }
}
