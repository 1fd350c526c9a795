//! Operations on many keys: counting, filling, emptying, popping and getting them, by range and by
//! prefix. Each operation is one transaction: others see all of it or nothing, and it conflicts
//! like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::common::{DoneOnDrop, LEVELS, assert_nothing_pinned, commit, content, open, open_at};
use fluxmap::{Database, FluxError, Transaction};
use futures::executor::block_on;
use proptest::prelude::*;

type Db = Database<u64, u64>;

fn filled(keys: impl IntoIterator<Item = u64>) -> Db {
    let db = open();
    block_on(db.extend(keys.into_iter().map(|key| (key, key)))).expect("it commits");
    db
}

#[test]
fn each_of_any_number_of_keys_is_found_in_its_place() {
    for number in [0, 1, 2, 15, 16, 17, 40, 1_000] {
        let db = filled((0..500).map(|key| key * 2));
        let keys: Vec<u64> = (0..number).map(|n| n * 7 % 1_200).collect();
        let expected: Vec<Option<u64>> =
            keys.iter().map(|key| (key % 2 == 0 && *key < 1_000).then_some(*key)).collect();
        let plain = |found: Vec<Option<Arc<u64>>>| -> Vec<Option<u64>> {
            found.into_iter().map(|value| value.map(|value| *value)).collect()
        };
        assert_eq!(plain(db.get_each(&keys).expect("reads succeed")), expected);
        assert_eq!(plain(db.snapshot().get_each(&keys).expect("reads succeed")), expected);
        assert_eq!(plain(db.begin().get_each(&keys).expect("reads succeed")), expected);
        let mut handle = db.handle();
        assert_eq!(plain(handle.get_each(&keys).expect("reads succeed")), expected);
        handle.begin().expect("the handle is free");
        block_on(handle.insert(1, 99)).expect("a write is buffered");
        assert_eq!(plain(handle.get_each(&[1, 2]).expect("reads succeed")), [Some(99), Some(2)]);
    }
}

#[test]
fn borrowed_forms_are_looked_up_one_by_one_too() {
    let db = open::<String, u64>();
    block_on(db.extend([("ada".to_string(), 1), ("bob".to_string(), 2)])).expect("it commits");
    let found = db.get_each(["bob", "cyd", "bob"]).expect("reads succeed");
    assert!(found.iter().map(|value| value.as_deref()).eq([Some(&2), None, Some(&2)]));
}

#[test]
fn getting_each_key_counts_as_a_read_of_each() {
    for key in [3, 20, 39, 1_000] {
        let db = filled(0..30);
        let tx = db.begin();
        tx.get_each(&(0..40).chain([1_000]).collect::<Vec<_>>()).expect("reads succeed");
        tx.insert(7_777, 0).expect("a write is buffered");
        block_on(db.insert(key, 5)).expect("an insert commits");
        assert_eq!(commit(tx), Err(FluxError::SerializationConflict), "{key} was read");
    }
}

#[test]
fn each_of_them_is_read_at_one_moment() {
    let (db, done) = (filled(0..64), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 100;
            while !done.load(Ordering::Relaxed) {
                block_on(db.extend((0..64).map(|key| (key, round)))).expect("it commits");
                round += 1;
            }
        });
        let _done = DoneOnDrop(&done);
        let keys: Vec<u64> = (0..64).collect();
        for _ in 0..300 {
            let found = db.get_each(&keys).expect("reads succeed");
            let values: BTreeSet<u64> = found.into_iter().flatten().map(|value| *value).collect();
            assert!(values.len() == 1 || values.iter().copied().eq(0..64), "of several commits: {values:?}");
        }
    });
}

#[test]
fn the_later_of_two_pairs_with_one_key_counts_and_nothing_is_no_commit() {
    let db = open::<u64, u64>();
    block_on(db.extend([(1, 1), (2, 2), (1, 3)])).expect("it commits");
    assert_eq!(content(&db), [(1, 3), (2, 2)]);
    block_on(db.extend([])).expect("no pairs, no conflict");
    assert_eq!(content(&db), [(1, 3), (2, 2)]);
}

