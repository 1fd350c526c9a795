//! The workloads. One process runs one group of workloads with one store. The workloads of a group share
//! their data, and their invariant is checked at the end.

mod bank;
mod long;
mod memory;
mod on_call;
mod retries;
mod skew;
mod slow;
mod ycsb;

use super::drive::{Outcome, Step, Worker, drive};
use super::sample::Sample;
use crate::stores::{Ability, Store};
use clap::ValueEnum;
use std::path::Path;
use std::time::Duration;

/// A group of workloads, which one process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Loads, gets, YCSB, scans.
    Ycsb,
    /// Transfers among 100,000 accounts.
    Bank,
    /// Transfers among 10 accounts.
    SmallBank,
    /// Write skew on pairs whose sum must not fall below zero.
    Skew,
    /// On-call lists, none of which may become empty.
    OnCall,
    /// Scans of everything beside transfers.
    LongReader,
    /// Transactions that read 10,000 keys beside updates.
    LongWriter,
    /// Bytes for each key.
    Memory,
    /// 2, 8 and 64 committers on 10 accounts.
    Retries,
    /// A transaction that takes 300 ms beside paced writers.
    SlowTransaction,
}

/// The input of a group.
pub(crate) struct Bench<'b> {
    pub(crate) store: &'b dyn Store,
    pub(crate) threads: usize,
    pub(crate) keys: usize,
    /// How long each workload runs.
    pub(crate) time: Duration,
    /// The seed, which differs from round to round.
    pub(crate) seed: u64,
    /// The directory of the store's files.
    pub(crate) dir: &'b Path,
    /// Takes samples as they come, so that the samples before a crash are kept.
    pub(crate) note: &'b dyn Fn(Sample),
}

impl Group {
    /// The abilities that a store must have to run this group.
    fn needs(self) -> &'static [Ability] {
        match self {
            Group::Ycsb | Group::Memory => &[],
            Group::Bank | Group::SmallBank | Group::Skew | Group::Retries | Group::SlowTransaction => {
                &[Ability::Transact]
            }
            Group::OnCall => &[Ability::TransactScans],
            Group::LongReader | Group::LongWriter => &[Ability::Transact, Ability::Scan],
        }
    }

    /// Whether the group ignores the number of keys.
    pub(crate) fn has_own_keys(self) -> bool {
        !matches!(self, Group::Ycsb | Group::Memory)
    }

    /// Whether the group ignores the number of threads.
    pub(crate) fn has_own_threads(self) -> bool {
        matches!(self, Group::Memory | Group::Retries | Group::SlowTransaction)
    }

    /// Runs the group. An error says how the store failed its check.
    pub(crate) fn run(self, bench: &Bench<'_>) -> Result<(), String> {
        if !self.needs().iter().all(|need| bench.store.can(*need)) {
            return Ok(());
        }
        match self {
            Group::Ycsb => ycsb::run(bench),
            Group::Bank => bank::run(bench, "bank, 100,000 accounts", 100_000),
            Group::SmallBank => bank::run(bench, "bank, 10 accounts", 10),
            Group::Skew => skew::run(bench),
            Group::OnCall => on_call::run(bench),
            Group::LongReader => long::read(bench),
            Group::LongWriter => long::write(bench),
            Group::Memory => memory::run(bench),
            Group::Retries => retries::run(bench),
            Group::SlowTransaction => slow::run(bench),
        }
    }
}

impl<'b> Bench<'b> {
    /// Runs a step on every thread for the time of a workload, and notes the outcome.
    pub(crate) fn measure<'s>(&self, workload: &'static str, step: impl Fn(usize) -> Step<'s>) -> Outcome {
        self.measure_for(workload, Some(self.time), self.threads, step)
    }

    /// Runs a step on `threads` threads, for `time` or until all are done, and notes the outcome.
    pub(crate) fn measure_for<'s>(
        &self,
        workload: &'static str,
        time: Option<Duration>,
        threads: usize,
        step: impl Fn(usize) -> Step<'s>,
    ) -> Outcome {
        let workers = (0..threads).map(|thread| Worker { series: workload, step: step(thread) }).collect();
        let mut outcomes = drive(workers, time);
        self.note_all(&outcomes);
        outcomes.remove(0)
    }

    pub(crate) fn note_all(&self, outcomes: &[Outcome]) {
        outcomes.iter().for_each(|outcome| self.note(Sample::of_outcome(outcome.series, outcome)));
    }

    pub(crate) fn note(&self, sample: Sample) {
        (self.note)(sample);
    }

    /// The seed of a thread. Each thread has another one.
    pub(crate) fn seed(&self, thread: usize) -> u64 {
        self.seed * 1000 + thread as u64
    }
}

/// The sum of the numbers of all keys.
fn sum(store: &dyn Store, keys: impl Iterator<Item = String>) -> Result<i64, String> {
    keys.map(|key| store.get(&key).ok_or_else(|| format!("{key} is lost"))).sum()
}
