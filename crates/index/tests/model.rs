//! The index against a model under random operations and random snapshots. The model
//! is a map from keys to all their versions, of which none is ever trimmed.

#![cfg(not(loom))]

mod support;

use fluxmap_index::Direction::{self, Backward, Forward};
use fluxmap_index::{Horizon, Index, Reader, Timestamp, Writer};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{Between, Hashing, Led, Random, Registry, TestKey, commit, scaled, scan};

/// All keys are below this number. Some look-ups are for numbers above it.
const KEYS: u32 = 3000;

#[derive(Clone, Copy, Debug)]
enum Order {
    Ascending,
    Descending,
    Shuffled(u64),
}

/// A set of keys in the order in which they are written.
#[derive(Clone, Debug)]
struct Keys {
    start: u32,
    count: u32,
    step: u32,
    order: Order,
}

impl Keys {
    fn list(&self) -> Vec<u32> {
        let mut keys: Vec<u32> = (0..self.count).map(|i| (self.start + i * self.step) % KEYS).collect();
        keys.sort_unstable();
        keys.dedup();
        match self.order {
            Order::Ascending => {}
            Order::Descending => keys.reverse(),
            Order::Shuffled(seed) => Random::new(seed).shuffle(&mut keys),
        }
        keys
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// Commits of `size` keys each, of which every `deletes`th is deleted.
    Write {
        keys: Keys,
        size: usize,
        deletes: usize,
    },
    /// The second batch is prepared first, and staged after the first batch has
    /// been published, and its garbage trimmed and collected.
    Overtake {
        first: Keys,
        second: Keys,
        deletes: usize,
    },
    /// A batch that is staged and not published.
    Abandon {
        keys: Keys,
    },
    Snapshot,
    Release {
        which: usize,
    },
    /// Trims by the present horizon, or by the one that was remembered last.
    Trim {
        budget: usize,
        old: bool,
    },
    RememberHorizon,
    Collect {
        all: bool,
    },
    /// Reads some keys and spans at every snapshot.
    Look {
        seed: u64,
    },
}

fn keys() -> impl Strategy<Value = Keys> {
    let order =
        prop_oneof![Just(Order::Ascending), Just(Order::Descending), any::<u64>().prop_map(Order::Shuffled)];
    let count = prop_oneof![3 => 1..20u32, 2 => 20..500u32];
    (0..KEYS, count, prop_oneof![3 => Just(1u32), 1 => 1..40u32], order)
        .prop_map(|(start, count, step, order)| Keys { start, count, step, order })
}

fn op() -> impl Strategy<Value = Op> {
    // Deletes every key, every second, every seventh, or none.
    let deletes = prop_oneof![Just(1usize), Just(2), Just(7), Just(usize::MAX)];
    prop_oneof![
        8 => (keys(), 1..90usize, deletes.clone())
            .prop_map(|(keys, size, deletes)| Op::Write { keys, size, deletes }),
        2 => (keys(), keys(), deletes)
            .prop_map(|(first, second, deletes)| Op::Overtake { first, second, deletes }),
        1 => keys().prop_map(|keys| Op::Abandon { keys }),
        2 => Just(Op::Snapshot),
        2 => any::<usize>().prop_map(|which| Op::Release { which }),
        4 => (prop_oneof![Just(usize::MAX), 0..300usize], any::<bool>())
            .prop_map(|(budget, old)| Op::Trim { budget, old }),
        1 => Just(Op::RememberHorizon),
        2 => any::<bool>().prop_map(|all| Op::Collect { all }),
        3 => any::<u64>().prop_map(|seed| Op::Look { seed }),
    ]
}

/// The index and its model.
struct Pair<K> {
    index: Arc<Index<K, u64>>,
    writer: Writer<K, u64>,
    hashing: Hashing,
    registry: Registry,
    /// An earlier horizon. To trim by it is safe, since no snapshot begins in the past.
    horizon: Horizon,
    model: BTreeMap<u32, Vec<(Timestamp, Option<u64>)>>,
}

fn model_at(versions: &[(Timestamp, Option<u64>)], timestamp: Timestamp) -> Option<u64> {
    versions.iter().rev().find(|version| version.0 <= timestamp)?.1
}

impl<K: TestKey> Pair<K> {
    fn new(hashing: Hashing, probability: f64) -> Self {
        let (index, writer) = Index::with_prefixes(probability, K::prefix);
        let (registry, horizon) = (Registry::default(), Horizon::default());
        Pair { index, writer, hashing, registry, horizon, model: BTreeMap::new() }
    }

