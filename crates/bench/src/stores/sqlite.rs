//! SQLite, which has one writer at a time.

use super::{Ability, Body, Conflict, Level, Store, Visit, number};
use rusqlite::{Connection, OptionalExtension};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// The connections, which threads take in turn. In memory there is only one, since connections to a
/// database in memory would share it only with locks on whole tables.
struct Sqlite(Vec<Mutex<Connection>>);

const CONNECTIONS: usize = 64;
const TABLE: &str = "CREATE TABLE IF NOT EXISTS bench (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID";

pub(super) fn open_in_memory(_: &Path, _: Level) -> Box<dyn Store> {
    let connection = Connection::open_in_memory().expect("it opens");
    connection.execute(TABLE, []).expect("a table");
    Box::new(Sqlite(vec![Mutex::new(connection)]))
}

pub(super) fn open(dir: &Path, level: Level) -> Box<dyn Store> {
    let connect = || {
        let connection = Connection::open(dir.join("sqlite")).expect("it opens");
        connection.busy_timeout(Duration::from_secs(60)).expect("a timeout");
        connection.pragma_update(None, "journal_mode", "WAL").expect("a journal");
        let sync = if level == Level::Full { "FULL" } else { "NORMAL" };
        connection.pragma_update(None, "synchronous", sync).expect("a level");
        connection.execute(TABLE, []).expect("a table");
        Mutex::new(connection)
    };
    Box::new(Sqlite((0..CONNECTIONS).map(|_| connect()).collect()))
}

impl Sqlite {
    /// The connection of this thread.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
        self.0[NUMBER.with(|number| number % self.0.len())].lock().expect("no panic")
    }
}

fn get(connection: &Connection, key: &str) -> Option<i64> {
    let mut statement = connection.prepare_cached("SELECT v FROM bench WHERE k = ?1").expect("a statement");
    let row = statement.query_row([key], |row| Ok(number(row.get_ref(0)?.as_blob()?)));
    row.optional().expect("a read")
}

fn put(connection: &Connection, key: &str, value: &[u8]) {
    let insert = "INSERT INTO bench (k, v) VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = excluded.v";
    let mut statement = connection.prepare_cached(insert).expect("a statement");
    statement.execute((key, value)).expect("a write");
}

/// Visits the rows of a query.
fn visit_rows(connection: &Connection, query: &str, bounds: impl rusqlite::Params, visit: &mut Visit<'_>) {
    let mut statement = connection.prepare_cached(query).expect("a statement");
    let mut rows = statement.query(bounds).expect("a query");
    while let Some(row) = rows.next().expect("a row") {
        let (key, value) = (row.get_ref(0).expect("a key"), row.get_ref(1).expect("a value"));
        visit(key.as_str().expect("text"), number(value.as_blob().expect("bytes")));
    }
}

impl Store for Sqlite {
    fn get(&self, key: &str) -> Option<i64> {
        get(&self.connection(), key)
    }

    fn put(&self, key: &str, value: Vec<u8>) {
        put(&self.connection(), key, &value);
    }

    fn scan(&self, from: &str, limit: usize, visit: &mut Visit<'_>) {
        let query = "SELECT k, v FROM bench WHERE k >= ?1 ORDER BY k LIMIT ?2";
        let limit = i64::try_from(limit).unwrap_or(-1);
        visit_rows(&self.connection(), query, (from, limit), visit);
    }

    fn transact(&self, body: &mut Body<'_>) -> u64 {
        let connection = self.connection();
        let execute = |statement| {
            connection.prepare_cached(statement).expect("a statement").execute([]).expect("it works");
        };
        execute("BEGIN IMMEDIATE");
        body(&mut Tx(&connection)).expect("one writer has no conflicts");
        execute("COMMIT");
        0
    }

    fn can(&self, _: Ability) -> bool {
        true
    }
}

struct Tx<'c>(&'c Connection);

impl super::Transaction for Tx<'_> {
    fn get(&mut self, key: &str) -> Result<Option<i64>, Conflict> {
        Ok(get(self.0, key))
    }

    fn put(&mut self, key: &str, value: Vec<u8>) -> Result<(), Conflict> {
        put(self.0, key, &value);
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), Conflict> {
        let mut statement = self.0.prepare_cached("DELETE FROM bench WHERE k = ?1").expect("a statement");
        statement.execute([key]).expect("a delete");
        Ok(())
    }

    fn scan_prefix(&mut self, prefix: &str, visit: &mut Visit<'_>) -> Result<(), Conflict> {
        let query = "SELECT k, v FROM bench WHERE k >= ?1 AND k < ?2 ORDER BY k";
        visit_rows(self.0, query, (prefix, format!("{prefix}\u{10ffff}")), visit);
        Ok(())
    }
}
