//! The clock: the timestamps of the newest commits.

use crate::progress::Progress;
use crate::sync::{AtomicU64, Ordering};
use fluxmap_index::Timestamp;

/// Counts commits. There are two hands:
///
/// - *applied*: everything up to it is in the index. Transactions that may write
///   read there, so that they can build on each other without waiting for the disk.
/// - *stable*: everything up to it will survive what the durability level promises.
///   Reads outside of transactions look there, so that nobody is shown what a crash
///   can undo, and every commit is acknowledged there.
///
/// Stable is never ahead of applied. In memory it follows at once, and is looked at by garbage
/// collection only: whatever is applied may be read there.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Clock {
    applied: AtomicU64,
    stable: Progress,
}

impl Clock {
    /// The newest commit that is in the index. Everything it wrote is visible to
    /// whoever has read this.
    pub(crate) fn applied(&self) -> Timestamp {
        // Acquire: pairs with `apply`.
        self.applied.load(Ordering::Acquire)
    }

    /// The newest commit that cannot be undone any more.
    pub(crate) fn stable(&self) -> Timestamp {
        self.stable.reached()
    }

    /// Makes a commit visible to transactions, all at once. Called by the holder of the
    /// commit lock.
    pub(crate) fn apply(&self, timestamp: Timestamp) {
        // Release: its versions are in their chains before.
        self.applied.store(timestamp, Ordering::Release);
    }

    /// Makes everything up to `timestamp` stable at once, where nothing has to be waited
    /// for: in memory, and in recovery. Called by the holder of the commit lock.
    pub(crate) fn settle_at_once(&self, timestamp: Timestamp) {
        self.stable.advance_unwatched(timestamp);
    }

    /// How stability is waited for, and brought about by the log.
    pub(crate) fn stability(&self) -> &Progress {
        &self.stable
    }
}
