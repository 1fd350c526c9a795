//! Keys that expire: a reader that begins at the instant of expiry or later does not see them, a
//! reader that began before sees them as long as it lives, and they leave memory soon (defect 22 of
//! the list: keys could be read long after their time). Time is injected, so nothing sleeps.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::common::{DoneOnDrop, assert_nothing_pinned, commit};
use fluxmap::codec::Codec;
use fluxmap::mem::{EvictionCause, EvictionPolicy, TimeSource};
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, DatabaseBuilder, FluxError, IsolationLevel, Transaction};
use fluxmap_testkit::disk::{Loss, SimDisk};
use futures::executor::block_on;
use futures::{StreamExt, TryStreamExt};

type Db = Database<String, u64>;
type Builder = DatabaseBuilder<String, u64>;

/// A bound for a test that fails, far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const TICK: Duration = Duration::from_millis(1);

/// A clock that a test sets.
#[derive(Clone)]
struct Dial(Arc<Mutex<SystemTime>>);

impl TimeSource for Dial {
    fn now(&self) -> SystemTime {
        *self.0.lock().expect("no holder panics")
    }
}

impl Dial {
    fn new() -> Self {
        Dial(Arc::new(Mutex::new(UNIX_EPOCH + 500_000 * HOUR)))
    }

    fn forward(&self, by: Duration) {
        *self.0.lock().expect("no holder panics") += by;
    }

    fn back(&self, by: Duration) {
        *self.0.lock().expect("no holder panics") -= by;
    }

    /// The clock in the form that a database takes.
    fn source(&self) -> Arc<dyn TimeSource> {
        Arc::new(self.clone())
    }
}

fn open(builder: Builder, dial: &Dial) -> Db {
    block_on(builder.time_source(dial.source()).build()).expect("the database opens")
}

/// A database in memory, and its clock.
fn fresh() -> (Db, Dial) {
    let dial = Dial::new();
    (open(Db::builder(), &dial), dial)
}

/// Options with small segments, because a simulated disk is kept in memory.
fn options(path: &str) -> PersistenceOptions {
    PersistenceOptions { wal_segment_size_bytes: 64 << 10, ..PersistenceOptions::new(path) }
}

fn put(db: &Db, key: &str, value: u64) {
    block_on(db.insert(key.into(), value)).expect("an insert commits");
}

fn put_for(db: &Db, key: &str, life: Duration) {
    block_on(db.insert_with_ttl(key.into(), 1, life)).expect("an insert commits");
}

fn get(db: &Db, key: &str) -> Option<u64> {
    db.get(key).expect("a read succeeds").map(|value| *value)
}

fn ttl(db: &Db, key: &str) -> Option<Duration> {
    db.ttl(key).expect("a read succeeds")
}

fn vacuum(db: &Db) {
    block_on(db.vacuum()).expect("vacuum succeeds");
}

fn keys(db: &Db) -> Vec<String> {
    // Time stands still for readers while a thread holds the commit lock, as the background thread
    // may. `memory_info` takes the lock, so it waits for that to end.
    let _ = db.memory_info();
    db.snapshot().range(..).map(|(key, _)| key).collect()
}

/// All keys that are visible, by each way to find that out.
fn found(db: &Db, all: &[&str]) -> Vec<(&'static str, Vec<String>)> {
    fn name((key, _): (String, Arc<u64>)) -> String {
        key
    }
    fn names<T>(found: Result<Vec<T>, FluxError>, name: impl Fn(T) -> String) -> Vec<String> {
        found.expect("a stream succeeds").into_iter().map(name).collect()
    }
    let filter = |is_there: &dyn Fn(&str) -> bool| -> Vec<String> {
        all.iter().filter(|key| is_there(key)).map(|key| key.to_string()).collect()
    };
    let reversed = |mut found: Vec<String>| {
        found.reverse();
        found
    };
    let succeeds = "a read succeeds";
    let (view, tx, handle) = (db.snapshot(), db.begin(), db.handle());
    let (low, high) = (String::new(), "~".to_string());
    vec![
        ("get", filter(&|key| db.get(key).expect(succeeds).is_some())),
        ("get_with", filter(&|key| db.get_with(key, |_| ()).expect(succeeds).is_some())),
        ("contains_key", filter(&|key| db.contains_key(key).expect(succeeds))),
        ("count", filter(&|key| db.count(key..=key).expect(succeeds) == 1)),
        ("snapshot get", filter(&|key| view.get(key).expect(succeeds).is_some())),
        ("snapshot contains_key", filter(&|key| view.contains_key(key).expect(succeeds))),
        ("snapshot range", view.range(..).map(name).collect()),
        ("snapshot range backwards", reversed(view.range(..).rev().map(name).collect())),
        ("snapshot prefix", filter(&|key| view.prefix(key).count() == 1)),
        ("snapshot count", filter(&|key| view.count(key..=key).expect(succeeds) == 1)),
        ("snapshot stream", names(block_on(view.range_stream(..).try_collect()), name)),
        ("snapshot prefix stream", names(block_on(view.prefix_scan_stream("").try_collect()), name)),
        ("transaction get", filter(&|key| tx.get(key).expect(succeeds).is_some())),
        ("transaction contains_key", filter(&|key| tx.contains_key(key).expect(succeeds))),
        ("transaction range", tx.range(..).expect(succeeds).map(name).collect()),
        ("transaction prefix", filter(&|key| tx.prefix(key).expect(succeeds).count() == 1)),
        ("transaction count", filter(&|key| tx.count(key..=key).expect(succeeds) == 1)),
        ("transaction stream", names(block_on(tx.range_stream(..).try_collect()), name)),
        ("handle get", filter(&|key| handle.get(key).expect(succeeds).is_some())),
        ("handle range", names(handle.range(&low, &high), name)),
        ("handle prefix", names(handle.prefix_scan(""), name)),
        ("scan_metadata", names(block_on(db.scan_metadata().try_collect()), |known| known.key)),
    ]
}

