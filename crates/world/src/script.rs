//! Random steps of a transaction, each done on the real one and on a model that began at the
//! same read point, and compared at once.

use crate::client::Scene;
use crate::expiry::Expiry;
use crate::plan::{Diet, Habit};
use crate::timeline::State;
use crate::value::Value;
use fluxmap_shuttle::{FluxError, Savepoint, SnapshotRange, Transaction, virtual_time};
use fluxmap_testkit::model::ModelTxn;
use fluxmap_testkit::op::Scan;
use futures_core::Stream;
use rand::Rng;
use rand::rngs::StdRng;
use shuttle::future::block_on;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::ops::{Bound, ControlFlow};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) type Tx = Transaction<String, Value>;
pub(crate) type Pairs = Vec<(String, u64)>;

/// Names keys, and gives every write a number of its own.
#[derive(Clone)]
pub(crate) struct Pen {
    pub(crate) keys: u64,
    pub(crate) largest: usize,
    pub(crate) expiring: bool,
    /// Whether all values are of the largest size.
    is_even: bool,
    /// Who writes: the upper digits of the numbers.
    next: Arc<AtomicU64>,
}

impl Pen {
    pub(crate) fn new(diet: &Diet, first: u64) -> Self {
        let Diet { habit, keys, largest, expiring, .. } = *diet;
        let is_even = matches!(habit, Habit::OneLength(_));
        Pen { keys, largest, expiring, is_even, next: Arc::new(AtomicU64::new(first)) }
    }

    /// Two letters, so that prefixes and ranges hold some of the keys.
    pub(crate) fn key(&self, rng: &mut StdRng) -> String {
        let number = rng.random_range(0..self.keys);
        format!("{}{}", ["a", "b", "c"][(number % 3) as usize], number / 3)
    }

    pub(crate) fn prefix(&self, rng: &mut StdRng) -> &'static str {
        ["a", "b", "c", "", "b1", "d"][rng.random_range(0..6)]
    }

    pub(crate) fn value(&self, rng: &mut StdRng) -> Value {
        // Relaxed: the numbers need to differ, not to be ordered.
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let size = match self.largest {
            0 => 0,
            largest if self.is_even => largest,
            largest => rng.random_range(0..largest),
        };
        Value::new(id, size)
    }

    pub(crate) fn ttl(&self, rng: &mut StdRng) -> Duration {
        Duration::from_millis([1, 10, 100, 1000, 60_000][rng.random_range(0..5)])
    }

    pub(crate) fn scan(&self, rng: &mut StdRng) -> Scan<String> {
        let mut end = || match rng.random_range(0..4) {
            0 | 1 => Bound::Unbounded,
            2 => Bound::Included(self.key(rng)),
            _ => Bound::Excluded(self.key(rng)),
        };
        let (lower, upper) = (end(), end());
        let limit = rng.random_bool(0.5).then(|| rng.random_range(0..4));
        Scan { lower, upper, reverse: rng.random(), limit }
    }
}

/// The scan of a prefix.
pub(crate) fn prefix_scan(prefix: &str, reverse: bool, limit: Option<usize>) -> Scan<String> {
    let upper = match prefix.as_bytes().split_last() {
        None => Bound::Unbounded,
        Some((last, rest)) => {
            let next = [rest, &[last + 1]].concat();
            Bound::Excluded(String::from_utf8(next).expect("prefixes are of ASCII"))
        }
    };
    Scan { lower: Bound::Included(prefix.to_owned()), upper, reverse, limit }
}

/// The ends of a scan as ranges take them.
pub(crate) fn ends(scan: &Scan<String>) -> (Bound<String>, Bound<String>) {
    (scan.lower.clone(), scan.upper.clone())
}

/// All pairs that a range has.
pub(crate) fn pairs(mut range: SnapshotRange<String, Value>) -> Result<Pairs, FluxError> {
    let mut pairs = Pairs::new();
    while let Some((key, value)) = range.try_next()? {
        pairs.push((key, value.id));
    }
    Ok(pairs)
}

/// The first pairs of a stream, which is dropped when there are enough.
pub(crate) fn taken(
    mut stream: impl Stream<Item = Result<(String, Arc<Value>), FluxError>> + Unpin,
    limit: Option<usize>,
) -> Result<Pairs, FluxError> {
    let mut pairs = Pairs::new();
    while limit.is_none_or(|limit| pairs.len() < limit) {
        let next = block_on(poll_fn(|context| Pin::new(&mut stream).poll_next(context)));
        let Some((key, value)) = next.transpose()? else { break };
        pairs.push((key, value.id));
    }
    Ok(pairs)
}

