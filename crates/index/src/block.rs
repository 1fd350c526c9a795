//! Blocks and runs: the bottom level of the order.
//!
//! A *run* is a sorted array of entries. It changes in one way only: an entry is inserted, and
//! the entries behind it move one slot to the right, the last one first. Each is written to its
//! new slot before its old one is overwritten. So at any instant the slots hold all entries, in
//! order, one perhaps twice (R1). And a reader that goes over the slots from left to right misses
//! none, since entries move only to the right (R2). Hwang and others call this a transient
//! inconsistency that readers tolerate ("Endurable transient inconsistency in byte-addressable
//! persistent B+-tree", FAST 2018). The run's state tells a reader how much it has to allow for:
//! if the length is the same before and after it reads the slots, at most one insertion was under
//! way.
//!
//! Every other change builds a new run and swaps one pointer. A *block* is the stable node that
//! owns the pointer to its current run and the links to the blocks behind it.

use crate::Structure;
use crate::node::Entry;
use crate::prefetch;
use crate::prefix::{CommonPrefix, KeyPrefix, PrefixSuffix};
use crate::reclaim::Guard;
use crate::sync::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::cmp;
use std::ops::Range;
use std::ptr::{self, NonNull};

/// Entries in a full run. See ARCHITECTURE.md for the measurement.
#[cfg(not(loom))]
pub(crate) const RUN_CAPACITY: usize = 63;
#[cfg(all(loom, not(wide)))]
pub(crate) const RUN_CAPACITY: usize = 2;
#[cfg(all(loom, wide))]
pub(crate) const RUN_CAPACITY: usize = 4;

/// A sorted array of entries.
pub(crate) struct Run<K, T> {
    /// See [`State`].
    state: AtomicUsize,
    /// The prefix that the key prefixes of all entries share.
    common: CommonPrefix,
    /// The bytes behind that prefix in each entry's key prefix. A suffix moves with its entry, and is
    /// written before it. Unused if the keys have no key prefixes.
    suffixes: [AtomicU32; RUN_CAPACITY],
    slots: [AtomicPtr<Entry<K, T>>; RUN_CAPACITY],
}

/// How many entries a run has, and whether an insertion is moving some of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct State(usize);

impl State {
    fn new(len: usize, is_moving: bool) -> Self {
        State(len << 1 | usize::from(is_moving))
    }

    pub(crate) fn len(self) -> usize {
        self.0 >> 1
    }

    pub(crate) fn is_moving(self) -> bool {
        self.0 & 1 != 0
    }
}

impl<K, T> Run<K, T> {
    /// A run of at most [`RUN_CAPACITY`] entries with their suffixes, in order. All key prefixes begin
    /// with `common`, and the suffixes are the bytes behind it.
    pub(crate) fn boxed(
        common: CommonPrefix,
        entries: impl ExactSizeIterator<Item = (NonNull<Entry<K, T>>, PrefixSuffix)>,
    ) -> Box<Self> {
        let run = Box::new(Run {
            state: AtomicUsize::new(State::new(entries.len(), false).0),
            common,
            suffixes: std::array::from_fn(|_| AtomicU32::new(0)),
            slots: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
        });
        for (index, (entry, suffix)) in entries.enumerate() {
            // Relaxed: (I2) the run is not reachable yet.
            run.suffixes[index].store(suffix, Ordering::Relaxed);
            run.slots[index].store(entry.as_ptr(), Ordering::Relaxed);
        }
        run
    }

    pub(crate) fn common(&self) -> &CommonPrefix {
        &self.common
    }

    /// The entries with their suffixes, with room for one more. For the writer; or for any thread,
    /// if the run is full and no entry moves in it.
    pub(crate) fn pairs(&self) -> Vec<(NonNull<Entry<K, T>>, PrefixSuffix)> {
        let mut pairs = Vec::with_capacity(RUN_CAPACITY + 1);
        // Relaxed: (I1), or (I3): the suffixes were stored before the state that the caller read.
        let suffixes = self.suffixes.iter().map(|suffix| suffix.load(Ordering::Relaxed));
        pairs.extend(self.pointers().zip(suffixes));
        pairs
    }

