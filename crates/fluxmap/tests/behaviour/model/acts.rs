//! The steps of an interleaving, and how proptest draws them.

use std::ops::Bound;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// There are few keys, so that transactions conflict. Among them are the empty key and nested
/// prefixes.
pub(crate) const KEYS: [&str; 7] = ["", "a", "aa", "ab", "b", "ba", "c"];
pub(crate) const TRANSACTIONS: usize = 3;
pub(crate) const SNAPSHOTS: usize = 3;

/// One step of an interleaving. A transaction or snapshot begins when its number is first used, and
/// begins anew after it has ended.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Txn(usize, TxnAct),
    View(usize, ViewAct),
    Vacuum,
    /// A commit of one insert, outside the open transactions.
    Blind(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) enum TxnAct {
    Get(&'static str),
    Contains(&'static str),
    Put(&'static str),
    Remove(&'static str),
    Update(&'static str),
    First,
    Last,
    Count(Ends),
    Walk(Ends, Vec<WalkAct>),
    Prefix(&'static str, Vec<WalkAct>),
    Savepoint,
    RollbackTo(usize),
    Commit,
    Rollback,
    Drop,
}

#[derive(Clone, Debug)]
pub(crate) enum ViewAct {
    Get(&'static str),
    Range(Ends, Vec<bool>),
    Prefix(&'static str, bool),
    Release,
}

/// The steps taken while an iterator is open.
#[derive(Clone, Debug)]
pub(crate) enum WalkAct {
    Next,
    NextBack,
    Put(&'static str),
    Remove(&'static str),
    /// Runs the iterator to its end, upwards or downwards.
    Drain(bool),
}

pub(crate) type Ends = (Bound<&'static str>, Bound<&'static str>);

fn key() -> impl Strategy<Value = &'static str> {
    select(&KEYS[..])
}

fn bound() -> impl Strategy<Value = Bound<&'static str>> {
    prop_oneof![Just(Bound::Unbounded), key().prop_map(Bound::Included), key().prop_map(Bound::Excluded)]
}

fn walk_acts() -> impl Strategy<Value = Vec<WalkAct>> {
    let act = prop_oneof![
        4 => Just(WalkAct::Next),
        3 => Just(WalkAct::NextBack),
        1 => key().prop_map(WalkAct::Put),
        1 => key().prop_map(WalkAct::Remove),
        1 => any::<bool>().prop_map(WalkAct::Drain),
    ];
    vec(act, 0..5)
}

fn txn_act() -> impl Strategy<Value = TxnAct> {
    prop_oneof![
        4 => key().prop_map(TxnAct::Get),
        1 => key().prop_map(TxnAct::Contains),
        5 => key().prop_map(TxnAct::Put),
        2 => key().prop_map(TxnAct::Remove),
        1 => key().prop_map(TxnAct::Update),
        1 => Just(TxnAct::First),
        1 => Just(TxnAct::Last),
        1 => (bound(), bound()).prop_map(TxnAct::Count),
        3 => ((bound(), bound()), walk_acts()).prop_map(|(ends, acts)| TxnAct::Walk(ends, acts)),
        2 => (key(), walk_acts()).prop_map(|(prefix, acts)| TxnAct::Prefix(prefix, acts)),
        1 => Just(TxnAct::Savepoint),
        1 => (0..3usize).prop_map(TxnAct::RollbackTo),
        6 => Just(TxnAct::Commit),
        1 => Just(TxnAct::Rollback),
        1 => Just(TxnAct::Drop),
    ]
}

fn view_act() -> impl Strategy<Value = ViewAct> {
    prop_oneof![
        key().prop_map(ViewAct::Get),
        ((bound(), bound()), vec(any::<bool>(), 0..9)).prop_map(|(ends, ways)| ViewAct::Range(ends, ways)),
        (key(), any::<bool>()).prop_map(|(prefix, reverse)| ViewAct::Prefix(prefix, reverse)),
        Just(ViewAct::Release),
    ]
}

pub(crate) fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        20 => (0..TRANSACTIONS, txn_act()).prop_map(|(slot, act)| Act::Txn(slot, act)),
        4 => (0..SNAPSHOTS, view_act()).prop_map(|(slot, act)| Act::View(slot, act)),
        1 => Just(Act::Vacuum),
        1 => key().prop_map(Act::Blind),
    ];
    vec(act, 1..80)
}
