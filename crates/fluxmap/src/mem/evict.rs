//! Deletes that no transaction asked for: to make room, because a key has expired, or by
//! an explicit `evict`.
//!
//! To everybody else they are commits: with a timestamp of their own, in the log, and
//! transactions that have read the key are certified against them.

use crate::commit::dispose::dispose;
use crate::commit::{Committer, Order};
use crate::error::FluxError;
use crate::mem::keeper::Victim;
use crate::mem::nodes::{NodeId, Nodes};
use crate::mem::notify::{Told, tell};
use crate::mem::policy::Reads;
use crate::mem::weigher::TOMBSTONE;
use crate::wal::Slot;
use fluxmap_index::{Access, Reader, Resident, Tail, Time, Timestamp, contain, has_expired};
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
    fn count(&mut self, cause: EvictionCause) {
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
    /// All that went, recorded or not.
    count: usize,
}

impl<K, V> Gone<K, V> {
    /// Keeps what is recorded only if it is wanted.
    pub(crate) fn new(wanted: bool) -> Self {
        Gone { keys: Vec::new(), wanted, count: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
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

/// Victims that are let stay, in a row, beside those that the last commit has just written,
/// before making room is given up until the next commit: their keys cannot be stored.
const MOST_SPARED: usize = 64;

/// How often each of these may be chosen before all others have been: as many times as `Lfu`
/// has levels.
const MOST_TURNS: usize = 16;

/// Expired keys removed under one hold of the commit lock.
const REAP_STEP: usize = 64;

/// A commit that consists of such deletes.
struct Removal<'o, K, V> {
    order: &'o mut Order<K, V>,
    shared: &'o Committer<K, V>,
    /// While it is held, the log cannot write (W2).
    slot: Option<Slot<'o>>,
    timestamp: Timestamp,
    cause: EvictionCause,
    record: Vec<u8>,
    removed: usize,
    gone: &'o mut Gone<K, V>,
}

impl<'o, K: Ord + Hash + Clone + 'static, V: 'static> Removal<'o, K, V> {
    fn begin(
        order: &'o mut Order<K, V>,
        shared: &'o Committer<K, V>,
        timestamp: Timestamp,
        cause: EvictionCause,
        gone: &'o mut Gone<K, V>,
    ) -> Result<Self, FluxError> {
        let slot = shared.durable.as_ref().map(|durable| durable.log.reserve()).transpose()?;
        Ok(Removal { order, shared, slot, timestamp, cause, record: Vec::new(), removed: 0, gone })
    }

    /// Deletes a key, unless it cannot be: its type's own code fails.
    fn remove(&mut self, resident: &Resident<'_, K, Arc<V>>) -> bool {
        let before = self.record.len();
        if let Some(durable) = &self.shared.durable {
            let record = &mut self.record;
            let encoded = contain(|| durable.encode(resident.key(), None, record));
            if !matches!(encoded, Some(Ok(()))) {
                self.record.truncate(before);
                return false;
            }
        }
        let told = match self.gone.wanted {
            true => contain(|| (resident.key().clone(), Arc::clone(resident.value()), self.cause)),
            false => None,
        };
        let Order { writer, keeper, .. } = &mut *self.order;
        let tail = keeper.books.is_some().then(|| Tail { weight: TOMBSTONE, ..Tail::default() });
        let is_choice = self.cause == EvictionCause::Capacity;
        keeper.books.iter_mut().for_each(|books| books.set_evicting(is_choice));
        let deleted = writer.delete(resident, tail, self.timestamp, keeper);
        keeper.books.iter_mut().for_each(|books| books.set_evicting(false));
        if !deleted {
            self.record.truncate(before);
            return false;
        }
        keeper.evictions.count(self.cause);
        self.gone.keys.extend(told);
        self.gone.count += 1;
        self.removed += 1;
        true
    }

    /// Makes the deletes visible, all at once. Returns the timestamp, unless there were none.
    fn finish(self) -> Option<Timestamp> {
        if self.removed == 0 {
            return None;
        }
        let slot = self.slot.map(|slot| slot.push(self.timestamp, self.record));
        self.order.make_visible(self.timestamp, self.shared, slot);
        Some(self.timestamp)
    }
}

/// What reads have left on the entries of nodes.
struct Notes<'r, 'i, K, V>(&'r Reader<'i, K, Arc<V>>);

impl<K, V> Notes<'_, '_, K, V> {
    fn resident(&self, hash: u64, node: NodeId) -> Option<Resident<'_, K, Arc<V>>> {
        self.0.resident(hash, |resident| resident.tail().is_some_and(|tail| tail.node == node))
    }
}

impl<K, V> Reads for Notes<'_, '_, K, V> {
    fn of(&self, nodes: &Nodes, node: NodeId) -> Access {
        let resident = self.resident(nodes.get(node).hash, node);
        resident.map_or(Access::default(), |resident| resident.access())
    }

