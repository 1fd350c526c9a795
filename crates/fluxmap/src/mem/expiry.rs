//! Time, as far as keys expire by it.
//!
//! A snapshot reads the time once, so what it sees stays as it is. What has expired for
//! it was not deleted by a commit, and yet the order of commits must agree with it: no
//! commit may rest on a key that a view of an earlier state has already found expired. So
//! there is one [hand](Hand), moved under the commit lock only, and a commit is certified
//! at what it shows then.

use crate::host::Host;
use crate::mvcc::clock::Clock;
use crate::sync::{AtomicU64, Instant, Mutex, Ordering};
use fluxmap_index::{Moment, Time, Timestamp, contain, planted};
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
    /// has come there again; and so it does if this panics, which is contained.
    ///
    /// Called with locks of the database held, so it must not use the database.
    fn now(&self) -> SystemTime;
}

/// The time of a database that is given no source of its own: the larger of the machine's clock
/// and the last time with what has passed since on its steady clock.
///
/// So it follows a machine that slept, during which the steady clock stands still, and a clock
/// that was set forward; and it goes on at its pace when the clock is set back. The machine's
/// clock is looked at when somebody [asks](Self::look), and the steady one at every other time:
/// to read both would double what the time costs.
struct Machine {
    since: Instant,
    host: Host,
    /// The time at `since`, as far as is known: in microseconds since 1970. Only grows.
    base: AtomicU64,
}

impl Machine {
    fn new(host: Host) -> Self {
        // In this order, here and in `look`: whatever comes in between must not add to the time.
        let base = micros(host.time_of_day());
        Machine { since: host.now(), base: AtomicU64::new(base), host }
    }

