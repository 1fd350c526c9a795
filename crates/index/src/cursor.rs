//! Walks over a span of keys, in either direction.

use crate::block::Run;
use crate::list::List;
use crate::node::Entry;
use crate::prefetch;
use crate::reclaim::Guard;
use std::ops::ControlFlow;

/// A set of neighbouring keys, given by what lies on either side of it. Both
/// sides must agree with the order of the keys: what is before one key of the
/// span is before them all.
pub trait Span<K> {
    /// Whether `key` is smaller than every key of the span.
    fn is_before(&self, key: &K) -> bool;
    /// Whether `key` is greater than every key of the span.
    fn is_after(&self, key: &K) -> bool;
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
pub(crate) struct Stretch<'g, K, T> {
    run: &'g Run<K, T>,
    from: usize,
    to: usize,
    direction: Direction,
    /// The run that the walk will probably come to next.
    ahead: Option<&'g Run<K, T>>,
}

impl<'g, K, T> Stretch<'g, K, T> {
    pub(crate) fn len(&self) -> usize {
        self.to - self.from
    }

    /// The entry that the walk meets after `passed` others of the stretch.
    #[inline]
    pub(crate) fn entry(&self, passed: usize, pinned: &'g Guard<'_>) -> &'g Entry<K, T> {
        let index = match self.direction {
            Direction::Forward => self.from + passed,
            Direction::Backward => self.to - 1 - passed,
        };
        self.run.entry(index, pinned)
    }

    /// Asks for the memory of up to `count` entries from the one behind `passed` others on, if
    /// need be in the next run.
    #[inline]
    pub(crate) fn ask_for(&self, passed: usize, count: usize, pinned: &'g Guard<'_>) {
        let ask = |entry: &Entry<K, T>| {
            // Two fields: one entry in two straddles cache lines.
            prefetch(&entry.chain);
            prefetch(&entry.key);
        };
        if passed < self.len() {
            (passed..self.len().min(passed + count)).for_each(|passed| ask(self.entry(passed, pinned)));
        } else if let Some(run) = self.ahead {
            (0..run.len().min(count)).for_each(|index| ask(run.entry(index, pinned)));
        }
    }

    pub(crate) fn entries(&self, pinned: &'g Guard<'_>) -> impl Iterator<Item = &'g Entry<K, T>> {
        (0..self.len()).map(|passed| self.entry(passed, pinned))
    }
}

impl<K: Ord, T> List<K, T> {
    /// Visits the entries of `span` in ascending order, run by run, until `visit` breaks.
    pub(crate) fn forward<'g>(
        &'g self,
        span: &impl Span<K>,
        pinned: &'g Guard<'_>,
        mut visit: impl FnMut(&Stretch<'g, K, T>) -> ControlFlow<()>,
    ) {
        let mut block = self.descend(|low| span.is_before(low), pinned);
        let mut last: Option<&'g Entry<K, T>> = None;
        loop {
            let run = block.run(pinned);
            let len = run.len();
            let start = match last {
                None => run.partition_point(len, |key| span.is_before(key), pinned),
                // A block that was split off since the run before it was read
                // starts with keys that were in that run, too (I7).
                Some(last) if len > 0 && run.entry(0, pinned).key <= last.key => {
                    run.partition_point(len, |key| *key <= last.key, pinned)
                }
                Some(_) => 0,
            };
            if start < len {
                let greatest = run.entry(len - 1, pinned);
                // One comparison spares those with the other keys of all runs but the last.
                let ends = span.is_after(&greatest.key);
                let end =
                    if ends { run.partition_point(len, |key| !span.is_after(key), pinned) } else { len };
                // Less only if the keys contradict each other.
                let to = end.max(start);
                let ahead = block.next(0, pinned).filter(|_| !ends).map(|next| next.run(pinned));
                if let Some(run) = ahead {
                    prefetch(run);
                }
                let stretch = Stretch { run, from: start, to, direction: Direction::Forward, ahead };
                if visit(&stretch).is_break() || ends {
                    return;
                }
                last = Some(greatest);
            }
            // After the run: what a split took out of it is behind this link.
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
        mut visit: impl FnMut(&Stretch<'g, K, T>) -> ControlFlow<()>,
    ) {
        let mut block = self.descend(|low| !span.is_after(low), pinned);
        // Everything from this key on has been visited.
        let mut bound: Option<&'g K> = None;
        loop {
            let ahead = |key: &K| match bound {
                None => !span.is_after(key),
                Some(bound) => key < bound,
            };
            let (run, len) = loop {
                let run = block.run(pinned);
                let len = run.len();
                // After the run: a split that shortened it has linked the rest.
                match block.next(0, pinned) {
                    Some(next) if next.starts_where(ahead) => block = next,
                    _ => break (run, len),
                }
            };
            let end = run.partition_point(len, ahead, pinned);
            if end > 0 {
                let ends = span.is_before(&run.entry(0, pinned).key);
                let start =
                    if ends { run.partition_point(end, |key| span.is_before(key), pinned) } else { 0 };
                // The run in front is found from above.
                let (direction, ahead) = (Direction::Backward, None);
                let stretch = Stretch { run, from: start, to: end, direction, ahead };
                if visit(&stretch).is_break() || ends {
                    return;
                }
            }
            let Some(low) = &block.low else {
                return;
            };
            if span.is_before(low) {
                return;
            }
            // There are no links to the left: the block in front is found from
            // above.
            bound = Some(low);
            block = self.descend(|other| other < low, pinned);
        }
    }
}
