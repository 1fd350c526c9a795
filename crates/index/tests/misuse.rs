//! Misuse by safe code may lead to a panic or a wrong answer, but never to undefined
//! behaviour, and nothing is dropped twice.

#![cfg(not(loom))]

#[path = "support/fragile.rs"]
mod fragile;
mod support;

use fluxmap_index::Direction::{Backward, Forward};
use fluxmap_index::{Batch, Horizon, Index, Reader};
use fragile::{Key, Place, Value, alive, arm, disarm, dropped_twice, lie, survive};
use std::cmp;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use support::{Between, Hashing, Random, commit, scaled, scan};

fn hash(number: u32) -> u64 {
    Hashing::Mixed.of(number)
}

fn batch_of<'r>(reader: &'r Reader<'r, Key, Value>, writes: &[(u32, Option<u64>)]) -> Batch<'r, Key, Value> {
    let mut batch = reader.batch(writes.len());
    for (number, value) in writes {
        batch.push(hash(*number), Key::new(*number), value.map(Value::new));
    }
    batch
}

fn all_gone() {
    assert_eq!((alive(), dropped_twice()), (0, 0));
}

/// A batch that was staged before holds entries that may have been unlinked since.
#[test]
fn a_batch_is_staged_once() {
    for publish in [true, false] {
        let (index, mut writer) = Index::<Key, Value>::new(0.25);
        let reader = index.reader();
        let mut batch = batch_of(&reader, &[(1, None), (2, None)]);
        let staged = writer.stage(&mut batch);
        if publish {
            staged.publish(1, &mut ());
        } else {
            drop(staged);
        }
        writer.trim(&Horizon::new(1, Vec::new()), usize::MAX);
        let again = catch_unwind(AssertUnwindSafe(|| writer.stage(&mut batch).publish(2, &mut ())));
        assert!(again.is_err());
        assert_eq!(writer.backlog(), 0, "an unlinked entry must not be queued again");
        drop(batch);
        drop(reader);
        drop(writer.collect_all());
        writer.trim(&Horizon::new(2, Vec::new()), usize::MAX);
        drop(writer.collect_all());
        assert_eq!((index.entries(), index.versions()), (0, 0));
    }
    all_gone();
}

#[test]
fn a_batch_whose_staging_failed_stays_out() {
    let (index, mut writer) = Index::<Key, Value>::new(0.25);
    {
        let reader = index.reader();
        commit(&mut writer, &reader, 1, (0..60).map(|n| (hash(n), Key::new(n), Some(Value::new(1)))));
        let mut batch = batch_of(&reader, &[(100, Some(2)), (101, Some(2)), (102, Some(2)), (103, Some(2))]);
        // The run is full when the fourth key is staged, so a key is cloned for a new block.
        arm(Place::Clone, 1);
        assert!(survive(|| writer.stage(&mut batch).publish(2, &mut ())).is_none());
        assert!(disarm());
        assert!(catch_unwind(AssertUnwindSafe(|| writer.stage(&mut batch).publish(2, &mut ()))).is_err());
        assert_eq!(scan(&reader, &Between::ALL, Forward, 2, usize::MAX).len(), 60);
    }
    writer.trim(&Horizon::new(2, Vec::new()), usize::MAX);
    assert_eq!(index.entries(), 60);
    drop((index, writer));
    all_gone();
}

#[test]
fn a_batch_belongs_to_its_index() {
    let (one, _one_writer) = Index::<Key, Value>::new(0.25);
    let (_other, mut other_writer) = Index::<Key, Value>::new(0.25);
    let reader = one.reader();
    let mut batch = batch_of(&reader, &[(1, Some(1))]);
    assert!(catch_unwind(AssertUnwindSafe(|| other_writer.stage(&mut batch).publish(1, &mut ()))).is_err());
}

#[test]
fn a_key_may_come_twice_in_a_batch() {
    let (index, mut writer) = Index::<Key, Value>::new(0.25);
    for (timestamp, last) in [(1, Some(12)), (2, None)] {
        let reader = index.reader();
        let mut batch = batch_of(&reader, &[(1, Some(10)), (2, Some(1)), (1, Some(11)), (1, last)]);
        writer.stage(&mut batch).publish(timestamp, &mut ());
        let found = reader.get_at(hash(1), &Key::new(1), timestamp).map(Value::number);
        assert_eq!(found, last, "the last one counts");
    }
    writer.trim(&Horizon::new(2, Vec::new()), usize::MAX);
    drop(writer.collect_all());
    assert_eq!((index.entries(), index.versions(), writer.backlog()), (1, 1, 0));
    drop((index, writer));
    all_gone();
}

/// These tests leak on purpose. They have a module of their own, so that a run under a leak checker
/// can leave them out.
mod forgotten {
    use super::*;

