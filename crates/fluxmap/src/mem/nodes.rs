//! What policies keep of each key: a node in doubly linked lists.
//!
//! Nodes stand in chunks of a fixed size, so growing never moves them, and are told by
//! their number. A chunk whose last node is freed gives back its memory, but for one such chunk,
//! so that a node which comes and goes at the edge of a chunk does not cost an allocation each
//! time. Everything here is constant time, as an average over additions.

/// The number of a node.
pub(crate) type NodeId = u32;

/// No node.
pub(crate) const NO_NODE: NodeId = NodeId::MAX;

/// Nodes in a chunk.
pub(crate) const CHUNK: usize = 256;

/// Chunks whose nodes all have a number that is not [`NO_NODE`].
const MOST_CHUNKS: usize = NO_NODE as usize / CHUNK;

/// No chunk.
const NO_CHUNK: u32 = u32::MAX;

/// Chunks for which there is room in any case.
const FEW_CHUNKS: usize = 16;

/// One key, as far as policies are concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    /// The hash of the key.
    pub(crate) hash: u64,
    previous: NodeId,
    next: NodeId,
    /// What the key weighs, with its value: in units of [`UNIT`](crate::mem::UNIT) bytes.
    pub(crate) weight: u32,
    /// For the policy to use as it likes.
    pub(crate) note: u32,
}

/// Nodes whose numbers follow each other.
struct Chunk {
    /// Without memory if none of them is taken, but for the chunk that is kept.
    nodes: Vec<Node>,
    /// Free nodes, linked by `next`.
    free: NodeId,
    taken: usize,
    /// Its neighbours in the list of chunks that it is in.
    previous: u32,
    next: u32,
}

/// All nodes of a database.
pub(crate) struct Nodes {
    chunks: Vec<Chunk>,
    /// The first of the chunks that have both taken nodes and room for more.
    open: u32,
    /// The first of the chunks that have no memory.
    released: u32,
    /// A chunk that has memory, and no taken nodes.
    kept: u32,
    /// How many chunks have memory.
    allocated: usize,
    len: usize,
}

impl Chunk {
    fn new() -> Self {
        let nodes = Vec::with_capacity(CHUNK);
        Chunk { nodes, free: NO_NODE, taken: 0, previous: NO_CHUNK, next: NO_CHUNK }
    }

    fn is_released(&self) -> bool {
        self.nodes.capacity() == 0
    }
}

impl Nodes {
    /// No nodes, with room for a few.
    pub(crate) fn new() -> Self {
        Nodes {
            chunks: vec![Chunk::new()],
            open: NO_CHUNK,
            released: NO_CHUNK,
            kept: 0,
            allocated: 1,
            len: 0,
        }
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A number that is greater than that of any node.
    pub(crate) fn end(&self) -> NodeId {
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        (full + self.chunks.last().map_or(0, |last| last.nodes.len())) as NodeId
    }

    /// For how many nodes there is memory.
    pub(crate) fn room(&self) -> usize {
        self.allocated * CHUNK
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.room() * size_of::<Node>() + self.chunks.capacity() * size_of::<Chunk>()
    }

    /// A node in no list. `None` if there are as many as can be told apart.
    pub(crate) fn add(&mut self, hash: u64, weight: u32) -> Option<NodeId> {
        let node = Node { hash, previous: NO_NODE, next: NO_NODE, weight, note: 0 };
        if self.open == NO_CHUNK {
            self.open_another()?;
        }
        let index = self.open;
        let chunk = &mut self.chunks[index as usize];
        let place = match chunk.free {
            NO_NODE => {
                chunk.nodes.push(node);
                chunk.nodes.len() - 1
            }
            id => {
                let place = id as usize % CHUNK;
                chunk.free = chunk.nodes[place].next;
                chunk.nodes[place] = node;
                place
            }
        };
        chunk.taken += 1;
        if chunk.taken == CHUNK {
            self.open = self.unlinked(self.open, index);
        }
        self.len += 1;
        Some((index as usize * CHUNK + place) as NodeId)
    }

    /// Gives back a node that is in no list any more.
    pub(crate) fn free(&mut self, id: NodeId) {
        let index = (id as usize / CHUNK) as u32;
        let chunk = &mut self.chunks[index as usize];
        let node = &mut chunk.nodes[id as usize % CHUNK];
        // Its own predecessor: no node of a list is, and so it is known as free.
        (node.previous, node.next) = (id, chunk.free);
        chunk.free = id;
        chunk.taken -= 1;
        self.len -= 1;
        match chunk.taken + 1 {
            CHUNK => self.open = self.linked(self.open, index),
            1 => {
                self.open = self.unlinked(self.open, index);
                self.empty(index);
            }
            _ => {}
        }
    }

    /// Whether a number is a node's, and not free.
    pub(crate) fn is_taken(&self, id: NodeId) -> bool {
        let node =
            self.chunks.get(id as usize / CHUNK).and_then(|chunk| chunk.nodes.get(id as usize % CHUNK));
        node.is_some_and(|node| node.previous != id)
    }

    pub(crate) fn get(&self, id: NodeId) -> &Node {
        &self.chunks[id as usize / CHUNK].nodes[id as usize % CHUNK]
    }

    pub(crate) fn get_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.chunks[id as usize / CHUNK].nodes[id as usize % CHUNK]
    }

