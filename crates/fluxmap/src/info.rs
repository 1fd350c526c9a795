//! Settings and figures of a database.

use crate::mem::Evictions;
use std::time::Duration;

/// Isolation levels: which effects concurrent transactions may have on each other.
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
    /// None: committed transactions behave as if run one after another, in an order that respects real
    /// time (strict serializability). A transaction that has written, and has read a key or range that
    /// was changed meanwhile, fails to commit and should be run again.
    #[default]
    Serializable,
    /// Each transaction reads one moment, and of two that write the same key at the same time the first
    /// to commit wins. Two transactions that each read a key that the other writes, and write different
    /// keys, both commit: *write skew*, the only anomaly of this level, in all its forms (the read-only
    /// anomaly of Fekete, O'Neil and O'Neil, 2004, is one).
    Snapshot,
}

/// How often the background thread looks for old versions.
#[derive(Clone, Copy, Debug)]
pub struct VacuumOptions {
    /// The time between two runs.
    pub interval: Duration,
}

/// The result of a [`vacuum`](crate::Database::vacuum).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VacuumStats {
    /// The number of removed versions that no snapshot could see any more, tombstones included.
    pub versions_removed: usize,
    /// The number of deleted keys that were removed from the index.
    pub keys_removed: usize,
}

/// The memory that a database uses: returned by [`Database::memory_info`](crate::Database::memory_info).
///
/// Bytes are those that a general-purpose allocator takes, see [`allocated`](crate::mem::allocated).
/// Without a memory limit, the memory that keys and values own on the heap is unknown, and not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryInfo {
    /// The memory limit in bytes, if there is one.
    pub max_bytes: Option<u64>,
    /// The bytes that the memory limit bounds: `live_bytes` and `index_bytes` together.
    pub current_bytes: u64,
    /// The sum of the following byte figures.
    pub total_bytes: u64,
    /// The bytes of keys with their current values.
    pub live_bytes: u64,
    /// The bytes to find, order, choose and expire the present keys, beyond those of an empty database.
    pub index_bytes: u64,
    /// The bytes of free room in the index, left by keys that have gone, and of the entries of keys that
    /// only open snapshots see. The index shrinks as keys are removed from it, by commits and by a
    /// [`vacuum`](crate::Database::vacuum), and keeps at most a few times the room that the remaining
    /// keys need.
    pub spare_bytes: u64,
    /// The bytes of values that have been replaced or removed, and are kept for open snapshots or about
    /// to be freed.
    pub old_version_bytes: u64,
    /// The bytes of commits that wait to be written to the log.
    pub log_buffer_bytes: u64,
    /// The number of keys in the index. It includes deleted keys whose tombstone may still be read, and
    /// expired keys that are still to be removed, so it is at least
    /// [`count(..)`](crate::Database::count).
    pub keys: u64,
    /// The number of versions of all keys, tombstones included.
    pub versions: u64,
    /// The number of open snapshots, transactions and scans.
    pub live_snapshots: u64,
    /// How long the oldest of these has been open.
    pub oldest_snapshot_age: Option<Duration>,
    /// The number of keys with versions that will be removed once no reader can see them any more.
    pub backlog: u64,
    /// The numbers of keys removed without a transaction since the database was opened.
    pub evictions: Evictions,
    /// The number of reads of single keys that found a value. Scans do not count.
    pub hits: u64,
    /// The number of reads of single keys that found no value.
    pub misses: u64,
}

/// The metadata of one key, for choosing keys to evict.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyMetadata<K> {
    /// The key.
    pub key: K,
    /// When the key was last read, or written if it was not read since. A greater number is later;
    /// compare numbers of one scan only. Time advances as keys are added, one step for about every
    /// thirtieth part of them, and 4,096 steps back are remembered.
    pub last_accessed: u64,
    /// How often the key was read, as far as the policy counts: under
    /// [`Manual`](crate::mem::EvictionPolicy::Manual) and `Lfu` the order of magnitude, as one less than
    /// a power of two, up to 32,767; under `Lru` and `Arc` whether it was read at all since the policy
    /// last looked; under `S3Fifo` up to three.
    pub access_count: u64,
    /// The memory of the key and its value, in bytes.
    pub size_bytes: u64,
}
