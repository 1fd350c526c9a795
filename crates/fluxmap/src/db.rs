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
use crate::shared::Shared;
use crate::storage::Storage;
use crate::txn::own::note_commit;
use crate::txn::priority::Protects;
use crate::txn::retry;
use crate::txn::scan::View;
use crate::txn::write_set::{Put, Writes};
use std::borrow::Borrow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A typed, transactional key-value store in memory.
///
/// Cheap to clone: clones are the same database. Shared between threads and tasks
/// freely. Everything it does is a transaction: those of several steps go through
/// [`transact`](Self::transact) or [`begin`](Self::begin), and the other methods
/// are transactions of one step.
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
/// A database belongs to the process that opened it. In a fork of that, a durable one takes no
/// commits, flushes and checkpoints: all of them fail with
/// [`PersistenceError::OtherProcess`](crate::PersistenceError::OtherProcess), the log stays the
/// parent's alone, and so does the lock on the directory. Reads show what the parent had at the
/// fork, and a database in memory goes on as a copy, without its background thread. But a fork of a
/// process with several threads, which every durable database has, may find a lock taken by a
/// thread that it does not have, and wait for ever, here as everywhere: open databases after
/// forking.
pub struct Database<K: Key, V: Value> {
    pub(crate) shared: Arc<Shared<K, V>>,
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

    /// A database in memory with the defaults: what
    /// [`builder()`](Self::builder)`.build()` returns.
    ///
    /// # Errors
    ///
    /// None.
    pub async fn new_in_memory() -> Result<Self, FluxError> {
        Self::builder().build().await
    }

    /// A database with the defaults and this durability.
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

    pub(crate) fn from_shared(shared: Arc<Shared<K, V>>) -> Self {
        Database { shared }
    }

