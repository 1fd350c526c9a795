//! Models of eviction and expiry beside transactions, under thousands of schedules each.

mod support;

use fluxmap_shuttle::mem::{EvictionPolicy, TimeSource};
use fluxmap_shuttle::{Database, FluxError, virtual_time};
use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use support::{MemDisk, explore, options};

type Store = Database<u8, u32>;

/// The number of schedules of each model.
const SCHEDULES: usize = 30_000;

/// `GOES` is the key that is removed. `NOTED` is written by a transaction that has seen `GOES`.
const GOES: u8 = 1;
const NOTED: u8 = 2;

/// Writes `NOTED` if `GOES` is there. Returns whether a write was committed.
fn note(db: &Store) -> bool {
    let tx = db.begin();
    let is_there = tx.contains_key(&GOES).expect("a read");
    if is_there {
        tx.insert(NOTED, 0).expect("a buffered write");
    }
    match block_on(tx.commit()) {
        Ok(()) => is_there,
        Err(FluxError::SerializationConflict) => false,
        Err(other) => panic!("unexpected: {other}"),
    }
}

/// While `act` makes a key disappear, one transaction notes that the key is there, and this thread
/// takes a view. The note must not commit after a view has seen neither the key nor the note.
fn nobody_notes_what_has_been_seen_gone(db: &Store, act: impl FnOnce(Store) + Send + 'static) {
    let noting = {
        let db = db.clone();
        thread::spawn(move || note(&db))
    };
    let acting = {
        let db = db.clone();
        thread::spawn(move || act(db))
    };
    let view = db.snapshot();
    let is_there = view.contains_key(&GOES).expect("a read");
    let is_noted = view.contains_key(&NOTED).expect("a read");
    assert_eq!(view.contains_key(&GOES).expect("a read"), is_there, "reads repeat");
    drop(view);
    acting.join().expect("no panic");
    let has_committed = noting.join().expect("no panic");
    assert!(is_there || is_noted || !has_committed, "the key had gone before the note was committed");
}

/// Opens a store whose limit leaves room for two of the keys in these models.
fn two_keys(policy: EvictionPolicy) -> Store {
    let builder = Store::builder().max_memory(240).eviction_policy(policy);
    block_on(builder.build()).expect("valid settings")
}

#[test]
fn an_eviction_is_certified_against() {
    explore(SCHEDULES, || {
        let db = two_keys(EvictionPolicy::Lru);
        block_on(db.insert(GOES, 0)).expect("there is room");
        block_on(db.insert(4, 0)).expect("there is room");
        nobody_notes_what_has_been_seen_gone(&db, |db| {
            block_on(db.insert(3, 0)).expect("room is made");
        });
    });
}

#[test]
fn the_books_agree_with_what_is_there_whoever_wrote_it() {
    explore(SCHEDULES, || {
        let db = two_keys(EvictionPolicy::Random);
        let writers: Vec<_> = (0..2_u8)
            .map(|writer| {
                let db = db.clone();
                thread::spawn(move || {
                    block_on(async {
                        db.insert(writer, 0).await?;
                        db.insert(writer + 1, 1).await?;
                        db.remove(&writer).await?;
                        db.insert(writer + 2, 2).await
                    })
                    .expect("there is room for one");
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
        block_on(db.vacuum()).expect("in memory");
        let info = db.memory_info();
        assert_eq!(info.live_bytes, 112 * db.count(..).expect("in memory") as u64);
        assert!(info.live_bytes + info.index_bytes <= 240, "{info:?}");
        assert_eq!(info.old_version_bytes, 0);
    });
}

struct Time(AtomicU64);

impl TimeSource for Time {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Lets a key expire in a database that `open` opens with a time source of this model.
fn expire(open: fn(Arc<dyn TimeSource>) -> Store) {
    let time = Arc::new(Time(AtomicU64::new(5)));
    let db = open(Arc::clone(&time) as Arc<dyn TimeSource>);
    block_on(db.insert_with_ttl(GOES, 0, Duration::from_millis(5))).expect("it commits");
    nobody_notes_what_has_been_seen_gone(&db, move |db| {
        time.0.store(20, Ordering::SeqCst);
        assert!(db.get(&GOES).is_ok());
    });
}

#[test]
fn an_expiry_is_certified_against_at_the_time_of_the_commit() {
    explore(SCHEDULES, || {
        expire(|source| block_on(Store::builder().time_source(source).build()).expect("valid settings"));
    });
}

#[test]
fn what_is_not_stable_yet_is_certified_against_the_time_of_stable_views() {
    explore(SCHEDULES / 4, || {
        expire(|source| {
            let disk = Arc::new(MemDisk::default());
            let builder = Store::builder().time_source(source).disk(disk).durability_full(options(4));
            block_on(builder.build()).expect("it opens")
        });
    });
}

/// The machine sleeps, or its clock is set, while keys wait to expire. Its monotonic clock shows
/// neither.
#[test]
fn the_clock_of_the_machine_is_followed_forward_and_not_back() {
    const HOUR: Duration = Duration::from_secs(3600);
    let millis = i64::try_from(HOUR.as_millis()).expect("it is short");
    explore(SCHEDULES / 10, move || {
        let (sender, told) = shuttle::sync::mpsc::channel();
        let builder = Store::builder().on_evict(move |key, _, _| sender.send(key).unwrap_or_default());
        let db = block_on(builder.build()).expect("valid settings");
        block_on(db.insert_with_ttl(GOES, 0, HOUR)).expect("in memory");
        virtual_time::set_time_of_day(2 * millis);
        assert_eq!(told.recv(), Ok(GOES), "the background thread looks at the clock");
        assert!(db.get(&GOES).expect("in memory").is_none());
        // The machine has slept once more, and the database has not noticed yet.
        virtual_time::set_time_of_day(9 * millis);
        block_on(db.insert_with_ttl(NOTED, 0, HOUR)).expect("in memory");
        virtual_time::set_time_of_day(-9 * millis);
        block_on(db.insert_with_ttl(4, 0, HOUR)).expect("in memory");
        for key in [NOTED, 4] {
            assert!(db.get(&key).expect("in memory").is_some(), "the hour has only begun");
            let left = db.ttl(&key).expect("in memory").unwrap_or_default();
            assert!((HOUR / 2..=HOUR).contains(&left), "{left:?}");
        }
    });
}
