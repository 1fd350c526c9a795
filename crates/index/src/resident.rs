//! A key that has a value, as eviction and expiry look at it.

use crate::access::Access;
use crate::cursor::Span;
use crate::node::Entry;
use crate::version::{Linked, ReadPoint, Time, VersionMeta};
use crate::{Direction, Index, Reader, Timestamp};
use std::ops::ControlFlow;

/// A key with its value, as they were when the key was looked up.
pub struct CurrentEntry<'r, K, T> {
    /// The index in which the key was found.
    pub(crate) index: &'r Index<K, T>,
    pub(crate) entry: &'r Entry<K, T>,
    version: Linked<'r, T>,
    value: &'r T,
}

impl<'r, K, T> CurrentEntry<'r, K, T> {
    pub(crate) fn new(
        reader: &'r Reader<'_, K, T>,
        entry: &'r Entry<K, T>,
        version: Linked<'r, T>,
    ) -> Option<Self> {
        Some(CurrentEntry { index: reader.index, entry, version, value: version.get().value.as_ref()? })
    }

    /// The key.
    pub fn key(&self) -> &'r K {
        &self.entry.key
    }

    /// The value, whether it has expired or not.
    pub fn value(&self) -> &'r T {
        self.value
    }

    /// The timestamp of the commit that wrote the value.
    pub fn timestamp(&self) -> Timestamp {
        self.version.timestamp()
    }

    /// The metadata that was written with the value.
    pub fn meta(&self) -> Option<VersionMeta> {
        self.version.meta().copied()
    }

    /// When the value expires; zero if it does not expire.
    pub fn expires(&self) -> Time {
        self.version.expires()
    }

    /// How the key was read since its note was last set.
    pub fn access(&self) -> Access {
        self.entry.access()
    }

    /// Replaces the note of how the key was read.
    pub fn set_access(&self, access: Access) {
        self.entry.set_access(access);
    }
}

impl<K, T> Reader<'_, K, T> {
    /// The key with this hash whose newest version is a value, and which `is_it` accepts. This
    /// look-up is neither counted nor noted.
    pub fn resident(
        &self,
        hash: u64,
        is_it: impl Fn(&CurrentEntry<'_, K, T>) -> bool,
    ) -> Option<CurrentEntry<'_, K, T>> {
        let mut found = None;
        self.index.table.find(
            hash,
            |entry| {
                let resident = entry
                    .chain
                    .newest(&self.guard)
                    .and_then(|version| CurrentEntry::new(self, entry, version));
                found = resident.filter(|resident| is_it(resident));
                found.is_some()
            },
            &self.guard,
        );
        found
    }
}

impl<K: Ord, T> Reader<'_, K, T> {
    /// Visits the keys of `span` that have a value at `read_point`, in ascending order, until `visit`
    /// breaks: like [`scan`](Self::scan), with everything that the index knows about each key.
    pub fn residents<'s>(
        &'s self,
        span: &impl Span<K>,
        read_point: impl Into<ReadPoint>,
        mut visit: impl FnMut(CurrentEntry<'s, K, T>) -> ControlFlow<()>,
    ) {
        let read_point = read_point.into();
        self.walk(span, Direction::Forward, |slice| {
            slice.entries.iter().try_for_each(|entry| {
                let version = entry.chain.at(read_point.timestamp, &self.guard);
                let visible = version.filter(|version| version.value_at(|| read_point.time).is_some());
                match visible.and_then(|version| CurrentEntry::new(self, entry, version)) {
                    Some(resident) => visit(resident),
                    None => ControlFlow::Continue(()),
                }
            })
        });
    }
}
