use super::*;
use std::collections::BTreeSet;

/// Entries in a full segment that has not degenerated.
const FULL: usize = SEGMENT_BUCKETS * WIDTH * 7 / 8;

impl<K, T> Table<K, T> {
    /// Asserts I8 for the hash: that it holds exactly the `expected` entries, each where its
    /// hash leads, and that a look-up finds it there.
    pub(crate) fn check(&self, expected: &BTreeSet<NonNull<Entry<K, T>>>, pinned: &Guard<'_>) {
        let directory = self.directory(pinned);
        assert_eq!(directory.segments.len(), 1 << directory.depth);
        let mut met = BTreeSet::new();
        let mut index = 0;
        let (mut depths, mut bytes) = (Vec::new(), 0);
        let mut last: Option<&HashSegment<K, T>> = None;
        while index < directory.segments.len() {
            // SAFETY: (I5) as in `Table::segment`.
            let segment = unsafe { &*directory.segments[index].load(Ordering::Relaxed) };
            let copies = 1 << (directory.depth - segment.depth);
            assert_eq!(index % copies, 0, "a segment fills an aligned run of slots");
            for slot in &directory.segments[index..index + copies] {
                assert!(ptr::eq(slot.load(Ordering::Relaxed), segment));
            }
            segment.check(pinned);
            bytes += segment.structure().bytes;
            depths.push(segment.depth);
            if let Some(last) = last.filter(|last| last.depth == segment.depth && index / copies % 2 == 1) {
                let len =
                    [last, segment].map(|segment| segment.len.load(Ordering::Relaxed)).iter().sum::<usize>();
                assert!(len * 4 > FULL, "two segments with {len} entries together");
            }
            last = Some(segment);
            for (entry, hash) in segment.entries(pinned) {
                met.insert(entry);
                assert_eq!(directory.index(hash) / copies, index / copies);
                let found = self.find(hash, |other| ptr::eq(other, entry.as_ptr()), pinned);
                assert!(found.is_some(), "an entry that look-ups miss");
            }
            index += copies;
        }
        assert_eq!(&met, expected);
        // The figures agree with a count.
        let deepest = depths.iter().filter(|depth| **depth == directory.depth).count();
        assert!(deepest > 0, "a directory with bits that no segment needs");
        assert_eq!(self.deepest.load(Ordering::Relaxed), deepest as u64);
        let slots = size_of_val(&*directory.segments);
        let structure = Structure { bytes: bytes + slots, allocations: 2 * depths.len() + 2 };
        assert_eq!(self.structure(), structure);
    }
}

impl<K, T> HashSegment<K, T> {
    fn check(&self, pinned: &Guard<'_>) {
        let len = self.len.load(Ordering::Relaxed);
        assert_eq!(len, self.entries(pinned).count());
        let buckets = self.buckets.len();
        assert!(buckets == SEGMENT_BUCKETS || len * 32 > buckets * WIDTH * 7, "{len} in {buckets} buckets");
        let mut passed = vec![0; self.buckets.len()];
        for (at, bucket) in self.buckets.iter().enumerate() {
            let tags = bucket.tags.load(Ordering::Relaxed);
            for (slot, entry) in bucket.slots.iter().enumerate() {
                let tag = tags >> (slot * 8) & 0xff;
                let entry = entry.load(Ordering::Relaxed);
                // SAFETY: (I5) null, or linked.
                let Some(entry) = (unsafe { entry.as_ref() }) else {
                    assert_eq!(tag, 0);
                    continue;
                };
                assert_eq!(tag, tag_of(entry.hash()));
                assert!(!entry.is_unlinked());
                let mask = self.buckets.len() - 1;
                let home = (entry.hash() >> 24) as usize & mask;
                (0..(at.wrapping_sub(home) & mask)).for_each(|step| passed[(home + step) & mask] += 1);
                let found = bucket.find(tags, tag, |other| ptr::eq(other, entry), pinned);
                assert!(found.is_some());
            }
        }
        for (bucket, passed) in self.buckets.iter().zip(passed) {
            let counted = Bucket::<K, T>::overflow(bucket.tags.load(Ordering::Relaxed));
            assert!(counted == passed || counted == OVERFLOW_MAX, "{counted} of {passed}");
        }
    }
}

#[test]
fn matching_misses_nothing_and_stays_below_the_count() {
    let mut state = 1_u64;
    for _ in 0..200_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Use few different tags, so that there are matches, and tags that differ from the one
        // sought only in the lowest bit.
        let tags = (state >> 8) & 0x8181_8181_8181_8181 | (state & 0xff) << OVERFLOW_SHIFT;
        let tag = 0x80 | state >> 60 & 1;
        let found = matching(tags, tag);
        assert_eq!(found & !(0x80_8080_8080_8080), 0);
        let is_match = |slot: &usize| tags >> (slot * 8) & 0xff == tag;
        let first = (0..WIDTH).find(is_match);
        assert_eq!(first.is_some(), found != 0);
        for slot in (0..WIDTH).filter(is_match) {
            assert_ne!(found & 0x80 << (slot * 8), 0);
        }
        // False matches are above a true one.
        assert_eq!(first.unwrap_or(0), found.trailing_zeros() as usize / 8 % 8);
    }
}

#[test]
fn a_count_of_overflow_sticks_when_it_is_full() {
    let bucket = Bucket::<(), ()>::new();
    (0..300).for_each(|_| bucket.count_overflow(true));
    (0..300).for_each(|_| bucket.count_overflow(false));
    assert_eq!(Bucket::<(), ()>::overflow(bucket.tags.load(Ordering::Relaxed)), OVERFLOW_MAX);

    let bucket = Bucket::<(), ()>::new();
    (0..200).for_each(|_| bucket.count_overflow(true));
    (0..200).for_each(|_| bucket.count_overflow(false));
    assert_eq!(bucket.tags.load(Ordering::Relaxed), 0);
}
