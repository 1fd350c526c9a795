//! The lenient way through a directory: what is sound in any of its files.

use super::scan::{Damage, FoundBlock, FoundFrame, Heading, Source, blocks, frames, heading};
use super::{Quiet, Result};
use crate::checkpoint::SoundBlock;
use crate::error::PersistenceError;
use crate::wal::directory::{CHECKPOINT, CHECKPOINT_DRAFT, Directory, SEGMENT_DRAFT, segment_name};
use crate::wal::format::{FileHeader, FileKind, Identity, Lsn};
use std::collections::HashMap;

/// What is sound in a directory.
pub(super) struct Survey {
    pub(super) identity: Identity,
    pub(super) checkpoints: Vec<Checkpoint>,
    pub(super) segments: Vec<Segment>,
    pub(super) damage: Vec<Damage>,
}

/// A checkpoint, or what is left of it.
pub(super) struct Checkpoint {
    file: Source,
    salt: u64,
    blocks: Vec<FoundBlock>,
    /// The commit after which it was taken, perhaps as it stands in a damaged header.
    pub(super) commit: Lsn,
    /// Whether that is in doubt.
    pub(super) is_guess: bool,
    /// Whether nothing of it is missing.
    pub(super) is_whole: bool,
}

/// A segment, or what is left of it.
pub(super) struct Segment {
    pub(super) file: Source,
    pub(super) frames: Vec<FoundFrame>,
}

impl Checkpoint {
    pub(super) fn blocks(&self) -> impl Iterator<Item = SoundBlock<'_>> {
        self.blocks.iter().filter_map(|block| block.read(&self.file, self.salt))
    }
}

/// A file of which at least the salt is known.
struct Readable {
    file: Source,
    heading: Heading,
}

/// A segment, the number in its name, and what is wrong with its header.
type NamedSegment = (Option<u64>, Readable, Vec<Damage>);

impl Readable {
    fn size(&self) -> u64 {
        self.file.bytes.len() as u64
    }
}

impl Survey {
    pub(super) fn of(quiet: &Quiet, mut progress: impl FnMut(u64, u64)) -> Result<Self> {
        let directory = &quiet.directory;
        let mut done = 0;
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
        let log_segment = checkpoint.as_ref().and_then(|found| found.heading.header.as_ref());
        let log_segment = log_segment.map(|header| header.detail);
        let sizes = segments.iter().map(|(_, found, _)| found.size());
        let total = sizes.sum::<u64>() + checkpoint.as_ref().map_or(0, Readable::size);
        let mut advance = |bytes| {
            done += bytes;
            progress(done.min(total), total);
        };
        advance(0);
        let mut checkpoints: Vec<_> =
            checkpoint.map(|found| Checkpoint::scan(found, &mut damage)).into_iter().collect();
        advance(checkpoints.iter().map(|checkpoint| checkpoint.file.bytes.len() as u64).sum());
        let is_whole = checkpoints.iter().any(|checkpoint| checkpoint.is_whole);
        if checkpoints.is_empty() && !directory.names()?.iter().any(|name| name == CHECKPOINT) {
            damage.push(missing(directory, CHECKPOINT));
        }
        if !is_whole {
            take_drafts(directory, &mut identity, &mut checkpoints, &mut segments)?;
        }
        let Some(identity) = identity else {
            let path = directory.path().display();
            let why = format!(
                "no file in {path} has a header that can be read, so nobody knows of which types it is; restore a backup"
            );
            return Err(PersistenceError::Unavailable(why));
        };
        let mut survey = Survey { identity, checkpoints, segments: Vec::new(), damage };
        survey.note_missing(directory, log_segment)?;
        for (name, found, noted) in segments {
            let number = found.heading.header.as_ref().map(|header| header.number).or(name);
            let is_needed = !is_whole || number >= log_segment;
            let size = found.size();
            if is_needed {
                survey.damage.extend(noted);
                survey.take_segment(name, found);
            }
            advance(size);
        }
        Ok(survey)
    }

