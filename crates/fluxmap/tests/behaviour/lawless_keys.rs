//! Keys whose trait implementations are odd. If all hashes collide, every answer must still be
//! right. If the order lies, answers may be wrong, but nothing worse may happen.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::common::{commit, open};
use fluxmap::{Database, FluxError};
use fluxmap_testkit::hostile::{Liar, SameHash};
use fluxmap_testkit::ledger::{Ledger, Tracked};
use fluxmap_testkit::workload::Seed;
use futures::executor::block_on;
use rand::Rng;

/// All hashes collide, and every answer must still be right.
#[test]
fn keys_that_all_collide_are_merely_slow() {
    let seed = Seed::from_env();
    let mut rng = seed.rng(0);
    let db: Database<SameHash, u64> = open();
    let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
    let mut old = (db.snapshot(), expected.clone());
    for round in 0..1_500 {
        let key = rng.random_range(0..120);
        match rng.random_range(0..5u32) {
            0 => {
                let removed = block_on(db.remove(&SameHash(key))).expect("a remove commits");
                assert_eq!(removed.map(|value| *value), expected.remove(&key), "{seed}");
            }
            1 => {
                let tx = db.begin();
                for key in [key, key + 1] {
                    let found = tx.get(&SameHash(key)).expect("a read succeeds");
                    assert_eq!(found.map(|value| *value), expected.get(&key).copied(), "{seed}");
                    tx.insert(SameHash(key), round).expect("a write is buffered");
                    expected.insert(key, round);
                }
                commit(tx).expect("no other transaction writes");
            }
            2 if round % 20 == 0 => {
                block_on(db.vacuum()).expect("vacuum succeeds");
                old = (db.snapshot(), expected.clone());
            }
            _ => {
                block_on(db.insert(SameHash(key), round)).expect("an insert commits");
                expected.insert(key, round);
            }
        }
        let (view, then) = &old;
        for key in [key, key + 1, 500] {
            let found = view.get(&SameHash(key)).expect("a read succeeds");
            assert_eq!(found.map(|value| *value), then.get(&key).copied(), "{seed}");
            let found = db.get(&SameHash(key)).expect("a read succeeds");
            assert_eq!(found.map(|value| *value), expected.get(&key).copied(), "{seed}");
        }
    }
    let all: Vec<(u64, u64)> = db.snapshot().range(..).map(|(key, value)| (key.0, *value)).collect();
    assert_eq!(all, expected.into_iter().collect::<Vec<_>>(), "{seed}");

    // A collision must hide no change. (It may refuse a transaction needlessly: a change of another
    // key with the same hash may count as a conflict.)
    let tx = db.begin();
    tx.get(&SameHash(900)).expect("a read succeeds");
    tx.insert(SameHash(901), 1).expect("a write is buffered");
    block_on(db.insert(SameHash(900), 1)).expect("an insert commits");
    assert!(matches!(commit(tx), Err(FluxError::SerializationConflict)));
}

/// Keys that lie about their order may lose entries, and may even make a call panic. They must
/// corrupt nothing, every call must end, and every value must be dropped once.
#[test]
fn keys_that_lie_do_no_harm() {
    let seed = Seed::from_env();
    for run in 0..20 {
        let mut rng = seed.rng(run);
        let calls = Arc::new(AtomicU64::new(rng.random()));
        let ledger = Ledger::default();
        let db: Database<Liar, Tracked<u64>> = open();
        for round in 0..150 {
            let key = || Liar::new(round % 40, &calls);
            // The result of a call, and whether it panics, are not specified here.
            let _unspecified = catch_unwind(AssertUnwindSafe(|| match rng.random_range(0..6u32) {
                0 => drop(block_on(db.remove(&key()))),
                1 => drop(db.get(&key())),
                2 => {
                    let tx = db.begin();
                    for (_, value) in tx.range(key()..).into_iter().flatten().take(200) {
                        drop(tx.insert(key(), ledger.track(value.value)));
                    }
                    drop(commit(tx));
                }
                3 => {
                    let view = db.snapshot();
                    view.range(..key()).rev().take(200).for_each(drop);
                }
                4 if round % 10 == 0 => drop(block_on(db.vacuum())),
                _ => drop(block_on(db.insert(key(), ledger.track(round)))),
            }));
        }
        drop(db);
        assert_eq!((ledger.live(), ledger.dropped_twice()), (0, 0), "{seed}, run {run}");
    }
}
