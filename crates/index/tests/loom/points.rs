//! Look-ups by key against inserts and the growth of the hash.

use crate::support::{Store, check, constant, spread};
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

/// Fills a segment, so that the next key makes the table grow.
fn growth(hash: fn(u8) -> u64, key: u8) {
    check(move || {
        let (store, mut writer) = Store::with(hash, 0.25);
        store.fill(&mut writer, &[1, 2, 3, 4, 5, 6]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            let now = shared.now();
            assert_eq!(shared.get_at(key, 6), Some(u64::from(key)));
            assert_eq!(shared.get_at(7, now), (now >= 7).then_some(7));
        });
        store.fill(&mut writer, &[7]);
        store.vacuum(&mut writer, &[6]);
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
        // Key 9 takes the slot that key 1 leaves.
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
