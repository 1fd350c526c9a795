//! What has been unlinked: each object is freed when its [`Garbage`] is dropped.

use crate::block::{Block, Run};
use crate::chain::Version;
use crate::hash::{Directory, Segment};
use crate::node::Entry;
use std::ptr::NonNull;

/// Garbage that nobody can reach any more. Dropping it runs the destructors of
/// keys and values; one that panics is contained, and the rest still run.
#[must_use = "drop it outside locks"]
pub struct Freed<K, T>(pub(crate) Vec<Garbage<K, T>>);

impl<K, T> Freed<K, T> {
    /// How many objects it holds.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Something unlinked. Freed when dropped.
pub(crate) enum Garbage<K, T> {
    Version(NonNull<Version<T>>),
    Entry(NonNull<Entry<K, T>>),
    Run(*mut Run<K, T>),
    Block(*mut Block<K, T>),
    Segment(*mut Segment<K, T>),
    Directory(*mut Directory<K, T>),
}

// SAFETY: (I4) the retired object is owned by this value alone, and what it
// owns are keys and values.
unsafe impl<K: Send + Sync, T: Send + Sync> Send for Garbage<K, T> {}

impl<K, T> Garbage<K, T> {
    pub(crate) fn run(run: *mut Run<K, T>) -> Self {
        Garbage::Run(run)
    }

    pub(crate) fn block(block: *mut Block<K, T>) -> Self {
        Garbage::Block(block)
    }

    pub(crate) fn segment(segment: *mut Segment<K, T>) -> Self {
        Garbage::Segment(segment)
    }

    pub(crate) fn directory(directory: *mut Directory<K, T>) -> Self {
        Garbage::Directory(directory)
    }
}

impl<K, T> Drop for Garbage<K, T> {
    fn drop(&mut self) {
        // SAFETY: (I4, I5) made by `Box::into_raw`, retired once, and dropped
        // only when no pin can lead to it, or by the owner of the whole index.
        crate::contain(|| unsafe {
            match *self {
                Garbage::Version(version) => drop(Box::from_raw(version.as_ptr())),
                Garbage::Entry(entry) => drop(Box::from_raw(entry.as_ptr())),
                Garbage::Run(run) => drop(Box::from_raw(run)),
                Garbage::Block(block) => drop(Box::from_raw(block)),
                Garbage::Segment(segment) => drop(Box::from_raw(segment)),
                Garbage::Directory(directory) => drop(Box::from_raw(directory)),
            }
        });
    }
}
