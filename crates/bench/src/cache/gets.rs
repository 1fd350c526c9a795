//! Gets that hit: of a database with a limit, compared with the same database without one.

use super::cost::{Db, Options, at_limit, below_limit, key, ratio, spread};
use crate::output::{bar, cpu_time, table};
use comfy_table::Table;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use std::thread;

/// The distribution of the keys to read.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
enum Draw {
    Uniform,
    Zipf,
}

const DRAWS: [(Draw, &str); 2] = [(Draw::Uniform, "uniform"), (Draw::Zipf, "Zipf 0.99")];

/// Whether the database is below its limit or at it.
const LIMITS: [&str; 2] = ["below", "at"];

/// Nanoseconds of processor time per get, one figure per round.
#[derive(Serialize)]
pub(crate) struct Series {
    keys: usize,
    policy: &'static str,
    threads: usize,
    draw: Draw,
    no_limit: Vec<f64>,
    below_limit: Vec<f64>,
    at_limit: Vec<f64>,
}

/// A database, and its keys in random order.
struct Loaded {
    db: Db,
    keys: Vec<u64>,
}

impl Loaded {
    fn new(db: Db, keys: u64) -> Self {
        let all = (0..2 * keys).map(key);
        let mut keys: Vec<u64> = all.filter(|key| db.contains_key(key).expect("in memory")).collect();
        keys.shuffle(&mut SmallRng::seed_from_u64(1));
        Loaded { db, keys }
    }

    /// Reads the keys at these places in `keys`. Returns nanoseconds of processor time per read.
    fn gets(&self, places: &[usize], threads: usize) -> f64 {
        let keys: Vec<u64> = places.iter().map(|&place| self.keys[place]).collect();
        let started = cpu_time();
        thread::scope(|scope| {
            for part in keys.chunks(keys.len().div_ceil(threads)) {
                scope.spawn(|| {
                    assert!(part.iter().all(|key| self.db.get(key).is_ok_and(|got| got.is_some())))
                });
            }
        });
        (cpu_time() - started).as_nanos() as f64 / keys.len() as f64
    }
}

/// Draws random places in a list of keys.
struct Places {
    count: usize,
    /// For each place, the sum of the weights of this place and the ones before it. Empty for uniform
    /// draws.
    sums: Vec<f64>,
}

impl Places {
    fn new(draw: Draw, count: usize) -> Self {
        let weights = (1..=count).map(|rank| (rank as f64).powf(-0.99));
        let sums = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Places { count, sums: if draw == Draw::Zipf { sums.collect() } else { Vec::new() } }
    }

    fn draw(&self, random: &mut SmallRng) -> usize {
        let Some(total) = self.sums.last() else { return random.random_range(0..self.count) };
        let at = random.random_range(0.0..*total);
        self.sums.partition_point(|sum| *sum < at)
    }
}

/// Measures all cases.
pub(crate) fn measure(options: &Options) -> Vec<Series> {
    let cases = options.keys.len() * options.policies().count() * options.threads.len() * DRAWS.len();
    let bar = bar(cases * options.rounds);
    let mut all = Vec::new();
    for &keys in &options.keys {
        for (name, policy) in options.policies() {
            bar.set_message(format!("gets, {keys} keys, {name}"));
            let count = keys as u64;
            let below = below_limit(Some(policy), count);
            let at = at_limit(policy, count, &below);
            let dbs = [below_limit(None, count), below, at].map(|db| Loaded::new(db, count));
            let kept = dbs.iter().map(|loaded| loaded.keys.len()).min().unwrap_or_default();
            for &threads in &options.threads {
                for (draw, _) in DRAWS {
                    let places = Places::new(draw, kept);
                    let mut taken: [Vec<f64>; 3] = Default::default();
                    for round in 0..options.rounds {
                        let mut random = SmallRng::seed_from_u64(round as u64);
                        let places: Vec<usize> =
                            (0..options.gets).map(|_| places.draw(&mut random)).collect();
                        for turn in 0..dbs.len() {
                            // Rotate the order, so that each database is first in some rounds.
                            let which = (turn + round) % dbs.len();
                            taken[which].push(dbs[which].gets(&places, threads));
                        }
                        bar.inc(1);
                    }
                    let [no_limit, below_limit, at_limit] = taken;
                    all.push(Series { keys, policy: name, threads, draw, no_limit, below_limit, at_limit });
                }
            }
        }
    }
    bar.finish_and_clear();
    all
}

/// The table of the ratios for `keys` keys.
pub(crate) fn table_of(all: &[Series], keys: usize, options: &Options) -> Table {
    let mut header = vec![format!("{keys} keys: a get that hits, of one without a limit")];
    let mut plain = vec!["no limit, CPU ns".to_string()];
    for threads in &options.threads {
        for (draw, draw_name) in DRAWS {
            header.extend(LIMITS.map(|limit| format!("{draw_name}, {threads}: {limit}")));
            let same = all.iter().filter(|row| (row.keys, row.threads, row.draw) == (keys, *threads, draw));
            let taken: Vec<f64> = same.flat_map(|row| &row.no_limit).copied().collect();
            plain.extend([spread(&taken, 0), String::new()]);
        }
    }
    let mut rows = vec![plain];
    for (policy, _) in options.policies() {
        let same = all.iter().filter(|row| (row.keys, row.policy) == (keys, policy));
        let ratios =
            same.flat_map(|row| [&row.below_limit, &row.at_limit].map(|taken| ratio(taken, &row.no_limit)));
        rows.push(std::iter::once(policy.to_string()).chain(ratios).collect());
    }
    table(header.iter().map(String::as_str), rows)
}
