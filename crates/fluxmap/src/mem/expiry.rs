//! Time, as far as keys expire by it.
//!
//! A snapshot reads the time once, so what it sees stays as it is. What has expired for
//! it was not deleted by a commit, and yet the order of commits must agree with it: no
//! commit may rest on a key that a view of an earlier state has already found expired. So
//! there is one [hand](Hand), moved under the commit lock only, and a commit is certified
//! at what it shows then.

use crate::mvcc::clock::Clock;
use crate::sync::{AtomicU64, Instant, Mutex, Ordering, system_time};
use fluxmap_index::{Moment, Time, Timestamp};
use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where a database gets the time from, by which its keys expire.
///
/// To be replaced in tests, which then need not sleep. Whoever moves a source of their own
/// forward may call [`Database::vacuum`](crate::Database::vacuum) to have what has expired
/// removed; it is out of sight anyway.
///
/// ```
/// use fluxmap::{Database, mem::TimeSource};
/// use std::sync::{Arc, Mutex};
/// use std::time::{Duration, SystemTime};
///
/// struct Manual(Mutex<SystemTime>);
///
/// impl TimeSource for Manual {
///     fn now(&self) -> SystemTime {
///         *self.0.lock().unwrap()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fluxmap::FluxError> {
/// let time = Arc::new(Manual(Mutex::new(SystemTime::now())));
/// let source = Arc::clone(&time);
/// let db = Database::<&str, u32>::builder().time_source(source).build().await?;
/// db.insert_with_ttl("session", 7, Duration::from_secs(60)).await?;
/// *time.0.lock().unwrap() += Duration::from_secs(60);
/// assert!(db.get("session")?.is_none());
/// # Ok(())
/// # }
/// ```
pub trait TimeSource: Send + Sync {
    /// The time. If it goes backwards, the database stays at the latest it has seen until it
    /// has come there again.
    fn now(&self) -> SystemTime;
}

/// The machine's time when this was made, and from then on what has passed on its steady
/// clock: setting the machine's clock does not let keys expire while a database is open.
struct Steady {
    begin: SystemTime,
    since: Instant,
}

impl TimeSource for Steady {
    fn now(&self) -> SystemTime {
        self.begin + self.since.elapsed()
    }
}

/// The time source of databases that are given none.
fn steady() -> Arc<dyn TimeSource> {
    Arc::new(Steady { begin: system_time(), since: Instant::now() })
}

