//! A transaction's buffered writes, and its savepoints.
//!
//! While there are savepoints, an undo log keeps the write that each new write replaced, and a rollback
//! applies it from the end.

use crate::key::Query;
use crate::txn::sorted::Sorted;
use fluxmap_index::{Time, has_expired};
use std::borrow::Borrow;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A value to write.
pub(crate) struct Put<V> {
    pub(crate) value: Arc<V>,
    /// When the value expires; zero for never.
    pub(crate) expires: Time,
}

impl<V> Put<V> {
    /// A value that does not expire.
    pub(crate) fn lasting(value: Arc<V>) -> Self {
        Put { value, expires: 0 }
    }

    /// Returns whether the value has not expired at `time`.
    pub(crate) fn is_there(&self, time: Time) -> bool {
        !has_expired(self.expires, time)
    }
}

impl<V> Clone for Put<V> {
    fn clone(&self) -> Self {
        Put { value: Arc::clone(&self.value), expires: self.expires }
    }
}

/// A value to write, or `None` to delete.
pub(crate) type Write<V> = Option<Put<V>>;

/// Buffered writes, in key order.
pub(crate) struct WriteSet<K, V> {
    writes: Sorted<K, Write<V>>,
    /// Keys, each with the write that was buffered for it before.
    undo: Vec<(K, Option<Write<V>>)>,
    savepoints: Vec<Mark>,
}

struct Mark {
    id: u64,
    /// The length of the undo log.
    undo: usize,
}

/// A point within a transaction to which it can be rolled back: see
/// [`Transaction::savepoint`](crate::Transaction::savepoint).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Savepoint {
    id: u64,
    /// The first savepoint of the transaction, which stands for the transaction: it ends with it.
    first: u64,
}

impl<K, V> Default for WriteSet<K, V> {
    fn default() -> Self {
        WriteSet { writes: Sorted::new(), undo: Vec::new(), savepoints: Vec::new() }
    }
}

impl<K: Ord + Clone, V> WriteSet<K, V> {
    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.writes.len()
    }

    /// Buffers a write. Returns the old value if no rollback can restore it; the caller drops it where
    /// its destructor may use the transaction.
    #[must_use = "drop it outside the lock"]
    pub(crate) fn set(&mut self, key: K, write: Write<V>) -> Write<V> {
        if self.savepoints.is_empty() {
            // Without savepoints nothing can restore the old write.
            return self.writes.insert(key, write).flatten();
        }
        let undo = key.clone();
        let before = self.writes.insert(key, write);
        self.undo.push((undo, before));
        None
    }

    /// Returns the buffered write to a key, if there is one, with the key.
    pub(crate) fn get<Q>(&self, key: &Q) -> Option<(&K, &Write<V>)>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        self.writes.get(key)
    }

    pub(crate) fn writes(&self) -> &Sorted<K, Write<V>> {
        &self.writes
    }

    pub(crate) fn savepoint(&mut self) -> Savepoint {
        // Unique in the process, so that a savepoint of one transaction is not mistaken for another's.
        // Relaxed: only uniqueness is needed.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.savepoints.push(Mark { id, undo: self.undo.len() });
        Savepoint { id, first: self.savepoints[0].id }
    }

    /// Returns whether a savepoint was set here, even if it has ended.
    pub(crate) fn has_set(&self, savepoint: Savepoint) -> bool {
        self.savepoints.first().is_some_and(|first| first.id == savepoint.first)
    }

    /// Undoes every write since the savepoint, and ends the later savepoints. Returns the discarded
    /// writes, to be dropped outside the lock, or `None`, with nothing changed, if the savepoint does
    /// not belong to this transaction. Takes time linear in the writes of the transaction.
    pub(crate) fn rollback_to(&mut self, savepoint: Savepoint) -> Option<impl Sized + use<K, V>> {
        let position = self.savepoints.iter().position(|mark| mark.id == savepoint.id)?;
        let undo = self.savepoints[position].undo;
        // Work on a copy: if a key's `Clone` or `Ord` panics, nothing has changed.
        let mut writes = self.writes.clone();
        for (key, before) in self.undo[undo..].iter().rev() {
            match before {
                Some(write) => drop(writes.insert(key.clone(), write.clone())),
                None => drop(writes.remove(key)),
            }
        }
        self.savepoints.truncate(position + 1);
        let old = std::mem::replace(&mut self.writes, writes);
        Some((old, self.undo.split_off(undo)))
    }
}

/// Writes to be committed: each key once, in key order.
pub(crate) trait Writes<K, V> {
    /// Returns whether `is_such` holds for one of the keys.
    fn any(&self, is_such: impl Fn(&K) -> bool) -> bool;

    fn into_writes(self) -> impl ExactSizeIterator<Item = (K, Write<V>)>;
}

/// A single write.
impl<K, V> Writes<K, V> for (K, Write<V>) {
    fn any(&self, is_such: impl Fn(&K) -> bool) -> bool {
        is_such(&self.0)
    }

    fn into_writes(self) -> impl ExactSizeIterator<Item = (K, Write<V>)> {
        iter::once(self)
    }
}

impl<K: Ord + Clone, V> Writes<K, V> for WriteSet<K, V> {
    fn any(&self, is_such: impl Fn(&K) -> bool) -> bool {
        self.writes.iter().any(|(key, _)| is_such(key))
    }

    fn into_writes(self) -> impl ExactSizeIterator<Item = (K, Write<V>)> {
        self.writes.into_pairs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: u32) -> Write<u32> {
        Some(Put::lasting(Arc::new(value)))
    }

    fn contents(writes: &WriteSet<&'static str, u32>) -> Vec<(&'static str, Option<u32>)> {
        writes.writes().iter().map(|(key, write)| (*key, write.as_ref().map(|put| *put.value))).collect()
    }

    #[test]
    fn rolling_back_restores_what_a_savepoint_saw_again_and_again() {
        let mut writes = WriteSet::default();
        let _ = writes.set("a", put(1));
        let _ = writes.set("b", None);
        let outer = writes.savepoint();
        let _ = writes.set("a", put(2));
        let _ = writes.set("c", put(3));
        let inner = writes.savepoint();
        let _ = writes.set("b", put(4));
        let _ = writes.set("a", None);
        assert!(writes.rollback_to(inner).is_some());
        assert_eq!(contents(&writes), [("a", Some(2)), ("b", None), ("c", Some(3))]);
        let _ = writes.set("d", put(5));
        assert!(writes.rollback_to(outer).is_some());
        assert_eq!(contents(&writes), [("a", Some(1)), ("b", None)]);
        assert!(writes.rollback_to(inner).is_none(), "it ended with the rollback to an earlier one");
        let _ = writes.set("e", put(6));
        assert!(writes.rollback_to(outer).is_some(), "it stays valid");
        assert_eq!(contents(&writes), [("a", Some(1)), ("b", None)]);
    }

    #[test]
    fn a_savepoint_of_another_transaction_is_refused() {
        let (mut one, mut other) = (WriteSet::<u8, u8>::default(), WriteSet::<u8, u8>::default());
        let savepoint = one.savepoint();
        other.savepoint();
        assert!(other.rollback_to(savepoint).is_none());
    }

    #[test]
    fn an_overwritten_value_is_let_go_at_once() {
        let mut writes = WriteSet::default();
        let value = Arc::new(1);
        let _ = writes.set("a", Some(Put::lasting(Arc::clone(&value))));
        let _ = writes.set("a", put(2));
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
