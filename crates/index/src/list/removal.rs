//! How entries are removed from the order, and blocks with them.
//!
//! A block is unlinked with its last entry. Two neighbours that have few entries left together are
//! merged, so that the few keys that are left of a million do not keep a block each. To merge them
//! as soon as they fit into one would save little space, and cost more time (Johnson and Shasha,
//! "B-trees with inserts and deletes: why free-at-empty is better than merge-at-half", 1993).
//!
//! A merge moves no entry into a block that a reader may have passed (I7): it leaves both blocks
//! as they are, with their runs and links, and a new block with the entries of both takes the
//! place of the left one in all of its levels. Then the right one is unlinked. So a reader that
//! stands on the left block, or is led to it, finds the right one behind it. A reader that comes
//! from the new block to the right one meets its entries again, as after a split, and recognizes
//! them by their keys.

use super::List;
use crate::block::{Block, RUN_CAPACITY, Run};
use crate::garbage::Garbage;
use crate::node::Entry;
use crate::prefix::CommonPrefix;
use crate::reclaim::Guard;
use std::ptr::{self, NonNull};

/// The greatest number of entries that two blocks may have together to be merged: so few that
/// three quarters of a run have to come before the merged block is split again.
#[cfg(not(loom))]
const FEW: usize = RUN_CAPACITY / 4;
/// More in models, so that their small blocks are merged at all.
#[cfg(loom)]
const FEW: usize = RUN_CAPACITY / 2 + 1;

/// An entry that [`List::remove`] has unlinked.
pub(crate) struct Removed<'g, K, T> {
    /// The pointer that the run held, which owns the entry.
    pub(crate) owned: NonNull<Entry<K, T>>,
    /// The block that the entry was in.
    pub(crate) block: &'g Block<K, T>,
}