    pub(crate) fn state(&self) -> State {
        // Acquire: pairs with `set_state`, so the slots below the length are filled (I2).
        State(self.state.load(Ordering::Acquire))
    }

    fn set_state(&self, state: State) {
        // Release: (I2).
        self.state.store(state.0, Ordering::Release);
    }

    fn put(&self, index: usize, entry: NonNull<Entry<K, T>>, suffix: Option<PrefixSuffix>) {
        if let Some(suffix) = suffix {
            // Release: a reader that loads this suffix also finds the entry that was in this slot
            // in the next one (R2).
            self.suffixes[index].store(suffix, Ordering::Release);
        }
        // Release: for the same reason, and (I2).
        self.slots[index].store(entry.as_ptr(), Ordering::Release);
    }

    /// Writer: copies the entry in slot `index` to the next slot, with its suffix.
    fn shift(&self, index: usize, has_suffixes: bool) {
        // Relaxed: (I1).
        let suffix = has_suffixes.then(|| self.suffixes[index].load(Ordering::Relaxed));
        let entry = self.pointer(index).unwrap_or_else(|| unreachable!("below the length"));
        self.put(index + 1, entry, suffix);
    }

    /// Writer: inserts an entry before the one in slot `index`, or behind the last one. Returns
    /// false, with nothing changed, if its key prefix does not begin with the run's common prefix.
    pub(crate) fn insert(
        &self,
        index: usize,
        entry: NonNull<Entry<K, T>>,
        prefix: Option<&KeyPrefix>,
    ) -> bool {
        if prefix.is_some_and(|prefix| self.common.place(prefix).is_ne()) {
            return false;
        }
        let suffix = prefix.map(|prefix| self.common.suffix(prefix));
        let len = self.state().len();
        if index < len {
            // Copy the last entry before the length grows: slot `len` must hold an entry as soon
            // as it is below the length, and the last entry is then in both slots (R1).
            self.shift(len - 1, suffix.is_some());
            self.set_state(State::new(len + 1, true));
            // From right to left: the other way, a shift would overwrite an entry that has no
            // other slot yet.
            (index..len - 1).rev().for_each(|index| self.shift(index, suffix.is_some()));
        }
        self.put(index, entry, suffix);
        self.set_state(State::new(len + 1, false));
        true
    }

    /// The pointer in slot `index`, which is below a length that was read.
    pub(crate) fn pointer(&self, index: usize) -> Option<NonNull<Entry<K, T>>> {
        // Acquire: if an entry has moved out of this slot, it is in the next one already (R2).
        NonNull::new(self.slots[index].load(Ordering::Acquire))
    }

    /// The pointers in all slots below the length.
    pub(crate) fn pointers(&self) -> impl Iterator<Item = NonNull<Entry<K, T>>> {
        (0..self.state().len()).filter_map(|index| self.pointer(index))
    }

    /// The entry in slot `index`, which is below a length that was read.
    pub(crate) fn entry<'g>(&self, index: usize, _pinned: &'g Guard<'_>) -> &'g Entry<K, T> {
        // Acquire: as in `pointer`.
        let entry = self.slots[index].load(Ordering::Acquire);
        debug_assert!(!entry.is_null());
        // SAFETY: (I2, I5) the slot is below a length that was published with
        // the slot filled, so it holds a linked entry, or one that was unlinked
        // after the pin was taken.
        unsafe { &*entry }
    }

