//! Nodes in the order of their last use, as exactly as the stamps that reads leave tell it:
//! one list for each generation, oldest first.
//!
//! There is a bounded number of lists: when there are more, the two oldest become one.

use crate::mem::nodes::{NodeId, NodeList, Nodes};
use fluxmap_index::STAMPS;
use std::collections::VecDeque;

/// As many lists as there are at most.
const LISTS: usize = 64;
/// A generation lasts until one in this many of the keys has been written.
const GENERATIONS: usize = 32;
/// Generations that are older than this get a newer number, so that numbers can wrap.
const OLD: u32 = 1 << 30;

/// What was last used in one generation, or in several that follow each other.
struct Generation {
    /// Its number; of several, one such that all nodes of newer lists have greater ones. It wraps.
    first: u32,
    list: NodeList,
}

/// Nodes by the generation in which they were used, which is their `note`.
pub(crate) struct Generations {
    /// Oldest first, never empty. The last is the current one. The first has everything
    /// that is older, too.
    lists: VecDeque<Generation>,
    /// The current generation.
    current: u32,
    /// Writes in it.
    writes: usize,
    /// The node that is to be looked at next by [`renumber`](Self::renumber).
    cursor: NodeId,
}

impl Generations {
    pub(crate) fn new() -> Self {
        // All the room that it will ever take, so that it does not count as growth later.
        let mut lists = VecDeque::with_capacity(LISTS + 1);
        lists.push_back(Generation { first: 0, list: NodeList::default() });
        Generations { lists, current: 0, writes: 0, cursor: 0 }
    }

    /// The stamp of the current generation.
    pub(crate) fn stamp(&self) -> u16 {
        (self.current % u32::from(STAMPS)) as u16
    }

    /// Counts a write, before it: it may be the first one of a new generation, so that it
    /// comes after all reads of the one before.
    pub(crate) fn tick(&mut self, nodes: &mut Nodes) {
        if self.writes < (nodes.len() / GENERATIONS).max(1) {
            self.writes += 1;
            return;
        }
        self.writes = 1;
        self.current = self.current.wrapping_add(1);
        match self.lists.back_mut() {
            Some(last) if last.list.is_empty() => last.first = self.current,
            _ => self.lists.push_back(Generation { first: self.current, list: NodeList::default() }),
        }
        if self.lists.len() > LISTS || self.lists.get(1).is_some_and(|second| self.age(second.first) >= OLD) {
            self.merge_oldest(nodes);
        }
        self.renumber(nodes);
        debug_assert!(self.lists.len() <= LISTS);
    }

    /// Adds a node that is used now.
    pub(crate) fn push(&mut self, nodes: &mut Nodes, node: NodeId) {
        self.push_at(nodes, node, self.current);
    }

    /// Takes a node out.
    pub(crate) fn remove(&mut self, nodes: &mut Nodes, node: NodeId) {
        let at = self.find(nodes.get(node).note);
        self.lists[at].list.remove(nodes, node);
    }

    /// Takes notice that a node weighed `before`.
    pub(crate) fn reweigh(&mut self, nodes: &Nodes, node: NodeId, before: u32) {
        let at = self.find(nodes.get(node).note);
        self.lists[at].list.reweigh(nodes, node, before);
    }

    /// The node that was used longest ago, as far as is known here.
    pub(crate) fn front(&mut self) -> Option<NodeId> {
        while self.lists.len() > 1 && self.lists[0].list.is_empty() {
            self.lists.pop_front();
        }
        self.lists[0].list.front()
    }

    /// Whether a read that left this stamp may have been after the node was put where it is.
    pub(crate) fn is_since(&self, nodes: &Nodes, node: NodeId, stamp: u16) -> bool {
        self.age_of_stamp(stamp) <= self.age(nodes.get(node).note)
    }

    /// Moves a node to where a read that left this stamp puts it, and says how many
    /// generations ago that was. A stamp older than there are numbers for looks like a newer
    /// one: then a key that was not read for that long stays once more.
    pub(crate) fn move_to(&mut self, nodes: &mut Nodes, node: NodeId, stamp: u16) -> u32 {
        let age = self.age_of_stamp(stamp);
        self.remove(nodes, node);
        self.push_at(nodes, node, self.current.wrapping_sub(age));
        age
    }

    /// What all of them weigh, for tests.
    #[cfg(test)]
    pub(crate) fn weight(&self) -> u64 {
        self.lists.iter().map(|generation| generation.list.weight()).sum()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.lists.capacity() * size_of::<Generation>()
    }

