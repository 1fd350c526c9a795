//! Counts of live values. Every [`Tracked`] value has a serial number in a [`Ledger`], which knows how
//! many values are alive and whether any was dropped twice.
//!
//! Each test makes its own ledger instead of a static one, so tests may run in parallel. Values may be
//! dropped on any thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The record of all [`Tracked`] values that it has made.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    /// Whether the value is still alive, by serial number.
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

    /// The number of live values.
    #[must_use]
    pub fn live(&self) -> usize {
        self.book().live
    }

    /// The number of values made so far.
    #[must_use]
    pub fn made(&self) -> usize {
        self.book().alive.len()
    }

    /// The number of drops of values that had been dropped before.
    #[must_use]
    pub fn dropped_twice(&self) -> usize {
        self.book().twice
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A value that a [`Ledger`] counts while it is alive. A clone counts as another value.
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
