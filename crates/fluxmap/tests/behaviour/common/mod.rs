//! Helpers that several test files share: opening a database, waiting without a runtime, and the
//! database as a store that the testkit's driver can run.

// Each test file is a crate of its own and uses only a part of this module.
#![allow(dead_code)]

pub(crate) mod bench;
pub(crate) mod limits;
pub(crate) mod rivals;

use std::hash::Hash;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use fluxmap::{Database, FluxError, IsolationLevel, Transaction};
use fluxmap_testkit::driver::{Session, Store, ends};
use fluxmap_testkit::op::Scan;
use futures::executor::block_on;

/// Both isolation levels, for tests that state the outcome at each of them.
pub(crate) const LEVELS: [IsolationLevel; 2] = [IsolationLevel::Serializable, IsolationLevel::Snapshot];

/// An empty database at `level`.
pub(crate) fn open_at<K, V>(level: IsolationLevel) -> Database<K, V>
where
    K: Ord + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    block_on(Database::builder().isolation_level(level).build()).expect("an empty database opens")
}

/// An empty database at the default level.
pub(crate) fn open<K, V>() -> Database<K, V>
where
    K: Ord + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    block_on(Database::new_in_memory()).expect("an empty database opens")
}

/// Commits on the calling thread.
pub(crate) fn commit<K, V>(tx: Transaction<K, V>) -> Result<(), FluxError>
where
    K: Ord + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    block_on(tx.commit())
}

/// All entries of the database, with the values copied out.
pub(crate) fn content<K>(db: &Database<K, u64>) -> Vec<(K, u64)>
where
    K: Ord + Hash + Clone + Send + Sync + 'static,
{
    db.snapshot().range(..).map(|(key, value)| (key, *value)).collect()
}

/// Asserts that no snapshot is registered any more, so that none holds back garbage collection.
#[track_caller]
pub(crate) fn assert_nothing_pinned<K, V>(db: &Database<K, V>)
where
    K: Ord + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    assert_eq!(db.memory_info().live_snapshots, 0, "a snapshot is still registered");
}

/// Sets a flag when it is dropped. Threads that work until the flag is set then end even if the
/// test that waits for them panics.
pub(crate) struct DoneOnDrop<'f>(pub(crate) &'f AtomicBool);

impl Drop for DoneOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Prints a line even where the test harness captures the output of tests.
pub(crate) fn report(line: &str) {
    // Ignore the error: a closed stderr must not fail a test.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The database in the form that the testkit's driver runs.
pub(crate) struct Library(pub(crate) Database<u64, u64>);

impl Store for Library {
    type Session = LibrarySession;

    fn begin(&self, _only_reads: bool) -> LibrarySession {
        LibrarySession(self.0.begin())
    }
}

/// A transaction of [`Library`].
pub(crate) struct LibrarySession(pub(crate) Transaction<u64, u64>);

impl Session for LibrarySession {
    fn get(&mut self, key: u64) -> Option<u64> {
        self.0.get(&key).expect("a read succeeds").map(|value| *value)
    }

    fn scan(&mut self, scan: &Scan<u64>) -> Vec<(u64, u64)> {
        let range = self.0.range(ends(scan)).expect("a range succeeds");
        take(range.map(|(key, value)| (key, *value)), scan)
    }

    fn put(&mut self, key: u64, value: u64) {
        self.0.insert(key, value).expect("a buffered write succeeds");
    }

    fn remove(&mut self, key: u64) -> Option<u64> {
        self.0.remove(&key).expect("a remove succeeds").map(|value| *value)
    }

    fn commit(self) -> bool {
        match commit(self.0) {
            Ok(()) => true,
            Err(FluxError::SerializationConflict | FluxError::WriteConflict) => false,
            Err(error) => panic!("a commit fails only for a conflict: {error}"),
        }
    }
}

/// Advances a double-ended iterator in the direction of `scan`, at most `limit` times. It stops at
/// the limit without asking for one item more, because that would read more than the scan asks for.
pub(crate) fn take<T>(mut items: impl DoubleEndedIterator<Item = T>, scan: &Scan<u64>) -> Vec<T> {
    let mut step = || {
        if scan.reverse { items.next_back() } else { items.next() }
    };
    let mut taken = Vec::new();
    for _ in 0..scan.limit.unwrap_or(usize::MAX) {
        match step() {
            Some(item) => taken.push(item),
            None => break,
        }
    }
    taken
}
