//! The memory limit holds, whoever writes and however. A write that has no room is refused before
//! any of it happens (defects 18 and 21 of the list: a limit of 4 MiB let 202 MB through, and
//! writes were refused after they had been committed).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::limits::{EVICTING, limited};
use crate::common::{DoneOnDrop, commit};
use fluxmap::disk::Disk;
use fluxmap::mem::{EvictionPolicy, MemSize};
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, DatabaseBuilder, FluxError, Key, MemoryInfo, Value};
use fluxmap_testkit::disk::{Loss, SimDisk};
use futures::TryStreamExt;
use futures::executor::block_on;

type Db = Database<u64, Vec<u8>>;

const LIMIT: u64 = 64 << 10;

fn every_policy() -> impl Iterator<Item = EvictionPolicy> {
    EVICTING.into_iter().chain([EvictionPolicy::Manual])
}

fn open(policy: EvictionPolicy) -> Db {
    block_on(limited(policy, LIMIT).build()).expect("an empty database opens")
}

fn counted(info: &MemoryInfo) -> u64 {
    info.live_bytes + info.index_bytes
}

#[track_caller]
fn assert_within<K, V>(db: &Database<K, V>, why: impl std::fmt::Debug)
where
    K: Key,
    V: Value,
{
    let info = db.memory_info();
    let limit = info.max_bytes.expect("there is a limit");
    assert!(counted(&info) <= limit, "{} of {limit} bytes: {why:?}, {info:?}", counted(&info));
}

fn put(db: &Db, key: u64, length: usize) -> Result<(), FluxError> {
    block_on(db.insert(key, value(key, length)))
}

/// A value that shows which key it belongs to.
fn value(key: u64, length: usize) -> Vec<u8> {
    vec![key as u8; length]
}

fn content(db: &Db) -> BTreeMap<u64, Vec<u8>> {
    db.snapshot().range(..).map(|(key, value)| (key, value.to_vec())).collect()
}

fn vacuum<K, V>(db: &Database<K, V>)
where
    K: Key,
    V: Value,
{
    block_on(db.vacuum()).expect("vacuum succeeds");
}

#[test]
fn single_inserts_stay_within_the_limit_and_use_it() {
    for policy in EVICTING {
        let db = open(policy);
        for key in 0..1_500 {
            put(&db, key, 10 + (key as usize * 37) % 400).expect("room is made");
            assert_within(&db, (policy, key));
            assert!(db.contains_key(&key).expect("a read succeeds"), "{policy:?} lost what was just written");
        }
        let info = db.memory_info();
        assert!(counted(&info) > LIMIT * 3 / 4, "{policy:?} wastes room: {info:?}");
        assert!(info.total_bytes < 2 * LIMIT, "{policy:?} piles up garbage: {info:?}");
        let present = db.count(..).expect("a count succeeds") as u64;
        assert_eq!(info.evictions.capacity, 1_500 - present, "{policy:?}");
    }
}

#[test]
fn transactions_however_they_are_spelled_stay_within_the_limit() {
    type Write = fn(&Db, std::ops::Range<u64>) -> Result<(), FluxError>;
    let spellings: [(&str, Write); 4] = [
        ("begin and commit", |db, keys| {
            let tx = db.begin();
            keys.into_iter().try_for_each(|key| tx.insert(key, value(key, 200)))?;
            commit(tx)
        }),
        ("transact", |db, keys| {
            block_on(db.transact(async |tx| keys.clone().try_for_each(|key| tx.insert(key, value(key, 200)))))
        }),
        ("a handle", |db, keys| {
            let mut handle = db.handle();
            handle.begin()?;
            for key in keys {
                block_on(handle.insert(key, value(key, 200)))?;
            }
            block_on(handle.commit())
        }),
        ("one step each", |db, keys| {
            for key in keys {
                block_on(db.get_or_insert_with(key, || value(key, 100)))?;
                block_on(db.update(&key, |old| [old.as_slice(), old].concat()))?;
            }
            Ok(())
        }),
    ];
    for policy in EVICTING {
        for (how, write) in &spellings {
            let db = open(policy);
            for round in 0..60 {
                let keys = round * 10..(round + 1) * 10;
                write(&db, keys.clone()).expect("room is made");
                assert_within(&db, (policy, how, round));
                // One-step writes may evict each other's keys, but those of a transaction must all stay.
                if *how != "one step each" {
                    assert_eq!(db.count(keys).expect("a count succeeds"), 10, "{policy:?}, {how}");
                }
            }
            assert!(db.memory_info().evictions.capacity > 300, "{policy:?}, {how}");
        }
    }
}

