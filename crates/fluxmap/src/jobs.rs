//! Jobs: the work that a database does in the background, one step at a time.
//!
//! A job never waits. A step does one piece of work, or finds none and returns when the job should look
//! again by itself. Any event that gives a job work rings its [`Signal`]. By default each job has a
//! thread, which steps it and sleeps in between. With a [`Background`](crate::Background) there is no
//! thread, and the holder of the `Background` steps the job.
//!
//! No lock is held during a step, because it wakes tasks and drops values: this runs other code, which
//! may step other jobs or drop the database.

use crate::process::Process;
use crate::sync::thread::{self, JoinHandle, ThreadId};
use crate::sync::{Condvar, Instant, Mutex, waiting};
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

/// One kind of background work.
pub(crate) trait Job: Send {
    /// Does one piece of work, without waiting for anything but the disk.
    fn step(&mut self) -> Done;

    /// Called after a step has panicked; no step follows. Must wake everything that waits for this job.
    fn panicked(&mut self) {}
}

/// The result of a step.
#[derive(Debug)]
pub(crate) enum Done {
    /// There may be more to do.
    More,
    /// Nothing is left to do until the signal is rung, or until this time.
    Idle(Option<Instant>),
    /// There will never be anything to do again.
    Ended,
}

/// Tells a job that there may be work. A ring is remembered until the next step.
#[derive(Default)]
pub(crate) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct State {
    rung: bool,
    /// The job ends after the current step, even if there is work left.
    stopped: bool,
}

impl Signal {
    pub(crate) fn ring(&self) {
        self.set(|state| state.rung = true);
    }

    fn stop(&self) {
        self.set(|state| state.stopped = true);
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changed.notify_one();
    }

    fn is_rung(&self) -> bool {
        self.state.lock().rung
    }

    /// Clears the ring: the next step sees everything that happened before it. Returns whether the job
    /// goes on.
    fn answer(&self) -> bool {
        let mut state = self.state.lock();
        state.rung = false;
        !state.stopped
    }

    fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Waits for a ring, a stop, or the deadline.
    fn wait(&self, deadline: Option<Instant>) {
        let mut state = self.state.lock();
        while !state.rung && !state.stopped {
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(&mut state),
                Some(left) if left.is_zero() => return,
                Some(left) => {
                    self.changed.wait_for(&mut state, left);
                }
            }
        }
    }
}

/// Steps a job. If the step panics, tells the job and continues the panic.
fn step(job: &mut dyn Job) -> Done {
    catch_unwind(AssertUnwindSafe(|| job.step())).unwrap_or_else(|panic| {
        job.panicked();
        resume_unwind(panic)
    })
}

/// Runs a job on a thread of its own until it ends. The first step is taken at once.
fn run(signal: &Signal, mut job: Box<dyn Job>) {
    loop {
        match step(&mut *job) {
            Done::More => {}
            Done::Idle(deadline) => signal.wait(deadline),
            Done::Ended => return,
        }
        if !signal.answer() {
            return;
        }
    }
}

/// A job that a `Background` steps.
pub(crate) struct DrivenJob {
    pub(crate) name: &'static str,
    signal: Arc<Signal>,
    rest: Mutex<Rest>,
    /// Notified when a step has ended.
    rested: Condvar,
}

struct Rest {
    place: JobLocation,
    /// When the job should be stepped again without a ring.
    next: Option<Instant>,
}

/// The location of a job.
enum JobLocation {
    Here(Box<dyn Job>),
    /// A thread is stepping it.
    With(ThreadId),
    Ended,
}

/// The result of an attempt to step a [`DrivenJob`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stepped {
    /// There may be more to do.
    More,
    Idle,
    Ended,
    /// Another thread is stepping it.
    Busy,
}

impl DrivenJob {
    fn new(name: &'static str, signal: Arc<Signal>, job: Box<dyn Job>) -> Self {
        // The first step is due at once.
        signal.ring();
        let rest = Mutex::new(Rest { place: JobLocation::Here(job), next: None });
        DrivenJob { name, signal, rest, rested: Condvar::default() }
    }

    /// Returns when a step is due; `None` if not before a ring.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let rest = self.rest.lock();
        match rest.place {
            JobLocation::Here(_) if self.signal.is_rung() => Some(now),
            JobLocation::Here(_) => rest.next,
            // A ring is noticed once the thread has put the job back.
            JobLocation::With(_) | JobLocation::Ended => None,
        }
    }

    /// Takes one step on this thread.
    pub(crate) fn step(&self) -> Stepped {
        let mut rest = self.rest.lock();
        let mut job = match mem::replace(&mut rest.place, JobLocation::With(thread::current().id())) {
            JobLocation::Here(job) => job,
            elsewhere => {
                let stepped =
                    if matches!(elsewhere, JobLocation::Ended) { Stepped::Ended } else { Stepped::Busy };
                rest.place = elsewhere;
                return stepped;
            }
        };
        drop(rest);
        let done = match self.signal.answer() {
            true => catch_unwind(AssertUnwindSafe(|| step(&mut *job))),
            false => Ok(Done::Ended),
        };
        let (stepped, next) = match done {
            Ok(Done::More) => {
                self.signal.ring();
                (Stepped::More, None)
            }
            Ok(Done::Idle(next)) => (Stepped::Idle, next),
            Ok(Done::Ended) | Err(_) => (Stepped::Ended, None),
        };
        let place = match stepped == Stepped::Ended || self.signal.is_stopped() {
            // Drop the job before reporting its end, because it holds the lock of the directory.
            true => {
                drop(job);
                JobLocation::Ended
            }
            false => JobLocation::Here(job),
        };
        *self.rest.lock() = Rest { place, next };
        self.rested.notify_all();
        match done {
            Err(panic) => resume_unwind(panic),
            Ok(_) => stepped,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.rest.lock().place, JobLocation::Ended)
    }

    /// Waits until no other thread steps the job. Returns whether this thread does, further up its
    /// stack.
    fn wait_until_rested(&self) -> bool {
        let mut rest = self.rest.lock();
        loop {
            match rest.place {
                JobLocation::With(thread) if thread == thread::current().id() => return true,
                JobLocation::With(_) => self.rested.wait(&mut rest),
                JobLocation::Here(_) | JobLocation::Ended => return false,
            }
        }
    }
}

