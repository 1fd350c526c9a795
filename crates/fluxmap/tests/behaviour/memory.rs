//! Memory that is no longer reachable is given back (defect 17 of the list: vacuum reclaimed
//! nothing after 10,000 updates of one key, and a dropped database leaked every value). The tests
//! count living keys and values; nothing is timed.

use std::thread;
use std::time::Duration;

use crate::common::{LEVELS, assert_nothing_pinned, commit, open, open_at};
use fluxmap::{Database, FluxError, VacuumOptions};
use fluxmap_testkit::ledger::{Ledger, Tracked};
use futures::StreamExt;
use futures::executor::block_on;

type Store = Database<u64, Tracked<u64>>;

/// A bound on the garbage that waits to be freed at any time in a steady state, however much was
/// written. It is far below the number of writes of each test.
const SLACK: usize = 600;

fn put(db: &Store, ledger: &Ledger, key: u64, value: u64) {
    block_on(db.insert(key, ledger.track(value))).expect("an insert commits");
}

fn vacuum<K, V>(db: &Database<K, V>) -> (usize, usize)
where
    K: Ord + std::hash::Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let removed = block_on(db.vacuum()).expect("vacuum succeeds");
    (removed.versions_removed, removed.keys_removed)
}

#[track_caller]
fn all_gone(ledger: &Ledger) {
    assert_eq!(ledger.live(), 0, "of {} made", ledger.made());
    assert_eq!(ledger.dropped_twice(), 0);
}

/// 17: 10,000 updates of one key leave a handful of versions although nothing calls vacuum, one
/// version after a vacuum, and none when the database is dropped.
#[test]
fn defect_17_updates_of_one_key_stay_flat() {
    for level in LEVELS {
        let ledger = Ledger::default();
        let db: Store = open_at(level);
        for value in 0..10_000 {
            put(&db, &ledger, 1, value);
            assert!(ledger.live() <= SLACK, "{} live after {value} updates", ledger.live());
        }
        assert!(db.memory_info().versions <= SLACK as u64);
        vacuum(&db);
        let info = db.memory_info();
        assert_eq!((info.keys, info.versions), (1, 1));
        assert!(ledger.live() <= SLACK);
        drop(db);
        all_gone(&ledger);
    }
}

/// The same while there are short snapshots and transactions, each of which holds back the versions
/// that it needs and no others.
#[test]
fn short_snapshots_do_not_pile_up_versions() {
    let ledger = Ledger::default();
    let db: Store = open();
    put(&db, &ledger, 1, 0);
    let mut view = db.snapshot();
    for value in 1..5_000 {
        let tx = db.begin();
        assert_eq!(tx.get(&1).expect("a read succeeds").expect("it is there").value, value - 1);
        tx.insert(1, ledger.track(value)).expect("a write is buffered");
        commit(tx).expect("no other transaction writes");
        if value % 10 == 0 {
            assert_eq!(view.get(&1).expect("a read succeeds").expect("it is there").value, value - 10);
            view = db.snapshot();
        }
        assert!(ledger.live() <= SLACK, "{} live after {value} updates", ledger.live());
    }
    drop(view);
    vacuum(&db);
    assert_eq!(db.memory_info().versions, 1);
    drop(db);
    all_gone(&ledger);
}

/// A queue: keys come in at one end and go out at the other. There are never more keys and values
/// than the queue is long, apart from garbage, although nothing calls vacuum.
#[test]
fn inserts_and_deletes_stay_flat() {
    const LENGTH: u64 = 20;
    let (keys, values) = (Ledger::default(), Ledger::default());
    let db: Database<Counted, Tracked<u64>> = open();
    for number in 0..4_000 {
        block_on(db.insert(Counted(keys.track(number)), values.track(number))).expect("an insert commits");
        if number >= LENGTH {
            let oldest = Counted(keys.track(number - LENGTH));
            let removed = block_on(db.remove(&oldest)).expect("a remove commits");
            assert_eq!(removed.map(|value| value.value), Some(number - LENGTH));
        }
        let info = db.memory_info();
        assert!(info.keys <= SLACK as u64 && info.versions <= SLACK as u64, "{info:?} at {number}");
        assert!(values.live() <= SLACK, "{} values at {number}", values.live());
        assert!(keys.live() <= 4 * SLACK, "{} keys at {number}", keys.live());
    }
    assert_eq!(db.count(..).expect("a count succeeds"), LENGTH as usize);
    vacuum(&db);
    let info = db.memory_info();
    assert_eq!((info.keys, info.versions), (LENGTH, LENGTH));
    drop(db);
    all_gone(&keys);
    all_gone(&values);
}

/// A key that counts its instances.
#[derive(Clone)]
struct Counted(Tracked<u64>);

impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        self.0.value == other.0.value
    }
}
impl Eq for Counted {}
impl PartialOrd for Counted {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Counted {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.value.cmp(&other.0.value)
    }
}
impl std::hash::Hash for Counted {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.value.hash(state);
    }
}

/// Once a snapshot is released, vacuum removes the versions that it held back, reports them, and
/// finds nothing the second time.
#[test]
fn vacuum_removes_what_a_snapshot_held_back() {
    let ledger = Ledger::default();
    let db: Store = open();
    for key in 0..10 {
        put(&db, &ledger, key, 0);
    }
    let view = db.snapshot();
    for key in 0..10 {
        for value in 1..50 {
            put(&db, &ledger, key, value);
        }
    }
    for key in 0..5 {
        drop(block_on(db.remove(&key)).expect("a remove commits"));
    }
    vacuum(&db);
    let held = db.memory_info();
    assert!(held.versions >= 15, "ten old versions and five new ones are in use: {held:?}");
    assert_eq!(held.live_snapshots, 1);
    assert_eq!(view.count(..).expect("a count succeeds"), 10);
    assert!(view.range(..).all(|(_, value)| value.value == 0));

    drop(view);
    let before = db.memory_info();
    let (versions, keys) = vacuum(&db);
    let info = db.memory_info();
    assert_eq!((info.keys, info.versions, info.live_snapshots), (5, 5, 0));
    assert_eq!(
        versions as u64,
        before.versions - info.versions,
        "vacuum reports the versions that it removed"
    );
    assert_eq!(keys as u64, before.keys - info.keys, "vacuum reports the keys that it removed");
    assert_eq!(vacuum(&db), (0, 0));
    drop(db);
    all_gone(&ledger);
}

/// Releasing an older snapshot must not free what a newer one needs, nor the other way round.
#[test]
fn each_snapshot_holds_its_own() {
    for oldest_first in [false, true] {
        let ledger = Ledger::default();
        let db: Store = open();
        let mut views = Vec::new();
        for value in 0..20 {
            put(&db, &ledger, 1, value);
            views.push((db.snapshot(), value));
        }
        while !views.is_empty() {
            let (view, value) = if oldest_first { views.remove(0) } else { views.pop().expect("not empty") };
            vacuum(&db);
            assert_eq!(view.get(&1).expect("a read succeeds").expect("it is there").value, value);
            for (view, value) in &views {
                assert_eq!(view.get(&1).expect("a read succeeds").expect("it is there").value, *value);
            }
        }
        vacuum(&db);
        assert_eq!(db.memory_info().versions, 1);
        drop(db);
        all_gone(&ledger);
    }
}

/// Dropping the database gives all memory back, whatever its state: with updates, deletes, refused
/// and unfinished transactions and streams, after a vacuum or not, with a background vacuum or not.
/// A value outlives the database only if a reader still holds it.
#[test]
fn a_dropped_database_drops_everything() {
    for auto_vacuum in [false, true] {
        let ledger = Ledger::default();
        let mut builder = Store::builder();
        if auto_vacuum {
            builder = builder.auto_vacuum(VacuumOptions { interval: Duration::from_secs(3600) });
        }
        let db = block_on(builder.build()).expect("an empty database opens");
        for key in 0..500 {
            put(&db, &ledger, key, 1);
        }
        let view = db.snapshot();
        for key in 0..500 {
            match key % 3 {
                0 => put(&db, &ledger, key, 2),
                1 => drop(block_on(db.remove(&key)).expect("a remove commits")),
                _ => {}
            }
        }
        let refused = db.begin();
        assert!(refused.get(&0).expect("a read succeeds").is_some());
        refused.insert(1000, ledger.track(0)).expect("a write is buffered");
        put(&db, &ledger, 0, 3);
        assert!(matches!(commit(refused), Err(FluxError::SerializationConflict)));
        let unfinished = db.begin();
        unfinished.insert(1001, ledger.track(0)).expect("a write is buffered");
        let mut stream = view.range_stream(..);
        drop(block_on(stream.next()));
        let kept = db.get(&2).expect("a read succeeds").expect("it is there");

        // The snapshot, the stream and the open transaction still hold the database.
        drop(db);
        assert_eq!(view.count(..).expect("a count succeeds"), 500);
        assert_eq!(block_on(stream.count()), 499);
        drop((view, unfinished));
        assert_eq!(kept.value, 1);
        assert_eq!(ledger.live(), 1, "only its reader keeps a value that was read");
        drop(kept);
        all_gone(&ledger);
    }
}

