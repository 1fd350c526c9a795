//! The state that all clones of one [`SimDisk`](super::SimDisk) share, and the single path of every
//! call: count the call; crash, fail, refuse or do it; record its result.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::fmt;
use std::io;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::image::{DiskStep, FileId, Image, index};

/// How many calls the trace keeps.
const TRACE: usize = 1 << 16;

/// The inner error of an [`io::Error`] from a planned fault of a [`SimDisk`](super::SimDisk).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SimError {
    /// The test had planned that the call fails.
    Injected {
        /// The number of the call, from 1.
        call: u64,
    },
    /// The machine crashed at this call or at an earlier one.
    Crashed {
        /// The number of the call, from 1.
        call: u64,
    },
}

impl SimError {
    /// The `SimError` inside an error of the disk, if there is one.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl fmt::Display for SimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Injected { call } => write!(f, "the simulated disk failed call {call}, as planned"),
            Self::Crashed { call } => write!(f, "the simulated machine has crashed, so call {call} failed"),
        }
    }
}

impl Error for SimError {}

/// A range of calls that are planned to fail, by their numbers.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) kind: io::ErrorKind,
}

/// The states of the disk around the call at which the machine crashed.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    /// The state before the call.
    pub(super) before: Image,
    /// The state in the middle of the call.
    pub(super) midway: Image,
}

/// The state of a disk, its planned faults, and its trace.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) image: Image,
    pub(super) seed: u64,
    pub(super) rng: StdRng,
    /// How many handles each open file has.
    pub(super) open: BTreeMap<FileId, usize>,
    pub(super) locked: BTreeSet<FileId>,
    pub(super) calls: u64,
    pub(super) count_reads: bool,
    pub(super) failures: Vec<Failure>,
    pub(super) crash_at: Option<u64>,
    pub(super) frozen: Option<Frozen>,
    pub(super) capacity: u64,
    pub(super) read_only: bool,
    pub(super) stalling: bool,
    /// Whether the disk belongs to a simulation, whose only thread must not be held up.
    pub(super) simulated: bool,
    /// How many calls wait for the stall to end.
    pub(super) stalled: usize,
    pub(super) trace: VecDeque<String>,
}

impl State {
    pub(super) fn new(seed: u64, image: Image) -> Self {
        Self {
            image,
            seed,
            rng: StdRng::seed_from_u64(seed),
            open: BTreeMap::new(),
            locked: BTreeSet::new(),
            calls: 0,
            count_reads: false,
            failures: Vec::new(),
            crash_at: None,
            frozen: None,
            capacity: u64::MAX,
            read_only: false,
            stalling: false,
            simulated: false,
            stalled: 0,
            trace: VecDeque::new(),
        }
    }

    /// Does one call, unless a planned fault replaces it. If the call opens or locks a file, counts one
    /// more handle to the file and returns the file.
    pub(super) fn run(&mut self, step: DiskStep<'_>) -> io::Result<Option<FileId>> {
        if !step.is_change() && !self.count_reads {
            return self.perform(step);
        }
        self.calls += 1;
        let outcome = self.planned(step);
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        let shown = outcome.as_ref().map_or_else(ToString::to_string, |_| "ok".to_owned());
        self.trace.push_back(format!("{} {step}: {shown}", self.calls));
        outcome
    }

    fn planned(&mut self, step: DiskStep<'_>) -> io::Result<Option<FileId>> {
        let call = self.calls;
        if self.crash_at.is_some_and(|at| call >= at) {
            if self.frozen.is_none() {
                self.freeze(step);
            }
            return Err(io::Error::other(SimError::Crashed { call }));
        }
        let failing = |failure: &&Failure| (failure.first..=failure.last).contains(&call);
        if let Some(kind) = self.failures.iter().find(failing).map(|failure| failure.kind) {
            self.fail(step);
            return Err(io::Error::new(kind, SimError::Injected { call }));
        }
        self.perform(step)
    }

    /// Does a call for which no fault is planned.
    fn perform(&mut self, step: DiskStep<'_>) -> io::Result<Option<FileId>> {
        if self.read_only && self.needs_writing(step) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.make_room(step)?;
        let file = self.image.apply(step)?;
        match (step, file) {
            (DiskStep::Lock(_), Some(file)) if !self.locked.insert(file) => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            (_, Some(file)) => *self.open.entry(file).or_default() += 1,
            (DiskStep::SyncDir(_), None) => self.prune(),
            (_, None) => {}
        }
        Ok(file)
    }

    /// Counts one handle of `file` less, because it was dropped.
    pub(super) fn close(&mut self, file: FileId) {
        if let Some(handles) = self.open.get_mut(&file) {
            *handles -= 1;
            if *handles == 0 {
                self.open.remove(&file);
            }
        }
    }

    fn prune(&mut self) {
        self.image.prune(|file| self.open.contains_key(&file));
    }

    pub(super) fn used(&self) -> u64 {
        self.image.used(|file| self.open.contains_key(&file))
    }

    fn needs_writing(&self, step: DiskStep<'_>) -> bool {
        match step {
            DiskStep::CreateDir(path) => !self.image.is_directory(path),
            DiskStep::Create(_)
            | DiskStep::Write { .. }
            | DiskStep::Rename { .. }
            | DiskStep::Remove(_)
            | DiskStep::Lock(_) => true,
            DiskStep::Open { write, .. } => write,
            DiskStep::Sync { .. } | DiskStep::SyncDir(_) | DiskStep::Look { .. } => false,
        }
    }

    /// Fails for a write that does not fit, after writing a random part of it.
    fn make_room(&mut self, step: DiskStep<'_>) -> io::Result<()> {
        let DiskStep::Write { file, offset, bytes, .. } = step else { return Ok(()) };
        if self.capacity == u64::MAX {
            return Ok(());
        }
        let length = self.image.content(file).seen().len() as u64;
        let end = length + self.capacity.saturating_sub(self.used());
        if offset.saturating_add(bytes.len() as u64) <= end {
            return Ok(());
        }
        let fits = index(end.saturating_sub(offset)).min(bytes.len());
        self.write_part(step, fits);
        Err(io::ErrorKind::StorageFull.into())
    }

    /// Applies the effect that a planned failure of the call has.
    fn fail(&mut self, step: DiskStep<'_>) {
        match step {
            DiskStep::Write { bytes, .. } => self.write_part(step, bytes.len()),
            DiskStep::Sync { file, .. } => self.image.doom(file),
            _ => {}
        }
    }

    /// Writes a random beginning of a write: nothing, `most` bytes, or a number between.
    fn write_part(&mut self, step: DiskStep<'_>, most: usize) {
        let DiskStep::Write { file, path, offset, bytes } = step else { return };
        let length = match self.rng.random_range(0..3) {
            0 => 0,
            1 => most,
            _ => self.rng.random_range(0..=most),
        };
        let bytes = &bytes[..length];
        // A write beyond the greatest length fails, and has no effect.
        let _ = self.image.apply(DiskStep::Write { file, path, offset, bytes });
    }

    /// Preserves the states before and in the middle of the call.
    fn freeze(&mut self, step: DiskStep<'_>) {
        let before = self.image.clone();
        match step {
            DiskStep::Sync { .. } | DiskStep::SyncDir(_) => {}
            // The process may have handed over only a part of the write.
            DiskStep::Write { bytes, .. } if self.rng.random() => self.write_part(step, bytes.len()),
            // A call that fails by itself has no effect.
            _ => drop(self.image.apply(step)),
        }
        let midway = std::mem::replace(&mut self.image, before.clone());
        self.frozen = Some(Frozen { before, midway });
    }
}
