//! The hash: finds entries by key.
//!
//! This is extendible hashing (Fagin, Nievergelt, Pippenger and Strong, TODS 1979): a
//! directory, indexed by the upper bits of the hash, leads to small segments,
//! and a segment that is full is replaced by two. So growth is spread over the
//! inserts in steps of a few hundred entries, and a look-up searches one segment
//! even while the hash grows. Within a segment, seven entries share a cache line
//! with their seven tags (seven bits of each hash) and a count of the entries that
//! found the line full and went on to the next. So most look-ups, hits and
//! misses alike, touch one line here.
//!
//! Readers see either the old segment or the new ones. The old segment keeps all of
//! its entries. A look-up that searches it began before it was replaced, and can miss
//! only entries that are inserted after that. Their commits are published later still,
//! so the look-up need not find them. Segments that have few entries left are merged
//! (`hash/shrink.rs`).

mod shrink;

use crate::Structure;
use crate::garbage::Garbage;
use crate::node::{Entry, HASH_BITS};
use crate::reclaim::Guard;
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, Tally};
use std::ptr::{self, NonNull};

/// Entries in a bucket: as many as fit into a cache line beside the tag word.
const WIDTH: usize = 7;
/// Buckets in a segment that has not degenerated.
#[cfg(not(loom))]
const SEGMENT_BUCKETS: usize = 64;
#[cfg(loom)]
const SEGMENT_BUCKETS: usize = 1;

/// The position in the tag word of the byte that counts entries which went on to the next bucket.
const OVERFLOW_SHIFT: u32 = 56;
const OVERFLOW_MAX: u64 = 0xff;
const TAG_BYTES: u64 = (1 << OVERFLOW_SHIFT) - 1;
const EACH_BYTE: u64 = 0x0101_0101_0101_0101;

#[repr(align(64))]
pub(crate) struct Bucket<K, T> {
    /// Byte `i`, from the lowest on: 0 if slot `i` is empty, else the tag of its entry. The
    /// topmost byte counts overflow.
    tags: AtomicU64,
    slots: [AtomicPtr<Entry<K, T>>; WIDTH],
}

/// A fixed number of buckets. A search begins at the bucket that the hash chooses.
pub(crate) struct HashSegment<K, T> {
    /// How many upper bits of the hash all entries share.
    depth: u32,
    /// The number of entries. Only the writer stores it.
    len: AtomicUsize,
    /// How many times an entry has come or gone. Stored after the change that it counts.
    changes: AtomicUsize,
    buckets: Box<[Bucket<K, T>]>,
}

/// The two segments that are to replace a full one, made before the writer's lock is taken. They
/// are right if the segment has not changed since.
pub(crate) struct SplitSegment<'g, K, T> {
    of: &'g HashSegment<K, T>,
    changes: usize,
    halves: [Box<HashSegment<K, T>>; 2],
}

/// Maps the upper bits of a hash to the segment for them.
pub(crate) struct SegmentDirectory<K, T> {
    depth: u32,
    segments: Box<[AtomicPtr<HashSegment<K, T>>]>,
}

/// The side of the index that finds single keys.
pub(crate) struct Table<K, T> {
    directory: AtomicPtr<SegmentDirectory<K, T>>,
    /// Only the writer stores these: the numbers of segments, of their buckets, and of the
    /// directory's slots.
    segments: Tally,
    buckets: Tally,
    slots: Tally,
    /// Writer only: the number of segments that are as deep as the directory. While there is
    /// none, the directory can be halved.
    deepest: Tally,
}

/// The tag of a hash. Never zero, and made of bits that choose neither the segment nor, in a
/// segment of usual size, the bucket.
fn tag_of(hash: u64) -> u64 {
    (hash >> 32) & 0x7f | 0x80
}

/// Marks with 0x80 the bytes of `tags` that equal `tag`. May also mark bytes above a
/// true match, which comparing keys rules out.
fn matching(tags: u64, tag: u64) -> u64 {
    let difference = (tags & TAG_BYTES | 0xff << OVERFLOW_SHIFT) ^ (EACH_BYTE * tag);
    difference.wrapping_sub(EACH_BYTE) & !difference & (EACH_BYTE << 7) & TAG_BYTES
}

