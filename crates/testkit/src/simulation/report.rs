//! What a run says of itself.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

/// How many steps the trace goes back, and how many are printed.
const TRACE: usize = 10_000;
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

/// A run that does not come to its end.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stuck {
    /// In which way.
    pub why: Why,
    /// Of the simulation.
    pub seed: u64,
    /// Which process it was; the first is 1.
    pub life: u64,
    /// Which of its steps.
    pub step: u64,
    /// The time.
    pub now: Duration,
    /// The tasks that have not ended.
    pub tasks: Vec<Waiting>,
    /// The last steps, the earliest first.
    pub last: Vec<String>,
}

/// Why a run is [`Stuck`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// All tasks wait, nobody sleeps, and there is no background work: a deadlock, or a task
    /// that waits for something outside of the simulation.
    NothingGoesOn,
    /// It takes more steps than it may: too little was allowed, or it goes round in circles.
    TooManySteps {
        /// How many it may take.
        limit: u64,
    },
}

/// A task that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// Its name.
    pub name: String,
    /// Where it was spawned.
    pub spawned: &'static Location<'static>,
    /// How often it was polled.
    pub polls: u64,
    /// What it waits for, as far as it says.
    pub label: String,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NothingGoesOn => f.write_str("nothing can go on"),
            Why::TooManySteps { limit } => {
                write!(f, "it takes more than {limit} steps; allow more, or see what goes round in circles")
            }
        }
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stuck { why, seed, life, step, now, tasks, last } = self;
        write!(f, "{why} (seed {seed}, life {life}, step {step}, at {now:?})")?;
        for Waiting { name, spawned, polls, label } in tasks {
            write!(f, "\n  {name} ({spawned}, polled {polls} times) {label}")?;
        }
        write!(f, "\nthe last steps: {}", last.join(", "))
    }
}

impl Error for Stuck {}
