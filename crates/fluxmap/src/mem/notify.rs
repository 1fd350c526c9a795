//! Runs the listener for evictions.
//!
//! A listener may commit, and so evict more. While a listener runs on a thread, further notifications on
//! that thread are queued until it has returned. Otherwise each listener would call the next, as deep as
//! there are keys to evict. `commit/drop_deferred.rs` does the same for destructors.

use crate::mem::EvictionCause;
use crate::mem::evict::Listener;
use crate::sync::thread_local;
use fluxmap_index::contain;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

/// Removed keys, with their values and the causes.
pub(crate) type Told<K, V> = Vec<(K, Arc<V>, EvictionCause)>;

/// Notifications in the order of the evictions, for databases of any type.
type PendingNotices = VecDeque<Box<dyn FnOnce()>>;

thread_local! {
    /// The queue, present while a listener runs on this thread.
    static WAITING: RefCell<Option<PendingNotices>> = RefCell::new(None);
}

/// Accesses the queue; `None` if the thread-local has been destroyed because the thread is ending.
fn with_waiting<R>(change: impl FnOnce(&mut Option<PendingNotices>) -> R) -> Option<R> {
    WAITING.try_with(|waiting| change(&mut waiting.borrow_mut())).ok()
}

/// While this guard lives, notifications on this thread are queued.
struct Notifying;

impl Drop for Notifying {
    fn drop(&mut self) {
        // The queue is empty unless a destructor has panicked; its contents are then dropped after the
        // borrow has ended.
        let _waiting = with_waiting(Option::take);
    }
}

/// Calls the listener for these keys, now or when the one that runs on this thread has returned. Call it
/// without any lock held.
pub(crate) fn tell<K: 'static, V: 'static>(listener: &Listener<K, V>, told: Told<K, V>) {
    if told.is_empty() {
        return;
    }
    match with_waiting(|waiting| waiting.is_some()) {
        Some(true) => {
            let listener = Arc::clone(listener);
            let later: Box<dyn FnOnce()> = Box::new(move || tell_now(&listener, told));
            with_waiting(|waiting| waiting.as_mut().map(|waiting| waiting.push_back(later)));
        }
        Some(false) => {
            with_waiting(|waiting| *waiting = Some(PendingNotices::new()));
            let _running = Notifying;
            tell_now(listener, told);
            while let Some(next) = with_waiting(|waiting| waiting.as_mut()?.pop_front()).flatten() {
                next();
            }
        }
        // The thread-local is gone, so nothing can be queued.
        None => tell_now(listener, told),
    }
}

/// Calls the listener. Its panics are contained, because they belong to no caller.
fn tell_now<K, V>(listener: &Listener<K, V>, told: Told<K, V>) {
    for (key, value, cause) in told {
        if contain(|| listener(key, value, cause)).is_none() {
            tracing::error!("a listener for evictions has panicked");
        }
    }
}
