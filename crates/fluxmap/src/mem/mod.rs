//! Memory: what things weigh, and what goes when there is too much.

pub(crate) mod evict;
pub(crate) mod expiry;
pub(crate) mod keeper;
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

/// Weights are counted in units of this many bytes, which is what allocators count in.
pub(crate) const UNIT: usize = 16;

/// What is evicted when a database has reached its memory limit.
///
/// None of them costs more, per eviction, the more keys there are. Reads of single keys
/// count as uses, whether in transactions, in snapshots or outside; scans do not, so that a
/// look at everything does not make everything look used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EvictionPolicy {
    /// What has not been used for longest.
    #[default]
    Lru,
    /// What is used least often, with ageing.
    Lfu,
    /// Anything.
    Random,
    /// Adaptive replacement (Megiddo and Modha, FAST 2003): balances recency and
    /// frequency by what it has seen.
    Arc,
    /// What was written longest ago. Every key lives for the time set with `eviction_ttl`, unless it
    /// was given a time of its own.
    Ttl,
    /// Nothing: a write for which there is no room is refused, and the user makes room. A
    /// database that is opened with a smaller limit stays above it until then.
    Manual,
    /// S3-FIFO (Yang et al., SOSP 2023): a small queue that tries out what is new, a main
    /// queue, and a memory of what was tried and went. On the traces we know, the best of
    /// these.
    S3Fifo,
}
