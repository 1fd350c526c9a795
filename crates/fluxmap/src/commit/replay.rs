//! Commits that are read back from the files, before the database is in use.

use super::drop_deferred::drop_deferred;
use super::{CommitSection, Committer};
use crate::mem::Evictions;
use crate::mem::evict::Evicted;
use crate::mem::removal::{Need, Removal};
use crate::sync::Ordering;
use crate::txn::write_set::{Put, Write};
use fluxmap_index::Timestamp;
use std::hash::Hash;

/// The memory limit may be exceeded by one part in so many: while files are read, and when all have been
/// read.
const ALLOWED_MEANWHILE: u64 = 8;
const ALLOWED_AT_LAST: u64 = 64;

impl<K: Ord + Hash + Clone + 'static, V: 'static> Committer<K, V> {
    /// Applies a commit that was read back, like [`commit`](Self::commit) but at a known timestamp. The
    /// database must not be in use yet. Values without an expiry time get the default time to live, if
    /// there is one.
    pub(crate) fn replay_commit(
        &self,
        timestamp: Timestamp,
        writes: impl ExactSizeIterator<Item = (K, Write<V>)>,
    ) {
        let reader = self.reader();
        let mut batch = reader.batch(writes.len());
        // The time to live counts from now: the files do not record when a value was written.
        let end = self.default_ttl.map(|default_ttl| self.expiry_clock.after(default_ttl));
        for (key, mut write) in writes {
            if let (Some(Put { expires: expires @ 0, .. }), Some(end)) = (&mut write, end) {
                *expires = end;
                self.gave_default_ttl.store(true, Ordering::Relaxed);
            }
            self.prepare(&mut batch, key, write);
        }
        let mut section = self.section.lock();
        let CommitSection { writer, ledger, .. } = &mut *section;
        writer.stage(&mut batch).publish(timestamp, ledger);
        section.make_visible(timestamp, self, None::<()>);
        let freed = section.after_publish(batch.len(), self);
        drop(section);
        drop(batch);
        drop(reader);
        drop_deferred(freed);
    }

    /// Evicts from the keys read back so far, and adds the evicted keys to `evicted`; there is no log yet
    /// to record their removal. Until all files have been read, the limit may be exceeded by an eighth:
    /// at some points of the log the data may have been larger than the limit by one commit, before its
    /// evictions follow. At the end, a small excess may stay until the next commit: the size of the
    /// index depends on the order of writes, and data that was within the limit should not be evicted
    /// because the index has one block more than before.
    pub(crate) fn keep_limit(&self, is_all: bool, evicted: &mut Vec<K>) {
        let mut removed = Evicted::new(true);
        let reader = self.reader();
        let mut removal = Removal::new(self, &reader, &mut removed);
        let mut section = self.section.lock();
        let Some(budget) = &mut section.ledger.budget else { return };
        budget.allow(budget.limit() / if is_all { ALLOWED_AT_LAST } else { ALLOWED_MEANWHILE });
        if let Some(mut need) = Need::all(&section, self, None, None) {
            let count = removal.make_room(&mut section, &mut need);
            let freed = section.after_publish(count, self);
            drop(section);
            drop_deferred(freed);
            self.go_on_making_room(&mut removal, &mut need);
            section = self.section.lock();
        }
        if is_all {
            section.ledger.budget.iter_mut().for_each(|budget| budget.allow(0));
            // Evictions while the files were read do not count as evictions of the open database.
            section.ledger.evictions = Evictions::default();
        }
        drop(section);
        drop(removal);
        evicted.extend(removed.keys.into_iter().map(|(key, ..)| key));
    }

    /// Sets the clock to the last commit that was read back, and the expiry clock to the present. A
    /// first reader may find the commit lock taken by the background thread, so it could not move the
    /// expiry clock itself, and it must not see keys that expired while the database was closed.
    pub(crate) fn settle(&self, timestamp: Timestamp) {
        let _section = self.section.lock();
        self.clock.apply(timestamp);
        self.expiry_clock.advance();
    }
}
