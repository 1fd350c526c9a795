//! The database.

pub use crate::builder::{Buildable, BuilderState, Complete, DatabaseBuilder, Initial, RelaxedDurability};
pub use crate::handle::{Handle, HandleStream};
pub use crate::info::{IsolationLevel, KeyMetadata, MemoryInfo, VacuumOptions, VacuumStats};
pub use crate::txn::metadata::{HandleMetadataStream, MetadataStream};
pub use crate::txn::overlay::TransactionRange;
pub use crate::txn::priority::PriorityInfo;
pub use crate::txn::retry::TransactOptions;
pub use crate::txn::snapshot::{Snapshot, SnapshotRange};
pub use crate::txn::stream::{SnapshotStream, TransactionStream};
pub use crate::txn::transaction::Transaction;
pub use crate::txn::write_set::Savepoint;
pub use crate::weak::WeakDatabase;

use crate::checkpointer::Checkpointer;
use crate::codec::Stored;
use crate::error::FluxError;
use crate::key::{Key, Query, Value};
use crate::mvcc::active::ReaderKind;
use crate::persistence::{BackupProgress, CheckpointInfo, DurabilityLevel, RecoveryInfo};
use crate::shared::Open;
use crate::storage::Storage;
use crate::txn::own::note_commit;
use crate::txn::priority::Protects;
use crate::txn::retry;
use crate::txn::scan::View;
use crate::txn::write_set::{Put, Writes};
use fluxmap_index::planted;
use std::borrow::Borrow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A typed, transactional key-value store in memory.
///
/// Clones are cheap and refer to the same database; threads and tasks share them freely. Every operation
/// is a transaction: transactions of several steps go through [`transact`](Self::transact) or
/// [`begin`](Self::begin), and the other methods are transactions of one step.
///
/// ```
/// use fluxmap::Database;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fluxmap::FluxError> {
/// let db = Database::<String, i64>::builder().build().await?;
/// db.insert("alice".into(), 100).await?;
/// db.insert("bob".into(), 100).await?;
///
/// let moved: bool = db
///     .transact(async |tx| {
///         let (Some(from), Some(to)) = (tx.get("alice")?, tx.get("bob")?) else {
///             return Ok::<_, fluxmap::FluxError>(false);
///         };
///         tx.insert("alice".into(), *from - 20)?;
///         tx.insert("bob".into(), *to + 20)?;
///         Ok(true)
///     })
///     .await?;
///
/// assert!(moved);
/// assert_eq!(db.get("alice")?.as_deref(), Some(&80));
/// # Ok(())
/// # }
/// ```
///
/// # Processes
///
/// A database belongs to the process that opened it. In a forked child, a durable database refuses
/// commits, flushes and checkpoints with
/// [`PersistenceError::OtherProcess`](crate::PersistenceError::OtherProcess); the log and the lock on
/// the directory stay with the parent. Reads in the child show the parent's state at the fork, and a
/// database in memory continues as a copy without its background thread. However, a child of a process
/// with several threads (every durable database has some) may find a lock held by a thread that it does
/// not have, and wait for ever, as with any library: open databases after forking.
pub struct Database<K: Key, V: Value> {
    pub(crate) shared: Arc<Open<K, V>>,
}

impl<K: Key, V: Value> Clone for Database<K, V> {
    fn clone(&self) -> Self {
        Database { shared: Arc::clone(&self.shared) }
    }
}

impl<K: Key, V: Value> Database<K, V> {
    /// Starts to configure a database.
    pub fn builder() -> DatabaseBuilder<K, V> {
        DatabaseBuilder::new()
    }

    /// Creates a database in memory with the defaults, as [`builder()`](Self::builder)`.build()` does.
    ///
    /// # Errors
    ///
    /// None.
    pub async fn new_in_memory() -> Result<Self, FluxError> {
        Self::builder().build().await
    }

    /// Opens a database with this durability and the defaults.
    ///
    /// # Errors
    ///
    /// As the builder's [`build`](DatabaseBuilder::build).
    pub async fn new(level: DurabilityLevel) -> Result<Self, FluxError>
    where
        K: Stored,
        V: Stored,
    {
        Self::builder().durability(level).build().await
    }

