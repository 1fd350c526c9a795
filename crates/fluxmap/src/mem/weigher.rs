//! The weights of keys and values.

use crate::mem::{MemSize, UNIT, allocated};
use std::fmt;
use std::sync::atomic::AtomicUsize;

/// Measures keys and values. It is created when a limit is set, where the types are known to be
/// [`MemSize`].
pub(crate) struct Weigher<K, V> {
    key: fn(&K) -> usize,
    value: fn(&V) -> usize,
}

impl<K, V> Clone for Weigher<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Weigher<K, V> {}

impl<K, V> fmt::Debug for Weigher<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Weigher")
    }
}

/// The memory of an entry beside its key: its chain and a word of hash and marks.
const ENTRY: usize = 2 * size_of::<usize>();
/// The memory of a version with its metadata: a timestamp, a pointer to the value, a link, and the metadata.
const VERSION: usize = 5 * size_of::<u64>();
/// The reference counts that come before the value in an `Arc`.
const COUNTS: usize = 2 * size_of::<AtomicUsize>();

/// The weight of a version without a value, in units: a tombstone.
pub(crate) const TOMBSTONE: u32 = (allocated(VERSION) / UNIT) as u32;
/// The memory of a key with its entry, without the memory that the key owns on the heap. Used alone if
/// there is no limit.
pub(crate) const fn bare_entry<K>() -> usize {
    allocated(ENTRY + size_of::<K>())
}
/// The memory of a version without metadata, and of the allocation of its value.
pub(crate) const fn bare_version<V>() -> usize {
    allocated(VERSION - 2 * size_of::<u64>()) + allocated(COUNTS + size_of::<V>())
}

impl<K: MemSize, V: MemSize> Weigher<K, V> {
    pub(crate) fn new() -> Self {
        Weigher { key: K::mem_size, value: V::mem_size }
    }
}

impl<K, V> Weigher<K, V> {
    /// Returns the weight of a key with its entry, in units.
    pub(crate) fn key(&self, key: &K) -> u32 {
        units(bare_entry::<K>(), owned((self.key)(key), size_of::<K>()))
    }

    /// Returns the weight of a value with its version, in units.
    pub(crate) fn value(&self, value: &V) -> u32 {
        let shared = allocated(COUNTS + size_of::<V>());
        units(allocated(VERSION) + shared, owned((self.value)(value), size_of::<V>()))
    }
}

/// Returns the bytes that a value owns on the heap.
fn owned(size: usize, inline: usize) -> usize {
    size.saturating_sub(inline)
}

fn units(fixed: usize, heap: usize) -> u32 {
    u32::try_from(fixed.saturating_add(heap).div_ceil(UNIT)).unwrap_or(u32::MAX)
}
