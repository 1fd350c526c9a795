//! Futures and channels of tokio and of `futures` that need no runtime work in a simulation, and leave its
//! runs deterministic.

use std::sync::Arc;
use std::time::Duration;

use fluxmap_testkit::simulation::{Ended, Machine, Simulation};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

/// Three tasks send numbers through a channel, one of them behind a lock. Returns them in their order.
async fn numbers(machine: Machine) -> Vec<u64> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(2);
    let lock = Arc::new(tokio::sync::Mutex::new(()));
    let tasks: FuturesUnordered<_> = (0..3)
        .map(|task| {
            let (own, sender, lock) = (machine.clone(), sender.clone(), Arc::clone(&lock));
            machine.spawn(format!("sender {task}"), async move {
                for _ in 0..4 {
                    let guard = lock.lock().await;
                    own.sleep(Duration::from_millis(1 + own.choose(3))).await;
                    drop(guard);
                    sender.send(task).await.expect("somebody receives");
                }
            })
        })
        .collect();
    drop(sender);
    let receiving = async {
        let mut received = Vec::new();
        loop {
            tokio::select! {
                biased;
                number = receiver.recv() => match number {
                    Some(number) => received.push(number),
                    None => return received,
                },
                () = machine.sleep(Duration::from_millis(2)) => received.push(99),
            }
        }
    };
    futures::join!(receiving, tasks.collect::<Vec<()>>()).0
}

fn run(seed: u64) -> (Ended<Vec<u64>>, Vec<String>) {
    let mut simulation = Simulation::new(seed);
    let main = numbers(simulation.machine());
    (simulation.run(main).expect("it ends"), simulation.trace())
}

#[test]
fn channels_and_locks_without_a_runtime_are_deterministic() {
    let mut orders = Vec::new();
    for seed in 0..20 {
        let first = run(seed);
        assert_eq!(run(seed), first, "seed {seed}");
        orders.push(first.1);
    }
    orders.sort();
    orders.dedup();
    assert_eq!(orders.len(), 20, "each seed has an order of its own");
}
