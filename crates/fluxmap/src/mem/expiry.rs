//! The time by which keys expire.
//!
//! A snapshot reads the time once, so its view does not change. No commit deletes a key at the moment it
//! expires, and yet the order of commits must agree with expiries: no commit may depend on a key that a
//! view of an earlier state has already found expired. So there is one [`ExpiryClock`], moved
//! under the commit lock only, and a commit is certified at the time that it then shows.

use crate::host::Host;
use crate::mvcc::clock::Clock;
use crate::sync::{AtomicU64, Instant, Mutex, Ordering};
use fluxmap_index::{ReadPoint, Time, Timestamp, contain, planted};
use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The source of the time by which a database's keys expire.
///
/// Replace it in tests, which then need not sleep. After moving a source of your own forward, you may
/// call [`Database::vacuum`](crate::Database::vacuum) to have expired keys removed; readers do not see
/// them in any case.
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
    /// Returns the time. If it goes backwards, or if this method panics (which is contained), the
    /// database stays at the latest time it has seen until the source has reached it again.
    ///
    /// Called with locks of the database held, so it must not use the database.
    fn now(&self) -> SystemTime;
}

/// The time of a database without a source of its own: the larger of the machine's clock, and the last
/// known time plus the time passed since on the steady (monotonic) clock.
///
/// So the time follows a machine that slept, during which the steady clock stands still, and a clock
/// that was set forward; and it continues at its pace when the clock is set back. The machine's clock is
/// read by [`look`](Self::look) only, the steady one at every call: reading both would double the cost
/// of a call.
struct Machine {
    since: Instant,
    host: Host,
    /// The latest known time at `since`, in microseconds since 1970. Only grows.
    base: AtomicU64,
}

impl Machine {
    fn new(host: Host) -> Self {
        // Read the time of day before the steady clock, here and in `look`: a pause between the two
        // reads must not add to the time.
        let base = micros(host.time_of_day());
        Machine { since: host.now(), base: AtomicU64::new(base), host }
    }

