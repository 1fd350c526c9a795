//! An eviction is a transaction like any other: older snapshots do not notice it, a transaction
//! that has read the key conflicts with it, a restart does not undo it, and the listener hears of
//! it once (defects 8, 11 and 20 of the list).

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::common::limits::{EVICTING, limited};
use crate::common::{DoneOnDrop, assert_nothing_pinned, commit};
use fluxmap::mem::{EvictionCause, EvictionPolicy, MemSize};
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, DatabaseBuilder, FluxError, IsolationLevel};
use fluxmap_testkit::disk::SimDisk;
use futures::executor::block_on;
use futures::{FutureExt, StreamExt, TryStreamExt};

type Db = Database<u64, u64>;
type Builder = DatabaseBuilder<u64, u64>;

/// The arguments of an eviction listener.
type Told = (u64, u64, EvictionCause);

/// Room for about a hundred keys.
const LIMIT: u64 = 16 << 10;

/// A bound for a test that fails, far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(builder: Builder) -> Db {
    block_on(builder.build()).expect("the database opens")
}

/// Adds a listener that sends each eviction to a channel.
fn listening(builder: Builder) -> (Builder, Receiver<Told>) {
    let (sender, receiver) = channel();
    let listener =
        move |key, value: Arc<u64>, cause| sender.send((key, *value, cause)).expect("the test listens");
    (builder.on_evict(listener), receiver)
}

/// Options with small segments, because a simulated disk is kept in memory.
fn options(path: &str) -> PersistenceOptions {
    PersistenceOptions { wal_segment_size_bytes: 64 << 10, ..PersistenceOptions::new(path) }
}

fn put(db: &Db, key: u64, value: u64) {
    block_on(db.insert(key, value)).expect("room is made");
}

fn get(db: &Db, key: u64) -> Option<u64> {
    db.get(&key).expect("a read succeeds").map(|value| *value)
}

/// Whether the key is there, without counting as a use of it.
fn is_there(db: &Db, key: u64) -> bool {
    db.count(key..=key).expect("a count succeeds") == 1
}

fn vacuum<V: Send + Sync + 'static>(db: &Database<u64, V>) {
    block_on(db.vacuum()).expect("vacuum succeeds");
}

/// Keys from this one on are written only to make others go.
const OTHERS: u64 = 1_000_000;

/// Writes other keys, and reads them, so that they are used more than `key`, until `key` has been
/// evicted.
fn crowd_out(db: &Db, key: u64) {
    for other in OTHERS..OTHERS + 10_000 {
        if !is_there(db, key) {
            return;
        }
        put(db, other, 0);
        assert_eq!(get(db, other), Some(0));
    }
    panic!("{key} is never evicted");
}

/// Removes a key without a transaction.
type Go = fn(&Db, u64);

/// The ways in which a key can go although no transaction has removed it, each with a database for
/// it.
fn ways_to_go(level: IsolationLevel) -> Vec<(String, Db, Go)> {
    let capacity = EVICTING.map(|policy| (format!("{policy:?}"), limited(policy, LIMIT), crowd_out as Go));
    let explicit: Go =
        |db, key| assert!(block_on(db.evict(&key)).expect("an eviction commits"), "{key} was there");
    let explicit = [
        ("evict".to_string(), limited(EvictionPolicy::Manual, LIMIT), explicit),
        ("evict without a limit".to_string(), Db::builder(), explicit),
    ];
    capacity
        .into_iter()
        .chain(explicit)
        .map(|(way, builder, go)| (way, open(builder.isolation_level(level)), go))
        .collect()
}

