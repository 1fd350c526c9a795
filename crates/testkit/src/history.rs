//! Concurrent histories and their checker. The checker treats a whole transaction as one operation on a
//! map, so linearizability of the operations is strict serializability of the transactions (ranges,
//! misses and deletes included).
//!
//! A [`History`] contains only committed transactions. If a refused transaction had an effect all the
//! same, no order of the others explains a later read of that effect.
//!
//! The checker is the algorithm of Wing & Gong with Lowe's memoization, from `todc-utils`. Its worst
//! case is exponential in the number of overlapping transactions, so tests check many short histories
//! instead of a long one.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History as Actions};
use todc_utils::specifications::Specification;

use crate::op::{Committed, Key, Op, Value, replay};

/// The logical clock of a history. Each stamp is handed out once, so the stamps of all threads form a
/// total order that agrees with real time.
#[derive(Debug, Default)]
pub struct Stamps(AtomicU64);

impl Stamps {
    /// The next stamp.
    pub fn next(&self) -> u64 {
        // SeqCst: a stamp that is taken before an operation must not be reordered after it.
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// The committed transactions of one process (thread), and how often the store refused it.
#[derive(Clone, Debug)]
pub struct Process<K, V> {
    /// Its committed transactions, in order.
    pub committed: Vec<Committed<K, V>>,
    /// The number of its transactions that the store refused.
    pub refused: usize,
}

impl<K, V> Default for Process<K, V> {
    fn default() -> Self {
        Process { committed: Vec::new(), refused: 0 }
    }
}

/// A concurrent history of a map that was empty at the start.
#[derive(Clone, Debug)]
pub struct History<K, V> {
    /// The transactions of each process.
    pub processes: Vec<Process<K, V>>,
}

impl<K: Key, V: Value> History<K, V> {
    /// The number of committed transactions.
    #[must_use]
    pub fn committed(&self) -> usize {
        self.processes.iter().map(|process| process.committed.len()).sum()
    }

    /// The number of refused transactions.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.processes.iter().map(|process| process.refused).sum()
    }

    /// All committed transactions in one list, for the brute-force oracle [`serial`](crate::serial).
    #[must_use]
    pub fn flatten(&self) -> Vec<Committed<K, V>> {
        self.processes.iter().flat_map(|process| process.committed.iter().cloned()).collect()
    }

    /// Whether there is an order of the transactions that respects real time and explains every result.
    #[must_use]
    pub fn is_strictly_serializable(&self) -> bool {
        let mut actions: Vec<Stamped<K, V>> = Vec::new();
        for (process, run) in self.processes.iter().enumerate() {
            for txn in &run.committed {
                assert!(txn.begin < txn.end, "a response follows its call");
                // The checker replays the operations of the response, so the call needs none.
                actions.push((txn.begin, process, Action::Call(Vec::new())));
                actions.push((txn.end, process, Action::Response(txn.ops.clone())));
            }
        }
        if actions.is_empty() {
            return true;
        }
        actions.sort_by_key(|(stamp, _, _)| *stamp);
        let actions = actions.into_iter().map(|(_, process, action)| (process, action)).collect();
        WGLChecker::<MapSpecification<K, V>>::is_linearizable(Actions::from_actions(actions))
    }
}

impl<K: Key, V: Value> Display for History<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<(usize, &Committed<K, V>)> = Vec::new();
        for (process, run) in self.processes.iter().enumerate() {
            all.extend(run.committed.iter().map(|txn| (process, txn)));
        }
        all.sort_by_key(|(_, txn)| txn.begin);
        for (process, txn) in all {
            writeln!(f, "P{process} [{:>3}, {:>3}]", txn.begin, txn.end)?;
            for op in &txn.ops {
                writeln!(f, "      {op:?}")?;
            }
        }
        write!(f, "({} refused)", self.refused())
    }
}

/// A call or response of a process, with its stamp.
type Stamped<K, V> = (u64, usize, Action<Vec<Op<K, V>>>);

/// A map whose operations are whole transactions.
struct MapSpecification<K, V>(PhantomData<(K, V)>);

impl<K: Key, V: Value> Specification for MapSpecification<K, V> {
    type State = BTreeMap<K, V>;
    type Operation = Vec<Op<K, V>>;

    fn init() -> Self::State {
        BTreeMap::new()
    }

    fn apply(operation: &Self::Operation, state: &Self::State) -> (bool, Self::State) {
        match replay(operation, state) {
            Some(after) => (true, after),
            None => (false, state.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Scan;
    use crate::serial::{Order, is_serializable};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn one_each(txns: Vec<Committed<u8, u8>>) -> History<u8, u8> {
        let processes = txns.into_iter().map(|txn| Process { committed: vec![txn], refused: 0 }).collect();
        History { processes }
    }

    /// A few overlapping transactions with made-up results. An order explains some of these histories,
    /// but not most of them.
    fn made_up(rng: &mut StdRng) -> History<u8, u8> {
        let count = rng.random_range(2..=5u64);
        let mut stamps: Vec<u64> = (0..2 * count).collect();
        for i in (1..stamps.len()).rev() {
            stamps.swap(i, rng.random_range(0..=i));
        }
        let txns = stamps.chunks(2).map(|pair| {
            let key = rng.random_range(0..2);
            let guess = |rng: &mut StdRng| rng.random_bool(0.6).then(|| rng.random_range(0..2));
            let mut ops = vec![Op::Get { key, found: guess(rng) }];
            match rng.random_range(0..4) {
                0 => ops.push(Op::Delete { key }),
                1 => {
                    let items = guess(rng).map(|value| (1, value)).into_iter().collect();
                    let scan = Scan { lower: std::ops::Bound::Included(1), ..Scan::all() };
                    ops.push(Op::Scan { scan, items });
                }
                _ => ops.push(Op::Put { key: rng.random_range(0..2), value: rng.random_range(0..2) }),
            }
            Committed { begin: pair[0].min(pair[1]), end: pair[0].max(pair[1]), ops }
        });
        one_each(txns.collect())
    }

    #[test]
    fn the_two_checkers_agree() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut verdicts = [0, 0];
        for _ in 0..4000 {
            let history = made_up(&mut rng);
            let brute = is_serializable(&BTreeMap::new(), &history.flatten(), Order::Strict);
            assert_eq!(history.is_strictly_serializable(), brute, "\n{history}");
            verdicts[usize::from(brute)] += 1;
        }
        // If all verdicts were the same, the agreement would prove nothing.
        assert!(verdicts.iter().all(|&seen| seen > 100), "{verdicts:?}");
    }

    #[test]
    fn one_process_after_the_other_keeps_its_order() {
        let put = |begin, value| Committed { begin, end: begin + 1, ops: vec![Op::Put { key: 1, value }] };
        let read = |begin, found| Committed { begin, end: begin + 1, ops: vec![Op::Get { key: 1, found }] };
        let history = |last| History {
            processes: vec![Process {
                committed: vec![put(0, 1), put(2, 2), read(4, Some(last))],
                refused: 0,
            }],
        };
        assert!(history(2u8).is_strictly_serializable());
        assert!(!history(1u8).is_strictly_serializable());
    }
}
