//! Putting together what a survey has found.

use super::image::{Image, Pairs, Stored};
use super::scan::{Damage, FoundFrame, Source};
use super::survey::{Checkpoint, Survey};
use super::{Quiet, Result};
use crate::checkpoint::Pair;
use crate::wal::format::{Lsn, Operation, commits, operations};
use std::ops::RangeInclusive;
use std::path::Path;

/// What was kept of a damaged database, and what was not: from [`Image::salvage`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Salvage {
    /// Pairs in sound blocks of checkpoints.
    pub checkpoint_pairs: u64,
    /// Commits in sound frames of the log.
    pub commits: u64,
    /// Pairs in the end.
    pub pairs: u64,
    /// The last commit that was found.
    pub last_commit: u64,
    /// What is wrong with the files.
    pub damage: Vec<Damage>,
    /// Commits that must have been there and are in no sound frame. Those behind the
    /// last one that was found are not known of.
    pub missing: Vec<RangeInclusive<u64>>,
}

impl Salvage {
    /// Whether nothing was found wrong.
    pub fn is_complete(&self) -> bool {
        self.damage.is_empty() && self.missing.is_empty()
    }
}

/// Looks for all that is wrong with the files, where [`verify`](super::verify) stops at
/// the first thing: what [`Image::salvage`] would report.
///
/// A torn tail, which is not damage, is reported, too.
///
/// # Errors
///
/// As [`Image::salvage`].
pub fn find_damage(dir: impl AsRef<Path>, progress: impl FnMut(u64, u64)) -> Result<Salvage> {
    Image::salvage(dir, progress).map(|(_, salvage)| salvage)
}

/// A commit in a sound frame.
struct Found<'s> {
    lsn: Lsn,
    operations: &'s [u8],
    file: &'s Source,
    offset: usize,
}

pub(super) fn salvage(quiet: &Quiet, progress: impl FnMut(u64, u64)) -> Result<(Image, Salvage)> {
    let mut survey = Survey::of(quiet, progress)?;
    let mut report = Salvage { damage: std::mem::take(&mut survey.damage), ..Salvage::default() };
    let mut found = Vec::new();
    for segment in &survey.segments {
        for frame in &segment.frames {
            take_commits(&segment.file, frame, &mut found, &mut report.damage);
        }
    }
    // Stable: of two that have the same number, the one in the newer segment stays.
    found.sort_by_key(|commit: &Found<'_>| commit.lsn);
    for checkpoint in &mut survey.checkpoints {
        // A number that cannot be is worth nothing: then what the log has comes after it.
        let first = found.first().map_or(0, |commit| commit.lsn);
        let last = found.last().map_or(u64::MAX, |commit| commit.lsn);
        if checkpoint.is_guess && checkpoint.commit > last {
            checkpoint.commit = first.saturating_sub(1);
        }
    }
    note_missing(&survey, &mut report);

    let mut checkpoints: Vec<_> = survey.checkpoints.iter().collect();
    checkpoints.sort_by_key(|checkpoint| checkpoint.commit);
    let mut checkpoints = checkpoints.into_iter().peekable();
    let mut pairs = Pairs::new();
    for commit in &found {
        while let Some(due) = checkpoints.next_if(|checkpoint| checkpoint.commit < commit.lsn) {
            apply_checkpoint(due, &mut pairs, &mut report);
        }
        apply_commit(commit, &mut pairs, &mut report);
    }
    for checkpoint in checkpoints {
        apply_checkpoint(checkpoint, &mut pairs, &mut report);
    }
    report.pairs = pairs.len() as u64;
    Ok((Image::new(survey.identity, report.last_commit, pairs), report))
}

fn take_commits<'s>(
    file: &'s Source,
    frame: &FoundFrame,
    found: &mut Vec<Found<'s>>,
    damage: &mut Vec<Damage>,
) {
    let mut lsn = frame.header.first;
    for commit in commits(&file.bytes[frame.payload.clone()]) {
        let Ok(operations) = commit else {
            damage.push(file.damage_from(frame.offset, "the commits in it make no sense; they are left out"));
            return;
        };
        found.push(Found { lsn, operations, file, offset: frame.offset });
        lsn = lsn.saturating_add(1);
    }
}

/// Notes which commits are missing between those that are there. Frames without commits tell
/// of those before them, too.
fn note_missing(survey: &Survey, report: &mut Salvage) {
    // What is wrong before these is wrong with the checkpoints.
    let covered = survey.checkpoints.iter().map(|checkpoint| checkpoint.commit).max().unwrap_or_default();
    let frames = survey.segments.iter().flat_map(|segment| &segment.frames);
    let mut frames: Vec<_> = frames.map(|frame| (frame.header.first, frame.header.commits)).collect();
    frames.sort_unstable();
    let mut next = covered.saturating_add(1);
    for (first, commits) in frames {
        if first > next {
            report.missing.push(next..=first - 1);
        }
        next = next.max(first.saturating_add(u64::from(commits)));
    }
}

fn apply_checkpoint(checkpoint: &Checkpoint, pairs: &mut Pairs, report: &mut Salvage) {
    report.last_commit = report.last_commit.max(checkpoint.commit);
    if checkpoint.is_whole {
        // What is not in it had been removed.
        pairs.clear();
    }
    for block in checkpoint.blocks() {
        // A checksum that holds rules out that they make no sense.
        for Pair { key, value, expires } in block.pairs().filter_map(std::result::Result::ok) {
            pairs.insert(key.to_vec(), Stored { value: value.to_vec(), expires });
            report.checkpoint_pairs += 1;
        }
    }
}

fn apply_commit(commit: &Found<'_>, pairs: &mut Pairs, report: &mut Salvage) {
    report.commits += 1;
    report.last_commit = report.last_commit.max(commit.lsn);
    for operation in operations(commit.operations) {
        match operation {
            Ok(Operation::Put { key, value, expires }) => {
                pairs.insert(key.to_vec(), Stored { value: value.to_vec(), expires });
            }
            Ok(Operation::Delete { key }) => {
                pairs.remove(key);
            }
            Err(_) => {
                let why = format!("an operation of commit {} makes no sense; it is left out", commit.lsn);
                report.damage.push(commit.file.damage_from(commit.offset, why));
            }
        }
    }
}