#[test]
fn a_snapshot_keeps_seeing_a_key_that_has_been_evicted() {
    for (way, db, evict) in ways_to_go(IsolationLevel::Serializable) {
        put(&db, 1, 10);
        put(&db, 2, 20);
        let view = db.snapshot();
        evict(&db, 1);
        for _ in 0..2 {
            assert_eq!(view.get(&1).expect("a read succeeds").as_deref(), Some(&10), "{way}");
            assert!(view.contains_key(&1).expect("a read succeeds"), "{way}");
            let seen: Vec<u64> = view.range(..).map(|(key, _)| key).collect();
            assert_eq!(seen, [1, 2], "{way}");
            assert_eq!(view.count(..).expect("a count succeeds"), 2, "{way}");
            assert_eq!(get(&db, 1), None, "{way}");
            assert_eq!(db.snapshot().get(&1).expect("a read succeeds"), None, "{way}");
            vacuum(&db);
        }
        put(&db, 1, 11);
        assert_eq!(view.get(&1).expect("a read succeeds").as_deref(), Some(&10), "{way}");
        drop(view);
        vacuum(&db);
        let info = db.memory_info();
        assert_eq!((info.versions, info.old_version_bytes), (info.keys, 0), "{way}: {info:?}");
    }
}

#[test]
fn a_transaction_that_has_read_a_key_reads_it_again_and_conflicts_with_its_eviction() {
    type Read = fn(&fluxmap::Transaction<u64, u64>) -> usize;
    let reads: [(&str, Read); 3] = [
        ("get", |tx| usize::from(tx.get(&1).expect("a read succeeds").is_some())),
        ("range", |tx| tx.range(..=1).expect("a range succeeds").count()),
        ("count", |tx| tx.count(0..5).expect("a count succeeds")),
    ];
    for (how, read) in reads {
        for (way, db, evict) in ways_to_go(IsolationLevel::Serializable) {
            put(&db, 1, 10);
            let (tx, only_reads) = (db.begin(), db.begin());
            assert_eq!((read(&tx), read(&only_reads)), (1, 1), "{way}, {how}");
            evict(&db, 1);
            vacuum(&db);
            assert_eq!((read(&tx), read(&only_reads)), (1, 1), "present, then absent: {way}, {how}");
            tx.insert(7, 7).expect("a write is buffered");
            assert!(matches!(commit(tx), Err(FluxError::SerializationConflict)), "{way}, {how}");
            commit(only_reads).expect("a transaction that only reads never conflicts");
            assert!(!is_there(&db, 7), "{way}, {how}");
            assert_nothing_pinned(&db);
        }
    }
}

#[test]
fn a_transaction_that_did_not_see_the_key_does_not_conflict_with_its_eviction() {
    for (way, db, evict) in ways_to_go(IsolationLevel::Serializable) {
        put(&db, 1, 10);
        let blind = db.begin();
        let elsewhere = db.begin();
        assert!(elsewhere.get(&2).expect("a read succeeds").is_none());
        evict(&db, 1);
        let late = db.begin();
        assert!(late.get(&1).expect("a read succeeds").is_none(), "{way}");
        for (number, tx) in [blind, elsewhere, late].into_iter().enumerate() {
            tx.insert(7, number as u64).expect("a write is buffered");
            commit(tx).unwrap_or_else(|error| panic!("{way}, {number}: {error}"));
        }
    }
}

#[test]
fn an_eviction_is_a_write_for_the_first_committer_to_win() {
    for (way, db, evict) in ways_to_go(IsolationLevel::Snapshot) {
        put(&db, 1, 10);
        let (writes_it, reads_it) = (db.begin(), db.begin());
        assert!(reads_it.get(&1).expect("a read succeeds").is_some());
        evict(&db, 1);
        writes_it.insert(1, 11).expect("a write is buffered");
        reads_it.insert(2, 20).expect("a write is buffered");
        assert!(matches!(commit(writes_it), Err(FluxError::WriteConflict)), "{way}");
        commit(reads_it).unwrap_or_else(|error| panic!("{way}: {error}"));
    }
}

#[test]
fn evicting_what_is_not_there_does_nothing() {
    let (builder, told) = listening(limited(EvictionPolicy::Manual, LIMIT));
    let db = open(builder);
    put(&db, 1, 10);
    block_on(db.expire_at(&1, UNIX_EPOCH)).expect("a change commits");
    for key in [1, 2] {
        assert!(!block_on(db.evict(&key)).expect("an eviction succeeds"), "{key}");
    }
    assert_eq!(db.memory_info().evictions.explicit, 0);
    assert!(told.try_iter().all(|(.., cause)| cause == EvictionCause::Expired));
}

