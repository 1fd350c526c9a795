//! The multi-version oracle: a plain `BTreeMap` per commit. For any interleaving, it gives the result of
//! every read of every open transaction, and the decision of certification at each commit.
//!
//! Invariants
//! - M1: `states[t]` is the content after commit `t` and never changes again. A transaction that began at
//!   `t` reads `states[t]` with its own writes applied to it.
//! - M2: for each read, the transaction notes exactly the range on which the result depended: one key, or
//!   the part of a range that was walked.
//!
//! The rule leaves the store one choice: the removal of an absent key may or may not count as a write. The
//! verdict is then [`Verdict::Either`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::op::{Key, Op, Scan, Value};

/// The certification rule that decides at commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// No other commit since the snapshot may have written a key that the transaction has read.
    Serializable,
    /// No other commit since the snapshot may have written a key that the transaction writes.
    Snapshot,
}

/// The decision of the rule about a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The commit must succeed.
    Commit,
    /// The commit must be refused.
    Refuse,
    /// The rule allows either.
    Either,
}

/// The keys that a commit wrote.
#[derive(Clone, Debug)]
struct Change<K> {
    /// Keys that were certainly written.
    sure: BTreeSet<K>,
    /// Keys that were absent when they were removed. This may or may not count as a write.
    idle: BTreeSet<K>,
}

/// The oracle's database: the state after each commit.
#[derive(Clone, Debug)]
pub struct Model<K, V> {
    states: Vec<BTreeMap<K, V>>,
    changes: Vec<Change<K>>,
}

impl<K: Key, V: Value> Default for Model<K, V> {
    fn default() -> Self {
        Model { states: vec![BTreeMap::new()], changes: Vec::new() }
    }
}

impl<K: Key, V: Value> Model<K, V> {
    /// The number of commits, which is the timestamp of a snapshot taken now.
    #[must_use]
    pub fn now(&self) -> usize {
        self.changes.len()
    }

    /// The content that a snapshot sees.
    #[must_use]
    pub fn at(&self, snapshot: usize) -> &BTreeMap<K, V> {
        &self.states[snapshot]
    }

    /// Begins a transaction on the newest state.
    #[must_use]
    pub fn begin(&self) -> ModelTxn<K, V> {
        ModelTxn { snapshot: self.now(), ..ModelTxn::over(self.states[self.now()].clone()) }
    }

    /// The decision of `level`'s rule if `txn` committed now.
    #[must_use]
    pub fn verdict(&self, txn: &ModelTxn<K, V>, level: Level) -> Verdict {
        if txn.writes.is_empty() {
            return Verdict::Commit;
        }
        let since = &self.changes[txn.snapshot..];
        // Whether a commit since the snapshot certainly wrote a matching key, and whether one perhaps did
        // (the removal of an absent key).
        let clash = |hit: &dyn Fn(&K) -> bool| {
            (
                since.iter().any(|change| change.sure.iter().any(hit)),
                since.iter().any(|change| change.idle.iter().any(hit)),
            )
        };
        let (sure, maybe, certainly_writes) = match level {
            Level::Serializable => {
                let (sure, maybe) = clash(&|key: &K| txn.noted.iter().any(|note| note.contains(key)));
                (sure, maybe, txn.writes.values().any(|write| !write.idle()))
            }
            Level::Snapshot => {
                let written =
                    |idle: bool| move |key: &K| txn.writes.get(key).is_some_and(|write| write.idle() == idle);
                let (sure, unsure) = clash(&written(false));
                let (idle_sure, idle_unsure) = clash(&written(true));
                (sure, unsure || idle_sure || idle_unsure, true)
            }
        };
        match (sure, maybe, certainly_writes) {
            (false, false, _) => Verdict::Commit,
            (true, _, true) => Verdict::Refuse,
            _ => Verdict::Either,
        }
    }

    /// Commits `txn`. Does not check the rule.
    pub fn commit(&mut self, txn: &ModelTxn<K, V>) {
        if txn.writes.is_empty() {
            return;
        }
        let mut state = self.states[self.now()].clone();
        let mut change = Change { sure: BTreeSet::new(), idle: BTreeSet::new() };
        for (key, write) in &txn.writes {
            match write {
                Write::Put(value) => {
                    state.insert(key.clone(), value.clone());
                    change.sure.insert(key.clone());
                }
                Write::Delete => {
                    state.remove(key);
                    change.sure.insert(key.clone());
                }
                Write::IdleDelete => {
                    change.idle.insert(key.clone());
                }
            }
        }
        self.states.push(state);
        self.changes.push(change);
    }
}

/// The write that a transaction holds back for one key until it commits.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Write<V> {
    Put(V),
    Delete,
    /// The removal of an absent key.
    IdleDelete,
}

