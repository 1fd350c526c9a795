//! The lenient scan of a directory: the sound parts of all its files.

use super::image::Layer;
use super::scan::{Damage, FoundFile, blocks, source};
use super::{OfflineDatabase, Result};
use crate::error::PersistenceError;
use crate::wal::directory::{CHECKPOINT, CHECKPOINT_DRAFT, Directory, SEGMENT_DRAFT, segment_name};
use crate::wal::format::{FileHeader, FileIdentity, FileKind};
use std::collections::HashMap;

/// The useful files of a directory.
pub(super) struct Inventory {
    pub(super) identity: FileIdentity,
    pub(super) checkpoints: Vec<Checkpoint>,
    /// The segments of the log, each with whether its damage should be reported.
    pub(super) segments: Vec<(FoundFile, bool)>,
    pub(super) damage: Vec<Damage>,
}

/// A checkpoint, or the remains of one.
pub(super) struct Checkpoint {
    pub(super) layer: Layer,
    /// Whether the covered commit is uncertain, because it comes from a damaged header.
    pub(super) is_guess: bool,
}

/// The number in the name of a segment, the segment, and the damage of its header.
type NamedSegment = (Option<u64>, FoundFile, Vec<Damage>);

impl Inventory {
    pub(super) fn of(quiet: &OfflineDatabase, gauge: &mut ProgressReporter<'_>) -> Result<Self> {
        let directory = &quiet.directory;
        let mut damage = Vec::new();
        let checkpoint = open(directory, CHECKPOINT, FileKind::Checkpoint, &mut damage)?;
        let mut segments: Vec<NamedSegment> = Vec::new();
        for number in directory.segments()? {
            let mut noted = Vec::new();
            if let Some(found) = open(directory, &segment_name(number), FileKind::Segment, &mut noted)? {
                segments.push((Some(number), found, noted));
            } else {
                damage.append(&mut noted);
            }
        }
        let mut identity = identity(checkpoint.as_ref(), segments.iter().map(|(_, found, _)| found));
        let log_segment = checkpoint.as_ref().and_then(|found| found.header.as_ref());
        let log_segment = log_segment.map(|header| header.detail);
        let sizes = segments.iter().map(|(_, found, _)| found.length);
        gauge.begin(sizes.sum::<u64>() + checkpoint.as_ref().map_or(0, |found| found.length));
        let mut checkpoints = Vec::new();
        if let Some(found) = checkpoint {
            let length = found.length;
            checkpoints.push(Checkpoint::scan(directory, found, &mut damage));
            gauge.advance(length);
        }
        let is_whole = checkpoints.iter().any(|checkpoint| checkpoint.layer.is_whole);
        if checkpoints.is_empty() && !directory.names()?.iter().any(|name| name == CHECKPOINT) {
            damage.push(missing(directory, CHECKPOINT));
        }
        if !is_whole {
            take_drafts(directory, &mut identity, &mut checkpoints, &mut segments)?;
        }
        let Some(identity) = identity else {
            let path = directory.path().display();
            let why = format!(
                "no file in {path} has a header that can be read, so the types of the database are unknown; restore a backup"
            );
            return Err(PersistenceError::Unavailable(why));
        };
        let mut survey = Inventory { identity, checkpoints, segments: Vec::new(), damage };
        survey.note_missing(directory, log_segment)?;
        for (name, found, noted) in segments {
            let number = found.header.as_ref().map(|header| header.number).or(name);
            // A complete checkpoint covers the segments before `log_segment`.
            let is_needed = !is_whole || number >= log_segment;
            if is_needed {
                survey.damage.extend(noted);
                survey.take_segment(name, found);
            } else {
                gauge.advance(found.length);
            }
        }
        Ok(survey)
    }

    fn take_segment(&mut self, name: Option<u64>, found: FoundFile) {
        if let Some(header) = &found.header {
            if header.identity.database != self.identity.database {
                let why = "it belongs to another database; it is left out";
                self.damage.push(found.damage(0..found.length, why));
                return;
            }
            if let Some(name) = name.filter(|name| *name != header.number) {
                let (number, at) = (header.number, 40..48);
                let why = format!(
                    "it is segment {number}, under the name of segment {name}; it is read as segment {number}"
                );
                self.damage.push(found.damage(at, why));
            }
            let (made, is) = (header.detail, found.length);
            if is < made {
                let why = format!("it ends here, and was made {made} bytes long");
                self.damage.push(found.damage(is..made, why));
            }
        }
        self.segments.push((found, name.is_some()));
    }