mod restarting {
    use super::*;

    fn durable(builder: Builder, disk: &SimDisk) -> Db {
        let builder = builder.durability_full(options("db")).disk(Arc::new(disk.clone()));
        block_on(builder.build()).expect("the database opens")
    }

    fn content(db: &Db) -> BTreeMap<u64, u64> {
        crate::common::content(db).into_iter().collect()
    }

    #[test]
    fn an_evicted_key_stays_gone_after_three_restarts_and_a_checkpoint() {
        for policy in EVICTING {
            let disk = SimDisk::new(1);
            let db = durable(limited(policy, LIMIT), &disk);
            (0..40).for_each(|key| put(&db, key, key));
            block_on(db.checkpoint()).expect("a checkpoint is written");
            (20..60).for_each(|key| put(&db, key, key + 1));
            assert!(block_on(db.evict(&5)).expect("an eviction commits"));
            assert!(block_on(db.expire_at(&50, UNIX_EPOCH)).expect("a change commits"));
            crowd_out(&db, 0);
            let left = content(&db);
            assert!([0, 5, 50].iter().all(|key| !left.contains_key(key)), "{policy:?}");
            assert!(db.memory_info().evictions.capacity > 0, "{policy:?}");
            block_on(db.close()).expect("the database closes");
            for restart in 0..3 {
                let db = durable(Db::builder(), &disk);
                assert_eq!(content(&db), left, "{policy:?}, restart {restart}");
                if restart == 1 {
                    block_on(db.checkpoint()).expect("a checkpoint is written");
                }
                block_on(db.close()).expect("the database closes");
            }
        }
    }

    #[test]
    fn a_key_that_was_evicted_and_written_again_is_there_after_a_restart() {
        let disk = SimDisk::new(2);
        let db = durable(Db::builder(), &disk);
        put(&db, 1, 10);
        assert!(block_on(db.evict(&1)).expect("an eviction commits"));
        put(&db, 1, 11);
        block_on(db.close()).expect("the database closes");
        assert_eq!(content(&durable(Db::builder(), &disk)), BTreeMap::from([(1, 11)]));
    }
}

mod listening {
    use super::*;

    #[test]
    fn each_eviction_is_told_once_with_what_it_held_and_why() {
        for policy in EVICTING {
            let (builder, told) = listening(limited(policy, LIMIT));
            let db = open(builder);
            for key in 0..500 {
                put(&db, key, key * 3);
            }
            let mut gone = BTreeSet::new();
            for (key, value, cause) in told.try_iter() {
                assert_eq!((value, cause), (key * 3, EvictionCause::Capacity), "{policy:?}");
                assert!(gone.insert(key), "{policy:?} tells of {key} twice");
            }
            let left: BTreeSet<u64> = crate::common::content(&db).into_iter().map(|(key, _)| key).collect();
            assert!(gone.is_disjoint(&left), "{policy:?}");
            assert_eq!(gone.len() + left.len(), 500, "{policy:?}");
            assert_eq!(db.memory_info().evictions.capacity, gone.len() as u64, "{policy:?}");

            let mut left = left.into_iter();
            let mut next = || left.next().expect("there are a few");
            let (evicted, expired, removed) = (next(), next(), next());
            assert!(block_on(db.evict(&evicted)).expect("an eviction commits"));
            assert_eq!(told.try_recv(), Ok((evicted, evicted * 3, EvictionCause::Explicit)));
            assert!(block_on(db.expire_at(&expired, UNIX_EPOCH)).expect("a change commits"));
            vacuum(&db);
            assert_eq!(told.recv_timeout(PATIENCE), Ok((expired, expired * 3, EvictionCause::Expired)));
            assert!(block_on(db.remove(&removed)).expect("a remove commits").is_some());
            vacuum(&db);
            assert!(told.try_recv().is_err(), "{policy:?}: removing is no eviction, and once is enough");
            let evictions = db.memory_info().evictions;
            assert_eq!((evictions.explicit, evictions.expired), (1, 1), "{policy:?}");
        }
    }

