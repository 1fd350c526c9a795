//! The resident memory of the process (defect 24 of the list: every read outside a transaction left
//! memory behind, 35 MB per million; defect 17: 202 MB under a limit of 4 MB). These tests have a
//! file of their own and run one at a time, because everything else that runs in the process would
//! be measured as well.

#[path = "behaviour/common/mod.rs"]
mod common;

use common::{commit, open, report};
use fluxmap::Database;
use fluxmap::mem::EvictionPolicy;
use futures::executor::block_on;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

/// Lets one test run at a time, and measures the process before the first.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    START.get_or_init(resident);
    alone
}

/// The resident bytes of the process before the first test.
static START: OnceLock<Option<u64>> = OnceLock::new();

/// The resident bytes, or `None` where the system does not report them.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    // Pages have at least this size. Where they are larger, the bound only gets stricter against
    // the same leak.
    Some(pages * 4096)
}

/// The bytes by which the process may grow in a phase: allocator slack, and garbage on its way out.
/// A leak of 35 bytes for each read would be 35 MB.
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

/// 24: neither a million single reads, nor a steady load of any other kind, makes the process grow.
#[test]
fn defect_24_steady_work_does_not_grow_the_process() {
    let _alone = alone();
    let db: Database<u64, u64> = open();
    for key in 0..100 {
        block_on(db.insert(key, key)).expect("an insert commits");
    }
    adds_nothing("a million reads", || {
        for round in 0..200_000 {
            assert!(db.get(&(round % 100)).expect("a read succeeds").is_some());
        }
    });
    adds_nothing("reads by handles and of missing keys", || {
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
    adds_nothing("transactions that are rolled back", || {
        for round in 0..5_000 {
            let tx = db.begin();
            tx.insert(round, round).expect("a write is buffered");
            tx.rollback();
        }
    });
}

/// The memory limit of the tests below.
const LIMIT: u64 = 64 << 20;
/// The bytes that are written under the limit: six times as many.
const PUSHED: u64 = 400 << 20;
const WRITERS: u64 = 4;

/// The bytes that the process may take beside the limit and a quarter of it, which the allocator
/// may not be able to use. They are: for each writer, the value that it has made and the values
/// that its last commit evicted, which are freed outside the lock (four large ones at most); as
/// many again that other writers have evicted while a writer that is not scheduled has the index
/// pinned; the garbage that gathers before it is collected (a 64th of the limit, and what one
/// commit adds); stacks and pools.
const ALLOWANCE: u64 = ((WRITERS * 8) << 20) + LIMIT / 64 + (2 << 20);

/// Writes values of `size` bytes from several threads, and measures the process all the while.
#[track_caller]
fn stays_near_its_limit(policy: EvictionPolicy, size: usize) {
    let _alone = alone();
    // Compare with the start of the process: memory that earlier tests have left with the allocator
    // counts as well, but is reused first.
    let Some(&Some(before)) = START.get() else {
        report("SKIPPED: this system does not tell the resident memory of a process");
        return;
    };
    let builder = Database::<u64, Vec<u8>>::builder().max_memory(LIMIT).eviction_policy(policy);
    let db = block_on(builder.build()).expect("an empty database opens");
    let each = PUSHED / WRITERS / size as u64;
    let most = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let db = &db;
                scope.spawn(move || {
                    let mut most = 0;
                    for n in 0..each {
                        // Fill the value with non-zero bytes, or its pages would not be resident.
                        let value = vec![n as u8 | 1; size];
                        block_on(db.insert(writer * each + n, value)).expect("there is room");
                        if n % (each / 100) == 0 {
                            most = most.max(resident().unwrap_or(0));
                        }
                    }
                    most
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().expect("a writer ends")).max().unwrap_or(0)
    });
    let info = db.memory_info();
    let grown = most.saturating_sub(before);
    report(&format!(
        "rss: values of {size} bytes, {policy:?}: {grown} bytes more at most, limit {LIMIT}, counted {}",
        info.total_bytes
    ));
    assert!(info.live_bytes > LIMIT * 3 / 4, "the limit is used: {info:?}");
    let bound = LIMIT + LIMIT / 4 + ALLOWANCE;
    assert!(grown < bound, "{grown} bytes more where {bound} are allowed: {info:?}");
}

#[test]
fn small_values_stay_near_the_limit() {
    stays_near_its_limit(EvictionPolicy::Lru, 1 << 10);
    stays_near_its_limit(EvictionPolicy::S3Fifo, 1 << 10);
}

#[test]
fn large_values_stay_near_the_limit() {
    stays_near_its_limit(EvictionPolicy::Lru, 1 << 20);
    stays_near_its_limit(EvictionPolicy::S3Fifo, 1 << 20);
}
