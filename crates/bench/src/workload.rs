//! What is measured.

use crate::stores::Store;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// The length of every value.
const VALUE_BYTES: usize = 100;
/// The pairs of a scan.
const SCAN: usize = 100;

/// The keys of a run: `user` and 16 digits, in random order.
pub(crate) struct Keys {
    shuffled: Vec<String>,
}

impl Keys {
    pub(crate) fn new(count: usize) -> Self {
        let mut shuffled: Vec<String> = (0..count).map(|n| format!("user{:016}", n * 7919)).collect();
        shuffled.shuffle(&mut SmallRng::seed_from_u64(1));
        Keys { shuffled }
    }

    fn random(&self, random: &mut SmallRng) -> &str {
        &self.shuffled[random.random_range(0..self.shuffled.len())]
    }
}

fn value() -> Arc<Vec<u8>> {
    Arc::new(vec![7; VALUE_BYTES])
}

/// One kind of work. They run in the order of [`Workload::ALL`] on one store.
#[derive(Clone, Copy)]
pub(crate) enum Workload {
    /// Puts every key once, in random order.
    Load,
    /// Gets keys, uniformly.
    Get,
    /// Scans of 100 from keys chosen uniformly.
    Scan,
    /// Puts a new value under keys chosen uniformly.
    Update,
}

impl Workload {
    pub(crate) const ALL: [Workload; 4] = [Workload::Load, Workload::Get, Workload::Scan, Workload::Update];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Workload::Load => "load, random order",
            Workload::Get => "get, uniform",
            Workload::Scan => "scan of 100",
            Workload::Update => "update, uniform",
        }
    }

    /// Runs the workload; returns nanoseconds per operation.
    pub(crate) fn run(self, store: &dyn Store, keys: &Keys, operations: usize, seed: u64) -> f64 {
        let mut random = SmallRng::seed_from_u64(seed + 100);
        let started = Instant::now();
        let done = match self {
            Workload::Load => {
                for key in &keys.shuffled {
                    store.put(key.clone(), value());
                }
                keys.shuffled.len()
            }
            Workload::Get => {
                for _ in 0..operations {
                    black_box(store.get(keys.random(&mut random)));
                }
                operations
            }
            Workload::Scan => {
                let scans = operations / 20;
                for _ in 0..scans {
                    if black_box(store.scan(keys.random(&mut random), SCAN)).is_none() {
                        return f64::NAN;
                    }
                }
                scans
            }
            Workload::Update => {
                for _ in 0..operations {
                    store.put(keys.random(&mut random).to_string(), value());
                }
                operations
            }
        };
        started.elapsed().as_nanos() as f64 / done as f64
    }
}
