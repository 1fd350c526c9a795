//! What is said about a database: its settings, its figures.

use crate::mem::Evictions;
use std::time::Duration;

/// What concurrent transactions may see of each other.
///
/// ```
/// use fluxmap::{Database, IsolationLevel};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fluxmap::FluxError> {
/// let db = Database::<String, u32>::builder()
///     .isolation_level(IsolationLevel::Snapshot)
///     .build()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IsolationLevel {
    /// Nothing: committed transactions behave as if run one after another, in an
    /// order that respects real time (strict serializability). A transaction that
    /// has written and that read something which was changed meanwhile fails to
    /// commit and is to be run again.
    #[default]
    Serializable,
    /// Each transaction reads one moment, and of two that write the same key at
    /// the same time the first to commit wins. Transactions that read what the
    /// other writes, and write different keys, both commit: *write skew*, the
    /// only anomaly of this level, in all its forms (the read-only anomaly of Fekete,
    /// O'Neil and O'Neil, 2004, is one).
    Snapshot,
}

/// How often old versions are looked for in the background.
#[derive(Clone, Copy, Debug)]
pub struct VacuumOptions {
    /// The time between two runs.
    pub interval: Duration,
}

/// What a [`vacuum`](crate::Database::vacuum) removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VacuumStats {
    /// Versions that no snapshot could see any more, tombstones included.
    pub versions_removed: usize,
    /// Deleted keys that left the index.
    pub keys_removed: usize,
}

/// What a database holds, from [`Database::memory_info`](crate::Database::memory_info).
///
/// Bytes are what a general-purpose allocator takes for it, see
/// [`allocated`](crate::mem::allocated). Without a memory limit, what keys and values own on
/// the heap is not known, and not in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryInfo {
    /// The memory limit in bytes, if there is one.
    pub max_bytes: Option<u64>,
    /// The bytes that the memory limit bounds: `live_bytes` and `index_bytes` together.
    pub current_bytes: u64,
    /// All of the following bytes together.
    pub total_bytes: u64,
    /// Keys, and the values that they hold now.
    pub live_bytes: u64,
    /// What finding, ordering, choosing and expiring the keys that are there takes, beyond what
    /// it takes in an empty database.
    pub index_bytes: u64,
    /// Room in the index that keys which have gone have left, and that keys take which only open
    /// snapshots see. The index gets smaller as keys are removed from it, which commits and a
    /// [`vacuum`](crate::Database::vacuum) do, and keeps at most a few times of what the remaining
    /// keys need.
    pub spare_bytes: u64,
    /// Values that have been replaced or removed, kept for open snapshots or about to be
    /// freed.
    pub old_version_bytes: u64,
    /// Commits that wait to be written to the log.
    pub log_buffer_bytes: u64,
    /// Keys in the index, deleted ones whose tombstone may still be read included, and expired
    /// ones that are still to be removed: at least what
    /// [`count(..)`](crate::Database::count) says.
    pub keys: u64,
    /// Versions of all keys, tombstones included.
    pub versions: u64,
    /// Snapshots, transactions and scans that are open.
    pub live_snapshots: u64,
    /// How long the oldest of them has been open.
    pub oldest_snapshot_age: Option<Duration>,
    /// Keys with versions that will go when nobody can see them any more.
    pub backlog: u64,
    /// Keys that went without a transaction that removed them, since the database was opened.
    pub evictions: Evictions,
    /// Reads of single keys that found something. Scans do not count.
    pub hits: u64,
    /// Reads of single keys that found nothing.
    pub misses: u64,
}

/// What is known of one key, for choosing what to evict.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyMetadata<K> {
    /// The key.
    pub key: K,
    /// When it was last read, or written if it was not read since: greater is later, to be
    /// compared within one scan. Time passes as keys come in, a step for about every
    /// thirtieth part of them, and 4,096 steps back are remembered.
    pub last_accessed: u64,
    /// How often it was read, as far as the policy counts: under
    /// [`Manual`](crate::mem::EvictionPolicy::Manual) and `Lfu` by the order of magnitude, as
    /// one less than a power of two, up to 32,767; under `Lru` and `Arc` whether at all, since
    /// the policy last looked; under `S3Fifo` up to three.
    pub access_count: u64,
    /// The memory that it takes, with its value, in bytes.
    pub size_bytes: u64,
}
