//! Time in a model: virtual, and moved by the threads that wait for it.
//!
//! Each execution begins at the same instant. No thread sleeps: a thread that waits for an instant asks
//! repeatedly whether it [has passed](Deadline::has_passed). In some of these calls, chosen by the
//! schedule's random numbers, the clock jumps to the earliest instant for which any thread waits. So a
//! timed wait may end at any schedule, a short one before a long one.

use shuttle::rand::RngCore;
use std::ops::Add;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time of day at which every execution begins.
const BEGIN: Duration = Duration::from_secs(1_700_000_000);

/// One in so many calls lets the clock jump to an instant that is near.
const SELDOM: u32 = 8;

/// Not shuttle's lock, because reading the time is not a step of a schedule.
struct VirtualClock(Mutex<Times>);

#[derive(Default)]
struct Times {
    now: Duration,
    /// By how many milliseconds the time of day has been set forward or back.
    set_millis: i64,
    /// The instants for which threads wait.
    deadlines: Vec<Duration>,
}

shuttle::lazy_static! {
    static ref CLOCK: VirtualClock = VirtualClock(Mutex::default());
}

fn times() -> MutexGuard<'static, Times> {
    CLOCK.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns how long the execution has been running, in virtual time.
pub fn elapsed() -> Duration {
    times().now
}

/// Moves the clock forward.
pub fn advance(by: Duration) {
    times().now += by;
}

/// Sets the machine's time of day this many milliseconds forward, or back.
pub fn set_time_of_day(millis: i64) {
    times().set_millis = millis;
}

/// Returns the machine's time of day.
pub fn system_time() -> SystemTime {
    let times = times();
    let time = UNIX_EPOCH + BEGIN + times.now;
    let set = Duration::from_millis(times.set_millis.unsigned_abs());
    if times.set_millis < 0 { time - set } else { time + set }
}

/// The virtual counterpart of `std::time::Instant`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        Instant(elapsed())
    }

    pub(crate) fn checked_add(self, duration: Duration) -> Option<Self> {
        self.0.checked_add(duration).map(Instant)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0 + duration)
    }
}

/// An instant for which a thread waits while this value lives.
#[derive(Debug)]
pub struct Deadline(Duration);

impl Deadline {
    /// Returns a deadline this far from now.
    pub fn after(limit: Duration) -> Self {
        let mut times = times();
        let deadline = times.now.saturating_add(limit);
        times.deadlines.push(deadline);
        Deadline(deadline)
    }

    /// Returns whether the deadline has passed. Time may move during the call.
    pub fn has_passed(&self) -> bool {
        let now = elapsed();
        let Some(earliest) = times().deadlines.iter().min().copied() else { return true };
        let left = earliest.saturating_sub(now);
        // A long wait ends more rarely, or every key would have expired before it is used.
        let rarity = SELDOM << (2 * u32::from(left > Duration::from_secs(2)));
        if !left.is_zero() && shuttle::rand::thread_rng().next_u32().is_multiple_of(rarity) {
            // Another thread may have moved the clock while the random number was drawn.
            let mut times = times();
            times.now = times.now.max(earliest);
        }
        elapsed() >= self.0
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut times = times();
        if let Some(at) = times.deadlines.iter().position(|deadline| *deadline == self.0) {
            times.deadlines.swap_remove(at);
        }
    }
}
