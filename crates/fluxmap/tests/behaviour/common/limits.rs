//! Databases with a memory limit.

use std::time::Duration;

use fluxmap::mem::{EvictionPolicy, MemSize};
use fluxmap::{Database, DatabaseBuilder, Key, Value};

/// The policies that evict on their own: all but `Manual`.
pub(crate) const EVICTING: [EvictionPolicy; 6] = [
    EvictionPolicy::Lru,
    EvictionPolicy::Lfu,
    EvictionPolicy::Random,
    EvictionPolicy::Arc,
    EvictionPolicy::Ttl,
    EvictionPolicy::S3Fifo,
];

/// A database with a memory limit. The TTL of policy `Ttl` is an hour, so nothing expires during a
/// test.
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
