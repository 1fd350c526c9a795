//! The atomics of the index: those of the standard library, or of a model
//! checker. All atomics in the crate come from here.

/// Atomics on which no other access depends: notes, figures, and marks that only the writer uses.
/// Even in models they are the standard library's, so that loom need not try all their orders.
pub(crate) use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64 as Tally};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

/// Loom does not switch threads at a fence. The shared counter makes fences contend, so
/// that loom tries them in every order, with the accesses around them in between.
#[cfg(loom)]
pub(crate) fn fence(ordering: Ordering) {
    loom::lazy_static! {
        static ref TURN: AtomicUsize = AtomicUsize::new(0);
    }
    TURN.fetch_add(1, Ordering::Relaxed);
    loom::sync::atomic::fence(ordering);
}

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Mutex,
    atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

/// A small number that is usually different for threads that run at the same
/// time. It only spreads pins over slots: equal numbers cost time, never safety.
#[cfg(not(any(loom, shuttle)))]
pub(crate) fn thread_hint() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // Relaxed: the numbers must differ, but need no order.
        static HINT: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    HINT.with(|hint| *hint)
}

/// Under a model checker every thread starts at the same slot, so that models
/// cover the search for a free slot, too.
#[cfg(any(loom, shuttle))]
pub(crate) fn thread_hint() -> usize {
    0
}
