//! The hash: points to entries by key.
//!
//! Extendible hashing (Fagin, Nievergelt, Pippenger and Strong, TODS 1979): a
//! directory, indexed by the upper bits of the hash, leads to small segments,
//! and a segment that fills is replaced by two. So growth is spread over the
//! inserts in steps of a few hundred entries, and a look-up consults one place
//! whatever is going on. Within a segment, seven entries share a cache line
//! with their seven tags (bytes of the hash) and a count of the entries that
//! found the line full and went on to the next, so that most look-ups, hits and
//! misses alike, touch one line here.
//!
//! Readers see either the old segment or the new ones. The old one goes on
//! holding what it held; what is inserted later is not what a reader that found
//! the old one can miss, because its commit is published later still. Segments that have
//! few entries left become one again (`hash/shrink.rs`).

mod shrink;

use crate::Structure;
use crate::garbage::Garbage;
use crate::node::{Entry, HASH_BITS};
use crate::reclaim::Guard;
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, Tally};
use std::ptr::{self, NonNull};

/// Entries in a bucket: what a cache line holds beside their tags.
const WIDTH: usize = 7;
/// Buckets in a segment that has not degenerated.
#[cfg(not(loom))]
const SEGMENT_BUCKETS: usize = 64;
#[cfg(loom)]
const SEGMENT_BUCKETS: usize = 1;

/// The byte of the tag word that counts entries which went on to the next bucket.
const OVERFLOW_SHIFT: u32 = 56;
const OVERFLOW_MAX: u64 = 0xff;
const TAG_BYTES: u64 = (1 << OVERFLOW_SHIFT) - 1;
const EACH_BYTE: u64 = 0x0101_0101_0101_0101;

#[repr(align(64))]
pub(crate) struct Bucket<K, T> {
    /// Byte `i` below the topmost: 0 if slot `i` is empty, else the entry's tag.
    tags: AtomicU64,
    slots: [AtomicPtr<Entry<K, T>>; WIDTH],
}

/// A fixed number of buckets, searched from the key's own on.
pub(crate) struct Segment<K, T> {
    /// How many upper bits of the hash all entries share.
    depth: u32,
    /// The writer's.
    len: AtomicUsize,
    /// How often entries have come or gone: stored behind what it counts.
    changes: AtomicUsize,
    buckets: Box<[Bucket<K, T>]>,
}

/// What a full segment is to be replaced by, made before the writer's lock was taken. Right if
/// the segment has not changed since.
pub(crate) struct Halves<'g, K, T> {
    of: &'g Segment<K, T>,
    changes: usize,
    halves: [Box<Segment<K, T>>; 2],
}

/// Which segment serves which upper bits of the hash.
pub(crate) struct Directory<K, T> {
    depth: u32,
    segments: Box<[AtomicPtr<Segment<K, T>>]>,
}

/// The point side of the index.
pub(crate) struct Table<K, T> {
    directory: AtomicPtr<Directory<K, T>>,
    /// Writer only: the segments there are, their buckets, and the slots of the directory.
    segments: Tally,
    buckets: Tally,
    slots: Tally,
    /// Writer only: the segments that all bits of the directory tell apart.
    deepest: Tally,
}

/// A hash's tag: never zero, from bits that choose neither segment nor bucket.
fn tag_of(hash: u64) -> u64 {
    (hash >> 32) & 0x7f | 0x80
}

/// The bytes of `tags` that equal `tag`, as 0x80 in their place, and perhaps a
/// few above a true one (which comparing keys sorts out).
fn matching(tags: u64, tag: u64) -> u64 {
    let difference = (tags & TAG_BYTES | 0xff << OVERFLOW_SHIFT) ^ (EACH_BYTE * tag);
    difference.wrapping_sub(EACH_BYTE) & !difference & (EACH_BYTE << 7) & TAG_BYTES
}

