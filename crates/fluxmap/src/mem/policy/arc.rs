//! ARC, the adaptive replacement cache (Megiddo and Modha, "ARC: a self-tuning, low overhead
//! replacement cache", FAST 2003).
//!
//! What was used once and what was used more often stand in lists of their own. Of both, what
//! went lately is remembered: a key that comes back shows which of the lists should have been
//! longer, and by so much the target moves. Uses only leave a mark on the entry, as in CAR
//! (Bansal and Modha, "CAR: clock with adaptive replacement", FAST 2004), so what is marked is
//! moved when its turn comes. Everything is measured by weight.

use super::ghosts::Ghosts;
use super::{AccessSource, LOOKS, Policy};
use crate::mem::nodes::{NodeId, NodeList, Nodes};
use fluxmap_index::{Access, AccessTracking};

/// Two lists and a memory of each. (T1, T2, B1, B2 and p are the names in the paper.)
pub(crate) struct AdaptiveReplacement {
    /// What all keys may weigh, in units.
    limit: u64,
    /// What those used once are to weigh (p).
    target: u64,
    /// Used once (T1).
    once: NodeList,
    /// Used more often (T2).
    often: NodeList,
    /// Gone from `once` (B1).
    once_ghosts: Ghosts,
    /// Gone from `often` (B2).
    often_ghosts: Ghosts,
}

/// Set in `note` if the node is in `often`.
const OFTEN: u32 = 1;
/// Set in `note` if the key was written again since it was last looked at.
const WRITTEN: u32 = 2;

impl AdaptiveReplacement {
    pub(crate) fn new(limit: u64) -> Self {
        AdaptiveReplacement {
            limit,
            target: 0,
            once: NodeList::default(),
            often: NodeList::default(),
            once_ghosts: Ghosts::new(),
            often_ghosts: Ghosts::new(),
        }
    }

    fn list_of(&mut self, nodes: &Nodes, node: NodeId) -> &mut NodeList {
        if nodes.get(node).note & OFTEN != 0 { &mut self.often } else { &mut self.once }
    }

    fn move_to_often(&mut self, nodes: &mut Nodes, node: NodeId) {
        self.list_of(nodes, node).remove(nodes, node);
        nodes.get_mut(node).note = OFTEN;
        self.often.push_back(nodes, node);
    }

    /// Learns from a key that comes in: moves the target if it was here lately, and says
    /// whether it was.
    fn learn(&mut self, hash: u64) -> bool {
        let (once, often) = (self.once_ghosts.weight(), self.often_ghosts.weight());
        if let Some(weight) = self.once_ghosts.take(hash) {
            self.target = self.target.saturating_add(step(weight, often, once)).min(self.limit);
            true
        } else if let Some(weight) = self.often_ghosts.take(hash) {
            self.target = self.target.saturating_sub(step(weight, once, often));
            true
        } else {
            false
        }
    }
}

/// How far the target moves: the more, the less was remembered where the key was found.
fn step(weight: u32, other: u64, found: u64) -> u64 {
    let weight = u64::from(weight);
    weight.max(weight.saturating_mul(other) / found.max(1))
}

impl Policy for AdaptiveReplacement {
    fn noting(&self) -> AccessTracking {
        AccessTracking::UpTo(1)
    }

    fn admit(&mut self, nodes: &mut Nodes, node: NodeId) {
        let is_back = self.learn(nodes.get(node).hash);
        nodes.get_mut(node).note = if is_back { OFTEN } else { 0 };
        self.list_of(nodes, node).push_back(nodes, node);
    }

    fn rewrite(&mut self, nodes: &mut Nodes, node: NodeId, before: u32) {
        self.list_of(nodes, node).reweigh(nodes, node, before);
        nodes.get_mut(node).note |= WRITTEN;
    }

    fn remove(&mut self, nodes: &mut Nodes, node: NodeId, evicted: bool) {
        self.list_of(nodes, node).remove(nodes, node);
        if !evicted {
            return;
        }
        let node = nodes.get(node);
        let ghosts = if node.note & OFTEN != 0 { &mut self.often_ghosts } else { &mut self.once_ghosts };
        ghosts.insert(node.hash, node.weight);
        // Those used once, here and gone, as much as there is room for; and all together
        // twice as much.
        let once = self.once.weight();
        self.once_ghosts.trim(self.limit.saturating_sub(once));
        let rest = once + self.often.weight() + self.once_ghosts.weight();
        self.often_ghosts.trim(self.limit.saturating_mul(2).saturating_sub(rest));
    }

