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

use crate::error::FluxError;
use crate::mvcc::clock::Clock;
use crate::sync::Mutex;
use fluxmap_index::{Horizon, Moment, Timestamp};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SHARDS: usize = 16;
/// How often snapshots that are too old are looked for, at most.
const SHORTEST_AGE: Duration = Duration::from_millis(1);

/// The number of all snapshots that do not age.
const LASTING: u64 = 0;

/// Snapshots that read at the same timestamp, and end together.
struct Live {
    count: usize,
    /// When the first of them began.
    since: Instant,
}

#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Registrations>);

#[derive(Default)]
struct Registrations {
    /// By timestamp, and by a number of their own if they age; else [`LASTING`].
    live: BTreeMap<(Timestamp, u64), Live>,
    next: u64,
}

/// All live snapshots.
#[derive(Default)]
pub(crate) struct Active {
    shards: [Shard; SHARDS],
    max_age: Option<Duration>,
}

/// Where a snapshot is registered; given back to [`Active::release`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registration {
    pub(crate) moment: Moment,
    number: u64,
    shard: usize,
}

impl Active {
    /// No snapshots. They end when they are older than `max_age`.
    pub(crate) fn new(max_age: Option<Duration>) -> Self {
        Active { max_age, ..Active::default() }
    }

    /// Registers a snapshot at what `now` reads, a hand of the clock. It ends when it is too
    /// old, if it `ages`.
    pub(crate) fn register(&self, ages: bool, now: impl FnOnce() -> Moment) -> Registration {
        let shard = thread_number() % SHARDS;
        let since = Instant::now();
        let mut registrations = self.shards[shard].0.lock();
        let moment = now();
        let number = match ages && self.max_age.is_some() {
            true => {
                registrations.next += 1;
                registrations.next
            }
            false => LASTING,
        };
        let live = registrations.live.entry((moment.timestamp, number)).or_insert(Live { count: 0, since });
        live.count += 1;
        Registration { moment, number, shard }
    }

    /// Does nothing if the snapshot has been ended.
    pub(crate) fn release(&self, registration: Registration) {
        let mut registrations = self.shards[registration.shard].0.lock();
        let key = (registration.moment.timestamp, registration.number);
        if let Some(live) = registrations.live.get_mut(&key) {
            live.count -= 1;
            if live.count == 0 {
                registrations.live.remove(&key);
            }
        }
    }

    /// Whether the snapshot has been ended. To be asked after a read: what was read before
    /// it says no was there to be read. Where ages are not limited, costs nothing.
    fn has_ended(&self, registration: Registration) -> bool {
        registration.number != LASTING && {
            let key = (registration.moment.timestamp, registration.number);
            !self.shards[registration.shard].0.lock().live.contains_key(&key)
        }
    }

    /// Whether what was read up to now is what the snapshot shows.
    ///
    /// # Errors
    ///
    /// [`FluxError::SnapshotTooOld`] if it has been ended, and versions may have gone.
    pub(crate) fn check(&self, registration: Registration) -> Result<(), FluxError> {
        match self.max_age {
            Some(max_age) if self.has_ended(registration) => Err(FluxError::SnapshotTooOld { max_age }),
            _ => Ok(()),
        }
    }

    /// Ends the snapshots that are too old at `now`; returns when the next will be.
    pub(crate) fn end_old(&self, now: Instant) -> Option<Instant> {
        let max_age = self.max_age?;
        // Not more often than is worth a thread's while.
        let mut next = now.checked_add(max_age.max(SHORTEST_AGE));
        for shard in &self.shards {
            shard.0.lock().live.retain(|(_, number), live| match live.since.checked_add(max_age) {
                _ if *number == LASTING => true,
                Some(end) if end <= now => false,
                end => {
                    let end = end.map(|end| end.max(now + SHORTEST_AGE));
                    next = next.into_iter().chain(end).min();
                    true
                }
            });
        }
        next
    }

    /// Which timestamps are being read now, or may be later.
    pub(crate) fn horizon(&self, clock: &Clock) -> Horizon {
        // Before the shards: see the top of the file.
        let now = clock.stable();
        let mut live = Vec::new();
        for shard in &self.shards {
            live.extend(shard.0.lock().live.keys().map(|(timestamp, _)| timestamp));
        }
        Horizon::new(now, live)
    }

    /// How many snapshots are live.
    pub(crate) fn count(&self) -> usize {
        let count = |shard: &Shard| shard.0.lock().live.values().map(|live| live.count).sum::<usize>();
        self.shards.iter().map(count).sum()
    }

    /// When the oldest that is live began. Snapshots that began one after another at the
    /// same timestamp on the same thread may count as old as the first of them.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let oldest = |shard: &Shard| shard.0.lock().live.values().map(|live| live.since).min();
        self.shards.iter().filter_map(oldest).min()
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
        let old = active.register(true, || clock.stable().into());
        clock.settle_at_once(9);
        let register = || active.register(true, || clock.stable().into());
        let (young, twin) = (register(), register());
        assert_eq!((old.moment.timestamp, young.moment.timestamp), (5, 9));
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

    #[test]
    fn a_snapshot_ends_at_its_age_whoever_else_reads_at_its_timestamp() {
        let age = Duration::from_secs(60);
        let active = Active::new(Some(age));
        let began = Instant::now();
        let old = active.register(true, || 5.into());
        assert!(active.end_old(began + age / 2).is_some_and(|next| next <= Instant::now() + age));
        assert!(!active.has_ended(old));
        let later = Instant::now() + age;
        active.end_old(later);
        assert!(active.has_ended(old));
        let young = active.register(true, || 5.into());
        assert!(!active.has_ended(young));
        active.release(old);
        assert_eq!(active.count(), 1);
    }
}
