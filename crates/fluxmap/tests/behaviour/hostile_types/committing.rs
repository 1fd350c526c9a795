//! Values whose destructors commit.

use fluxmap::Database;
use futures::FutureExt;
use futures::executor::block_on;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Counts of the destructors' calls.
#[derive(Default)]
struct Seen {
    dropped: AtomicUsize,
    deepest: AtomicUsize,
}

/// If it has a database, its destructor inserts another value under `key + KEYS`.
struct Committing {
    key: u64,
    db: Option<Database<u64, Committing>>,
    seen: Arc<Seen>,
}

impl Drop for Committing {
    fn drop(&mut self) {
        let depth = DEPTH.get() + 1;
        DEPTH.set(depth);
        self.seen.deepest.fetch_max(depth, Ordering::Relaxed);
        self.seen.dropped.fetch_add(1, Ordering::Relaxed);
        if let Some(db) = self.db.take() {
            let harmless = Committing { key: self.key, db: None, seen: Arc::clone(&self.seen) };
            // Poll the commit once: destructors run within the polls of other futures, where no
            // executor may block.
            let committed = db.insert(self.key + KEYS, harmless).now_or_never();
            committed.expect("nothing waits in memory").expect("it commits");
        }
        DEPTH.set(depth - 1);
    }
}

const KEYS: u64 = 3_000;

/// Destructors run one after the other, however many values wait to be dropped. If each ran within
/// the one before, the stack would overflow.
#[test]
fn destructors_that_commit_run_one_after_the_other() {
    let seen = Arc::<Seen>::default();
    let db: Database<u64, Committing> = block_on(Database::builder().build()).expect("it is in memory");
    let put = |key: u64, with: Option<&Database<u64, Committing>>| {
        let value = Committing { key, db: with.cloned(), seen: Arc::clone(&seen) };
        block_on(db.insert(key, value)).expect("it commits");
    };
    (0..KEYS).for_each(|key| put(key, Some(&db)));
    let snapshot = db.snapshot();
    (0..KEYS).for_each(|key| put(key, None));
    assert_eq!(seen.dropped.load(Ordering::Relaxed), 0, "the snapshot shows them");
    drop(snapshot);
    block_on(db.vacuum()).expect("it frees them");
    assert_eq!(db.count(..).expect("a scan"), 2 * KEYS as usize, "each has committed");
    assert_eq!(seen.dropped.load(Ordering::Relaxed), KEYS as usize);
    assert_eq!(seen.deepest.load(Ordering::Relaxed), 1);
}
