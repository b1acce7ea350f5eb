//! Keeping what had to be fetched: for a bounded time, fetched once for all who wait.
//!
//! What is kept is used until its bound and never after it, whatever becomes of the source. In the
//! time before the bound it is fetched anew behind the backs of those who use it, so that a source
//! that is away for a while is noticed in the log first and by callers only when the bound comes.
//! Reading what is kept takes no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

/// After a fetch that failed, those who come within this time are told of that failure: a source
/// that hangs is not asked by one caller after the other.
const PAUSE: Duration = Duration::from_secs(1);
/// How long after a failure behind the callers' backs the next attempt there is made.
const AGAIN: Duration = Duration::from_secs(5);
/// How often a refusal elsewhere may make us fetch what is still good by our own clock.
const BETWEEN: Duration = Duration::from_secs(10);

/// How long a fetched value may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// From when on it is fetched anew in time; none if never.
    pub soft: Option<Duration>,
    /// From when on it may not be used.
    pub hard: Option<Duration>,
}

impl Life {
    /// For what cannot change.
    pub const FOREVER: Self = Self { soft: None, hard: None };

    /// Good for a time, and fetched anew from its half on.
    pub fn bounded(hard: Duration) -> Self {
        Self { soft: Some(hard / 2), hard: Some(hard) }
    }
}

/// A fetch under way. Boxed, since what fetches a secret may need another one first.
pub type Fetched<'a, F> = BoxFuture<'a, Result<(<F as Fetch>::Value, Life), <F as Fetch>::Error>>;

/// What fetches a value.
pub trait Fetch: Send + Sync + 'static {
    /// What is fetched.
    type Value: Clone + Send + Sync;
    /// Why it could not be.
    type Error: Clone + std::fmt::Display + Send + Sync;

    /// Fetches it. `anew` means that what was fetched before is refused by whom it is for.
    fn fetch(&self, anew: bool) -> Fetched<'_, Self>;

    /// Whether two values are the same.
    fn same(one: &Self::Value, other: &Self::Value) -> bool;

    /// Whether an error means that what is kept is void as well.
    fn voids(_error: &Self::Error) -> bool {
        false
    }

    /// What to call it in the server's log.
    fn name(&self) -> &str;
}

/// A value that is fetched and kept.
pub struct Kept<F: Fetch> {
    fetch: F,
    held: ArcSwapOption<Held<F::Value>>,
    turn: Mutex<Turn<F::Error>>,
    behind: AtomicBool,
}

struct Held<T> {
    value: T,
    soft: Option<Instant>,
    hard: Option<Instant>,
}

impl<T> Held<T> {
    fn is_good(&self, now: Instant) -> bool {
        self.hard.is_none_or(|hard| now < hard)
    }
}

/// Whoever holds this fetches.
struct Turn<E> {
    failed: Option<(Instant, E)>,
    forced: Option<Instant>,
}

impl<F: Fetch> std::fmt::Debug for Kept<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("name", &self.fetch.name()).finish_non_exhaustive()
    }
}

impl<F: Fetch> Kept<F> {
    /// Keeps what `fetch` fetches. Nothing is fetched before it is needed.
    pub fn new(fetch: F) -> Arc<Self> {
        Arc::new(Self {
            fetch,
            held: ArcSwapOption::empty(),
            turn: Mutex::new(Turn { failed: None, forced: None }),
            behind: AtomicBool::new(false),
        })
    }

    /// What fetches it.
    pub fn fetcher(&self) -> &F {
        &self.fetch
    }

    /// Whether there is a value that may be used.
    pub fn is_good(&self) -> bool {
        self.held.load().as_ref().is_some_and(|held| held.is_good(Instant::now()))
    }

    /// The value: what is kept, or else fetched.
    ///
    /// # Errors
    /// What the fetch says. Nothing that is past its bound is given out in its place.
    pub async fn get(self: &Arc<Self>) -> Result<F::Value, F::Error> {
        if let Some(held) = self.held.load().as_ref() {
            let now = Instant::now();
            if held.is_good(now) {
                if held.soft.is_some_and(|soft| now >= soft) {
                    self.fetch_behind();
                }
                return Ok(held.value.clone());
            }
        }
        let mut turn = self.turn.lock().await;
        // Somebody else may have fetched it, or have failed to, while this one waited.
        if let Some(held) = self.held.load().as_ref()
            && held.is_good(Instant::now())
        {
            return Ok(held.value.clone());
        }
        if let Some((at, error)) = &turn.failed
            && at.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        self.fetch_now(&mut turn, false).await
    }

    /// Fetches the value anew because `used` was refused, though not more often than every ten
    /// seconds. Says whether there is another one now.
    pub async fn renew(&self, used: &F::Value) -> bool {
        let mut turn = self.turn.lock().await;
        if let Some(held) = self.held.load().as_ref()
            && !F::same(&held.value, used)
        {
            return held.is_good(Instant::now());
        }
        if turn.forced.is_some_and(|at| at.elapsed() < BETWEEN) {
            return false;
        }
        turn.forced = Some(Instant::now());
        match self.fetch_now(&mut turn, true).await {
            Ok(value) => !F::same(&value, used),
            Err(error) => {
                tracing::warn!(name = self.fetch.name(), %error, "a refused secret cannot be renewed");
                false
            }
        }
    }

