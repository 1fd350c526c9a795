//! Reading several keys in one call: it finds what single reads would find, all at one moment, and
//! in a transaction each key counts as read.

use crate::common::commit;
use fluxmap::{Database, FluxError};
use futures::executor::block_on;
use std::array::from_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

type Db = Database<u64, u64>;
type Found<const N: usize> = [Option<Arc<u64>>; N];

fn filled(keys: impl IntoIterator<Item = u64>) -> Db {
    let db = block_on(Database::new_in_memory()).expect("the defaults are valid");
    for key in keys {
        block_on(db.insert(key, key * 10)).expect("an insert commits");
    }
    db
}

fn numbers<const N: usize>(found: Result<Found<N>, FluxError>) -> [Option<u64>; N] {
    found.expect("nothing is refused").map(|value| value.map(|value| *value))
}

#[test]
fn finds_what_single_reads_find() {
    let db = filled((0..2000).filter(|key| key % 3 > 0));
    let keys: [u64; 300] = from_fn(|index| index as u64 * 7919 % 2500);
    let keys = keys.each_ref();
    let one_by_one = keys.map(|key| db.get(key).expect("a read").map(|value| *value));
    assert!(one_by_one.iter().any(Option::is_some) && one_by_one.iter().any(Option::is_none));
    assert_eq!(numbers(db.get_many(keys)), one_by_one);
    assert_eq!(numbers(db.snapshot().get_many(keys)), one_by_one);
    assert_eq!(numbers(db.begin().get_many(keys)), one_by_one);
    assert_eq!(numbers(db.handle().get_many(keys)), one_by_one);
    assert_eq!(numbers(db.get_many([&1, &1, &0, &1])), [Some(10), Some(10), None, Some(10)]);
    assert_eq!(numbers(db.get_many([] as [&u64; 0])), []);
    assert_eq!(numbers(filled([]).get_many([&1, &2])), [None, None]);
}

#[test]
fn takes_borrowed_forms() {
    let db = Database::<String, u64>::builder();
    let db = block_on(db.build()).expect("the defaults are valid");
    block_on(db.insert("alice".into(), 1)).expect("an insert commits");
    let [alice, bob] = db.get_many(["alice", "bob"]).expect("reads");
    assert_eq!((alice.as_deref(), bob), (Some(&1), None));
}

#[test]
fn shows_a_transaction_its_own_writes() {
    let db = filled(1..4);
    let tx = db.begin();
    tx.insert(2, 7).expect("a write");
    tx.remove(&3).expect("a write");
    tx.insert(4, 8).expect("a write");
    assert_eq!(numbers(tx.get_many([&1, &2, &3, &4, &5])), [Some(10), Some(7), None, Some(8), None]);
    let mut handle = db.handle();
    handle.begin().expect("it begins");
    block_on(handle.insert(1, 6)).expect("a write");
    assert_eq!(numbers(handle.get_many([&1, &2])), [Some(6), Some(20)]);
}

#[test]
fn is_a_read_of_each_key() {
    for changed in [1, 2, 9] {
        let db = filled(1..4);
        let tx = db.begin();
        assert_eq!(numbers(tx.get_many([&1, &2, &9])), [Some(10), Some(20), None]);
        tx.insert(100, 0).expect("a write");
        block_on(db.insert(changed, 5)).expect("an insert commits");
        assert!(matches!(commit(tx), Err(FluxError::SerializationConflict)), "{changed} was changed");
    }
    let db = filled(1..4);
    let tx = db.begin();
    numbers(tx.get_many([&1, &2, &9]));
    tx.insert(100, 0).expect("a write");
    block_on(db.insert(3, 5)).expect("an insert commits");
    commit(tx).expect("nothing that was read has changed");
}

#[test]
fn shows_one_moment() {
    let db = filled(0..8);
    let view = db.snapshot();
    let before = numbers(view.get_many([&0, &1, &2, &3, &4, &5, &6, &7]));
    let total: u64 = before.iter().flatten().sum();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..20_000_u64 {
                let (from, to) = (turn % 8, turn / 16 % 8);
                let moved = db.transact(async |tx| {
                    let Some(left) = tx.get(&from)?.filter(|left| **left > 0) else {
                        return Ok(());
                    };
                    tx.insert(from, *left - 1)?;
                    tx.update(&to, |right| right + 1).map(drop)
                });
                block_on(moved).unwrap_or_else(|error: FluxError| panic!("{error}"));
            }
            is_over.store(true, Ordering::Release);
        });
        while !is_over.load(Ordering::Acquire) {
            let found = numbers(db.get_many([&0, &1, &2, &3, &4, &5, &6, &7]));
            assert_eq!(found.iter().flatten().sum::<u64>(), total);
        }
    });
    assert_eq!(numbers(view.get_many([&0, &1, &2, &3, &4, &5, &6, &7])), before);
    assert_ne!(numbers(db.get_many([&0, &1, &2, &3, &4, &5, &6, &7])), before, "something was moved");
}
