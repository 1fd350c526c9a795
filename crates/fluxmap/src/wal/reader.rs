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
use crate::wal::directory::{Directory, segment_name};
use crate::wal::format::{
    FRAME_HEADER, FileHeader, FileKind, FrameHeader, FrameKind, Identity, Lsn, Position, Unchecked, commits,
};
use crate::wal::pieces::Pieces;
use crate::wal::pool::Ended;
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

/// A segment that is being read, and what its header says.
pub(crate) struct SegmentReader {
    pub(crate) pieces: Pieces,
    pub(crate) header: FileHeader,
    /// Where the header ends.
    pub(crate) start: u64,
}

/// A frame whose checksum holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SoundFrame {
    pub(crate) header: FrameHeader,
    pub(crate) offset: u64,
    /// Where it ends.
    pub(crate) end: u64,
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

impl SoundFrame {
    /// The frame at an offset of a file, if there is a sound one.
    pub(crate) fn read(pieces: &mut Pieces, salt: u64, offset: u64) -> Result<Option<Self>> {
        match pieces.get(offset, FRAME_HEADER)?.first_chunk().copied() {
            Some(header) => Self::check(pieces, salt, offset, header),
            None => Ok(None),
        }
    }

    /// The frame at an offset, if it is sound with this header.
    fn check(
        pieces: &mut Pieces,
        salt: u64,
        offset: u64,
        header: [u8; FRAME_HEADER],
    ) -> Result<Option<Self>> {
        let Some(Unchecked { frame, length, crc, begun }) = FrameHeader::parse(salt, &header) else {
            return Ok(None);
        };
        let payload = offset + FRAME_HEADER as u64;
        let end = payload + u64::from(length);
        let is_sound = pieces.checksum(begun, payload..end)? == Some(crc);
        Ok(is_sound.then_some(SoundFrame { header: frame, offset, end }))
    }

    /// The first sound frame at `from` or behind, wherever the salt says that one may begin.
    pub(crate) fn find(pieces: &mut Pieces, salt: u64, from: u64) -> Result<Option<Self>> {
        let mark = (salt as u32).to_le_bytes();
        let mut at = from + 4;
        while let Some(found) = pieces.find(&mark, at)? {
            if let Some(frame) = Self::read(pieces, salt, found - 4)? {
                return Ok(Some(frame));
            }
            at = found + 1;
        }
        Ok(None)
    }

    /// What is in it.
    pub(crate) fn payload<'p>(&self, pieces: &'p mut Pieces) -> Result<&'p [u8]> {
        let start = self.offset + FRAME_HEADER as u64;
        pieces.get(start, (self.end - start) as usize)
    }
}

impl SegmentReader {
    pub(crate) fn open(directory: &Directory, number: u64) -> Result<Self> {
        let file = directory.open(&segment_name(number), crate::disk::OpenMode::Read)?;
        let (header, start) = file.read_header(FileKind::Segment)?;
        if header.number != number {
            let what = format!("it is segment {}, under the name of segment {number}", header.number);
            return Err(file.damaged(40, what));
        }
        let pieces = Pieces::of(file)?;
        if pieces.length() < header.detail {
            let what = format!("it ends here, and was made {} bytes long", header.detail);
            return Err(pieces.file().damaged(pieces.length(), what));
        }
        Ok(SegmentReader { pieces, header, start: start as u64 })
    }

    /// Whether nothing was ever written behind the header.
    pub(crate) fn is_empty(&mut self) -> Result<bool> {
        Ok(self.find_frame(self.start)?.is_none())
    }

    /// A segment of the database that this is the identity of, and of no other.
    fn open_own(directory: &Directory, number: u64, identity: &Identity) -> Result<Self> {
        let segment = Self::open(directory, number)?;
        let file = segment.pieces.file();
        identity.expect(&segment.header.identity, file.path())?;
        match segment.header.identity.database == identity.database {
            true => Ok(segment),
            false => Err(file.damaged(24, "it belongs to another database")),
        }
    }

