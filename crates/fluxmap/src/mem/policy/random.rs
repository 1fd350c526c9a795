//! Any key goes, each as likely as any other.
//!
//! Nodes have numbers, so a random number is a random key, unless the node of that number
//! is free. Where so many are free that a few draws find none, the front of a list of all
//! keys goes instead.

use super::{AccessSource, LOOKS, Policy};
use crate::mem::nodes::{NO_NODE, NodeId, NodeList, Nodes};
use fluxmap_index::AccessTracking;

/// A list of all keys, and a generator of random numbers.
pub(crate) struct Random {
    keys: NodeList,
    state: u64,
    /// The node that was skipped last: there is a reason not to draw it again at once.
    skipped: NodeId,
}

/// What `note` says of a node that is in the list.
const LISTED: u32 = 1;

impl Random {
    pub(crate) fn new() -> Self {
        // Any seed but 0 will do.
        Random { keys: NodeList::default(), state: 0x2545_f491_4f6c_dd1d, skipped: NO_NODE }
    }

    /// A number below `end` (Marsaglia, "Xorshift RNGs", Journal of Statistical Software
    /// 2003).
    fn draw(&mut self, end: NodeId) -> NodeId {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        // The upper half, as a fraction of `end`.
        (((self.state >> 32) * u64::from(end)) >> 32) as NodeId
    }
}

/// A number that is not given out yet or free again is no key's, and a node may be there
/// before its key comes in.
fn is_listed(nodes: &Nodes, node: NodeId) -> bool {
    nodes.is_taken(node) && nodes.get(node).note == LISTED
}

impl Policy for Random {
    fn noting(&self) -> AccessTracking {
        AccessTracking::Nothing
    }

    fn admit(&mut self, nodes: &mut Nodes, node: NodeId) {
        nodes.get_mut(node).note = LISTED;
        self.keys.push_back(nodes, node);
    }

    fn rewrite(&mut self, nodes: &mut Nodes, node: NodeId, before: u32) {
        self.keys.reweigh(nodes, node, before);
    }

    fn remove(&mut self, nodes: &mut Nodes, node: NodeId, _evicted: bool) {
        nodes.get_mut(node).note = 0;
        self.keys.remove(nodes, node);
        if self.skipped == node {
            self.skipped = NO_NODE;
        }
    }

    fn victim(&mut self, nodes: &mut Nodes, _reads: &dyn AccessSource) -> Option<NodeId> {
        for _ in 0..LOOKS {
            let node = self.draw(nodes.end());
            if node != self.skipped && is_listed(nodes, node) {
                return Some(node);
            }
        }
        self.keys.front()
    }

    fn skip(&mut self, nodes: &mut Nodes, node: NodeId) {
        self.keys.move_to_back(nodes, node);
        self.skipped = node;
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Marks, Rig, holds_what_is_there};
    use super::*;

    #[test]
    fn holds_what_is_there_in_any_order() {
        holds_what_is_there(Random::new(), |random| random.keys.weight());
    }

    #[test]
    fn every_key_is_about_as_likely_as_any_other() {
        let mut rig = Rig::new(Random::new());
        (0..10).for_each(|key| rig.insert(key, 1));
        let mut chosen = [0; 10];
        (0..10_000).for_each(|_| chosen[rig.victim().unwrap() as usize] += 1);
        assert!(chosen.iter().all(|times| (800..1_200).contains(times)), "{chosen:?}");
    }

    #[test]
    fn the_last_of_many_is_found_among_free_nodes() {
        let mut rig = Rig::new(Random::new());
        (0..10_000).for_each(|key| rig.insert(key, 1));
        (0..9_999).for_each(|key| rig.remove(key, false));
        assert_eq!(rig.evict(), 9_999);
    }

    #[test]
    fn a_node_is_not_chosen_before_its_key_has_come_in() {
        let (mut random, mut nodes) = (Random::new(), Nodes::new());
        let added = [(); 5].map(|()| nodes.add(0, 1).unwrap());
        random.admit(&mut nodes, added[2]);
        (0..100).for_each(|_| assert_eq!(random.victim(&mut nodes, &Marks::default()), Some(added[2])));
    }

    #[test]
    fn what_comes_in_as_a_node_that_was_spared_can_be_chosen() {
        let mut rig = Rig::new(Random::new());
        rig.insert(1, 1);
        rig.insert(2, 1);
        rig.skip(2);
        rig.remove(2, false);
        rig.insert(3, 1);
        assert!((0..100).any(|_| rig.victim() == Some(3)));
    }
}
