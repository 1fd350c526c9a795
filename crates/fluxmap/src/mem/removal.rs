//! A commit of deletes outside of transactions, in steps.
//!
//! To delete a key, the log needs its encoding, and the listener a copy of it. Both run user code of the
//! key, which may use the database or take long, so no lock may be held. A removal therefore alternates:
//! under the commit lock it deletes the keys that have been prepared, and picks the next ones; without
//! the lock it [prepares](Removal::prepare) those. A key that was written or deleted after it was picked
//! is not deleted. Without a log and a listener nothing has to be prepared, and one hold of the lock
//! does everything.
//!
//! A removal uses one [`Reader`], whose pin keeps the picked entries alive from one hold of the lock to
//! the next.

use crate::commit::{CommitSection, Committer};
use crate::error::FluxError;
use crate::mem::evict::{Evicted, EvictionCause};
use crate::mem::ledger::{self, Budget};
use crate::mem::nodes::{NodeId, Nodes};
use crate::mem::policy::AccessSource;
use crate::mem::weigher::TOMBSTONE;
use crate::txn::priority::Priority;
use crate::txn::shield::Shield;
use fluxmap_index::{
    Access, CurrentEntry, Reader, Time, Timestamp, VersionMeta, contain, has_expired, planted,
};
use std::hash::Hash;
use std::mem;
use std::ptr;
use std::sync::Arc;

/// The number of expired keys that are removed in one commit.
const EXPIRED_AT_ONCE: usize = 64;

/// The number of victims in a row that may be skipped, in addition to the keys that the last commit has
/// just written, before making room is given up until the next commit: such victims cannot be encoded.
const MOST_SKIPPED: usize = 64;

/// How often the policy may choose each key of the last commit before it has chosen all others: as often
/// as `Lfu` has levels.
const MOST_TURNS: usize = 16;

/// A key to be removed, as it was when it was picked.
struct Victim<'r, K, V> {
    hash: u64,
    resident: CurrentEntry<'r, K, Arc<V>>,
    cause: EvictionCause,
    /// The policy's name for the key, if the policy chose it.
    choice: Option<ledger::PolicyChoice>,
    /// The encoded operation for the log. `None` until it has been prepared, and if that failed.
    operation: Option<Vec<u8>>,
    /// The copy for the listener.
    copy: Option<K>,
}

/// The amount of room to make, and the commit that needs it. Drop it where no lock is held.
pub(crate) struct Need<'p> {
    /// The commit that needs the room, and how many keys it has written: these keys stay. `None` while
    /// the database is opened: there are no readers yet, and keys are removed at the last timestamp,
    /// without a commit of their own.
    written: Option<(Timestamp, usize)>,
    /// The bytes that are still to be removed, unless the limit is kept before.
    left: u64,
    /// The last commit made for this need, removals included. While no other commit follows, everything
    /// beyond the limit is removed; later commits make room for what they add.
    last: Timestamp,
    /// The number of victims that were skipped since one was last removed.
    skipped: usize,
    /// Which keys a lease protects. `None` while the database is opened.
    shield: Option<Shield<'p>>,
}

impl<'p> Need<'p> {
    /// Returns the need for everything beyond the limit now; `None` if the limit is kept.
    pub(crate) fn all<K, V>(
        section: &CommitSection<K, V>,
        shared: &Committer<K, V>,
        written: Option<(Timestamp, usize)>,
        priority: Option<&'p Priority>,
    ) -> Option<Self> {
        let left = section.ledger.excess(shared.index.structure());
        (left > 0).then(|| {
            let writes = written.map_or(0, |(_, keys)| keys);
            let shield = priority.map(|priority| Shield::new(priority, writes));
            Need { written, left, last: shared.clock.applied(), skipped: 0, shield }
        })
    }

    fn may_skip(&self) -> bool {
        self.skipped < MOST_SKIPPED + MOST_TURNS * self.written.map_or(0, |(_, keys)| keys)
    }