    /// A session with this database: the older, handle-based surface.
    pub fn handle(&self) -> Handle<'_, K, V> {
        Handle::new(self)
    }

    /// Begins a transaction that the caller commits. Prefer
    /// [`transact`](Self::transact), which runs it again when it loses.
    ///
    /// Constant time, whatever else is open.
    pub fn begin(&self) -> Transaction<K, V> {
        Transaction::new(&self.shared)
    }

    /// A read-only view of this moment.
    ///
    /// Constant time, whatever else is open.
    pub fn snapshot(&self) -> Snapshot<K, V> {
        Snapshot::new(View::stable(&self.shared))
    }

    /// Runs `body` in a transaction and commits it, again from the start each
    /// time another transaction gets in between, until it has committed.
    ///
    /// `body` is an async closure: `async |tx| { .. }`. (Without the word `async`, the compiler
    /// says that it needs to know the type of `tx`.) Each attempt runs a clone of it, which should
    /// therefore have no effects but through the transaction it is given. If it returns an error,
    /// the transaction is rolled back and the error returned.
    ///
    /// **Priority.** A transaction that has lost four times gets a lease: while it is valid, a
    /// commit of others that would change what this transaction has read (in this attempt or the
    /// one before; at the snapshot level, what it writes) waits, asynchronously, and all other
    /// commits go on. The lease lasts for twice the longest attempt so far, at least 0.1 and at
    /// most 10 seconds; its time stands still while the transaction waits for the log. There is one at a
    /// time, first come, first served, and a commit that has waited for one does not wait for the next.
    /// Only a transaction that loses under its lease, twice, because it reads something else in each
    /// attempt, gets leases for which every other commit waits. A `transact` within `body` runs under
    /// the lease of the one around it. Each lease is an event of `tracing` when it ends (a warning,
    /// if commits have waited for a millisecond or more, all together), and is
    /// counted by [`priority_info`](Self::priority_info). So `body` may take its time (it may
    /// `await` another service, say): it holds up those who write what it has read, and only after it
    /// has lost to them.
    ///
    /// **Conflicts with itself.** A body that calls `db.insert` where `tx.insert` was meant, of a key that
    /// the transaction has read, would lose to that each time it runs: at the second time in a
    /// row this returns [`FluxError::ConflictsWithItself`]. So it does if `body` waits three times for a commit of another
    /// task which its own lease holds back. A body that is merely slow never gets that error.
    ///
    /// # Errors
    ///
    /// What `body` returns; [`FluxError::ConflictsWithItself`]; otherwise those of
    /// [`Transaction::commit`] but conflicts: none in a
    /// database in memory without a memory limit or a maximum age of snapshots. An error of `body` is returned when
    /// what it has read is as durable as the level says.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it returns has either not committed, and
    /// left no trace, or, if it was about to return or waited for the disk, has committed
    /// wholly, and the commit becomes durable by itself.
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

    /// What `key` holds. Expected constant time; writes no memory that other
    /// readers write, but for the value's own reference count.
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

    /// What each of `keys` holds, in their order, all at one moment, which several
    /// [`get`](Self::get)s would not be: it takes a [`snapshot`](Self::snapshot) and lets it
    /// go, which costs as much as a few of them where everything is in the processor's cache.
    /// Expected constant time for each key. See also
    /// [`Transaction::get_many`](crate::Transaction::get_many).
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
        self.snapshot().get_many(keys)
    }

    /// Lets `read` look at what `key` holds, without touching its reference
    /// count. Keep it short: memory is not reclaimed while it runs.
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

    /// Whether `key` holds anything.
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

    /// Puts `value` under `key`, replacing what is there, and when that was going to expire.
    /// Never conflicts.
    ///
    /// # Errors
    ///
    /// None in a database in memory without a limit; otherwise those of
    /// [`Transaction::commit`] but conflicts.
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

    /// Commits writes that rest on nothing.
    pub(crate) async fn write_blindly(&self, writes: impl Writes<K, V>) -> Result<(), FluxError> {
        // If a lease holds it back: until nobody who waits for this commit goes on before.
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

    /// [`insert`](Self::insert) for a value that is to be gone after `ttl`: at that instant,
    /// it is out of sight of everything that begins then, and its memory follows soon
    /// after, with nobody touching it. Whole milliseconds, rounded up. By which clock, is said
    /// at [`time_source`](DatabaseBuilder::time_source).
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
        let expires = self.shared.committer.hand.after(ttl);
        self.put(key, Put { value: Arc::new(value), expires }).await
    }

    /// Lets what `key` holds expire at `at`, which may be in the past, and returns whether it
    /// holds anything.
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

    /// How long what `key` holds has left; `None` if it holds nothing or does not expire.
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

    /// Lets what `key` holds stay, and returns whether it was going to expire.
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

    /// Removes `key` to make room, and returns whether it held anything. A transaction of its
    /// own: others that have read the key conflict with it. The listener of
    /// [`on_evict`](DatabaseBuilder::on_evict) is told.
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove), but conflicts.
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
            // That it was not there may be news that is not stable yet.
            None => self.shared.stable_at(committer.clock.applied()).await.map(|()| false),
            Some(timestamp) => self.shared.acknowledged(timestamp).await.map(|()| true),
        }
    }

    /// What is known of every key, for choosing what to [`evict`](Self::evict): a stream over
    /// a snapshot, in the order of the keys. How keys are used is noted under a memory limit
    /// only.
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

    /// Removes `key`, and returns what it held.
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

    /// Replaces what `key` holds by what `change` makes of it, and returns the
    /// new value; or does nothing and returns `None` if it holds nothing. It expires when it
    /// was going to. `change` runs again if another transaction gets in between.
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

    /// Puts `new` under `key` (or removes it, for `None`) if the key holds
    /// `expected` (`None`: nothing), and returns whether it did. A value that replaces another
    /// expires when that one was going to, as with [`update`](Self::update).
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

    /// What `key` holds, or what `make` makes, which is then put there. `make`
    /// runs at most once.
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

    /// Removes what has expired, the versions that nobody can see any more, and the deleted
    /// keys, and gives back the memory that finding, ordering and choosing these keys took: see
    /// [`MemoryInfo::spare_bytes`].
    ///
    /// Commits do this as they go; it is worth calling after a long snapshot has
    /// ended and before the database is left alone. Does not hold up commits for
    /// longer than a few hundred keys take. Linear in what there is to remove.
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
    /// Dropping the future ends the work at a good place.
    pub async fn vacuum(&self) -> Result<VacuumStats, FluxError> {
        Ok(self.shared.vacuum())
    }

    /// What the database holds.
    pub fn memory_info(&self) -> MemoryInfo {
        self.shared.committer.memory_info()
    }

    /// How often transactions that kept losing had to be given priority since the database was
    /// opened, and what that cost the others: see [`transact`](Self::transact).
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

    /// Makes everything that has been committed survive a power loss, whatever the
    /// durability level. Does nothing in memory.
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

    /// Writes a checkpoint now: all pairs as they are at some moment during the call,
    /// after which the log up to then is not needed any more. The database does this by
    /// itself as the log fills up. Commits go on meanwhile.
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
    /// [`FluxError::Configuration`] in memory; [`FluxError::Persistence`] if it could
    /// not be written: the one before stays, and so does the log.
    ///
    /// # Cancel safety
    ///
    /// The checkpoint is written also if the future is dropped.
    pub async fn checkpoint(&self) -> Result<CheckpointInfo, FluxError> {
        let checkpointer = self.checkpointer("a checkpoint")?;
        Ok(checkpointer.checkpoint().await?)
    }

    /// Writes a copy of the database, as it is at some moment during the call, into a
    /// directory of its own, which is created if need be, and can be opened as a database
    /// of the same types. Commits go on meanwhile. `progress` is called now and then,
    /// on the thread that writes.
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
    /// [`FluxError::Configuration`] in memory; [`FluxError::Persistence`] if there is a
    /// database in the directory already, or the copy could not be written: its files are removed
    /// then. A copy that was cut short by the death of the process cannot be opened; the next one
    /// into that directory replaces it.
    ///
    /// # Cancel safety
    ///
    /// The copy is written also if the future is dropped.
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

    /// What opening the database found on disk; `None` in memory.
    pub fn recovery_info(&self) -> Option<&RecoveryInfo> {
        self.shared.recovery_info()
    }

    /// Closes the database: syncs all that has been committed, ends background work, closes the
    /// files, and drops what is stored, before this returns. Dropping the last clone does the
    /// same, without a place to report errors.
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
    /// # Errors
    ///
    /// [`FluxError::StillOpen`] if something else holds the database: other clones,
    /// transactions, snapshots, with how many there are of each. All that has been committed is
    /// synced then, this clone is given back, and the database closes with the last of them.
    ///
    /// [`FluxError::FatalPersistenceError`] if the log has failed, or fails now;
    /// [`FluxError::Persistence`] if the last checkpoint could not be written, which loses
    /// nothing that is in the log. This clone has been given back nevertheless.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives this clone back, too.
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
            // It joins threads, which may have to wait for the disk.
            Some(_) => host.run("fluxmap-close", move || self.give_back()).await?,
        };
        flushed.and(given_back)
    }

    /// Drops this clone, and says who else holds the database if it was not the last that did.
    fn give_back(self) -> Result<(), FluxError> {
        let active = &self.shared.committer.active;
        let (snapshots, transactions) =
            (active.count_of(ReaderKind::Snapshot), active.count_of(ReaderKind::Transaction));
        // Every snapshot and transaction holds it once, and so does every clone.
        let others = Arc::strong_count(&self.shared) - 1;
        let readers = snapshots + transactions;
        let clones = others.saturating_sub(readers);
        // Decided in one step: of two clones that are closed at once, one is the last.
        match Arc::into_inner(self.shared) {
            Some(last) => {
                drop(last);
                Ok(())
            }
            None => {
                // Somebody may have cloned it since it was counted.
                let clones = if readers == 0 { clones.max(1) } else { clones };
                Err(FluxError::StillOpen { clones, transactions, snapshots })
            }
        }
    }

    /// The database, for whoever must not keep it open, such as the listener of
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