#[track_caller]
fn assert_found(db: &Db, all: &[&str], expected: &[&str]) {
    for (how, found) in found(db, all) {
        assert_eq!(found, expected, "{how}");
    }
    let ends = |pair: Option<(String, Arc<u64>)>| pair.map(|(key, _)| key);
    let expected = [expected.first(), expected.last()].map(|key| key.map(|key| key.to_string()));
    let (view, tx) = (db.snapshot(), db.begin());
    for (how, first, last) in [
        ("database", db.first(), db.last()),
        ("snapshot", view.first(), view.last()),
        ("transaction", tx.first(), tx.last()),
    ] {
        assert_eq!([first, last].map(|end| ends(end.expect("a read succeeds"))), expected, "{how}");
    }
}

#[test]
fn at_its_instant_a_key_is_gone_from_everything() {
    const ALL: [&str; 5] = ["a", "b", "m", "y", "z"];
    let (db, dial) = fresh();
    put(&db, "m", 1);
    for key in ["a", "y"] {
        put_for(&db, key, MINUTE);
    }
    for key in ["b", "z"] {
        put_for(&db, key, 2 * MINUTE);
    }
    dial.forward(MINUTE - TICK);
    assert_found(&db, &ALL, &ALL);
    assert_eq!(ttl(&db, "a"), Some(TICK));
    dial.forward(TICK);
    assert_found(&db, &ALL, &["b", "m", "z"]);
    assert_eq!(ttl(&db, "a"), None);
    dial.forward(MINUTE);
    assert_found(&db, &ALL, &["m"]);
    vacuum(&db);
    assert_found(&db, &ALL, &["m"]);
    assert_eq!(db.memory_info().evictions.expired, 4);
}

#[test]
fn what_has_expired_is_absent_to_whoever_would_change_it() {
    let (db, dial) = fresh();
    for key in ["remove", "update", "swap", "make", "evict", "expire", "persist"] {
        put_for(&db, key, MINUTE);
    }
    dial.forward(MINUTE);
    assert_eq!(block_on(db.remove("remove")).expect("a remove commits"), None);
    assert_eq!(block_on(db.update("update", |n| n + 1)).expect("an update commits"), None);
    assert!(!block_on(db.compare_and_swap("swap".into(), Some(&1), Some(2))).expect("a swap commits"));
    assert!(block_on(db.compare_and_swap("swap".into(), None, Some(3))).expect("a swap commits"));
    assert_eq!(*block_on(db.get_or_insert_with("make".into(), || 4)).expect("an insert commits"), 4);
    assert!(!block_on(db.evict("evict")).expect("an eviction succeeds"));
    assert!(!block_on(db.expire_at("expire", dial.now() + HOUR)).expect("nothing to change"));
    assert!(!block_on(db.persist("persist")).expect("nothing to change"));
    dial.forward(HOUR);
    vacuum(&db);
    assert_eq!(keys(&db), ["make", "swap"]);
}

#[test]
fn the_surfaces_all_let_keys_expire() {
    type Check = fn(&Db, SystemTime);
    let surfaces: [(&str, Check); 4] = [
        ("database", |db, now| {
            put_for(db, "k", MINUTE);
            assert_eq!(ttl(db, "k"), Some(MINUTE));
            assert!(block_on(db.persist("k")).expect("a change commits"));
            assert!(!block_on(db.persist("k")).expect("a change commits"), "it was not going to expire");
            assert_eq!(ttl(db, "k"), None);
            assert!(block_on(db.expire_at("k", now + MINUTE)).expect("a change commits"));
            assert!(!block_on(db.expire_at("other", now + MINUTE)).expect("nothing to change"));
        }),
        ("transaction", |db, now| {
            let tx = db.begin();
            tx.insert_with_ttl("k".into(), 1, MINUTE).expect("a write is buffered");
            assert_eq!(tx.ttl("k").expect("a read succeeds"), Some(MINUTE));
            assert!(tx.persist("k").expect("a write is buffered"));
            assert!(!tx.persist("k").expect("a write is buffered"));
            assert_eq!(tx.ttl("k").expect("a read succeeds"), None);
            assert!(tx.expire_at("k", now + MINUTE).expect("a write is buffered"));
            assert!(!tx.expire_at("other", now + MINUTE).expect("nothing to change"));
            assert_eq!(ttl(db, "k"), None);
            commit(tx).expect("no other transaction writes");
        }),
        ("handle", |db, now| {
            let handle = db.handle();
            block_on(handle.insert_with_ttl("k".into(), 1, MINUTE)).expect("an insert commits");
            assert_eq!(handle.ttl("k").expect("a read succeeds"), Some(MINUTE));
            assert!(block_on(handle.persist("k")).expect("a change commits"));
            assert_eq!(handle.ttl("k").expect("a read succeeds"), None);
            assert!(block_on(handle.expire_at("k", now + MINUTE)).expect("a change commits"));
        }),
        ("handle in a transaction", |db, now| {
            let mut handle = db.handle();
            handle.begin().expect("it is in none");
            block_on(handle.insert_with_ttl("k".into(), 1, HOUR)).expect("a write is buffered");
            assert!(block_on(handle.persist("k")).expect("a write is buffered"));
            assert!(block_on(handle.expire_at("k", now + MINUTE)).expect("a write is buffered"));
            assert_eq!(handle.ttl("k").expect("a read succeeds"), Some(MINUTE));
            assert_eq!(get(db, "k"), None);
            block_on(handle.commit()).expect("no other transaction writes");
        }),
    ];
    for (surface, check) in surfaces {
        let (db, dial) = fresh();
        check(&db, dial.now());
        assert_eq!(ttl(&db, "k"), Some(MINUTE), "{surface}");
        dial.forward(MINUTE - TICK);
        assert_eq!(get(&db, "k"), Some(1), "{surface}");
        dial.forward(TICK);
        assert_eq!(get(&db, "k"), None, "{surface}");
    }
}

