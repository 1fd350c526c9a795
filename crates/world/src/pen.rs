//! Random keys, values, times to live and ranges, and conversions of scans between the database and its
//! model.

use crate::plan::{Diet, Habit};
use crate::value::Value;
use fluxmap_shuttle::{FluxError, SnapshotRange};
use fluxmap_testkit::op::Scan;
use futures_core::Stream;
use rand::Rng;
use rand::rngs::StdRng;
use shuttle::future::block_on;
use std::future::poll_fn;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) type Pairs = Vec<(String, u64)>;

/// Chooses keys, and gives every write a number of its own.
#[derive(Clone)]
pub(crate) struct Pen {
    pub(crate) keys: u64,
    pub(crate) largest: usize,
    pub(crate) expiring: bool,
    /// Whether all values have the largest size.
    is_even: bool,
    /// The limit of a scan, if it has one, is less than this.
    longest: usize,
    /// The number of the next write. Its upper digits name the life and the client.
    next: Arc<AtomicU64>,
}

impl Pen {
    pub(crate) fn new(diet: &Diet, first: u64) -> Self {
        let Diet { habit, keys, largest, expiring, .. } = *diet;
        let is_even = matches!(habit, Habit::OneLength(_));
        let longest = if matches!(habit, Habit::Large(_)) { 200 } else { 4 };
        Pen { keys, largest, expiring, is_even, longest, next: Arc::new(AtomicU64::new(first)) }
    }

    /// Returns a key of a letter and a number, so that prefixes and ranges contain some of the keys.
    pub(crate) fn key(&self, rng: &mut StdRng) -> String {
        let number = rng.random_range(0..self.keys);
        format!("{}{}", ["a", "b", "c"][(number % 3) as usize], number / 3)
    }

    pub(crate) fn prefix(&self, rng: &mut StdRng) -> &'static str {
        ["a", "b", "c", "", "b1", "d"][rng.random_range(0..6)]
    }

    pub(crate) fn value(&self, rng: &mut StdRng) -> Value {
        // Relaxed: the numbers need to differ, not to be ordered.
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let size = match self.largest {
            0 => 0,
            largest if self.is_even => largest,
            largest => rng.random_range(0..largest),
        };
        Value::new(id, size)
    }

    /// Returns the number that the next value will have. Numbers grow.
    pub(crate) fn next(&self) -> u64 {
        // Relaxed: only the client that writes draws numbers.
        self.next.load(Ordering::Relaxed)
    }

    /// Returns at most `most` pairs, of which some may have the same key.
    pub(crate) fn pairs(&self, rng: &mut StdRng, most: usize) -> Vec<(String, Value)> {
        (0..rng.random_range(0..=most)).map(|_| (self.key(rng), self.value(rng))).collect()
    }

    pub(crate) fn ttl(&self, rng: &mut StdRng) -> Duration {
        Duration::from_millis([1, 10, 100, 1000, 60_000][rng.random_range(0..5)])
    }

    pub(crate) fn scan(&self, rng: &mut StdRng) -> Scan<String> {
        let mut end = || match rng.random_range(0..4) {
            0 | 1 => Bound::Unbounded,
            2 => Bound::Included(self.key(rng)),
            _ => Bound::Excluded(self.key(rng)),
        };
        let (lower, upper) = (end(), end());
        let limit = rng.random_bool(0.5).then(|| rng.random_range(0..self.longest));
        Scan { lower, upper, reverse: rng.random(), limit }
    }
}

/// Returns the scan that is equal to a prefix scan.
pub(crate) fn prefix_scan(prefix: &str, reverse: bool, limit: Option<usize>) -> Scan<String> {
    let upper = match prefix.as_bytes().split_last() {
        None => Bound::Unbounded,
        Some((last, rest)) => {
            let next = [rest, &[last + 1]].concat();
            Bound::Excluded(String::from_utf8(next).expect("prefixes are of ASCII"))
        }
    };
    Scan { lower: Bound::Included(prefix.to_owned()), upper, reverse, limit }
}

/// Returns a scan of one key.
pub(crate) fn point(key: &str) -> Scan<String> {
    let end = || Bound::Included(key.to_owned());
    Scan { lower: end(), upper: end(), ..Scan::all() }
}

/// Returns the bounds of a scan, in the form that range methods take.
pub(crate) fn ends(scan: &Scan<String>) -> (Bound<String>, Bound<String>) {
    (scan.lower.clone(), scan.upper.clone())
}

/// Returns all pairs of a range.
pub(crate) fn pairs(mut range: SnapshotRange<String, Value>) -> Result<Pairs, FluxError> {
    let mut pairs = Pairs::new();
    while let Some((key, value)) = range.try_next()? {
        pairs.push((key, value.id));
    }
    Ok(pairs)
}

/// Returns the first pairs of a stream, and drops the stream after `limit` pairs.
pub(crate) fn taken(
    mut stream: impl Stream<Item = Result<(String, Arc<Value>), FluxError>> + Unpin,
    limit: Option<usize>,
) -> Result<Pairs, FluxError> {
    let mut pairs = Pairs::new();
    while limit.is_none_or(|limit| pairs.len() < limit) {
        let next = block_on(poll_fn(|context| Pin::new(&mut stream).poll_next(context)));
        let Some((key, value)) = next.transpose()? else { break };
        pairs.push((key, value.id));
    }
    Ok(pairs)
}

/// Returns the time as the engine stores it: in milliseconds since 1970, and at least 1, as 0 means never.
pub(crate) fn millis(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(1, |since| since.as_millis() as u64).max(1)
}
