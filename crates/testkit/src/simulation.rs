//! Simulation of a whole application in one thread, in virtual time, on a disk that crashes. Every run
//! follows from one seed, and can be replayed.
//!
//! A [`Simulation`] is a machine on which one process runs after another. Each call of
//! [`run`](Simulation::run) is the life of a process. It runs the main future, the tasks that the
//! process [spawns](Machine::spawn), and the background work of the databases that it opens, until the
//! main future has ended or the machine crashes. At each step, a random choice from the seed selects
//! a task that was woken or a piece of background work. When there is neither, time jumps to the next
//! instant for which a task or a database waits, so an hour of timeouts takes no real time.
//!
//! ```
//! use fluxmap::{Database, FluxError};
//! use fluxmap_testkit::simulation::{Ended, Machine, Simulation};
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! /// The application: counts durably, once a second.
//! async fn count(machine: Machine, acknowledged: Arc<Mutex<u32>>) -> Result<(), FluxError> {
//!     let db = Database::<String, u32>::builder()
//!         .durability_full(machine.persistence("counter"))
//!         .disk(Arc::new(machine.disk()))
//!         .background(machine.background())
//!         .build()
//!         .await?;
//!     // Every life must find the last count that was acknowledged.
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
//! # What are the rules for the application?
//!
//! - The application gets its disk, clock, sleeps and tasks from the [`Machine`].
//! - It uses no threads and no sockets, and no clock or random numbers of the real machine.
//!   Clients and the network are simulated by tasks, too.
//! - It does not depend on the order of a `HashMap`, which differs in each run: use `BTreeMap`, or
//!   sort.
//! - Only tasks hold handles of databases, so that the handles end with the process.
//!
//! The knowledge of the outside world, such as the promises that clients were given, belongs to the
//! test, since it must outlive the process.
//!
//! # When does the machine crash?
//!
//! It crashes at a [step](Simulation::crash_at_step) or at a [call to the
//! disk](Simulation::crash_at_call); a step may make several calls.
//! [`crash_within`](Simulation::crash_within) draws a place at random. A [`Crash`] is the death of the
//! process, or a loss of power. A loss of power undoes unsynced changes: all of them, some, or parts of
//! some, in any order.
//!
//! # What if the application hangs?
//!
//! A run that cannot go on, or takes too many steps, ends with [`Stuck`]. It lists the unfinished tasks
//! and what each waits for; [`Machine::label`] lets a task name this.
//!
//! # How do I replay a failure?
//!
//! When a test panics, the simulation prints the last steps and the seed: `FLUXMAP_SEED=17`. A test that
//! draws its seeds from [`workload::seeds`](crate::workload::seeds) runs only that seed if this variable is set:
//!
//! ```console
//! $ FLUXMAP_SEED=17 cargo test --test jobs no_job_is_lost -- --exact --nocapture
//! ```
//!
//! A seed stands for the same run as long as neither the application nor FluxMap nor the testkit changes.

mod machine;
mod report;
mod shared;
#[cfg(test)]
mod tests;
mod waits;

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use fluxmap::background::Step;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::disk::{Loss, SimDisk};
use crate::workload::Seed;

pub use self::machine::Machine;
pub use self::report::{Failed, Stuck, Waiting, Why};
use self::shared::Shared;
pub use self::waits::{Joined, Sleep};

/// The kind of a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies. Everything that it has written to the disk survives.
    Process,
    /// The power fails. Unsynced changes may be lost.
    Power(Loss),
}

/// How the life of a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended<T> {
    /// The main future returned this output. All other tasks were then dropped, and the databases closed.
    Returned(T),
    /// The machine crashed as planned. The next process finds the disk that the crash left.
    Crashed {
        /// The output of the main future, if the machine crashed after it had returned, while the
        /// databases closed, or at a call to the disk in its last step. In the latter case, the output
        /// may be an error that follows from the crash.
        returned: Option<T>,
    },
}

/// The most steps that a process may take, unless [`Simulation::limit_steps`] sets another limit.
const STEPS: u64 = 200_000;

/// The number of a call to the disk that is never reached: no crash at a call.
const NEVER: u64 = u64::MAX;

/// A machine on which processes run. See the [module](self).
pub struct Simulation {
    seed: u64,
    rng: StdRng,
    shared: Arc<Shared>,
    /// The number of processes so far.
    lives: u64,
    steps: u64,
    limit: u64,
    /// One step of so many lets time pass although a task could go on.
    stalls: Option<u32>,
    crash: Option<Plan>,
    /// The number of tasks that had failed before this step.
    failed_before: usize,
}

/// A planned crash.
#[derive(Clone, Copy)]
struct Plan {
    /// The step before which to crash; `None` for a crash at a call to the disk.
    step: Option<u64>,
    crash: Crash,
}

