//! Random interleavings of several open transactions and snapshots on one thread, checked against
//! the testkit's model. Every read is compared, every commit must be decided by the rule of the
//! isolation level, and no history may commit that brute force finds unserializable. `FLUXMAP_SEED`
//! replays a run.

mod acts;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::common::{assert_nothing_pinned, commit, content, open_at, report};
use acts::{Act, Ends, SNAPSHOTS, TRANSACTIONS, TxnAct, ViewAct, WalkAct, acts};
use fluxmap::{Database, FluxError, IsolationLevel, Savepoint, Snapshot, Transaction};
use fluxmap_testkit::model::{Level, Model, ModelTxn, Verdict};
use fluxmap_testkit::op::{Committed, Op, Scan};
use fluxmap_testkit::serial::{MOST, Order, is_serializable};
use fluxmap_testkit::workload::{Seed, scaled};
use futures::executor::block_on;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::RngCore;

type Item = (String, u64);
type Items = Vec<Item>;

fn plain(item: (String, Arc<u64>)) -> Item {
    (item.0, *item.1)
}

/// A transaction of the database beside its model.
struct Pair {
    real: Transaction<String, u64>,
    model: ModelTxn<String, u64>,
    savepoints: Vec<Savepoint>,
    begin: u64,
}

/// The database and its model, which take the same steps.
struct World {
    db: Database<String, u64>,
    level: Level,
    model: Model<String, u64>,
    txns: [Option<Pair>; TRANSACTIONS],
    views: [Option<(Snapshot<String, u64>, usize)>; SNAPSHOTS],
    history: Vec<Committed<String, u64>>,
    clock: u64,
    value: u64,
    tally: Tally,
}

/// How many commits were decided in each way.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    committed: u64,
    refused: u64,
    /// Refused although some serial order explains the history with them.
    refused_serializable: u64,
}

impl World {
    fn new(level: Level) -> Self {
        let isolation = match level {
            Level::Serializable => IsolationLevel::Serializable,
            Level::Snapshot => IsolationLevel::Snapshot,
        };
        World {
            db: open_at(isolation),
            level,
            model: Model::default(),
            txns: Default::default(),
            views: Default::default(),
            history: Vec::new(),
            clock: 0,
            value: 0,
            tally: Tally::default(),
        }
    }

    fn act(&mut self, act: &Act) {
        self.clock += 1;
        match act {
            Act::Txn(slot, TxnAct::Commit) => self.commit(*slot),
            Act::Txn(slot, TxnAct::Rollback) => {
                if let Some(pair) = self.txns[*slot].take() {
                    pair.real.rollback();
                }
            }
            Act::Txn(slot, TxnAct::Drop) => drop(self.txns[*slot].take()),
            Act::Txn(slot, act) => {
                let pair = self.txns[*slot].get_or_insert_with(|| Pair {
                    real: self.db.begin(),
                    model: self.model.begin(),
                    savepoints: Vec::new(),
                    begin: self.clock,
                });
                pair.act(act, &mut self.value);
            }
            Act::View(slot, ViewAct::Release) => drop(self.views[*slot].take()),
            Act::View(slot, act) => {
                let (view, at) =
                    self.views[*slot].get_or_insert_with(|| (self.db.snapshot(), self.model.now()));
                look(view, self.model.at(*at), act);
            }
            Act::Vacuum => drop(block_on(self.db.vacuum()).expect("vacuum succeeds")),
            Act::Blind(key) => self.blind(key),
        }
    }

    fn blind(&mut self, key: &str) {
        self.value += 1;
        block_on(self.db.insert(key.to_owned(), self.value)).expect("a blind insert commits");
        let mut txn = self.model.begin();
        txn.put(key.to_owned(), self.value);
        self.model.commit(&txn);
        self.record(self.clock, &txn);
    }

    fn record(&mut self, begin: u64, txn: &ModelTxn<String, u64>) {
        self.clock += 1;
        self.history.push(Committed { begin, end: self.clock, ops: txn.ops().to_vec() });
    }

    fn commit(&mut self, slot: usize) {
        let Some(pair) = self.txns[slot].take() else { return };
        let verdict = self.model.verdict(&pair.model, self.level);
        match (commit(pair.real), self.level) {
            (Ok(()), _) => {
                assert_ne!(verdict, Verdict::Refuse, "committed against the rule");
                self.model.commit(&pair.model);
                self.record(pair.begin, &pair.model);
                self.tally.committed += 1;
            }
            (Err(FluxError::SerializationConflict), Level::Serializable) => {
                assert_ne!(verdict, Verdict::Commit, "refused without a conflict");
                self.tally.refused += 1;
                let ops = pair.model.ops().to_vec();
                self.history.push(Committed { begin: pair.begin, end: self.clock, ops });
                self.tally.refused_serializable += u64::from(self.serializable());
                self.history.pop();
            }
            (Err(FluxError::WriteConflict), Level::Snapshot) => {
                assert_ne!(verdict, Verdict::Commit, "refused without a conflict");
                self.tally.refused += 1;
            }
            (Err(error), _) => panic!("no commit may fail like this at this level: {error}"),
        }
    }

