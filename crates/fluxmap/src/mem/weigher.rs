//! What keys and values weigh.

use crate::mem::{MemSize, UNIT, allocated};
use std::fmt;
use std::sync::atomic::AtomicUsize;

/// Measures keys and values, where their types' [`MemSize`] was known: captured when a
/// limit is set.
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

/// What an entry has beside its key: its chain and a word of hash and marks.
const ENTRY: usize = 2 * size_of::<usize>();
/// A version with its tail: a timestamp, a value's pointer, a link, and the tail.
const VERSION: usize = 5 * size_of::<u64>();
/// In front of what an `Arc` holds.
const COUNTS: usize = 2 * size_of::<AtomicUsize>();

/// What a version weighs by itself, in units: a tombstone.
pub(crate) const TOMBSTONE: u32 = (allocated(VERSION) / UNIT) as u32;
/// What keys and versions take without a limit, when nothing is known of what they own.
pub(crate) const fn bare_entry<K>() -> usize {
    allocated(ENTRY + size_of::<K>())
}
/// A version without a tail, and the allocation of its value.
pub(crate) const fn bare_version<V>() -> usize {
    allocated(VERSION - 2 * size_of::<u64>()) + allocated(COUNTS + size_of::<V>())
}

impl<K: MemSize, V: MemSize> Weigher<K, V> {
    pub(crate) fn new() -> Self {
        Weigher { key: K::mem_size, value: V::mem_size }
    }
}

impl<K, V> Weigher<K, V> {
    /// What a key weighs with its entry, in units.
    pub(crate) fn key(&self, key: &K) -> u32 {
        units(bare_entry::<K>(), owned((self.key)(key), size_of::<K>()))
    }

    /// What a value weighs with its version, in units.
    pub(crate) fn value(&self, value: &V) -> u32 {
        let shared = allocated(COUNTS + size_of::<V>());
        units(allocated(VERSION) + shared, owned((self.value)(value), size_of::<V>()))
    }
}

/// What a value owns on the heap.
fn owned(size: usize, inline: usize) -> usize {
    size.saturating_sub(inline)
}

fn units(fixed: usize, heap: usize) -> u32 {
    u32::try_from(fixed.saturating_add(heap).div_ceil(UNIT)).unwrap_or(u32::MAX)
}
