//! User code that panics, at each of its calls in turn. Published commits stay,
//! unpublished ones leave no trace, and everything is dropped once.

#![cfg(not(loom))]

#[path = "support/fragile.rs"]
mod fragile;
mod support;

use fluxmap_index::Direction::{Backward, Forward};
use fluxmap_index::{Horizon, Index, Timestamp, Writer};
use fragile::{Key, Place, Value, alive, arm, disarm, dropped_twice, survive};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use support::{Between, Hashing, scan};

/// One write of a commit: a key, and its value or `None` to delete it.
type Write = (u32, Option<u64>);

struct Fragile {
    index: Arc<Index<Key, Value>>,
    writer: Writer<Key, Value>,
    hashing: Hashing,
    timestamp: Timestamp,
    model: BTreeMap<u32, u64>,
}

impl Fragile {
    fn new(hashing: Hashing) -> Self {
        let (index, writer) = Index::new(0.5);
        Fragile { index, writer, hashing, timestamp: 0, model: BTreeMap::new() }
    }

    /// A commit that may panic anywhere. It counts if it was published.
    fn commit(&mut self, writes: &[Write]) {
        let published = Cell::new(false);
        survive(|| {
            let reader = self.index.reader();
            let mut batch = reader.batch(writes.len());
            for (number, value) in writes {
                batch.push(self.hashing.of(*number), Key::new(*number), value.map(Value::new));
            }
            self.writer.stage(&mut batch).publish(self.timestamp + 1, &mut ());
            published.set(true);
        });
        if published.get() {
            self.timestamp += 1;
            for (number, value) in writes {
                self.model.remove(number);
                self.model.extend(value.map(|value| (*number, value)));
            }
        }
    }

    fn clean(&mut self) {
        let horizon = Horizon::new(self.timestamp, Vec::new());
        let cleaned = survive(|| {
            self.writer.trim(&horizon, usize::MAX);
            drop(self.writer.collect_all());
        });
        assert!(cleaned.is_some(), "panics in destructors and in trimming are contained");
    }

    fn look(&self) {
        let reader = self.index.reader();
        for direction in [Forward, Backward] {
            let mut expected: Vec<_> = self.model.iter().map(|(key, value)| (*key, *value)).collect();
            if direction == Backward {
                expected.reverse();
            }
            let found = scan(&reader, &Between::ALL, direction, self.timestamp, usize::MAX);
            let found: Vec<_> = found.iter().map(|(key, value)| (key.number(), value.number())).collect();
            assert_eq!(found, expected);
        }
        for number in 0..500 {
            let (hash, key) = (self.hashing.of(number), Key::new(number));
            let found = reader.get_at(hash, &key, self.timestamp).map(Value::number);
            assert_eq!(found, self.model.get(&number).copied());
        }
    }

    /// Reads of all kinds, until one of them panics.
    fn read(&self) {
        survive(|| {
            let reader = self.index.reader();
            let (hash, key) = (self.hashing.of(40), Key::new(40));
            reader.get_at(hash, &key, self.timestamp);
            reader.latest(hash, &key, || self.timestamp, || 0);
            reader.changed(hash, 0, 0);
            let span = Between(Some(Key::new(30)), Some(Key::new(140)));
            reader.changed_within(&span, self.timestamp, 0);
            for direction in [Forward, Backward] {
                scan(&reader, &span, direction, self.timestamp, usize::MAX);
            }
        });
    }
}

/// Runs `commits`, with reads and cleaning between them, once for each call of
/// user code that they make: that call panics.
fn check(hashing: Hashing, keys: u32, commits: &[&[Write]]) {
    for place in Place::ALL {
        for n in 1.. {
            let mut fragile = Fragile::new(hashing);
            let first: Vec<Write> = (0..keys).map(|key| (key * 2, Some(u64::from(key)))).collect();
            fragile.commit(&first);

            arm(place, n);
            for writes in commits {
                fragile.commit(writes);
                fragile.read();
                fragile.clean();
            }
            let burnt = disarm();

            fragile.look();
            // Entries that were staged and not published are trimmed like any other garbage.
            fragile.clean();
            fragile.look();
            assert_eq!(fragile.index.entries(), fragile.model.len(), "{place:?} {n}");
            assert_eq!(fragile.index.versions(), fragile.model.len(), "{place:?} {n}");
            drop(fragile);
            assert_eq!((alive(), dropped_twice()), (0, 0), "{place:?} {n}");
            if !burnt {
                break;
            }
        }
    }
}

#[test]
fn in_a_run_that_is_full() {
    let split: &[Write] = &[(41, Some(1)), (10, Some(2)), (20, None)];
    let behind: &[Write] = &[(200, Some(3)), (201, Some(4))];
    check(Hashing::Mixed, 63, &[split, behind]);
}

#[test]
fn in_a_block_that_is_unlinked() {
    // The second block holds one key. The key is deleted, and two are inserted there.
    let delete: &[Write] = &[(126, None)];
    let again: &[Write] = &[(126, Some(1)), (128, Some(2))];
    check(Hashing::Mixed, 64, &[delete, again]);
}

#[test]
fn where_all_hashes_are_alike() {
    let writes: &[Write] = &[(5, Some(1)), (6, None), (4, Some(2))];
    check(Hashing::Constant, 9, &[writes, &[(5, None), (4, Some(3))]]);
}

#[test]
fn in_a_segment_that_splits() {
    // A segment is full at 392 keys (see `HashSegment::is_full`), so one of these writes splits it.
    check(Hashing::Mixed, 391, &[&[(401, Some(1)), (403, Some(2)), (405, Some(3))]]);
}

#[test]
fn in_a_destructor_at_the_end() {
    for place in [Place::KeyDrop, Place::ValueDrop] {
        for n in 1..40 {
            let mut fragile = Fragile::new(Hashing::Mixed);
            fragile.commit(&(0..10).map(|key| (key, Some(1))).collect::<Vec<_>>());
            fragile.commit(&[(3, Some(2)), (4, None), (5, None)]);
            let Fragile { index, mut writer, .. } = fragile;
            writer.trim(&Horizon::new(2, Vec::new()), 2);
            arm(place, n);
            let dropped = survive(|| {
                drop(writer);
                drop(index);
            });
            disarm();
            assert!(dropped.is_some());
            assert_eq!((alive(), dropped_twice()), (0, 0), "{place:?} {n}");
        }
    }
}

#[test]
fn in_the_callers_own_closures() {
    let mut fragile = Fragile::new(Hashing::Mixed);
    fragile.commit(&(0..200).map(|key| (key, Some(1))).collect::<Vec<_>>());
    {
        let reader = fragile.index.reader();
        let scanned = catch_unwind(AssertUnwindSafe(|| {
            reader.scan(
                &Between::ALL,
                Forward,
                1,
                |_, _| {},
                |_| -> ControlFlow<()> { panic!("in a visitor") },
            );
        }));
        assert!(scanned.is_err());
        let (hash, key) = (fragile.hashing.of(1), Key::new(1));
        let read = catch_unwind(AssertUnwindSafe(|| {
            reader.latest(hash, &key, || panic!("in a clock"), || 0);
        }));
        assert!(read.is_err());
    }
    fragile.commit(&[(7, None)]);
    fragile.clean();
    fragile.look();
    assert_eq!(fragile.index.entries(), 199);
}
