//! One writer, or several that take turns, beside readers. A snapshot sees whole
//! commits, whatever is split, unlinked, trimmed and freed meanwhile.

#![cfg(not(loom))]

mod support;

use fluxmap_index::Direction::{Backward, Forward};
use fluxmap_index::{Index, Reader, Timestamp, Writer};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use support::{Between, Hashing, Led, Random, Registry, TestKey, commit, scaled, scan};

/// The state that the threads of a test share.
struct Shared<K> {
    index: Arc<Index<K, u64>>,
    registry: Registry,
    hashing: Hashing,
    done: AtomicBool,
}

impl<K: TestKey> Shared<K> {
    fn new(hashing: Hashing) -> (Self, Writer<K, u64>) {
        let (index, writer) = Index::with_prefixes(0.5, K::prefix);
        (Shared { index, registry: Registry::default(), hashing, done: AtomicBool::new(false) }, writer)
    }

    /// One commit at the next timestamp, which `writes` is given.
    fn commit(
        &self,
        writer: &mut Writer<K, u64>,
        writes: impl FnOnce(Timestamp) -> Vec<(u32, Option<u64>)>,
    ) -> Timestamp {
        let timestamp = self.registry.now() + 1;
        let writes = writes(timestamp).into_iter();
        let writes = writes.map(|(number, value)| (self.hashing.of(number), K::of(number), value));
        commit(writer, &self.index.reader(), timestamp, writes);
        self.registry.publish(timestamp);
        timestamp
    }

    fn clean(&self, writer: &mut Writer<K, u64>, budget: usize) {
        writer.trim(&self.registry.horizon(), budget);
        drop(writer.collect(8));
    }

