//! Trimming outside of commits, and whom it waits for.

use super::dispose::dispose;
use super::{Committer, NO_SNAPSHOT, Order};
use crate::mvcc::gc::Collector;
use crate::sync::Ordering;
use fluxmap_index::{Timestamp, Trimmed};
use std::hash::Hash;

impl<K: Ord + Hash + Clone + 'static, V: 'static> Committer<K, V> {
    /// Looks at the live snapshots, so that trimming knows of those that have gone.
    /// Returns how many chains wait to be trimmed.
    pub(crate) fn refresh_horizon(&self) -> usize {
        let mut order = self.order.lock();
        self.hand.advance();
        let Order { writer, collector, .. } = &mut *order;
        collector.refresh(writer, &self.active, &self.clock);
        writer.backlog()
    }

    /// Trims up to `budget` chains.
    pub(crate) fn trim(&self, budget: usize) -> Trimmed {
        let mut order = self.order.lock();
        // The background thread, which may have much to trim, drives it.
        self.hand.advance();
        let Order { writer, collector, .. } = &mut *order;
        let trimmed = writer.trim(collector.horizon(), budget);
        let backlog = writer.backlog();
        self.note_blocker(collector, backlog);
        let freed = writer.collect_all();
        drop(order);
        dispose(freed);
        trimmed
    }

    /// Lets the policy forget keys that have gone: see [`Books::forget_gone`].
    ///
    /// [`Books::forget_gone`]: crate::mem::keeper::Books::forget_gone
    pub(crate) fn forget_gone(&self) -> bool {
        self.order.lock().keeper.books.as_mut().is_some_and(|books| books.forget_gone())
    }

    /// Has the release of the oldest snapshot wake the background thread, if anything waits for
    /// it; returns whether that has gone already.
    pub(crate) fn watch_blocker(&self) -> bool {
        let mut order = self.order.lock();
        let Order { writer, collector, .. } = &mut *order;
        if writer.backlog() == 0 || collector.horizon().is_empty() {
            return false;
        }
        let oldest = collector.horizon().oldest();
        self.blocker.store(oldest, Ordering::Relaxed);
        // Whoever is seen here has yet to lock its shard, and will see the store.
        collector.refresh(writer, &self.active, &self.clock);
        collector.horizon().oldest() != oldest
    }

    /// Whether something waits to be trimmed until commits are stable that are not yet.
    pub(crate) fn awaits_stability(&self) -> bool {
        self.clock.applied() != self.clock.stable() && self.order.lock().writer.backlog() > 0
    }

    pub(super) fn note_blocker(&self, collector: &Collector, backlog: usize) {
        let blocker = collector.blocker(backlog).unwrap_or(NO_SNAPSHOT);
        // Mostly there is none: what does not change is not written, and stays in all caches.
        // Relaxed: a hint; who misses it leaves the work to later commits.
        if self.blocker.load(Ordering::Relaxed) != blocker {
            self.blocker.store(blocker, Ordering::Relaxed);
        }
    }

    /// Whether the end of the snapshot at this timestamp lets much garbage go.
    pub(crate) fn is_blocker(&self, timestamp: Timestamp) -> bool {
        self.blocker.load(Ordering::Relaxed) == timestamp
    }
}
