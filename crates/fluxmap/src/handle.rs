//! The handle: a session with at most one open transaction, as in FluxMap 0.3. A thin layer over
//! [`Transaction`] and the one-step methods of [`Database`].

use crate::db::Database;
use crate::error::FluxError;
use crate::key::{Key, KeyRange, Prefix, Query, Value};
use crate::txn::metadata::HandleMetadataStream;
use crate::txn::stream::{SnapshotStream, TransactionStream};
use crate::txn::transaction::Transaction;
use crate::txn::write_set::Savepoint;
use futures_core::Stream;
use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

/// A session with a [`Database`]: returned by [`Database::handle`].
///
/// Between [`begin`](Self::begin) and [`commit`](Self::commit) or [`rollback`](Self::rollback), and
/// within [`transaction`](Self::transaction), every operation is a part of that transaction. Otherwise
/// each operation is a transaction of its own. Create one handle per task.
///
/// ```
/// use fluxmap::Database;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fluxmap::FluxError> {
/// let db = Database::<String, u32>::builder().build().await?;
/// let mut handle = db.handle();
/// handle.insert("a".into(), 1).await?;
///
/// handle.begin()?;
/// handle.insert("b".into(), 2).await?;
/// handle.savepoint("halfway")?;
/// handle.remove("a").await?;
/// handle.rollback_to("halfway")?;
/// handle.commit().await?;
///
/// let both = handle.range(&"a".into(), &"b".into())?;
/// assert_eq!(both.len(), 2);
/// # Ok(())
/// # }
/// ```
pub struct Handle<'db, K: Key, V: Value> {
    database: &'db Database<K, V>,
    open: Option<OpenTransaction<K, V>>,
}

/// The open transaction of a handle.
struct OpenTransaction<K: Key, V: Value> {
    transaction: Transaction<K, V>,
    savepoints: Vec<(String, Savepoint)>,
}