    fn serializable(&self) -> bool {
        // Bound the work of brute force to the first commits. The model, which has no such limit,
        // checks the rest of a long run.
        let small = &self.history[..self.history.len().min(MOST)];
        is_serializable(&BTreeMap::new(), small, Order::Strict)
    }

    /// Ends all transactions and snapshots, and compares the final content.
    fn finish(mut self) -> Tally {
        self.txns = Default::default();
        self.views = Default::default();
        assert_nothing_pinned(&self.db);
        let expected: Items = self.model.at(self.model.now()).clone().into_iter().collect();
        assert_eq!(content(&self.db), expected, "the final content");
        block_on(self.db.vacuum()).expect("vacuum succeeds");
        assert_eq!(content(&self.db), expected, "the final content after vacuum");
        if self.level == Level::Serializable {
            let last = Op::Scan { scan: Scan::all(), items: expected };
            let (begin, end) = (self.clock + 1, self.clock + 2);
            self.history.push(Committed { begin, end, ops: vec![last] });
            assert!(self.serializable(), "an unserializable history committed: {:#?}", self.history);
        }
        self.tally
    }
}

impl Pair {
    fn act(&mut self, act: &TxnAct, value: &mut u64) {
        let (real, model) = (&self.real, &mut self.model);
        match act {
            TxnAct::Get(key) => {
                let found = real.get(*key).expect("a read succeeds").map(|value| *value);
                assert_eq!(found, model.get(&(*key).to_owned()), "get {key:?}");
            }
            TxnAct::Contains(key) => {
                let found = real.contains_key(*key).expect("a read succeeds");
                assert_eq!(found, model.get(&(*key).to_owned()).is_some(), "contains {key:?}");
            }
            TxnAct::Put(key) => put(real, model, key, value),
            TxnAct::Remove(key) => remove(real, model, key),
            TxnAct::Update(key) => {
                *value += 1;
                let new = real.update(*key, |_| *value).expect("an update succeeds");
                let there = model.get(&(*key).to_owned()).is_some();
                assert_eq!(new.map(|new| *new), there.then_some(*value), "update {key:?}");
                if there {
                    model.put((*key).to_owned(), *value);
                }
            }
            TxnAct::First => {
                let first = real.first().expect("first succeeds").map(plain);
                let mut walk = model.walk(Bound::Unbounded, Bound::Unbounded);
                assert_eq!(first, model.step(&mut walk, false), "first");
            }
            TxnAct::Last => {
                let last = real.last().expect("last succeeds").map(plain);
                let mut walk = model.walk(Bound::Unbounded, Bound::Unbounded);
                assert_eq!(last, model.step(&mut walk, true), "last");
            }
            TxnAct::Count(ends) => {
                let count = real.count(*ends).expect("a count succeeds");
                assert_eq!(count, model.scan(&scan(*ends)).len(), "count {ends:?}");
            }
            TxnAct::Walk(ends, acts) => {
                walk(real, model, real.range(*ends).expect("a range succeeds"), *ends, acts, value);
            }
            TxnAct::Prefix(prefix, acts) => {
                // No key in use starts with the prefix and sorts after `prefix~`.
                let above = format!("{prefix}~");
                let items = real.prefix(*prefix).expect("a prefix succeeds");
                walk(real, model, items, (Bound::Included(prefix), Bound::Excluded(&above)), acts, value);
            }
            TxnAct::Savepoint => {
                model.savepoint(self.savepoints.len());
                self.savepoints.push(real.savepoint().expect("a savepoint is set"));
            }
            TxnAct::RollbackTo(which) => {
                let Some(savepoint) = self.savepoints.get(*which) else { return };
                let found = real.rollback_to(savepoint);
                assert_eq!(found.is_ok(), model.rollback_to(*which), "rollback to {which}: {found:?}");
            }
            TxnAct::Commit | TxnAct::Rollback | TxnAct::Drop => unreachable!("the world does these"),
        }
    }
}

fn put(real: &Transaction<String, u64>, model: &mut ModelTxn<String, u64>, key: &str, value: &mut u64) {
    *value += 1;
    real.insert(key.to_owned(), *value).expect("a write is buffered");
    model.put(key.to_owned(), *value);
}

fn remove(real: &Transaction<String, u64>, model: &mut ModelTxn<String, u64>, key: &str) {
    let found = real.remove(key).expect("a remove succeeds").map(|value| *value);
    assert_eq!(found, model.remove(&key.to_owned()), "remove {key:?}");
}

