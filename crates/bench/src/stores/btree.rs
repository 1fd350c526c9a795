//! A standard map under one lock, as an application might write it. A transaction holds the lock.

use super::{Ability, Body, Conflict, Level, Store, Transaction, Visit, number};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, RwLock};

type Map = BTreeMap<String, Arc<Vec<u8>>>;

#[derive(Default)]
struct Locked(RwLock<Map>);

pub(super) fn open(_: &Path, _: Level) -> Box<dyn Store> {
    Box::<Locked>::default()
}

/// The pairs from `key` on.
fn from<'m>(map: &'m Map, key: &str) -> impl Iterator<Item = (&'m String, &'m Arc<Vec<u8>>)> {
    map.range::<str, _>((Bound::Included(key), Bound::Unbounded))
}

impl Store for Locked {
    fn get(&self, key: &str) -> Option<i64> {
        let value = self.0.read().expect("no panic").get(key).cloned();
        value.map(|value| number(&value))
    }

    fn put(&self, key: &str, value: Vec<u8>) {
        let (key, value) = (key.to_string(), Arc::new(value));
        let old = self.0.write().expect("no panic").insert(key, value);
        drop(old);
    }

    fn scan(&self, key: &str, limit: usize, visit: &mut Visit<'_>) {
        for (key, value) in from(&self.0.read().expect("no panic"), key).take(limit) {
            visit(key, number(value));
        }
    }

    fn transact(&self, body: &mut Body<'_>) -> u64 {
        body(&mut *self.0.write().expect("no panic")).expect("one writer has no conflicts");
        0
    }

    fn can(&self, _: Ability) -> bool {
        true
    }
}

impl Transaction for Map {
    fn get(&mut self, key: &str) -> Result<Option<i64>, Conflict> {
        Ok(Map::get(self, key).map(|value| number(value)))
    }

    fn put(&mut self, key: &str, value: Vec<u8>) -> Result<(), Conflict> {
        self.insert(key.to_string(), Arc::new(value));
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), Conflict> {
        self.remove(key);
        Ok(())
    }

    fn scan_prefix(&mut self, prefix: &str, visit: &mut Visit<'_>) -> Result<(), Conflict> {
        for (key, value) in from(self, prefix).take_while(|(key, _)| key.starts_with(prefix)) {
            visit(key, number(value));
        }
        Ok(())
    }
}
