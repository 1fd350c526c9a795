//! Keys, and the random order in which they are used.

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Zipf};

/// The length of a key in bytes.
const LENGTH: usize = 20;

/// The key with this number: `user` and 16 digits. The digits are scattered, so that the order of keys
/// is neither that of their numbers nor that of their insertion.
pub(crate) fn key(number: u64) -> String {
    // The finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014), which is a bijection.
    let mut scattered = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    scattered = (scattered ^ scattered >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    scattered = (scattered ^ scattered >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    scattered ^= scattered >> 31;
    numbered("user", 16, scattered % 10_u64.pow(16), "")
}

/// Concatenates a name, a number with `digits` digits (at most 16), and a suffix. `format!` does the
/// same, but takes as long as a get of some stores.
pub(crate) fn numbered(name: &str, digits: usize, mut number: u64, behind: &str) -> String {
    let mut decimal = [b'0'; 16];
    for digit in decimal.iter_mut().rev().take(digits) {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    assert_eq!(number, 0, "the number has more than {digits} digits");
    let decimal = str::from_utf8(&decimal[decimal.len() - digits..]).expect("digits are text");
    [name, decimal, behind].concat()
}

/// All keys of a run, side by side in memory, so that choosing a key costs the same for all stores.
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

/// The distribution by which keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Uniform,
    /// Zipf with exponent 0.99, as in YCSB. The popularity of a key does not depend on its place in the
    /// order of keys.
    Zipf,
}

/// Random numbers that are drawn beforehand, so that drawing takes almost no time in the measured loop.
pub(crate) struct Draws {
    numbers: Vec<u32>,
    next: usize,
}

/// The least number of draws. There are at least two for each key.
const DRAWS: usize = 1 << 19;

impl Draws {
    pub(crate) fn new(choice: Choice, below: usize, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let draws = DRAWS.max(2 * below);
        let numbers = match choice {
            Choice::Uniform => (0..draws).map(|_| random.random_range(0..below as u32)).collect(),
            Choice::Zipf => {
                let zipf = Zipf::new(below as f64, 0.99).expect("there are keys");
                // Ranks begin at one. Keys are scattered, so a key's number can serve as its rank.
                (0..draws).map(|_| zipf.sample(&mut random) as u32 - 1).collect()
            }
        };
        Draws { numbers, next: 0 }
    }

    /// The next number. After the last, the sequence begins anew.
    pub(crate) fn next(&mut self) -> usize {
        let number = self.numbers[self.next];
        self.next = (self.next + 1) % self.numbers.len();
        number as usize
    }
}

/// All numbers below `count`, in random order.
pub(crate) fn shuffled(count: usize) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count as u32).collect();
    numbers.shuffle(&mut SmallRng::seed_from_u64(1));
    numbers
}
