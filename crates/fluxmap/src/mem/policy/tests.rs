//! What the tests of policies share, and what is true of all of them.

use super::*;
use fluxmap_index::MOST_READS;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// What reads left, by node, and how often a policy has looked.
#[derive(Default)]
pub(super) struct Marks {
    marks: RefCell<Vec<Access>>,
    looks: Cell<usize>,
}

impl Marks {
    fn set(&self, node: NodeId, access: Access) {
        let mut marks = self.marks.borrow_mut();
        let end = marks.len().max(node as usize + 1);
        marks.resize(end, Access::default());
        marks[node as usize] = access;
    }
}

impl AccessSource for Marks {
    fn of(&self, _: &Nodes, node: NodeId) -> Access {
        self.looks.set(self.looks.get() + 1);
        self.marks.borrow()[node as usize]
    }

    fn reset(&self, _: &Nodes, node: NodeId, access: Access) {
        self.set(node, access);
    }
}

/// A policy with its nodes, and what a database does with them.
pub(super) struct Rig<P> {
    pub(super) policy: P,
    nodes: Nodes,
    marks: Marks,
    keys: BTreeMap<u64, NodeId>,
    weight: u64,
    random: u64,
}

impl<P: Policy> Rig<P> {
    pub(super) fn new(policy: P) -> Self {
        let (nodes, marks, keys) = (Nodes::new(), Marks::default(), BTreeMap::new());
        Rig { policy, nodes, marks, keys, weight: 0, random: 1 }
    }

    /// A random number below `end`, from a fixed seed.
    pub(super) fn random(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.random >> 33) % end
    }

    pub(super) fn has(&self, key: u64) -> bool {
        self.keys.contains_key(&key)
    }

    pub(super) fn insert(&mut self, key: u64, weight: u32) {
        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let node = self.nodes.add(hash ^ hash >> 32, weight).unwrap();
        self.marks.set(node, Access::new(self.policy.generation(), 0));
        self.policy.admit(&mut self.nodes, node);
        self.weight += u64::from(weight);
        assert_eq!(self.keys.insert(key, node), None);
    }

    pub(super) fn rewrite(&mut self, key: u64, weight: u32) {
        let node = self.keys[&key];
        let before = std::mem::replace(&mut self.nodes.get_mut(node).weight, weight);
        self.policy.rewrite(&mut self.nodes, node, before);
        self.weight = self.weight - u64::from(before) + u64::from(weight);
    }

    pub(super) fn remove(&mut self, key: u64, evicted: bool) {
        let node = self.keys.remove(&key).unwrap();
        self.policy.remove(&mut self.nodes, node, evicted);
        self.weight -= u64::from(self.nodes.get(node).weight);
        self.nodes.free(node);
    }

    /// Notes a read as the index does.
    pub(super) fn read(&mut self, key: u64) {
        let node = self.keys[&key];
        let count = self.marks.marks.borrow()[node as usize].count();
        let is_more = match self.policy.noting() {
            AccessTracking::Nothing => return,
            AccessTracking::UpTo(most) => count < most,
            AccessTracking::Magnitude => count < MOST_READS && self.random(1 << count) == 0,
        };
        self.marks.set(node, Access::new(self.policy.generation(), count + u8::from(is_more)));
    }

    /// What is to go next.
    pub(super) fn victim(&mut self) -> Option<u64> {
        self.marks.looks.set(0);
        let victim = self.policy.victim(&mut self.nodes, &self.marks);
        assert!(self.marks.looks.get() <= LOOKS);
        let key = |node| *self.keys.iter().find(|(_, has)| **has == node).unwrap().0;
        victim.map(key)
    }

    pub(super) fn skip(&mut self, key: u64) {
        self.policy.skip(&mut self.nodes, self.keys[&key]);
    }

    pub(super) fn evict(&mut self) -> u64 {
        let key = self.victim().unwrap();
        self.remove(key, true);
        key
    }

    /// A request for a key of weight 1 to a database with this limit: reads it if it is
    /// there, else puts it there. Says whether it was.
    pub(super) fn request(&mut self, key: u64, limit: u64) -> bool {
        let is_hit = self.has(key);
        if is_hit {
            self.read(key);
        } else {
            self.insert(key, 1);
            while self.weight > limit {
                self.evict();
            }
        }
        is_hit
    }

    pub(super) fn requests(&mut self, keys: impl IntoIterator<Item = u64>, limit: u64) {
        for key in keys {
            self.request(key, limit);
        }
    }
}

