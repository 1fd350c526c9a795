//! Background work that the caller drives: a database without threads, in virtual time, whose runs can
//! be replayed.
//!
//! A database writes its log, makes checkpoints, and removes expired keys on threads of its own, which
//! it starts when it needs them. A database that is [built](crate::DatabaseBuilder::background) with a
//! [`Background`] has no threads: the holder of the `Background` does the work, one
//! [step](Background::step) at a time, and moves the clocks.
//!
//! ```
//! use fluxmap::background::Step;
//! use fluxmap::{Background, Database, FluxError};
//! use std::time::Duration;
//! # use futures::executor::block_on;
//!
//! # fn main() -> Result<(), FluxError> {
//! let background = Background::new(7);
//! let db: Database<&str, u32> = block_on(Database::builder().background(&background).build())?;
//! block_on(db.insert_with_ttl("session", 1, Duration::from_secs(60)))?;
//!
//! // The clocks stand still until they are moved. While anything expires, the time of day is
//! // looked at every second.
//! while background.step() == Step::Worked {}
//! assert_eq!(background.step(), Step::In(Duration::from_secs(1)));
//! assert!(db.get("session")?.is_some());
//!
//! background.advance(Duration::from_secs(60));
//! assert_eq!(background.step(), Step::Worked);
//! assert!(db.get("session")?.is_none());
//! # Ok(())
//! # }
//! ```
//!
//! # What is it for?
//!
//! For tests of a whole application that are as deterministic as arithmetic: every task, every
//! piece of background work, every clock and every disk call of a run follows from one seed, so a
//! failure can be reproduced. `fluxmap-testkit` has a small executor that does this, with a disk that
//! crashes. It also serves programs that have a loop of their own, or no threads.
//!
//! # Who waits for whom?
//!
//! A commit to a database on disk is acknowledged when the log's work has been stepped, so some code has
//! to step while the commit is awaited: a loop that polls futures and steps in turn, or
//! [`drive`](Background::drive). Awaiting such a commit with a plain `block_on`, and without stepping,
//! never ends. A database in memory acknowledges by itself.
//!
//! Building a database, [`backup_to`](crate::Database::backup_to), [`close`](crate::Database::close) and
//! dropping the last handle need no stepping: they do their work on the calling thread, and return when
//! it is done. Wakers and destructors run on the thread that steps. If one of these drops the last
//! handle amid a step of the database's own work, the following steps do the rest.
//!
//! # What follows from the seed?
//!
//! The hashing of keys, the numbers that identify databases and files, and, with
//! [`step_with`](Background::step_with), the order of the work, if the caller draws its choices from a
//! seed, too. The numbers also depend on the contents of the disk: they must not repeat when the next
//! [`Background`] that opens the same files has the same seed; otherwise bytes that an earlier run left
//! in a reused file could be taken for valid ones. With a [`Disk`](crate::disk::Disk) that is as
//! deterministic, a run makes the same calls with the same bytes every time. The program must be
//! deterministic as well: a `HashMap` of the standard library iterates in another order each time.

use crate::jobs::{DrivenJob, Job, Running, Signal};
use crate::sync::{Instant, Mutex};
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Background work of any number of databases, with the clocks that they use. Clones share the same
/// state. See the [module](self).
#[derive(Clone)]
pub struct Background {
    shared: Arc<DriverState>,
}

struct DriverState {
    /// In the order of their last steps; the job that was stepped last is at the end.
    jobs: Mutex<Vec<Arc<DrivenJob>>>,
    times: Mutex<DriverTimes>,
    /// An arbitrary instant. Only the time since then matters, and that is virtual.
    begin: Instant,
    /// The state of the random numbers.
    random: Mutex<u64>,
}

struct DriverTimes {
    elapsed: Duration,
    /// The time of day at the beginning, according to the clock as it is set now.
    day: SystemTime,
}

/// The time of day at which a [`Background`] begins: in November 2023.
const BEGIN: Duration = Duration::from_secs(1_700_000_000);

/// The end of time, after a century. Later instants overflow on some platforms.
const END: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The result of a [step](Background::step).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A piece of work was done. There may be more.
    Worked,
    /// There is nothing to do until the clock has [advanced](Background::advance) by this much, or a
    /// database is used.
    In(Duration),
    /// There is nothing to do until a database is used.
    Idle,
}