    /// Returns the chosen key, unless it has gone or the commit that needs the room has written it.
    fn may_go<'r, K, V>(
        &self,
        notes: &EntryAccesses<'r, '_, K, V>,
        choice: ledger::PolicyChoice,
    ) -> Option<CurrentEntry<'r, K, Arc<V>>> {
        let is_written = |resident: &CurrentEntry<'_, K, Arc<V>>| {
            self.written.is_some_and(|(timestamp, _)| resident.timestamp() == timestamp)
        };
        notes.resident(choice.hash, choice.id).filter(|resident| !is_written(resident))
    }

    /// Returns the shield if it protects this key. One load if there is no lease.
    fn shield_over<K: 'static, V>(
        &mut self,
        resident: &CurrentEntry<'_, K, Arc<V>>,
        choice: ledger::PolicyChoice,
    ) -> Option<&mut Shield<'p>> {
        let shield = self.shield.as_mut()?;
        (shield.looks() && shield.covers(choice.hash, resident.key())).then_some(shield)
    }

    /// Looks for a key that is not protected regardless of the policy, in whose order thousands of
    /// protected keys may come first.
    fn draw<'r, K: 'static, V>(
        &mut self,
        budget: &mut Budget,
        notes: &EntryAccesses<'r, '_, K, V>,
    ) -> Option<(CurrentEntry<'r, K, Arc<V>>, ledger::PolicyChoice)> {
        while self.shield.as_mut()?.looks() {
            let Some(choice) = budget.draw() else { continue };
            let Some(resident) = self.may_go(notes, choice) else { continue };
            if !self.shield.as_ref()?.covers(choice.hash, resident.key()) {
                return Some((resident, choice));
            }
        }
        None
    }
}

/// A removal under way: see the top of the file.
pub(crate) struct Removal<'c, 'r, K, V> {
    shared: &'c Committer<K, V>,
    reader: &'r Reader<'r, K, Arc<V>>,
    evicted: &'c mut Evicted<K, V>,
    /// The keys to remove in the next hold of the lock.
    picked: Vec<Victim<'r, K, V>>,
    /// Listeners' copies of keys that were not removed, to be dropped where no lock is held.
    spent: Vec<K>,
}

/// Gives the policy the accesses that reads have noted on entries.
struct EntryAccesses<'r, 'i, K, V>(&'r Reader<'i, K, Arc<V>>);

impl<'r, K, V> EntryAccesses<'r, '_, K, V> {
    fn resident(&self, hash: u64, node: NodeId) -> Option<CurrentEntry<'r, K, Arc<V>>> {
        self.0.resident(hash, |resident| resident.meta().is_some_and(|meta| meta.node == node))
    }
}

impl<K, V> AccessSource for EntryAccesses<'_, '_, K, V> {
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

impl<'c, 'r, K: Ord + Hash + Clone + 'static, V: 'static> Removal<'c, 'r, K, V> {
    pub(crate) fn new(
        shared: &'c Committer<K, V>,
        reader: &'r Reader<'r, K, Arc<V>>,
        evicted: &'c mut Evicted<K, V>,
    ) -> Self {
        Removal { shared, reader, evicted, picked: Vec::new(), spent: Vec::new() }
    }

    /// Returns whether a key has to be prepared before it can be removed.
    pub(crate) fn must_prepare(&self) -> bool {
        self.shared.durable.is_some() || self.evicted.is_wanted()
    }

    /// Returns whether keys have been picked, which are to be prepared now and removed in another hold
    /// of the lock.
    pub(crate) fn goes_on(&self) -> bool {
        !self.picked.is_empty()
    }

    /// Prepares the picked keys. Call it without any lock held, because it runs user code of the keys.
    /// Errors and panics belong to no caller; a key that cannot be prepared stays.
    pub(crate) fn prepare(&mut self) {
        self.spent.clear();
        for victim in &mut self.picked {
            match contain(|| Self::encode(self.shared, victim.resident.key())) {
                Some(Ok(operation)) => victim.operation = Some(operation),
                Some(Err(_)) | None => continue,
            }
            if self.evicted.is_wanted() {
                victim.copy = contain(|| victim.resident.key().clone());
            }
        }
    }

    fn encode(shared: &Committer<K, V>, key: &K) -> Result<Vec<u8>, FluxError> {
        let mut operation = Vec::new();
        if let Some(durable) = &shared.durable {
            durable.encode(key, None, &mut operation)?;
        }
        Ok(operation)
    }

    /// Ends the removal. The caller drops the returned copies where no lock is held.
    #[must_use = "to be dropped where no lock is held"]
    pub(crate) fn end(self) -> Vec<K> {
        let mut spent = self.spent;
        spent.extend(self.picked.into_iter().filter_map(|victim| victim.copy));
        spent
    }

    /// Picks a key that the caller named, and prepares it. Errors and panics belong to the caller. Call
    /// it without the commit lock.
    pub(crate) fn pick_found(
        &mut self,
        hash: u64,
        resident: CurrentEntry<'r, K, Arc<V>>,
    ) -> Result<(), FluxError> {
        let operation = Some(Self::encode(self.shared, resident.key())?);
        let copy = self.evicted.is_wanted().then(|| resident.key().clone());
        let cause = EvictionCause::Explicit;
        self.picked.push(Victim { hash, resident, cause, choice: None, operation, copy });
        Ok(())
    }

