//! The ledger of a database's memory: the weights of keys, the candidates for eviction, and the timers
//! of expiring keys.
//!
//! It belongs to the holder of the commit lock. Every published version is recorded here, whatever
//! published it (a transaction, an eviction, recovery), so the figures cannot drift: a key's weight is
//! kept in its node, and exactly the recorded weight is subtracted again.

use crate::mem::evict::Evictions;
use crate::mem::expiry::{TIMER_BYTES, Timers};
use crate::mem::nodes::{NO_NODE, Node, NodeId, Nodes};
use crate::mem::policy::{AccessSource, Policy, policy};
use crate::mem::{EvictionPolicy, UNIT};
use fluxmap_index::{Before, Change, HASH_BITS, Ledger, Structure, Time, VersionMeta};

/// The figures about a database's memory, guarded by the commit lock.
#[derive(Default)]
pub(crate) struct MemoryLedger {
    pub(crate) timers: Timers,
    /// Whether any expiring version was ever recorded.
    pub(crate) has_expiring: bool,
    pub(crate) evictions: Evictions,
    /// Present if there is a memory limit.
    pub(crate) budget: Option<Budget>,
    /// The memory of the empty index.
    empty_index: u64,
}

/// The figures that a memory limit needs.
pub(crate) struct Budget {
    limit: u64,
    /// By how many bytes the limit may be exceeded for now.
    allowance: u64,
    nodes: Nodes,
    policy: Box<dyn Policy>,
    /// The weight of all keys and their values, in units.
    live: u64,
    /// The memory of the policy when it knew no key.
    empty_policy: u64,
    /// Whether the deletes being recorded are evictions chosen by the policy.
    evicting: bool,
    /// Whether the policy may remember keys evicted for the last batch: see [`room`](Self::room).
    may_remember: bool,
    refused: Refused,
    /// Where the last [`draw`](Self::draw) was, as a fraction of 2^32.
    drawn: u32,
}

/// The room that refused batches have left in the index.
#[derive(Default)]
struct Refused {
    /// In bytes.
    bytes: u64,
    /// The number of keys at that time.
    keys: u64,
    /// The size of the index at that time, in bytes.
    index: u64,
}

/// The answer to whether a batch of writes has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Enough,
    /// There would be room if other keys were evicted, but the policy evicts none.
    Full,
    /// The batch is larger than the limit; it takes this many bytes.
    Never(u64),
}

/// Converts units to bytes. Weights are the users' own figures, so sums of them saturate.
pub(crate) fn to_bytes(units: u64) -> u64 {
    units.saturating_mul(UNIT as u64)
}

/// Returns the bytes that a structure takes.
pub(crate) fn bytes(structure: Structure) -> u64 {
    (structure.bytes + structure.allocations * size_of::<usize>()) as u64
}

impl MemoryLedger {
    pub(crate) fn limited(limit: u64, kind: EvictionPolicy, structure: Structure) -> Self {
        let mut budget = Budget {
            limit,
            allowance: 0,
            nodes: Nodes::new(),
            policy: policy(kind, limit / UNIT as u64),
            live: 0,
            empty_policy: 0,
            evicting: false,
            may_remember: true,
            refused: Refused::default(),
            drawn: 0,
        };
        budget.empty_policy = budget.policy.heap_bytes() as u64;
        MemoryLedger { budget: Some(budget), ..MemoryLedger::unlimited(structure) }
    }

    pub(crate) fn unlimited(structure: Structure) -> Self {
        MemoryLedger { empty_index: bytes(structure), ..MemoryLedger::default() }
    }

    /// Returns the bytes taken by the index, the policy and the timers: the part that counts against the
    /// limit, and the part left over from keys that have gone.
    pub(crate) fn overhead(&self, structure: Structure) -> (u64, u64) {
        let timers = self.timers.heap_bytes() as u64;
        let index = bytes(structure).saturating_sub(self.empty_index);
        let (counted, skip) = self.budget.as_ref().map_or((index, 0), |budget| budget.overhead(index));
        (counted + timers, skip)
    }

