//! When old versions go.
//!
//! Every commit trims a bounded number of chains, somewhat more than it made
//! longer, so a steady load keeps memory flat by itself. The horizon it trims by
//! is taken anew every few writes only: taking it visits every shard of live
//! snapshots, and an old horizon keeps too much, never too little.
//!
//! Under one horizon a chain is looked at once: what is superseded after the horizon was
//! taken is not let go by it, so a second look could find nothing more than the first.

use crate::mvcc::active::Active;
use crate::mvcc::clock::Clock;
use fluxmap_index::{Horizon, Timestamp, Writer};

/// Writes between two looks at the live snapshots.
const REFRESH: usize = 32;

/// Chains that a small commit trims, if so many wait: what they need is read from memory side
/// by side.
const AT_ONCE: usize = 16;

/// Chains waiting to be trimmed that commits alone would take long over.
const WORTH_A_THREAD: usize = 4096;

/// The collector's memory from one commit to the next.
#[derive(Default)]
pub(crate) struct Collector {
    horizon: Horizon,
    /// Since the horizon was taken.
    writes: usize,
    /// How many chains, from the front of the queue, have not been looked at under the
    /// horizon. Too many at most: whoever else trims does not count.
    unseen: usize,
}

impl Collector {
    /// One commit's share of the work.
    pub(crate) fn after_commit<K: Ord + Clone, T>(
        &mut self,
        writer: &mut Writer<K, T>,
        writes: usize,
        active: &Active,
        clock: &Clock,
    ) {
        self.writes += writes;
        if writer.backlog() == 0 {
            return;
        }
        // A look costs more the more snapshots there are, so it comes less often.
        if self.writes >= REFRESH.max(self.horizon.len()) {
            self.refresh(writer, active, clock);
        }
        // All of it, even where the first chains have nothing to give yet: with a
        // snapshot that blocks N chains, the others still come round in time, and
        // leave no more than N versions behind.
        let trimmed = writer.trim(&self.horizon, self.unseen.min(AT_ONCE.max(2 + 2 * writes)));
        self.unseen -= trimmed.visited;
    }

    /// Takes the horizon anew.
    pub(crate) fn refresh<K: Ord + Clone, T>(
        &mut self,
        writer: &Writer<K, T>,
        active: &Active,
        clock: &Clock,
    ) {
        self.writes = 0;
        self.unseen = writer.backlog();
        self.horizon = active.horizon(clock);
    }

    pub(crate) fn horizon(&self) -> &Horizon {
        &self.horizon
    }

    /// The snapshot that keeps a backlog worth a thread's attention, if any.
    pub(crate) fn blocker(&self, backlog: usize) -> Option<Timestamp> {
        let blocked = backlog >= WORTH_A_THREAD && !self.horizon.is_empty();
        blocked.then(|| self.horizon.oldest())
    }
}
