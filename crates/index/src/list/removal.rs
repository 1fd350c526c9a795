//! How entries leave the order, and blocks with them.
//!
//! A block goes when its last entry goes. Two neighbours that have few entries left together are
//! merged, so that the few keys that are left of a million do not keep a block each. To merge them
//! as soon as they fit into one would save little space, and cost more time (Johnson and Shasha,
//! "B-trees with inserts and deletes: why free-at-empty is better than merge-at-half", 1993).
//!
//! No entry is moved into a block that a reader may have passed (I7): both blocks are left as
//! they are, with their runs and links, and a new one with the entries of both takes the place of
//! the left one in all of its levels. Then the right one is unlinked. So a reader that is on the
//! left one, or is led to it, finds the right one behind it. A reader that comes from the new
//! block to the right one meets its entries again, as after a split, and tells it by the key.

use super::List;
use crate::block::{Block, RUN_CAPACITY, Run};
use crate::garbage::Garbage;
use crate::lead::Shared;
use crate::node::Entry;
use crate::reclaim::Guard;
use std::ptr::{self, NonNull};

/// Entries of two blocks that are merged, at most: so few that three quarters of a run have to
/// come before that is split again.
#[cfg(not(loom))]
const FEW: usize = RUN_CAPACITY / 4;
/// So that models have blocks to merge.
#[cfg(loom)]
const FEW: usize = RUN_CAPACITY / 2 + 1;

/// An entry that [`List::remove`] has unlinked.
pub(crate) struct Removed<'g, K, T> {
    /// The pointer that the run held, which owns the entry.
    pub(crate) owned: NonNull<Entry<K, T>>,
    /// The block that it was in.
    pub(crate) block: &'g Block<K, T>,
}

impl<K: Ord + Clone, T> List<K, T> {
    /// Writer: unlinks `entry` from its run, and the block with it if it was
    /// the last. Returns `None` if no run holds it. Everything that may panic comes before the
    /// first change.
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
            // Only where the key's `Ord` contradicts itself; memory safety cannot
            // rest on it.
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

    /// Writer: takes a block out of all levels, in which it is behind those `before` it. Returns
    /// the pointer that owns it.
    fn unlink(&self, block: &Block<K, T>, before: &[&Block<K, T>]) -> *mut Block<K, T> {
        let owner = before[0].next_pointer(0);
        // Top level first: nobody is led to it from above any more when it
        // leaves the bottom. (I6) its own links stay.
        for level in (0..block.height()).rev() {
            before[level].set_next(level, block.next_pointer(level));
        }
        block.set_unlinked();
        self.count(block.height(), false);
        owner
    }

    /// Writer: merges a block that has lost an entry with one beside it, if both have few left.
    /// Everything that may panic comes before the first change.
    pub(crate) fn shrink(
        &self,
        block: &Block<K, T>,
        pinned: &Guard<'_>,
        mut retire: impl FnMut(Garbage<K, T>),
    ) {
        let len = |block: &Block<K, T>| block.run(pinned).state().len();
        let are_few = |left, right| len(left) + len(right) <= FEW;
        let Some(low) = block.low.as_ref().filter(|_| !block.is_unlinked() && len(block) <= FEW) else {
            return;
        };
        if let Some(next) = block.next(0, pinned)
            && are_few(block, next)
        {
            return self.merge(block, next, low, pinned, &mut retire);
        }
        // A way down from the top: only for a block that has hardly any left.
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
                let lead = (self.lead)(&unsafe { entry.as_ref() }.key);
                (entry, lead.map_or(0, |lead| Shared::NOTHING.head(&lead)))
            })
            .collect();
        let run = self.run_of(&Shared::NOTHING, &entries, pinned);
        let fresh = Block::boxed(Some(low.clone()), left.lead, run, left.height());
        let before_left = self.predecessors_of(left, pinned);
        let before_right = self.predecessors_of(right, pinned);
        // From here on nothing panics. (I2) all links of the new block, and then those to it.
        for level in 0..left.height() {
            fresh.set_next(level, left.next_pointer(level));
        }
        let owner = before_left[0].next_pointer(0);
        let fresh = Box::into_raw(fresh);
        for (level, before) in before_left.iter().enumerate() {
            before.set_next(level, fresh);
        }
        // (I6) its links stay: a reader that stands on it finds the right one, as that is.
        left.set_unlinked();
        retire(Garbage::block(owner));
        // SAFETY: (I9) linked just now.
        let fresh = unsafe { &*fresh };
        let before_right: Vec<_> = before_right
            .into_iter()
            .map(|before| if ptr::eq(before, left) { fresh } else { before })
            .collect();
        retire(Garbage::block(self.unlink(right, &before_right)));
    }

    /// Writer: the block that holds `entry`, by looking at all of them.
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

    /// Writer: per level of `block`, the block whose link leads to it. By
    /// address: memory safety cannot rest on the key's `Ord`, which only says
    /// where to start looking.
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
    Run::boxed(*run.shared(), entries.into_iter())
}