impl<K, T> Bucket<K, T> {
    fn new() -> Self {
        Bucket { tags: AtomicU64::new(0), slots: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())) }
    }

    /// The first entry that `is_it` accepts among those whose tags match.
    fn find<'g>(
        &'g self,
        tags: u64,
        tag: u64,
        mut is_it: impl FnMut(&'g Entry<K, T>) -> bool,
        _pinned: &'g Guard<'_>,
    ) -> Option<&'g Entry<K, T>> {
        let mut left = matching(tags, tag);
        while left != 0 {
            let slot = left.trailing_zeros() as usize / 8;
            left &= left - 1;
            // Acquire: the slot may hold another entry than when the tags were read.
            let entry = self.slots[slot].load(Ordering::Acquire);
            // SAFETY: (I2, I5) a slot holds null, a linked entry, or an entry that
            // was unlinked after the pin was taken.
            let entry = unsafe { entry.as_ref() };
            if let Some(entry) = entry.filter(|entry| is_it(entry)) {
                return Some(entry);
            }
        }
        None
    }

    /// The entry that a search for this hash examines first, if it begins in this bucket.
    pub(crate) fn first<'g>(&'g self, hash: u64, pinned: &'g Guard<'_>) -> Option<&'g Entry<K, T>> {
        // Acquire: as in `Table::find`.
        self.find(self.tags.load(Ordering::Acquire), tag_of(hash), |_| true, pinned)
    }

    /// Writer: puts an entry into an empty slot, if there is one.
    fn put(&self, entry: NonNull<Entry<K, T>>, tag: u64) -> bool {
        let tags = self.tags.load(Ordering::Relaxed);
        let Some(slot) = (0..WIDTH).find(|slot| tags >> (slot * 8) & 0xff == 0) else {
            return false;
        };
        // Release, twice: (I2) a reader may reach the entry through either store, since the tag of
        // an earlier entry of this slot may lead it here, too.
        self.slots[slot].store(entry.as_ptr(), Ordering::Release);
        self.tags.store(tags | tag << (slot * 8), Ordering::Release);
        true
    }

    /// Writer: empties the slot that holds `entry`, if there is one in this bucket.
    fn take(&self, entry: NonNull<Entry<K, T>>) -> bool {
        let holds = |slot: &usize| ptr::eq(self.slots[*slot].load(Ordering::Relaxed), entry.as_ptr());
        let Some(slot) = (0..WIDTH).find(holds) else {
            return false;
        };
        let tags = self.tags.load(Ordering::Relaxed);
        self.tags.store(tags & !(0xff << (slot * 8)), Ordering::Release);
        self.slots[slot].store(ptr::null_mut(), Ordering::Release);
        true
    }

    fn overflow(tags: u64) -> u64 {
        tags >> OVERFLOW_SHIFT
    }

    /// Writer: counts one more, or one less, of the entries that went past this bucket.
    /// A count at its maximum stays there, which costs look-ups one step more.
    fn count_overflow(&self, more: bool) {
        let tags = self.tags.load(Ordering::Relaxed);
        let count = match Self::overflow(tags) {
            OVERFLOW_MAX => OVERFLOW_MAX,
            count if more => count + 1,
            count => count.saturating_sub(1),
        };
        self.tags.store(tags & TAG_BYTES | count << OVERFLOW_SHIFT, Ordering::Release);
    }
}

impl<K, T> HashSegment<K, T> {
    fn boxed(depth: u32, buckets: usize) -> Box<Self> {
        Box::new(HashSegment {
            depth,
            len: AtomicUsize::new(0),
            changes: AtomicUsize::new(0),
            buckets: (0..buckets).map(|_| Bucket::new()).collect(),
        })
    }

    /// The memory of the segment.
    pub(crate) fn structure(&self) -> Structure {
        Structure { bytes: size_of::<Self>() + size_of_val(&*self.buckets), allocations: 2 }
    }

    /// The buckets in the order in which `hash` tries them.
    fn probe(&self, hash: u64) -> impl Iterator<Item = &Bucket<K, T>> {
        let mask = self.buckets.len() - 1;
        let home = (hash >> 24) as usize & mask;
        (0..self.buckets.len()).map(move |step| &self.buckets[(home + step) & mask])
    }

