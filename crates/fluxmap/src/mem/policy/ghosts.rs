//! Keys that have gone, remembered for a while: only by their hashes, and what they weighed.
//!
//! A hash table of chains, which grows and shrinks by one bucket at a time (Litwin, "Linear
//! hashing: a new tool for file and table addressing", VLDB 1980), so that no insertion moves
//! everything. Chains have a greatest length: what would make one longer is not remembered.
//! So everything is constant time even if keys have bad hashes.

use crate::mem::nodes::{self, NO_NODE, Node, NodeId, NodeList, Nodes};

/// Hashes in the order in which they came.
pub(crate) struct Ghosts {
    /// `note` is the next one in the same bucket.
    nodes: Nodes,
    order: NodeList,
    /// The first of each bucket, in chunks of [`CHUNK`], so that growing moves none.
    buckets: Vec<Vec<NodeId>>,
}

/// Buckets in a chunk.
const CHUNK: usize = 1024;
/// The greatest length of a chain. With hashes worth the name, hardly any gets half as long.
const LONGEST: usize = 16;
/// The most that are forgotten in one go.
const TRIMMED: usize = 16;
/// Buckets for each hash from which on there are too many: growing leaves one for each.
const SPARSE: usize = 4;

impl Ghosts {
    pub(crate) fn new() -> Self {
        let mut first = Vec::with_capacity(CHUNK);
        first.push(NO_NODE);
        Ghosts { nodes: Nodes::new(), order: NodeList::default(), buckets: vec![first] }
    }

    /// What they weighed together, each at least 1.
    pub(crate) fn weight(&self) -> u64 {
        self.order.weight()
    }

    /// Remembers a hash.
    pub(crate) fn insert(&mut self, hash: u64, weight: u32) {
        if self.chain(hash).count() >= LONGEST {
            return;
        }
        // Even what weighs nothing takes room here, and must not be without bound.
        let Some(id) = self.nodes.add(hash, weight.max(1)) else { return };
        self.order.push_back(&mut self.nodes, id);
        self.link(id);
        if self.nodes.len() > self.bucket_count() {
            self.split();
        }
    }

    /// Forgets a hash, and says what it weighed if it was remembered.
    pub(crate) fn take(&mut self, hash: u64) -> Option<u32> {
        let id = self.chain(hash).find(|&id| self.nodes.get(id).hash == hash)?;
        let weight = self.nodes.get(id).weight;
        self.forget(id);
        Some(weight)
    }

    /// Forgets the oldest ones until the rest weighs no more than this, but no more of them
    /// at a time than is quick: that is more than were inserted, so it gets there.
    pub(crate) fn trim(&mut self, limit: u64) {
        for _ in 0..TRIMMED {
            if self.weight() <= limit {
                return;
            }
            if let Some(oldest) = self.order.front() {
                self.forget(oldest);
            }
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        let chunks = self.buckets.len() * CHUNK * size_of::<NodeId>();
        self.nodes.heap_bytes() + chunks + self.buckets.capacity() * size_of::<Vec<NodeId>>()
    }

    /// How many bytes more so many more take, at most: nodes and buckets come in chunks, and the
    /// lists of chunks double.
    pub(crate) fn memory_for(&self, hashes: u64) -> u64 {
        let each = (size_of::<Node>() + size_of::<NodeId>()) as u64;
        let chunks = (nodes::CHUNK * size_of::<Node>() + CHUNK * size_of::<NodeId>()) as u64;
        hashes.saturating_mul(each).saturating_add(chunks + self.heap_bytes() as u64 / 64)
    }

    fn bucket_count(&self) -> usize {
        (self.buckets.len() - 1) * CHUNK + self.buckets[self.buckets.len() - 1].len()
    }

    /// The bucket of a hash: by its lower bits, as many as there are buckets for. Of those
    /// that would be in a bucket that is not there yet, by one bit less.
    fn bucket(&self, hash: u64) -> usize {
        let count = self.bucket_count();
        let all = count.next_power_of_two();
        let bucket = hash as usize & (all - 1);
        if bucket < count { bucket } else { bucket - all / 2 }
    }

    fn head(&mut self, bucket: usize) -> &mut NodeId {
        &mut self.buckets[bucket / CHUNK][bucket % CHUNK]
    }

    /// All that are in the bucket of a hash.
    fn chain(&self, hash: u64) -> impl Iterator<Item = NodeId> + '_ {
        let bucket = self.bucket(hash);
        let first = self.buckets[bucket / CHUNK][bucket % CHUNK];
        std::iter::successors(some(first), |&id| some(self.nodes.get(id).note))
    }

    /// Puts a node at the head of its chain.
    fn link(&mut self, id: NodeId) {
        let bucket = self.bucket(self.nodes.get(id).hash);
        let head = self.head(bucket);
        let next = std::mem::replace(head, id);
        self.nodes.get_mut(id).note = next;
    }

    fn forget(&mut self, id: NodeId) {
        let (hash, next) = (self.nodes.get(id).hash, self.nodes.get(id).note);
        let before = self.chain(hash).find(|&other| self.nodes.get(other).note == id);
        match before {
            Some(before) => self.nodes.get_mut(before).note = next,
            None => {
                let bucket = self.bucket(hash);
                *self.head(bucket) = next;
            }
        }
        self.order.remove(&mut self.nodes, id);
        self.nodes.free(id);
        debug_assert_eq!(self.order.is_empty(), self.nodes.len() == 0);
        while self.bucket_count() > 1 + SPARSE * self.nodes.len() && self.join() {}
    }

