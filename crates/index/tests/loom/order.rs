//! Scans against splits, merges and unlinked blocks. Under loom a run holds two
//! entries, so keys that were inserted in ascending order lie in pairs.

use crate::support::{ALL, Between, Store, Write, check, spread};
use fluxmap_index::Direction::{self, Backward, Forward};
use loom::thread;
use std::sync::Arc;

/// A scan beside structural changes. It must meet the right keys, once each and in
/// order, at a snapshot from before the changes and at one taken during them.
pub(crate) struct Scan {
    /// Keys that are inserted first, one in each commit.
    pub(crate) keys: &'static [u8],
    /// Keys of these that are deleted before the first snapshot. A vacuum beside the
    /// scan unlinks them.
    pub(crate) deleted: &'static [u8],
    /// Commits beside the scan, after that vacuum. A vacuum follows each.
    pub(crate) work: &'static [&'static [Write]],
    pub(crate) span: Between,
    /// The share of blocks with an express link.
    pub(crate) probability: f64,
}

/// Of the first ten blocks that splits make, only the second has an express link.
const LOW: f64 = 0.05;
/// Of the first ten blocks that splits make, seven have an express link, the first two among them.
const HIGH: f64 = 0.75;

impl Scan {
    pub(crate) const fn of(keys: &'static [u8]) -> Self {
        Scan { keys, deleted: &[], work: &[], span: ALL, probability: LOW }
    }

    /// The timestamp of the last commit before the scan.
    fn start(&self) -> usize {
        self.keys.len() + self.deleted.len()
    }

    /// The keys that a scan at `timestamp` must meet.
    fn expected(&self, direction: Direction, timestamp: usize) -> Vec<u8> {
        let mut keys = self.keys.to_vec();
        keys.retain(|key| !self.deleted.contains(key));
        for (key, value) in self.work[..timestamp - self.start()].concat() {
            keys.retain(|other| *other != key);
            keys.extend(value.map(|_| key));
        }
        keys.retain(|key| (self.span.0..=self.span.1).contains(key));
        keys.sort_unstable();
        if direction == Backward {
            keys.reverse();
        }
        keys
    }

    pub(crate) fn check(self, direction: Direction) {
        let scan = Arc::new(self);
        check(move || scan.run(direction));
    }

    fn run(self: &Arc<Self>, direction: Direction) {
        let (store, mut writer) = Store::with(spread, self.probability);
        store.fill(&mut writer, self.keys);
        for key in self.deleted {
            store.commit(&mut writer, &[(*key, None)]);
        }
        let start = store.now();
        let (scan, shared) = (Arc::clone(self), Arc::clone(&store));
        let reader = thread::spawn(move || {
            for timestamp in [start, shared.now()] {
                let met = shared.scan(&scan.span, direction, timestamp);
                assert_eq!(met, scan.expected(direction, timestamp as usize), "at {timestamp}");
            }
        });
        store.vacuum(&mut writer, &[start]);
        for commit in self.work {
            store.commit(&mut writer, commit);
            store.vacuum(&mut writer, &[start]);
        }
        reader.join().unwrap();
    }
}

const MIDDLE_SPLIT: Scan = Scan { work: &[&[(15, Some(15))]], ..Scan::of(&[10, 20]) };

#[test]
fn a_split_in_the_middle_forward() {
    MIDDLE_SPLIT.check(Forward);
}

#[test]
fn a_split_in_the_middle_backward() {
    MIDDLE_SPLIT.check(Backward);
}

/// The block that splits has one before it and one behind it.
const INNER_SPLIT: Scan =
    Scan { work: &[&[(35, Some(35))]], probability: HIGH, ..Scan::of(&[10, 20, 30, 40, 50]) };

#[test]
fn a_split_between_blocks_forward() {
    INNER_SPLIT.check(Forward);
}

#[test]
fn a_split_between_blocks_backward() {
    INNER_SPLIT.check(Backward);
}

const APPENDS: Scan = Scan { work: &[&[(30, Some(30)), (40, Some(40))]], ..Scan::of(&[10, 20]) };

#[test]
fn appends_forward() {
    APPENDS.check(Forward);
}

#[test]
fn appends_backward() {
    APPENDS.check(Backward);
}

/// The blocks are 10 20, 30 35, 40 50. The vacuum unlinks 30, and then 35 with its block.
const UNLINK: Scan = Scan { deleted: &[30, 35], ..Scan::of(&[10, 20, 30, 35, 40, 50]) };

#[test]
fn an_unlinked_block_forward() {
    UNLINK.check(Forward);
}

#[test]
fn an_unlinked_block_backward() {
    UNLINK.check(Backward);
}