impl<V> Write<V> {
    fn idle(&self) -> bool {
        matches!(self, Write::IdleDelete)
    }
}

/// A savepoint of a [`ModelTxn`].
#[derive(Clone, Debug)]
struct Mark<K, V> {
    id: usize,
    writes: BTreeMap<K, Write<V>>,
}

/// An open transaction of the model.
#[derive(Clone, Debug)]
pub struct ModelTxn<K, V> {
    snapshot: usize,
    base: BTreeMap<K, V>,
    writes: BTreeMap<K, Write<V>>,
    savepoints: Vec<Mark<K, V>>,
    noted: Vec<Scan<K>>,
    ops: Vec<Op<K, V>>,
}

impl<K: Key, V: Value> ModelTxn<K, V> {
    /// A transaction that reads `base`, without a [`Model`]. The caller keeps the state, and decides from
    /// [`noted`](Self::noted) and [`written`](Self::written) whether the transaction may commit.
    #[must_use]
    pub fn over(base: BTreeMap<K, V>) -> Self {
        ModelTxn {
            snapshot: 0,
            base,
            writes: BTreeMap::new(),
            savepoints: Vec::new(),
            noted: Vec::new(),
            ops: Vec::new(),
        }
    }

    /// The ranges of keys on which the transaction's results so far depended.
    #[must_use]
    pub fn noted(&self) -> &[Scan<K>] {
        &self.noted
    }

    /// The keys that a commit certainly writes, each with its new value, or `None` if it deletes the
    /// key.
    pub fn written(&self) -> impl Iterator<Item = (&K, Option<&V>)> {
        self.writes.iter().filter_map(|(key, write)| match write {
            Write::Put(value) => Some((key, Some(value))),
            Write::Delete => Some((key, None)),
            Write::IdleDelete => None,
        })
    }

    /// The content that the transaction sees: its snapshot with its own writes applied to it.
    #[must_use]
    pub fn view(&self) -> BTreeMap<K, V> {
        let mut view = self.base.clone();
        for (key, write) in &self.writes {
            match write {
                Write::Put(value) => view.insert(key.clone(), value.clone()),
                Write::Delete | Write::IdleDelete => view.remove(key),
            };
        }
        view
    }

    /// Looks a key up.
    pub fn get(&mut self, key: &K) -> Option<V> {
        let found = self.view().get(key).cloned();
        // If the transaction has written the key, no other commit can change the result.
        if !self.writes.contains_key(key) {
            self.noted.push(point(key));
        }
        self.ops.push(Op::Get { key: key.clone(), found: found.clone() });
        found
    }

    /// Scans, and notes the part of the range on which the result depended.
    pub fn scan(&mut self, scan: &Scan<K>) -> Vec<(K, V)> {
        let items = scan.over(&self.view());
        self.noted.extend(walked(scan, &items));
        self.ops.push(Op::Scan { scan: scan.clone(), items: items.clone() });
        items
    }

    /// Opens a double-ended iterator. Opening it reads nothing.
    #[must_use]
    pub fn walk(&self, lower: Bound<K>, upper: Bound<K>) -> Walk<K> {
        Walk { lower, upper }
    }

    /// Advances an iterator at either end. It yields the content that the transaction sees now, including
    /// writes that the transaction made after opening the iterator.
    pub fn step(&mut self, walk: &mut Walk<K>, reverse: bool) -> Option<(K, V)> {
        let rest = Scan { lower: walk.lower.clone(), upper: walk.upper.clone(), reverse, limit: Some(1) };
        let item = self.scan(&rest).pop();
        if let Some((key, _)) = &item {
            let position = Bound::Excluded(key.clone());
            *(if reverse { &mut walk.upper } else { &mut walk.lower }) = position;
        }
        item
    }

    /// Writes without reading.
    pub fn put(&mut self, key: K, value: V) {
        self.ops.push(Op::Put { key: key.clone(), value: value.clone() });
        self.writes.insert(key, Write::Put(value));
    }

