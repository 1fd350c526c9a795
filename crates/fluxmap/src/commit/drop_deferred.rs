//! Runs the destructors of freed keys and values.
//!
//! A destructor may commit, and so free more memory. While destructors run on a thread, memory freed on
//! that thread is queued until they have ended. Otherwise each destructor would call the next, as deep
//! as there is garbage.

use crate::sync::thread_local;
use fluxmap_index::Freed;
use std::any::Any;
use std::cell::RefCell;

type DeferredDrops = Vec<Box<dyn Any>>;

thread_local! {
    /// The queue, present while destructors run on this thread.
    static WAITING: RefCell<Option<DeferredDrops>> = RefCell::new(None);
}

/// Accesses the queue; `None` if the thread-local has been destroyed because the thread is ending.
fn with_waiting<R>(change: impl FnOnce(&mut Option<DeferredDrops>) -> R) -> Option<R> {
    WAITING.try_with(|waiting| change(&mut waiting.borrow_mut())).ok()
}

/// While this guard lives, memory freed on this thread is queued.
struct Draining;

impl Drop for Draining {
    fn drop(&mut self) {
        // After a panic the queue may not be empty: drop its contents after the borrow has ended.
        let _waiting = with_waiting(Option::take);
    }
}

/// Drops `freed`, now or once the destructors that run on this thread have ended. Call it without any
/// lock held.
pub(crate) fn drop_deferred<K: 'static, T: 'static>(freed: Freed<K, T>) {
    if freed.is_empty() {
        return;
    }
    match with_waiting(|waiting| waiting.is_some()) {
        Some(true) => {
            let freed = Box::new(freed);
            with_waiting(|waiting| waiting.as_mut().map(|waiting| waiting.push(freed)));
        }
        Some(false) => {
            with_waiting(|waiting| *waiting = Some(DeferredDrops::new()));
            let _running = Draining;
            drop(freed);
            while let Some(next) = with_waiting(|waiting| waiting.as_mut()?.pop()).flatten() {
                drop(next);
            }
        }
        // The thread-local is gone, so nothing can be queued.
        None => drop(freed),
    }
}
