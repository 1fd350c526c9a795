//! What has not been used for longest goes first, found without a list that reads reorder.
//!
//! Time is cut into generations, each as long as a small part of the keys takes to be
//! written. A write puts a key into the list of its generation. A read leaves the number of
//! the generation on the entry, and the key stays in its list until that is the oldest one
//! and the key comes to its front: only then is it moved to where the read belongs. So keys
//! are in the order of their last use, but for those last used in the same generation.
//! In a database of a few keys every write begins a generation, and the order is exact.

use super::generations::Generations;
use super::{AccessSource, LOOKS, Policy};
use crate::mem::nodes::{NodeId, Nodes};
use fluxmap_index::{Access, AccessTracking};

/// Keys by the generation of their last use.
pub(crate) struct Lru {
    keys: Generations,
}

impl Lru {
    pub(crate) fn new() -> Self {
        Lru { keys: Generations::new() }
    }
}

impl Policy for Lru {
    fn noting(&self) -> AccessTracking {
        AccessTracking::UpTo(1)
    }

    fn generation(&self) -> u16 {
        self.keys.stamp()
    }

    fn admit(&mut self, nodes: &mut Nodes, node: NodeId) {
        self.keys.tick(nodes);
        self.keys.push(nodes, node);
    }

    fn rewrite(&mut self, nodes: &mut Nodes, node: NodeId, before: u32) {
        self.keys.reweigh(nodes, node, before);
        self.keys.tick(nodes);
        self.keys.remove(nodes, node);
        self.keys.push(nodes, node);
    }

    fn remove(&mut self, nodes: &mut Nodes, node: NodeId, _evicted: bool) {
        self.keys.remove(nodes, node);
    }

    fn victim(&mut self, nodes: &mut Nodes, reads: &dyn AccessSource) -> Option<NodeId> {
        let mut best = None;
        for _ in 0..LOOKS {
            let node = self.keys.front()?;
            let access = reads.of(nodes, node);
            if access.count() == 0 || !self.keys.is_since(nodes, node, access.stamp()) {
                return Some(node);
            }
            reads.reset(nodes, node, Access::new(access.stamp(), 0));
            let age = self.keys.move_to(nodes, node, access.stamp());
            // Of those that were all read, the one that was read longest ago.
            if best.is_none_or(|(oldest, _)| age > oldest) {
                best = Some((age, node));
            }
        }
        best.map(|(_, node)| node)
    }

    fn skip(&mut self, nodes: &mut Nodes, node: NodeId) {
        self.keys.remove(nodes, node);
        self.keys.push(nodes, node);
    }

    fn heap_bytes(&self) -> usize {
        self.keys.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Rig, holds_what_is_there};
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn holds_what_is_there_by_age() {
        holds_what_is_there(Lru::new(), |lru| lru.keys.weight());
    }

    #[test]
    fn of_two_keys_the_one_that_was_not_read_goes() {
        let mut rig = Rig::new(Lru::new());
        rig.insert(1, 1);
        rig.insert(2, 1);
        rig.read(1);
        rig.insert(3, 1);
        assert_eq!([rig.evict(), rig.evict(), rig.evict()], [2, 1, 3]);
    }

    #[test]
    fn a_read_from_before_the_last_write_keeps_nothing() {
        let mut rig = Rig::new(Lru::new());
        rig.insert(1, 1);
        rig.read(1);
        rig.rewrite(1, 2);
        rig.insert(2, 1);
        rig.read(2);
        assert_eq!(rig.evict(), 1);
    }

    /// With a write between any two reads, which a few keys are enough for.
    #[test]
    fn a_few_keys_are_in_the_exact_order_of_their_use() {
        let mut rig = Rig::new(Lru::new());
        let mut order: VecDeque<u64> = (0..10).collect();
        order.iter().for_each(|key| rig.insert(*key, 1));
        for new in 10..5_000 {
            for is_read in [true, false, true] {
                let key = order.remove(rig.random(10) as usize).unwrap();
                order.push_back(key);
                if is_read { rig.read(key) } else { rig.rewrite(key, 1) }
            }
            rig.insert(new, 1);
            order.push_back(new);
            assert_eq!(Some(rig.evict()), order.pop_front());
        }
    }

    /// But for those that go because a choice takes no more than so many looks.
    #[test]
    fn many_keys_that_are_read_outlast_as_many_that_are_not() {
        let mut rig = Rig::new(Lru::new());
        (0..2_000).for_each(|key| rig.insert(key, 1));
        (0..1_000).for_each(|key| rig.read(key));
        let read = (0..1_000).filter(|_| rig.evict() < 1_000).count();
        assert!(read <= 1_000 / LOOKS + 1, "{read}");
    }
}
