//! A snapshot: a read-only view of one moment.

use crate::error::FluxError;
use crate::key::{Key, KeyRange, Prefix, Query, Span, Value};
use crate::txn::scan::{Cursor, View};
use crate::txn::stream::SnapshotStream;
use fluxmap_index::Direction;
use std::borrow::Borrow;
use std::fmt;
use std::iter::FusedIterator;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// The database as it was at one moment: from
/// [`Database::snapshot`](crate::Database::snapshot).
///
/// Owned, `'static`, `Send`, `Sync` and cheap to clone. Its reads never wait,
/// never fail because of others, and nothing tracks them. While it, a clone or
/// an iterator of it lives, the versions that it can see are kept.
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

    /// What `key` held. Expected constant time.
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

    /// What each of `keys` held, in their order. Expected constant time for each; in a large
    /// database faster than one [`get`](Self::get) after the other: see
    /// [`Transaction::get_many`].
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

    /// The values under `keys`, in their order. As many keys as you like; where they are few and
    /// their number is known, [`get_many`](Self::get_many) allocates nothing. Expected constant
    /// time for each.
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

    /// Whether `key` held anything.
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

    /// How long what `key` held had left; `None` if it held nothing or does not expire.
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

    /// The pairs of a range, lazily, from either end. It copies every key; to go over many
    /// pairs, [`visit`](SnapshotRange::visit) them.
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
    /// The iterator does if the snapshot is ended by `max_snapshot_age`, which is off by
    /// default, before it has passed all pairs: to end early would be to say that there are
    /// no more. Use [`try_next`](SnapshotRange::try_next) or
    /// [`range_stream`](Self::range_stream) where that may happen.
    pub fn range(&self, range: impl KeyRange<K>) -> SnapshotRange<K, V> {
        SnapshotRange::new(&self.view, Span::range(range))
    }

    /// The pairs whose keys start with `prefix`, lazily, from either end.
    ///
    /// # Panics
    ///
    /// As [`range`](Self::range).
    pub fn prefix(&self, prefix: impl Prefix<K>) -> SnapshotRange<K, V> {
        SnapshotRange::new(&self.view, Span::prefix(prefix))
    }

    /// [`range`](Self::range) as a stream that gives the executor a turn now and
    /// then.
    pub fn range_stream(&self, range: impl KeyRange<K>) -> SnapshotStream<K, V> {
        SnapshotStream::new(self.range(range))
    }

    /// [`prefix`](Self::prefix) as a stream.
    pub fn prefix_scan_stream(&self, prefix: impl Prefix<K>) -> SnapshotStream<K, V> {
        SnapshotStream::new(self.prefix(prefix))
    }

    /// The smallest key, with what it held.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn first(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        Cursor::end(Span::range(..), self.view.at(), Direction::Forward)
    }

    /// The greatest key, with what it held.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn last(&self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        Cursor::end(Span::range(..), self.view.at(), Direction::Backward)
    }

    /// How many keys a range held. Linear in what it counts.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn count(&self, range: impl KeyRange<K>) -> Result<usize, FluxError> {
        self.view.count(Span::range(range))
    }

    /// How many keys there were, by counting them: [`count(..)`](Self::count).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn len(&self) -> Result<usize, FluxError> {
        self.count(..)
    }

    /// Whether there was no key. Logarithmic time.
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

/// The pairs of a range or prefix in a snapshot: from [`Snapshot::range`] and
/// [`Snapshot::prefix`]. Lazy, double-ended, and free of the snapshot's lifetime.
pub struct SnapshotRange<K: Key, V: Value> {
    view: Arc<View<K, V>>,
    cursor: Cursor<K, V>,
}

impl<K: Key, V: Value> SnapshotRange<K, V> {
    fn new(view: &Arc<View<K, V>>, span: Span<K>) -> Self {
        SnapshotRange { view: Arc::clone(view), cursor: Cursor::new(span) }
    }

    /// [`next`](Iterator::next), with a place for errors.
    ///
    /// # Errors
    ///
    /// [`FluxError::SnapshotTooOld`] if the snapshot has been open for longer than
    /// `max_snapshot_age`.
    pub fn try_next(&mut self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        self.cursor.try_pop(self.view.at(), Direction::Forward)
    }

    /// [`next_back`](DoubleEndedIterator::next_back), with a place for errors.
    ///
    /// # Errors
    ///
    /// As [`try_next`](Self::try_next).
    pub fn try_next_back(&mut self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        self.cursor.try_pop(self.view.at(), Direction::Backward)
    }
}

impl<K: Key, V: Value> SnapshotRange<K, V> {
    /// Shows the pairs that are left to `visit`, in ascending order, until it breaks or there
    /// are no more; returns what it broke with. The fastest way to go over many pairs:
    /// neither keys nor reference counts are touched. Whoever wants to keep a value clones
    /// its [`Arc`].
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
    /// Logarithmic time to the first pair, then constant for each.
    ///
    /// `visit` may use the database as it likes, commits included; they do not change what
    /// it is shown. No lock is held while it runs. What others replace or delete meanwhile
    /// is not freed before it returns, so where it takes milliseconds for a pair, iterate
    /// instead. (However many pairs it is shown, memory waits for a few of them only.) If it
    /// panics, that is all that happens.
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

/// What the iterator does where it cannot report an error.
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