    /// Reports segments that must have existed.
    fn note_missing(&mut self, directory: &Directory, log_segment: Option<u64>) -> Result<()> {
        let numbers = directory.segments()?;
        let first = log_segment.or(numbers.first().copied()).unwrap_or_default();
        let mut expected = first;
        for number in numbers.iter().copied().filter(|number| *number >= first) {
            // Of a long gap, reporting the first and the last segment is enough.
            for number in [expected, number.saturating_sub(1)] {
                if number >= expected && !numbers.contains(&number) {
                    self.damage.push(missing(directory, &segment_name(number)));
                    expected = number + 1;
                }
            }
            expected = number.saturating_add(1);
        }
        if expected == first && log_segment.is_some() {
            self.damage.push(missing(directory, &segment_name(first)));
        }
        Ok(())
    }
}

impl Checkpoint {
    fn scan(directory: &Directory, found: FoundFile, damage: &mut Vec<Damage>) -> Self {
        let mut noted = Vec::new();
        let scanned = found.open(directory).and_then(|mut pieces| blocks(&found, &mut pieces, &mut noted));
        let (blocks, is_whole) = scanned.unwrap_or_else(|error| {
            noted.push(found.damage_from(0, format!("{error}; it is left out")));
            Default::default()
        });
        damage.append(&mut noted);
        let is_guess = found.header.is_none();
        let FoundFile { name, salt, number, .. } = found;
        Checkpoint { layer: Layer { name, salt, commit: number, blocks, is_whole }, is_guess }
    }
}

/// Reports how many bytes are done, of how many.
pub(super) struct ProgressReporter<'p> {
    progress: &'p mut dyn FnMut(u64, u64),
    done: u64,
    total: u64,
}

impl<'p> ProgressReporter<'p> {
    pub(super) fn new(progress: &'p mut dyn FnMut(u64, u64)) -> Self {
        ProgressReporter { progress, done: 0, total: 0 }
    }

    fn begin(&mut self, total: u64) {
        self.total = total;
        self.advance(0);
    }

    pub(super) fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        (self.progress)(self.done.min(self.total), self.total);
    }
}

/// If no checkpoint is complete, adds the files that were being written when the process ended. Damage
/// of these files is expected and not reported.
fn take_drafts(
    directory: &Directory,
    identity: &mut Option<FileIdentity>,
    checkpoints: &mut Vec<Checkpoint>,
    segments: &mut Vec<NamedSegment>,
) -> Result<()> {
    let ignored = &mut Vec::new();
    if let Some(draft) = open(directory, CHECKPOINT_DRAFT, FileKind::Checkpoint, ignored)? {
        let found = draft.header.as_ref().map(|header| &header.identity);
        *identity = identity.take().or_else(|| found.cloned());
        let is_ours = found.map(|found| found.database) == identity.as_ref().map(|ours| ours.database);
        if is_ours {
            checkpoints.push(Checkpoint::scan(directory, draft, ignored));
        }
    }
    if let Some(draft) = open(directory, SEGMENT_DRAFT, FileKind::Segment, ignored)? {
        segments.push((None, draft, Vec::new()));
    }
    Ok(())
}

fn missing(directory: &Directory, name: &str) -> Damage {
    let path = directory.path_of(name);
    Damage { path, offset: 0, length: None, why: "the file is missing".into() }
}

/// Reads a file's header, if the file exists and can be read.
fn open(
    directory: &Directory,
    name: &str,
    kind: FileKind,
    damage: &mut Vec<Damage>,
) -> Result<Option<FoundFile>> {
    let looked = match directory.find(name) {
        Ok(Some(file)) => source(name, &file, kind, damage),
        Ok(None) => return Ok(None),
        Err(error) => Err(error),
    };
    match looked {
        Err(error @ PersistenceError::Io { .. }) => {
            let why = format!("{error}; it is left out");
            damage.push(Damage { path: directory.path_of(name), offset: 0, length: None, why });
            Ok(None)
        }
        looked => looked,
    }
}

/// Returns the properties that the files share: those of the checkpoint, or else those of most segments.
fn identity<'r>(
    checkpoint: Option<&'r FoundFile>,
    segments: impl Iterator<Item = &'r FoundFile>,
) -> Option<FileIdentity> {
    let header = |found: &'r FoundFile| -> Option<&'r FileHeader> { found.header.as_ref() };
    if let Some(header) = checkpoint.and_then(header) {
        return Some(header.identity.clone());
    }
    let mut votes: HashMap<u64, (usize, &FileIdentity)> = HashMap::new();
    for header in segments.filter_map(header) {
        votes.entry(header.identity.database).or_insert((0, &header.identity)).0 += 1;
    }
    let (_, identity) = votes.into_values().max_by_key(|(votes, identity)| (*votes, identity.database))?;
    Some(identity.clone())
}
