//! Ranges given by borrowed forms of keys, and prefixes of keys that are tuples.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use crate::common::{commit, open};
use fluxmap::{Database, FluxError, Key, KeyRange, Prefix};
use futures::executor::block_on;
use proptest::prelude::*;

fn holding<K: Key>(keys: impl IntoIterator<Item = K>) -> Database<K, ()> {
    let db = open();
    block_on(db.extend(keys.into_iter().map(|key| (key, ())))).expect("it commits");
    db
}

fn within<K: Key>(db: &Database<K, ()>, range: impl KeyRange<K>) -> Vec<K> {
    db.range(range).map(|(key, _)| key).collect()
}

fn keys<K: Key>(db: &Database<K, ()>, prefix: impl Prefix<K>) -> Vec<K> {
    db.prefix(prefix).map(|(key, _)| key).collect()
}

#[test]
fn shared_and_boxed_text_and_lists_have_ranges_by_their_borrowed_forms() {
    let texts = ["a", "b", "c", "d"];
    let shared = holding(texts.map(Arc::<str>::from));
    assert_eq!(within(&shared, "b".."d"), ["b", "c"].map(Arc::<str>::from));
    assert_eq!(within(&shared, ..="a"), ["a"].map(Arc::<str>::from));
    let boxed = holding(texts.map(Box::<str>::from));
    assert_eq!(within(&boxed, "b"..="c"), ["b", "c"].map(Box::<str>::from));
    assert_eq!(keys(&boxed, "d"), ["d"].map(Box::<str>::from));

    let lists = [[1, 1], [1, 2], [2, 1]];
    let shared = holding(lists.map(Arc::<[u16]>::from));
    assert_eq!(within(&shared, &[1_u16, 2]..), [[1, 2], [2, 1]].map(Arc::<[u16]>::from));
    let boxed = holding(lists.map(Box::<[u16]>::from));
    assert_eq!(within(&boxed, &[1_u16][..]..&[2_u16][..]), [[1, 1], [1, 2]].map(Box::<[u16]>::from));
}

#[test]
fn a_prefix_of_a_tuple_is_the_keys_that_begin_with_its_elements() {
    let users = [(1_u64, 1_u32), (2, 0), (2, u32::MAX), (3, 0), (u64::MAX, 7)];
    let db = holding(users);
    assert_eq!(keys(&db, (2,)), [(2, 0), (2, u32::MAX)]);
    assert_eq!(keys(&db, (u64::MAX,)), [(u64::MAX, 7)]);
    assert_eq!(keys(&db, (&4,)), []);
    let back: Vec<_> = db.prefix((2,)).rev().map(|(key, _)| key).collect();
    assert_eq!(back, [(2, u32::MAX), (2, 0)]);
}

#[test]
fn the_elements_of_a_prefix_may_be_borrowed() {
    let db = holding([("ada", 1), ("adam", 2), ("bob", 3)].map(|(name, n)| (name.to_string(), n)));
    assert_eq!(keys(&db, ("ada",)), [("ada".to_string(), 1)]);
    let name = "adam".to_string();
    assert_eq!(keys(&db, (&name,)), [("adam".to_string(), 2)]);
    assert_eq!(keys(&db, (name,)), [("adam".to_string(), 2)]);
}

#[test]
fn tuples_have_up_to_eight_elements() {
    let key = |last: u8| (1_u8, 2_u8, 3_u8, "4".to_string(), 5_u8, 6_u8, 7_u8, last);
    let db = holding([key(8), key(9)]);
    assert_eq!(db.prefix((1, 2, 3, "4", 5, 6, 7)).count(), 2);
    assert_eq!(db.prefix((1, 2, 3, "4")).count(), 2);
    assert_eq!(db.prefix((1,)).count(), 2);
    assert_eq!(db.prefix((1, 2, 3, "5")).count(), 0);
}

#[test]
fn own_writes_are_within_a_prefix_and_a_newcomer_there_is_a_conflict() {
    for (newcomer, conflicts) in [((2, 9), true), ((1, 9), false), ((3, 0), false)] {
        let db = holding([(1_u64, 0_u32), (2, 5), (3, 1)]);
        let tx = db.begin();
        tx.insert((2, 7), ()).expect("a write is buffered");
        tx.remove(&(2, 5)).expect("a write is buffered");
        let seen: Vec<_> = tx.prefix((2,)).expect("a scan begins").map(|(key, _)| key).collect();
        assert_eq!(seen, [(2, 7)]);
        block_on(db.insert(newcomer, ())).expect("an insert commits");
        let expected = if conflicts { Err(FluxError::SerializationConflict) } else { Ok(()) };
        assert_eq!(commit(tx), expected, "{newcomer:?}");
    }
}

fn agrees<K: Key + Debug>(
    db: &Database<K, ()>,
    all: &BTreeSet<K>,
    prefix: impl Prefix<K>,
    begins: impl Fn(&K) -> bool,
) {
    let expected: Vec<K> = all.iter().filter(|key| begins(key)).cloned().collect();
    assert_eq!(keys(db, prefix), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn prefixes_of_tuples_are_what_a_filter_finds(
        all in prop::collection::btree_set((0..4_u8, -2..2_i8, "[ab]{0,2}"), 0..200),
        (a, b, c) in (0..4_u8, -2..2_i8, "[ab]{0,2}"),
    ) {
        let db = holding(all.iter().cloned());
        agrees(&db, &all, (a,), |key| key.0 == a);
        agrees(&db, &all, (a, b), |key| (key.0, key.1) == (a, b));
        let swapped: BTreeSet<(String, i8, u8)> = all.iter().map(|(a, b, c)| (c.clone(), *b, *a)).collect();
        let db = holding(swapped.iter().cloned());
        agrees(&db, &swapped, (c.as_str(),), |key| key.0 == c);
        agrees(&db, &swapped, (c.as_str(), b), |key| (&key.0, key.1) == (&c, b));
    }
}
