//! Keys whose own code uses the database. While that code runs, no lock that the database needs may
//! be held, in whichever way a key is removed without a transaction. A lock that is held shows as
//! an operation that never returns, which a watchdog turns into a failure.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::common::limits::EVICTING;
use fluxmap::mem::{EvictionPolicy, MemSize, TimeSource};
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, DatabaseBuilder, FluxError};
use fluxmap_testkit::disk::SimDisk;
use futures::FutureExt as _;
use futures::executor::block_on;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

type Db = Database<Meddler, u64>;
type Builder = DatabaseBuilder<Meddler, u64>;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// The key that meddling keys write.
const OWN: u64 = u64::MAX;

/// The functions of a key that use a database.
#[derive(Clone, Copy)]
struct Meddles {
    when_stored: bool,
    when_dropped: bool,
    when_cloned: bool,
}

/// Functions that may use a database whenever they are called.
const STORED_AND_DROPPED: Meddles = Meddles { when_stored: true, when_dropped: true, when_cloned: false };

/// The database that keys use, and the functions in which they use it. One test uses it at a time.
static USED: Mutex<Option<(Db, Meddles)>> = Mutex::new(None);
/// The number of times that a key has used it.
static USES: AtomicU64 = AtomicU64::new(0);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

thread_local! {
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Uses the database in ways that take the commit lock and, in a durable database, the lock of the
/// log's queue.
fn meddle(is_asked_for: fn(Meddles) -> bool) {
    if BUSY.replace(true) {
        return;
    }
    let used = lock(&USED).clone();
    if let Some((db, meddles)) = used
        && is_asked_for(meddles)
    {
        db.memory_info();
        // One poll commits it, whether the database is durable or not.
        let _ = db.insert(Meddler(OWN), 0).now_or_never();
        USES.fetch_add(1, Ordering::SeqCst);
    }
    BUSY.set(false);
}

/// A key whose functions use the database.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Meddler(u64);

impl Clone for Meddler {
    fn clone(&self) -> Self {
        meddle(|meddles| meddles.when_cloned);
        Meddler(self.0)
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        meddle(|meddles| meddles.when_dropped);
    }
}

impl Serialize for Meddler {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        meddle(|meddles| meddles.when_stored);
        self.0.serialize(serializer)
    }
}

impl<'d> Deserialize<'d> for Meddler {
    fn deserialize<D: Deserializer<'d>>(deserializer: D) -> Result<Self, D::Error> {
        meddle(|meddles| meddles.when_stored);
        u64::deserialize(deserializer).map(Meddler)
    }
}

impl MemSize for Meddler {
    fn mem_size(&self) -> usize {
        0
    }
}

/// Room for some fifty keys.
const LIMIT: u64 = 8 << 10;

/// Opens a database.
type Open = fn(Builder) -> Db;