#[test]
fn values_that_grow_where_they_are_stay_within_the_limit() {
    for policy in EVICTING {
        let db = open(policy);
        for length in (10..2_000).step_by(100) {
            for key in 0..60 {
                put(&db, key, length).expect("room is made");
                assert_within(&db, (policy, key, length));
            }
        }
        assert!(db.memory_info().evictions.capacity > 0, "{policy:?}");
        for (key, found) in content(&db) {
            assert_eq!(found[0], key as u8, "{policy:?}");
        }
    }
}

/// Several threads commit while another one watches the figures.
#[test]
fn threads_that_commit_exceed_the_limit_by_no_more_than_what_is_in_flight() {
    const BATCH: u64 = 8;
    const LENGTH: usize = 300;
    /// More than a batch takes.
    const IN_FLIGHT: u64 = BATCH * (LENGTH as u64 + 400);
    for policy in EVICTING {
        let db = open(policy);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut most = 0;
                while !done.load(Ordering::Relaxed) {
                    most = most.max(counted(&db.memory_info()));
                }
                most
            });
            let ends = DoneOnDrop(&done);
            thread::scope(|scope| {
                for thread in 0..3 {
                    let db = &db;
                    scope.spawn(move || {
                        for round in 0..100 {
                            let tx = db.begin();
                            for key in 0..BATCH {
                                let key = (round * 31 + key * 7 + thread * 1_000) % 2_000;
                                tx.insert(key, value(key, LENGTH)).expect("a write is buffered");
                            }
                            commit(tx).expect("blind writes do not conflict, and room is made");
                        }
                    });
                }
            });
            drop(ends);
            let most = watcher.join().expect("the watcher only looks");
            assert!(most <= LIMIT + IN_FLIGHT, "{policy:?}: {most}");
        });
        assert_within(&db, policy);
        assert!(db.memory_info().evictions.capacity > 0);
    }
}

mod reopening {
    use super::*;

    fn durable(builder: DatabaseBuilder<u64, Vec<u8>>, disk: &SimDisk) -> Db {
        let options =
            PersistenceOptions { wal_segment_size_bytes: 16 << 10, ..PersistenceOptions::new("db") };
        let builder = builder.durability_full(options).disk(Arc::new(disk.clone()));
        block_on(builder.build()).expect("the database opens")
    }

    fn close(db: Db) {
        block_on(db.close()).expect("the database closes");
    }

    /// Keys in a checkpoint, in the log, in both, and deleted ones.
    fn fill(disk: &SimDisk) -> BTreeMap<u64, Vec<u8>> {
        let db = durable(Db::builder(), disk);
        (0..300).try_for_each(|key| put(&db, key, 100)).expect("there is no limit");
        block_on(db.checkpoint()).expect("a checkpoint is written");
        (200..400).try_for_each(|key| put(&db, key, 120)).expect("there is no limit");
        for key in (0..400).step_by(10) {
            block_on(db.remove(&key)).expect("a remove commits");
        }
        let all = content(&db);
        close(db);
        all
    }

    #[test]
    fn with_a_smaller_limit_evicts_for_good_and_loses_nothing_else() {
        for policy in EVICTING {
            let disk = SimDisk::new(1);
            let all = fill(&disk);
            let db = durable(limited(policy, LIMIT / 2), &disk);
            assert_within(&db, policy);
            let left = content(&db);
            assert!(left.len() > 50 && left.len() < all.len(), "{policy:?} leaves {}", left.len());
            assert!(left.iter().all(|(key, value)| all.get(key) == Some(value)), "{policy:?}");
            close(db);
            for _ in 0..2 {
                let db = durable(Db::builder(), &disk);
                assert_eq!(content(&db), left, "{policy:?}: an evicted key came back, or more were evicted");
                close(db);
            }
        }
    }

