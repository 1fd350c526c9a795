//! The brute-force oracle. It decides whether an order of the transactions of a small history explains
//! every result, by trying all orders.
//!
//! The oracle compares results. The store's certifier never looks at results, only at the versions of
//! keys. The two share no idea, so the oracle does not repeat a mistake of the certifier. The time is
//! exponential, so a history should have a dozen transactions at most.

use std::collections::{BTreeMap, HashSet};

use crate::op::{Committed, Key, Value, replay};

/// The orders that are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Any order.
    Serial,
    /// Orders that respect real time: a transaction that ended before another began comes first.
    Strict,
}

/// The most transactions that [`witness`] accepts, since it keeps sets of them as bit masks.
pub const MOST: usize = 32;

/// An order of `history` (as indices) that explains every result when replayed from `initial`; `None` if
/// there is none, which means that the history is not serializable.
///
/// # Panics
/// If the history holds more than [`MOST`] transactions.
pub fn witness<K: Key, V: Value>(
    initial: &BTreeMap<K, V>,
    history: &[Committed<K, V>],
    order: Order,
) -> Option<Vec<usize>> {
    assert!(history.len() <= MOST, "the history has too many transactions for brute force");
    // before[i]: the transactions that real time puts before i, as a bit mask.
    let before: Vec<u32> = history
        .iter()
        .map(|later| match order {
            Order::Serial => 0,
            Order::Strict => (0..history.len())
                .filter(|&earlier| history[earlier].end < later.begin)
                .fold(0, |mask, earlier| mask | 1 << earlier),
        })
        .collect();
    let mut search = Search { history, before, dead_ends: HashSet::new(), path: Vec::new() };
    search.extend(0, initial).then_some(search.path)
}

/// Whether an order explains every result; see [`witness`].
pub fn is_serializable<K: Key, V: Value>(
    initial: &BTreeMap<K, V>,
    history: &[Committed<K, V>],
    order: Order,
) -> bool {
    witness(initial, history, order).is_some()
}

struct Search<'h, K, V> {
    history: &'h [Committed<K, V>],
    before: Vec<u32>,
    /// Sets of placed transactions, with the state after them, from which no order of the remaining
    /// transactions explains the results.
    dead_ends: HashSet<(u32, BTreeMap<K, V>)>,
    path: Vec<usize>,
}

impl<K: Key, V: Value> Search<'_, K, V> {
    fn extend(&mut self, placed: u32, state: &BTreeMap<K, V>) -> bool {
        if self.path.len() == self.history.len() {
            return true;
        }
        if self.dead_ends.contains(&(placed, state.clone())) {
            return false;
        }
        for next in 0..self.history.len() {
            let bit = 1 << next;
            // Skip a transaction that is placed already, or that real time puts after one that is not.
            if placed & bit != 0 || self.before[next] & !placed != 0 {
                continue;
            }
            if let Some(after) = replay(&self.history[next].ops, state) {
                self.path.push(next);
                if self.extend(placed | bit, &after) {
                    return true;
                }
                self.path.pop();
            }
        }
        // The same set and state may be reached in another order: remember that it leads nowhere.
        self.dead_ends.insert((placed, state.clone()));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Op, Scan};

    type Txn = Committed<&'static str, u64>;

    fn txn(begin: u64, end: u64, ops: Vec<Op<&'static str, u64>>) -> Txn {
        Committed { begin, end, ops }
    }
    fn get(key: &'static str, found: Option<u64>) -> Op<&'static str, u64> {
        Op::Get { key, found }
    }
    fn put(key: &'static str, value: u64) -> Op<&'static str, u64> {
        Op::Put { key, value }
    }
    fn verdict(history: &[Txn], order: Order) -> bool {
        is_serializable(&BTreeMap::from([("x", 0), ("y", 0)]), history, order)
    }

    #[test]
    fn write_skew_is_not_serializable() {
        let skew = [
            txn(0, 3, vec![get("x", Some(0)), get("y", Some(0)), put("x", 1)]),
            txn(1, 2, vec![get("x", Some(0)), get("y", Some(0)), put("y", 1)]),
        ];
        assert!(!verdict(&skew, Order::Serial));
        assert!(verdict(&skew[..1], Order::Strict));
    }

    #[test]
    fn a_lost_update_is_not_serializable() {
        let lost = [
            txn(0, 3, vec![get("x", Some(0)), put("x", 1)]),
            txn(1, 2, vec![get("x", Some(0)), put("x", 2)]),
        ];
        assert!(!verdict(&lost, Order::Serial));
    }

    #[test]
    fn a_phantom_is_seen_through_the_range_result() {
        let none = || Op::Scan {
            scan: Scan { lower: std::ops::Bound::Excluded("y"), ..Scan::all() },
            items: vec![],
        };
        let history = [txn(0, 3, vec![none(), put("za", 1)]), txn(1, 2, vec![none(), put("zb", 1)])];
        assert!(!verdict(&history, Order::Serial));
    }

    #[test]
    fn real_time_decides_only_where_it_is_asked_for() {
        // The reader began after the writer had ended and still saw the old value.
        let stale = [txn(0, 1, vec![put("x", 1)]), txn(2, 3, vec![get("x", Some(0))])];
        assert!(verdict(&stale, Order::Serial));
        assert!(!verdict(&stale, Order::Strict));
        let witness = witness(&BTreeMap::from([("x", 0), ("y", 0)]), &stale, Order::Serial);
        assert_eq!(witness, Some(vec![1, 0]));
    }

    #[test]
    fn the_read_only_anomaly_needs_its_reader() {
        let anomaly = [
            txn(0, 9, vec![get("x", Some(0)), get("y", Some(0)), put("x", 11)]),
            txn(1, 4, vec![get("y", Some(0)), put("y", 20)]),
            txn(5, 6, vec![get("x", Some(0)), get("y", Some(20))]),
        ];
        assert!(!verdict(&anomaly, Order::Serial));
        assert!(verdict(&anomaly[..2], Order::Strict));
    }
}