/// Checks that after any operations a policy's lists weigh what the keys weigh that are
/// there, that it names keys that are there, and no key that it has just been told to skip,
/// and that in the end it finds them all.
pub(super) fn holds_what_is_there<P: Policy>(policy: P, weight_of: impl Fn(&P) -> u64) {
    let mut rig = Rig::new(policy);
    assert_eq!(rig.victim(), None);
    for _ in 0..20_000 {
        let (key, weight) = (rig.random(300), rig.random(8) as u32);
        match (rig.random(8), rig.has(key)) {
            (0, true) => rig.remove(key, false),
            (1, true) => rig.rewrite(key, weight),
            (_, true) => rig.read(key),
            (0..4, false) => rig.insert(key, weight),
            (4, false) if rig.keys.len() > 100 => {
                let skipped = rig.victim().unwrap();
                rig.skip(skipped);
                assert_ne!(rig.victim(), Some(skipped));
            }
            _ if rig.weight > 500 => {
                rig.evict();
            }
            _ => (),
        }
        assert_eq!(weight_of(&rig.policy), rig.weight);
    }
    while !rig.keys.is_empty() {
        rig.evict();
        assert_eq!(weight_of(&rig.policy), rig.weight);
    }
    assert_eq!(rig.victim(), None);
}

/// Every policy, for a limit.
fn all(limit: u64) -> impl Iterator<Item = Box<dyn Policy>> {
    use EvictionPolicy::*;
    [Lru, Lfu, Random, Arc, Ttl, S3Fifo].into_iter().map(move |kind| policy(kind, limit))
}

impl Policy for Box<dyn Policy> {
    fn noting(&self) -> AccessTracking {
        (**self).noting()
    }
    fn generation(&self) -> u16 {
        (**self).generation()
    }
    fn admit(&mut self, nodes: &mut Nodes, node: NodeId) {
        (**self).admit(nodes, node);
    }
    fn rewrite(&mut self, nodes: &mut Nodes, node: NodeId, before: u32) {
        (**self).rewrite(nodes, node, before);
    }
    fn remove(&mut self, nodes: &mut Nodes, node: NodeId, evicted: bool) {
        (**self).remove(nodes, node, evicted);
    }
    fn victim(&mut self, nodes: &mut Nodes, reads: &dyn AccessSource) -> Option<NodeId> {
        (**self).victim(nodes, reads)
    }
    fn skip(&mut self, nodes: &mut Nodes, node: NodeId) {
        (**self).skip(nodes, node);
    }
    fn heap_bytes(&self) -> usize {
        (**self).heap_bytes()
    }
}

/// `Rig::victim` counts the looks.
#[test]
fn a_choice_takes_bounded_work_even_if_everything_was_read() {
    for policy in all(2_000) {
        let mut rig = Rig::new(policy);
        (0..2_000).for_each(|key| rig.insert(key, 1));
        for _ in 0..20 {
            let keys: Vec<u64> = rig.keys.keys().copied().collect();
            keys.iter().for_each(|key| (0..9).for_each(|_| rig.read(*key)));
            rig.evict();
        }
    }
}

#[test]
fn a_spared_key_is_chosen_last_of_two_and_again_if_it_is_alone() {
    for policy in all(2).chain(all(100)) {
        let mut rig = Rig::new(policy);
        rig.insert(1, 1);
        rig.insert(2, 1);
        let skipped = rig.victim().unwrap();
        rig.skip(skipped);
        assert_ne!(rig.evict(), skipped);
        rig.skip(skipped);
        assert_eq!(rig.evict(), skipped);
        assert_eq!(rig.victim(), None);
    }
}

#[test]
fn what_is_kept_of_keys_that_went_is_bounded() {
    for policy in all(500) {
        let mut rig = Rig::new(policy);
        for key in 0..20_000 {
            rig.insert(key, (key % 3) as u32);
            if key >= 500 {
                rig.evict();
            }
        }
        assert!(rig.policy.heap_bytes() < 100_000);
    }
}

#[test]
fn a_limit_of_nothing_is_no_trouble() {
    for policy in all(0) {
        let mut rig = Rig::new(policy);
        rig.requests((0..100).map(|key| key % 3), 0);
        assert_eq!(rig.victim(), None);
    }
}
