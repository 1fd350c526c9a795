//! The clock: the timestamps of the newest commits.

use crate::progress::Progress;
use crate::sync::{AtomicU64, Ordering};
use fluxmap_index::{Timestamp, planted};

/// Counts commits, with two timestamps:
///
/// - *applied*: every commit up to it is in the index. Transactions that may write read at this
///   timestamp, so that they can build on each other without waiting for the disk.
/// - *stable*: every commit up to it survives what the durability level promises. Reads outside of
///   transactions read at this timestamp, so that they never show a commit that a crash can undo, and
///   every commit is acknowledged once it is stable.
///
/// Stable is never ahead of applied. Without a log every applied commit is stable, and both are one
/// variable. If they were two that move one after the other, a get that reads the second could miss a
/// commit that a transaction, which read the first, has seen and returned before.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Clock {
    /// Unused without a log.
    applied: AtomicU64,
    stable: Progress,
    has_log: bool,
}

impl Clock {
    /// Creates a clock whose stable timestamp a log moves. Everything up to `timestamp` is in the log.
    pub(crate) fn with_log(timestamp: Timestamp) -> Self {
        let clock = Clock { applied: AtomicU64::new(timestamp), stable: Progress::default(), has_log: true };
        clock.stable.advance_unwatched(timestamp);
        clock
    }

    /// Returns the newest commit that is in the index. A thread that has read this timestamp sees
    /// everything that the commit wrote.
    pub(crate) fn applied(&self) -> Timestamp {
        match self.has_two_timestamps() {
            // Acquire: pairs with `apply`.
            true => self.applied.load(Ordering::Acquire),
            false => self.stable(),
        }
    }

    /// Returns the newest commit that cannot be undone any more.
    pub(crate) fn stable(&self) -> Timestamp {
        self.stable.reached()
    }

    /// Makes a commit visible to transactions, all at once; without a log, to every reader. Called by
    /// the holder of the commit lock.
    pub(crate) fn apply(&self, timestamp: Timestamp) {
        if self.has_two_timestamps() {
            // Release: the commit's versions are linked into their chains before.
            self.applied.store(timestamp, Ordering::Release);
        }
        if !self.has_log {
            self.stable.advance_unwatched(timestamp);
        }
    }

    fn has_two_timestamps(&self) -> bool {
        self.has_log || planted("get-lags-in-memory")
    }

    /// Returns the progress of the stable timestamp, which the log advances and others wait for.
    pub(crate) fn stability(&self) -> &Progress {
        &self.stable
    }
}
