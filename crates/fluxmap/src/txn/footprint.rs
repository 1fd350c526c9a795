//! The footprint of a transaction that keeps losing: everything that it has read in this attempt and the
//! one before, which its lease protects. At the snapshot level, where reads are not certified, the
//! footprint is everything that the transaction writes.

use crate::key::SpanPart;
use crate::sync::Mutex;
use crate::txn::priority::{Guarded, Protects};
use crate::txn::read_set::RangeId;
use crate::txn::watch::Watch;
use fluxmap_index::{HASH_BITS, Span, planted};
use foldhash::fast::FixedState;
use std::any::Any;
use std::collections::HashSet;
use std::mem;
use std::sync::Arc;

/// The footprint of one transaction, from attempt to attempt. Comparing and dropping keys runs user
/// code, so neither happens under its lock. Evictions compare under the commit lock; see [`Copied`].
pub(crate) struct Footprint<K> {
    attempts: Mutex<Attempts<K>>,
    watch: Arc<Watch>,
}

struct Attempts<K> {
    present: AttemptReads<K>,
    last: AttemptReads<K>,
}

/// The reads of one attempt.
struct AttemptReads<K> {
    points: Points,
    ranges: Vec<Arc<SpanPart<K>>>,
    /// The ranges of unfinished scans, each counted as read wholly.
    scans: Vec<(RangeId, Arc<SpanPart<K>>)>,
}

impl<K> Default for AttemptReads<K> {
    fn default() -> Self {
        AttemptReads { points: Points::default(), ranges: Vec::new(), scans: Vec::new() }
    }
}

/// The hashes of keys, as certification compares them. Most attempts end before another commit asks for
/// one of them, so hashes are collected in a list, and put into a set when somebody asks.
#[derive(Default)]
struct Points {
    noted: Vec<u64>,
    indexed: HashSet<u64, FixedState>,
}

/// The number of hashes after which the list goes into the set although nobody has asked, so that memory
/// is bounded by the number of different keys.
const MOST_NOTED: usize = 1 << 16;

impl Points {
    fn note(&mut self, hash: u64) {
        if self.noted.len() >= MOST_NOTED {
            self.index();
        }
        self.noted.push(hash & HASH_BITS);
    }

    fn contains(&mut self, hash: u64) -> bool {
        self.index();
        self.indexed.contains(&(hash & HASH_BITS))
    }

    fn index(&mut self) {
        self.indexed.extend(self.noted.drain(..));
    }
}

impl<K> Footprint<K> {
    pub(crate) fn new(watch: Arc<Watch>) -> Self {
        let attempts = Attempts { present: AttemptReads::default(), last: AttemptReads::default() };
        Footprint { attempts: Mutex::new(attempts), watch }
    }

    /// Starts another attempt: the present reads become the previous ones.
    pub(crate) fn begin_attempt(&self) {
        let mut attempts = self.attempts.lock();
        let present = mem::take(&mut attempts.present);
        let forgotten = mem::replace(&mut attempts.last, present);
        drop(attempts);
        drop(forgotten);
    }

    /// Adds a key, by its hash.
    pub(crate) fn note_point(&self, hash: u64) {
        self.watch.sign();
        self.attempts.lock().present.points.note(hash);
    }

    /// Adds a scan of this range that has begun.
    pub(crate) fn begin_scan(&self, scan: RangeId, whole: SpanPart<K>) {
        self.watch.sign();
        self.attempts.lock().present.scans.push((scan, Arc::new(whole)));
    }

    /// Replaces the range of a scan by the parts of it that were read.
    pub(crate) fn end_scan(&self, scan: RangeId, consumed: Vec<SpanPart<K>>) {
        self.watch.sign();
        let consumed = consumed.into_iter().map(Arc::new);
        let mut attempts = self.attempts.lock();
        let present = &mut attempts.present;
        let at = present.scans.iter().position(|(id, _)| *id == scan);
        let whole = at.map(|at| present.scans.swap_remove(at));
        present.ranges.extend(consumed);
        drop(attempts);
        drop(whole);
    }
}

impl<K> AttemptReads<K> {
    fn all_ranges(&self) -> impl Iterator<Item = &Arc<SpanPart<K>>> {
        self.ranges.iter().chain(self.scans.iter().map(|(_, whole)| whole))
    }
}

impl<K> Footprint<K> {
    /// Returns whether a key with this hash was read.
    fn has_point(&self, hash: u64) -> bool {
        let mut attempts = self.attempts.lock();
        let Attempts { present, last } = &mut *attempts;
        present.points.contains(hash)
            || last.points.contains(hash) && !planted("lease-forgets-the-attempt-before")
    }

    fn ranges(&self) -> Vec<Arc<SpanPart<K>>> {
        let attempts = self.attempts.lock();
        attempts.present.all_ranges().chain(attempts.last.all_ranges()).map(Arc::clone).collect()
    }
}

/// Returns whether one of the ranges contains the key.
fn contain_key<K: Ord + 'static>(ranges: &[Arc<SpanPart<K>>], key: &dyn Any) -> bool {
    let Some(key) = key.downcast_ref::<K>() else { return false };
    ranges.iter().any(|range| !range.is_before(key) && !range.is_after(key))
}

impl<K: Ord + Send + Sync + 'static> Protects for Footprint<K> {
    fn covers(&self, hash: u64, key: &dyn Any) -> bool {
        let hash = if planted("lease-protects-the-wrong-keys") { !hash } else { hash };
        self.has_point(hash) || contain_key(&self.ranges(), key) && !planted("lease-leaves-out-ranges")
    }

    fn guard(self: Arc<Self>) -> Box<dyn Guarded> {
        Box::new(Copied { ranges: self.ranges(), footprint: self })
    }
}

/// A footprint with a copy of its ranges: the copy keeps their keys alive, so that comparing drops none.
struct Copied<K> {
    footprint: Arc<Footprint<K>>,
    ranges: Vec<Arc<SpanPart<K>>>,
}

impl<K: Ord + 'static> Guarded for Copied<K> {
    fn covers(&self, hash: u64, key: &dyn Any) -> bool {
        self.footprint.has_point(hash) || contain_key(&self.ranges, key)
    }

    fn ranges(&self) -> usize {
        self.ranges.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_found_however_often_somebody_asks_and_take_no_more_memory_for_being_read_again() {
        let mut points = Points::default();
        for round in 0..10 * MOST_NOTED as u64 {
            points.note((round % 100) << 40);
            assert!(points.noted.len() <= MOST_NOTED);
            if round % 1_000 == 7 {
                assert_eq!((points.contains(7 << 40), points.contains(100 << 40)), (true, false));
            }
        }
        assert_eq!((points.noted.capacity() <= MOST_NOTED, points.indexed.len()), (true, 100));
    }
}
