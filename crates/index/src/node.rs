//! An entry: one key, its hash, its chain of versions, and the marks that the
//! writer and the readers keep on it.

use crate::access::{self, Access};
use crate::chain::Chain;
use crate::prefetch;
use crate::sync::{AtomicU8, AtomicU16, Ordering};

/// The bits of a hash that an entry keeps. Entries are told apart by them before
/// keys are compared. The rest of the word holds marks and access notes, so that an
/// entry with a `String` key takes 40 bytes.
pub const HASH_BITS: u64 = !0xff_ffff;

/// The entry waits in the writer's queue of chains to trim.
const QUEUED: u8 = 1;
/// The entry is in neither the hash nor the order any more.
const UNLINKED: u8 = 2;

/// One key with its versions. Readers reach it through the hash and through the order.
pub(crate) struct Entry<K, T> {
    pub(crate) key: K,
    pub(crate) chain: Chain<T>,
    /// With `hash_low`: the upper 40 bits of the hash.
    hash_high: u32,
    hash_low: u8,
    marks: AtomicU8,
    /// The notes that reads have left.
    access: AtomicU16,
}

impl<K, T> Entry<K, T> {
    pub(crate) fn new(key: K, hash: u64) -> Self {
        Entry {
            key,
            chain: Chain::new(),
            hash_high: (hash >> 32) as u32,
            hash_low: (hash >> 24) as u8,
            marks: AtomicU8::new(0),
            access: AtomicU16::new(0),
        }
    }

    /// The hash, with the bits that are not kept as zeros.
    pub(crate) fn hash(&self) -> u64 {
        u64::from(self.hash_high) << 32 | u64::from(self.hash_low) << 24
    }

    /// Prefetches the fields that a look-up reads.
    pub(crate) fn prefetch(&self) {
        // Both fields: about every second entry straddles two cache lines.
        prefetch(&self.chain);
        prefetch(&self.key);
    }

    fn is_marked(&self, mark: u8) -> bool {
        self.marks.load(Ordering::Relaxed) & mark != 0
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.is_marked(QUEUED)
    }

    pub(crate) fn is_unlinked(&self) -> bool {
        self.is_marked(UNLINKED)
    }

    pub(crate) fn set_queued(&self, queued: bool) {
        // Relaxed, load and store: (I1) only the writer uses the marks.
        let marks = self.marks.load(Ordering::Relaxed) & !QUEUED;
        self.marks.store(marks | u8::from(queued), Ordering::Relaxed);
    }

    pub(crate) fn set_unlinked(&self) {
        let marks = self.marks.load(Ordering::Relaxed);
        self.marks.store(marks | UNLINKED, Ordering::Relaxed);
    }

    /// Where readers leave their notes.
    pub(crate) fn notes(&self) -> &AtomicU16 {
        &self.access
    }

    pub(crate) fn access(&self) -> Access {
        access::load(&self.access)
    }

    pub(crate) fn set_access(&self, access: Access) {
        access::store(&self.access, access);
    }
}
