//! Which atomics the index runs on: the standard library's, or a model
//! checker's. Nothing else in the crate names `std::sync::atomic`.

/// What nothing depends on (notes, marks that one thread keeps for itself, figures), so that
/// models need not try its every order.
pub(crate) use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64 as Tally};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

/// Loom does not switch threads at a fence. This makes fences contend, so that
/// it tries them in every order, with the accesses around them in between.
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
/// time. It only spreads pins over slots: a clash costs time, never safety.
#[cfg(not(any(loom, shuttle)))]
pub(crate) fn thread_hint() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // Relaxed: the numbers need to differ, not to be ordered.
        static HINT: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    HINT.with(|hint| *hint)
}

/// Under a model checker every thread starts at the same slot, so that the
/// search for a free one is explored too.
#[cfg(any(loom, shuttle))]
pub(crate) fn thread_hint() -> usize {
    0
}
