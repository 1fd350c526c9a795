//! A whole application in one thread, in virtual time, on a disk that crashes: every run
//! follows from one seed, and replays.
//!
//! A [`Simulation`] is a machine on which one process runs after another. Each call of
//! [`run`](Simulation::run) is the life of a process: it runs one future, with the tasks that
//! it [spawns](Machine::spawn) and the background work of the databases that it opens, until
//! the future has ended or the machine crashes. Step by step the seed chooses what goes on
//! next: a task that was woken, or a piece of background work. When nothing can, time jumps to
//! the next instant that anything waits for, so an hour of timeouts takes no time.
//!
//! ```
//! use fluxmap::{Database, FluxError};
//! use fluxmap_testkit::simulation::{Ended, Machine, Simulation};
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! /// The application: counts, once a second, as durably as can be.
//! async fn count(machine: Machine, acknowledged: Arc<Mutex<u32>>) -> Result<(), FluxError> {
//!     let db = Database::<String, u32>::builder()
//!         .durability_full(machine.persistence("counter"))
//!         .disk(Arc::new(machine.disk()))
//!         .background(machine.background())
//!         .build()
//!         .await?;
//!     // What every life must find.
//!     let found = db.get("n")?.map_or(0, |n| *n);
//!     assert!(found >= *acknowledged.lock().unwrap(), "it has forgotten {found}");
//!     for n in found + 1..=10 {
//!         machine.sleep(Duration::from_secs(1)).await;
//!         db.insert("n".into(), n).await?;
//!         *acknowledged.lock().unwrap() = n;
//!     }
//!     Ok(())
//! }
//!
//! for seed in 0..20 {
//!     let mut simulation = Simulation::new(seed);
//!     let acknowledged = Arc::new(Mutex::new(0));
//!     for _life in 0..3 {
//!         simulation.crash_within(60);
//!         let machine = simulation.machine();
//!         match simulation.run(count(machine, Arc::clone(&acknowledged))) {
//!             Ok(Ended::Crashed) => {}
//!             Ok(Ended::Returned(result)) => result.expect("it has no other reason to fail"),
//!             Err(stuck) => panic!("{stuck}"),
//!         }
//!     }
//! }
//! ```
//!
//! # What must the application hold to?
//!
//! - It gets its disk, its clock, its sleeps and its tasks from the [`Machine`].
//! - It asks nothing else of the world: no thread, no socket, no clock or random number of the
//!   machine that the test runs on. What stands for clients and the network are tasks, too.
//! - A `HashMap` of the standard library iterates in another order each time: use `BTreeMap`,
//!   or sort.
//! - Handles of databases are held by tasks only, so that they end with the process.
//!
//! What is known to the outside world, the promises that a client was given, stands in the
//! test, and outlives the process.
//!
//! # When does it crash?
//!
//! At a [step](Simulation::crash_at_step) or at a [call to the disk](Simulation::crash_at_call):
//! there are several within a step. [`crash_within`](Simulation::crash_within) draws either. A
//! [`Crash`] is the death of the process, or a loss of power, which takes what was not synced,
//! or some of it, or parts of it, in any order.
//!
//! # What if it hangs?
//!
//! A run in which nothing can happen any more, or that takes too many steps, ends with
//! [`Stuck`], which says what each task waits for; [`Machine::label`] gives that a name.
//!
//! # How do I see a failure again?
//!
//! With its seed, which is printed when a test panics, with the last steps. The seed stands
//! for the same run as long as neither the application nor FluxMap changes.

mod machine;
mod report;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use fluxmap::background::Step;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::disk::{Loss, SimDisk};

use self::machine::Shared;
pub use self::machine::{Joined, Machine, Sleep};
use self::report::Trace;
pub use self::report::{Stuck, Waiting, Why};

/// How a machine crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies. What it has written to the disk is there.
    Process,
    /// The power goes, and with it some of what was not synced.
    Power(Loss),
}