    #[test]
    fn with_a_smaller_limit_evicts_for_good_also_if_the_power_fails_then() {
        let disk = SimDisk::new(2);
        fill(&disk);
        let db = durable(limited(EvictionPolicy::Lru, LIMIT / 2), &disk);
        let left = content(&db);
        let disk = disk.power_cut(Loss::Everything);
        assert_eq!(content(&durable(Db::builder(), &disk)), left);
    }

    #[test]
    fn with_a_limit_that_has_room_loses_nothing() {
        for policy in every_policy() {
            let disk = SimDisk::new(3);
            let all = fill(&disk);
            let db = durable(limited(policy, 1 << 20), &disk);
            assert_eq!(content(&db), all, "{policy:?}");
            assert_eq!(db.memory_info().evictions.capacity, 0, "{policy:?}");
        }
    }

    /// This policy evicts nothing: opening keeps every key, and a write that takes more memory is
    /// refused.
    #[test]
    fn manually_with_a_smaller_limit_keeps_all_until_room_is_made() {
        let disk = SimDisk::new(4);
        let all = fill(&disk);
        let db = durable(limited(EvictionPolicy::Manual, LIMIT / 2), &disk);
        assert_eq!(content(&db), all);
        assert!(matches!(put(&db, 1_000, 10), Err(FluxError::MemoryLimitExceeded)));
        put(&db, 1, 100).expect("an update that does not grow");
        put(&db, 2, 50).expect("one that shrinks");
        assert!(block_on(db.remove(&3)).expect("a remove commits").is_some());
        for key in content(&db).keys() {
            block_on(db.evict(key)).expect("an eviction commits");
        }
        vacuum(&db);
        put(&db, 1_000, 10).expect("there is room now");
        close(db);
        let db = durable(Db::builder(), &disk);
        assert_eq!(content(&db), BTreeMap::from([(1_000, value(1_000, 10))]));
    }

    #[test]
    fn the_limit_holds_for_a_durable_database_too_and_all_that_went_stays_gone() {
        for policy in EVICTING {
            let disk = SimDisk::new(5);
            let db = durable(limited(policy, LIMIT), &disk);
            for key in 0..400 {
                put(&db, key, 300).expect("room is made");
                assert_within(&db, (policy, key));
            }
            // Flush first: the last evictions may not be stable yet, and reads would still see the
            // keys.
            block_on(db.flush()).expect("it syncs");
            let left = content(&db);
            close(db);
            for _ in 0..3 {
                let db = durable(Db::builder(), &disk);
                assert_eq!(content(&db), left, "{policy:?}");
                close(db);
            }
        }
    }

    #[test]
    fn what_was_refused_is_not_in_the_log() {
        let disk = SimDisk::new(6);
        let db = durable(limited(EvictionPolicy::Manual, LIMIT), &disk);
        put(&db, 1, 10).expect("there is room");
        assert!(matches!(put(&db, 2, 1 << 20), Err(FluxError::ExceedsMemoryLimit { .. })));
        while put(&db, 3 + db.memory_info().keys, 2_000).is_ok() {}
        let left = content(&db);
        close(db);
        assert_eq!(content(&durable(Db::builder(), &disk)), left);
    }
}

mod refusing {
    use super::*;

    /// A database that holds some keys, with its content and its memory figures.
    fn with_some(policy: EvictionPolicy) -> (Db, BTreeMap<u64, Vec<u8>>, MemoryInfo) {
        let db = open(policy);
        (0..100).try_for_each(|key| put(&db, key, 200)).expect("there is room");
        let (content, info) = (content(&db), db.memory_info());
        (db, content, info)
    }

