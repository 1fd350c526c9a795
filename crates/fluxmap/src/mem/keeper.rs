//! The books of a database's memory: what its keys weigh, who is to go, who expires.
//!
//! Belongs to the holder of the commit lock. Every version that is published is recorded
//! here, whatever published it (a transaction, an eviction, recovery), so the figures
//! cannot drift: a key's weight is kept in its node, and what comes off is what came on.

use crate::mem::evict::Evictions;
use crate::mem::expiry::{TIMER_BYTES, Timers};
use crate::mem::nodes::{NO_NODE, Node, NodeId, Nodes};
use crate::mem::policy::{Policy, Reads, policy};
use crate::mem::{EvictionPolicy, UNIT};
use fluxmap_index::{Before, Change, HASH_BITS, Ledger, Structure, Tail, Time};

/// What there is to know of a database's memory under its commit lock.
#[derive(Default)]
pub(crate) struct Keeper {
    pub(crate) timers: Timers,
    /// Whether anything was ever recorded that expires.
    pub(crate) has_expiring: bool,
    pub(crate) evictions: Evictions,
    /// Where there is a memory limit.
    pub(crate) books: Option<Books>,
    /// The memory of the index when there was no key yet.
    empty_index: u64,
}

/// What a limit takes.
pub(crate) struct Books {
    limit: u64,
    /// What may be exceeded for now.
    allowance: u64,
    nodes: Nodes,
    policy: Box<dyn Policy>,
    /// What all keys weigh with their values, in units.
    live: u64,
    /// The memory of the policy when there was no key yet.
    empty_policy: u64,
    /// Whether what is being recorded goes by the policy's choice.
    evicting: bool,
    /// Whether the policy may remember what goes for the last batch: see [`room`](Self::room).
    may_remember: bool,
    refused: Refused,
}

/// What batches that were refused have left in the index.
#[derive(Default)]
struct Refused {
    /// In bytes.
    bytes: u64,
    /// How many keys there were then.
    keys: u64,
    /// What the index took then, in bytes.
    index: u64,
}

/// Whether a batch of writes has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Enough,
    /// It would have if others went, and nobody is to go.
    Full,
    /// It is larger than the limit, with so many bytes.
    Never(u64),
}

/// Weights are the users' own figures: sums of them saturate.
pub(crate) fn to_bytes(units: u64) -> u64 {
    units.saturating_mul(UNIT as u64)
}

/// Bytes that a structure takes.
pub(crate) fn bytes(structure: Structure) -> u64 {
    (structure.bytes + structure.allocations * size_of::<usize>()) as u64
}

impl Keeper {
    pub(crate) fn limited(limit: u64, kind: EvictionPolicy, structure: Structure) -> Self {
        let mut books = Books {
            limit,
            allowance: 0,
            nodes: Nodes::new(),
            policy: policy(kind, limit / UNIT as u64),
            live: 0,
            empty_policy: 0,
            evicting: false,
            may_remember: true,
            refused: Refused::default(),
        };
        books.empty_policy = books.policy.heap_bytes() as u64;
        Keeper { books: Some(books), ..Keeper::unlimited(structure) }
    }

    pub(crate) fn unlimited(structure: Structure) -> Self {
        Keeper { empty_index: bytes(structure), ..Keeper::default() }
    }

    /// What finding, choosing and expiring keys takes, in bytes: what counts against the limit,
    /// and what is left over from keys that have gone.
    pub(crate) fn overhead(&self, structure: Structure) -> (u64, u64) {
        let timers = self.timers.heap_bytes() as u64;
        let index = bytes(structure).saturating_sub(self.empty_index);
        let (counted, spare) = self.books.as_ref().map_or((index, 0), |books| books.overhead(index));
        (counted + timers, spare)
    }

    /// How many bytes there are more than the limit allows, of which some can go.
    pub(crate) fn excess(&self, structure: Structure) -> u64 {
        self.books.as_ref().map_or(0, |books| books.excess(self.overhead(structure).0))
    }

    /// Whether expired keys take room in a database that nothing is evicted from.
    pub(crate) fn is_taken_by_expired(&self, now: Time) -> bool {
        let evicts_nothing = self.books.as_ref().is_some_and(|books| !books.policy().evicts());
        evicts_nothing && self.timers.expired(now).is_some()
    }

    /// Whether these changes, staged in an index of this structure, have room.
    pub(crate) fn room(
        &mut self,
        changes: impl Iterator<Item = (Change, Option<Tail>)>,
        structure: Structure,
    ) -> Room {
        let index = bytes(structure).saturating_sub(self.empty_index);
        let timers = self.timers.heap_bytes() as u64;
        self.books.as_mut().map_or(Room::Enough, |books| books.room(changes, index, timers))
    }

