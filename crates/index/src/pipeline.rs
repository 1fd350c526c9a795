//! The entries of a walk, resolved some at a time in a pipeline.
//!
//! A pair is a chain of pointers: the entry, its newest version, what the value points to, and
//! what that points to. Each is a cache miss, and none can be asked for before the one in front
//! of it has come. So entries go through in groups, one step of their chains at a time: while
//! one group is visited, the groups behind it wait for what they were last asked for, and all
//! these cache misses overlap. Chen and others pipeline the probes of a hash join in this way
//! ("Improving hash join performance through prefetching", TODS 2007). Look-ups of several keys
//! are asked for in the same steps, all at once.

use crate::cursor::Stretch;
use crate::hash::Table;
use crate::node::Entry;
use crate::prefetch;
use crate::reclaim::Guard;
use crate::version::{Linked, Moment};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;

/// Entries in the groups at the beginning of a walk. Whatever is on its way when a visitor
/// breaks was asked for in vain.
const LEAST: usize = 4;
/// Entries in the groups of a walk that has gone far. With four groups on their way, enough to
/// keep a core's outstanding cache misses busy.
const MOST: usize = 16;
/// By how many entries a walk has to go on until its groups grow by one.
const PACE: usize = 16;

/// Up to [`MOST`] things.
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

/// Resolves entries at a moment, and hands those that hold something to a visitor, in groups.
pub(crate) struct Pipeline<'g, K, T, A> {
    moment: Moment,
    pinned: &'g Guard<'g>,
    /// Asks for what a visitor will follow of a value, one step (0 or 1) of it.
    ask: A,
    /// Entries whose newest version has been asked for.
    entries: Group<(&'g Entry<K, T>, Linked<'g, T>)>,
    /// Pairs of whose values step 0 has been asked for, and, in the other place, step 1.
    pairs: [Group<(&'g K, &'g T)>; 2],
    /// In which of the two places `pairs` step 1 has been asked for.
    ready: usize,
    /// Entries taken in.
    passed: usize,
}

impl<'g, K, T, A: Fn(usize, &T)> Pipeline<'g, K, T, A> {
    pub(crate) fn new(moment: Moment, pinned: &'g Guard<'g>, ask: A) -> Self {
        let pairs = [Group::EMPTY; 2];
        Pipeline { moment, pinned, ask, entries: Group::EMPTY, pairs, ready: 0, passed: 0 }
    }

    /// How many entries the next group has, if there are as many.
    fn size(&self) -> usize {
        (self.passed / PACE).clamp(LEAST, MOST)
    }

    /// Takes the entries of a stretch in, and hands those to `visit` that are through, until
    /// it breaks.
    pub(crate) fn take_in(
        &mut self,
        stretch: &Stretch<'_, 'g, K, T>,
        visit: &mut impl FnMut(&[(&'g K, &'g T)]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut left = stretch.entries;
        stretch.ask_for(0, self.size(), self.pinned);
        while !left.is_empty() {
            let (group, behind) = left.split_at(left.len().min(self.size()));
            left = behind;
            self.passed += group.len();
            stretch.ask_for(stretch.entries.len() - left.len(), self.size(), self.pinned);
            self.advance(group, visit)?;
        }
        ControlFlow::Continue(())
    }

    /// Hands the rest to `visit`.
    pub(crate) fn finish(&mut self, visit: &mut impl FnMut(&[(&'g K, &'g T)]) -> ControlFlow<()>) {
        for _ in 0..3 {
            if self.advance(&[], visit).is_break() {
                return;
            }
        }
    }

    /// One step of all groups: the first is visited, and `group` is the new last one.
    fn advance(
        &mut self,
        group: &[&'g Entry<K, T>],
        visit: &mut impl FnMut(&[(&'g K, &'g T)]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if self.pairs[self.ready].len > 0 {
            visit(self.pairs[self.ready].items())?;
            self.pairs[self.ready].len = 0;
        }
        self.ready ^= 1;
        for (_, value) in self.pairs[self.ready].items() {
            (self.ask)(1, value);
        }
        let resolved = &mut self.pairs[self.ready ^ 1];
        for (entry, newest) in self.entries.items() {
            let visible = newest.at(self.moment.timestamp, self.pinned);
            if let Some(value) = visible.and_then(|version| version.value_at(|| self.moment.time)) {
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

/// Asks for what look-ups of keys with these hashes will read, one step of all of them at a time.
pub(crate) fn ask_for<K, T, const N: usize>(
    table: &Table<K, T>,
    hashes: [u64; N],
    ask: impl Fn(usize, &T),
    pinned: &Guard<'_>,
) {
    let buckets = hashes.map(|hash| (hash, table.home(hash, pinned).inspect(|bucket| prefetch(*bucket))));
    let entries = buckets.map(|(hash, bucket)| bucket?.first(hash, pinned).inspect(|entry| entry.ask_for()));
    let newest = entries.map(|entry| entry?.chain.newest(pinned).inspect(|version| prefetch(version.get())));
    let values = newest.map(|version| version?.get().value.as_ref().inspect(|value| ask(0, value)));
    values.into_iter().flatten().for_each(|value| ask(1, value));
}
