//! Keys and values whose `Ord`, `Hash`, `Eq`, `Clone` and `Drop` panic. Every
//! operation is run with a panic planted in the first call, the second, and so on
//! until it gets through. Whatever panicked, the store is then wholly before or wholly
//! after the operation, its look-ups agree with its scans, it works on, nothing
//! stays registered, and in the end every key and value was dropped exactly once.
//!
//! Keys that break the contracts of those traits may get wrong answers, but do no
//! harm to memory; keys whose hashes all collide get right ones.

mod common;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use common::{assert_nothing_pinned, commit, open, open_at};
use fluxmap::{Database, FluxError, IsolationLevel, Transaction};
use fluxmap_testkit::hostile::{CALLS, Call, Fuse, HostileKey, HostileValue, Liar, Planted, SameHash};
use fluxmap_testkit::ledger::{Ledger, Tracked};
use fluxmap_testkit::workload::Seed;
use futures::executor::block_on;
use rand::Rng;

type Db = Database<HostileKey, HostileValue>;
type Tx = Transaction<HostileKey, HostileValue>;
type Content = Vec<(u64, u64)>;

/// A database of hostile keys, with the book of all that was made for it.
struct Rig {
    ledger: Ledger,
    fuse: Fuse,
    db: Db,
}

impl Rig {
    /// Even keys below `2 * size`, among them updated and deleted ones.
    fn new(level: IsolationLevel, size: u64) -> Self {
        let rig = Rig { ledger: Ledger::default(), fuse: Fuse::default(), db: open_at(level) };
        for id in 0..size {
            rig.insert(2 * id, id);
        }
        for id in (0..size).step_by(5) {
            rig.insert(2 * id, id + 100);
        }
        for id in (3..size).step_by(7) {
            block_on(rig.db.remove(&rig.key(2 * id))).expect("a remove commits");
        }
        rig
    }

    fn key(&self, id: u64) -> HostileKey {
        HostileKey::new(id, &self.ledger, &self.fuse)
    }

    fn value(&self, number: u64) -> HostileValue {
        HostileValue::new(number, &self.ledger, &self.fuse)
    }

    fn insert(&self, id: u64, number: u64) {
        block_on(self.db.insert(self.key(id), self.value(number))).expect("an insert commits");
    }

    /// Everything, after asserting that all ways to read agree on it.
    #[track_caller]
    fn content(&self) -> Content {
        let plain = |(key, value): (HostileKey, Arc<HostileValue>)| (key.id(), value.number());
        let view = self.db.snapshot();
        let up: Content = view.range(..).map(plain).collect();
        let mut down: Content = view.range(..).rev().map(plain).collect();
        down.reverse();
        assert_eq!(up, down, "up and down agree");
        assert!(up.is_sorted_by(|a, b| a.0 < b.0), "the order is strict: {up:?}");
        assert_eq!(view.count(..).expect("a count succeeds"), up.len());
        let last = up.last().map_or(0, |item| item.0);
        for id in 0..last + 4 {
            let expected = up.iter().find(|item| item.0 == id).map(|item| item.1);
            let found = view.get(&self.key(id)).expect("a read succeeds").map(|value| value.number());
            assert_eq!(found, expected, "look-up and scan agree on {id}");
            let from = view.range(self.key(id)..).next().map(|item| item.0.id());
            let expected = up.iter().map(|item| item.0).find(|&next| next >= id);
            assert_eq!(from, expected, "a range from {id} starts where it should");
        }
        up
    }

