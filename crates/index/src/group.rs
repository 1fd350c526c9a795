//! A handful of entries that a scan resolves side by side.

use crate::node::Entry;
use crate::prefetch;
use crate::reclaim::Guard;
use crate::version::Moment;
use std::ops::ControlFlow;

/// Enough chains to keep a core's outstanding cache misses busy.
const SIZE: usize = 16;

/// Entries in scan order, not resolved yet.
pub(crate) struct Group<'g, K, T> {
    entries: [Option<&'g Entry<K, T>>; SIZE],
    len: usize,
}

impl<'g, K, T> Group<'g, K, T> {
    pub(crate) fn new() -> Self {
        Group { entries: [None; SIZE], len: 0 }
    }

    /// Adds an entry to a group that is not full.
    pub(crate) fn push(&mut self, entry: &'g Entry<K, T>) {
        prefetch(entry);
        self.entries[self.len] = Some(entry);
        self.len += 1;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len == SIZE
    }

    /// Resolves the entries at a moment, hands those that hold something to
    /// `visit`, and is empty again.
    pub(crate) fn flush(
        &mut self,
        moment: Moment,
        pinned: &'g Guard<'_>,
        visit: &mut impl FnMut(&[(&'g K, &'g T)]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let entries = &self.entries[..self.len];
        self.len = 0;
        // One kind of cache miss at a time: first every entry, then every version.
        let mut newest = [None; SIZE];
        for (newest, entry) in newest.iter_mut().zip(entries) {
            *newest =
                entry.and_then(|entry| entry.chain.newest(pinned)).inspect(|version| prefetch(&**version));
        }
        let mut pairs = [None; SIZE];
        let mut count = 0;
        for (newest, entry) in newest.into_iter().zip(entries) {
            let (Some(newest), Some(entry)) = (newest, entry) else { continue };
            let visible = newest.at(moment.timestamp, pinned);
            if let Some(value) = visible.and_then(|version| version.value_at(|| moment.time)) {
                pairs[count] = Some((&entry.key, value));
                count += 1;
            }
        }
        let Some(first) = pairs[0] else { return ControlFlow::Continue(()) };
        let pairs = pairs.map(|pair| pair.unwrap_or(first));
        visit(&pairs[..count])
    }
}