impl<K, T> Bucket<K, T> {
    fn new() -> Self {
        Bucket { tags: AtomicU64::new(0), slots: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())) }
    }

    /// The first entry among those whose tag matches that `is_it` accepts.
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
            // Acquire: the slot may have been given to another entry since the
            // tags were read.
            let entry = self.slots[slot].load(Ordering::Acquire);
            // SAFETY: (I2, I5) a slot holds null, a linked entry, or one that
            // was unlinked after the pin was taken.
            let entry = unsafe { entry.as_ref() };
            if let Some(entry) = entry.filter(|entry| is_it(entry)) {
                return Some(entry);
            }
        }
        None
    }

    /// The entry that the search for this hash looks at first, if it begins in this bucket.
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
        // Release, twice: (I2) by whichever of the two a reader comes.
        self.slots[slot].store(entry.as_ptr(), Ordering::Release);
        self.tags.store(tags | tag << (slot * 8), Ordering::Release);
        true
    }

    /// Writer: empties the slot that holds `entry`, if one does.
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

    /// Writer: counts one entry more or less that went past this bucket. The
    /// count sticks at its maximum, which costs look-ups a step, no more.
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

impl<K, T> Segment<K, T> {
    fn boxed(depth: u32, buckets: usize) -> Box<Self> {
        Box::new(Segment {
            depth,
            len: AtomicUsize::new(0),
            changes: AtomicUsize::new(0),
            buckets: (0..buckets).map(|_| Bucket::new()).collect(),
        })
    }

