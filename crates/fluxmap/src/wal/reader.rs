//! Reading the log back.
//!
//! Frames are read in order until one is not sound: there the log *breaks*. A
//! break is either the end of the log, torn perhaps by a power loss in the middle of a
//! write, or damage to what had been written. What tells them apart: every frame says
//! up to where the log was synced when the frame was written. If any sound frame behind
//! the break says that the log was synced beyond it, what was there has been damaged,
//! and that is an error. If none does, nothing behind the break had been promised to
//! survive a power loss, and it is cut off, also where parts of it are sound: what
//! survives is a prefix.

use crate::error::PersistenceError;
use crate::persistence::TornTail;
use crate::wal::directory::{Directory, NamedFile, segment_name};
use crate::wal::format::{FileHeader, FileKind, FrameHeader, FrameKind, Identity, Lsn, Position, commits};
use crate::wal::pool::Ended;
use memchr::memmem;
use std::path::Path;

type Result<T> = std::result::Result<T, PersistenceError>;

/// A frame, for errors about what is in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameAt<'p> {
    pub(crate) path: &'p Path,
    pub(crate) offset: u64,
}

impl FrameAt<'_> {
    pub(crate) fn damaged(&self, what: impl Into<String>) -> PersistenceError {
        let Self { path, offset } = *self;
        PersistenceError::Damaged { path: path.to_owned(), offset, what: what.into() }
    }
}

/// A segment's bytes, and what its header says.
pub(crate) struct SegmentImage {
    pub(crate) file: NamedFile,
    pub(crate) header: FileHeader,
    /// Where the header ends.
    pub(crate) start: usize,
    pub(crate) bytes: Vec<u8>,
}

/// Where the log goes on after it has been read.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The segment that breaks off, with its salt and the length of its header.
    pub(crate) position: Position,
    pub(crate) salt: u64,
    pub(crate) start: u64,
    pub(crate) size: u64,
    /// The last commit.
    pub(crate) last: Lsn,
    /// Up to where the log was synced for certain.
    pub(crate) synced: Position,
    /// Whether there is something to cut off at `position`.
    pub(crate) torn: bool,
    /// Full segments before it.
    pub(crate) ended: Vec<Ended>,
    /// Segments after it, with nothing to keep.
    pub(crate) later: Vec<u64>,
    /// Commits read, and their bytes.
    pub(crate) commits: u64,
    pub(crate) bytes: u64,
}

impl Tail {
    /// Where something is to be cut off, if anything is.
    pub(crate) fn torn_tail(&self, directory: &Directory) -> Option<TornTail> {
        let Position { segment, offset } = self.position;
        self.torn.then(|| TornTail { path: directory.path_of(&segment_name(segment)), offset })
    }
}

impl SegmentImage {
    pub(crate) fn read(directory: &Directory, number: u64) -> Result<Self> {
        let file = directory.open(&segment_name(number), crate::disk::OpenMode::Read)?;
        let bytes = file.read_all()?;
        let (header, start) = file.header(FileKind::Segment, &bytes)?;
        if header.number != number {
            let what = format!("it is segment {}, under the name of segment {number}", header.number);
            return Err(file.damaged(40, what));
        }
        if (bytes.len() as u64) < header.detail {
            let what = format!("it ends here, and was made {} bytes long", header.detail);
            return Err(file.damaged(bytes.len() as u64, what));
        }
        Ok(SegmentImage { file, header, start, bytes })
    }

    /// Whether nothing was ever written behind the header.
    pub(crate) fn is_empty(&self) -> bool {
        self.candidates(self.start).all(|at| self.frame(at).is_none())
    }

    /// A segment of the database that this is the identity of, and of no other.
    fn read_own(directory: &Directory, number: u64, identity: &Identity) -> Result<Self> {
        let segment = Self::read(directory, number)?;
        identity.expect(&segment.header.identity, segment.file.path())?;
        match segment.header.identity.database == identity.database {
            true => Ok(segment),
            false => Err(segment.file.damaged(24, "it belongs to another database")),
        }
    }

    /// The frame at an offset, if there is a sound one; with its payload and its end.
    pub(crate) fn frame(&self, offset: usize) -> Option<(FrameHeader, &[u8], usize)> {
        let (header, payload) = FrameHeader::read(self.header.salt, self.bytes.get(offset..)?)?;
        Some((header, payload, offset + crate::wal::format::FRAME_HEADER + payload.len()))
    }

    /// Whether there is a frame at an offset, or a part of one.
    fn has_begun(&self, offset: usize) -> bool {
        let mark = (self.header.salt as u32).to_le_bytes();
        let Some(bytes) = self.bytes.get(offset..).filter(|bytes| bytes.len() >= 8) else {
            return false;
        };
        // It may be the mark that is damaged, and nothing else.
        let mended = || [&bytes[..4], &mark, &bytes[8..]].concat();
        bytes[4..8] == mark || FrameHeader::read(self.header.salt, &mended()).is_some()
    }