/// A job that has been started.
pub(crate) struct Running {
    signal: Arc<Signal>,
    by: By,
    /// The process that started the job.
    process: Process,
}

/// How the job is stepped.
enum By {
    Thread(JoinHandle<()>),
    Driver(Arc<DrivenJob>),
}

impl Running {
    /// Starts a job on a thread of its own.
    pub(crate) fn on_thread(name: &'static str, signal: &Arc<Signal>, job: Box<dyn Job>) -> io::Result<Self> {
        let listener = Arc::clone(signal);
        let body = move || run(&listener, job);
        let thread = thread::Builder::new().name(name.to_string()).spawn(body)?;
        Ok(Running { signal: Arc::clone(signal), by: By::Thread(thread), process: Process::this() })
    }

    /// Makes a job ready to be stepped.
    pub(crate) fn driven(
        name: &'static str,
        signal: &Arc<Signal>,
        job: Box<dyn Job>,
    ) -> (Self, Arc<DrivenJob>) {
        let entry = Arc::new(DrivenJob::new(name, Arc::clone(signal), job));
        let by = By::Driver(Arc::clone(&entry));
        (Running { signal: Arc::clone(signal), by, process: Process::this() }, entry)
    }

    /// Returns whether the job has a thread, and that thread belongs to the parent of this forked
    /// process.
    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(self.by, By::Thread(_)) && !self.process.is_this()
    }

    /// Returns whether this is the job's own thread.
    pub(crate) fn is_on_this_thread(&self) -> bool {
        matches!(&self.by, By::Thread(thread) if is_current(thread))
    }

    /// Makes the job look for work.
    pub(crate) fn ring(&self) {
        self.signal.ring();
    }

    /// Ends the job, even if it has work left, and waits until it has ended. If the job itself calls
    /// this, it ends after its current step.
    pub(crate) fn stop(self) {
        self.signal.stop();
        match self.by {
            By::Thread(thread) => join(thread),
            By::Driver(entry) => {
                if !entry.wait_until_rested() {
                    // The signal says stop, so this does no work, but ends the job.
                    entry.step();
                }
            }
        }
    }

    /// Waits until these jobs, which need only each other, have ended. If one of them calls this, they
    /// are left to end by themselves.
    pub(crate) fn finish<const N: usize>(jobs: [Self; N]) {
        if jobs.iter().any(Running::is_this_thread) {
            return;
        }
        let mut driven = Vec::new();
        for job in jobs {
            match job.by {
                By::Thread(thread) => join(thread),
                By::Driver(entry) => driven.push(entry),
            }
        }
        drive_to_the_end(driven);
    }

    fn is_this_thread(&self) -> bool {
        match &self.by {
            By::Thread(thread) => is_current(thread),
            By::Driver(entry) => entry.wait_until_rested(),
        }
    }
}

fn is_current(running: &JoinHandle<()>) -> bool {
    running.thread().id() == thread::current().id()
}

fn join(running: JoinHandle<()>) {
    // A value that the job's own thread drops may be the last holder of the database: a thread cannot
    // join itself.
    if is_current(&running) {
        return;
    }
    if waiting("the end of a background thread", || running.join()).is_err() {
        tracing::error!("a background thread of a database has panicked");
    }
}

fn drive_to_the_end(mut jobs: Vec<Arc<DrivenJob>>) {
    while !jobs.is_empty() {
        let mut goes_on = false;
        jobs.retain(|entry| {
            // As on a thread, a panic ends the job, but not the caller that drops the database.
            let stepped = catch_unwind(AssertUnwindSafe(|| entry.step())).unwrap_or_else(|_| {
                tracing::error!(job = entry.name, "background work of a database has panicked");
                Stepped::Ended
            });
            goes_on |= matches!(stepped, Stepped::More | Stepped::Ended);
            if stepped == Stepped::Busy {
                // Another thread is stepping it.
                goes_on |= !entry.wait_until_rested();
            }
            stepped != Stepped::Ended
        });
        if !goes_on {
            let left: Vec<_> = jobs.iter().map(|entry| entry.name).collect();
            tracing::error!(?left, "background work of a database waits for work that no one does");
            debug_assert!(goes_on, "{left:?} wait for work that no one does");
            return;
        }
    }
}
