//! Puts together the parts that a survey has found.

use super::image::{Changes, Commits, Image};
use super::scan::{Damage, FoundFile, frames};
use super::survey::{Inventory, ProgressReporter};
use super::{OfflineDatabase, Result};
use crate::wal::directory::Directory;
use crate::wal::format::{LogOperation, Lsn, commits, operations};
use crate::wal::reader::SoundFrame;
use std::ops::RangeInclusive;
use std::path::Path;

/// The report on a damaged database, with the kept and the lost parts: from [`Image::salvage`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Salvage {
    /// The number of pairs in sound blocks of checkpoints.
    pub checkpoint_pairs: u64,
    /// The number of commits in sound frames of the log.
    pub commits: u64,
    /// The number of pairs in the result.
    pub pairs: u64,
    /// The last commit that was found.
    pub last_commit: u64,
    /// The damage of the files.
    pub damage: Vec<Damage>,
    /// Commits that must have existed and are in no sound frame. Commits after the last one that was
    /// found are unknown.
    pub missing: Vec<RangeInclusive<u64>>,
}

impl Salvage {
    /// Returns whether no damage was found.
    pub fn is_complete(&self) -> bool {
        self.damage.is_empty() && self.missing.is_empty()
    }
}

/// Finds all damage of the files, where [`verify`](super::verify) stops at the first: what
/// [`Image::salvage`] would report.
///
/// A torn tail is reported as well, although it is not damage.
///
/// # Errors
///
/// As [`Image::salvage`].
pub fn find_damage(dir: impl AsRef<Path>, progress: impl FnMut(u64, u64)) -> Result<Salvage> {
    Image::salvage(dir, progress).map(|(_, salvage)| salvage)
}

pub(super) fn salvage(
    quiet: OfflineDatabase,
    mut progress: impl FnMut(u64, u64),
) -> Result<(Image, Salvage)> {
    let mut gauge = ProgressReporter::new(&mut progress);
    let mut survey = Inventory::of(&quiet, &mut gauge)?;
    let mut report = Salvage { damage: std::mem::take(&mut survey.damage), ..Salvage::default() };
    let (mut changes, mut runs) = (Changes::default(), Runs::default());
    for (source, is_named) in &survey.segments {
        let mut noted = Vec::new();
        let visit = Visit {
            frame: &mut |frame| runs.add(frame.header.first, u64::from(frame.header.commits)),
            commit: &mut |lsn| {
                report.commits += 1;
                report.last_commit = report.last_commit.max(lsn);
            },
            operation: &mut |lsn, operation| changes.note(lsn, operation),
        };
        read_segment(&quiet.directory, source, &mut noted, visit);
        if *is_named {
            report.damage.append(&mut noted);
        }
        gauge.advance(source.length);
    }
    for checkpoint in &mut survey.checkpoints {
        // A commit number that is impossible is ignored: the log's commits then count as later.
        let commit = &mut checkpoint.layer.commit;
        if checkpoint.is_guess && *commit > runs.last().unwrap_or(u64::MAX) {
            *commit = runs.first().unwrap_or(0).saturating_sub(1);
        }
    }
    let covered = survey.checkpoints.iter().map(|checkpoint| checkpoint.layer.commit).max();
    report.missing = runs.missing_after(covered.unwrap_or_default());
    report.last_commit = report.last_commit.max(covered.unwrap_or_default());
    let layers = survey.checkpoints.into_iter().map(|checkpoint| checkpoint.layer).collect();
    let commits = Commits::Found(survey.segments.into_iter().map(|(source, _)| source).collect());
    let mut image = Image::new(quiet, survey.identity, report.last_commit, layers, commits, changes);
    report.checkpoint_pairs = image.count()?;
    report.pairs = image.pair_count();
    Ok((image, report))
}

/// The callbacks for the parts of a segment.
pub(super) struct Visit<'v> {
    pub(super) frame: &'v mut dyn FnMut(&SoundFrame),
    pub(super) commit: &'v mut dyn FnMut(Lsn),
    pub(super) operation: &'v mut dyn FnMut(Lsn, LogOperation<'_>),
}

/// Reads the commits in the sound frames of a segment, in the order of the file.
pub(super) fn read_segment(
    directory: &Directory,
    source: &FoundFile,
    damage: &mut Vec<Damage>,
    visit: Visit<'_>,
) {
    let Visit { frame: see_frame, commit: see_commit, operation: see_operation } = visit;
    let read = source.open(directory).and_then(|mut pieces| {
        frames(source, &mut pieces, damage, |frame, payload, damage| {
            see_frame(frame);
            let mut lsn = frame.header.first;
            for commit in commits(payload) {
                let Ok(commit) = commit else {
                    let why = "the commits in it make no sense; they are left out";
                    damage.push(source.damage_from(frame.offset, why));
                    return;
                };
                see_commit(lsn);
                for operation in operations(commit) {
                    match operation {
                        Ok(operation) => see_operation(lsn, operation),
                        Err(_) => {
                            let why = format!("an operation of commit {lsn} makes no sense; it is left out");
                            damage.push(source.damage_from(frame.offset, why));
                        }
                    }
                }
                lsn = lsn.saturating_add(1);
            }
        })
    });
    if let Err(error) = read {
        damage.push(source.damage_from(0, format!("{error}; the rest of the file is left out")));
    }
}

/// The commits that are in sound frames. A frame without commits shows which commits came before it.
#[derive(Default)]
struct Runs {
    /// The first commit of each run, and the number of commits, which may be zero.
    runs: Vec<(Lsn, u64)>,
}

impl Runs {
    fn add(&mut self, first: Lsn, commits: u64) {
        match self.runs.last_mut() {
            Some((start, count)) if start.saturating_add(*count) == first => *count += commits,
            _ => self.runs.push((first, commits)),
        }
    }

    /// Returns the first commit that was found.
    fn first(&self) -> Option<Lsn> {
        self.runs.iter().filter(|(_, count)| *count > 0).map(|(first, _)| *first).min()
    }

    /// Returns the last commit that was found.
    fn last(&self) -> Option<Lsn> {
        let lasts = self.runs.iter().filter(|(_, count)| *count > 0);
        lasts.map(|(first, count)| first.saturating_add(count - 1)).max()
    }

    /// Returns the commits that are missing between the runs, after those that a checkpoint covers.
    fn missing_after(mut self, covered: Lsn) -> Vec<RangeInclusive<Lsn>> {
        self.runs.sort_unstable();
        let mut missing = Vec::new();
        // Missing data up to `covered` is damage of the checkpoints, and reported as that.
        let mut next = covered.saturating_add(1);
        for (first, commits) in self.runs {
            if first > next {
                missing.push(next..=first - 1);
            }
            next = next.max(first.saturating_add(commits));
        }
        missing
    }
}
