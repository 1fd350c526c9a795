//! Snapshots and transactions that are held for longer than the database allows end with an error,
//! and the versions that were kept for them go.
//!
//! Ages follow the machine's clock. The tests wait for an event for as long as it takes, and state
//! nothing about when it happens.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{DoneOnDrop, LEVELS, commit};
use fluxmap::mem::EvictionPolicy;
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, DatabaseBuilder, FluxError, Snapshot};
use fluxmap_testkit::disk::SimDisk;
use futures::StreamExt;
use futures::executor::block_on;

type Db = Database<u64, u64>;
type Builder = DatabaseBuilder<u64, u64>;

/// A bound for a test that fails, far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Short enough that a test soon goes on.
const SHORT: Duration = Duration::from_millis(15);
/// Long enough that nothing ends during a test.
const LONG: Duration = Duration::from_secs(3600);

const KEYS: u64 = 1_000;

fn open(builder: Builder) -> Db {
    block_on(builder.build()).expect("the database opens")
}

/// A database with many keys, all of them 0.
fn filled(builder: Builder) -> Db {
    let db = open(builder);
    write_all(&db, 0);
    db
}

/// Writes the keys one by one, because one transaction for all of them might end too early.
fn write_all(db: &Db, value: u64) {
    (0..KEYS).for_each(|key| block_on(db.insert(key, value)).expect("an insert commits"));
}

/// The number of keys from `KEYS` on.
fn more(db: &Db) -> usize {
    comes_to("a count that is quick enough", || db.count(KEYS..).ok())
}

fn vacuum(db: &Db) {
    block_on(db.vacuum()).expect("vacuum succeeds");
}

/// Options with small segments, because a simulated disk is kept in memory.
fn options(path: &str) -> PersistenceOptions {
    PersistenceOptions { wal_segment_size_bytes: 64 << 10, ..PersistenceOptions::new(path) }
}

/// Waits until `look` returns something.
#[track_caller]
fn comes_to<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return found;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("waited in vain: {what}");
}

/// Waits, without reading, until no snapshot is registered any more.
fn all_end(db: &Db) {
    comes_to("snapshots end", || (db.memory_info().live_snapshots == 0).then_some(()));
}

#[track_caller]
fn too_old<T: Debug>(result: Result<T, FluxError>) {
    match result {
        Err(error @ FluxError::SnapshotTooOld { max_age }) => {
            assert_eq!(max_age, SHORT);
            assert!(!error.is_retryable(), "another attempt would take as long");
        }
        other => panic!("{other:?}"),
    }
}

fn get(view: &Snapshot<u64, u64>, key: u64) -> Result<Option<u64>, FluxError> {
    Ok(view.get(&key)?.map(|value| *value))
}

#[test]
fn a_snapshot_that_is_too_old_ends_for_every_read() {
    let db = filled(Db::builder().max_snapshot_age(SHORT));
    let view = db.snapshot();
    let mut fresh = view.range(..);
    let mut begun = view.range(..);
    let mut stream = view.range_stream(..);
    let mut metadata = db.scan_metadata();
    let _ = begun.try_next();
    all_end(&db);
    write_all(&db, 1);
    vacuum(&db);
    too_old(get(&view, 1));
    too_old(get(&view, KEYS));
    too_old(view.contains_key(&1));
    too_old(view.count(..));
    too_old(view.first());
    too_old(view.last());
    too_old(fresh.try_next());
    too_old(fresh.try_next_back());
    too_old(block_on(stream.next()).expect("a stream does not end as if there were no more"));
    too_old(block_on(metadata.next()).expect("a stream does not end as if there were no more"));
    let end = loop {
        match begun.try_next() {
            Ok(Some((_, value))) => assert_eq!(*value, 0, "it had been read before"),
            end => break end,
        }
    };
    too_old(end);
    let seen = comes_to("one that is quick enough", || get(&db.snapshot(), 1).ok());
    assert_eq!(seen, Some(1), "another one can be taken");
}

#[test]
fn an_iterator_that_cannot_report_it_panics_rather_than_end_early() {
    let db = filled(Db::builder().max_snapshot_age(SHORT));
    let mut range = db.snapshot().range(..);
    all_end(&db);
    let next = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| range.next()));
    let panic = next.expect_err("it panics");
    let message = panic.downcast_ref::<String>().expect("it says why");
    assert!(message.contains("try_next"), "{message}");
}