impl<K: Ord + Clone, T> List<K, T> {
    /// Writer: unlinks `entry` from its run, and the block with it if that has no other entry and
    /// is not the first. Returns `None` if no run holds the entry. Everything that may panic comes
    /// before the first change.
    pub(crate) fn remove<'g>(
        &self,
        entry: NonNull<Entry<K, T>>,
        key: &K,
        pinned: &'g Guard<'_>,
        mut retire: impl FnMut(Garbage<K, T>),
    ) -> Option<Removed<'g, K, T>> {
        let expected = self.place(key, pinned).block;
        let found = match expected.run(pinned).position_of(entry) {
            Some(index) => Some((expected, index)),
            // Happens only if the key's `Ord` contradicts itself. Memory safety must not
            // rest on it, so look for the entry by its address.
            None => self.search(entry, pinned),
        };
        let (block, index) = found?;
        let run = block.run(pinned);
        let owned = run.pointer(index)?;
        if run.state().len() == 1 && block.low.is_some() {
            let before = self.predecessors_of(block, pinned);
            retire(Garbage::block(self.unlink(block, &before)));
        } else {
            retire(Garbage::run(block.swap_run(run_without(run, index))));
        }
        Some(Removed { owned, block })
    }

    /// Writer: takes a block out of all of its levels. `before` has the block in front of it for
    /// each level. Returns the pointer that owns the block.
    fn unlink(&self, block: &Block<K, T>, before: &[&Block<K, T>]) -> *mut Block<K, T> {
        let owner = before[0].next_pointer(0);
        // Top level first: when the block leaves the bottom level, no upper level
        // leads a reader to it any more. (I6) its own links stay.
        for level in (0..block.height()).rev() {
            before[level].set_next(level, block.next_pointer(level));
        }
        block.set_unlinked();
        self.count(block.height(), false);
        owner
    }

    /// Writer: merges a block that has lost an entry with a neighbour, if both together have few
    /// entries left. Everything that may panic comes before the first change.
    pub(crate) fn shrink(
        &self,
        block: &Block<K, T>,
        pinned: &Guard<'_>,
        mut retire: impl FnMut(Garbage<K, T>),
    ) {
        let len = |block: &Block<K, T>| block.run(pinned).state().len();
        let are_few = |left, right| len(left) + len(right) <= FEW;
        // The first block has no lower bound, and is never unlinked, so it is never merged.
        let Some(low) = block.low.as_ref().filter(|_| !block.is_unlinked() && len(block) <= FEW) else {
            return;
        };
        if let Some(next) = block.next(0, pinned)
            && are_few(block, next)
        {
            return self.merge(block, next, low, pinned, &mut retire);
        }
        // To find the block in front takes a descent from the top: do so only for a block that has
        // very few entries left.
        if len(block) <= FEW / 2
            && let Some(before) = self.predecessors(low, 0..1, pinned).first()
            && let Some(low) = &before.low
            && ptr::eq(before.next_pointer(0), block)
            && are_few(before, block)
        {
            self.merge(before, block, low, pinned, &mut retire);
        }
    }

    /// Writer: puts a block with the entries of two neighbours in the place of the left one,
    /// whose lower bound is `low`, and unlinks the right one.
    fn merge(
        &self,
        left: &Block<K, T>,
        right: &Block<K, T>,
        low: &K,
        pinned: &Guard<'_>,
        retire: &mut impl FnMut(Garbage<K, T>),
    ) {
        let entries = left.run(pinned).pointers().chain(right.run(pinned).pointers());
        let entries: Vec<_> = entries
            .map(|entry| {
                // SAFETY: (I9) linked.
                let prefix = (self.prefix)(&unsafe { entry.as_ref() }.key);
                (entry, prefix.map_or(0, |prefix| CommonPrefix::NOTHING.suffix(&prefix)))
            })
            .collect();
        let run = self.run_of(&CommonPrefix::NOTHING, &entries, pinned);
        let fresh = Block::boxed(Some(low.clone()), left.prefix, run, left.height());
        let before_left = self.predecessors_of(left, pinned);
        let before_right = self.predecessors_of(right, pinned);
        // Nothing panics from here on. (I2) Set all links of the new block before those to it.
        for level in 0..left.height() {
            fresh.set_next(level, left.next_pointer(level));
        }
        let owner = before_left[0].next_pointer(0);
        let fresh = Box::into_raw(fresh);
        for (level, before) in before_left.iter().enumerate() {
            before.set_next(level, fresh);
        }
        // (I6) The left block keeps its links: a reader that stands on it finds the right block,
        // unchanged.
        left.set_unlinked();
        retire(Garbage::block(owner));
        // SAFETY: (I9) linked just now.
        let fresh = unsafe { &*fresh };
        // Where the left block was in front of the right one, the new block is now.
        let before_right: Vec<_> = before_right
            .into_iter()
            .map(|before| if ptr::eq(before, left) { fresh } else { before })
            .collect();
        retire(Garbage::block(self.unlink(right, &before_right)));
    }

    /// Writer: the block that holds `entry`, and its slot, found by reading all blocks.
    fn search<'g>(
        &self,
        entry: NonNull<Entry<K, T>>,
        pinned: &'g Guard<'_>,
    ) -> Option<(&'g Block<K, T>, usize)> {
        let mut block = Some(self.head(pinned));
        while let Some(current) = block {
            if let Some(index) = current.run(pinned).position_of(entry) {
                return Some((current, index));
            }
            block = current.next(0, pinned);
        }
        None
    }

    /// Writer: for each level of `block`, the block whose link leads to it. Found by
    /// address: memory safety must not rest on the key's `Ord`, which only says
    /// where the search begins.
    fn predecessors_of<'g>(&self, block: &'g Block<K, T>, pinned: &'g Guard<'_>) -> Vec<&'g Block<K, T>> {
        let target = ptr::from_ref(block);
        let mut found = match &block.low {
            Some(low) => self.predecessors(low, 0..block.height(), pinned),
            None => vec![self.head(pinned); block.height()],
        };
        for (level, predecessor) in found.iter_mut().enumerate() {
            if !ptr::eq(predecessor.next_pointer(level), target) {
                *predecessor = self.head(pinned);
                while let Some(next) = predecessor.next(level, pinned) {
                    if ptr::eq(next, target) {
                        break;
                    }
                    *predecessor = next;
                }
            }
        }
        found
    }
}

/// Writer: a run without the entry in slot `index`.
fn run_without<K, T>(run: &Run<K, T>, index: usize) -> Box<Run<K, T>> {
    let mut entries = run.pairs();
    entries.remove(index);
    Run::boxed(*run.common(), entries.into_iter())
}
