//! Trimming outside of commits, and the snapshots that hold it up.

use super::drop_deferred::drop_deferred;
use super::{CommitSection, Committer, NO_SNAPSHOT};
use crate::mvcc::gc::Collector;
use crate::sync::Ordering;
use fluxmap_index::{Timestamp, Trimmed};
use std::hash::Hash;

impl<K: Ord + Hash + Clone + 'static, V: 'static> Committer<K, V> {
    /// Takes the horizon anew, so that trimming learns which snapshots have ended. Returns how many
    /// chains wait to be trimmed.
    pub(crate) fn refresh_horizon(&self) -> usize {
        let mut section = self.section.lock();
        self.expiry_clock.advance();
        let CommitSection { writer, collector, .. } = &mut *section;
        collector.refresh(writer, &self.active, &self.clock);
        writer.backlog()
    }

    /// Trims up to `budget` chains.
    pub(crate) fn trim(&self, budget: usize) -> Trimmed {
        let mut section = self.section.lock();
        // Move the expiry clock here too, because the background thread may trim for a long time before
        // it gets back to moving it.
        self.expiry_clock.advance();
        let CommitSection { writer, collector, .. } = &mut *section;
        let trimmed = writer.trim(collector.horizon(), budget);
        let backlog = writer.backlog();
        self.note_blocker(collector, backlog);
        let freed = writer.collect_all();
        drop(section);
        drop_deferred(freed);
        trimmed
    }

    /// Lets the policy forget keys that have gone: see [`Budget::forget_gone`].
    ///
    /// [`Budget::forget_gone`]: crate::mem::ledger::Budget::forget_gone
    pub(crate) fn forget_gone(&self) -> bool {
        self.section.lock().ledger.budget.as_mut().is_some_and(|budget| budget.forget_gone())
    }

    /// Makes the release of the oldest snapshot wake the background thread, if any chain waits to be
    /// trimmed. Returns whether that snapshot has ended already.
    pub(crate) fn watch_blocker(&self) -> bool {
        let mut section = self.section.lock();
        let CommitSection { writer, collector, .. } = &mut *section;
        if writer.backlog() == 0 || collector.horizon().is_empty() {
            return false;
        }
        let oldest = collector.horizon().oldest();
        self.blocker.store(oldest, Ordering::Relaxed);
        // A snapshot that this refresh sees has yet to lock its shard for its release, and will then see
        // the store above.
        collector.refresh(writer, &self.active, &self.clock);
        collector.horizon().oldest() != oldest
    }

    /// Returns whether chains wait to be trimmed until more commits are stable.
    pub(crate) fn awaits_stability(&self) -> bool {
        self.clock.applied() != self.clock.stable() && self.section.lock().writer.backlog() > 0
    }

    pub(super) fn note_blocker(&self, collector: &Collector, backlog: usize) {
        let blocker = collector.blocker(backlog).unwrap_or(NO_SNAPSHOT);
        // Mostly the value stays the same; then it is not written, and its cache line stays shared.
        // Relaxed: the value is a hint; a reader that misses it leaves the work to later commits.
        if self.blocker.load(Ordering::Relaxed) != blocker {
            self.blocker.store(blocker, Ordering::Relaxed);
        }
    }

    /// Returns whether the end of the snapshot at this timestamp frees much garbage.
    pub(crate) fn is_blocker(&self, timestamp: Timestamp) -> bool {
        self.blocker.load(Ordering::Relaxed) == timestamp
    }
}
