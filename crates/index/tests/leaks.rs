//! Every key and every value is dropped once, in whatever order index, writer and
//! garbage are dropped.

#![cfg(not(loom))]

mod support;

use fluxmap_index::Direction::Forward;
use fluxmap_index::{Horizon, Index, Writer};
use std::cmp;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use support::{Between, Hashing, Random, scan};

/// Counts the keys and values that are alive, and the drops of some that were not.
#[derive(Default)]
struct Census {
    made: AtomicU64,
    alive: AtomicI64,
    dead_dropped: AtomicU64,
}

const ALIVE: u32 = 0xa11fe;
const DEAD: u32 = 0xdead;

/// A key or a value. Owns memory, so that tools that check memory notice a leak
/// or a second drop.
struct Counted {
    number: Box<u32>,
    state: AtomicU32,
    census: Arc<Census>,
}

impl Counted {
    fn new(number: u32, census: &Arc<Census>) -> Self {
        census.made.fetch_add(1, Ordering::Relaxed);
        census.alive.fetch_add(1, Ordering::Relaxed);
        Counted { number: Box::new(number), state: AtomicU32::new(ALIVE), census: Arc::clone(census) }
    }

    fn number(&self) -> u32 {
        assert_eq!(self.state.load(Ordering::Relaxed), ALIVE);
        *self.number
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.state.swap(DEAD, Ordering::Relaxed) != ALIVE {
            self.census.dead_dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.census.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Counted::new(self.number(), &self.census)
    }
}

impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        self.number() == other.number()
    }
}

impl Eq for Counted {}

impl PartialOrd for Counted {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Counted {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.number().cmp(&other.number())
    }
}

type Counting = (Arc<Index<Counted, Counted>>, Writer<Counted, Counted>);

/// An index that has been used: it has versions, tombstones, entries of abandoned
/// batches, and garbage in open, sealed and pinned bags.
fn used(hashing: Hashing, census: &Arc<Census>) -> Counting {
    let (index, mut writer) = Index::new(0.5);
    let mut random = Random::new(11);
    let held = index.reader();
    for timestamp in 1..120 {
        let reader = index.reader();
        let mut batch = reader.batch(8);
        let start = random.below(700) as u32;
        for number in start..start + 1 + random.below(20) as u32 {
            let value = (random.below(3) > 0).then(|| Counted::new(number, census));
            batch.push(hashing.of(number), Counted::new(number, census), value);
        }
        match random.below(10) {
            0 => drop(writer.stage(&mut batch)),
            1 => {}
            _ => writer.stage(&mut batch).publish(timestamp, &mut ()),
        }
        drop(batch);
        writer.trim(&Horizon::new(timestamp, vec![timestamp - timestamp % 16]), 10);
        drop(if timestamp % 8 == 0 { writer.collect_all() } else { writer.collect(5) });
    }
    drop(held);
    (index, writer)
}

fn check(end: impl Fn(Counting)) {
    for hashing in [Hashing::Mixed, Hashing::Constant] {
        let census = Arc::new(Census::default());
        end(used(hashing, &census));
        assert!(census.made.load(Ordering::Relaxed) > 1000);
        assert_eq!(census.alive.load(Ordering::Relaxed), 0, "alive at the end");
        assert_eq!(census.dead_dropped.load(Ordering::Relaxed), 0, "dropped twice");
    }
}

#[test]
fn the_writer_goes_first() {
    check(|(index, writer)| {
        drop(writer);
        drop(index);
    });
}

#[test]
fn the_index_goes_first() {
    check(|(index, writer)| {
        drop(index);
        drop(writer);
    });
}

#[test]
fn what_was_collected_goes_last() {
    check(|(index, mut writer)| {
        writer.trim(&Horizon::new(1000, Vec::new()), usize::MAX);
        let freed = writer.collect_all();
        assert!(!freed.is_empty());
        drop(writer);
        drop(index);
        drop(freed);
    });
}

#[test]
fn a_reader_outlives_the_writer() {
    check(|(index, mut writer)| {
        drop(writer.collect_all());
        let reader = index.reader();
        let found = scan(&reader, &Between::ALL, Forward, u64::MAX, usize::MAX);
        assert!(!found.is_empty());
        writer.trim(&Horizon::new(1000, Vec::new()), usize::MAX);
        assert!(writer.collect_all().is_empty(), "the reader protects all of it");
        drop(writer);
        assert!(found.iter().all(|(key, value)| key.number() == value.number()));
    });
}

#[test]
fn everything_is_deleted_first() {
    check(|(index, mut writer)| {
        let numbers: Vec<u32> = {
            let reader = index.reader();
            let found = scan(&reader, &Between::ALL, Forward, u64::MAX, usize::MAX);
            found.iter().map(|(key, _)| key.number()).collect()
        };
        let census = {
            let reader = index.reader();
            Arc::clone(&scan(&reader, &Between::ALL, Forward, u64::MAX, 1)[0].0.census)
        };
        for hashing in [Hashing::Mixed, Hashing::Constant] {
            let reader = index.reader();
            let mut batch = reader.batch(numbers.len());
            for number in &numbers {
                let key = Counted::new(*number, &census);
                if reader.get_at(hashing.of(*number), &key, u64::MAX).is_some() {
                    batch.push(hashing.of(*number), key, None);
                }
            }
            writer.stage(&mut batch).publish(1000, &mut ());
        }
        writer.trim(&Horizon::new(1000, Vec::new()), usize::MAX);
        drop(writer.collect_all());
        assert_eq!((index.entries(), index.versions(), writer.backlog()), (0, 0, 0));
        // No block has kept a copy of the key at which it starts.
        assert_eq!(census.alive.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn threads_share_the_end() {
    check(|(index, mut writer)| {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let index = Arc::clone(&index);
                scope.spawn(move || {
                    let reader = index.reader();
                    let found = scan(&reader, &Between::ALL, Forward, u64::MAX, usize::MAX);
                    assert!(found.iter().all(|(key, value)| key.number() == value.number()));
                });
            }
            drop(index);
            writer.trim(&Horizon::new(1000, Vec::new()), usize::MAX);
            drop(writer.collect_all());
            drop(writer);
        });
    });
}
