//! Deletes outside of transactions: to make room, because a key has expired, or by an explicit `evict`.
//!
//! To the rest of the database such deletes are commits: they have a timestamp and are in the log, and
//! transactions that have read the key are certified against them. `removal.rs` makes them, without a
//! lock around the user code of the keys.

use crate::commit::drop_deferred::drop_deferred;
use crate::commit::{CommitSection, Committer};
use crate::error::FluxError;
use crate::mem::notify::{Told, tell};
use crate::mem::removal::{Need, Removal};
use fluxmap_index::{Time, Timestamp};
use std::hash::Hash;
use std::mem;
use std::sync::Arc;

/// The reason why a key was removed outside of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EvictionCause {
    /// The memory limit was reached.
    Capacity,
    /// The key's time to live was over.
    Expired,
    /// [`Database::evict`](crate::Database::evict) was called.
    Explicit,
}

/// The callback of [`on_evict`](crate::DatabaseBuilder::on_evict).
pub(crate) type Listener<K, V> = Arc<dyn Fn(K, Arc<V>, EvictionCause) + Send + Sync>;

/// The number of keys removed outside of transactions, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Evictions {
    /// Keys removed because the memory limit was reached.
    pub capacity: u64,
    /// Keys removed because their time to live was over.
    pub expired: u64,
    /// Keys removed by [`Database::evict`](crate::Database::evict).
    pub explicit: u64,
}

impl Evictions {
    pub(crate) fn count(&mut self, cause: EvictionCause) {
        match cause {
            EvictionCause::Capacity => self.capacity += 1,
            EvictionCause::Expired => self.expired += 1,
            EvictionCause::Explicit => self.explicit += 1,
        }
    }
}

/// Removed keys, to be reported where no lock is held.
pub(crate) struct Evicted<K, V> {
    pub(crate) keys: Told<K, V>,
    wanted: bool,
}

impl<K, V> Evicted<K, V> {
    /// Creates an empty list that keeps the added keys only if they are `wanted`.
    pub(crate) fn new(wanted: bool) -> Self {
        Evicted { keys: Vec::new(), wanted }
    }

    /// Returns whether removed keys should be added, with their values and causes.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Adds a removed key; `None` if it is not reported.
    pub(crate) fn add(&mut self, told: Option<(K, Arc<V>, EvictionCause)>) {
        self.keys.extend(told);
    }
}

/// Removed keys. Dropping this value reports them to the listener, even if a panic comes before.
pub(crate) struct NotifyOnDrop<'l, K: 'static, V: 'static> {
    pub(crate) evicted: Evicted<K, V>,
    listener: Option<&'l Listener<K, V>>,
}

impl<'l, K, V> NotifyOnDrop<'l, K, V> {
    pub(crate) fn new(listener: Option<&'l Listener<K, V>>) -> Self {
        NotifyOnDrop { evicted: Evicted::new(listener.is_some()), listener }
    }
}

impl<K, V> Drop for NotifyOnDrop<'_, K, V> {
    fn drop(&mut self) {
        if let Some(listener) = self.listener {
            tell(listener, mem::take(&mut self.evicted.keys));
        }
    }
}

impl<K: Ord + Hash + Clone + 'static, V: 'static> Committer<K, V> {
    /// Makes room until no more is needed. Call it without any lock held.
    pub(crate) fn go_on_making_room(&self, removal: &mut Removal<'_, '_, K, V>, need: &mut Need<'_>) {
        while removal.goes_on() {
            removal.prepare();
            let mut section = self.section.lock();
            let removed = removal.make_room(&mut section, need);
            let freed = section.after_publish(removed, self);
            drop(section);
            self.after_removal(removed > 0);
            drop_deferred(freed);
        }
    }

    /// Removes some of the expired keys, and returns when more are to be removed. Returns `None` also if
    /// the log has failed, because then no key can be removed.
    pub(crate) fn remove_expired(&self) -> Option<Time> {
        let mut notify = NotifyOnDrop::new(self.listener.as_ref());
        self.remove_expired_into(&mut notify.evicted).ok().flatten()
    }

    /// Removes some of the expired keys, and returns when the next key expires.
    pub(crate) fn remove_expired_into(&self, evicted: &mut Evicted<K, V>) -> Result<Option<Time>, FluxError> {
        let mut section = self.section.lock();
        let now = self.expiry_clock.advance();
        if section.ledger.timers.expired(now).is_none() {
            return Ok(section.set_next_wakeup());
        }
        let reader = self.reader();
        let mut removal = Removal::new(self, &reader, evicted);
        removal.pick_expired(&mut section, now);
        if removal.goes_on() && removal.must_prepare() {
            drop(section);
            removal.prepare();
            section = self.section.lock();
        }
        let removed = removal.remove_picked(&mut section, self.clock.applied() + 1);
        let spent = removal.end();
        // Drop the reader before the lock is released: while its pin lasts, nothing can free the removed
        // versions.
        drop(reader);
        let next = section.set_next_wakeup();
        let count = removed.as_ref().map_or(0, |removed| *removed);
        let freed = section.after_publish(count, self);
        drop(section);
        self.after_removal(count > 0);
        drop(spent);
        drop_deferred(freed);
        removed.map(|_| next)
    }

    /// Removes the key with this hash that `is_it` accepts, to make room. Returns the timestamp of that
    /// commit; `None` if there is no such key.
    pub(crate) fn evict(
        &self,
        hash: u64,
        is_it: impl Fn(&K) -> bool,
    ) -> Result<Option<Timestamp>, FluxError> {
        let mut notify = NotifyOnDrop::new(self.listener.as_ref());
        let reader = self.reader();
        // Search without the lock, because `Eq`, encoding and copying are user code of the key.
        let Some(found) = reader.resident(hash, |resident| is_it(resident.key())) else {
            // A commit that is not visible yet may have removed the key: wait for that commit.
            drop(self.section.lock());
            return Ok(None);
        };
        let mut removal = Removal::new(self, &reader, &mut notify.evicted);
        removal.pick_found(hash, found)?;
        let mut section = self.section.lock();
        removal.renew_picked(self.expiry_clock.advance());
        let timestamp = self.clock.applied() + 1;
        let removed = removal.remove_picked(&mut section, timestamp)?;
        let freed = section.after_publish(removed, self);
        drop(section);
        self.after_removal(removed > 0);
        drop(removal);
        drop(reader);
        drop_deferred(freed);
        Ok((removed > 0).then_some(timestamp))
    }

    /// Wakes the log after deletes have been queued for it. Call it outside the commit lock.
    pub(crate) fn after_removal(&self, has_removed: bool) {
        if let (true, Some(durable)) = (has_removed, &self.durable) {
            durable.log.after_commit();
        }
    }
}

impl<K, V> CommitSection<K, V> {
    /// Records when the background thread looks for expired keys next, and returns that time.
    fn set_next_wakeup(&mut self) -> Option<Time> {
        let next = self.ledger.timers.next();
        self.next_wakeup = next.unwrap_or(Time::MAX);
        next
    }
}
