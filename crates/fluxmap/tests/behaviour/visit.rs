//! Visiting pairs instead of iterating over them: the same pairs in the same order, which of them
//! count as read, own writes, what the visitor may do, and which memory a visit holds back.

use crate::common::bench::{certified, insert, remove};
use fluxmap::{Database, FluxError, Snapshot, Transaction};
use futures::executor::block_on;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

const TENS: [u64; 5] = [10, 20, 30, 40, 50];
const ON: ControlFlow<()> = ControlFlow::Continue(());

fn filled(keys: impl IntoIterator<Item = u64>) -> Database<u64, u64> {
    let db = block_on(Database::new_in_memory()).expect("the defaults are valid");
    for key in keys {
        block_on(db.insert(key, key)).expect("an insert commits");
    }
    db
}

fn ok<T>(result: Result<T, FluxError>) -> T {
    result.expect("nothing is refused")
}

fn commit(tx: Transaction<u64, u64>) -> Result<(), FluxError> {
    block_on(tx.commit())
}

/// Compares the keys that a snapshot's visitor is shown with those that the iterator returns.
fn both_ways(snapshot: &Snapshot<u64, u64>, from: u64, to: u64) {
    let forward: Vec<u64> = snapshot.range(from..to).map(|(key, _)| key).collect();
    let mut seen = Vec::new();
    let flow = snapshot.range(from..to).visit(|key, value| {
        assert_eq!(key, &**value);
        seen.push(*key);
        ON
    });
    assert_eq!(ok(flow), ON);
    assert_eq!(seen, forward);
    assert_eq!(snapshot.range(from..to).count(), forward.len());
    let mut seen = Vec::new();
    let flow = snapshot.range(from..to).visit_back(|key, _| {
        seen.push(*key);
        ON
    });
    assert_eq!(ok(flow), ON);
    seen.reverse();
    assert_eq!(seen, forward);
}

#[test]
fn a_visitor_is_shown_what_an_iterator_returns() {
    let db = filled((0..3000).map(|n| n * 7919 % 3001));
    let snapshot = db.snapshot();
    for key in (0..3001).step_by(3) {
        block_on(db.remove(&key)).expect("a remove commits");
    }
    for snapshot in [snapshot, db.snapshot()] {
        for (from, to) in [(0, 3001), (5, 5), (9, 3), (63, 64), (100, 2000), (2999, 9999), (4000, 5000)] {
            both_ways(&snapshot, from, to);
        }
    }
}

#[test]
fn a_visitor_is_shown_what_the_iterator_has_left() {
    let db = filled(0..500);
    for (front, back) in [(0, 0), (1, 0), (0, 1), (3, 40), (40, 3), (250, 249), (250, 250), (500, 0)] {
        let range = || {
            let snapshot = db.snapshot();
            let mut range = snapshot.range(..);
            assert_eq!(range.by_ref().take(front).count(), front);
            assert_eq!(range.by_ref().rev().take(back).count(), back);
            range
        };
        let expected: Vec<u64> = (front as u64..500 - back as u64).collect();
        let mut seen = Vec::new();
        let flow = range().visit(|key, _| {
            seen.push(*key);
            ON
        });
        assert_eq!((ok(flow), &seen), (ON, &expected));
        let mut seen = Vec::new();
        let flow = range().visit_back(|key, _| {
            seen.insert(0, *key);
            ON
        });
        assert_eq!((ok(flow), &seen), (ON, &expected));
        assert_eq!(range().count(), expected.len());

        let tx = db.begin();
        let mut of_tx = tx.range(..).expect("a range");
        assert_eq!(of_tx.by_ref().take(front).count(), front);
        assert_eq!(of_tx.by_ref().rev().take(back).count(), back);
        let mut seen = Vec::new();
        let flow = of_tx.visit(|key, _| {
            seen.push(*key);
            ON
        });
        assert_eq!((ok(flow), &seen), (ON, &expected));
    }
}

#[test]
fn it_returns_what_the_visitor_breaks_with() {
    let db = filled(TENS);
    let found = db.snapshot().range(15..).visit(|key, _| match key % 20 {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(*key),
    });
    assert_eq!(ok(found), ControlFlow::Break(30));
    let tx = db.begin();
    let last =
        tx.range(..).expect("a range").visit_back(|key, value| ControlFlow::Break((*key, Arc::clone(value))));
    assert_eq!(ok(last), ControlFlow::Break((50, Arc::new(50))));
}

/// Visits `count` pairs from one end of 0..=60.
fn walk(tx: &Transaction<u64, u64>, count: usize, is_back: bool) {
    let (mut left, range) = (count, tx.range(0..=60).expect("a range"));
    let visit = |_: &u64, _: &Arc<u64>| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ON }
    };
    let flow = if is_back { range.visit_back(visit) } else { range.visit(visit) };
    assert_eq!(ok(flow), ControlFlow::Break(()));
}