    /// The frame at an offset, if there is a sound one.
    pub(crate) fn frame(&mut self, offset: u64) -> Result<Option<SoundFrame>> {
        SoundFrame::read(&mut self.pieces, self.header.salt, offset)
    }

    /// The first sound frame at an offset or behind it.
    pub(crate) fn find_frame(&mut self, from: u64) -> Result<Option<SoundFrame>> {
        SoundFrame::find(&mut self.pieces, self.header.salt, from)
    }

    /// Whether there is a frame at an offset, or a part of one.
    fn has_begun(&mut self, offset: u64) -> Result<bool> {
        let mark = (self.header.salt as u32).to_le_bytes();
        let begin = self.pieces.get(offset, FRAME_HEADER)?;
        if begin.get(4..8) == Some(&mark[..]) {
            return Ok(true);
        }
        let Some(mut mended) = begin.first_chunk().copied() else {
            return Ok(false);
        };
        // It may be the mark that is damaged, and nothing else.
        mended[4..8].copy_from_slice(&mark);
        let frame = SoundFrame::check(&mut self.pieces, self.header.salt, offset, mended)?;
        Ok(frame.is_some())
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
        let mut segment = SegmentReader::open_own(directory, number, identity)?;
        let path = segment.pieces.path().to_owned();
        let at = |offset| FrameAt { path: &path, offset };
        let mut offset = segment.start;
        let mut is_ended = false;
        while !is_ended && let Some(frame) = segment.frame(offset)? {
            let at = at(offset);
            let SoundFrame { header, end, .. } = frame;
            let expected = next.unwrap_or(header.first.clamp(1, covered + 1));
            if header.first != expected {
                let what = format!("commit {expected} should follow, and commit {} does", header.first);
                return Err(at.damaged(what));
            }
            let mut lsn = header.first;
            for commit in commits(frame.payload(&mut segment.pieces)?) {
                let commit = commit.map_err(|_| at.damaged("the commits in it make no sense"))?;
                if lsn > covered {
                    visit(lsn, commit, at)?;
                    count += 1;
                    total += commit.len() as u64;
                }
                lsn += 1;
            }
            if lsn != header.first + u64::from(header.commits) {
                return Err(at.damaged("the number of commits in it is not what it says"));
            }
            next = Some(lsn);
            synced = synced.max(header.synced);
            offset = end;
            is_ended = header.kind == FrameKind::EndOfSegment;
        }
        let last = next.map_or(covered, |next| next - 1);
        if is_ended {
            ended.push(Ended { number, last, size: segment.pieces.length() });
            continue;
        }
        // Here the log breaks.
        let position = Position { segment: number, offset };
        let later = numbers[index + 1..].to_vec();
        let torn = judge_break(directory, identity, &mut segment, position, &later)?;
        if last < covered {
            let what = format!("the log ends with commit {last}, and the checkpoint covers up to {covered}");
            return Err(at(offset).damaged(what));
        }
        return Ok(Tail {
            position,
            salt: segment.header.salt,
            start: segment.start,
            size: segment.pieces.length(),
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
    segment: &mut SegmentReader,
    position: Position,
    later: &[u64],
) -> Result<bool> {
    let offset = position.offset;
    let mut torn = segment.has_begun(offset)?;
    let path = segment.pieces.path().to_owned();
    let mut look_at = |segment: &mut SegmentReader, mut from: u64| -> Result<()> {
        while let Some(frame) = segment.find_frame(from)? {
            torn = true;
            if frame.header.synced > position {
                let what = format!(
                    "what was written and synced there cannot be read: {} has a later part of the log at offset {}",
                    segment.pieces.path().display(),
                    frame.offset
                );
                return Err(FrameAt { path: &path, offset }.damaged(what));
            }
            from = frame.offset + 1;
        }
        Ok(())
    };
    look_at(segment, offset)?;
    for number in later {
        let mut segment = SegmentReader::open_own(directory, *number, identity)?;
        let start = segment.start;
        look_at(&mut segment, start)?;
    }
    Ok(torn)
}
