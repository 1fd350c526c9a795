//! Where the destructors of what was freed run.
//!
//! They may commit, and so free more. What is freed meanwhile on the same thread waits until
//! those that run have ended: else each would call the next, as deep as there is garbage.

use crate::sync::thread_local;
use fluxmap_index::Freed;
use std::any::Any;
use std::cell::RefCell;

type Waiting = Vec<Box<dyn Any>>;

thread_local! {
    /// What waits, while destructors run on this thread.
    static WAITING: RefCell<Option<Waiting>> = RefCell::new(None);
}

/// `None` if the thread is at its very end.
fn with_waiting<R>(change: impl FnOnce(&mut Option<Waiting>) -> R) -> Option<R> {
    WAITING.try_with(|waiting| change(&mut waiting.borrow_mut())).ok()
}

/// While it lives, what is freed on this thread waits.
struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        // Whatever is left, after a panic, is dropped behind the borrow.
        let _waiting = with_waiting(Option::take);
    }
}

/// Frees it, now or when the destructors that run on this thread have ended. Outside all locks.
pub(crate) fn dispose<K: 'static, T: 'static>(freed: Freed<K, T>) {
    if freed.is_empty() {
        return;
    }
    match with_waiting(|waiting| waiting.is_some()) {
        Some(true) => {
            let freed = Box::new(freed);
            with_waiting(|waiting| waiting.as_mut().map(|waiting| waiting.push(freed)));
        }
        Some(false) => {
            with_waiting(|waiting| *waiting = Some(Waiting::new()));
            let _running = Running;
            drop(freed);
            while let Some(next) = with_waiting(|waiting| waiting.as_mut()?.pop()).flatten() {
                drop(next);
            }
        }
        // Nothing can wait here any more.
        None => drop(freed),
    }
}
