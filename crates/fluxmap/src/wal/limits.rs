//! The limits on the size of the log and of its segments.
//!
//! By default the log follows the data. A checkpoint writes out everything that is stored, so one begins
//! when the log has grown by the size of the previous checkpoint. Then each byte of a commit costs one
//! byte in the log and about one in a checkpoint, whatever the size of the database. If a bound is set
//! instead, it covers all files of the log together.

use crate::wal::segment::MIN_SIZE;

/// A smaller log is not worth a checkpoint.
const LEAST_LOG: u64 = 4 << 20;
/// The size of the first segment, where larger ones are allowed: small, so that a database that is
/// hardly used takes little room.
const FIRST_SEGMENT: u64 = 256 << 10;
/// The log has room for at least this many segments, so that writing goes on while a checkpoint covers
/// some of them.
const SEGMENTS: u64 = 4;

/// The size limits that the user set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogSize {
    /// The most bytes that all segments take together, if the user bounded them.
    bound: Option<u64>,
    /// The size of the largest segment.
    segment: u64,
}

/// The limits for the present size of the data, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// A checkpoint begins when the full segments that no checkpoint covers take this much.
    pub(crate) checkpoint_at: u64,
    /// All segments together take at most this, unless a single commit takes more.
    pub(crate) limit: u64,
    /// The largest segment.
    pub(crate) segment: u64,
}

impl LogSize {
    /// Creates the limits for a pool of this many segments, or with 0 for a log that follows the data.
    pub(crate) fn new(pool: usize, segment: u64) -> Self {
        let bound = (pool > 0).then(|| segment.saturating_mul(pool as u64));
        LogSize { bound, segment }
    }

    /// Returns the limits after a checkpoint of this many bytes.
    pub(crate) fn bounds(&self, checkpoint: u64) -> Bounds {
        let limit = self.bound.unwrap_or_else(|| checkpoint.max(LEAST_LOG).saturating_mul(2));
        let segment = (limit / SEGMENTS).clamp(MIN_SIZE, self.segment.max(MIN_SIZE));
        // At least two segments: the log ends a segment only once the next one is there.
        let limit = limit.max(2 * segment);
        Bounds { checkpoint_at: limit / 2, limit, segment }
    }
}

impl Bounds {
    /// Returns the size of the first segment.
    pub(crate) fn first_segment(&self) -> u64 {
        FIRST_SEGMENT.min(self.segment)
    }

    /// Returns the size of the segment after one of this size.
    pub(crate) fn segment_after(&self, size: u64) -> u64 {
        size.saturating_mul(2).clamp(self.first_segment(), self.segment)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn by_default_the_log_is_as_large_as_the_data_and_never_tiny() {
        let size = LogSize::new(0, 16 * MIB);
        for checkpoint in [0, 100, 4 * MIB] {
            let bounds = Bounds { checkpoint_at: 4 * MIB, limit: 8 * MIB, segment: 2 * MIB };
            assert_eq!(size.bounds(checkpoint), bounds, "{checkpoint}");
        }
        let bounds = Bounds { checkpoint_at: 300 * MIB, limit: 600 * MIB, segment: 16 * MIB };
        assert_eq!(size.bounds(300 * MIB), bounds);
        assert_eq!(size.bounds(u64::MAX).limit, u64::MAX);
    }

    #[test]
    fn a_pool_is_a_bound_whatever_the_data() {
        for checkpoint in [0, 300 * MIB, u64::MAX] {
            let bounds = LogSize::new(4, 16 * MIB).bounds(checkpoint);
            assert_eq!(bounds, Bounds { checkpoint_at: 32 * MIB, limit: 64 * MIB, segment: 16 * MIB });
            let bounds = LogSize::new(1, 16 * MIB).bounds(checkpoint);
            assert_eq!(bounds, Bounds { checkpoint_at: 8 * MIB, limit: 16 * MIB, segment: 4 * MIB });
        }
        assert_eq!(LogSize::new(usize::MAX, 1 << 30).bounds(0).limit, u64::MAX);
        // The bound allows two of the smallest segments.
        assert_eq!(LogSize::new(1, MIN_SIZE).bounds(0).limit, 2 * MIN_SIZE);
    }

    #[test]
    fn segments_begin_small_and_double() {
        let bounds = LogSize::new(0, 16 * MIB).bounds(300 * MIB);
        let sizes =
            std::iter::successors(Some(bounds.first_segment()), |size| Some(bounds.segment_after(*size)));
        let sizes: Vec<_> = sizes.take(8).map(|size| size / 1024).collect();
        assert_eq!(sizes, [256, 512, 1024, 2048, 4096, 8192, 16384, 16384]);
        assert_eq!(bounds.segment_after(4096), 256 << 10, "after that of a backup");
    }
}
