//! An iterator that stopped early has read exactly the part of the range that it walked. At
//! `Serializable` a change in that part refuses the transaction, a change in the rest does not.
//! Tested forward, backward, from both ends, and over own writes.

use crate::common::bench::{certified, insert, remove};
use fluxmap::{Database, Transaction};

const TENS: [u64; 5] = [10, 20, 30, 40, 50];

fn walk_front_and_back(tx: &Transaction<u64, u64>, front: usize, back: usize) {
    let mut items = tx.range(0..=60u64).expect("a range succeeds");
    for expected in &TENS[..front] {
        assert_eq!(items.next().expect("there are five").0, *expected);
    }
    for expected in TENS.iter().rev().take(back) {
        assert_eq!(items.next_back().expect("there are five").0, *expected);
    }
}

/// An iterator that stopped after n items has read from its end of the range up to the n-th item,
/// and nothing beyond. Inserts in that part conflict, inserts beyond it do not. Tested forward,
/// backward, and from both ends.
#[test]
fn an_early_stop_reads_no_further() {
    for front in 0..=5usize {
        for back in 0..=(5 - front) {
            let last_front = front.checked_sub(1).map(|at| TENS[at]);
            let last_back = back.checked_sub(1).map(|at| TENS[4 - at]);
            for key in [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 61] {
                let walked = key <= 60
                    && (last_front.is_some_and(|last| key <= last)
                        || last_back.is_some_and(|last| key >= last));
                let what = format!("{key} after {front} from the front, {back} from the back");
                let walk = |tx: &Transaction<u64, u64>| walk_front_and_back(tx, front, back);
                certified(&TENS, walk, &99, |db| insert(db, key), walked, &what);
            }
        }
    }
}

/// The same far into a long range. However much an iterator fetches ahead, it has read exactly up
/// to the last key that it returned.
#[test]
fn an_early_stop_is_exact_in_a_long_range() {
    let keys: Vec<u64> = (1..=400).map(|n| n * 10).collect();
    for n in [1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 127, 128, 129, 255, 256, 257, 399] {
        let (up, down) = (keys[n - 1], keys[400 - n]);
        let forward = |tx: &Transaction<u64, u64>| {
            let last = tx.range(..).expect("a range succeeds").take(n).last();
            assert_eq!(last.expect("there are 400").0, up);
        };
        let backward = |tx: &Transaction<u64, u64>| {
            let last = tx.range(..).expect("a range succeeds").rev().take(n).last();
            assert_eq!(last.expect("there are 400").0, down);
        };
        for (key, walked_up, walked_down) in [
            (up - 1, true, up > down),
            (up, true, up >= down),
            (up + 1, false, up >= down),
            (down - 1, up >= down, false),
            (down, up >= down, true),
            (down + 1, up > down, true),
        ] {
            let change = |db: &Database<u64, u64>| insert(db, key);
            certified(&keys, forward, &9_999, change, walked_up, &format!("{key} after {n}"));
            certified(&keys, backward, &9_999, change, walked_down, &format!("{key} after {n} down"));
        }
    }
}

/// An iterator that has returned `None` has read to the end of its range. If its two ends have met,
/// it has read the whole range.
#[test]
fn an_exhausted_iterator_has_read_the_whole_range() {
    type Drain = fn(&Transaction<u64, u64>);
    let drains: [(&str, Drain); 4] = [
        ("forward", |tx| {
            let mut items = tx.range(0..=60u64).expect("succeeds");
            while items.next().is_some() {}
        }),
        ("backward", |tx| {
            let mut items = tx.range(0..=60u64).expect("succeeds");
            while items.next_back().is_some() {}
        }),
        ("from both ends, ended by next", |tx| {
            let mut items = tx.range(0..=60u64).expect("succeeds");
            while items.next().is_some() && items.next_back().is_some() {}
            assert!(items.next().is_none());
        }),
        ("from both ends, ended by next_back", |tx| {
            let mut items = tx.range(0..=60u64).expect("succeeds");
            while items.next().is_some() && items.next_back().is_some() {}
            assert!(items.next_back().is_none());
        }),
    ];
    for (how, drain) in drains {
        for key in [0, 5, 25, 30, 35, 55, 60, 61] {
            let what = format!("{key} after draining {how}");
            certified(&TENS, drain, &99, |db| insert(db, key), key <= 60, &what);
        }
    }
}

