//! The stores that answer the requests of a trace, behind one small trait.

use super::{NO_END, POLICIES, database};
use fluxmap::Database;
use fluxmap::mem::{EvictionPolicy, MemSize};
use futures::executor::block_on;
use lru::LruCache;
use std::num::NonZeroUsize;

/// A store of a bounded number of keys.
pub(crate) trait Store {
    /// Looks a key up, and inserts it on a miss. Returns whether the key was there.
    fn request(&mut self, key: u64) -> bool;
}

type Make = Box<dyn Fn(usize) -> Box<dyn Store>>;

/// All stores: the name of each, and a function that makes it for a number of entries.
pub(crate) fn all() -> Vec<(&'static str, Make)> {
    let evicting = POLICIES.into_iter().filter(|(_, policy)| *policy != EvictionPolicy::Manual);
    let mut stores: Vec<(&'static str, Make)> = evicting
        .map(|(name, policy)| {
            let make: Make = Box::new(move |entries| Box::new(FluxMap::new(policy, entries)));
            (name, make)
        })
        .collect();
    stores.push(("exact LRU", Box::new(|entries| Box::new(ExactLru::new(entries)))));
    stores.push(("moka", Box::new(|entries| Box::new(Moka::new(entries)))));
    stores.push(("quick_cache", Box::new(|entries| Box::new(QuickCache::new(entries)))));
    stores
}

/// A value that claims to take so much memory that everything else in the database together weighs less
/// than one value. So a memory limit is in effect a limit on the number of entries.
struct Heavy;

impl MemSize for Heavy {
    fn mem_size(&self) -> usize {
        16 << 20
    }
}

struct FluxMap {
    db: Database<u64, Heavy>,
    /// The live bytes of the full database.
    live: u64,
}

impl FluxMap {
    fn new(policy: EvictionPolicy, entries: usize) -> Self {
        let weighed = database(Some((policy, NO_END)));
        for key in 0..entries as u64 {
            block_on(weighed.insert(key, Heavy)).expect("it has room");
        }
        let live = weighed.memory_info().live_bytes;
        // Add half an entry for the index and the policy's memory of evicted keys.
        let limit = live + live / entries as u64 / 2;
        FluxMap { db: database(Some((policy, limit))), live }
    }
}

impl Store for FluxMap {
    fn request(&mut self, key: u64) -> bool {
        let is_hit = self.db.get(&key).expect("a read in memory").is_some();
        if !is_hit {
            block_on(self.db.insert(key, Heavy)).expect("others go");
        }
        is_hit
    }
}

impl Drop for FluxMap {
    fn drop(&mut self) {
        let info = self.db.memory_info();
        assert!(info.evictions.capacity == 0 || info.live_bytes == self.live, "not the entries asked for");
    }
}

/// The reference: an LRU list that every use reorders.
struct ExactLru(LruCache<u64, ()>);

impl ExactLru {
    fn new(entries: usize) -> Self {
        ExactLru(LruCache::new(NonZeroUsize::new(entries).expect("at least one")))
    }
}

impl Store for ExactLru {
    fn request(&mut self, key: u64) -> bool {
        let is_hit = self.0.get(&key).is_some();
        if !is_hit {
            self.0.put(key, ());
        }
        is_hit
    }
}

struct Moka(moka::sync::Cache<u64, ()>);

impl Moka {
    fn new(entries: usize) -> Self {
        Moka(moka::sync::Cache::new(entries as u64))
    }
}

impl Store for Moka {
    fn request(&mut self, key: u64) -> bool {
        let is_hit = self.0.get(&key).is_some();
        if !is_hit {
            // Let moka do its housekeeping by itself, which gives it the most hits. If it is asked to
            // do it after each insert, it rejects nearly all new keys.
            self.0.insert(key, ());
        }
        is_hit
    }
}

struct QuickCache(quick_cache::sync::Cache<u64, ()>);

impl QuickCache {
    fn new(entries: usize) -> Self {
        QuickCache(quick_cache::sync::Cache::new(entries))
    }
}

impl Store for QuickCache {
    fn request(&mut self, key: u64) -> bool {
        let is_hit = self.0.get(&key).is_some();
        if !is_hit {
            self.0.insert(key, ());
        }
        is_hit
    }
}
