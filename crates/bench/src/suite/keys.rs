//! Keys, and in which order they are asked for.

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Zipf};

/// The bytes of a key.
const LENGTH: usize = 20;

/// `user` and 16 digits that are scattered over all that there are, so that neither the order of
/// numbers nor that of insertion is the order of keys.
pub(crate) fn key(number: u64) -> String {
    // The finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014): one to one.
    let mut scattered = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    scattered = (scattered ^ scattered >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    scattered = (scattered ^ scattered >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    scattered ^= scattered >> 31;
    numbered("user", 16, scattered % 10_u64.pow(16), "")
}

/// A name, a number of so many digits (at most 16), and what comes behind. Formatting does the
/// same, and would take as long as some stores take for a get.
pub(crate) fn numbered(name: &str, digits: usize, mut number: u64, behind: &str) -> String {
    let mut decimal = [b'0'; 16];
    for digit in decimal.iter_mut().rev().take(digits) {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    assert_eq!(number, 0, "it has more than {digits} digits");
    let decimal = str::from_utf8(&decimal[decimal.len() - digits..]).expect("digits are text");
    [name, decimal, behind].concat()
}

/// All keys of a run, side by side in memory, so that choosing one costs the same everywhere.
pub(crate) struct Keys(String);

impl Keys {
    pub(crate) fn new(count: usize) -> Self {
        Keys((0..count as u64).map(key).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len() / LENGTH
    }

    pub(crate) fn get(&self, number: usize) -> &str {
        &self.0[number * LENGTH..(number + 1) * LENGTH]
    }
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Uniform,
    /// With exponent 0.99, as YCSB has it; which keys are popular has nothing to do with their
    /// order.
    Zipf,
}

/// Numbers drawn beforehand, so that drawing them costs the same next to nothing.
pub(crate) struct Draws {
    numbers: Vec<u32>,
    next: usize,
}

/// At least, and two for each key.
const DRAWS: usize = 1 << 19;

impl Draws {
    pub(crate) fn new(choice: Choice, below: usize, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let draws = DRAWS.max(2 * below);
        let numbers = match choice {
            Choice::Uniform => (0..draws).map(|_| random.random_range(0..below as u32)).collect(),
            Choice::Zipf => {
                let zipf = Zipf::new(below as f64, 0.99).expect("there are keys");
                // Ranks from one on. Keys are scattered, so their numbers can be ranks.
                (0..draws).map(|_| zipf.sample(&mut random) as u32 - 1).collect()
            }
        };
        Draws { numbers, next: 0 }
    }

    /// The next number; they begin anew some time.
    pub(crate) fn next(&mut self) -> usize {
        let number = self.numbers[self.next];
        self.next = (self.next + 1) % self.numbers.len();
        number as usize
    }
}

/// All numbers up to `count`, in random order.
pub(crate) fn shuffled(count: usize) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count as u32).collect();
    numbers.shuffle(&mut SmallRng::seed_from_u64(1));
    numbers
}
