//! What answers the requests of a trace, behind one small trait.

use super::{NO_END, POLICIES, database};
use fluxmap::Database;
use fluxmap::mem::{EvictionPolicy, MemSize};
use futures::executor::block_on;
use lru::LruCache;
use std::num::NonZeroUsize;

/// Holds a number of keys.
pub(crate) trait Store {
    /// Looks a key up, and inserts it on a miss. Returns whether it was there.
    fn request(&mut self, key: u64) -> bool;
}

type Make = Box<dyn Fn(usize) -> Box<dyn Store>>;

/// All of them with their names, each to be made for a number of entries.
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

/// Says that it takes so much that all else in the database weighs less than a single one: a
/// limit that is a number of these is a number of entries.
struct Heavy;

impl MemSize for Heavy {
    fn mem_size(&self) -> usize {
        16 << 20
    }
}

struct FluxMap {
    db: Database<u64, Heavy>,
    /// What is live when it is full.
    live: u64,
}

impl FluxMap {
    fn new(policy: EvictionPolicy, entries: usize) -> Self {
        let weighed = database(Some((policy, NO_END)));
        for key in 0..entries as u64 {
            block_on(weighed.insert(key, Heavy)).expect("it has room");
        }
        let live = weighed.memory_info().live_bytes;
        // Half an entry for the index and what the policy remembers.
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

/// The reference: a list that every use reorders.
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
            // Its own time to tidy up is the best for it: asked to do that after each insert, it
            // turns away nearly all that is new.
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