    pub(crate) fn from_shared(shared: Arc<Open<K, V>>) -> Self {
        Database { shared }
    }

    /// Returns a session with this database: the older, handle-based interface.
    pub fn handle(&self) -> Handle<'_, K, V> {
        Handle::new(self)
    }

    /// Begins a transaction that the caller commits. Prefer [`transact`](Self::transact), which runs it
    /// again after a conflict.
    ///
    /// Takes constant time, however many readers are open.
    pub fn begin(&self) -> Transaction<K, V> {
        Transaction::new(&self.shared)
    }

    /// Returns a read-only view of this moment.
    ///
    /// Takes constant time, however many readers are open.
    pub fn snapshot(&self) -> Snapshot<K, V> {
        Snapshot::new(View::stable(&self.shared))
    }

    /// Runs `body` in a transaction and commits it; after each conflict with another transaction it
    /// starts again, until it has committed.
    ///
    /// `body` is an async closure: `async |tx| { .. }`. Each attempt runs a clone of `body`, so `body`
    /// should have no effects except through the transaction that it is given. If it returns an error,
    /// the transaction is rolled back and the error returned.
    ///
    /// **If it does not compile:**
    ///
    /// - E0282, "type annotations needed", at a use of `tx`: the closure is not async. Write
    ///   `async |tx| { .. }` for `|tx| { .. }` and for `|tx| async { .. }`.
    /// - E0283, "type annotations needed", with "cannot infer type of the type parameter `E`" or "cannot
    ///   satisfy `_: From<FluxError>`": nothing says which error `body` returns. End it with
    ///   `Ok::<_, FluxError>(())`.
    ///
    /// **Priority.** A transaction that has lost four times gets a lease: while the lease is valid,
    /// another commit that would change a key that this transaction has read (in this attempt or the one
    /// before; at the snapshot level, a key that it writes) waits, asynchronously. All other commits go
    /// on, and if one of them needs room under a memory limit, room is made by evicting keys that this
    /// transaction has not read, as long as such keys are found. The lease lasts for twice the longest
    /// attempt so far, at least 0.1 and at most 10 seconds; its time stands still while the transaction
    /// waits for the log. There is one lease at a time, first come, first served, and a commit that has
    /// waited for one lease does not wait for the next. A transaction that loses twice under its lease,
    /// because each attempt reads other keys, gets leases for which every other commit waits. A
    /// `transact` within `body` runs under the lease of the one around it. Each lease is an event of
    /// `tracing` when it ends (a warning, if commits have waited for a millisecond or more, all
    /// together), and is counted by [`priority_info`](Self::priority_info). So `body` may be slow (it may
    /// `await` another service, say): it delays only commits that write keys it has read, and only after
    /// it has lost to them.
    ///
    /// **Conflicts with itself.** A body that calls `db.insert` where `tx.insert` was meant, for a key
    /// that the transaction has read (at the snapshot level: that it writes), would lose to its own write on every attempt: the second time in a
    /// row, this returns [`FluxError::ConflictsWithItself`]. It returns the same error if `body` waits
    /// three times for a commit of another task that its own lease holds back, and goes on as soon as that
    /// commit has been made. (If the task goes on working after the commit, that looks like a slow body,
    /// and the transaction runs until its [options](Self::transact_with) end it.) A body that is merely
    /// slow, or whose executor is blocked, never gets that error.
    ///
    /// # Errors
    ///
    /// The error that `body` returns; [`FluxError::ConflictsWithItself`]; otherwise the errors of
    /// [`Transaction::commit`] except conflicts: none in a database in memory without a memory limit or
    /// a maximum age of snapshots. An error of `body` is returned once the data that it has read is as
    /// durable as the level says.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it returns has either not committed, and left no trace, or has
    /// committed wholly (if it was about to return or was waiting for the disk), and the commit becomes
    /// durable by itself.
    ///
    /// ```
    /// # use fluxmap::{Database, FluxError};
    /// #[derive(Debug)]
    /// enum Error {
    ///     NoSuchCounter,
    ///     Flux(FluxError),
    /// }
    ///
    /// impl From<FluxError> for Error {
    ///     fn from(error: FluxError) -> Self {
    ///         Error::Flux(error)
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// let db = Database::<String, u64>::builder().build().await?;
    /// db.insert("hits".into(), 0).await?;
    /// let tasks: Vec<_> = (0..8)
    ///     .map(|_| {
    ///         let db = db.clone();
    ///         tokio::spawn(async move {
    ///             db.transact(async |tx| {
    ///                 let hits = tx.get("hits")?.ok_or(Error::NoSuchCounter)?;
    ///                 tx.insert("hits".into(), *hits + 1)?;
    ///                 Ok::<_, Error>(*hits + 1)
    ///             })
    ///             .await
    ///         })
    ///     })
    ///     .collect();
    /// for task in tasks {
    ///     task.await.expect("no panic")?;
    /// }
    /// assert_eq!(db.get("hits")?.as_deref(), Some(&8));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn transact<T, E, F>(&self, body: F) -> Result<T, E>
    where
        F: AsyncFnOnce(&mut Transaction<K, V>) -> Result<T, E> + Clone,
        E: From<FluxError>,
    {
        retry::transact(&self.shared, TransactOptions::default(), body).await
    }

    /// [`transact`](Self::transact) with a limit on attempts or time.
    ///
    /// # Errors
    ///
    /// As [`transact`](Self::transact), and [`FluxError::RetriesExhausted`] or
    /// [`FluxError::DeadlineExceeded`] when the limit is reached.
    ///
    /// # Cancel safety
    ///
    /// As [`transact`](Self::transact).
    pub async fn transact_with<T, E, F>(&self, options: TransactOptions, body: F) -> Result<T, E>
    where
        F: AsyncFnOnce(&mut Transaction<K, V>) -> Result<T, E> + Clone,
        E: From<FluxError>,
    {
        retry::transact(&self.shared, options, body).await
    }

    /// Returns the value under `key`. Takes expected constant time, and writes no memory that other
    /// readers write except the value's own reference count.
    ///
    /// # Errors
    ///
    /// None in a database in memory.
    pub fn get<Q>(&self, key: &Q) -> Result<Option<Arc<V>>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        Ok(self.read(key, Arc::clone))
    }

    /// Returns the values under `keys`, in their order, all read at one moment, which several calls of
    /// [`get`](Self::get) would not be. It takes a [`snapshot`](Self::snapshot) and drops it, which
    /// costs as much as a few calls of `get` if everything is in the processor's cache. Takes expected
    /// constant time per key. See also [`Transaction::get_many`](crate::Transaction::get_many).
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, u64>::builder().build().await?;
    /// db.insert("alice".into(), 100).await?;
    /// let [alice, bob] = db.get_many(["alice", "bob"])?;
    /// assert_eq!((alice.as_deref(), bob), (Some(&100), None));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Snapshot::get`].
    pub fn get_many<Q, const N: usize>(&self, keys: [&Q; N]) -> Result<[Option<Arc<V>>; N], FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        if planted("get-many-is-several-gets") {
            return Ok(keys.map(|key| self.read(key, Arc::clone)));
        }
        self.snapshot().get_many(keys)
    }

    /// Passes the value under `key` to `read`, without touching its reference count. Keep `read` short:
    /// no memory is reclaimed while it runs.
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, Vec<u8>>::builder().build().await?;
    /// db.insert("image".into(), vec![0; 4096]).await?;
    /// assert_eq!(db.get_with("image", |bytes| bytes.len())?, Some(4096));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn get_with<Q, R>(&self, key: &Q, read: impl FnOnce(&V) -> R) -> Result<Option<R>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        Ok(self.read(key, |value| read(value)))
    }

    fn read<Q, R>(&self, key: &Q, read: impl FnOnce(&Arc<V>) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        let committer = &self.shared.committer;
        let hash = committer.hash(key);
        let reader = committer.reader();
        reader.latest(hash, key, || committer.readable(), || committer.time_of_get()).map(read)
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
        Ok(self.read(key, |_| ()).is_some())
    }

    /// Puts `value` under `key`, replacing the old value and its expiry time. Never conflicts.
    ///
    /// # Errors
    ///
    /// None in a database in memory without a limit; otherwise the errors of [`Transaction::commit`]
    /// except conflicts.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it returns has either written nothing or, in a
    /// durable database, has committed, and the commit becomes durable by itself.
    pub async fn insert(&self, key: K, value: V) -> Result<(), FluxError> {
        self.put(key, Put::lasting(Arc::new(value))).await
    }

    /// [`insert`](Self::insert) for a value that is shared already.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    ///
    /// # Cancel safety
    ///
    /// As [`insert`](Self::insert).
    pub async fn insert_arc(&self, key: K, value: Arc<V>) -> Result<(), FluxError> {
        self.put(key, Put::lasting(value)).await
    }

    fn put(&self, key: K, put: Put<V>) -> impl Future<Output = Result<(), FluxError>> {
        self.write_blindly((key, Some(put)))
    }

    /// Commits writes that depend on no read.
    pub(crate) async fn write_blindly(&self, writes: impl Writes<K, V>) -> Result<(), FluxError> {
        // If a lease held this commit back, dropping `_held_back` reports that the commit has been made.
        // Keep it until this function returns, so that the report comes before a task that waits for
        // this commit goes on.
        let mut _held_back = None;
        if !self.shared.may_commit_at_once() {
            let committer = &self.shared.committer;
            let undoes =
                |protects: &dyn Protects| writes.any(|key| protects.covers(committer.hash(key), key));
            _held_back = self.shared.may_commit(undoes).await?;
        }
        // Nothing was read, so there is nothing to certify.
        let timestamp = self.shared.commit(None, writes.into_writes())?;
        match self.shared.is_stable_at_once() {
            true => Ok(()),
            false => self.shared.acknowledged(timestamp).await,
        }
    }

    /// [`insert`](Self::insert) for a value that expires after `ttl`. From that instant no new reader
    /// sees the value, and its memory is freed soon after, without any call. `ttl` is rounded up to
    /// whole milliseconds. [`time_source`](DatabaseBuilder::time_source) says which clock counts.
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, u32>::builder().build().await?;
    /// db.insert_with_ttl("session".into(), 7, Duration::from_secs(1800)).await?;
    /// assert!(db.ttl("session")?.is_some());
    /// assert!(db.persist("session").await?);
    /// assert!(db.ttl("session")?.is_none());
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
    pub async fn insert_with_ttl(&self, key: K, value: V, ttl: Duration) -> Result<(), FluxError> {
        let expires = self.shared.committer.expiry_clock.after(ttl);
        self.put(key, Put { value: Arc::new(value), expires }).await
    }

    /// Sets the time at which the value under `key` expires to `at`, which may be in the past, and
    /// returns whether the key has a value.
    ///
    /// # Errors
    ///
    /// As [`transact`](Self::transact).
    ///
    /// # Cancel safety
    ///
    /// As [`transact`](Self::transact).
    pub async fn expire_at<Q>(&self, key: &Q, at: SystemTime) -> Result<bool, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        self.transact(async |tx| tx.expire_at(key, at)).await
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
        View::stable(&self.shared).ttl(key)
    }

    /// Removes the expiry time of the value under `key`, and returns whether it had one. Under
    /// [`EvictionPolicy::Ttl`](crate::mem::EvictionPolicy::Ttl) the value gets the default time to live
    /// anew.
    ///
    /// # Errors
    ///
    /// As [`transact`](Self::transact).
    ///
    /// # Cancel safety
    ///
    /// As [`transact`](Self::transact).
    pub async fn persist<Q>(&self, key: &Q) -> Result<bool, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        self.transact(async |tx| tx.persist(key)).await
    }

    /// Removes `key` to make room, and returns whether it had a value. This is a transaction of its own:
    /// other transactions that have read the key conflict with it. The listener of
    /// [`on_evict`](DatabaseBuilder::on_evict) is called.
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove), except conflicts.
    ///
    /// # Cancel safety
    ///
    /// As [`insert`](Self::insert).
    pub async fn evict<Q>(&self, key: &Q) -> Result<bool, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        let committer = &self.shared.committer;
        let (hash, is_it) = (committer.hash(key), |stored: &K| stored.borrow() == key);
        let mut _held_back = None;
        if !self.shared.may_commit_at_once() {
            let undoes = |protects: &dyn Protects| {
                let reader = committer.reader();
                let found = reader.resident(hash, |resident| is_it(resident.key()));
                found.is_some_and(|found| protects.covers(hash, found.key()))
            };
            _held_back = self.shared.may_commit(undoes).await?;
        }
        let evicted = committer.evict(hash, is_it)?;
        if let Some(timestamp) = evicted {
            note_commit(self.shared.address(), timestamp);
        }
        match evicted {
            // The absence may come from a commit that is not durable yet: wait for it.
            None => self.shared.stable_at(committer.clock.applied()).await.map(|()| false),
            Some(timestamp) => self.shared.acknowledged(timestamp).await.map(|()| true),
        }
    }

    /// Streams the metadata of every key, for choosing keys to [`evict`](Self::evict). The stream reads
    /// a snapshot, in key order. Accesses are counted only under a memory limit.
    ///
    /// ```
    /// # use fluxmap::{Database, mem::EvictionPolicy};
    /// use futures::TryStreamExt;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, u32>::builder()
    /// #     .max_memory(1 << 20)
    /// #     .eviction_policy(EvictionPolicy::Manual)
    /// #     .build()
    /// #     .await?;
    /// db.insert("hot".into(), 1).await?;
    /// db.insert("cold".into(), 2).await?;
    /// db.get("hot")?;
    /// let mut keys: Vec<_> = db.scan_metadata().try_collect().await?;
    /// keys.sort_by_key(|metadata| (metadata.access_count, metadata.last_accessed));
    /// db.evict(&keys[0].key).await?;
    /// assert!(db.get("cold")?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn scan_metadata(&self) -> MetadataStream<K, V> {
        MetadataStream::new(View::stable(&self.shared))
    }

    /// Removes `key`, and returns the value that it had.
    ///
    /// # Errors
    ///
    /// As [`transact`](Self::transact).
    ///
    /// # Cancel safety
    ///
    /// As [`transact`](Self::transact).
    pub async fn remove<Q>(&self, key: &Q) -> Result<Option<Arc<V>>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        self.transact(async |tx| tx.remove(key)).await
    }

    /// Replaces the value under `key` by the result of `change`, and returns the new value. Does nothing
    /// and returns `None` if there is no value. The time at which the value expires stays the same.
    /// `change` runs again after a conflict with another transaction.
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, u32>::builder().build().await?;
    /// db.insert("n".into(), 1).await?;
    /// assert_eq!(db.update("n", |n| n + 1).await?.as_deref(), Some(&2));
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
    pub async fn update<Q, F>(&self, key: &Q, change: F) -> Result<Option<Arc<V>>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
        F: Fn(&V) -> V,
    {
        self.transact(async |tx| tx.update(key, &change)).await
    }

    /// Puts `new` under `key` (or removes the key, for `None`) if its value is `expected` (`None`: no
    /// value), and returns whether it did. The new value expires when the old one was going to, as with
    /// [`update`](Self::update).
    ///
    /// **Where there was no value, the new one has no time to live** (except under
    /// [`EvictionPolicy::Ttl`](crate::mem::EvictionPolicy::Ttl)), so a session or a lock that is taken in
    /// this way lives for ever. Give it one in a transaction:
    ///
    /// ```
    /// # use fluxmap::{Database, FluxError};
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), FluxError> {
    /// # let db = Database::<String, u32>::builder().build().await?;
    /// let is_ours = db
    ///     .transact(async |tx| {
    ///         let is_free = !tx.contains_key("leader")?;
    ///         if is_free {
    ///             tx.insert_with_ttl("leader".into(), 7, Duration::from_secs(30))?;
    ///         }
    ///         Ok::<_, FluxError>(is_free)
    ///     })
    ///     .await?;
    /// assert!(is_ours && db.ttl("leader")?.is_some());
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
    pub async fn compare_and_swap(
        &self,
        key: K,
        expected: Option<&V>,
        new: Option<V>,
    ) -> Result<bool, FluxError>
    where
        V: PartialEq,
    {
        let new = new.map(Arc::new);
        self.transact(async |tx| tx.compare_and_swap_arc(key.clone(), expected, new.clone())).await
    }

    /// Returns the value under `key`; if there is none, puts the result of `make` there and returns it.
    /// `make` runs at most once. The value that it puts there has no time to live: see
    /// [`compare_and_swap`](Self::compare_and_swap).
    ///
    /// # Errors
    ///
    /// As [`transact`](Self::transact).
    ///
    /// # Cancel safety
    ///
    /// As [`transact`](Self::transact).
    pub async fn get_or_insert_with(&self, key: K, make: impl FnOnce() -> V) -> Result<Arc<V>, FluxError> {
        if let Some(value) = self.get(&key)? {
            return Ok(value);
        }
        let value = Arc::new(make());
        self.transact(async |tx| match tx.get(&key)? {
            Some(present) => Ok(present),
            None => tx.insert_arc(key.clone(), Arc::clone(&value)).map(|()| Arc::clone(&value)),
        })
        .await
    }

    /// Removes expired keys, the versions that no reader can see any more, and deleted keys, and gives
    /// back the memory that finding, ordering and choosing these keys took: see
    /// [`MemoryInfo::spare_bytes`].
    ///
    /// Commits do this as they go. Calling this is worth while after a long snapshot has ended, and
    /// before the database is left idle. It delays commits by no longer than a few hundred keys take.
    /// Linear in the number of versions and keys to remove.
    ///
    /// ```
    /// use fluxmap::Database;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// let db: Database<u32, u32> = Database::new_in_memory().await?;
    /// for key in 0..10_000 {
    ///     db.insert(key, key).await?;
    /// }
    /// let full = db.memory_info();
    /// db.clear().await?;
    /// db.vacuum().await?;
    /// let empty = db.memory_info();
    /// assert_eq!(empty.keys, 0);
    /// assert!(empty.index_bytes + empty.spare_bytes < full.index_bytes / 20);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// None in a database in memory.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the rest of the work undone, and the database consistent.
    pub async fn vacuum(&self) -> Result<VacuumStats, FluxError> {
        Ok(self.shared.vacuum())
    }

    /// Returns figures about the memory that the database uses.
    pub fn memory_info(&self) -> MemoryInfo {
        self.shared.committer.memory_info()
    }

    /// Returns how often transactions that kept losing were given priority since the database was
    /// opened, and what that cost other commits: see [`transact`](Self::transact).
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, u64>::builder().build().await?;
    /// let info = db.priority_info();
    /// assert_eq!((info.leases, info.held_back), (0, 0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn priority_info(&self) -> PriorityInfo {
        self.shared.priority.info()
    }

    /// Makes every commit so far survive a power loss, whatever the durability level. Does nothing in
    /// memory.
    ///
    /// # Errors
    ///
    /// [`FluxError::FatalPersistenceError`] if the log has failed, or fails now.
    ///
    /// # Cancel safety
    ///
    /// The sync goes on if the future is dropped.
    pub async fn flush(&self) -> Result<(), FluxError> {
        match &self.shared.committer.durable {
            None => Ok(()),
            Some(durable) => {
                durable.log.flush().await.map_err(|source| FluxError::FatalPersistenceError { source })
            }
        }
    }

    /// Writes a checkpoint now: all pairs as they are at some moment during the call. The log up to that
    /// moment is then not needed any more. The database writes checkpoints by itself as the log fills
    /// up. Commits go on meanwhile.
    ///
    /// ```
    /// # use fluxmap::{Database, persistence::PersistenceOptions};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let dir = tempfile::tempdir().expect("a directory");
    /// let options = PersistenceOptions::new(dir.path().join("db"));
    /// let db = Database::<String, u32>::builder().durability_full(options).build().await?;
    /// db.insert("n".into(), 1).await?;
    /// let checkpoint = db.checkpoint().await?;
    /// assert_eq!(checkpoint.pairs, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`FluxError::Configuration`] in memory; [`FluxError::Persistence`] if the checkpoint could not be
    /// written: the previous checkpoint stays, and so does the log.
    ///
    /// # Cancel safety
    ///
    /// The checkpoint is written also if the future is dropped.
    pub async fn checkpoint(&self) -> Result<CheckpointInfo, FluxError> {
        let checkpointer = self.checkpointer("a checkpoint")?;
        Ok(checkpointer.checkpoint().await?)
    }

    /// Writes a copy of the database, as it is at some moment during the call, into a directory of its
    /// own. The directory is created if need be, and can be opened as a database of the same types.
    /// Commits go on meanwhile.
    ///
    /// `progress` is called after each block of about 256 KiB, on the thread that writes the copy. The
    /// last report need not be the total, which is an estimate. If `progress` panics, the copy is
    /// abandoned, and the panic continues in the caller that awaits this future.
    ///
    /// ```
    /// # use fluxmap::{Database, persistence::PersistenceOptions};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let dir = tempfile::tempdir().expect("a directory");
    /// # let (path, copy) = (dir.path().join("db"), dir.path().join("copy"));
    /// let open = |path| Database::<String, u32>::builder().durability_full(PersistenceOptions::new(path)).build();
    /// let db = open(path).await?;
    /// db.insert("n".into(), 1).await?;
    /// db.backup_to(&copy, |progress| println!("{} of {}", progress.pairs, progress.total_pairs)).await?;
    /// assert_eq!(open(copy).await?.get("n")?.as_deref(), Some(&1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`FluxError::Configuration`] in memory; [`FluxError::Persistence`] if the directory already
    /// contains a database, or if the copy could not be written: its files are then removed, and only
    /// the directory and its `lock` stay. If they cannot be removed either, because the disk has failed
    /// for good, the next attempt may find a database there and refuse: remove the directory yourself.
    ///
    /// A copy that was cut short by the death of the process or a power loss is replaced by the next
    /// copy into that directory. Until then it cannot be opened, with one exception: in the
    /// first moments, before its log is there (`wal.0000000002`), the directory is as good as empty, and **opens as a new, empty
    /// database**. So trust a copy only if this call has returned without an error.
    ///
    /// # Cancel safety
    ///
    /// The copy is written also if the future is dropped, even when the database is
    /// [closed](Self::close) meanwhile.
    pub async fn backup_to(
        &self,
        path: impl AsRef<Path>,
        progress: impl FnMut(BackupProgress) + Send + 'static,
    ) -> Result<(), FluxError> {
        let checkpointer = Arc::clone(self.checkpointer("a backup")?);
        let path = path.as_ref().to_owned();
        let pairs = self.shared.committer.index.entries() as u64;
        let write = move || Storage::back_up(&checkpointer, path, progress, pairs);
        Ok(self.shared.host().run("fluxmap-backup", write).await??)
    }

    fn checkpointer(&self, what: &str) -> Result<&Arc<Checkpointer>, FluxError> {
        self.shared.checkpointer().ok_or_else(|| {
            FluxError::Configuration(format!(
                "{what} needs a durable database; build this one with `durability_full` or `durability_relaxed`"
            ))
        })
    }

    /// Returns what was found on disk when the database was opened; `None` in memory.
    pub fn recovery_info(&self) -> Option<&RecoveryInfo> {
        self.shared.recovery_info()
    }

    /// Closes the database: syncs every commit, ends background work, closes the files, and drops the
    /// stored keys and values, before it returns. Dropping the last clone does the same, but cannot
    /// report errors.
    ///
    /// ```
    /// # use fluxmap::{Database, FluxError};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), FluxError> {
    /// # let db = Database::<String, u32>::builder().build().await?;
    /// let view = db.snapshot();
    /// let still_open = FluxError::StillOpen { clones: 1, transactions: 0, snapshots: 1 };
    /// assert_eq!(db.clone().close().await, Err(still_open));
    /// drop(view);
    /// assert_eq!(db.close().await, Ok(()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # If it stays open
    ///
    /// `close` drops this clone in any case, so if it was your only one, there is none to call `close`
    /// on again, and no need to: the last holder closes the database, and the files are free as soon as
    /// it has gone. Some holders are in none of your variables, and end by themselves:
    ///
    /// - a commit that waits for the disk, in a task that still runs: await your tasks before you close;
    /// - a listener of [`on_evict`](DatabaseBuilder::on_evict) that is just using the database through
    ///   [`WeakDatabase::upgrade`].
    ///
    /// To wait until the database has closed, whatever holds it, let its listener own one end of a
    /// channel: the database drops the listener after it has closed its files.
    ///
    /// ```
    /// # use fluxmap::{Database, FluxError, persistence::PersistenceOptions};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), FluxError> {
    /// # let dir = tempfile::tempdir().expect("a directory");
    /// # let options = || PersistenceOptions::new(dir.path().join("db"));
    /// let (open, closed) = futures::channel::oneshot::channel::<()>();
    /// let db = Database::<u64, String>::builder()
    ///     .durability_full(options())
    ///     .on_evict(move |_key, _value, _cause| {
    ///         let _owned = &open;
    ///     })
    ///     .build()
    ///     .await?;
    /// let view = db.snapshot();
    /// let reader = std::thread::spawn(move || drop(view));
    /// match db.close().await {
    ///     // The reader still held its snapshot: this waits until the other end has been dropped.
    ///     Err(FluxError::StillOpen { .. }) => assert!(closed.await.is_err()),
    ///     closed => closed?,
    /// }
    /// // The files are free.
    /// Database::<u64, String>::builder().durability_full(options()).build().await?;
    /// # reader.join().expect("no panic");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A listener cannot close the database while anybody else has it, and the commit or the call that
    /// evicts does: in a listener, `close` returns `StillOpen`, unless the listener runs on the
    /// background thread and every other holder has gone meanwhile. Close the database elsewhere.
    ///
    /// A [backup](Self::backup_to) whose future was dropped does not hold the database open: `close`
    /// returns while the copy is still being written. The stored keys and values are dropped when it is
    /// complete.
    ///
    /// # Errors
    ///
    /// [`FluxError::StillOpen`] if something else holds the database: other clones, transactions or
    /// snapshots, with the number of each. Every commit has then been synced, this clone has been
    /// dropped, and the database closes when the last holder is dropped.
    ///
    /// [`FluxError::FatalPersistenceError`] if the log has failed, or fails now;
    /// [`FluxError::Persistence`] if the last checkpoint could not be written, which loses nothing that
    /// is in the log. This clone has been dropped nevertheless.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops this clone, too.
    pub async fn close(self) -> Result<(), FluxError> {
        let host = self.shared.host().clone();
        let mut flushed = host.drive(self.flush()).await;
        if let (Ok(()), Some(error)) =
            (&flushed, self.shared.checkpointer().and_then(|thread| thread.last_failure()))
        {
            flushed = Err(error.into());
        }
        let given_back = match self.shared.checkpointer() {
            None => self.give_back(),
            // A listener that waits for this future on a thread of the database would wait for a thread
            // that joins its own.
            Some(_) if self.shared.is_on_this_thread() => self.give_back(),
            // Closing joins threads, which may have to wait for the disk.
            Some(_) => host.run("fluxmap-close", move || self.give_back()).await?,
        };
        flushed.and(given_back)
    }

    /// Drops this clone, and reports the other holders of the database if this was not the last.
    fn give_back(self) -> Result<(), FluxError> {
        let active = &self.shared.committer.active;
        let (snapshots, transactions) =
            (active.held(ReaderKind::Snapshot), active.held(ReaderKind::Transaction));
        // Every snapshot and transaction holds one reference to `shared`, and so does every clone.
        let others = Arc::strong_count(&self.shared) - 1;
        let readers = snapshots + transactions;
        let clones = others.saturating_sub(readers);
        // `into_inner` decides in one step: of two clones that are closed at once, one is the last.
        match Arc::into_inner(self.shared) {
            Some(last) => {
                drop(last);
                Ok(())
            }
            None => {
                // Another thread may have cloned the database since the count above.
                let clones = if readers == 0 { clones.max(1) } else { clones };
                Err(FluxError::StillOpen { clones, transactions, snapshots })
            }
        }
    }

    /// Returns a reference that does not keep the database open, for objects such as the listener of
    /// [`on_evict`](DatabaseBuilder::on_evict).
    pub fn downgrade(&self) -> WeakDatabase<K, V> {
        WeakDatabase::new(&self.shared)
    }
}

impl<K: Key, V: Value> fmt::Debug for Database<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("isolation_level", &self.shared.level)
            .field("keys", &self.shared.committer.index.entries())
            .field("background_panics", &self.shared.panics())
            .finish_non_exhaustive()
    }
}
