//! The stores, behind one small trait.

use crossbeam_skiplist::SkipMap;
use dashmap::DashMap;
use fluxmap::Database;
use futures::executor::block_on;
use scc::TreeIndex;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// What every store is asked to do. Values are shared, not copied: each store
/// returns or visits an `Arc`.
pub(crate) trait Store {
    /// Puts a value under a key that may or may not be there.
    fn put(&self, key: String, value: Arc<Vec<u8>>);
    /// Returns the value.
    fn get(&self, key: &str) -> Option<Arc<Vec<u8>>>;
    /// Adds up the lengths of the first `limit` keys and values from `start` on.
    /// `None` if the store has no order.
    fn scan(&self, start: &str, limit: usize) -> Option<usize>;
}

type Make = fn() -> Box<dyn Store>;

/// All stores with their names.
pub(crate) fn all() -> Vec<(&'static str, Make)> {
    vec![
        ("fluxmap", || {
            Box::new(FluxMap(block_on(Database::new_in_memory()).expect("the defaults are valid")))
        }),
        ("RwLock<BTreeMap>", || Box::<Locked>::default()),
        ("crossbeam-skiplist", || Box::<Skip>::default()),
        ("scc::TreeIndex", || Box::<Tree>::default()),
        ("dashmap", || Box::<Dash>::default()),
        ("papaya", || Box::<Papaya>::default()),
    ]
}

struct FluxMap(Database<String, Vec<u8>>);

impl Store for FluxMap {
    fn put(&self, key: String, value: Arc<Vec<u8>>) {
        block_on(self.0.insert_arc(key, value)).expect("a blind write in memory");
    }

    fn get(&self, key: &str) -> Option<Arc<Vec<u8>>> {
        self.0.get(key).expect("a read in memory")
    }

    fn scan(&self, start: &str, limit: usize) -> Option<usize> {
        let pairs = self.0.snapshot().range(start..).take(limit);
        Some(pairs.map(|(key, value)| key.len() + value.len()).sum())
    }
}

#[derive(Default)]
struct Locked(RwLock<BTreeMap<String, Arc<Vec<u8>>>>);

impl Store for Locked {
    fn put(&self, key: String, value: Arc<Vec<u8>>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, value);
    }

    fn get(&self, key: &str) -> Option<Arc<Vec<u8>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn scan(&self, start: &str, limit: usize) -> Option<usize> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let pairs = map.range::<str, _>((std::ops::Bound::Included(start), std::ops::Bound::Unbounded));
        // Copies what FluxMap's iterator hands out.
        Some(pairs.take(limit).map(|(key, value)| key.clone().len() + Arc::clone(value).len()).sum())
    }
}

#[derive(Default)]
struct Skip(SkipMap<String, Arc<Vec<u8>>>);

impl Store for Skip {
    fn put(&self, key: String, value: Arc<Vec<u8>>) {
        self.0.insert(key, value);
    }

    fn get(&self, key: &str) -> Option<Arc<Vec<u8>>> {
        self.0.get(key).map(|entry| Arc::clone(entry.value()))
    }

    fn scan(&self, start: &str, limit: usize) -> Option<usize> {
        let entries = self.0.range::<str, _>((std::ops::Bound::Included(start), std::ops::Bound::Unbounded));
        Some(
            entries
                .take(limit)
                .map(|entry| entry.key().clone().len() + Arc::clone(entry.value()).len())
                .sum(),
        )
    }
}

#[derive(Default)]
struct Tree(TreeIndex<String, Arc<Vec<u8>>>);

impl Store for Tree {
    fn put(&self, key: String, value: Arc<Vec<u8>>) {
        // The tree has no update in place: remove, then insert.
        if let Err((key, value)) = self.0.insert_sync(key, value) {
            self.0.remove_sync(&key);
            drop(self.0.insert_sync(key, value));
        }
    }

    fn get(&self, key: &str) -> Option<Arc<Vec<u8>>> {
        self.0.peek_with(key, |_, value| Arc::clone(value))
    }

    fn scan(&self, start: &str, limit: usize) -> Option<usize> {
        let guard = scc::Guard::new();
        let pairs = self.0.range(start.to_string().., &guard).take(limit);
        Some(pairs.map(|(key, value)| key.clone().len() + Arc::clone(value).len()).sum())
    }
}

#[derive(Default)]
struct Dash(DashMap<String, Arc<Vec<u8>>>);

impl Store for Dash {
    fn put(&self, key: String, value: Arc<Vec<u8>>) {
        self.0.insert(key, value);
    }

    fn get(&self, key: &str) -> Option<Arc<Vec<u8>>> {
        self.0.get(key).map(|value| Arc::clone(&value))
    }

    fn scan(&self, _: &str, _: usize) -> Option<usize> {
        None
    }
}

#[derive(Default)]
struct Papaya(papaya::HashMap<String, Arc<Vec<u8>>>);

impl Store for Papaya {
    fn put(&self, key: String, value: Arc<Vec<u8>>) {
        self.0.pin().insert(key, value);
    }

    fn get(&self, key: &str) -> Option<Arc<Vec<u8>>> {
        self.0.pin().get(key).map(Arc::clone)
    }

    fn scan(&self, _: &str, _: usize) -> Option<usize> {
        None
    }
}
