//! LMDB, which has one writer at a time. Calling `open` of these bindings is safe.

use super::{Ability, Body, Conflict, Level, Store, Visit, number, text};
use lmdb::{Cursor, Database, Environment, EnvironmentFlags, Error, RwTransaction, Transaction, WriteFlags};
use std::path::Path;

struct Lmdb {
    env: Environment,
    db: Database,
}

pub(super) fn open(dir: &Path, level: Level) -> Box<dyn Store> {
    let path = dir.join("lmdb");
    std::fs::create_dir_all(&path).expect("a directory");
    let flags = match level {
        Level::Memory => EnvironmentFlags::NO_SYNC | EnvironmentFlags::WRITE_MAP,
        Level::Relaxed => EnvironmentFlags::NO_SYNC,
        Level::Full => EnvironmentFlags::empty(),
    };
    let env = Environment::new().set_flags(flags).set_map_size(8 << 30).set_max_readers(1024).open(&path);
    let env = env.expect("it opens");
    let db = env.open_db(None).expect("a database");
    Box::new(Lmdb { env, db })
}

/// The number in a value that may be absent.
fn found(value: Result<&[u8], Error>) -> Option<i64> {
    match value {
        Ok(value) => Some(number(value)),
        Err(Error::NotFound) => None,
        Err(other) => panic!("{other}"),
    }
}

impl Store for Lmdb {
    fn get(&self, key: &str) -> Option<i64> {
        found(self.env.begin_ro_txn().expect("a transaction").get(self.db, &key))
    }

    fn put(&self, key: &str, value: Vec<u8>) {
        self.transact(&mut |tx| tx.put(key, value.clone()));
    }

    fn scan(&self, from: &str, limit: usize, visit: &mut Visit<'_>) {
        let tx = self.env.begin_ro_txn().expect("a transaction");
        let mut cursor = tx.open_ro_cursor(self.db).expect("a cursor");
        // The bindings refuse an empty key.
        let pairs = if from.is_empty() { cursor.iter_start() } else { cursor.iter_from(from) };
        for pair in pairs.take(limit) {
            let (key, value) = pair.expect("a pair");
            visit(text(key), number(value));
        }
    }

    fn transact(&self, body: &mut Body<'_>) -> u64 {
        let mut tx = self.env.begin_rw_txn().expect("a transaction");
        body(&mut Tx(&mut tx, self.db)).expect("one writer has no conflicts");
        tx.commit().expect("it commits");
        0
    }

    fn can(&self, _: Ability) -> bool {
        true
    }
}

struct Tx<'t, 'e>(&'t mut RwTransaction<'e>, Database);

impl super::Transaction for Tx<'_, '_> {
    fn get(&mut self, key: &str) -> Result<Option<i64>, Conflict> {
        Ok(found(self.0.get(self.1, &key)))
    }

    fn put(&mut self, key: &str, value: Vec<u8>) -> Result<(), Conflict> {
        self.0.put(self.1, &key, &value, WriteFlags::empty()).expect("a write");
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), Conflict> {
        self.0.del(self.1, &key, None).expect("a delete");
        Ok(())
    }

    fn scan_prefix(&mut self, prefix: &str, visit: &mut Visit<'_>) -> Result<(), Conflict> {
        let mut cursor = self.0.open_ro_cursor(self.1).expect("a cursor");
        for pair in cursor.iter_from(prefix) {
            let (key, value) = pair.expect("a pair");
            if !key.starts_with(prefix.as_bytes()) {
                break;
            }
            visit(text(key), number(value));
        }
        Ok(())
    }
}