    fn is_full(&self) -> bool {
        // Full at seven eighths: above that, too many entries overflow their bucket.
        self.len.load(Ordering::Relaxed) * 8 >= self.buckets.len() * WIDTH * 7
    }

    /// Writer: adds an entry; a segment that is not full has room.
    fn insert(&self, entry: NonNull<Entry<K, T>>, hash: u64) {
        for bucket in self.probe(hash) {
            if bucket.put(entry, tag_of(hash)) {
                return self.count(1);
            }
            // Before the entry is put into a later bucket: a search stops at a bucket without
            // overflow.
            bucket.count_overflow(true);
        }
        unreachable!("a segment is split before its last slot is taken");
    }

    /// Writer: removes an entry.
    fn remove(&self, entry: NonNull<Entry<K, T>>, hash: u64) {
        let Some(distance) = self.probe(hash).position(|bucket| bucket.take(entry)) else {
            return;
        };
        for bucket in self.probe(hash).take(distance) {
            bucket.count_overflow(false);
        }
        self.count(-1);
    }

    /// Writer: changes the number of entries by `more`, and counts the change.
    fn count(&self, more: isize) {
        // Relaxed, loads: (I1).
        self.len.store(self.len.load(Ordering::Relaxed).wrapping_add_signed(more), Ordering::Relaxed);
        // Release: pairs with `changes`.
        self.changes.store(self.changes.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    fn changes(&self) -> usize {
        // Acquire: a thread that reads the entries next sees every change that has been counted.
        self.changes.load(Ordering::Acquire)
    }

    /// All entries with their hashes. Entries that come or go meanwhile may or may not be included.
    fn entries(&self, _pinned: &Guard<'_>) -> impl Iterator<Item = (NonNull<Entry<K, T>>, u64)> {
        let slots = self.buckets.iter().flat_map(|bucket| &bucket.slots);
        // Acquire: as in `Bucket::find`.
        let entries = slots.filter_map(|slot| NonNull::new(slot.load(Ordering::Acquire)));
        // SAFETY: (I2, I5) as in `Bucket::find`.
        entries.map(|entry| (entry, unsafe { entry.as_ref() }.hash()))
    }

    /// Two segments with the entries of this one, divided by one more bit of the hash.
    fn halved(&self, pinned: &Guard<'_>) -> [Box<Self>; 2] {
        let depth = self.depth + 1;
        let halves = [(); 2].map(|()| HashSegment::boxed(depth, self.buckets.len()));
        for (entry, hash) in self.entries(pinned) {
            halves[(hash >> (64 - depth)) as usize & 1].insert(entry, hash);
        }
        // A segment that has degenerated may give all of its entries to one half, so that the
        // other needs fewer buckets.
        halves.map(|half| half.narrowed(pinned).unwrap_or(half))
    }
}

impl<K, T> SegmentDirectory<K, T> {
    /// The memory of the directory, without the segments.
    pub(crate) fn structure(&self) -> Structure {
        Structure { bytes: size_of::<Self>() + size_of_val(&*self.segments), allocations: 2 }
    }

    fn index(&self, hash: u64) -> usize {
        // At depth 0 the shift is by 64, which `>>` does not allow.
        hash.checked_shr(64 - self.depth).unwrap_or(0) as usize
    }
}

impl<K, T> Table<K, T> {
    pub(crate) fn new() -> Self {
        let segment = Box::into_raw(HashSegment::boxed(0, SEGMENT_BUCKETS));
        let directory = SegmentDirectory { depth: 0, segments: Box::new([AtomicPtr::new(segment)]) };
        Table {
            directory: AtomicPtr::new(Box::into_raw(Box::new(directory))),
            segments: Tally::new(1),
            buckets: Tally::new(SEGMENT_BUCKETS as u64),
            slots: Tally::new(1),
            deepest: Tally::new(1),
        }
    }

    /// The memory of the table.
    pub(crate) fn structure(&self) -> Structure {
        let [segments, buckets, slots] =
            [&self.segments, &self.buckets, &self.slots].map(|tally| tally.load(Ordering::Relaxed) as usize);
        let bytes = buckets * size_of::<Bucket<K, T>>()
            + segments * size_of::<HashSegment<K, T>>()
            + slots * size_of::<AtomicPtr<HashSegment<K, T>>>();
        Structure { bytes, allocations: 2 * segments + 2 }
    }

    fn change(tally: &Tally, by: isize) {
        // Relaxed, load and store: (I1) only the writer stores these.
        tally.store(tally.load(Ordering::Relaxed).wrapping_add_signed(by as i64), Ordering::Relaxed);
    }

    fn directory<'g>(&self, _pinned: &'g Guard<'_>) -> &'g SegmentDirectory<K, T> {
        // SAFETY: (I2, I5) never null; a directory that is replaced is retired.
        unsafe { &*self.directory.load(Ordering::Acquire) }
    }

    fn segment<'g>(&self, hash: u64, pinned: &'g Guard<'_>) -> &'g HashSegment<K, T> {
        let directory = self.directory(pinned);
        let segment = directory.segments[directory.index(hash)].load(Ordering::Acquire);
        // SAFETY: (I2, I5) never null; a segment that is replaced is retired.
        unsafe { &*segment }
    }

    /// The entry with this hash that `is_it` accepts.
    pub(crate) fn find<'g>(
        &'g self,
        hash: u64,
        mut is_it: impl FnMut(&'g Entry<K, T>) -> bool,
        pinned: &'g Guard<'_>,
    ) -> Option<&'g Entry<K, T>> {
        for bucket in self.segment(hash, pinned).probe(hash) {
            // Acquire: pairs with `put`. An entry that went past this bucket was
            // counted here before it was published.
            let tags = bucket.tags.load(Ordering::Acquire);
            let same = |entry: &'g Entry<K, T>| entry.hash() == hash & HASH_BITS && is_it(entry);
            let found = bucket.find(tags, tag_of(hash), same, pinned);
            if found.is_some() || Bucket::<K, T>::overflow(tags) == 0 {
                return found;
            }
        }
        None
    }

    /// The bucket where the search for this hash begins.
    pub(crate) fn home<'g>(&self, hash: u64, pinned: &'g Guard<'_>) -> Option<&'g Bucket<K, T>> {
        self.segment(hash, pinned).probe(hash).next()
    }

    /// The halves that [`insert`](Self::insert) will need for an entry with this hash, if its
    /// segment is full and the directory can tell them apart already.
    pub(crate) fn presplit<'g>(&self, hash: u64, pinned: &'g Guard<'_>) -> Option<SplitSegment<'g, K, T>> {
        let of = self.segment(hash, pinned);
        // Before the entries are read, so that a change meanwhile makes the halves outdated.
        let changes = of.changes();
        let is_needed = of.is_full() && of.depth < self.directory(pinned).depth;
        is_needed.then(|| SplitSegment { of, changes, halves: of.halved(pinned) })
    }

    /// Writer: adds an entry that is not in the table. Takes `halves` if they are still right.
    pub(crate) fn insert(
        &self,
        entry: NonNull<Entry<K, T>>,
        hash: u64,
        total: usize,
        halves: &mut Option<SplitSegment<'_, K, T>>,
        pinned: &Guard<'_>,
        mut retire: impl FnMut(Garbage<K, T>),
    ) {
        loop {
            let segment = self.segment(hash, pinned);
            if !segment.is_full() {
                return segment.insert(entry, hash);
            }
            // Compare both: a new segment may have made as many changes as the old one had.
            let is_right = |halves: &mut SplitSegment<'_, K, T>| {
                ptr::eq(halves.of, segment) && halves.changes == segment.changes()
            };
            let halves = halves.take_if(is_right).map(|halves| halves.halves);
            self.grow(hash, total, halves, pinned, &mut retire);
        }
    }