    /// Opens a chunk, where none is open that has room: the one that was kept, one that was
    /// released, or a new one. `None` if there are as many as there can be.
    fn open_another(&mut self) -> Option<()> {
        let index = if self.kept != NO_CHUNK {
            std::mem::replace(&mut self.kept, NO_CHUNK)
        } else if self.released != NO_CHUNK {
            let index = self.released;
            self.released = self.unlinked(self.released, index);
            self.chunks[index as usize] = Chunk::new();
            self.allocated += 1;
            index
        } else {
            if self.chunks.len() == MOST_CHUNKS {
                return None;
            }
            self.chunks.push(Chunk::new());
            self.allocated += 1;
            (self.chunks.len() - 1) as u32
        };
        self.open = self.linked(self.open, index);
        Some(())
    }

    /// A chunk in no list has no taken node any more: of this one and the one that is kept
    /// already, the first is kept, so that the numbers in use stay small.
    fn empty(&mut self, index: u32) {
        let chunk = &mut self.chunks[index as usize];
        chunk.nodes.clear();
        chunk.free = NO_NODE;
        let (kept, other) = (self.kept.min(index), self.kept.max(index));
        self.kept = kept;
        if other == NO_CHUNK {
            return;
        }
        self.chunks[other as usize].nodes = Vec::new();
        self.allocated -= 1;
        self.released = self.linked(self.released, other);
        while self.chunks.last().is_some_and(Chunk::is_released) {
            self.released = self.unlinked(self.released, (self.chunks.len() - 1) as u32);
            self.chunks.pop();
        }
        if self.chunks.len().max(FEW_CHUNKS) <= self.chunks.capacity() / 4 {
            self.chunks.shrink_to(self.chunks.len().max(FEW_CHUNKS) * 2);
        }
    }

    /// Puts a chunk in front of a list of chunks, and returns which is the first then.
    fn linked(&mut self, first: u32, index: u32) -> u32 {
        let chunk = &mut self.chunks[index as usize];
        (chunk.previous, chunk.next) = (NO_CHUNK, first);
        if let Some(first) = self.chunks.get_mut(first as usize) {
            first.previous = index;
        }
        index
    }

    /// Takes a chunk out of a list of chunks, and returns which is the first then.
    fn unlinked(&mut self, first: u32, index: u32) -> u32 {
        let Chunk { previous, next, .. } = self.chunks[index as usize];
        if let Some(chunk) = self.chunks.get_mut(next as usize) {
            chunk.previous = previous;
        }
        match self.chunks.get_mut(previous as usize) {
            Some(chunk) => {
                chunk.next = next;
                first
            }
            None => next,
        }
    }
}

/// A list of nodes, with what they weigh together. A node is in one list at most, and its
/// weight must not change behind the list's back: see [`reweigh`](Self::reweigh).
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeList {
    front: NodeId,
    back: NodeId,
    len: usize,
    weight: u64,
}

impl Default for NodeList {
    fn default() -> Self {
        NodeList { front: NO_NODE, back: NO_NODE, len: 0, weight: 0 }
    }
}

impl NodeList {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What its nodes weigh, in units.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// The first node.
    pub(crate) fn front(&self) -> Option<NodeId> {
        (self.front != NO_NODE).then_some(self.front)
    }

    /// The last node.
    pub(crate) fn back(&self) -> Option<NodeId> {
        (self.back != NO_NODE).then_some(self.back)
    }

    /// Adds a node that is in no list at the end.
    pub(crate) fn push_back(&mut self, nodes: &mut Nodes, id: NodeId) {
        let node = nodes.get_mut(id);
        (node.previous, node.next) = (self.back, NO_NODE);
        let weight = node.weight;
        match self.back {
            NO_NODE => self.front = id,
            back => nodes.get_mut(back).next = id,
        }
        self.back = id;
        self.len += 1;
        self.weight += u64::from(weight);
    }