    fn pick(
        &mut self,
        hash: u64,
        resident: CurrentEntry<'r, K, Arc<V>>,
        choice: Option<ledger::PolicyChoice>,
    ) {
        let cause = if choice.is_some() { EvictionCause::Capacity } else { EvictionCause::Expired };
        // If nothing has to be prepared, the key counts as prepared.
        let operation = (!self.must_prepare()).then(Vec::new);
        self.picked.push(Victim { hash, resident, cause, choice, operation, copy: None });
    }

    /// Looks up the picked keys again. A key that is gone or has expired at `now` is dropped from the
    /// list; for a key that was written since, its newest version is removed.
    pub(crate) fn renew_picked(&mut self, now: Time) {
        for victim in mem::take(&mut self.picked) {
            let key = victim.resident.key();
            // The entry is the same, so no user code of the key is needed to find it.
            let is_there = |resident: &CurrentEntry<'_, K, Arc<V>>| {
                ptr::eq(resident.key(), key) && !has_expired(resident.expires(), now)
            };
            match self.reader.resident(victim.hash, is_there) {
                Some(resident) => self.picked.push(Victim { resident, ..victim }),
                None => self.spent.extend(victim.copy),
            }
        }
    }

    /// Under the commit lock: removes the picked keys in a commit at this timestamp, and returns how
    /// many were removed.
    pub(crate) fn remove_picked(
        &mut self,
        section: &mut CommitSection<K, V>,
        timestamp: Timestamp,
    ) -> Result<usize, FluxError> {
        if self.picked.is_empty() {
            return Ok(0);
        }
        let picked = mem::take(&mut self.picked);
        let slot = match self.shared.durable.as_ref().map(|durable| durable.log.reserve()).transpose() {
            Ok(slot) => slot,
            Err(refused) => {
                // Keep every key: after the log has failed, no commit adds any more.
                self.spent.extend(picked.into_iter().filter_map(|victim| victim.copy));
                return Err(refused);
            }
        };
        let (mut record, mut removed) = (Vec::new(), 0);
        for mut victim in picked {
            match victim.operation.as_deref() {
                None => section.let_stay(&victim, self.reader),
                Some(operation) if has_room(self.shared, &record, operation) => {
                    if section.delete(&victim, timestamp) {
                        record.extend_from_slice(operation);
                        removed += 1;
                        let copy = victim.copy.take();
                        self.evicted
                            .add(copy.map(|key| (key, Arc::clone(victim.resident.value()), victim.cause)));
                    }
                }
                // The record is full. The key will be picked again.
                Some(_) => {}
            }
            self.spent.extend(victim.copy);
        }
        if removed > 0 {
            let slot = slot.map(|slot| slot.push(timestamp, record));
            section.make_visible(timestamp, self.shared, slot);
        }
        Ok(removed)
    }

