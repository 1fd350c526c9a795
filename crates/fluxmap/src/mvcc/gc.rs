//! Garbage collection: trimming old versions.
//!
//! Every commit trims a bounded number of chains, somewhat more than it made longer, so memory stays
//! flat under a steady load. The horizon is taken anew only every few writes, because that visits every
//! shard of live snapshots; an old horizon keeps too many versions, never too few.
//!
//! Under one horizon, each chain is trimmed once: a version that is superseded after the horizon was
//! taken is not freed under it, so a second visit could find no more than the first.

use crate::mvcc::active::Active;
use crate::mvcc::clock::Clock;
use fluxmap_index::{Horizon, Timestamp, Writer};

/// The number of writes between two visits to the live snapshots.
const REFRESH: usize = 32;

/// The number of chains that a small commit trims, if so many wait: trimming several at once overlaps
/// their cache misses.
const AT_ONCE: usize = 16;

/// The backlog, in chains, that commits alone would take long to trim.
const WORTH_A_THREAD: usize = 4096;

/// The collector's state from one commit to the next.
#[derive(Default)]
pub(crate) struct Collector {
    horizon: Horizon,
    /// The number of writes since the horizon was taken.
    writes: usize,
    /// How many chains, from the front of the queue, have not been visited under the current horizon.
    /// The number may be too large, because visits by other callers are not counted.
    unseen: usize,
}

impl Collector {
    /// Does one commit's share of the work.
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
        // Taking the horizon costs more with more snapshots, so it is then done less often.
        if self.writes >= REFRESH.max(self.horizon.len()) {
            self.refresh(writer, active, clock);
        }
        // Trim the whole share, even if the first chains cannot be trimmed yet: with a snapshot that
        // blocks N chains, the others still come round in time, and leave no more than N versions
        // behind.
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

    /// Returns the oldest snapshot, if the backlog is large enough for the background thread.
    pub(crate) fn blocker(&self, backlog: usize) -> Option<Timestamp> {
        let blocked = backlog >= WORTH_A_THREAD && !self.horizon.is_empty();
        blocked.then(|| self.horizon.oldest())
    }
}
