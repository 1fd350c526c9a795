//! Pins against the freeing of memory, and writers that take turns.

use crate::support::{ALL, Key, Store, Value, check, spread};
use fluxmap_index::Direction::{Backward, Forward};
use fluxmap_index::Writer;
use loom::sync::Mutex;
use loom::thread;
use std::sync::Arc;

#[test]
fn what_a_pin_found_stays_while_it_lives() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.fill(&mut writer, &[1]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            let reader = shared.index.reader();
            let key = Key::new(1);
            // The timestamp is not registered, so any answer is right, but its memory must be valid.
            let found = reader.get_entry_at(spread(1), &key, u64::MAX);
            thread::yield_now();
            if let Some((key, value)) = found {
                assert_eq!((key.number(), value.number()), (1, 1));
            }
        });
        store.commit(&mut writer, &[(1, None)]);
        store.vacuum(&mut writer, &[]);
        reader.join().unwrap();
    });
}

/// Between unlinking the version and reading the slots, the writer takes no pin
/// itself, so only the epoch orders the reader after the unlinking.
#[test]
fn a_version_stays_while_a_pin_leads_to_it() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.fill(&mut writer, &[1]);
        store.commit(&mut writer, &[(1, Some(2))]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            // The timestamp is not registered, so the version may be gone.
            assert!(shared.get_at(1, 1).is_none_or(|value| value == 1));
        });
        store.vacuum(&mut writer, &[]);
        reader.join().unwrap();
    });
}

#[test]
fn two_pins_of_one_thread_each_hold() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.fill(&mut writer, &[1]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            let outer = shared.index.reader();
            let hash = spread(1);
            let found = outer.get_at(hash, &Key::new(1), u64::MAX);
            // With the writer's own pin, there are more pins than slots in a group.
            drop(shared.index.reader());
            let inner = shared.index.reader();
            assert!(found.is_none_or(|value| value.number() > 0));
            drop(inner);
            assert!(found.is_none_or(|value| value.number() > 0));
        });
        store.commit(&mut writer, &[(1, None)]);
        store.vacuum(&mut writer, &[]);
        store.vacuum(&mut writer, &[]);
        reader.join().unwrap();
    });
}

#[test]
fn a_pin_between_two_collections_holds_what_it_should() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.fill(&mut writer, &[1, 2]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            shared.get_at(1, u64::MAX);
            shared.scan(&ALL, Forward, u64::MAX);
        });
        store.commit(&mut writer, &[(1, Some(10))]);
        store.vacuum(&mut writer, &[]);
        store.commit(&mut writer, &[(2, None)]);
        store.vacuum(&mut writer, &[]);
        reader.join().unwrap();
    });
}

/// Both slots of the first group are taken when the readers begin, and free again
/// when the writer reads the slots.
fn more_readers_than_slots<const READERS: usize>() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.fill(&mut writer, &[1]);
        let held = [store.index.reader(), store.index.reader()];
        let readers = [(); READERS].map(|()| {
            let shared = Arc::clone(&store);
            thread::spawn(move || {
                let reader = shared.index.reader();
                let found = reader.get_at(spread(1), &Key::new(1), u64::MAX);
                assert!(found.is_none_or(|value| value.number() > 0));
            })
        });
        drop(held);
        store.commit(&mut writer, &[(1, Some(2))]);
        store.vacuum(&mut writer, &[]);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn a_reader_more_than_there_are_slots() {
    more_readers_than_slots::<1>();
}

#[test]
fn two_readers_more_than_there_are_slots() {
    more_readers_than_slots::<2>();
}

#[test]
fn garbage_of_a_writer_that_is_gone_waits_for_the_readers() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.fill(&mut writer, &[1]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            shared.get_at(1, u64::MAX);
            shared.scan(&ALL, Backward, u64::MAX);
        });
        store.commit(&mut writer, &[(1, None)]);
        store.trim(&mut writer, &[]);
        drop(writer);
        reader.join().unwrap();
        assert_eq!(store.index.entries(), 0);
    });
}

/// Two threads commit: each may outdate the batch that the other has prepared.
fn committers(first: &'static [u8], batches: [&'static [u8]; 2], deleted: &'static [u8]) {
    check(move || {
        let (store, mut writer) = Store::new();
        store.fill(&mut writer, first);
        for key in deleted {
            store.commit(&mut writer, &[(*key, None)]);
        }
        let writer = Arc::new(Mutex::new(writer));
        let [mine, theirs] = batches.map(|keys| {
            let (store, writer) = (Arc::clone(&store), Arc::clone(&writer));
            move || commit(&store, &writer, keys)
        });
        let other = thread::spawn(theirs);
        mine();
        other.join().unwrap();

        let mut expected = [first, batches[0], batches[1]].concat();
        expected.retain(|key| !deleted.contains(key) || batches.iter().any(|batch| batch.contains(key)));
        expected.sort_unstable();
        expected.dedup();
        let now = store.now();
        assert_eq!(store.index.entries(), expected.len());
        assert_eq!(store.scan(&ALL, Forward, now), expected);
        for key in &expected {
            assert_eq!(store.get_at(*key, now), Some(u64::from(*key)));
        }
        expected.reverse();
        assert_eq!(store.scan(&ALL, Backward, now), expected);
    });
}

fn commit(store: &Store, writer: &Mutex<Writer<Key, Value>>, keys: &[u8]) {
    let writes: Vec<_> = keys.iter().map(|key| (*key, Some(u64::from(*key)))).collect();
    let reader = store.index.reader();
    let batch = store.prepare(&reader, &writes);
    let mut writer = writer.lock().unwrap();
    store.publish(&mut writer, batch);
    store.vacuum(&mut writer, &[]);
}

#[test]
fn places_go_stale_when_a_run_fills() {
    committers(&[10], [&[20, 40], &[30, 50]], &[]);
}

#[test]
fn places_go_stale_when_a_run_splits() {
    committers(&[10, 40], [&[20], &[30]], &[]);
}

#[test]
fn places_go_stale_when_a_block_is_unlinked() {
    committers(&[10, 20, 30], [&[31], &[15]], &[30]);
}

#[test]
fn places_go_stale_when_blocks_are_merged() {
    committers(&[10, 20, 30, 31, 40, 41], [&[32], &[42]], &[31, 41]);
}

#[test]
fn targets_go_stale_when_an_entry_is_trimmed() {
    committers(&[10, 20], [&[10], &[15]], &[10]);
}

#[test]
fn both_insert_one_key() {
    committers(&[10], [&[20], &[20]], &[]);
}
