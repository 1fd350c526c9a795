//! Memory: what things weigh, and what goes when there is too much.

mod size;

pub use size::MemSize;

/// What is evicted when a database has reached its memory limit.
///
/// Limits are not built yet: a builder that is given one answers with
/// [`FluxError::Configuration`](crate::FluxError::Configuration).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// What has lived longest than the time set with `eviction_ttl`.
    Ttl,
    /// Nothing: the user makes room.
    Manual,
    /// S3-FIFO (Yang et al., SOSP 2023): three queues, no list to reorder on a hit.
    S3Fifo,
}