/// The time that the engine notes: in milliseconds since 1970, and not zero, which is never.
pub(crate) fn millis(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(1, |since| since.as_millis() as u64).max(1)
}

fn id(value: &Arc<Value>) -> u64 {
    value.id
}

/// A transaction with its model.
pub(crate) struct Script<'t> {
    pub(crate) tx: &'t Tx,
    pub(crate) model: ModelTxn<String, u64>,
    pen: &'t Pen,
    scene: &'t Scene,
    who: &'t str,
    savepoints: Vec<(usize, Savepoint, Expiries)>,
    /// The values that it reads, with the times at which they expire.
    base: State,
    /// The time at which it reads.
    time: u64,
    /// When the values expire that it has put.
    expiries: Expiries,
}

/// When the values under these keys are to expire.
pub(crate) type Expiries = BTreeMap<String, Expiry>;

/// A transaction that has done its steps.
pub(crate) struct Ended {
    pub(crate) model: ModelTxn<String, u64>,
    /// When the values that it has put expire.
    pub(crate) expiries: Expiries,
    /// The time when it ended, or earlier.
    pub(crate) time: u64,
}

/// What a step of the engine refused, which ends the transaction.
pub(crate) type Step = Result<(), FluxError>;

impl<'t> Script<'t> {
    pub(crate) fn new(
        tx: &'t Tx,
        shows: BTreeMap<String, u64>,
        (base, time): (State, u64),
        pen: &'t Pen,
        scene: &'t Scene,
        who: &'t str,
    ) -> Self {
        let model = ModelTxn::over(shows);
        let (savepoints, expiries) = (Vec::new(), Expiries::new());
        Script { tx, model, pen, scene, who, savepoints, base, time, expiries }
    }

    pub(crate) fn end(self) -> Ended {
        Ended { model: self.model, expiries: self.expiries, time: self.scene.earliest() }
    }

    /// When the value expires that the transaction finds under a key that has one.
    fn expiry(&self, key: &str) -> Expiry {
        let base = || self.base.get(key).map_or(Expiry::NEVER, |held| Expiry::at(held.expires));
        self.expiries.get(key).copied().unwrap_or_else(base)
    }

    fn same<T: PartialEq + std::fmt::Debug>(&self, what: &str, real: T, model: T) {
        let board = &self.scene.board;
        board.count(|counts| counts.reads += 1);
        if real != model {
            board.anomaly(format!("{} {what}: was {real:?}, and had to be {model:?}", self.who));
            board.raise();
        }
    }

    /// Does one step.
    pub(crate) fn step(&mut self, rng: &mut StdRng) -> Step {
        let key = self.pen.key(rng);
        match rng.random_range(0..23) {
            0..3 => {
                let (real, model) = (self.tx.get(key.as_str())?, self.model.get(&key));
                self.same(&format!("get {key}"), real.as_ref().map(id), model);
            }
            3 => {
                let other = self.pen.key(rng);
                let real = self.tx.get_many([key.as_str(), other.as_str()])?;
                let model = [self.model.get(&key), self.model.get(&other)];
                self.same(
                    &format!("get_many {key} {other}"),
                    real.map(|found| found.as_ref().map(id)),
                    model,
                );
            }
            4 => {
                let (real, model) = (self.tx.contains_key(key.as_str())?, self.model.get(&key).is_some());
                self.same(&format!("contains_key {key}"), real, model);
            }
            5..9 => self.put(rng, key)?,
            9 | 10 => {
                let real = self.tx.remove(key.as_str())?;
                let model = self.model.remove(&key);
                self.expiries.remove(&key);
                self.same(&format!("remove {key}"), real.as_ref().map(id), model);
            }
            11 => self.update(rng, key)?,
            12 => self.compare_and_swap(rng, key)?,
            13..16 => self.scan(rng)?,
            16 => self.walk(rng)?,
            17 => self.ends(rng)?,
            18 => self.visit(rng)?,
            19 => self.savepoint(rng)?,
            20 => self.change_expiry(rng, key)?,
            21 => self.get_or_insert(rng, key)?,
            _ => {
                let scan = self.pen.scan(rng);
                let whole = Scan { limit: None, reverse: false, ..scan };
                let real = self.tx.count(ends(&whole))?;
                let model = self.model.scan(&whole).len();
                self.same(&format!("count {whole:?}"), real, model);
            }
        }
        if rng.random_bool(0.3) {
            shuttle::thread::yield_now();
        }
        Ok(())
    }