    #[test]
    fn a_key_that_comes_back_is_told_of_again_with_its_new_value() {
        let (builder, told) = listening(Db::builder());
        let db = open(builder);
        for value in [10, 11, 12] {
            put(&db, 1, 0);
            put(&db, 1, value);
            assert!(block_on(db.evict(&1)).expect("an eviction commits"));
            assert_eq!(told.try_recv(), Ok((1, value, EvictionCause::Explicit)));
        }
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn what_a_commit_has_just_written_is_not_what_goes_for_it() {
        for policy in EVICTING {
            let (builder, told) = listening(limited(policy, LIMIT));
            let db = open(builder);
            for round in 0..100 {
                let keys: RangeInclusive<u64> = round * 30..=round * 30 + 29;
                let tx = db.begin();
                keys.clone().try_for_each(|key| tx.insert(key, round)).expect("writes are buffered");
                commit(tx).expect("room is made");
                assert!(told.try_iter().all(|(key, ..)| !keys.contains(&key)), "{policy:?}, {round}");
                assert_eq!(db.count(keys).expect("a count succeeds"), 30, "{policy:?}, {round}");
            }
        }
    }

    #[test]
    fn a_panic_of_the_listener_is_nobodys_else() {
        for policy in EVICTING {
            let (sender, calls) = channel();
            let db = open(limited(policy, LIMIT).on_evict(move |key, _, _| {
                sender.send(key).expect("the test listens");
                panic!("the listener panics for {key}, which belongs to the test");
            }));
            for key in 0..300 {
                put(&db, key, key);
                assert_eq!(get(&db, key), Some(key), "{policy:?}");
            }
            let info = db.memory_info();
            assert_eq!(calls.try_iter().count() as u64, info.evictions.capacity, "{policy:?}");
            assert!(info.live_bytes <= LIMIT, "{policy:?}: {info:?}");
            // The listener also runs on the background thread. The second key shows that the thread
            // survived the first panic.
            for key in [1_000, 1_001] {
                let life = Duration::from_millis(1);
                block_on(db.insert_with_ttl(key, 0, life)).expect("an insert commits");
                while calls.recv_timeout(PATIENCE).expect("it expires although nothing touches it") != key {}
            }
            assert_nothing_pinned(&db);
        }
    }

    /// Holds a database where its own listener can reach it.
    type Slot = Arc<Mutex<Option<Db>>>;

    fn within(slot: &Slot) -> Option<Db> {
        slot.lock().expect("no holder panics").clone()
    }

    #[test]
    fn the_listener_may_use_the_database() {
        for policy in EVICTING {
            let slot = Slot::default();
            let (sender, told) = channel();
            let inner = Arc::clone(&slot);
            let db = open(limited(policy, LIMIT).on_evict(move |key, _, cause| {
                let Some(db) = within(&inner) else { return };
                let seen = get(&db, key);
                let (count, info) = (db.count(..).expect("a count succeeds"), db.memory_info());
                assert!(count > 0 && info.keys > 0);
                assert!(db.vacuum().now_or_never().is_some(), "nothing to wait for");
                // Write the first evicted keys back under other keys, in commits of other threads.
                // Only the first few, because they push out others.
                let writer = (key < 50 && cause == EvictionCause::Capacity)
                    .then(|| thread::spawn(move || put(&db, OTHERS + key, key)));
                sender.send((key, seen, writer)).expect("the test listens");
            }));
            *slot.lock().expect("no holder panics") = Some(db.clone());
            (0..400).for_each(|key| put(&db, key, key));
            let mut calls = 0;
            while let Ok((key, seen, writer)) = told.try_recv() {
                calls += 1;
                assert_eq!(seen, None, "{policy:?}: {key} is told of when it has gone");
                if let Some(writer) = writer {
                    writer.join().expect("the insert succeeds");
                }
            }
            assert!(calls >= 200, "{policy:?}: {calls}");
            slot.lock().expect("no holder panics").take();
        }
    }

    #[test]
    fn the_listener_may_insert_where_it_is() {
        let slot = Slot::default();
        let inner = Arc::clone(&slot);
        let db = open(limited(EvictionPolicy::Lru, LIMIT).on_evict(move |key: u64, _, _| {
            if let (true, Some(db)) = (key.is_multiple_of(10), within(&inner)) {
                let inserted = db.insert(key + 1, key).now_or_never();
                assert!(matches!(inserted, Some(Ok(()))), "nothing to wait for");
            }
        }));
        *slot.lock().expect("no holder panics") = Some(db.clone());
        (0..400).for_each(|key| put(&db, key * 10, key));
        assert!(crate::common::content(&db).iter().any(|(key, _)| key % 10 == 1));
        slot.lock().expect("no holder panics").take();
    }

    /// The listener runs on the background thread, which must not wait for itself when the last
    /// handle is dropped there.
    #[test]
    fn the_listener_may_drop_the_last_handle() {
        for disk in [None, Some(SimDisk::new(3))] {
            let slot = Slot::default();
            let (sender, told) = channel();
            let inner = Arc::clone(&slot);
            let builder = Db::builder().on_evict(move |key, _, _| {
                drop(inner.lock().expect("no holder panics").take());
                sender.send(key).expect("the test listens");
            });
            let db = match &disk {
                None => block_on(builder.build()),
                Some(disk) => {
                    block_on(builder.durability_full(options("db")).disk(Arc::new(disk.clone())).build())
                }
            };
            let db = db.expect("the database opens");
            *slot.lock().expect("no holder panics") = Some(db.clone());
            block_on(db.insert_with_ttl(1, 10, Duration::from_millis(20))).expect("an insert commits");
            drop(db);
            assert_eq!(told.recv_timeout(PATIENCE), Ok(1));
            assert_eq!(
                told.recv_timeout(PATIENCE),
                Err(RecvTimeoutError::Disconnected),
                "the database has ended"
            );
        }
    }

    #[test]
    fn threads_together_are_told_of_each_key_once() {
        for policy in EVICTING {
            let (builder, told) = listening(limited(policy, LIMIT));
            let db = open(builder);
            thread::scope(|scope| {
                for thread in 0..4 {
                    let db = &db;
                    scope.spawn(move || (0..300).for_each(|key| put(db, key * 4 + thread, key)));
                }
            });
            let gone: Vec<u64> = told.try_iter().map(|(key, ..)| key).collect();
            let different: BTreeSet<&u64> = gone.iter().collect();
            assert_eq!(different.len(), gone.len(), "{policy:?}");
            let left = db.count(..).expect("a count succeeds");
            assert_eq!(gone.len() + left, 1_200, "{policy:?}");
        }
    }
}

mod using {
    use super::*;