/// The future that the closure of [`Handle::transaction`] returns.
type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl<'db, K: Key, V: Value> Handle<'db, K, V> {
    pub(crate) fn new(database: &'db Database<K, V>) -> Self {
        Handle { database, open: None }
    }

    pub(crate) fn transaction_ref(&self) -> Option<&Transaction<K, V>> {
        self.open.as_ref().map(|open| &open.transaction)
    }

    /// Returns the value under `key`.
    ///
    /// # Errors
    ///
    /// As [`Transaction::get`] in a transaction, as [`Database::get`] otherwise.
    pub fn get<Q>(&self, key: &Q) -> Result<Option<Arc<V>>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        match self.transaction_ref() {
            Some(transaction) => transaction.get(key),
            None => self.database.get(key),
        }
    }

    /// Returns the values under `keys`, in their order, all read at one moment.
    ///
    /// # Errors
    ///
    /// As [`Transaction::get_many`].
    pub fn get_many<Q, const N: usize>(&self, keys: [&Q; N]) -> Result<[Option<Arc<V>>; N], FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        match self.transaction_ref() {
            Some(transaction) => transaction.get_many(keys),
            None => self.database.get_many(keys),
        }
    }

    /// Returns the values under any number of `keys`, in their order, all read at one moment.
    ///
    /// # Errors
    ///
    /// As [`Transaction::get_each`].
    pub fn get_each<'q, Q>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
    ) -> Result<Vec<Option<Arc<V>>>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized + 'q,
    {
        match self.transaction_ref() {
            Some(transaction) => transaction.get_each(keys),
            None => self.database.get_each(keys),
        }
    }

    /// Returns whether `key` has a value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn contains_key<Q>(&self, key: &Q) -> Result<bool, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        match self.transaction_ref() {
            Some(transaction) => transaction.contains_key(key),
            None => self.database.contains_key(key),
        }
    }

    /// Puts `value` under `key`, replacing the old value and its expiry time.
    ///
    /// # Errors
    ///
    /// As [`Database::insert`].
    ///
    /// # Cancel safety
    ///
    /// As [`Database::insert`].
    pub async fn insert(&self, key: K, value: V) -> Result<(), FluxError> {
        match self.transaction_ref() {
            Some(transaction) => transaction.insert(key, value),
            None => self.database.insert(key, value).await,
        }
    }

    /// Removes `key`, and returns the value that it had.
    ///
    /// # Errors
    ///
    /// As [`Database::remove`].
    ///
    /// # Cancel safety
    ///
    /// As [`Database::transact`].
    pub async fn remove<Q>(&self, key: &Q) -> Result<Option<Arc<V>>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        match self.transaction_ref() {
            Some(transaction) => transaction.remove(key),
            None => self.database.remove(key).await,
        }
    }

    /// Replaces the value under `key` by the result of `change`, and returns the new value, or `None` if
    /// there is no value.
    ///
    /// # Errors
    ///
    /// As [`Database::update`].
    ///
    /// # Cancel safety
    ///
    /// As [`Database::transact`].
    pub async fn update<Q, F>(&self, key: &Q, change: F) -> Result<Option<Arc<V>>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
        F: Fn(&V) -> V,
    {
        match self.transaction_ref() {
            Some(transaction) => transaction.update(key, change),
            None => self.database.update(key, change).await,
        }
    }

    /// Puts `new` under `key` if its value is `expected`, and returns whether it did. The new value
    /// expires when the old one was going to; where there was none, it never expires: see
    /// [`Database::compare_and_swap`].
    ///
    /// # Errors
    ///
    /// As [`Database::compare_and_swap`].
    ///
    /// # Cancel safety
    ///
    /// As [`Database::transact`].
    pub async fn compare_and_swap(
        &self,
        key: K,
        expected: Option<&V>,
        new: Option<V>,
    ) -> Result<bool, FluxError>
    where
        V: PartialEq,
    {
        match self.transaction_ref() {
            Some(transaction) => transaction.compare_and_swap(key, expected, new),
            None => self.database.compare_and_swap(key, expected, new).await,
        }
    }

    /// Returns the value under `key`; if there is none, puts the result of `make` there and returns it.
    ///
    /// # Errors
    ///
    /// As [`Database::get_or_insert_with`].
    ///
    /// # Cancel safety
    ///
    /// As [`Database::transact`].
    pub async fn get_or_insert_with(&self, key: K, make: impl FnOnce() -> V) -> Result<Arc<V>, FluxError> {
        match self.transaction_ref() {
            Some(transaction) => transaction.get_or_insert_with(key, make),
            None => self.database.get_or_insert_with(key, make).await,
        }
    }

    /// Returns the pairs from `start` to `end`, both included.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn range(&self, start: &K, end: &K) -> Result<Vec<(K, Arc<V>)>, FluxError> {
        match self.transaction_ref() {
            Some(transaction) => {
                let mut range = transaction.range(start..=end)?;
                all(|| range.try_next())
            }
            None => {
                let mut range = self.database.snapshot().range(start..=end);
                all(|| range.try_next())
            }
        }
    }

    /// Returns the pairs whose keys start with `prefix`.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn prefix_scan(&self, prefix: impl Prefix<K>) -> Result<Vec<(K, Arc<V>)>, FluxError> {
        match self.transaction_ref() {
            Some(transaction) => {
                let mut range = transaction.prefix(prefix)?;
                all(|| range.try_next())
            }
            None => {
                let mut range = self.database.snapshot().prefix(prefix);
                all(|| range.try_next())
            }
        }
    }

    /// Like [`range`](Self::range), as a stream.
    pub fn range_stream(&self, start: &K, end: &K) -> HandleStream<'_, K, V> {
        HandleStream(match self.transaction_ref() {
            Some(transaction) => Either::Transaction(transaction.range_stream(start..=end)),
            None => Either::Snapshot(self.database.snapshot().range_stream(start..=end)),
        })
    }

    /// Like [`prefix_scan`](Self::prefix_scan), as a stream.
    pub fn prefix_scan_stream(&self, prefix: impl Prefix<K>) -> HandleStream<'_, K, V> {
        HandleStream(match self.transaction_ref() {
            Some(transaction) => Either::Transaction(transaction.prefix_scan_stream(prefix)),
            None => Either::Snapshot(self.database.snapshot().prefix_scan_stream(prefix)),
        })
    }

    /// Returns the smallest key, with its value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn first(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        match self.transaction_ref() {
            Some(transaction) => transaction.first(),
            None => self.database.first(),
        }
    }

    /// Returns the greatest key, with its value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn last(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        match self.transaction_ref() {
            Some(transaction) => transaction.last(),
            None => self.database.last(),
        }
    }

    /// Counts the keys of a range.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn count(&self, range: impl KeyRange<K>) -> Result<usize, FluxError> {
        match self.transaction_ref() {
            Some(transaction) => transaction.count(range),
            None => self.database.count(range),
        }
    }

    /// Begins a transaction on this handle.
    ///
    /// # Errors
    ///
    /// [`FluxError::TransactionAlreadyActive`] if one is open; it stays open.
    pub fn begin(&mut self) -> Result<(), FluxError> {
        if self.open.is_some() {
            return Err(FluxError::TransactionAlreadyActive);
        }
        self.open = Some(OpenTransaction { transaction: self.database.begin(), savepoints: Vec::new() });
        Ok(())
    }

    /// Commits the open transaction. Whether or not that succeeds, the handle is in no transaction
    /// afterwards.
    ///
    /// # Errors
    ///
    /// [`FluxError::NoActiveTransaction`], or as [`Transaction::commit`].
    ///
    /// # Cancel safety
    ///
    /// As [`Transaction::commit`]; the handle is then in no transaction.
    pub async fn commit(&mut self) -> Result<(), FluxError> {
        let open = self.open.take().ok_or(FluxError::NoActiveTransaction)?;
        open.transaction.commit().await
    }

    /// Rolls the open transaction back.
    ///
    /// # Errors
    ///
    /// [`FluxError::NoActiveTransaction`].
    pub fn rollback(&mut self) -> Result<(), FluxError> {
        let open = self.open.take().ok_or(FluxError::NoActiveTransaction)?;
        open.transaction.rollback();
        Ok(())
    }

    /// Marks the present state of the open transaction by a name. If several savepoints have one name,
    /// the newest is rolled back to first.
    ///
    /// # Errors
    ///
    /// [`FluxError::NoActiveTransaction`].
    pub fn savepoint(&mut self, name: &str) -> Result<(), FluxError> {
        let open = self.open.as_mut().ok_or(FluxError::NoActiveTransaction)?;
        open.savepoints.push((name.to_string(), open.transaction.savepoint()?));
        Ok(())
    }

    /// Undoes every write since the newest savepoint of this name. That savepoint and the later ones
    /// end, as in FluxMap 0.3; the savepoints of a [`Transaction`] stay, as in SQL.
    ///
    /// # Errors
    ///
    /// [`FluxError::NoActiveTransaction`], or [`FluxError::SavepointNotFound`].
    pub fn rollback_to(&mut self, name: &str) -> Result<(), FluxError> {
        let open = self.open.as_mut().ok_or(FluxError::NoActiveTransaction)?;
        let position = open.savepoints.iter().rposition(|(known, _)| known == name);
        let position = position.ok_or_else(|| FluxError::SavepointNotFound(name.to_string()))?;
        let savepoint = open.savepoints[position].1;
        open.transaction.rollback_to(&savepoint)?;
        open.savepoints.truncate(position);
        Ok(())
    }

    /// Runs `body` in a transaction: commits it if `body` returns `Ok`, rolls it back if `body` returns
    /// `Err`, panics or is dropped. Runs `body` once; to run it again after a conflict, use
    /// [`Database::transact`].
    ///
    /// ```
    /// use fluxmap::{Database, FluxError};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), FluxError> {
    /// let db = Database::<String, u32>::builder().build().await?;
    /// let mut handle = db.handle();
    /// let n = handle
    ///     .transaction(|h| Box::pin(async move {
    ///         h.insert("n".to_string(), 1).await?;
    ///         Ok::<_, FluxError>(h.get("n")?.map_or(0, |n| *n))
    ///     }))
    ///     .await?;
    /// assert_eq!(n, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The error that `body` returns, [`FluxError::TransactionAlreadyActive`], or as
    /// [`Transaction::commit`].
    ///
    /// # Cancel safety
    ///
    /// As [`Transaction::commit`]; the handle is then in no transaction.
    pub async fn transaction<F, T, E>(&mut self, body: F) -> Result<T, E>
    where
        F: for<'a> FnOnce(&'a mut Self) -> BoxFuture<'a, Result<T, E>>,
        E: From<FluxError>,
    {
        self.begin()?;
        let mut handle = RollBack(self);
        let value = body(&mut handle).await?;
        handle.commit().await?;
        Ok(value)
    }

    /// [`insert`](Self::insert) for a value that expires after `ttl`.
    ///
    /// # Errors
    ///
    /// As [`Database::insert_with_ttl`].
    ///
    /// # Cancel safety
    ///
    /// As [`Database::insert`].
    pub async fn insert_with_ttl(&self, key: K, value: V, ttl: Duration) -> Result<(), FluxError> {
        match self.transaction_ref() {
            Some(transaction) => transaction.insert_with_ttl(key, value, ttl),
            None => self.database.insert_with_ttl(key, value, ttl).await,
        }
    }

    /// Sets the time at which the value under `key` expires to `at`, and returns whether the key has a
    /// value.
    ///
    /// # Errors
    ///
    /// As [`Database::expire_at`].
    ///
    /// # Cancel safety
    ///
    /// As [`Database::transact`].
    pub async fn expire_at<Q>(&self, key: &Q, at: SystemTime) -> Result<bool, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        match self.transaction_ref() {
            Some(transaction) => transaction.expire_at(key, at),
            None => self.database.expire_at(key, at).await,
        }
    }

    /// Returns the time until the value under `key` expires; `None` if there is no value or it does not
    /// expire.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn ttl<Q>(&self, key: &Q) -> Result<Option<Duration>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        match self.transaction_ref() {
            Some(transaction) => transaction.ttl(key),
            None => self.database.ttl(key),
        }
    }

    /// Removes the expiry time of the value under `key`, and returns whether it had one.
    ///
    /// # Errors
    ///
    /// As [`Database::persist`].
    ///
    /// # Cancel safety
    ///
    /// As [`Database::transact`].
    pub async fn persist<Q>(&self, key: &Q) -> Result<bool, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        match self.transaction_ref() {
            Some(transaction) => transaction.persist(key),
            None => self.database.persist(key).await,
        }
    }

    /// Removes `key` to make room, and returns whether it had a value. This is always a transaction of
    /// its own: transactions that have read the key conflict with it.
    ///
    /// # Errors
    ///
    /// As [`Database::evict`].
    ///
    /// # Cancel safety
    ///
    /// As [`Database::evict`].
    pub async fn evict<Q>(&self, key: &Q) -> Result<bool, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        self.database.evict(key).await
    }

    /// Streams the metadata of every key, for choosing keys to [`evict`](Self::evict): see
    /// [`Database::scan_metadata`]. The items cannot be errors.
    ///
    /// ```
    /// # use fluxmap::{Database, db::KeyMetadata};
    /// use futures::StreamExt;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, u32>::builder().build().await?;
    /// let handle = db.handle();
    /// handle.insert("n".into(), 1).await?;
    /// let keys: Vec<KeyMetadata<String>> = handle.scan_metadata().collect().await;
    /// assert_eq!(keys[0].key, "n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn scan_metadata(&self) -> HandleMetadataStream<K, V> {
        HandleMetadataStream::new(self.database.scan_metadata())
    }
}

