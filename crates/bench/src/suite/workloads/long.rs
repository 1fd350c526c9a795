//! Long transactions that run beside short ones.

use super::super::drive::{Worker, drive};
use super::bank::{self, BALANCE, account};
use super::{Bench, sum};
use crate::stores::value;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

const ACCOUNTS: usize = 100_000;
/// The number of accounts that a long writer reads.
const READS: usize = 10_000;

/// One thread scans everything; the others make transfers.
pub(super) fn read(bench: &Bench<'_>) -> Result<(), String> {
    let store = bench.store;
    bank::open(store, ACCOUNTS);
    let torn = AtomicU64::new(0);
    let reader = Worker {
        series: "long reader: scans of 100,000",
        step: Box::new(|| {
            let (mut total, mut count) = (0, 0);
            store.scan("", usize::MAX, &mut |_, balance| {
                total += balance;
                count += 1;
            });
            if (total, count) != (ACCOUNTS as i64 * BALANCE, ACCOUNTS) {
                torn.fetch_add(1, Ordering::Relaxed);
            }
            Some(0)
        }),
    };
    let mut workers = vec![reader];
    for thread in 1..bench.threads.max(2) {
        let mut random = SmallRng::seed_from_u64(bench.seed(thread));
        let step = Box::new(move || Some(bank::transfer(store, ACCOUNTS, &mut random)));
        workers.push(Worker { series: "long reader: transfers", step });
    }
    // Run for twice the time, so that several of the long scans fit.
    let outcomes = drive(workers, Some(bench.time * 2));
    bench.note_all(&outcomes);
    bank::check(store, ACCOUNTS)?;
    match torn.into_inner() {
        0 => Ok(()),
        torn => Err(format!("{torn} scans saw more than one moment")),
    }
}

/// One thread reads many accounts and writes their sum to a key, in one transaction; the others
/// update single accounts.
pub(super) fn write(bench: &Bench<'_>) -> Result<(), String> {
    let store = bench.store;
    bank::open(store, ACCOUNTS);
    let updates = AtomicI64::new(0);
    let mut random = SmallRng::seed_from_u64(bench.seed(0));
    let writer = Worker {
        series: "long writer: commits",
        step: Box::new(move || {
            let first = random.random_range(0..ACCOUNTS - READS);
            Some(store.transact(&mut |tx| {
                let mut total = 0;
                for number in first..first + READS {
                    total += tx.get(&account(number))?.expect("it is there");
                }
                tx.put("total", value(total))
            }))
        }),
    };
    let mut workers = vec![writer];
    for thread in 1..bench.threads.max(2) {
        let mut random = SmallRng::seed_from_u64(bench.seed(thread));
        let updates = &updates;
        let step = Box::new(move || {
            let key = account(random.random_range(0..ACCOUNTS));
            let lost = store.transact(&mut |tx| {
                let balance = tx.get(&key)?.expect("it is there");
                tx.put(&key, value(balance + 1))
            });
            updates.fetch_add(1, Ordering::Relaxed);
            Some(lost)
        });
        workers.push(Worker { series: "long writer: updates", step });
    }
    let outcomes = drive(workers, Some(bench.time * 2));
    bench.note_all(&outcomes);
    let expected = ACCOUNTS as i64 * BALANCE + updates.into_inner();
    let total = sum(store, (0..ACCOUNTS).map(account))?;
    if total == expected { Ok(()) } else { Err(format!("the accounts hold {total} instead of {expected}")) }
}
