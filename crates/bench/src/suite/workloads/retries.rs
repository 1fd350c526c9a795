//! Committers that get into each other's way: 2, 8 and 64 of them on ten accounts.

use super::{Bench, bank};
use rand::SeedableRng;
use rand::rngs::SmallRng;

const ACCOUNTS: usize = 10;
const COMMITTERS: [(usize, &str); 3] =
    [(2, "bank of 10, 2 committers"), (8, "bank of 10, 8 committers"), (64, "bank of 10, 64 committers")];

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), String> {
    let store = bench.store;
    bank::open(store, ACCOUNTS);
    let (seed, time) = (bench.seed, bench.time);
    for (committers, workload) in COMMITTERS {
        bench.measure_for(workload, Some(time), committers, |thread| {
            let mut random = SmallRng::seed_from_u64(seed * 1000 + thread as u64);
            Box::new(move || Some(bank::transfer(store, ACCOUNTS, &mut random)))
        });
    }
    bank::check(store, ACCOUNTS)
}