    /// Reads the entries in the slots that `bounds` chooses, given the length. Returns the state
    /// in which they were read. If entries were moving, there may be one extra entry at either
    /// end: filter by key.
    pub(crate) fn read<'g>(
        &self,
        into: &mut Vec<&'g Entry<K, T>>,
        pinned: &'g Guard<'_>,
        bounds: impl Fn(usize) -> Range<usize>,
    ) -> (State, Range<usize>) {
        loop {
            let state = self.state();
            let slots = bounds(state.len());
            // While entries move, the last entry of the span may already be one slot further on.
            let end = state.len().min(slots.end + usize::from(state.is_moving()));
            into.clear();
            into.extend((slots.start..end).map(|index| self.entry(index, pinned)));
            // If the length has changed, an insertion has begun meanwhile, and may have moved
            // entries out of the slots that were read: read again. A writer that makes no progress
            // causes no retry.
            if self.state().len() == state.len() {
                if state.is_moving() {
                    // (R1) One entry may have been read in its old slot and again in its new one.
                    into.dedup_by(|next, last| ptr::eq(*next, *last));
                }
                return (state, slots);
            }
        }
    }

    /// How many of the first `len` keys satisfy `before`, which must hold for a prefix of them.
    /// If a key prefix is given, `before` must hold for all keys with a smaller key prefix, and for none with
    /// a greater one.
    ///
    /// Entries may move during the search. An entry that does not satisfy `before` is then in the
    /// returned slot or one above it. It may still be in the slot just below, too, because a suffix
    /// is written before its entry (R2). Entries that satisfy `before` may be above the returned
    /// slot, by as many slots as entries have been inserted during the search.
    pub(crate) fn partition_point(
        &self,
        len: usize,
        prefix: Option<&KeyPrefix>,
        before: impl Fn(&K) -> bool,
        pinned: &Guard<'_>,
    ) -> usize {
        // If the key prefix does not begin with the common prefix, it is before or behind all of them.
        let suffix = match prefix.map(|prefix| (self.common.place(prefix), prefix)) {
            None => None,
            Some((cmp::Ordering::Less, _)) => return 0,
            Some((cmp::Ordering::Greater, _)) => return len,
            Some((cmp::Ordering::Equal, prefix)) => Some(self.common.suffix(prefix)),
        };
        let (mut low, mut high) = (0, len);
        while low < high {
            let middle = low + (high - low) / 2;
            // Acquire: as in `pointer`.
            let by_suffix = suffix.map(|suffix| self.suffixes[middle].load(Ordering::Acquire).cmp(&suffix));
            let is_before = match by_suffix {
                Some(cmp::Ordering::Less) => true,
                Some(cmp::Ordering::Greater) => false,
                // Suffixes that are equal decide nothing: read the key.
                Some(cmp::Ordering::Equal) | None => before(&self.entry(middle, pinned).key),
            };
            if is_before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Prefetches the parts of the run that a walk reads.
    pub(crate) fn prefetch(&self) {
        prefetch(&self.state);
        // Eight slots share a cache line.
        self.slots.iter().step_by(8).for_each(prefetch);
    }

    /// Where the run holds `entry`, by its address.
    pub(crate) fn position_of(&self, entry: NonNull<Entry<K, T>>) -> Option<usize> {
        self.pointers().position(|other| other == entry)
    }
}

/// A node of the order: the owner of a run.
pub(crate) struct Block<K, T> {
    /// No key in this block or behind it is smaller. `None` for the first
    /// block, whose range has no lower end.
    pub(crate) low: Option<K>,
    /// The key prefix of `low`, if keys have key prefixes.
    pub(crate) prefix: KeyPrefix,
    run: AtomicPtr<Run<K, T>>,
    next: AtomicPtr<Block<K, T>>,
    /// The links of the levels above the bottom.
    express: Box<[AtomicPtr<Block<K, T>>]>,
    /// Writer only: 1 if the block is unlinked, else 0.
    unlinked: AtomicUsize,
}

impl<K, T> Block<K, T> {
    /// A block that takes part in `height` levels, at least one.
    pub(crate) fn boxed(low: Option<K>, prefix: KeyPrefix, run: Box<Run<K, T>>, height: usize) -> Box<Self> {
        let express = (1..height).map(|_| AtomicPtr::new(ptr::null_mut()));
        Box::new(Block {
            low,
            prefix,
            run: AtomicPtr::new(Box::into_raw(run)),
            next: AtomicPtr::new(ptr::null_mut()),
            express: express.collect(),
            unlinked: AtomicUsize::new(0),
        })
    }

    /// The memory of the block and its run.
    pub(crate) fn structure(&self) -> Structure {
        let bytes = size_of::<Self>() + size_of::<Run<K, T>>() + size_of_val(&*self.express);
        Structure { bytes, allocations: 2 + usize::from(!self.express.is_empty()) }
    }

    pub(crate) fn height(&self) -> usize {
        self.express.len() + 1
    }

    fn link(&self, level: usize) -> &AtomicPtr<Block<K, T>> {
        match level {
            0 => &self.next,
            above => &self.express[above - 1],
        }
    }

    /// The block behind this one in `level`.
    pub(crate) fn next<'g>(&self, level: usize, _pinned: &'g Guard<'_>) -> Option<&'g Block<K, T>> {
        // SAFETY: (I2, I5, I6) a link leads to a published block, or to one
        // that was unlinked after the pin was taken.
        unsafe { self.link(level).load(Ordering::Acquire).as_ref() }
    }

    /// Writer: makes `next` the block behind this one in `level`.
    pub(crate) fn set_next(&self, level: usize, next: *mut Block<K, T>) {
        // Release: (I2).
        self.link(level).store(next, Ordering::Release);
    }

    /// Writer: the link in `level`.
    pub(crate) fn next_pointer(&self, level: usize) -> *mut Block<K, T> {
        // Relaxed: (I1).
        self.link(level).load(Ordering::Relaxed)
    }

    /// Prefetches the parts of the block that a walk reads.
    pub(crate) fn prefetch(&self) {
        prefetch(&self.run);
        prefetch(&self.next);
    }

    /// The current run.
    pub(crate) fn run<'g>(&self, _pinned: &'g Guard<'_>) -> &'g Run<K, T> {
        // SAFETY: (I2, I5) never null; a run that is swapped out is retired,
        // and the pin keeps it.
        unsafe { &*self.run.load(Ordering::Acquire) }
    }

    /// Writer: swaps the run and returns the old one, for retirement.
    pub(crate) fn swap_run(&self, run: Box<Run<K, T>>) -> *mut Run<K, T> {
        let old = self.run_pointer();
        // Release: (I2).
        self.run.store(Box::into_raw(run), Ordering::Release);
        old
    }

    /// Writer: the current run.
    pub(crate) fn run_pointer(&self) -> *mut Run<K, T> {
        // Relaxed: (I1).
        self.run.load(Ordering::Relaxed)
    }

    pub(crate) fn is_unlinked(&self) -> bool {
        // Relaxed: (I1) the writer's own mark.
        self.unlinked.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn set_unlinked(&self) {
        self.unlinked.store(1, Ordering::Relaxed);
    }

    /// Whether `before` holds for the lower bound, and so for all keys in front of this block.
    /// [`Run::partition_point`] says what `prefix` must satisfy.
    pub(crate) fn starts_where(&self, prefix: Option<&KeyPrefix>, before: impl Fn(&K) -> bool) -> bool {
        match prefix.map_or(cmp::Ordering::Equal, |prefix| self.prefix.cmp(prefix)) {
            cmp::Ordering::Less => true,
            cmp::Ordering::Greater => false,
            cmp::Ordering::Equal => self.low.as_ref().is_none_or(before),
        }
    }
}

impl<K, T> Drop for Block<K, T> {
    fn drop(&mut self) {
        let run = self.run.load(Ordering::Relaxed);
        // SAFETY: (I4, I10) a block owns its current run; the runs before it
        // were retired on their own. The entries are not the run's to free.
        drop(unsafe { Box::from_raw(run) });
        let low = self.low.take();
        crate::contain(move || drop(low));
    }
}

/// Draws random tower heights: each block of a level is in the next level, too, with
/// the given probability (Pugh, "Skip lists", 1990).
pub(crate) struct Heights {
    state: u64,
    /// A random number below this makes the tower one level higher.
    threshold: u64,
}

/// Enough levels for the largest memory with any sensible probability.
#[cfg(not(loom))]
pub(crate) const MAX_HEIGHT: usize = 20;
#[cfg(loom)]
pub(crate) const MAX_HEIGHT: usize = 2;

impl Heights {
    pub(crate) fn new(probability: f64) -> Self {
        let probability = probability.clamp(0.05, 0.75);
        Heights { state: 0x9e37_79b9_7f4a_7c15, threshold: (probability * u64::MAX as f64) as u64 }
    }

    pub(crate) fn draw(&mut self) -> usize {
        let mut height = 1;
        while height < MAX_HEIGHT && self.next() < self.threshold {
            height += 1;
        }
        cmp::min(height, MAX_HEIGHT)
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
