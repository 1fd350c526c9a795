//! Many keys: ranges that are longer than anything the store keeps or fetches in one piece, while
//! it splits and frees its pieces. The small tests elsewhere state the rules, these show that the
//! rules hold at size.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::{DoneOnDrop, assert_nothing_pinned, commit, content, open, open_at};
use fluxmap::{Database, FluxError, IsolationLevel, Snapshot, Transaction};
use fluxmap_testkit::model::{Level, Model, ModelTxn, Verdict};
use fluxmap_testkit::op::Scan;
use fluxmap_testkit::workload::{Seed, scaled};
use futures::executor::block_on;
use rand::Rng;
use rand::rngs::StdRng;

const KEYS: u64 = 1_200;

fn plain(item: (u64, Arc<u64>)) -> (u64, u64) {
    (item.0, *item.1)
}

fn bound(rng: &mut StdRng) -> Bound<u64> {
    match rng.random_range(0..3u32) {
        0 => Bound::Unbounded,
        1 => Bound::Included(rng.random_range(0..KEYS)),
        _ => Bound::Excluded(rng.random_range(0..KEYS)),
    }
}

/// A transaction of the database beside its model.
struct Pair {
    real: Transaction<u64, u64>,
    model: ModelTxn<u64, u64>,
}

impl Pair {
    /// Writes or removes a run of neighbouring keys, so that whole blocks come and go.
    fn write(&mut self, rng: &mut StdRng, value: u64) {
        let start = rng.random_range(0..KEYS);
        let end = KEYS.min(start + rng.random_range(1..150));
        let remove = rng.random_bool(0.45);
        for key in start..end {
            if remove {
                let found = self.real.remove(&key).expect("a remove succeeds").map(|value| *value);
                assert_eq!(found, self.model.remove(&key));
            } else {
                self.real.insert(key, value).expect("a write is buffered");
                self.model.put(key, value);
            }
        }
    }

    /// Walks a range from both ends, and stops somewhere.
    fn walk(&mut self, rng: &mut StdRng) {
        let ends = (bound(rng), bound(rng));
        let mut items = self.real.range(ends).expect("a range succeeds");
        let mut walk = self.model.walk(ends.0, ends.1);
        let mut left = rng.random_range(0..60u32);
        let backwards = f64::from(rng.random_range(0..=2u32)) / 2.0;
        while left > 0 {
            left -= 1;
            let reverse = rng.random_bool(backwards);
            let item = if reverse { items.next_back() } else { items.next() };
            let item = item.map(plain);
            assert_eq!(item, self.model.step(&mut walk, reverse), "{ends:?}, reverse {reverse}");
            if item.is_none() {
                break;
            }
        }
    }

    fn get(&mut self, rng: &mut StdRng) {
        let key = rng.random_range(0..KEYS + 5);
        let found = self.real.get(&key).expect("a read succeeds").map(|value| *value);
        assert_eq!(found, self.model.get(&key));
    }
}

/// Compares a snapshot with the state at the time it was taken, by random ranges in both directions
/// and by single reads.
fn look(view: &Snapshot<u64, u64>, state: &BTreeMap<u64, u64>, rng: &mut StdRng) {
    let (lower, upper, reverse) = (bound(rng), bound(rng), rng.random_bool(0.5));
    let limit = rng.random_bool(0.5).then(|| rng.random_range(0..500));
    let expected = Scan { lower, upper, reverse, limit }.over(state);
    let items = view.range((lower, upper)).map(plain);
    let limit = limit.unwrap_or(usize::MAX);
    let items: Vec<_> = if reverse { items.rev().take(limit).collect() } else { items.take(limit).collect() };
    assert_eq!(items, expected, "{lower:?} to {upper:?}, reverse {reverse}");
    let whole = Scan { lower, upper, reverse, limit: None }.over(state).len();
    assert_eq!(view.count((lower, upper)).expect("a count succeeds"), whole);
    for key in (0..KEYS).step_by(37) {
        assert_eq!(view.get(&key).expect("a read succeeds").as_deref(), state.get(&key), "get {key}");
    }
}