    /// Returns by how many bytes the limit is exceeded; 0 if the policy evicts nothing.
    pub(crate) fn excess(&self, structure: Structure) -> u64 {
        self.budget.as_ref().map_or(0, |budget| budget.excess(self.overhead(structure).0))
    }

    /// Returns whether expired keys take room in a database whose policy evicts nothing.
    pub(crate) fn is_taken_by_expired(&self, now: Time) -> bool {
        let evicts_nothing = self.budget.as_ref().is_some_and(|budget| !budget.policy().evicts());
        evicts_nothing && self.timers.expired(now).is_some()
    }

    /// Returns whether these changes, staged in an index of this structure, have room.
    pub(crate) fn room(
        &mut self,
        changes: impl Iterator<Item = (Change, Option<VersionMeta>)>,
        structure: Structure,
    ) -> Room {
        let index = bytes(structure).saturating_sub(self.empty_index);
        let timers = self.timers.heap_bytes() as u64;
        self.budget.as_mut().map_or(Room::Enough, |budget| budget.room(changes, index, timers))
    }

    /// Records that a batch was refused whose keys had been linked into the index and removed again: the
    /// index's growth is spare room now. If that room counted, keys within the limit would be evicted
    /// for a batch that was never applied.
    pub(crate) fn after_refusal(&mut self, before: Structure, after: Structure) {
        if let Some(budget) = &mut self.budget {
            let grown = bytes(after).saturating_sub(bytes(before));
            let index = bytes(after).saturating_sub(self.empty_index);
            let keys = budget.nodes.len() as u64;
            let bytes = budget.left_by_refused(index.saturating_sub(grown)) + grown;
            budget.refused = Refused { bytes, keys, index };
        }
    }

    /// Returns whether any key has expired after `since` and is still to be removed.
    pub(crate) fn has_expired(&self, since: Time, now: Time) -> bool {
        now > since && self.timers.expired(now).is_some()
    }
}

impl Ledger for MemoryLedger {
    fn record(&mut self, change: Change, mut meta: Option<&mut VersionMeta>) {
        let before = change.before.and_then(|before| before.meta).map_or(0, |meta| meta.expires);
        let after = meta.as_ref().map_or(0, |meta| meta.expires);
        if before != 0 || after != 0 {
            // Use the hash bits that entries keep, so that every recorder of a change finds the same
            // timer.
            self.timers.change(change.hash & HASH_BITS, before, after);
            self.has_expiring = true;
        }
        if let (Some(budget), Some(meta)) = (&mut self.budget, &mut meta) {
            budget.record(change, meta);
        }
    }
}

impl Budget {
    fn record(&mut self, change: Change, meta: &mut VersionMeta) {
        let node = change.before.and_then(|before| before.meta).map_or(NO_NODE, |meta| meta.node);
        match (change.before, change.is_value) {
            (Some(before), true) if node != NO_NODE => {
                let weight = self.nodes.get(node).weight;
                let now = self.key_weight(node, before).saturating_add(meta.weight);
                self.nodes.get_mut(node).weight = now;
                self.policy.rewrite(&mut self.nodes, node, weight);
                self.live = self.live - u64::from(weight) + u64::from(now);
                meta.node = node;
            }
            (Some(before), false) if node != NO_NODE => {
                // The entry stays for a while, with the tombstone.
                meta.weight = meta.weight.saturating_add(self.key_weight(node, before));
                self.policy.remove(&mut self.nodes, node, self.evicting);
                self.live -= u64::from(self.nodes.get(node).weight);
                self.nodes.free(node);
            }
            (_, true) => {
                let weight = change.key_weight.saturating_add(meta.weight);
                meta.node = self.nodes.add(change.hash, weight).unwrap_or(NO_NODE);
                if meta.node != NO_NODE {
                    self.policy.admit(&mut self.nodes, meta.node);
                    self.live += u64::from(weight);
                }
            }
            (_, false) => meta.weight = meta.weight.saturating_add(change.key_weight),
        }
    }

    /// Returns the weight of a node's key without its value.
    fn key_weight(&self, node: NodeId, before: Before) -> u32 {
        let value = before.meta.map_or(0, |meta| meta.weight);
        self.nodes.get(node).weight.saturating_sub(value)
    }

