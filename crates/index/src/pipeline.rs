//! The entries of a walk, resolved group by group in a pipeline.
//!
//! To resolve a pair is to follow a chain of pointers: to the entry, to its newest version, to
//! the memory that the value points to, and to the memory that this points to. Each pointer is a
//! cache miss, and cannot be prefetched before the one in front of it has arrived. So entries go
//! through the pipeline in groups, one pointer at a time: while one group is visited, the memory
//! for the next step of the groups behind it is on its way, and all these cache misses overlap.
//! Chen and others pipeline the probes of a hash join in this way ("Improving hash join
//! performance through prefetching", TODS 2007). Look-ups of several keys are prefetched in the
//! same steps, all keys at once.

use crate::cursor::RunSlice;
use crate::hash::Table;
use crate::node::Entry;
use crate::prefetch;
use crate::reclaim::Guard;
use crate::version::{Linked, ReadPoint};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;

/// Entries in the groups at the beginning of a walk. Few, because everything that has been
/// prefetched when a visitor breaks was prefetched in vain.
const LEAST: usize = 4;
/// Entries in the groups of a long walk. With four groups in the pipeline, enough to keep as many
/// cache misses outstanding as a core can.
const MOST: usize = 16;
/// A walk's groups grow by one entry each time it has passed this many.
const PACE: usize = 16;

/// Up to [`MOST`] items.
struct Group<X> {
    items: [MaybeUninit<X>; MOST],
    len: usize,
}

impl<X: Copy> Group<X> {
    const EMPTY: Self = Group { items: [const { MaybeUninit::uninit() }; MOST], len: 0 };

    fn push(&mut self, item: X) {
        self.items[self.len].write(item);
        self.len += 1;
    }

    fn items(&self) -> &[X] {
        let items = &self.items[..self.len];
        // SAFETY: (I10) this group's own array, of which the first `len` have been written; a
        // `MaybeUninit` has the layout of what it holds.
        unsafe { &*(std::ptr::from_ref(items) as *const [X]) }
    }
}

/// Resolves entries at a read point, and hands those that have a value to a visitor, in groups.
pub(crate) struct Pipeline<'g, K, T, A> {
    read_point: ReadPoint,
    pinned: &'g Guard<'g>,
    /// Prefetches one step (0 or 1) of the memory that a visitor will reach through a value.
    ask: A,
    /// Entries whose newest version has been prefetched.
    entries: Group<(&'g Entry<K, T>, Linked<'g, T>)>,
    /// Two groups of pairs: step 0 has been prefetched for the values of one, step 1 for those of
    /// the other.
    pairs: [Group<(&'g K, &'g T)>; 2],
    /// The index in `pairs` of the group for which step 1 has been prefetched.
    ready: usize,
    /// How many entries the walk has passed.
    passed: usize,
}

impl<'g, K, T, A: Fn(usize, &T)> Pipeline<'g, K, T, A> {
    pub(crate) fn new(read_point: ReadPoint, pinned: &'g Guard<'g>, ask: A) -> Self {
        let pairs = [Group::EMPTY; 2];
        Pipeline { read_point, pinned, ask, entries: Group::EMPTY, pairs, ready: 0, passed: 0 }
    }

    /// How many entries the next group has, if that many are left.
    fn size(&self) -> usize {
        (self.passed / PACE).clamp(LEAST, MOST)
    }

    /// Takes in the entries of a slice of a run, and hands those that are resolved to `visit`, until it
    /// breaks.
    pub(crate) fn take_in(
        &mut self,
        slice: &RunSlice<'_, 'g, K, T>,
        visit: &mut impl FnMut(&[(&'g K, &'g T)]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut left = slice.entries;
        slice.prefetch(0, self.size(), self.pinned);
        while !left.is_empty() {
            let (group, behind) = left.split_at(left.len().min(self.size()));
            left = behind;
            self.passed += group.len();
            slice.prefetch(slice.entries.len() - left.len(), self.size(), self.pinned);
            self.advance(group, visit)?;
        }
        ControlFlow::Continue(())
    }

    /// Hands the rest to `visit`.
    pub(crate) fn finish(&mut self, visit: &mut impl FnMut(&[(&'g K, &'g T)]) -> ControlFlow<()>) {
        // The last group taken in is visited three steps later.
        for _ in 0..3 {
            if self.advance(&[], visit).is_break() {
                return;
            }
        }
    }

    /// Advances all groups by one step: the first is visited, and `group` becomes the last.
    fn advance(
        &mut self,
        group: &[&'g Entry<K, T>],
        visit: &mut impl FnMut(&[(&'g K, &'g T)]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if self.pairs[self.ready].len > 0 {
            visit(self.pairs[self.ready].items())?;
            self.pairs[self.ready].len = 0;
        }
        // From the front of the pipeline to its end, so that each group moves by one step only.
        self.ready ^= 1;
        for (_, value) in self.pairs[self.ready].items() {
            (self.ask)(1, value);
        }
        let resolved = &mut self.pairs[self.ready ^ 1];
        for (entry, newest) in self.entries.items() {
            let visible = newest.at(self.read_point.timestamp, self.pinned);
            if let Some(value) = visible.and_then(|version| version.value_at(|| self.read_point.time)) {
                (self.ask)(0, value);
                resolved.push((&entry.key, value));
            }
        }
        self.entries.len = 0;
        for entry in group {
            if let Some(newest) = entry.chain.newest(self.pinned) {
                prefetch(newest.get());
                self.entries.push((entry, newest));
            }
        }
        ControlFlow::Continue(())
    }
}

/// Prefetches the memory that look-ups of keys with these hashes will read, one step of all keys
/// at a time.
pub(crate) fn prefetch_paths<K, T, const N: usize>(
    table: &Table<K, T>,
    hashes: [u64; N],
    ask: impl Fn(usize, &T),
    pinned: &Guard<'_>,
) {
    let buckets = hashes.map(|hash| (hash, table.home(hash, pinned).inspect(|bucket| prefetch(*bucket))));
    let entries = buckets.map(|(hash, bucket)| bucket?.first(hash, pinned).inspect(|entry| entry.prefetch()));
    let newest = entries.map(|entry| entry?.chain.newest(pinned).inspect(|version| prefetch(version.get())));
    let values = newest.map(|version| version?.get().value.as_ref().inspect(|value| ask(0, value)));
    values.into_iter().flatten().for_each(|value| ask(1, value));
}
