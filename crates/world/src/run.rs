//! Runs worlds, and makes those that fail small.

use crate::board::Board;
pub use crate::board::Counts;
use crate::life;
use crate::plan::{MOST_OPERATIONS, World};
use crate::schedule::Seeded;
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::thread;

/// Steps after which a world counts as hanging. Most need some ten thousand.
const MOST_STEPS: usize = 6_000_000;

/// Stacks are for what the engine does in one task; scans of a whole database and the
/// encoder's frames need more than shuttle's own default.
const STACK: usize = 1 << 19;

/// Why a world failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was found first.
    pub what: String,
    /// What everybody was doing.
    pub doing: Vec<String>,
    /// What had happened.
    pub log: Vec<String>,
}

/// What a world came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was done.
    pub counts: Counts,
    /// Steps of the schedule.
    pub steps: u64,
    /// What was wrong, if anything.
    pub failure: Option<Failure>,
}

thread_local! {
    static IN_WORLD: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps what panics say in a world, instead of printing it: a world that is made small panics
/// many times.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| match IN_WORLD.get() {
            false => before(info),
            true => PANIC.with_borrow_mut(|kept| {
                kept.get_or_insert_with(|| info.to_string());
            }),
        }));
    });
}

/// Runs a world to its end, or to the first thing that is wrong.
///
/// # Panics
///
/// If the system has no thread for it.
#[must_use]
pub fn run(world: World) -> Report {
    keep_panics();
    // On a thread of its own: one that a failed world has panicked on counts as panicking for ever.
    let thread = thread::Builder::new().name("world".into()).spawn(move || run_here(world));
    thread.expect("the system has a thread").join().expect("panics of a world are caught")
}

fn run_here(world: World) -> Report {
    execute(world.seed, world.steps.unwrap_or(MOST_STEPS), move |board| life::all(&world, board))
}

/// Runs `body` as the first task of the schedule of a seed.
fn execute(seed: u64, most_steps: usize, body: impl Fn(&Board) + Send + Sync + 'static) -> Report {
    let board = Board::default();
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(most_steps);
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    let steps = Arc::new(AtomicU64::new(0));
    let runner = Runner::new(Seeded::new(seed, Arc::clone(&steps)), config);
    let shared = board.clone();
    IN_WORLD.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        runner.run(move || body(&shared));
    }));
    let panicked = PANIC.with_borrow_mut(Option::take);
    let failure = match (result, board.first_anomaly()) {
        (Ok(()), None) => None,
        (_, Some(what)) => Some(what),
        (Err(_), None) => Some(panicked.unwrap_or_else(|| "a panic that says nothing".into())),
    };
    let failure = failure.map(|what| Failure { what, doing: board.doing(), log: board.log() });
    // Relaxed: the execution has ended.
    Report { counts: board.counts(), steps: steps.load(Ordering::Relaxed), failure }
}

/// A smaller world that fails as well: fewer lives, clients and operations, with the same seed.
/// Calls `tell` before each attempt.
pub fn shrink(world: World, tell: impl FnMut(World)) -> (World, Report) {
    shrink_by(world, run, tell)
}

/// The same, of worlds that are run by `run`.
fn shrink_by(world: World, run: impl Fn(World) -> Report, mut tell: impl FnMut(World)) -> (World, Report) {
    let (mut best, mut report) = (world, run(world));
    let bounds = [
        |world: &mut World, bound| world.lives = Some(bound),
        |world: &mut World, bound| world.clients = Some(bound),
        |world: &mut World, bound| world.operations = Some(bound),
    ];
    for set in bounds {
        // Upwards: the smallest that fails.
        for bound in 1..=MOST_OPERATIONS {
            let mut smaller = best;
            set(&mut smaller, bound);
            if smaller == best {
                break;
            }
            tell(smaller);
            let attempt = run(smaller);
            if attempt.failure.is_some() {
                (best, report) = (smaller, attempt);
                break;
            }
        }
    }
    (best, report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shuttle::sync::Mutex;
    use shuttle::thread as task;

    fn failure(report: Report) -> Failure {
        report.failure.expect("it fails")
    }

    #[test]
    fn of_a_hang_it_is_told_who_waits_and_what_for() {
        let cross = |board: &Board| {
            let (one, other) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(())));
            let (first, second) = (Arc::clone(&one), Arc::clone(&other));
            let board_of_client = board.clone();
            let _held = one.lock().expect("no panic");
            let client = task::Builder::new().name("client-0".into()).spawn(move || {
                let _second = second.lock().expect("no panic");
                board_of_client.note("client-0", "commits");
                let _first = first.lock().expect("no panic");
            });
            board.note("world", "waits for the clients");
            client.expect("a task can be started").join().expect("no panic");
        };
        let failure = failure(thread::spawn(move || execute(1, 10_000, cross)).join().expect("contained"));
        assert!(failure.what.contains("deadlock"), "{}", failure.what);
        assert!(
            failure.what.contains("client-0") && failure.what.contains("main-thread"),
            "{}",
            failure.what
        );
        assert_eq!(failure.doing, ["client-0: commits", "world: waits for the clients"]);
        assert_eq!(failure.log.len(), 2);
    }

    #[test]
    fn a_world_that_goes_on_for_ever_is_ended() {
        let report = run(World { steps: Some(2_000), ..World::new(3) });
        assert!(report.steps <= 2_000, "{}", report.steps);
        let failure = failure(report);
        assert!(failure.what.contains("max_steps"), "{}", failure.what);
        assert!(failure.doing.iter().any(|line| line.starts_with("world: ")), "{:?}", failure.doing);
    }

    #[test]
    fn a_world_that_fails_is_made_as_small_as_it_fails() {
        let needs = |bound: Option<usize>, least| bound.is_none_or(|bound| bound >= least);
        let run = |world: World| {
            let fails = needs(world.lives, 2) && needs(world.clients, 3) && needs(world.operations, 17);
            let failure = fails.then(|| Failure { what: "it fails".into(), doing: vec![], log: vec![] });
            Report { counts: Counts::default(), steps: 0, failure }
        };
        let mut attempts = 0;
        let (small, report) = shrink_by(World::new(7), run, |_| attempts += 1);
        assert_eq!((small.lives, small.clients, small.operations), (Some(2), Some(3), Some(17)));
        assert!(report.failure.is_some() && attempts == 2 + 3 + 17);
    }
}
