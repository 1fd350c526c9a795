//! A growing number that tasks wait for: how far the log is durable, how many checkpoints have been
//! made.

use crate::error::PersistenceError;
use crate::sync::{AtomicU64, Mutex, Ordering, Pending};
use std::collections::BTreeMap;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A growing number. Reading it is one load; waiting for it takes a lock.
#[derive(Default)]
pub(crate) struct Progress {
    reached: AtomicU64,
    waiting: Mutex<ProgressWaiters>,
}

#[derive(Default)]
struct ProgressWaiters {
    /// Once this is set, the number does not grow any more.
    failed: Option<PersistenceError>,
    /// Keyed by the number that the task waits for, and an id of its own.
    wakers: BTreeMap<(u64, u64), Waker>,
    last_id: u64,
}

impl Progress {
    pub(crate) fn reached(&self) -> u64 {
        // Acquire: pairs with the stores, so that a thread that reads a number sees everything that
        // happened before it was reached.
        self.reached.load(Ordering::Acquire)
    }

    /// Like [`advance`](Self::advance), where no task can be waiting and no other thread advances the
    /// number.
    pub(crate) fn advance_unwatched(&self, to: u64) {
        self.reached.store(to, Ordering::Release);
    }

    /// Advances the number, and returns the tasks that wait for it.
    pub(crate) fn advance(&self, to: u64) -> Woken {
        let mut waiting = self.waiting.lock();
        if waiting.failed.is_some() || self.reached() >= to {
            return Woken::default();
        }
        // Store under the lock: a task that registers after this sees the new number.
        self.reached.store(to, Ordering::Release);
        if waiting.wakers.is_empty() {
            return Woken::default();
        }
        let later = match to.checked_add(1) {
            Some(next) => waiting.wakers.split_off(&(next, 0)),
            None => BTreeMap::new(),
        };
        Woken(mem::replace(&mut waiting.wakers, later).into_values().collect())
    }

    /// Ends the progress: tasks that wait for more get this error. The first error stays.
    pub(crate) fn fail(&self, error: &PersistenceError) -> Woken {
        let mut waiting = self.waiting.lock();
        waiting.failed.get_or_insert_with(|| error.clone());
        Woken(mem::take(&mut waiting.wakers).into_values().collect())
    }

    /// Waits until the number has reached `target`.
    #[cfg_attr(shuttle, track_caller)]
    pub(crate) fn wait_for(&self, target: u64) -> WaitFor<'_> {
        WaitFor { progress: self, target, id: None, pending: Pending::here() }
    }
}

/// Tasks to be woken when this is dropped. Drop it without any lock held: a waker runs other code, and
/// may drop the database.
#[derive(Default)]
#[must_use = "to be dropped where no lock is held"]
pub(crate) struct Woken(Vec<Waker>);

impl Woken {
    pub(crate) fn absorb(&mut self, mut other: Woken) {
        self.0.append(&mut other.0);
    }
}

impl Drop for Woken {
    fn drop(&mut self) {
        for waker in self.0.drain(..) {
            // A waker that panics must not keep the others from being woken.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
                // Forget the panic's payload, because its destructor could panic as well.
                mem::forget(panic);
            }
        }
    }
}

/// The future of [`Progress::wait_for`]. Cancel-safe: it only reads.
pub(crate) struct WaitFor<'p> {
    progress: &'p Progress,
    target: u64,
    /// The id under which it waits.
    id: Option<u64>,
    pending: Pending,
}

impl Future for WaitFor<'_> {
    type Output = Result<(), PersistenceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (progress, target) = (self.progress, self.target);
        if progress.reached() >= target {
            return Poll::Ready(Ok(()));
        }
        // Clone the waker before taking the lock: cloning runs other code.
        let waker = context.waker().clone();
        let mut waiting = progress.waiting.lock();
        if progress.reached() >= target {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = &waiting.failed {
            return Poll::Ready(Err(error.clone()));
        }
        let id = match self.id {
            Some(id) => id,
            None => {
                waiting.last_id += 1;
                waiting.last_id
            }
        };
        let old = waiting.wakers.insert((target, id), waker);
        drop(waiting);
        drop(old);
        self.id = Some(id);
        self.pending.note(|| format!("progress to {target}"));
        Poll::Pending
    }
}

impl Drop for WaitFor<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = self.progress.waiting.lock().wakers.remove(&(self.target, id));
            drop(waker);
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::future::poll_immediate;
    use std::pin::pin;

    fn ready<F: Future>(future: F) -> Option<F::Output> {
        poll_immediate(future).now_or_never().flatten()
    }

    #[test]
    fn those_who_wait_for_what_was_reached_go_on_and_the_others_do_not() {
        let progress = Progress::default();
        let (mut two, mut three) = (pin!(progress.wait_for(2)), pin!(progress.wait_for(3)));
        assert!(ready(two.as_mut()).is_none() && ready(three.as_mut()).is_none());
        drop(progress.advance(2));
        assert!(matches!(ready(two.as_mut()), Some(Ok(()))));
        assert!(ready(three.as_mut()).is_none());
        drop(progress.advance(1));
        assert_eq!(progress.reached(), 2, "it does not go back");
    }

    #[test]
    fn a_failure_ends_the_waiting_for_more_and_nothing_else() {
        let progress = Progress::default();
        let mut waiting = pin!(progress.wait_for(5));
        drop(progress.advance(4));
        assert!(ready(waiting.as_mut()).is_none());
        drop(progress.fail(&PersistenceError::Unavailable("first".into())));
        drop(progress.fail(&PersistenceError::Unavailable("second".into())));
        let error = ready(waiting.as_mut()).expect("ready").expect_err("failed");
        assert_eq!(error.to_string(), "first");
        assert!(matches!(ready(progress.wait_for(4)), Some(Ok(()))));
        drop(progress.advance(6));
        assert_eq!(progress.reached(), 4);
    }
}