    /// Under the commit lock: picks keys that have expired at `now`.
    pub(crate) fn pick_expired(&mut self, section: &mut CommitSection<K, V>, now: Time) {
        let mut timers: Vec<(Time, u64)> =
            section.ledger.timers.all_expired(now).take(EXPIRED_AT_ONCE).collect();
        if planted("reaper-takes-one-too-many") && !timers.is_empty() {
            timers.extend(section.ledger.timers.all_expired(Time::MAX).nth(timers.len()));
        }
        for timer @ (time, hash) in timers {
            let before = self.picked.len();
            loop {
                // Keys that share their hash and their time share a timer: look for all of them.
                let others = &self.picked[before..];
                let is_next = |resident: &CurrentEntry<'_, K, Arc<V>>| {
                    let is_picked =
                        |victim: &Victim<'_, K, V>| ptr::eq(victim.resident.key(), resident.key());
                    resident.expires() == time && !others.iter().any(is_picked)
                };
                let Some(resident) = self.reader.resident(hash, is_next) else { break };
                self.pick(hash, resident, None);
            }
            if self.picked.len() == before {
                // No key is left to which this timer belongs.
                section.ledger.timers.forget(timer);
            }
        }
    }

    /// Under the commit lock: picks the key that the policy chooses, if any key may be evicted. If a
    /// lease protects that key, picks another one, if one is found soon.
    fn pick_choice(&mut self, section: &mut CommitSection<K, V>, need: &mut Need<'_>) {
        let Some(budget) = &mut section.ledger.budget else { return };
        let notes = EntryAccesses(self.reader);
        let before = need.skipped;
        let mut protected = None;
        while need.may_skip() {
            let Some(choice) = budget.victim(&notes) else { break };
            let Some(resident) = need.may_go(&notes, choice) else {
                budget.skip(choice);
                need.skipped += 1;
                continue;
            };
            let Some(shield) = need.shield_over(&resident, choice) else {
                return self.pick(choice.hash, resident, Some(choice));
            };
            budget.skip(choice);
            protected.get_or_insert((resident, choice));
            if !shield.pass_over() {
                break;
            }
        }
        let Some(protected) = protected else { return };
        // Protected keys were put behind the keys of the last commit, which came up again for that reason
        // only: not because the policy has chosen all others.
        need.skipped = before;
        // The limit must hold: if no other key is found, evict a protected one.
        let (resident, choice) = need.draw(budget, &notes).unwrap_or(protected);
        self.pick(choice.hash, resident, Some(choice));
    }

    /// Under the commit lock: removes the prepared keys, and picks the next ones, as long as there is
    /// need. Returns how many keys were removed.
    pub(crate) fn make_room(&mut self, section: &mut CommitSection<K, V>, need: &mut Need<'_>) -> usize {
        let mut all = 0;
        loop {
            // Removals are a commit of their own, except while the database is opened.
            let is_own = need.written.is_some() && !planted("eviction-at-the-last-timestamp");
            let timestamp = self.shared.clock.applied() + u64::from(is_own);
            let is_choice = self.goes_on();
            let before = section.live_bytes();
            let Ok(removed) = self.remove_picked(section, timestamp) else { return all };
            all += removed;
            match removed > 0 {
                true => (need.skipped, need.last) = (0, timestamp),
                // The picked key cannot be encoded, or was written since.
                false => need.skipped += usize::from(is_choice),
            }
            let excess = section.ledger.excess(self.shared.index.structure());
            need.left = match self.shared.clock.applied() == need.last {
                true => excess,
                false => need.left.saturating_sub(before.saturating_sub(section.live_bytes())).min(excess),
            };
            if need.left == 0 || !need.may_skip() {
                return all;
            }
            // Expired keys go first.
            self.pick_expired(section, self.shared.expiry_clock.advance());
            if !self.goes_on() {
                self.pick_choice(section, need);
            }
            if !self.goes_on() || self.must_prepare() {
                return all;
            }
        }
    }
}

/// Returns whether a commit's record has room for one more operation.
fn has_room<K, V>(shared: &Committer<K, V>, record: &[u8], operation: &[u8]) -> bool {
    let size = record.len() + operation.len();
    shared.durable.as_ref().is_none_or(|durable| durable.log.check_size(size).is_ok())
}

impl<K: Ord + Hash + Clone + 'static, V: 'static> CommitSection<K, V> {
    fn live_bytes(&self) -> u64 {
        self.ledger.budget.as_ref().map_or(0, |budget| budget.live_bytes())
    }

    /// Deletes a key, unless it has been written or deleted since it was picked. Returns whether it was
    /// deleted.
    fn delete(&mut self, victim: &Victim<'_, K, V>, timestamp: Timestamp) -> bool {
        let CommitSection { writer, ledger, .. } = self;
        let meta =
            ledger.budget.is_some().then(|| VersionMeta { weight: TOMBSTONE, ..VersionMeta::default() });
        let is_choice = victim.cause == EvictionCause::Capacity;
        ledger.budget.iter_mut().for_each(|budget| budget.set_evicting(is_choice));
        let deleted = writer.delete(&victim.resident, meta, timestamp, ledger);
        ledger.budget.iter_mut().for_each(|budget| budget.set_evicting(false));
        if deleted {
            ledger.evictions.count(victim.cause);
        }
        deleted
    }

    /// Keeps a key that cannot be removed from being picked again soon.
    fn let_stay(&mut self, victim: &Victim<'_, K, V>, reader: &Reader<'_, K, Arc<V>>) {
        let Victim { hash, resident, .. } = victim;
        let is_same = |now: &CurrentEntry<'_, K, Arc<V>>| {
            ptr::eq(now.key(), resident.key()) && now.timestamp() == resident.timestamp()
        };
        if reader.resident(*hash, is_same).is_none() {
            return;
        }
        match (victim.choice, &mut self.ledger.budget) {
            (Some(choice), Some(budget)) => budget.skip(choice),
            _ if resident.expires() != 0 => self.ledger.timers.forget((resident.expires(), *hash)),
            _ => {}
        }
    }
}
