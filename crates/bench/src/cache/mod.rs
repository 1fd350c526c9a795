//! Databases with a memory limit, compared with caches: their hit ratios and their cost.

pub(crate) mod cost;
mod gets;
pub(crate) mod hits;
mod inserts;
mod plot;
mod stores;
mod trace;

use fluxmap::Database;
use fluxmap::Value;
use fluxmap::mem::{EvictionPolicy, MemSize};
use futures::executor::block_on;
use std::time::Duration;

/// The policies by name.
const POLICIES: [(&str, EvictionPolicy); 7] = [
    ("Lru", EvictionPolicy::Lru),
    ("Lfu", EvictionPolicy::Lfu),
    ("Random", EvictionPolicy::Random),
    ("Arc", EvictionPolicy::Arc),
    ("Ttl", EvictionPolicy::Ttl),
    ("Manual", EvictionPolicy::Manual),
    ("S3Fifo", EvictionPolicy::S3Fifo),
];

/// A time to live longer than any benchmark runs, so that `Ttl` evicts keys for lack of room only.
const LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// A limit that is never reached.
const NO_END: u64 = 1 << 50;

/// Whether the user asked for `name`. If the user named nothing, everything is wanted.
fn is_wanted(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
}

/// A database in memory with this limit, if any.
fn database<V: Value + MemSize>(limit: Option<(EvictionPolicy, u64)>) -> Database<u64, V> {
    let mut builder = Database::builder();
    if let Some((policy, bytes)) = limit {
        builder = builder.max_memory(bytes).eviction_policy(policy);
        if policy == EvictionPolicy::Ttl {
            builder = builder.eviction_ttl(LIFE);
        }
    }
    block_on(builder.build()).expect("the settings fit together")
}