#[test]
fn extending_never_conflicts() {
    for level in LEVELS {
        let db: Db = open_at(level);
        thread::scope(|scope| {
            for thread in 0..3 {
                let db = &db;
                scope.spawn(move || {
                    for _ in 0..200 {
                        block_on(db.extend((0..20).map(|key| (key, thread)))).expect("it never conflicts");
                    }
                });
            }
        });
        let values: BTreeSet<u64> = content(&db).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values.len(), 1, "each was one commit");
    }
}

#[test]
fn a_pair_that_does_not_fit_keeps_all_of_them_out() {
    let builder = Database::<u64, Vec<u8>>::builder().max_memory(100_000);
    let db = block_on(builder.build()).expect("it opens");
    let pairs = [(1, vec![0; 10]), (2, vec![0; 200_000]), (3, vec![0; 10])];
    let refused = block_on(db.extend(pairs));
    assert!(matches!(refused, Err(FluxError::ExceedsMemoryLimit { .. })), "{refused:?}");
    assert_eq!(db.is_empty(), Ok(true));
}

#[test]
fn emptying_is_certified_against_what_comes_in_meanwhile() {
    for removal in [Transaction::clear, |tx: &Transaction<u64, u64>| tx.remove_range(10..20)] {
        for inside in [15, 5, 25] {
            let db = filled([12, 14, 30]);
            let tx = db.begin();
            removal(&tx).expect("it is buffered");
            block_on(db.insert(inside, 0)).expect("an insert commits");
            let committed = commit(tx);
            // The inserted key remains. If it lies in the removed range, the removal must not have
            // committed.
            let left = db.contains_key(&inside).expect("a read succeeds");
            assert!(left);
            assert_eq!(committed.is_ok(), db.count(10..20) == Ok(0), "{inside}: {committed:?}");
        }
    }
}

