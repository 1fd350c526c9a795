//! How the hash gives back memory when entries are removed.
//!
//! A segment that has lost most of its entries is merged with its *buddy*, the segment whose
//! hashes differ from its own only in the last bit of the depth. The directory is halved when no
//! segment needs its last bit. These are a split and a doubling backwards, and as safe for
//! readers: the merged segment holds all entries of the two before the first slot leads to it.
//! The two old segments get no more entries, and keep their own until no pin can lead to them.
//! A look-up that searches an old segment began before that was replaced, so it finds every entry
//! that was linked when it began and still is.
//!
//! Two segments are merged when both together have at most a quarter of the entries that fill one.
//! So between a split and a merge in one place, three quarters of a segment have to come or go,
//! which is more than are moved. If the number of entries only varies a little, nothing is moved.

use super::{HashSegment, SEGMENT_BUCKETS, SegmentDirectory, Table, WIDTH, replace};
use crate::garbage::Garbage;
use crate::reclaim::Guard;
use crate::sync::{AtomicPtr, Ordering};

/// How many quarters of a full segment count as few. Two at most: the few entries of a segment
/// must fit into a segment with half as many buckets.
#[cfg(not(loom))]
const QUARTERS: usize = 1;
/// More in models, so that they need fewer commits: loom tries all orders of them.
#[cfg(loom)]
const QUARTERS: usize = 2;

/// Whether `len` entries are few for this number of buckets: at most [`QUARTERS`] quarters of the
/// entries that make them full, see [`HashSegment::is_full`].
fn are_few(len: usize, buckets: usize) -> bool {
    len * 4 * 8 <= buckets * WIDTH * 7 * QUARTERS
}

impl<K, T> HashSegment<K, T> {
    /// How many entries the segment has. For the writer, or for a segment that is not linked yet.
    fn len(&self) -> usize {
        // Relaxed: (I1).
        self.len.load(Ordering::Relaxed)
    }

    /// A segment with the same entries in fewer buckets, if this one has more than the usual
    /// number of buckets and few entries.
    pub(super) fn narrowed(&self, pinned: &Guard<'_>) -> Option<Box<Self>> {
        let mut buckets = self.buckets.len();
        while buckets > SEGMENT_BUCKETS && are_few(self.len(), buckets) {
            buckets /= 2;
        }
        (buckets < self.buckets.len()).then(|| {
            let narrower = HashSegment::boxed(self.depth, buckets);
            self.entries(pinned).for_each(|(entry, hash)| narrower.insert(entry, hash));
            narrower
        })
    }
}

impl<K, T> Table<K, T> {
    /// Writer: makes the table smaller if the segment to which `hash` leads, which has lost an
    /// entry, has few entries left, alone or with its buddy. Moves at most a quarter of a full
    /// segment for each bit of the directory, and mostly nothing.
    pub(super) fn shrink(&self, hash: u64, pinned: &Guard<'_>, retire: &mut impl FnMut(Garbage<K, T>)) {
        loop {
            let segment = self.segment(hash, pinned);
            if !are_few(segment.len(), segment.buckets.len()) {
                return;
            }
            if let Some(buddy) = self.buddy(segment, hash, pinned)
                && are_few(segment.len() + buddy.len(), SEGMENT_BUCKETS)
            {
                // Go on: the merged segment may have a buddy with as few entries.
                self.merge(segment, buddy, hash, pinned, retire);
            } else if let Some(narrower) = segment.narrowed(pinned) {
                Self::change(&self.buckets, narrower.buckets.len() as isize - segment.buckets.len() as isize);
                retire(Garbage::segment(replace(self.directory(pinned), hash, segment.depth, narrower)));
            } else {
                return;
            }
        }
    }

    /// Writer: the buddy of `segment`, to which `hash` leads: the segment of the same depth whose
    /// hashes differ only in the last bit of it. `None` if that has been split into deeper ones.
    fn buddy<'g>(
        &self,
        segment: &HashSegment<K, T>,
        hash: u64,
        pinned: &'g Guard<'_>,
    ) -> Option<&'g HashSegment<K, T>> {
        let bit = last_bit(segment.depth)?;
        let other = self.segment(hash ^ bit, pinned);
        (other.depth == segment.depth).then_some(other)
    }

    /// Writer: replaces two buddies by one segment with all of their entries.
    fn merge(
        &self,
        segment: &HashSegment<K, T>,
        buddy: &HashSegment<K, T>,
        hash: u64,
        pinned: &Guard<'_>,
        retire: &mut impl FnMut(Garbage<K, T>),
    ) {
        let directory = self.directory(pinned);
        let (depth, Some(bit)) = (segment.depth, last_bit(segment.depth)) else {
            return;
        };
        let merged = HashSegment::boxed(depth - 1, SEGMENT_BUCKETS);
        for (entry, hash) in segment.entries(pinned).chain(buddy.entries(pinned)) {
            merged.insert(entry, hash);
        }
        Self::change(&self.segments, -1);
        let buckets = segment.buckets.len() + buddy.buckets.len();
        Self::change(&self.buckets, SEGMENT_BUCKETS as isize - buckets as isize);
        // Read before `replace` overwrites the slot. Relaxed: (I1).
        let ones = directory.segments[directory.index(hash | bit)].load(Ordering::Relaxed);
        // Both segments leave the directory here. `replace` returns the first of the two.
        let zeros = replace(directory, hash, depth - 1, merged);
        retire(Garbage::segment(zeros));
        retire(Garbage::segment(ones));
        if depth == directory.depth {
            Self::change(&self.deepest, -2);
            self.halve(pinned, retire);
        }
    }

    /// Writer: halves the directory as long as no segment needs its last bit.
    fn halve(&self, pinned: &Guard<'_>, retire: &mut impl FnMut(Garbage<K, T>)) {
        // Relaxed, here and below: (I1).
        while self.deepest.load(Ordering::Relaxed) == 0 {
            let directory = self.directory(pinned);
            let Some(depth) = directory.depth.checked_sub(1) else {
                return;
            };
            let slots = directory.segments.iter().step_by(2);
            let segments: Box<[_]> = slots.map(|slot| AtomicPtr::new(slot.load(Ordering::Relaxed))).collect();
            let is_deepest = |slot: &&AtomicPtr<HashSegment<K, T>>| {
                // SAFETY: (I9) linked.
                unsafe { &*slot.load(Ordering::Relaxed) }.depth == depth
            };
            Self::change(&self.deepest, segments.iter().filter(is_deepest).count() as isize);
            Self::change(&self.slots, -(segments.len() as isize));
            let halved = Box::into_raw(Box::new(SegmentDirectory { depth, segments }));
            let old = self.directory.load(Ordering::Relaxed);
            // Release: (I2).
            self.directory.store(halved, Ordering::Release);
            retire(Garbage::directory(old));
        }
    }
}

/// The last of the `depth` upper bits of a hash; `None` at depth zero.
fn last_bit(depth: u32) -> Option<u64> {
    (depth > 0).then(|| 1 << (64 - depth))
}
