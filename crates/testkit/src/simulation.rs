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
//! use fluxmap_testkit::workload::seeds;
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! /// A client counts, and notes each count that was acknowledged.
//! async fn client(
//!     machine: Machine,
//!     db: Database<String, u32>,
//!     acknowledged: Arc<Mutex<u32>>,
//! ) -> Result<(), FluxError> {
//!     let found = db.get("n")?.map_or(0, |n| *n);
//!     for n in found + 1..=found + 5 {
//!         db.insert("n".into(), n).await?;
//!         *acknowledged.lock().unwrap() = n;
//!         machine.sleep(Duration::from_secs(1)).await;
//!     }
//!     Ok(())
//! }
//!
//! /// The application. Every life must find the last count that was acknowledged.
//! async fn process(machine: Machine, acknowledged: Arc<Mutex<u32>>) -> Result<(), FluxError> {
//!     let db = machine.database("counter").build().await?;
//!     let found = db.get("n")?.map_or(0, |n| *n);
//!     assert!(found >= *acknowledged.lock().unwrap(), "only {found} is left");
//!     // Nobody waits for the client. The simulation keeps its error.
//!     machine.spawn_detached("client", client(machine.clone(), db, acknowledged));
//!     machine.sleep(Duration::from_secs(10)).await;
//!     Ok(())
//! }
//!
//! for seed in seeds(20) {
//!     let mut simulation = Simulation::new(seed);
//!     // The disk is slow: time passes while a commit waits for it.
//!     simulation.stall_one_in(10);
//!     let acknowledged = Arc::new(Mutex::new(0));
//!     for life in 1..=4 {
//!         // Plan a crash for each life but the last: a plan holds for one life.
//!         if life < 4 {
//!             simulation.crash_within(60);
//!         }
//!         let machine = simulation.machine();
//!         match simulation.run(process(machine, Arc::clone(&acknowledged))) {
//!             Ok(Ended::Crashed { .. }) => {}
//!             Ok(Ended::Returned(result)) => result.expect("it has no reason to fail"),
//!             Err(stuck) => panic!("{stuck}"),
//!         }
//!         assert_eq!(simulation.failed(), []);
//!     }
//! }
//! ```
//!
//! A promise must be noted at the moment at which it is given. A test that notes it only at the orderly end
//! of a life finds no acknowledgement that a crash has broken. To see that a test can fail, build the
//! database above with `machine.relaxed_database("counter").flush_interval(Duration::from_secs(3))`: then
//! acknowledged counts get lost, and the test says so.
//!
//! # What are the rules for the application?
//!
//! - The application gets its disk, clock, sleeps, tasks and random numbers from the [`Machine`].
//!   [`Machine::database`] opens a database on it. A builder without
//!   [`disk`](fluxmap::DatabaseBuilder::disk) writes to the file system of the real machine, and one
//!   without [`background`](fluxmap::DatabaseBuilder::background) starts threads.
//! - It uses no threads and no sockets, and no clock or random numbers of the real machine.
//!   Clients and the network are simulated by tasks, too.
//! - Only tasks hold handles of databases, so that the handles end with the process.
//!
//! The knowledge of the outside world, such as the promises that clients were given, belongs to the
//! test, since it must outlive the process.
//!
//! # What makes a run non-deterministic?
//!
//! - The order of a `HashMap` or `HashSet` of the standard library, which differs in each run: use
//!   `BTreeMap`, or sort.
//! - `tokio::select!` without `biased;`, and `futures::select!`: they choose a branch by random numbers of
//!   their own. Use `biased;`, `futures::select_biased!` or `futures::future::select`.
//! - Clocks of the real machine. Timers, tasks and sockets of tokio need its runtime, and panic in a
//!   simulation.
//! - Addresses of objects, if anything is ordered by them.
//!
//! Futures that need no runtime work: `async` blocks, `join!`, the channels and locks of `tokio::sync`,
//! those of `futures`, and `FuturesUnordered`. To check an application, run one seed twice and compare the
//! [traces](Simulation::trace).
//!
//! # How do I keep the testkit out of the program?
//!
//! It is a dependency of the tests only, so the application must not name [`Machine`]. Let it
//! take the disk and the background from its caller:
//!
//! ```
//! use fluxmap::disk::Disk;
//! use fluxmap::persistence::PersistenceOptions;
//! use fluxmap::{Background, Database, FluxError};
//! use fluxmap_testkit::simulation::Machine;
//! use std::sync::Arc;
//!
//! /// In the application. The program passes `None`.
//! async fn open(
//!     options: PersistenceOptions,
//!     simulated: Option<(Arc<dyn Disk>, &Background)>,
//! ) -> Result<Database<u64, String>, FluxError> {
//!     let mut builder = Database::builder().durability_full(options);
//!     if let Some((disk, background)) = simulated {
//!         builder = builder.disk(disk).background(background);
//!     }
//!     builder.build().await
//! }
//!
//! /// In the test.
//! async fn process(machine: Machine) -> Result<(), FluxError> {
//!     let simulated = (Arc::new(machine.disk()) as Arc<dyn Disk>, machine.background());
//!     let db = open(machine.persistence("words"), Some(simulated)).await?;
//!     db.insert(1, "one".into()).await
//! }
//! # let mut simulation = fluxmap_testkit::simulation::Simulation::new(1);
//! # let main = process(simulation.machine());
//! # assert_eq!(simulation.run(main)?, fluxmap_testkit::simulation::Ended::Returned(Ok(())));
//! # Ok::<(), fluxmap_testkit::simulation::Stuck>(())
//! ```
//!
//! An application that also sleeps, reads the clock or starts tasks takes a trait of its own with
//! these methods. The program implements it with its runtime, and the test with the [`Machine`].
//!
//! # When does the machine crash?
//!
//! It crashes at a [step](Simulation::crash_at_step) or at a [call to the
//! disk](Simulation::crash_at_call); a step may make several calls.
//! [`crash_within`](Simulation::crash_within) draws a place at random. A plan holds for the next run only. A
//! [`Crash`] is the death of the process, or a loss of power. A loss of power undoes unsynced changes: all of
//! them, some, or parts of some, in any order.
//!
//! Opening a database, a backup and closing are one step each: no other task goes on between their calls to
//! the disk, and only a crash at a call reaches their middle.
//!
//! # What if the disk is slow, full, or fails?
//!
//! [`Simulation::stall_one_in`] makes the machine slow: time passes while commits wait for the disk. It is
//! off by default. [`SimDisk::stall`] is for tests on threads. A simulation refuses it, since it
//! would hold up its only thread.
//!
//! [`Machine::disk`] has the other faults: calls that fail, a capacity, a disk that refuses to be written.
//! They stay in force when a process returns, and vanish at a crash, because a crash replaces the
//! disk by a new one without faults. A handle of the disk from before the crash stays with the old
//! disk, its calls and its trace. [`SimDisk::crash_at`] makes the calls of the disk fail, but does not crash
//! the machine: use [`Simulation::crash_at_call`].
//!
//! # What if the application hangs?
//!
//! A run that cannot go on, or takes too many steps, ends with [`Stuck`]. It lists the unfinished tasks
//! and what each waits for; [`Machine::label`] lets a task name this. It also lists the tasks from
//! [`Machine::spawn_detached`] that have ended with an error, for which others may wait in vain. A task from
//! [`Machine::spawn`] hands its error to the task that awaits it.
//!
//! # How do I replay a failure?
//!
//! When a test panics, the simulation prints the last steps and the seed: `FLUXMAP_SEED=17`. A test that
//! draws its seeds from [`workload::seeds`](crate::workload::seeds) runs only that seed if this variable is
//! set. For a test `no_job_is_lost` in `tests/jobs.rs`:
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
use self::shared::SimulationShared;
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
    shared: Arc<SimulationShared>,
    /// The number of processes so far.
    lives: u64,
    steps: u64,
    limit: u64,
    /// One step of so many lets time pass although a task could go on.
    stalls: Option<u32>,
    crash: Option<PlannedCrash>,
    /// The number of tasks that had failed before this step.
    failed_before: usize,
}

