//! Random transactions from a seed. The same seed gives the same scripts. The interleaving of threads
//! does not follow from the seed.
//!
//! `FLUXMAP_SEED=<number>` replays a run. Without it, [`Seed::from_env`] draws a new seed, and a failing
//! test prints the seed that it used; a test that goes through [`seeds`] tries many. `FLUXMAP_SCALE=<number>`
//! multiplies the runs of a randomized test, for a soak test.
//!
//! The variable reaches every test of the command, so name the test that is to replay, such as
//! `no_job_is_lost` in `tests/jobs.rs`:
//!
//! ```console
//! $ FLUXMAP_SEED=17 cargo test --test jobs no_job_is_lost -- --exact --nocapture
//! ```

use std::fmt::{self, Display};
use std::ops::{Bound, RangeInclusive};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::op::Scan;

/// The environment variable that fixes the seed.
pub const SEED_VARIABLE: &str = "FLUXMAP_SEED";

/// The environment variable that multiplies the number of runs.
pub const SCALE_VARIABLE: &str = "FLUXMAP_SCALE";

/// The number of runs that a test makes: `runs`, multiplied by [`SCALE_VARIABLE`] if it is set. At most
/// `u64::MAX`.
///
/// # Panics
/// If the variable is set but not to a number.
#[must_use]
pub fn scaled(runs: u64) -> u64 {
    let scale = std::env::var(SCALE_VARIABLE);
    let scale: u64 = scale.map_or(1, |text| text.trim().parse().expect("the scale is a number"));
    runs.saturating_mul(scale)
}

/// The seeds that a test tries: only the one from [`SEED_VARIABLE`] if it is set, or else the numbers from
/// zero to [`scaled`]`(count)`.
///
/// A check that needs many runs, such as "some run has crashed", fails when one seed is replayed. Leave
/// it out if [`Seed::asked`] returns a seed.
///
/// ```
/// use fluxmap_testkit::workload::{Seed, seeds};
///
/// let mut odd = 0;
/// for seed in seeds(20) {
///     odd += seed % 2;
/// }
/// assert!(odd >= 10 || Seed::asked().is_some());
/// ```
///
/// # Panics
/// If one of the variables is set but not to a number.
pub fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let asked = Seed::asked();
    let others = if asked.is_some() { 0 } else { scaled(count) };
    asked.map(Seed::number).into_iter().chain(0..others)
}

/// The seed of a run. It is shown as `FLUXMAP_SEED=<number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u64);

impl From<u64> for Seed {
    fn from(number: u64) -> Self {
        Seed(number)
    }
}

impl Seed {
    /// The seed from [`SEED_VARIABLE`]; `None` if the variable is not set.
    ///
    /// # Panics
    /// If the variable is set but not to a number.
    #[must_use]
    pub fn asked() -> Option<Self> {
        let text = std::env::var(SEED_VARIABLE).ok()?;
        Some(Seed(text.trim().parse().expect("the seed is a number")))
    }

    /// The seed from [`SEED_VARIABLE`], or a new one.
    ///
    /// # Panics
    /// If the variable is set but not to a number.
    #[must_use]
    pub fn from_env() -> Self {
        Self::asked().unwrap_or_else(|| Seed(rand::random()))
    }

    /// The number of the seed, for [`Simulation::new`](crate::simulation::Simulation::new) for instance.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// The random generator for the `run`-th run with this seed.
    #[must_use]
    pub fn rng(self, run: u64) -> StdRng {
        // Multiply the seed, so that neighbouring seeds share no run.
        StdRng::seed_from_u64(self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(run))
    }
}

impl Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SEED_VARIABLE}={}", self.0)
    }
}

/// One step of a scripted transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look a key up.
    Get(u64),
    /// Scan.
    Scan(Scan<u64>),
    /// Write a value that no other step of the plan writes.
    Put(u64, u64),
    /// Delete a key and read its old value.
    Remove(u64),
    /// Let another thread run.
    Yield,
}

/// The parameters from which a plan is drawn.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The number of threads.
    pub threads: RangeInclusive<usize>,
    /// The number of transactions that each thread runs.
    pub transactions: usize,
    /// The number of steps of a transaction.
    pub steps: RangeInclusive<usize>,
    /// Keys are drawn from `0..keys`.
    pub keys: u64,
    /// The share of scans among the reads, in percent.
    pub scans: u32,
    /// Whether the threads begin each of their transactions together. Then all transactions of a
    /// round are certain to overlap.
    pub lockstep: bool,
}