    fn victim(&mut self, nodes: &mut Nodes, reads: &dyn AccessSource) -> Option<NodeId> {
        let mut best = None;
        for _ in 0..LOOKS {
            // What has just come in is not what the target is about, even if it is 0.
            let is_over = self.once.weight() > self.target && self.once.front() != self.once.back();
            let is_once = is_over || self.often.is_empty();
            let node = if is_once { self.once.front() } else { self.often.front() }?;
            let access = reads.of(nodes, node);
            if access.count() == 0 && nodes.get(node).note & WRITTEN == 0 {
                return Some(node);
            }
            reads.reset(nodes, node, Access::new(access.stamp(), 0));
            self.move_to_often(nodes, node);
            best = best.or(Some(node));
        }
        // All of them were used: the one whose turn came first.
        best
    }

    fn skip(&mut self, nodes: &mut Nodes, node: NodeId) {
        // To the end of a list where others are before it; of the other one if it was used
        // more often, as that may have nothing else and still be the one to choose from.
        let was_often = nodes.get(node).note & OFTEN != 0;
        self.list_of(nodes, node).remove(nodes, node);
        nodes.get_mut(node).note = if was_often || self.often.is_empty() { 0 } else { OFTEN };
        self.list_of(nodes, node).push_back(nodes, node);
    }

    fn heap_bytes(&self) -> usize {
        self.once_ghosts.heap_bytes() + self.often_ghosts.heap_bytes()
    }

    fn memory_for(&self, keys: u64) -> u64 {
        // Each goes from one of the lists.
        self.once_ghosts.memory_for(keys).saturating_add(self.often_ghosts.memory_for(0))
    }

    fn forget(&mut self) {
        (self.once_ghosts, self.often_ghosts) = (Ghosts::new(), Ghosts::new());
    }

    fn forget_beyond(&mut self, weight: u64) -> bool {
        self.once_ghosts.trim(weight);
        self.often_ghosts.trim(weight);
        self.once_ghosts.weight().max(self.often_ghosts.weight()) > weight
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Rig, holds_what_is_there};
    use super::*;

    #[test]
    fn holds_what_is_there_in_two_lists() {
        holds_what_is_there(AdaptiveReplacement::new(500), |arc| arc.once.weight() + arc.often.weight());
    }

    #[test]
    fn a_scan_does_not_drive_out_what_is_used() {
        let mut rig = Rig::new(AdaptiveReplacement::new(100));
        (0..3).for_each(|_| rig.requests(0..30, 100));
        rig.requests(1_000..3_000, 100);
        assert!((0..30).all(|key| rig.has(key)));
    }

    /// What comes back soon after it went makes room for what is new, and what comes back
    /// after it had been used often takes it away.
    #[test]
    fn the_target_follows_what_comes_back() {
        let mut rig = Rig::new(AdaptiveReplacement::new(100));
        (0..2).for_each(|_| rig.requests(0..90, 100));
        // New keys, each of which comes back when it has just gone.
        for key in 1_000..2_000 {
            rig.request(key, 100);
            rig.request(key - 20, 100);
        }
        let for_new = rig.policy.target;
        assert!(for_new > 10, "{for_new}");
        // Those that had been used often and had to go for the new ones.
        rig.requests((1_800..1_900).rev(), 100);
        assert!(rig.policy.target < for_new, "{} {for_new}", rig.policy.target);
    }

    #[test]
    fn what_is_remembered_weighs_no_more_than_what_there_is_room_for() {
        let mut rig = Rig::new(AdaptiveReplacement::new(100));
        for _ in 0..20_000 {
            let key = rig.random(40) * rig.random(40);
            rig.request(key, 100);
            let AdaptiveReplacement { once, often, once_ghosts, often_ghosts, .. } = &rig.policy;
            assert!(once.weight() + once_ghosts.weight() <= 101);
            assert!(once.weight() + often.weight() + once_ghosts.weight() + often_ghosts.weight() <= 201);
        }
    }

    #[test]
    fn what_has_just_come_in_does_not_go_before_what_was_used_often() {
        let mut rig = Rig::new(AdaptiveReplacement::new(10));
        rig.requests((0..10).chain(0..10), 10);
        rig.request(100, 10);
        assert!(rig.has(100));
    }

    #[test]
    fn a_write_is_a_use() {
        let mut rig = Rig::new(AdaptiveReplacement::new(10));
        rig.insert(1, 1);
        rig.rewrite(1, 1);
        rig.insert(2, 1);
        rig.insert(3, 1);
        assert_eq!(rig.victim(), Some(2));
    }

    #[test]
    fn what_was_deleted_is_not_remembered() {
        let mut rig = Rig::new(AdaptiveReplacement::new(10));
        rig.insert(1, 1);
        rig.remove(1, false);
        rig.insert(1, 1);
        assert_eq!(rig.policy.often.weight(), 0);
    }
}
