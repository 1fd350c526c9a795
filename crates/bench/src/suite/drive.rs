//! Runs steps on threads again and again, and measures their time.

use crate::output::{cpu_time, thread_cpu_time};
use hdrhistogram::Histogram;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Does one operation, and returns how often it lost a conflict; `None` if there is nothing more to do.
pub(crate) type Step<'s> = Box<dyn FnMut() -> Option<u64> + Send + 's>;

/// A thread, and the name of the series in which its operations count.
pub(crate) struct Worker<'s> {
    pub(crate) series: &'static str,
    pub(crate) step: Step<'s>,
}

/// The measurements of all workers of one series.
pub(crate) struct Outcome {
    pub(crate) series: &'static str,
    pub(crate) operations: u64,
    pub(crate) time: Duration,
    /// Processor time. If the process ran only this series, it is that of the whole process, so that
    /// background threads count; otherwise, that of the threads of the series.
    pub(crate) cpu: Duration,
    pub(crate) aborts: u64,
    /// Latencies of every [`SAMPLED`]th operation, in nanoseconds.
    pub(crate) latencies: Histogram<u64>,
}

/// One operation in so many is timed, because reading the clock takes as long as a quarter of a get.
const SAMPLED: u64 = 8;

impl Outcome {
    /// An outcome without operations.
    pub(crate) fn none(series: &'static str) -> Self {
        // Latencies of up to a minute, to three digits.
        let latencies = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are fine");
        Outcome { series, operations: 0, time: Duration::ZERO, cpu: Duration::ZERO, aborts: 0, latencies }
    }
}

/// Runs the workers for `time`, or until they have nothing more to do if `time` is `None`. Returns an
/// outcome for each series.
pub(crate) fn drive(workers: Vec<Worker<'_>>, time: Option<Duration>) -> Vec<Outcome> {
    let (start, end) = (Barrier::new(workers.len() + 1), Barrier::new(workers.len() + 1));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|Worker { series, mut step }| {
                let (start, end, stop) = (&start, &end, &stop);
                scope.spawn(move || {
                    let mut outcome = Outcome::none(series);
                    start.wait();
                    let (begun, cpu) = (Instant::now(), thread_cpu_time());
                    while !stop.load(Ordering::Relaxed) {
                        let timed = outcome.operations.is_multiple_of(SAMPLED).then(Instant::now);
                        let Some(lost) = step() else { break };
                        if let Some(timed) = timed {
                            outcome.latencies.saturating_record(timed.elapsed().as_nanos() as u64);
                        }
                        outcome.operations += 1;
                        outcome.aborts += lost;
                    }
                    (outcome.time, outcome.cpu) = (begun.elapsed(), thread_cpu_time() - cpu);
                    end.wait();
                    outcome
                })
            })
            .collect();
        start.wait();
        let cpu = cpu_time();
        if let Some(time) = time {
            thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
        }
        end.wait();
        let cpu = cpu_time() - cpu;
        let mut all: Vec<Outcome> = Vec::new();
        for thread in threads {
            let one = thread.join().expect("no panic");
            match all.iter_mut().find(|known| known.series == one.series) {
                Some(known) => {
                    known.operations += one.operations;
                    known.aborts += one.aborts;
                    known.time = known.time.max(one.time);
                    known.cpu += one.cpu;
                    known.latencies.add(&one.latencies).expect("the same range");
                }
                None => all.push(one),
            }
        }
        if let [outcome] = all.as_mut_slice() {
            outcome.cpu = cpu;
        }
        all
    })
}