    /// Writes to these keys. Each value contains the commit's timestamp and the key.
    fn writes(&self, keys: &[u32], deletes: usize, timestamp: Timestamp) -> Vec<(u64, K, Option<u64>)> {
        let value = |key: u32| (timestamp << 32) | u64::from(key);
        let written = keys.iter().enumerate().map(|(i, key)| {
            let kept = i % deletes != deletes - 1;
            (self.hashing.of(*key), K::of(*key), kept.then(|| value(*key)))
        });
        written.collect()
    }

    fn note(&mut self, writes: &[(u64, K, Option<u64>)], timestamp: Timestamp) {
        for (_, key, value) in writes {
            self.model.entry(key.number()).or_default().push((timestamp, *value));
        }
        self.registry.publish(timestamp);
    }

    fn write(&mut self, keys: &[u32], deletes: usize) {
        let timestamp = self.registry.now() + 1;
        let writes = self.writes(keys, deletes, timestamp);
        commit(&mut self.writer, &self.index.reader(), timestamp, writes.clone());
        self.note(&writes, timestamp);
    }

    fn overtake(&mut self, first: &[u32], second: &[u32], deletes: usize) {
        let index = Arc::clone(&self.index);
        let reader = index.reader();
        let writes = self.writes(second, deletes, self.registry.now() + 2);
        let mut batch = reader.batch(writes.len());
        for (hash, key, value) in writes.clone() {
            batch.push(hash, key, value);
        }
        self.write(first, deletes);
        self.writer.trim(&self.registry.horizon(), usize::MAX);
        drop(self.writer.collect_all());
        let timestamp = self.registry.now() + 1;
        self.writer.stage(&mut batch).publish(timestamp, &mut ());
        self.note(&writes, timestamp);
    }

    fn abandon(&mut self, keys: &[u32]) {
        let index = Arc::clone(&self.index);
        let reader = index.reader();
        let mut batch = reader.batch(0);
        for (hash, key, value) in self.writes(keys, usize::MAX, Timestamp::MAX >> 32) {
            batch.push(hash, key, value);
        }
        drop(self.writer.stage(&mut batch));
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Write { keys, size, deletes } => {
                keys.list().chunks(*size).for_each(|chunk| self.write(chunk, *deletes));
            }
            Op::Overtake { first, second, deletes } => self.overtake(&first.list(), &second.list(), *deletes),
            Op::Abandon { keys } => self.abandon(&keys.list()),
            Op::Snapshot => drop(self.registry.register()),
            Op::Release { which } => {
                let live = self.registry.live();
                if !live.is_empty() {
                    self.registry.release(live[which % live.len()]);
                }
            }
            Op::Trim { budget, old } => {
                let horizon = if *old { self.horizon.clone() } else { self.registry.horizon() };
                self.writer.trim(&horizon, *budget);
            }
            Op::RememberHorizon => self.horizon = self.registry.horizon(),
            Op::Collect { all: true } => drop(self.writer.collect_all()),
            Op::Collect { all: false } => drop(self.writer.collect(5)),
            Op::Look { seed } => self.look(&mut Random::new(*seed)),
        }
    }

    fn look(&self, random: &mut Random) {
        let reader = self.index.reader();
        for timestamp in self.registry.live().into_iter().chain([self.registry.now()]) {
            for _ in 0..8 {
                self.look_at_key(&reader, random.below(KEYS as usize + 10) as u32, timestamp);
            }
            for direction in [Forward, Backward] {
                let (a, b) = (random.below(KEYS as usize), random.below(KEYS as usize));
                let limit = [1, 5, 200, usize::MAX][random.below(4)];
                let span = match random.below(4) {
                    0 => (None, None),
                    1 => (Some(a as u32), None),
                    // Some of these are empty.
                    _ => (Some(a as u32), Some(b as u32)),
                };
                self.look_at_span(&reader, span, direction, timestamp, limit);
            }
        }
    }

