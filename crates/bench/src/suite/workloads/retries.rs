//! Committers that conflict often: 2, 8 and 64 of them on ten accounts. They are threads, and also tasks
//! on two threads if the store supports tasks.

use super::super::drive::Outcome;
use super::{Bench, bank};
use crate::output::cpu_time;
use crate::stores::fluxmap::{Db, transfer};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Builder;

const ACCOUNTS: usize = 10;
const COMMITTERS: [(usize, &str, &str); 3] = [
    (2, "bank of 10, 2 threads", "bank of 10, 2 tasks on 2 threads"),
    (8, "bank of 10, 8 threads", "bank of 10, 8 tasks on 2 threads"),
    (64, "bank of 10, 64 threads", "bank of 10, 64 tasks on 2 threads"),
];
const WORKERS: usize = 2;

pub(super) fn run(bench: &Bench<'_>) -> Result<(), String> {
    let store = bench.store;
    bank::open(store, ACCOUNTS);
    let (seed, time) = (bench.seed, bench.time);
    for (committers, with_threads, with_tasks) in COMMITTERS {
        bench.measure_for(with_threads, Some(time), committers, |thread| {
            let mut random = SmallRng::seed_from_u64(bench.seed(thread));
            Box::new(move || Some(bank::transfer(store, ACCOUNTS, &mut random)))
        });
        if let Some(db) = store.tasks() {
            bench.note_all(&[drive_tasks(db, with_tasks, committers, time, seed)]);
        }
    }
    bank::check(store, ACCOUNTS)
}

/// Runs tasks that make transfers until the time is over.
fn drive_tasks(db: &Db, series: &'static str, tasks: usize, time: Duration, seed: u64) -> Outcome {
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).enable_time().build();
    let (cpu, begun) = (cpu_time(), Instant::now());
    let mut outcome = Outcome::none(series);
    runtime.expect("a runtime").block_on(async {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..tasks as u64)
            .map(|task| {
                let (db, stop) = (db.clone(), Arc::clone(&stop));
                let mut random = SmallRng::seed_from_u64(seed * 1000 + task);
                tokio::spawn(async move {
                    let (mut operations, mut lost) = (0, 0);
                    while !stop.load(Ordering::Relaxed) {
                        let from = random.random_range(0..ACCOUNTS);
                        let to = (from + random.random_range(1..ACCOUNTS)) % ACCOUNTS;
                        let amount = random.random_range(1..10);
                        lost += transfer(&db, &bank::account(from), &bank::account(to), amount).await;
                        operations += 1;
                        // Yield: a task that never waits keeps its thread from running other tasks.
                        tokio::task::yield_now().await;
                    }
                    (operations, lost)
                })
            })
            .collect();
        tokio::time::sleep(time).await;
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            let (operations, lost) = task.await.expect("no panic");
            outcome.operations += operations;
            outcome.aborts += lost;
        }
    });
    outcome.time = begun.elapsed();
    outcome.cpu = cpu_time() - cpu;
    outcome
}
