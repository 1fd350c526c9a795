//! Phantoms: changes that conflict with a range that another transaction has walked to its end. The
//! rule is exact in both directions: at `Serializable` a change inside the range refuses the
//! walking transaction, a change anywhere else does not. At `Snapshot` ranges are not certified,
//! and the walking transaction always commits.

use std::ops::Bound::{self, Excluded, Included, Unbounded};

use crate::common::bench::{certified, insert, remove};
use crate::common::{LEVELS, commit, open_at};
use fluxmap::{Database, IsolationLevel, Transaction};
use futures::executor::block_on;

/// Walks 10..=20 to its end.
fn walk_all(tx: &Transaction<u64, u64>) {
    tx.range(10..=20u64).expect("a range succeeds").for_each(drop);
}

/// An insert, a delete, an update and a re-insert inside a walked range are all phantoms, which
/// Serializable refuses.
#[test]
fn every_kind_of_change_is_a_phantom() {
    let items = [5, 12, 25];
    type Change = fn(&Database<u64, u64>);
    let changes: [(&str, Change); 5] = [
        ("insert", |db| insert(db, 15)),
        ("update", |db| insert(db, 12)),
        ("delete", |db| remove(db, &12)),
        ("delete and re-insert", |db| {
            remove(db, &12);
            insert(db, 12);
        }),
        ("insert and delete", |db| {
            insert(db, 15);
            remove(db, &15);
        }),
    ];
    for (what, change) in changes {
        certified(&items, walk_all, &1, change, true, what);
    }
}

/// A key that was deleted before the walk and inserted again after it is a phantom, although the
/// walk did not return it.
#[test]
fn a_re_inserted_key_is_a_phantom() {
    for vacuum in [false, true] {
        for level in LEVELS {
            let db = open_at(level);
            insert(&db, 12);
            remove(&db, &12);
            if vacuum {
                block_on(db.vacuum()).expect("vacuum succeeds");
            }
            let walker = db.begin();
            assert_eq!(walker.count(10..=20u64).expect("succeeds"), 0);
            walker.insert(1, 1).expect("a write is buffered");
            insert(&db, 12);
            let refused = commit(walker).is_err();
            assert_eq!(refused, level == IsolationLevel::Serializable, "vacuum: {vacuum}");
        }
    }
}

/// A delete that was committed before the walker began is no change.
#[test]
fn what_changed_before_the_snapshot_is_no_phantom() {
    let before = |db: &Database<u64, u64>| {
        insert(db, 12);
        remove(db, &12);
        insert(db, 13);
    };
    for level in LEVELS {
        let db = open_at(level);
        before(&db);
        let walker = db.begin();
        walk_all(&walker);
        walker.insert(1, 1).expect("a write is buffered");
        commit(walker).expect("nothing has changed since");
    }
}

/// The walker's own writes inside its range are no phantoms to itself.
#[test]
fn own_writes_are_no_phantoms() {
    let walk = |tx: &Transaction<u64, u64>| {
        tx.insert(15, 1).expect("a write is buffered");
        tx.remove(&12).expect("a remove succeeds");
        walk_all(tx);
    };
    certified(&[12, 14], walk, &1, |_| (), false, "own writes");
    certified(&[12, 14], walk, &1, |db| insert(db, 16), true, "beside own writes");
}

/// At the ends of ranges of every kind, a change conflicts exactly if the range contains the key.
/// Each range is walked to its end upwards, downwards, by a count and as a stream.
#[test]
fn range_ends_are_exact() {
    let ranges = [
        (Included(10), Excluded(20)),
        (Included(10), Included(20)),
        (Excluded(10), Excluded(20)),
        (Excluded(10), Included(20)),
        (Included(10), Unbounded),
        (Excluded(10), Unbounded),
        (Unbounded, Excluded(20)),
        (Unbounded, Included(20)),
        (Unbounded, Unbounded),
        (Included(10), Included(10)),
        (Included(10), Excluded(11)),
    ];
    type Walk = fn(&Transaction<u64, u64>, (Bound<u64>, Bound<u64>));
    let walks: [(&str, Walk); 4] = [
        ("upwards", |tx, range| tx.range(range).expect("succeeds").for_each(drop)),
        ("downwards", |tx, range| tx.range(range).expect("succeeds").rev().for_each(drop)),
        ("count", |tx, range| {
            tx.count(range).expect("succeeds");
        }),
        ("stream", |tx, range| {
            use futures::StreamExt;
            let items = block_on(tx.range_stream(range).collect::<Vec<_>>());
            items.into_iter().for_each(|item| drop(item.expect("succeeds")));
        }),
    ];
    for range in ranges {
        for key in [9, 10, 11, 15, 19, 20, 21] {
            let inside = std::ops::RangeBounds::contains(&range, &key);
            for (how, walk) in walks {
                let what = format!("{key} into {range:?} {how}");
                let walk = |tx: &Transaction<u64, u64>| walk(tx, range);
                certified(&[14, 16], walk, &999_999, |db| insert(db, key), inside, &what);
                certified(&[10, 14, 20], walk, &999_999, |db| insert(db, key), inside, &what);
            }
        }
    }
}

