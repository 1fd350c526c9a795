//! Look-ups by key against inserts, and against the hash as it grows and shrinks.

use crate::support::{Store, Write, check, constant, spread};
use loom::thread;
use std::sync::Arc;

#[test]
fn an_insert_shows_from_its_timestamp_on() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.fill(&mut writer, &[1]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            let now = shared.now();
            assert_eq!(shared.get_at(2, now), (now >= 2).then_some(2));
            assert_eq!(shared.get_at(1, now), Some(1));
        });
        store.fill(&mut writer, &[2]);
        reader.join().unwrap();
    });
}

#[test]
fn an_update_leaves_an_old_snapshot_alone() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.fill(&mut writer, &[1]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            assert_eq!(shared.get_at(1, 1), Some(1));
            let now = shared.now();
            if now > 1 {
                assert!(shared.changed(1, 1));
            }
        });
        store.commit(&mut writer, &[(1, Some(100))]);
        store.vacuum(&mut writer, &[1]);
        reader.join().unwrap();
    });
}

#[test]
fn what_came_and_went_since_a_snapshot_is_a_change() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.fill(&mut writer, &[1]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            let now = shared.now();
            assert!(now < 2 || shared.changed(2, 1), "a change at {now} is gone");
        });
        store.commit(&mut writer, &[(2, Some(2))]);
        store.vacuum(&mut writer, &[1]);
        store.commit(&mut writer, &[(2, None)]);
        store.vacuum(&mut writer, &[1]);
        reader.join().unwrap();
    });
}

/// Keys that fill a segment.
const FULL: [u8; 7] = [1, 2, 3, 4, 5, 6, 7];

/// Fills a segment, and inserts one more key, which makes the hash grow, beside look-ups of that
/// key and of `key`.
fn growth(hash: fn(u8) -> u64, key: u8) {
    check(move || {
        let (store, mut writer) = Store::with(hash, 0.25);
        store.fill(&mut writer, &FULL);
        let full = store.index.structure().bytes;
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            let now = shared.now();
            assert_eq!(shared.get_at(key, 7), Some(u64::from(key)));
            assert_eq!(shared.get_at(8, now), (now >= 8).then_some(8));
        });
        store.fill(&mut writer, &[8]);
        assert!(store.index.structure().bytes > full, "the hash has not grown");
        store.vacuum(&mut writer, &[7]);
        reader.join().unwrap();
    });
}

#[test]
fn a_segment_that_splits_still_finds_what_goes_left() {
    growth(spread, 2);
}

#[test]
fn a_segment_that_splits_still_finds_what_goes_right() {
    growth(spread, 1);
}

#[test]
fn a_segment_that_degenerates_still_finds_all() {
    growth(constant, 6);
}

/// A hash that shrinks beside look-ups, when the key `goes` is unlinked. Keys 1 to 8 are
/// inserted first.
struct Shrinkage {
    hash: fn(u8) -> u64,
    /// Keys that are deleted and unlinked before the look-ups begin.
    gone: &'static [u8],
    /// The key that is unlinked beside the look-ups.
    goes: u8,
    /// Keys that are written after that, and make the hash grow again, if there are any.
    come: &'static [Write],
}

/// Two segments have four keys together, and are merged when one of the keys is unlinked.
const MERGE: Shrinkage = Shrinkage { hash: spread, gone: &[8, 7, 6, 5], goes: 4, come: &[] };

impl Shrinkage {
    /// Looks up `key`, which stays, and the key that goes.
    fn check(self, key: u8) {
        check(move || self.run(key));
    }

    fn run(&self, key: u8) {
        let (store, mut writer) = Store::with(self.hash, 0.25);
        store.fill(&mut writer, &[1, 2, 3, 4, 5, 6, 7, 8]);
        self.gone.iter().for_each(|key| store.commit(&mut writer, &[(*key, None)]));
        store.vacuum(&mut writer, &[]);
        store.commit(&mut writer, &[(self.goes, None)]);
        let (before, start) = (store.index.structure().bytes, store.now());
        let (shared, goes) = (Arc::clone(&store), self.goes);
        let reader = thread::spawn(move || {
            let now = shared.now();
            assert_eq!(shared.get_at(key, now), Some(u64::from(key)));
            assert_eq!(shared.get_at(goes, now), (now > start).then_some(u64::from(goes)));
        });
        store.vacuum(&mut writer, &[]);
        let small = store.index.structure().bytes;
        assert!(small < before, "the hash has not got smaller");
        if !self.come.is_empty() {
            store.commit(&mut writer, self.come);
            assert!(store.index.structure().bytes > small, "the hash has not grown");
            store.vacuum(&mut writer, &[start]);
        }
        reader.join().unwrap();
        assert_eq!(store.latest(key), Some(u64::from(key)));
    }
}

#[test]
fn segments_that_are_merged_still_find_what_was_left() {
    MERGE.check(2);
}

#[test]
fn segments_that_are_merged_still_find_what_was_right() {
    MERGE.check(1);
}

#[test]
fn segments_that_are_merged_again_and_again_still_find_all() {
    Shrinkage { hash: constant, ..MERGE }.check(3);
}

#[test]
fn a_segment_that_recovers_still_finds_all() {
    Shrinkage { hash: constant, gone: &[8], goes: 7, ..MERGE }.check(3);
}

/// Enough keys for the hash to grow back.
const BACK: [Write; 5] = [(4, Some(4)), (5, Some(5)), (6, Some(6)), (7, Some(7)), (8, Some(8))];

#[test]
fn a_look_up_outlasts_a_hash_that_shrinks_and_grows() {
    Shrinkage { come: &BACK, ..MERGE }.check(1);
}

#[test]
fn a_look_up_goes_past_a_bucket_that_overflowed() {
    check(|| {
        let (store, mut writer) = Store::with(constant, 0.25);
        store.fill(&mut writer, &[1, 2, 3, 4, 5, 6, 7, 8]);
        store.commit(&mut writer, &[(1, None)]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            let now = shared.now();
            assert_eq!(shared.get_at(8, now), Some(8));
            assert_eq!(shared.get_at(9, now), (now >= 10).then_some(9));
        });
        // Key 9 takes the slot from which key 1 is removed.
        store.vacuum(&mut writer, &[]);
        store.fill(&mut writer, &[9]);
        reader.join().unwrap();
    });
}

#[test]
fn a_slot_given_to_another_key_confuses_nobody() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.fill(&mut writer, &[1, 2]);
        store.commit(&mut writer, &[(1, None)]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            let now = shared.now();
            assert_eq!(shared.get_at(1, now), None);
            assert_eq!(shared.get_at(2, now), Some(2));
            assert_eq!(shared.get_at(3, now), (now >= 4).then_some(3));
        });
        store.vacuum(&mut writer, &[]);
        store.fill(&mut writer, &[3]);
        reader.join().unwrap();
    });
}

#[test]
fn a_key_that_comes_back_is_found() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.fill(&mut writer, &[1]);
        store.commit(&mut writer, &[(1, None)]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            let now = shared.now();
            assert_eq!(shared.get_at(1, now), (now >= 3).then_some(1));
        });
        store.vacuum(&mut writer, &[]);
        store.fill(&mut writer, &[1]);
        reader.join().unwrap();
    });
}
