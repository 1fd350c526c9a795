//! A database of hostile keys and values, and the loop that plants a panic in every call that an
//! operation makes to user code.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fluxmap::{Database, FluxError, IsolationLevel, Transaction};
use fluxmap_testkit::hostile::{CALLS, Call, Fuse, HostileKey, HostileValue, Planted};
use fluxmap_testkit::ledger::Ledger;
use futures::executor::block_on;

use crate::common::{assert_nothing_pinned, open_at};

pub(crate) type Db = Database<HostileKey, HostileValue>;
pub(crate) type Tx = Transaction<HostileKey, HostileValue>;
pub(crate) type Content = Vec<(u64, u64)>;

/// A database of hostile keys, with a ledger of every key and value made for it.
pub(crate) struct Rig {
    pub(crate) ledger: Ledger,
    pub(crate) fuse: Fuse,
    pub(crate) db: Db,
}

impl Rig {
    /// A database of even keys below `2 * size`, some of them updated or deleted.
    pub(crate) fn new(level: IsolationLevel, size: u64) -> Self {
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

    pub(crate) fn key(&self, id: u64) -> HostileKey {
        HostileKey::new(id, &self.ledger, &self.fuse)
    }

    pub(crate) fn value(&self, number: u64) -> HostileValue {
        HostileValue::new(number, &self.ledger, &self.fuse)
    }

    pub(crate) fn insert(&self, id: u64, number: u64) {
        block_on(self.db.insert(self.key(id), self.value(number))).expect("an insert commits");
    }

    /// The content of the database, after asserting that all ways to read it agree.
    #[track_caller]
    pub(crate) fn content(&self) -> Content {
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

    /// Asserts that the store goes on working: it commits, frees old versions, and in the end drops
    /// all but `lost` objects.
    #[track_caller]
    pub(crate) fn works_on(self, what: &str, lost: usize) {
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
pub(crate) fn each_panic(what: &str, size: u64, work: impl Fn(&Rig)) {
    each_panic_after(what, size, |_| (), |rig, ()| work(rig));
}

/// As [`each_panic`], but first runs `prepare` without panics and hands its result to `work`.
pub(crate) fn each_panic_after<T>(
    what: &str,
    size: u64,
    prepare: impl Fn(&Rig) -> T,
    work: impl Fn(&Rig, T),
) {
    for level in [IsolationLevel::Serializable, IsolationLevel::Snapshot] {
        // Run once without panics, to learn the content before and after.
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
pub(crate) fn lost_by_the_compiler(call: Call) -> usize {
    if call == Call::Drop { 2 } else { 0 }
}