    #[track_caller]
    fn assert_untouched(db: &Db, before: &BTreeMap<u64, Vec<u8>>, info: &MemoryInfo) {
        assert_eq!(content(db), *before);
        vacuum(db);
        assert_eq!(content(db), *before);
        let now = db.memory_info();
        assert_eq!((now.keys, now.versions, now.live_bytes), (info.keys, info.versions, info.live_bytes));
        assert_eq!((now.evictions, now.backlog), (info.evictions, 0));
        assert_eq!(now.live_snapshots, 0);
    }

    #[test]
    fn a_value_larger_than_the_limit_evicts_nothing_and_leaves_no_trace() {
        for policy in every_policy() {
            let (db, before, info) = with_some(policy);
            for key in [7, 1_000] {
                match put(&db, key, LIMIT as usize) {
                    Err(FluxError::ExceedsMemoryLimit { bytes, limit }) => {
                        assert!(limit == LIMIT && bytes >= LIMIT, "{policy:?}: {bytes} of {limit}");
                    }
                    other => panic!("{policy:?}: {other:?}"),
                }
                assert_untouched(&db, &before, &info);
            }
            let grown = block_on(db.update(&7, |_| value(7, LIMIT as usize)));
            assert!(matches!(grown, Err(FluxError::ExceedsMemoryLimit { .. })), "{policy:?}");
            assert_untouched(&db, &before, &info);
            put(&db, 7, 201).expect("the database works on");
        }
    }

    #[test]
    fn a_transaction_larger_than_the_limit_evicts_nothing_and_leaves_no_trace() {
        for policy in every_policy() {
            let (db, before, info) = with_some(policy);
            let tx = db.begin();
            tx.remove(&1).expect("a remove succeeds");
            (50..2_000).try_for_each(|key| tx.insert(key, value(key, 100))).expect("writes are buffered");
            let refused = commit(tx);
            assert!(matches!(refused, Err(FluxError::ExceedsMemoryLimit { .. })), "{policy:?}: {refused:?}");
            assert_untouched(&db, &before, &info);

            let refused = block_on(
                db.transact(async |tx| (50..2_000).try_for_each(|key| tx.insert(key, value(key, 100)))),
            );
            assert!(matches!(refused, Err(FluxError::ExceedsMemoryLimit { .. })), "{policy:?}: {refused:?}");
            assert_untouched(&db, &before, &info);
        }
    }

    #[test]
    fn a_value_that_fits_alone_may_cost_all_others() {
        for policy in EVICTING {
            let (db, ..) = with_some(policy);
            put(&db, 1_000, 48 << 10).expect("it fits");
            assert_within(&db, policy);
            assert_eq!(db.get(&1_000).expect("a read succeeds").as_deref(), Some(&value(1_000, 48 << 10)));
        }
    }
}

mod many_keys_at_once {
    use super::*;
    use fluxmap::Transaction;

    type Small = Database<u64, u64>;

    const ROOM: u64 = 256 << 10;
    /// More keys than there is room for, together with their index entries.
    const TOO_MANY: u64 = 2_500;

    fn small(policy: EvictionPolicy) -> Small {
        block_on(limited(policy, ROOM).build()).expect("an empty database opens")
    }

    fn write(db: &Small, keys: std::ops::Range<u64>) -> Result<(), FluxError> {
        let tx: Transaction<u64, u64> = db.begin();
        keys.into_iter().try_for_each(|key| tx.insert(key, key))?;
        commit(tx)
    }

    /// The largest number of new keys that one transaction can write into the database that `fill`
    /// makes.
    fn most(fill: impl Fn() -> Small) -> u64 {
        let (mut fits, mut too_many) = (0, TOO_MANY);
        while too_many - fits > 20 {
            let keys = (fits + too_many) / 2;
            let db = fill();
            let before = db.count(..).expect("a count succeeds");
            match write(&db, 1_000_000..1_000_000 + keys) {
                Ok(()) => fits = keys,
                Err(_) => {
                    vacuum(&db);
                    assert_eq!(
                        db.count(..).expect("a count succeeds"),
                        before,
                        "a refused write evicts nothing"
                    );
                    too_many = keys;
                }
            }
            assert_within(&db, (keys, fits, too_many));
        }
        fits
    }

