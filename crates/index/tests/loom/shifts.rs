//! Reads of runs whose entries move. A run holds four entries, and keys have key prefixes.

use crate::order::Scan;
use crate::support::{ALL, Between, Store, check};
use fluxmap_index::Direction::{Backward, Forward};
use loom::sync::Mutex;
use loom::thread;
use std::sync::Arc;

/// Two entries move, one after the other.
const IN_FRONT: Scan = Scan { work: &[&[(10, Some(10))]], ..Scan::of(&[20, 30]) };

#[test]
fn an_insertion_in_front_forward() {
    IN_FRONT.check(Forward);
}

#[test]
fn an_insertion_in_front_backward() {
    IN_FRONT.check(Backward);
}

/// The span begins and ends among the entries that move.
const AMONG: Scan = Scan { span: Between(25, 35), work: &[&[(10, Some(10))]], ..Scan::of(&[20, 30, 40]) };

#[test]
fn a_span_among_those_that_move_forward() {
    AMONG.check(Forward);
}

#[test]
fn a_span_among_those_that_move_backward() {
    AMONG.check(Backward);
}

/// A scan may meet an entry again, two slots further on.
const TWICE: Scan = Scan { work: &[&[(10, Some(10))], &[(15, Some(15))]], ..Scan::of(&[20, 30]) };

#[test]
fn two_insertions_forward() {
    TWICE.check(Forward);
}

#[test]
fn two_insertions_backward() {
    TWICE.check(Backward);
}

/// The second insertion splits the run that the first has filled.
const FILLS: Scan = Scan { work: &[&[(10, Some(10)), (15, Some(15))]], ..Scan::of(&[20, 30, 40]) };

#[test]
fn an_insertion_and_a_split_forward() {
    FILLS.check(Forward);
}

#[test]
fn an_insertion_and_a_split_backward() {
    FILLS.check(Backward);
}

#[test]
fn a_place_that_was_found_while_entries_moved() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.fill(&mut writer, &[20, 40]);
        let writer = Arc::new(Mutex::new(writer));
        let (shared, other) = (Arc::clone(&store), Arc::clone(&writer));
        let inserter = thread::spawn(move || {
            let reader = shared.index.reader();
            let batch = shared.prepare(&reader, &[(30, Some(30))]);
            shared.publish(&mut other.lock().unwrap(), batch);
        });
        store.commit(&mut writer.lock().unwrap(), &[(10, Some(10))]);
        inserter.join().unwrap();
        assert_eq!(store.scan(&ALL, Forward, 4), [10, 20, 30, 40]);
    });
}
