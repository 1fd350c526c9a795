//! The cost of a memory limit: for a get that hits, and for an insert that evicts.

use super::{NO_END, POLICIES, database, gets, inserts, is_wanted};
use crate::output::{Record, median, print};
use fluxmap::mem::EvictionPolicy;
use fluxmap::{Database, FluxError};
use futures::executor::block_on;
use std::ops::Range;

/// Compare the processor time of operations with a memory limit and without.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The number of keys, of 8 bytes, with values of 100.
    #[arg(long, value_delimiter = ',', default_value = "1000,100000,1000000")]
    pub(crate) keys: Vec<usize>,
    /// The number of threads that get.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    pub(crate) threads: Vec<usize>,
    /// How many times each case runs, in turn with the cases that it is compared with.
    #[arg(long, default_value_t = 9)]
    pub(crate) rounds: usize,
    /// Gets per round. There are a fifth as many inserts.
    #[arg(long, default_value_t = 500_000)]
    pub(crate) gets: usize,
    /// Measure these policies only.
    #[arg(long, value_delimiter = ',')]
    policies: Vec<String>,
    /// Measure only gets or only inserts.
    #[arg(long)]
    only: Option<Half>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Half {
    Gets,
    Inserts,
}

impl Options {
    /// The policies to measure.
    pub(crate) fn policies(&self) -> impl Iterator<Item = (&'static str, EvictionPolicy)> {
        POLICIES.into_iter().filter(|(name, _)| is_wanted(&self.policies, name))
    }
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options, json: bool) {
    let gets = (options.only != Some(Half::Inserts)).then(|| gets::measure(options));
    let inserts = (options.only != Some(Half::Gets)).then(|| inserts::measure(options));
    if json {
        return print(Record::new(serde_json::json!({ "gets": gets, "inserts": inserts })).to_json());
    }
    for (at, &keys) in options.keys.iter().enumerate() {
        let gap = if at == 0 { "" } else { "\n" };
        if let Some(gets) = &gets {
            print(format_args!("{gap}{}", gets::table_of(gets, keys, options)));
        }
        if let Some(inserts) = &inserts {
            print(format_args!("\n{}", inserts::table_of(inserts, keys)));
        }
    }
}

/// The database of these benchmarks.
pub(crate) type Db = Database<u64, Vec<u8>>;

/// The key that is inserted as number `number`. Keys are scattered, and each occurs once.
pub(crate) fn key(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

pub(crate) fn value() -> Vec<u8> {
    vec![7; 100]
}

/// Inserts the keys with these numbers. Stops at the limit of a database that evicts nothing.
pub(crate) fn insert(db: &Db, numbers: Range<u64>) {
    for number in numbers {
        match block_on(db.insert(key(number), value())) {
            Err(FluxError::MemoryLimitExceeded) => break,
            result => result.expect("it has room"),
        }
    }
}

/// Removes the keys with these numbers, and vacuums their old versions.
pub(crate) fn remove(db: &Db, numbers: Range<u64>) {
    for number in numbers {
        block_on(db.remove(&key(number))).expect("a blind write");
    }
    block_on(db.vacuum()).expect("in memory");
}

/// A database of `keys` keys, without a limit or far below it. Other keys were there before and have been
/// removed, as other keys have been evicted in a database [at its limit](at_limit).
pub(crate) fn below_limit(policy: Option<EvictionPolicy>, keys: u64) -> Db {
    let db = database(policy.map(|policy| (policy, NO_END)));
    let more = step(keys) as u64;
    insert(&db, 0..keys + more);
    remove(&db, 0..more);
    db
}

/// A database whose limit is the memory of `below`, and that has evicted some keys.
pub(crate) fn at_limit(policy: EvictionPolicy, keys: u64, below: &Db) -> Db {
    let info = below.memory_info();
    let db = database(Some((policy, info.live_bytes + info.index_bytes)));
    // Insert twice as many more keys as below the limit: the policy's memory of evicted keys takes room,
    // too.
    insert(&db, 0..keys + 2 * step(keys) as u64);
    let is_full = policy == EvictionPolicy::Manual || db.memory_info().evictions.capacity > 0;
    assert!(is_full, "{policy:?} has not reached its limit");
    db
}

/// The number of keys, a tenth of all, by which a database outgrows its size for a moment.
pub(crate) fn step(keys: u64) -> usize {
    (keys / 10).max(1) as usize
}

/// The ratio of `numbers` to `others`, round by round: median, least and most.
pub(crate) fn ratio(numbers: &[f64], others: &[f64]) -> String {
    spread(&numbers.iter().zip(others).map(|(one, other)| one / other).collect::<Vec<_>>(), 2)
}

/// The median of some numbers, with the least and the most.
pub(crate) fn spread(numbers: &[f64], digits: usize) -> String {
    let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let most = numbers.iter().copied().fold(0.0, f64::max);
    format!("{:.digits$} ({least:.digits$}..{most:.digits$})", median(numbers))
}