    /// Fills a little cache with the keys 1 to 10, calls `look`, and returns the key that is
    /// evicted first.
    fn first_to_go(look: impl Fn(&Db)) -> u64 {
        let (builder, told) = listening(limited(EvictionPolicy::Lru, 4 << 10));
        let db = open(builder);
        (1..=10).for_each(|key| put(&db, key, key));
        look(&db);
        (11..)
            .find_map(|key| {
                put(&db, key, key);
                told.try_recv().ok()
            })
            .expect("some key is evicted")
            .0
    }

    #[test]
    fn reading_a_key_keeps_it_wherever_it_is_read() {
        type Use = fn(&Db);
        let uses: [(&str, Use); 8] = [
            ("get", |db| assert!(get(db, 1).is_some())),
            ("get_with", |db| assert!(db.get_with(&1, |_| ()).expect("a read succeeds").is_some())),
            ("contains_key", |db| assert!(db.contains_key(&1).expect("a read succeeds"))),
            ("a snapshot", |db| {
                assert!(db.snapshot().get(&1).expect("a read succeeds").is_some());
            }),
            ("a transaction", |db| assert!(db.begin().get(&1).expect("a read succeeds").is_some())),
            ("transact", |db| {
                let found = block_on(db.transact(async |tx| tx.get(&1)));
                assert!(found.expect("a transaction commits").is_some());
            }),
            ("a handle", |db| assert!(db.handle().get(&1).expect("a read succeeds").is_some())),
            ("a write", |db| put(db, 1, 1)),
        ];
        for (how, look) in uses {
            assert_eq!(first_to_go(look), 2, "{how}");
        }
    }

