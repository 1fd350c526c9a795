//! The order: a skiplist of blocks. Readers walk it without locks; one writer
//! inserts, splits and unlinks.
//!
//! Entries only ever move to the right: within their run, by an insertion (`block.rs`), or by
//! a split, which links the new block before it shortens the old run. So a reader that walks
//! right finds each entry in the run that it has read or in a block further on (I7).
//! `list/removal.rs` describes how entries and blocks are removed.

mod removal;

pub(crate) use removal::Removed;

use crate::Structure;
use crate::block::{Block, Heights, MAX_HEIGHT, RUN_CAPACITY, Run, State};
use crate::garbage::Garbage;
use crate::node::Entry;
use crate::prefix::{CommonPrefix, KeyPrefix, PrefixSuffix};
use crate::reclaim::Guard;
use crate::sync::{AtomicPtr, AtomicUsize, Ordering, Tally};
use std::ops::Range;
use std::ptr::{self, NonNull};

/// The ordered side of the index.
pub(crate) struct List<K, T> {
    /// The first block; its range has no lower end and it is never unlinked.
    head: NonNull<Block<K, T>>,
    /// How many levels have links. No block but the first was ever higher.
    height: AtomicUsize,
    /// The key prefix of a key, if its type has one.
    prefix: fn(&K) -> Option<KeyPrefix>,
    /// Only the writer stores these: the numbers of blocks, and of links above the bottom level.
    blocks: Tally,
    links: Tally,
}

/// A full run divided in two, with one new entry. Made before the writer's lock is taken, if
/// possible, and right as long as the block has that run (I3).
pub(crate) struct Split<'g, K, T> {
    of: &'g Run<K, T>,
    with: NonNull<Entry<K, T>>,
    /// `None` if all entries of the run stay in it.
    left: Option<Box<Run<K, T>>>,
    right: Box<Run<K, T>>,
    low: K,
}

/// Where a key belongs. Found before the writer's lock is taken, and still
/// right under the lock if the block's run has not changed.
pub(crate) struct KeyPlace<'g, K, T> {
    block: &'g Block<K, T>,
    run: &'g Run<K, T>,
    state: State,
    index: usize,
}

impl<K, T> List<K, T> {
    pub(crate) fn new(prefix: fn(&K) -> Option<KeyPrefix>) -> Self {
        let head = Block::boxed(
            None,
            KeyPrefix::LEAST,
            Run::boxed(CommonPrefix::NOTHING, [].into_iter()),
            MAX_HEIGHT,
        );
        List {
            // SAFETY: (I10) a box is never null.
            head: unsafe { NonNull::new_unchecked(Box::into_raw(head)) },
            height: AtomicUsize::new(1),
            prefix,
            blocks: Tally::new(1),
            links: Tally::new(MAX_HEIGHT as u64 - 1),
        }
    }

    /// The memory of the blocks and their runs.
    pub(crate) fn structure(&self) -> Structure {
        let [blocks, links] = [&self.blocks, &self.links].map(|tally| tally.load(Ordering::Relaxed) as usize);
        let bytes = blocks * (size_of::<Block<K, T>>() + size_of::<Run<K, T>>())
            + links * size_of::<AtomicPtr<Block<K, T>>>();
        // The links of a block above the bottom level are one more allocation. How many blocks have
        // such links is not counted: this is an upper bound.
        Structure { bytes, allocations: 2 * blocks + links.min(blocks) }
    }

    /// Writer: counts a block of this height that has been linked, or unlinked.
    fn count(&self, height: usize, has_come: bool) {
        // Relaxed, load and store: (I1) only the writer stores these.
        for (tally, change) in [(&self.blocks, 1), (&self.links, height as u64 - 1)] {
            let before = tally.load(Ordering::Relaxed);
            tally.store(if has_come { before + change } else { before - change }, Ordering::Relaxed);
        }
    }