    /// Microseconds on the steady clock.
    fn passed(&self) -> u64 {
        let passed = self.host.now().saturating_duration_since(self.since);
        u64::try_from(passed.as_micros()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> Time {
        // Relaxed: it is only a number, and whoever misses a newer one reads the time a bit
        // earlier.
        (self.base.load(Ordering::Relaxed).saturating_add(self.passed()) / 1000).max(1)
    }

    /// Follows the machine's clock, if that is ahead.
    fn look(&self) {
        self.follow(self.host.time_of_day());
    }

    /// It is at least this late.
    fn follow(&self, time: SystemTime) {
        self.base.fetch_max(micros(time).saturating_sub(self.passed()), Ordering::Relaxed);
    }
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Where the time comes from.
enum Source {
    Machine(Machine),
    Given(Arc<dyn TimeSource>),
}

/// How often the machine's clock is looked at while anything expires.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A point in time as versions hold it: milliseconds since 1970, at least one. What is
/// beyond counting never comes.
pub(crate) fn to_time(time: SystemTime) -> Time {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// The time of a database.
pub(crate) struct Hand {
    source: Source,
    /// How often a source that was given has panicked.
    panics: AtomicU64,
    /// What it shows. Moved by the holder of the commit lock.
    shown: AtomicU64,
    /// Whether any key has ever been written that expires. Until then, time is not read.
    needed: AtomicBool,
    /// Whether the background thread moves the hand when a key expires, so that reads of
    /// single keys need not ask the source: it has been there, and the source is the machine.
    is_driven: AtomicBool,
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
    /// A hand that follows `source`, or else the machine's clock, as the host has it.
    pub(crate) fn new(source: Option<Arc<dyn TimeSource>>, host: Host) -> Self {
        Hand {
            source: source.map_or_else(|| Source::Machine(Machine::new(host)), Source::Given),
            panics: AtomicU64::new(0),
            is_driven: AtomicBool::new(false),
            shown: AtomicU64::new(0),
            needed: AtomicBool::new(false),
            lag: Mutex::default(),
        }
    }

    /// The time, as far as it has ever come.
    pub(crate) fn now(&self) -> Time {
        let now = match &self.source {
            Source::Machine(machine) => machine.now(),
            // Contained: it is asked under locks, in the middle of commits, and by the background
            // thread, where a panic would leave things half-done.
            Source::Given(source) => contain(|| to_time(source.now())).unwrap_or_else(|| {
                self.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!("a time source has panicked; the time stays where it was");
                0
            }),
        };
        now.max(self.shown())
    }

    /// How often a source that was given has panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Looks at the machine's clock, where that is what counts: it may have been set forward, or
    /// the machine has slept. The hand follows when it is next moved.
    pub(crate) fn look(&self) {
        if let Source::Machine(machine) = &self.source {
            machine.look();
        }
    }

    /// When the clock is to be looked at again while anything expires, if that is ours to do.
    pub(crate) fn look_every(&self) -> Option<Duration> {
        matches!(self.source, Source::Machine(_)).then_some(LOOK_EVERY)
    }

    /// Goes on from a time that had been reached when the database was last open. Nobody may be
    /// using it yet.
    pub(crate) fn resume(&self, time: Time) {
        if let Source::Machine(machine) = &self.source {
            machine.follow(UNIX_EPOCH.checked_add(Duration::from_millis(time)).unwrap_or(UNIX_EPOCH));
        }
        self.shown.fetch_max(time, Ordering::Release);
    }

    /// The time that a later opening is to go on from; 0 if nothing has ever expired by it.
    pub(crate) fn reached(&self) -> Time {
        if self.is_needed() { self.now() } else { self.shown() }
    }

    /// When something expires that is to live this long from now on, in whole milliseconds,
    /// rounded up.
    pub(crate) fn after(&self, life: Duration) -> Time {
        // Else a life that begins just after the machine has slept would be over at once.
        self.look();
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
        self.is_driven.store(matches!(self.source, Source::Machine(_)), Ordering::Relaxed);
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
            if again == timestamp || planted("view-with-any-time") {
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
        Moment {
            timestamp,
            time: if is_all || planted("stable-views-at-present") { self.shown() } else { lag.settled },
        }
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

#[cfg(all(test, not(shuttle)))]
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
        let hand = Hand::new(None, Host::default());
        assert_eq!(hand.after(Duration::MAX), u64::MAX);
        hand.resume(u64::MAX - 1);
        assert!(hand.now() >= u64::MAX - 1 && hand.after(Duration::from_secs(1)) == u64::MAX);
        let hand = Hand::new(None, Host::default());
        assert_eq!(to_time(UNIX_EPOCH), 1);
        assert!(hand.after(Duration::from_nanos(1)) > to_time(SystemTime::now() - Duration::from_secs(1)));
    }

    /// The machine slept, or its clock was set, between two looks.
    #[test]
    fn time_follows_the_machines_clock_forward_and_never_back() {
        const HOUR: Duration = Duration::from_secs(3600);
        const MILLIS: Time = HOUR.as_millis() as Time;
        let machine = Machine::new(Host::default());
        let begin = machine.now();
        let real = SystemTime::now();
        machine.follow(real + 8 * HOUR);
        let ahead = machine.now();
        assert!(ahead >= begin + 8 * MILLIS && ahead < begin + 9 * MILLIS, "{begin} {ahead}");
        // Set back: it neither follows nor waits there.
        machine.follow(real - 8 * HOUR);
        machine.look();
        assert!(machine.now() >= ahead);
        while machine.now() == ahead {
            std::thread::yield_now();
        }
        // And forward again, by less than it is ahead.
        machine.follow(real + 7 * HOUR);
        assert!((ahead..ahead + MILLIS).contains(&machine.now()));
        machine.follow(real + 9 * HOUR);
        assert!(machine.now() >= begin + 9 * MILLIS);
    }

    #[test]
    fn a_source_that_panics_leaves_the_time_where_it_was() {
        struct Fragile(std::sync::Mutex<Option<SystemTime>>);
        impl TimeSource for Fragile {
            fn now(&self) -> SystemTime {
                self.0.lock().unwrap_or_else(|lock| lock.into_inner()).expect("it is to panic")
            }
        }
        let time = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let source = Arc::new(Fragile(std::sync::Mutex::new(Some(time))));
        let given: Arc<dyn TimeSource> = source.clone();
        let hand = Hand::new(Some(given), Host::default());
        hand.need();
        assert_eq!((hand.advance(), hand.panics()), (1_000_000_000, 0));
        *source.0.lock().expect("nobody has it") = None;
        assert_eq!((hand.advance(), hand.panics()), (1_000_000_000, 1));
        assert_eq!(hand.after(Duration::from_secs(1)), 1_000_001_000);
        assert!(!hand.is_due());
    }
}
