//! Keys and values whose `Ord`, `Hash`, `Eq`, `Clone` and `Drop` panic. Each test runs an operation
//! with a panic planted in the first such call, then in the second, and so on until the operation
//! succeeds. After every panic the store must be wholly in the state before or wholly in the state
//! after the operation, its look-ups must agree with its scans, it must go on working, and nothing
//! may stay registered. In the end every key and value must have been dropped exactly once.

mod committing;
mod rig;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::common::commit;
use fluxmap::{IsolationLevel, Savepoint};
use fluxmap_testkit::hostile::{CALLS, Call};
use fluxmap_testkit::ledger::Ledger;
use futures::executor::block_on;
use rig::{Content, Rig, Tx, each_panic, each_panic_after, lost_by_the_compiler};

#[test]
fn panics_in_single_writes() {
    each_panic("insert", 20, |rig| rig.insert(11, 1));
    each_panic("overwrite", 20, |rig| rig.insert(10, 1));
    each_panic("remove", 20, |rig| {
        assert!(block_on(rig.db.remove(&rig.key(10))).expect("commits").is_some());
    });
    each_panic("remove of nothing", 20, |rig| {
        assert!(block_on(rig.db.remove(&rig.key(11))).expect("commits").is_none());
    });
    each_panic("update", 20, |rig| {
        let new = block_on(rig.db.update(&rig.key(10), |old| rig.value(old.number() + 1)));
        assert!(new.expect("commits").is_some());
    });
    each_panic("compare_and_swap", 20, |rig| {
        let expected = rig.value(4);
        let swapped = rig.db.compare_and_swap(rig.key(8), Some(&expected), Some(rig.value(9)));
        assert!(block_on(swapped).expect("commits"));
    });
    each_panic("get_or_insert_with", 20, |rig| {
        let made = block_on(rig.db.get_or_insert_with(rig.key(11), || rig.value(7)));
        assert_eq!(made.expect("commits").number(), 7);
    });
    each_panic("evict", 20, |rig| {
        assert!(block_on(rig.db.handle().evict(&rig.key(10))).expect("commits"));
    });
}

#[test]
fn panics_in_reads() {
    each_panic("get", 20, |rig| {
        assert_eq!(rig.db.get(&rig.key(8)).expect("succeeds").expect("there").number(), 4);
        assert!(rig.db.get(&rig.key(9)).expect("succeeds").is_none());
        assert!(rig.db.contains_key(&rig.key(8)).expect("succeeds"));
    });
    each_panic("scan", 12, |rig| {
        let view = rig.db.snapshot();
        let low = view.range(rig.key(3)..rig.key(9)).map(|(key, _)| key.id());
        assert!(low.is_sorted());
        assert!(view.range(..=rig.key(9)).rev().count() > 2);
        assert!(rig.db.first().expect("succeeds").is_some());
        assert!(rig.db.last().expect("succeeds").is_some());
    });
}

/// Reads in a transaction, also of its own writes, and the certification of both.
#[test]
fn panics_in_transactions() {
    let begun_before_a_commit = |rig: &Rig| {
        let tx = rig.db.begin();
        // A commit to certify against. It changes nothing that the transaction reads.
        rig.insert(50, 0);
        tx
    };
    each_panic_after("a transaction", 12, begun_before_a_commit, |rig, tx| {
        assert!(tx.get(&rig.key(8)).expect("succeeds").is_some());
        assert!(tx.get(&rig.key(9)).expect("succeeds").is_none());
        for id in [9, 8, 100] {
            tx.insert(rig.key(id), rig.value(id)).expect("succeeds");
        }
        tx.remove(&rig.key(4)).expect("succeeds");
        let low = tx.range(..rig.key(10)).expect("succeeds").map(|(key, _)| key.id());
        assert_eq!(low.collect::<Vec<_>>(), [0, 2, 8, 9]);
        let last = tx.range(rig.key(60)..).expect("succeeds").next_back();
        assert_eq!(last.expect("one").0.id(), 100);
        let savepoint = tx.savepoint().expect("succeeds");
        tx.insert(rig.key(9), rig.value(0)).expect("succeeds");
        tx.remove(&rig.key(0)).expect("succeeds");
        tx.rollback_to(&savepoint).expect("succeeds");
        commit(tx).expect("nothing that was read has changed");
    });
}