    fn look_at_key(&self, reader: &Reader<'_, K, u64>, number: u32, timestamp: Timestamp) {
        let (hash, key) = (self.hashing.of(number), K::of(number));
        let expected = self.model.get(&number).and_then(|versions| model_at(versions, timestamp));
        assert_eq!(reader.get_at(hash, &key, timestamp).copied(), expected);
        let entry = reader.get_entry_at(hash, &key, timestamp);
        assert_eq!(
            entry.map(|(key, value)| (key.clone(), *value)),
            expected.map(|value| (key.clone(), value))
        );
        if timestamp == self.registry.now() {
            assert_eq!(reader.latest(hash, &key, || timestamp, || 0).copied(), expected);
        }
        // `changed` cannot tell keys apart whose hashes agree in all bits that the index keeps.
        let alike = |other: u32| self.hashing.of(other) >> 24 == hash >> 24;
        let changed = self.model.iter().any(|(other, versions)| {
            alike(*other) && versions.last().is_some_and(|version| version.0 > timestamp)
        });
        assert_eq!(reader.changed(hash, timestamp, 0), changed, "{number} since {timestamp}");
    }

    fn look_at_span(
        &self,
        reader: &Reader<'_, K, u64>,
        span: (Option<u32>, Option<u32>),
        direction: Direction,
        timestamp: Timestamp,
        limit: usize,
    ) {
        let inside = |key: &u32| span.0.is_none_or(|from| *key >= from) && span.1.is_none_or(|to| *key <= to);
        let within = self.model.iter().filter(|(key, _)| inside(key));
        let mut expected: Vec<(u32, u64)> = within
            .clone()
            .filter_map(|(key, versions)| Some((*key, model_at(versions, timestamp)?)))
            .collect();
        if direction == Backward {
            expected.reverse();
        }
        expected.truncate(limit);
        let between = Led(Between(span.0.map(K::of), span.1.map(K::of)));
        let found = scan(reader, &between, direction, timestamp, limit);
        let found: Vec<(u32, u64)> = found.into_iter().map(|(key, value)| (key.number(), *value)).collect();
        assert_eq!(found, expected, "{span:?} {direction:?} at {timestamp}");

        let changed = within.clone().any(|(_, versions)| versions.last().unwrap().0 > timestamp);
        assert_eq!(reader.changed_within(&between, timestamp, 0), changed);
    }

    /// Without snapshots, only the present values are left.
    fn finish(mut self) {
        self.look(&mut Random::new(1));
        for timestamp in self.registry.live() {
            while self.registry.live().contains(&timestamp) {
                self.registry.release(timestamp);
            }
        }
        self.writer.trim(&self.registry.horizon(), usize::MAX);
        assert_eq!(self.writer.backlog(), 0, "no entry must wait to be trimmed");
        drop(self.writer.collect_all());
        let now = self.registry.now();
        let alive = self.model.values().filter(|versions| model_at(versions, now).is_some()).count();
        assert_eq!((self.index.entries(), self.index.versions()), (alive, alive));
        self.look_at_span(&self.index.reader(), (None, None), Forward, now, usize::MAX);
        self.look_at_span(&self.index.reader(), (None, None), Backward, now, usize::MAX);
    }
}

fn run<K: TestKey>(hashing: Hashing, probability: f64, ops: &[Op]) {
    let mut pair = Pair::<K>::new(hashing, probability);
    for op in ops {
        pair.apply(op);
    }
    pair.finish();
}

fn hashing() -> impl Strategy<Value = Hashing> {
    prop_oneof![
        4 => Just(Hashing::Mixed),
        2 => Just(Hashing::UpperOnly),
        1 => Just(Hashing::SharedUpper),
        1 => Just(Hashing::LowerOnly),
        1 => Just(Hashing::Constant),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: scaled(48) as u32, ..ProptestConfig::default() })]

    #[test]
    fn numbers(hashing in hashing(), probability in 0.0..1.0, ops in prop::collection::vec(op(), 1..40)) {
        run::<u32>(hashing, probability, &ops);
    }

    #[test]
    fn strings(hashing in hashing(), probability in 0.0..1.0, ops in prop::collection::vec(op(), 1..40)) {
        run::<String>(hashing, probability, &ops);
    }
}

/// Every order of keys, with batches that fit into a run and batches that do not.
#[test]
fn orders_and_sizes() {
    for order in [Order::Ascending, Order::Descending, Order::Shuffled(3)] {
        for size in [1, 2, 63, 64, 400] {
            let keys = Keys { start: 0, count: 1500, step: 1, order };
            let all = Op::Write { keys: keys.clone(), size, deletes: usize::MAX };
            let none = Op::Write { keys, size, deletes: 1 };
            let trim = Op::Trim { budget: usize::MAX, old: false };
            let look = Op::Look { seed: 5 };
            run::<u32>(
                Hashing::Mixed,
                0.25,
                &[all.clone(), look.clone(), Op::Snapshot, none, look, trim, all],
            );
        }
    }
}
