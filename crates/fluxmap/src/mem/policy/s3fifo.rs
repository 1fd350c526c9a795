//! S3-FIFO (Yang, Zhang, Qiu, Yue and Rashmi, "FIFO queues are all you need for cache
//! eviction", SOSP 2023).
//!
//! What is new stands in a small queue first. What has been used when its turn comes moves on
//! to the main queue, the rest goes, and is remembered for a while: what comes back in that
//! time goes to the main queue at once. That one gives everything another turn for each of
//! the last few uses. One use is enough to move on, where the paper asks for two: on the
//! traces we know that loses a little where there is much room, and gains more where there is
//! little.

use super::ghosts::Ghosts;
use super::{AccessSource, LOOKS, Policy};
use crate::mem::nodes::{NodeId, NodeList, Nodes};
use fluxmap_index::{Access, AccessTracking};

/// Two queues and a memory.
pub(crate) struct S3Fifo {
    small: NodeList,
    main: NodeList,
    ghosts: Ghosts,
    /// What the small queue may weigh, in units.
    small_limit: u64,
    /// What is remembered may weigh.
    ghost_limit: u64,
}

/// The share of the small queue: one in this many.
const SMALL_SHARE: u64 = 10;
/// Uses that are counted.
const MOST_USES: u8 = 3;

/// Set in `note` if the node is in the main queue.
const IN_MAIN: u32 = 1;
/// Set in `note` if the key was written again since it was last looked at.
const WRITTEN: u32 = 2;

impl S3Fifo {
    pub(crate) fn new(limit: u64) -> Self {
        let small_limit = limit / SMALL_SHARE;
        S3Fifo {
            small: NodeList::default(),
            main: NodeList::default(),
            ghosts: Ghosts::new(),
            small_limit,
            ghost_limit: limit - small_limit,
        }
    }

    fn queue_of(&mut self, nodes: &Nodes, node: NodeId) -> &mut NodeList {
        if nodes.get(node).note & IN_MAIN != 0 { &mut self.main } else { &mut self.small }
    }

    fn move_to_main(&mut self, nodes: &mut Nodes, node: NodeId) {
        self.queue_of(nodes, node).remove(nodes, node);
        nodes.get_mut(node).note = IN_MAIN;
        self.main.push_back(nodes, node);
    }
}

impl Policy for S3Fifo {
    fn noting(&self) -> AccessTracking {
        AccessTracking::UpTo(MOST_USES)
    }

    fn admit(&mut self, nodes: &mut Nodes, node: NodeId) {
        let is_back = self.ghosts.take(nodes.get(node).hash).is_some();
        nodes.get_mut(node).note = if is_back { IN_MAIN } else { 0 };
        self.queue_of(nodes, node).push_back(nodes, node);
    }

    fn rewrite(&mut self, nodes: &mut Nodes, node: NodeId, before: u32) {
        self.queue_of(nodes, node).reweigh(nodes, node, before);
        nodes.get_mut(node).note |= WRITTEN;
    }

    fn remove(&mut self, nodes: &mut Nodes, node: NodeId, evicted: bool) {
        self.queue_of(nodes, node).remove(nodes, node);
        let node = nodes.get(node);
        if evicted && node.note & IN_MAIN == 0 {
            self.ghosts.insert(node.hash, node.weight);
            self.ghosts.trim(self.ghost_limit);
        }
    }

    fn victim(&mut self, nodes: &mut Nodes, reads: &dyn AccessSource) -> Option<NodeId> {
        let mut best = None;
        for _ in 0..LOOKS {
            let is_small = self.small.weight() > self.small_limit || self.main.is_empty();
            let node = if is_small { self.small.front()? } else { self.main.front()? };
            let access = reads.of(nodes, node);
            let written = u8::from(nodes.get(node).note & WRITTEN != 0);
            let uses = (access.count() + written).min(MOST_USES);
            if uses == 0 {
                return Some(node);
            }
            let left = if is_small { 0 } else { uses - 1 };
            reads.reset(nodes, node, Access::new(access.stamp(), left));
            self.move_to_main(nodes, node);
            // Of those that were all used, the one that was used least.
            if best.is_none_or(|(least, _)| uses < least) {
                best = Some((uses, node));
            }
        }
        best.map(|(_, node)| node)
    }

    fn skip(&mut self, nodes: &mut Nodes, node: NodeId) {
        // To the end of a queue where others are before it. A key of the main queue goes to the small one:
        // the main queue may hold nothing else but keys that are skipped, and would be chosen from for as
        // long as the small queue is within its share.
        let was_in_main = nodes.get(node).note & IN_MAIN != 0;
        self.queue_of(nodes, node).remove(nodes, node);
        nodes.get_mut(node).note = if was_in_main || self.main.is_empty() { 0 } else { IN_MAIN };
        self.queue_of(nodes, node).push_back(nodes, node);
    }

    fn heap_bytes(&self) -> usize {
        self.ghosts.heap_bytes()
    }

    fn memory_for(&self, keys: u64) -> u64 {
        self.ghosts.memory_for(keys)
    }

    fn forget(&mut self) {
        self.ghosts = Ghosts::new();
    }

    fn forget_beyond(&mut self, weight: u64) -> bool {
        self.ghosts.trim(weight);
        self.ghosts.weight() > weight
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Rig, holds_what_is_there};
    use super::*;

    #[test]
    fn holds_what_is_there_in_two_queues() {
        holds_what_is_there(S3Fifo::new(500), |fifo| fifo.small.weight() + fifo.main.weight());
    }

    #[test]
    fn a_key_of_the_small_queue_is_found_though_all_of_the_main_queue_is_spared() {
        let mut rig = Rig::new(S3Fifo::new(100));
        (1..=20).for_each(|key| rig.insert(key, 4));
        (1..=20).for_each(|key| rig.read(key));
        // All of them have been used, so they move on to the main queue.
        rig.victim();
        rig.insert(100, 4);
        let mut skipped = 0;
        while let Some(victim) = rig.victim().filter(|victim| *victim != 100) {
            rig.skip(victim);
            skipped += 1;
            assert!(skipped < 100, "it is never chosen");
        }
    }

    #[test]
    fn a_scan_does_not_drive_out_what_is_used() {
        let mut rig = Rig::new(S3Fifo::new(100));
        (0..3).for_each(|_| rig.requests(0..30, 100));
        rig.requests(1_000..3_000, 100);
        assert!((0..30).all(|key| rig.has(key)));
    }

    #[test]
    fn what_comes_back_soon_is_past_the_small_queue() {
        let mut rig = Rig::new(S3Fifo::new(100));
        rig.requests(0..200, 100);
        assert!(!rig.request(50, 100));
        rig.requests(1_000..1_300, 100);
        assert!(rig.has(50));
        assert!(!rig.has(1_000));
    }

    #[test]
    fn what_was_deleted_is_not_remembered() {
        let mut rig = Rig::new(S3Fifo::new(100));
        rig.insert(1, 1);
        rig.remove(1, false);
        rig.insert(1, 1);
        assert_eq!(rig.policy.main.weight(), 0);
    }

    #[test]
    fn what_was_written_again_moves_on() {
        let mut rig = Rig::new(S3Fifo::new(10));
        rig.insert(1, 1);
        rig.rewrite(1, 2);
        (2..5).for_each(|key| rig.insert(key, 1));
        assert_eq!(rig.evict(), 2);
        assert_eq!(rig.policy.main.weight(), 2);
    }
}