/// The same with Rust's own range types.
#[test]
fn range_types_are_exact() {
    type Walk = fn(&Transaction<u64, u64>) -> usize;
    let walks: [(&str, Walk, [bool; 5]); 6] = [
        ("10..20", |tx| tx.count(10..20u64).expect("succeeds"), [false, true, true, false, false]),
        ("10..=20", |tx| tx.count(10..=20u64).expect("succeeds"), [false, true, true, true, false]),
        ("10..", |tx| tx.count(10u64..).expect("succeeds"), [false, true, true, true, true]),
        ("..20", |tx| tx.count(..20u64).expect("succeeds"), [true, true, true, false, false]),
        ("..=20", |tx| tx.count(..=20u64).expect("succeeds"), [true, true, true, true, false]),
        ("..", |tx| tx.count(..).expect("succeeds"), [true; 5]),
    ];
    for (range, walk, inside) in walks {
        for (key, inside) in [9, 10, 15, 20, 21].into_iter().zip(inside) {
            let walk = |tx: &Transaction<u64, u64>| assert_eq!(walk(tx), 0);
            let what = format!("{key} into {range}");
            certified(
                &[],
                walk,
                &999_999,
                |db| {
                    // Some ranges contain the walker's own key, which is not the key that is
                    // changed here.
                    insert(db, key);
                },
                inside,
                &what,
            );
        }
    }
}

/// A prefix over text contains the keys that start with it, and neither their neighbours nor keys
/// that only sort near them.
#[test]
fn prefix_edges_of_text_are_exact() {
    let cases = [
        ("ab", "a", false),
        ("ab", "aa\u{10ffff}", false),
        ("ab", "ab", true),
        ("ab", "ab\0", true),
        ("ab", "abzzz", true),
        ("ab", "ab\u{10ffff}\u{10ffff}", true),
        ("ab", "ac", false),
        ("a\u{10ffff}", "a\u{10ffff}", true),
        ("a\u{10ffff}", "a\u{10ffff}\u{10ffff}", true),
        ("a\u{10ffff}", "b", false),
        ("\u{10ffff}", "\u{10ffff}z", true),
        ("\u{10ffff}", "\u{10fffe}z", false),
        ("é", "éa", true),
        ("é", "e", false),
        ("é", "ê", false),
        ("\u{7f}", "\u{80}", false),
        ("\u{d7ff}", "\u{e000}", false),
        ("", "", true),
        ("", "anything", true),
    ];
    for (prefix, key, inside) in cases {
        for reverse in [false, true] {
            let walk = |tx: &Transaction<String, u64>| {
                let items = tx.prefix(prefix).expect("succeeds");
                if reverse {
                    items.rev().for_each(drop);
                } else {
                    items.for_each(drop);
                }
            };
            let what = format!("{key:?} into prefix {prefix:?}");
            let change = |db: &Database<String, u64>| insert(db, key.to_owned());
            let own = "zzz own".to_owned();
            certified(&[], walk, &own, change, inside, &what);
            certified(&["abm".to_owned()], walk, &own, change, inside, &what);
        }
    }
}

/// A prefix over bytes, up to the largest byte, which has no successor.
#[test]
fn prefix_edges_of_bytes_are_exact() {
    let cases: [(&[u8], &[u8], bool); 12] = [
        (&[1, 255], &[1, 254, 255], false),
        (&[1, 255], &[1, 255], true),
        (&[1, 255], &[1, 255, 0], true),
        (&[1, 255], &[1, 255, 255, 255], true),
        (&[1, 255], &[2], false),
        (&[1, 255], &[1], false),
        (&[255, 255], &[255, 254, 255], false),
        (&[255, 255], &[255, 255], true),
        (&[255, 255], &[255, 255, 255], true),
        (&[0], &[], false),
        (&[0], &[0, 0], true),
        (&[], &[], true),
    ];
    for (prefix, key, inside) in cases {
        let walk = |tx: &Transaction<Vec<u8>, u64>| {
            tx.prefix(prefix).expect("succeeds").for_each(drop);
        };
        let what = format!("{key:?} into prefix {prefix:?}");
        let change = |db: &Database<Vec<u8>, u64>| insert(db, key.to_owned());
        certified(&[], walk, &vec![77], change, inside, &what);
    }
}

/// A range whose lower end is above its upper end is empty: it neither panics nor returns an item.
#[test]
fn an_inverted_range_is_empty() {
    let walk = |tx: &Transaction<u64, u64>| {
        assert_eq!(tx.count((Included(40), Included(20))).expect("succeeds"), 0);
        assert_eq!(tx.count((Excluded(30), Excluded(30))).expect("succeeds"), 0);
        assert_eq!(tx.range((Excluded(30), Included(20))).expect("succeeds").rev().count(), 0);
    };
    certified(
        &[10, 20, 30, 40, 50],
        walk,
        &99,
        |db| insert(db, 25),
        false,
        "an inverted range reads nothing",
    );
}
