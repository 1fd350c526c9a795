//! `fluxmap demo --crash-test`: kills a process that makes transfers, and checks that every transfer
//! which the process had reported as committed is still there.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use comfy_table::{CellAlignment, Table, presets};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::DemoArgs;
use super::receipts::{Counts, MAX_ACCOUNTS, audit, open, recovery};
use super::worker::READY;
use crate::Verdict;
use crate::output::{Output, note, thousands};
use crate::progress::count_bar;

/// The longest time for which a process makes transfers.
const LONGEST_MS: u64 = 400;

/// The most transfers to wait for before a process is killed.
const MOST_TRANSFERS: u64 = 5_000;

/// The longest time that a process may take to open the database.
const PATIENCE: Duration = Duration::from_secs(120);

/// The result of killing one process and opening the database after it.
struct Round {
    number: u32,
    /// How long the process ran.
    lived: Duration,
    /// Transfers that the process reported as committed.
    acknowledged: u64,
    /// Transfers of the process that were found afterwards.
    recovered: u64,
    /// Transfers, of this process and earlier ones, that were acknowledged but not found.
    lost: u64,
    /// Accounts and receipts that contradict each other.
    wrong: u64,
    sum: u64,
    expected: u64,
    /// How long opening the database took afterwards.
    recovery: Duration,
    torn: bool,
}

impl Round {
    fn is_good(&self) -> bool {
        self.lost == 0 && self.wrong == 0 && self.sum == self.expected
    }

    fn to_json(&self) -> Value {
        json!({
            "round": self.number,
            "lived_ms": self.lived.as_secs_f64() * 1e3,
            "acknowledged": self.acknowledged,
            "recovered": self.recovered,
            "lost": self.lost,
            "wrong": self.wrong,
            "sum": self.sum,
            "expected_sum": self.expected,
            "torn_tail": self.torn,
            "recovery_ms": self.recovery.as_secs_f64() * 1e3,
        })
    }
}

/// Kills one process per round, and stops after the first round that is not good. The verdict is bad if
/// a transfer was lost or an audit failed.
///
/// # Errors
///
/// If a process cannot be started, or ends by itself, or the database cannot be opened after it.
pub(super) async fn run(
    args: &DemoArgs,
    rounds: u32,
    seed: u64,
    out: &mut Output,
) -> anyhow::Result<Verdict> {
    ensure!(args.accounts <= MAX_ACCOUNTS, "a crash test takes at most {MAX_ACCOUNTS} accounts");
    let temporary = tempfile::Builder::new().prefix("fluxmap-crash-").tempdir();
    let temporary = temporary.context("cannot make a temporary directory")?;
    let in_temporary = temporary.path().join("bank");
    let dir = args.durable.as_deref().unwrap_or(&in_temporary);
    let outcome = run_in(dir, args, rounds, seed, out).await;
    if args.durable.is_none() && !matches!(outcome, Ok(Verdict::Good)) {
        note(format_args!("the files stay in {}", temporary.keep().join("bank").display()));
    }
    outcome
}

async fn run_in(
    dir: &Path,
    args: &DemoArgs,
    rounds: u32,
    seed: u64,
    out: &mut Output,
) -> anyhow::Result<Verdict> {
    let mut random = StdRng::seed_from_u64(seed);
    let books = open(dir, args.accounts, &args.durability).await?;
    let mut known = audit(&books)?.receipts;
    books.close().await.context("cannot close the database")?;
    let bar = count_bar("killing", args.json);
    bar.set_length(rounds.into());
    let mut done = Vec::new();
    for number in 1..=rounds {
        let round = one_round(number, dir, args, &mut random, &mut known).await;
        let round = round.with_context(|| format!("round {number} of seed {seed}"))?;
        bar.inc(1);
        let goes_on = round.is_good();
        if args.json {
            out.object(&round.to_json())?;
            out.flush()?;
        }
        done.push(round);
        if !goes_on {
            break;
        }
    }
    bar.finish_and_clear();
    report(&done, args, seed, out)
}

async fn one_round(
    number: u32,
    dir: &Path,
    args: &DemoArgs,
    random: &mut StdRng,
    known: &mut Counts,
) -> anyhow::Result<Round> {
    let started = Instant::now();
    let acknowledged = kill_one(dir, args, random)?;
    let lived = started.elapsed();
    let books = open(dir, args.accounts, &args.durability).await?;
    let recovery = recovery(&books);
    let found = audit(&books)?;
    books.close().await.context("cannot close the database")?;

    let before: u64 = known.values().sum();
    // A task numbers its transfers from the last receipt on, and no receipt is ever removed. So the
    // number that it reported last, minus the number known before, counts its acknowledged transfers.
    let mut promised = 0;
    for (task, number) in &acknowledged {
        promised += number.saturating_sub(known.get(task).copied().unwrap_or(0));
        known.insert(*task, *number);
    }
    let is_there = |task: &u32| found.receipts.get(task).copied().unwrap_or(0);
    let lost = known.iter().map(|(task, number)| number.saturating_sub(is_there(task))).sum();
    let recovered = found.receipts.values().sum::<u64>().saturating_sub(before);
    *known = found.receipts;
    Ok(Round {
        number,
        lived,
        acknowledged: promised,
        recovered,
        lost,
        wrong: found.wrong,
        sum: found.sum,
        expected: found.expected,
        recovery: recovery.duration,
        torn: recovery.torn_tail.is_some(),
    })
}