    /// Calls `look` with a new reader and a new snapshot each time, until the
    /// writer is done, and once more after that.
    fn watch(&self, mut look: impl FnMut(&Reader<'_, K, u64>, Timestamp)) {
        loop {
            let last = self.done.load(Ordering::Acquire);
            let timestamp = self.registry.register();
            look(&self.index.reader(), timestamp);
            self.registry.release(timestamp);
            if last {
                return;
            }
        }
    }

    fn get(&self, reader: &Reader<'_, K, u64>, number: u32, timestamp: Timestamp) -> Option<u64> {
        reader.get_at(self.hashing.of(number), &K::of(number), timestamp).copied()
    }

    fn latest(&self, number: u32) -> Option<u64> {
        let reader = self.index.reader();
        reader.latest(self.hashing.of(number), &K::of(number), || self.registry.now(), || 0).copied()
    }

    /// All pairs in ascending order. A backward scan must give the same pairs.
    fn all(&self, reader: &Reader<'_, K, u64>, timestamp: Timestamp) -> Vec<(u32, u64)> {
        let [forward, mut backward] = [Forward, Backward]
            .map(|direction| scan(reader, &Between::ALL, direction, timestamp, usize::MAX));
        backward.reverse();
        assert_eq!(forward, backward, "at {timestamp}");
        assert!(forward.is_sorted_by(|a, b| a.0 < b.0), "at {timestamp}");
        forward.into_iter().map(|(key, value)| (key.number(), *value)).collect()
    }

    /// Runs the readers while `write` runs. If `write` panics, the readers end, too.
    fn run(&self, readers: &[&(dyn Fn() + Sync)], write: impl FnOnce()) {
        thread::scope(|scope| {
            let readers: Vec<_> = readers.iter().map(|reader| scope.spawn(reader)).collect();
            let written = catch_unwind(AssertUnwindSafe(write));
            self.done.store(true, Ordering::Release);
            for reader in readers {
                reader.join().unwrap_or_else(|panic| resume_unwind(panic));
            }
            written.unwrap_or_else(|panic| resume_unwind(panic));
        });
    }
}

/// Every commit writes its timestamp as the value of all keys of a group.
fn groups<K: TestKey>(hashing: Hashing, commits: u64) {
    const GROUPS: u32 = 40;
    const MEMBERS: u32 = 6;
    let (shared, mut writer) = Shared::<K>::new(hashing);
    // The members of a group are 40 keys apart, and so spread over several blocks.
    let group = |group: u32| (0..MEMBERS).map(move |member| member * GROUPS + group);
    let numbers = |group_number: u32, value: u64| -> Vec<_> {
        group(group_number).map(|number| (number, Some(value))).collect()
    };
    for number in 0..GROUPS {
        shared.commit(&mut writer, |timestamp| numbers(number, timestamp));
    }
    let by_key = || {
        let mut random = Random::new(1);
        shared.watch(|reader, timestamp| {
            let number = random.below(GROUPS as usize) as u32;
            let first = shared.get(reader, number, timestamp);
            assert!(first.is_some_and(|value| value <= timestamp));
            for member in group(number) {
                assert_eq!(shared.get(reader, member, timestamp), first, "at {timestamp}");
            }
        });
    };
    let by_scan = || {
        shared.watch(|reader, timestamp| {
            let all = shared.all(reader, timestamp);
            assert_eq!(all.len() as u32, GROUPS * MEMBERS);
            for (number, value) in &all {
                assert_eq!(*value, all[(number % GROUPS) as usize].1, "at {timestamp}");
            }
            let newest = all.iter().map(|pair| pair.1).max();
            assert_eq!(newest, Some(timestamp), "the last commit is there, and none after it");
        });
    };
    shared.run(&[&by_key, &by_scan], || {
        let mut random = Random::new(2);
        for _ in 0..commits {
            let number = random.below(GROUPS as usize) as u32;
            shared.commit(&mut writer, |timestamp| numbers(number, timestamp));
            shared.clean(&mut writer, 8);
        }
    });
}

#[test]
fn a_snapshot_sees_whole_commits() {
    groups::<u32>(Hashing::Mixed, scaled(6_000));
}

#[test]
fn a_snapshot_sees_whole_commits_of_strings_that_collide() {
    groups::<String>(Hashing::Constant, scaled(600));
}

/// Every commit deletes some keys and inserts as many others, so that the number
/// of keys stays the same. Blocks fill and empty.
fn moving<K: TestKey>(hashing: Hashing, commits: u64, ascending: bool) {
    const ALIVE: usize = 700;
    const SPACE: u32 = 20_000;
    let (shared, mut writer) = Shared::<K>::new(hashing);
    let mut alive: Vec<u32> = (0..ALIVE as u32).map(|number| number * 3 % SPACE).collect();
    shared.commit(&mut writer, |_| alive.iter().map(|number| (*number, Some(1))).collect());

    let by_scan = || {
        shared.watch(|reader, timestamp| {
            let all = shared.all(reader, timestamp);
            assert_eq!(all.len(), ALIVE, "at {timestamp}");
        });
    };
    let by_part = || {
        let mut random = Random::new(3);
        shared.watch(|reader, timestamp| {
            let at = random.below(SPACE as usize) as u32;
            let low = scan(reader, &Led(Between(None, Some(K::of(at)))), Backward, timestamp, usize::MAX);
            let high = scan(reader, &Led(Between(Some(K::of(at + 1)), None)), Forward, timestamp, usize::MAX);
            assert_eq!(low.len() + high.len(), ALIVE, "at {timestamp}");
            for (key, value) in low.iter().chain(&high).step_by(50) {
                assert_eq!(shared.get(reader, key.number(), timestamp), Some(**value));
            }
        });
    };
    shared.run(&[&by_scan, &by_part], || {
        let mut random = Random::new(4);
        let mut next = SPACE;
        for _ in 0..commits {
            let count = 1 + random.below(40);
            if !ascending {
                random.shuffle(&mut alive);
            }
            let mut writes: Vec<_> = alive.drain(..count).map(|number| (number, None)).collect();
            let taken: BTreeSet<u32> =
                alive.iter().chain(writes.iter().map(|write| &write.0)).copied().collect();
            let mut fresh = 0;
            while fresh < count {
                let number = if ascending { next } else { random.below(SPACE as usize) as u32 };
                next += 1;
                if !taken.contains(&number) && !writes.iter().any(|write| write.0 == number) {
                    writes.push((number, Some(1)));
                    alive.push(number);
                    fresh += 1;
                }
            }
            random.shuffle(&mut writes);
            shared.commit(&mut writer, |_| writes);
            shared.clean(&mut writer, 80);
        }
    });
    assert_eq!(shared.all(&shared.index.reader(), shared.registry.now()).len(), ALIVE);
}

#[test]
fn keys_that_move_are_always_as_many() {
    moving::<u32>(Hashing::Mixed, scaled(1_000), false);
}

#[test]
fn keys_that_move_are_always_as_many_with_hashes_alike() {
    moving::<String>(Hashing::SharedUpper, scaled(300), false);
}

#[test]
fn a_queue_is_always_as_long() {
    moving::<u32>(Hashing::UpperOnly, scaled(1_000), true);
}

/// Reads without a snapshot. Key 0 and key 1 hold the timestamp of the last
/// commit; key 2 holds it if it is even, and is deleted otherwise.
#[test]
fn latest_goes_forward_and_shows_whole_commits() {
    let (shared, mut writer) = Shared::<u32>::new(Hashing::Mixed);
    let numbers = |timestamp| {
        vec![(0, Some(timestamp)), (1, Some(timestamp)), (2, (timestamp % 2 == 0).then_some(timestamp))]
    };
    shared.commit(&mut writer, numbers);
    let watch = |first: u32, second: u32| {
        let mut before = 0;
        while !shared.done.load(Ordering::Acquire) {
            let started = shared.registry.now();
            let one = shared.latest(first).expect("never deleted");
            let two = shared.latest(second).expect("never deleted");
            assert!(started <= one && before <= one && one <= two, "{started} {before} {one} {two}");
            assert!(two <= shared.registry.now(), "shown before it was published");
            before = two;
        }
    };
    let watch_gap = || {
        while !shared.done.load(Ordering::Acquire) {
            let started = shared.registry.now();
            let found = shared.latest(2);
            let ended = shared.registry.now();
            match found {
                Some(value) => assert!((started.saturating_sub(1)..=ended).contains(&value)),
                None => assert!(started != ended || started % 2 == 1, "missed at {started}"),
            }
        }
    };
    shared.run(&[&|| watch(0, 1), &|| watch(1, 0), &watch_gap], || {
        for _ in 0..scaled(20_000) {
            shared.commit(&mut writer, numbers);
            shared.clean(&mut writer, 6);
        }
    });
}

/// Several threads prepare batches at the same time and publish in turn, so that
/// the places and entries that a batch has found go stale.
#[test]
fn committers_that_take_turns_lose_nothing() {
    const THREADS: u32 = 3;
    let (shared, writer) = Shared::<u32>::new(Hashing::Mixed);
    let writer = Mutex::new(writer);
    let committer = |me: u32| {
        let mut random = Random::new(u64::from(me));
        let mut mine = BTreeSet::new();
        let mut counted = 0;
        for _ in 0..scaled(1_000) {
            let reader = shared.index.reader();
            let mut batch = reader.batch(0);
            // Neighbours of the keys that the other threads write, in ascending order.
            let start = random.below(300) as u32;
            let numbers = (start..start + 12).map(|number| 1 + number * THREADS + me);
            for number in numbers {
                let value = match mine.remove(&number) {
                    true => None,
                    false => mine.insert(number).then_some(u64::from(me)),
                };
                batch.push(shared.hashing.of(number), number, value);
            }
            let freed = {
                let mut writer = writer.lock();
                let timestamp = shared.registry.now() + 1;
                // All threads count their commits in one key.
                let mut counter = reader.batch(1);
                let count = shared.get(&reader, 0, timestamp).unwrap_or(0) + 1;
                counter.push(shared.hashing.of(0), 0, Some(count));
                writer.stage(&mut batch).publish(timestamp, &mut ());
                writer.stage(&mut counter).publish(timestamp, &mut ());
                shared.registry.publish(timestamp);
                writer.trim(&shared.registry.horizon(), 30);
                writer.collect(8)
            };
            counted += 1;
            drop(freed);
        }
        (mine, counted)
    };
    let watcher = || {
        shared.watch(|reader, timestamp| {
            let all = shared.all(reader, timestamp);
            assert_eq!(all.first().map(|pair| pair.1), (timestamp > 0).then_some(timestamp));
        });
    };
    let (expected, commits) = thread::scope(|scope| {
        let watching = scope.spawn(watcher);
        let committing: Vec<_> = (0..THREADS).map(|me| scope.spawn(move || committer(me))).collect();
        let results: Vec<_> = committing.into_iter().map(thread::ScopedJoinHandle::join).collect();
        shared.done.store(true, Ordering::Release);
        watching.join().unwrap();
        results.into_iter().map(|result| result.unwrap()).fold(
            (BTreeSet::from([0]), 0),
            |(mut all, commits), (mine, counted)| {
                all.extend(mine);
                (all, commits + counted)
            },
        )
    });
    let now = shared.registry.now();
    assert_eq!(now, commits);
    let all = shared.all(&shared.index.reader(), now);
    assert!(all.iter().map(|pair| pair.0).eq(expected));
}

/// The pairs that a reader has found stay readable as long as the reader exists.
#[test]
fn what_a_reader_found_outlives_everything_but_the_reader() {
    let (shared, mut writer) = Shared::<String>::new(Hashing::Mixed);
    shared.commit(&mut writer, |_| (0..500).map(|number| (number, Some(7))).collect());
    let reader = shared.index.reader();
    let found = scan(&reader, &Between::ALL, Forward, 1, usize::MAX);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for _ in 0..scaled(20) {
                shared.commit(&mut writer, |_| (0..500).map(|number| (number, None)).collect());
                writer.trim(&shared.registry.horizon(), usize::MAX);
                drop(writer.collect_all());
                shared.commit(&mut writer, |_| (0..500).map(|number| (number, Some(8))).collect());
                drop(shared.index.reader());
            }
            drop(writer);
        });
        for (number, (key, value)) in found.iter().enumerate() {
            assert_eq!((key.number(), **value), (number as u32, 7));
        }
        writing.join().unwrap();
    });
    assert_eq!(found.iter().map(|(_, value)| **value).sum::<u64>(), 3500);
}

