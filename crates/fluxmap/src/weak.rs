//! A reference to a database that does not keep it open.

use crate::db::Database;
use crate::key::{Key, Value};
use crate::shared::Open;
use std::fmt;
use std::sync::{Arc, Weak};

/// A reference to a database that can be used while the database is open, but does not keep it open:
/// returned by [`Database::downgrade`].
///
/// Objects that the database itself holds must refer to it in this way, above all the listener of
/// [`on_evict`](crate::DatabaseBuilder::on_evict), and values. A clone of the [`Database`] inside one of
/// them would keep the database open for ever.
///
/// A durable database may call its listener before `build` has returned: for keys that expired while it
/// was closed, and for keys that do not fit under the memory limit. Then there is no database to refer
/// to yet. The listener below leaves these keys to the code after `build`.
///
/// ```
/// use fluxmap::{Database, WeakDatabase};
/// use std::sync::{Arc, OnceLock, mpsc};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fluxmap::FluxError> {
/// // The listener is there before the database.
/// let slot = Arc::new(OnceLock::<WeakDatabase<u64, String>>::new());
/// let listener = Arc::clone(&slot);
/// let (sender, early) = mpsc::channel();
/// let db = Database::builder()
///     .on_evict(move |key, _value, _cause| match listener.get() {
///         // Before `build` has returned, or just after it.
///         None => sender.send(key).unwrap_or_default(),
///         Some(db) => {
///             if let Some(db) = db.upgrade() {
///                 println!("{key} has gone, {} are left", db.memory_info().keys);
///             }
///         }
///     })
///     .build()
///     .await?;
/// slot.set(db.downgrade()).expect("nobody else sets it");
/// for key in early.try_iter() {
///     println!("{key} has gone while the database was opened");
/// }
///
/// db.insert(1, "one".into()).await?;
/// db.evict(&1).await?;
/// db.close().await?; // nothing else holds it
/// assert!(slot.get().and_then(WeakDatabase::upgrade).is_none());
/// # Ok(())
/// # }
/// ```
pub struct WeakDatabase<K: Key, V: Value> {
    shared: Weak<Open<K, V>>,
}

impl<K: Key, V: Value> WeakDatabase<K, V> {
    pub(crate) fn new(shared: &Arc<Open<K, V>>) -> Self {
        WeakDatabase { shared: Arc::downgrade(shared) }
    }

    /// Returns the database, which stays open for as long as the returned clone is held; `None` if it
    /// has been closed.
    pub fn upgrade(&self) -> Option<Database<K, V>> {
        self.shared.upgrade().map(Database::from_shared)
    }
}

impl<K: Key, V: Value> Clone for WeakDatabase<K, V> {
    fn clone(&self) -> Self {
        WeakDatabase { shared: Weak::clone(&self.shared) }
    }
}

impl<K: Key, V: Value> fmt::Debug for WeakDatabase<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakDatabase").finish_non_exhaustive()
    }
}
