//! Commits that are read back, before anybody uses the database.

use super::dispose::dispose;
use super::{Committer, Order};
use crate::mem::Evictions;
use crate::mem::evict::Gone;
use crate::mem::removal::{Need, Removal};
use crate::sync::Ordering;
use crate::txn::write_set::{Put, Write};
use fluxmap_index::Timestamp;
use std::hash::Hash;

/// The parts of the limit by which it may be exceeded while files are read, and at their end.
const ALLOWED_MEANWHILE: u64 = 8;
const ALLOWED_AT_LAST: u64 = 64;

impl<K: Ord + Hash + Clone + 'static, V: 'static> Committer<K, V> {
    /// Applies a commit that was read back: as [`commit`](Self::commit), at a timestamp
    /// that is known. Nobody else may be using the database. Values that do not expire get the
    /// life that every value has, if there is one.
    pub(crate) fn restore(&self, timestamp: Timestamp, writes: impl ExactSizeIterator<Item = (K, Write<V>)>) {
        let reader = self.reader();
        let mut batch = reader.batch(writes.len());
        // From now on: nothing says when they were written.
        let end = self.life.map(|life| self.hand.after(life));
        for (key, mut write) in writes {
            if let (Some(Put { expires: expires @ 0, .. }), Some(end)) = (&mut write, end) {
                *expires = end;
                self.gave_lives.store(true, Ordering::Relaxed);
            }
            self.prepare(&mut batch, key, write);
        }
        let mut order = self.order.lock();
        let Order { writer, keeper, .. } = &mut *order;
        writer.stage(&mut batch).publish(timestamp, keeper);
        order.make_visible(timestamp, self, None::<()>);
        let freed = order.after_publish(batch.len(), self);
        drop(order);
        drop(batch);
        drop(reader);
        dispose(freed);
    }

    /// Evicts from what was read back so far, without a trace in the log, which is not there
    /// yet: the keys are added to `gone`. Until all has been read, an eighth more than the limit
    /// stays: what the log has at some point may have been more than the limit by one commit,
    /// before its evictions follow. Then a little may stay until the next commit: the index
    /// does not take as much as it did with another history, and what has been within the limit
    /// is not to go for a block of it.
    pub(crate) fn keep_limit(&self, is_all: bool, gone: &mut Vec<K>) {
        let mut evicted = Gone::new(true);
        let reader = self.reader();
        let mut removal = Removal::new(self, &reader, &mut evicted);
        let mut order = self.order.lock();
        let Some(books) = &mut order.keeper.books else { return };
        books.allow(books.limit() / if is_all { ALLOWED_AT_LAST } else { ALLOWED_MEANWHILE });
        if let Some(mut need) = Need::all(&order, self, None) {
            let count = removal.make_room(&mut order, &mut need);
            let freed = order.after_publish(count, self);
            drop(order);
            dispose(freed);
            self.go_on_making_room(&mut removal, &mut need);
            order = self.order.lock();
        }
        if is_all {
            order.keeper.books.iter_mut().for_each(|books| books.allow(0));
            // What went while the files were read is not what goes from an open database.
            order.keeper.evictions = Evictions::default();
        }
        drop(order);
        drop(removal);
        gone.extend(evicted.keys.into_iter().map(|(key, ..)| key));
    }

    /// Sets the clock to the last commit that was read back, and the hand to the time: who reads
    /// first may find the lock taken by the background thread, and must not see what has expired
    /// while the database was closed.
    pub(crate) fn settle(&self, timestamp: Timestamp) {
        let _order = self.order.lock();
        self.clock.apply(timestamp);
        self.hand.advance();
    }
}
