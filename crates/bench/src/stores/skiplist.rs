//! crossbeam's skiplist. It has no transactions, and a scan does not show one moment.

use super::{Ability, Body, Level, Store, Visit, number};
use crossbeam_skiplist::SkipMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

#[derive(Default)]
struct Skip(SkipMap<String, Arc<Vec<u8>>>);

pub(super) fn open(_: &Path, _: Level) -> Box<dyn Store> {
    Box::<Skip>::default()
}

impl Store for Skip {
    fn get(&self, key: &str) -> Option<i64> {
        let value = self.0.get(key).map(|entry| Arc::clone(entry.value()));
        value.map(|value| number(&value))
    }

    fn put(&self, key: &str, value: Vec<u8>) {
        self.0.insert(key.to_string(), Arc::new(value));
    }

    fn scan(&self, from: &str, limit: usize, visit: &mut Visit<'_>) {
        for entry in self.0.range::<str, _>((Bound::Included(from), Bound::Unbounded)).take(limit) {
            visit(entry.key(), number(entry.value()));
        }
    }

    fn transact(&self, _: &mut Body<'_>) -> u64 {
        unreachable!("see `can`")
    }

    fn can(&self, what: Ability) -> bool {
        what == Ability::Scan
    }
}
