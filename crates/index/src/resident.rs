//! A key that is there, looked at by whoever decides what goes.

use crate::access::Access;
use crate::cursor::Span;
use crate::node::Entry;
use crate::version::{Linked, Moment, Tail, Time};
use crate::{Direction, Index, Reader, Timestamp};
use std::ops::ControlFlow;

/// A key with a value, as it was when it was looked up.
pub struct Resident<'r, K, T> {
    /// Where it was found.
    pub(crate) index: &'r Index<K, T>,
    pub(crate) entry: &'r Entry<K, T>,
    version: Linked<'r, T>,
    value: &'r T,
}

impl<'r, K, T> Resident<'r, K, T> {
    pub(crate) fn new(
        reader: &'r Reader<'_, K, T>,
        entry: &'r Entry<K, T>,
        version: Linked<'r, T>,
    ) -> Option<Self> {
        Some(Resident { index: reader.index, entry, version, value: version.get().value.as_ref()? })
    }

    /// The key.
    pub fn key(&self) -> &'r K {
        &self.entry.key
    }

    /// Its value, expired or not.
    pub fn value(&self) -> &'r T {
        self.value
    }

    /// The commit that wrote it.
    pub fn timestamp(&self) -> Timestamp {
        self.version.timestamp()
    }

    /// What was written with it.
    pub fn tail(&self) -> Option<Tail> {
        self.version.tail().copied()
    }

    /// When its value expires; zero if it does not.
    pub fn expires(&self) -> Time {
        self.version.expires()
    }

    /// How it was read since this was last set.
    pub fn access(&self) -> Access {
        self.entry.access()
    }

    /// Replaces that.
    pub fn set_access(&self, access: Access) {
        self.entry.set_access(access);
    }
}

impl<K, T> Reader<'_, K, T> {
    /// The key with this hash whose newest version is a value that `is_it` accepts. Not a
    /// use of the key.
    pub fn resident(
        &self,
        hash: u64,
        is_it: impl Fn(&Resident<'_, K, T>) -> bool,
    ) -> Option<Resident<'_, K, T>> {
        let mut found = None;
        self.index.table.find(
            hash,
            |entry| {
                let resident =
                    entry.chain.newest(&self.guard).and_then(|version| Resident::new(self, entry, version));
                found = resident.filter(|resident| is_it(resident));
                found.is_some()
            },
            &self.guard,
        );
        found
    }
}

impl<K: Ord, T> Reader<'_, K, T> {
    /// Visits the keys of `span` that have a value at `moment`, in order, until `visit`
    /// breaks: [`scan`](Self::scan), with all that is known of each.
    pub fn residents<'s>(
        &'s self,
        span: &impl Span<K>,
        moment: impl Into<Moment>,
        mut visit: impl FnMut(Resident<'s, K, T>) -> ControlFlow<()>,
    ) {
        let moment = moment.into();
        self.walk(span, Direction::Forward, |stretch| {
            stretch.entries.iter().try_for_each(|entry| {
                let version = entry.chain.at(moment.timestamp, &self.guard);
                let visible = version.filter(|version| version.value_at(|| moment.time).is_some());
                match visible.and_then(|version| Resident::new(self, entry, version)) {
                    Some(resident) => visit(resident),
                    None => ControlFlow::Continue(()),
                }
            })
        });
    }
}
