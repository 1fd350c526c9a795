//! The clock: the timestamp of the newest commit that readers may see.

use crate::sync::{AtomicU64, Ordering};
use fluxmap_index::Timestamp;

/// Counts commits. Moved by the holder of the commit lock alone.
#[derive(Default)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    /// The newest published commit. Everything it wrote is visible to whoever
    /// has read this.
    pub(crate) fn now(&self) -> Timestamp {
        // Acquire: pairs with `publish`.
        self.0.load(Ordering::Acquire)
    }

    /// Makes a commit visible, all at once. Called under the commit lock.
    pub(crate) fn publish(&self, timestamp: Timestamp) {
        // Release: its versions are in their chains before.
        self.0.store(timestamp, Ordering::Release);
    }
}
