//! scc's `TreeIndex`. It has no transactions, and a scan does not show one moment.

use super::{Ability, Body, Level, Store, Visit, number};
use scc::{Guard, TreeIndex};
use std::path::Path;
use std::sync::Arc;

#[derive(Default)]
struct Tree(TreeIndex<String, Arc<Vec<u8>>>);

pub(super) fn open(_: &Path, _: Level) -> Box<dyn Store> {
    Box::<Tree>::default()
}

impl Store for Tree {
    fn get(&self, key: &str) -> Option<i64> {
        let value = self.0.peek_with(key, |_, value| Arc::clone(value));
        value.map(|value| number(&value))
    }

    fn put(&self, key: &str, value: Vec<u8>) {
        let mut pair = (key.to_string(), Arc::new(value));
        // It has no update in place. Remove the key and insert it again, until no other thread
        // inserts it in between.
        while let Err(back) = self.0.insert_sync(pair.0, pair.1) {
            self.0.remove_sync(&back.0);
            pair = back;
        }
    }

    fn scan(&self, from: &str, limit: usize, visit: &mut Visit<'_>) {
        let guard = Guard::new();
        for (key, value) in self.0.range(from.to_string().., &guard).take(limit) {
            visit(key, number(value));
        }
    }

    fn transact(&self, _: &mut Body<'_>) -> u64 {
        unreachable!("see `can`")
    }

    fn can(&self, what: Ability) -> bool {
        what == Ability::Scan
    }
}