/// Buffered writes are freed with their transaction if it does not commit, or when it writes the
/// key again, without a vacuum.
#[test]
fn buffered_writes_go_with_their_transaction() {
    let ledger = Ledger::default();
    let db: Store = open();
    let tx = db.begin();
    for key in 0..100 {
        tx.insert(key % 10, ledger.track(key)).expect("a write is buffered");
    }
    assert_eq!(ledger.live(), 10);
    let savepoint = tx.savepoint().expect("a savepoint is set");
    tx.insert(0, ledger.track(0)).expect("a write is buffered");
    tx.remove(&1).expect("a remove succeeds");
    tx.rollback_to(&savepoint).expect("the savepoint is there");
    assert_eq!(tx.count(..).expect("a count succeeds"), 10);
    tx.rollback();
    all_gone(&ledger);
    assert_nothing_pinned(&db);
}

/// Threads that update, insert and delete at the same time leave the living values, and little
/// garbage.
#[test]
fn busy_threads_leave_no_garbage() {
    let ledger = Ledger::default();
    let db: Store = open();
    thread::scope(|scope| {
        for thread in 0..3u64 {
            let (db, ledger) = (&db, &ledger);
            scope.spawn(move || {
                for round in 0..1_500 {
                    let key = (round * 5 + thread) % 50;
                    match (round + thread) % 4 {
                        0 => drop(block_on(db.remove(&key)).expect("a remove commits")),
                        1 => drop(db.snapshot().range(..).count()),
                        _ => put(db, ledger, key, round),
                    }
                }
            });
        }
    });
    assert_nothing_pinned(&db);
    vacuum(&db);
    let alive = db.count(..).expect("a count succeeds");
    let info = db.memory_info();
    assert_eq!((info.keys, info.versions), (alive as u64, alive as u64));
    assert!(ledger.live() <= alive + SLACK, "{} values for {alive} keys", ledger.live());
    drop(db);
    all_gone(&ledger);
}

/// A snapshot that holds back versions of many keys must not let versions of other keys pile up.
#[test]
fn a_held_snapshot_costs_a_version_of_each_key_and_not_of_each_commit() {
    const BLOCKED: u64 = 5_000;
    const HOT: u64 = 100;
    let db: Database<u64, u64> = open();
    let write = |keys: std::ops::Range<u64>, value: u64| {
        let tx = db.begin();
        for key in keys {
            tx.insert(key, value).expect("a write is buffered");
        }
        commit(tx).expect("blind writes do not conflict");
    };
    write(0..BLOCKED + HOT, 0);
    let view = db.snapshot();
    write(0..BLOCKED, 1);
    for round in 0..2_000 {
        write(BLOCKED..BLOCKED + HOT, round);
    }
    let versions = db.memory_info().versions;
    let needed = 2 * (BLOCKED + HOT);
    assert!(versions <= needed + 2 * BLOCKED, "{versions} versions where {needed} are needed");
    drop(view);
}

#[test]
fn a_million_updates_beside_a_held_snapshot_keep_one_version_more_of_each_key() {
    const KEYS: u64 = 1_000;
    const AT_ONCE: u64 = 100;
    let db: Database<u64, u64> = open();
    let write = |first: u64, value: u64| {
        let tx = db.begin();
        for key in first..first + AT_ONCE {
            tx.insert(key, value).expect("a write is buffered");
        }
        commit(tx).expect("blind writes do not conflict");
    };
    (0..KEYS).step_by(AT_ONCE as usize).for_each(|first| write(first, 0));
    let view = db.snapshot();
    for round in 1..=1_000_000 / AT_ONCE {
        write(round % (KEYS / AT_ONCE) * AT_ONCE, round);
        if round % 100 == 0 {
            // A commit looks at twice as many chains as it lengthens, in turn among those that the
            // snapshot holds back. A surplus version is therefore found within half a round.
            let versions = db.memory_info().versions;
            assert!(versions <= 2 * KEYS + KEYS / 2 + 2 * AT_ONCE, "{versions} after {round} commits");
        }
    }
    vacuum(&db);
    assert_eq!(db.memory_info().versions, 2 * KEYS);
    assert_eq!(view.get(&7).expect("a read").as_deref(), Some(&0));
}

/// Many snapshots that have been released must not hold up trimming for long.
#[test]
fn many_snapshots_that_have_gone_are_forgotten() {
    const SNAPSHOTS: u64 = 5_000;
    let db: Database<u64, u64> = open();
    let views: Vec<_> = (0..SNAPSHOTS)
        .map(|round| {
            block_on(db.insert(0, round)).expect("a blind write");
            db.snapshot()
        })
        .collect();
    drop(views);
    for round in 0..1_000 {
        let tx = db.begin();
        for key in 0..100 {
            tx.insert(key, round).expect("a write is buffered");
        }
        commit(tx).expect("blind writes do not conflict");
    }
    let versions = db.memory_info().versions;
    assert!(versions <= 4 * SNAPSHOTS, "{versions} versions of 100 keys");
}
