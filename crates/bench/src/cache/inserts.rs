//! Inserts that evict, compared with inserts that do not, and with caches of the same capacity.

use super::cost::{Db, Options, at_limit, below_limit, insert, key, ratio, remove, spread, step, value};
use crate::output::{bar, cpu_time, table};
use comfy_table::Table;
use fluxmap::mem::EvictionPolicy;
use serde::Serialize;
use std::ops::Range;
use std::sync::Arc;

/// Nanoseconds of processor time per insert of a new key, one figure per round.
#[derive(Serialize)]
pub(crate) struct Series {
    keys: usize,
    policy: &'static str,
    /// The number of keys that the database at its limit held at the end.
    kept: u64,
    no_limit: Vec<f64>,
    below_limit: Vec<f64>,
    at_limit: Vec<f64>,
    moka: Vec<f64>,
    quick_cache: Vec<f64>,
}

/// A store that takes new keys.
trait Target {
    /// Inserts the keys with these numbers. Only this is measured.
    fn insert(&self, numbers: Range<u64>);

    /// Removes as many keys as were inserted, unless the store evicts by itself.
    fn shrink(&self, _oldest: Range<u64>) {}
}

struct Growing(Db);

impl Target for Growing {
    fn insert(&self, numbers: Range<u64>) {
        insert(&self.0, numbers);
    }

    fn shrink(&self, oldest: Range<u64>) {
        remove(&self.0, oldest);
    }
}

struct Bounded(Arc<Db>);

impl Target for Bounded {
    fn insert(&self, numbers: Range<u64>) {
        insert(&self.0, numbers);
    }
}

struct Moka(moka::sync::Cache<u64, Arc<Vec<u8>>>);

impl Target for Moka {
    fn insert(&self, numbers: Range<u64>) {
        numbers.for_each(|number| self.0.insert(key(number), Arc::new(value())));
        self.0.run_pending_tasks();
    }
}

struct QuickCache(quick_cache::sync::Cache<u64, Arc<Vec<u8>>>);

impl Target for QuickCache {
    fn insert(&self, numbers: Range<u64>) {
        numbers.for_each(|number| self.0.insert(key(number), Arc::new(value())));
    }
}

/// Inserts `operations` keys from number `next` on, and advances `next`. Returns nanoseconds of processor
/// time per insert. The store has `keys` keys at the end, as at the beginning.
fn inserts(target: &dyn Target, next: &mut u64, keys: u64, operations: usize) -> f64 {
    let mut taken = 0;
    for first in (0..operations).step_by(step(keys)) {
        let count = (operations - first).min(step(keys)) as u64;
        let started = cpu_time();
        target.insert(*next..*next + count);
        taken += (cpu_time() - started).as_nanos();
        target.shrink(*next - keys..*next - keys + count);
        *next += count;
    }
    taken as f64 / operations as f64
}

/// Measures all cases.
pub(crate) fn measure(options: &Options) -> Vec<Series> {
    let policies: Vec<_> =
        options.policies().filter(|(_, policy)| *policy != EvictionPolicy::Manual).collect();
    let bar = bar(options.keys.len() * policies.len() * options.rounds);
    let mut all = Vec::new();
    for &keys in &options.keys {
        for &(name, policy) in &policies {
            bar.set_message(format!("inserts, {keys} keys, {name}"));
            let count = keys as u64;
            let below = below_limit(Some(policy), count);
            let limited = Arc::new(at_limit(policy, count, &below));
            let targets: [Box<dyn Target>; 5] = [
                Box::new(Growing(below_limit(None, count))),
                Box::new(Growing(below)),
                Box::new(Bounded(Arc::clone(&limited))),
                Box::new(Moka(moka::sync::Cache::new(count))),
                Box::new(QuickCache(quick_cache::sync::Cache::new(keys))),
            ];
            // Fill the stores that evict by themselves, so that they are in their steady state.
            targets[2..].iter().for_each(|cache| cache.insert(2 * count..4 * count));
            let grown = count + step(count) as u64;
            let mut next = [grown, grown, 4 * count, 4 * count, 4 * count];
            let mut taken: [Vec<f64>; 5] = Default::default();
            for round in 0..options.rounds {
                for turn in 0..targets.len() {
                    // Rotate the order, so that each store is first in some rounds.
                    let at = (turn + round) % targets.len();
                    taken[at].push(inserts(&*targets[at], &mut next[at], count, options.gets / 5));
                }
                bar.inc(1);
            }
            let [no_limit, below_limit, at_limit, moka, quick_cache] = taken;
            let kept = limited.memory_info().keys;
            all.push(Series { keys, policy: name, kept, no_limit, below_limit, at_limit, moka, quick_cache });
        }
    }
    bar.finish_and_clear();
    all
}

/// The table of times and ratios for `keys` keys.
pub(crate) fn table_of(all: &[Series], keys: usize) -> Table {
    let header = [
        &*format!("{keys} keys: CPU ns of an insert"),
        "no limit",
        "below the limit",
        "evicts",
        "evicts / below",
        "evicts / no limit",
        "keys kept",
        "moka",
        "moka / evicts",
        "quick_cache",
        "quick_cache / evicts",
    ];
    let rows = all.iter().filter(|row| row.keys == keys).map(|row| {
        vec![
            row.policy.to_string(),
            spread(&row.no_limit, 0),
            spread(&row.below_limit, 0),
            spread(&row.at_limit, 0),
            ratio(&row.at_limit, &row.below_limit),
            ratio(&row.at_limit, &row.no_limit),
            row.kept.to_string(),
            spread(&row.moka, 0),
            ratio(&row.moka, &row.at_limit),
            spread(&row.quick_cache, 0),
            ratio(&row.quick_cache, &row.at_limit),
        ]
    });
    table(header, rows.collect())
}