#[test]
fn whoever_began_before_goes_on_seeing_what_has_expired() {
    let (db, dial) = fresh();
    put_for(&db, "a", MINUTE);
    put(&db, "b", 2);
    let (view, tx) = (db.snapshot(), db.begin());
    let mut stream = view.range_stream(..);
    dial.forward(2 * MINUTE);
    for _ in 0..2 {
        assert_eq!(view.get("a").expect("a read succeeds").as_deref(), Some(&1));
        assert_eq!(tx.get("a").expect("a read succeeds").as_deref(), Some(&1));
        assert_eq!((view.range(..).count(), view.count(..).expect("a count succeeds")), (2, 2));
        assert_eq!(tx.range(..).expect("a range succeeds").count(), 2);
        assert!(tx.ttl("a").expect("a read succeeds").is_some());
        assert_eq!(keys(&db), ["b"]);
        // In the second round the key has been removed by a commit of its own.
        vacuum(&db);
    }
    assert_eq!(db.memory_info().evictions.expired, 1);
    put(&db, "a", 7);
    assert_eq!(view.get("a").expect("a read succeeds").as_deref(), Some(&1));
    let first = block_on(stream.next()).expect("there are two").expect("a stream succeeds");
    assert_eq!(first.0, "a");
    commit(tx).expect("a transaction that only reads never conflicts");
    drop((view, stream));
    assert_nothing_pinned(&db);
    vacuum(&db);
    assert_eq!(db.memory_info().versions, 2);
}

