//! redb, which has one writer at a time.

use super::{Ability, Body, Conflict, Level, Store, Visit, number};
use redb::backends::InMemoryBackend;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition};
use std::path::Path;

const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("bench");

struct Redb {
    db: Database,
    durability: Durability,
}

pub(super) fn open_in_memory(_: &Path, _: Level) -> Box<dyn Store> {
    // `Immediate` frees pages at once, and costs nothing in memory.
    let db = Database::builder().create_with_backend(InMemoryBackend::new());
    Redb::new(db.expect("it opens"), Durability::Immediate)
}

pub(super) fn open(dir: &Path, level: Level) -> Box<dyn Store> {
    let durability = match level {
        Level::Memory | Level::Full => Durability::Immediate,
        // Commits are lost when the process dies.
        Level::Relaxed => Durability::None,
    };
    Redb::new(Database::create(dir.join("redb")).expect("it opens"), durability)
}

impl Redb {
    #[expect(clippy::new_ret_no_self, reason = "all stores are boxed")]
    fn new(db: Database, durability: Durability) -> Box<dyn Store> {
        let tx = db.begin_write().expect("a transaction");
        tx.open_table(TABLE).expect("a table");
        tx.commit().expect("it commits");
        Box::new(Redb { db, durability })
    }
}

impl Store for Redb {
    fn get(&self, key: &str) -> Option<i64> {
        let tx = self.db.begin_read().expect("a transaction");
        let table = tx.open_table(TABLE).expect("a table");
        table.get(key).expect("a read").map(|value| number(value.value()))
    }

    fn put(&self, key: &str, value: Vec<u8>) {
        self.transact(&mut |tx| tx.put(key, value.clone()));
    }

    fn scan(&self, from: &str, limit: usize, visit: &mut Visit<'_>) {
        let tx = self.db.begin_read().expect("a transaction");
        let table = tx.open_table(TABLE).expect("a table");
        for pair in table.range(from..).expect("a scan").take(limit) {
            let (key, value) = pair.expect("a pair");
            visit(key.value(), number(value.value()));
        }
    }

    fn transact(&self, body: &mut Body<'_>) -> u64 {
        let mut tx = self.db.begin_write().expect("a transaction");
        tx.set_durability(self.durability).expect("no savepoints");
        let mut table = tx.open_table(TABLE).expect("a table");
        body(&mut Tx(&mut table)).expect("one writer has no conflicts");
        drop(table);
        tx.commit().expect("it commits");
        0
    }

    fn can(&self, _: Ability) -> bool {
        true
    }
}

struct Tx<'t, 'd>(&'t mut Table<'d, &'static str, &'static [u8]>);

impl super::Transaction for Tx<'_, '_> {
    fn get(&mut self, key: &str) -> Result<Option<i64>, Conflict> {
        Ok(self.0.get(key).expect("a read").map(|value| number(value.value())))
    }

    fn put(&mut self, key: &str, value: Vec<u8>) -> Result<(), Conflict> {
        self.0.insert(key, value.as_slice()).expect("a write");
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), Conflict> {
        self.0.remove(key).expect("a delete");
        Ok(())
    }

    fn scan_prefix(&mut self, prefix: &str, visit: &mut Visit<'_>) -> Result<(), Conflict> {
        for pair in self.0.range(prefix..).expect("a scan") {
            let (key, value) = pair.expect("a pair");
            if !key.value().starts_with(prefix) {
                break;
            }
            visit(key.value(), number(value.value()));
        }
        Ok(())
    }
}
