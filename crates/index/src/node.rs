//! An entry: one key, its hash, its chain of versions, and the marks that the
//! writer keeps on it.

use crate::chain::Chain;
use crate::sync::{AtomicU64, Ordering};

/// The bits of a hash that an entry keeps, and by which it is told from
/// others before keys are compared. The rest of the word holds marks.
pub(crate) const HASH_BITS: u64 = !0xffff;

/// The entry waits in the writer's queue of chains to trim.
const QUEUED: u64 = 1;
/// The entry is in neither the hash nor the order any more.
const UNLINKED: u64 = 2;

/// One key with its versions. Reached through the hash and through the order.
pub(crate) struct Entry<K, T> {
    pub(crate) key: K,
    pub(crate) chain: Chain<T>,
    /// The upper 48 bits of the key's hash, and marks below. One word, so that
    /// an entry with a `String` key takes 40 bytes.
    word: AtomicU64,
}

impl<K, T> Entry<K, T> {
    pub(crate) fn new(key: K, hash: u64) -> Self {
        Entry { key, chain: Chain::new(), word: AtomicU64::new(hash & HASH_BITS) }
    }

    /// The hash, without the bits that are not kept.
    pub(crate) fn hash(&self) -> u64 {
        // Relaxed: these bits never change (I3).
        self.word.load(Ordering::Relaxed) & HASH_BITS
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.word.load(Ordering::Relaxed) & QUEUED != 0
    }

    pub(crate) fn is_unlinked(&self) -> bool {
        self.word.load(Ordering::Relaxed) & UNLINKED != 0
    }

    pub(crate) fn set_queued(&self, queued: bool) {
        // Relaxed, load and store: (I1) marks are the writer's alone.
        let word = self.word.load(Ordering::Relaxed) & !QUEUED;
        self.word.store(word | u64::from(queued), Ordering::Relaxed);
    }

    pub(crate) fn set_unlinked(&self) {
        let word = self.word.load(Ordering::Relaxed);
        self.word.store(word | UNLINKED, Ordering::Relaxed);
    }
}
