//! surrealmx, whose update transactions are strictly serializable.

use super::{Ability, Body, Conflict, Level, Store, Visit, number, text};
use std::path::Path;
use std::time::Duration;
use surrealmx::{AolMode, Database, Error, FsyncMode, PersistenceOptions, Transaction};

struct Surreal(Database);

pub(super) fn open(dir: &Path, level: Level) -> Box<dyn Store> {
    let sync = match level {
        Level::Memory => return Box::new(Surreal(Database::new())),
        Level::Relaxed => FsyncMode::Interval(Duration::from_secs(1)),
        Level::Full => FsyncMode::EveryAppend,
    };
    let options = PersistenceOptions::new(dir.join("surrealmx"))
        .with_aol_mode(AolMode::SynchronousOnCommit)
        .with_fsync_mode(sync);
    Box::new(Surreal(Database::new_with_persistence(Default::default(), options).expect("it opens")))
}

/// A text after all keys of the benchmarks.
const END: &str = "\u{10ffff}";

/// Checks that an error is a conflict. No other error is expected.
fn conflict(error: Error) -> Conflict {
    match error {
        Error::KeyReadConflict | Error::KeyWriteConflict => Conflict,
        other => panic!("{other}"),
    }
}

impl Store for Surreal {
    fn get(&self, key: &str) -> Option<i64> {
        self.0.get(key).expect("a read").map(|value| number(&value))
    }

    fn put(&self, key: &str, value: Vec<u8>) {
        self.0.set(key, value).expect("it commits");
    }

    fn scan(&self, from: &str, limit: usize, visit: &mut Visit<'_>) {
        let visit = |key: &surrealmx::ByteSlice, value: &[u8]| {
            visit(text(key), number(value));
            true
        };
        self.0.scan_with(from..END, None, Some(limit), visit).expect("a scan");
    }

    fn transact(&self, body: &mut Body<'_>) -> u64 {
        let mut lost = 0;
        loop {
            let mut tx = self.0.transaction(true);
            match body(&mut Tx(&mut tx)).and_then(|()| tx.commit().map_err(conflict)) {
                Ok(()) => return lost,
                Err(Conflict) => lost += 1,
            }
            let _ = tx.cancel();
        }
    }

    fn can(&self, _: Ability) -> bool {
        true
    }
}

struct Tx<'t>(&'t mut Transaction);

impl super::Transaction for Tx<'_> {
    fn get(&mut self, key: &str) -> Result<Option<i64>, Conflict> {
        Ok(self.0.get(key).map_err(conflict)?.map(|value| number(&value)))
    }

    fn put(&mut self, key: &str, value: Vec<u8>) -> Result<(), Conflict> {
        self.0.set(key, value).map_err(conflict)
    }

    fn delete(&mut self, key: &str) -> Result<(), Conflict> {
        self.0.del(key).map_err(conflict)
    }

    fn scan_prefix(&mut self, prefix: &str, visit: &mut Visit<'_>) -> Result<(), Conflict> {
        let end = format!("{prefix}{END}");
        let visit = |key: &surrealmx::ByteSlice, value: &[u8]| {
            visit(text(key), number(value));
            true
        };
        self.0.scan_with(prefix..end.as_str(), None, None, visit).map_err(conflict)?;
        Ok(())
    }
}
