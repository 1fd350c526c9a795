//! The log, the present activity of each task and the counts of a world, for the report of a world
//! that fails or hangs.

use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often something happened, over one world or many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Lives that were begun.
    pub lives: u64,
    /// Transactions and operations of one step that were acknowledged, including those that only read
    /// and those that found nothing to write.
    pub transactions: u64,
    /// Commits of transactions that were refused for a conflict; the world explains each of them. Refusals
    /// after which `transact` retries are not counted.
    pub refusals: u64,
    /// Process deaths and power cuts: one at the end of each durable life that did not end with a
    /// successful close, at any point of the life.
    pub crashes: u64,
    /// The crashes that were power cuts.
    pub power_cuts: u64,
    /// The crashes during a disk call, and not after the last one.
    pub crashes_amid_calls: u64,
    /// Reads whose result was compared with the results that are allowed.
    pub reads: u64,
    /// States that were checked: states recovered from a disk, states of a database at rest, backups that
    /// were opened, and histories.
    pub checks: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Rare events by kind, which show how much of the engine worlds reach.
    pub events: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// Adds the counts of another world.
    pub fn add(&mut self, other: &Counts) {
        self.lives += other.lives;
        self.transactions += other.transactions;
        self.refusals += other.refusals;
        self.crashes += other.crashes;
        self.power_cuts += other.power_cuts;
        self.crashes_amid_calls += other.crashes_amid_calls;
        self.reads += other.reads;
        self.checks += other.checks;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (kind, count) in &other.events {
            *self.events.entry(kind).or_default() += count;
        }
    }
}

#[derive(Default)]
struct Inner {
    counts: Counts,
    /// The present activity of each task, by the task's name.
    doing: BTreeMap<String, String>,
    log: Vec<String>,
    anomaly: Option<String>,
}

/// The log and the counts that a world shares with its starter.
#[derive(Clone, Default)]
pub(crate) struct Board(Arc<Mutex<Inner>>);

impl Board {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.inner().counts);
    }

    pub(crate) fn fault(&self, kind: &'static str) {
        *self.inner().counts.faults.entry(kind).or_default() += 1;
    }

    pub(crate) fn event(&self, kind: &'static str) {
        self.events(kind, 1);
    }

    pub(crate) fn events(&self, kind: &'static str, count: u64) {
        *self.inner().counts.events.entry(kind).or_default() += count;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.inner().counts.clone()
    }

    /// Sets the present activity of `who`, and logs it.
    pub(crate) fn note(&self, who: &str, what: impl Into<String>) {
        let what = what.into();
        let mut inner = self.inner();
        inner.log.push(format!("{who}: {what}"));
        inner.doing.insert(who.to_owned(), what);
    }

    /// Forgets all activities, because a life has ended.
    pub(crate) fn clear(&self) {
        self.inner().doing.clear();
    }

    /// Logs a step of `who` without changing its activity.
    pub(crate) fn remark(&self, who: &str, what: &str) {
        self.inner().log.push(format!("{who}: {what}"));
    }

    /// Notes an anomaly; the first one is the failure of the world. The function does not panic itself,
    /// because it may be called from the engine's own code, which contains panics: a client raises the
    /// anomaly later, in [`raise`](Self::raise).
    pub(crate) fn anomaly(&self, what: String) {
        let mut inner = self.inner();
        inner.log.push(format!("ANOMALY: {what}"));
        inner.anomaly.get_or_insert(what);
    }

    /// # Panics
    ///
    /// If an anomaly was noted.
    pub(crate) fn raise(&self) {
        let found = self.inner().anomaly.clone();
        if let Some(anomaly) = found {
            panic!("anomaly: {anomaly}");
        }
    }

    pub(crate) fn first_anomaly(&self) -> Option<String> {
        self.inner().anomaly.clone()
    }

    pub(crate) fn doing(&self) -> Vec<String> {
        self.inner().doing.iter().map(|(who, what)| format!("{who}: {what}")).collect()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.inner().log.clone()
    }
}