/// A planned crash.
#[derive(Clone, Copy)]
struct PlannedCrash {
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
        let shared = Arc::new(SimulationShared::new(SimDisk::new(rng.random()), rng.random()));
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
    /// waits, although something else could go on, as on a slow disk, or a machine that is busy or stops
    /// for a moment. So a write or a sync of the log takes virtual time: timeouts and leases may end while a
    /// commit waits for it.
    ///
    /// By default, and with zero, time passes only when nothing can go on, and the disk takes no time.
    ///
    /// A jump is as long as the time to the next sleep's end. A task that sleeps in short intervals
    /// keeps the jumps short.
    ///
    /// ```
    /// # use fluxmap_testkit::simulation::{Ended, Simulation};
    /// # use fluxmap::{Database, FluxError};
    /// # use std::time::Duration;
    /// let mut simulation = Simulation::new(1);
    /// simulation.stall_one_in(5);
    /// let machine = simulation.machine();
    /// let ended = simulation.run(async move {
    ///     let db: Database<u64, u64> = machine.database("db").build().await?;
    ///     let own = machine.clone();
    ///     let _ticker = machine.spawn("ticker", async move {
    ///         loop {
    ///             own.sleep(Duration::from_millis(100)).await;
    ///         }
    ///     });
    ///     for n in 0..10 {
    ///         db.insert(n, n).await?;
    ///     }
    ///     assert!(machine.now() > Duration::ZERO, "the commits have taken time");
    ///     Ok::<(), FluxError>(())
    /// })?;
    /// assert_eq!(ended, Ended::Returned(Ok(())));
    /// # Ok::<(), fluxmap_testkit::simulation::Stuck>(())
    /// ```
    ///
    /// [`SimDisk::stall`] is something else: it holds up threads until another thread releases them.
    pub fn stall_one_in(&mut self, steps: u32) {
        self.stalls = Some(steps).filter(|steps| *steps > 0);
    }

    /// Makes the next run crash just before its step `step`; the first step is 1.
    pub fn crash_at_step(&mut self, step: u64, crash: Crash) {
        self.shared.disk().crash_at(NEVER);
        self.crash = Some(PlannedCrash { step: Some(step), crash });
    }

    /// Makes the next run crash at this call to the disk. Only calls that change something count. The
    /// first is 1, and zero means the same.
    pub fn crash_at_call(&mut self, call: u64, crash: Crash) {
        self.shared.disk().crash_at(call.max(1));
        self.crash = Some(PlannedCrash { step: None, crash });
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
        let Some(PlannedCrash { step, crash }) = self.crash else { return false };
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
            failed: self.shared.failed().into(),
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
