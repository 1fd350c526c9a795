//! Chooses the task that runs next.
//!
//! A uniform choice at each step rarely finds errors that need one task to stand still for a long time
//! while others run. So a schedule has a style, drawn from the seed:
//!
//! - *sticky*: the running task goes on with a certain probability, otherwise a random task runs;
//! - *priorities* that change at a few points (Burckhardt and others, "A randomized scheduler
//!   with probabilistic guarantees of finding bugs", ASPLOS 2010).
//!
//! In both styles, the running task is *frozen* now and then, at any point, even in the middle of a
//! commit, for up to some thousand steps, as when an operating system runs something else. It goes on
//! earlier only if no other task can run.

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The way in which tasks are chosen.
#[derive(Clone, Copy, Debug)]
enum Style {
    /// The probability that the running task goes on.
    Sticky(f64),
    /// The probability that the priority of the running task falls below all others.
    Priorities(f64),
}

/// The scheduler's record of a task.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    priority: i64,
    /// The step from which the task may run again.
    frozen_until: u64,
    /// The step until which other tasks run first, because the task has yielded.
    yields_until: u64,
}

/// One execution, chosen by a seed.
pub(crate) struct Seeded {
    seed: u64,
    rng: StdRng,
    style: Style,
    /// The probability that the running task is frozen.
    freezing: f64,
    step: u64,
    /// The number of steps, for the starter of the execution.
    steps: Arc<AtomicU64>,
    standings: Vec<Standing>,
    lowest: i64,
    has_run: bool,
}

impl Seeded {
    pub(crate) fn new(seed: u64, steps: Arc<AtomicU64>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let style = match rng.random_range(0..5) {
            0 => Style::Sticky(0.0),
            1 => Style::Sticky(0.7),
            2 => Style::Sticky(0.95),
            3 => Style::Sticky(0.99),
            _ => Style::Priorities(10_f64.powf(rng.random_range(-3.5..-1.0))),
        };
        let freezing = if rng.random_bool(0.2) { 0.0 } else { 10_f64.powf(rng.random_range(-4.0..-1.7)) };
        let (standings, lowest) = (Vec::new(), 0);
        Seeded { seed, rng, style, freezing, step: 0, steps, standings, lowest, has_run: false }
    }

    fn standing(&mut self, task: TaskId) -> &mut Standing {
        let index = usize::from(task);
        while self.standings.len() <= index {
            let priority = i64::from(self.rng.random_range(0..1_000_000));
            self.standings.push(Standing { priority, ..Standing::default() });
        }
        &mut self.standings[index]
    }

    fn change_current(&mut self, current: TaskId, is_yielding: bool) {
        let step = self.step;
        if is_yielding {
            let pause = self.rng.random_range(1..16);
            self.standing(current).yields_until = step + pause;
        }
        if self.freezing > 0.0 && self.rng.random_bool(self.freezing) {
            let length = 1 << self.rng.random_range(3..13);
            self.standing(current).frozen_until = step + length;
        }
        if let Style::Priorities(change) = self.style
            && (is_yielding || self.rng.random_bool(change))
        {
            self.lowest -= 1;
            self.standing(current).priority = self.lowest;
        }
    }
}

impl Scheduler for Seeded {
    fn new_execution(&mut self) -> Option<Schedule> {
        let is_first = !std::mem::replace(&mut self.has_run, true);
        is_first.then(|| Schedule::new(self.seed))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        self.step += 1;
        // Relaxed: the number is read only after the execution has ended.
        self.steps.store(self.step, Ordering::Relaxed);
        if let Some(current) = current {
            self.change_current(current, is_yielding);
        }
        let step = self.step;
        let mut ready: Vec<TaskId> = Vec::with_capacity(runnable.len());
        for task in runnable {
            let standing = *self.standing(task.id());
            if standing.frozen_until <= step && standing.yields_until <= step {
                ready.push(task.id());
            }
        }
        if ready.is_empty() {
            // All runnable tasks are frozen or have yielded: run the task that may go on first.
            let due = |task: TaskId, standings: &[Standing]| {
                let standing = standings[usize::from(task)];
                standing.frozen_until.max(standing.yields_until)
            };
            return runnable.iter().map(|task| task.id()).min_by_key(|task| due(*task, &self.standings));
        }
        match self.style {
            Style::Sticky(stay) => {
                let stays = current.filter(|current| ready.contains(current));
                match stays {
                    Some(current) if stay > 0.0 && self.rng.random_bool(stay) => Some(current),
                    _ => Some(ready[self.rng.random_range(0..ready.len())]),
                }
            }
            Style::Priorities(_) => {
                ready.into_iter().max_by_key(|task| self.standings[usize::from(*task)].priority)
            }
        }
    }

    fn next_u64(&mut self) -> u64 {
        self.rng.next_u64()
    }
}
