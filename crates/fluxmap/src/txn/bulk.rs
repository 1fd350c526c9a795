//! A transaction's operations on many keys at once.

use crate::error::FluxError;
use crate::key::{Key, KeyRange, Query, Value};
use crate::txn::transaction::Transaction;
use std::borrow::Borrow;
use std::ops::ControlFlow;
use std::sync::Arc;

impl<K: Key, V: Value> Transaction<K, V> {
    /// Returns the values under `keys`, in their order. Counts as a read of each. Takes any number of
    /// keys; for few keys whose number is known when compiling, [`get_many`](Self::get_many) allocates
    /// nothing. Like `get_many`, it is faster in a large database than one [`get`](Self::get) after the
    /// other.
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<u64, u64>::builder().build().await?;
    /// let tx = db.begin();
    /// tx.extend((0..10).map(|n| (n, n * n)))?;
    /// let squares = tx.get_each(&[3, 4, 50])?;
    /// assert!(squares.iter().map(|square| square.as_deref()).eq([Some(&9), Some(&16), None]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn get_each<'q, Q>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
    ) -> Result<Vec<Option<Arc<V>>>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized + 'q,
    {
        self.view().get_each(keys, |key| self.get(key))
    }

    /// Counts the keys: [`count(..)`](Self::count). Counts as a read of all keys.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn len(&self) -> Result<usize, FluxError> {
        self.count(..)
    }

    /// Returns whether there is no key. Counts as a read of everything up to the first key.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn is_empty(&self) -> Result<bool, FluxError> {
        Ok(self.first()?.is_none())
    }

    /// Puts all `pairs`, replacing old values: calls [`insert`](Self::insert) for each.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn extend(&self, pairs: impl IntoIterator<Item = (K, V)>) -> Result<(), FluxError> {
        pairs.into_iter().try_for_each(|(key, value)| self.insert(key, value))
    }

    /// Removes every key of a range, own writes included, and returns how many were removed. Counts as a
    /// read of the whole range. Takes time linear in the number of removed keys.
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, u64>::builder().build().await?;
    /// let tx = db.begin();
    /// tx.extend(["ada", "bob", "cyd"].map(|name| (name.into(), 1)))?;
    /// assert_eq!(tx.remove_range("b"..)?, 2);
    /// assert_eq!(tx.len()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); nothing is then removed.
    pub fn remove_range(&self, range: impl KeyRange<K>) -> Result<usize, FluxError> {
        let mut keys = Vec::new();
        let _ = self.range(range)?.visit(|key, _| {
            keys.push(key.clone());
            ControlFlow::<()>::Continue(())
        })?;
        let removed = keys.len();
        keys.into_iter().for_each(|key| self.set(key, None));
        Ok(removed)
    }

    /// Removes every key, and returns how many were removed: see [`remove_range`](Self::remove_range).
    ///
    /// # Errors
    ///
    /// As [`remove_range`](Self::remove_range).
    pub fn clear(&self) -> Result<usize, FluxError> {
        self.remove_range(..)
    }

    /// Removes the smallest key, and returns it with its value. Counts as a read of everything up to it.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn pop_first(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        self.pop(self.first()?)
    }

    /// Removes the greatest key, and returns it with its value. Counts as a read of everything from it
    /// on.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn pop_last(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        self.pop(self.last()?)
    }

    fn pop(&self, pair: Option<(K, Arc<V>)>) -> Result<Option<(K, Arc<V>)>, FluxError> {
        if let Some((key, _)) = &pair {
            self.set(key.clone(), None);
        }
        Ok(pair)
    }
}
