//! Which state, and which time, those see who begin to read.

use super::Committer;
use crate::mvcc::active::{ReaderKind, Registration};
use fluxmap_index::{Moment, Time, Timestamp, planted};
use std::hash::Hash;

impl<K: Ord + Hash + Clone, V> Committer<K, V> {
    /// Registers a snapshot of the newest state, for a transaction.
    pub(crate) fn register_newest(&self) -> Registration {
        self.time();
        self.active.register(ReaderKind::Transaction, true, || self.hand.applied_moment(&self.clock))
    }

    /// Registers a snapshot of the stable state. It may take as long as it takes, if it is no
    /// user's and does not age.
    pub(crate) fn register_stable(&self, ages: bool) -> Registration {
        self.time();
        let kind = if ages { ReaderKind::Snapshot } else { ReaderKind::Checkpoint };
        self.active.register(kind, ages, || self.stable_moment())
    }

    /// The newest commit that reads outside of transactions may see.
    pub(crate) fn readable(&self) -> Timestamp {
        if planted("get-reads-applied") { self.clock.applied() } else { self.clock.stable() }
    }

    fn stable_moment(&self) -> Moment {
        match self.durable {
            // All that is applied is stable.
            None => self.hand.applied_moment(&self.clock),
            Some(ref durable) if durable.log.failure().is_some() => {
                // What is not stable will never be seen, and holds no time back.
                Moment { timestamp: self.clock.stable(), time: self.hand.shown() }
            }
            Some(_) => self.hand.stable_moment(&self.clock),
        }
    }

    /// The time by which a read of a single key decides whether it has expired. Reading a clock
    /// would cost as much as all the rest of it.
    pub(crate) fn time_of_get(&self) -> Time {
        if !self.hand.is_driven() {
            self.time();
        }
        self.stable_moment().time
    }

    /// The time, by which it is decided what has expired. Does not wait: while a commit is
    /// under way, it is the time of that commit.
    #[inline]
    pub(crate) fn time(&self) -> Time {
        // Every begin comes by: no more than one load where nothing expires.
        if self.hand.is_needed() { self.time_that_is_needed() } else { self.hand.shown() }
    }

    fn time_that_is_needed(&self) -> Time {
        if self.hand.is_due()
            && let Some(_order) = self.order.try_lock()
        {
            return self.hand.advance();
        }
        if planted("time-moves-without-the-lock") {
            return self.hand.advance();
        }
        self.hand.shown()
    }
}
