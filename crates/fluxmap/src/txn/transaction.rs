//! A transaction reads at its snapshot, buffers its writes, and commits them as one.

use crate::error::FluxError;
use crate::info::IsolationLevel;
use crate::key::{Key, KeyRange, KeySpan, Prefix, Query, SpanPart, Value};
use crate::mem::expiry::to_time;
use crate::mvcc::certify::Certificate;
use crate::shared::Open;
use crate::sync::{Mutex, MutexGuard};
use crate::txn::footprint::Footprint;
use crate::txn::overlay::TransactionRange;
use crate::txn::own::OwnCommits;
use crate::txn::priority::{HeldBack, Protects};
use crate::txn::read_set::{RangeId, ReadSet};
use crate::txn::scan::{View, left};
use crate::txn::stream::TransactionStream;
use crate::txn::write_set::{Put, Savepoint, Write, WriteSet, Writes};
use fluxmap_index::{Time, Timestamp, planted};
use std::borrow::Borrow;
use std::fmt;
use std::mem;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// A running transaction: returned by [`Database::begin`](crate::Database::begin), or passed to the
/// closure of [`Database::transact`](crate::Database::transact).
///
/// It reads the database as it was when the transaction began, plus its own writes, which no other
/// reader sees until [`commit`](Self::commit). Dropping it rolls it back. It borrows nothing (no
/// lifetime, `Send`, `Sync`), holds no lock, and may live across awaits. While it lives, the versions
/// that it can see are kept.
///
/// ```
/// use fluxmap::Database;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fluxmap::FluxError> {
/// let db = Database::<String, u32>::builder().build().await?;
/// let tx = db.begin();
/// tx.insert("apples".into(), 3)?;
/// assert_eq!(tx.get("apples")?.as_deref(), Some(&3));
/// assert!(db.get("apples")?.is_none());
/// tx.commit().await?;
/// assert!(db.contains_key("apples")?);
/// # Ok(())
/// # }
/// ```
#[must_use = "a transaction that is dropped is rolled back"]
pub struct Transaction<K: Key, V: Value> {
    view: View<K, V>,
    /// Records the reads that a lease will protect, once the transaction has lost a few times.
    footprint: Option<Arc<Footprint<K>>>,
    state: Mutex<State<K, V>>,
    /// How often the writes have changed, so that scans notice when they must look at them again.
    changes: AtomicUsize,
    /// Present if a lease held the commit back.
    held_back: Option<Box<HeldBack>>,
}

/// The mutable state of a transaction.
pub(crate) struct State<K, V> {
    pub(crate) reads: ReadSet<K>,
    pub(crate) writes: WriteSet<K, V>,
    /// The time that decides which keys have expired: the time of the snapshot, or of the transaction's
    /// first expiring write if nothing else in the database expires.
    pub(crate) time: Time,
}

impl<K: Key, V: Value> Transaction<K, V> {
    pub(crate) fn new(shared: &Arc<Open<K, V>>) -> Self {
        Self::noting(shared, None)
    }

    /// Begins a transaction that records the reads for a lease in `footprint`.
    // Inlined, so that `begin` does not test whether there is a footprint.
    #[inline(always)]
    pub(crate) fn noting(shared: &Arc<Open<K, V>>, footprint: Option<Arc<Footprint<K>>>) -> Self {
        let view = View::newest(shared);
        let (reads, writes) = (ReadSet::default(), WriteSet::default());
        let state = State { reads, writes, time: view.read_point().time };
        let changes = AtomicUsize::new(0);
        Transaction { view, footprint, state: Mutex::new(state), changes, held_back: None }
    }

    pub(crate) fn view(&self) -> &View<K, V> {
        &self.view
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock()
    }