/// Open transactions and snapshots over a store that grows and shrinks in large strides, checked
/// against the model. Reads and commits must be as exact as in the small tests.
#[test]
fn large_interleavings_follow_the_model() {
    let seed = Seed::from_env();
    let mut refused = 0;
    for run in 0..scaled(6) {
        let mut rng = seed.rng(run);
        let level = if run % 3 == 2 { Level::Snapshot } else { Level::Serializable };
        let db: Database<u64, u64> = open_at(match level {
            Level::Serializable => IsolationLevel::Serializable,
            Level::Snapshot => IsolationLevel::Snapshot,
        });
        let mut model = Model::default();
        let mut open: Vec<Pair> = Vec::new();
        let mut views: Vec<(Snapshot<u64, u64>, usize)> = Vec::new();
        for step in 0..250 {
            // Keep three transactions open, so that their commits can conflict.
            while open.len() < 3 {
                open.push(Pair { real: db.begin(), model: model.begin() });
            }
            let at = rng.random_range(0..open.len());
            match rng.random_range(0..10u32) {
                0..3 => open[at].write(&mut rng, step),
                3..5 => open[at].walk(&mut rng),
                5 => open[at].get(&mut rng),
                6 => {
                    views.push((db.snapshot(), model.now()));
                    if views.len() > 3 {
                        drop(views.remove(rng.random_range(0..3)));
                    }
                }
                7 => {
                    if let Some((view, at)) = views.last() {
                        look(view, model.at(*at), &mut rng);
                    }
                    if rng.random_bool(0.3) {
                        block_on(db.vacuum()).expect("vacuum succeeds");
                    }
                }
                _ => {
                    let pair = open.swap_remove(at);
                    let verdict = model.verdict(&pair.model, level);
                    match commit(pair.real) {
                        Ok(()) => {
                            assert_ne!(verdict, Verdict::Refuse, "{seed}, run {run}, step {step}");
                            model.commit(&pair.model);
                        }
                        Err(error) => {
                            assert_ne!(verdict, Verdict::Commit, "{seed}, run {run}, step {step}: {error}");
                            refused += 1;
                        }
                    }
                }
            }
        }
        for (view, at) in &views {
            look(view, model.at(*at), &mut rng);
        }
        // With nothing open, a vacuum must leave one version of each key.
        drop((open, views));
        block_on(db.vacuum()).expect("vacuum succeeds");
        let expected: Vec<_> = model.at(model.now()).clone().into_iter().collect();
        assert_eq!(content(&db), expected, "{seed}, run {run}");
        let info = db.memory_info();
        assert_eq!((info.keys, info.versions), (expected.len() as u64, expected.len() as u64));
        assert_nothing_pinned(&db);
    }
    assert!(refused > 0, "nothing conflicted");
}

/// Threads insert or delete runs of keys, each together with its twin, `KEYS` higher, while others
/// scan and one vacuums. Every view must hold whole pairs, in order, the same upwards as downwards,
/// and its look-ups must agree with its scans.
#[test]
fn scans_are_whole_while_the_store_changes_shape() {
    let seed = Seed::from_env();
    let db: Database<u64, u64> = open();
    let done = AtomicBool::new(false);
    let (db, done) = (&db, &done);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|number| {
                let mut rng = seed.rng(number);
                scope.spawn(move || {
                    for _ in 0..scaled(120) {
                        let start = rng.random_range(0..KEYS);
                        toggle(db, start, KEYS.min(start + rng.random_range(1..60)));
                    }
                })
            })
            .collect();
        for number in 0..2 {
            let mut rng = seed.rng(100 + number);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    audit(db, &mut rng);
                    if number == 1 {
                        block_on(db.vacuum()).expect("vacuum succeeds");
                    }
                }
            });
        }
        let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::SeqCst);
        assert!(results.into_iter().all(|result| result.is_ok()), "a writer panicked");
    });
    audit(db, &mut seed.rng(200));
    block_on(db.vacuum()).expect("vacuum succeeds");
    audit(db, &mut seed.rng(201));
    let alive = db.count(..).expect("a count succeeds") as u64;
    let info = db.memory_info();
    assert_eq!((info.keys, info.versions, info.live_snapshots), (alive, alive, 0));
}

