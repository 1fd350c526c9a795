//! What policies keep of each key: a node in doubly linked lists.
//!
//! Nodes stand in chunks of a fixed size, so growing never moves them, and are told by
//! their number. Everything here is constant time.

/// The number of a node.
pub(crate) type NodeId = u32;

/// No node.
pub(crate) const NO_NODE: NodeId = NodeId::MAX;

/// Nodes in a chunk.
pub(crate) const CHUNK: usize = 256;

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

/// All nodes of a database.
pub(crate) struct Nodes {
    chunks: Vec<Vec<Node>>,
    /// Free nodes, linked by `next`.
    free: NodeId,
    len: usize,
}

impl Nodes {
    /// No nodes, with room for a few.
    pub(crate) fn new() -> Self {
        Nodes { chunks: vec![Vec::with_capacity(CHUNK)], free: NO_NODE, len: 0 }
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The number that is greater than all that have been given out.
    pub(crate) fn end(&self) -> NodeId {
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        (full + self.chunks.last().map_or(0, Vec::len)) as NodeId
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<Node>() + self.chunks.capacity() * size_of::<Vec<Node>>()
    }

    /// A node in no list. `None` if there are as many as can be told apart.
    pub(crate) fn add(&mut self, hash: u64, weight: u32) -> Option<NodeId> {
        let node = Node { hash, previous: NO_NODE, next: NO_NODE, weight, note: 0 };
        let id = if self.free != NO_NODE {
            let id = self.free;
            self.free = self.get(id).next;
            *self.get_mut(id) = node;
            id
        } else {
            let id = self.end();
            if id == NO_NODE {
                return None;
            }
            if id as usize == self.chunks.len() * CHUNK {
                self.chunks.push(Vec::with_capacity(CHUNK));
            }
            self.chunks.last_mut()?.push(node);
            id
        };
        self.len += 1;
        Some(id)
    }

    /// Gives back a node that is in no list any more.
    pub(crate) fn free(&mut self, id: NodeId) {
        let free = self.free;
        let node = self.get_mut(id);
        // Its own predecessor: no node of a list is, and so it is known as free.
        (node.previous, node.next) = (id, free);
        self.free = id;
        self.len -= 1;
    }

    /// Whether a number below [`end`](Self::end) is a node's, and not free.
    pub(crate) fn is_taken(&self, id: NodeId) -> bool {
        self.get(id).previous != id
    }

    pub(crate) fn get(&self, id: NodeId) -> &Node {
        &self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }

    pub(crate) fn get_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }
}

/// A list of nodes, with what they weigh together. A node is in one list at most, and its
/// weight must not change behind the list's back: see [`reweigh`](Self::reweigh).
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    front: NodeId,
    back: NodeId,
    len: usize,
    weight: u64,
}

impl Default for List {
    fn default() -> Self {
        List { front: NO_NODE, back: NO_NODE, len: 0, weight: 0 }
    }
}

impl List {
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
    pub(crate) fn append(&mut self, nodes: &mut Nodes, other: &mut List) {
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
