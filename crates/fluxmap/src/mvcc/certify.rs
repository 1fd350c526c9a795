//! Certification: may this transaction commit now?
//!
//! The rule of write-snapshot isolation (Gómez Ferro and Yabandeh, "A critique of
//! snapshot isolation", EuroSys 2012): a transaction commits if nothing that it
//! read, present or absent, point or range, has been changed since its snapshot.
//!
//! Why that makes histories strictly serializable, in the order of commit
//! timestamps: certification and publication are one step under the commit lock.
//! A transaction that passes has read values that are still the newest at the
//! moment it commits, so it might as well have run, reads and writes, at that
//! moment, alone. One that wrote nothing might as well have run at the moment of
//! its snapshot, at which the commits before it are complete and no later one has
//! begun. Both moments lie between its call and its return.
//!
//! Blind writes are not reads: at this level they never conflict.
//!
//! A key that has expired since the snapshot counts as changed: the commit is certified at
//! the time that the database's hand shows under the lock, which no earlier view is ahead of.
//!
//! `Snapshot` isolation asks something else: that no key the transaction *wrote*
//! has been written since its snapshot (the first committer wins). What it read
//! is not looked at, hence write skew.

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
    /// Checks the claim against every version that is in the index now, and against what
    /// has expired up to `until`. Exact
    /// under the commit lock; before it is taken, what it finds is a conflict,
    /// and what it does not find may have been committed meanwhile.
    ///
    /// The snapshot must be registered: then neither a tombstone that answers
    /// the question nor the entry that holds it is trimmed away.
    pub(crate) fn check<T>(
        &self,
        index: &Reader<'_, K, T>,
        writes: &Batch<'_, K, T>,
        until: Time,
    ) -> Result<(), FluxError> {
        let snapshot = self.snapshot.moment;
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
                // An expiry is not a commit, and nothing that was read is looked at.
                let overtaken = written.any(|hash| index.changed(hash, snapshot, snapshot.time));
                if overtaken && !planted("last-committer-wins") {
                    Err(FluxError::WriteConflict)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Whether a commit that `is_it` accepts has changed what the claim is about, so that it does
    /// not hold and never will. May miss one behind which others have made the same change. `written`
    /// are the hashes of the keys that the transaction writes.
    pub(crate) fn is_undone_by<T>(
        &self,
        index: &Reader<'_, K, T>,
        mut written: impl Iterator<Item = u64>,
        is_it: impl Fn(Timestamp) -> bool,
    ) -> bool {
        let since = self.snapshot.moment.timestamp;
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
