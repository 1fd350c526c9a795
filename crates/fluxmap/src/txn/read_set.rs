//! A transaction's reads, as certification needs them.
//!
//! A point is kept as the hash of its key, present or absent: equal keys have equal hashes, so no change
//! is missed, and looking up a borrowed form needs no owned key. A range is kept as the part of it that
//! was consumed.

use crate::key::SpanPart;

/// The points and ranges that a transaction has read.
pub(crate) struct ReadSet<K> {
    points: Vec<u64>,
    /// The number of points at which duplicates are removed next.
    compact_at: usize,
    /// Ended scans that consumed nothing leave a `None`.
    ranges: Vec<Option<SpanPart<K>>>,
}

/// The index of an unfinished scan's range in the read set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RangeId(usize);

const FIRST_COMPACTION: usize = 1024;
/// The initial capacity for points.
const FEW: usize = 8;

impl<K> Default for ReadSet<K> {
    fn default() -> Self {
        ReadSet { points: Vec::new(), compact_at: FIRST_COMPACTION, ranges: Vec::new() }
    }
}

impl<K> ReadSet<K> {
    /// Adds a point, in amortized constant time. Memory is bounded by the number of different keys,
    /// however often each is read.
    pub(crate) fn note_point(&mut self, hash: u64) {
        if self.points.last() == Some(&hash) {
            return;
        }
        if self.points.capacity() == 0 {
            self.points = Vec::with_capacity(FEW);
        } else if self.points.len() >= self.compact_at {
            self.points.sort_unstable();
            self.points.dedup();
            self.compact_at = FIRST_COMPACTION.max(self.points.len() * 2);
        }
        self.points.push(hash);
    }

    /// Adds a range whose scan begins. Until [`end_scan`](Self::end_scan) reports how far the scan came,
    /// the whole range counts as read, so a scan that is never ended is on the safe side.
    pub(crate) fn begin_scan(&mut self, whole: SpanPart<K>) -> RangeId {
        self.ranges.push(Some(whole));
        RangeId(self.ranges.len() - 1)
    }

    /// Replaces the range of a scan by the parts of it that were consumed.
    pub(crate) fn end_scan(&mut self, scan: RangeId, consumed: impl IntoIterator<Item = SpanPart<K>>) {
        let mut consumed = consumed.into_iter();
        self.ranges[scan.0] = consumed.next();
        self.ranges.extend(consumed.map(Some));
        while self.ranges.last().is_some_and(Option::is_none) {
            self.ranges.pop();
        }
    }

    /// Returns the hashes of the points.
    pub(crate) fn points(&self) -> impl Iterator<Item = u64> {
        self.points.iter().copied()
    }

    /// Returns the ranges.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = &SpanPart<K>> {
        self.ranges.iter().flatten()
    }

    /// Returns whether checking the read set takes a few look-ups only. Ranges may be long.
    pub(crate) fn is_cheap(&self) -> bool {
        self.points.len() <= 64 && self.ranges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeySpan;

    #[test]
    fn reading_the_same_keys_again_takes_no_more_memory() {
        let mut reads = ReadSet::<u32>::default();
        for round in 0..1_000_000_u64 {
            reads.note_point(round % 100);
        }
        assert!(reads.points().count() <= FIRST_COMPACTION);
        let mut distinct: Vec<u64> = reads.points().collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_scan_counts_wholly_until_it_ends_and_then_as_far_as_it_came() {
        let mut reads = ReadSet::<u32>::default();
        let whole = || SpanPart::whole(KeySpan::range(..));
        let (first, second) = (reads.begin_scan(whole()), reads.begin_scan(whole()));
        assert_eq!(reads.ranges().count(), 2);
        reads.end_scan(first, []);
        assert_eq!(reads.ranges().count(), 1);
        reads.end_scan(second, [whole(), whole()]);
        assert_eq!(reads.ranges().count(), 2);
    }
}
