//! The workload: transfers between accounts, and audits that must always find the same sum.
//!
//! A transfer reads two accounts and writes both, so in every correct interleaving the total stays the
//! same. An audit that finds another sum has seen half a transfer, or two transfers that overwrote each
//! other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail};
use fluxmap::{Database, FluxError, IsolationLevel, Transaction};
use futures::StreamExt as _;
use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::yield_now;

use super::latency::Latencies;

/// The balance of a new account.
const INITIAL_BALANCE: u64 = 1_000;

/// The largest amount that one transfer moves.
const LARGEST_AMOUNT: u64 = 250;

/// How many accounts an audit reads before it lets other tasks run.
const AUDIT_CHUNK: u64 = 1_024;

/// How many accounts one transaction opens. A single transaction for a large bank would keep all its
/// changes in memory until the commit.
const OPENED_AT_ONCE: u64 = 10_000;

/// The accounts, and counts of the transfers and audits so far.
pub(super) struct Bank {
    accounts: Database<u64, u64>,
    count: u64,
    /// Set to make the tasks end.
    pub(super) stop: AtomicBool,
    /// The counts of the tasks' transfers and audits.
    pub(super) tally: Tally,
}

/// Counts that all tasks add to. A progress bar reads them while they change, so they agree with each
/// other only after the tasks have ended.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Transfers that moved money.
    pub(super) transfers: AtomicU64,
    /// Transfers that moved nothing, because the payer had too little money.
    pub(super) insufficient: AtomicU64,
    /// How often the body of a transfer ran, retries included.
    pub(super) attempts: AtomicU64,
    /// Transfers that the database gave up after too many conflicts.
    pub(super) given_up: AtomicU64,
    /// Audits made.
    pub(super) audits: AtomicU64,
    /// Audits that found a wrong sum or a wrong number of accounts.
    pub(super) failed_audits: AtomicU64,
}

/// The result of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Audit {
    /// The money in all accounts.
    pub(super) sum: u64,
    /// The number of accounts.
    pub(super) accounts: u64,
}

/// The kind of read view that an audit uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lens {
    /// A snapshot, as a stream.
    Snapshot,
    /// A transaction that writes nothing.
    Transaction,
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Moved,
    Insufficient,
}

impl Bank {
    /// Opens `count` accounts in memory.
    pub(super) async fn open(count: u64, isolation: IsolationLevel) -> anyhow::Result<Self> {
        let accounts = Database::builder().isolation_level(isolation).build().await;
        Self::with(accounts.context("cannot create the database")?, count).await
    }

    /// Takes over the accounts that the database holds, and opens more until there are `count`.
    pub(super) async fn with(accounts: Database<u64, u64>, count: u64) -> anyhow::Result<Self> {
        // Accounts are numbered from 0 without gaps, so the last number gives their count.
        let existing = accounts.begin().last()?.map_or(0, |(account, _)| account.saturating_add(1));
        if accounts.count(..)? as u64 != existing {
            bail!("this is not the database of a bank: its keys are not account numbers from 0 on");
        }
        let count = count.max(existing);
        let mut opening = accounts.begin();
        for account in existing..count {
            opening.insert(account, INITIAL_BALANCE)?;
            if (account + 1).is_multiple_of(OPENED_AT_ONCE) {
                opening.commit().await.context("cannot open the accounts")?;
                opening = accounts.begin();
            }
        }
        opening.commit().await.context("cannot open the accounts")?;
        Ok(Self { accounts, count, stop: AtomicBool::new(false), tally: Tally::default() })
    }

    /// The database of the accounts.
    pub(super) fn database(&self) -> &Database<u64, u64> {
        &self.accounts
    }

    /// The result that every audit must have.
    pub(super) fn expected(&self) -> Audit {
        Audit { sum: self.count * INITIAL_BALANCE, accounts: self.count }
    }

