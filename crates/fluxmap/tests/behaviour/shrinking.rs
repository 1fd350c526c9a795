//! The memory of keys that have gone is given back: the hash, the order, the policies' nodes and
//! what they remember shrink with the keys, while readers look keys up.

use crate::common::{DoneOnDrop, open};
use fluxmap::mem::{EvictionPolicy, TimeSource};
use fluxmap::{Database, MemoryInfo};
use futures::executor::block_on;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Keys that come and go.
const KEYS: u64 = if cfg!(debug_assertions) { 200_000 } else { 1_000_000 };
/// Keys that are written or removed by one commit.
const AT_ONCE: u64 = 1_000;
/// Far more than the keys take.
const AMPLE: u64 = 1 << 40;

/// Room for some tenth of [`MANY`] keys.
const TIGHT: u64 = MANY * 20;
/// Keys of which most are evicted.
const MANY: u64 = KEYS / 2;

type Store = Database<u64, u64>;

/// Numbers below `keys`, each once, in an order that has nothing to do with theirs.
fn scattered(keys: u64) -> impl Iterator<Item = u64> {
    // 7,919 is prime, and no divisor of the numbers of keys here.
    (0..keys).map(move |number| number * 7_919 % keys)
}

/// Makes one commit of every `AT_ONCE` keys.
fn write(db: &Store, keys: impl Iterator<Item = u64>, value: impl Fn(u64) -> Option<u64>) {
    let mut keys = keys.peekable();
    while keys.peek().is_some() {
        let tx = db.begin();
        for key in keys.by_ref().take(AT_ONCE as usize) {
            match value(key) {
                Some(value) => tx.insert(key, value).expect("a write is buffered"),
                None => drop(tx.remove(&key).expect("a remove is buffered")),
            }
        }
        crate::common::commit(tx).expect("nobody else writes");
    }
}

fn vacuum(db: &Store) -> MemoryInfo {
    block_on(db.vacuum()).expect("a database in memory is vacuumed");
    db.memory_info()
}

/// The memory that finding, choosing and expiring keys takes.
fn overhead(info: &MemoryInfo) -> u64 {
    info.index_bytes + info.spare_bytes
}

#[track_caller]
fn assert_below(info: &MemoryInfo, percent: u64, of: u64) {
    let now = overhead(info);
    assert!(now * 100 < of * percent, "{now} bytes, which were {of}: {info:?}");
}

/// Asserts that those keys below `keys` are there that are to be, and that they are found.
#[track_caller]
fn assert_all(db: &Store, keys: u64, value: impl Fn(u64) -> Option<u64>) {
    for key in 0..keys {
        let found = db.get(&key).expect("a read succeeds").as_deref().copied();
        assert_eq!(found, value(key), "{key}");
    }
    let expected: Vec<(u64, u64)> = (0..keys).filter_map(|key| Some((key, value(key)?))).collect();
    assert_eq!(crate::common::content(db), expected);
}

/// All that a database has taken for its keys goes with them, twice, and what comes after is found.
fn grows_and_shrinks(db: &Store, keys: u64) {
    for round in 0..2 {
        write(db, scattered(keys), |key| Some(round + key));
        let full = overhead(&db.memory_info());
        assert_all(db, keys, |key| Some(round + key));
        write(db, 0..keys, |_| None);
        assert_below(&vacuum(db), 5, full);
        assert_all(db, keys, |_| None);
    }
}

#[test]
fn a_million_keys_that_are_removed_leave_nothing() {
    grows_and_shrinks(&open(), KEYS);
}

#[test]
fn keys_that_count_against_a_limit_leave_nothing() {
    for policy in [EvictionPolicy::Lru, EvictionPolicy::Random, EvictionPolicy::Manual] {
        let builder = Store::builder().max_memory(AMPLE).eviction_policy(policy);
        grows_and_shrinks(&block_on(builder.build()).expect("an empty database opens"), KEYS / 5);
    }
}

/// Stands still until it is set.
#[derive(Default)]
struct Hand(AtomicU64);

impl TimeSource for Hand {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1 + self.0.load(Ordering::SeqCst))
    }
}

#[test]
fn keys_that_expire_leave_nothing() {
    let hand = Arc::new(Hand::default());
    let source: Arc<Hand> = Arc::clone(&hand);
    let db = block_on(Store::builder().time_source(source).build()).expect("an empty database opens");
    for key in scattered(KEYS / 10) {
        block_on(db.insert_with_ttl(key, key, Duration::from_secs(60))).expect("an insert commits");
    }
    let full = overhead(&db.memory_info());
    hand.0.store(120, Ordering::SeqCst);
    let empty = vacuum(&db);
    assert_eq!(empty.evictions.expired, KEYS / 10);
    assert_below(&empty, 5, full);
}

