//! Counting what lives: every [`Tracked`] value has a serial number in a
//! [`Ledger`], which knows how many are alive and whether any was dropped twice.
//!
//! The ledger belongs to one test (no statics), so tests may run side by side and
//! values may be dropped on whatever thread the store chooses.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The book of all [`Tracked`] values that were made under it.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    /// Per serial number, whether the value is still alive.
    alive: Vec<bool>,
    live: usize,
    twice: usize,
}

impl Ledger {
    /// Makes a tracked value.
    pub fn track<T>(&self, value: T) -> Tracked<T> {
        let mut book = self.book();
        book.alive.push(true);
        book.live += 1;
        Tracked { value, serial: book.alive.len() - 1, ledger: self.clone() }
    }

    /// How many values are alive.
    #[must_use]
    pub fn live(&self) -> usize {
        self.book().live
    }

    /// How many were made so far.
    #[must_use]
    pub fn made(&self) -> usize {
        self.book().alive.len()
    }

    /// How many drops hit a value that was dropped before.
    #[must_use]
    pub fn dropped_twice(&self) -> usize {
        self.book().twice
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A value that is entered in a [`Ledger`] while it lives. A clone is a new entry.
#[derive(Debug)]
pub struct Tracked<T> {
    /// The value.
    pub value: T,
    serial: usize,
    ledger: Ledger,
}

impl<T: Clone> Clone for Tracked<T> {
    fn clone(&self) -> Self {
        self.ledger.track(self.value.clone())
    }
}

impl<T> Drop for Tracked<T> {
    fn drop(&mut self) {
        let mut book = self.ledger.book();
        if std::mem::replace(&mut book.alive[self.serial], false) {
            book.live -= 1;
        } else {
            book.twice += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_counted_from_birth_to_drop() {
        let ledger = Ledger::default();
        let first = ledger.track(1);
        let second = first.clone();
        assert_eq!((ledger.live(), ledger.made()), (2, 2));
        drop(first);
        assert_eq!((ledger.live(), ledger.made()), (1, 2));
        drop(second);
        assert_eq!((ledger.live(), ledger.dropped_twice()), (0, 0));
    }
}
