//! Other stores, at their like levels. All are driven by threads.
//!
//! What their second level survives: the death of the process in fjall, LMDB, SQLite and
//! surrealmx, whose commits are with the operating system when they return; not in sled
//! and redb, which keep them in the memory of the process for a while.

use super::{Engine, Level, key, value};
use lmdb::Transaction;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

type Make = fn(&Path) -> Box<dyn Engine>;

/// The peers of a level.
pub(crate) fn all(level: Level) -> Vec<(&'static str, Make)> {
    match level {
        Level::Full => vec![
            ("surrealmx", |dir| Box::new(Surreal::new(dir, Level::Full))),
            ("redb", |dir| Box::new(Redb::new(dir, Level::Full))),
            ("fjall", |dir| Box::new(Fjall::new(dir, Level::Full))),
            ("LMDB", |dir| Box::new(Lmdb::new(dir, Level::Full))),
            ("SQLite", |dir| Box::new(Sqlite::new(dir, Level::Full))),
            ("sled", |dir| Box::new(Sled::new(dir, Level::Full))),
        ],
        Level::Relaxed => vec![
            ("surrealmx", |dir| Box::new(Surreal::new(dir, Level::Relaxed))),
            ("redb (lost with the process)", |dir| Box::new(Redb::new(dir, Level::Relaxed))),
            ("fjall", |dir| Box::new(Fjall::new(dir, Level::Relaxed))),
            ("LMDB", |dir| Box::new(Lmdb::new(dir, Level::Relaxed))),
            ("SQLite", |dir| Box::new(Sqlite::new(dir, Level::Relaxed))),
            ("sled (lost with the process)", |dir| Box::new(Sled::new(dir, Level::Relaxed))),
        ],
    }
}

struct Surreal(surrealmx::Database);

impl Surreal {
    fn new(dir: &Path, level: Level) -> Self {
        let sync = match level {
            Level::Full => surrealmx::FsyncMode::EveryAppend,
            Level::Relaxed => surrealmx::FsyncMode::Interval(Duration::from_secs(1)),
        };
        let options = surrealmx::PersistenceOptions::new(dir.join("surrealmx"))
            .with_aol_mode(surrealmx::AolMode::SynchronousOnCommit)
            .with_fsync_mode(sync);
        let db = surrealmx::Database::new_with_persistence(Default::default(), options);
        Surreal(db.expect("it opens"))
    }
}

impl Engine for Surreal {
    fn commit(&self, thread: usize, number: u64) {
        let mut tx = self.0.transaction(true);
        tx.set(key(thread, number), value(number)).expect("a write");
        tx.commit().expect("it commits");
    }
}

struct Redb {
    db: redb::Database,
    durability: redb::Durability,
}

const REDB: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new("bench");

impl Redb {
    fn new(dir: &Path, level: Level) -> Self {
        let durability = match level {
            Level::Full => redb::Durability::Immediate,
            Level::Relaxed => redb::Durability::None,
        };
        Redb { db: redb::Database::create(dir.join("redb")).expect("it opens"), durability }
    }
}

impl Engine for Redb {
    fn commit(&self, thread: usize, number: u64) {
        let mut tx = self.db.begin_write().expect("a transaction");
        tx.set_durability(self.durability).expect("no savepoints");
        let mut table = tx.open_table(REDB).expect("a table");
        table.insert(key(thread, number).as_str(), value(number).as_slice()).expect("a write");
        drop(table);
        tx.commit().expect("it commits");
    }
}

/// With its optimistic, serializable transactions.
struct Fjall {
    db: fjall::OptimisticTxDatabase,
    items: fjall::OptimisticTxKeyspace,
    persist: fjall::PersistMode,
}

impl Fjall {
    fn new(dir: &Path, level: Level) -> Self {
        let persist = match level {
            Level::Full => fjall::PersistMode::SyncData,
            Level::Relaxed => fjall::PersistMode::Buffer,
        };
        let db = fjall::OptimisticTxDatabase::builder(dir.join("fjall")).open().expect("it opens");
        let items = db.keyspace("bench", fjall::KeyspaceCreateOptions::default).expect("a keyspace");
        Fjall { db, items, persist }
    }
}

impl Engine for Fjall {
    fn commit(&self, thread: usize, number: u64) {
        let mut tx = self.db.write_tx().expect("a transaction").durability(Some(self.persist));
        tx.insert(&self.items, key(thread, number), value(number));
        tx.commit().expect("it commits").expect("a blind write");
    }
}

struct Lmdb {
    env: lmdb::Environment,
    db: lmdb::Database,
}

impl Lmdb {
    fn new(dir: &Path, level: Level) -> Self {
        let path = dir.join("lmdb");
        std::fs::create_dir_all(&path).expect("a directory");
        let flags = match level {
            Level::Full => lmdb::EnvironmentFlags::empty(),
            Level::Relaxed => lmdb::EnvironmentFlags::NO_SYNC,
        };
        let env = lmdb::Environment::new().set_flags(flags).set_map_size(4 << 30).open(&path);
        let env = env.expect("it opens");
        let db = env.open_db(None).expect("a database");
        Lmdb { env, db }
    }
}

impl Engine for Lmdb {
    fn commit(&self, thread: usize, number: u64) {
        let mut tx = self.env.begin_rw_txn().expect("a transaction");
        let flags = lmdb::WriteFlags::empty();
        tx.put(self.db, &key(thread, number), &value(number), flags).expect("a write");
        tx.commit().expect("it commits");
    }
}

/// A connection for each thread.
struct Sqlite(Vec<Mutex<rusqlite::Connection>>);

impl Sqlite {
    fn new(dir: &Path, level: Level) -> Self {
        let connect = || {
            let connection = rusqlite::Connection::open(dir.join("sqlite")).expect("it opens");
            connection.busy_timeout(Duration::from_secs(60)).expect("a timeout");
            connection.pragma_update(None, "journal_mode", "WAL").expect("a journal");
            let sync = if level == Level::Full { "FULL" } else { "NORMAL" };
            connection.pragma_update(None, "synchronous", sync).expect("a level");
            let table = "CREATE TABLE IF NOT EXISTS bench (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID";
            connection.execute(table, []).expect("a table");
            Mutex::new(connection)
        };
        Sqlite((0..64).map(|_| connect()).collect())
    }
}

impl Engine for Sqlite {
    fn commit(&self, thread: usize, number: u64) {
        let connection = self.0[thread % self.0.len()].lock().expect("no panic");
        let insert = "INSERT OR REPLACE INTO bench (k, v) VALUES (?1, ?2)";
        let mut statement = connection.prepare_cached(insert).expect("a statement");
        statement.execute((key(thread, number), value(number))).expect("it commits");
    }
}

struct Sled {
    db: sled::Db,
    level: Level,
}

impl Sled {
    fn new(dir: &Path, level: Level) -> Self {
        let config = sled::Config::new().path(dir.join("sled")).flush_every_ms(Some(1000));
        Sled { db: config.open().expect("it opens"), level }
    }
}

impl Engine for Sled {
    fn commit(&self, thread: usize, number: u64) {
        self.db.insert(key(thread, number), value(number)).expect("a write");
        if self.level == Level::Full {
            self.db.flush().expect("a sync");
        }
    }
}