    /// The store works on: it commits, forgets, and drops all but `lost` in the end.
    #[track_caller]
    fn works_on(self, what: &str, lost: usize) {
        let before = self.content();
        assert_nothing_pinned(&self.db);
        for id in [1, 77, 1000] {
            self.insert(id, 1);
            self.insert(id, 2);
        }
        let counted = block_on(self.db.transact(async |tx| {
            let there = tx.get(&self.key(77))?.is_some();
            tx.remove(&self.key(77))?;
            Ok::<_, FluxError>(there)
        }));
        assert!(counted.expect("a transaction commits"), "{what}");
        block_on(self.db.remove(&self.key(1))).expect("a remove commits");
        block_on(self.db.remove(&self.key(1000))).expect("a remove commits");
        block_on(self.db.vacuum()).expect("vacuum succeeds");
        let after: Content = before.into_iter().filter(|item| ![1, 77, 1000].contains(&item.0)).collect();
        assert_eq!(self.content(), after, "{what}");
        assert_nothing_pinned(&self.db);
        let info = self.db.memory_info();
        assert_eq!((info.keys, info.versions), (after.len() as u64, after.len() as u64), "{what}");
        drop(self.db);
        assert_eq!(self.ledger.dropped_twice(), 0, "{what}");
        assert!(self.ledger.live() <= lost, "{what}: {} leaked", self.ledger.live());
    }
}

/// Runs `work` on rigs of `size` with a panic in each call of each kind.
fn each_panic(what: &str, size: u64, work: impl Fn(&Rig)) {
    each_panic_after(what, size, |_| (), |rig, ()| work(rig));
}

/// The same, where `prepare` runs without panics first and hands something over.
fn each_panic_after<T>(what: &str, size: u64, prepare: impl Fn(&Rig) -> T, work: impl Fn(&Rig, T)) {
    for level in [IsolationLevel::Serializable, IsolationLevel::Snapshot] {
        let rig = Rig::new(level, size);
        let prepared = prepare(&rig);
        let before = rig.content();
        work(&rig, prepared);
        let after = rig.content();
        rig.works_on(what, 0);

        for call in CALLS {
            for nth in 1.. {
                assert!(nth < 5_000, "{what} gets through");
                let what = format!("{what} at {level:?}, panic in {call:?} number {nth}");
                let rig = Rig::new(level, size);
                let prepared = prepare(&rig);
                rig.fuse.light(call, nth);
                let result = catch_unwind(AssertUnwindSafe(|| work(&rig, prepared)));
                let through = rig.fuse.put_out();
                let now = rig.content();
                match result {
                    Ok(()) => assert_eq!(now, after, "{what}: it succeeded"),
                    Err(panic) => {
                        assert!(panic.is::<Planted>(), "{what}: another panic");
                        assert!(now == before || now == after, "{what}: half done\n{now:?}");
                    }
                }
                rig.works_on(&what, lost_by_the_compiler(call));
                if through {
                    break;
                }
            }
        }
    }
}

/// When a destructor panics as a function returns, the compiler leaks the value that
/// the function was about to return (rust-lang/rust#47949): at most one key with one
/// value. No library can prevent that; every other panic must lose nothing.
fn lost_by_the_compiler(call: Call) -> usize {
    if call == Call::Drop { 2 } else { 0 }
}

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

