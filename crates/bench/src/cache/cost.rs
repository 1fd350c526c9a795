//! What a memory limit costs: a get that hits, an insert that evicts.

use super::{NO_END, POLICIES, database, gets, inserts, is_wanted};
use crate::output::{Record, median, print};
use fluxmap::mem::EvictionPolicy;
use fluxmap::{Database, FluxError};
use futures::executor::block_on;
use std::ops::Range;

/// Compares the processor time of operations with a memory limit and without.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Keys of 8 bytes that a database holds, with values of 100.
    #[arg(long, value_delimiter = ',', default_value = "1000,100000,1000000")]
    pub(crate) keys: Vec<usize>,
    /// Threads that get.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    pub(crate) threads: Vec<usize>,
    /// How many times each case runs, in turn with what it is compared with.
    #[arg(long, default_value_t = 9)]
    pub(crate) rounds: usize,
    /// Gets per round; inserts are a fifth as many.
    #[arg(long, default_value_t = 500_000)]
    pub(crate) gets: usize,
    /// Only these policies.
    #[arg(long, value_delimiter = ',')]
    policies: Vec<String>,
    /// Only one half of it.
    #[arg(long)]
    only: Option<Half>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Half {
    Gets,
    Inserts,
}

impl Options {
    /// The policies that are asked for.
    pub(crate) fn policies(&self) -> impl Iterator<Item = (&'static str, EvictionPolicy)> {
        POLICIES.into_iter().filter(|(name, _)| is_wanted(&self.policies, name))
    }
}

/// Runs it.
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

/// The keys in the order in which they come in: scattered, each once.
pub(crate) fn key(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

pub(crate) fn value() -> Vec<u8> {
    vec![7; 100]
}

/// Inserts these keys, as far as a database takes them that evicts nothing.
pub(crate) fn insert(db: &Db, numbers: Range<u64>) {
    for number in numbers {
        match block_on(db.insert(key(number), value())) {
            Err(FluxError::MemoryLimitExceeded) => break,
            result => result.expect("it has room"),
        }
    }
}

/// Removes these keys and what is left of them.
pub(crate) fn remove(db: &Db, numbers: Range<u64>) {
    for number in numbers {
        block_on(db.remove(&key(number))).expect("a blind write");
    }
    block_on(db.vacuum()).expect("in memory");
}

/// A database of so many keys, without a limit or far below it. Some were there before them
/// and have gone, as in one [at its limit](at_limit).
pub(crate) fn below_limit(policy: Option<EvictionPolicy>, keys: u64) -> Db {
    let db = database(policy.map(|policy| (policy, NO_END)));
    let more = step(keys) as u64;
    insert(&db, 0..keys + more);
    remove(&db, 0..more);
    db
}

/// A database that has room for what is in the one given, and that has evicted some.
pub(crate) fn at_limit(policy: EvictionPolicy, keys: u64, below: &Db) -> Db {
    let info = below.memory_info();
    let db = database(Some((policy, info.live_bytes + info.index_bytes)));
    // Twice as many more, for what the policy remembers of those that have gone takes room too.
    insert(&db, 0..keys + 2 * step(keys) as u64);
    let is_full = policy == EvictionPolicy::Manual || db.memory_info().evictions.capacity > 0;
    assert!(is_full, "{policy:?} has not reached its limit");
    db
}

/// By how much a database is outgrown for a moment: a tenth.
pub(crate) fn step(keys: u64) -> usize {
    (keys / 10).max(1) as usize
}

/// How many times as much as another this took, round by round: median, least and most.
pub(crate) fn ratio(numbers: &[f64], others: &[f64]) -> String {
    spread(&numbers.iter().zip(others).map(|(one, other)| one / other).collect::<Vec<_>>(), 2)
}

/// Median, least and most.
pub(crate) fn spread(numbers: &[f64], digits: usize) -> String {
    let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let most = numbers.iter().copied().fold(0.0, f64::max);
    format!("{:.digits$} ({least:.digits$}..{most:.digits$})", median(numbers))
}