    /// A batch was refused, whose keys had been linked and are gone again: what the index grew by
    /// is spare room now. Were it to count, keys that were within the limit would go for a batch
    /// that never came.
    pub(crate) fn after_refusal(&mut self, before: Structure, after: Structure) {
        if let Some(books) = &mut self.books {
            let grown = bytes(after).saturating_sub(bytes(before));
            let index = bytes(after).saturating_sub(self.empty_index);
            let keys = books.nodes.len() as u64;
            let bytes = books.left_by_refused(index.saturating_sub(grown)) + grown;
            books.refused = Refused { bytes, keys, index };
        }
    }

    /// Whether any key has expired that had not at `since`, and is still to be removed.
    pub(crate) fn has_expired(&self, since: Time, now: Time) -> bool {
        now > since && self.timers.expired(now).is_some()
    }
}

impl Ledger for Keeper {
    fn record(&mut self, change: Change, mut tail: Option<&mut Tail>) {
        let before = change.before.and_then(|before| before.tail).map_or(0, |tail| tail.expires);
        let after = tail.as_ref().map_or(0, |tail| tail.expires);
        if before != 0 || after != 0 {
            // As entries keep it, so that it is the same from whoever records a change.
            self.timers.change(change.hash & HASH_BITS, before, after);
            self.has_expiring = true;
        }
        if let (Some(books), Some(tail)) = (&mut self.books, &mut tail) {
            books.record(change, tail);
        }
    }
}

impl Books {
    fn record(&mut self, change: Change, tail: &mut Tail) {
        let node = change.before.and_then(|before| before.tail).map_or(NO_NODE, |tail| tail.node);
        match (change.before, change.is_value) {
            (Some(before), true) if node != NO_NODE => {
                let weight = self.nodes.get(node).weight;
                let now = self.key_weight(node, before).saturating_add(tail.weight);
                self.nodes.get_mut(node).weight = now;
                self.policy.rewrite(&mut self.nodes, node, weight);
                self.live = self.live - u64::from(weight) + u64::from(now);
                tail.node = node;
            }
            (Some(before), false) if node != NO_NODE => {
                // The entry stays for a while, with the tombstone.
                tail.weight = tail.weight.saturating_add(self.key_weight(node, before));
                self.policy.remove(&mut self.nodes, node, self.evicting);
                self.live -= u64::from(self.nodes.get(node).weight);
                self.nodes.free(node);
            }
            (_, true) => {
                let weight = change.key_weight.saturating_add(tail.weight);
                tail.node = self.nodes.add(change.hash, weight).unwrap_or(NO_NODE);
                if tail.node != NO_NODE {
                    self.policy.admit(&mut self.nodes, tail.node);
                    self.live += u64::from(weight);
                }
            }
            (_, false) => tail.weight = tail.weight.saturating_add(change.key_weight),
        }
    }

    /// What a node's key weighs without its value.
    fn key_weight(&self, node: NodeId, before: Before) -> u32 {
        let value = before.tail.map_or(0, |tail| tail.weight);
        self.nodes.get(node).weight.saturating_sub(value)
    }

    /// Whether these changes have room, with all that finding, choosing and expiring their keys
    /// takes: a new key needs its place in the index and its node too, and what has been
    /// written may not go for its own sake. `index` is what the index takes with the new keys
    /// linked.
    fn room(
        &mut self,
        changes: impl Iterator<Item = (Change, Option<Tail>)>,
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
        // If everything else goes.
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
        // Memories of what has gone are worth less than what is there: where both have no room
        // beside the batch, they go, and nothing that goes for it is remembered.
        if alone.saturating_add(remembered + self.policy.memory_for(before)) > self.limit {
            self.may_remember = false;
            self.policy.forget();
        }
        Room::Enough
    }

    fn sums(&self, changes: impl Iterator<Item = (Change, Option<Tail>)>) -> Sums {
        let mut sums = Sums::default();
        for (change, tail) in changes {
            let before = change.before.and_then(|before| before.tail);
            sums.timers_less += timer(before);
            let known = before.filter(|tail| tail.node != NO_NODE);
            let weight = known.map(|tail| self.nodes.get(tail.node).weight);
            sums.superseded += u64::from(weight.is_some());
            sums.less += weight.map_or(0, u64::from);
            if change.is_value {
                let key = match (weight, known) {
                    (Some(weight), Some(before)) => weight.saturating_sub(before.weight),
                    _ => change.key_weight,
                };
                sums.keys += 1;
                sums.timers += timer(tail);
                sums.more += u64::from(key) + tail.map_or(0, |tail| u64::from(tail.weight));
            }
        }
        sums
    }