    fn take_segment(&mut self, name: Option<u64>, found: Readable) {
        let Readable { file, heading } = found;
        if let Some(header) = &heading.header {
            if header.identity.database != self.identity.database {
                let all = 0..file.bytes.len();
                self.damage.push(file.damage(all, "it belongs to another database; it is left out"));
                return;
            }
            if let Some(name) = name.filter(|name| *name != header.number) {
                let (number, at) = (header.number, 40..48);
                let why = format!(
                    "it is segment {number}, under the name of segment {name}; it is read as what it is"
                );
                self.damage.push(file.damage(at, why));
            }
            let (made, is) = (header.detail as usize, file.bytes.len());
            if is < made {
                let why = format!("it ends here, and was made {made} bytes long");
                self.damage.push(file.damage(is..made, why));
            }
        }
        let mut ignored = Vec::new();
        let noted = if name.is_some() { &mut self.damage } else { &mut ignored };
        let frames = frames(&file, &heading, noted);
        self.segments.push(Segment { file, frames });
    }

    /// Segments that must have been there.
    fn note_missing(&mut self, directory: &Directory, log_segment: Option<u64>) -> Result<()> {
        let numbers = directory.segments()?;
        let first = log_segment.or(numbers.first().copied()).unwrap_or_default();
        let mut expected = first;
        for number in numbers.iter().copied().filter(|number| *number >= first) {
            // Of a long row, the first and the last tell enough.
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
    fn scan(found: Readable, damage: &mut Vec<Damage>) -> Self {
        let Readable { file, heading } = found;
        let mut noted = Vec::new();
        let (blocks, is_whole) = blocks(&file, &heading, &mut noted);
        damage.append(&mut noted);
        let is_guess = heading.header.is_none();
        Checkpoint { salt: heading.salt, commit: heading.number, is_guess, file, blocks, is_whole }
    }
}

/// Takes what was being written when the process ended, where the checkpoint is not whole.
/// Whatever is wrong with these files is to be expected.
fn take_drafts(
    directory: &Directory,
    identity: &mut Option<Identity>,
    checkpoints: &mut Vec<Checkpoint>,
    segments: &mut Vec<NamedSegment>,
) -> Result<()> {
    let ignored = &mut Vec::new();
    if let Some(draft) = open(directory, CHECKPOINT_DRAFT, FileKind::Checkpoint, ignored)? {
        let found = draft.heading.header.as_ref().map(|header| &header.identity);
        *identity = identity.take().or_else(|| found.cloned());
        let is_ours = found.map(|found| found.database) == identity.as_ref().map(|ours| ours.database);
        if is_ours {
            checkpoints.push(Checkpoint::scan(draft, ignored));
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

/// Reads a file, if it is there and can be read.
fn open(
    directory: &Directory,
    name: &str,
    kind: FileKind,
    damage: &mut Vec<Damage>,
) -> Result<Option<Readable>> {
    let read = directory.find(name).and_then(|file| file.map(|file| file.read_all()).transpose());
    let bytes = match read {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) => bytes,
        Err(error) => {
            let why = format!("{error}; it is left out");
            damage.push(Damage { path: directory.path_of(name), offset: 0, length: None, why });
            return Ok(None);
        }
    };
    let file = Source { path: directory.path_of(name), bytes };
    let heading = heading(&file, kind, damage)?;
    Ok(heading.map(|heading| Readable { file, heading }))
}

/// What the files agree on: as the checkpoint says, or else most of the segments.
fn identity<'r>(
    checkpoint: Option<&'r Readable>,
    segments: impl Iterator<Item = &'r Readable>,
) -> Option<Identity> {
    let header = |found: &'r Readable| -> Option<&'r FileHeader> { found.heading.header.as_ref() };
    if let Some(header) = checkpoint.and_then(header) {
        return Some(header.identity.clone());
    }
    let mut votes: HashMap<u64, (usize, &Identity)> = HashMap::new();
    for header in segments.filter_map(header) {
        votes.entry(header.identity.database).or_insert((0, &header.identity)).0 += 1;
    }
    let (_, identity) = votes.into_values().max_by_key(|(votes, identity)| (*votes, identity.database))?;
    Some(identity.clone())
}