    fn push_at(&mut self, nodes: &mut Nodes, node: NodeId, generation: u32) {
        nodes.get_mut(node).note = generation;
        let at = self.find(generation);
        self.lists[at].list.push_back(nodes, node);
    }

    /// The place of the list that has the nodes of this generation.
    fn find(&self, generation: u32) -> usize {
        let age = self.age(generation);
        self.lists.partition_point(|list| self.age(list.first) >= age).saturating_sub(1)
    }

    fn age(&self, generation: u32) -> u32 {
        self.current.wrapping_sub(generation)
    }

    fn age_of_stamp(&self, stamp: u16) -> u32 {
        self.age(u32::from(stamp)) % u32::from(STAMPS)
    }

    /// Makes one list of the two oldest.
    fn merge_oldest(&mut self, nodes: &mut Nodes) {
        if let Some(mut oldest) = self.lists.pop_front() {
            let second = &mut self.lists[0].list;
            oldest.list.append(nodes, second);
            *second = oldest.list;
        }
    }

    /// Keeps numbers from getting so old that they may be mistaken for new ones: that of the
    /// oldest list, and that of one node, the next one each time. Only the oldest list has
    /// nodes so old, and it has them under its own number as well. There are fewer nodes than
    /// numbers, so this comes round in time.
    fn renumber(&mut self, nodes: &mut Nodes) {
        if self.age(self.lists[0].first) > OLD {
            self.lists[0].first = self.current.wrapping_sub(OLD);
        }
        if self.cursor >= nodes.end() {
            self.cursor = 0;
        }
        if nodes.is_taken(self.cursor) && self.age(nodes.get(self.cursor).note) > OLD {
            nodes.get_mut(self.cursor).note = self.lists[0].first;
        }
        self.cursor += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(generations: &mut Generations, nodes: &mut Nodes) -> NodeId {
        let node = nodes.add(0, 1).unwrap();
        generations.tick(nodes);
        generations.push(nodes, node);
        node
    }

    #[test]
    fn lists_become_one_when_there_are_many_and_keep_their_order() {
        let (mut generations, mut nodes) = (Generations::new(), Nodes::new());
        let order: Vec<NodeId> = (0..100_000).map(|_| add(&mut generations, &mut nodes)).collect();
        assert!((LISTS / 2..=LISTS).contains(&generations.lists.len()));
        for node in order {
            assert_eq!(generations.front(), Some(node));
            generations.remove(&mut nodes, node);
        }
        assert_eq!(generations.front(), None);
    }

    /// A node that stays while numbers go round more than once, with others that come and go,
    /// is found in its list all the time.
    #[test]
    fn numbers_wrap() {
        let (mut generations, mut nodes) = (Generations::new(), Nodes::new());
        let old = [(); 3].map(|()| add(&mut generations, &mut nodes));
        for _ in 0..30 {
            // As if that many generations had passed in which what came went again.
            generations.current = generations.current.wrapping_add(OLD / 2);
            for _ in 0..20 {
                let node = add(&mut generations, &mut nodes);
                generations.remove(&mut nodes, node);
                nodes.free(node);
            }
            assert!(old.iter().all(|node| generations.age(nodes.get(*node).note) <= OLD + OLD));
            assert_eq!(generations.front(), Some(old[0]));
        }
        for node in old {
            assert_eq!(generations.front(), Some(node));
            generations.remove(&mut nodes, node);
        }
        assert_eq!(generations.weight(), 0);
    }

    #[test]
    fn a_stamp_puts_a_node_among_those_of_its_generation() {
        let (mut generations, mut nodes) = (Generations::new(), Nodes::new());
        // Past the point where stamps wrap.
        generations.current = u32::from(STAMPS) - 2;
        let first = add(&mut generations, &mut nodes);
        let second = add(&mut generations, &mut nodes);
        let stamp = generations.stamp();
        let third = add(&mut generations, &mut nodes);
        assert!(generations.stamp() < stamp || generations.stamp() == stamp + 1);
        assert!(generations.is_since(&nodes, first, stamp));
        assert!(!generations.is_since(&nodes, third, stamp));
        assert_eq!(generations.move_to(&mut nodes, first, stamp), 1);
        for node in [second, first, third] {
            assert_eq!(generations.front(), Some(node));
            generations.remove(&mut nodes, node);
        }
    }
}
