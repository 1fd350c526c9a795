//! Write skew. A transaction reads both numbers of a pair and writes one, such that their sum does not
//! fall below zero. Each transaction alone keeps this invariant. Two concurrent ones, each of which has
//! read the old value of the other's key, may break it (Berenson and others, "A Critique of ANSI SQL
//! Isolation Levels", 1995, A5B).

use super::super::keys::numbered;
use super::Bench;
use crate::stores::value;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const PAIRS: usize = 100;

fn halves(pair: usize) -> [String; 2] {
    ["a", "b"].map(|half| numbered("pair", 15, pair as u64, half))
}

pub(super) fn run(bench: &Bench<'_>) -> Result<(), String> {
    let store = bench.store;
    for key in (0..PAIRS).flat_map(halves) {
        store.put(&key, value(1));
    }
    bench.measure("write-skew pairs", |thread| {
        let mut random = SmallRng::seed_from_u64(bench.seed(thread));
        Box::new(move || {
            let (keys, half) = (halves(random.random_range(0..PAIRS)), random.random_range(0..2));
            Some(store.transact(&mut |tx| {
                let mut numbers = [0; 2];
                for (number, key) in numbers.iter_mut().zip(&keys) {
                    *number = tx.get(key)?.expect("it is there");
                }
                // Take one while the sum is positive; at zero, put two back. Leave a sum below zero as it
                // is, so that the check finds it.
                let change = match numbers[0] + numbers[1] {
                    0 => 2,
                    1.. => -1,
                    ..0 => 0,
                };
                tx.put(&keys[half], value(numbers[half] + change))
            }))
        })
    });
    for pair in 0..PAIRS {
        let sum: i64 = halves(pair).iter().filter_map(|key| store.get(key)).sum();
        if sum < 0 {
            return Err(format!("pair {pair} has fallen to {sum}"));
        }
    }
    Ok(())
}
