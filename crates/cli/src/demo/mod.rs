//! `fluxmap demo`: starts the tasks of the bank, shows their progress, and reports.

mod bank;
mod crash;
mod durable;
mod latency;
mod receipts;
mod report;
mod worker;

pub(crate) use worker::{CrashWorkerArgs, run as crash_worker};

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use fluxmap::IsolationLevel;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinSet;

use self::bank::{Audit, Bank, Lens, Tally};
use self::latency::Latencies;
use self::report::Report;
use crate::Verdict;
use crate::durability::DurabilityArgs;
use crate::memory::resident_bytes;
use crate::output::{Output, note, thousands};

/// The interval at which the progress bar is updated.
const TICK: Duration = Duration::from_millis(200);

/// The options of `fluxmap demo`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("disk").args(["durable", "crash_test"]).multiple(true))]
pub(crate) struct DemoArgs {
    /// Accounts in the bank.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(2..=100_000_000))]
    accounts: u64,

    /// Tasks that make transfers.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    tasks: u32,

    /// Tasks that audit the bank meanwhile.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    auditors: u32,

    /// How long the tasks run.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    seconds: u64,

    /// The isolation level of the transactions.
    #[arg(long, value_enum, default_value_t = Isolation::Serializable)]
    isolation: Isolation,

    /// The seed of the tasks' random choices: with the same seed they choose the same accounts and
    /// amounts again [default: random].
    #[arg(long)]
    seed: Option<u64>,

    /// Keep the accounts on disk, in the database in this directory, which is created if there is
    /// none. Accounts that it already holds are used. After the run the database is opened again and
    /// audited.
    #[arg(long, value_name = "DIR")]
    durable: Option<PathBuf>,

    #[command(flatten)]
    durability: DurabilityArgs,

    /// Run a crash test instead, of this many rounds. Each round starts another process that makes
    /// transfers, kills it at a random instant, and looks for every transfer that the process had
    /// reported as committed. Uses a temporary directory unless --durable is given.
    #[arg(long, value_name = "ROUNDS", conflicts_with_all = ["auditors", "seconds", "isolation"], value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    crash_test: Option<u32>,

    /// Print the report as JSON and show no progress. The report is one object; that of a crash test
    /// is one object for each round and one at the end.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The value of `--isolation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Isolation {
    /// As if the transactions ran one after the other.
    Serializable,
    /// Reads from one point in time; the first of two writers of a key wins.
    Snapshot,
}

impl Isolation {
    fn level(self) -> IsolationLevel {
        match self {
            Self::Serializable => IsolationLevel::Serializable,
            Self::Snapshot => IsolationLevel::Snapshot,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Serializable => "serializable",
            Self::Snapshot => "snapshot",
        }
    }
}

/// Runs the bank and prints the report.
///
/// # Errors
///
/// If a task fails for another reason than a conflict, or the report cannot be written.
pub(crate) async fn run(args: &DemoArgs, out: &mut Output) -> anyhow::Result<Verdict> {
    // A seed of 32 bits is random enough, and easier to type again than one of 64.
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    if let Some(rounds) = args.crash_test {
        return crash::run(args, rounds, seed, out).await;
    }
    let bank = match &args.durable {
        Some(dir) => durable::open(args, dir).await?,
        None => Bank::open(args.accounts, args.isolation.level()).await?,
    };
    let recovery = bank.database().recovery_info().cloned();
    if let (Some(recovery), false) = (&recovery, args.json) {
        note(durable::describe(recovery));
    }
    let bank = Arc::new(bank);
    let resident_at_start = resident_bytes();
    let started = Instant::now();
    let latencies = run_tasks(args, seed, &bank).await?;
    let took = started.elapsed();
    let last = bank.audit(Lens::Transaction).await.context("the last audit failed")?;
    // Collect the counts before reopening: that consumes the bank.
    let report = report(args, seed, &bank, latencies, last);
    let reopened = match &args.durable {
        Some(dir) => Some(durable::reopen(args, dir, bank).await?),
        None => None,
    };
    let level = args.durable.as_ref().map(|_| args.durability.name());
    let report = Report { took, resident_at_start, level, recovery, reopened, ..report };
    let verdict = if report.is_good() { Verdict::Good } else { Verdict::Bad };
    // If an audit failed, the exit code must say so, even if the report cannot be written.
    if let (Err(error), Verdict::Good) = (print(&report, out), verdict) {
        return Err(error).context("cannot write the report");
    }
    Ok(verdict)
}

fn print(report: &Report, out: &mut Output) -> std::io::Result<()> {
    if out.json() {
        out.object(&report.to_json())?;
    } else {
        out.line(report.to_table())?;
    }
    out.flush()
}