fn walk(
    real: &Transaction<String, u64>,
    model: &mut ModelTxn<String, u64>,
    mut items: impl DoubleEndedIterator<Item = (String, Arc<u64>)>,
    ends: (Bound<&str>, Bound<&str>),
    acts: &[WalkAct],
    value: &mut u64,
) {
    let mut walk = model.walk(ends.0.map(str::to_owned), ends.1.map(str::to_owned));
    for act in acts {
        let (reverse, drain) = match act {
            WalkAct::Put(key) => {
                put(real, model, key, value);
                continue;
            }
            WalkAct::Remove(key) => {
                remove(real, model, key);
                continue;
            }
            WalkAct::Next => (false, false),
            WalkAct::NextBack => (true, false),
            WalkAct::Drain(reverse) => (*reverse, true),
        };
        loop {
            let item = if reverse { items.next_back() } else { items.next() };
            let item = item.map(plain);
            assert_eq!(item, model.step(&mut walk, reverse), "in {ends:?}, reverse {reverse}");
            if item.is_none() {
                // After its end an iterator promises nothing, so ask it for nothing more.
                return;
            }
            if !drain {
                break;
            }
        }
    }
}

fn scan(ends: Ends) -> Scan<String> {
    Scan { lower: ends.0.map(str::to_owned), upper: ends.1.map(str::to_owned), ..Scan::all() }
}

/// Reads in a snapshot, and compares with the state at the time it was taken.
fn look(view: &Snapshot<String, u64>, state: &BTreeMap<String, u64>, act: &ViewAct) {
    match act {
        ViewAct::Get(key) => {
            let found = view.get(*key).expect("a read succeeds").map(|value| *value);
            assert_eq!(found, state.get(*key).copied(), "get {key:?} in a snapshot");
            assert_eq!(view.contains_key(*key).expect("a read succeeds"), found.is_some());
        }
        ViewAct::Range(ends, ways) => {
            let mut expected: std::collections::VecDeque<Item> = scan(*ends).over(state).into();
            assert_eq!(view.count(*ends).expect("a count succeeds"), expected.len());
            let mut items = view.range(*ends).map(plain);
            for reverse in ways {
                let (item, expected) = if *reverse {
                    (items.next_back(), expected.pop_back())
                } else {
                    (items.next(), expected.pop_front())
                };
                assert_eq!(item, expected, "{ends:?} of a snapshot, reverse {reverse}");
            }
        }
        ViewAct::Prefix(prefix, reverse) => {
            let mut items: Items = view.prefix(*prefix).map(plain).collect();
            if *reverse {
                items = view.prefix(*prefix).rev().map(plain).collect();
                items.reverse();
            }
            let expected = state.iter().filter(|(key, _)| key.starts_with(prefix));
            let expected: Items = expected.map(|(key, value)| (key.clone(), *value)).collect();
            assert_eq!(items, expected, "prefix {prefix:?} of a snapshot");
        }
        ViewAct::Release => unreachable!("the world does this"),
    }
}

/// Runs `cases` random interleavings at `level`, and returns how the commits were decided.
fn interleavings(level: Level, cases: u32) -> Tally {
    let cases = u32::try_from(scaled(cases.into())).expect("a modest scale");
    let seed = Seed::from_env();
    let mut bytes = [0; 32];
    seed.rng(0).fill_bytes(&mut bytes);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let total = Cell::new(Tally::default());
    let outcome = TestRunner::new_with_rng(config, rng).run(&acts(), |acts| {
        let mut world = World::new(level);
        acts.iter().for_each(|act| world.act(act));
        let (sum, one) = (total.get(), world.finish());
        total.set(Tally {
            committed: sum.committed + one.committed,
            refused: sum.refused + one.refused,
            refused_serializable: sum.refused_serializable + one.refused_serializable,
        });
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{seed}: {error}");
    }
    total.get()
}

/// Serializable: a transaction reads exactly its snapshot under its own writes; a commit is refused
/// exactly if something that it read has changed; and brute force finds every committed history
/// strictly serializable.
#[test]
fn serializable_interleavings_follow_the_model() {
    let Tally { committed, refused, refused_serializable } = interleavings(Level::Serializable, 4_000);
    let share = 100.0 * refused_serializable as f64 / refused.max(1) as f64;
    report(&format!(
        "model: {committed} transactions committed, {refused} refused; \
         {refused_serializable} of those ({share:.0} %) would have been serializable"
    ));
    // A run in which no refusal was necessary, or no refusal was needless, is too tame to test the
    // rule.
    assert!(committed > 200 && refused > refused_serializable && refused_serializable > 0);
}

/// Snapshot: reads are the same; a commit is refused exactly if something that it writes has been
/// committed since it began (first committer wins).
#[test]
fn snapshot_interleavings_follow_the_model() {
    let Tally { committed, refused, .. } = interleavings(Level::Snapshot, 4_000);
    report(&format!("model at Snapshot: {committed} transactions committed, {refused} refused"));
    assert!(committed > 200 && refused > 20);
}