    /// Returns whether these changes have room, together with the memory to find, choose and expire
    /// their keys: a new key needs a place in the index and a node as well, and written keys must not be
    /// evicted for their own sake. `index` is the memory of the index with the new keys linked.
    fn room(
        &mut self,
        changes: impl Iterator<Item = (Change, Option<VersionMeta>)>,
        index: u64,
        timers: u64,
    ) -> Room {
        let Sums { keys, superseded, more, less, timers: own_timers, timers_less } = self.sums(changes);
        self.may_remember = true;
        let index = index.saturating_sub(self.left_by_refused(index));
        let before = self.nodes.len() as u64;
        let after = (before + keys).saturating_sub(superseded);
        let needed = |units: u64, keys: u64| to_bytes(units).saturating_add(counted(index, keys));
        if needed(more, after) <= needed(less, before) {
            return Room::Enough;
        }
        // The memory that is needed if every other key is evicted.
        let alone = needed(more, keys).saturating_add(own_timers);
        if alone > self.limit {
            return Room::Never(alone);
        }
        let remembered = self.remembered();
        let live = self.live.saturating_add(more).saturating_sub(less);
        let timers = (timers + own_timers).saturating_sub(timers_less);
        if needed(live, after).saturating_add(timers + remembered) <= self.limit {
            return Room::Enough;
        }
        if !self.policy.evicts() {
            return Room::Full;
        }
        // The policy's memory of evicted keys is worth less than stored keys. If the two together have
        // no room beside the batch, forget the evicted keys, and remember none that is evicted for this
        // batch.
        if alone.saturating_add(remembered + self.policy.memory_for(before)) > self.limit {
            self.may_remember = false;
            self.policy.forget();
        }
        Room::Enough
    }

    fn sums(&self, changes: impl Iterator<Item = (Change, Option<VersionMeta>)>) -> Sums {
        let mut sums = Sums::default();
        for (change, meta) in changes {
            let before = change.before.and_then(|before| before.meta);
            sums.timers_less += timer(before);
            let known = before.filter(|meta| meta.node != NO_NODE);
            let weight = known.map(|meta| self.nodes.get(meta.node).weight);
            sums.superseded += u64::from(weight.is_some());
            sums.less += weight.map_or(0, u64::from);
            if change.is_value {
                let key = match (weight, known) {
                    (Some(weight), Some(before)) => weight.saturating_sub(before.weight),
                    _ => change.key_weight,
                };
                sums.keys += 1;
                sums.timers += timer(meta);
                sums.more += u64::from(key) + meta.map_or(0, |meta| u64::from(meta.weight));
            }
        }
        sums
    }

    /// Returns by how many bytes the limit is exceeded, with `overhead` counted; 0 if the policy evicts
    /// nothing.
    fn excess(&self, overhead: u64) -> u64 {
        match self.policy.evicts() {
            true => self
                .live_bytes()
                .saturating_add(overhead)
                .saturating_sub(self.limit.saturating_add(self.allowance)),
            false => 0,
        }
    }

    /// Returns the next key to evict.
    pub(crate) fn victim(&mut self, reads: &dyn AccessSource) -> Option<PolicyChoice> {
        let id = self.policy.victim(&mut self.nodes, reads)?;
        Some(PolicyChoice { id, hash: self.nodes.get(id).hash })
    }

    /// Returns any key, or nothing, regardless of the policy. Repeated calls are spread evenly over all
    /// keys, so among them is soon one of any large group.
    pub(crate) fn draw(&mut self) -> Option<PolicyChoice> {
        self.drawn = self.drawn.wrapping_add(GOLDEN);
        let end = self.nodes.end();
        let id = ((u64::from(self.drawn) * u64::from(end)) >> u32::BITS) as NodeId;
        (id < end && self.nodes.is_taken(id)).then(|| PolicyChoice { id, hash: self.nodes.get(id).hash })
    }

    /// Lets a victim stay for now.
    pub(crate) fn skip(&mut self, victim: PolicyChoice) {
        self.policy.skip(&mut self.nodes, victim.id);
    }