    /// Adds a bucket, and spreads the one that has had its hashes until now over both.
    fn split(&mut self) {
        let new = self.bucket_count();
        let old = self.bucket(new as u64);
        let mut next = std::mem::replace(self.head(old), NO_NODE);
        match self.buckets.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(NO_NODE),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(NO_NODE);
                self.buckets.push(chunk);
            }
        }
        while let Some(id) = some(next) {
            next = self.nodes.get(id).note;
            self.link(id);
        }
    }

    /// Takes back the last split. Returns false, with nothing changed, if there was none, or if
    /// the chain would become too long.
    fn join(&mut self) -> bool {
        let Some(last) = self.bucket_count().checked_sub(1).filter(|last| *last > 0) else {
            return false;
        };
        // The bucket that has its hashes without it: the last but for its highest bit.
        let other = last - (1 << last.ilog2());
        if self.chain(last as u64).count() + self.chain(other as u64).count() > LONGEST {
            return false;
        }
        let mut next = std::mem::replace(self.head(last), NO_NODE);
        if let Some(chunk) = self.buckets.last_mut() {
            chunk.pop();
        }
        self.buckets.pop_if(|chunk| chunk.is_empty());
        while let Some(id) = some(next) {
            next = self.nodes.get(id).note;
            self.link(id);
        }
        true
    }
}

/// The node, if it is one.
fn some(id: NodeId) -> Option<NodeId> {
    (id != NO_NODE).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some number that differs in all bits from that of the next.
    fn hash(number: u64) -> u64 {
        let product = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        product ^ product >> 32
    }

    #[test]
    fn what_was_inserted_is_found_once() {
        let mut ghosts = Ghosts::new();
        (0..10_000).for_each(|number| ghosts.insert(hash(number), number as u32 + 1));
        for number in 0..10_000 {
            assert_eq!(ghosts.take(hash(number)), Some(number as u32 + 1));
            assert_eq!(ghosts.take(hash(number)), None);
        }
        assert_eq!(ghosts.weight(), 0);
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let mut ghosts = Ghosts::new();
        for number in 0..1_000 {
            ghosts.insert(hash(number), 7);
            ghosts.trim(70);
        }
        let left: Vec<u64> = (0..1_000).filter(|number| ghosts.take(hash(*number)).is_some()).collect();
        assert_eq!(left, (990..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_trim_is_done_in_steps() {
        let mut ghosts = Ghosts::new();
        (0..100).for_each(|number| ghosts.insert(hash(number), 1));
        ghosts.trim(0);
        assert_eq!(ghosts.weight(), 100 - TRIMMED as u64);
        (0..100).for_each(|_| ghosts.trim(0));
        assert_eq!(ghosts.weight(), 0);
    }

    #[test]
    fn what_weighs_nothing_is_bounded_too() {
        let mut ghosts = Ghosts::new();
        for number in 0..10_000 {
            ghosts.insert(hash(number), 0);
            ghosts.trim(100);
        }
        assert_eq!(ghosts.nodes.len(), 100);
        assert!(ghosts.heap_bytes() < 20_000);
    }

    #[test]
    fn what_is_forgotten_gives_back_its_memory() {
        let mut ghosts = Ghosts::new();
        let empty = ghosts.heap_bytes();
        for _ in 0..2 {
            (0..50_000).for_each(|number| ghosts.insert(hash(number), 1));
            let full = ghosts.heap_bytes();
            for number in 0..50_000 {
                if u64::is_multiple_of(number, 1_000) {
                    // Whatever was joined, the others are where they are looked for.
                    assert!((number..50_000).all(|other| {
                        ghosts.chain(hash(other)).any(|id| ghosts.nodes.get(id).hash == hash(other))
                    }));
                }
                assert_eq!(ghosts.take(hash(number)), Some(1));
            }
            let left = ghosts.heap_bytes() - empty;
            assert!(left * 50 < full, "{left} bytes of {full}");
        }
        let bytes = ghosts.heap_bytes();
        (0..1_000).for_each(|number| ghosts.insert(hash(number), 1));
        (0..100).for_each(|_| ghosts.trim(0));
        assert_eq!((ghosts.weight(), ghosts.heap_bytes()), (0, bytes));
    }

    #[test]
    fn equal_hashes_make_no_long_chain() {
        let mut ghosts = Ghosts::new();
        (0..1_000).for_each(|_| ghosts.insert(5, 1));
        assert_eq!(ghosts.nodes.len(), LONGEST);
        (0..LONGEST).for_each(|_| assert_eq!(ghosts.take(5), Some(1)));
        assert_eq!(ghosts.take(5), None);
    }

    #[test]
    fn chains_stay_short_as_the_table_grows() {
        let mut ghosts = Ghosts::new();
        (0..100_000).for_each(|number| ghosts.insert(hash(number), 1));
        let longest = (0..100_000).map(|number| ghosts.chain(hash(number)).count()).max();
        assert!(longest < Some(LONGEST), "{longest:?}");
        assert_eq!(ghosts.nodes.len(), 100_000);
    }
}