    /// Its memory.
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
        // Seven eighths: above that, too many entries leave their own bucket.
        self.len.load(Ordering::Relaxed) * 8 >= self.buckets.len() * WIDTH * 7
    }

    /// Writer: adds an entry; a segment that is not full has room.
    fn insert(&self, entry: NonNull<Entry<K, T>>, hash: u64) {
        for bucket in self.probe(hash) {
            if bucket.put(entry, tag_of(hash)) {
                return self.count(1);
            }
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

    /// Writer: so many entries more.
    fn count(&self, more: isize) {
        // Relaxed, loads: (I1).
        self.len.store(self.len.load(Ordering::Relaxed).wrapping_add_signed(more), Ordering::Relaxed);
        // Release: pairs with `changes`.
        self.changes.store(self.changes.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    fn changes(&self) -> usize {
        // Acquire: whoever reads the entries next finds what has been counted.
        self.changes.load(Ordering::Acquire)
    }

    /// All entries with their hashes; of those that come or go meanwhile, perhaps some.
    fn entries(&self, _pinned: &Guard<'_>) -> impl Iterator<Item = (NonNull<Entry<K, T>>, u64)> {
        let slots = self.buckets.iter().flat_map(|bucket| &bucket.slots);
        // Acquire: as in `Bucket::find`.
        let entries = slots.filter_map(|slot| NonNull::new(slot.load(Ordering::Acquire)));
        // SAFETY: (I2, I5) as in `Bucket::find`.
        entries.map(|entry| (entry, unsafe { entry.as_ref() }.hash()))
    }

    /// Two segments with the entries, told apart by one bit more.
    fn halved(&self, pinned: &Guard<'_>) -> [Box<Self>; 2] {
        let depth = self.depth + 1;
        let halves = [(); 2].map(|()| Segment::boxed(depth, self.buckets.len()));
        for (entry, hash) in self.entries(pinned) {
            halves[(hash >> (64 - depth)) as usize & 1].insert(entry, hash);
        }
        // One that degenerated may give all of its entries to one half.
        halves.map(|half| half.narrowed(pinned).unwrap_or(half))
    }
}

impl<K, T> Directory<K, T> {
    /// Its memory, without that of the segments.
    pub(crate) fn structure(&self) -> Structure {
        Structure { bytes: size_of::<Self>() + size_of_val(&*self.segments), allocations: 2 }
    }

    fn index(&self, hash: u64) -> usize {
        // A shift by 64 is what depth 0 asks for.
        hash.checked_shr(64 - self.depth).unwrap_or(0) as usize
    }
}

impl<K, T> Table<K, T> {
    pub(crate) fn new() -> Self {
        let segment = Box::into_raw(Segment::boxed(0, SEGMENT_BUCKETS));
        let directory = Directory { depth: 0, segments: Box::new([AtomicPtr::new(segment)]) };
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
            + segments * size_of::<Segment<K, T>>()
            + slots * size_of::<AtomicPtr<Segment<K, T>>>();
        Structure { bytes, allocations: 2 * segments + 2 }
    }

    fn change(tally: &Tally, by: isize) {
        // Relaxed, load and store: (I1) these are the writer's.
        tally.store(tally.load(Ordering::Relaxed).wrapping_add_signed(by as i64), Ordering::Relaxed);
    }

    fn directory<'g>(&self, _pinned: &'g Guard<'_>) -> &'g Directory<K, T> {
        // SAFETY: (I2, I5) never null; a directory that is replaced is retired.
        unsafe { &*self.directory.load(Ordering::Acquire) }
    }

    fn segment<'g>(&self, hash: u64, pinned: &'g Guard<'_>) -> &'g Segment<K, T> {
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

    /// What [`insert`](Self::insert) will need for an entry with this hash beside a place for it.
    pub(crate) fn foresee<'g>(&self, hash: u64, pinned: &'g Guard<'_>) -> Option<Halves<'g, K, T>> {
        let of = self.segment(hash, pinned);
        let changes = of.changes();
        let is_needed = of.is_full() && of.depth < self.directory(pinned).depth;
        is_needed.then(|| Halves { of, changes, halves: of.halved(pinned) })
    }

    /// Writer: adds an entry that is not in the table. Takes `halves` if they are what it needs.
    pub(crate) fn insert(
        &self,
        entry: NonNull<Entry<K, T>>,
        hash: u64,
        total: usize,
        halves: &mut Option<Halves<'_, K, T>>,
        pinned: &Guard<'_>,
        mut retire: impl FnMut(Garbage<K, T>),
    ) {
        loop {
            let segment = self.segment(hash, pinned);
            if !segment.is_full() {
                return segment.insert(entry, hash);
            }
            let is_right = |halves: &mut Halves<'_, K, T>| {
                ptr::eq(halves.of, segment) && halves.changes == segment.changes()
            };
            let halves = halves.take_if(is_right).map(|halves| halves.halves);
            self.grow(hash, total, halves, pinned, &mut retire);
        }
    }

    /// Writer: removes an entry that is in the table, which may get smaller by that.
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

    /// Writer: makes room where `hash` belongs.
    fn grow(
        &self,
        hash: u64,
        total: usize,
        halves: Option<[Box<Segment<K, T>>; 2]>,
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
            // Hashes that agree in so many bits will not be told apart by one
            // more: a larger segment keeps the directory in proportion.
            Self::change(&self.buckets, old.buckets.len() as isize);
            let larger = Segment::boxed(depth, old.buckets.len() * 2);
            old.entries(pinned).for_each(|(entry, hash)| larger.insert(entry, hash));
            retire(Garbage::segment(replace(directory, hash, depth, larger)));
        }
    }

    /// Writer: replaces `old` by its halves.
    fn split(
        &self,
        directory: &Directory<K, T>,
        old: &Segment<K, T>,
        hash: u64,
        [zeros, ones]: [Box<Segment<K, T>>; 2],
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
        // The old segment leaves the directory with the second of the two.
        let _still_linked = replace(directory, hash & !bit, depth, zeros);
        retire(Garbage::segment(replace(directory, hash | bit, depth, ones)));
    }

    /// Writer: a directory of twice the length, with the same segments.
    fn double(&self, directory: &Directory<K, T>, retire: &mut impl FnMut(Garbage<K, T>)) {
        Self::change(&self.slots, directory.segments.len() as isize);
        // Relaxed: (I1).
        self.deepest.store(0, Ordering::Relaxed);
        let twice = directory.segments.iter().flat_map(|segment| {
            let segment = segment.load(Ordering::Relaxed);
            [AtomicPtr::new(segment), AtomicPtr::new(segment)]
        });
        let doubled = Directory { depth: directory.depth + 1, segments: twice.collect() };
        let old = self.directory.load(Ordering::Relaxed);
        // Release: (I2).
        self.directory.store(Box::into_raw(Box::new(doubled)), Ordering::Release);
        retire(Garbage::directory(old));
    }
}

/// Writer: lets every slot for the first `depth` bits of `hash` lead to `fresh`,
/// and returns what they led to.
fn replace<K, T>(
    directory: &Directory<K, T>,
    hash: u64,
    depth: u32,
    fresh: Box<Segment<K, T>>,
) -> *mut Segment<K, T> {
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
            // long as its depth says, so it is met once.
            let segment = unsafe { Box::from_raw(directory.segments[index].load(Ordering::Relaxed)) };
            index += 1 << (directory.depth - segment.depth);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