/// How the life of a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended<T> {
    /// Its main future returned this. Its other tasks ended, then.
    Returned(T),
    /// The machine crashed, as was planned. What is left of the disk is there for the next.
    Crashed,
}

/// How many steps a process may take, unless it is [said](Simulation::limit_steps).
const STEPS: u64 = 200_000;

/// A call to the disk that it does not come to.
const NEVER: u64 = u64::MAX;

/// A machine on which processes run. See the [module](self).
pub struct Simulation {
    seed: u64,
    rng: StdRng,
    shared: Arc<Shared>,
    /// Processes so far, and the steps of the present one.
    lives: u64,
    steps: u64,
    limit: u64,
    /// One step of so many takes long.
    stalls: Option<u32>,
    crash: Option<Plan>,
    trace: Trace,
}

/// A crash that is to come.
#[derive(Clone, Copy)]
struct Plan {
    /// If not at a call to the disk.
    step: Option<u64>,
    crash: Crash,
}

impl Simulation {
    /// A machine with an empty disk, at time zero.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let shared = Arc::new(Shared::new(SimDisk::new(rng.random()), rng.random()));
        Simulation {
            seed,
            shared,
            lives: 0,
            steps: 0,
            limit: STEPS,
            stalls: None,
            crash: None,
            trace: Trace::default(),
            rng,
        }
    }

    /// What the application sees of it.
    #[must_use]
    pub fn machine(&self) -> Machine {
        Machine::new(&self.shared)
    }

    /// A number below `end`, drawn from the seed; zero if that is zero.
    pub fn choose(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.rng.random_range(0..end) }
    }

    /// Ends a run that takes more steps than this with [`Stuck`]. 200,000 by default.
    pub fn limit_steps(&mut self, steps: u64) {
        self.limit = steps;
    }

    /// Lets one step of so many take as long as until the next instant that anything waits for,
    /// although something could go on: as on a machine that is busy, or stops for a moment. By
    /// default, and at zero, time passes only when nothing can go on.
    pub fn stall_one_in(&mut self, steps: u32) {
        self.stalls = Some(steps).filter(|steps| *steps > 0);
    }

    /// Lets the next run crash just before this step of it; the first is 1.
    pub fn crash_at_step(&mut self, step: u64, crash: Crash) {
        self.shared.disk().crash_at(NEVER);
        self.crash = Some(Plan { step: Some(step), crash });
    }

    /// Lets the next run crash at this call to the disk, of those that change something: the
    /// first is 1, and zero is as that.
    pub fn crash_at_call(&mut self, call: u64, crash: Crash) {
        self.shared.disk().crash_at(call.max(1));
        self.crash = Some(Plan { step: None, crash });
    }

    /// Lets the next run crash at any of its first steps or of as many calls to the disk, if it
    /// comes to that, and in any way.
    pub fn crash_within(&mut self, steps: u64) {
        // A loss of everything finds most, and the others what it does not.
        let crash = match self.choose(8) {
            0..3 => Crash::Power(Loss::Everything),
            3..5 => Crash::Power(Loss::Random(self.rng.random())),
            5 => Crash::Power(Loss::Nothing),
            _ => Crash::Process,
        };
        let at = 1 + self.choose(steps);
        match self.choose(2) {
            0 => self.crash_at_step(at, crash),
            _ => self.crash_at_call(at, crash),
        }
    }

    /// The life of a process: runs `main`, and whatever it spawns, until it has ended or the
    /// machine crashes. Then all tasks are dropped, and with them the databases that they hold:
    /// in good order if `main` has returned, and with a disk that fails every call if not.
    ///
    /// # Errors
    ///
    /// [`Stuck`] if nothing can go on, or after too many steps.
    ///
    /// # Panics
    ///
    /// If a task does, or a piece of background work.
    pub fn run<F: Future>(&mut self, main: F) -> Result<Ended<F::Output>, Stuck> {
        self.lives += 1;
        self.steps = 0;
        self.trace.note(format!("life {}", self.lives));
        let mut ended = self.live(main);
        // It may crash while databases are being closed.
        self.shared.drop_tasks();
        if ended.is_ok() && self.crash_if_due() {
            ended = Ok(Ended::Crashed);
        }
        // A crash that did not come to pass is not for the next process.
        self.crash = None;
        self.shared.disk().crash_at(NEVER);
        ended
    }

    fn live<F: Future>(&mut self, main: F) -> Result<Ended<F::Output>, Stuck> {
        let mut main = pin!(main);
        let shared = Arc::clone(&self.shared);
        let (id, waker) = shared.begin_main();
        loop {
            if self.crash_if_due() {
                return Ok(Ended::Crashed);
            }
            self.steps += 1;
            if self.steps > self.limit {
                return Err(self.stuck(Why::TooManySteps { limit: self.limit }));
            }
            let stalls = self.stalls.is_some_and(|steps| self.choose(steps.into()) == 0);
            let ready = shared.ready();
            let background = shared.background();
            let works = u64::from(background.due_in().is_some_and(|due| due.is_zero()));
            let count = ready.len() as u64 + works;
            if count == 0 || (stalls && shared.next_instant().is_some()) {
                let Some(next) = shared.next_instant() else {
                    return Err(self.stuck(Why::NothingGoesOn));
                };
                self.trace.note(format!("{next:?}"));
                shared.advance_to(next);
                continue;
            }
            let chosen = self.choose(count);
            match ready.get(usize::try_from(chosen).unwrap_or(usize::MAX)) {
                Some(task) if *task == id => {
                    self.trace.note("main".to_owned());
                    shared.begin_poll(id);
                    if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                        return Ok(Ended::Returned(output));
                    }
                }
                Some(task) => {
                    self.trace.note(shared.name_of(*task));
                    shared.poll(*task);
                }
                None => {
                    self.trace.note("background".to_owned());
                    let worked = background.step_with(self.rng.random());
                    debug_assert_eq!(worked, Step::Worked, "it was due");
                }
            }
        }
    }

    /// If it is time to crash, puts what is left of the disk in its place.
    fn crash_if_due(&mut self) -> bool {
        let Some(Plan { step, crash }) = self.crash else { return false };
        let disk = self.shared.disk();
        let instant = match (disk.frozen(), disk.frozen_midway()) {
            (Some(before), Some(midway)) => {
                if self.choose(2) == 0 {
                    before
                } else {
                    midway
                }
            }
            _ if step.is_some_and(|step| self.steps + 1 >= step) => disk.clone(),
            _ => return false,
        };
        self.crash = None;
        self.trace.note(format!("crash: {crash:?}"));
        self.shared.replace_disk(match crash {
            Crash::Process => instant.process_death(),
            Crash::Power(loss) => instant.power_cut(loss),
        });
        // The process that is gone writes no more.
        disk.crash_at(1);
        true
    }

    fn stuck(&self, why: Why) -> Stuck {
        let (life, step, now) = (self.lives, self.steps, self.shared.background().now());
        let tasks = self.shared.waiting();
        Stuck { why, seed: self.seed, life, step, now, tasks, last: self.trace.last() }
    }

    /// The last steps of all lives, the earliest first: each by the name of the task that went
    /// on, `main`, `background`, or the time to which the clock jumped.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.trace.all()
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, life, step) = (self.seed, self.lives, self.steps);
            eprintln!("simulation: seed {seed}, life {life}, step {step}; the last steps:");
            eprintln!("  {}", self.trace.last().join("\n  "));
        }
        // They hold the machine, which holds them.
        self.shared.drop_tasks();
    }
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulation")
            .field("seed", &self.seed)
            .field("lives", &self.lives)
            .field("steps", &self.steps)
            .field("now", &self.shared.background().now())
            .finish_non_exhaustive()
    }
}
