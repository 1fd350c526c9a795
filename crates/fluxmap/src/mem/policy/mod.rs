//! Which key goes when there has to be room: one file for each policy.
//!
//! Reads do not touch what a policy keeps: they leave a stamp and a count on the entry
//! that they find (see [`Access`]), and only if that changes it. A policy looks at these
//! when it has to choose. Everything else happens under the commit lock.

mod arc;
mod generations;
mod ghosts;
mod lfu;
mod lru;
mod manual;
mod random;
mod s3fifo;
mod ttl;

#[cfg(test)]
mod tests;

use crate::mem::EvictionPolicy;
use crate::mem::nodes::{NodeId, Nodes};
use fluxmap_index::{Access, AccessTracking};

/// How many nodes are looked at, at most, to choose one. Where all of them have been read
/// since they were last looked at, the best of these goes, and not the best of all.
const LOOKS: usize = 32;

/// Chooses what goes. A node that it has been handed by [`admit`](Self::admit) is in one
/// of its lists until [`remove`](Self::remove).
pub(crate) trait Policy: Send {
    /// How reads are to be noted on entries.
    fn noting(&self) -> AccessTracking;

    /// Whether it chooses at all.
    fn evicts(&self) -> bool {
        true
    }

    /// The stamp that reads leave now.
    fn generation(&self) -> u16 {
        0
    }

    /// A key has come in, as `node`.
    fn admit(&mut self, nodes: &mut Nodes, node: NodeId);

    /// A key that is there was written again, and weighed `before` until then.
    fn rewrite(&mut self, nodes: &mut Nodes, node: NodeId, before: u32);

    /// A key has gone, by this policy's choice if `evicted`, else otherwise.
    fn remove(&mut self, nodes: &mut Nodes, node: NodeId, evicted: bool);

    /// The key that is to go next, or `None` if there is none. It stays where it is: either
    /// [`remove`](Self::remove) or [`skip`](Self::skip) is called for it next. Bounded
    /// work, however many keys there are and however they have been read.
    fn victim(&mut self, nodes: &mut Nodes, reads: &dyn AccessSource) -> Option<NodeId>;

    /// What `victim` chose is not to go now: puts it where it will not be chosen soon.
    fn skip(&mut self, nodes: &mut Nodes, node: NodeId);

    /// Bytes on the heap, nodes aside.
    fn heap_bytes(&self) -> usize;

    /// How many bytes more it takes, at most, to remember so many keys that go.
    fn memory_for(&self, _keys: u64) -> u64 {
        0
    }

    /// Forgets the keys that have gone, and gives back what that took.
    fn forget(&mut self) {}

    /// Forgets some of the keys that have gone, if those that it remembers in one list weigh more
    /// than this. Bounded work; returns whether there are more to forget.
    fn forget_beyond(&mut self, _weight: u64) -> bool {
        false
    }
}

/// What reads have left on the entry of each node.
pub(crate) trait AccessSource {
    /// How it was read since it came in or was last reset.
    fn of(&self, nodes: &Nodes, node: NodeId) -> Access;

    /// Replaces what is there.
    fn reset(&self, nodes: &Nodes, node: NodeId, access: Access);
}

/// The policy of a database with this memory limit, in units.
pub(crate) fn policy(kind: EvictionPolicy, limit: u64) -> Box<dyn Policy> {
    match kind {
        EvictionPolicy::Lru => Box::new(lru::Lru::new()),
        EvictionPolicy::Lfu => Box::new(lfu::Lfu::new()),
        EvictionPolicy::Random => Box::new(random::Random::new()),
        EvictionPolicy::Arc => Box::new(arc::AdaptiveReplacement::new(limit)),
        EvictionPolicy::Ttl => Box::new(ttl::Ttl::new()),
        EvictionPolicy::S3Fifo => Box::new(s3fifo::S3Fifo::new(limit)),
        EvictionPolicy::Manual => Box::new(manual::Manual::new()),
    }
}