    #[test]
    fn staged() {
        let (index, mut writer) = Index::<Key, Value>::new(0.25);
        {
            let reader = index.reader();
            let mut batch = batch_of(&reader, &[(1, Some(1)), (2, Some(1))]);
            mem::forget(writer.stage(&mut batch));
            assert!(scan(&reader, &Between::ALL, Forward, u64::MAX, 9).is_empty());
            assert!(!reader.changed(hash(1), 0, 0));
        }
        // The entries are linked, so the next batch finds them.
        let reader = index.reader();
        let writes = [1, 2].map(|number| (hash(number), Key::new(number), None));
        commit(&mut writer, &reader, 1, writes);
        drop(reader);
        writer.trim(&Horizon::new(1, Vec::new()), usize::MAX);
        drop(writer.collect_all());
        assert_eq!((index.entries(), index.versions()), (0, 0));
        drop((index, writer));
        all_gone();
    }

    #[test]
    fn batch() {
        let (index, mut writer) = Index::<Key, Value>::new(0.25);
        let reader = index.reader();
        let mut staged = batch_of(&reader, &[(1, Some(1))]);
        writer.stage(&mut staged).publish(1, &mut ());
        mem::forget(staged);
        mem::forget(batch_of(&reader, &[(1, Some(2)), (2, Some(2))]));
        drop(reader);
        drop((index, writer));
        assert_eq!(dropped_twice(), 0);
    }

    #[test]
    fn reader() {
        let (index, mut writer) = Index::<Key, Value>::new(0.25);
        mem::forget(index.reader());
        for timestamp in 1..100 {
            let write = (hash(1), Key::new(1), Some(Value::new(timestamp)));
            commit(&mut writer, &index.reader(), timestamp, [write]);
            writer.trim(&Horizon::new(timestamp, Vec::new()), usize::MAX);
            assert!(writer.collect_all().is_empty(), "the reader may still see them");
        }
        drop((index, writer));
        all_gone();
    }

    #[test]
    fn freed() {
        let (index, mut writer) = Index::<Key, Value>::new(0.25);
        for timestamp in [1, 2] {
            let write = (hash(1), Key::new(1), Some(Value::new(timestamp)));
            commit(&mut writer, &index.reader(), timestamp, [write]);
        }
        writer.trim(&Horizon::new(2, Vec::new()), usize::MAX);
        mem::forget(writer.collect_all());
        drop((index, writer));
        assert_eq!((alive(), dropped_twice()), (1, 0));
    }
}

#[test]
fn a_reader_may_change_threads() {
    let (index, mut writer) = Index::<u32, String>::new(0.25);
    commit(&mut writer, &index.reader(), 1, [(hash(1), 1, Some("one".to_owned()))]);
    let reader = index.reader();
    thread::scope(|scope| {
        let other = scope.spawn(move || {
            assert_eq!(reader.get_at(hash(1), &1, 1).map(String::as_str), Some("one"));
            reader
        });
        commit(&mut writer, &index.reader(), 2, [(hash(1), 1, None)]);
        let reader = other.join().unwrap();
        assert_eq!(reader.get_at(hash(1), &1, 2), None);
        writer.trim(&Horizon::new(2, Vec::new()), usize::MAX);
        assert!(writer.collect_all().is_empty());
    });
    assert!(!writer.collect_all().is_empty());
}

#[test]
fn many_readers_at_once() {
    let (index, mut writer) = Index::<u32, String>::new(0.25);
    let mut readers: Vec<_> = (0..100).map(|_| index.reader()).collect();
    commit(&mut writer, &readers[70], 1, [(hash(1), 1, Some("one".to_owned()))]);
    commit(&mut writer, &readers[99], 2, [(hash(1), 1, None)]);
    writer.trim(&Horizon::new(2, Vec::new()), usize::MAX);
    // The readers hold slots in several groups. As long as one holds a slot in any group, nothing
    // is freed.
    for kept in [99, 70, 31, 0] {
        readers.truncate(kept + 1);
        assert!(writer.collect_all().is_empty());
    }
    readers.clear();
    assert!(!writer.collect_all().is_empty());
}

#[test]
fn a_visitor_may_write() {
    let (index, mut writer) = Index::<u32, u64>::new(0.5);
    commit(&mut writer, &index.reader(), 1, (0..1000).map(|n| (hash(n), n, Some(1))));
    let reader = index.reader();
    for direction in [Forward, Backward] {
        let mut timestamp = 1_u64;
        let mut met = Vec::new();
        reader.scan(
            &Between::ALL,
            direction,
            1,
            |_, _| {},
            |pairs| {
                for (key, value) in pairs {
                    assert_eq!(**value, 1);
                    met.push(**key);
                    // Delete the key, and insert two that are greater than all keys of the scan.
                    timestamp += 1;
                    let writes = [(**key, None), (**key + 1000, Some(9)), (2000 - **key, Some(9))];
                    let writes = writes.map(|(n, value)| (hash(n), n, value));
                    commit(&mut writer, &index.reader(), timestamp, writes);
                }
                writer.trim(&Horizon::new(timestamp, vec![1]), usize::MAX);
                drop(writer.collect_all());
                std::ops::ControlFlow::Continue(())
            },
        );
        assert_eq!(met.len(), 1000);
        assert!(met.is_sorted() == (direction == Forward));
    }
}

