//! The types that all checkers share: the operations of a transaction with their results ([`Op`],
//! [`Committed`]), and the function that decides whether a map explains them ([`replay`]).
//!
//! Invariant: `replay` is the only definition of the meaning of an operation. The brute-force oracle and
//! the history checker both use it, so they can disagree only about the order of transactions.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::ops::Bound;

/// The requirements of the checkers on a key.
pub trait Key: Ord + Clone + Hash + Debug {}
impl<T: Ord + Clone + Hash + Debug> Key for T {}

/// The requirements of the checkers on a value.
pub trait Value: Eq + Clone + Hash + Debug {}
impl<T: Eq + Clone + Hash + Debug> Value for T {}

/// A scan: a range of keys, a direction, and the number of items asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scan<K> {
    /// The lower end of the range.
    pub lower: Bound<K>,
    /// The upper end of the range.
    pub upper: Bound<K>,
    /// Whether the scan runs from the upper end down.
    pub reverse: bool,
    /// How often the iterator was advanced; `None` if until its end.
    pub limit: Option<usize>,
}

impl<K: Ord> Scan<K> {
    /// A scan of everything, upwards.
    #[must_use]
    pub fn all() -> Self {
        Scan { lower: Bound::Unbounded, upper: Bound::Unbounded, reverse: false, limit: None }
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &K) -> bool {
        let above = match &self.lower {
            Bound::Unbounded => true,
            Bound::Included(lower) => key >= lower,
            Bound::Excluded(lower) => key > lower,
        };
        let below = match &self.upper {
            Bound::Unbounded => true,
            Bound::Included(upper) => key <= upper,
            Bound::Excluded(upper) => key < upper,
        };
        above && below
    }

    /// The result of the scan over `map`. It walks the whole map, which is slow but plainly correct, and
    /// allows a lower end above the upper one.
    pub fn over<V: Clone>(&self, map: &BTreeMap<K, V>) -> Vec<(K, V)>
    where
        K: Clone,
    {
        let limit = self.limit.unwrap_or(usize::MAX);
        let inside = map.iter().filter(|(key, _)| self.contains(key));
        let owned = |(key, value): (&K, &V)| (key.clone(), value.clone());
        if self.reverse {
            inside.rev().take(limit).map(owned).collect()
        } else {
            inside.take(limit).map(owned).collect()
        }
    }
}

/// One operation of a transaction, with its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op<K, V> {
    /// A look-up and its result.
    Get {
        /// The key that was asked for.
        key: K,
        /// The value that was found, if any.
        found: Option<V>,
    },
    /// A scan and its result.
    Scan {
        /// The range, direction and length.
        scan: Scan<K>,
        /// The items in the order in which they came.
        items: Vec<(K, V)>,
    },
    /// A write.
    Put {
        /// The key.
        key: K,
        /// The new value.
        value: V,
    },
    /// A delete. A delete that returns the old value is an [`Op::Get`] followed by this one.
    Delete {
        /// The key.
        key: K,
    },
    /// A savepoint, under a number that the caller chose.
    Savepoint(usize),
    /// A rollback of all writes since the newest savepoint of that number. The caller has seen the
    /// reads in between, so they must be explained like all others.
    RollbackTo(usize),
}

/// A transaction that committed, placed in real time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<K, V> {
    /// A stamp taken before the transaction began.
    pub begin: u64,
    /// A stamp taken after its commit returned.
    pub end: u64,
    /// The operations of the transaction, in order.
    pub ops: Vec<Op<K, V>>,
}

/// Replays `ops` on `state` without other transactions. Returns the state after them, or `None` if a
/// recorded result differs from the result of the replay.
pub fn replay<K: Key, V: Value>(ops: &[Op<K, V>], state: &BTreeMap<K, V>) -> Option<BTreeMap<K, V>> {
    let mut state = state.clone();
    let mut savepoints = Vec::new();
    for op in ops {
        match op {
            Op::Get { key, found } => {
                if state.get(key) != found.as_ref() {
                    return None;
                }
            }
            Op::Scan { scan, items } => {
                if &scan.over(&state) != items {
                    return None;
                }
            }
            Op::Put { key, value } => {
                state.insert(key.clone(), value.clone());
            }
            Op::Delete { key } => {
                state.remove(key);
            }
            Op::Savepoint(id) => savepoints.push((*id, state.clone())),
            Op::RollbackTo(id) => {
                let at = savepoints.iter().rposition(|(mark, _)| mark == id)?;
                savepoints.truncate(at + 1);
                state = savepoints[at].1.clone();
            }
        }
    }
    Some(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> BTreeMap<u64, u64> {
        BTreeMap::from([(1, 10), (2, 20), (3, 30)])
    }

    #[test]
    fn a_scan_honours_ends_direction_and_limit() {
        let scan = |lower, upper, reverse, limit| Scan { lower, upper, reverse, limit };
        let keys =
            |scan: Scan<u64>| -> Vec<u64> { scan.over(&three()).into_iter().map(|(key, _)| key).collect() };
        use Bound::{Excluded, Included, Unbounded};
        assert_eq!(keys(Scan::all()), [1, 2, 3]);
        assert_eq!(keys(scan(Excluded(1), Included(3), true, None)), [3, 2]);
        assert_eq!(keys(scan(Included(1), Excluded(3), false, Some(1))), [1]);
        assert_eq!(keys(scan(Unbounded, Unbounded, true, Some(2))), [3, 2]);
        assert!(keys(scan(Included(3), Included(1), false, None)).is_empty());
    }

    #[test]
    fn replay_sees_own_writes_and_refuses_a_wrong_result() {
        let ops = vec![
            Op::Put { key: 4, value: 40 },
            Op::Delete { key: 1 },
            Op::Get { key: 4, found: Some(40) },
            Op::Scan { scan: Scan::all(), items: vec![(2, 20), (3, 30), (4, 40)] },
        ];
        let after = replay(&ops, &three()).expect("the results are right");
        assert_eq!(after, BTreeMap::from([(2, 20), (3, 30), (4, 40)]));
        let wrong = [Op::Get { key: 1, found: None }];
        assert_eq!(replay::<u64, u64>(&wrong, &three()), None);
    }

    #[test]
    fn replay_undoes_writes_back_to_a_savepoint() {
        let put = |key| Op::Put { key, value: 0 };
        let found = |key, found| Op::Get { key, found };
        let ops = vec![
            put(7),
            Op::Savepoint(1),
            put(8),
            Op::Savepoint(2),
            found(8, Some(0)),
            Op::RollbackTo(1),
            found(8, None),
            found(7, Some(0)),
        ];
        assert!(replay(&ops, &three()).is_some());
        // The rollback to the first savepoint ended the second one.
        let ended = [ops, vec![Op::RollbackTo(2)]].concat();
        assert_eq!(replay(&ended, &three()), None);
    }
}
