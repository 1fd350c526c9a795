//! Certification: decides whether a transaction may commit.
//!
//! The rule of write-snapshot isolation (Gómez Ferro and Yabandeh, "A critique of snapshot isolation",
//! EuroSys 2012): a transaction commits if no key or range that it read, present or absent, has been
//! changed since its snapshot.
//!
//! This rule makes histories strictly serializable, in the order of commit timestamps, because
//! certification and publication are one step under the commit lock. A transaction that passes has read
//! values that are still the newest at the moment it commits, so it might as well have run, reads and
//! writes, at that moment, alone. A transaction that wrote nothing might as well have run at the moment
//! of its snapshot, at which the commits before it are complete and no later one has begun. Both moments
//! lie between its call and its return.
//!
//! Blind writes are not reads: at this level they never conflict.
//!
//! A key that has expired since the snapshot counts as changed. The commit is certified at the time that
//! the expiry clock shows under the lock, and no earlier view is ahead of that time.
//!
//! `Snapshot` isolation has another rule: no key that the transaction *wrote* may have been written
//! since its snapshot (the first committer wins). Reads are not checked, hence write skew.

use crate::error::FluxError;
use crate::info::IsolationLevel;
use crate::mvcc::active::Registration;
use crate::txn::read_set::ReadSet;
use fluxmap_index::{Batch, Reader, Time, Timestamp, planted};

/// A transaction's claim that its snapshot still holds.
pub(crate) struct Certificate<'t, K> {
    pub(crate) level: IsolationLevel,
    pub(crate) snapshot: Registration,
    pub(crate) reads: &'t ReadSet<K>,
}

impl<K: Ord + 'static> Certificate<'_, K> {
    /// Checks the claim against every version that is in the index now, and against expiries up to
    /// `until`. Under the commit lock the answer is exact. Outside of it, a conflict that is found is a
    /// conflict, but commits made meanwhile may be missed.
    ///
    /// The snapshot must be registered: otherwise a tombstone that shows a conflict, or the entry that
    /// holds it, could be trimmed away.
    pub(crate) fn check<T>(
        &self,
        index: &Reader<'_, K, T>,
        writes: &Batch<'_, K, T>,
        until: Time,
    ) -> Result<(), FluxError> {
        let snapshot = self.snapshot.read_point;
        match self.level {
            IsolationLevel::Serializable => {
                let mut points = self.reads.points();
                let mut ranges = self.reads.ranges();
                let changed = points.any(|hash| index.changed(hash, snapshot, until))
                    || ranges.any(|part| index.changed_within(part, snapshot, until))
                        && !planted("ranges-uncertified");
                if changed { Err(FluxError::SerializationConflict) } else { Ok(()) }
            }
            IsolationLevel::Snapshot => {
                let mut written = writes.hashes();
                // An expiry is not a commit, and reads are not checked: compare at the snapshot's own
                // time.
                let overtaken = written.any(|hash| index.changed(hash, snapshot, snapshot.time));
                if overtaken && !planted("last-committer-wins") {
                    Err(FluxError::WriteConflict)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Returns whether a commit that `is_it` accepts has changed a key or range of the claim, so that
    /// the claim does not hold and never will. It may miss such a commit if later commits have changed
    /// the same keys. `written` are the hashes of the keys that the transaction writes.
    pub(crate) fn is_undone_by<T>(
        &self,
        index: &Reader<'_, K, T>,
        mut written: impl Iterator<Item = u64>,
        is_it: impl Fn(Timestamp) -> bool,
    ) -> bool {
        let since = self.snapshot.read_point.timestamp;
        match self.level {
            IsolationLevel::Serializable => {
                let (mut points, mut ranges) = (self.reads.points(), self.reads.ranges());
                points.any(|hash| index.changed_by(hash, since, &is_it))
                    || ranges.any(|part| index.changed_within_by(part, since, &is_it))
            }
            IsolationLevel::Snapshot => written.any(|hash| index.changed_by(hash, since, &is_it)),
        }
    }
}
