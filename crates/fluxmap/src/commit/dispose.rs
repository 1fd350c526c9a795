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

/// While it lives, what is freed waits.
struct Running;

impl Running {
    /// `None` if destructors run already.
    fn begin() -> Option<Self> {
        WAITING.with(|waiting| {
            let mut waiting = waiting.borrow_mut();
            match &*waiting {
                Some(_) => None,
                None => {
                    *waiting = Some(Waiting::new());
                    Some(Running)
                }
            }
        })
    }

    fn next(&self) -> Option<Box<dyn Any>> {
        WAITING.with(|waiting| waiting.borrow_mut().as_mut().and_then(Vec::pop))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Dropped behind the borrow.
        let _waiting = WAITING.with(|waiting| waiting.borrow_mut().take());
    }
}

/// Frees it, now or when the destructors that run on this thread have ended. Outside all locks.
pub(crate) fn dispose<K: 'static, T: 'static>(freed: Freed<K, T>) {
    if freed.is_empty() {
        return;
    }
    let Some(running) = Running::begin() else {
        let freed = Box::new(freed);
        return WAITING.with(|waiting| {
            if let Some(list) = &mut *waiting.borrow_mut() {
                list.push(freed);
            }
        });
    };
    drop(freed);
    while let Some(next) = running.next() {
        drop(next);
    }
}