/// The transactions that each thread runs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The content before the threads start.
    pub preload: Vec<(u64, u64)>,
    /// The transactions by thread. Each is a list of steps.
    pub threads: Vec<Vec<Vec<Step>>>,
    /// See [`Shape::lockstep`].
    pub lockstep: bool,
}

/// Draws a plan. About a fifth of its transactions only read.
pub fn plan(shape: &Shape, rng: &mut StdRng) -> Plan {
    let mut next_value = 1000;
    let mut fresh = || {
        next_value += 1;
        next_value
    };
    // About half of the keys exist at first, so that misses are as common as hits.
    let preload = (0..shape.keys).filter(|_| rng.random_bool(0.5)).map(|key| (key, key)).collect();
    let threads = rng.random_range(shape.threads.clone());
    let threads = (0..threads)
        .map(|_| (0..shape.transactions).map(|_| script(shape, rng, &mut fresh)).collect())
        .collect();
    Plan { preload, threads, lockstep: shape.lockstep }
}

/// A plan that provokes write skew: every transaction reads all keys and then writes one, and all
/// transactions of a round overlap. With `scanning`, a single scan reads all keys.
pub fn skew(threads: usize, rounds: usize, scanning: bool) -> Plan {
    let keys = threads as u64;
    let mut next_value = 1000;
    let threads = (0..keys)
        .map(|own| {
            (0..rounds)
                .map(|_| {
                    next_value += 1;
                    let mut steps: Vec<Step> = if scanning {
                        vec![Step::Scan(Scan::all())]
                    } else {
                        (0..keys).map(Step::Get).collect()
                    };
                    steps.push(Step::Yield);
                    steps.push(Step::Put(own, next_value));
                    steps
                })
                .collect()
        })
        .collect();
    Plan { preload: Vec::new(), threads, lockstep: true }
}

fn script(shape: &Shape, rng: &mut StdRng, fresh: &mut impl FnMut() -> u64) -> Vec<Step> {
    let read_only = rng.random_bool(0.2);
    let mut steps = Vec::new();
    for _ in 0..rng.random_range(shape.steps.clone()) {
        let key = rng.random_range(0..shape.keys);
        let writes = !read_only && rng.random_bool(0.45);
        steps.push(match (writes, rng.random_range(0..100u32)) {
            (true, 0..70) => Step::Put(key, fresh()),
            (true, _) => Step::Remove(key),
            (false, dice) if dice < shape.scans => Step::Scan(scan(shape.keys, rng)),
            (false, _) => Step::Get(key),
        });
        if rng.random_bool(0.4) {
            steps.push(Step::Yield);
        }
    }
    steps
}

fn scan(keys: u64, rng: &mut StdRng) -> Scan<u64> {
    let end = |rng: &mut StdRng| match rng.random_range(0..4u32) {
        0 | 1 => Bound::Unbounded,
        2 => Bound::Included(rng.random_range(0..keys)),
        _ => Bound::Excluded(rng.random_range(0..keys)),
    };
    Scan {
        lower: end(rng),
        upper: end(rng),
        reverse: rng.random_bool(0.4),
        limit: rng.random_bool(0.5).then(|| rng.random_range(0..=3)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn shape() -> Shape {
        Shape { threads: 2..=8, transactions: 5, steps: 1..=5, keys: 4, scans: 40, lockstep: false }
    }

    #[test]
    fn a_seed_gives_the_same_plan_again_and_another_seed_another() {
        let drawn = |seed: u64| plan(&shape(), &mut Seed(seed).rng(3)).threads;
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
    }

    #[test]
    fn a_seed_is_shown_as_the_variable_that_replays_it() {
        let seed = Seed::from(17);
        assert_eq!((seed.number(), seed.to_string()), (17, "FLUXMAP_SEED=17".to_owned()));
    }

    #[test]
    fn every_written_value_is_unique() {
        let mut seen = HashSet::new();
        for thread in plan(&shape(), &mut Seed(5).rng(0)).threads {
            for step in thread.into_iter().flatten() {
                if let Step::Put(_, value) = step {
                    assert!(seen.insert(value), "{value} is written twice");
                }
            }
        }
        assert!(seen.len() > 5);
    }
}
