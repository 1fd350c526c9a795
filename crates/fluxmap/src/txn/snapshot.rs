//! A snapshot: a read-only view of one moment.

use crate::error::FluxError;
use crate::key::{Key, KeyRange, KeySpan, Prefix, Query, Value};
use crate::txn::scan::{Cursor, View};
use crate::txn::stream::SnapshotStream;
use fluxmap_index::Direction;
use std::borrow::Borrow;
use std::fmt;
use std::iter::FusedIterator;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// The database as it was at one moment: returned by [`Database::snapshot`](crate::Database::snapshot).
///
/// Owned, `'static`, `Send`, `Sync` and cheap to clone. Its reads never wait, never conflict, and are
/// not tracked. While the snapshot, a clone or an iterator of it lives, the versions that it can see are
/// kept.
///
/// ```
/// use fluxmap::Database;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fluxmap::FluxError> {
/// let db = Database::<String, u32>::builder().build().await?;
/// db.insert("ada".into(), 1).await?;
/// let before = db.snapshot();
/// db.insert("ada".into(), 2).await?;
/// db.insert("bob".into(), 3).await?;
///
/// assert_eq!(before.get("ada")?.as_deref(), Some(&1));
/// for (name, n) in before.range("a".."c") {
///     println!("{name}: {n}"); // ada: 1
/// }
/// assert_eq!(before.count(..)?, 1);
/// assert_eq!(db.count(..)?, 2);
/// # Ok(())
/// # }
/// ```
#[must_use = "a snapshot is there to be read"]
pub struct Snapshot<K: Key, V: Value> {
    pub(crate) view: Arc<View<K, V>>,
}

impl<K: Key, V: Value> Clone for Snapshot<K, V> {
    fn clone(&self) -> Self {
        Snapshot { view: Arc::clone(&self.view) }
    }
}

impl<K: Key, V: Value> Snapshot<K, V> {
    pub(crate) fn new(view: View<K, V>) -> Self {
        Snapshot { view: Arc::new(view) }
    }

    /// Returns the value under `key`. Takes expected constant time.
    ///
    /// # Errors
    ///
    /// [`FluxError::SnapshotTooOld`] if the database limits the age of snapshots, and this one
    /// has been open for longer; otherwise none.
    pub fn get<Q>(&self, key: &Q) -> Result<Option<Arc<V>>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        self.view.get_with(key, Arc::clone)
    }

    /// Returns the values under `keys`, in their order. Takes expected constant time per key; in a large
    /// database faster than one [`get`](Self::get) after the other: see [`Transaction::get_many`].
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// [`Transaction::get_many`]: crate::Transaction::get_many
    pub fn get_many<Q, const N: usize>(&self, keys: [&Q; N]) -> Result<[Option<Arc<V>>; N], FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        self.view.get_many(keys, |key| self.get(key))
    }

    /// Returns the values under `keys`, in their order. Takes any number of keys; for few keys whose
    /// number is known when compiling, [`get_many`](Self::get_many) allocates nothing. Takes expected
    /// constant time per key.
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
        self.view.get_each(keys, |key| self.get(key))
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
        Ok(self.view.get_with(key, |_| ())?.is_some())
    }

    /// Returns the time until the value under `key` expires, at the snapshot's moment; `None` if there
    /// is no value or it does not expire.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn ttl<Q>(&self, key: &Q) -> Result<Option<Duration>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        self.view.ttl(key)
    }

    /// Returns the pairs of a range, lazily, from either end. The iterator copies every key; to go over
    /// many pairs, [`visit`](SnapshotRange::visit) them.
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # use std::ops::ControlFlow;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, u64>::builder().build().await?;
    /// db.insert("apples".into(), 3).await?;
    /// db.insert("pears".into(), 4).await?;
    /// let view = db.snapshot();
    /// assert_eq!(view.range("b"..).next().map(|(name, _)| name).as_deref(), Some("pears"));
    /// let mut sum = 0;
    /// let _ = view.range(..).visit(|_, number| {
    ///     sum += **number;
    ///     ControlFlow::<()>::Continue(())
    /// })?;
    /// assert_eq!(sum, 7);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// The iterator panics if the snapshot is ended by `max_snapshot_age`, which is off by default,
    /// before all pairs have been passed: ending early would claim that no pair is left. Use
    /// [`try_next`](SnapshotRange::try_next) or [`range_stream`](Self::range_stream) where that may
    /// happen.
    pub fn range(&self, range: impl KeyRange<K>) -> SnapshotRange<K, V> {
        SnapshotRange::new(&self.view, KeySpan::range(range))
    }

    /// Returns the pairs whose keys start with `prefix`, lazily, from either end.
    ///
    /// # Panics
    ///
    /// As [`range`](Self::range).
    pub fn prefix(&self, prefix: impl Prefix<K>) -> SnapshotRange<K, V> {
        SnapshotRange::new(&self.view, KeySpan::prefix(prefix))
    }

    /// Like [`range`](Self::range), as a stream that yields to the executor now and then.
    pub fn range_stream(&self, range: impl KeyRange<K>) -> SnapshotStream<K, V> {
        SnapshotStream::new(self.range(range))
    }

    /// Like [`prefix`](Self::prefix), as a stream.
    pub fn prefix_scan_stream(&self, prefix: impl Prefix<K>) -> SnapshotStream<K, V> {
        SnapshotStream::new(self.prefix(prefix))
    }

    /// Returns the smallest key, with its value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn first(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        Cursor::end(KeySpan::range(..), self.view.at(), Direction::Forward)
    }

    /// Returns the greatest key, with its value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn last(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        Cursor::end(KeySpan::range(..), self.view.at(), Direction::Backward)
    }

    /// Counts the keys of a range. Takes time linear in their number.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn count(&self, range: impl KeyRange<K>) -> Result<usize, FluxError> {
        self.view.count(KeySpan::range(range))
    }

    /// Counts all keys: [`count(..)`](Self::count).
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
        Ok(self.first()?.is_none())
    }
}

