//! Chains of versions: old snapshots against trimming, and reads without a snapshot
//! against commits.

use crate::support::{Store, check};
use loom::thread;
use std::sync::Arc;

#[test]
fn trimming_leaves_a_snapshot_what_it_sees() {
    check(|| {
        let (store, mut writer) = Store::new();
        for value in 1..=4 {
            store.commit(&mut writer, &[(1, Some(value))]);
        }
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            assert_eq!(shared.get_at(1, 2), Some(2));
        });
        // Values 1 and 3 are trimmed: one behind the version that the reader looks for, and one in
        // front of it.
        store.vacuum(&mut writer, &[2]);
        store.commit(&mut writer, &[(1, Some(5))]);
        store.vacuum(&mut writer, &[2]);
        reader.join().unwrap();
    });
}

#[test]
fn trimming_by_an_old_horizon_leaves_later_snapshots_what_they_see() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.commit(&mut writer, &[(1, Some(1))]);
        let horizon = store.horizon(&[]);
        store.commit(&mut writer, &[(1, Some(2))]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            let now = shared.now();
            assert_eq!(shared.get_at(1, now), Some(now));
        });
        store.commit(&mut writer, &[(1, Some(3))]);
        writer.trim(&horizon, usize::MAX);
        drop(writer.collect_all());
        reader.join().unwrap();
    });
}

#[test]
fn latest_never_goes_back() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.commit(&mut writer, &[(1, Some(1))]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            let before = shared.now();
            let value = shared.latest(1).expect("never deleted");
            assert!(value >= before, "{value} was found at {before} or later");
            assert!(value <= shared.now(), "an unpublished value was found");
            assert!(shared.latest(1).is_some_and(|later| later >= value));
        });
        store.commit(&mut writer, &[(1, Some(2))]);
        store.vacuum(&mut writer, &[]);
        reader.join().unwrap();
    });
}

#[test]
fn latest_stays_true_while_what_it_wants_is_trimmed() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.commit(&mut writer, &[(1, Some(1))]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            let before = shared.now();
            let value = shared.latest(1).expect("never deleted");
            assert!(value >= before && value <= shared.now());
        });
        for value in [2, 3] {
            store.commit(&mut writer, &[(1, Some(value))]);
            store.vacuum(&mut writer, &[]);
        }
        reader.join().unwrap();
    });
}

#[test]
fn latest_shows_no_half_commit() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.commit(&mut writer, &[(1, Some(1)), (2, Some(1))]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            let first = shared.latest(1).expect("never deleted");
            let second = shared.latest(2).expect("never deleted");
            assert!(second >= first, "key 1 was at {first}, then key 2 at {second}");
        });
        store.commit(&mut writer, &[(1, Some(2)), (2, Some(2))]);
        store.vacuum(&mut writer, &[]);
        reader.join().unwrap();
    });
}

#[test]
fn latest_follows_a_key_that_goes_and_comes_back() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.commit(&mut writer, &[(1, Some(1))]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            let before = shared.now();
            let value = shared.latest(1);
            let after = shared.now();
            match value {
                Some(1) => assert!(before < 2),
                Some(_) => assert!(after >= 3),
                None => assert!(before <= 2 && after >= 2),
            }
        });
        store.commit(&mut writer, &[(1, None)]);
        store.vacuum(&mut writer, &[]);
        store.commit(&mut writer, &[(1, Some(3))]);
        reader.join().unwrap();
    });
}
