//! The memory of an index does not grow with time, if snapshots are short.

#![cfg(not(loom))]

mod support;

use fluxmap_index::{Horizon, Index, Timestamp, Writer};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use support::{Hashing, Random, commit, scaled};

struct Counting;

thread_local! {
    /// The bytes that the thread has allocated and not freed.
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    // The counter may be gone already when the thread ends.
    let _ = BYTES.try_with(|sum| sum.set(sum.get() + bytes));
}

// SAFETY: `System` does all the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The number of writes that a test measures, after as many that warm up. In
/// optimized builds, a million in all.
fn writes() -> u64 {
    scaled(if cfg!(debug_assertions) { 50_000 } else { 500_000 }).max(3000)
}

struct Flat {
    index: Arc<Index<u32, u64>>,
    writer: Writer<u32, u64>,
    timestamp: Timestamp,
    /// The live snapshots: those of the last five commits, at most.
    live: VecDeque<Timestamp>,
}

impl Flat {
    fn write(&mut self, writes: &[(u32, Option<u64>)]) {
        self.timestamp += 1;
        let writes = writes.iter().map(|(key, value)| (Hashing::Mixed.of(*key), *key, *value));
        commit(&mut self.writer, &self.index.reader(), self.timestamp, writes);
        self.live.push_back(self.timestamp);
        if self.live.len() > 5 {
            self.live.pop_front();
        }
        let horizon = Horizon::new(self.timestamp, self.live.iter().copied().collect());
        self.writer.trim(&horizon, 8);
        drop(self.writer.collect(8));
    }

    /// Runs `step` for all writes twice, and compares memory and entries with the first time.
    fn check(mut step: impl FnMut(&mut Flat, u64)) {
        let start = BYTES.get();
        let (index, writer) = Index::new(0.25);
        let mut flat = Flat { index, writer, timestamp: 0, live: VecDeque::new() };
        let (mut bytes, mut entries) = (0, 0);
        let writes = writes();
        for round in 0..2 * writes {
            step(&mut flat, round);
            let (versions, keys) = (flat.index.versions(), flat.index.entries());
            assert!(versions <= keys + 100, "{versions} versions of {keys} keys");
            assert!(flat.writer.backlog() <= 100);
            if round < writes {
                (bytes, entries) = (bytes.max(BYTES.get() - start), entries.max(keys));
            } else {
                assert!(keys <= entries + entries / 10 + 20, "{keys} keys after {entries}");
                let now = BYTES.get() - start;
                assert!(now <= bytes + bytes / 5, "{now} bytes after {bytes}");
            }
        }
        drop(flat);
        assert_eq!(BYTES.get(), start);
    }
}

#[test]
fn updates_of_the_same_keys() {
    let mut random = Random::new(1);
    Flat::check(|flat, round| flat.write(&[(random.below(1000) as u32, Some(round))]));
}

#[test]
fn inserts_and_deletes_of_random_keys() {
    let mut random = Random::new(2);
    Flat::check(|flat, round| {
        let value = (random.below(2) == 0).then_some(round);
        flat.write(&[(random.below(2000) as u32, value)]);
    });
}

#[test]
fn a_queue_that_moves_on() {
    Flat::check(|flat, round| {
        let gone = (round as u32).checked_sub(1000);
        let gone = gone.map(|key| (key, None));
        let writes: Vec<_> = [(round as u32, Some(round))].into_iter().chain(gone).collect();
        flat.write(&writes);
    });
}