    /// How many bytes there are more than the limit allows, with what else counts, if any of
    /// them are to go.
    fn excess(&self, overhead: u64) -> u64 {
        match self.policy.evicts() {
            true => self
                .live_bytes()
                .saturating_add(overhead)
                .saturating_sub(self.limit.saturating_add(self.allowance)),
            false => 0,
        }
    }

    /// The next to go.
    pub(crate) fn victim(&mut self, reads: &dyn Reads) -> Option<Victim> {
        let id = self.policy.victim(&mut self.nodes, reads)?;
        Some(Victim { id, hash: self.nodes.get(id).hash })
    }

    /// Lets a victim stay for now.
    pub(crate) fn spare(&mut self, victim: Victim) {
        self.policy.spare(&mut self.nodes, victim.id);
    }

    /// Lets so many bytes be there beyond the limit.
    pub(crate) fn allow(&mut self, bytes: u64) {
        self.allowance = bytes;
    }

    /// Lets the policy forget keys that have gone, where it remembers so many that a cache which is
    /// full would not: more than twice of what is there. A step of bounded work; returns whether
    /// there is more to do.
    pub(crate) fn forget_gone(&mut self) -> bool {
        let weight = self.live.saturating_mul(2);
        (0..FORGETS).all(|_| self.policy.forget_beyond(weight))
    }

    /// Whether what is recorded from now on goes by the policy's choice.
    pub(crate) fn set_evicting(&mut self, evicting: bool) {
        self.evicting = evicting && self.may_remember;
    }

    /// The policy, to be asked how reads are noted.
    pub(crate) fn policy(&self) -> &dyn Policy {
        &*self.policy
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// What all keys weigh with their values, in bytes.
    pub(crate) fn live_bytes(&self) -> u64 {
        to_bytes(self.live)
    }

    /// What finding and choosing the keys that are there takes, beyond what an empty database
    /// does, in bytes: what counts, and what is left over. The index and the nodes shrink later
    /// than keys go, and hold those that only a snapshot sees. Were all of that to count,
    /// there would be less room for what is live.
    fn overhead(&self, index: u64) -> (u64, u64) {
        let keys = self.nodes.len() as u64;
        let nodes = (self.nodes.room() as u64).saturating_sub(FREE_NODES) * size_of::<Node>() as u64;
        let counts = counted(index.saturating_sub(self.left_by_refused(index)), keys);
        (counts + self.remembered(), (index + nodes).saturating_sub(counts))
    }

    /// Room in an index of this size that refused batches have left, in bytes: keys that have come
    /// since then take it up, and an index that gets smaller gives it back.
    fn left_by_refused(&self, index: u64) -> u64 {
        let Refused { bytes, keys, index: before } = self.refused;
        let given_back = before.saturating_sub(index);
        let taken_up = (self.nodes.len() as u64).saturating_sub(keys) * DENSE_KEY;
        bytes.saturating_sub(given_back).saturating_sub(taken_up)
    }

    /// What the policy keeps of keys that have gone, in bytes.
    fn remembered(&self) -> u64 {
        (self.policy.heap_bytes() as u64).saturating_sub(self.empty_policy)
    }
}

/// What a batch of writes brings and replaces.
#[derive(Default)]
struct Sums {
    /// Keys that have a value then.
    keys: u64,
    /// Keys that had one.
    superseded: u64,
    /// What those weigh, in units.
    more: u64,
    /// What these did.
    less: u64,
    /// What the timers take that come, and those that go, in bytes.
    timers: u64,
    timers_less: u64,
}

/// What the timer of a version takes, in bytes.
fn timer(tail: Option<Tail>) -> u64 {
    tail.filter(|tail| tail.expires != 0).map_or(0, |_| TIMER_BYTES as u64)
}

/// What counts of an index of this size, for so many keys, with their nodes. There is a node for
/// each key, and never fewer numbers than nodes.
fn counted(index: u64, keys: u64) -> u64 {
    index.min(keys * DENSE_KEY) + keys.saturating_sub(FREE_NODES) * size_of::<Node>() as u64
}

/// How often a policy forgets some keys in a step of [`Books::forget_gone`].
const FORGETS: usize = 16;
/// Nodes that an empty database has room for.
const FREE_NODES: u64 = 256;
/// What a key takes in the hash and the order where they are as thin as growing leaves them.
const DENSE_KEY: u64 = 64;

/// A key that is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Victim {
    pub(crate) id: NodeId,
    pub(crate) hash: u64,
}
