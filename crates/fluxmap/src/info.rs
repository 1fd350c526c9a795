//! What is said about a database: its settings, its figures.

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryInfo {
    /// The memory limit in bytes, if there is one.
    pub max_bytes: Option<u64>,
    /// Keys in the index, deleted ones whose tombstone may still be read included.
    pub keys: u64,
    /// Versions of all keys, tombstones included.
    pub versions: u64,
    /// Snapshots, transactions and scans that are open.
    pub live_snapshots: u64,
    /// Keys with versions that will go when nobody can see them any more.
    pub backlog: u64,
}

/// What is known of one key, for choosing what to evict.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyMetadata<K> {
    /// The key.
    pub key: K,
    /// When it was last read, on a clock of its own.
    pub last_accessed: u64,
    /// How often it was read.
    pub access_count: u64,
    /// The memory that it takes, with its value.
    pub size_bytes: u64,
}
