//! FluxMap 0.3.7, the last version before it was written anew.

use super::{Ability, Body, Conflict, Level, Store, Visit, number};
use fluxmap_0_3_7::db::{Database, Handle};
use fluxmap_0_3_7::error::FluxError;
use futures::executor::block_on;
use std::path::Path;

struct Old(Database<String, Vec<u8>>);

pub(super) fn open(_: &Path, _: Level) -> Box<dyn Store> {
    Box::new(Old(block_on(Database::new_in_memory()).expect("it opens")))
}

/// A character after all keys of the benchmarks.
const END: char = char::MAX;

impl Store for Old {
    fn get(&self, key: &str) -> Option<i64> {
        self.0.handle().get(&key.to_string()).expect("a read").map(|value| number(&value))
    }

    fn put(&self, key: &str, value: Vec<u8>) {
        while block_on(self.0.handle().insert(key.to_string(), value.clone())).is_err() {}
    }

    fn scan(&self, from: &str, limit: usize, visit: &mut Visit<'_>) {
        use futures::{StreamExt, TryStreamExt};
        let handle = self.0.handle();
        let (from, end) = (from.to_string(), END.to_string());
        // A scan may end with a conflict, after all its pairs.
        let pairs: Vec<_> = loop {
            let stream = handle.range_stream(&from, &end).take(limit);
            if let Ok(pairs) = block_on(stream.try_collect()) {
                break pairs;
            }
        };
        pairs.iter().for_each(|(key, value)| visit(key, number(value)));
    }

    fn transact(&self, body: &mut Body<'_>) -> u64 {
        let mut lost = 0;
        loop {
            let mut handle = self.0.handle();
            handle.begin().expect("none is active");
            match body(&mut Tx(&handle)) {
                Ok(()) => match block_on(handle.commit()) {
                    Ok(()) => return lost,
                    Err(FluxError::SerializationConflict) => {}
                    Err(other) => panic!("{other:?}"),
                },
                Err(Conflict) => handle.rollback().expect("one is active"),
            }
            lost += 1;
        }
    }

    fn can(&self, _: Ability) -> bool {
        true
    }
}

struct Tx<'h, 'db>(&'h Handle<'db, String, Vec<u8>>);

impl super::Transaction for Tx<'_, '_> {
    fn get(&mut self, key: &str) -> Result<Option<i64>, Conflict> {
        Ok(self.0.get(&key.to_string()).expect("a read").map(|value| number(&value)))
    }

    fn put(&mut self, key: &str, value: Vec<u8>) -> Result<(), Conflict> {
        block_on(self.0.insert(key.to_string(), value)).map_err(|_| Conflict)
    }

    fn delete(&mut self, key: &str) -> Result<(), Conflict> {
        block_on(self.0.remove(&key.to_string())).map(drop).map_err(|_| Conflict)
    }

    fn scan_prefix(&mut self, prefix: &str, visit: &mut Visit<'_>) -> Result<(), Conflict> {
        for (key, value) in self.0.prefix_scan(prefix).map_err(|_| Conflict)? {
            visit(&key, number(&value));
        }
        Ok(())
    }
}
