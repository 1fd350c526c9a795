//! Background work that is done by whoever drives it: a database without threads, in virtual
//! time, whose runs replay.
//!
//! A database writes its log, makes checkpoints, and removes what has expired on threads of its
//! own, which it starts when it needs them. One that is
//! [built](crate::DatabaseBuilder::background) with a [`Background`] has none: its holder does
//! the work, a [step](Background::step) at a time, and moves the clocks.
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
//! piece of background work, every clock and every disk call of a run follows from one seed, so
//! a failure can be seen again. `fluxmap-testkit` has a small executor that does this, with a
//! disk that crashes. And for a program that has a loop of its own already, or no threads.
//!
//! # Who waits for whom?
//!
//! A commit to a database on disk is acknowledged when the log's work has been stepped, so
//! somebody has to step while it is awaited: a loop that polls futures and steps in turn, or
//! [`drive`](Background::drive). Waiting for such a commit with a plain `block_on` and nobody
//! who steps waits for ever. A database in memory acknowledges by itself.
//!
//! Building a database, [`backup_to`](crate::Database::backup_to),
//! [`close`](crate::Database::close) and dropping the last handle need nobody: they do what
//! there is to do on the calling thread, and return when it is done. Wakers and destructors run
//! on the thread that steps. If one of these drops the last handle amid a step of the database's
//! own work, what is left to do is done by the steps that follow.
//!
//! # What follows from the seed?
//!
//! How keys are hashed, the numbers by which databases and files are told apart, and, with
//! [`step_with`](Background::step_with), the order of the work, if the caller draws its choices
//! from a seed, too. The numbers depend on what is found on disk as well: they must not repeat
//! when the next [`Background`] that opens the same files has the same seed, or what an earlier
//! life left in a file that is used again could pass for this one's. With a [`Disk`](crate::disk::Disk) that is as deterministic, a run makes
//! the same calls with the same bytes every time. The program must hold its side: a `HashMap`
//! of the standard library iterates in another order each time.

use crate::jobs::{Entry, Job, Running, Signal};
use crate::sync::{Instant, Mutex};
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Background work of any number of databases, with the clocks that they go by. Clones are the
/// same. See the [module](self).
#[derive(Clone)]
pub struct Background {
    shared: Arc<Shared>,
}

struct Shared {
    /// The one that was stepped last is at the end.
    jobs: Mutex<Vec<Arc<Entry>>>,
    times: Mutex<Times>,
    /// Some instant. Only what passes since then matters, and that is virtual.
    begin: Instant,
    /// The state of the random numbers.
    random: Mutex<u64>,
}

struct Times {
    elapsed: Duration,
    /// What time of day it was at the beginning, as the clock is set now.
    day: SystemTime,
}

/// The time of day at which a [`Background`] begins: in November 2023.
const BEGIN: Duration = Duration::from_secs(1_700_000_000);

/// The end of time: a century. Beyond, the instants of some platforms overflow.
const END: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What a [step](Background::step) came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A piece of work was done. There may be more.
    Worked,
    /// There is nothing to do until the clock has [advanced](Background::advance) by so much,
    /// or somebody uses a database.
    In(Duration),
    /// There is nothing to do until somebody uses a database.
    Idle,
}

impl Background {
    /// No work yet, at time zero. What is random about the databases follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let times = Times { elapsed: Duration::ZERO, day: UNIX_EPOCH + BEGIN };
        let shared = Shared {
            jobs: Mutex::default(),
            times: Mutex::new(times),
            begin: Instant::now(),
            random: Mutex::new(seed),
        };
        Background { shared: Arc::new(shared) }
    }

    /// Does one piece of the work that is due: of the job that was stepped least recently.
    ///
    /// A piece is a write of the log, a sync of it, a block of a checkpoint, a new segment, or
    /// one look at what has expired. Takes time in proportion to the number of open databases,
    /// and what the piece takes.
    ///
    /// # Panics
    ///
    /// If the work does: a [`Disk`](crate::disk::Disk) of the user's own, for instance. The
    /// database takes no more commits then.
    pub fn step(&self) -> Step {
        self.step_with(0)
    }

    /// As [`step`](Self::step), but `choice` says which of the jobs that are due, modulo how
    /// many there are. Drawn from a seed, choices explore orders in which threads could have
    /// worked.
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
        // A step may use this very object: it wakes tasks and drops values.
        drop(jobs);
        job.step();
        Step::Worked
    }

    /// When a [step](Self::step) would do something: now if it is zero, `None` if not before
    /// somebody uses a database.
    #[must_use]
    pub fn due_in(&self) -> Option<Duration> {
        let now = self.instant();
        let jobs = self.shared.jobs.lock();
        let next = jobs.iter().filter_map(|job| job.due(now)).min();
        next.map(|next| next.saturating_duration_since(now))
    }

    /// Runs `future`, and does what is due whenever that waits.
    ///
    /// If there is nothing to do, it waits as `future` does. The clock stays where it is.
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

    /// How far the steady clock has come. Flush intervals, ages of snapshots, intervals of the
    /// vacuum, and deadlines go by it.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.shared.times.lock().elapsed
    }

    /// Lets time pass, on both clocks. What is due then is done by the steps that follow. Time
    /// ends after a hundred years.
    pub fn advance(&self, by: Duration) {
        let mut times = self.shared.times.lock();
        times.elapsed = times.elapsed.saturating_add(by).min(END);
    }

    /// The time of day, which databases read when they are opened: keys expire by it, and by
    /// what has passed on the steady clock since.
    #[must_use]
    pub fn time_of_day(&self) -> SystemTime {
        let times = self.shared.times.lock();
        times.day + times.elapsed
    }

    /// Sets the time of day, as an administrator does or a time server; the steady clock goes
    /// on. A database that is open does not notice. Does nothing if `to` is too early to be
    /// represented.
    pub fn set_time_of_day(&self, to: SystemTime) {
        let mut times = self.shared.times.lock();
        if let Some(day) = to.checked_sub(times.elapsed).filter(|day| day.checked_add(END).is_some()) {
            times.day = day;
        }
    }

    /// The steady time.
    pub(crate) fn instant(&self) -> Instant {
        self.shared.begin + self.now()
    }

    /// The next number: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    pub(crate) fn random(&self) -> u64 {
        let mut state = self.shared.random.lock();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Lets the numbers that follow depend on this, too.
    pub(crate) fn stir(&self, with: u64) {
        let stirred = self.random() ^ with;
        *self.shared.random.lock() = stirred;
    }

    pub(crate) fn start(&self, name: &'static str, signal: &Arc<Signal>, job: Box<dyn Job>) -> Running {
        let (running, entry) = Running::driven(name, signal, job);
        let mut jobs = self.shared.jobs.lock();
        // Else a program that opens and closes without a step would keep them all.
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
