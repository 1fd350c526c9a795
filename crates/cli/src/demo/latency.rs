//! A histogram of latencies. It takes a fixed amount of memory, however many latencies it counts.
//!
//! Each power of two is split into eight buckets, so a percentile is at most an eighth too high. This is
//! the bucketing of HdrHistogram with three bits of precision.

use std::time::Duration;

/// The binary logarithm of the number of buckets for each power of two.
const SPLIT_BITS: u32 = 3;
const SPLIT: usize = 1 << SPLIT_BITS;

/// The number of buckets. `u64::MAX` belongs to the last one.
const BUCKETS: usize = (64 - SPLIT_BITS as usize + 1) * SPLIT;

/// Counts of latencies by bucket.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0 }
    }

    /// Counts one latency.
    pub(super) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket_of(nanoseconds)] += 1;
        self.total += 1;
    }

    /// Adds the counts of `other`.
    pub(super) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count += more;
        }
        self.total += other.total;
    }

    /// A latency that `share` (0 to 1) of all recorded latencies do not exceed; `None` if none was recorded.
    pub(super) fn percentile(&self, share: f64) -> Option<Duration> {
        let rank = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_nanos(greatest_in(bucket)))
    }
}

fn bucket_of(nanoseconds: u64) -> usize {
    if nanoseconds < SPLIT as u64 {
        return nanoseconds as usize;
    }
    let power = nanoseconds.ilog2();
    let part = (nanoseconds >> (power - SPLIT_BITS)) as usize - SPLIT;
    (power - SPLIT_BITS + 1) as usize * SPLIT + part
}

fn greatest_in(bucket: usize) -> u64 {
    if bucket < SPLIT {
        return bucket as u64;
    }
    let shift = (bucket / SPLIT - 1) as u32;
    let least = ((SPLIT + bucket % SPLIT) as u64) << shift;
    least + ((1_u64 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_its_bucket_and_near_its_end() {
        let edges = (0..64).flat_map(|power| {
            let value = 1_u64 << power;
            [value - 1, value, value + 1, value + value / 2]
        });
        for value in edges.chain([u64::MAX]) {
            let bucket = bucket_of(value);
            assert!(bucket < BUCKETS, "{value}");
            assert!(greatest_in(bucket) >= value, "{value}");
            assert!(greatest_in(bucket) - value <= value / SPLIT as u64, "{value}");
            assert!(bucket == 0 || greatest_in(bucket - 1) < value, "{value}");
        }
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut low = Histogram::new();
        let mut high = Histogram::new();
        assert_eq!(low.percentile(0.5), None);
        for microseconds in 1..=500 {
            low.record(Duration::from_micros(microseconds));
            high.record(Duration::from_micros(microseconds + 500));
        }
        low.merge(&high);
        for (share, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let found = low.percentile(share).unwrap().as_secs_f64() * 1e6;
            assert!(found >= exact && found <= exact * 1.126, "{share}: {found}");
        }
    }
}
