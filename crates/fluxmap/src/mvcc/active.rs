//! The live snapshots, and the horizon that follows from them.
//!
//! A snapshot registers by reading one hand of the clock and entering what it read
//! in one step, under the lock of its shard. A horizon is taken by reading the hand
//! that is behind, the stable one, and then visiting every shard under its lock. So a
//! snapshot that the visit misses registers after it, and reads at least what the
//! horizon was given: the watermark cannot overtake it.
//!
//! Shards keep threads that begin and end at the same time off each other's
//! cache lines. Beginning and ending are logarithmic in the number of different
//! timestamps that live in one shard, whatever else is open.

use crate::mvcc::clock::Clock;
use crate::sync::Mutex;
use fluxmap_index::{Horizon, Timestamp};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

const SHARDS: usize = 16;

/// How many snapshots read at each timestamp.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<BTreeMap<Timestamp, usize>>);

/// All live snapshots.
#[derive(Default)]
pub(crate) struct Active {
    shards: [Shard; SHARDS],
}

/// Where a snapshot is registered; given back to [`Active::release`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registration {
    pub(crate) timestamp: Timestamp,
    shard: usize,
}

impl Active {
    /// Registers a snapshot at what `now` reads, a hand of the clock.
    pub(crate) fn register(&self, now: impl FnOnce() -> Timestamp) -> Registration {
        let shard = thread_number() % SHARDS;
        let mut live = self.shards[shard].0.lock();
        let timestamp = now();
        *live.entry(timestamp).or_insert(0) += 1;
        Registration { timestamp, shard }
    }

    pub(crate) fn release(&self, registration: Registration) {
        let mut live = self.shards[registration.shard].0.lock();
        if let Some(count) = live.get_mut(&registration.timestamp) {
            *count -= 1;
            if *count == 0 {
                live.remove(&registration.timestamp);
            }
        }
    }

    /// Which timestamps are being read now, or may be later.
    pub(crate) fn horizon(&self, clock: &Clock) -> Horizon {
        // Before the shards: see the top of the file.
        let now = clock.stable();
        let mut live = Vec::new();
        for shard in &self.shards {
            live.extend(shard.0.lock().keys());
        }
        Horizon::new(now, live)
    }

    /// How many snapshots are live.
    pub(crate) fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().values().sum::<usize>()).sum()
    }
}

/// A number for the calling thread, to choose a shard by.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    std::thread_local! {
        // Relaxed: the numbers need to differ, not to be ordered.
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn the_horizon_follows_the_oldest_live_snapshot() {
        let (active, clock) = (Active::default(), Clock::default());
        clock.settle_at_once(5);
        let old = active.register(|| clock.stable());
        clock.settle_at_once(9);
        let register = || active.register(|| clock.stable());
        let (young, twin) = (register(), register());
        assert_eq!((old.timestamp, young.timestamp), (5, 9));
        assert_eq!(active.horizon(&clock).oldest(), 5);
        assert_eq!(active.count(), 3);
        active.release(old);
        active.release(twin);
        clock.settle_at_once(20);
        assert_eq!(active.horizon(&clock).oldest(), 9);
        active.release(young);
        assert_eq!(active.horizon(&clock).oldest(), 20);
        assert_eq!(active.count(), 0);
    }
}
