//! The multi-version oracle: a plain `BTreeMap` per commit. It says what every
//! read of every open transaction must return, whatever the interleaving, and
//! what the certification rule decides at commit.
//!
//! Invariants
//! - M1: `states[t]` is the content after commit `t` and never changes again; a
//!   transaction that began at `t` reads `states[t]` with its own writes on top.
//! - M2: a read is noted with exactly what its answer depended on: one key, or the
//!   part of a range that was walked.
//!
//! Where the rule leaves the store a choice (removing a key that is not there may
//! or may not count as a write) the verdict is [`Verdict::Either`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::op::{Key, Op, Scan, Value};

/// Which rule decides at commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Nothing that was read may have changed since the snapshot.
    Serializable,
    /// Nothing that was written may have changed since the snapshot.
    Snapshot,
}

/// What the rule says about a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It must succeed.
    Commit,
    /// It must be refused.
    Refuse,
    /// The rule leaves it open.
    Either,
}

/// What a commit did to the keys.
#[derive(Clone, Debug)]
struct Change<K> {
    /// Keys that were written for certain.
    sure: BTreeSet<K>,
    /// Keys that were absent and were removed: perhaps a write, perhaps not.
    idle: BTreeSet<K>,
}

/// The database as the oracle keeps it: every state it ever had.
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
    /// How many commits there were: the timestamp of a snapshot taken now.
    #[must_use]
    pub fn now(&self) -> usize {
        self.changes.len()
    }

    /// The content as of a snapshot.
    #[must_use]
    pub fn at(&self, snapshot: usize) -> &BTreeMap<K, V> {
        &self.states[snapshot]
    }

    /// Begins a transaction on the newest state.
    #[must_use]
    pub fn begin(&self) -> ModelTxn<K, V> {
        ModelTxn { snapshot: self.now(), ..ModelTxn::over(self.states[self.now()].clone()) }
    }

    /// What the rule of `level` says about committing `txn` now.
    #[must_use]
    pub fn verdict(&self, txn: &ModelTxn<K, V>, level: Level) -> Verdict {
        if txn.writes.is_empty() {
            return Verdict::Commit;
        }
        let since = &self.changes[txn.snapshot..];
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

    /// Commits `txn`, whatever the rule says about it.
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

/// What a transaction holds back for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Write<V> {
    Put(V),
    Delete,
    /// The removal of a key that was not there.
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
    /// A transaction over a content that somebody else keeps account of, who judges by
    /// [`noted`](Self::noted) and [`written`](Self::written) whether it may commit.
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

    /// What its answers so far depended on.
    #[must_use]
    pub fn noted(&self) -> &[Scan<K>] {
        &self.noted
    }

    /// The keys that a commit writes for certain, each with its new value, or without one if it
    /// is deleted.
    pub fn written(&self) -> impl Iterator<Item = (&K, Option<&V>)> {
        self.writes.iter().filter_map(|(key, write)| match write {
            Write::Put(value) => Some((key, Some(value))),
            Write::Delete => Some((key, None)),
            Write::IdleDelete => None,
        })
    }

    /// What the transaction sees: its snapshot under its own writes.
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
        // An own write answers for itself; only the base can be changed by others.
        if !self.writes.contains_key(key) {
            self.noted.push(point(key));
        }
        self.ops.push(Op::Get { key: key.clone(), found: found.clone() });
        found
    }

    /// Scans; notes the part of the range that the answer depended on.
    pub fn scan(&mut self, scan: &Scan<K>) -> Vec<(K, V)> {
        let items = scan.over(&self.view());
        self.noted.extend(walked(scan, &items));
        self.ops.push(Op::Scan { scan: scan.clone(), items: items.clone() });
        items
    }

    /// Opens a double-ended iterator; it has read nothing yet.
    #[must_use]
    pub fn walk(&self, lower: Bound<K>, upper: Bound<K>) -> Walk<K> {
        Walk { lower, upper }
    }

    /// Advances an iterator at either end, over what the transaction sees now: its
    /// own writes ahead of the position included.
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

    /// Removes a key, which tells what was there.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let found = self.get(key);
        self.ops.push(Op::Delete { key: key.clone() });
        let idle = !self.base.contains_key(key) && self.writes.get(key).is_none_or(Write::idle);
        let write = if idle { Write::IdleDelete } else { Write::Delete };
        self.writes.insert(key.clone(), write);
        found
    }

    /// Marks a point to return to, by a number that the caller chooses.
    pub fn savepoint(&mut self, id: usize) {
        self.savepoints.push(Mark { id, writes: self.writes.clone() });
        self.ops.push(Op::Savepoint(id));
    }

    /// Undoes the writes since a savepoint, which stays; later ones end. Returns
    /// whether the savepoint existed. What was read stays read: the caller knows
    /// it, so the commit must still answer for it.
    pub fn rollback_to(&mut self, id: usize) -> bool {
        let Some(at) = self.savepoints.iter().rposition(|mark| mark.id == id) else {
            return false;
        };
        self.savepoints.truncate(at + 1);
        self.writes = self.savepoints[at].writes.clone();
        self.ops.push(Op::RollbackTo(id));
        true
    }

    /// The transaction as the history checkers take it.
    #[must_use]
    pub fn ops(&self) -> &[Op<K, V>] {
        &self.ops
    }
}

/// A double-ended iterator of a [`ModelTxn`]: the part of its range that is left.
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

/// The part of a range that a scan which yielded `items` has walked: all of it if
/// it was asked for more than there was, else up to the last item.
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
