//! Jobs: the work that a database does beside its callers, a step at a time.
//!
//! A job never waits. A step does one piece of what is to be done, or finds nothing and says
//! when the job is to look again by itself; whatever gives the job something to do rings its
//! [`Signal`]. By default each job has a thread, which steps it and sleeps in between. With a
//! [`Background`](crate::Background) there is no thread, and the holder of that steps it.
//!
//! No lock is held during a step: it wakes tasks and drops values, which is somebody else's
//! code and may step other jobs or drop the database.

use crate::process::Process;
use crate::sync::thread::{self, JoinHandle, ThreadId};
use crate::sync::{Condvar, Instant, Mutex};
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

/// Work of one kind.
pub(crate) trait Job: Send {
    /// Does one piece of it, without waiting for anything but the disk.
    fn step(&mut self) -> Done;

    /// A step has panicked, and none follows: nobody is to wait for this job for ever.
    fn panicked(&mut self) {}
}

/// How a step went.
#[derive(Debug)]
pub(crate) enum Done {
    /// There may be more to do.
    More,
    /// Nothing was left to do until the signal is rung, or until then.
    Idle(Option<Instant>),
    /// There never will be anything to do.
    Ended,
}

/// Tells a job that there may be something to do. A ring is remembered until the next step.
#[derive(Default)]
pub(crate) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
struct State {
    rung: bool,
    /// The job is to end after the step that is under way, whatever is left to do.
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

    /// Forgets a ring: the step that follows looks at everything that happened before it.
    /// Returns whether the job goes on.
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

/// Steps a job; tells it if that panics, and lets the panic go on.
fn step(job: &mut dyn Job) -> Done {
    catch_unwind(AssertUnwindSafe(|| job.step())).unwrap_or_else(|panic| {
        job.panicked();
        resume_unwind(panic)
    })
}

/// The whole life of a job on a thread of its own. The first step is taken at once.
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

/// A job that somebody else steps.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    signal: Arc<Signal>,
    rest: Mutex<Rest>,
    /// A step has ended.
    rested: Condvar,
}

struct Rest {
    place: Place,
    /// When the job looks again by itself.
    next: Option<Instant>,
}

/// Where the job is.
enum Place {
    Here(Box<dyn Job>),
    /// With the thread that steps it.
    With(ThreadId),
    Ended,
}

/// How an attempt to step an [`Entry`] went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stepped {
    /// There may be more to do.
    More,
    Idle,
    Ended,
    /// Somebody steps it just now.
    Busy,
}

impl Entry {
    fn new(name: &'static str, signal: Arc<Signal>, job: Box<dyn Job>) -> Self {
        // Its first step is due at once.
        signal.ring();
        let rest = Mutex::new(Rest { place: Place::Here(job), next: None });
        Entry { name, signal, rest, rested: Condvar::default() }
    }

    /// When a step is due, if it ever is without a ring.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let rest = self.rest.lock();
        match rest.place {
            Place::Here(_) if self.signal.is_rung() => Some(now),
            Place::Here(_) => rest.next,
            // A ring is heard when it has come back.
            Place::With(_) | Place::Ended => None,
        }
    }

    /// Takes one step, on this thread.
    pub(crate) fn step(&self) -> Stepped {
        let mut rest = self.rest.lock();
        let mut job = match mem::replace(&mut rest.place, Place::With(thread::current().id())) {
            Place::Here(job) => job,
            elsewhere => {
                let stepped = if matches!(elsewhere, Place::Ended) { Stepped::Ended } else { Stepped::Busy };
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
            // Before anybody is told: it holds the lock of the directory.
            true => {
                drop(job);
                Place::Ended
            }
            false => Place::Here(job),
        };
        *self.rest.lock() = Rest { place, next };
        self.rested.notify_all();
        match done {
            Err(panic) => resume_unwind(panic),
            Ok(_) => stepped,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.rest.lock().place, Place::Ended)
    }

    /// Waits until no other thread steps the job. Returns whether this one does, further up
    /// its stack.
    fn wait_until_rested(&self) -> bool {
        let mut rest = self.rest.lock();
        loop {
            match rest.place {
                Place::With(thread) if thread == thread::current().id() => return true,
                Place::With(_) => self.rested.wait(&mut rest),
                Place::Here(_) | Place::Ended => return false,
            }
        }
    }
}

/// A job that has been started.
pub(crate) struct Running {
    signal: Arc<Signal>,
    by: By,
    /// The process that has it.
    process: Process,
}

/// Who steps it.
enum By {
    Thread(JoinHandle<()>),
    Driver(Arc<Entry>),
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
    pub(crate) fn driven(name: &'static str, signal: &Arc<Signal>, job: Box<dyn Job>) -> (Self, Arc<Entry>) {
        let entry = Arc::new(Entry::new(name, Arc::clone(signal), job));
        let by = By::Driver(Arc::clone(&entry));
        (Running { signal: Arc::clone(signal), by, process: Process::this() }, entry)
    }

    /// Whether it has a thread, and that is one of another process, which this is a fork of.
    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(self.by, By::Thread(_)) && !self.process.is_this()
    }

    /// Has it look for work.
    pub(crate) fn ring(&self) {
        self.signal.ring();
    }

    /// Ends the job, whatever it has left to do, and waits until it has. Where the job
    /// itself is what calls this, it ends when it comes back.
    pub(crate) fn stop(self) {
        self.signal.stop();
        match self.by {
            By::Thread(thread) => join(thread),
            By::Driver(entry) => {
                if !entry.wait_until_rested() {
                    // Takes no step any more, but sees that it is over.
                    entry.step();
                }
            }
        }
    }

    /// Waits until these jobs, which need each other and nobody else, have come to their
    /// end. If one of them is what calls this, they are left to end by themselves.
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
    // The last handle of a database can be dropped by a value that its own thread drops.
    if !is_current(&running) && running.join().is_err() {
        tracing::error!("a background thread of a database had panicked");
    }
}

fn drive_to_the_end(mut jobs: Vec<Arc<Entry>>) {
    while !jobs.is_empty() {
        let mut goes_on = false;
        jobs.retain(|entry| {
            // As a thread's panic would: it ends the job, not whoever drops the database.
            let stepped = catch_unwind(AssertUnwindSafe(|| entry.step())).unwrap_or_else(|_| {
                tracing::error!(job = entry.name, "background work of a database has panicked");
                Stepped::Ended
            });
            goes_on |= matches!(stepped, Stepped::More | Stepped::Ended);
            if stepped == Stepped::Busy {
                // Another thread steps it.
                goes_on |= !entry.wait_until_rested();
            }
            stepped != Stepped::Ended
        });
        if !goes_on {
            let left: Vec<_> = jobs.iter().map(|entry| entry.name).collect();
            tracing::error!(?left, "background work of a database waits for nobody who is there");
            debug_assert!(goes_on, "{left:?} wait for nobody who is there");
            return;
        }
    }
}