    /// Removes a key and returns its old value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let found = self.get(key);
        self.ops.push(Op::Delete { key: key.clone() });
        let idle = !self.base.contains_key(key) && self.writes.get(key).is_none_or(Write::idle);
        let write = if idle { Write::IdleDelete } else { Write::Delete };
        self.writes.insert(key.clone(), write);
        found
    }

    /// Sets a savepoint under a number that the caller chooses.
    pub fn savepoint(&mut self, id: usize) {
        self.savepoints.push(Mark { id, writes: self.writes.clone() });
        self.ops.push(Op::Savepoint(id));
    }

    /// Undoes the writes since a savepoint. The savepoint stays, later ones end. Returns whether the
    /// savepoint existed. Notes of reads are kept: the caller has seen the results, so the commit must
    /// still be certified against them.
    pub fn rollback_to(&mut self, id: usize) -> bool {
        let Some(at) = self.savepoints.iter().rposition(|mark| mark.id == id) else {
            return false;
        };
        self.savepoints.truncate(at + 1);
        self.writes = self.savepoints[at].writes.clone();
        self.ops.push(Op::RollbackTo(id));
        true
    }

    /// The operations so far, for the history checkers.
    #[must_use]
    pub fn ops(&self) -> &[Op<K, V>] {
        &self.ops
    }
}

/// A double-ended iterator of a [`ModelTxn`]: the part of its range that it has not yielded yet.
#[derive(Clone, Debug)]
pub struct Walk<K> {
    lower: Bound<K>,
    upper: Bound<K>,
}

fn point<K: Clone>(key: &K) -> Scan<K> {
    Scan {
        lower: Bound::Included(key.clone()),
        upper: Bound::Included(key.clone()),
        reverse: false,
        limit: None,
    }
}

/// The part of its range that a scan has walked to yield `items`: up to the last item if it stopped at
/// its limit, else the whole range. `None` if the limit was 0.
fn walked<K: Key, V>(scan: &Scan<K>, items: &[(K, V)]) -> Option<Scan<K>> {
    let mut walked = scan.clone();
    match scan.limit {
        Some(limit) if items.len() == limit => {
            let (last, _) = items.last()?;
            if scan.reverse {
                walked.lower = Bound::Included(last.clone());
            } else {
                walked.upper = Bound::Included(last.clone());
            }
        }
        _ => {}
    }
    Some(walked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Model<u32, u32> {
        let mut model = Model::default();
        let mut txn = model.begin();
        for key in [10, 20, 30] {
            txn.put(key, key);
        }
        model.commit(&txn);
        model
    }

    fn after(model: &mut Model<u32, u32>, change: impl FnOnce(&mut ModelTxn<u32, u32>)) {
        let mut txn = model.begin();
        change(&mut txn);
        model.commit(&txn);
    }

    #[test]
    fn a_transaction_reads_its_snapshot_under_its_own_writes() {
        let mut model = filled();
        let mut txn = model.begin();
        after(&mut model, |other| other.put(20, 99));
        txn.put(40, 4);
        txn.remove(&10);
        assert_eq!(txn.get(&20), Some(20));
        let keys: Vec<u32> = txn.scan(&Scan::all()).into_iter().map(|(k, _)| k).collect();
        assert_eq!(keys, [20, 30, 40]);
    }

    #[test]
    fn the_walked_part_decides_and_nothing_else() {
        for (reverse, inserted, verdict) in [
            (false, 15, Verdict::Refuse),
            (false, 20, Verdict::Refuse),
            (false, 25, Verdict::Commit),
            (true, 15, Verdict::Commit),
            (true, 20, Verdict::Refuse),
            (true, 25, Verdict::Refuse),
        ] {
            let mut model = filled();
            let mut txn = model.begin();
            txn.scan(&Scan { reverse, limit: Some(2), ..Scan::all() });
            txn.put(99, 0);
            after(&mut model, |other| other.put(inserted, 1));
            assert_eq!(model.verdict(&txn, Level::Serializable), verdict);
        }
    }

    #[test]
    fn each_level_has_its_rule() {
        let mut model = filled();
        let mut reader = model.begin();
        reader.get(&10);
        reader.put(99, 0);
        let mut writer = model.begin();
        writer.put(10, 0);
        after(&mut model, |other| other.put(10, 1));
        assert_eq!(model.verdict(&reader, Level::Serializable), Verdict::Refuse);
        assert_eq!(model.verdict(&reader, Level::Snapshot), Verdict::Commit);
        assert_eq!(model.verdict(&writer, Level::Serializable), Verdict::Commit);
        assert_eq!(model.verdict(&writer, Level::Snapshot), Verdict::Refuse);
    }

    #[test]
    fn rolling_back_undoes_writes_but_no_reads() {
        let mut model = filled();
        let mut txn = model.begin();
        txn.put(1, 1);
        txn.savepoint(0);
        txn.put(1, 2);
        txn.remove(&10);
        assert!(txn.rollback_to(0));
        assert!(!txn.rollback_to(7));
        assert_eq!(txn.view().get(&1), Some(&1));
        assert_eq!(txn.view().get(&10), Some(&10));
        after(&mut model, |other| other.put(10, 1));
        assert_eq!(model.verdict(&txn, Level::Serializable), Verdict::Refuse);
    }
}