    #[test]
    fn are_let_in_only_with_all_that_finding_them_takes() {
        for policy in every_policy() {
            // The memory that the index takes differs a little with the hashes.
            let fits = most(|| small(policy)) * 9 / 10;
            let db = small(policy);
            write(&db, 0..fits).expect("it did before");
            let info = db.memory_info();
            assert!(counted(&info) > ROOM * 3 / 4, "{policy:?} wastes room: {fits} keys, {info:?}");
        }
    }

    #[test]
    fn drive_out_what_is_there_and_all_memory_of_it() {
        for policy in EVICTING {
            // Write three times as many keys as fit, so that the policies remember as much as they
            // can.
            let full = || {
                let db = small(policy);
                (0..3 * TOO_MANY).try_for_each(|key| block_on(db.insert(key, key))).expect("room is made");
                db
            };
            let alone = most(|| small(policy));
            let among = most(full);
            assert!(among >= alone * 3 / 4, "{policy:?}: {among} keys in a full database, else {alone}");
        }
    }

    /// Under `Manual`, which evicts nothing, the keys that are there count as well, and a refused
    /// write leaves them.
    #[test]
    fn manually_have_room_beside_what_is_there_or_are_refused() {
        let half = || {
            let db = small(EvictionPolicy::Manual);
            (0..600).try_for_each(|key| block_on(db.insert(key, key))).expect("there is room");
            db
        };
        let (alone, beside) = (most(|| small(EvictionPolicy::Manual)), most(half));
        assert!(beside + 300 < alone && beside > alone / 4, "{beside} beside 600 keys, {alone} alone");

        let hour = Duration::from_secs(3600);
        let db = half();
        let refused = (1_000..).map(|batch| {
            let tx = db.begin();
            let mut keys = batch * 100..(batch + 1) * 100;
            keys.try_for_each(|key| tx.insert_with_ttl(key, key, hour)).expect("a write is buffered");
            let refused = commit(tx).err();
            assert_within(&db, batch);
            refused
        });
        let refused = refused.flatten().next();
        assert!(matches!(refused, Some(FluxError::MemoryLimitExceeded)), "{refused:?}");
    }

    #[test]
    fn that_expire_are_let_in_only_with_their_timers() {
        for policy in every_policy() {
            let (mut fits, mut too_many) = (0, TOO_MANY);
            while too_many - fits > 20 {
                let keys = (fits + too_many) / 2;
                let db = small(policy);
                let tx = db.begin();
                let hour = Duration::from_secs(3600);
                (0..keys)
                    .try_for_each(|key| tx.insert_with_ttl(key, key, hour))
                    .expect("a write is buffered");
                if commit(tx).is_ok() {
                    fits = keys
                } else {
                    too_many = keys
                }
                assert_within(&db, (policy, keys));
            }
            assert!(fits > 250, "{policy:?}: {fits}");
        }
    }
}

mod manually {
    use super::*;

    /// A database that has no room for another key like those in it.
    fn full() -> Db {
        let db = open(EvictionPolicy::Manual);
        let refused = (0..).map(|key| put(&db, key, 400)).find_map(Result::err);
        assert!(matches!(refused, Some(FluxError::MemoryLimitExceeded)), "{refused:?}");
        vacuum(&db);
        db
    }

    #[test]
    fn what_has_no_room_is_refused_whole_and_before_it_happens() {
        let db = full();
        let before = content(&db);
        assert!(before.len() > 50);
        let watch = db.snapshot();
        let tx = db.begin();
        tx.insert(0, value(9, 400)).expect("a write is buffered");
        tx.remove(&1).expect("a remove succeeds");
        for key in [1_000, 1_001] {
            tx.insert(key, value(key, 800)).expect("a write is buffered");
        }
        assert!(matches!(commit(tx), Err(FluxError::MemoryLimitExceeded)));
        // The value grows by more than another key would have taken with its index entry.
        let grown = block_on(db.update(&2, |_| value(2, 1_200)));
        assert!(matches!(grown, Err(FluxError::MemoryLimitExceeded)), "{:?}", grown.map(|_| ()));
        assert_eq!(content(&db), before);
        assert_eq!(watch.count(..).expect("a count succeeds"), before.len());
        drop(watch);
        vacuum(&db);
        assert_eq!(content(&db), before, "nothing of it comes later");
        assert_within(&db, "full");
        assert_eq!(db.memory_info().evictions.capacity, 0);
    }