/// A point in time as versions hold it: milliseconds since 1970, at least one. What is
/// beyond counting never comes.
pub(crate) fn to_time(time: SystemTime) -> Time {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// The time of a database.
pub(crate) struct Hand {
    source: Arc<dyn TimeSource>,
    /// What it shows. Moved by the holder of the commit lock.
    shown: AtomicU64,
    /// Whether any key has ever been written that expires. Until then, time is not read.
    needed: AtomicBool,
    /// Whether the background thread moves the hand when a key expires, so that reads of
    /// single keys need not ask the source: it has been there, and the source is ours.
    is_driven: AtomicBool,
    is_steady: bool,
    /// Of commits that are not stable yet.
    lag: Mutex<Lag>,
}

/// The times of commits that were not stable when last looked at, and the one for whoever
/// reads the stable state: that of the last commit in it, or of the first that is not.
#[derive(Default)]
struct Lag {
    unstable: VecDeque<(Timestamp, Time)>,
    settled: Time,
}

impl Lag {
    fn settle(&mut self, stable: Timestamp) {
        while let Some((_, time)) = self.unstable.pop_front_if(|(timestamp, _)| *timestamp <= stable) {
            self.settled = time;
        }
    }
}

impl Hand {
    /// A hand that follows `source`, or else a steady clock.
    pub(crate) fn new(source: Option<Arc<dyn TimeSource>>) -> Self {
        Hand {
            is_steady: source.is_none(),
            is_driven: AtomicBool::new(false),
            source: source.unwrap_or_else(steady),
            shown: AtomicU64::new(0),
            needed: AtomicBool::new(false),
            lag: Mutex::default(),
        }
    }

    /// The time, as far as it has ever come.
    pub(crate) fn now(&self) -> Time {
        to_time(self.source.now()).max(self.shown())
    }

    /// When something expires that is to live this long from now on, in whole milliseconds,
    /// rounded up.
    pub(crate) fn after(&self, life: Duration) -> Time {
        let millis = u64::try_from(life.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.now().saturating_add(millis)
    }

    /// Whether keys may expire. Whoever has read a timestamp from the clock sees true here
    /// if a commit up to then wrote such a key.
    pub(crate) fn is_needed(&self) -> bool {
        // Relaxed: the clock's Acquire and Release order it.
        self.needed.load(Ordering::Relaxed)
    }

    /// Called by the holder of the commit lock before the clock is moved.
    pub(crate) fn need(&self) {
        self.needed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn shown(&self) -> Time {
        // Acquire: pairs with `advance`.
        self.shown.load(Ordering::Acquire)
    }

    /// Says that a thread looks at the time whenever a key expires.
    pub(crate) fn drive(&self) {
        self.is_driven.store(self.is_steady, Ordering::Relaxed);
    }

    pub(crate) fn is_driven(&self) -> bool {
        // Relaxed: who misses it asks the source.
        self.is_driven.load(Ordering::Relaxed)
    }

    /// Whether the hand lags behind.
    pub(crate) fn is_due(&self) -> bool {
        self.is_needed() && self.now() > self.shown()
    }

    /// Called by the holder of the commit lock: lets the hand show the time, which it
    /// returns.
    pub(crate) fn advance(&self) -> Time {
        if self.is_needed() {
            let now = self.now();
            // Release: whoever sees this time sees the commits before it.
            self.shown.store(now, Ordering::Release);
        }
        self.shown()
    }

    /// Called by the holder of the commit lock before a commit is applied that has to become
    /// stable yet.
    pub(crate) fn note_unstable(&self, timestamp: Timestamp, clock: &Clock) {
        if self.is_needed() {
            let mut lag = self.lag.lock();
            lag.settle(clock.stable());
            if lag.unstable.is_empty() {
                lag.settled = self.shown();
            }
            lag.unstable.push_back((timestamp, self.shown()));
        }
    }

    /// The newest state, with a time at which it was that. So the next commit is certified at
    /// that time or later, and those before at that time or earlier.
    pub(crate) fn applied_moment(&self, clock: &Clock) -> Moment {
        let mut timestamp = clock.applied();
        if !self.is_needed() {
            return timestamp.into();
        }
        loop {
            let time = self.shown();
            let again = clock.applied();
            if again == timestamp {
                return Moment { timestamp, time };
            }
            timestamp = again;
        }
    }

    /// The newest stable state, with a time of which the same holds.
    pub(crate) fn stable_moment(&self, clock: &Clock) -> Moment {
        if !self.is_needed() {
            return clock.stable().into();
        }
        // While it is held, no commit is applied that is not in it.
        let mut lag = self.lag.lock();
        let timestamp = clock.stable();
        lag.settle(timestamp);
        let is_all = clock.applied() == timestamp && lag.unstable.is_empty();
        Moment { timestamp, time: if is_all { self.shown() } else { lag.settled } }
    }
}

impl fmt::Debug for Hand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hand").field("shown", &self.shown()).finish_non_exhaustive()
    }
}

/// Which keys expire when: those whose newest value does.
///
/// An ordered set rather than a timer wheel: a key that is written or deleted before its
/// time takes its timer along, by what its version says, where a wheel would keep it until
/// it is due, or need a place for its position in each entry. Keys that share their hash
/// and their time share a timer, which counts them.
#[derive(Default)]
pub(crate) struct Timers {
    /// By time and hash: how many keys.
    set: BTreeMap<(Time, u64), u32>,
}

/// What a timer takes in the tree, about. Its nodes are not much more than half full where
/// keys expire in the order in which they were written.
pub(crate) const TIMER_BYTES: usize = size_of::<((Time, u64), u32)>() * 2;

impl Timers {
    /// The key with this hash now expires at `after`, and no more at `before`; zero is never.
    pub(crate) fn change(&mut self, hash: u64, before: Time, after: Time) {
        if let (1.., Entry::Occupied(mut timer)) = (before, self.set.entry((before, hash))) {
            *timer.get_mut() -= 1;
            if *timer.get() == 0 {
                timer.remove();
            }
        }
        if after != 0 {
            *self.set.entry((after, hash)).or_insert(0) += 1;
        }
    }

    /// When the next key expires.
    pub(crate) fn next(&self) -> Option<Time> {
        self.set.first_key_value().map(|((time, _), _)| *time)
    }

    /// A key that has expired by `now`, by its hash, and when it did.
    pub(crate) fn expired(&self, now: Time) -> Option<(Time, u64)> {
        self.set.first_key_value().map(|(timer, _)| *timer).filter(|(time, _)| *time <= now)
    }

    /// All keys that have expired by `now`, by their hashes, and when they did.
    pub(crate) fn all_expired(&self, now: Time) -> impl Iterator<Item = (Time, u64)> {
        self.set.range(..=(now, u64::MAX)).map(|(timer, _)| *timer)
    }

    /// Forgets a timer whose key is not there any more, or is another one.
    pub(crate) fn forget(&mut self, timer: (Time, u64)) {
        self.set.remove(&timer);
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.set.len() * TIMER_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_latest_timer_only() {
        let mut timers = Timers::default();
        timers.change(1, 0, 50);
        timers.change(2, 0, 40);
        timers.change(1, 50, 30);
        assert_eq!(timers.next(), Some(30));
        assert_eq!(timers.expired(29), None);
        assert_eq!(timers.expired(30), Some((30, 1)));
        timers.change(1, 30, 0);
        assert_eq!(timers.expired(u64::MAX), Some((40, 2)));
        timers.forget((40, 2));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn keys_that_share_a_timer_do_not_lose_it_to_each_other() {
        let mut timers = Timers::default();
        timers.change(1, 0, 50);
        timers.change(1, 0, 50);
        timers.change(1, 50, 0);
        assert_eq!(timers.expired(50), Some((50, 1)));
        timers.change(1, 50, 0);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn what_cannot_be_counted_is_never() {
        let hand = Hand::new(None);
        assert_eq!(hand.after(Duration::MAX), u64::MAX);
        assert_eq!(to_time(UNIX_EPOCH), 1);
        assert!(hand.after(Duration::from_nanos(1)) > to_time(SystemTime::now() - Duration::from_secs(1)));
    }
}
