//! Transfers between accounts: two reads, two writes.

use super::super::keys::numbered;
use super::{Bench, sum};
use crate::stores::{Conflict, Store, Transaction, value};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// The balance of a new account.
pub(super) const BALANCE: i64 = 1000;

pub(super) fn account(number: usize) -> String {
    numbered("user", 16, number as u64, "")
}

/// Opens the accounts.
pub(super) fn open(store: &dyn Store, accounts: usize) {
    for number in 0..accounts {
        store.put(&account(number), value(BALANCE));
    }
}

/// Moves an amount between two accounts. Returns how often the transaction lost a conflict.
pub(super) fn transfer(store: &dyn Store, accounts: usize, random: &mut SmallRng) -> u64 {
    let from = random.random_range(0..accounts);
    let to = (from + random.random_range(1..accounts)) % accounts;
    let (from, to, amount) = (account(from), account(to), random.random_range(1..10));
    store.transact(&mut |tx| move_amount(tx, &from, &to, amount))
}

fn move_amount(tx: &mut dyn Transaction, from: &str, to: &str, amount: i64) -> Result<(), Conflict> {
    let [left, right] = tx.get_both([from, to])?.map(|balance| balance.expect("it is there"));
    tx.put(from, value(left - amount))?;
    tx.put(to, value(right + amount))
}

/// Checks that no money was made or lost.
pub(super) fn check(store: &dyn Store, accounts: usize) -> Result<(), String> {
    let total = sum(store, (0..accounts).map(account))?;
    let expected = accounts as i64 * BALANCE;
    if total == expected { Ok(()) } else { Err(format!("{total} in the bank instead of {expected}")) }
}

pub(super) fn run(bench: &Bench<'_>, workload: &'static str, accounts: usize) -> Result<(), String> {
    let store = bench.store;
    open(store, accounts);
    bench.measure(workload, |thread| {
        let mut random = SmallRng::seed_from_u64(bench.seed(thread));
        Box::new(move || Some(transfer(store, accounts, &mut random)))
    });
    check(store, accounts)
}
