//! What everybody is doing, for the report of a world that fails or hangs, and what has been
//! counted.

use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often something happened, over one world or many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Lives that were begun.
    pub lives: u64,
    /// Transactions and operations of one step that were acknowledged, those included that only read
    /// or that found nothing to write.
    pub transactions: u64,
    /// Commits of transactions that were refused for a conflict, each of which the world explains. Not
    /// those that `transact` runs again.
    pub refusals: u64,
    /// Deaths of the process or of the power: one at the end of each durable life that was not closed
    /// before, wherever it was.
    pub crashes: u64,
    /// The crashes that were power cuts.
    pub power_cuts: u64,
    /// The crashes amid the calls of the disk, and not after the last one.
    pub crashes_amid_calls: u64,
    /// Reads that were compared with what may be seen.
    pub reads: u64,
    /// States that were compared with what they have to be: those that were recovered from a disk,
    /// those at rest that were looked through, backups that were opened, and histories that were checked.
    pub checks: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Rare events by kind, which show how much of the engine worlds reach.
    pub events: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// Adds what another world has counted.
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
    /// By who does it.
    doing: BTreeMap<String, String>,
    log: Vec<String>,
    anomaly: Option<String>,
}

/// What the world and whoever started it share.
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

    /// Says what somebody does now.
    pub(crate) fn note(&self, who: &str, what: impl Into<String>) {
        let what = what.into();
        let mut inner = self.inner();
        inner.log.push(format!("{who}: {what}"));
        inner.doing.insert(who.to_owned(), what);
    }

    /// Nobody does anything any more: a life has ended.
    pub(crate) fn clear(&self) {
        self.inner().doing.clear();
    }

    /// Says what somebody does amid what they are doing.
    pub(crate) fn remark(&self, who: &str, what: &str) {
        self.inner().log.push(format!("{who}: {what}"));
    }

    /// What went wrong first. It is raised by a client as soon as one runs: the place where it is
    /// found may be within the engine's own code, which contains panics.
    pub(crate) fn anomaly(&self, what: String) {
        let mut inner = self.inner();
        inner.log.push(format!("ANOMALY: {what}"));
        inner.anomaly.get_or_insert(what);
    }

    /// # Panics
    ///
    /// If anything has gone wrong.
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
