//! Random steps of a transaction. Each step is done by the real transaction and by a model that began at
//! the same read point, and the results are compared at once.

mod lives;
mod many;
mod scans;

use crate::client::Scene;
use crate::expiry::Expiry;
use crate::pen::{Pen, ends};
use crate::timeline::State;
use crate::value::Value;
use fluxmap_shuttle::{FluxError, Savepoint, Transaction};
use fluxmap_testkit::model::ModelTxn;
use fluxmap_testkit::op::Scan;
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) type Tx = Transaction<String, Value>;

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
    /// The state that the transaction reads, with expiry times.
    base: State,
    /// The time at which the transaction reads.
    time: u64,
    /// The expiry times of the values that the transaction has written.
    expiries: Expiries,
}

/// The expiry times of the values under these keys.
pub(crate) type Expiries = BTreeMap<String, Expiry>;

/// A transaction that has done its steps.
pub(crate) struct Ended {
    pub(crate) model: ModelTxn<String, u64>,
    /// The expiry times of the values that the transaction has written.
    pub(crate) expiries: Expiries,
    /// A lower bound of the time at which the transaction ended.
    pub(crate) time: u64,
}

/// The result of a step. An error of the engine ends the transaction.
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

    /// Returns when the value under a key expires that the transaction sees.
    fn expiry(&self, key: &str) -> Expiry {
        let base = || self.base.get(key).map_or(Expiry::NEVER, |held| Expiry::at(held.expires));
        self.expiries.get(key).copied().unwrap_or_else(base)
    }

    fn same<T: PartialEq + std::fmt::Debug>(&self, what: &str, real: T, model: T) {
        let board = &self.scene.board;
        board.count(|counts| counts.reads += 1);
        if real != model {
            board.anomaly(format!("{} {what}: was {real:?}, but should be {model:?}", self.who));
            board.raise();
        }
    }

    /// Does one step.
    pub(crate) fn step(&mut self, rng: &mut StdRng) -> Step {
        let key = self.pen.key(rng);
        match rng.random_range(0..25) {
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
            22 | 23 => self.many(rng)?,
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
}