const UNLINK_HIGH: Scan = Scan { span: Between(20, 40), probability: HIGH, ..UNLINK };

#[test]
fn an_unlinked_block_with_express_links_forward() {
    UNLINK_HIGH.check(Forward);
}

#[test]
fn an_unlinked_block_with_express_links_backward() {
    UNLINK_HIGH.check(Backward);
}

/// Two neighbouring blocks are unlinked. The first still leads a reader that stands on it to the
/// second.
const UNLINK_TWO: Scan = Scan { deleted: &[30, 31, 40, 41], ..Scan::of(&[10, 20, 30, 31, 40, 41, 50, 51]) };

#[test]
fn two_unlinked_blocks_forward() {
    UNLINK_TWO.check(Forward);
}

#[test]
fn two_unlinked_blocks_backward() {
    UNLINK_TWO.check(Backward);
}

/// A block is unlinked, and the one before it, which takes over its range, splits.
const UNLINK_AND_SPLIT: Scan = Scan { deleted: &[30], work: &[&[(15, Some(15))]], ..Scan::of(&[10, 20, 30]) };

#[test]
fn a_split_where_a_block_was_unlinked_forward() {
    UNLINK_AND_SPLIT.check(Forward);
}

#[test]
fn a_split_where_a_block_was_unlinked_backward() {
    UNLINK_AND_SPLIT.check(Backward);
}

/// A block is unlinked, and another takes its place.
const UNLINK_AND_RETURN: Scan =
    Scan { deleted: &[30], work: &[&[(30, Some(30))]], ..Scan::of(&[10, 20, 30]) };

#[test]
fn a_key_back_where_a_block_was_unlinked_forward() {
    UNLINK_AND_RETURN.check(Forward);
}

#[test]
fn a_key_back_where_a_block_was_unlinked_backward() {
    UNLINK_AND_RETURN.check(Backward);
}

/// The blocks are 10 20, 30 31, 40 41, 50 51 at first. When 41 is unlinked after 31, its block is
/// merged with the one in front.
const MERGE: Scan = Scan { deleted: &[31, 41], ..Scan::of(&[10, 20, 30, 31, 40, 41, 50, 51]) };

#[test]
fn a_block_merged_with_the_one_in_front_forward() {
    MERGE.check(Forward);
}

#[test]
fn a_block_merged_with_the_one_in_front_backward() {
    MERGE.check(Backward);
}

/// When 30 is unlinked after 40, its block is merged with the one behind.
const MERGE_NEXT: Scan = Scan { deleted: &[40, 30], probability: HIGH, ..MERGE };

#[test]
fn a_block_with_express_links_merged_with_the_one_behind_forward() {
    MERGE_NEXT.check(Forward);
}

#[test]
fn a_block_with_express_links_merged_with_the_one_behind_backward() {
    MERGE_NEXT.check(Backward);
}

/// The merged block is full, and splits again.
const MERGE_AND_SPLIT: Scan = Scan { work: &[&[(35, Some(35))]], ..MERGE };

#[test]
fn a_merged_block_that_splits_forward() {
    MERGE_AND_SPLIT.check(Forward);
}

#[test]
fn a_merged_block_that_splits_backward() {
    MERGE_AND_SPLIT.check(Backward);
}

/// The merged block loses all of its entries, and is unlinked.
const MERGE_AND_UNLINK: Scan = Scan { deleted: &[31, 41, 30, 40], ..MERGE };

#[test]
fn a_merged_block_that_goes_forward() {
    MERGE_AND_UNLINK.check(Forward);
}

#[test]
fn a_merged_block_that_goes_backward() {
    MERGE_AND_UNLINK.check(Backward);
}

const REMOVE: Scan = Scan { deleted: &[10], work: &[&[(12, Some(12))]], ..Scan::of(&[10, 20, 30]) };

#[test]
fn an_entry_removed_from_a_run_forward() {
    REMOVE.check(Forward);
}

#[test]
fn an_entry_removed_from_a_run_backward() {
    REMOVE.check(Backward);
}

#[test]
fn a_span_is_changed_by_a_commit_within_it_only() {
    check(|| {
        let (store, mut writer) = Store::new();
        store.fill(&mut writer, &[10, 20, 30]);
        let shared = Arc::clone(&store);
        let reader = thread::spawn(move || {
            let now = shared.now();
            let changed = |span| shared.index.reader().changed_within(&span, 3, 0);
            assert!(!changed(Between(21, 40)));
            assert!(now < 4 || changed(Between(11, 19)));
        });
        store.fill(&mut writer, &[15]);
        store.vacuum(&mut writer, &[3]);
        reader.join().unwrap();
    });
}
