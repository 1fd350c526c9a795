//! Objects that have been unlinked. Each is freed when its [`Garbage`] is dropped.

use crate::Structure;
use crate::block::{Block, Run};
use crate::hash::{HashSegment, SegmentDirectory};
use crate::node::Entry;
use crate::version::{Linked, Owned, Version};
use std::ptr::NonNull;

/// Garbage that no reader can reach any more. Dropping it runs the destructors of
/// keys and values. If a destructor panics, the panic is contained, and the others
/// still run.
#[must_use = "drop it outside locks"]
pub struct Freed<K, T> {
    pub(crate) bag: Vec<Garbage<K, T>>,
    pub(crate) more: Vec<Vec<Garbage<K, T>>>,
}

impl<K, T> Freed<K, T> {
    fn iter(&self) -> impl Iterator<Item = &Garbage<K, T>> {
        self.bag.iter().chain(self.more.iter().flatten())
    }

    /// How many objects there are to free.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no object to free.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(crate) fn weight(&self) -> u64 {
        self.iter().map(Garbage::weight).sum()
    }
}

/// An unlinked object, freed when this value is dropped.
pub(crate) enum Garbage<K, T> {
    /// A version, and its weight.
    Version(NonNull<Version<T>>, u32),
    /// An entry, and the weight of the version that is left in its chain.
    Entry(NonNull<Entry<K, T>>, u32),
    Run(*mut Run<K, T>),
    Block(*mut Block<K, T>),
    Segment(*mut HashSegment<K, T>),
    Directory(*mut SegmentDirectory<K, T>),
}

// SAFETY: (I4) the retired object is owned by this value alone, and the object
// owns only keys and values.
unsafe impl<K: Send + Sync, T: Send + Sync> Send for Garbage<K, T> {}

impl<K, T> Garbage<K, T> {
    pub(crate) fn version(version: Linked<'_, T>) -> Self {
        Garbage::Version(version.pointer(), version.weight())
    }

    /// `owner` is the pointer that owns the entry.
    pub(crate) fn entry(owner: NonNull<Entry<K, T>>, entry: &Entry<K, T>) -> Self {
        Garbage::Entry(owner, entry.chain.front().map_or(0, |version| version.weight()))
    }

    /// The weight of the versions in it, see [`VersionMeta::weight`](crate::VersionMeta).
    pub(crate) fn weight(&self) -> u64 {
        match self {
            Garbage::Version(_, weight) | Garbage::Entry(_, weight) => u64::from(*weight),
            _ => 0,
        }
    }

    /// The memory of this value and of the part of the structure that it owns. Entries and
    /// versions count by weight instead.
    pub(crate) fn structure(&self) -> Structure {
        // SAFETY: (I4) retired, and not freed while this value exists.
        let part = unsafe {
            match *self {
                Garbage::Version(..) | Garbage::Entry(..) => Structure::default(),
                Garbage::Run(_) => Structure { bytes: size_of::<Run<K, T>>(), allocations: 1 },
                Garbage::Block(block) => (*block).structure(),
                Garbage::Segment(segment) => (*segment).structure(),
                Garbage::Directory(directory) => (*directory).structure(),
            }
        };
        Structure { bytes: part.bytes + size_of::<Self>(), ..part }
    }

    pub(crate) fn run(run: *mut Run<K, T>) -> Self {
        Garbage::Run(run)
    }

    pub(crate) fn block(block: *mut Block<K, T>) -> Self {
        Garbage::Block(block)
    }

    pub(crate) fn segment(segment: *mut HashSegment<K, T>) -> Self {
        Garbage::Segment(segment)
    }

    pub(crate) fn directory(directory: *mut SegmentDirectory<K, T>) -> Self {
        Garbage::Directory(directory)
    }
}

impl<K, T> Drop for Garbage<K, T> {
    fn drop(&mut self) {
        // SAFETY: (I4, I5) made by `Box::into_raw`, retired once, and dropped
        // only when no pin can lead to it, or by the owner of the whole index.
        crate::contain(|| unsafe {
            match *self {
                Garbage::Version(version, _) => drop(Owned::from_raw(version)),
                Garbage::Entry(entry, _) => drop(Box::from_raw(entry.as_ptr())),
                Garbage::Run(run) => drop(Box::from_raw(run)),
                Garbage::Block(block) => drop(Box::from_raw(block)),
                Garbage::Segment(segment) => drop(Box::from_raw(segment)),
                Garbage::Directory(directory) => drop(Box::from_raw(directory)),
            }
        });
    }
}
