//! What a model asks a database beside its public surface, to hold it against an account of its
//! own: every version that is published, where reads stand, and how far commits have come.

use crate::builder::{BuilderState, DatabaseBuilder};
use crate::db::{Database, Snapshot, Transaction};
use crate::key::{Key, Value};
use fluxmap_index::{Moment, Time, Timestamp};
use std::sync::Arc;

/// Where the reads of a snapshot or a transaction stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPoint {
    /// The commit after which they read.
    pub timestamp: Timestamp,
    /// The time by which it is decided what has expired, in milliseconds since 1970, or zero.
    pub time: Time,
}

impl From<Moment> for ReadPoint {
    fn from(Moment { timestamp, time }: Moment) -> Self {
        ReadPoint { timestamp, time }
    }
}

impl<K: Key, V: Value> Snapshot<K, V> {
    /// Where it reads.
    pub fn read_point(&self) -> ReadPoint {
        self.view.moment().into()
    }
}

impl<K: Key, V: Value> Transaction<K, V> {
    /// Where it reads.
    pub fn read_point(&self) -> ReadPoint {
        self.view().moment().into()
    }
}

impl<K: Key, V: Value> Database<K, V> {
    /// The newest commit that is applied, and the newest that is stable.
    pub fn watermarks(&self) -> (Timestamp, Timestamp) {
        // Stable first: it follows, so what is read later may only be further.
        let stable = self.shared.committer.clock.stable();
        (self.shared.committer.clock.applied(), stable)
    }
}

impl<K, V, S: BuilderState> DatabaseBuilder<K, V, S> {
    /// Shows `observer` every version that is published, recovery included, before anybody can
    /// read it: its timestamp, the key, the value or that it was deleted, when it expires.
    pub fn observer(
        mut self,
        observer: impl FnMut(Timestamp, &K, Option<&Arc<V>>, Time) + Send + 'static,
    ) -> Self {
        self.memory.observer = Some(Box::new(observer));
        self
    }
}