    pub(crate) fn head<'g>(&self, _pinned: &'g Guard<'_>) -> &'g Block<K, T> {
        // SAFETY: (I10) the head lives as long as the list, and a guard borrows
        // the index that owns both.
        unsafe { self.head.as_ref() }
    }

    /// The last block that starts at a key for which `before` holds. [`Run::partition_point`] says
    /// what `prefix` must satisfy.
    pub(crate) fn descend<'g>(
        &self,
        prefix: Option<&KeyPrefix>,
        before: impl Fn(&K) -> bool,
        pinned: &'g Guard<'_>,
    ) -> &'g Block<K, T> {
        let mut block = self.head(pinned);
        for level in (0..self.height()).rev() {
            block = walk_level(block, level, prefix, &before, pinned);
        }
        block
    }

    fn height(&self) -> usize {
        // Relaxed: a walk that begins at too low a level is longer, and ends at the same block.
        self.height.load(Ordering::Relaxed)
    }
}

/// The last block of `level`, from `block` on, that starts at a key for which `before` holds.
fn walk_level<'g, K, T>(
    mut block: &'g Block<K, T>,
    level: usize,
    prefix: Option<&KeyPrefix>,
    before: impl Fn(&K) -> bool,
    pinned: &'g Guard<'_>,
) -> &'g Block<K, T> {
    while let Some(next) = block.next(level, pinned) {
        if !next.starts_where(prefix, &before) {
            break;
        }
        block = next;
    }
    block
}

/// How many blocks a walk to the right may pass before a descent from the top is cheaper.
const NEAR: usize = 8;

/// The place of `key` in `block`, which starts at or before the key, or in one of the `reach`
/// blocks behind. `None` if it is further on.
fn place_behind<'g, K: Ord, T>(
    mut block: &'g Block<K, T>,
    prefix: Option<&KeyPrefix>,
    key: &K,
    reach: usize,
    pinned: &'g Guard<'_>,
) -> Option<KeyPlace<'g, K, T>> {
    for _ in 0..=reach {
        let run = block.run(pinned);
        let state = run.state();
        // Read the link after the run: a split that shortened the run has linked the new block
        // before (I7).
        match block.next(0, pinned) {
            Some(next) if next.starts_where(prefix, |low| low <= key) => block = next,
            _ => {
                let index = run.partition_point(state.len(), prefix, |other| other < key, pinned);
                return Some(KeyPlace { block, run, state, index });
            }
        }
    }
    None
}

impl<K: Ord, T> List<K, T> {
    /// Where `key` is to be inserted.
    pub(crate) fn place<'g>(&self, key: &K, pinned: &'g Guard<'_>) -> KeyPlace<'g, K, T> {
        let prefix = (self.prefix)(key);
        let block = self.descend(prefix.as_ref(), |low| low <= key, pinned);
        let placed = place_behind(block, prefix.as_ref(), key, usize::MAX, pinned);
        placed.unwrap_or_else(|| unreachable!("the walk has no limit"))
    }

    /// Like [`place`](Self::place), for a key that may be near another place: if keys come in
    /// order, most of them need no descent.
    pub(crate) fn place_near<'g>(
        &self,
        near: &KeyPlace<'g, K, T>,
        key: &K,
        pinned: &'g Guard<'_>,
    ) -> KeyPlace<'g, K, T> {
        let prefix = (self.prefix)(key);
        let is_behind = near.block.starts_where(prefix.as_ref(), |low| low <= key);
        let placed =
            is_behind.then(|| place_behind(near.block, prefix.as_ref(), key, NEAR, pinned)).flatten();
        placed.unwrap_or_else(|| self.place(key, pinned))
    }

    /// Writer: `place` if it is still right, or else the right one. It is still right if the block
    /// has the run that was read, since a split replaces the run, and if no entry was moving then
    /// or has moved since. A place behind the last key of a full run must always be found anew:
    /// when such a key starts a new block, the full run does not change.
    fn confirm<'g>(&self, place: KeyPlace<'g, K, T>, key: &K, pinned: &'g Guard<'_>) -> KeyPlace<'g, K, T> {
        if place.block.is_unlinked() {
            return self.place(key, pinned);
        }
        let run = place.block.run(pinned);
        let len = place.state.len();
        let was_still = !place.state.is_moving() && (len < RUN_CAPACITY || place.index < len);
        let unchanged = ptr::eq(run, place.run) && run.state() == place.state;
        // (I7) A key that belonged to the right of the block's start still does.
        if was_still && unchanged { place } else { self.place_near(&place, key, pinned) }
    }
}

