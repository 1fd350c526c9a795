//! Deletes that no transaction asked for: to make room, because a key has expired, or by
//! an explicit `evict`.
//!
//! To everybody else they are commits: with a timestamp of their own, in the log, and
//! transactions that have read the key are certified against them. How they are made, without a
//! lock around the keys' own code, is in `removal.rs`.

use crate::commit::dispose::dispose;
use crate::commit::{Committer, Order};
use crate::error::FluxError;
use crate::mem::notify::{Told, tell};
use crate::mem::removal::{Need, Removal};
use fluxmap_index::{Time, Timestamp};
use std::hash::Hash;
use std::mem;
use std::sync::Arc;

/// Why a key went without a transaction that removed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EvictionCause {
    /// The memory limit was reached.
    Capacity,
    /// Its time was over.
    Expired,
    /// [`Database::evict`](crate::Database::evict) was called.
    Explicit,
}

/// Is told of evictions.
pub(crate) type Listener<K, V> = Arc<dyn Fn(K, Arc<V>, EvictionCause) + Send + Sync>;

/// How many keys went, for each cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Evictions {
    /// Because the memory limit was reached.
    pub capacity: u64,
    /// Because their time was over.
    pub expired: u64,
    /// By [`Database::evict`](crate::Database::evict).
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

/// Keys that went, to be reported where no lock is held.
pub(crate) struct Gone<K, V> {
    pub(crate) keys: Told<K, V>,
    wanted: bool,
}

impl<K, V> Gone<K, V> {
    /// Keeps what is recorded only if it is wanted.
    pub(crate) fn new(wanted: bool) -> Self {
        Gone { keys: Vec::new(), wanted }
    }

    /// Whether keys that go are to be added with what there is to tell of them.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Another one went. `None` if nobody is to be told.
    pub(crate) fn add(&mut self, told: Option<(K, Arc<V>, EvictionCause)>) {
        self.keys.extend(told);
    }
}

/// Keys that went, of which the listener is told when this is dropped, whatever panics before.
pub(crate) struct Telling<'l, K: 'static, V: 'static> {
    pub(crate) gone: Gone<K, V>,
    listener: Option<&'l Listener<K, V>>,
}

impl<'l, K, V> Telling<'l, K, V> {
    pub(crate) fn new(listener: Option<&'l Listener<K, V>>) -> Self {
        Telling { gone: Gone::new(listener.is_some()), listener }
    }
}

impl<K, V> Drop for Telling<'_, K, V> {
    fn drop(&mut self) {
        if let Some(listener) = self.listener {
            tell(listener, mem::take(&mut self.gone.keys));
        }
    }
}

impl<K: Ord + Hash + Clone + 'static, V: 'static> Committer<K, V> {
    /// Goes on making room until there is no more need for it, where no lock is held.
    pub(crate) fn go_on_making_room(&self, removal: &mut Removal<'_, '_, K, V>, need: &mut Need) {
        while removal.goes_on() {
            removal.prepare();
            let mut order = self.order.lock();
            let removed = removal.make_room(&mut order, need);
            let freed = order.after_publish(removed, self);
            drop(order);
            self.after_removal(removed > 0);
            dispose(freed);
        }
    }

    /// Removes some of the keys that have expired, and returns when more are to be removed;
    /// `None` also if the log has failed, and none can be.
    pub(crate) fn reap(&self) -> Option<Time> {
        let mut telling = Telling::new(self.listener.as_ref());
        self.remove_expired(&mut telling.gone).ok().flatten()
    }

    /// Removes some of the keys that have expired, and returns when the next one will have.
    pub(crate) fn remove_expired(&self, gone: &mut Gone<K, V>) -> Result<Option<Time>, FluxError> {
        let mut order = self.order.lock();
        let now = self.hand.advance();
        if order.keeper.timers.expired(now).is_none() {
            return Ok(order.set_alarm());
        }
        let reader = self.reader();
        let mut removal = Removal::new(self, &reader, gone);
        removal.pick_expired(&mut order, now);
        if removal.goes_on() && removal.must_prepare() {
            drop(order);
            removal.prepare();
            order = self.order.lock();
        }
        let removed = removal.remove_picked(&mut order, self.clock.applied() + 1);
        let spent = removal.end();
        // Before it is unlocked: while this reader looks, nobody can free what has gone.
        drop(reader);
        let next = order.set_alarm();
        let count = removed.as_ref().map_or(0, |removed| *removed);
        let freed = order.after_publish(count, self);
        drop(order);
        self.after_removal(count > 0);
        drop(spent);
        dispose(freed);
        removed.map(|_| next)
    }

    /// Removes a key to make room, if `is_it` finds it among those with this hash. Returns the
    /// timestamp of that commit.
    pub(crate) fn evict(
        &self,
        hash: u64,
        is_it: impl Fn(&K) -> bool,
    ) -> Result<Option<Timestamp>, FluxError> {
        let mut telling = Telling::new(self.listener.as_ref());
        let reader = self.reader();
        // Without the lock: `Eq`, encoding and copying are the key's own code.
        let Some(found) = reader.resident(hash, |resident| is_it(resident.key())) else {
            // It may have gone in a commit that is not visible yet: wait for that.
            drop(self.order.lock());
            return Ok(None);
        };
        let mut removal = Removal::new(self, &reader, &mut telling.gone);
        removal.pick_found(hash, found)?;
        let mut order = self.order.lock();
        removal.renew_picked(self.hand.advance());
        let timestamp = self.clock.applied() + 1;
        let removed = removal.remove_picked(&mut order, timestamp)?;
        let freed = order.after_publish(removed, self);
        drop(order);
        self.after_removal(removed > 0);
        drop(removal);
        drop(reader);
        dispose(freed);
        Ok((removed > 0).then_some(timestamp))
    }

    /// After deletes have been queued for the log, outside the commit lock.
    pub(crate) fn after_removal(&self, has_removed: bool) {
        if let (true, Some(durable)) = (has_removed, &self.durable) {
            durable.log.after_commit();
        }
    }
}

impl<K, V> Order<K, V> {
    /// Notes when the background thread will look for expired keys, and returns that.
    fn set_alarm(&mut self) -> Option<Time> {
        let next = self.keeper.timers.next();
        self.alarm = next.unwrap_or(Time::MAX);
        next
    }
}
