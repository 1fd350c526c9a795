//! The process that the crash test kills. It makes transfers, and reports those that have committed.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

use super::receipts::{Books, Transfer, accounts, last_number, open, receipt};
use crate::Verdict;
use crate::durability::DurabilityArgs;

/// The line that the process prints when the database is open.
pub(super) const READY: &str = "ready";

/// The largest amount that one transfer moves.
const LARGEST_AMOUNT: u64 = 250;

/// The options of the process that is to be killed.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("disk").args(["dir"]))]
pub(crate) struct CrashWorkerArgs {
    dir: PathBuf,

    #[arg(long)]
    tasks: u32,

    #[arg(long)]
    seed: u64,

    #[command(flatten)]
    durability: DurabilityArgs,
}

/// Makes transfers for as long as somebody reads the output. As soon as a transfer has committed, prints
/// a line `TASK NUMBER`.
///
/// # Errors
///
/// If the database fails, or nobody reads the output any more.
pub(crate) async fn run(args: &CrashWorkerArgs) -> anyhow::Result<Verdict> {
    let books = Arc::new(open(&args.dir, 2, &args.durability).await?);
    say(READY)?;
    let mut tasks = JoinSet::new();
    for task in 0..args.tasks {
        let random = StdRng::seed_from_u64(args.seed.wrapping_add(u64::from(task)));
        tasks.spawn(transfer_for_ever(Arc::clone(&books), task, random));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task panicked")??;
    }
    Ok(Verdict::Bad)
}

async fn transfer_for_ever(books: Arc<Books>, task: u32, mut random: StdRng) -> anyhow::Result<()> {
    let accounts = accounts(&books);
    let mut number = last_number(&books, task) + 1;
    loop {
        let from = random.random_range(0..accounts);
        let to = (from + random.random_range(1..accounts)) % accounts;
        let transfer = Transfer { from, to, amount: random.random_range(1..=LARGEST_AMOUNT) };
        if make(&books, receipt(task, number), transfer).await? {
            say(&format!("{task} {number}"))?;
            number += 1;
        }
        tokio::task::yield_now().await;
    }
}

/// Makes one transfer and writes its receipt. Returns `false`, and changes nothing, if the payer has too
/// little money.
async fn make(books: &Books, receipt: u64, transfer: Transfer) -> anyhow::Result<bool> {
    let Transfer { from, to, amount } = transfer;
    books
        .transact(async |tx| {
            let payer = *tx.get(&from)?.context("an account is missing")?;
            let payee = *tx.get(&to)?.context("an account is missing")?;
            if payer < amount {
                return Ok(false);
            }
            tx.insert(from, payer - amount)?;
            tx.insert(to, payee + amount)?;
            tx.insert(receipt, transfer.to_value())?;
            Ok(true)
        })
        .await
}

/// Prints one line and flushes it, so that the line has left this process before it is killed.
fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}
