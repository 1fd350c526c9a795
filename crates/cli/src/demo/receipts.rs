//! The books of the crash test: accounts, and a receipt for every transfer.
//!
//! A transfer writes two accounts and a receipt in one transaction, so the receipts in the database must
//! give exactly the balances in the database. A task makes one transfer after the other, so its receipts
//! must be numbered without gaps.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use fluxmap::Database;
use fluxmap::persistence::RecoveryInfo;

use crate::durability::DurabilityArgs;

/// The balance of a new account.
pub(super) const INITIAL_BALANCE: u64 = 1_000;

/// The first key of a receipt. Lower keys are accounts.
const RECEIPTS: u64 = 1 << 63;
const TASK_SHIFT: u32 = 40;
const NUMBER_MASK: u64 = (1 << TASK_SHIFT) - 1;

/// The most accounts that a bank may have, so that the numbers of two fit into a receipt.
pub(super) const MAX_ACCOUNTS: u64 = 1 << 24;

/// A database of balances by account number and encoded [`Transfer`]s by receipt key.
pub(super) type Books = Database<u64, u64>;

/// A transfer, as its receipt encodes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) amount: u64,
}

impl Transfer {
    pub(super) fn to_value(self) -> u64 {
        self.from << 40 | self.to << 16 | self.amount
    }

    fn from_value(value: u64) -> Self {
        Self { from: value >> 40, to: value >> 16 & (MAX_ACCOUNTS - 1), amount: value & 0xffff }
    }
}

/// The key of a task's receipt; `number` counts from one.
pub(super) fn receipt(task: u32, number: u64) -> u64 {
    RECEIPTS | u64::from(task) << TASK_SHIFT | number
}

/// The number of the last receipt of each task.
pub(super) type Counts = BTreeMap<u32, u64>;

/// Opens the books in `dir`, with at least `accounts` accounts.
pub(super) async fn open(dir: &Path, accounts: u64, durability: &DurabilityArgs) -> anyhow::Result<Books> {
    let builder = durability.configure(Database::builder(), dir).type_names("AccountOrReceipt", "u64");
    let books = builder.build().await.with_context(|| format!("cannot open {}", dir.display()))?;
    let existing = books.snapshot().range(..RECEIPTS).next_back().map_or(0, |(account, _)| account + 1);
    if existing < accounts {
        let opening = books.begin();
        for account in existing..accounts {
            opening.insert(account, INITIAL_BALANCE)?;
        }
        opening.commit().await.context("cannot open the accounts")?;
    }
    Ok(books)
}

/// The number of the last receipt of `task`; 0 if there is none.
pub(super) fn last_number(books: &Books, task: u32) -> u64 {
    let all = receipt(task, 0)..=receipt(task, NUMBER_MASK);
    books.snapshot().range(all).next_back().map_or(0, |(key, _)| key & NUMBER_MASK)
}

/// The number of accounts.
pub(super) fn accounts(books: &Books) -> u64 {
    books.snapshot().range(..RECEIPTS).next_back().map_or(0, |(account, _)| account + 1)
}

/// The result of an audit of the books.
#[derive(Debug)]
pub(super) struct BooksAudit {
    /// The number of the last receipt of each task.
    pub(super) receipts: Counts,
    /// The money in all accounts.
    pub(super) sum: u64,
    /// The sum that the accounts must have.
    pub(super) expected: u64,
    /// Accounts whose balance differs from the one that the receipts give, plus missing receipts.
    pub(super) wrong: u64,
}

/// Adds up all accounts, and compares them with the receipts.
pub(super) fn audit(books: &Books) -> anyhow::Result<BooksAudit> {
    let view = books.snapshot();
    let mut balances = Vec::new();
    for (account, balance) in view.range(..RECEIPTS) {
        if account != balances.len() as u64 {
            bail!("account {} is missing", balances.len());
        }
        balances.push(i128::from(*balance));
    }
    let sum = balances.iter().sum::<i128>() as u64;
    let expected = balances.len() as u64 * INITIAL_BALANCE;
    let (mut receipts, mut wrong) = (Counts::new(), 0);
    for (key, value) in view.range(RECEIPTS..) {
        let task = ((key & !RECEIPTS) >> TASK_SHIFT) as u32;
        let last = receipts.entry(task).or_insert(0);
        let number = key & NUMBER_MASK;
        // Receipts come in the order of their numbers: a gap between two counts the missing ones.
        wrong += number - *last - 1;
        *last = number;
        // Undo the transfer. After all receipts are undone, every account must have its initial balance.
        let Transfer { from, to, amount } = Transfer::from_value(*value);
        for (account, change) in [(from, i128::from(amount)), (to, -i128::from(amount))] {
            *balances.get_mut(account as usize).context("a receipt names no account")? += change;
        }
    }
    wrong += balances.iter().filter(|balance| **balance != i128::from(INITIAL_BALANCE)).count() as u64;
    Ok(BooksAudit { receipts, sum, expected, wrong })
}

/// The report on the recovery when the books were opened.
pub(super) fn recovery(books: &Books) -> RecoveryInfo {
    books.recovery_info().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_says_what_was_transferred() {
        let transfer = Transfer { from: MAX_ACCOUNTS - 1, to: 7, amount: 250 };
        assert_eq!(Transfer::from_value(transfer.to_value()), transfer);
    }

    #[tokio::test]
    async fn an_audit_notices_half_a_transfer_and_a_missing_receipt() {
        let books = Books::builder().build().await.unwrap();
        for account in 0..3 {
            books.insert(account, INITIAL_BALANCE).await.unwrap();
        }
        let transfer = |from, to, number| {
            let books = books.clone();
            async move {
                let tx = books.begin();
                tx.update(&from, |balance| balance - 10).unwrap();
                tx.update(&to, |balance| balance + 10).unwrap();
                let value = Transfer { from, to, amount: 10 }.to_value();
                tx.insert(receipt(1, number), value).unwrap();
                tx.commit().await.unwrap();
            }
        };
        transfer(0, 1, 1).await;
        transfer(1, 2, 2).await;
        transfer(2, 0, 3).await;
        let sound = audit(&books).unwrap();
        assert_eq!((sound.wrong, sound.sum, sound.expected), (0, 3_000, 3_000));
        assert_eq!((sound.receipts, last_number(&books, 1)), (Counts::from([(1, 3)]), 3));

        books.insert(2, 999).await.unwrap();
        let half = audit(&books).unwrap();
        assert_eq!((half.wrong, half.sum), (1, 2_999));
        books.insert(2, 1_000).await.unwrap();
        books.remove(&receipt(1, 2)).await.unwrap();
        assert_eq!(audit(&books).unwrap().wrong, 3, "a gap, and two balances");
    }
}