    fn put(&mut self, rng: &mut StdRng, key: String) -> Step {
        let value = self.pen.value(rng);
        self.model.put(key.clone(), value.id);
        self.scene.board.remark(self.who, &format!("put {key} = {}", value.id));
        if self.pen.expiring && rng.random_bool(0.4) {
            let (ttl, before) = (self.pen.ttl(rng), self.scene.earliest());
            self.tx.insert_with_ttl(key.clone(), value, ttl)?;
            self.expiries.insert(key.clone(), Expiry::after(ttl, before, self.scene.now()));
            self.notice_expiry(&key)
        } else {
            self.expiries.insert(key.clone(), Expiry::NEVER);
            self.tx.insert(key, value)
        }
    }

    fn get_or_insert(&mut self, rng: &mut StdRng, key: String) -> Step {
        let value = self.pen.value(rng);
        let new = value.id;
        let real = self.tx.get_or_insert_with(key.clone(), || value)?;
        let model = self.model.get(&key);
        self.same(&format!("get_or_insert_with {key}"), real.id, model.unwrap_or(new));
        if model.is_none() {
            self.expiries.insert(key.clone(), Expiry::NEVER);
            self.model.put(key, new);
        }
        Ok(())
    }

    fn update(&mut self, rng: &mut StdRng, key: String) -> Step {
        let value = self.pen.value(rng);
        let new = value.id;
        let mut seen = None;
        let real = self.tx.update(key.as_str(), |old| {
            seen = Some(old.id);
            value
        })?;
        let model = self.model.get(&key);
        self.same(&format!("update {key}"), seen, model);
        self.same(&format!("updated {key}"), real.as_ref().map(id), model.map(|_| new));
        if model.is_some() {
            self.expiries.insert(key.clone(), self.expiry(&key));
            self.model.put(key, new);
        }
        Ok(())
    }

    fn compare_and_swap(&mut self, rng: &mut StdRng, key: String) -> Step {
        let present = self.tx.get(key.as_str())?;
        let model = self.model.get(&key);
        self.same(&format!("get {key}"), present.as_ref().map(id), model);
        let wrong = self.pen.value(rng);
        let expected = if rng.random_bool(0.8) { present.as_deref() } else { Some(&wrong) };
        let new = rng.random_bool(0.8).then(|| self.pen.value(rng));
        let new_id = new.as_ref().map(|value| value.id);
        let swapped = self.tx.compare_and_swap(key.clone(), expected, new)?;
        self.same(&format!("compare_and_swap {key}"), swapped, expected.map(|value| value.id) == model);
        if swapped {
            match new_id {
                Some(new) => {
                    let expiry = if model.is_some() { self.expiry(&key) } else { Expiry::NEVER };
                    self.expiries.insert(key.clone(), expiry);
                    self.model.put(key, new);
                }
                None => {
                    self.expiries.remove(&key);
                    self.model.remove(&key);
                }
            }
        }
        Ok(())
    }

    fn scan(&mut self, rng: &mut StdRng) -> Step {
        let mut scan = self.pen.scan(rng);
        let prefix = rng.random_bool(0.3).then(|| self.pen.prefix(rng));
        if let Some(prefix) = prefix {
            scan = prefix_scan(prefix, scan.reverse, scan.limit);
        }
        if rng.random_bool(0.2) {
            let scan = Scan { reverse: false, ..scan };
            let stream = match prefix {
                Some(prefix) => self.tx.prefix_scan_stream(prefix),
                None => self.tx.range_stream(ends(&scan)),
            };
            let real = taken(stream, scan.limit)?;
            let model = self.model.scan(&scan);
            self.same(&format!("stream {scan:?}"), real, model);
            return Ok(());
        }
        let mut range = match prefix {
            Some(prefix) => self.tx.prefix(prefix)?,
            None => self.tx.range(ends(&scan))?,
        };
        let mut real = Pairs::new();
        while scan.limit.is_none_or(|limit| real.len() < limit) {
            let next = if scan.reverse { range.try_next_back()? } else { range.try_next()? };
            let Some((key, value)) = next else { break };
            real.push((key, value.id));
        }
        drop(range);
        let model = self.model.scan(&scan);
        self.same(&format!("scan {scan:?}"), real, model);
        Ok(())
    }