    /// Counts a change of the writes. The caller holds the lock of the state.
    fn note_change(&self) {
        // Load and store suffice, because the lock is held. Relaxed: a thread that has to see the change
        // learns of it through other synchronization.
        self.changes.store(self.changes.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Returns how often the writes have changed.
    pub(crate) fn changes(&self) -> usize {
        self.changes.load(Ordering::Relaxed)
    }

    /// Returns whether reads must be certified.
    fn tracks_reads(&self) -> bool {
        self.isolation_level() == IsolationLevel::Serializable
    }

    pub(crate) fn begin_scan(&self, span: &Arc<KeySpan<K>>) -> Option<RangeId> {
        let part = self.tracks_reads().then(|| SpanPart::whole(Arc::clone(span)))?;
        let scan = self.state().reads.begin_scan(part);
        if let Some(footprint) = &self.footprint {
            footprint.begin_scan(scan, SpanPart::whole(Arc::clone(span)));
        }
        Some(scan)
    }

    /// Replaces the range of a scan by the parts of it that were consumed.
    pub(crate) fn end_scan(&self, scan: RangeId, consumed: impl Iterator<Item = SpanPart<K>>) {
        match &self.footprint {
            None => self.state().reads.end_scan(scan, consumed),
            Some(footprint) => {
                let consumed: Vec<SpanPart<K>> = consumed.collect();
                self.state().reads.end_scan(scan, consumed.clone());
                footprint.end_scan(scan, consumed);
            }
        }
    }

    /// Returns the isolation level, which is that of the database.
    pub fn isolation_level(&self) -> IsolationLevel {
        self.view.shared.level
    }

    /// Reads `key`, from the own writes or the committed state, and records the read.
    fn read<Q, R>(&self, key: &Q, take: impl FnOnce(&K, &Arc<V>, Time) -> R) -> Result<Option<R>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        let committer = &self.view.shared.committer;
        let hash = committer.hash(key);
        let read_point = self.view.read_point();
        {
            let mut state = self.state();
            if let Some((stored, own)) = state.writes.get(key) {
                let own = own.as_ref().filter(|put| put.is_there(state.time));
                return Ok(own.map(|put| take(stored, &put.value, put.expires)));
            }
            if self.tracks_reads() {
                state.reads.note_point(hash);
                if let Some(footprint) = &self.footprint {
                    footprint.note_point(hash);
                }
            }
        }
        let reader = committer.reader();
        let found = reader.resident_at(hash, key, read_point).map(|found| {
            let expires = found.expires();
            take(found.key(), found.value(), expires)
        });
        self.view.check().map(|()| found)
    }

    fn read_put<Q>(&self, key: &Q) -> Result<Option<(K, Put<V>)>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        self.read(key, |stored, value, expires| (stored.clone(), Put { value: Arc::clone(value), expires }))
    }