/// The keys that are left take about as much as if there had never been any others.
#[test]
fn a_few_keys_that_are_left_take_what_a_few_keys_take() {
    const LEFT: u64 = 1_000;
    for limit in [None, Some(AMPLE)] {
        let open = || {
            let builder = limit.map_or(Store::builder(), |limit| Store::builder().max_memory(limit));
            block_on(builder.build()).expect("an empty database opens")
        };
        let (keys, stays) = (KEYS / 5, |key: &u64| key.is_multiple_of(KEYS / 5 / LEFT));
        let db: Store = open();
        write(&db, scattered(keys), Some);
        let full = overhead(&db.memory_info());
        write(&db, scattered(keys).filter(|key| !stays(key)), |_| None);
        let left = vacuum(&db);
        assert_all(&db, keys, |key| stays(&key).then_some(key));
        let few: Store = open();
        write(&few, scattered(keys).filter(stays), Some);
        let needed = overhead(&vacuum(&few));
        // Chunks of nodes go when all of their keys have gone: see ARCHITECTURE.md.
        let nodes = if limit.is_some() { full / 2 } else { 0 };
        assert!(overhead(&left) <= 6 * needed + nodes, "{left:?}, where {needed} are needed of {full}");
    }
}

/// A policy's memory of evicted keys does not outlast the present keys.
#[test]
fn what_a_policy_remembers_goes_with_the_keys() {
    for policy in [EvictionPolicy::Arc, EvictionPolicy::S3Fifo] {
        let builder = Store::builder().max_memory(TIGHT).eviction_policy(policy);
        let db = block_on(builder.build()).expect("an empty database opens");
        for key in scattered(MANY) {
            block_on(db.insert(key, key)).expect("an insert commits");
            if key % 3 == 0 {
                db.get(&key).expect("a read succeeds");
            }
        }
        let before = vacuum(&db);
        assert!(before.evictions.capacity > MANY / 2, "{before:?}");
        write(&db, 0..MANY, |_| None);
        assert_below(&vacuum(&db), 5, overhead(&before));
        for key in scattered(MANY).take(1_000) {
            block_on(db.insert(key, key)).expect("an insert commits");
            assert!(db.get(&key).expect("a read succeeds").is_some());
        }
    }
}

/// Keys come and go several times beneath readers, who find those that stay, always, and of the
/// others all of a commit or none.
#[test]
fn readers_find_what_stays_while_memory_comes_and_goes() {
    const COUNT: u64 = KEYS / 10;
    const LASTING: u64 = 500;
    let db: Store = open();
    let lasts = |key: &u64| key.is_multiple_of(LASTING);
    write(&db, (0..COUNT).filter(lasts), Some);
    let done = AtomicBool::new(false);
    let mut full = 0;
    thread::scope(|scope| {
        let _done = DoneOnDrop(&done);
        for reader in 0..2 {
            let (db, done) = (&db, &done);
            scope.spawn(move || {
                let mut turn: u64 = reader;
                while !done.load(Ordering::SeqCst) {
                    turn = (turn + 7_919) % COUNT;
                    let key = turn - turn % LASTING;
                    assert_eq!(db.get(&key).expect("a read succeeds").as_deref(), Some(&key));
                    let view = db.snapshot();
                    assert_eq!(view.get(&key).expect("a read succeeds").as_deref(), Some(&key));
                    // One commit writes them.
                    let near = key - key % AT_ONCE + 1;
                    let ends = [near, near + AT_ONCE - 2];
                    let found = ends.map(|key| view.get(&key).expect("a read succeeds").is_some());
                    assert_eq!(found[0], found[1], "{ends:?}");
                    let expected = if found[0] { AT_ONCE } else { AT_ONCE / LASTING };
                    let first = near - 1;
                    let count = view.count(first..first + AT_ONCE).expect("a count succeeds");
                    assert_eq!(count as u64, expected, "from {first} on");
                }
            });
        }
        for round in 0..5 {
            // Each commit has a thousand numbers, of which some stay as they are.
            let keys = || (0..COUNT).step_by(AT_ONCE as usize);
            let group = |first: u64| (first..first + AT_ONCE).filter(|key| !lasts(key));
            keys().for_each(|first| write(&db, group(first), |key| Some(round + key)));
            full = overhead(&db.memory_info());
            keys().for_each(|first| write(&db, group(first), |_| None));
            // Versions that a reader's snapshot still sees are left to the next vacuum.
            assert!(overhead(&vacuum(&db)) < full);
        }
    });
    assert_all(&db, COUNT, |key| lasts(&key).then_some(key));
    assert_below(&vacuum(&db), 5, full);
}