#[test]
fn a_transaction_conflicts_with_the_expiry_of_what_it_has_read() {
    type Read = fn(&Transaction<String, u64>);
    let reads: [(&str, Read); 4] = [
        ("get", |tx| assert!(tx.get("k").expect("a read succeeds").is_some())),
        ("contains_key", |tx| assert!(tx.contains_key("k").expect("a read succeeds"))),
        ("range", |tx| assert_eq!(tx.range(..).expect("a range succeeds").count(), 1)),
        ("ttl", |tx| assert!(tx.ttl("k").expect("a read succeeds").is_some())),
    ];
    for level in crate::common::LEVELS {
        for (how, read) in reads {
            for is_reaped in [false, true] {
                let dial = Dial::new();
                let db = open(Db::builder().isolation_level(level), &dial);
                put_for(&db, "k", MINUTE);
                let (too_late, in_time) = (db.begin(), db.begin());
                for tx in [&too_late, &in_time] {
                    read(tx);
                    tx.insert("own".into(), 1).expect("a write is buffered");
                }
                // One tick before the expiry a serializable commit is still allowed.
                dial.forward(MINUTE - TICK);
                if level == IsolationLevel::Serializable {
                    in_time.remove("own").expect("a write is buffered");
                    in_time.insert("other".into(), 1).expect("a write is buffered");
                    commit(in_time).expect("it has not expired yet");
                } else {
                    in_time.rollback();
                }
                dial.forward(TICK);
                if is_reaped {
                    vacuum(&db);
                }
                // After the expiry it is refused, whether the key has left memory or not.
                let is_serializable = level == IsolationLevel::Serializable;
                match commit(too_late) {
                    Err(FluxError::SerializationConflict) if is_serializable => {}
                    Ok(()) if !is_serializable => {}
                    other => panic!("{level:?}, {how}, {is_reaped}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_transaction_that_found_it_expired_commits() {
    let (db, dial) = fresh();
    put_for(&db, "k", MINUTE);
    dial.forward(MINUTE);
    let tx = db.begin();
    assert!(tx.get("k").expect("a read succeeds").is_none());
    tx.insert("k".into(), 2).expect("a write is buffered");
    dial.forward(HOUR);
    commit(tx).expect("nothing has changed since");
    vacuum(&db);
    assert_eq!(get(&db, "k"), Some(2));
}

#[test]
fn transact_runs_again_when_what_it_read_expires() {
    let (db, dial) = fresh();
    put_for(&db, "k", MINUTE);
    let seen = block_on(db.transact(async |tx| {
        let seen = tx.get("k")?.is_some();
        tx.insert("seen".into(), u64::from(seen))?;
        dial.forward(MINUTE);
        Ok::<_, FluxError>(seen)
    }));
    assert!(!seen.expect("the second attempt commits"));
    assert_eq!(get(&db, "seen"), Some(0));
}

#[test]
fn an_update_keeps_the_expiry_and_an_insert_clears_it() {
    let (db, dial) = fresh();
    for key in ["inserted", "updated", "in transactions"] {
        put_for(&db, key, MINUTE);
    }
    dial.forward(MINUTE / 2);
    put(&db, "inserted", 2);
    assert_eq!(block_on(db.update("updated", |n| n + 1)).expect("an update commits").as_deref(), Some(&2));
    block_on(db.transact(async |tx| tx.update("in transactions", |n| n + 1))).expect("an update commits");
    assert_eq!(ttl(&db, "inserted"), None);
    assert_eq!(ttl(&db, "updated"), Some(MINUTE / 2));
    assert_eq!(ttl(&db, "in transactions"), Some(MINUTE / 2));
    dial.forward(MINUTE / 2);
    assert_eq!(keys(&db), ["inserted"]);
    dial.forward(HOUR);
    vacuum(&db);
    assert_eq!(keys(&db), ["inserted"], "the timer went with the value");
}

/// Every operation that swaps one value for another without stating an expiry.
#[test]
fn a_swap_keeps_the_expiry_and_gives_none_to_what_is_new() {
    type Swap = fn(&Db, &str, Option<&u64>, Option<u64>) -> Result<bool, FluxError>;
    let ways: [(&str, Swap); 4] = [
        ("one step", |db, key, expected, new| block_on(db.compare_and_swap(key.into(), expected, new))),
        ("transact", |db, key, expected, new| {
            block_on(db.transact(async |tx| tx.compare_and_swap(key.into(), expected, new)))
        }),
        ("handle", |db, key, expected, new| {
            block_on(db.handle().compare_and_swap(key.into(), expected, new))
        }),
        ("handle in a transaction", |db, key, expected, new| {
            let mut handle = db.handle();
            handle.begin()?;
            let swapped = block_on(handle.compare_and_swap(key.into(), expected, new))?;
            block_on(handle.commit())?;
            Ok(swapped)
        }),
    ];
    for (how, swap) in ways {
        let (db, dial) = fresh();
        put_for(&db, "session", MINUTE);
        let held = get(&db, "session");
        dial.forward(MINUTE / 2);
        assert!(swap(&db, "session", held.as_ref(), Some(7)).expect("it commits"), "{how}");
        assert!(!swap(&db, "session", Some(&8), Some(9)).expect("it commits"), "{how}");
        assert!(swap(&db, "new", None, Some(1)).expect("it commits"), "{how}");
        assert_eq!((get(&db, "session"), ttl(&db, "session")), (Some(7), Some(MINUTE / 2)), "{how}");
        assert_eq!(ttl(&db, "new"), None, "{how}");
        dial.forward(MINUTE / 2);
        // The background thread may hold the lock under which time moves. The vacuum waits for that
        // lock.
        vacuum(&db);
        assert_eq!(keys(&db), ["new"], "{how}");
        assert!(swap(&db, "session", None, Some(2)).expect("it commits"), "{how}");
        assert_eq!(ttl(&db, "session"), None, "{how}: the one before had gone");
        assert!(swap(&db, "new", Some(&1), None).expect("it commits"), "{how}");
        assert_eq!(keys(&db), ["session"], "{how}");
    }
}

#[test]
fn a_new_life_counts_from_the_last_write() {
    let (db, dial) = fresh();
    put_for(&db, "longer", MINUTE);
    put_for(&db, "shorter", HOUR);
    dial.forward(MINUTE / 2);
    put_for(&db, "longer", MINUTE);
    put_for(&db, "shorter", MINUTE / 2);
    dial.forward(MINUTE / 2);
    vacuum(&db);
    assert_eq!(keys(&db), ["longer"]);
    dial.forward(MINUTE / 2);
    vacuum(&db);
    assert!(keys(&db).is_empty());
}

#[test]
fn own_writes_whose_time_is_over_are_absent_in_their_own_transaction() {
    for has_expiring_keys in [false, true] {
        let (db, dial) = fresh();
        if has_expiring_keys {
            put_for(&db, "other", TICK);
            dial.forward(HOUR);
        }
        put(&db, "hidden", 1);
        put(&db, "kept", 1);
        let tx = db.begin();
        assert!(tx.expire_at("hidden", dial.now() - MINUTE).expect("a write is buffered"));
        tx.insert("past".into(), 1).expect("a write is buffered");
        assert!(tx.expire_at("past", UNIX_EPOCH).expect("a write is buffered"));
        tx.insert_with_ttl("at once".into(), 1, Duration::ZERO).expect("a write is buffered");
        tx.insert_with_ttl("later".into(), 1, MINUTE).expect("a write is buffered");
        for key in ["hidden", "past", "at once"] {
            assert!(tx.get(key).expect("a read succeeds").is_none(), "{key}");
            assert!(!tx.contains_key(key).expect("a read succeeds"), "{key}");
            assert!(tx.ttl(key).expect("a read succeeds").is_none(), "{key}");
            assert!(tx.update(key, |n| n + 1).expect("nothing to change").is_none(), "{key}");
            assert!(tx.remove(key).expect("nothing to remove").is_none(), "{key}");
        }
        let names =
            |found: Vec<(String, Arc<u64>)>| found.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(names(tx.range(..).expect("a range succeeds").collect()), ["kept", "later"]);
        assert_eq!(names(tx.range(..).expect("a range succeeds").rev().collect()), ["later", "kept"]);
        assert_eq!(tx.count(..).expect("a count succeeds"), 2);
        assert_eq!(tx.first().expect("a read succeeds").map(|(key, _)| key).as_deref(), Some("kept"));
        commit(tx).expect("no other transaction writes");
        for _ in 0..2 {
            assert_eq!(keys(&db), ["kept", "later"], "nothing older comes back");
            vacuum(&db);
        }
    }
}

#[test]
fn zero_and_endless_lives() {
    let (db, dial) = fresh();
    put(&db, "none", 1);
    put_for(&db, "none", Duration::ZERO);
    put_for(&db, "tiny", Duration::from_nanos(1));
    put_for(&db, "endless", Duration::MAX);
    put_for(&db, "long", 500_000 * HOUR);
    assert_eq!(keys(&db), ["endless", "long", "tiny"], "a life is rounded up");
    dial.forward(TICK);
    assert_eq!(keys(&db), ["endless", "long"]);
    assert!(ttl(&db, "endless").is_some_and(|left| left > 1_000_000 * HOUR));
    put(&db, "early", 1);
    assert!(block_on(db.expire_at("early", UNIX_EPOCH - HOUR)).expect("a change commits"));
    dial.forward(400_000 * HOUR);
    vacuum(&db);
    assert_eq!(keys(&db), ["endless", "long"]);
    dial.forward(100_000 * HOUR);
    assert_eq!(keys(&db), ["endless"]);
}

#[test]
fn what_persists_stays_after_its_time() {
    let (db, dial) = fresh();
    put_for(&db, "k", MINUTE);
    assert!(block_on(db.persist("k")).expect("a change commits"));
    dial.forward(HOUR);
    vacuum(&db);
    assert_eq!((get(&db, "k"), ttl(&db, "k")), (Some(1), None));
    assert_eq!(db.memory_info().evictions.expired, 0);
}

#[test]
fn nothing_that_has_expired_comes_back_when_the_clock_is_set_back() {
    let (db, dial) = fresh();
    put_for(&db, "gone", MINUTE);
    put_for(&db, "there", HOUR);
    dial.forward(MINUTE);
    assert_eq!(keys(&db), ["there"]);
    dial.back(30 * MINUTE);
    for _ in 0..2 {
        assert_found(&db, &["gone", "there"], &["there"]);
        vacuum(&db);
    }
    dial.forward(30 * MINUTE + HOUR);
    assert!(keys(&db).is_empty());
}

#[test]
fn a_clock_that_was_set_back_while_a_database_was_closed_makes_no_key_live_longer() {
    let (disk, dial) = (SimDisk::new(9), Dial::new());
    let open = || {
        let builder = Db::builder().durability_full(options("db")).disk(Arc::new(disk.clone()));
        block_on(builder.time_source(dial.source()).build()).expect("the database opens")
    };
    let db = open();
    put_for(&db, "short", MINUTE);
    put_for(&db, "long", 2 * HOUR);
    dial.forward(HOUR);
    assert_eq!(keys(&db), ["long"]);
    block_on(db.checkpoint()).expect("a checkpoint is written");
    block_on(db.close()).expect("the database closes");
    dial.back(10 * HOUR);
    let db = open();
    assert_eq!(keys(&db), ["long"]);
    assert_eq!(ttl(&db, "long"), Some(HOUR));
    put_for(&db, "new", MINUTE);
    assert_eq!(ttl(&db, "new"), Some(MINUTE));
    // A copy continues from the same time.
    block_on(db.backup_to("copy", |_| ())).expect("a backup is written");
    block_on(db.close()).expect("the database closes");
    let builder = Db::builder().durability_full(options("copy")).disk(Arc::new(disk.clone()));
    let copy = block_on(builder.time_source(dial.source()).build()).expect("the copy opens");
    assert_eq!(ttl(&copy, "long"), Some(HOUR));
    dial.forward(10 * HOUR + MINUTE);
    assert_eq!(keys(&copy), ["long"]);
}

#[test]
fn reads_repeat_while_keys_expire_and_are_removed() {
    const KEYS: u64 = 400;
    let (db, dial) = fresh();
    for key in 0..KEYS {
        put_for(&db, &format!("{key:03}"), TICK * (key + 1) as u32);
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ends = DoneOnDrop(&done);
        let readers = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut least = KEYS as usize;
                while !done.load(Ordering::Relaxed) {
                    let view = db.snapshot();
                    let seen: Vec<String> = view.range(..).map(|(key, _)| key).collect();
                    // Keys only expire here, so a later view never shows more of them.
                    assert!(seen.len() <= least, "a key that had expired is seen again");
                    least = seen.len();
                    assert_eq!(view.count(..).expect("a count succeeds"), seen.len());
                    assert_eq!(
                        view.first().expect("a read succeeds").map(|(key, _)| key).as_ref(),
                        seen.first()
                    );
                    let first = seen.first().and_then(|key| view.get(key).expect("a read succeeds"));
                    assert_eq!(first.is_some(), !seen.is_empty());
                }
            })
        });
        for step in 1..=KEYS {
            dial.forward(TICK);
            if step % 8 == 0 {
                vacuum(&db);
                assert_eq!(db.count(..).expect("a count succeeds") as u64, KEYS - step);
            }
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().expect("reads repeat");
        }
    });
    assert_eq!(db.memory_info().evictions.expired, KEYS);
}