    /// Lets the limit be exceeded by this many bytes.
    pub(crate) fn allow(&mut self, bytes: u64) {
        self.allowance = bytes;
    }

    /// Lets the policy forget keys that have gone, if it remembers more than a full cache would: more than
    /// twice the weight of the present keys. A step of bounded work; returns whether there is more to do.
    pub(crate) fn forget_gone(&mut self) -> bool {
        let weight = self.live.saturating_mul(2);
        (0..FORGETS).all(|_| self.policy.forget_beyond(weight))
    }

    /// Sets whether the deletes recorded from now on are evictions chosen by the policy.
    pub(crate) fn set_evicting(&mut self, evicting: bool) {
        self.evicting = evicting && self.may_remember;
    }

    /// Returns the policy.
    pub(crate) fn policy(&self) -> &dyn Policy {
        &*self.policy
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Returns the weight of all keys and their values, in bytes.
    pub(crate) fn live_bytes(&self) -> u64 {
        to_bytes(self.live)
    }

    /// Returns the memory to find and choose the present keys, beyond that of an empty database, in
    /// bytes: the part that counts against the limit, and the rest. The index and the nodes shrink later
    /// than keys go, and they hold keys that only a snapshot sees. If all of that counted, there would be
    /// less room for live keys.
    fn overhead(&self, index: u64) -> (u64, u64) {
        let keys = self.nodes.len() as u64;
        let nodes = (self.nodes.room() as u64).saturating_sub(FREE_NODES) * size_of::<Node>() as u64;
        let counts = counted(index.saturating_sub(self.left_by_refused(index)), keys);
        (counts + self.remembered(), (index + nodes).saturating_sub(counts))
    }

    /// Returns the room that refused batches have left in an index of this size, in bytes: newer keys take
    /// it up, and an index that shrinks gives it back.
    fn left_by_refused(&self, index: u64) -> u64 {
        let Refused { bytes, keys, index: before } = self.refused;
        let given_back = before.saturating_sub(index);
        let taken_up = (self.nodes.len() as u64).saturating_sub(keys) * DENSE_KEY;
        bytes.saturating_sub(given_back).saturating_sub(taken_up)
    }

    /// Returns the memory that the policy keeps about evicted keys, in bytes.
    fn remembered(&self) -> u64 {
        (self.policy.heap_bytes() as u64).saturating_sub(self.empty_policy)
    }
}

/// The sums over a batch of writes.
#[derive(Default)]
struct Sums {
    /// The keys that the batch gives a value.
    keys: u64,
    /// The keys among these that had a value before.
    superseded: u64,
    /// The weight of `keys` with their new values, in units.
    more: u64,
    /// The weight of `superseded` with their old values, in units.
    less: u64,
    /// The memory of the timers that the batch adds (`timers`) and removes (`timers_less`), in bytes.
    timers: u64,
    timers_less: u64,
}

/// Returns the memory of a version's timer, in bytes.
fn timer(meta: Option<VersionMeta>) -> u64 {
    meta.filter(|meta| meta.expires != 0).map_or(0, |_| TIMER_BYTES as u64)
}

/// Returns the bytes that count for an index of this size with so many keys, nodes included. Each key
/// has a node, and there are never fewer node numbers than nodes.
fn counted(index: u64, keys: u64) -> u64 {
    index.min(keys * DENSE_KEY) + keys.saturating_sub(FREE_NODES) * size_of::<Node>() as u64
}

/// The number of times that a policy forgets some keys in a step of [`Budget::forget_gone`].
const FORGETS: usize = 16;
/// The golden ratio as a fraction of 2^32: its multiples, modulo 1, lie evenly however many there are.
const GOLDEN: u32 = 0x9e37_79b9;

/// The number of nodes for which an empty database has room.
const FREE_NODES: u64 = 256;
/// The memory of a key in the hash table and the ordered list when they are as sparse as growth leaves
/// them.
const DENSE_KEY: u64 = 64;

/// A key chosen for eviction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PolicyChoice {
    pub(crate) id: NodeId,
    pub(crate) hash: u64,
}
