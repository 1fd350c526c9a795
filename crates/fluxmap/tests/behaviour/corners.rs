//! Corner cases of memory limits and expiry that were once wrong.

use crate::common::limits::{EVICTING, limited};
use fluxmap::mem::{EvictionCause, EvictionPolicy, TimeSource};
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, FluxError};
use fluxmap_testkit::disk::SimDisk;
use futures::executor::block_on;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

type Db = Database<u64, Vec<u8>>;

const LIMIT: u64 = 64 << 10;
const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(5);

fn open_limited(policy: EvictionPolicy) -> Db {
    block_on(limited(policy, LIMIT).build()).expect("it opens")
}

fn put(db: &Db, key: u64, length: usize) -> Result<(), FluxError> {
    block_on(db.insert(key, vec![key as u8; length]))
}

fn used(db: &Db) -> u64 {
    let info = db.memory_info();
    info.live_bytes + info.index_bytes
}

#[test]
fn keys_that_expire_stay_within_the_limit() {
    let db = open_limited(EvictionPolicy::Lru);
    for key in 0..1_500 {
        block_on(db.insert_with_ttl(key, vec![0; 20], HOUR + HOUR * key as u32)).expect("room is made");
        assert!(used(&db) <= LIMIT, "{key}: {:?}", db.memory_info());
    }
}

