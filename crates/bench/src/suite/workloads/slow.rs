//! A transaction that takes 300 ms, as if it waited for another service, beside a writer of the key that
//! it reads and a writer of other keys. The writers are paced: each write is due at a fixed instant, and
//! its latency counts from this instant. So a store that stops for 300 ms shows the wait of all writes
//! that were due meanwhile, and not only of one.

use super::super::keys::numbered;
use super::super::sample::Sample;
use super::Bench;
use crate::output::median;
use crate::stores::{Store, value};
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const TAKES: Duration = Duration::from_millis(300);
const PACE: Duration = Duration::from_millis(1);
/// A run takes so many times as long as that of other workloads, since a transaction may run several
/// times until it commits.
const LONGER: u32 = 10;
/// The number of keys that only the second writer uses.
const OTHERS: u64 = 1000;

/// Makes the writes that are due, until `stop` is set. Returns their latencies in microseconds.
fn write(store: &dyn Store, stop: &AtomicBool, key: impl Fn(u64) -> String) -> Histogram<u64> {
    let mut latencies = Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are fine");
    let mut due = Instant::now();
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        store.put(&key(number), value(number as i64));
        latencies.saturating_record(due.elapsed().as_micros() as u64);
        due += PACE;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    latencies
}

/// Commits slow transactions until `stop` is set. Returns how many attempts each took.
fn commit(store: &dyn Store, stop: &AtomicBool) -> Vec<f64> {
    let mut attempts = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let lost = store.transact(&mut |tx| {
            let seen = tx.get("hot")?.unwrap_or(0);
            thread::sleep(TAKES);
            tx.put("cold", value(seen))
        });
        attempts.push(lost as f64 + 1.0);
    }
    attempts
}

pub(super) fn run(bench: &Bench<'_>) -> Result<(), String> {
    let (store, stop) = (bench.store, AtomicBool::new(false));
    let other = |number: u64| numbered("user", 16, number % OTHERS, "");
    store.put("hot", value(0));
    let (attempts, hot, others) = thread::scope(|scope| {
        let slow = scope.spawn(|| commit(store, &stop));
        let hot = scope.spawn(|| write(store, &stop, |_| "hot".to_string()));
        let others = scope.spawn(|| write(store, &stop, other));
        thread::sleep(bench.time * LONGER);
        stop.store(true, Ordering::Relaxed);
        let join = "no panic";
        (slow.join().expect(join), hot.join().expect(join), others.join().expect(join))
    });
    let note = |what: &str, figure| {
        bench.note(Sample::of_figure(&format!("300 ms transaction: {what}"), figure));
    };
    let slowest = |latencies: &Histogram<u64>| latencies.value_at_quantile(0.999) as f64 / 1000.0;
    note("attempts for a commit", median(&attempts));
    note("milliseconds of a write of what it reads, p99.9", slowest(&hot));
    note("milliseconds of another write, p99.9", slowest(&others));
    match store.get("cold") {
        Some(seen) if seen < hot.len() as i64 => Ok(()),
        found => Err(format!("the slow transactions wrote {found:?}")),
    }
}