    /// Takes a node of this list out of it.
    pub(crate) fn remove(&mut self, nodes: &mut Nodes, id: NodeId) {
        let Node { previous, next, weight, .. } = *nodes.get(id);
        match previous {
            NO_NODE => self.front = next,
            previous => nodes.get_mut(previous).next = next,
        }
        match next {
            NO_NODE => self.back = previous,
            next => nodes.get_mut(next).previous = previous,
        }
        let node = nodes.get_mut(id);
        (node.previous, node.next) = (NO_NODE, NO_NODE);
        self.len -= 1;
        self.weight -= u64::from(weight);
    }

    /// Moves a node of this list to its end.
    pub(crate) fn move_to_back(&mut self, nodes: &mut Nodes, id: NodeId) {
        self.remove(nodes, id);
        self.push_back(nodes, id);
    }

    /// Takes notice that a node of this list, which weighed `before`, weighs something
    /// else now.
    pub(crate) fn reweigh(&mut self, nodes: &Nodes, id: NodeId, before: u32) {
        self.weight = self.weight - u64::from(before) + u64::from(nodes.get(id).weight);
    }

    /// Appends another list, which is empty then. Constant time, whatever their lengths.
    pub(crate) fn append(&mut self, nodes: &mut Nodes, other: &mut NodeList) {
        let other = std::mem::take(other);
        match (self.back, other.front) {
            (_, NO_NODE) => return,
            (NO_NODE, _) => {
                *self = other;
                return;
            }
            (back, front) => {
                nodes.get_mut(back).next = front;
                nodes.get_mut(front).previous = back;
            }
        }
        self.back = other.back;
        self.len += other.len;
        self.weight += other.weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(nodes: &mut Nodes, count: usize) -> Vec<NodeId> {
        (0..count).map(|number| nodes.add(number as u64, 1).unwrap()).collect()
    }

    /// Asserts what holds between any two calls, with these nodes taken.
    fn check(nodes: &Nodes, taken: &[NodeId]) {
        assert_eq!(nodes.len(), taken.len());
        assert!(taken.iter().all(|id| *id < nodes.end() && nodes.is_taken(*id)));
        assert_eq!((0..nodes.end()).filter(|id| nodes.is_taken(*id)).count(), taken.len());
        let in_use = nodes.chunks.iter().filter(|chunk| chunk.taken > 0).count();
        let allocated = nodes.chunks.iter().filter(|chunk| !chunk.is_released()).count();
        assert_eq!(nodes.room(), allocated * CHUNK);
        assert!(allocated <= in_use + 1, "{allocated} chunks, of which {in_use} are in use");
        assert!(nodes.chunks.len() == 1 || nodes.chunks.last().is_some_and(|last| !last.is_released()));
    }

    #[test]
    fn nodes_that_go_give_back_their_memory() {
        let empty = Nodes::new().heap_bytes();
        for backwards in [false, true] {
            let mut nodes = Nodes::new();
            let mut taken = add(&mut nodes, 100 * CHUNK);
            check(&nodes, &taken);
            let full = nodes.heap_bytes();
            if backwards {
                taken.reverse();
            }
            while let Some(id) = taken.pop() {
                nodes.free(id);
                if taken.len().is_multiple_of(1000) {
                    check(&nodes, &taken);
                }
            }
            check(&nodes, &[]);
            assert_eq!((nodes.room(), nodes.end()), (CHUNK, 0));
            assert!(nodes.heap_bytes() < empty + full / 50, "{} of {full}", nodes.heap_bytes());
        }
    }

    #[test]
    fn what_comes_takes_the_place_of_what_has_gone() {
        let mut nodes = Nodes::new();
        let mut taken = add(&mut nodes, 20 * CHUNK);
        let end = nodes.end();
        let mut state = 1_u64;
        for round in 0..30 {
            for _ in 0..3 * CHUNK {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                nodes.free(taken.swap_remove((state >> 33) as usize % taken.len()));
            }
            check(&nodes, &taken);
            if round % 3 == 0 {
                // All of some chunks, of which the last is not one.
                let gone = |id: &NodeId| *id as usize / CHUNK % 3 == 1;
                taken.iter().filter(|id| gone(id)).for_each(|id| nodes.free(*id));
                taken.retain(|id| !gone(id));
                check(&nodes, &taken);
            }
            let missing = 20 * CHUNK - taken.len();
            taken.extend(add(&mut nodes, missing));
            check(&nodes, &taken);
        }
        assert_eq!((nodes.end(), nodes.room()), (end, 20 * CHUNK));
    }

    #[test]
    fn a_node_at_the_edge_of_a_chunk_does_not_cost_an_allocation() {
        let mut nodes = Nodes::new();
        add(&mut nodes, CHUNK);
        let first = nodes.add(0, 1).unwrap();
        nodes.free(first);
        assert_eq!(nodes.room(), 2 * CHUNK);
        assert_eq!(nodes.add(0, 1), Some(first));
    }
}