#[test]
fn what_is_emptied_beside_writers_is_empty_at_one_moment() {
    let (db, written) = (open::<u64, u64>(), AtomicU64::new(0));
    let removed = thread::scope(|scope| {
        for thread in 0..2 {
            let (db, written) = (&db, &written);
            scope.spawn(move || {
                for n in 0..400 {
                    block_on(db.insert(n * 2 + thread, n)).expect("an insert commits");
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut removed = 0;
        for _ in 0..20 {
            removed += block_on(db.clear()).expect("it comes to an end");
        }
        removed
    });
    // Every key was written once, so it was either removed or is still there.
    assert_eq!(removed + db.len().expect("a count succeeds"), 800);
    assert_eq!(written.into_inner(), 800);
    assert_nothing_pinned(&db);
}

#[test]
fn each_pair_is_popped_once_whoever_pops() {
    let db = filled(0..400);
    let popped = thread::scope(|scope| {
        let pop = |first: bool| {
            let db = &db;
            move || {
                let next = || match first {
                    true => block_on(db.pop_first()),
                    false => block_on(db.pop_last()),
                };
                let pairs = std::iter::from_fn(|| next().expect("it comes to an end"));
                pairs
                    .map(|(key, value)| {
                        assert_eq!(key, *value);
                        key
                    })
                    .collect::<Vec<u64>>()
            }
        };
        let threads: Vec<_> = [true, false, true].into_iter().map(|first| scope.spawn(pop(first))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    assert_eq!(popped.len(), 400);
    assert!(popped.iter().copied().collect::<BTreeSet<_>>().into_iter().eq(0..400));
    assert_eq!(db.is_empty(), Ok(true));
}

#[test]
fn a_key_that_comes_in_before_the_one_that_was_popped_is_a_conflict() {
    let db = filled([10, 20]);
    let (first, last) = (db.begin(), db.begin());
    let popped = [first.pop_first(), last.pop_last()];
    assert!(popped.iter().flatten().flatten().map(|(key, _)| *key).eq([10, 20]));
    block_on(db.insert(5, 5)).expect("an insert commits");
    assert_eq!(commit(first), Err(FluxError::SerializationConflict));
    assert_eq!(commit(last), Ok(()), "nothing came in behind it");
    assert_eq!(content(&db), [(5, 5), (10, 10)]);
}

#[test]
fn ranges_and_prefixes_of_a_database_are_those_of_one_moment() {
    let db = filled(0..100);
    let mut range = db.range(10..);
    assert_eq!(range.next().map(|(key, _)| key), Some(10));
    block_on(db.clear()).expect("it commits");
    assert_eq!(range.next_back().map(|(key, _)| key), Some(99));
    assert_eq!(range.count(), 88);
    assert_eq!(db.range(..).count(), 0);
    let texts = open::<String, u64>();
    block_on(texts.extend(["ab", "abc", "b"].map(|key| (key.to_string(), 0)))).expect("it commits");
    assert_eq!(texts.prefix("ab").count(), 2);
    assert_nothing_pinned(&db);
}

#[derive(Clone, Debug)]
enum Act {
    Extend(Vec<(u8, u8)>),
    RemoveRange(u8, u8),
    Clear,
    PopFirst,
    PopLast,
}

fn acts() -> impl Strategy<Value = Vec<(bool, Act)>> {
    let act = prop_oneof![
        4 => prop::collection::vec((0..40_u8, any::<u8>()), 0..6).prop_map(Act::Extend),
        2 => (0..40_u8, 0..40_u8).prop_map(|(from, to)| Act::RemoveRange(from, to)),
        1 => Just(Act::Clear),
        2 => Just(Act::PopFirst),
        2 => Just(Act::PopLast),
    ];
    prop::collection::vec((any::<bool>(), act), 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// On the database each act commits; in a transaction each act sees the ones before it.
    #[test]
    fn they_do_what_those_of_a_btree_map_do(acts in acts(), within in any::<bool>()) {
        let (db, mut model) = (open::<u8, u8>(), BTreeMap::new());
        let tx = db.begin();
        for (check, act) in acts {
            let plain = |pair: Option<(u8, Arc<u8>)>| pair.map(|(key, value)| (key, *value));
            match act {
                Act::Extend(pairs) => {
                    if within { tx.extend(pairs.clone()) } else { block_on(db.extend(pairs.clone())) }.unwrap();
                    model.extend(pairs);
                }
                Act::RemoveRange(from, to) => {
                    let removed =
                        if within { tx.remove_range(from..to) } else { block_on(db.remove_range(from..to)) };
                    let before = model.len();
                    model.retain(|key, _| !(from..to).contains(key));
                    prop_assert_eq!(removed, Ok(before - model.len()));
                }
                Act::Clear => {
                    let removed = if within { tx.clear() } else { block_on(db.clear()) };
                    prop_assert_eq!(removed, Ok(model.len()));
                    model.clear();
                }
                Act::PopFirst => {
                    let popped = if within { tx.pop_first() } else { block_on(db.pop_first()) };
                    prop_assert_eq!(popped.map(plain), Ok(model.pop_first()));
                }
                Act::PopLast => {
                    let popped = if within { tx.pop_last() } else { block_on(db.pop_last()) };
                    prop_assert_eq!(popped.map(plain), Ok(model.pop_last()));
                }
            }
            if check {
                let (len, is_empty) = match within {
                    true => (tx.len(), tx.is_empty()),
                    false => (db.len(), db.is_empty()),
                };
                prop_assert_eq!((len, is_empty), (Ok(model.len()), Ok(model.is_empty())));
                let view = db.snapshot();
                let expected = if within { 0 } else { model.len() };
                prop_assert_eq!((view.len(), view.is_empty()), (Ok(expected), Ok(expected == 0)));
            }
        }
        if within {
            commit(tx).unwrap();
        }
        let left: BTreeMap<u8, u8> = db.range(..).map(|(key, value)| (key, *value)).collect();
        prop_assert_eq!(left, model);
    }
}