    #[test]
    fn what_does_not_grow_is_let_through_when_there_is_no_room() {
        let db = full();
        put(&db, 0, 400).expect("an update of the same size");
        put(&db, 1, 10).expect("a smaller one");
        assert!(block_on(db.update(&2, |old| old.clone())).expect("an update commits").is_some());
        let tx = db.begin();
        tx.remove(&3).expect("a remove succeeds");
        tx.insert(1_000, value(1_000, 400)).expect("a write is buffered");
        commit(tx).expect("one key is removed, one like it is inserted");
        assert!(block_on(db.remove(&4)).expect("a remove commits").is_some());
        assert_within(&db, "full");
    }

    #[test]
    fn evicting_by_what_is_known_of_the_keys_makes_room() {
        let db = full();
        let keys = content(&db).len() as u64;
        for _ in 0..50 {
            for key in 0..keys / 2 {
                let _ = db.get(&key).expect("a read succeeds");
            }
        }
        let mut known: Vec<_> = block_on(db.scan_metadata().try_collect()).expect("a scan succeeds");
        assert_eq!(known.len() as u64, keys);
        assert!(known.iter().all(|known| known.size_bytes > 400));
        known.sort_by_key(|known| (known.access_count, known.key));
        for known in &known[..10] {
            assert!(known.key >= keys / 2, "the ones that were read come later");
            assert!(block_on(db.evict(&known.key)).expect("an eviction commits"));
            assert!(!block_on(db.evict(&known.key)).expect("an eviction succeeds"), "the key has gone");
        }
        for key in 1_000..1_010 {
            put(&db, key, 400).expect("there is room for as many");
        }
        assert_eq!(db.memory_info().evictions.explicit, 10);
        assert_within(&db, "full again");
    }
}

#[test]
fn when_everything_has_gone_the_books_are_at_nothing() {
    type Empty = fn(&Db, u64);
    let ways: [(&str, Empty); 3] = [
        ("remove", |db, key| drop(block_on(db.remove(&key)).expect("a remove commits"))),
        ("evict", |db, key| assert!(block_on(db.evict(&key)).expect("an eviction commits"))),
        ("expire", |db, key| {
            assert!(block_on(db.expire_at(&key, std::time::UNIX_EPOCH)).expect("a change commits"));
        }),
    ];
    for policy in every_policy() {
        for (way, empty) in &ways {
            let db = open(policy);
            for round in 0..3 {
                let keys = if policy == EvictionPolicy::Manual { 60 } else { 200 };
                for key in 0..keys {
                    put(&db, key, 50 + (key as usize * 13 + round * 101) % 700).expect("there is room");
                }
                content(&db).keys().for_each(|key| empty(&db, *key));
                vacuum(&db);
                vacuum(&db);
                let info = db.memory_info();
                assert_eq!((info.keys, info.versions), (0, 0), "{policy:?}, {way}: {info:?}");
                assert_eq!(info.live_bytes, 0, "{policy:?}, {way}: {info:?}");
                assert!(info.old_version_bytes < LIMIT / 32, "{policy:?}, {way}: {info:?}");
            }
        }
    }
}

mod configuration {
    use super::*;