/// One commit of many new keys, so that the index has to grow.
#[test]
fn panics_while_the_store_grows() {
    for size in [0, 30] {
        each_panic("a large commit", size, |rig| {
            let tx = rig.db.begin();
            for id in 0..40 {
                let key = rig.key(2 * id + 1);
                tx.insert(key, rig.value(id)).expect("a write is buffered");
            }
            commit(tx).expect("it has read nothing");
        });
    }
    // Grow by one key at a time, through every size of a small store.
    for size in 0..40 {
        for call in [Call::Hash, Call::Compare, Call::Clone] {
            for nth in [1, 2, 3, 5, 8, 13, 21, 34, 55] {
                let rig = Rig::new(IsolationLevel::Serializable, size);
                let before = rig.content();
                rig.fuse.light(call, nth);
                let result = catch_unwind(AssertUnwindSafe(|| rig.insert(size, 7)));
                rig.fuse.put_out();
                let mut after: BTreeMap<u64, u64> = before.iter().copied().collect();
                after.insert(size, 7);
                let now = rig.content();
                let done = now == after.into_iter().collect::<Content>();
                assert!(done || (result.is_err() && now == before), "at {size}, {call:?} {nth}: {now:?}");
                rig.works_on("growth", 0);
            }
        }
    }
}

/// Garbage collection runs user code, too: `Ord` and `Hash` to find the keys to remove, `Drop` to
/// free them.
#[test]
fn panics_in_vacuum() {
    let garbage = |rig: &Rig| {
        let view = rig.db.snapshot();
        for id in [0, 2, 4] {
            rig.insert(id, 50);
            rig.insert(id, 51);
        }
        for id in [8, 10] {
            block_on(rig.db.remove(&rig.key(id))).expect("a remove commits");
        }
        view
    };
    each_panic_after("vacuum", 12, garbage, |rig, view| {
        drop(view);
        block_on(rig.db.vacuum()).expect("vacuum succeeds");
    });
}

type Step = fn(&Rig, &Tx);

/// Begins a transaction that writes keys 3 and 60, and sets a savepoint after that.
fn begun(rig: &Rig) -> (Tx, Savepoint) {
    let tx = rig.db.begin();
    tx.insert(rig.key(3), rig.value(1)).expect("a write is buffered");
    tx.insert(rig.key(60), rig.value(1)).expect("a write is buffered");
    let savepoint = tx.savepoint().expect("a savepoint is set");
    (tx, savepoint)
}

/// Writes once more, and commits.
fn ended(rig: &Rig, tx: Tx) -> Content {
    tx.insert(rig.key(13), rig.value(1)).expect("a write is buffered");
    commit(tx).expect("no other transaction writes");
    rig.content()
}

/// A panic in one call of a transaction does not spoil the transaction. The call has taken effect
/// or not, a rollback to a savepoint undoes it in either case, and the rest commits.
#[test]
fn a_transaction_survives_a_panic_in_one_of_its_calls() {
    let steps: [(&str, Step); 8] = [
        ("insert", |rig, tx| tx.insert(rig.key(11), rig.value(5)).expect("succeeds")),
        ("overwrite", |rig, tx| tx.insert(rig.key(3), rig.value(6)).expect("succeeds")),
        ("remove", |rig, tx| drop(tx.remove(&rig.key(8)).expect("succeeds"))),
        ("remove of an own write", |rig, tx| drop(tx.remove(&rig.key(3)).expect("succeeds"))),
        ("get", |rig, tx| {
            tx.get(&rig.key(8)).expect("succeeds");
            tx.get(&rig.key(9)).expect("succeeds");
            tx.get(&rig.key(3)).expect("succeeds");
        }),
        ("range", |_, tx| {
            let mut items = tx.range(..).expect("succeeds");
            assert_eq!(items.next().expect("some").0.id(), 0);
            assert_eq!(items.next_back().expect("some").0.id(), 60);
            assert!(items.count() > 3);
        }),
        ("savepoint", |_, tx| assert!(tx.savepoint().is_ok())),
        ("update", |rig, tx| {
            tx.update(&rig.key(8), |old| rig.value(old.number() + 1)).expect("succeeds");
        }),
    ];
    for (what, step) in steps {
        let outcome = |stepped: bool| {
            let rig = Rig::new(IsolationLevel::Serializable, 12);
            let (tx, _) = begun(&rig);
            if stepped {
                step(&rig, &tx);
            }
            ended(&rig, tx)
        };
        let (before, after) = (outcome(false), outcome(true));
        for (call, undo) in CALLS.into_iter().flat_map(|call| [(call, false), (call, true)]) {
            for nth in 1.. {
                let what = format!("{what}, panic in {call:?} number {nth}, undone: {undo}");
                let rig = Rig::new(IsolationLevel::Serializable, 12);
                let (tx, savepoint) = begun(&rig);
                rig.fuse.light(call, nth);
                let result = catch_unwind(AssertUnwindSafe(|| step(&rig, &tx)));
                let through = rig.fuse.put_out();
                if undo {
                    tx.rollback_to(&savepoint).expect("the savepoint is there");
                    assert_eq!(ended(&rig, tx), before, "{what}");
                } else {
                    let now = ended(&rig, tx);
                    assert!(now == after || (result.is_err() && now == before), "{what}\n{now:?}");
                }
                rig.works_on(&what, lost_by_the_compiler(call));
                // The step made fewer such calls, so every one of them has been tried.
                if through {
                    break;
                }
            }
        }
    }
}