/// A visit that breaks has read up to the pair at which it broke, and no further.
#[test]
fn an_early_break_reads_no_further() {
    for count in 1..=5 {
        for is_back in [false, true] {
            let last = if is_back { TENS[5 - count] } else { TENS[count - 1] };
            let walked = |key| key <= 60 && if is_back { key >= last } else { key <= last };
            let what = |key| format!("{key} after {count}, back: {is_back}");
            for key in [0, 5, 15, 25, 35, 45, 55, 60, 61] {
                certified(
                    &TENS,
                    |tx| walk(tx, count, is_back),
                    &99,
                    |db| insert(db, key),
                    walked(key),
                    &what(key),
                );
            }
            for key in TENS {
                certified(
                    &TENS,
                    |tx| walk(tx, count, is_back),
                    &99,
                    |db| remove(db, &key),
                    walked(key),
                    &what(key),
                );
            }
        }
    }
}

/// A visit that comes to the end has read the whole range, and nothing outside of it.
#[test]
fn a_visit_to_the_end_reads_the_range() {
    for key in [0, 5, 10, 35, 55, 60, 61] {
        let whole = |tx: &Transaction<u64, u64>| {
            let flow = tx.range(5..=60).expect("a range").visit(|_, _| ON);
            assert_eq!(ok(flow), ON);
        };
        certified(&TENS, whole, &99, |db| insert(db, key), (5..=60).contains(&key), &key.to_string());
        let count = |tx: &Transaction<u64, u64>| assert_eq!(ok(tx.count(5..=60)), 5);
        certified(&TENS, count, &99, |db| insert(db, key), (5..=60).contains(&key), &key.to_string());
    }
}

#[test]
fn own_writes_are_laid_over_in_either_direction() {
    let db = filled(TENS);
    let tx = db.begin();
    for key in [5, 20, 35, 36, 60] {
        tx.insert(key, key + 1000).expect("a write");
    }
    for key in [10, 40] {
        tx.remove(&key).expect("a remove");
    }
    tx.insert(7, 7).expect("a write");
    tx.remove(&7).expect("a remove");
    let expected = [(5, 1005), (20, 1020), (30, 30), (35, 1035), (36, 1036), (50, 50), (60, 1060)];
    let mut seen = Vec::new();
    let note = |key: &u64, value: &Arc<u64>, seen: &mut Vec<(u64, u64)>| {
        seen.push((*key, **value));
        ON
    };
    assert_eq!(ok(tx.range(..).expect("a range").visit(|key, value| note(key, value, &mut seen))), ON);
    assert_eq!(seen, expected);
    seen.clear();
    assert_eq!(ok(tx.range(..).expect("a range").visit_back(|key, value| note(key, value, &mut seen))), ON);
    seen.reverse();
    assert_eq!(seen, expected);
    seen.clear();
    assert_eq!(ok(tx.range(20..50).expect("a range").visit(|key, value| note(key, value, &mut seen))), ON);
    assert_eq!(seen, expected[1..5]);
    assert_eq!(ok(tx.count(..)), 7);
}

/// A visit that breaks at an own write has read up to that write.
#[test]
fn a_break_at_an_own_write_reads_up_to_it() {
    for (key, conflicts) in [(22, true), (24, true), (26, false), (30, false)] {
        let walk = |tx: &Transaction<u64, u64>| {
            tx.insert(25, 25).expect("a write");
            let flow = tx.range(..).expect("a range").visit(|key, _| match key {
                25 => ControlFlow::Break(()),
                _ => ON,
            });
            assert_eq!(ok(flow), ControlFlow::Break(()));
        };
        certified(&TENS, walk, &99, |db| insert(db, key), conflicts, &key.to_string());
    }
}

#[test]
fn the_visitor_may_write_ahead_of_itself_and_behind() {
    let db = filled(TENS);
    let tx = db.begin();
    let mut seen = Vec::new();
    let flow = tx.range(..).expect("a range").visit(|key, value| {
        seen.push((*key, **value));
        if *key == 20 {
            tx.insert(15, 1).expect("behind");
            tx.insert(25, 2).expect("ahead");
            tx.insert(30, 3).expect("in place of the next");
            tx.remove(&40).expect("one that would come");
        }
        if *key == 25 {
            tx.insert(27, 4).expect("ahead, at an own write");
        }
        if *key == 50 {
            tx.insert(60, 5).expect("behind the last");
        }
        ON
    });
    assert_eq!(ok(flow), ON);
    assert_eq!(seen, [(10, 10), (20, 20), (25, 2), (27, 4), (30, 3), (50, 50), (60, 5)]);
    // A write that is rolled back during the visit is not shown.
    let tx = db.begin();
    let before = tx.savepoint().expect("a savepoint");
    tx.insert(45, 45).expect("a write");
    let mut seen = Vec::new();
    let flow = tx.range(..).expect("a range").visit(|key, _| {
        seen.push(*key);
        if *key == 30 {
            tx.rollback_to(&before).expect("the rollback succeeds");
        }
        ON
    });
    assert_eq!((ok(flow), &seen[..]), (ON, &TENS[..]));
}