/// Databases with and without a listener for evictions, in memory and durable.
fn kinds() -> [(&'static str, Open); 4] {
    fn options() -> PersistenceOptions {
        PersistenceOptions { wal_segment_size_bytes: 64 << 10, ..PersistenceOptions::new("db") }
    }
    fn opened(built: Result<Db, FluxError>) -> Db {
        built.expect("the database opens")
    }
    [
        ("in memory", |builder| opened(block_on(builder.build()))),
        ("in memory, with a listener", |builder| opened(block_on(builder.on_evict(|_, _, _| {}).build()))),
        ("full", |builder| {
            let builder = builder.disk(Arc::new(SimDisk::new(1)));
            opened(block_on(builder.durability_full(options()).build()))
        }),
        ("relaxed", |builder| {
            let builder = builder.disk(Arc::new(SimDisk::new(1)));
            opened(block_on(builder.durability_relaxed(options()).flush_after_commits(10).build()))
        }),
    ]
}

/// Runs `act` on a database whose keys meddle, and asserts that it returns.
fn returns(what: &str, db: Db, meddles: Meddles, act: impl FnOnce(&Db) + Send + 'static) {
    let _one = lock(&ONE_AT_A_TIME);
    let before = USES.load(Ordering::SeqCst);
    let (sender, receiver) = channel();
    let acting = thread::spawn(move || {
        *lock(&USED) = Some((db.clone(), meddles));
        act(&db);
        // Keys that are dropped together with the database must not use it any more.
        let used = lock(&USED).take();
        drop((used, db));
        sender.send(()).expect("the test waits");
    });
    if let Err(RecvTimeoutError::Timeout) = receiver.recv_timeout(PATIENCE) {
        panic!("{what}: it hangs");
    }
    acting.join().unwrap_or_else(|_| panic!("{what}: it panicked"));
    assert!(USES.load(Ordering::SeqCst) > before, "{what}: the keys never used it");
}

fn put(db: &Db, key: u64) -> Result<(), FluxError> {
    block_on(db.insert(Meddler(key), 0))
}

/// A clock that stands still until it is set.
struct Standing(AtomicU64);

impl TimeSource for Standing {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

#[test]
fn an_explicit_eviction() {
    for (kind, open) in kinds() {
        returns(&format!("evict, {kind}"), open(Db::builder()), STORED_AND_DROPPED, |db| {
            (1..4).for_each(|key| put(db, key).expect("an insert commits"));
            assert!(block_on(db.evict(&Meddler(1))).expect("an eviction commits"));
            assert!(!block_on(db.evict(&Meddler(1))).expect("an eviction commits"));
        });
    }
}

#[test]
fn an_explicit_eviction_copies_the_key_for_the_listener_without_a_lock() {
    let db = block_on(Db::builder().on_evict(|_, _, _| {}).build()).expect("the database opens");
    let clones = Meddles { when_cloned: true, ..STORED_AND_DROPPED };
    returns("evict", db, clones, |db| {
        (1..4).for_each(|key| put(db, key).expect("an insert commits"));
        assert!(block_on(db.evict(&Meddler(1))).expect("an eviction commits"));
    });
}

#[test]
fn making_room() {
    for policy in EVICTING {
        for (kind, open) in kinds() {
            let builder = crate::common::limits::limited(policy, LIMIT);
            returns(&format!("{policy:?}, {kind}"), open(builder), STORED_AND_DROPPED, |db| {
                (0..300).for_each(|key| put(db, key).expect("room is made"));
                assert!(db.memory_info().evictions.capacity > 100);
                let info = db.memory_info();
                assert!(info.live_bytes + info.index_bytes <= LIMIT, "{info:?}");
            });
        }
    }
}

#[test]
fn expiry() {
    for (kind, open) in kinds() {
        let time = Arc::new(Standing(AtomicU64::new(1)));
        let db = open(Db::builder().time_source(Arc::clone(&time) as Arc<dyn TimeSource>));
        returns(&format!("expiry, {kind}"), db, STORED_AND_DROPPED, move |db| {
            for key in 0..200 {
                let insert = db.insert_with_ttl(Meddler(key), 0, Duration::from_millis(5));
                block_on(insert).expect("an insert commits");
            }
            time.0.store(100, Ordering::SeqCst);
            block_on(db.vacuum()).expect("a vacuum succeeds");
            assert_eq!(db.memory_info().evictions.expired, 200);
        });
    }
}

#[test]
fn room_of_what_has_expired_under_a_policy_that_evicts_nothing() {
    for (kind, open) in kinds() {
        let time = Arc::new(Standing(AtomicU64::new(1)));
        let builder = Db::builder().max_memory(LIMIT).eviction_policy(EvictionPolicy::Manual);
        let db = open(builder.time_source(Arc::clone(&time) as Arc<dyn TimeSource>));
        returns(&format!("Manual, {kind}"), db, STORED_AND_DROPPED, move |db| {
            let expiring = |key| block_on(db.insert_with_ttl(Meddler(key), 0, Duration::from_millis(5)));
            let first_refused = (0..1_000).find(|key| expiring(*key).is_err());
            assert!(first_refused.is_some_and(|key| key > 20), "{first_refused:?}");
            time.0.store(100, Ordering::SeqCst);
            put(db, 5_000).expect("expired keys make room");
        });
    }
}
