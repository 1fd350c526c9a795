//! What is used least often goes first, with ageing.
//!
//! As in LFU with dynamic ageing (Arlitt, Cherkasova, Dilley, Friedrich and Jin, "Evaluating
//! content management techniques for web proxy caches", ACM Performance Evaluation Review,
//! 2000), a key stands at a level: the level of what went last, and on top of that what its
//! own uses are worth. So what is not used any more is reached in the end, however often it
//! was used. Levels are lists in a ring, of which the lowest moves on when it is empty. Reads
//! are counted on the entry, by their order of magnitude, and a key whose turn comes is put as
//! many levels up as it has counts, and loses half of them.

use super::{AccessSource, LOOKS, Policy};
use crate::mem::nodes::{NodeId, NodeList, Nodes};
use fluxmap_index::{Access, AccessTracking, MOST_READS};

/// Levels: one for each count, and one for what has none.
const LEVELS: usize = MOST_READS as usize + 1;
/// The level of what is new, above the lowest.
const NEW: usize = 1;

/// Keys by level.
pub(crate) struct Lfu {
    /// A node's `note` is the place of its list here.
    ring: [NodeList; LEVELS],
    /// The place of the lowest level.
    lowest: usize,
}

impl Lfu {
    pub(crate) fn new() -> Self {
        Lfu { ring: [NodeList::default(); LEVELS], lowest: 0 }
    }

    fn list_of(&mut self, nodes: &Nodes, node: NodeId) -> &mut NodeList {
        &mut self.ring[nodes.get(node).note as usize]
    }

    /// The place in the ring of a level, which is counted from the lowest.
    fn place(&self, level: usize) -> usize {
        (self.lowest + level) % LEVELS
    }

    /// Adds a node at the end of a level.
    fn push(&mut self, nodes: &mut Nodes, node: NodeId, level: usize) {
        let place = self.place(level);
        nodes.get_mut(node).note = place as u32;
        self.ring[place].push_back(nodes, node);
    }

    fn move_to(&mut self, nodes: &mut Nodes, node: NodeId, level: usize) {
        self.list_of(nodes, node).remove(nodes, node);
        self.push(nodes, node, level);
    }

    /// The first node of the lowest level that has one, which is the lowest level then.
    fn front(&mut self) -> Option<NodeId> {
        let level = (0..LEVELS).find(|&level| !self.ring[self.place(level)].is_empty())?;
        self.lowest = self.place(level);
        self.ring[self.lowest].front()
    }
}

impl Policy for Lfu {
    fn noting(&self) -> AccessTracking {
        AccessTracking::Magnitude
    }

    fn admit(&mut self, nodes: &mut Nodes, node: NodeId) {
        self.push(nodes, node, NEW);
    }

    fn rewrite(&mut self, nodes: &mut Nodes, node: NodeId, before: u32) {
        self.list_of(nodes, node).reweigh(nodes, node, before);
        // A write is a use. Reads are counted on the entry, this one here.
        let level = (nodes.get(node).note as usize + LEVELS - self.lowest) % LEVELS;
        self.move_to(nodes, node, (level + 1).min(LEVELS - 1));
    }

    fn remove(&mut self, nodes: &mut Nodes, node: NodeId, _evicted: bool) {
        self.list_of(nodes, node).remove(nodes, node);
    }

    fn victim(&mut self, nodes: &mut Nodes, reads: &dyn AccessSource) -> Option<NodeId> {
        let mut best = None;
        for _ in 0..LOOKS {
            let node = self.front()?;
            let access = reads.of(nodes, node);
            let count = access.count();
            if count == 0 {
                return Some(node);
            }
            reads.reset(nodes, node, Access::new(access.stamp(), count / 2));
            self.move_to(nodes, node, usize::from(count));
            if best.is_none_or(|(least, _)| count < least) {
                best = Some((count, node));
            }
        }
        // All of them were used: the one that was used least.
        best.map(|(_, node)| node)
    }

    fn skip(&mut self, nodes: &mut Nodes, node: NodeId) {
        // Behind all that is at the next level that has something, lest it be the next again.
        self.list_of(nodes, node).remove(nodes, node);
        let level = (NEW..LEVELS).find(|&level| !self.ring[self.place(level)].is_empty());
        self.push(nodes, node, level.unwrap_or(NEW));
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Rig, holds_what_is_there};
    use super::*;

    #[test]
    fn holds_what_is_there_by_level() {
        holds_what_is_there(Lfu::new(), |lfu| lfu.ring.iter().map(NodeList::weight).sum());
    }

    #[test]
    fn what_is_read_more_outlasts_what_is_read_less() {
        let mut rig = Rig::new(Lfu::new());
        (0..20).for_each(|key| rig.insert(key, 1));
        (0..10).for_each(|key| (0..200).for_each(|_| rig.read(key)));
        (10..20).for_each(|key| rig.read(key));
        let first: Vec<u64> = (0..10).map(|_| rig.evict()).collect();
        assert!(first.iter().all(|key| *key >= 10), "{first:?}");
    }

    #[test]
    fn what_was_used_a_lot_goes_when_it_is_used_no_more() {
        let mut rig = Rig::new(Lfu::new());
        rig.insert(0, 1);
        (0..100_000).for_each(|_| rig.read(0));
        let outlasted = (1..).take_while(|key| {
            rig.request(*key, 10);
            rig.has(0)
        });
        let outlasted = outlasted.take(10_000).count();
        assert!((50..1_000).contains(&outlasted), "{outlasted}");
    }

    #[test]
    fn writes_are_uses() {
        let mut rig = Rig::new(Lfu::new());
        rig.insert(1, 1);
        rig.rewrite(1, 1);
        rig.insert(2, 1);
        assert_eq!(rig.victim(), Some(2));
    }
}