#[test]
fn a_transaction_that_is_too_old_ends_for_reads_and_does_not_commit() {
    for level in LEVELS {
        let db = filled(Db::builder().isolation_level(level).max_snapshot_age(SHORT));
        let tx = db.begin();
        let mut range = tx.range(..).expect("a range begins");
        let mut stream = tx.range_stream(..);
        tx.insert(KEYS + 1, 7).expect("a write is buffered");
        let (only_reads, blind) = (db.begin(), db.begin());
        blind.insert(KEYS + 2, 7).expect("a write is buffered");
        all_end(&db);
        write_all(&db, 1);
        vacuum(&db);
        too_old(tx.get(&1));
        too_old(tx.contains_key(&1));
        too_old(tx.count(..));
        too_old(tx.first());
        too_old(tx.last());
        too_old(tx.update(&1, |n| n + 1));
        too_old(tx.remove(&1));
        too_old(tx.ttl(&1));
        too_old(range.try_next());
        too_old(range.try_next_back());
        too_old(block_on(stream.next()).expect("a stream does not end as if there were no more"));
        drop((range, stream));
        for tx in [tx, only_reads, blind] {
            too_old(commit(tx));
        }
        assert_eq!(more(&db), 0, "nothing of it is there");
        assert_eq!(db.memory_info().live_snapshots, 0);
    }
}

/// A range that the iterator cannot finish ends early, and the transaction must then not commit.
#[test]
fn a_transaction_cannot_commit_what_rests_on_half_a_scan() {
    let db = filled(Db::builder().max_snapshot_age(SHORT));
    let tx = db.begin();
    let mut range = tx.range(..).expect("a range begins");
    let _ = range.next();
    all_end(&db);
    let seen = range.count() as u64;
    assert!(seen < KEYS);
    tx.insert(KEYS, seen).expect("a write is buffered");
    too_old(commit(tx));
}

#[test]
fn transact_reports_it_and_a_handle_can_begin_anew() {
    let db = filled(Db::builder().max_snapshot_age(SHORT));
    let reported =
        block_on(db.transact(async |tx| {
            Err::<(), FluxError>(comes_to("the transaction ends", || tx.get(&1).err()))
        }));
    too_old(reported);
    let mut handle = db.handle();
    handle.begin().expect("it is in none");
    comes_to("the transaction ends", || handle.get(&1).err());
    block_on(handle.insert(KEYS, 1)).expect("a write is buffered");
    too_old(block_on(handle.commit()));
    handle.begin().expect("it is in none any more");
    handle.rollback().expect("it is in one");
    assert_eq!(more(&db), 0);
}

#[test]
fn young_ones_live_on_while_old_ones_end() {
    let db = filled(Db::builder().max_snapshot_age(Duration::from_millis(60)));
    let (view, tx) = (db.snapshot(), db.begin());
    let began = Instant::now();
    comes_to("the old ones end", || {
        let young = db.snapshot();
        let tried = Instant::now();
        let read = get(&young, 1);
        // It was too young to end, unless the machine has slept in between.
        if tried.elapsed() < Duration::from_millis(30) {
            assert_eq!(read.expect("it is young"), Some(0));
            assert_eq!(young.range(..3).count(), 3);
        }
        view.get(&1).is_err().then_some(())
    });
    assert!(began.elapsed() >= Duration::from_millis(60), "none ends before its time");
    assert!(tx.get(&1).is_err());
}

#[test]
fn what_was_kept_for_it_goes_with_nobody_touching_it() {
    /// A value that reports when it is dropped.
    struct Dropped(u64, Sender<u64>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            // The receiver may be gone at the end of a test.
            let _ = self.1.send(self.0);
        }
    }

    let (drops, dropped) = channel();
    let builder = Database::<u64, Dropped>::builder().max_snapshot_age(SHORT);
    let db = block_on(builder.build()).expect("the database opens");
    let put = |key, number| {
        block_on(db.insert(key, Dropped(number, drops.clone()))).expect("an insert commits");
    };
    (0..10).for_each(|key| put(key, key));
    let view = db.snapshot();
    (0..10).for_each(|key| put(key, 100 + key));
    let mut old: Vec<u64> = (0..10).map_while(|_| dropped.recv_timeout(PATIENCE).ok()).collect();
    old.sort_unstable();
    assert_eq!(old, (0..10).collect::<Vec<_>>());
    assert!(view.get(&1).is_err(), "the old version has gone");
    assert!(dropped.try_recv().is_err(), "and nothing else");
}

