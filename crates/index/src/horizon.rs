//! The timestamps that are still being read.

use crate::Timestamp;

/// The snapshots that existed at one moment, and the clock at that moment.
/// Every later snapshot reads at the clock's timestamp or a greater one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Horizon {
    live: Vec<Timestamp>,
    now: Timestamp,
}

impl Horizon {
    /// A horizon of the timestamps of all live snapshots, in any order, and the
    /// clock, which must have been read *before* them.
    pub fn new(now: Timestamp, mut live: Vec<Timestamp>) -> Self {
        live.sort_unstable();
        live.dedup();
        Horizon { live, now }
    }

    /// The smallest timestamp that any snapshot, now or later, reads at: the
    /// watermark.
    pub fn oldest(&self) -> Timestamp {
        self.live.first().map_or(self.now, |first| self.now.min(*first))
    }

    /// How many different timestamps are being read.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether no snapshot is live.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Whether any snapshot, now or later, reads at a timestamp from `from` up
    /// to but not including `until`, and so sees a version that was written at
    /// `from` and superseded at `until`.
    pub fn sees(&self, from: Timestamp, until: Timestamp) -> bool {
        if self.now < until {
            return true;
        }
        let first = self.live.partition_point(|timestamp| *timestamp < from);
        self.live.get(first).is_some_and(|timestamp| *timestamp < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_seen_by_snapshots_within_its_life_only() {
        let horizon = Horizon::new(100, vec![40, 20, 40]);
        assert_eq!(horizon.oldest(), 20);
        assert_eq!(horizon.len(), 2);
        assert!(horizon.sees(20, 21));
        assert!(horizon.sees(10, 30));
        assert!(!horizon.sees(21, 40));
        assert!(horizon.sees(21, 41));
        assert!(!horizon.sees(41, 100));
        assert!(horizon.sees(41, 101), "a later snapshot may read at 100");
        assert!(!horizon.sees(5, 20));
    }

    #[test]
    fn without_snapshots_the_clock_is_the_watermark() {
        let horizon = Horizon::new(7, Vec::new());
        assert_eq!(horizon.oldest(), 7);
        assert!(!horizon.sees(3, 7));
        assert!(horizon.sees(3, 8));
    }
}
