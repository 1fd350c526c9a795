//! The operations of a database on many keys at once, each a transaction of one step.

use crate::db::Database;
use crate::error::FluxError;
use crate::key::{Key, KeyRange, Prefix, Query, Span, Value};
use crate::txn::scan::View;
use crate::txn::snapshot::SnapshotRange;
use crate::txn::write_set::{Put, WriteSet};
use std::borrow::Borrow;
use std::sync::Arc;

impl<K: Key, V: Value> Database<K, V> {
    /// The values under `keys`, in their order, all at one moment. As many keys as you like;
    /// see [`get_many`](Self::get_many) for a few whose number is known.
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

    /// The pairs of a range, lazily, from either end, as they are now: those of a
    /// [`snapshot`](Self::snapshot) that is taken for it, and kept until the iterator is dropped.
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

    /// The pairs whose keys start with `prefix`, like [`range`](Self::range).
    ///
    /// # Panics
    ///
    /// As [`range`](Self::range).
    pub fn prefix(&self, prefix: impl Prefix<K>) -> SnapshotRange<K, V> {
        self.snapshot().prefix(prefix)
    }

    /// The smallest key, with what it holds.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn first(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        self.snapshot().first()
    }

    /// The greatest key, with what it holds.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn last(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        self.snapshot().last()
    }

    /// How many keys a range holds. Linear in what it counts.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn count(&self, range: impl KeyRange<K>) -> Result<usize, FluxError> {
        View::stable(&self.shared).count(Span::range(range))
    }

    /// How many keys there are: exactly, and by counting them, in linear time, as
    /// [`count(..)`](Self::count) does. [`memory_info`](Self::memory_info) knows about how many
    /// there are, in constant time.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn len(&self) -> Result<usize, FluxError> {
        self.count(..)
    }

    /// Whether there is no key. Logarithmic time.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn is_empty(&self) -> Result<bool, FluxError> {
        self.snapshot().is_empty()
    }

    /// Puts all of `pairs` there in one commit, replacing what is there: all of them are seen,
    /// or none. Of two with one key, the later counts. Never conflicts.
    ///
    /// Commits of others wait while it is published, tens of nanoseconds for each pair; hand
    /// over millions in parts.
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

    /// Removes every key of a range in one commit, and returns how many there were. Linear in
    /// what it removes. A write of others into the range meanwhile makes it run again.
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

    /// Removes every key in one commit, and returns how many there were: see
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

    /// Removes the smallest key, and returns it with what it held. No two calls return the same
    /// pair, so several tasks can share out what there is to do.
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
    /// As [`transact`](Self::transact): if the future is dropped, the pair may have been removed
    /// in a durable database, and is returned to nobody then.
    pub async fn pop_first(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        self.transact(async |tx| tx.pop_first()).await
    }

    /// Removes the greatest key, and returns it with what it held: see
    /// [`pop_first`](Self::pop_first).
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
