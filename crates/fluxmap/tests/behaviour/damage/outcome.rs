//! The outcome of opening a damaged database: one of three, or a defect.

use crate::damage::layout::{Expected, Files, file_name};
use crate::damage::scenario::{Scenario, content, disk_with, files_on, open};
use fluxmap::{FluxError, PersistenceError};
use std::fmt;

/// The outcomes that damage may have.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The damage was detected, and the error names the file.
    Detected(PersistenceError),
    /// A torn tail was cut off and reported; `last` is the last commit that is left.
    Cut { file: String, offset: u64, last: u64 },
    /// The damage had no effect: all commits are there.
    NoEffect,
    /// Commits after `last` are lost, and no error says so. This is allowed only where
    /// `docs/format.md` says that it cannot be noticed.
    Unnoticed { last: u64 },
}

/// The number of times each outcome occurred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) detected: u64,
    pub(crate) cut: u64,
    pub(crate) no_effect: u64,
    pub(crate) unnoticed: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Detected(_) => &mut self.detected,
            Outcome::Cut { .. } => &mut self.cut,
            Outcome::NoEffect => &mut self.no_effect,
            Outcome::Unnoticed { .. } => &mut self.unnoticed,
        } += 1;
    }

    pub(crate) fn total(&self) -> u64 {
        self.detected + self.cut + self.no_effect + self.unnoticed
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { detected, cut, no_effect, unnoticed } = self;
        write!(f, "detected, named: {detected}; torn tail, cut: {cut}; without effect: {no_effect}")?;
        if *unnoticed > 0 { write!(f, "; UNNOTICED, as docs/format.md admits: {unnoticed}") } else { Ok(()) }
    }
}

/// Opens the damaged files of a scenario's database, and classifies the outcome.
///
/// # Panics
///
/// If the outcome is not an [`Outcome`]: another kind of error, an empty database, a state that
/// never existed, or a failure that has changed a file.
pub(crate) fn open_damaged(scenario: &Scenario, files: &Files, what: &dyn fmt::Display) -> Outcome {
    let disk = disk_with(files);
    let db = match open(&disk, scenario.level) {
        Ok(db) => db,
        Err(FluxError::Persistence(error)) => {
            let left = files_on(&disk);
            let differs = |name: &&String| left.get(*name) != files.get(*name);
            let changed = left.keys().chain(files.keys()).find(|name| *name != "lock" && differs(name));
            assert_eq!(changed, None, "{what}: opening failed ({error}), and yet has changed a file");
            return Outcome::Detected(error);
        }
        Err(error) => panic!("{what}: not an error of the files: {error}"),
    };
    let info = db.recovery_info().expect("it is durable");
    assert!(!info.created, "{what}: opening took it for a new database");
    let last = info.last_commit;
    let state = scenario.states.get(last as usize);
    assert!(state == Some(&content(&db)), "{what}: not the state after commit {last}");
    match &info.torn_tail {
        Some(torn) => Outcome::Cut { file: file_name(&torn.path), offset: torn.offset, last },
        None if last as usize + 1 == scenario.states.len() => Outcome::NoEffect,
        None => Outcome::Unnoticed { last },
    }
}

/// Asserts that the outcome is the one that the format demands.
pub(crate) fn assert_outcome(outcome: &Outcome, expected: &Expected, what: &dyn fmt::Display) {
    let as_expected = match (outcome, expected) {
        (
            Outcome::Detected(PersistenceError::Damaged { path, offset, .. }),
            Expected::Damaged { file, offset: at },
        ) => file_name(path) == *file && offset == at,
        (Outcome::Detected(PersistenceError::Missing { path, .. }), Expected::Missing { file }) => {
            file_name(path) == *file
        }
        (Outcome::Cut { file, offset, last }, Expected::Cut { file: in_file, offset: at, last: upto }) => {
            (file, offset, last) == (in_file, at, upto)
        }
        (Outcome::NoEffect, Expected::NoEffect) => true,
        (Outcome::Unnoticed { last }, Expected::Unnoticed { last: upto }) => last == upto,
        _ => false,
    };
    assert!(as_expected, "{what}: expected {expected:?}, and got {outcome:?}");
}
