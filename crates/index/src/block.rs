//! Blocks and runs: the bottom level of the order.
//!
//! A *run* is a sorted array of entries. It changes in one way only: an entry
//! may be appended in place, made visible by the length. Every other change
//! builds a new run and swaps one pointer, so a reader always has a whole,
//! sorted array before it. A *block* is the stable node that owns the pointer
//! to its current run and the links to the blocks behind it.

use crate::Structure;
use crate::node::Entry;
use crate::reclaim::Guard;
use crate::sync::{AtomicPtr, AtomicUsize, Ordering};
use std::cmp;
use std::ptr::{self, NonNull};

/// Entries in a full run. A power of two less one, so that a run with its
/// length fills whole cache lines. See ARCHITECTURE.md for the measurement.
#[cfg(not(loom))]
pub(crate) const RUN_CAPACITY: usize = 63;
#[cfg(loom)]
pub(crate) const RUN_CAPACITY: usize = 2;

/// A sorted array of entries.
pub(crate) struct Run<K, T> {
    len: AtomicUsize,
    slots: [AtomicPtr<Entry<K, T>>; RUN_CAPACITY],
}

impl<K, T> Run<K, T> {
    /// A run of `entries`, of which there are at most [`RUN_CAPACITY`].
    pub(crate) fn boxed(entries: impl Iterator<Item = NonNull<Entry<K, T>>>) -> Box<Self> {
        let mut slots = std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut()));
        let mut len = 0;
        // `for_each`, because a chain of iterators is asked at every step which of them is next.
        entries.for_each(|entry| {
            slots[len] = AtomicPtr::new(entry.as_ptr());
            len += 1;
        });
        Box::new(Run { len: AtomicUsize::new(len), slots })
    }

    pub(crate) fn len(&self) -> usize {
        // Acquire: pairs with `append`, so the slots below are filled (I2).
        self.len.load(Ordering::Acquire)
    }

    /// Writer: adds an entry behind the last one.
    pub(crate) fn append(&self, entry: NonNull<Entry<K, T>>) {
        let len = self.len();
        // Relaxed: the length publishes it.
        self.slots[len].store(entry.as_ptr(), Ordering::Relaxed);
        // Release: (I2).
        self.len.store(len + 1, Ordering::Release);
    }

    /// The pointer in slot `index`, which is below a length that was read.
    pub(crate) fn pointer(&self, index: usize) -> Option<NonNull<Entry<K, T>>> {
        // Relaxed: a slot below the length was filled before the length, or
        // the run, was published (I2).
        NonNull::new(self.slots[index].load(Ordering::Relaxed))
    }

    /// The first `len` pointers.
    pub(crate) fn pointers(&self, len: usize) -> impl DoubleEndedIterator<Item = NonNull<Entry<K, T>>> {
        (0..len).filter_map(|index| self.pointer(index))
    }

    /// The entry in slot `index`, which is below a length that was read.
    pub(crate) fn entry<'g>(&self, index: usize, _pinned: &'g Guard<'_>) -> &'g Entry<K, T> {
        let entry = self.slots[index].load(Ordering::Relaxed);
        debug_assert!(!entry.is_null());
        // SAFETY: (I2, I5) the slot is below a length that was published with
        // the slot filled, so it holds a linked entry, or one that was unlinked
        // after the pin was taken.
        unsafe { &*entry }
    }

    /// How many of the first `len` keys satisfy `before`, which must hold for
    /// a prefix of them.
    pub(crate) fn partition_point(
        &self,
        len: usize,
        before: impl Fn(&K) -> bool,
        pinned: &Guard<'_>,
    ) -> usize {
        let (mut low, mut high) = (0, len);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(&self.entry(middle, pinned).key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Where the run holds `entry`, by its address.
    pub(crate) fn position_of(&self, entry: NonNull<Entry<K, T>>) -> Option<usize> {
        (0..self.len()).find(|index| self.pointer(*index) == Some(entry))
    }
}

/// A node of the order: the owner of a run.
pub(crate) struct Block<K, T> {
    /// No key in this block or behind it is smaller. `None` for the first
    /// block, whose range has no lower end.
    pub(crate) low: Option<K>,
    run: AtomicPtr<Run<K, T>>,
    next: AtomicPtr<Block<K, T>>,
    /// The links of the levels above the bottom.
    express: Box<[AtomicPtr<Block<K, T>>]>,
    /// Writer only: no longer linked (1) or still in use (0).
    unlinked: AtomicUsize,
}

impl<K, T> Block<K, T> {
    /// A block that takes part in `height` levels, at least one.
    pub(crate) fn boxed(low: Option<K>, run: Box<Run<K, T>>, height: usize) -> Box<Self> {
        let express = (1..height).map(|_| AtomicPtr::new(ptr::null_mut()));
        Box::new(Block {
            low,
            run: AtomicPtr::new(Box::into_raw(run)),
            next: AtomicPtr::new(ptr::null_mut()),
            express: express.collect(),
            unlinked: AtomicUsize::new(0),
        })
    }

    /// Its memory, with that of its run.
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

    /// Whether every key of this block is behind all keys that satisfy
    /// `before`, or at their end.
    pub(crate) fn starts_where(&self, before: impl Fn(&K) -> bool) -> bool {
        self.low.as_ref().is_none_or(before)
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

/// A random tower height: level `n + 1` holds about one in `fanout` of the
/// blocks of level `n` (Pugh, "Skip lists", 1990).
pub(crate) struct Heights {
    state: u64,
    /// Below this, a draw goes one level up.
    threshold: u64,
}

/// Enough for the largest memory with any sensible probability.
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