    /// Returns the value under `key`. Takes expected constant time.
    ///
    /// # Errors
    ///
    /// [`FluxError::SnapshotTooOld`] if the database limits the age of snapshots, and this
    /// transaction has been open for longer; otherwise none.
    pub fn get<Q>(&self, key: &Q) -> Result<Option<Arc<V>>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        self.read(key, |_, value, _| Arc::clone(value))
    }

    /// Returns the values under `keys`, in their order. Counts as a read of each.
    ///
    /// In a database that is larger than the processor's cache, this is faster than one
    /// [`get`](Self::get) after the other: each `get` waits for memory several times, and here these
    /// waits overlap. If everything is in the cache, it costs some tens of nanoseconds more per key.
    /// RocksDB calls this `MultiGet`, Redis `MGET`. Takes expected constant time per key. If the number
    /// of keys is not known when compiling, or if they are too many for the stack (thousands, at some 40
    /// bytes each), use [`get_each`](Self::get_each).
    ///
    /// ```
    /// # use fluxmap::{Database, FluxError};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), FluxError> {
    /// # let db = Database::<String, u64>::builder().build().await?;
    /// # db.insert("alice".into(), 100).await?;
    /// # db.insert("bob".into(), 0).await?;
    /// db.transact(async |tx| {
    ///     let [Some(alice), Some(bob)] = tx.get_many(["alice", "bob"])? else {
    ///         return Ok(());
    ///     };
    ///     tx.insert("alice".into(), *alice - 20)?;
    ///     tx.insert("bob".into(), *bob + 20)
    /// })
    /// .await?;
    /// assert_eq!(db.get_many(["alice", "bob", "cyd"])?.map(|found| found.map(|sum| *sum)), [Some(80), Some(20), None]);
    /// # Ok::<_, FluxError>(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn get_many<Q, const N: usize>(&self, keys: [&Q; N]) -> Result<[Option<Arc<V>>; N], FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        self.view.get_many(keys, |key| self.get(key))
    }

    /// Returns whether `key` has a value. Counts as a read of it.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn contains_key<Q>(&self, key: &Q) -> Result<bool, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        Ok(self.read(key, |_, _, _| ())?.is_some())
    }

    /// Puts `value` under `key`, replacing the old value and its expiry time. This is a blind write:
    /// nothing is read, so at [`IsolationLevel::Serializable`] it cannot conflict.
    ///
    /// # Errors
    ///
    /// None; [`commit`](Self::commit) checks whether there is room.
    pub fn insert(&self, key: K, value: V) -> Result<(), FluxError> {
        self.insert_arc(key, Arc::new(value))
    }

    /// [`insert`](Self::insert) for a value that is shared already, such as one
    /// that a read returned.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn insert_arc(&self, key: K, value: Arc<V>) -> Result<(), FluxError> {
        self.put(key, Put::lasting(value));
        Ok(())
    }

    /// Records a written key at the snapshot level, where a lease protects writes.
    fn note_write(&self, key: &K) {
        if let Some(footprint) = &self.footprint
            && !self.tracks_reads()
        {
            footprint.note_point(self.view.shared.committer.hash(key));
        }
    }

    fn put(&self, key: K, put: Put<V>) {
        self.note_write(&key);
        let mut state = self.state();
        if put.expires != 0 && state.time == 0 {
            state.time = self.view.shared.committer.expiry_clock.now();
        }
        let replaced = state.writes.set(key, Some(put));
        self.note_change();
        drop(state);
        // Drop the old value after the state is unlocked, because its destructor may use the
        // transaction.
        drop(replaced);
    }

    pub(super) fn set(&self, key: K, write: Write<V>) {
        self.note_write(&key);
        let mut state = self.state();
        let replaced = state.writes.set(key, write);
        self.note_change();
        drop(state);
        // Drop the old value after the state is unlocked, because its destructor may use the
        // transaction.
        drop(replaced);
    }

    /// [`insert`](Self::insert) for a value that expires `ttl` from now. From that instant no new reader
    /// sees the value, and its memory is freed soon after. `ttl` is rounded up to whole milliseconds.
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, u32>::builder().build().await?;
    /// let tx = db.begin();
    /// tx.insert_with_ttl("session".into(), 1, Duration::from_secs(1800))?;
    /// assert!(tx.ttl("session")?.is_some_and(|left| left <= Duration::from_secs(1800)));
    /// assert!(tx.persist("session")?);
    /// assert!(tx.ttl("session")?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn insert_with_ttl(&self, key: K, value: V, ttl: Duration) -> Result<(), FluxError> {
        let expires = self.view.shared.committer.expiry_clock.after(ttl);
        self.put(key, Put { value: Arc::new(value), expires });
        Ok(())
    }

    /// Sets the time at which the value under `key` expires to `at`, which may be in the past, and
    /// returns whether the key has a value. Counts as a read and a write of the key.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn expire_at<Q>(&self, key: &Q, at: SystemTime) -> Result<bool, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        // Read the machine's clock, which `at` refers to: it may have been set since the last look.
        self.view.shared.committer.expiry_clock.look();
        self.change_expiry(key, to_time(at))
    }

    /// Returns the time until the value under `key` expires, at the time of the transaction's snapshot;
    /// `None` if there is no value or it does not expire. Counts as a read of the key.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn ttl<Q>(&self, key: &Q) -> Result<Option<Duration>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        let now = self.state().time;
        Ok(self.read(key, |_, _, expires| left(expires, now))?.flatten())
    }

    /// Removes the expiry time of the value under `key`, and returns whether it had one. Under
    /// [`EvictionPolicy::Ttl`](crate::mem::EvictionPolicy::Ttl) the value gets the default time to live
    /// anew.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn persist<Q>(&self, key: &Q) -> Result<bool, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        Ok(self.ttl(key)?.is_some() && self.change_expiry(key, 0)?)
    }

    fn change_expiry<Q>(&self, key: &Q, expires: Time) -> Result<bool, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        let Some((stored, put)) = self.read_put(key)? else {
            return Ok(false);
        };
        self.put(stored, Put { expires, ..put });
        Ok(true)
    }

    /// Removes `key`, and returns the value that it had. Counts as a read of the key.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn remove<Q>(&self, key: &Q) -> Result<Option<Arc<V>>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        let Some((stored, put)) = self.read_put(key)? else {
            return Ok(None);
        };
        self.set(stored, None);
        Ok(Some(put.value))
    }

    /// Replaces the value under `key` by the result of `change`, and returns the new value. Does nothing
    /// and returns `None` if there is no value. The time at which the value expires stays the same.
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, u32>::builder().build().await?;
    /// let tx = db.begin();
    /// tx.insert("n".into(), 1)?;
    /// assert_eq!(tx.update("n", |n| n + 1)?.as_deref(), Some(&2));
    /// assert!(tx.update("m", |m| m + 1)?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get) and [`insert`](Self::insert).
    pub fn update<Q>(&self, key: &Q, change: impl FnOnce(&V) -> V) -> Result<Option<Arc<V>>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        let Some((stored, put)) = self.read_put(key)? else {
            return Ok(None);
        };
        let changed = Arc::new(change(&put.value));
        let expires = if planted("update-drops-the-ttl") { 0 } else { put.expires };
        self.put(stored, Put { value: Arc::clone(&changed), expires });
        Ok(Some(changed))
    }

    /// Puts `new` under `key` (or removes the key, for `None`) if its value is `expected` (`None`: no
    /// value), and returns whether it did. The new value expires when the old one was going to, as with
    /// [`update`](Self::update); where there was none, it never expires (except under
    /// [`EvictionPolicy::Ttl`](crate::mem::EvictionPolicy::Ttl)): follow with
    /// [`insert_with_ttl`](Self::insert_with_ttl) if it should.
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, u32>::builder().build().await?;
    /// let tx = db.begin();
    /// assert!(tx.compare_and_swap("leader".into(), None, Some(7))?);
    /// assert!(!tx.compare_and_swap("leader".into(), None, Some(8))?);
    /// assert!(tx.compare_and_swap("leader".into(), Some(&7), None)?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get) and [`insert`](Self::insert).
    pub fn compare_and_swap(&self, key: K, expected: Option<&V>, new: Option<V>) -> Result<bool, FluxError>
    where
        V: PartialEq,
    {
        self.compare_and_swap_arc(key, expected, new.map(Arc::new))
    }

    pub(crate) fn compare_and_swap_arc(
        &self,
        key: K,
        expected: Option<&V>,
        new: Option<Arc<V>>,
    ) -> Result<bool, FluxError>
    where
        V: PartialEq,
    {
        let present = self.read(&key, |_, value, expires| (Arc::clone(value), expires))?;
        let (present, expires) = present.map_or((None, 0), |(value, expires)| (Some(value), expires));
        if present.as_deref() != expected {
            return Ok(false);
        }
        match new {
            Some(value) => self.put(key, Put { value, expires }),
            None if present.is_some() => self.set(key, None),
            None => {}
        }
        Ok(true)
    }

    /// Returns the value under `key`; if there is none, puts the result of `make` there and returns it.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get) and [`insert`](Self::insert).
    pub fn get_or_insert_with(&self, key: K, make: impl FnOnce() -> V) -> Result<Arc<V>, FluxError> {
        match self.get(&key)? {
            Some(value) => Ok(value),
            None => {
                let value = Arc::new(make());
                self.insert_arc(key, Arc::clone(&value))?;
                Ok(value)
            }
        }
    }

    /// Returns the pairs of a range, lazily, from either end. The iterator sees the transaction's writes
    /// ahead of its position, even those made while it runs: a loop that inserts ahead of its own scan
    /// does not end. It copies every key; to go over many pairs, [`visit`](TransactionRange::visit)
    /// them.
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, u32>::builder().build().await?;
    /// let tx = db.begin();
    /// for (n, name) in ["ada", "bob", "cyd"].into_iter().enumerate() {
    ///     tx.insert(name.into(), n as u32)?;
    /// }
    /// let names: Vec<String> = tx.range("b"..)?.map(|(name, _)| name).collect();
    /// assert_eq!(names, ["bob", "cyd"]);
    /// let last = tx.range(..)?.next_back();
    /// assert_eq!(last.map(|(name, _)| name).as_deref(), Some("cyd"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn range(&self, range: impl KeyRange<K>) -> Result<TransactionRange<'_, K, V>, FluxError> {
        Ok(TransactionRange::new(self, KeySpan::range(range)))
    }

    /// Returns the pairs whose keys start with `prefix`, like [`range`](Self::range).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn prefix(&self, prefix: impl Prefix<K>) -> Result<TransactionRange<'_, K, V>, FluxError> {
        Ok(TransactionRange::new(self, KeySpan::prefix(prefix)))
    }

    /// Like [`range`](Self::range), as a stream that yields to the executor now and then. The
    /// transaction may write while the stream runs.
    pub fn range_stream(&self, range: impl KeyRange<K>) -> TransactionStream<'_, K, V> {
        TransactionStream::new(TransactionRange::new(self, KeySpan::range(range)))
    }

    /// Like [`prefix`](Self::prefix), as a stream.
    pub fn prefix_scan_stream(&self, prefix: impl Prefix<K>) -> TransactionStream<'_, K, V> {
        TransactionStream::new(TransactionRange::new(self, KeySpan::prefix(prefix)))
    }

    /// Returns the smallest key, with its value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn first(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        self.range(..)?.try_next()
    }

    /// Returns the greatest key, with its value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn last(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        self.range(..)?.try_next_back()
    }

    /// Counts the keys of a range. Counts as a read of the whole range. Takes time linear in the number
    /// of keys.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn count(&self, range: impl KeyRange<K>) -> Result<usize, FluxError> {
        let mut count = 0;
        let _ = self.range(range)?.visit(|_, _| {
            count += 1;
            ControlFlow::<()>::Continue(())
        })?;
        Ok(count)
    }

    /// Marks the present state of the transaction's writes, so that [`rollback_to`](Self::rollback_to)
    /// can return to it later.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn savepoint(&self) -> Result<Savepoint, FluxError> {
        Ok(self.state().writes.savepoint())
    }

    /// Undoes every write since `savepoint`, which stays valid; later savepoints end. Reads since then
    /// still count.
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, u32>::builder().build().await?;
    /// let tx = db.begin();
    /// tx.insert("kept".into(), 1)?;
    /// let savepoint = tx.savepoint()?;
    /// tx.insert("kept".into(), 2)?;
    /// tx.insert("dropped".into(), 3)?;
    /// tx.rollback_to(&savepoint)?;
    /// assert_eq!(tx.get("kept")?.as_deref(), Some(&1));
    /// assert!(!tx.contains_key("dropped")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`FluxError::SavepointEnded`] if an earlier savepoint was rolled back to since;
    /// [`FluxError::SavepointOfOtherTransaction`] if the savepoint belongs to another transaction, such
    /// as an earlier attempt of `transact`. Nothing has then been undone.
    pub fn rollback_to(&self, savepoint: &Savepoint) -> Result<(), FluxError> {
        let mut state = self.state();
        let undone = state.writes.rollback_to(*savepoint);
        let is_own = state.writes.has_set(*savepoint);
        self.note_change();
        drop(state);
        match undone {
            Some(_) => Ok(()),
            None if is_own => Err(FluxError::SavepointEnded),
            None => Err(FluxError::SavepointOfOtherTransaction),
        }
    }

    /// Makes all writes visible at once, or none, and returns when everything that was read and written
    /// is as durable as the level says.
    ///
    /// A transaction that has written nothing never conflicts. In a durable database the commit waits
    /// for the log. It also waits if it writes a key that a prioritised transaction, which kept losing
    /// before, has read: see [`Database::transact`](crate::Database::transact).
    ///
    /// # Errors
    ///
    /// [`FluxError::SerializationConflict`] if a key or range that the transaction read has been changed
    /// since it began, or, under [`IsolationLevel::Snapshot`], [`FluxError::WriteConflict`] if a key
    /// that it writes has been. Nothing has then been applied.
    ///
    /// With a memory limit, [`FluxError::ExceedsMemoryLimit`] if its writes are larger than the limit,
    /// and [`FluxError::MemoryLimitExceeded`] if there is no room and no key may be evicted;
    /// [`FluxError::SnapshotTooOld`] if it was open for longer than the database allows. Nothing has
    /// then been applied.
    ///
    /// In a durable database also [`FluxError::Persistence`] if a key or value cannot be stored,
    /// [`FluxError::FatalPersistenceError`] after the log has failed (in both cases nothing has been
    /// applied), and [`FluxError::OutcomeUnknown`] if the log fails now.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it returns has either not committed, and the transaction is
    /// rolled back, or has committed, and the commit becomes durable by itself. In memory it has not
    /// committed.
    pub async fn commit(mut self) -> Result<(), FluxError> {
        let applied = self.apply().await?;
        if self.view.shared.is_stable_at_once() {
            return Ok(());
        }
        let shared = Arc::clone(&self.view.shared);
        // Release the snapshot before waiting: the versions that only it could see need not be kept
        // while the log is written.
        drop(self);
        applied.acknowledged(&shared).await
    }

    /// Commits; the returned value waits for durability. Afterwards the transaction can only be dropped.
    /// (It is borrowed because moving it has a cost.)
    pub(crate) async fn apply(&mut self) -> Result<Applied, FluxError> {
        let Transaction { view, state, held_back, .. } = self;
        let State { reads, writes, .. } = state.get_mut();
        // Drop the sets inside this future: the transaction's lease still covers commits of their
        // destructors.
        let (reads, writes) = (mem::take(reads), mem::take(writes));
        let (has_written, mut timestamp) = (!writes.is_empty(), view.timestamp());
        view.check()?;
        if has_written {
            let shared = &view.shared;
            if !shared.may_commit_at_once() {
                // Wait before the batch is made, because a batch holds a pin.
                let undoes = |protects: &dyn Protects| {
                    writes.any(|key| protects.covers(shared.committer.hash(key), key))
                };
                *held_back = shared.may_commit(undoes).await?;
            }
            let certificate =
                Certificate { level: shared.level, snapshot: view.registration(), reads: &reads };
            timestamp = shared.commit(Some(&certificate), writes.into_writes())?;
        }
        Ok(Applied { timestamp, has_written, held_back: held_back.take() })
    }

    /// Returns whether a lease has held back the commit, which then failed.
    pub(crate) fn was_held_back(&self) -> bool {
        self.held_back.is_some()
    }

    /// Returns whether the body's own commits have changed keys on which this transaction depends, so
    /// that it cannot commit.
    pub(crate) fn is_undone_by(&mut self, own: &OwnCommits) -> bool {
        let Transaction { view, state, .. } = self;
        let State { reads, writes, .. } = state.get_mut();
        let committer = &view.shared.committer;
        let written = writes.writes().iter().map(|(key, _)| committer.hash(key));
        let certificate = Certificate { level: view.shared.level, snapshot: view.registration(), reads };
        !writes.is_empty()
            && certificate.is_undone_by(&committer.reader(), written, |commit| own.contains(commit))
    }

    /// Ends the transaction without a trace, as dropping it does.
    pub fn rollback(self) {}
}

/// A transaction that has committed, and may not be durable yet.
#[must_use = "it is to be waited for before anybody is told"]
pub(crate) struct Applied {
    timestamp: Timestamp,
    has_written: bool,
    /// Present if a lease held the commit back.
    held_back: Option<Box<HeldBack>>,
}

impl Applied {
    /// Waits until everything that was read and written cannot be undone any more.
    pub(crate) async fn acknowledged<K: Key, V: Value>(self, shared: &Open<K, V>) -> Result<(), FluxError> {
        // Keep `held_back` until the end: a task that waits for this commit goes on only after its drop
        // has reported the commit.
        let _held_back = self.held_back;
        match self.has_written {
            true => shared.acknowledged(self.timestamp).await,
            false => shared.stable_at(self.timestamp).await,
        }
    }
}

impl<K: Key, V: Value> fmt::Debug for Transaction<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let writes = self.state().writes.len();
        f.debug_struct("Transaction")
            .field("snapshot", &self.view.timestamp())
            .field("writes", &writes)
            .finish_non_exhaustive()
    }
}