    /// Makes transfers until [`Self::stop`] is set. Returns the latency of each transfer that moved money,
    /// retries included.
    pub(super) async fn transfer_until_stopped(&self, seed: u64) -> anyhow::Result<Latencies> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut latencies = Latencies::new();
        while !self.stop.load(Ordering::Relaxed) {
            let from = random.random_range(0..self.count);
            // Choose among all accounts but `from`, each with the same probability.
            let to = (from + random.random_range(1..self.count)) % self.count;
            let amount = random.random_range(1..=LARGEST_AMOUNT);
            let started = Instant::now();
            let count = match self.transfer(from, to, amount).await {
                Ok(Outcome::Moved) => {
                    latencies.record(started.elapsed())?;
                    &self.tally.transfers
                }
                Ok(Outcome::Insufficient) => &self.tally.insufficient,
                Err(error) if gave_up(&error) => &self.tally.given_up,
                Err(error) => return Err(error.context("a transfer failed")),
            };
            count.fetch_add(1, Ordering::Relaxed);
            yield_now().await;
        }
        Ok(latencies)
    }

    async fn transfer(&self, from: u64, to: u64, amount: u64) -> anyhow::Result<Outcome> {
        self.accounts
            .transact(async |tx| {
                self.tally.attempts.fetch_add(1, Ordering::Relaxed);
                let payer = balance(tx, from)?;
                let payee = balance(tx, to)?;
                // Yield as a real service would await a call here: other transfers get in between and
                // cause the conflicts that the demo is about.
                yield_now().await;
                if payer < amount {
                    return Ok(Outcome::Insufficient);
                }
                tx.insert(from, payer - amount)?;
                tx.insert(to, payee + amount)?;
                Ok(Outcome::Moved)
            })
            .await
    }

    /// Audits the bank until [`Self::stop`] is set, through each lens in turn. Calls `wrong` with the result
    /// of each failed audit.
    pub(super) async fn audit_until_stopped(&self, wrong: impl Fn(Audit)) -> anyhow::Result<()> {
        let mut lens = Lens::Snapshot;
        while !self.stop.load(Ordering::Relaxed) {
            let found = self.audit(lens).await.context("an audit failed")?;
            if found != self.expected() {
                wrong(found);
            }
            lens = match lens {
                Lens::Snapshot => Lens::Transaction,
                Lens::Transaction => Lens::Snapshot,
            };
            yield_now().await;
        }
        Ok(())
    }

    /// Adds up all accounts.
    pub(super) async fn audit(&self, lens: Lens) -> anyhow::Result<Audit> {
        let found = match lens {
            Lens::Snapshot => sum(&self.accounts).await?,
            Lens::Transaction => self.accounts.transact(async |tx| audit_in(tx).await).await?,
        };
        self.tally.audits.fetch_add(1, Ordering::Relaxed);
        if found != self.expected() {
            self.tally.failed_audits.fetch_add(1, Ordering::Relaxed);
        }
        Ok(found)
    }
}

/// Adds up all accounts in a snapshot.
pub(super) async fn sum(accounts: &Database<u64, u64>) -> anyhow::Result<Audit> {
    let mut found = Audit { sum: 0, accounts: 0 };
    let mut accounts = accounts.snapshot().range_stream(..);
    while let Some(account) = accounts.next().await {
        found.add(*account?.1).await;
    }
    Ok(found)
}

/// Adds up all accounts in a transaction.
async fn audit_in(tx: &Transaction<u64, u64>) -> anyhow::Result<Audit> {
    let mut found = Audit { sum: 0, accounts: 0 };
    for (_, balance) in tx.range(..)? {
        found.add(*balance).await;
    }
    Ok(found)
}

impl Audit {
    /// Adds one account. Yields from time to time, so that transfers run during the audit.
    async fn add(&mut self, balance: u64) {
        self.sum = self.sum.saturating_add(balance);
        self.accounts += 1;
        if self.accounts.is_multiple_of(AUDIT_CHUNK) {
            yield_now().await;
        }
    }
}

fn balance(tx: &Transaction<u64, u64>, account: u64) -> anyhow::Result<u64> {
    let balance = tx.get(&account)?;
    balance.map(|balance| *balance).with_context(|| format!("account {account} is missing"))
}

/// Whether the database gave up a transfer after too many conflicts.
fn gave_up(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(FluxError::RetriesExhausted { .. } | FluxError::DeadlineExceeded { .. })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_transfer_moves_money_or_nothing() {
        let bank = Bank::open(3, IsolationLevel::Serializable).await.unwrap();
        assert_eq!(bank.transfer(0, 1, 900).await.unwrap(), Outcome::Moved);
        assert_eq!(bank.transfer(0, 2, 101).await.unwrap(), Outcome::Insufficient);
        let tx = bank.accounts.begin();
        let balances = [0, 1, 2].map(|account| balance(&tx, account).unwrap());
        assert_eq!(balances, [100, 1_900, 1_000]);
        assert!(balance(&tx, 3).is_err());
    }

    #[tokio::test]
    async fn an_audit_notices_lost_money_through_both_lenses() {
        let bank = Bank::open(2_000, IsolationLevel::Serializable).await.unwrap();
        for lens in [Lens::Snapshot, Lens::Transaction] {
            assert_eq!(bank.audit(lens).await.unwrap(), bank.expected());
        }
        let theft = bank.accounts.begin();
        theft.insert(7, INITIAL_BALANCE - 1).unwrap();
        theft.commit().await.unwrap();
        for lens in [Lens::Snapshot, Lens::Transaction] {
            assert_eq!(bank.audit(lens).await.unwrap().sum, bank.expected().sum - 1);
        }
        assert_eq!(bank.tally.failed_audits.load(Ordering::Relaxed), 2);
        assert_eq!(bank.tally.audits.load(Ordering::Relaxed), 4);
    }
}