    #[track_caller]
    fn refused(builder: DatabaseBuilder<u64, Vec<u8>>) {
        let disk = SimDisk::new(1);
        let builder = builder.durability_full(PersistenceOptions::new("db")).disk(Arc::new(disk.clone()));
        match block_on(builder.build()) {
            Err(FluxError::Configuration(why)) => assert!(!why.is_empty()),
            other => panic!("{other:?}"),
        }
        assert!(disk.list(Path::new("db")).is_err(), "nothing has been created");
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_created() {
        let limited = || Db::builder().max_memory(LIMIT);
        refused(Db::builder().max_memory(0));
        refused(Db::builder().eviction_policy(EvictionPolicy::Lru));
        refused(Db::builder().eviction_ttl(Duration::from_secs(1)));
        refused(limited().eviction_ttl(Duration::from_secs(1)));
        refused(limited().eviction_policy(EvictionPolicy::Ttl));
        refused(Db::builder().eviction_policy(EvictionPolicy::Ttl));
        refused(limited().eviction_policy(EvictionPolicy::Ttl).eviction_ttl(Duration::ZERO));
        refused(Db::builder().max_snapshot_age(Duration::ZERO));
    }

    #[test]
    fn a_limit_alone_evicts_what_was_used_least_recently() {
        let db = block_on(Db::builder().max_memory(LIMIT).build()).expect("it opens");
        for key in 0..500 {
            put(&db, key, 300).expect("room is made");
            let _ = db.get(&0).expect("a read succeeds");
        }
        assert!(db.contains_key(&0).expect("a read succeeds"));
        assert!(!db.contains_key(&1).expect("a read succeeds"));
    }

    /// As in FluxMap 0.3, where this policy was the default.
    #[test]
    fn the_policy_that_evicts_nothing_needs_no_limit() {
        let builder = Db::builder().eviction_policy(EvictionPolicy::Manual);
        let db = block_on(builder.build()).expect("it opens");
        (0..100).for_each(|key| put(&db, key, 300).expect("there is no limit"));
        assert_eq!(db.count(..), Ok(100));
    }

    #[test]
    fn the_life_of_keys_needs_no_limit() {
        let builder = Db::builder().eviction_policy(EvictionPolicy::Ttl).eviction_ttl(Duration::from_secs(9));
        let db = block_on(builder.build()).expect("it opens");
        put(&db, 1, 10).expect("an insert commits");
        assert!(db.ttl(&1).expect("a read succeeds").is_some());
        assert_eq!(db.memory_info().max_bytes, None);
    }

    #[test]
    fn a_limit_that_holds_next_to_nothing_refuses_and_goes_on() {
        for policy in EVICTING.into_iter().chain([EvictionPolicy::Manual]) {
            for limit in [1, 16, 100, 1_000, 4_000] {
                let db = block_on(limited(policy, limit).build()).expect("it opens");
                for key in 0..100 {
                    match put(&db, key, 10) {
                        Ok(()) => assert!(policy == EvictionPolicy::Manual || db.contains_key(&key).is_ok()),
                        Err(FluxError::ExceedsMemoryLimit { .. } | FluxError::MemoryLimitExceeded) => {}
                        Err(other) => panic!("{policy:?} at {limit}: {other}"),
                    }
                    assert_within(&db, (policy, limit, key));
                }
            }
        }
    }
}

/// Wrong sizes from users' implementations of `MemSize`.
mod lies {
    use super::*;

    #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
    struct Lie<const SIZE: usize>(u64);

    impl<const SIZE: usize> MemSize for Lie<SIZE> {
        fn mem_size(&self) -> usize {
            SIZE
        }
    }