    /// Returns the microseconds since `since` on the steady clock.
    fn passed(&self) -> u64 {
        let passed = self.host.now().saturating_duration_since(self.since);
        u64::try_from(passed.as_micros()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> Time {
        // Relaxed: it is only a number; a thread that misses a newer one reads a slightly earlier time.
        (self.base.load(Ordering::Relaxed).saturating_add(self.passed()) / 1000).max(1)
    }

    /// Follows the machine's clock, if it is ahead.
    fn look(&self) {
        self.follow(self.host.time_of_day());
    }

    /// Moves the time forward to at least `time`.
    fn follow(&self, time: SystemTime) {
        self.base.fetch_max(micros(time).saturating_sub(self.passed()), Ordering::Relaxed);
    }
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The source of the time.
enum ClockSource {
    Machine(Machine),
    Given(Arc<dyn TimeSource>),
}

/// How often the machine's clock is read while any key expires.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Converts a time to the form that versions hold: milliseconds since 1970, at least one. A time beyond
/// the range becomes the largest number, which is never reached.
pub(crate) fn to_time(time: SystemTime) -> Time {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// The expiry clock of a database.
pub(crate) struct ExpiryClock {
    source: ClockSource,
    /// How often a source that was given has panicked.
    panics: AtomicU64,
    /// The time that the clock shows. Only the holder of the commit lock moves it.
    current: AtomicU64,
    /// Whether any key that expires was ever written. Until then the time is not read.
    enabled: AtomicBool,
    /// Whether the background thread moves the clock when a key expires, so that reads of single keys
    /// need not ask the source. True once the background thread has run, if the source is the machine.
    is_driven: AtomicBool,
    /// The times of commits that are not stable yet.
    pending: Mutex<PendingTimes>,
}

/// The times of commits that were not stable at the last look, and the time for readers of the stable
/// state: the time of its last commit, or of the first commit that is not stable.
#[derive(Default)]
struct PendingTimes {
    unstable: VecDeque<(Timestamp, Time)>,
    settled: Time,
}

impl PendingTimes {
    fn settle(&mut self, stable: Timestamp) {
        while let Some((_, time)) = self.unstable.pop_front_if(|(timestamp, _)| *timestamp <= stable) {
            self.settled = time;
        }
    }
}

impl ExpiryClock {
    /// Creates an expiry clock that follows `source`, or else the host's clock.
    pub(crate) fn new(source: Option<Arc<dyn TimeSource>>, host: Host) -> Self {
        ExpiryClock {
            source: source.map_or_else(|| ClockSource::Machine(Machine::new(host)), ClockSource::Given),
            panics: AtomicU64::new(0),
            is_driven: AtomicBool::new(false),
            current: AtomicU64::new(0),
            enabled: AtomicBool::new(false),
            pending: Mutex::default(),
        }
    }

    /// Returns the current time, which never goes back.
    pub(crate) fn now(&self) -> Time {
        let now = match &self.source {
            ClockSource::Machine(machine) => machine.now(),
            // Contain panics: the source is called under locks, in the middle of commits, and by the
            // background thread, where a panic would leave work half done.
            ClockSource::Given(source) => contain(|| to_time(source.now())).unwrap_or_else(|| {
                self.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!("a time source has panicked; the time stays where it was");
                0
            }),
        };
        now.max(self.current())
    }

    /// Returns how often a source that was given has panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Reads the machine's clock, if that is the source: it may have been set forward, or the machine
    /// may have slept. The shown time follows at the next [`advance`](Self::advance).
    pub(crate) fn look(&self) {
        if let ClockSource::Machine(machine) = &self.source {
            machine.look();
        }
    }

    /// Returns how often the machine's clock must be read while any key expires; `None` for a source
    /// that was given.
    pub(crate) fn look_every(&self) -> Option<Duration> {
        matches!(self.source, ClockSource::Machine(_)).then_some(LOOK_EVERY)
    }

    /// Continues from the time that had been reached when the database was last open. The database must
    /// not be in use yet.
    pub(crate) fn resume(&self, time: Time) {
        if let ClockSource::Machine(machine) = &self.source {
            machine.follow(UNIX_EPOCH.checked_add(Duration::from_millis(time)).unwrap_or(UNIX_EPOCH));
        }
        self.current.fetch_max(time, Ordering::Release);
    }

    /// Returns the time from which the next opening continues; 0 if nothing ever expired.
    pub(crate) fn reached(&self) -> Time {
        if self.is_enabled() { self.now() } else { self.current() }
    }

    /// Returns the time that is `life` from now, in whole milliseconds, rounded up.
    pub(crate) fn after(&self, life: Duration) -> Time {
        // Otherwise a time to live that begins just after the machine has slept would be over at once.
        self.look();
        let millisecond = if planted("ttl-ten-times") { 100_000 } else { 1_000_000 };
        let millis = u64::try_from(life.as_nanos().div_ceil(millisecond)).unwrap_or(u64::MAX);
        self.now().saturating_add(millis)
    }

    /// Returns whether keys may expire. A thread that has read a timestamp from the commit clock sees
    /// true here if a commit up to that timestamp wrote an expiring key.
    pub(crate) fn is_enabled(&self) -> bool {
        // Relaxed: the Acquire and Release of the commit clock order it.
        self.enabled.load(Ordering::Relaxed)
    }

    /// Turns expiry on. Called by the holder of the commit lock before the commit clock is moved.
    pub(crate) fn enable(&self) {
        self.enabled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn current(&self) -> Time {
        // Acquire: pairs with `advance`.
        self.current.load(Ordering::Acquire)
    }

    /// Records that a thread moves this clock whenever a key expires.
    pub(crate) fn set_driven(&self) {
        self.is_driven.store(matches!(self.source, ClockSource::Machine(_)), Ordering::Relaxed);
    }

    pub(crate) fn is_driven(&self) -> bool {
        // Relaxed: a reader that misses it asks the source.
        self.is_driven.load(Ordering::Relaxed)
    }

    /// Returns whether the shown time is behind the source.
    pub(crate) fn is_due(&self) -> bool {
        self.is_enabled() && self.now() > self.current()
    }

    /// Moves the shown time to the source's time, and returns it. Called by the holder of the commit
    /// lock.
    pub(crate) fn advance(&self) -> Time {
        if self.is_enabled() {
            let now = self.now();
            // Release: a thread that sees this time sees the commits before it.
            self.current.store(now, Ordering::Release);
        }
        self.current()
    }

    /// Records the time of a commit that is not stable yet. Called by the holder of the commit lock
    /// before the commit is applied.
    pub(crate) fn note_unstable(&self, timestamp: Timestamp, clock: &Clock) {
        if self.is_enabled() {
            let mut pending = self.pending.lock();
            pending.settle(clock.stable());
            if pending.unstable.is_empty() {
                pending.settled = self.current();
            }
            pending.unstable.push_back((timestamp, self.current()));
        }
    }

    /// Returns the newest state, with a time at which it was the newest. So the next commit is certified
    /// at that time or later, and earlier commits at that time or earlier.
    pub(crate) fn applied_point(&self, clock: &Clock) -> ReadPoint {
        let mut timestamp = clock.applied();
        if !self.is_enabled() {
            return timestamp.into();
        }
        loop {
            let time = self.current();
            let again = clock.applied();
            if again == timestamp || planted("view-with-any-time") {
                return ReadPoint { timestamp, time };
            }
            timestamp = again;
        }
    }

    /// Returns the newest stable state, with a time for which the same holds.
    pub(crate) fn stable_point(&self, clock: &Clock) -> ReadPoint {
        if !self.is_enabled() {
            return clock.stable().into();
        }
        // While the lock is held, no commit is applied that is not noted in `pending`.
        let mut pending = self.pending.lock();
        let timestamp = clock.stable();
        pending.settle(timestamp);
        let is_all = clock.applied() == timestamp && pending.unstable.is_empty();
        ReadPoint {
            timestamp,
            time: if is_all || planted("stable-views-at-present") {
                self.current()
            } else {
                // The latest time at which this was the newest state. A transaction may have read it at any
                // time before, and returned: a stable read at an earlier time would go back in time.
                pending.unstable.front().map_or(pending.settled, |(_, time)| *time)
            },
        }
    }
}

impl fmt::Debug for ExpiryClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hand").field("shown", &self.current()).finish_non_exhaustive()
    }
}

/// The times at which keys expire, one for each key whose newest value expires.
///
/// This is an ordered set rather than a timer wheel. A key that is written or deleted before it expires
/// has its timer removed at once, found by the time in its version. A wheel would keep the timer until
/// it is due, or need room in each entry for its position. Keys that share their hash and their time
/// share a timer, which counts them.
#[derive(Default)]
pub(crate) struct Timers {
    /// The number of keys, by time and hash.
    set: BTreeMap<(Time, u64), u32>,
}

/// The approximate memory of a timer in the tree. Its nodes are not much more than half full if keys
/// expire in the order in which they were written.
pub(crate) const TIMER_BYTES: usize = size_of::<((Time, u64), u32)>() * 2;

impl Timers {
    /// Sets the timer of the key with this hash to `after`, instead of `before`; zero means never.
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

    /// Returns when the next key expires.
    pub(crate) fn next(&self) -> Option<Time> {
        self.set.first_key_value().map(|((time, _), _)| *time)
    }

    /// Returns the time and hash of a key that has expired by `now`.
    pub(crate) fn expired(&self, now: Time) -> Option<(Time, u64)> {
        self.set.first_key_value().map(|(timer, _)| *timer).filter(|(time, _)| *time <= now)
    }

    /// Returns the times and hashes of all keys that have expired by `now`.
    pub(crate) fn all_expired(&self, now: Time) -> impl Iterator<Item = (Time, u64)> {
        self.set.range(..=(now, u64::MAX)).map(|(timer, _)| *timer)
    }

    /// Removes a timer whose key has gone or was replaced.
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
        let expiry_clock = ExpiryClock::new(None, Host::default());
        assert_eq!(expiry_clock.after(Duration::MAX), u64::MAX);
        expiry_clock.resume(u64::MAX - 1);
        assert!(expiry_clock.now() >= u64::MAX - 1 && expiry_clock.after(Duration::from_secs(1)) == u64::MAX);
        let expiry_clock = ExpiryClock::new(None, Host::default());
        assert_eq!(to_time(UNIX_EPOCH), 1);
        assert!(
            expiry_clock.after(Duration::from_nanos(1)) > to_time(SystemTime::now() - Duration::from_secs(1))
        );
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
        // The clock is set back: the time neither follows nor waits.
        machine.follow(real - 8 * HOUR);
        machine.look();
        assert!(machine.now() >= ahead);
        while machine.now() == ahead {
            std::thread::yield_now();
        }
        // The clock is set forward again, by less than the time is ahead of it.
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
        let expiry_clock = ExpiryClock::new(Some(given), Host::default());
        expiry_clock.enable();
        assert_eq!((expiry_clock.advance(), expiry_clock.panics()), (1_000_000_000, 0));
        *source.0.lock().expect("nobody has it") = None;
        assert_eq!((expiry_clock.advance(), expiry_clock.panics()), (1_000_000_000, 1));
        assert_eq!(expiry_clock.after(Duration::from_secs(1)), 1_000_001_000);
        assert!(!expiry_clock.is_due());
    }
}
