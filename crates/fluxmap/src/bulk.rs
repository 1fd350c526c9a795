//! The operations of a database on many keys at once, each a transaction of one step.

use crate::db::Database;
use crate::error::FluxError;
use crate::key::{Key, KeyRange, KeySpan, Prefix, Query, Value};
use crate::txn::scan::View;
use crate::txn::snapshot::SnapshotRange;
use crate::txn::write_set::{Put, WriteSet};
use std::borrow::Borrow;
use std::sync::Arc;

impl<K: Key, V: Value> Database<K, V> {
    /// Returns the values under `keys`, in their order, all read at one moment. Takes any number of
    /// keys, by reference, in any one borrowed form: `get_each(&keys)`, `get_each(&[1, 2])`,
    /// `get_each(["ada", "bob"])`. See [`get_many`](Self::get_many) for a few keys whose number is known
    /// when compiling.
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, u64>::builder().build().await?;
    /// db.extend((0..100).map(|n| (n.to_string(), n))).await?;
    /// let wanted: Vec<String> = ["7", "200", "30"].map(String::from).into();
    /// let found = db.get_each(&wanted)?;
    /// assert!(found.iter().map(|found| found.as_deref()).eq([Some(&7), None, Some(&30)]));
    /// assert_eq!(db.get_each(["7", "200"])?.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Snapshot::get`](crate::Snapshot::get).
    pub fn get_each<'q, Q>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
    ) -> Result<Vec<Option<Arc<V>>>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized + 'q,
    {
        self.snapshot().get_each(keys)
    }

    /// Returns the pairs of a range as they are now, lazily, from either end. The iterator takes a
    /// [`snapshot`](Self::snapshot) and keeps it until it is dropped.
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, u64>::builder().build().await?;
    /// db.extend([("ada".into(), 1), ("bob".into(), 2), ("cyd".into(), 3)]).await?;
    /// assert_eq!(db.range("b"..).map(|(_, n)| *n).sum::<u64>(), 5);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// As the iterator of [`Snapshot::range`](crate::Snapshot::range).
    pub fn range(&self, range: impl KeyRange<K>) -> SnapshotRange<K, V> {
        self.snapshot().range(range)
    }

    /// Returns the pairs whose keys start with `prefix`, like [`range`](Self::range).
    ///
    /// # Panics
    ///
    /// As [`range`](Self::range).
    pub fn prefix(&self, prefix: impl Prefix<K>) -> SnapshotRange<K, V> {
        self.snapshot().prefix(prefix)
    }

    /// Returns the smallest key, with its value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn first(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        self.snapshot().first()
    }

    /// Returns the greatest key, with its value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn last(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        self.snapshot().last()
    }

    /// Counts the keys of a range. Takes time linear in their number.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn count(&self, range: impl KeyRange<K>) -> Result<usize, FluxError> {
        View::stable(&self.shared).count(KeySpan::range(range))
    }

    /// Counts all keys, exactly and in linear time, as [`count(..)`](Self::count) does.
    /// [`memory_info`](Self::memory_info) returns an approximate number in constant time.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn len(&self) -> Result<usize, FluxError> {
        self.count(..)
    }

    /// Returns whether there is no key. Takes logarithmic time.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn is_empty(&self) -> Result<bool, FluxError> {
        self.snapshot().is_empty()
    }

    /// Puts all `pairs` in one commit, replacing old values: readers see all of them or none. If a key
    /// occurs twice, the later pair counts. Never conflicts.
    ///
    /// The values have no time to live, as with [`insert`](Self::insert): pairs that should expire are
    /// inserted by [`insert_with_ttl`](crate::Transaction::insert_with_ttl) within
    /// [`transact`](Self::transact).
    ///
    /// Other commits wait while this one is published, tens of nanoseconds per pair; pass millions of
    /// pairs in several calls.
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<u64, u64>::builder().build().await?;
    /// db.extend((0..1_000).map(|n| (n, n * n))).await?;
    /// assert_eq!(db.len()?, 1_000);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    ///
    /// # Cancel safety
    ///
    /// As [`insert`](Self::insert).
    pub async fn extend(&self, pairs: impl IntoIterator<Item = (K, V)>) -> Result<(), FluxError> {
        let mut writes = WriteSet::default();
        for (key, value) in pairs {
            drop(writes.set(key, Some(Put::lasting(Arc::new(value)))));
        }
        match writes.is_empty() {
            true => Ok(()),
            false => self.write_blindly(writes).await,
        }
    }

    /// Removes every key of a range in one commit, and returns how many were removed. Takes time linear
    /// in the number of removed keys. If another commit writes into the range meanwhile, the removal
    /// runs again.
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<u64, u64>::builder().build().await?;
    /// db.extend((0..10).map(|n| (n, n))).await?;
    /// assert_eq!(db.remove_range(3..7).await?, 4);
    /// assert_eq!(db.clear().await?, 6);
    /// assert!(db.is_empty()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`transact`](Self::transact).
    ///
    /// # Cancel safety
    ///
    /// As [`transact`](Self::transact).
    pub async fn remove_range(&self, range: impl KeyRange<K>) -> Result<usize, FluxError> {
        let bounds = range.into_bounds();
        self.transact(async |tx| tx.remove_range(bounds.clone())).await
    }

    /// Removes every key in one commit, and returns how many were removed: see
    /// [`remove_range`](Self::remove_range).
    ///
    /// # Errors
    ///
    /// As [`transact`](Self::transact).
    ///
    /// # Cancel safety
    ///
    /// As [`transact`](Self::transact).
    pub async fn clear(&self) -> Result<usize, FluxError> {
        self.remove_range(..).await
    }

    /// Removes the smallest key, and returns it with its value. No two calls return the same pair, so
    /// several tasks can share a queue of work.
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<u64, &'static str>::builder().build().await?;
    /// db.extend([(20, "later"), (10, "soon")]).await?;
    /// while let Some((due, job)) = db.pop_first().await? {
    ///     println!("{due}: {job}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`transact`](Self::transact).
    ///
    /// # Cancel safety
    ///
    /// As [`transact`](Self::transact): in a durable database, if the future is dropped, the pair may
    /// have been removed although no caller received it.
    pub async fn pop_first(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        self.transact(async |tx| tx.pop_first()).await
    }

    /// Removes the greatest key, and returns it with its value: see [`pop_first`](Self::pop_first).
    ///
    /// # Errors
    ///
    /// As [`transact`](Self::transact).
    ///
    /// # Cancel safety
    ///
    /// As [`pop_first`](Self::pop_first).
    pub async fn pop_last(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        self.transact(async |tx| tx.pop_last()).await
    }
}
