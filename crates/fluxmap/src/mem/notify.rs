//! Where listeners for evictions run.
//!
//! A listener may commit, and so evict more. What is to be told meanwhile on the same thread
//! waits until the listener that runs has returned: else each would call the next, as deep as
//! there are keys to evict. `commit/dispose.rs` does the same for destructors.

use crate::mem::EvictionCause;
use crate::mem::evict::Listener;
use crate::sync::thread_local;
use fluxmap_index::contain;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

/// Keys that went, what they held, and why.
pub(crate) type Told<K, V> = Vec<(K, Arc<V>, EvictionCause)>;

/// Notifications in the order of the evictions, whatever the types of their databases.
type Waiting = VecDeque<Box<dyn FnOnce()>>;

thread_local! {
    /// What waits, while a listener runs on this thread.
    static WAITING: RefCell<Option<Waiting>> = RefCell::new(None);
}

/// `None` if the thread is at its very end.
fn with_waiting<R>(change: impl FnOnce(&mut Option<Waiting>) -> R) -> Option<R> {
    WAITING.try_with(|waiting| change(&mut waiting.borrow_mut())).ok()
}

/// While it lives, what is to be told on this thread waits.
struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing is left, unless a destructor has panicked: then it goes behind the borrow.
        let _waiting = with_waiting(Option::take);
    }
}

/// Tells the listener, now or when the one that runs on this thread has returned. Outside all
/// locks.
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
            with_waiting(|waiting| *waiting = Some(Waiting::new()));
            let _running = Running;
            tell_now(listener, told);
            while let Some(next) = with_waiting(|waiting| waiting.as_mut()?.pop_front()).flatten() {
                next();
            }
        }
        // Nothing can wait here any more.
        None => tell_now(listener, told),
    }
}

/// The listener's own panics are contained: they belong to no caller.
fn tell_now<K, V>(listener: &Listener<K, V>, told: Told<K, V>) {
    for (key, value, cause) in told {
        if contain(|| listener(key, value, cause)).is_none() {
            tracing::error!("a listener for evictions has panicked");
        }
    }
}