#[test]
fn many_keys_at_once_make_room_among_those_that_are_used() {
    let mut wrong = Vec::new();
    for policy in EVICTING {
        let db = open_limited(policy);
        (0..250).try_for_each(|key| put(&db, key, 100)).expect("there is room");
        for _ in 0..20 {
            for key in 0..250 {
                let _ = db.get(&key).expect("a read succeeds");
            }
        }
        let tx = db.begin();
        (1_000..1_150).try_for_each(|key| tx.insert(key, vec![1; 100])).expect("writes are buffered");
        block_on(tx.commit()).expect("room is made");
        if used(&db) > LIMIT {
            wrong.push((policy, used(&db)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_snapshot_that_is_held_does_not_use_up_the_limit() {
    for policy in EVICTING {
        let db = open_limited(policy);
        put(&db, 0, 20).expect("there is room");
        let view = db.snapshot();
        for key in 1..5_000 {
            put(&db, key, 20)
                .unwrap_or_else(|error| panic!("{policy:?}: insert {key}: {error}, {:?}", db.memory_info()));
        }
        drop(view);
    }
}

#[test]
fn a_snapshot_that_was_held_leaves_the_room_that_there_was() {
    for policy in EVICTING {
        let db = open_limited(policy);
        let fill = |from: u64| {
            (from..from + 2_000).for_each(|key| put(&db, key, 20).expect("room is made"));
            block_on(db.vacuum()).expect("vacuum succeeds");
            db.count(..).expect("a count succeeds")
        };
        let before = fill(0);
        let view = db.snapshot();
        for key in 10_000..12_000 {
            let _ = put(&db, key, 20);
        }
        drop(view);
        block_on(db.vacuum()).expect("vacuum succeeds");
        let after = fill(20_000);
        assert!(
            after * 10 >= before * 8,
            "{policy:?}: {before} keys before, {after} after, {:?}",
            db.memory_info()
        );
    }
}

struct Dial(Mutex<SystemTime>);

impl TimeSource for Dial {
    fn now(&self) -> SystemTime {
        *self.0.lock().expect("no holder panics")
    }
}

fn dial() -> Arc<Dial> {
    Arc::new(Dial(Mutex::new(UNIX_EPOCH + 500_000 * HOUR)))
}

#[test]
fn a_life_counts_from_now_also_after_the_clock_was_set_back() {
    let dial = dial();
    let db = block_on(Database::<u64, u64>::builder().time_source(dial.clone()).build()).expect("it opens");
    block_on(db.insert_with_ttl(1, 1, HOUR * 100)).expect("an insert commits");
    assert!(db.contains_key(&1).expect("a read succeeds"));
    *dial.0.lock().expect("no holder panics") -= 2 * HOUR;
    block_on(db.insert_with_ttl(2, 2, HOUR)).expect("an insert commits");
    assert_eq!(db.get(&2).expect("a read succeeds").as_deref(), Some(&2));
}

#[test]
fn timers_count_without_a_limit_too() {
    let db = block_on(Database::<u64, u64>::builder().build()).expect("it opens");
    (0..1_000).for_each(|key| block_on(db.insert(key, 0)).expect("an insert commits"));
    let lasting = db.memory_info().index_bytes;
    (0..1_000).for_each(|key| block_on(db.insert_with_ttl(key, 0, HOUR)).expect("an insert commits"));
    assert!(db.memory_info().index_bytes > lasting);
}

#[test]
fn what_is_let_expire_is_freed_with_nobody_touching_the_database() {
    struct Dropped(std::sync::mpsc::Sender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    for round in 0..20 {
        let (drops, dropped) = channel();
        let db = block_on(Database::<u64, Dropped>::builder().build()).expect("it opens");
        block_on(db.insert_with_ttl(1, Dropped(drops), HOUR)).expect("an insert commits");
        block_on(db.expire_at(&1, SystemTime::now())).expect("a change commits");
        assert_eq!(dropped.recv_timeout(PATIENCE), Ok(()), "round {round}");
    }
}

#[test]
fn removing_what_has_expired_changes_nothing_for_who_found_it_absent() {
    let dial = dial();
    let db = block_on(Database::<u64, u64>::builder().time_source(dial.clone()).build()).expect("it opens");
    block_on(db.insert_with_ttl(1, 1, HOUR)).expect("an insert commits");
    *dial.0.lock().expect("no holder panics") += HOUR;
    let tx = db.begin();
    assert!(tx.get(&1).expect("a read succeeds").is_none());
    block_on(db.vacuum()).expect("vacuum succeeds");
    tx.insert(2, 2).expect("a write is buffered");
    block_on(tx.commit()).expect("it was absent, and is");
}

fn durable(
    disk: &SimDisk,
    limit: Option<(u64, EvictionPolicy)>,
    told: impl Fn(u64, usize, EvictionCause) + Send + Sync + 'static,
) -> Db {
    let options = PersistenceOptions { wal_segment_size_bytes: 64 << 10, ..PersistenceOptions::new("db") };
    let builder = match limit {
        Some((limit, policy)) => limited(policy, limit),
        None => Db::builder(),
    };
    let builder = builder.on_evict(move |key, value, cause| told(key, value.len(), cause));
    block_on(builder.durability_full(options).disk(Arc::new(disk.clone())).build()).expect("it opens")
}

#[test]
fn reopening_with_the_same_limit_evicts_nothing() {
    let mut wrong = Vec::new();
    for policy in EVICTING {
        for checkpoints in [false, true] {
            let disk = SimDisk::new(1);
            let db = durable(&disk, Some((LIMIT, policy)), |_, _, _| ());
            for key in 0..1_000 {
                put(&db, key, 100).expect("room is made");
                if checkpoints && key == 700 {
                    block_on(db.checkpoint()).expect("a checkpoint is written");
                }
            }
            // Flush first: the last evictions may not be stable yet, and `count` would still see
            // the keys.
            block_on(db.flush()).expect("it syncs");
            let before = db.count(..).expect("a count succeeds");
            block_on(db.close()).expect("it closes");
            let db = durable(&disk, Some((LIMIT, policy)), |_, _, _| ());
            let after = db.count(..).expect("a count succeeds");
            if before != after {
                wrong.push((policy, checkpoints, before, after));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn opening_tells_only_of_what_was_there() {
    let disk = SimDisk::new(2);
    let db = durable(&disk, None, |_, _, _| ());
    (0..300).try_for_each(|key| put(&db, key, 100)).expect("there is no limit");
    block_on(db.checkpoint()).expect("a checkpoint is written");
    for key in 0..300 {
        match key % 3 {
            0 => drop(block_on(db.remove(&key)).expect("a remove commits")),
            _ => put(&db, key, 120).expect("there is no limit"),
        }
    }
    block_on(db.close()).expect("it closes");
    let (sender, told) = channel();
    let db = durable(&disk, Some((LIMIT / 2, EvictionPolicy::Lru)), move |key, length, _| {
        sender.send((key, length)).expect("the test listens")
    });
    let told: Vec<(u64, usize)> = told.try_iter().collect();
    let (removed, stale) = (
        told.iter().filter(|(key, _)| key % 3 == 0).count(),
        told.iter().filter(|(key, length)| key % 3 != 0 && *length == 100).count(),
    );
    let there = told.iter().filter(|(key, _)| db.contains_key(key).expect("a read succeeds")).count();
    assert_eq!(
        (removed, stale, there),
        (0, 0, 0),
        "removed before, old values, still there; of {} told",
        told.len()
    );
}

#[test]
fn what_fits_is_there_again_with_the_same_limit() {
    let mut wrong = Vec::new();
    for policy in EVICTING {
        let disk = SimDisk::new(1);
        let db = durable(&disk, Some((LIMIT, policy)), |_, _, _| ());
        (1_000..1_210).try_for_each(|key| put(&db, key, 100)).expect("there is room");
        block_on(db.checkpoint()).expect("a checkpoint is written");
        (1_000..1_210).for_each(|key| drop(block_on(db.remove(&key)).expect("a remove commits")));
        (0..210).try_for_each(|key| put(&db, key, 100)).expect("there is room");
        assert_eq!((db.memory_info().evictions.capacity, db.count(..).expect("a count succeeds")), (0, 210));
        block_on(db.close()).expect("it closes");
        let db = durable(&disk, Some((LIMIT, policy)), |_, _, _| ());
        let there = db.count(..).expect("a count succeeds");
        if there != 210 || db.memory_info().evictions.capacity > 0 {
            wrong.push((policy, there, db.memory_info().evictions));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn later(dial: &Dial, by: Duration) {
    *dial.0.lock().expect("no panic") += by;
}

#[test]
fn what_has_expired_goes_before_what_is_there() {
    // Leave out `Ttl`, under which all keys expire.
    for policy in EVICTING.into_iter().filter(|policy| *policy != EvictionPolicy::Ttl) {
        let dial = dial();
        let builder = limited(policy, LIMIT).time_source(dial.clone());
        let db = block_on(builder.build()).expect("it opens");
        (0..60).for_each(|key| put(&db, key, 100).expect("there is room"));
        for key in 100..250 {
            block_on(db.insert_with_ttl(key, vec![0; 100], HOUR)).expect("there is room");
        }
        assert_eq!(db.memory_info().evictions.capacity, 0, "{policy:?}");
        later(&dial, HOUR);
        put(&db, 1_000, 30_000).expect("room is made");
        assert_eq!(db.count(..).expect("a count succeeds"), 61, "{policy:?}: {:?}", db.memory_info());
    }
}

#[test]
fn what_has_expired_is_no_reason_to_refuse() {
    let dial = dial();
    let source = Arc::clone(&dial);
    let builder = Db::builder().max_memory(LIMIT).eviction_policy(EvictionPolicy::Manual);
    let db = block_on(builder.time_source(source).build()).expect("it opens");
    let mut key = 0;
    while block_on(db.insert_with_ttl(key, vec![0; 100], HOUR)).is_ok() {
        key += 1;
    }
    assert!(matches!(put(&db, 1_000_000, 100), Err(FluxError::MemoryLimitExceeded)));
    later(&dial, HOUR);
    put(&db, 1_000_000, 100).expect("all others have expired");
}

#[test]
fn what_was_removed_for_a_write_that_is_refused_is_told_of() {
    let dial = dial();
    let (sender, told) = channel();
    let builder = Db::builder().max_memory(LIMIT).eviction_policy(EvictionPolicy::Manual);
    let builder = builder.time_source(dial.clone()).on_evict(move |key, _, cause| {
        sender.send((key, cause)).expect("the test listens");
    });
    let db = block_on(builder.build()).expect("it opens");
    put(&db, 1, 60_000).expect("there is room");
    block_on(db.insert_with_ttl(2, vec![0; 10], HOUR)).expect("there is room");
    later(&dial, HOUR);
    assert!(matches!(put(&db, 3, 50_000), Err(FluxError::MemoryLimitExceeded)));
    assert_eq!(told.try_recv(), Ok((2, EvictionCause::Expired)));
}

#[test]
fn a_refused_transaction_leaves_nothing_to_be_freed() {
    for policy in [EvictionPolicy::Lru, EvictionPolicy::Manual] {
        let db = open_limited(policy);
        (0..50).for_each(|key| put(&db, key, 100).expect("there is room"));
        let before = db.memory_info();
        let tx = db.begin();
        (1_000..3_000).for_each(|key| tx.insert(key, vec![0; 10]).expect("a write is buffered"));
        assert!(block_on(tx.commit()).is_err(), "{policy:?}");
        let after = db.memory_info();
        assert_eq!((after.keys, after.live_bytes), (before.keys, before.live_bytes), "{policy:?}");
        assert!(after.old_version_bytes < LIMIT / 4, "{policy:?}: {after:?}");
    }
}

#[test]
fn a_handle_reports_that_its_transaction_has_ended_from_ranges_too() {
    let builder = Db::builder().max_snapshot_age(Duration::from_millis(20));
    let db = block_on(builder.build()).expect("it opens");
    (0..1_000).for_each(|key| put(&db, key, 1).expect("it commits"));
    let mut handle = db.handle();
    handle.begin().expect("none is open");
    let since = std::time::Instant::now();
    while handle.get(&1).is_ok() {
        assert!(since.elapsed() < PATIENCE, "it was not ended");
        std::thread::yield_now();
    }
    assert!(matches!(handle.range(&0, &999), Err(FluxError::SnapshotTooOld { .. })));
}

/// A time source that, the first time it is asked, renews a key and then moves the time past the
/// key's first expiry.
struct Renewing(Mutex<Option<Db>>, Dial);

impl TimeSource for Renewing {
    fn now(&self) -> SystemTime {
        let renewed = self.0.lock().expect("no panic").take();
        if let Some(db) = renewed {
            block_on(db.insert_with_ttl(1, vec![2], 10 * HOUR)).expect("it commits");
            later(&self.1, 2 * HOUR);
        }
        self.1.now()
    }
}

#[test]
fn a_key_that_is_renewed_in_time_is_never_absent() {
    let source = Arc::new(Renewing(Mutex::new(None), Dial(Mutex::new(UNIX_EPOCH + HOUR))));
    let builder = Db::builder().time_source(Arc::clone(&source) as Arc<dyn TimeSource>);
    let db = block_on(builder.build()).expect("it opens");
    block_on(db.insert_with_ttl(1, vec![1], HOUR)).expect("it commits");
    *source.0.lock().expect("no panic") = Some(db.clone());
    let read = db.get(&1).expect("a read");
    assert!(read.is_some(), "one value or the other was there all the time");
}

/// A user's session. Its hash depends on the user alone, so that all sessions of a user share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Session(u64, u64);

impl std::hash::Hash for Session {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

#[test]
fn keys_with_one_hash_that_expire_together_are_all_removed() {
    let dial = dial();
    let builder = Database::<Session, u64>::builder().time_source(Arc::clone(&dial) as Arc<dyn TimeSource>);
    let db = block_on(builder.build()).expect("it opens");
    for n in 0..10 {
        block_on(db.insert_with_ttl(Session(1, n), n, HOUR)).expect("it commits");
    }
    block_on(db.remove(&Session(1, 3))).expect("it commits");
    block_on(db.persist(&Session(1, 4))).expect("it commits");
    later(&dial, HOUR);
    block_on(db.vacuum()).expect("vacuum succeeds");
    let info = db.memory_info();
    assert_eq!((info.keys, info.evictions.expired), (1, 8), "{info:?}");
}
