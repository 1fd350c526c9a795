//! Notes that reads leave on an entry, for the eviction policy.
//!
//! A note has sixteen bits: a stamp, which says in which generation the entry was last read,
//! and a small count of reads. A read stores the note only if it changes, with Relaxed. If two
//! reads store at the same time, one may be lost; a policy needs no exact counts.

use crate::sync::{AtomicU8, AtomicU16, Ordering};

/// How an entry has been read since its note was last reset: a stamp and a count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access(u16);

/// The number of generations that a stamp can tell apart.
pub const STAMPS: u16 = 1 << 12;
/// The largest count.
pub const MOST_READS: u8 = 15;

const COUNT_BITS: u32 = 4;

impl Access {
    /// A stamp below [`STAMPS`], and a count of at most [`MOST_READS`].
    pub const fn new(stamp: u16, count: u8) -> Self {
        Access((stamp % STAMPS) << COUNT_BITS | (count & MOST_READS) as u16)
    }

    /// The generation of the last read, modulo [`STAMPS`].
    pub fn stamp(self) -> u16 {
        self.0 >> COUNT_BITS
    }

    /// How often the entry was read; see [`AccessTracking`] for the scale.
    pub fn count(self) -> u8 {
        (self.0 & u16::from(MOST_READS)) as u8
    }
}

/// How reads are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessTracking {
    /// Not at all: reads leave no trace.
    #[default]
    Nothing,
    /// One by one, up to this many.
    UpTo(u8),
    /// By order of magnitude: a count of `c` stands for about `2^c - 1` reads
    /// (Morris, "Counting large numbers of events in small registers", CACM 1978).
    Magnitude,
}

/// How the readers of an index note their reads.
pub(crate) struct AccessLog {
    /// 0: no notes; 1 to 15: counts up to this many reads; 16: counts by magnitude.
    mode: AtomicU8,
    generation: AtomicU16,
}

const MAGNITUDE: u8 = MOST_READS + 1;

impl AccessLog {
    pub(crate) fn new() -> Self {
        AccessLog { mode: AtomicU8::new(0), generation: AtomicU16::new(0) }
    }

    pub(crate) fn set_mode(&self, noting: AccessTracking) {
        let mode = match noting {
            AccessTracking::Nothing => 0,
            AccessTracking::UpTo(most) => most.clamp(1, MOST_READS),
            AccessTracking::Magnitude => MAGNITUDE,
        };
        // Relaxed, like all accesses in this file: notes guide eviction, and nothing relies on them.
        self.mode.store(mode, Ordering::Relaxed);
    }

    pub(crate) fn set_generation(&self, generation: u16) {
        self.generation.store(generation % STAMPS, Ordering::Relaxed);
    }

    pub(crate) fn generation(&self) -> u16 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Whether reads are to be noted.
    pub(crate) fn is_on(&self) -> bool {
        self.mode.load(Ordering::Relaxed) != 0
    }

    /// Notes a read. `draw` must differ from read to read: it decides which reads raise a count
    /// of magnitudes.
    pub(crate) fn note(&self, access: &AtomicU16, draw: u64) {
        let before = Access(access.load(Ordering::Relaxed));
        let mode = self.mode.load(Ordering::Relaxed);
        let count = before.count();
        let more = match mode {
            MAGNITUDE => count < MOST_READS && draw & ((1 << count) - 1) == 0,
            most => count < most,
        };
        let after = Access::new(self.generation.load(Ordering::Relaxed), count + u8::from(more));
        // Store only a change, so that the cache line of a popular entry stays shared by all cores.
        if after != before {
            access.store(after.0, Ordering::Relaxed);
        }
    }
}

pub(crate) fn load(access: &AtomicU16) -> Access {
    Access(access.load(Ordering::Relaxed))
}

pub(crate) fn store(access: &AtomicU16, value: Access) {
    access.store(value.0, Ordering::Relaxed);
}