/// A panic during a rollback to a savepoint leaves the writes as before or as after the rollback,
/// which can then be tried again.
#[test]
fn a_panic_in_a_return_to_a_savepoint() {
    let seen = |tx: &Tx| -> Content {
        let items = tx.range(..).expect("a range succeeds");
        items.map(|(key, value)| (key.id(), value.number())).collect()
    };
    for call in CALLS {
        for nth in 1.. {
            let rig = Rig::new(IsolationLevel::Serializable, 3);
            let (tx, savepoint) = begun(&rig);
            let after = seen(&tx);
            for id in [3, 5, 7, 60] {
                tx.insert(rig.key(id), rig.value(2)).expect("a write is buffered");
            }
            tx.remove(&rig.key(2)).expect("a remove succeeds");
            tx.remove(&rig.key(3)).expect("a remove succeeds");
            let before = seen(&tx);
            rig.fuse.light(call, nth);
            let result = catch_unwind(AssertUnwindSafe(|| tx.rollback_to(&savepoint)));
            let through = rig.fuse.put_out();
            let now = seen(&tx);
            assert!(now == after || (result.is_err() && now == before), "{call:?} number {nth}: {now:?}");
            tx.rollback_to(&savepoint).expect("the savepoint is still there");
            assert_eq!(seen(&tx), after, "{call:?} number {nth}, the second time");
            commit(tx).expect("no other transaction writes");
            assert_eq!(rig.content(), after);
            rig.works_on("a return to a savepoint", lost_by_the_compiler(call));
            if through {
                break;
            }
        }
    }
}

/// Drops a database, a snapshot or a transaction in which some key or value panics when it is
/// dropped. The panic may come out or be swallowed, but everything else must be dropped all the
/// same.
#[test]
fn panics_in_drops_leak_nothing() {
    type Work = fn(Rig) -> Ledger;
    let drops: [(&str, Work); 3] = [
        ("database", |rig| {
            drop(rig.db);
            rig.ledger
        }),
        ("snapshot, then database", |rig| {
            let view = rig.db.snapshot();
            for id in 0..6 {
                rig.insert(id, 9);
            }
            drop(rig.db);
            drop(view);
            rig.ledger
        }),
        ("transaction, then database", |rig| {
            let tx = rig.db.begin();
            for id in 0..6 {
                tx.insert(rig.key(id), rig.value(9)).expect("a write is buffered");
            }
            drop(tx);
            drop(rig.db);
            rig.ledger
        }),
    ];
    for (what, work) in drops {
        for nth in 1.. {
            let rig = Rig::new(IsolationLevel::Serializable, 12);
            let (ledger, fuse) = (rig.ledger.clone(), rig.fuse.clone());
            fuse.light(Call::Drop, nth);
            let result = catch_unwind(AssertUnwindSafe(|| drop(work(rig))));
            let through = fuse.put_out();
            assert!(result.is_ok() || !through);
            assert_eq!(ledger.dropped_twice(), 0, "{what}, drop number {nth}");
            assert_eq!(ledger.live(), 0, "{what}, drop number {nth}: something leaked");
            if through {
                break;
            }
        }
    }
}