    /// Writes and removes as an ordinary user does, whatever is refused. In the end the database
    /// must be empty. Returns how many single inserts were accepted.
    fn use_it<K, V>(
        policy: EvictionPolicy,
        limit: u64,
        key: impl Fn(u64) -> K,
        value: impl Fn(u64) -> V,
    ) -> u64
    where
        K: Key + MemSize,
        V: Value + MemSize,
    {
        let db = block_on(limited::<K, V>(policy, limit).build()).expect("it opens");
        let mut written = 0;
        for number in 0..300 {
            match block_on(db.insert(key(number % 100), value(number))) {
                Ok(()) => written += 1,
                Err(FluxError::ExceedsMemoryLimit { .. } | FluxError::MemoryLimitExceeded) => {}
                Err(other) => panic!("{policy:?}: {other}"),
            }
            let tx = db.begin();
            for number in 0..3 {
                tx.insert(key(100 + number), value(number)).expect("a write is buffered");
            }
            if !matches!(
                commit(tx),
                Ok(()) | Err(FluxError::ExceedsMemoryLimit { .. } | FluxError::MemoryLimitExceeded)
            ) {
                panic!("{policy:?}: refused for another reason");
            }
        }
        for number in 0..103 {
            block_on(db.remove(&key(number))).expect("a remove commits");
        }
        vacuum(&db);
        let info = db.memory_info();
        assert_eq!((info.keys, info.live_bytes), (0, 0), "{policy:?}: {info:?}");
        written
    }

    #[test]
    fn values_that_claim_to_be_nothing_still_count_for_what_holds_them() {
        for policy in EVICTING {
            assert_eq!(use_it(policy, 8 << 10, |number| number, Lie::<0>), 300, "{policy:?}");
        }
        let db = block_on(limited::<Lie<0>, Lie<0>>(EvictionPolicy::Lru, LIMIT).build()).expect("it opens");
        for number in 0..5_000 {
            block_on(db.insert(Lie(number), Lie(number))).expect("room is made");
        }
        assert_within(&db, "no sizes");
        assert!(db.memory_info().keys < 1_000);
    }

    #[test]
    fn sizes_beyond_all_memory_are_refused() {
        for policy in every_policy() {
            assert_eq!(use_it(policy, LIMIT, |number| number, Lie::<{ usize::MAX / 2 }>), 0, "{policy:?}");
            assert_eq!(use_it(policy, LIMIT, |number| number, Lie::<{ usize::MAX }>), 0, "{policy:?}");
            assert_eq!(use_it(policy, LIMIT, Lie::<{ usize::MAX / 2 }>, |number| number), 0, "{policy:?}");
        }
    }

    #[test]
    fn limits_beyond_all_memory_take_any_size() {
        for policy in every_policy() {
            use_it(policy, u64::MAX, Lie::<{ usize::MAX }>, Lie::<{ usize::MAX / 2 }>);
            use_it(policy, u64::MAX / 2, Lie::<{ usize::MAX / 2 }>, Lie::<{ usize::MAX }>);
        }
    }

    /// States another size each time it is asked.
    struct Moody;

    impl MemSize for Moody {
        fn mem_size(&self) -> usize {
            static ASKED: AtomicUsize = AtomicUsize::new(0);
            let asked = ASKED.fetch_add(1, Ordering::Relaxed);
            (asked * 7_919) % 5_000
        }
    }

    #[test]
    fn sizes_that_change_do_not_upset_the_books() {
        for policy in EVICTING {
            use_it(policy, LIMIT, |number| number, |_| Moody);
        }
    }

    /// Panics when it is measured, if its number is odd.
    struct Odd(u64);

    impl MemSize for Odd {
        fn mem_size(&self) -> usize {
            assert!(self.0.is_multiple_of(2), "an odd one");
            100
        }
    }

    #[test]
    fn a_size_that_panics_is_a_write_that_did_not_happen() {
        for policy in every_policy() {
            let db = block_on(limited::<u64, Odd>(policy, LIMIT).build()).expect("it opens");
            for number in 0..20 {
                let tx = db.begin();
                tx.insert(number, Odd(0)).expect("a write is buffered");
                tx.insert(number + 1_000, Odd(number)).expect("a write is buffered");
                let committed = catch_unwind(AssertUnwindSafe(|| commit(tx)));
                assert_eq!(committed.is_ok(), number % 2 == 0, "the panic is the caller's");
                for key in [number, number + 1_000] {
                    let is_there = db.contains_key(&key).expect("a read succeeds");
                    assert_eq!(is_there, number % 2 == 0, "{policy:?}: all or nothing");
                }
            }
            assert_eq!(db.memory_info().keys, 20, "{policy:?}");
        }
    }
}
