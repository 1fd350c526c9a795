//! Read points: the timestamp and time at which a snapshot reads.

use super::Committer;
use crate::mvcc::active::{ReaderKind, Registration};
use fluxmap_index::{ReadPoint, Time, Timestamp, planted};
use std::hash::Hash;

impl<K: Ord + Hash + Clone, V> Committer<K, V> {
    /// Registers a snapshot of the newest state, for a transaction.
    pub(crate) fn register_newest(&self) -> Registration {
        self.time();
        self.active.register(ReaderKind::Transaction, true, || self.expiry_clock.applied_point(&self.clock))
    }

    /// Registers a snapshot of the stable state. `ages` is false for checkpoints and backups, which are
    /// never ended for their age.
    pub(crate) fn register_stable(&self, ages: bool) -> Registration {
        self.time();
        let kind = if ages { ReaderKind::Snapshot } else { ReaderKind::Checkpoint };
        self.active.register(kind, ages, || self.stable_point())
    }

    /// The newest commit that reads outside of transactions may see.
    pub(crate) fn readable(&self) -> Timestamp {
        if planted("get-reads-applied") { self.clock.applied() } else { self.clock.stable() }
    }

    fn stable_point(&self) -> ReadPoint {
        match self.durable {
            // Without a log, every applied commit is stable.
            None => self.expiry_clock.applied_point(&self.clock),
            Some(ref durable) if durable.log.failure().is_some() => {
                // Commits that are not stable will never be seen, so they do not hold the time back.
                ReadPoint { timestamp: self.clock.stable(), time: self.expiry_clock.current() }
            }
            Some(_) => self.expiry_clock.stable_point(&self.clock),
        }
    }

    /// Returns the time by which a read of a single key decides whether the key has expired. If the
    /// background thread moves the expiry clock, no clock is read here: that would cost as much as the
    /// rest of the read.
    pub(crate) fn time_of_get(&self) -> Time {
        if !self.expiry_clock.is_driven() {
            self.time();
        }
        self.stable_point().time
    }

    /// Returns the time that decides which keys have expired. Does not wait: while a commit is under
    /// way, the time is the commit's.
    #[inline]
    pub(crate) fn time(&self) -> Time {
        // Every begin calls this: it must cost no more than one load where nothing expires.
        if self.expiry_clock.is_enabled() { self.time_that_moves() } else { self.expiry_clock.current() }
    }

    fn time_that_moves(&self) -> Time {
        if self.expiry_clock.is_due()
            && let Some(_section) = self.section.try_lock()
        {
            return self.expiry_clock.advance();
        }
        if planted("time-moves-without-the-lock") {
            return self.expiry_clock.advance();
        }
        self.expiry_clock.current()
    }
}
