//! Walks over a span of keys, in either direction.

use crate::list::List;
use crate::node::Entry;
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

impl<K: Ord, T> List<K, T> {
    /// Visits the entries of `span` in ascending order until `visit` breaks.
    pub(crate) fn forward<'g>(
        &'g self,
        span: &impl Span<K>,
        pinned: &'g Guard<'_>,
        mut visit: impl FnMut(&'g Entry<K, T>) -> ControlFlow<()>,
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
            // One comparison usually spares those with each key of the run.
            let inside = start < len && !span.is_after(&run.entry(len - 1, pinned).key);
            for index in start..len {
                let entry = run.entry(index, pinned);
                if !inside && span.is_after(&entry.key) || visit(entry).is_break() {
                    return;
                }
            }
            if start < len {
                last = Some(run.entry(len - 1, pinned));
            }
            // After the run: what a split took out of it is behind this link.
            let Some(next) = block.next(0, pinned) else {
                return;
            };
            block = next;
        }
    }

    /// Visits the entries of `span` in descending order until `visit` breaks.
    pub(crate) fn backward<'g>(
        &'g self,
        span: &impl Span<K>,
        pinned: &'g Guard<'_>,
        mut visit: impl FnMut(&'g Entry<K, T>) -> ControlFlow<()>,
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
            let inside = end > 0 && !span.is_before(&run.entry(0, pinned).key);
            for index in (0..end).rev() {
                let entry = run.entry(index, pinned);
                if !inside && span.is_before(&entry.key) || visit(entry).is_break() {
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