    async fn fetch_now(&self, turn: &mut Turn<F::Error>, anew: bool) -> Result<F::Value, F::Error> {
        // Counted from before: a value is never older than its bound.
        let asked = Instant::now();
        match self.fetch.fetch(anew).await {
            Ok((value, life)) => {
                let at = |after: Option<Duration>| after.and_then(|after| asked.checked_add(after));
                let (soft, hard) = (at(life.soft), at(life.hard));
                self.held.store(Some(Arc::new(Held { value: value.clone(), soft, hard })));
                turn.failed = None;
                Ok(value)
            }
            Err(error) => {
                if F::voids(&error) {
                    self.held.store(None);
                }
                turn.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Fetches it anew while what is kept goes on being used; one at a time.
    fn fetch_behind(self: &Arc<Self>) {
        if self.behind.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let fetched = this.fetch_now(&mut *this.turn.lock().await, false).await;
            if let Err(error) = fetched {
                let name = this.fetch.name();
                tracing::warn!(name, %error, "a secret cannot be fetched anew; the one there is goes on being used until its time is over");
                tokio::time::sleep(AGAIN).await;
            }
            this.behind.store(false, Ordering::Release);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Gives the number of the fetch, or fails while told to.
    struct Counter {
        fetched: AtomicUsize,
        fails: AtomicBool,
        fixed: AtomicBool,
        life: Life,
    }

    impl Fetch for Counter {
        type Value = usize;
        type Error = String;

        fn fetch(&self, _anew: bool) -> Fetched<'_, Self> {
            Box::pin(self.count())
        }

        fn same(one: &usize, other: &usize) -> bool {
            one == other
        }

        fn name(&self) -> &'static str {
            "counter"
        }
    }

    impl Counter {
        async fn count(&self) -> Result<(usize, Life), String> {
            let number = self.fetched.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
            if self.fails.load(Ordering::SeqCst) {
                return Err(format!("failure {number}"));
            }
            let value = if self.fixed.load(Ordering::SeqCst) { 7 } else { number };
            Ok((value, self.life))
        }
    }

    fn counter(life: Life) -> Arc<Kept<Counter>> {
        let (fetched, fails, fixed) = (0.into(), false.into(), false.into());
        Kept::new(Counter { fetched, fails, fixed, life })
    }

    fn hard(milliseconds: u64) -> Life {
        Life { soft: None, hard: Some(Duration::from_millis(milliseconds)) }
    }

    #[tokio::test]
    async fn many_who_wait_cost_one_fetch() {
        let kept = counter(Life::FOREVER);
        let all = (0..32).map(|_| {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move { kept.get().await })
        });
        for one in futures_util::future::join_all(all).await {
            assert_eq!(one.unwrap().unwrap(), 1);
        }
        assert_eq!(kept.fetch.fetched.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn many_who_wait_for_a_failure_cost_one_fetch_too() {
        let kept = counter(Life::FOREVER);
        kept.fetch.fails.store(true, Ordering::SeqCst);
        let all = futures_util::future::join_all((0..32).map(|_| kept.get())).await;
        assert!(all.iter().all(|one| one == &Err("failure 1".to_owned())), "{all:?}");
        assert_eq!(kept.get().await, Err("failure 1".to_owned()));
        // And the failure is not told for ever.
        kept.fetch.fails.store(false, Ordering::SeqCst);
        tokio::time::sleep(PAUSE).await;
        assert_eq!(kept.get().await, Ok(2));
    }

    #[tokio::test]
    async fn nothing_is_given_out_after_its_bound() {
        let kept = counter(hard(100));
        assert_eq!(kept.get().await, Ok(1));
        kept.fetch.fails.store(true, Ordering::SeqCst);
        assert_eq!(kept.get().await, Ok(1));
        tokio::time::sleep(Duration::from_millis(120)).await;
        assert!(kept.get().await.is_err());
    }

    #[tokio::test]
    async fn it_is_fetched_anew_before_its_bound_without_a_wait() {
        let kept = counter(Life {
            soft: Some(Duration::from_millis(50)),
            hard: Some(Duration::from_secs(60)),
        });
        assert_eq!(kept.get().await, Ok(1));
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(kept.get().await, Ok(1), "it waited");
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert_eq!(kept.get().await, Ok(2), "it was not fetched anew");
    }

    #[tokio::test]
    async fn a_refused_value_is_renewed_once_in_a_while() {
        let kept = counter(Life::FOREVER);
        assert_eq!(kept.get().await, Ok(1));
        // Two calls met the refusal; one fetch serves both.
        let (one, two) = tokio::join!(kept.renew(&1), kept.renew(&1));
        assert!(one && two);
        assert_eq!(kept.get().await, Ok(2));
        assert!(!kept.renew(&2).await, "it may be renewed without end");
        assert_eq!(kept.fetch.fetched.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn the_same_value_again_is_no_other_value() {
        let kept = counter(Life::FOREVER);
        kept.fetch.fixed.store(true, Ordering::SeqCst);
        assert_eq!(kept.get().await, Ok(7));
        assert!(!kept.renew(&7).await);
        kept.fetch.fails.store(true, Ordering::SeqCst);
        assert!(!kept.renew(&7).await);
        assert_eq!(kept.get().await, Ok(7));
    }
}