/// A commit of many keys appears at once. A snapshot taken while the commit is being published
/// holds none of it, and never changes.
#[test]
fn a_large_commit_appears_at_once() {
    let db: Database<u64, u64> = open();
    let write_all = |round: u64| {
        let tx = db.begin();
        (0..KEYS).for_each(|key| tx.insert(key, round).expect("a write is buffered"));
        commit(tx).expect("it has read nothing");
    };
    write_all(0);
    let done = AtomicBool::new(false);
    let read_until_done = || {
        while !done.load(Ordering::SeqCst) {
            let view = db.snapshot();
            // Read both ends at once, before a commit in progress could catch up.
            let ends = [KEYS - 1, 0, KEYS - 1, KEYS / 2, 0];
            let seen = ends.map(|key| view.get(&key).expect("a read succeeds").map(|value| *value));
            assert_eq!(seen, [seen[0]; 5]);
        }
    };
    thread::scope(|scope| {
        let _done = DoneOnDrop(&done);
        scope.spawn(read_until_done);
        scope.spawn(read_until_done);
        (1..=scaled(100)).for_each(write_all);
    });
    assert_eq!(db.get(&0).expect("a read succeeds").as_deref(), Some(&scaled(100)));
}

/// Removes each key of the run with its twin if it is there, and inserts both if not.
fn toggle(db: &Database<u64, u64>, start: u64, end: u64) {
    let toggled = block_on(db.transact(async |tx| {
        for key in start..end {
            match tx.get(&key)? {
                Some(value) => {
                    assert_eq!(*value, key, "its value is its key");
                    tx.remove(&key)?;
                    let twin = tx.remove(&(key + KEYS))?;
                    assert_eq!(twin.as_deref(), Some(&key), "both must be there");
                }
                None => {
                    tx.insert(key, key)?;
                    tx.insert(key + KEYS, key)?;
                }
            }
        }
        Ok::<_, FluxError>(())
    }));
    toggled.expect("transact retries until it commits");
}

fn audit(db: &Database<u64, u64>, rng: &mut StdRng) {
    let view = db.snapshot();
    let up: Vec<(u64, u64)> = view.range(..).map(plain).collect();
    assert!(up.is_sorted_by(|a, b| a.0 < b.0), "the keys are in order, none twice");
    assert!(up.iter().all(|(key, value)| *value == key % KEYS));
    let mut down: Vec<(u64, u64)> = view.range(..).rev().map(plain).collect();
    down.reverse();
    assert_eq!(up, down, "up and down agree");
    let (low, high): (Vec<u64>, Vec<u64>) = up.iter().map(|item| item.0).partition(|key| *key < KEYS);
    assert_eq!(low, high.into_iter().map(|key| key - KEYS).collect::<Vec<_>>(), "whole pairs");
    assert_eq!(view.count(..).expect("a count succeeds"), up.len());

    // A transaction that begins now walks the keys and their twins side by side, from both ends.
    let tx = db.begin();
    let mut lows = tx.range(..KEYS).expect("a range succeeds");
    let mut highs = tx.range(KEYS..).expect("a range succeeds");
    for _ in 0..rng.random_range(0..200) {
        let reverse = rng.random_bool(0.5);
        let step = |items: &mut fluxmap::TransactionRange<'_, u64, u64>| {
            if reverse { items.next_back() } else { items.next() }
        };
        let (low, high) = (step(&mut lows), step(&mut highs));
        assert_eq!(low.map(|item| item.0 + KEYS), high.map(|item| item.0), "twins");
    }
    drop((lows, highs));
    commit(tx).expect("a reader commits");

    let present: BTreeSet<u64> = up.into_iter().map(|item| item.0).collect();
    for _ in 0..40 {
        let key = rng.random_range(0..2 * KEYS);
        assert_eq!(view.contains_key(&key).expect("a read succeeds"), present.contains(&key), "{key}");
        let next = view.range(key..).next().map(|item| item.0);
        assert_eq!(next, present.range(key..).next().copied(), "the next from {key}");
        let previous = view.range(..key).next_back().map(|item| item.0);
        assert_eq!(previous, present.range(..key).next_back().copied(), "the last before {key}");
    }
}