impl<K: Key, V: Value> fmt::Debug for Handle<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("transaction", &self.transaction_ref()).finish_non_exhaustive()
    }
}

/// Collects all pairs of a range, or returns the error.
fn all<T>(mut next: impl FnMut() -> Result<Option<T>, FluxError>) -> Result<Vec<T>, FluxError> {
    std::iter::from_fn(|| next().transpose()).collect()
}

/// Rolls the handle's transaction back when dropped, however the scope ends.
struct RollBack<'h, 'db, K: Key, V: Value>(&'h mut Handle<'db, K, V>);

impl<'db, K: Key, V: Value> Deref for RollBack<'_, 'db, K, V> {
    type Target = Handle<'db, K, V>;

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl<K: Key, V: Value> DerefMut for RollBack<'_, '_, K, V> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.0
    }
}

impl<K: Key, V: Value> Drop for RollBack<'_, '_, K, V> {
    fn drop(&mut self) {
        self.0.open = None;
    }
}

/// A scan as a stream: returned by [`Handle::range_stream`] and [`Handle::prefix_scan_stream`].
#[must_use = "a stream does nothing unless it is polled"]
pub struct HandleStream<'h, K: Key, V: Value>(Either<'h, K, V>);

enum Either<'h, K: Key, V: Value> {
    Transaction(TransactionStream<'h, K, V>),
    Snapshot(SnapshotStream<K, V>),
}

impl<K: Key, V: Value> Stream for HandleStream<'_, K, V> {
    type Item = Result<(K, Arc<V>), FluxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.0 {
            Either::Transaction(stream) => Pin::new(stream).poll_next(context),
            Either::Snapshot(stream) => Pin::new(stream).poll_next(context),
        }
    }
}
