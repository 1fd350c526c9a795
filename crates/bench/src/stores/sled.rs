//! sled, whose transactions cannot scan.

use super::{Ability, Body, Conflict, Level, Store, Visit, number, text};
use sled::transaction::{ConflictableTransactionError, TransactionalTree, UnabortableTransactionError};
use std::cell::Cell;
use std::path::Path;

struct Sled {
    db: sled::Db,
    level: Level,
}

pub(super) fn open(dir: &Path, level: Level) -> Box<dyn Store> {
    let config = sled::Config::new().path(dir.join("sled")).flush_every_ms(Some(1000));
    Box::new(Sled { db: config.open().expect("it opens"), level })
}

impl Store for Sled {
    fn get(&self, key: &str) -> Option<i64> {
        self.db.get(key).expect("a read").map(|value| number(&value))
    }

    fn put(&self, key: &str, value: Vec<u8>) {
        self.db.insert(key, value).expect("a write");
        if self.level == Level::Full {
            self.db.flush().expect("a sync");
        }
    }

    fn scan(&self, from: &str, limit: usize, visit: &mut Visit<'_>) {
        for pair in self.db.range(from..).take(limit) {
            let (key, value) = pair.expect("a pair");
            visit(text(&key), number(&value));
        }
    }

    fn transact(&self, body: &mut Body<'_>) -> u64 {
        let (body, runs) = (std::cell::RefCell::new(body), Cell::new(0));
        let done = self.db.transaction(|tree| {
            runs.set(runs.get() + 1);
            (body.borrow_mut())(&mut Tx(tree))
                .map_err(|Conflict| ConflictableTransactionError::<()>::Conflict)
        });
        done.expect("it commits");
        runs.get() - 1
    }

    fn can(&self, what: Ability) -> bool {
        what != Ability::TransactScans
    }
}

struct Tx<'t>(&'t TransactionalTree);

fn conflict(error: UnabortableTransactionError) -> Conflict {
    match error {
        UnabortableTransactionError::Conflict => Conflict,
        UnabortableTransactionError::Storage(error) => panic!("{error}"),
    }
}

impl super::Transaction for Tx<'_> {
    fn get(&mut self, key: &str) -> Result<Option<i64>, Conflict> {
        Ok(self.0.get(key).map_err(conflict)?.map(|value| number(&value)))
    }

    fn put(&mut self, key: &str, value: Vec<u8>) -> Result<(), Conflict> {
        self.0.insert(key, value).map(drop).map_err(conflict)
    }

    fn delete(&mut self, key: &str) -> Result<(), Conflict> {
        self.0.remove(key).map(drop).map_err(conflict)
    }

    fn scan_prefix(&mut self, _: &str, _: &mut Visit<'_>) -> Result<(), Conflict> {
        unreachable!("see `can`")
    }
}
