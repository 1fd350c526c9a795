//! Extra methods for model tests, which compare a database with an account of their own: every published
//! version, the read points, and the watermarks.

use crate::builder::{BuilderState, DatabaseBuilder};
use crate::db::{Database, Handle, Snapshot, Transaction};
use crate::key::{Key, Value};
use crate::txn::own;
pub use fluxmap_index::ReadPoint;
use fluxmap_index::{Time, Timestamp};
use std::sync::Arc;

impl<K: Key, V: Value> Snapshot<K, V> {
    /// Returns the point at which this snapshot reads.
    pub fn read_point(&self) -> ReadPoint {
        self.view.read_point()
    }
}

impl<K: Key, V: Value> Transaction<K, V> {
    /// Returns the point at which this transaction reads.
    pub fn read_point(&self) -> ReadPoint {
        self.view().read_point()
    }
}

impl<K: Key, V: Value> Handle<'_, K, V> {
    /// Returns the open transaction.
    pub fn open_transaction(&self) -> Option<&Transaction<K, V>> {
        self.transaction_ref()
    }
}

impl<K: Key, V: Value> Database<K, V> {
    /// Returns whether the calling thread runs the body of a transaction that holds the present lease.
    pub fn holds_lease(&self) -> bool {
        self.shared.priority.left(own::current()).is_some()
    }

    /// Returns the newest applied commit, and the newest stable one.
    pub fn watermarks(&self) -> (Timestamp, Timestamp) {
        // Read stable first: it never passes applied, and both only grow, so the pair is in order.
        let stable = self.shared.committer.clock.stable();
        (self.shared.committer.clock.applied(), stable)
    }
}

impl<K, V, S: BuilderState> DatabaseBuilder<K, V, S> {
    /// Calls `observer` with every published version, recovery included, before any reader can see it:
    /// the timestamp, the key, the value or `None` for a delete, and when it expires.
    pub fn observer(
        mut self,
        observer: impl FnMut(Timestamp, &K, Option<&Arc<V>>, Time) + Send + 'static,
    ) -> Self {
        self.memory.observer = Some(Box::new(observer));
        self
    }
}
