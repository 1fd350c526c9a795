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

    /// Whether these changes have room beside what else counts.
    pub(crate) fn room(&self, changes: impl Iterator<Item = (Change, Option<Tail>)>, overhead: u64) -> Room {
        let (mut total, mut more, mut less) = (0_u64, 0_u64, 0_u64);
        // What finding and expiring new keys will take.
        let mut unseen = 0;
        for (change, tail) in changes {
            let before = change.before.and_then(|before| before.tail).filter(|tail| tail.node != NO_NODE);
            let weight = before.map(|tail| self.nodes.get(tail.node).weight);
            less += weight.map_or(0, u64::from);
            if change.is_value {
                let key = match (weight, before) {
                    (Some(weight), Some(before)) => weight.saturating_sub(before.weight),
                    _ => change.key_weight,
                };
                if before.is_none() && self.nodes.len() as u64 >= FREE_NODES {
                    unseen += DENSE_KEY + size_of::<Node>() as u64;
                }
                if tail.is_some_and(|tail| tail.expires != 0) {
                    unseen += TIMER_BYTES as u64;
                }
                let weight = u64::from(key) + tail.map_or(0, |tail| u64::from(tail.weight));
                (total, more) = (total + weight, more + weight);
            }
        }
        let is_growing = more > less;
        if total * UNIT as u64 + overhead > self.limit && is_growing {
            return Room::Never(total * UNIT as u64);
        }
        let after = (self.live + more).saturating_sub(less) * UNIT as u64 + overhead + unseen;
        match is_growing && after > self.limit && !self.policy.evicts() {
            true => Room::Full,
            false => Room::Enough,
        }
    }

    /// How many bytes there are more than the limit allows, with what else counts, if any of
    /// them are to go.
    fn excess(&self, overhead: u64) -> u64 {
        match self.policy.evicts() {
            true => (self.live_bytes() + overhead).saturating_sub(self.limit.saturating_add(self.allowance)),
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

    /// Whether what is recorded from now on goes by the policy's choice.
    pub(crate) fn set_evicting(&mut self, evicting: bool) {
        self.evicting = evicting;
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
        self.live * UNIT as u64
    }

    /// What finding and choosing the keys that are there takes, beyond what an empty database
    /// does, in bytes: what counts, and what is left over. The index and the nodes do not
    /// shrink as keys go, and hold those that only a snapshot sees. Were all of that to count,
    /// there would be ever less room for what is live.
    fn overhead(&self, index: u64) -> (u64, u64) {
        let keys = self.nodes.len() as u64;
        let nodes = (self.nodes.end() as u64).saturating_sub(FREE_NODES) * size_of::<Node>() as u64;
        let policy = (self.policy.heap_bytes() as u64).saturating_sub(self.empty_policy);
        let counted_index = index.min(keys * DENSE_KEY);
        let counted_nodes = nodes.min(keys.saturating_sub(FREE_NODES) * size_of::<Node>() as u64);
        (counted_index + counted_nodes + policy, index - counted_index + nodes - counted_nodes)
    }
}

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
