//! Behaviour of FluxMap 0.3 on which users' code relies. `scripts/peer-tests.sh` runs the tests of
//! 0.3.7 itself.

use std::borrow::Borrow;
use std::time::Duration;

use crate::common::open;
use fluxmap::db::{KeyMetadata, MemoryInfo};
use fluxmap::mem::EvictionPolicy;
use fluxmap::{Database, DurabilityLevel, FluxError, Handle, Key, PersistenceError, PersistenceOptions};
use futures::StreamExt as _;
use futures::executor::block_on;

type Db = Database<String, u32>;

fn put(handle: &Handle<'_, String, u32>, value: u32) {
    block_on(handle.insert("n".into(), value)).expect("a write is buffered");
}

fn value(handle: &Handle<'_, String, u32>) -> Option<u32> {
    handle.get("n").expect("a read succeeds").map(|value| *value)
}

#[test]
fn a_savepoint_of_a_handle_is_gone_after_it_was_gone_back_to() {
    let db: Db = open();
    let mut handle = db.handle();
    handle.begin().expect("the handle is free");
    put(&handle, 1);
    handle.savepoint("outer").expect("it is set");
    put(&handle, 2);
    handle.savepoint("inner").expect("it is set");
    put(&handle, 3);

    assert_eq!(handle.rollback_to("inner"), Ok(()));
    assert_eq!(value(&handle), Some(2));
    assert_eq!(handle.rollback_to("inner"), Err(FluxError::SavepointNotFound("inner".into())));
    assert_eq!(value(&handle), Some(2), "a refused rollback changes nothing");
    assert_eq!(handle.rollback_to("outer"), Ok(()));
    assert_eq!(value(&handle), Some(1));
    assert_eq!(handle.rollback_to("outer"), Err(FluxError::SavepointNotFound("outer".into())));

    // A rollback also ends the later savepoints, and their names can be used again.
    handle.savepoint("outer").expect("it is set");
    handle.savepoint("inner").expect("it is set");
    assert_eq!(handle.rollback_to("outer"), Ok(()));
    assert!(matches!(handle.rollback_to("inner"), Err(FluxError::SavepointNotFound(_))));
    assert_eq!(block_on(handle.commit()), Ok(()));
    assert_eq!(value(&handle), Some(1));
}

#[test]
fn of_two_savepoints_with_one_name_the_later_is_gone_back_to_first() {
    let db: Db = open();
    let mut handle = db.handle();
    handle.begin().expect("the handle is free");
    for value in 1..=3 {
        put(&handle, value);
        handle.savepoint("same").expect("it is set");
    }
    put(&handle, 4);
    for expected in [3, 2, 1] {
        assert_eq!(handle.rollback_to("same"), Ok(()));
        assert_eq!(value(&handle), Some(expected));
    }
    assert_eq!(handle.rollback_to("same"), Err(FluxError::SavepointNotFound("same".into())));
}

#[test]
fn a_savepoint_of_a_transaction_stays_as_those_of_sql_do() {
    let db: Db = open();
    let tx = db.begin();
    let savepoint = tx.savepoint().expect("it is set");
    for _ in 0..2 {
        tx.insert("n".into(), 1).expect("a write is buffered");
        assert_eq!(tx.rollback_to(&savepoint), Ok(()));
        assert_eq!(tx.get("n"), Ok(None));
    }
}

#[test]
fn a_rollback_says_whether_the_savepoint_has_ended_or_was_set_elsewhere() {
    let db: Db = open();
    let (tx, other) = (db.begin(), db.begin());
    let (outer, foreign) = (tx.savepoint().expect("it is set"), other.savepoint().expect("it is set"));
    let inner = tx.savepoint().expect("it is set");
    assert_eq!(tx.rollback_to(&outer), Ok(()));
    assert_eq!(tx.rollback_to(&inner), Err(FluxError::SavepointEnded));
    assert_eq!(tx.rollback_to(&foreign), Err(FluxError::SavepointOfOtherTransaction));
    assert_eq!(db.begin().rollback_to(&outer), Err(FluxError::SavepointOfOtherTransaction));
}

#[test]
fn errors_can_be_compared() {
    let db: Db = open();
    let mut handle = db.handle();
    assert_eq!(block_on(handle.commit()), Err(FluxError::NoActiveTransaction));
    assert_eq!(handle.begin(), Ok(()));
    assert_eq!(handle.begin(), Err(FluxError::TransactionAlreadyActive));
    assert_ne!(handle.begin(), Err(FluxError::NoActiveTransaction));
}

