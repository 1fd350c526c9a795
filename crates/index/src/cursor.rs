//! Walks over a span of keys, in either direction.

use crate::block::Run;
use crate::list::List;
use crate::node::Entry;
use crate::prefix::KeyPrefix;
use crate::reclaim::Guard;
use std::ops::ControlFlow;

/// A set of neighbouring keys, given by two predicates for the keys on either
/// side of it. Both must agree with the order of the keys: a key that is before
/// one key of the span is before all of them.
pub trait Span<K> {
    /// Whether `key` is smaller than every key of the span.
    fn is_before(&self, key: &K) -> bool;
    /// Whether `key` is greater than every key of the span.
    fn is_after(&self, key: &K) -> bool;
    /// Two key prefixes that bound the span. Every key with a smaller key prefix than the first is before the
    /// span, and no key with a greater key prefix is. Every key with a greater key prefix than the second is
    /// after the span, and no key with a smaller key prefix is. Must be `None` unless the index was made
    /// with key prefixes ([`Index::with_prefixes`](crate::Index::with_prefixes)), and must use the
    /// same ones.
    fn prefixes(&self) -> Option<[KeyPrefix; 2]> {
        None
    }
}

/// Which end of a span a walk starts at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key on.
    Forward,
    /// From the greatest key on.
    Backward,
}

/// Neighbouring entries of one run, in the direction of a walk.
pub(crate) struct RunSlice<'s, 'g, K, T> {
    pub(crate) entries: &'s [&'g Entry<K, T>],
    /// The run that the walk will probably reach next.
    ahead: Option<&'g Run<K, T>>,
}

impl<'g, K, T> RunSlice<'_, 'g, K, T> {
    /// Prefetches up to `count` entries behind the first `passed` ones, or the first entries of
    /// the next run if there are none.
    #[inline]
    pub(crate) fn prefetch(&self, passed: usize, count: usize, pinned: &'g Guard<'_>) {
        if passed < self.entries.len() {
            self.entries[passed..].iter().take(count).for_each(|entry| entry.prefetch());
        } else if let Some(run) = self.ahead {
            (0..run.state().len().min(count)).for_each(|index| run.entry(index, pinned).prefetch());
        }
    }
}

impl<K: Ord, T> List<K, T> {
    /// Visits the entries of `span` in ascending order, run by run, until `visit` breaks.
    pub(crate) fn forward<'g>(
        &'g self,
        span: &impl Span<K>,
        pinned: &'g Guard<'_>,
        mut visit: impl FnMut(&RunSlice<'_, 'g, K, T>) -> ControlFlow<()>,
    ) {
        let [lower, upper] = span.prefixes().map_or([None; 2], |prefixes| prefixes.map(Some));
        let mut block = self.descend(lower.as_ref(), |low| span.is_before(low), pinned);
        let mut entries = Vec::new();
        // The last entry visited. Entries that moved behind it are recognized by its key (I7).
        let mut last: Option<&'g Entry<K, T>> = None;
        loop {
            let run = block.run(pinned);
            let is_passed = |key: &K| match last {
                None => span.is_before(key),
                Some(last) => *key <= last.key,
            };
            let (state, slots) = run.read(&mut entries, pinned, |len| {
                let from = match last {
                    None => run.partition_point(len, lower.as_ref(), is_passed, pinned),
                    // If this block was split off after the run before it was read, it
                    // starts with keys that were in that run, too (I7).
                    Some(_) if len > 0 && is_passed(&run.entry(0, pinned).key) => {
                        run.partition_point(len, None, is_passed, pinned)
                    }
                    Some(_) => 0,
                };
                // Compare the last key first: in all runs but the last of the walk, this one
                // comparison makes a search for the end of the span unnecessary.
                let ends = len > 0 && span.is_after(&run.entry(len - 1, pinned).key);
                let is_not_after = |key: &K| !span.is_after(key);
                from..if ends { run.partition_point(len, upper.as_ref(), is_not_after, pinned) } else { len }
            });
            // `read` may include one entry outside the span at either end.
            if state.is_moving() {
                entries.retain(|entry| !is_passed(&entry.key) && !span.is_after(&entry.key));
            }
            let ends = slots.end < state.len();
            // Prefetch the next run and the block behind it while the visitor works on this one.
            let next = block.next(0, pinned).filter(|_| !ends);
            let ahead = next.map(|next| next.run(pinned));
            if let Some(run) = ahead {
                run.prefetch();
            }
            if let Some(behind) = next.and_then(|next| next.next(0, pinned)) {
                behind.prefetch();
            }
            let slice = RunSlice { entries: &entries, ahead };
            if visit(&slice).is_break() || ends {
                return;
            }
            last = entries.last().copied().or(last);
            // Read the link after the run: the entries that a split took out of the run are in
            // a block behind this link (I7).
            let Some(next) = block.next(0, pinned) else {
                return;
            };
            block = next;
        }
    }

    /// Visits the entries of `span` in descending order, run by run, until `visit` breaks.
    pub(crate) fn backward<'g>(
        &'g self,
        span: &impl Span<K>,
        pinned: &'g Guard<'_>,
        mut visit: impl FnMut(&RunSlice<'_, 'g, K, T>) -> ControlFlow<()>,
    ) {
        let [lower, mut upper] = span.prefixes().map_or([None; 2], |prefixes| prefixes.map(Some));
        let mut block = self.descend(upper.as_ref(), |low| !span.is_after(low), pinned);
        let mut entries = Vec::new();
        // All entries from this key on have been visited.
        let mut bound: Option<&'g K> = None;
        loop {
            let is_ahead = |key: &K| match bound {
                None => !span.is_after(key),
                Some(bound) => key < bound,
            };
            let run = loop {
                let run = block.run(pinned);
                // Read the link after the run: a split that shortened the run has linked the
                // block with the rest before (I7). If that block begins before the bound, entries
                // ahead of the walk are in it: go right.
                match block.next(0, pinned) {
                    Some(next) if next.starts_where(upper.as_ref(), is_ahead) => block = next,
                    _ => break run,
                }
            };
            let (state, slots) = run.read(&mut entries, pinned, |len| {
                let to = run.partition_point(len, upper.as_ref(), is_ahead, pinned);
                let ends = to > 0 && span.is_before(&run.entry(0, pinned).key);
                let is_before = |key: &K| span.is_before(key);
                (if ends { run.partition_point(to, lower.as_ref(), is_before, pinned) } else { 0 })..to
            });
            // As in `forward`.
            if state.is_moving() {
                entries.retain(|entry| is_ahead(&entry.key) && !span.is_before(&entry.key));
            }
            entries.reverse();
            // No run to prefetch: the block in front is not known before the descent below.
            let slice = RunSlice { entries: &entries, ahead: None };
            if visit(&slice).is_break() || slots.start > 0 {
                return;
            }
            let Some(low) = &block.low else {
                return;
            };
            if span.is_before(low) {
                return;
            }
            // There are no links to the left: find the block in front by a descent
            // from the top level.
            bound = Some(low);
            upper = upper.map(|_| block.prefix);
            block = self.descend(upper.as_ref(), |other| other < low, pinned);
        }
    }
}
