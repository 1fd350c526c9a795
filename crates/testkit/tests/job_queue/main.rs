//! An example: a job queue on FluxMap (`queue.rs`), and a simulation that finds its bugs.
//!
//! [`simulate`] is a whole test. Several processes run one after another on one machine, each with a
//! client and some workers. Each process but the last may crash at any step or call to the disk. The
//! test checks the promises of the queue all the time. In a quarter of the runs, the disk is slow. It uses no threads, no real
//! sleeps and no files.
//!
//! The queue has [bugs](queue::Bug) that can be switched on, one at a time. The simulation finds each of
//! them after at most some hundred seeds, and a seed stands for the same run every time:
//!
//! ```console
//! $ cargo test -p fluxmap-testkit --test job_queue -- --nocapture
//! $ FLUXMAP_SEED=0 cargo test -p fluxmap-testkit --test job_queue \
//!       a_lease_that_is_not_renewed_is_found -- --exact --nocapture
//! ```
//!
//! The first command prints for each bug the second, which replays the run that found the bug.
//! `FLUXMAP_SCALE` multiplies the number of seeds that the tests try.

mod queue;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fluxmap::FluxError;
use fluxmap_testkit::disk::Loss;
use fluxmap_testkit::simulation::{Crash, Ended, Machine, Simulation};
use fluxmap_testkit::workload::{SCALE_VARIABLE, SEED_VARIABLE, Seed, seeds};

use queue::{Bug, Job, LEASE, Queue};

const JOBS: u64 = 6;
const WORKERS: u32 = 3;
/// The number of processes. All but the last may crash.
const LIVES: u64 = 4;
/// The number of steps, or calls to the disk, within which a process crashes.
const STEPS: u64 = 150;

/// On a slow disk, time passes in one of so many steps although something else could go on.
const SLOW: u32 = 20;

/// The outside world: the promises that clients were given, and the work that is going on.
#[derive(Default)]
struct World {
    /// The jobs whose addition was acknowledged to a client.
    added: BTreeSet<u64>,
    /// The worker that works on each job now.
    at_work: BTreeMap<u64, u32>,
    /// Whether the disk is slow. A lease may then run out before its renewal is durable, or before its
    /// worker gets to renew it, and another worker takes the job. No lease can prevent this, so a slow disk
    /// may break the promise that one worker works on a job.
    is_slow: bool,
    /// The first broken promise.
    broken: Option<String>,
}

/// The world, shared by tasks.
#[derive(Clone, Default)]
struct Outside(Arc<Mutex<World>>);

impl Outside {
    fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn broken(&self, what: String) {
        self.with(|world| _ = world.broken.get_or_insert(what));
    }
}