#[test]
fn the_books_say_what_is_held_and_by_whom() {
    let limited = Db::builder().max_memory(1 << 20).eviction_policy(EvictionPolicy::Lru);
    let db = filled(limited.max_snapshot_age(SHORT));
    assert_eq!(db.memory_info().oldest_snapshot_age, None);
    let view = db.snapshot();
    write_all(&db, 1);
    all_end(&db);
    vacuum(&db);
    let info = db.memory_info();
    assert_eq!((info.live_snapshots, info.oldest_snapshot_age), (0, None), "ended, though it is held");
    assert_eq!((info.versions, info.old_version_bytes), (KEYS, 0));
    drop(view);
    assert_eq!(db.memory_info().live_snapshots, 0, "it is not counted off twice");
}

#[test]
fn without_a_maximum_nothing_ends_and_all_is_reported() {
    for builder in
        [Db::builder(), Db::builder().max_snapshot_age(LONG), Db::builder().max_snapshot_age(Duration::MAX)]
    {
        let db = filled(builder.max_memory(1 << 20));
        let began = Instant::now();
        let (view, tx) = (db.snapshot(), db.begin());
        let stream = view.range_stream(..);
        write_all(&db, 1);
        let info = db.memory_info();
        assert_eq!(info.live_snapshots, 2);
        assert!(info.old_version_bytes > 0);
        comes_to("it gets older", || {
            let age = db.memory_info().oldest_snapshot_age.expect("there is one");
            assert!(age <= began.elapsed());
            (age > 2 * SHORT).then_some(())
        });
        vacuum(&db);
        assert_eq!(db.memory_info().versions, 2 * KEYS, "one more version of each key");
        assert!(view.range(..).all(|(_, value)| *value == 0));
        assert_eq!(tx.get(&1).expect("it has not ended").as_deref(), Some(&0));
        assert_eq!(block_on(stream.count()) as u64, KEYS);
        drop(view);
        commit(tx).expect("a transaction that only reads never conflicts");
        assert_eq!(db.memory_info().oldest_snapshot_age, None);
    }
}

/// Values take so long to write that a copy takes longer than a snapshot may live. Meanwhile
/// updates and vacuums remove every old version that nothing keeps.
#[test]
fn checkpoints_and_backups_take_as_long_as_they_take() {
    /// A value that takes long to write on the threads of the database.
    struct Slow(u64);

    impl serde::Serialize for Slow {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if thread::current().name().is_some_and(|name| name.starts_with("fluxmap-")) {
                thread::sleep(Duration::from_millis(1));
            }
            self.0.serialize(serializer)
        }
    }

    impl<'de> serde::Deserialize<'de> for Slow {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            u64::deserialize(deserializer).map(Slow)
        }
    }

    const SOME: u64 = 300;
    let disk = SimDisk::new(1);
    let open = |path: &str, age| {
        let builder = Database::<u64, Slow>::builder().max_snapshot_age(age).durability_full(options(path));
        block_on(builder.disk(Arc::new(disk.clone())).build()).expect("the database opens")
    };
    let db = open("db", SHORT);
    let update = |value| {
        for key in 0..SOME {
            block_on(db.insert(key, Slow(value))).expect("an insert commits");
        }
    };
    update(0);
    let done = AtomicBool::new(false);
    let checkpoint = thread::scope(|scope| {
        let copier = scope.spawn(|| {
            let _ends = DoneOnDrop(&done);
            block_on(db.backup_to("copy", |_| {})).expect("a backup is written");
            block_on(db.checkpoint()).expect("a checkpoint is written")
        });
        for value in (1..).take_while(|_| !done.load(Ordering::Relaxed)) {
            thread::sleep(SHORT);
            update(value);
            block_on(db.vacuum()).expect("vacuum succeeds");
        }
        copier.join().expect("both are written")
    });
    assert_eq!(checkpoint.pairs, SOME);
    assert_eq!(open("copy", LONG).count(..).expect("a count succeeds"), SOME as usize);
}
