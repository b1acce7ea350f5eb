//! Where children are started: a seat for each, and a wait for what keeps dying.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::UpstreamError;
use super::backoff::{Backoff, Restart};
use super::child::{Child, For};
use super::launch::Launch;
use super::seats::Seats;
use crate::mcp::Limits;
use crate::types::{SessionId, SubjectId};

/// Whose deaths are counted together: a subject's, or those of a child that all share.
type Owner = Option<SubjectId>;

/// What starting a child takes.
#[derive(Debug)]
pub(super) struct Nursery {
    launch: Launch,
    limits: Limits,
    seats: Seats,
    backoff: Arc<Mutex<Backoff<Owner>>>,
}

impl Nursery {
    pub(super) fn new(launch: Launch, limits: Limits, seats: Seats, restart: Restart) -> Self {
        let backoff = Arc::new(Mutex::new(Backoff::new(restart)));
        Self { launch, limits, seats, backoff }
    }

    /// Starts a child for one session of a subject.
    pub(super) async fn own(
        &self,
        subject: &SubjectId,
        session: &SessionId,
    ) -> Result<Arc<Child>, UpstreamError> {
        self.start(Some(subject.clone()), For::Session(session.clone())).await
    }

    /// Starts a child for everybody.
    pub(super) async fn shared(&self) -> Result<Arc<Child>, UpstreamError> {
        self.start(None, For::All).await
    }

    async fn start(&self, owner: Owner, whom: For) -> Result<Arc<Child>, UpstreamError> {
        lock(&self.backoff).check(&owner, Instant::now()).map_err(|wait| {
            UpstreamError::BackingOff { deaths: wait.deaths, retry_after: wait.left }
        })?;
        let seat = self.seats.take(owner.as_ref())?;
        let backoff = Arc::clone(&self.backoff);
        let whose = owner.clone();
        let died = move |lived| lock(&backoff).died(whose, lived, Instant::now());
        let started = Child::start(&self.launch, self.limits, whom, seat, died).await;
        if matches!(started, Err(UpstreamError::CannotStart { .. })) {
            lock(&self.backoff).died(owner, Duration::ZERO, Instant::now());
        }
        started.map(Arc::new)
    }
}

/// Counts are right after every statement, so poisoned ones are still counts.
fn lock(backoff: &Mutex<Backoff<Owner>>) -> MutexGuard<'_, Backoff<Owner>> {
    backoff.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::upstream::testing::Notes;

    fn nursery(notes: &Notes, script: &str, restart: Restart) -> Nursery {
        Nursery::new(notes.launch(script), Limits::default(), Seats::new(8, 8), restart)
    }

    async fn dead(child: &Child) {
        let gone = async {
            while child.is_running() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), gone).await.expect("it lives");
    }

    #[tokio::test]
    async fn a_child_that_keeps_dying_makes_its_owner_wait_and_nobody_else() {
        let notes = Notes::new();
        let hour = Duration::from_secs(3600);
        let restart = Restart { first: hour, most: hour, steady: hour };
        let nursery = nursery(&notes, "exit 1", restart);
        let (alice, bob) = (SubjectId::generate().unwrap(), SubjectId::generate().unwrap());
        let session = SessionId::generate().unwrap();
        for _ in 0..2 {
            dead(&nursery.own(&alice, &session).await.unwrap()).await;
        }
        let refused = nursery.own(&alice, &session).await.unwrap_err();
        assert!(
            matches!(refused, UpstreamError::BackingOff { deaths: 2, retry_after } if retry_after > hour / 2),
            "{refused}"
        );
        dead(&nursery.own(&bob, &session).await.unwrap()).await;
        dead(&nursery.shared().await.unwrap()).await;
    }

    #[tokio::test]
    async fn one_that_was_asked_to_go_did_not_die() {
        let notes = Notes::new();
        let hour = Duration::from_secs(3600);
        let nursery = nursery(&notes, "read x", Restart { first: hour, most: hour, steady: hour });
        for _ in 0..4 {
            nursery.shared().await.unwrap().end().await;
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_waited_for_as_well() {
        let notes = Notes::new();
        let hour = Duration::from_secs(3600);
        let mut launch = notes.launch("");
        launch.program = "/nonexistent/program".into();
        let restart = Restart { first: hour, most: hour, steady: hour };
        let nursery = Nursery::new(launch, Limits::default(), Seats::new(1, 1), restart);
        for _ in 0..2 {
            let refused = nursery.shared().await.unwrap_err();
            assert!(matches!(refused, UpstreamError::CannotStart { .. }), "{refused}");
        }
        let refused = nursery.shared().await.unwrap_err();
        assert!(matches!(refused, UpstreamError::BackingOff { deaths: 2, .. }), "{refused}");
    }
}
