//! The resident memory of the process (defect 24 of the list: every read outside a
//! transaction left memory behind, 35 MB per million). A file of its own, since
//! whatever else runs in the process would be measured as well.

mod common;

use common::{commit, open, report};
use fluxmap::Database;
use futures::executor::block_on;

/// Resident bytes, or `None` where the system does not say.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    // Pages are at least this large; with larger ones the bound only gets stricter
    // against the same leak.
    Some(pages * 4096)
}

/// What a phase may add: allocator slack, and garbage on its way out. A leak of 35
/// bytes for each read would be 35 MB.
const BOUND: u64 = 12 << 20;

#[track_caller]
fn adds_nothing(what: &str, mut work: impl FnMut()) {
    // The first run fills caches, pools and thread-local buffers.
    work();
    let before = resident();
    for _ in 0..5 {
        work();
    }
    let (Some(before), Some(after)) = (before, resident()) else {
        report("SKIPPED: this system does not tell the resident memory of a process");
        return;
    };
    let grown = after.saturating_sub(before);
    report(&format!("rss: {what}: {grown} bytes more"));
    assert!(grown < BOUND, "{what}: {grown} bytes more");
}

/// 24: a million reads, each a step of its own, and a steady load of each other kind
/// leave the process as large as it was.
#[test]
fn defect_24_steady_work_does_not_grow_the_process() {
    let db: Database<u64, u64> = open();
    for key in 0..100 {
        block_on(db.insert(key, key)).expect("an insert commits");
    }
    adds_nothing("a million reads", || {
        for round in 0..200_000 {
            assert!(db.get(&(round % 100)).expect("a read succeeds").is_some());
        }
    });
    adds_nothing("reads by handles and of what is missing", || {
        let handle = db.handle();
        for round in 0..50_000 {
            assert!(handle.get(&(round + 100)).expect("a read succeeds").is_none());
        }
    });
    adds_nothing("snapshots and scans", || {
        for round in 0..5_000u64 {
            let start = round % 90;
            assert_eq!(db.snapshot().range(start..start + 5).count(), 5);
        }
    });
    adds_nothing("transactions that only read", || {
        for round in 0..10_000 {
            let tx = db.begin();
            assert!(tx.get(&(round % 100)).expect("a read succeeds").is_some());
            commit(tx).expect("a reader commits");
        }
    });
    adds_nothing("updates", || {
        for round in 0..5_000 {
            block_on(db.insert(round % 100, round)).expect("an insert commits");
        }
    });
    let mut next = 1_000;
    adds_nothing("inserts and deletes", || {
        for _ in 0..3_000 {
            next += 1;
            block_on(db.insert(next, 0)).expect("an insert commits");
            assert!(block_on(db.remove(&next)).expect("a remove commits").is_some());
        }
    });
    adds_nothing("what is rolled back", || {
        for round in 0..5_000 {
            let tx = db.begin();
            tx.insert(round, round).expect("a write is buffered");
            tx.rollback();
        }
    });
}