impl<K: Ord + Clone, T> List<K, T> {
    /// A run of entries that are linked, or about to be, or were linked when the pin was taken.
    /// Their suffixes must be right if all key prefixes begin with `common`. If not, or if a longer prefix is
    /// better, they are computed anew.
    fn run_of(
        &self,
        common: &CommonPrefix,
        entries: &[(NonNull<Entry<K, T>>, PrefixSuffix)],
        _pinned: &Guard<'_>,
    ) -> Box<Run<K, T>> {
        // SAFETY: (I5) alive: see above, linked or about to be, or linked when the pin was taken.
        let prefix = |pair: &(NonNull<Entry<K, T>>, _)| (self.prefix)(&unsafe { pair.0.as_ref() }.key);
        let ends = entries.first().and_then(prefix).zip(entries.last().and_then(prefix));
        let refined = ends.map_or(*common, |(first, last)| common.refined(&first, &last));
        if refined == *common {
            return Run::boxed(refined, entries.iter().copied());
        }
        let head = |pair| prefix(pair).map_or(0, |prefix| refined.suffix(&prefix));
        Run::boxed(refined, entries.iter().map(|pair| (pair.0, head(pair))))
    }

    /// Divides a full run, with a new entry before the one in slot `index`, or behind the last one.
    /// (`entry` is borrowed for its key, and alive.)
    fn split<'g>(
        &self,
        of: &'g Run<K, T>,
        index: usize,
        entry: NonNull<Entry<K, T>>,
        key: &K,
        pinned: &Guard<'_>,
    ) -> Split<'g, K, T> {
        let common = of.common();
        let mut entries = of.pairs();
        // If the new entry is behind all others, it alone goes to the new block: keys that arrive
        // in order then leave full runs behind them.
        let stays = index == entries.len();
        entries.insert(index, (entry, (self.prefix)(key).map_or(0, |prefix| common.suffix(&prefix))));
        let (left, right) = entries.split_at(if stays { index } else { entries.len() / 2 });
        // SAFETY: (I5) alive, as in `run_of`.
        let low = unsafe { right[0].0.as_ref() }.key.clone();
        let left = (!stays).then(|| self.run_of(common, left, pinned));
        Split { of, with: entry, left, right: self.run_of(common, right, pinned), low }
    }

    /// The split that [`insert`](Self::insert) will need for an entry at this place, if that is in
    /// a full run. (`entry` is borrowed for its key, and alive.)
    pub(crate) fn presplit<'g>(
        &self,
        place: &KeyPlace<'g, K, T>,
        entry: NonNull<Entry<K, T>>,
        key: &K,
        pinned: &'g Guard<'_>,
    ) -> Option<Split<'g, K, T>> {
        let is_full = place.state.len() == RUN_CAPACITY && !place.state.is_moving();
        is_full.then(|| self.split(place.run, place.index, entry, key, pinned))
    }

    /// Writer: links `entry`. Takes `split` if it is still right. Everything that may panic
    /// comes before the first change. (`entry` is borrowed for its key and alive until the caller
    /// unlinks it.)
    #[expect(clippy::too_many_arguments, reason = "each argument has another owner")]
    pub(crate) fn insert<'g>(
        &self,
        entry: NonNull<Entry<K, T>>,
        key: &K,
        place: KeyPlace<'g, K, T>,
        split: &mut Option<Split<'g, K, T>>,
        heights: &mut Heights,
        pinned: &'g Guard<'_>,
        mut retire: impl FnMut(Garbage<K, T>),
    ) {
        let KeyPlace { block, run, state, index } = self.confirm(place, key, pinned);
        let len = state.len();
        let prefix = (self.prefix)(key);
        if len < RUN_CAPACITY && run.insert(index, entry, prefix.as_ref()) {
            return;
        }
        if len < RUN_CAPACITY {
            // The entry's key prefix does not begin with the run's common prefix, so all suffixes change: a
            // new run takes the place of this one.
            let mut entries = run.pairs();
            entries.insert(index, (entry, prefix.map_or(0, |prefix| run.common().suffix(&prefix))));
            retire(Garbage::run(block.swap_run(self.run_of(run.common(), &entries, pinned))));
            return;
        }
        // Compare the entry, too: memory safety must not rest on the order of the keys, which
        // could lead another entry of the batch to the same run.
        let split = split.take_if(|split| ptr::eq(split.of, run) && split.with == entry);
        let Split { left, right, low, .. } =
            split.unwrap_or_else(|| self.split(run, index, entry, key, pinned));
        let prefix = (self.prefix)(&low).unwrap_or(KeyPrefix::LEAST);
        let height = heights.draw();
        let before = self.predecessors(&low, 1..height, pinned);
        // (I7) Link the right half before the left one shortens the run, so that readers miss none.
        self.link_behind(block, Block::boxed(Some(low), prefix, right, height), &before);
        if let Some(left) = left {
            retire(Garbage::run(block.swap_run(left)));
        }
    }

    /// Writer: links `fresh` right behind `block`, and behind the blocks `before` it in the levels
    /// above. The bottom level comes first, so that a reader that meets the block in an upper level
    /// can go on in the lower ones.
    fn link_behind(&self, block: &Block<K, T>, fresh: Box<Block<K, T>>, before: &[&Block<K, T>]) {
        let height = fresh.height();
        self.count(height, true);
        // Relaxed: (I1) only the writer stores it, and see `height` for readers.
        self.height.store(self.height().max(height), Ordering::Relaxed);
        fresh.set_next(0, block.next_pointer(0));
        let levels = || (1..height).zip(before);
        for (level, predecessor) in levels() {
            fresh.set_next(level, predecessor.next_pointer(level));
        }
        let fresh = Box::into_raw(fresh);
        block.set_next(0, fresh);
        for (level, predecessor) in levels() {
            predecessor.set_next(level, fresh);
        }
    }

    /// Writer: for each of some levels, the last block that starts before `low`.
    fn predecessors<'g>(&self, low: &K, levels: Range<usize>, pinned: &'g Guard<'_>) -> Vec<&'g Block<K, T>> {
        let prefix = (self.prefix)(low);
        let mut block = self.head(pinned);
        let mut found = vec![block; levels.len()];
        if !levels.is_empty() {
            for level in (levels.start..self.height().max(levels.end)).rev() {
                block = walk_level(block, level, prefix.as_ref(), |other| other < low, pinned);
                if levels.contains(&level) {
                    found[level - levels.start] = block;
                }
            }
        }
        found
    }
}

impl<K, T> Drop for List<K, T> {
    fn drop(&mut self) {
        let mut next = self.head.as_ptr();
        while !next.is_null() {
            // SAFETY: (I4, I8, I10) nobody else can reach the list; each block
            // is linked once in the bottom level, and each entry is in one run.
            let block = unsafe { Box::from_raw(next) };
            next = block.next_pointer(0);
            free_entries(&block);
            drop(block);
        }
    }
}

/// Frees the entries of a block that nobody else can reach.
fn free_entries<K, T>(block: &Block<K, T>) {
    // SAFETY: (I10) the block owns its run, and it is not dropped yet.
    let run = unsafe { &*block.run_pointer() };
    for entry in run.pointers() {
        // SAFETY: (I8, I10) no other run holds the entry, and no reader is left.
        let entry = unsafe { Box::from_raw(entry.as_ptr()) };
        crate::contain(move || drop(entry));
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
