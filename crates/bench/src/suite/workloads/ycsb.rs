//! Loads, gets, scans, and the workloads of YCSB (Cooper and others, "Benchmarking Cloud Serving Systems
//! with YCSB", SoCC 2010). Workload C of YCSB is the get by Zipf.

use super::super::keys::{Choice, Draws, Keys, key, shuffled};
use super::Bench;
use crate::stores::{Ability, Store, value};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The number of pairs in a scan.
const SCAN: usize = 100;

pub(super) fn run(bench: &Bench<'_>) -> Result<(), String> {
    let (store, seed) = (bench.store, bench.seed);
    let keys = &Keys::new(bench.keys);
    let draws = |choice, thread: usize| Draws::new(choice, keys.len(), bench.seed(thread));
    load(bench, keys);

    for (workload, choice) in [("get, uniform", Choice::Uniform), ("get, Zipf (YCSB C)", Choice::Zipf)] {
        let misses = &AtomicU64::new(0);
        bench.measure(workload, |thread| {
            let mut draws = draws(choice, thread);
            Box::new(move || {
                if store.get(keys.get(draws.next())).is_none() {
                    misses.fetch_add(1, Ordering::Relaxed);
                }
                Some(0)
            })
        });
        if misses.load(Ordering::Relaxed) > 0 {
            return Err("gets found nothing".to_string());
        }
    }
    if store.can(Ability::Scan) {
        let short = &AtomicU64::new(0);
        bench.measure("scan of 100", |thread| {
            let mut draws = draws(Choice::Uniform, thread);
            Box::new(move || {
                let pairs = scan(store, keys.get(draws.next()), SCAN);
                // A scan near the last key finds fewer than 100 pairs, but at least one.
                short.fetch_add(u64::from(pairs == 0), Ordering::Relaxed);
                Some(0)
            })
        });
        if short.load(Ordering::Relaxed) > 0 {
            return Err("scans found nothing".to_string());
        }
    }
    bench.measure("update, uniform", |thread| {
        let mut draws = draws(Choice::Uniform, thread);
        Box::new(move || {
            store.put(keys.get(draws.next()), value(1));
            Some(0)
        })
    });
    for (workload, reads) in [("YCSB B: 95 % gets, 5 % updates", 95), ("YCSB A: half gets, half updates", 50)]
    {
        bench.measure(workload, |thread| {
            let mut draws = draws(Choice::Zipf, thread);
            let mut random = SmallRng::seed_from_u64(seed + thread as u64);
            Box::new(move || {
                let key = keys.get(draws.next());
                match random.random_range(0..100) < reads {
                    true => drop(store.get(key)),
                    false => store.put(key, value(1)),
                }
                Some(0)
            })
        });
    }
    if store.can(Ability::Transact) {
        read_modify_write(bench, keys)?;
    }
    insert(bench, keys);
    Ok(())
}

/// Loads all keys, in random order.
fn load(bench: &Bench<'_>, keys: &Keys) {
    let (store, threads) = (bench.store, bench.threads);
    let order = &shuffled(keys.len());
    bench.measure_for("load", None, threads, |thread| {
        let mut own = order.iter().skip(thread).step_by(threads);
        Box::new(move || {
            store.put(keys.get(*own.next()? as usize), value(0));
            Some(0)
        })
    });
}

fn scan(store: &dyn Store, from: &str, limit: usize) -> usize {
    let mut pairs = 0;
    store.scan(from, limit, &mut |_, _| pairs += 1);
    pairs
}

/// YCSB F: half gets, half transactions that add one to the number that they read. No addition may be
/// lost.
fn read_modify_write(bench: &Bench<'_>, keys: &Keys) -> Result<(), String> {
    let (store, seed) = (bench.store, bench.seed);
    let total = || -> i64 { (0..keys.len()).filter_map(|key| store.get(keys.get(key))).sum() };
    let (before, added) = (total(), &AtomicU64::new(0));
    bench.measure("YCSB F: half gets, half read-modify-writes", |thread| {
        let mut draws = Draws::new(Choice::Zipf, keys.len(), bench.seed(thread));
        let mut random = SmallRng::seed_from_u64(seed + thread as u64);
        Box::new(move || {
            let key = keys.get(draws.next());
            if random.random() {
                store.get(key);
                return Some(0);
            }
            added.fetch_add(1, Ordering::Relaxed);
            Some(store.transact(&mut |tx| {
                let number = tx.get(key)?.unwrap_or(0);
                tx.put(key, value(number + 1))
            }))
        })
    });
    let (after, expected) = (total(), before + added.load(Ordering::Relaxed) as i64);
    if after == expected { Ok(()) } else { Err(format!("{} updates are lost", expected - after)) }
}

/// YCSB D and E: with 5 % inserts. D gets new keys, E scans up to 100 pairs.
fn insert(bench: &Bench<'_>, keys: &Keys) {
    let (store, seed) = (bench.store, bench.seed);
    let next = &AtomicUsize::new(keys.len());
    let put_next = || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        store.put(&key(number as u64), value(0));
    };
    bench.measure("YCSB D: gets of what is new, 5 % inserts", |thread| {
        let mut ages = Draws::new(Choice::Zipf, keys.len(), bench.seed(thread));
        let mut random = SmallRng::seed_from_u64(seed + thread as u64);
        Box::new(move || {
            match random.random_range(0..100) < 5 {
                true => put_next(),
                // The newest key may not have been inserted yet, so do not check the result.
                false => drop(store.get(&key((next.load(Ordering::Relaxed) - 1 - ages.next()) as u64))),
            }
            Some(0)
        })
    });
    if store.can(Ability::Scan) {
        bench.measure("YCSB E: scans of up to 100, 5 % inserts", |thread| {
            let mut draws = Draws::new(Choice::Zipf, keys.len(), bench.seed(thread));
            let mut random = SmallRng::seed_from_u64(seed + thread as u64);
            Box::new(move || {
                match random.random_range(0..100) < 5 {
                    true => put_next(),
                    false => drop(scan(store, keys.get(draws.next()), random.random_range(1..=SCAN))),
                }
                Some(0)
            })
        });
    }
}
