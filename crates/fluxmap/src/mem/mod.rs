//! Memory: weighing keys and values, and evicting keys at the limit.

pub(crate) mod evict;
pub(crate) mod expiry;
pub(crate) mod ledger;
pub(crate) mod nodes;
mod notify;
pub(crate) mod policy;
pub(crate) mod removal;
mod size;
pub(crate) mod weigher;

pub use evict::{EvictionCause, Evictions};
pub use expiry::TimeSource;
#[cfg(feature = "derive")]
pub use fluxmap_derive::MemSize;
pub use size::{MemSize, allocated};

/// Weights are counted in units of this many bytes, the granularity of allocators.
pub(crate) const UNIT: usize = 16;

/// The policy that chooses keys to evict when a database has reached its memory limit.
///
/// With every policy, the cost of an eviction is independent of the number of keys. A read of a single
/// key counts as a use, whether in a transaction, in a snapshot or outside. Scans do not count, so that
/// a full scan does not make every key look used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EvictionPolicy {
    /// Evicts the least recently used key.
    #[default]
    Lru,
    /// Evicts the least frequently used key, with ageing.
    Lfu,
    /// Evicts a random key.
    Random,
    /// Adaptive replacement (Megiddo and Modha, FAST 2003): balances recency and frequency by the
    /// workload that it observes.
    Arc,
    /// Evicts the key that was written longest ago. Every key lives for the time set with
    /// `eviction_ttl`, unless it was given a time of its own.
    Ttl,
    /// Evicts nothing: a write without room is refused, and the user makes room. A database that is
    /// opened with a smaller limit stays above it until then.
    Manual,
    /// S3-FIFO (Yang et al., SOSP 2023): a small queue for new keys, a main queue, and a memory of keys
    /// that were evicted from the small queue. The best of these policies on the traces that we
    /// measured.
    S3Fifo,
}
