//! The clock: the timestamps of the newest commits.

use crate::progress::Progress;
use crate::sync::{AtomicU64, Ordering};
use fluxmap_index::{Timestamp, planted};

/// Counts commits. There are two hands:
///
/// - *applied*: everything up to it is in the index. Transactions that may write
///   read there, so that they can build on each other without waiting for the disk.
/// - *stable*: everything up to it will survive what the durability level promises.
///   Reads outside of transactions look there, so that nobody is shown what a crash
///   can undo, and every commit is acknowledged there.
///
/// Stable is never ahead of applied. Without a log, all that is applied is stable, and both are
/// one: of two that move one after the other, a get that reads the second could miss what a
/// transaction that read the first has seen, and returned, before.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Clock {
    /// Unused without a log.
    applied: AtomicU64,
    stable: Progress,
    has_log: bool,
}

impl Clock {
    /// A clock whose stable hand a log moves. Everything up to `timestamp` is in the log.
    pub(crate) fn with_log(timestamp: Timestamp) -> Self {
        let clock = Clock { applied: AtomicU64::new(timestamp), stable: Progress::default(), has_log: true };
        clock.stable.advance_unwatched(timestamp);
        clock
    }

    /// The newest commit that is in the index. Everything it wrote is visible to
    /// whoever has read this.
    pub(crate) fn applied(&self) -> Timestamp {
        match self.has_two_hands() {
            // Acquire: pairs with `apply`.
            true => self.applied.load(Ordering::Acquire),
            false => self.stable(),
        }
    }

    /// The newest commit that cannot be undone any more.
    pub(crate) fn stable(&self) -> Timestamp {
        self.stable.reached()
    }

    /// Makes a commit visible to transactions, all at once; without a log, to everybody. Called
    /// by the holder of the commit lock.
    pub(crate) fn apply(&self, timestamp: Timestamp) {
        if self.has_two_hands() {
            // Release: its versions are in their chains before.
            self.applied.store(timestamp, Ordering::Release);
        }
        if !self.has_log {
            self.stable.advance_unwatched(timestamp);
        }
    }

    fn has_two_hands(&self) -> bool {
        self.has_log || planted("get-lags-in-memory")
    }

    /// How stability is waited for, and brought about by the log.
    pub(crate) fn stability(&self) -> &Progress {
        &self.stable
    }
}
