//! `DashMap`. It has no transactions and no order.

use super::{Ability, Body, Level, Store, Visit, number};
use dashmap::DashMap;
use std::path::Path;
use std::sync::Arc;

#[derive(Default)]
struct Dash(DashMap<String, Arc<Vec<u8>>>);

pub(super) fn open(_: &Path, _: Level) -> Box<dyn Store> {
    Box::<Dash>::default()
}

impl Store for Dash {
    fn get(&self, key: &str) -> Option<i64> {
        let value = self.0.get(key).map(|value| Arc::clone(&value));
        value.map(|value| number(&value))
    }

    fn put(&self, key: &str, value: Vec<u8>) {
        self.0.insert(key.to_string(), Arc::new(value));
    }

    fn scan(&self, _: &str, _: usize, _: &mut Visit<'_>) {
        unreachable!("see `can`")
    }

    fn transact(&self, _: &mut Body<'_>) -> u64 {
        unreachable!("see `can`")
    }

    fn can(&self, _: Ability) -> bool {
        false
    }
}
