//! Runs worlds, and looks for a smaller world if one fails.

use crate::board::Board;
pub use crate::board::Counts;
use crate::life;
use crate::plan::{MOST_OPERATIONS, World};
use crate::schedule::Seeded;
use fluxmap_shuttle::waits;
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::thread;

/// The number of steps after which a world counts as hanging. Most worlds need some ten thousand.
const MOST_STEPS: usize = 6_000_000;

/// The stack size of each task. Scans of a whole database and the frames of the encoder need more than
/// shuttle's default.
const STACK: usize = 1 << 19;

/// Why a world failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The first error that was found.
    pub what: String,
    /// The activity of each task at that time.
    pub doing: Vec<String>,
    /// The wait of each thread that waited, with its line of code. The database's own threads are
    /// included.
    pub waiting: Vec<String>,
    /// The log of the world.
    pub log: Vec<String>,
}

/// The result of a world.
#[derive(Clone, Debug)]
pub struct Report {
    /// The counts of the world.
    pub counts: Counts,
    /// The number of steps of the schedule.
    pub steps: u64,
    /// The failure, if the world failed.
    pub failure: Option<Failure>,
}

thread_local! {
    static IN_WORLD: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the messages of panics in a world instead of printing them: the search for a smaller world
/// panics many times.
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

/// Runs a world to its end, or to its first error.
///
/// # Panics
///
/// If the system cannot start a thread for the world.
#[must_use]
pub fn run(world: World) -> Report {
    keep_panics();
    // Use a thread for each world: after a failed world has panicked, its thread counts as panicking for
    // ever.
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
    // The seed replays the schedule, so shuttle need not print it.
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    let steps = Arc::new(AtomicU64::new(0));
    let runner = Runner::new(Seeded::new(seed, Arc::clone(&steps)), config);
    let shared = board.clone();
    IN_WORLD.set(true);
    waits::clear();
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        runner.run(move || body(&shared));
    }));
    let panicked = PANIC.with_borrow_mut(Option::take);
    let failure = match (result, board.first_anomaly()) {
        // The engine contains panics of its background work, and does the work again.
        (Ok(()), None) => panicked.map(|what| format!("a panic was contained: {what}")),
        (_, Some(what)) => Some(what),
        (Err(_), None) => Some(panicked.unwrap_or_else(|| "a panic without a message".into())),
    };
    let failure = failure.map(|what| Failure {
        what,
        doing: board.doing(),
        waiting: waits::report(),
        log: board.log(),
    });
    // Relaxed: the execution has ended.
    Report { counts: board.counts(), steps: steps.load(Ordering::Relaxed), failure }
}

/// Returns a smaller world that fails as well, with fewer lives, clients and operations and the same seed.
/// Calls `tell` before each attempt.
pub fn shrink(world: World, tell: impl FnMut(World)) -> (World, Report) {
    shrink_by(world, run, tell)
}

/// Does the same, but runs the worlds with `run`.
fn shrink_by(world: World, run: impl Fn(World) -> Report, mut tell: impl FnMut(World)) -> (World, Report) {
    let (mut best, mut report) = (world, run(world));
    let bounds = [
        |world: &mut World, bound| world.lives = Some(bound),
        |world: &mut World, bound| world.clients = Some(bound),
        |world: &mut World, bound| world.operations = Some(bound),
    ];
    for set in bounds {
        // Go upwards, so that the first bound that fails is the smallest.
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
mod tests;
