//! The books of a database's memory: what its keys weigh, who is to go, who expires.
//!
//! Belongs to the holder of the commit lock. Every version that is published is recorded
//! here, whatever published it (a transaction, an eviction, recovery), so the figures
//! cannot drift: a key's weight is kept in its node, and what comes off is what came on.

use crate::mem::evict::Evictions;
use crate::mem::expiry::Timers;
use crate::mem::nodes::{NO_NODE, NodeId, Nodes};
use crate::mem::policy::{Policy, Reads, policy};
use crate::mem::{EvictionPolicy, UNIT};
use fluxmap_index::{Before, Change, Ledger, Structure, Tail, Time};

/// What there is to know of a database's memory under its commit lock.
#[derive(Default)]
pub(crate) struct Keeper {
    pub(crate) timers: Timers,
    /// Whether anything was ever recorded that expires.
    pub(crate) has_expiring: bool,
    pub(crate) evictions: Evictions,
    /// Where there is a memory limit.
    pub(crate) books: Option<Books>,
}

/// What a limit takes.
pub(crate) struct Books {
    limit: u64,
    nodes: Nodes,
    policy: Box<dyn Policy>,
    /// What all keys weigh with their values, in units.
    live: u64,
    /// The memory of the nodes and the policy when there was no key yet, and of the index.
    empty: u64,
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
fn bytes(structure: Structure) -> u64 {
    (structure.bytes + structure.allocations * size_of::<usize>()) as u64
}

impl Keeper {
    pub(crate) fn limited(limit: u64, kind: EvictionPolicy, structure: Structure) -> Self {
        let mut books = Books {
            limit,
            nodes: Nodes::new(),
            policy: policy(kind, limit / UNIT as u64),
            live: 0,
            empty: 0,
            evicting: false,
        };
        books.empty = books.heap_bytes() + bytes(structure);
        Keeper { books: Some(books), ..Keeper::default() }
    }
}

impl Keeper {
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
            self.timers.change(change.hash & HASH_KEPT, before, after);
            self.has_expiring = true;
        }
        if let (Some(books), Some(tail)) = (&mut self.books, &mut tail) {
            books.record(change, tail);
        }
    }
}

/// The bits of a hash that an entry keeps: timers are told apart by these.
const HASH_KEPT: u64 = !0xff_ffff;

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

    /// Whether these changes have room, and there are numbers left for their nodes.
    pub(crate) fn room(
        &self,
        changes: impl Iterator<Item = (Change, Option<Tail>)>,
        structure: Structure,
    ) -> Room {
        let (mut total, mut more, mut less) = (0_u64, 0_u64, 0_u64);
        for (change, tail) in changes {
            let before = change.before.and_then(|before| before.tail).filter(|tail| tail.node != NO_NODE);
            let weight = before.map(|tail| self.nodes.get(tail.node).weight);
            less += weight.map_or(0, u64::from);
            if change.is_value {
                let key = match (weight, before) {
                    (Some(weight), Some(before)) => weight.saturating_sub(before.weight),
                    _ => change.key_weight,
                };
                let weight = u64::from(key) + tail.map_or(0, |tail| u64::from(tail.weight));
                (total, more) = (total + weight, more + weight);
            }
        }
        let overhead = self.overhead(structure);
        let is_growing = more > less;
        if total * UNIT as u64 + overhead > self.limit && is_growing {
            return Room::Never(total * UNIT as u64);
        }
        let after = (self.live + more).saturating_sub(less) * UNIT as u64 + overhead;
        match is_growing && after > self.limit && !self.policy.evicts() {
            true => Room::Full,
            false => Room::Enough,
        }
    }

    /// Whether there is more than the limit allows.
    pub(crate) fn is_over(&self, structure: Structure) -> bool {
        self.policy.evicts() && self.live * UNIT as u64 + self.overhead(structure) > self.limit
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

    fn heap_bytes(&self) -> u64 {
        (self.nodes.heap_bytes() + self.policy.heap_bytes()) as u64
    }

    /// What finding and choosing keys takes, beyond what an empty database does, in bytes.
    pub(crate) fn overhead(&self, structure: Structure) -> u64 {
        (self.heap_bytes() + bytes(structure)).saturating_sub(self.empty)
    }
}

/// A key that is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Victim {
    pub(crate) id: NodeId,
    pub(crate) hash: u64,
}