/// Reads in a transaction, over its own writes, and the certification of both.
#[test]
fn panics_in_transactions() {
    let begun_before_a_commit = |rig: &Rig| {
        let tx = rig.db.begin();
        // Something to be certified against: it changes nothing that is read.
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

/// One commit of many new keys, so that the store's own structure has to grow.
#[test]
fn panics_while_the_store_grows() {
    for size in [0, 30] {
        each_panic("a large commit", size, |rig| {
            let tx = rig.db.begin();
            for id in 0..40 {
                let key = rig.key(2 * id + 1);
                tx.insert(key, rig.value(id)).expect("a write is buffered");
            }
            commit(tx).expect("it is blind");
        });
    }
    // Growth one key at a time: every size of a small store is passed.
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

/// Garbage collection runs user code, too: `Ord` and `Hash` to find what goes, `Drop`
/// to let it go.
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

/// A panic in one call of a transaction does not spoil the transaction: the call has
/// happened or not, and the rest commits.
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
        ("savepoint", |_, tx| drop(tx.savepoint().expect("succeeds"))),
        ("update", |rig, tx| {
            tx.update(&rig.key(8), |old| rig.value(old.number() + 1)).expect("succeeds");
        }),
    ];
    let begun = |rig: &Rig| {
        let tx = rig.db.begin();
        tx.insert(rig.key(3), rig.value(1)).expect("a write is buffered");
        tx.insert(rig.key(60), rig.value(1)).expect("a write is buffered");
        tx
    };
    let ended = |rig: &Rig, tx: Tx| {
        tx.insert(rig.key(13), rig.value(1)).expect("a write is buffered");
        commit(tx).expect("nobody else writes");
        rig.content()
    };
    for (what, step) in steps {
        let outcome = |stepped: bool| {
            let rig = Rig::new(IsolationLevel::Serializable, 12);
            let tx = begun(&rig);
            if stepped {
                step(&rig, &tx);
            }
            ended(&rig, tx)
        };
        let (before, after) = (outcome(false), outcome(true));
        for call in CALLS {
            for nth in 1.. {
                let what = format!("{what}, panic in {call:?} number {nth}");
                let rig = Rig::new(IsolationLevel::Serializable, 12);
                let tx = begun(&rig);
                rig.fuse.light(call, nth);
                let result = catch_unwind(AssertUnwindSafe(|| step(&rig, &tx)));
                let through = rig.fuse.put_out();
                let now = ended(&rig, tx);
                assert!(now == after || (result.is_err() && now == before), "{what}\n{now:?}");
                rig.works_on(&what, lost_by_the_compiler(call));
                if through {
                    break;
                }
            }
        }
    }
}

/// A panic under a return to a savepoint leaves the writes as before or as after it.
#[test]
fn a_panic_in_a_return_to_a_savepoint() {
    for call in CALLS {
        for nth in 1.. {
            let rig = Rig::new(IsolationLevel::Serializable, 3);
            let tx = rig.db.begin();
            for id in [1, 3, 5] {
                tx.insert(rig.key(id), rig.value(1)).expect("a write is buffered");
            }
            let savepoint = tx.savepoint().expect("a savepoint is set");
            for id in [3, 5, 7, 9] {
                tx.insert(rig.key(id), rig.value(2)).expect("a write is buffered");
            }
            tx.remove(&rig.key(1)).expect("a remove succeeds");
            let seen = |tx: &Tx| -> Content {
                let items = tx.range(..).expect("a range succeeds");
                items.map(|(key, value)| (key.id(), value.number())).collect()
            };
            let before = seen(&tx);
            rig.fuse.light(call, nth);
            let result = catch_unwind(AssertUnwindSafe(|| tx.rollback_to(&savepoint)));
            let through = rig.fuse.put_out();
            let now = seen(&tx);
            let after = [(0, 100), (1, 1), (2, 1), (3, 1), (4, 2), (5, 1)];
            assert!(now == after || (result.is_err() && now == before), "{call:?} number {nth}: {now:?}");
            commit(tx).expect("nobody else writes");
            assert_eq!(rig.content(), now);
            rig.works_on("a return to a savepoint", lost_by_the_compiler(call));
            if through {
                break;
            }
        }
    }
}

/// Dropping a database, a snapshot or a transaction in which some key or value panics
/// when dropped: the panic comes out or is swallowed, the rest is dropped all the same.
#[test]
fn panics_in_drops_leak_nothing() {
    let drops: [(&str, fn(Rig) -> Ledger); 3] = [
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

/// All hashes collide: every answer is right all the same.
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
                commit(tx).expect("nobody else writes");
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

    // A change goes unseen behind no collision. (That a change of another key with the
    // same hash refuses as well is allowed.)
    let tx = db.begin();
    tx.get(&SameHash(900)).expect("a read succeeds");
    tx.insert(SameHash(901), 1).expect("a write is buffered");
    block_on(db.insert(SameHash(900), 1)).expect("an insert commits");
    assert!(matches!(commit(tx), Err(FluxError::SerializationConflict)));
}

/// Keys that lie about their order may lose things, and even make a call panic; they
/// corrupt nothing, end every call, and everything is dropped once.
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
            // What a call answers, or whether it panics, is not specified.
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
