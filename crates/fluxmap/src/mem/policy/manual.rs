//! Nothing goes by itself. Reads are noted, for the user to choose by.

use super::{AccessSource, Policy};
use crate::mem::nodes::{NodeId, Nodes};
use fluxmap_index::{AccessTracking, STAMPS};

/// A generation lasts until one in this many of the keys has come in.
const GENERATIONS: usize = 32;

/// Keeps the time by which reads are noted, and no more.
pub(crate) struct Manual {
    generation: u16,
    admissions: usize,
}

impl Manual {
    pub(crate) fn new() -> Self {
        Manual { generation: 0, admissions: 0 }
    }
}

impl Policy for Manual {
    fn noting(&self) -> AccessTracking {
        AccessTracking::Magnitude
    }

    fn evicts(&self) -> bool {
        false
    }

    fn generation(&self) -> u16 {
        self.generation
    }

    fn admit(&mut self, nodes: &mut Nodes, _node: NodeId) {
        self.admissions += 1;
        if self.admissions * GENERATIONS > nodes.len() {
            self.admissions = 0;
            self.generation = (self.generation + 1) % STAMPS;
        }
    }

    fn rewrite(&mut self, _nodes: &mut Nodes, _node: NodeId, _before: u32) {}

    fn remove(&mut self, _nodes: &mut Nodes, _node: NodeId, _evicted: bool) {}

    fn victim(&mut self, _nodes: &mut Nodes, _reads: &dyn AccessSource) -> Option<NodeId> {
        None
    }

    fn skip(&mut self, _nodes: &mut Nodes, _node: NodeId) {}

    fn heap_bytes(&self) -> usize {
        0
    }
}
