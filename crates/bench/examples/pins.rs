//! The cost for a reader to pin itself, for three reclaimers: the measurement behind the choice in
//! ARCHITECTURE.md. The figures are medians of interleaved rounds, in nanoseconds for a pin and its
//! release.

use fluxmap_index::Index;
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: usize = 21;
const PINS: u32 = 1_000_000;

fn time(mut pin: impl FnMut()) -> f64 {
    let started = Instant::now();
    for _ in 0..PINS {
        pin();
    }
    started.elapsed().as_nanos() as f64 / f64::from(PINS)
}

fn main() {
    let (index, _writer) = Index::<u64, u64>::new(0.25);
    let seize = seize::Collector::new();
    let mut rounds: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        rounds[0].push(time(|| drop(black_box(index.reader()))));
        rounds[1].push(time(|| drop(black_box(crossbeam_epoch::pin()))));
        rounds[2].push(time(|| drop(black_box(seize.enter()))));
    }
    for (name, mut times) in ["fluxmap-index", "crossbeam-epoch", "seize"].into_iter().zip(rounds) {
        times.sort_by(f64::total_cmp);
        println!("{name}: {:.1} ns", times[ROUNDS / 2]);
    }
}
