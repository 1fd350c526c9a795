//! What a key takes.

use super::super::keys::{Keys, shuffled};
use super::super::sample::Sample;
use super::Bench;
use crate::output::resident_bytes;
use crate::stores::value;

/// How often every key is updated.
const UPDATES: i64 = 10;

pub(super) fn run(bench: &mut Bench<'_>) -> Result<(), String> {
    let keys = Keys::new(bench.keys);
    let order = shuffled(bench.keys);
    let before = resident_bytes();
    let mut note = |workload| {
        let bytes = (resident_bytes() - before) as f64 / bench.keys as f64;
        bench.samples.push(Sample::of_figure(workload, bytes));
    };
    let put_all = |number| {
        for &key in &order {
            bench.store.put(keys.get(key as usize), value(number));
        }
    };
    put_all(0);
    note("bytes a key, loaded");
    for number in 1..=UPDATES {
        put_all(number);
    }
    note("bytes a key, updated ten times");
    match order.iter().find(|&&key| bench.store.get(keys.get(key as usize)) != Some(UPDATES)) {
        None => Ok(()),
        Some(key) => Err(format!("the last update of {} is lost", keys.get(*key as usize))),
    }
}