    /// A range from both its ends.
    fn walk(&mut self, rng: &mut StdRng) -> Step {
        let scan = self.pen.scan(rng);
        let mut range = self.tx.range(ends(&scan))?;
        let mut walk = self.model.walk(scan.lower.clone(), scan.upper.clone());
        for _ in 0..rng.random_range(1..5) {
            let reverse = rng.random();
            let next = if reverse { range.try_next_back()? } else { range.try_next()? };
            let real = next.map(|(key, value)| (key, value.id));
            let model = self.model.step(&mut walk, reverse);
            self.same(&format!("walk {scan:?}"), real, model);
        }
        Ok(())
    }

    fn ends(&mut self, rng: &mut StdRng) -> Step {
        let reverse = rng.random();
        let real = if reverse { self.tx.last()? } else { self.tx.first()? };
        let model = self.model.scan(&Scan { reverse, limit: Some(1), ..Scan::all() }).pop();
        self.same("first or last", real.map(|(key, value)| (key, value.id)), model);
        Ok(())
    }

    fn visit(&mut self, rng: &mut StdRng) -> Step {
        let scan = Scan { limit: None, ..self.pen.scan(rng) };
        let mut real = Pairs::new();
        let range = self.tx.range(ends(&scan))?;
        let show = |key: &String, value: &Arc<Value>| {
            real.push((key.clone(), value.id));
            ControlFlow::<()>::Continue(())
        };
        let _ = if scan.reverse { range.visit_back(show)? } else { range.visit(show)? };
        let model = self.model.scan(&scan);
        self.same(&format!("visit {scan:?}"), real, model);
        Ok(())
    }

    fn savepoint(&mut self, rng: &mut StdRng) -> Step {
        if self.savepoints.is_empty() || rng.random() {
            let number = self.savepoints.len();
            self.savepoints.push((number, self.tx.savepoint()?, self.expiries.clone()));
            self.model.savepoint(number);
            return Ok(());
        }
        let at = rng.random_range(0..self.savepoints.len());
        let (number, savepoint) = (self.savepoints[at].0, self.savepoints[at].1);
        self.expiries = self.savepoints[at].2.clone();
        self.savepoints.truncate(at + 1);
        self.tx.rollback_to(&savepoint)?;
        let is_known = self.model.rollback_to(number);
        self.same("rollback_to", true, is_known);
        Ok(())
    }

    fn change_expiry(&mut self, rng: &mut StdRng, key: String) -> Step {
        if !self.pen.expiring {
            return Ok(());
        }
        let model = self.model.get(&key);
        match (rng.random_range(0..4), model) {
            (0, _) => {
                let is_there = self.tx.expire_at(key.as_str(), UNIX_EPOCH)?;
                self.same(&format!("expire_at {key}"), is_there, model.is_some());
                if is_there {
                    self.expiries.insert(key.clone(), Expiry::at(1));
                }
                self.model.remove(&key);
            }
            (1, Some(held)) => {
                let persists = self.tx.persist(key.as_str())?;
                self.same(&format!("persist {key}"), persists, self.expiry(&key) != Expiry::NEVER);
                if persists {
                    self.expiries.insert(key.clone(), Expiry::NEVER);
                    self.model.put(key, held);
                }
            }
            (2, _) => {
                let left = self.tx.ttl(key.as_str())?;
                let expiry = self.expiry(&key);
                let is_right = match model {
                    // Own writes may have made it look at the time anew.
                    Some(_) => expiry.leaves(left, self.time, self.scene.now()),
                    None => left.is_none(),
                };
                let what =
                    format!("ttl {key}, which expires {expiry:?}, is {left:?} at {}: right", self.time);
                self.same(&what, is_right, true);
            }
            (_, held) => {
                let at = virtual_time::system_time() + self.pen.ttl(rng) + Duration::from_millis(5);
                let is_there = self.tx.expire_at(key.as_str(), at)?;
                self.same(&format!("expire_at {key}"), is_there, held.is_some());
                if let Some(held) = held {
                    self.expiries.insert(key.clone(), Expiry::at(millis(at)));
                    self.model.put(key.clone(), held);
                    self.notice_expiry(&key)?;
                }
            }
        }
        Ok(())
    }

    /// Time may have passed between the choice of a time to live and the write, or before the
    /// transaction first looked at the time: what it has just written is out of its sight then.
    fn notice_expiry(&mut self, key: &String) -> Step {
        if self.tx.ttl(key.as_str())?.is_none() {
            self.model.remove(key);
        }
        Ok(())
    }
}