impl Background {
    /// Creates a `Background` without work, at time zero. Everything random about its databases follows
    /// from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let times = DriverTimes { elapsed: Duration::ZERO, day: UNIX_EPOCH + BEGIN };
        let shared = DriverState {
            jobs: Mutex::default(),
            times: Mutex::new(times),
            begin: Instant::now(),
            random: Mutex::new(seed),
        };
        Background { shared: Arc::new(shared) }
    }

    /// Does one piece of the work that is due, for the job that was stepped least recently.
    ///
    /// A piece is a write of the log, a sync of it, a block of a checkpoint, a new segment, or one
    /// removal of expired keys. Takes time proportional to the number of open databases, plus the time
    /// of the piece.
    ///
    /// # Panics
    ///
    /// If the work panics: in a [`Disk`](crate::disk::Disk) of your own, for instance. The database then
    /// takes no more commits.
    pub fn step(&self) -> Step {
        self.step_with(0)
    }

    /// Like [`step`](Self::step), but `choice`, modulo the number of jobs that are due, selects the job.
    /// Choices drawn from a seed explore orders in which threads could have worked.
    pub fn step_with(&self, choice: u64) -> Step {
        let now = self.instant();
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        let mut jobs = self.shared.jobs.lock();
        jobs.retain(|job| !job.has_ended());
        for (index, job) in jobs.iter().enumerate() {
            match job.due(now) {
                Some(at) if at <= now => due.push(index),
                at => next = next.into_iter().chain(at).min(),
            }
        }
        let Some(count) = u64::try_from(due.len()).ok().filter(|count| *count > 0) else {
            return next.map_or(Step::Idle, |next| Step::In(next.saturating_duration_since(now)));
        };
        // Smaller than `due`'s length, which is a `usize`.
        let job = jobs.remove(due[(choice % count) as usize]);
        jobs.push(Arc::clone(&job));
        // Unlock before stepping: a step wakes tasks and drops values, which may use this object.
        drop(jobs);
        job.step();
        Step::Worked
    }

    /// Returns when a [step](Self::step) would do something: zero means now, `None` not before a
    /// database is used.
    #[must_use]
    pub fn due_in(&self) -> Option<Duration> {
        let now = self.instant();
        let jobs = self.shared.jobs.lock();
        let next = jobs.iter().filter_map(|job| job.due(now)).min();
        next.map(|next| next.saturating_duration_since(now))
    }

    /// Awaits `future`, and does the work that is due whenever the future waits.
    ///
    /// If no work is due, it waits as `future` does. The clock does not move.
    ///
    /// ```
    /// # use fluxmap::{Background, Database, FluxError, persistence::PersistenceOptions};
    /// # use futures::executor::block_on;
    /// # fn main() -> Result<(), FluxError> {
    /// # let dir = tempfile::tempdir().expect("a directory");
    /// # let options = PersistenceOptions::new(dir.path().join("db"));
    /// let background = Background::new(7);
    /// let builder = Database::<u32, String>::builder().durability_full(options);
    /// let db = block_on(builder.background(&background).build())?;
    /// block_on(background.drive(db.insert(1, "one".into())))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// As `future`.
    pub async fn drive<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            loop {
                if let Poll::Ready(output) = future.as_mut().poll(context) {
                    return Poll::Ready(output);
                }
                if self.step() != Step::Worked {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Returns how far the steady clock has come. It governs flush intervals, ages of snapshots,
    /// intervals of the vacuum, and deadlines.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.shared.times.lock().elapsed
    }

    /// Moves both clocks forward. The following steps do the work that is due then. Time ends after a
    /// hundred years.
    pub fn advance(&self, by: Duration) {
        let mut times = self.shared.times.lock();
        times.elapsed = times.elapsed.saturating_add(by).min(END);
    }

    /// Returns the time of day, which databases read when they are opened. Keys expire by that time plus
    /// the time passed on the steady clock since.
    #[must_use]
    pub fn time_of_day(&self) -> SystemTime {
        let times = self.shared.times.lock();
        times.day + times.elapsed
    }

    /// Sets the time of day, as an administrator or a time server does; the steady clock goes on. An
    /// open database does not notice. Does nothing if `to` is too early to be represented.
    pub fn set_time_of_day(&self, to: SystemTime) {
        let mut times = self.shared.times.lock();
        if let Some(day) = to.checked_sub(times.elapsed).filter(|day| day.checked_add(END).is_some()) {
            times.day = day;
        }
    }

    /// Returns the steady time.
    pub(crate) fn instant(&self) -> Instant {
        self.shared.begin + self.now()
    }

    /// Returns the next number of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    pub(crate) fn random(&self) -> u64 {
        let mut state = self.shared.random.lock();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Mixes `with` into the numbers that follow.
    pub(crate) fn stir(&self, with: u64) {
        let stirred = self.random() ^ with;
        *self.shared.random.lock() = stirred;
    }

    pub(crate) fn start(&self, name: &'static str, signal: &Arc<Signal>, job: Box<dyn Job>) -> Running {
        let (running, entry) = Running::driven(name, signal, job);
        let mut jobs = self.shared.jobs.lock();
        // Otherwise a program that opens and closes databases without a step would keep all their jobs.
        jobs.retain(|job| !job.has_ended());
        jobs.push(entry);
        running
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs: Vec<_> = self.shared.jobs.lock().iter().map(|job| job.name).collect();
        f.debug_struct("Background").field("now", &self.now()).field("jobs", &jobs).finish_non_exhaustive()
    }
}
