//! The latencies of transfers.

use std::time::Duration;

use hdrhistogram::{AdditionError, Histogram, RecordError};

/// Counts of latencies. They take little memory, however many latencies are recorded.
#[derive(Debug)]
pub(super) struct Latencies {
    nanoseconds: Histogram<u64>,
}

impl Latencies {
    /// No latencies.
    pub(super) fn new() -> Self {
        // With one significant digit a percentile is at most a sixteenth too high. Each of up to 100,000
        // tasks has a histogram: it takes 3 kB for latencies of 10 ms, and with each further digit eight
        // times as much.
        let nanoseconds = Histogram::new(1).expect("one digit is possible");
        Self { nanoseconds }
    }

    /// Counts one latency.
    ///
    /// # Errors
    ///
    /// If this machine cannot address the counts of so long a latency.
    pub(super) fn record(&mut self, latency: Duration) -> Result<(), RecordError> {
        self.nanoseconds.record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Adds the counts of `other`.
    ///
    /// # Errors
    ///
    /// As for [`Self::record`].
    pub(super) fn merge(&mut self, other: &Self) -> Result<(), AdditionError> {
        self.nanoseconds.add(&other.nanoseconds)
    }

    /// A latency that `share` (0 to 1) of all recorded latencies do not exceed; `None` if none was recorded.
    pub(super) fn percentile(&self, share: f64) -> Option<Duration> {
        let recorded = !self.nanoseconds.is_empty();
        recorded.then(|| Duration::from_nanos(self.nanoseconds.value_at_quantile(share)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_all_tasks_and_at_most_a_sixteenth_too_high() {
        let mut low = Latencies::new();
        let mut high = Latencies::new();
        assert_eq!(low.percentile(0.5), None);
        for microseconds in 1..=500 {
            low.record(Duration::from_micros(microseconds)).unwrap();
            high.record(Duration::from_micros(microseconds + 500)).unwrap();
        }
        low.merge(&high).unwrap();
        for (share, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let found = low.percentile(share).unwrap().as_secs_f64() * 1e6;
            assert!(found >= exact && found <= exact * (1.0 + 1.0 / 16.0), "{share}: {found}");
        }
    }

    #[test]
    fn the_shortest_and_the_longest_latency_are_counted() {
        let mut latencies = Latencies::new();
        for latency in [Duration::ZERO, Duration::from_secs(3_600), Duration::MAX] {
            latencies.record(latency).unwrap();
        }
        assert_eq!(latencies.percentile(0.1), Some(Duration::ZERO));
        let hour = latencies.percentile(0.6).unwrap().as_secs();
        assert!((3_600..=3_825).contains(&hour), "{hour} s");
        assert!(latencies.percentile(1.0).unwrap() > Duration::from_secs(3_600 * 24 * 365));
    }
}