    fn reset(&self, nodes: &Nodes, node: NodeId, access: Access) {
        if let Some(resident) = self.resident(nodes.get(node).hash, node) {
            resident.set_access(access);
        }
    }
}

impl<K: Ord + Hash + Clone + 'static, V: 'static> Order<K, V> {
    /// Evicts until the limit is kept, after a commit at this timestamp of so many keys, which
    /// stay. Without one, which is when nobody reads yet, it makes no commit of its own: what
    /// goes is gone from the one before. Returns how many went.
    pub(crate) fn make_room(
        &mut self,
        shared: &Committer<K, V>,
        written: Option<(Timestamp, usize)>,
        gone: &mut Gone<K, V>,
    ) -> usize {
        let is_over = |order: &Self| order.keeper.is_over(shared.index.structure());
        if !is_over(self) {
            return 0;
        }
        // What is there only for want of somebody who removes it goes first.
        let timestamp = || shared.clock.applied() + u64::from(written.is_some());
        let mut expired = 0;
        while is_over(self) {
            match self.reap(shared, shared.hand.advance(), timestamp(), gone) {
                0 => break,
                reaped => expired += reaped,
            }
        }
        let most_spared = MOST_SPARED + MOST_TURNS * written.map_or(0, |(_, keys)| keys);
        // If the log has failed, nothing grows any more.
        let Ok(mut removal) = Removal::begin(self, shared, timestamp(), EvictionCause::Capacity, gone) else {
            return expired;
        };
        let reader = shared.reader();
        let notes = Notes(&reader);
        let mut spared = 0;
        while spared < most_spared && is_over(removal.order) {
            let Some(books) = &mut removal.order.keeper.books else { break };
            let Some(victim @ Victim { id, hash }) = books.victim(&notes) else { break };
            let stays = |resident: &Resident<'_, K, Arc<V>>| {
                written.is_some_and(|(timestamp, _)| resident.timestamp() == timestamp)
            };
            let resident = notes.resident(hash, id).filter(|resident| !stays(resident));
            if resident.is_some_and(|resident| removal.remove(&resident)) {
                spared = 0;
            } else if let Some(books) = &mut removal.order.keeper.books {
                books.spare(victim);
                spared += 1;
            }
        }
        let removed = removal.removed;
        removal.finish();
        expired + removed
    }

    /// Removes some of the keys that have expired at `now`. Returns how many went.
    pub(crate) fn reap(
        &mut self,
        shared: &Committer<K, V>,
        now: Time,
        timestamp: Timestamp,
        gone: &mut Gone<K, V>,
    ) -> usize {
        if self.keeper.timers.expired(now).is_none() {
            return 0;
        }
        let Ok(mut removal) = Removal::begin(self, shared, timestamp, EvictionCause::Expired, gone) else {
            return 0;
        };
        let reader = shared.reader();
        while removal.removed < REAP_STEP
            && let Some(timer @ (time, hash)) = removal.order.keeper.timers.expired(now)
        {
            let expires = |resident: &Resident<'_, K, Arc<V>>| resident.expires() == time;
            while let Some(resident) = reader.resident(hash, expires) {
                if !removal.remove(&resident) {
                    break;
                }
            }
            removal.order.keeper.timers.forget(timer);
        }
        let removed = removal.removed;
        removal.finish();
        removed
    }
}

impl<K: Ord + Hash + Clone + 'static, V: 'static> Committer<K, V> {
    /// Removes some of the keys that have expired, and returns when more are to be removed.
    pub(crate) fn reap(&self) -> Option<Time> {
        let mut telling = Telling::new(self.listener.as_ref());
        let mut order = self.order.lock();
        let now = self.hand.advance();
        let removed = order.reap(self, now, self.clock.applied() + 1, &mut telling.gone);
        let next = order.keeper.timers.next();
        order.alarm = next.unwrap_or(Time::MAX);
        // If none could be removed, the log has failed, and none can be later.
        let next = next.filter(|next| removed > 0 || *next > now);
        let freed = order.after_publish(removed, self);
        drop(order);
        self.after_removal(removed > 0);
        dispose(freed);
        next
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
        let mut order = self.order.lock();
        let now = self.hand.advance();
        let is_there = |resident: &Resident<'_, K, Arc<V>>| {
            !has_expired(resident.expires(), now) && is_it(resident.key())
        };
        let Some(resident) = reader.resident(hash, is_there) else {
            return Ok(None);
        };
        let mut removal = Removal::begin(
            &mut order,
            self,
            self.clock.applied() + 1,
            EvictionCause::Explicit,
            &mut telling.gone,
        )?;
        removal.remove(&resident);
        let timestamp = removal.finish();
        let freed = order.after_publish(1, self);
        drop(order);
        self.after_removal(true);
        drop(reader);
        dispose(freed);
        Ok(timestamp)
    }

    /// After deletes have been queued for the log, outside the commit lock.
    pub(crate) fn after_removal(&self, has_removed: bool) {
        if let (true, Some(durable)) = (has_removed, &self.durable) {
            durable.log.after_commit();
        }
    }
}