mod memory {
    use super::*;

    #[test]
    fn goes_with_a_vacuum() {
        for policy in [EvictionPolicy::Lru, EvictionPolicy::S3Fifo, EvictionPolicy::Manual] {
            let dial = Dial::new();
            let db = open(Db::builder().max_memory(1 << 20).eviction_policy(policy), &dial);
            let empty = db.memory_info();
            for key in 0..500 {
                put_for(&db, &format!("{key:03}"), MINUTE * (1 + key % 3));
            }
            dial.forward(2 * MINUTE);
            vacuum(&db);
            let some = db.memory_info();
            assert_eq!((some.keys, some.versions), (166, 166), "{policy:?}");
            dial.forward(MINUTE);
            vacuum(&db);
            let none = db.memory_info();
            assert_eq!((none.keys, none.versions, none.live_bytes), (0, 0, empty.live_bytes), "{policy:?}");
            assert_eq!((none.evictions.expired, none.evictions.capacity), (500, 0), "{policy:?}");
            assert!(none.live_bytes < some.live_bytes && none.index_bytes < some.index_bytes, "{policy:?}");
        }
    }

    #[test]
    fn of_many_keys_that_expire_together_all_goes_and_each_is_told_of_once() {
        const KEYS: u64 = 3_000;
        let dial = Dial::new();
        let (sender, told) = channel();
        let builder = Db::builder().on_evict(move |key, value, cause| {
            sender.send((key, *value, cause)).expect("the test listens");
        });
        let db = open(builder, &dial);
        let tx = db.begin();
        for key in 0..KEYS {
            tx.insert_with_ttl(format!("{key:04}"), key, MINUTE).expect("a write is buffered");
        }
        commit(tx).expect("no other transaction writes");
        put(&db, "lasting", 0);
        dial.forward(MINUTE);
        assert_eq!(keys(&db), ["lasting"]);
        vacuum(&db);
        // The background thread may remove some of the keys.
        let mut gone = BTreeSet::new();
        for (key, value, cause) in (0..KEYS).map_while(|_| told.recv_timeout(PATIENCE).ok()) {
            assert_eq!((key.parse(), cause), (Ok(value), EvictionCause::Expired));
            assert!(gone.insert(key));
        }
        assert_eq!(gone.len() as u64, KEYS);
        assert!(told.try_recv().is_err());
        vacuum(&db);
        assert_eq!(db.memory_info().keys, 1);
    }

