//! The memory of keys that have gone is given back: the hash, the order, the policies' nodes and
//! what they remember shrink with the keys, while readers look keys up.

mod common;

use common::open;
use fluxmap::mem::EvictionPolicy;
use fluxmap::{Database, MemoryInfo};
use futures::executor::block_on;

/// Keys that come and go.
const KEYS: u64 = if cfg!(debug_assertions) { 200_000 } else { 1_000_000 };
/// Keys that are written or removed by one commit.
const AT_ONCE: u64 = 1_000;
/// Far more than the keys take.
const AMPLE: u64 = 1 << 40;

/// Room for some tenth of the keys.
const TIGHT: u64 = KEYS * 20;

type Store = Database<u64, u64>;

/// Numbers below `KEYS`, each once, in an order that has nothing to do with theirs.
fn scattered() -> impl Iterator<Item = u64> {
    // 7,919 is prime, and no divisor of the number of keys.
    (0..KEYS).map(|number| number * 7_919 % KEYS)
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
        common::commit(tx).expect("nobody else writes");
    }
}

fn vacuum(db: &Store) -> MemoryInfo {
    block_on(db.vacuum()).expect("a database in memory is vacuumed");
    db.memory_info()
}

/// What finding, choosing and expiring keys takes.
fn overhead(info: &MemoryInfo) -> u64 {
    info.index_bytes + info.spare_bytes
}

#[track_caller]
fn assert_below(info: &MemoryInfo, percent: u64, of: u64) {
    let now = overhead(info);
    assert!(now * 100 < of * percent, "{now} bytes, which were {of}: {info:?}");
}

#[track_caller]
fn assert_all(db: &Store, is_there: impl Fn(u64) -> bool, value: u64) {
    for key in 0..KEYS {
        let found = db.get(&key).expect("a read succeeds").as_deref().copied();
        assert_eq!(found, is_there(key).then_some(value + key), "{key}");
    }
    let expected = (0..KEYS).filter(|key| is_there(*key)).count();
    assert_eq!(db.count(..).expect("a count succeeds"), expected);
}

/// All that a database has taken for its keys goes with them, twice, and what comes after is found.
fn grows_and_shrinks(db: &Store) {
    for round in 0..2 {
        write(db, scattered(), |key| Some(round + key));
        let full = overhead(&db.memory_info());
        assert_all(db, |_| true, round);
        write(db, 0..KEYS, |_| None);
        assert_below(&vacuum(db), 5, full);
        assert_all(db, |_| false, round);
    }
}

#[test]
fn a_million_keys_that_are_removed_leave_nothing() {
    grows_and_shrinks(&open());
}

#[test]
fn keys_that_count_against_a_limit_leave_nothing() {
    for policy in [EvictionPolicy::Lru, EvictionPolicy::Random, EvictionPolicy::S3Fifo] {
        let builder = Store::builder().max_memory(AMPLE).eviction_policy(policy);
        grows_and_shrinks(&block_on(builder.build()).expect("an empty database opens"));
    }
}

/// What a policy remembers of keys that were evicted does not outlast those that are there.
#[test]
fn what_a_policy_remembers_goes_with_the_keys() {
    for policy in [EvictionPolicy::Arc, EvictionPolicy::S3Fifo] {
        let builder = Store::builder().max_memory(TIGHT).eviction_policy(policy);
        let db = block_on(builder.build()).expect("an empty database opens");
        for key in scattered() {
            block_on(db.insert(key, key)).expect("an insert commits");
            if key % 3 == 0 {
                db.get(&key).expect("a read succeeds");
            }
        }
        let before = vacuum(&db);
        assert!(before.evictions.capacity > KEYS / 2, "{before:?}");
        write(&db, 0..KEYS, |_| None);
        assert_below(&vacuum(&db), 5, overhead(&before));
        for key in scattered().take(1_000) {
            block_on(db.insert(key, key)).expect("an insert commits");
            assert!(db.get(&key).expect("a read succeeds").is_some());
        }
    }
}
