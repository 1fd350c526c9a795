//! Shared by the tests of the index.

#![allow(dead_code, unreachable_pub)]

use fluxmap_index::{Direction, Horizon, KeyPrefix, Reader, Span, Timestamp, Writer};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of rounds of a test that would make `count`: fewer where each step costs
/// much more, as under a sanitizer (`FLUXMAP_TEST_DIVISOR`).
pub fn scaled(count: u64) -> u64 {
    let divisor = std::env::var("FLUXMAP_TEST_DIVISOR").map_or(1, |divisor| divisor.parse().unwrap());
    (count / divisor).max(2)
}

/// A key made of a number. Keys are ordered as their numbers.
pub trait TestKey: Ord + Clone + std::fmt::Debug + Send + Sync + 'static {
    fn of(number: u32) -> Self;
    fn number(&self) -> u32;
    fn prefix(&self) -> Option<KeyPrefix>;
}

impl TestKey for u32 {
    fn of(number: u32) -> Self {
        number
    }

    fn number(&self) -> u32 {
        *self
    }

    fn prefix(&self) -> Option<KeyPrefix> {
        Some(KeyPrefix::of(&self.to_be_bytes()))
    }
}

impl TestKey for String {
    fn of(number: u32) -> Self {
        format!("key/{number:010}")
    }

    fn number(&self) -> u32 {
        self[4..].parse().unwrap()
    }

    /// A hundred neighbouring keys have the same key prefix.
    fn prefix(&self) -> Option<KeyPrefix> {
        Some(KeyPrefix::of(&self.as_bytes()[..12]))
    }
}

/// How the numbers of keys become hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hashing {
    /// A good hash.
    Mixed,
    /// One hash for all.
    Constant,
    /// The upper 32 bits are equal, so that splitting a segment does not divide its entries.
    SharedUpper,
    /// Only the bits that choose a segment differ.
    UpperOnly,
    /// Only the bits that entries do not keep differ: to the index, all hashes are equal.
    LowerOnly,
}

impl Hashing {
    pub fn of(self, number: u32) -> u64 {
        let mixed = (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        match self {
            Hashing::Mixed => mixed,
            Hashing::Constant => 42,
            Hashing::SharedUpper => 0xabcd_ef01_0000_0000 | mixed >> 32,
            Hashing::UpperOnly => mixed & !(u64::MAX >> 24),
            Hashing::LowerOnly => 0x1234_5678_9abc_0000 | mixed & 0xffff,
        }
    }
}

/// The span from the first key up to and including the second.
pub struct Between<K>(pub Option<K>, pub Option<K>);

impl<K> Between<K> {
    pub const ALL: Self = Between(None, None);
}

impl<K: Ord> Span<K> for Between<K> {
    fn is_before(&self, key: &K) -> bool {
        self.0.as_ref().is_some_and(|from| key < from)
    }

    fn is_after(&self, key: &K) -> bool {
        self.1.as_ref().is_some_and(|to| key > to)
    }
}

/// The same span, with key prefixes.
pub struct Led<K>(pub Between<K>);

impl<K: TestKey> Span<K> for Led<K> {
    fn is_before(&self, key: &K) -> bool {
        self.0.is_before(key)
    }

    fn is_after(&self, key: &K) -> bool {
        self.0.is_after(key)
    }

    fn prefixes(&self) -> Option<[KeyPrefix; 2]> {
        let prefix = |key: &Option<K>| key.as_ref().and_then(K::prefix);
        let (first, last) = (prefix(&self.0.0), prefix(&self.0.1));
        Some([first.unwrap_or(KeyPrefix::LEAST), last.unwrap_or(KeyPrefix::GREATEST)])
    }
}

/// The first `limit` pairs of a scan.
pub fn scan<'r, K: Ord, T>(
    reader: &'r Reader<'_, K, T>,
    span: &impl Span<K>,
    direction: Direction,
    timestamp: Timestamp,
    limit: usize,
) -> Vec<(&'r K, &'r T)> {
    let mut found = Vec::new();
    reader.scan(
        span,
        direction,
        timestamp,
        |_, _| {},
        |pairs| {
            assert!(!pairs.is_empty(), "a visitor gets no pairs");
            found.extend_from_slice(pairs);
            match found.len() < limit {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        },
    );
    found.truncate(limit);
    found
}

/// One commit, which is prepared, staged and published at once.
pub fn commit<K: Ord + Clone, T>(
    writer: &mut Writer<K, T>,
    reader: &Reader<'_, K, T>,
    timestamp: Timestamp,
    writes: impl IntoIterator<Item = (u64, K, Option<T>)>,
) {
    let mut batch = reader.batch(0);
    for (hash, key, value) in writes {
        batch.push(hash, key, value);
    }
    writer.stage(&mut batch).publish(timestamp, &mut ());
}

/// The clock and the live snapshots. (The lock is not one of the standard library, since
/// thread sanitizer sees only code that is compiled along with the tests.)
#[derive(Default)]
pub struct Registry {
    clock: AtomicU64,
    live: Mutex<BTreeMap<Timestamp, usize>>,
}

impl Registry {
    pub fn now(&self) -> Timestamp {
        self.clock.load(Ordering::Acquire)
    }

    pub fn publish(&self, timestamp: Timestamp) {
        self.clock.store(timestamp, Ordering::Release);
    }

    /// Registers a snapshot at the clock's timestamp.
    pub fn register(&self) -> Timestamp {
        let mut live = self.live.lock();
        // Read the clock under the lock: a horizon that has missed this snapshot has then read
        // the clock before, so it keeps all versions from its own, older clock on.
        let now = self.now();
        *live.entry(now).or_insert(0) += 1;
        now
    }

    pub fn release(&self, timestamp: Timestamp) {
        let mut live = self.live.lock();
        let count = live.get_mut(&timestamp).expect("registered");
        *count -= 1;
        if *count == 0 {
            live.remove(&timestamp);
        }
    }

    pub fn live(&self) -> Vec<Timestamp> {
        self.live.lock().keys().copied().collect()
    }

    pub fn horizon(&self) -> Horizon {
        let now = self.now();
        Horizon::new(now, self.live())
    }
}

/// Pseudorandom numbers, the same in every run (xorshift64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound
    }

    pub fn shuffle<E>(&mut self, elements: &mut [E]) {
        for index in (1..elements.len()).rev() {
            elements.swap(index, self.below(index + 1));
        }
    }
}
