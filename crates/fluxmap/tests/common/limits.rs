//! Databases with a memory limit.

use std::time::Duration;

use fluxmap::mem::{EvictionPolicy, MemSize};
use fluxmap::{Database, DatabaseBuilder, Key, Value};

/// The policies that evict by themselves: all but `Manual`.
pub(crate) const EVICTING: [EvictionPolicy; 6] = [
    EvictionPolicy::Lru,
    EvictionPolicy::Lfu,
    EvictionPolicy::Random,
    EvictionPolicy::Arc,
    EvictionPolicy::Ttl,
    EvictionPolicy::S3Fifo,
];

/// A database with a limit, in which nothing expires by itself during a test.
pub(crate) fn limited<K, V>(policy: EvictionPolicy, limit: u64) -> DatabaseBuilder<K, V>
where
    K: Key + MemSize,
    V: Value + MemSize,
{
    let builder = Database::builder().max_memory(limit).eviction_policy(policy);
    match policy {
        EvictionPolicy::Ttl => builder.eviction_ttl(Duration::from_secs(3600)),
        _ => builder,
    }
}