/// Starts a process and kills it. Returns the number of the last transfer of each task that the process
/// reported as committed.
fn kill_one(dir: &Path, args: &DemoArgs, random: &mut StdRng) -> anyhow::Result<Counts> {
    let program = std::env::current_exe().context("cannot find the executable of this program")?;
    let mut child = Command::new(program)
        .arg("crash-worker")
        .arg(dir)
        .arg(format!("--tasks={}", args.tasks))
        .arg(format!("--seed={}", random.random::<u32>()))
        .args(args.durability.to_arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the process to be killed")?;
    let lines = lines_of(&mut child)?;
    let heard = listen(&lines, random);
    // Kill the process even if listening failed: a process that lives on keeps the database locked.
    child.kill().context("cannot kill the process")?;
    child.wait().context("cannot wait for the process")?;
    let mut acknowledged = heard?;
    // Read the lines that were still in the pipe: the process reported those transfers before it died.
    for line in lines {
        note_acknowledged(&line, &mut acknowledged)?;
    }
    Ok(acknowledged)
}

/// The lines that `child` prints, as they come. A thread reads them, and ends with the process.
fn lines_of(child: &mut Child) -> anyhow::Result<Receiver<String>> {
    let stdout = child.stdout.take().context("the process has no output")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        // The kill may cut off the last line: drop a line without its end.
        while reader.read_line(&mut line).is_ok_and(|_| line.ends_with('\n')) {
            line.pop();
            if sender.send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Listens until a random instant: after some time or some transfers, and in one of eight rounds
/// possibly before the database is open.
fn listen(lines: &Receiver<String>, random: &mut StdRng) -> anyhow::Result<Counts> {
    let mut acknowledged = Counts::new();
    // An early kill may hit recovery itself, before the process has reported anything.
    let early = random.random_ratio(1, 8);
    let limit = Duration::from_millis(random.random_range(0..LONGEST_MS));
    let mut left = random.random_range(0..=MOST_TRANSFERS);
    let mut deadline = Instant::now() + if early { limit / 8 } else { PATIENCE };
    let mut is_ready = false;
    loop {
        let line = match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) if is_ready || early => return Ok(acknowledged),
            Err(RecvTimeoutError::Timeout) => bail!("the database was not open after {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("the process ended by itself"),
        };
        if line == READY {
            is_ready = true;
            deadline = deadline.min(Instant::now() + limit);
        }
        note_acknowledged(&line, &mut acknowledged)?;
        if left == 0 {
            return Ok(acknowledged);
        }
        left -= 1;
    }
}

fn note_acknowledged(line: &str, acknowledged: &mut Counts) -> anyhow::Result<()> {
    if line == READY {
        return Ok(());
    }
    let parsed =
        line.split_once(' ').and_then(|(task, number)| Some((task.parse().ok()?, number.parse().ok()?)));
    let (task, number) = parsed.with_context(|| format!("unexpected output of the process: {line:?}"))?;
    acknowledged.insert(task, number);
    Ok(())
}

fn report(rounds: &[Round], args: &DemoArgs, seed: u64, out: &mut Output) -> anyhow::Result<Verdict> {
    let total = |count: fn(&Round) -> u64| rounds.iter().map(count).sum::<u64>();
    let acknowledged = total(|round| round.acknowledged);
    let (lost, wrong) = (total(|round| round.lost), total(|round| round.wrong));
    let is_good = rounds.iter().all(Round::is_good);
    if out.json() {
        out.object(&json!({
            "rounds": rounds.len(),
            "seed": seed,
            "durability": args.durability.name(),
            "acknowledged": acknowledged,
            "recovered": total(|round| round.recovered),
            "lost": lost,
            "wrong": wrong,
            "good": is_good,
        }))?;
    } else {
        out.line(table(rounds))?;
        out.line(format_args!(
            "{} killed ({}, seed {seed}): {} transfers acknowledged, {} lost, {}",
            rounds.len(),
            args.durability.name(),
            thousands(acknowledged),
            thousands(lost),
            if is_good { "every audit was right" } else { "an audit was WRONG" },
        ))?;
    }
    out.flush()?;
    Ok(if is_good { Verdict::Good } else { Verdict::Bad })
}

fn table(rounds: &[Round]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["round", "lived", "acknowledged", "recovered", "lost", "sum", "recovery"]);
    for round in rounds {
        let sum = thousands(round.sum);
        table.add_row([
            round.number.to_string(),
            format!("{} ms", round.lived.as_millis()),
            thousands(round.acknowledged),
            thousands(round.recovered),
            thousands(round.lost),
            if round.wrong == 0 && round.sum == round.expected { sum } else { format!("{sum} WRONG") },
            format!("{:.1} ms", round.recovery.as_secs_f64() * 1e3),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