    #[test]
    fn a_key_that_is_rewritten_again_and_again_has_one_timer() {
        let db = open(Db::builder().max_memory(1 << 20), &Dial::new());
        put(&db, "k", 1);
        let lasting = db.memory_info().index_bytes;
        put_for(&db, "k", HOUR);
        let before = db.memory_info().index_bytes;
        assert!(before > lasting, "a timer takes room");
        for round in 0..100_000 {
            put_for(&db, "k", HOUR + TICK * round);
        }
        assert_eq!(db.memory_info().index_bytes, before);
        assert!(block_on(db.persist("k")).expect("a change commits"));
        assert_eq!(db.memory_info().index_bytes, lasting);
    }

    /// A value that reports when it is dropped.
    struct Dropped(u64, Sender<u64>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            // The receiver may be gone at the end of a test.
            let _ = self.1.send(self.0);
        }
    }

    /// By the machine's clock, and with nothing touching the database, the listener hears of the
    /// expiry and the values are dropped.
    #[test]
    fn goes_by_itself_with_nobody_touching_the_database() {
        let ((sender, told), (drops, dropped)) = (channel(), channel());
        let builder = Database::<u64, Dropped>::builder().on_evict(move |key, value, cause| {
            assert_eq!((value.0, cause), (key, EvictionCause::Expired));
            sender.send(key).expect("the test listens");
        });
        let db = block_on(builder.build()).expect("the database opens");
        let value = |key| Dropped(key, drops.clone());
        block_on(db.insert_with_ttl(0, value(0), HOUR)).expect("an insert commits");
        // Each key expires before the time at which the thread would wake.
        for (key, life) in [(3, 60), (2, 30), (1, 1)] {
            let life = Duration::from_millis(life);
            block_on(db.insert_with_ttl(key, value(key), life)).expect("an insert commits");
        }
        let three = |from: &std::sync::mpsc::Receiver<u64>| {
            let mut keys: Vec<u64> = (0..3).map_while(|_| from.recv_timeout(PATIENCE).ok()).collect();
            keys.sort_unstable();
            keys
        };
        assert_eq!(three(&told), [1, 2, 3]);
        assert_eq!(three(&dropped), [1, 2, 3]);
        assert_eq!(db.count(..).expect("a count succeeds"), 1);
        assert!(block_on(db.expire_at(&0, SystemTime::now())).expect("a change commits"));
        assert_eq!(told.recv_timeout(PATIENCE), Ok(0));
    }
}

mod durable {
    use super::*;

    const CODECS: [Codec; 2] = [Codec::MessagePack, Codec::Postcard];

    fn open_at(path: &str, builder: Builder, disk: &SimDisk, dial: &Dial) -> Db {
        let builder = builder.durability_full(options(path));
        let builder = builder.disk(Arc::new(disk.clone())).time_source(dial.source());
        block_on(builder.build()).expect("the database opens")
    }

    fn reopen(db: Db, codec: Codec, disk: &SimDisk, dial: &Dial) -> Db {
        block_on(db.close()).expect("the database closes");
        open_at("db", Db::builder().codec(codec), disk, dial)
    }

