//! What was written longest ago goes first: one list, in the order of writes.

use super::{AccessSource, Policy};
use crate::mem::nodes::{NodeId, NodeList, Nodes};
use fluxmap_index::AccessTracking;

/// Keys by the time of their last write.
pub(crate) struct Ttl {
    written: NodeList,
}

impl Ttl {
    pub(crate) fn new() -> Self {
        Ttl { written: NodeList::default() }
    }
}

impl Policy for Ttl {
    fn noting(&self) -> AccessTracking {
        AccessTracking::Nothing
    }

    fn admit(&mut self, nodes: &mut Nodes, node: NodeId) {
        self.written.push_back(nodes, node);
    }

    fn rewrite(&mut self, nodes: &mut Nodes, node: NodeId, before: u32) {
        self.written.reweigh(nodes, node, before);
        self.written.move_to_back(nodes, node);
    }

    fn remove(&mut self, nodes: &mut Nodes, node: NodeId, _evicted: bool) {
        self.written.remove(nodes, node);
    }

    fn victim(&mut self, _nodes: &mut Nodes, _reads: &dyn AccessSource) -> Option<NodeId> {
        self.written.front()
    }

    fn skip(&mut self, nodes: &mut Nodes, node: NodeId) {
        self.written.move_to_back(nodes, node);
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
    fn holds_what_is_there_by_time() {
        holds_what_is_there(Ttl::new(), |ttl| ttl.written.weight());
    }

    #[test]
    fn writes_count_and_reads_do_not() {
        let mut rig = Rig::new(Ttl::new());
        (1..=3).for_each(|key| rig.insert(key, 1));
        rig.rewrite(1, 5);
        rig.read(2);
        assert_eq!([rig.evict(), rig.evict(), rig.evict()], [2, 3, 1]);
    }
}