    /// Writer: removes an entry that is in the table, and makes the table smaller if it can.
    pub(crate) fn remove(
        &self,
        entry: NonNull<Entry<K, T>>,
        hash: u64,
        pinned: &Guard<'_>,
        mut retire: impl FnMut(Garbage<K, T>),
    ) {
        self.segment(hash, pinned).remove(entry, hash);
        self.shrink(hash, pinned, &mut retire);
    }

    /// Writer: takes one step to make room in the full segment where `hash` belongs.
    fn grow(
        &self,
        hash: u64,
        total: usize,
        halves: Option<[Box<HashSegment<K, T>>; 2]>,
        pinned: &Guard<'_>,
        retire: &mut impl FnMut(Garbage<K, T>),
    ) {
        let directory = self.directory(pinned);
        let old = self.segment(hash, pinned);
        let depth = old.depth;
        if depth < directory.depth {
            let halves = halves.unwrap_or_else(|| old.halved(pinned));
            self.split(directory, old, hash, halves, retire);
        } else if directory.segments.len() < 8 + total / 32 {
            self.double(directory, retire);
        } else {
            // The directory is large for so few entries, so their hashes agree in many bits, and
            // one more bit will probably not tell them apart. A larger segment keeps the
            // directory in proportion to the entries.
            Self::change(&self.buckets, old.buckets.len() as isize);
            let larger = HashSegment::boxed(depth, old.buckets.len() * 2);
            old.entries(pinned).for_each(|(entry, hash)| larger.insert(entry, hash));
            retire(Garbage::segment(replace(directory, hash, depth, larger)));
        }
    }