    /// A database with keys of all kinds: a lasting one, one that expires after a minute, and so
    /// on.
    fn filled(codec: Codec, disk: &SimDisk, dial: &Dial) -> Db {
        let db = open_at("db", Db::builder().codec(codec), disk, dial);
        put(&db, "lasting", 1);
        put_for(&db, "minute", MINUTE);
        put_for(&db, "hour", HOUR);
        put_for(&db, "endless", Duration::MAX);
        put_for(&db, "persisted", MINUTE);
        assert!(block_on(db.persist("persisted")).expect("a change commits"));
        put(&db, "shortened", 1);
        assert!(block_on(db.expire_at("shortened", dial.now() + MINUTE)).expect("a change commits"));
        db
    }

    const ALL: [&str; 6] = ["endless", "hour", "lasting", "minute", "persisted", "shortened"];

    #[track_caller]
    fn assert_filled(db: &Db, passed: Duration) {
        assert_eq!(keys(db), ALL);
        assert_eq!(ttl(db, "hour"), Some(HOUR - passed));
        assert_eq!(ttl(db, "minute"), Some(MINUTE - passed));
        assert_eq!(ttl(db, "shortened"), Some(MINUTE - passed));
        assert_eq!((ttl(db, "lasting"), ttl(db, "persisted")), (None, None));
        assert!(ttl(db, "endless").is_some());
    }

    #[test]
    fn a_restart_keeps_what_is_left_of_each_life() {
        for codec in CODECS {
            let (disk, dial) = (SimDisk::new(1), Dial::new());
            let mut db = filled(codec, &disk, &dial);
            assert_filled(&db, Duration::ZERO);
            for restart in 1..=3 {
                dial.forward(MINUTE / 10);
                db = reopen(db, codec, &disk, &dial);
                assert_filled(&db, restart * MINUTE / 10);
                // From now on the keys come from a checkpoint.
                let checkpoint = block_on(db.checkpoint()).expect("a checkpoint is written");
                assert_eq!(checkpoint.pairs, 6);
            }
            dial.forward(MINUTE);
            assert_eq!(keys(&db), ["endless", "hour", "lasting", "persisted"], "{codec:?}");
        }
    }

    #[test]
    fn what_expired_while_closed_is_gone_for_good() {
        for codec in CODECS {
            for from_checkpoint in [false, true] {
                let (disk, dial) = (SimDisk::new(2), Dial::new());
                let db = filled(codec, &disk, &dial);
                if from_checkpoint {
                    block_on(db.checkpoint()).expect("a checkpoint is written");
                }
                block_on(db.close()).expect("the database closes");
                dial.forward(MINUTE);
                let db = open_at("db", Db::builder().codec(codec), &disk, &dial);
                let left = ["endless", "hour", "lasting", "persisted"];
                assert_found(&db, &ALL, &left);
                vacuum(&db);
                // A read may still need the versions below a removal that is not stable yet, so
                // flush before the next vacuum.
                block_on(db.flush()).expect("a flush succeeds");
                vacuum(&db);
                assert_eq!(db.memory_info().keys, 4, "{codec:?}, {from_checkpoint}");
                // The keys stay away even if the clock is set back, because their removal is in the
                // log.
                dial.back(MINUTE);
                let db = reopen(db, codec, &disk, &dial);
                assert_eq!(keys(&db), left, "{codec:?}, {from_checkpoint}");
            }
        }
    }

    #[test]
    fn a_power_loss_keeps_what_is_left_of_each_life() {
        for loss in [Loss::Everything, Loss::Nothing, Loss::Random(3)] {
            let (disk, dial) = (SimDisk::new(3), Dial::new());
            let db = filled(Codec::MessagePack, &disk, &dial);
            let left = disk.power_cut(loss);
            drop(db);
            assert_filled(&open_at("db", Db::builder(), &left, &dial), Duration::ZERO);
        }
    }

    #[test]
    fn a_backup_has_what_is_left_of_each_life() {
        for codec in CODECS {
            let (disk, dial) = (SimDisk::new(4), Dial::new());
            let db = filled(codec, &disk, &dial);
            block_on(db.backup_to("copy", |_| {})).expect("a backup is written");
            let copy = || open_at("copy", Db::builder().codec(codec), &disk, &dial);
            assert_filled(&copy(), Duration::ZERO);
            dial.forward(MINUTE);
            assert_eq!(keys(&copy()), ["endless", "hour", "lasting", "persisted"], "{codec:?}");
        }
    }
}

/// The policy under which every key has a time to live.
mod every_key {
    use super::*;

    fn builder() -> Builder {
        Db::builder().eviction_policy(EvictionPolicy::Ttl).eviction_ttl(MINUTE)
    }

    #[test]
    fn lives_from_when_it_was_last_written() {
        let dial = Dial::new();
        let db = open(builder(), &dial);
        put(&db, "written", 1);
        put(&db, "inserted", 1);
        put(&db, "updated", 1);
        put(&db, "in a transaction", 1);
        put_for(&db, "with its own life", HOUR);
        dial.forward(MINUTE / 2);
        put(&db, "inserted", 2);
        block_on(db.transact(async |tx| tx.insert("in a transaction".into(), 2))).expect("it commits");
        block_on(db.update("updated", |n| n + 1)).expect("an update commits");
        assert_eq!(ttl(&db, "inserted"), Some(MINUTE));
        assert_eq!(ttl(&db, "updated"), Some(MINUTE / 2), "an update keeps the remaining time");
        dial.forward(MINUTE / 2);
        assert_eq!(keys(&db), ["in a transaction", "inserted", "with its own life"]);
        assert!(block_on(db.persist("inserted")).expect("a change commits"));
        assert_eq!(ttl(&db, "inserted"), Some(MINUTE), "it gets the life of all keys anew");
        dial.forward(HOUR);
        vacuum(&db);
        assert_eq!(db.memory_info().keys, 0);
    }