impl<K: Key, V: Value> fmt::Debug for Snapshot<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("timestamp", &self.view.timestamp()).finish_non_exhaustive()
    }
}

/// The pairs of a range or prefix in a snapshot: returned by [`Snapshot::range`] and
/// [`Snapshot::prefix`]. Lazy and double-ended; does not borrow the snapshot.
pub struct SnapshotRange<K: Key, V: Value> {
    view: Arc<View<K, V>>,
    cursor: Cursor<K, V>,
}

impl<K: Key, V: Value> SnapshotRange<K, V> {
    fn new(view: &Arc<View<K, V>>, span: KeySpan<K>) -> Self {
        SnapshotRange { view: Arc::clone(view), cursor: Cursor::new(span) }
    }

    /// Like [`next`](Iterator::next), but can return an error.
    ///
    /// # Errors
    ///
    /// [`FluxError::SnapshotTooOld`] if the snapshot has been open for longer than
    /// `max_snapshot_age`.
    pub fn try_next(&mut self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        self.cursor.try_pop(self.view.at(), Direction::Forward)
    }

    /// Like [`next_back`](DoubleEndedIterator::next_back), but can return an error.
    ///
    /// # Errors
    ///
    /// As [`try_next`](Self::try_next).
    pub fn try_next_back(&mut self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        self.cursor.try_pop(self.view.at(), Direction::Backward)
    }
}

impl<K: Key, V: Value> SnapshotRange<K, V> {
    /// Passes the remaining pairs to `visit`, in ascending order, until it breaks or no pair is left;
    /// returns the value of the break. This is the fastest way to go over many pairs, because neither
    /// keys nor reference counts are touched. To keep a value, clone its [`Arc`].
    ///
    /// ```
    /// # use fluxmap::Database;
    /// # use std::ops::ControlFlow;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let db = Database::<String, u64>::builder().build().await?;
    /// for (name, size) in [("a", 300), ("b", 500), ("c", 400), ("d", 100)] {
    ///     db.insert(name.into(), size).await?;
    /// }
    /// // The first key at which the sum exceeds 1000.
    /// let mut sum = 0;
    /// let found = db.snapshot().range(..).visit(|name, size| {
    ///     sum += **size;
    ///     if sum > 1000 { ControlFlow::Break(name.clone()) } else { ControlFlow::Continue(()) }
    /// })?;
    /// assert_eq!(found, ControlFlow::Break("c".to_string()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Takes logarithmic time to the first pair, then constant time per pair.
    ///
    /// `visit` may use the database, and may commit; commits do not change the pairs that it is shown.
    /// No lock is held while it runs. Versions that others replace or delete meanwhile are not freed
    /// before `visit` returns, so if it takes milliseconds per pair, iterate instead. (The delay covers
    /// only a few pairs, however many `visit` is shown.) A panic of `visit` has no further effect.
    ///
    /// # Errors
    ///
    /// [`FluxError::SnapshotTooOld`] if the snapshot is ended by `max_snapshot_age`
    /// meanwhile; otherwise none.
    pub fn visit<B>(
        mut self,
        visit: impl FnMut(&K, &Arc<V>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, FluxError> {
        self.cursor.visit(self.view.at(), Direction::Forward, visit)
    }

    /// [`visit`](Self::visit) in descending order.
    ///
    /// # Errors
    ///
    /// As [`visit`](Self::visit).
    pub fn visit_back<B>(
        mut self,
        visit: impl FnMut(&K, &Arc<V>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, FluxError> {
        self.cursor.visit(self.view.at(), Direction::Backward, visit)
    }
}

/// Unwraps for the iterator, which cannot return an error.
fn expect<T>(next: Result<T, FluxError>) -> T {
    next.unwrap_or_else(|error| panic!("{error}; `try_next` returns this error instead"))
}

impl<K: Key, V: Value> Iterator for SnapshotRange<K, V> {
    type Item = (K, Arc<V>);

    fn next(&mut self) -> Option<Self::Item> {
        expect(self.try_next())
    }

    fn count(self) -> usize {
        expect(self.cursor.count(self.view.at()))
    }
}

impl<K: Key, V: Value> DoubleEndedIterator for SnapshotRange<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        expect(self.try_next_back())
    }
}

impl<K: Key, V: Value> FusedIterator for SnapshotRange<K, V> {}