    /// Writer: replaces `old` by its halves.
    fn split(
        &self,
        directory: &SegmentDirectory<K, T>,
        old: &HashSegment<K, T>,
        hash: u64,
        [zeros, ones]: [Box<HashSegment<K, T>>; 2],
        retire: &mut impl FnMut(Garbage<K, T>),
    ) {
        Self::change(&self.segments, 1);
        let buckets = zeros.buckets.len() + ones.buckets.len();
        Self::change(&self.buckets, buckets as isize - old.buckets.len() as isize);
        let depth = old.depth + 1;
        if depth == directory.depth {
            Self::change(&self.deepest, 2);
        }
        let bit = 1 << (64 - depth);
        // The directory leads to the old segment until the second half replaces it, too. So it is
        // retired once, after that.
        let _still_linked = replace(directory, hash & !bit, depth, zeros);
        retire(Garbage::segment(replace(directory, hash | bit, depth, ones)));
    }

    /// Writer: replaces the directory by one of twice the length, with the same segments.
    fn double(&self, directory: &SegmentDirectory<K, T>, retire: &mut impl FnMut(Garbage<K, T>)) {
        Self::change(&self.slots, directory.segments.len() as isize);
        // No segment needs the new bit yet. Relaxed: (I1).
        self.deepest.store(0, Ordering::Relaxed);
        let twice = directory.segments.iter().flat_map(|segment| {
            let segment = segment.load(Ordering::Relaxed);
            [AtomicPtr::new(segment), AtomicPtr::new(segment)]
        });
        let doubled = SegmentDirectory { depth: directory.depth + 1, segments: twice.collect() };
        let old = self.directory.load(Ordering::Relaxed);
        // Release: (I2).
        self.directory.store(Box::into_raw(Box::new(doubled)), Ordering::Release);
        retire(Garbage::directory(old));
    }
}

/// Writer: makes every slot for the first `depth` bits of `hash` lead to `fresh`,
/// and returns the segment to which the first of them led.
fn replace<K, T>(
    directory: &SegmentDirectory<K, T>,
    hash: u64,
    depth: u32,
    fresh: Box<HashSegment<K, T>>,
) -> *mut HashSegment<K, T> {
    let copies = 1 << (directory.depth - depth);
    let first = directory.index(hash) / copies * copies;
    let old = directory.segments[first].load(Ordering::Relaxed);
    let fresh = Box::into_raw(fresh);
    for slot in &directory.segments[first..first + copies] {
        // Release: (I2).
        slot.store(fresh, Ordering::Release);
    }
    old
}

impl<K, T> Drop for Table<K, T> {
    fn drop(&mut self) {
        // SAFETY: (I10) nobody else can reach the table; its directory is owned
        // by this one pointer.
        let directory = unsafe { Box::from_raw(self.directory.load(Ordering::Relaxed)) };
        let mut index = 0;
        while index < directory.segments.len() {
            // SAFETY: (I4, I10) each segment fills one aligned run of slots, as
            // long as its depth says, so this loop meets it once.
            let segment = unsafe { Box::from_raw(directory.segments[index].load(Ordering::Relaxed)) };
            index += 1 << (directory.depth - segment.depth);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
