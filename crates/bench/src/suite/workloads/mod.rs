//! What is measured. A group is what one process does with one store: its workloads share the
//! data, and what must hold of them is checked at the end.

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

/// What one process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Load, gets, YCSB, scans.
    Ycsb,
    /// Transfers among 100,000 accounts.
    Bank,
    /// Transfers among 10 accounts.
    SmallBank,
    /// Pairs whose sum must not fall below zero.
    Skew,
    /// On-call lists of which none may become empty.
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

/// What a group is given.
pub(crate) struct Bench<'b> {
    pub(crate) store: &'b dyn Store,
    pub(crate) threads: usize,
    pub(crate) keys: usize,
    /// How long each workload runs.
    pub(crate) time: Duration,
    /// Differs from round to round.
    pub(crate) seed: u64,
    /// Where the store's files are.
    pub(crate) dir: &'b Path,
    /// Takes samples as they come, so that those before a crash are known.
    pub(crate) note: &'b dyn Fn(Sample),
}

impl Group {
    /// What a store must be able to do.
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

    /// Whether it is the same whatever the number of keys.
    pub(crate) fn has_own_keys(self) -> bool {
        !matches!(self, Group::Ycsb | Group::Memory)
    }

    /// Whether it is the same whatever the number of threads.
    pub(crate) fn has_own_threads(self) -> bool {
        matches!(self, Group::Memory | Group::Retries | Group::SlowTransaction)
    }

    /// Runs it. An error says what the store did wrong.
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
    /// Runs a step on every thread for as long as a workload runs, and notes the outcome.
    pub(crate) fn measure<'s>(&self, workload: &'static str, step: impl Fn(usize) -> Step<'s>) -> Outcome {
        self.measure_for(workload, Some(self.time), self.threads, step)
    }

    /// Runs a step on so many threads, for a time or until all are done.
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

    /// Another seed for every thread.
    pub(crate) fn seed(&self, thread: usize) -> u64 {
        self.seed * 1000 + thread as u64
    }
}

/// The sum of the numbers of all keys.
fn sum(store: &dyn Store, keys: impl Iterator<Item = String>) -> Result<i64, String> {
    keys.map(|key| store.get(&key).ok_or_else(|| format!("{key} is lost"))).sum()
}