#[test]
fn the_visitor_may_use_the_database_commits_included() {
    let db = filled(0..2000);
    let snapshot = db.snapshot();
    let mut next = 0;
    let flow = snapshot.range(..).visit(|key, value| {
        assert_eq!((*key, **value), (next, next));
        next += 1;
        block_on(db.insert(*key, 1_000_000)).expect("a commit");
        block_on(db.remove(&(*key + 1))).expect("a commit");
        block_on(db.insert(key * 3 + 10_000, 0)).expect("a commit");
        assert_eq!(db.get(key).expect("a read").as_deref(), Some(&1_000_000));
        if key % 500 == 0 {
            assert_eq!(ok(snapshot.count(..)), 2000);
            let other = snapshot.range(..).visit_back(|key, _| ControlFlow::Break(*key));
            assert_eq!(ok(other), ControlFlow::Break(1999));
        }
        ON
    });
    assert_eq!((ok(flow), next), (ON, 2000));

    // A commit that the visitor makes beside its transaction conflicts with it if the transaction
    // has read the key.
    let tx = db.begin();
    let flow = tx.range(..).expect("a range").visit(|key, _| {
        let inner = db.begin();
        inner.insert(*key, 7).expect("a write");
        commit(inner).expect("it commits");
        ControlFlow::Break(())
    });
    assert_eq!(ok(flow), ControlFlow::Break(()));
    tx.insert(5, 5).expect("a write");
    assert!(matches!(commit(tx), Err(FluxError::SerializationConflict)));
}

#[test]
fn a_panicking_visitor_leaves_the_transaction_and_the_database_usable() {
    let db = filled(TENS);
    let snapshot = db.snapshot();
    let panics = |work: &dyn Fn()| assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
    panics(&|| drop(snapshot.range(..).visit(|_, _| -> ControlFlow<()> { panic!("planted") })));
    assert_eq!(ok(snapshot.count(..)), 5);
    let visit_and_panic = |tx: &Transaction<u64, u64>| {
        tx.insert(15, 15).expect("a write");
        let visit = || {
            let _ = tx.range(0..=60).expect("a range").visit(|key, _| match key {
                20 => panic!("planted"),
                _ => ON,
            });
        };
        panics(&visit);
        assert_eq!(ok(tx.count(..=20)), 3);
    };
    // The whole range counts as read.
    for key in [5, 20, 45, 55, 61] {
        certified(&TENS, visit_and_panic, &99, |db| insert(db, key), key <= 60, &key.to_string());
    }
    let tx = db.begin();
    visit_and_panic(&tx);
    commit(tx).expect("the transaction commits");
    assert_eq!(ok(db.count(..)), 6);
}

/// Values that are removed during a visit are freed, except for those of its last steps.
#[test]
fn a_long_visit_does_not_hold_memory_back() {
    let db: Database<u64, Arc<()>> = block_on(Database::new_in_memory()).expect("the defaults are valid");
    for key in 0..5000 {
        block_on(db.insert(key, Arc::new(()))).expect("an insert");
    }
    let census = Arc::new(());
    let mut most = 0;
    let flow = db.snapshot().range(..).visit(|_, _| {
        // This key is newer than the snapshot, which therefore keeps no version of it.
        block_on(db.insert(9999, Arc::clone(&census))).expect("an insert");
        most = most.max(Arc::strong_count(&census));
        ON
    });
    assert_eq!(ok(flow), ON);
    assert!(most < 1000, "{most} of 5000 values were there at once");
}

#[test]
fn at_the_snapshot_level_nothing_is_noted() {
    let db: Database<u64, u64> =
        block_on(Database::builder().isolation_level(fluxmap::IsolationLevel::Snapshot).build())
            .expect("it opens");
    block_on(db.insert(1, 1)).expect("an insert");
    let tx = db.begin();
    assert_eq!(ok(tx.range(..).expect("a range").visit(|_, _| ON)), ON);
    tx.insert(2, 2).expect("a write");
    block_on(db.insert(1, 2)).expect("an insert");
    ok(commit(tx));
}
