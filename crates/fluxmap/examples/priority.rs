//! How priority for a transaction that keeps losing affects other commits: `priority [SECONDS]`.
//!
//! The first part runs a transaction that takes 300 ms and reads a key that a task writes all the time,
//! among tasks that write other keys. It shows how many attempts the transaction needs, and how long the
//! other commits take. The second part runs transfers between ten accounts by 2 and by 64 tasks, as in
//! the benchmark, with and without a yield within each transfer, and shows how many commit.

use fluxmap::{Database, FluxError};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Db = Database<u64, u64>;

/// The key that the slow transaction reads. The keys of the other writers follow it.
const HOT: u64 = 0;
const WRITERS: u64 = 4;
const SLOW: Duration = Duration::from_millis(300);
const ACCOUNTS: u64 = 10;
const ROUNDS: u32 = 5;

/// Writes one key repeatedly until `done`; returns how long each commit took.
async fn write(db: Db, key: u64, done: Arc<AtomicBool>) -> Result<Vec<Duration>, FluxError> {
    let mut latencies = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let began = Instant::now();
        db.insert(key, 1).await?;
        latencies.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    latencies.sort_unstable();
    Ok(latencies)
}

fn report(name: &str, latencies: &[Duration]) {
    let at = |share: f64| {
        let index = ((latencies.len() as f64 * share) as usize).min(latencies.len().saturating_sub(1));
        latencies.get(index).copied().unwrap_or_default()
    };
    let (median, slow, slowest) = (at(0.5), at(0.999), at(1.0));
    println!(
        "  {name}: {} commits, median {median:.1?}, p99.9 {slow:.1?}, slowest {slowest:.1?}",
        latencies.len()
    );
}

async fn slow_among_writers() -> Result<(), FluxError> {
    let db = Db::new_in_memory().await?;
    for key in HOT..=WRITERS {
        db.insert(key, 0).await?;
    }
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (HOT..=WRITERS).map(|key| tokio::spawn(write(db.clone(), key, Arc::clone(&done)))).collect();
    for _ in 0..ROUNDS {
        let (attempts, began) = (AtomicU64::new(0), Instant::now());
        db.transact(async |tx| {
            attempts.fetch_add(1, Ordering::Relaxed);
            let read = tx.get(&HOT)?.map_or(0, |value| *value);
            tokio::time::sleep(SLOW).await;
            tx.insert(WRITERS + 1, read)
        })
        .await?;
        let attempts = attempts.into_inner();
        println!("  the slow transaction committed after {attempts} attempts and {:.1?}", began.elapsed());
    }
    done.store(true, Ordering::Relaxed);
    for (key, writer) in (HOT..).zip(writers) {
        let latencies = writer.await.expect("no panic")?;
        report(if key == HOT { "writer of the key it reads" } else { "writer of another key" }, &latencies);
    }
    println!("  {:?}", db.priority_info());
    Ok(())
}

async fn transfers(tasks: u64, yields_within: bool, time: Duration) -> Result<f64, FluxError> {
    let db = Db::new_in_memory().await?;
    for account in 0..ACCOUNTS {
        db.insert(account, 1_000).await?;
    }
    let (done, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let movers: Vec<_> = (0..tasks)
        .map(|task| {
            let (db, done, committed) = (db.clone(), Arc::clone(&done), Arc::clone(&committed));
            tokio::spawn(async move {
                let mut random = SmallRng::seed_from_u64(task);
                while !done.load(Ordering::Relaxed) {
                    let from = random.random_range(0..ACCOUNTS);
                    let to = (from + random.random_range(1..ACCOUNTS)) % ACCOUNTS;
                    db.transact(async |tx| {
                        tx.update(&from, |sum| sum.wrapping_sub(1))?;
                        if yields_within {
                            tokio::task::yield_now().await;
                        }
                        tx.update(&to, |sum| sum.wrapping_add(1))?;
                        Ok::<_, FluxError>(())
                    })
                    .await?;
                    committed.fetch_add(1, Ordering::Relaxed);
                    // Yield, because a task that never waits keeps its thread for itself.
                    tokio::task::yield_now().await;
                }
                Ok::<_, FluxError>(())
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    done.store(true, Ordering::Relaxed);
    for mover in movers {
        mover.await.expect("no panic")?;
    }
    let rate = committed.load(Ordering::Relaxed) as f64 / time.as_secs_f64();
    println!("  {tasks} tasks: {rate:.0} transfers a second, {:?}", db.priority_info());
    Ok(rate)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), FluxError> {
    let seconds = std::env::args().nth(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(2);
    println!("a transaction of {SLOW:?} that reads a key which a task writes every millisecond:");
    slow_among_writers().await?;
    for yields_within in [false, true] {
        println!("transfers between {ACCOUNTS} accounts, with a yield within each: {yields_within}:");
        for _ in 0..ROUNDS {
            let few = transfers(2, yields_within, Duration::from_secs(seconds)).await?;
            let many = transfers(64, yields_within, Duration::from_secs(seconds)).await?;
            println!("  64 tasks commit {:.2} of 2 tasks", many / few);
        }
    }
    Ok(())
}
