//! fjall, with its optimistic transactions, which are serializable.

use super::{Ability, Body, Conflict, Level, Store, Visit, number, text};
use fjall::{
    KeyspaceCreateOptions, OptimisticTxDatabase, OptimisticTxKeyspace, OptimisticWriteTx, PersistMode,
    Readable,
};
use std::path::Path;

struct Fjall {
    db: OptimisticTxDatabase,
    items: OptimisticTxKeyspace,
    persist: PersistMode,
}

pub(super) fn open(dir: &Path, level: Level) -> Box<dyn Store> {
    let persist = match level {
        Level::Memory | Level::Relaxed => PersistMode::Buffer,
        Level::Full => PersistMode::SyncData,
    };
    let db = OptimisticTxDatabase::builder(dir.join("fjall")).open().expect("it opens");
    let items = db.keyspace("bench", KeyspaceCreateOptions::default).expect("a keyspace");
    Box::new(Fjall { db, items, persist })
}

impl Store for Fjall {
    fn get(&self, key: &str) -> Option<i64> {
        self.items.get(key).expect("a read").map(|value| number(&value))
    }

    fn put(&self, key: &str, value: Vec<u8>) {
        self.transact(&mut |tx| tx.put(key, value.clone()));
    }

    fn scan(&self, from: &str, limit: usize, visit: &mut Visit<'_>) {
        for pair in self.db.read_tx().range(&self.items, from..).take(limit) {
            let (key, value) = pair.into_inner().expect("a pair");
            visit(text(&key), number(&value));
        }
    }

    fn transact(&self, body: &mut Body<'_>) -> u64 {
        let mut lost = 0;
        loop {
            let mut tx = self.db.write_tx().expect("a transaction").durability(Some(self.persist));
            let done = body(&mut Tx(&mut tx, &self.items));
            if done.is_ok() && tx.commit().expect("the log works").is_ok() {
                return lost;
            }
            lost += 1;
        }
    }

    fn can(&self, _: Ability) -> bool {
        true
    }
}

struct Tx<'t>(&'t mut OptimisticWriteTx, &'t OptimisticTxKeyspace);

impl super::Transaction for Tx<'_> {
    fn get(&mut self, key: &str) -> Result<Option<i64>, Conflict> {
        Ok(self.0.get(self.1, key).expect("a read").map(|value| number(&value)))
    }

    fn put(&mut self, key: &str, value: Vec<u8>) -> Result<(), Conflict> {
        self.0.insert(self.1, key, value);
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), Conflict> {
        self.0.remove(self.1, key);
        Ok(())
    }

    fn scan_prefix(&mut self, prefix: &str, visit: &mut Visit<'_>) -> Result<(), Conflict> {
        for pair in self.0.prefix(self.1, prefix) {
            let (key, value) = pair.into_inner().expect("a pair");
            visit(text(&key), number(&value));
        }
        Ok(())
    }
}