/// Runs all tasks until the time is over. Returns the latencies of all transfers.
async fn run_tasks(args: &DemoArgs, seed: u64, bank: &Arc<Bank>) -> anyhow::Result<Latencies> {
    let mut tasks = JoinSet::new();
    for task in 0..args.tasks {
        let bank = Arc::clone(bank);
        // Consecutive seeds are enough: the generator scatters them.
        let seed = seed.wrapping_add(u64::from(task));
        tasks.spawn(async move { bank.transfer_until_stopped(seed).await });
    }
    let wrong_audits = Arc::new(AtomicU64::new(0));
    for _ in 0..args.auditors {
        let bank = Arc::clone(bank);
        let wrong_audits = Arc::clone(&wrong_audits);
        tasks.spawn(async move {
            let expected = bank.expected();
            let wrong = |found| note_wrong_audit(&wrong_audits, expected, found);
            bank.audit_until_stopped(wrong).await?;
            Ok(Latencies::new())
        });
    }
    let mut latencies = Latencies::new();
    let ended_early = watch(args, bank, &mut tasks).await;
    bank.stop.store(true, Ordering::Relaxed);
    if let Some(ended) = ended_early {
        latencies.merge(&ended?)?;
    }
    while let Some(ended) = tasks.join_next().await {
        latencies.merge(&ended.context("a task panicked")??)?;
    }
    Ok(latencies)
}

/// Shows the progress until the time is over, or until a task ends. A task that ends early has failed.
async fn watch(
    args: &DemoArgs,
    bank: &Bank,
    tasks: &mut JoinSet<anyhow::Result<Latencies>>,
) -> Option<anyhow::Result<Latencies>> {
    let bar = progress_bar(args);
    let started = Instant::now();
    let end = tokio::time::sleep(Duration::from_secs(args.seconds));
    tokio::pin!(end);
    let mut ticks = tokio::time::interval(TICK);
    let ended = loop {
        tokio::select! {
            () = &mut end => break None,
            Some(ended) = tasks.join_next() => {
                break Some(ended.context("a task panicked").and_then(|result| result));
            }
            _ = ticks.tick() => {
                bar.set_position(started.elapsed().as_secs());
                bar.set_message(progress(&bank.tally, started.elapsed()));
            }
        }
    };
    bar.finish_and_clear();
    ended
}

fn progress_bar(args: &DemoArgs) -> ProgressBar {
    // The bar hides itself if standard error is not a terminal.
    let target = match args.json {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr(),
    };
    let template = "{bar:20} {pos}/{len} s  {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(args.seconds), target).with_style(style)
}

fn progress(tally: &Tally, elapsed: Duration) -> String {
    let transfers = tally.transfers.load(Ordering::Relaxed);
    let done =
        transfers + tally.insufficient.load(Ordering::Relaxed) + tally.given_up.load(Ordering::Relaxed);
    let attempts = tally.attempts.load(Ordering::Relaxed);
    let per_second = transfers as f64 / elapsed.as_secs_f64().max(0.001);
    format!(
        "{} transfers ({}/s), {} retries, {} audits, {} failed",
        thousands(transfers),
        thousands(per_second.round() as u64),
        thousands(attempts.saturating_sub(done)),
        thousands(tally.audits.load(Ordering::Relaxed)),
        thousands(tally.failed_audits.load(Ordering::Relaxed)),
    )
}

/// Prints the first few wrong audits. The tally counts all of them.
fn note_wrong_audit(seen: &AtomicU64, expected: Audit, found: Audit) {
    const SHOWN: u64 = 5;
    if seen.fetch_add(1, Ordering::Relaxed) < SHOWN {
        note(format_args!(
            "wrong audit: {} in {} accounts instead of {} in {}",
            thousands(found.sum),
            thousands(found.accounts),
            thousands(expected.sum),
            thousands(expected.accounts),
        ));
    }
}

/// The counts of a bank whose tasks have ended.
fn report(args: &DemoArgs, seed: u64, bank: &Bank, latencies: Latencies, last: Audit) -> Report {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let tally = &bank.tally;
    let (transfers, insufficient) = (count(&tally.transfers), count(&tally.insufficient));
    let given_up = count(&tally.given_up);
    Report {
        isolation: args.isolation.name(),
        tasks: args.tasks,
        auditors: args.auditors,
        seed,
        took: Duration::ZERO,
        transfers,
        retries: count(&tally.attempts).saturating_sub(transfers + insufficient + given_up),
        insufficient,
        given_up,
        audits: count(&tally.audits),
        failed_audits: count(&tally.failed_audits),
        expected: bank.expected(),
        last,
        latencies,
        resident_at_start: None,
        resident_at_end: resident_bytes(),
        level: None,
        recovery: None,
        reopened: None,
    }
}