/// A client that adds each job whose addition was not acknowledged yet.
async fn client(machine: Machine, queue: Queue, outside: Outside) -> Result<(), FluxError> {
    for job in 1..=JOBS {
        if outside.with(|world| world.added.contains(&job)) {
            continue;
        }
        queue.add(job).await?;
        outside.with(|world| world.added.insert(job));
        machine.sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn worker(machine: Machine, queue: Queue, number: u32, outside: Outside) -> Result<(), FluxError> {
    loop {
        let Some(job) = queue.take(number).await? else {
            machine.label("a job", machine.sleep(Duration::from_secs(1))).await;
            continue;
        };
        let other = outside.with(|world| world.at_work.insert(job, number).filter(|_| !world.is_slow));
        if let Some(other) = other {
            outside.broken(format!("job {job} is worked on by {other} and by {number}"));
        }
        queue.work(job, number).await?;
        outside.with(|world| world.at_work.remove(&job));
    }
}

/// One process. It checks that all acknowledged jobs are there, and works until all jobs are done.
async fn process(machine: Machine, bug: Option<Bug>, outside: Outside) -> Result<(), FluxError> {
    let queue = Queue::open(&machine, bug).await?;
    let found: BTreeSet<u64> = queue.jobs().into_iter().map(|(job, _)| job).collect();
    for job in outside.with(|world| world.added.clone()) {
        if !found.contains(&job) {
            outside.broken(format!("job {job} was added, and is not there after a crash"));
        }
    }
    // The workers of the last process died with it.
    outside.with(|world| world.at_work.clear());
    machine.spawn_detached("client", client(machine.clone(), queue.clone(), outside.clone()));
    for number in 1..=WORKERS {
        let work = worker(machine.clone(), queue.clone(), number, outside.clone());
        machine.spawn_detached(format!("worker {number}"), work);
    }
    while queue.jobs().iter().filter(|(_, job)| **job == Job::Done).count() < JOBS as usize {
        if outside.with(|world| world.broken.is_some()) {
            break;
        }
        machine.sleep(LEASE / 2).await;
    }
    Ok(())
}

/// A run in which each process but the last may crash anywhere, a quarter of the time on a slow disk.
/// Returns the broken promise, if any, and the steps of the run.
fn simulate(seed: u64, bug: Option<Bug>) -> (Option<String>, Vec<String>) {
    let is_slow = seed % 4 == 3;
    simulate_with(seed, bug, is_slow, |simulation, life| {
        if life < LIVES {
            simulation.crash_within(STEPS);
        }
    })
}

/// A run in which `plan` plans the crash of each process.
fn simulate_with(
    seed: u64,
    bug: Option<Bug>,
    is_slow: bool,
    plan: impl Fn(&mut Simulation, u64),
) -> (Option<String>, Vec<String>) {
    let mut simulation = Simulation::new(seed);
    simulation.limit_steps(20_000);
    simulation.stall_one_in(if is_slow { SLOW } else { 0 });
    let outside = Outside::default();
    outside.with(|world| world.is_slow = is_slow);
    for life in 1..=LIVES {
        plan(&mut simulation, life);
        let main = process(simulation.machine(), bug, outside.clone());
        match simulation.run(main) {
            Ok(Ended::Returned(Ok(())) | Ended::Crashed { .. }) => {}
            Ok(Ended::Returned(Err(error))) => outside.broken(format!("the process failed: {error}")),
            Err(stuck) => outside.broken(stuck.to_string()),
        }
        if let Some(failed) = simulation.failed().first() {
            outside.broken(format!("a task failed: {failed}"));
        }
        if let Some(broken) = outside.with(|world| world.broken.clone()) {
            return (Some(format!("in life {life}: {broken}")), simulation.trace());
        }
    }
    (None, simulation.trace())
}

/// The command that replays one seed in one test.
fn replay(seed: u64, test: &str) -> String {
    let seed = Seed::from(seed);
    format!("{seed} cargo test -p fluxmap-testkit --test job_queue {test} -- --exact --nocapture")
}

/// The first seed that finds a broken promise, with that promise.
fn search(seeds: impl IntoIterator<Item = u64>, bug: Option<Bug>) -> Option<(u64, String)> {
    seeds.into_iter().find_map(|seed| Some((seed, simulate(seed, bug).0?)))
}

#[test]
fn nothing_is_found_in_a_queue_without_a_bug() {
    let (mut runs, mut crashes) = (0, 0);
    for seed in seeds(200) {
        let (broken, trace) = simulate(seed, None);
        if let Some(broken) = broken {
            panic!("{broken}\nreplay: {}", replay(seed, "nothing_is_found_in_a_queue_without_a_bug"));
        }
        runs += 1;
        crashes += trace.iter().filter(|step| step.starts_with("crash")).count();
    }
    // The processes of a single run may all survive.
    if Seed::asked().is_none() {
        assert!(crashes > runs, "most processes crash that may: {crashes} in {runs} runs");
    }
}

/// Random seeds may miss some places. This test loses power at every step, and at every call to the
/// disk, of the first process.
#[test]
fn no_loss_of_power_anywhere_breaks_a_promise() {
    let plans: [fn(&mut Simulation, u64, Crash); 2] = [Simulation::crash_at_step, Simulation::crash_at_call];
    for plan in plans {
        for at in 1.. {
            let (broken, trace) = simulate_with(1, None, false, |simulation, life| {
                if life == 1 {
                    plan(simulation, at, Crash::Power(Loss::Everything));
                }
            });
            assert!(broken.is_none(), "a crash at {at}: {broken:?}");
            if !trace.iter().any(|step| step.starts_with("crash")) {
                assert!(at > 50, "the process does something: {at}");
                break;
            }
        }
    }
}

/// Searches for the bug, and checks that the same seed finds it again. A seed from the environment is the
/// only one that is tried, and need not find the bug. `test` is the name of the test.
fn found(test: &str, bug: Bug, what: &str) {
    let Some((seed, broken)) = search(seeds(500), Some(bug)) else {
        let asked = Seed::asked().expect("one of many seeds finds the bug");
        println!("{bug:?} is not found with {asked}");
        return;
    };
    println!("{bug:?}: {broken}\nreplay: {}", replay(seed, test));
    assert!(broken.contains(what), "{broken}");
    let (again, trace) = simulate(seed, Some(bug));
    assert_eq!(again.as_ref(), Some(&broken), "the seed stands for the same run");
    assert_eq!(trace, simulate(seed, Some(bug)).1);
}

#[test]
fn an_acknowledgement_before_the_commit_is_durable_is_found() {
    let test = "an_acknowledgement_before_the_commit_is_durable_is_found";
    found(test, Bug::AcknowledgesEarly, "was added, and is not there after a crash");
}

#[test]
fn a_check_outside_of_the_transaction_is_found() {
    found("a_check_outside_of_the_transaction_is_found", Bug::ChecksOutside, "is worked on by");
}

#[test]
fn a_lease_that_is_not_renewed_is_found() {
    found("a_lease_that_is_not_renewed_is_found", Bug::ForgetsToRenew, "is worked on by");
}

#[test]
fn a_job_that_is_added_again_after_a_crash_is_found() {
    found("a_job_that_is_added_again_after_a_crash_is_found", Bug::AddsTwice, "is worked on by");
}

/// Runs this program as the printed command does.
fn run_again(variables: &[(&str, &str)], arguments: &[&str]) -> (bool, String) {
    let program = std::env::current_exe().expect("the path of this program");
    let mut command = std::process::Command::new(program);
    command.env_remove(SEED_VARIABLE).env_remove(SCALE_VARIABLE);
    command.envs(variables.iter().copied()).args(arguments);
    let output = command.output().expect("the program runs again");
    let shown = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.success(), shown.concat())
}

/// Replays every bug by the command that its test prints.
#[test]
fn the_printed_commands_replay_what_was_found() {
    let (passed, shown) =
        run_again(&[], &["is_found", "--skip", "nothing", "--nocapture", "--test-threads=1"]);
    assert!(passed, "{shown}");
    let commands: Vec<_> = shown.lines().filter_map(|line| line.split_once("replay: ")).collect();
    assert_eq!(commands.len(), 4, "{shown}");
    for (_, command) in commands {
        let (seed, rest) = command.split_once(' ').expect("the seed comes first");
        let seed = seed.split_once('=').expect("a variable and its value");
        let (_, arguments) = rest.split_once("--test job_queue ").expect("the program comes next");
        let arguments: Vec<_> = arguments.split(' ').filter(|argument| *argument != "--").collect();
        let (passed, again) = run_again(&[seed], &arguments);
        assert!(passed && again.contains("1 passed") && again.contains(command), "{command}\n{again}");
    }
}

/// Tests that search many seeds pass when they are asked for a single one, although it finds nothing.
#[test]
fn one_seed_is_enough_for_every_test() {
    for seed in ["0", "3", "18446744073709551615"] {
        let skip =
            ["--skip", "the_printed_commands", "--skip", "one_seed_is_enough", "--skip", "no_loss_of_power"];
        let (passed, shown) = run_again(&[(SEED_VARIABLE, seed)], &skip);
        assert!(passed && shown.contains("5 passed"), "{SEED_VARIABLE}={seed}: {shown}");
    }
}
