//! A summary of a directory, from the headers of its files.

use super::{Identity, Result, directory, has_database};
use crate::checkpoint::CheckpointReader;
use crate::error::PersistenceError;
use crate::recovery::check_nothing_is_lost;
use crate::wal::directory::{CHECKPOINT, CHECKPOINT_DRAFT, Directory, SEGMENT_DRAFT, segment_name};
use crate::wal::format::{FrameHeader, FrameKind, Lsn};
use crate::wal::reader::SegmentReader;
use std::io;
use std::path::Path;

/// A summary of a directory: returned by [`stat`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stat {
    /// The properties that the files share, from the first readable header; `None` if there is none.
    pub identity: Option<Identity>,
    /// The checkpoint, if it exists and its header can be read.
    pub checkpoint: Option<CheckpointStat>,
    /// The segments of the log, in order.
    pub segments: Vec<SegmentStat>,
    /// The bytes of files that were being written when the process ended, or are being written now.
    pub draft_bytes: u64,
    /// The bytes of all files.
    pub total_bytes: u64,
    /// Whether the database was closed, so that the log ends with a mark.
    pub closed: bool,
    /// Whether the database is open. The other figures may then be out of date.
    pub in_use: bool,
    /// The errors of files that could not be read.
    pub problems: Vec<PersistenceError>,
}

/// The checkpoint, according to its header and its end. Its blocks have not been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointStat {
    /// The last commit that it covers; 0 if it was empty.
    pub commit: u64,
    /// The number of pairs in it; `None` if its end is damaged.
    pub pairs: Option<u64>,
    /// Its size in bytes.
    pub bytes: u64,
    /// The segment in which the log continues.
    pub log_segment: u64,
}

/// A segment of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentStat {
    /// Its number.
    pub number: u64,
    /// The size of the file.
    pub bytes: u64,
    /// How many bytes of it are in use, its header included.
    pub used_bytes: u64,
    /// The number of commits in it.
    pub commits: u64,
    /// The first commit in it.
    pub first_commit: Option<u64>,
    /// The last commit in it.
    pub last_commit: Option<u64>,
    /// The state of the segment.
    pub state: SegmentState,
}

/// The state of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentState {
    /// The checkpoint covers it; it will be reused or removed.
    NotNeeded,
    /// The log continues in the next segment.
    Full,
    /// The log ends in it.
    Active,
    /// The segment was made in advance and is empty.
    Spare,
    /// The segment has commits, but the log breaks off in an earlier one.
    Unreachable,
    /// The header cannot be read.
    Damaged,
}

/// Reads the headers of the files, but not the blocks; [`verify`](super::verify) reads those. Damage is
/// not an error here: see [`Stat::problems`].
///
/// # Errors
///
/// [`PersistenceError::NoDatabase`] if there is no database; [`PersistenceError::Io`] if the directory
/// cannot be read.
pub fn stat(dir: impl AsRef<Path>) -> Result<Stat> {
    let directory = directory(dir.as_ref());
    if !has_database(&directory)? {
        return Err(PersistenceError::NoDatabase { path: dir.as_ref().to_owned() });
    }
    let mut stat = Stat {
        identity: None,
        checkpoint: None,
        segments: Vec::new(),
        draft_bytes: 0,
        total_bytes: 0,
        closed: false,
        in_use: false,
        problems: Vec::new(),
    };
    // The lock is released at once: this must not keep others from opening the database.
    match directory.lock_if_there() {
        Ok(_) => {}
        Err(PersistenceError::Locked { .. }) => stat.in_use = true,
        Err(error) => stat.problems.push(error),
    }
    if let Err(error) = stat.look_at_checkpoint(&directory) {
        stat.problems.push(error);
    }
    let log_segment = stat.checkpoint.map_or(0, |checkpoint| checkpoint.log_segment);
    // Whether no segment so far has ended the log.
    let mut goes_on = true;
    for number in directory.segments()? {
        let looked = SegmentReader::open(&directory, number)
            .and_then(|mut segment| stat.look_at_segment(&mut segment, log_segment, &mut goes_on));
        match looked {
            Ok(()) => {}
            // An open database has reused the file meanwhile.
            Err(error) if is_gone(&error) => continue,
            Err(error) => {
                stat.note_unreadable(&directory, number, error);
                goes_on &= number < log_segment;
            }
        }
    }
    for name in [CHECKPOINT_DRAFT, SEGMENT_DRAFT] {
        stat.draft_bytes += length(&directory, name).unwrap_or_default();
    }
    stat.note_missing(&directory)?;
    let segments: u64 = stat.segments.iter().map(|segment| segment.bytes).sum();
    stat.total_bytes += segments + stat.draft_bytes;
    Ok(stat)
}