#[test]
fn the_root_of_the_crate_has_the_names_of_durability() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = PersistenceOptions::new(dir.path().join("db"));
    let db: Db = block_on(Db::new(DurabilityLevel::Full { options })).expect("a new database opens");
    assert!(db.recovery_info().expect("it is durable").created);
}

/// The forms that the README gives for code of 0.3 that does not compile any more.
#[test]
fn code_that_must_change_compiles_in_the_form_that_the_readme_gives() {
    fn generic<K: Key + Borrow<str>>(handle: &Handle<'_, K, u32>, key: &K) -> Option<u32> {
        handle.get::<K>(key).expect("a read succeeds").map(|value| *value)
    }
    let db: Db = open();
    let handle = db.handle();
    put(&handle, 7);
    assert_eq!(value(&handle), Some(7), "`get(\"n\")`, not `get(&\"n\".into())`");
    assert_eq!(generic(&handle, &"n".to_string()), Some(7));

    let MemoryInfo { max_bytes, .. } = db.memory_info();
    assert_eq!(max_bytes, None);
    let known: Vec<KeyMetadata<String>> = block_on(handle.scan_metadata().collect());
    assert!(known.into_iter().map(|KeyMetadata { key, .. }| key).eq(["n"]));

    let failed = |error: FluxError| match error {
        FluxError::FatalPersistenceError { source } => source.to_string(),
        FluxError::Persistence(PersistenceError::Io { source, .. }) => source.to_string(),
        other => panic!("{other:?}"),
    };
    let source = PersistenceError::Unavailable("no thread".into());
    assert_eq!(failed(FluxError::FatalPersistenceError { source }), "no thread");
}

/// A database that ends snapshots after 20 ms, also that of a scan which nobody advances.
fn forgetful() -> Db {
    block_on(Db::builder().max_snapshot_age(Duration::from_millis(20)).build()).expect("it opens")
}

/// Inserts one key at a time, because a transaction's snapshot might be ended in the middle.
fn fill(db: &Db, keys: u32) {
    (0..keys).for_each(|key| block_on(db.insert(format!("{key:06}"), key)).expect("an insert commits"));
}

#[test]
fn a_handles_scan_of_metadata_yields_plain_items() {
    let db: Db = open();
    fill(&db, 1_000);
    let known: Vec<KeyMetadata<String>> = block_on(db.handle().scan_metadata().collect());
    assert!(known.iter().map(|known| known.key.clone()).eq((0..1_000).map(|key| format!("{key:06}"))));
}

#[test]
fn a_handles_scan_of_metadata_outlives_its_snapshot_and_misses_no_key() {
    const KEYS: u32 = 3_000;
    let db = forgetful();
    fill(&db, KEYS);
    let handle = db.handle();
    let mut scan = handle.scan_metadata();
    let first = block_on(scan.next()).expect("there are keys");
    // Wait until the scan's snapshot has ended, and overwrite every key, so that the versions it
    // saw can go.
    while db.memory_info().live_snapshots > 0 {
        std::thread::yield_now();
    }
    fill(&db, KEYS);
    block_on(db.vacuum()).expect("a vacuum succeeds");
    let rest: Vec<_> = block_on(scan.collect());
    let keys = std::iter::once(first).chain(rest).map(|known| known.key);
    assert!(keys.eq((0..KEYS).map(|key| format!("{key:06}"))), "each key once, in order");
}

#[test]
fn what_the_limit_bounds_is_called_current_bytes() {
    const LIMIT: u64 = 64 << 10;
    let builder = Db::builder().max_memory(LIMIT).eviction_policy(EvictionPolicy::Lru);
    let db = block_on(builder.build()).expect("it opens");
    let view = db.snapshot();
    fill(&db, 100);
    for key in 0..5_000 {
        block_on(db.insert(format!("{key:06}"), key)).expect("room is made");
        let info = db.memory_info();
        assert!(info.current_bytes <= LIMIT, "{info:?}");
        assert_eq!(info.current_bytes, info.live_bytes + info.index_bytes);
        let beside = info.spare_bytes + info.old_version_bytes + info.log_buffer_bytes;
        assert_eq!(info.total_bytes, info.current_bytes + beside);
    }
    let info = db.memory_info();
    assert!(info.current_bytes > LIMIT / 2, "{info:?}");
    assert!(info.total_bytes > info.current_bytes, "a snapshot keeps evicted values: {info:?}");
    drop(view);
}