/// The hash and the order grow and shrink several times while readers read: some keys are always
/// there, and the others come and go in groups.
fn tides<K: TestKey>(hashing: Hashing, most: u32, rounds: u64) {
    /// The number of neighbouring keys that come or go with one commit.
    const GROUP: u32 = 50;
    /// One key in this many is always there.
    const LASTING: u32 = 100;
    let (shared, mut writer) = Shared::<K>::new(hashing);
    let empty = shared.index.structure();
    let lasting = || (0..most).step_by(LASTING as usize);
    shared.commit(&mut writer, |_| lasting().map(|number| (number, Some(0))).collect());
    let low = shared.index.structure();
    let by_key = || {
        let mut random = Random::new(5);
        shared.watch(|reader, timestamp| {
            let number = random.below((most / LASTING) as usize) as u32 * LASTING;
            assert_eq!(shared.get(reader, number, timestamp), Some(0), "{number} at {timestamp}");
            assert_eq!(shared.latest(number), Some(0), "{number}");
            let group = random.below((most / GROUP) as usize) as u32 * GROUP;
            let first = shared.get(reader, group + 1, timestamp);
            let last = shared.get(reader, group + GROUP - 1, timestamp);
            assert_eq!(first, last, "{group} at {timestamp}");
        });
    };
    let by_scan = || {
        shared.watch(|reader, timestamp| {
            let all = shared.all(reader, timestamp);
            let there = all.iter().filter(|(number, _)| number % LASTING == 0).count();
            assert_eq!(there, lasting().count(), "at {timestamp}");
            // Each group has all of the keys that come and go, or none.
            for group in all.chunk_by(|one, other| one.0 / GROUP == other.0 / GROUP) {
                let lasts = usize::from(group[0].0 % LASTING == 0);
                assert!([0, GROUP as usize - lasts].contains(&(group.len() - lasts)), "{group:?}");
            }
        });
    };
    shared.run(&[&by_key, &by_scan], || {
        let groups: Vec<u32> = (0..most / GROUP).map(|group| group * GROUP).collect();
        for round in 1..=rounds {
            for value in [Some(round), None] {
                for group in &groups {
                    let keys = (*group..group + GROUP).filter(|number| number % LASTING != 0);
                    shared.commit(&mut writer, |_| keys.map(|number| (number, value)).collect());
                    shared.clean(&mut writer, 2 * GROUP as usize);
                }
                if value.is_some() && hashing == Hashing::Mixed {
                    assert!(shared.index.structure().bytes > 2 * low.bytes);
                }
            }
        }
    });
    shared.commit(&mut writer, |_| lasting().map(|number| (number, None)).collect());
    shared.clean(&mut writer, usize::MAX);
    drop(writer.collect_all());
    assert_eq!((shared.index.entries(), shared.index.structure()), (0, empty));
}

#[test]
fn readers_find_what_stays_while_the_structure_grows_and_shrinks() {
    tides::<u32>(Hashing::Mixed, 8000, scaled(8));
    tides::<String>(Hashing::SharedUpper, 2000, scaled(8));
}