    #[test]
    fn keeps_its_life_over_a_restart() {
        let (disk, dial) = (SimDisk::new(5), Dial::new());
        let open = || {
            let builder = builder().durability_full(options("db"));
            let builder = builder.disk(Arc::new(disk.clone())).time_source(dial.source());
            block_on(builder.build()).expect("the database opens")
        };
        let db = open();
        put(&db, "k", 1);
        block_on(db.close()).expect("the database closes");
        dial.forward(MINUTE - TICK);
        let db = open();
        assert_eq!(ttl(&db, "k"), Some(TICK), "opening it is no write");
        dial.forward(TICK);
        assert!(keys(&db).is_empty());
    }

    /// Writes keys before the policy is set: one in a checkpoint, one in the log, and two with
    /// times of their own, one shorter and one longer than the policy's.
    fn from_before(disk: &SimDisk, dial: &Dial) {
        let db = reopen(Db::builder(), disk, dial);
        put(&db, "in a checkpoint", 1);
        put_for(&db, "for an hour", HOUR);
        put_for(&db, "for half a minute", MINUTE / 2);
        block_on(db.checkpoint()).expect("a checkpoint is written");
        put(&db, "in the log", 1);
        block_on(db.close()).expect("the database closes");
    }

    fn reopen(builder: Builder, disk: &SimDisk, dial: &Dial) -> Db {
        let builder = builder.durability_full(options("db")).disk(Arc::new(disk.clone()));
        block_on(builder.time_source(dial.source()).build()).expect("the database opens")
    }

    #[test]
    fn gives_a_life_to_keys_from_before_it() {
        let (disk, dial) = (SimDisk::new(6), Dial::new());
        from_before(&disk, &dial);
        dial.forward(HOUR / 2);
        let db = reopen(builder(), &disk, &dial);
        assert_eq!(keys(&db), ["for an hour", "in a checkpoint", "in the log"]);
        assert_eq!(ttl(&db, "in a checkpoint"), Some(MINUTE));
        assert_eq!(ttl(&db, "in the log"), Some(MINUTE));
        assert_eq!(ttl(&db, "for an hour"), Some(HOUR / 2), "a key's own expiry stays");
        dial.forward(MINUTE);
        // The checkpoint that opening has requested may hold the lock under which time moves, and a
        // snapshot that needs the old versions. Repeat until it is done.
        let begin = std::time::Instant::now();
        while keys(&db) != ["for an hour"] || db.memory_info().keys > 1 {
            assert!(begin.elapsed() < PATIENCE, "{:?}", keys(&db));
            vacuum(&db);
            thread::yield_now();
        }
    }

    /// However often the database is opened, a key gets its time to live once. Otherwise a restart
    /// every day would keep a key for ever that is to live for a week.
    #[test]
    fn gives_a_life_to_keys_from_before_it_once() {
        let (disk, dial) = (SimDisk::new(7), Dial::new());
        from_before(&disk, &dial);
        let db = reopen(builder(), &disk, &dial);
        assert_eq!(ttl(&db, "in the log"), Some(MINUTE));
        // The checkpoint that opening has requested, or one that follows it.
        block_on(db.checkpoint()).expect("a checkpoint is written");
        block_on(db.close()).expect("the database closes");
        dial.forward(MINUTE / 2);
        for _ in 0..2 {
            let db = reopen(builder(), &disk, &dial);
            assert_eq!(ttl(&db, "in the log"), Some(MINUTE / 2));
            assert_eq!(ttl(&db, "in a checkpoint"), Some(MINUTE / 2));
            block_on(db.close()).expect("the database closes");
        }
    }

    #[test]
    fn writes_down_the_lives_that_it_gave_without_being_asked() {
        let (disk, dial) = (SimDisk::new(8), Dial::new());
        from_before(&disk, &dial);
        let checkpoint = || disk.read("db/snapshot.db");
        let before = checkpoint();
        let db = reopen(builder(), &disk, &dial);
        let begin = std::time::Instant::now();
        while checkpoint() == before {
            assert!(begin.elapsed() < PATIENCE, "a checkpoint is written");
            thread::yield_now();
        }
        block_on(db.close()).expect("the database closes");
        let before = checkpoint();
        // No further checkpoint is written if there is no key without a time to live.
        block_on(reopen(builder(), &disk, &dial).close()).expect("the database closes");
        assert!(checkpoint() == before);
    }

    #[test]
    fn goes_in_the_order_of_writes_when_there_is_no_room() {
        let (dial, (sender, told)) = (Dial::new(), channel());
        let builder = builder().max_memory(8 << 10).on_evict(move |key, _, cause| {
            sender.send((key, cause)).expect("the test listens");
        });
        let db = open(builder, &dial);
        for key in 0..200 {
            put(&db, &format!("{key:03}"), key);
            assert!(get(&db, "000").is_some() || key > 5, "reads do not count");
        }
        let gone: Vec<(String, EvictionCause)> = told.try_iter().collect();
        assert!(gone.len() > 50);
        for (number, (key, cause)) in gone.into_iter().enumerate() {
            assert_eq!((key, cause), (format!("{number:03}"), EvictionCause::Capacity));
        }
    }
}