    /// Offsets from `from` on where the salt says that a frame may begin.
    pub(crate) fn candidates(&self, from: usize) -> impl Iterator<Item = usize> {
        let mark = (self.header.salt as u32).to_le_bytes();
        let finder = memmem::Finder::new(&mark).into_owned();
        let mut at = from + 4;
        std::iter::from_fn(move || {
            let found = at + finder.find(self.bytes.get(at..)?)?;
            at = found + 1;
            Some(found - 4)
        })
    }

    fn at(&self, offset: usize) -> FrameAt<'_> {
        FrameAt { path: self.file.path(), offset: offset as u64 }
    }
}

/// Reads the log from segment `first` on, and hands every commit after `covered` to
/// `visit`, in order. Changes nothing.
pub(crate) fn replay(
    directory: &Directory,
    identity: &Identity,
    first: u64,
    covered: Lsn,
    mut visit: impl FnMut(Lsn, &[u8], FrameAt<'_>) -> Result<()>,
) -> Result<Tail> {
    let numbers: Vec<u64> = directory.segments()?.into_iter().filter(|number| *number >= first).collect();
    let missing =
        |number, why| PersistenceError::Missing { path: directory.path_of(&segment_name(number)), why };
    if numbers.first() != Some(&first) {
        return Err(missing(first, "the checkpoint says that the log goes on in it"));
    }
    if let Some(pair) = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1) {
        return Err(missing(pair[0] + 1, "there are segments before and after it"));
    }

    // `None` until the first frame has said where the log begins.
    let mut next: Option<Lsn> = None;
    let (mut ended, mut count, mut total) = (Vec::new(), 0, 0);
    let mut synced = Position::default();
    for (index, number) in numbers.iter().copied().enumerate() {
        let segment = SegmentImage::read_own(directory, number, identity)?;
        let mut offset = segment.start;
        let mut is_ended = false;
        while let Some((frame, payload, end)) = segment.frame(offset).filter(|_| !is_ended) {
            let at = segment.at(offset);
            let expected = next.unwrap_or(frame.first.clamp(1, covered + 1));
            if frame.first != expected {
                let what = format!("commit {expected} should follow, and commit {} does", frame.first);
                return Err(at.damaged(what));
            }
            let mut lsn = frame.first;
            for commit in commits(payload) {
                let commit = commit.map_err(|_| at.damaged("the commits in it make no sense"))?;
                if lsn > covered {
                    visit(lsn, commit, at)?;
                    count += 1;
                    total += commit.len() as u64;
                }
                lsn += 1;
            }
            if lsn != frame.first + u64::from(frame.commits) {
                return Err(at.damaged("the number of commits in it is not what it says"));
            }
            next = Some(lsn);
            synced = synced.max(frame.synced);
            offset = end;
            is_ended = frame.kind == FrameKind::EndOfSegment;
        }
        let last = next.map_or(covered, |next| next - 1);
        if is_ended {
            ended.push(Ended { number, last });
            continue;
        }
        // Here the log breaks.
        let position = Position { segment: number, offset: offset as u64 };
        let later = numbers[index + 1..].to_vec();
        let torn = judge_break(directory, identity, &segment, position, &later)?;
        if last < covered {
            let what = format!("the log ends with commit {last}, and the checkpoint covers up to {covered}");
            return Err(segment.at(offset).damaged(what));
        }
        return Ok(Tail {
            position,
            salt: segment.header.salt,
            start: segment.start as u64,
            size: segment.bytes.len() as u64,
            last,
            synced,
            torn,
            ended,
            later,
            commits: count,
            bytes: total,
        });
    }
    Err(missing(numbers[numbers.len() - 1] + 1, "the segment before it says that the log goes on in it"))
}

/// Decides whether the log may end at `position`: see the top of the file. Returns
/// whether there is something behind it to cut off.
fn judge_break(
    directory: &Directory,
    identity: &Identity,
    segment: &SegmentImage,
    position: Position,
    later: &[u64],
) -> Result<bool> {
    let offset = position.offset as usize;
    let mut torn = segment.has_begun(offset);
    let mut look_at = |image: &SegmentImage, from: usize| {
        for candidate in image.candidates(from) {
            if let Some((frame, _, _)) = image.frame(candidate) {
                torn = true;
                if frame.synced > position {
                    let what = format!(
                        "what was written and synced there cannot be read: {} has a later part of the log at offset {candidate}",
                        image.file.path().display()
                    );
                    return Err(segment.at(offset).damaged(what));
                }
            }
        }
        Ok(())
    };
    look_at(segment, offset)?;
    for number in later {
        let image = SegmentImage::read_own(directory, *number, identity)?;
        look_at(&image, image.start)?;
    }
    Ok(torn)
}