impl Simulation {
    /// A machine with an empty disk, at time zero.
    ///
    /// Draw the seeds of a test from [`seeds`](crate::workload::seeds): it tries many, or only the one that
    /// the environment variable `FLUXMAP_SEED` names. When the test panics, the simulation prints this
    /// variable with its seed. A test of one run takes
    /// [`Seed::from_env`](crate::workload::Seed::from_env)`().`[`number`](crate::workload::Seed::number)`()`.
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
            failed_before: 0,
            rng,
        }
    }

    /// The machine as the application sees it.
    #[must_use]
    pub fn machine(&self) -> Machine {
        Machine::new(&self.shared)
    }

    /// A random number below `end`, drawn from the seed; zero if `end` is zero.
    pub fn choose(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.rng.random_range(0..end) }
    }

    /// Sets the most steps that a run may take before it ends with [`Stuck`]. The default is 200,000.
    pub fn limit_steps(&mut self, steps: u64) {
        self.limit = steps;
    }

    /// In one of `steps` steps, lets time jump to the next instant for which a task or a database
    /// waits, although something else could go on, as on a machine that is busy or stops for a moment.
    /// By default, and with zero, time passes only when nothing can go on.
    pub fn stall_one_in(&mut self, steps: u32) {
        self.stalls = Some(steps).filter(|steps| *steps > 0);
    }

    /// Makes the next run crash just before its step `step`; the first step is 1.
    pub fn crash_at_step(&mut self, step: u64, crash: Crash) {
        self.shared.disk().crash_at(NEVER);
        self.crash = Some(Plan { step: Some(step), crash });
    }

    /// Makes the next run crash at this call to the disk. Only calls that change something count. The
    /// first is 1, and zero means the same.
    pub fn crash_at_call(&mut self, call: u64, crash: Crash) {
        self.shared.disk().crash_at(call.max(1));
        self.crash = Some(Plan { step: None, crash });
    }

    /// Makes the next run crash in a random way, at a random one of its first `steps` steps or of its
    /// first `steps` calls to the disk. The run does not crash if it ends before.
    pub fn crash_within(&mut self, steps: u64) {
        // A loss of everything finds most bugs, so draw it most often. The other kinds find the rest.
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

    /// Runs the life of a process: `main`, and the tasks that it spawns, until `main` has ended or the
    /// machine crashes. Then all tasks are dropped, and with them the databases that they hold. If
    /// `main` has returned, the databases close normally. After a crash, every call that would change
    /// their disk fails.
    ///
    /// Closing calls the disk, so a crash that was planned for a call may come after `main` has
    /// returned. The run then ends with [`Ended::Crashed`], which holds the output of `main`.
    ///
    /// # Errors
    ///
    /// [`Stuck`] if nothing can go on, or after too many steps.
    ///
    /// # Panics
    ///
    /// If a task or a piece of background work panics.
    pub fn run<F: Future>(&mut self, main: F) -> Result<Ended<F::Output>, Stuck> {
        self.lives += 1;
        self.steps = 0;
        self.shared.forget_failed(0);
        self.shared.note(format!("life {}", self.lives));
        let mut ended = self.live(main);
        // Dropping the tasks closes databases, and this may reach the call at which to crash.
        self.shared.drop_tasks();
        ended = match ended {
            Ok(Ended::Returned(output)) if self.crash_if_due() => {
                Ok(Ended::Crashed { returned: Some(output) })
            }
            ended => ended,
        };
        // Cancel a crash that was not reached: it was planned for this process, not for the next one.
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
                return Ok(Ended::Crashed { returned: None });
            }
            self.failed_before = shared.failed_count();
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
                self.shared.note(format!("{next:?}"));
                shared.advance_to(next);
                continue;
            }
            // Numbers below `ready.len()` choose a task; the last one chooses background work, if due.
            let chosen = self.choose(count);
            match ready.get(usize::try_from(chosen).unwrap_or(usize::MAX)) {
                Some(task) if *task == id => {
                    self.shared.note("main".to_owned());
                    shared.begin_poll(id);
                    if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                        return Ok(Ended::Returned(output));
                    }
                }
                Some(task) => {
                    self.shared.note(shared.name_of(*task));
                    shared.poll(*task);
                }
                None => {
                    self.shared.note("background".to_owned());
                    let worked = background.step_with(self.rng.random());
                    debug_assert_eq!(worked, Step::Worked, "it was due");
                }
            }
        }
    }

    /// If it is time to crash, replaces the disk by one in the state that the crash leaves.
    fn crash_if_due(&mut self) -> bool {
        let Some(Plan { step, crash }) = self.crash else { return false };
        let disk = self.shared.disk();
        // The disk has frozen its state if the planned call was reached. Otherwise the plan names a step,
        // and the present state of the disk counts.
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
        // The dead process did not see the errors of the call at which the machine crashed.
        if disk.has_crashed() {
            self.shared.forget_failed(self.failed_before);
        }
        self.shared.note(format!("crash: {crash:?}"));
        self.shared.replace_disk(match crash {
            Crash::Process => instant.process_death(),
            Crash::Power(loss) => instant.power_cut(loss),
        });
        // Fail all further calls to the old disk: the process is dead and must write no more.
        disk.crash_at(1);
        true
    }

    fn stuck(&self, why: Why) -> Stuck {
        let (life, step, now) = (self.lives, self.steps, self.shared.background().now());
        let tasks = self.shared.waiting();
        Stuck {
            why,
            seed: self.seed,
            life,
            step,
            now,
            tasks,
            failed: self.shared.failed(),
            last: self.shared.last_steps(),
        }
    }

    /// The [detached](Machine::spawn_detached) tasks that ended with an error in the last run, the earliest
    /// first. Errors that follow from a crash are left out.
    #[must_use]
    pub fn failed(&self) -> Vec<Failed> {
        self.shared.failed()
    }

    /// The last 10,000 steps of all lives, the earliest first. A step is the name of the task that went on,
    /// `main`, `background`, or the time to which the clock jumped. Numbers that tasks
    /// [drew](Machine::random), errors of [detached](Machine::spawn_detached) tasks, and crashes stand
    /// between the steps, and count as steps here.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.shared.trace()
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, life, step) = (Seed::from(self.seed), self.lives, self.steps);
            eprintln!("simulation: {seed}, life {life}, step {step}; the last steps:");
            eprintln!("  {}", self.shared.last_steps().join("\n  "));
        }
        // Break the reference cycle: tasks hold the machine, and the machine holds its tasks.
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
