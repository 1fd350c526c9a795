//! FluxMap itself.

use super::{Ability, Body, Conflict, Level, Store, Visit, number, value};
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, FluxError, Transaction};
use futures::executor::block_on;
use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

pub(crate) type Db = Database<String, Vec<u8>>;

struct FluxMap(Db);

pub(super) fn open(dir: &Path, level: Level) -> Box<dyn Store> {
    Box::new(FluxMap(database(dir, level)))
}

/// A database with the default settings.
pub(crate) fn database(dir: &Path, level: Level) -> Db {
    let builder = Database::builder();
    let options = || PersistenceOptions::new(dir.join("fluxmap"));
    let opened = match level {
        Level::Memory => block_on(builder.build()),
        Level::Relaxed => {
            block_on(builder.durability_relaxed(options()).flush_interval(Duration::from_secs(1)).build())
        }
        Level::Full => block_on(builder.durability_full(options()).build()),
    };
    opened.expect("it opens")
}

impl Store for FluxMap {
    fn get(&self, key: &str) -> Option<i64> {
        self.0.get(key).expect("a read").map(|value| number(&value))
    }

    fn put(&self, key: &str, value: Vec<u8>) {
        block_on(self.0.insert(key.to_string(), value)).expect("a blind write commits");
    }

    fn scan(&self, from: &str, limit: usize, visit: &mut Visit<'_>) {
        let mut left = limit;
        let scanned = self.0.snapshot().range(from..).visit(|key, value| {
            visit(key, number(value));
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let _ = scanned.expect("a scan");
    }

    fn transact(&self, body: &mut Body<'_>) -> u64 {
        let (body, runs) = (&RefCell::new(body), &Cell::new(0));
        let run = async move |tx: &mut Transaction<String, Vec<u8>>| {
            runs.set(runs.get() + 1);
            (body.borrow_mut())(&mut Tx(tx)).map_err(|Conflict| FluxError::SerializationConflict)
        };
        block_on(self.0.transact(run)).expect("it commits");
        runs.get() - 1
    }

    fn can(&self, _: Ability) -> bool {
        true
    }

    fn tasks(&self) -> Option<&Db> {
        Some(&self.0)
    }
}

struct Tx<'t>(&'t Transaction<String, Vec<u8>>);

impl super::Transaction for Tx<'_> {
    fn get(&mut self, key: &str) -> Result<Option<i64>, Conflict> {
        Ok(self.0.get(key).expect("a read").map(|value| number(&value)))
    }

    fn get_both(&mut self, keys: [&str; 2]) -> Result<[Option<i64>; 2], Conflict> {
        Ok(self.0.get_many(keys).expect("reads").map(|found| found.map(|value| number(&value))))
    }

    fn put(&mut self, key: &str, value: Vec<u8>) -> Result<(), Conflict> {
        self.0.insert(key.to_string(), value).expect("a write");
        Ok(())
    }

    fn delete(&mut self, key: &str) -> Result<(), Conflict> {
        self.0.remove(key).expect("a delete");
        Ok(())
    }

    fn scan_prefix(&mut self, prefix: &str, visit: &mut Visit<'_>) -> Result<(), Conflict> {
        let scanned = self.0.prefix(prefix).expect("a scan").visit(|key, value| {
            visit(key, number(value));
            ControlFlow::<()>::Continue(())
        });
        let _ = scanned.expect("a scan");
        Ok(())
    }
}

/// Moves an amount between two accounts, in a task. Returns how often the transaction lost a conflict.
pub(crate) async fn transfer(db: &Db, from: &str, to: &str, amount: i64) -> u64 {
    let runs = &std::sync::atomic::AtomicU64::new(0);
    let run = async move |tx: &mut Transaction<String, Vec<u8>>| {
        // Relaxed: the runs of one transaction follow each other, so no other thread counts meanwhile.
        runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let [left, right] = tx.get_many([from, to])?.map(|found| found.map_or(0, |value| number(&value)));
        tx.insert(from.to_string(), value(left - amount))?;
        tx.insert(to.to_string(), value(right + amount))
    };
    db.transact(run).await.unwrap_or_else(|error: FluxError| panic!("{error}"));
    runs.load(std::sync::atomic::Ordering::Relaxed) - 1
}