/// A value that looks at the index when it is dropped.
struct Nosy<'i>(&'i std::cell::RefCell<Option<std::sync::Weak<Index<u32, Nosy<'i>>>>>);

impl Drop for Nosy<'_> {
    fn drop(&mut self) {
        let index = self.0.borrow().as_ref().and_then(std::sync::Weak::upgrade);
        if let Some(index) = index {
            let reader = index.reader();
            scan(&reader, &Between::ALL, Backward, u64::MAX, usize::MAX);
            reader.get_at(hash(1), &1, u64::MAX);
        }
    }
}

#[test]
fn a_destructor_may_read() {
    let back = std::cell::RefCell::new(None);
    let (index, mut writer) = Index::<u32, Nosy<'_>>::new(0.5);
    *back.borrow_mut() = Some(std::sync::Arc::downgrade(&index));
    for timestamp in 1..50 {
        let writes = (0..10).map(|n| (hash(n), n, (timestamp % 3 > 0).then_some(Nosy(&back))));
        commit(&mut writer, &index.reader(), timestamp, writes);
        writer.trim(&Horizon::new(timestamp, Vec::new()), usize::MAX);
        drop(writer.collect_all());
    }
    drop(index);
    drop(writer);
}

/// Works with a wrong order, wrong hashes, wrong horizons and wrong timestamps. A walk
/// may then not end by itself, so a fuse ends it after 20,000 comparisons.
fn liar(seed: u64, mut order: impl FnMut(&mut Random) -> cmp::Ordering + 'static) {
    let mut random = Random::new(seed);
    let mut inner = Random::new(seed + 1);
    lie(Some(Box::new(move || order(&mut inner))));
    {
        let (index, mut writer) = Index::<Key, Value>::new(0.5);
        let mut timestamp = 1_u64;
        for _ in 0..scaled(400) {
            arm(Place::Order, 20_000);
            survive(|| {
                let reader = index.reader();
                let mut batch = reader.batch(10);
                for _ in 0..random.below(12) {
                    let number = random.below(500) as u32;
                    let hash = if random.below(2) == 0 { hash(number) } else { random.next() };
                    let value = (random.below(3) > 0).then(|| Value::new(1));
                    batch.push(hash, Key::new(number), value);
                }
                timestamp = (timestamp + 1).saturating_sub(random.below(3) as u64);
                writer.stage(&mut batch).publish(timestamp, &mut ());
                for direction in [Forward, Backward] {
                    let span = Between(Some(Key::new(100)), Some(Key::new(400)));
                    for (key, value) in scan(&reader, &span, direction, timestamp, 2000) {
                        assert!(key.number() < 500 && value.number() == 1);
                    }
                }
                reader.latest(hash(7), &Key::new(7), || timestamp, || 0);
            });
            let live = vec![timestamp.saturating_sub(random.below(5) as u64)];
            writer.trim(&Horizon::new(timestamp + random.below(3) as u64, live), 30);
            drop(if random.below(2) == 0 { writer.collect_all() } else { writer.collect(5) });
        }
        disarm();
        // Dead entries are unlinked even if the order does not lead to them.
        writer.trim(&Horizon::new(u64::MAX, Vec::new()), usize::MAX);
        assert_eq!(writer.backlog(), 0);
        assert_eq!(index.entries(), index.versions());
    }
    lie(None);
    all_gone();
}

#[test]
fn an_order_that_says_less() {
    liar(1, |_| cmp::Ordering::Less);
}

#[test]
fn an_order_that_says_equal() {
    liar(2, |_| cmp::Ordering::Equal);
}

#[test]
fn an_order_that_says_greater() {
    liar(3, |_| cmp::Ordering::Greater);
}

#[test]
fn an_order_that_says_anything() {
    for seed in 4..8 {
        liar(seed, |random| 1.cmp(&random.below(3)));
    }
}

#[test]
fn what_may_go_to_other_threads() {
    fn sends<S: Send>() {}
    fn shares<S: Sync>() {}
    sends::<fluxmap_index::Writer<u32, u32>>();
    sends::<fluxmap_index::Freed<u32, u32>>();
    sends::<Reader<'_, u32, u32>>();
    shares::<Reader<'_, u32, u32>>();
    sends::<Index<u32, u32>>();
    shares::<Index<u32, u32>>();
}
