//! The trace of a run, and the report on a run that is stuck.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use crate::workload::Seed;

/// How many steps the trace keeps.
const TRACE: usize = 10_000;
/// How many of the last steps a report shows.
const LAST: usize = 30;

#[derive(Default)]
pub(super) struct Trace(VecDeque<String>);

impl Trace {
    pub(super) fn note(&mut self, step: String) {
        if self.0.len() == TRACE {
            self.0.pop_front();
        }
        self.0.push_back(step);
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }

    pub(super) fn last(&self) -> Vec<String> {
        self.0.iter().skip(self.0.len().saturating_sub(LAST)).cloned().collect()
    }
}

/// A run that does not end.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stuck {
    /// Why the run does not end.
    pub why: Why,
    /// The seed of the simulation.
    pub seed: u64,
    /// The number of the process, from 1.
    pub life: u64,
    /// The number of the process's last step.
    pub step: u64,
    /// The virtual time.
    pub now: Duration,
    /// The tasks that have not ended.
    pub tasks: Vec<Waiting>,
    /// The [detached](super::Machine::spawn_detached) tasks of this life that have ended with an error.
    // Boxed: `run` returns this struct by value, and it must stay below the 128 bytes that clippy allows.
    pub failed: Box<[Failed]>,
    /// The last steps, the earliest first.
    pub last: Vec<String>,
}

/// Why a run is [`Stuck`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// All tasks wait, none of them sleeps, and no background work will be due. It is a deadlock, or a
    /// task waits for something outside of the simulation, such as a database that was built without
    /// [`Machine::background`](super::Machine::background).
    NothingGoesOn,
    /// The run takes more steps than the limit. The limit is too low, or a task loops without end.
    TooManySteps {
        /// The most steps that the run may take.
        limit: u64,
    },
}

/// A [detached](super::Machine::spawn_detached) task that has ended with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failed {
    /// The name of the task.
    pub name: String,
    /// The place in the source where it was spawned.
    pub spawned: &'static Location<'static>,
    /// The error as a text.
    pub error: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.error)
    }
}

/// A task that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// The name of the task.
    pub name: String,
    /// The place in the source where it was spawned.
    pub spawned: &'static Location<'static>,
    /// How often it was polled.
    pub polls: u64,
    /// A text that says what the task waits for, as far as that is known.
    pub label: String,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NothingGoesOn => f.write_str("nothing can go on"),
            Why::TooManySteps { limit } => {
                write!(f, "the run takes more than {limit} steps; raise the limit, or look for a loop")
            }
        }
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stuck { why, seed, life, step, now, tasks, failed, last } = self;
        let seed = Seed::from(*seed);
        write!(f, "{why} ({seed}, life {life}, step {step}, at {now:?})")?;
        for Waiting { name, spawned, polls, label } in tasks {
            write!(f, "\n  {name} ({spawned}, polled {polls} times) {label}")?;
        }
        for Failed { name, spawned, error } in failed.iter() {
            write!(f, "\n  {name} ({spawned}) has ended with an error: {error}")?;
        }
        if *why == Why::NothingGoesOn {
            f.write_str(
                "\nif a task waits for a database, build it with `Machine::database`, or with \
                 `.background(machine.background())`",
            )?;
        }
        write!(f, "\nthe last steps: {}", last.join(", "))
    }
}

impl Error for Stuck {}