impl Stat {
    fn look_at_checkpoint(&mut self, directory: &Directory) -> Result<()> {
        self.total_bytes += length(directory, CHECKPOINT).unwrap_or_default();
        let Some(mut reader) = CheckpointReader::open(directory)? else {
            return Ok(());
        };
        let pairs = reader.total_pairs()?;
        let header = &reader.header;
        self.identity = Some((&header.identity).into());
        self.checkpoint = Some(CheckpointStat {
            commit: header.number,
            pairs,
            bytes: reader.length(),
            log_segment: header.detail,
        });
        Ok(())
    }

    /// Records the file that recovery would miss first.
    fn note_missing(&mut self, directory: &Directory) -> Result<()> {
        let missing = |name: &str, why| PersistenceError::Missing { path: directory.path_of(name), why };
        let Some(checkpoint) = &self.checkpoint else {
            if !directory.names()?.iter().any(|name| name == CHECKPOINT)
                && let Err(error) = check_nothing_is_lost(directory)
                && !self.in_use
            {
                self.problems.push(error);
            }
            return Ok(());
        };
        let first = checkpoint.log_segment;
        if !self.in_use && !directory.segments()?.contains(&first) {
            let why = "the checkpoint says that the log continues in it";
            self.problems.push(missing(&segment_name(first), why));
        }
        Ok(())
    }

    fn look_at_segment(
        &mut self,
        segment: &mut SegmentReader,
        log_segment: u64,
        goes_on: &mut bool,
    ) -> Result<()> {
        self.identity.get_or_insert_with(|| (&segment.header.identity).into());
        let mut offset = segment.start;
        let (mut first, mut commits, mut last_kind) = (None, 0, None);
        while let Some(frame) = segment.frame(offset)? {
            let FrameHeader { kind, commits: more, first: lsn, .. } = frame.header;
            if more > 0 {
                first.get_or_insert(lsn);
                commits += u64::from(more);
            }
            last_kind = Some(kind);
            offset = frame.end;
            if kind == FrameKind::EndOfSegment {
                break;
            }
        }
        let number = segment.header.number;
        let state = match last_kind {
            _ if number < log_segment => SegmentState::NotNeeded,
            Some(FrameKind::EndOfSegment) if *goes_on => SegmentState::Full,
            // The log ends in the first segment that does not end with a mark.
            _ if std::mem::take(goes_on) => {
                self.closed = last_kind == Some(FrameKind::Closed);
                SegmentState::Active
            }
            None => SegmentState::Spare,
            Some(_) => SegmentState::Unreachable,
        };
        self.segments.push(SegmentStat {
            number,
            bytes: segment.pieces.length(),
            used_bytes: offset,
            commits,
            first_commit: first,
            last_commit: first.map(|first: Lsn| first.saturating_add(commits - 1)),
            state,
        });
        Ok(())
    }

    fn note_unreadable(&mut self, directory: &Directory, number: u64, error: PersistenceError) {
        self.problems.push(error);
        self.segments.push(SegmentStat {
            number,
            bytes: length(directory, &segment_name(number)).unwrap_or_default(),
            used_bytes: 0,
            commits: 0,
            first_commit: None,
            last_commit: None,
            state: SegmentState::Damaged,
        });
    }
}

fn length(directory: &Directory, name: &str) -> Option<u64> {
    directory.find(name).ok()??.len().ok()
}

fn is_gone(error: &PersistenceError) -> bool {
    matches!(error, PersistenceError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}