/// Deletes in the part that an early stop left unread do not conflict either. A delete of the last
/// key that was returned does.
#[test]
fn an_early_stop_is_exact_for_deletes() {
    let walk = |tx: &Transaction<u64, u64>| walk_front_and_back(tx, 2, 0);
    for (key, conflicts) in [(10, true), (20, true), (30, false), (50, false)] {
        let what = format!("delete of {key} after two items");
        certified(&TENS, walk, &99, |db| remove(db, &key), conflicts, &what);
    }
    let walk = |tx: &Transaction<u64, u64>| walk_front_and_back(tx, 0, 2);
    for (key, conflicts) in [(10, false), (30, false), (40, true), (50, true)] {
        let what = format!("delete of {key} after two items from the back");
        certified(&TENS, walk, &99, |db| remove(db, &key), conflicts, &what);
    }
}

/// An own write that an iterator returned counts as a position like any other: the gap up to it was
/// read, the gap after it was not.
#[test]
fn an_early_stop_at_an_own_write() {
    let walk = |tx: &Transaction<u64, u64>| {
        tx.insert(25, 1).expect("a write is buffered");
        let keys: Vec<u64> = tx.range(15u64..).expect("succeeds").take(2).map(|item| item.0).collect();
        assert_eq!(keys, [20, 25]);
    };
    for (key, conflicts) in [(14, false), (17, true), (22, true), (24, true), (27, false)] {
        certified(&TENS, walk, &99, |db| insert(db, key), conflicts, &format!("{key}"));
    }
}

/// Keys that an iterator skipped because the transaction itself has deleted them belong to the part
/// that was read.
#[test]
fn an_early_stop_beyond_an_own_delete() {
    let walk = |tx: &Transaction<u64, u64>| {
        tx.insert(20, 0).expect("a write is buffered");
        tx.remove(&20).expect("a remove succeeds");
        let first = tx.range(15u64..).expect("succeeds").next().expect("30 is there");
        assert_eq!(first.0, 30);
    };
    for (key, conflicts) in [(14, false), (17, true), (25, true), (30, true), (35, false)] {
        certified(&TENS, walk, &99, |db| insert(db, key), conflicts, &format!("{key}"));
    }
}

/// A range that was created and never advanced has read nothing.
#[test]
fn an_iterator_that_was_never_advanced_reads_nothing() {
    let walk = |tx: &Transaction<u64, u64>| drop(tx.range(..).expect("succeeds"));
    for key in [5, 10, 55] {
        certified(&TENS, walk, &99, |db| insert(db, key), false, "never advanced");
    }
}

/// Reads count even if the iterator's destructor never runs. A forgotten iterator has read at least
/// the items that it returned, and may count as having read more.
#[test]
fn a_forgotten_iterator_has_read_what_it_yielded() {
    let walk = |tx: &Transaction<u64, u64>| {
        let mut items = tx.range(..).expect("a range succeeds");
        assert_eq!(items.next().expect("there are five").0, 10);
        std::mem::forget(items);
    };
    certified(&TENS, walk, &99, |db| insert(db, 5), true, "before the yielded key");
    certified(&TENS, walk, &99, |db| remove(db, &10), true, "the yielded key");
}

/// `first` and `last` have read the gap up to the key that they found. On an empty database they
/// have read everything.
#[test]
fn first_and_last_read_up_to_what_they_found() {
    let first = |tx: &Transaction<u64, u64>| drop(tx.first().expect("succeeds"));
    let last = |tx: &Transaction<u64, u64>| drop(tx.last().expect("succeeds"));
    for (key, first_conflicts, last_conflicts) in
        [(5, true, false), (10, true, false), (15, false, false), (50, false, true), (55, false, true)]
    {
        let change = |db: &Database<u64, u64>| insert(db, key);
        certified(&TENS, first, &20, change, first_conflicts, &format!("{key}, first"));
        certified(&TENS, last, &20, change, last_conflicts, &format!("{key}, last"));
        certified(&[], first, &20, change, true, &format!("{key}, first of none"));
        certified(&[], last, &20, change, true, &format!("{key}, last of none"));
    }
}

/// Each of several iterators of one transaction is certified for its own part.
#[test]
fn several_iterators_are_certified_each() {
    let walk = |tx: &Transaction<u64, u64>| {
        let mut low = tx.range(..=20u64).expect("succeeds");
        let mut high = tx.range(40u64..).expect("succeeds");
        assert_eq!((low.next().expect("10").0, high.next().expect("40").0), (10, 40));
        assert_eq!((low.next().expect("20").0, high.next().expect("50").0), (20, 50));
    };
    for (key, conflicts) in [(15, true), (25, false), (35, false), (45, true), (55, false)] {
        certified(&TENS, walk, &99, |db| insert(db, key), conflicts, &format!("{key}"));
    }
}