    #[test]
    fn looking_at_everything_keeps_nothing() {
        type Look = fn(&Db);
        let looks: [(&str, Look); 7] = [
            ("not at all", |_| {}),
            ("range", |db| assert_eq!(db.snapshot().range(..).count(), 10)),
            ("range backwards", |db| assert_eq!(db.snapshot().range(..=1).rev().count(), 1)),
            ("count and first", |db| {
                assert_eq!(db.count(..).expect("a count succeeds"), 10);
                assert!(db.first().expect("a read succeeds").is_some());
            }),
            ("a transaction's range", |db| {
                assert_eq!(db.begin().range(..=1).expect("a range succeeds").count(), 1);
            }),
            ("a stream", |db| assert_eq!(block_on(db.snapshot().range_stream(..).count()), 10)),
            ("scan_metadata", |db| {
                let known: Vec<_> = block_on(db.scan_metadata().try_collect()).expect("a scan succeeds");
                assert_eq!(known.len(), 10);
            }),
        ];
        for (how, look) in looks {
            assert_eq!(first_to_go(look), 1, "{how}");
        }
    }

    #[test]
    fn hits_and_misses_of_single_keys_are_counted_and_scans_are_not() {
        let db = open(limited(EvictionPolicy::Lru, LIMIT));
        (0..10).for_each(|key| put(&db, key, key));
        let before = db.memory_info();
        let (view, tx) = (db.snapshot(), db.begin());
        for key in 0..13 {
            let _ = get(&db, key);
            let _ = db.contains_key(&key).expect("a read succeeds");
            let _ = view.get(&key).expect("a read succeeds");
            let _ = tx.get(&key).expect("a read succeeds");
        }
        let counted = db.memory_info();
        assert_eq!((counted.hits - before.hits, counted.misses - before.misses), (4 * 10, 4 * 3));
        assert_eq!((view.range(..).count(), tx.count(..).expect("a count succeeds")), (10, 10));
        assert!(db.last().expect("a read succeeds").is_some());
        let after = db.memory_info();
        assert_eq!((after.hits, after.misses), (counted.hits, counted.misses));
        crowd_out(&db, 3);
        let _ = get(&db, 3);
        assert_eq!(db.memory_info().misses, after.misses + 1, "an evicted key is a miss");
    }
}

/// A value that counts live instances, and knows the commit that wrote it.
struct Counted {
    commit: u64,
    live: Arc<AtomicIsize>,
}

impl Counted {
    fn new(commit: u64, live: &Arc<AtomicIsize>) -> Self {
        live.fetch_add(1, Ordering::SeqCst);
        Counted { commit, live: Arc::clone(live) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl MemSize for Counted {
    fn mem_size(&self) -> usize {
        size_of::<Self>() + (self.commit % 300) as usize
    }
}

/// Four threads write pairs of keys, each pair in one commit, with hardly any room. One key of a
/// pair may have been evicted at any time, but a reader that sees both keys must see the values of
/// one commit.
#[test]
fn threads_at_the_limit_see_whole_commits_only() {
    const PAIRS: u64 = 150;
    const WHILE: Duration = Duration::from_millis(300);
    const THREADS: u64 = 4;
    /// More than the two entries of a commit weigh.
    const COMMIT: u64 = 2 * 512;
    let halves = |pair: u64| [pair, pair + PAIRS];
    for policy in EVICTING {
        let live = Arc::default();
        let told = Arc::new(AtomicIsize::new(0));
        let heard = Arc::clone(&told);
        let builder = limited(policy, LIMIT).on_evict(move |_, value: Arc<Counted>, _| {
            assert!(value.commit > 0);
            heard.fetch_add(1, Ordering::SeqCst);
        });
        let db = block_on(builder.build()).expect("the database opens");
        let done = AtomicBool::new(false);
        let both = AtomicIsize::new(0);
        thread::scope(|scope| {
            let _ends = DoneOnDrop(&done);
            for thread in 0..THREADS {
                let (db, live, done, both) = (&db, &live, &done, &both);
                scope.spawn(move || {
                    for round in
                        (thread + 1..).step_by(THREADS as usize).take_while(|_| !done.load(Ordering::Relaxed))
                    {
                        let pair = (round * 7 + thread * 31) % PAIRS;
                        let tx = db.begin();
                        let read = || {
                            halves(pair)
                                .map(|key| tx.get(&key).expect("a read succeeds").map(|value| value.commit))
                        };
                        let seen = read();
                        if let [Some(one), Some(other)] = seen {
                            assert_eq!(one, other, "{policy:?}: half a commit");
                            both.fetch_add(1, Ordering::Relaxed);
                        }
                        assert_eq!(read(), seen, "{policy:?}: a transaction's reads repeat");
                        for key in halves(pair) {
                            tx.insert(key, Counted::new(round, live)).expect("a write is buffered");
                        }
                        match commit(tx) {
                            Ok(()) | Err(FluxError::SerializationConflict) => {}
                            Err(error) => panic!("{policy:?}: {error}"),
                        }
                        if round % 16 == thread {
                            let view = db.snapshot();
                            let all: BTreeMap<u64, u64> =
                                view.range(..).map(|(key, value)| (key, value.commit)).collect();
                            for pair in 0..PAIRS {
                                if let [Some(one), Some(other)] = halves(pair).map(|key| all.get(&key)) {
                                    assert_eq!(one, other, "{policy:?}: half a commit");
                                }
                            }
                            assert_eq!(view.count(..).expect("a count succeeds"), all.len());
                        }
                    }
                });
            }
            let started = Instant::now();
            while started.elapsed() < WHILE {
                let info = db.memory_info();
                // A commit makes room before it returns, and each thread may be in the middle of
                // one.
                assert!(info.live_bytes <= LIMIT + THREADS * COMMIT, "{policy:?}: {info:?}");
                thread::yield_now();
            }
        });
        assert!(both.into_inner() > 0, "{policy:?}: the audit saw something");
        let evicted = db.memory_info().evictions.capacity;
        assert!(evicted > 0 && evicted == told.load(Ordering::SeqCst) as u64, "{policy:?}");
        vacuum(&db);
        vacuum(&db);
        let left = db.count(..).expect("a count succeeds") as isize;
        assert_eq!(live.load(Ordering::SeqCst), left, "{policy:?}: evicted values were freed, once each");
        drop(db);
        assert_eq!(live.load(Ordering::SeqCst), 0, "{policy:?}");
    }
}

/// A key whose destructor panics once if it is the armed one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Grenade(u64);

thread_local! {
    static ARMED: Cell<Option<u64>> = const { Cell::new(None) };
}

impl Drop for Grenade {
    fn drop(&mut self) {
        if ARMED.get() == Some(self.0) {
            ARMED.set(None);
            panic!("the planted panic");
        }
    }
}

impl MemSize for Grenade {
    fn mem_size(&self) -> usize {
        size_of::<Self>()
    }
}

#[test]
fn the_listener_is_told_although_a_destructor_panics() {
    let told = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&told);
    let builder = Database::<Grenade, Vec<u8>>::builder().max_memory(1 << 20).on_evict(move |_, _, _| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let db = block_on(builder.build()).expect("the database opens");
    (0..3000).for_each(|key| block_on(db.insert(Grenade(key), vec![0; 500])).expect("an insert commits"));
    let evicted = || db.memory_info().evictions.capacity;
    let before = evicted();
    let tx = db.begin();
    tx.insert(Grenade(2999), vec![0; 100_000]).expect("a write");
    // The key is in the index already, so the commit drops this one.
    ARMED.set(Some(2999));
    let committed = catch_unwind(AssertUnwindSafe(|| block_on(tx.commit())));
    assert!(committed.is_err() && evicted() > before + 100, "it evicts, and panics");
    assert_eq!(told.load(Ordering::Relaxed), evicted());
}
