//! Reads the log back.
//!
//! Frames are read in order until one is not sound: there the log *breaks*. A break is either the end of
//! the log, perhaps torn by a power loss in the middle of a write, or damage to bytes that had been
//! written. Every frame records up to where the log was synced when the frame was written, and this
//! tells the two apart. If any sound frame after the break says that the log was synced beyond the
//! break, the bytes there have been damaged, and that is an error. If none does, nothing after the break
//! had been promised to survive a power loss, and it is cut off, even where parts of it are sound: the
//! surviving log is a prefix.

use crate::error::PersistenceError;
use crate::persistence::TornTail;
use crate::wal::directory::{Directory, segment_name};
use crate::wal::format::{
    FRAME_HEADER, FileHeader, FileIdentity, FileKind, FrameHeader, FrameKind, Lsn, Position, Unchecked,
    commits,
};
use crate::wal::pieces::Pieces;
use crate::wal::pool::FullSegment;
use fluxmap_index::planted;
use std::path::Path;

type Result<T> = std::result::Result<T, PersistenceError>;

/// The place of a frame, for errors about its content.
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

/// A segment that is being read, and its header.
pub(crate) struct SegmentReader {
    pub(crate) pieces: Pieces,
    pub(crate) header: FileHeader,
    /// The offset at which the header ends.
    pub(crate) start: u64,
}

/// A frame whose checksum is correct.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SoundFrame {
    pub(crate) header: FrameHeader,
    pub(crate) offset: u64,
    /// The offset at which the frame ends.
    pub(crate) end: u64,
}

/// The end of the log after it has been read, where writing continues.
#[derive(Debug)]
pub(crate) struct LogEnd {
    /// The position of the break. `salt`, `start` (the length of the header) and `size` are those of its
    /// segment.
    pub(crate) position: Position,
    pub(crate) salt: u64,
    pub(crate) start: u64,
    pub(crate) size: u64,
    /// The last commit.
    pub(crate) last: Lsn,
    /// The position up to which the log was certainly synced.
    pub(crate) synced: Position,
    /// Whether there are bytes to cut off at `position`.
    pub(crate) torn: bool,
    /// The full segments before it.
    pub(crate) ended: Vec<FullSegment>,
    /// The segments after it, which hold nothing to keep.
    pub(crate) later: Vec<u64>,
    /// The number of commits read, and their bytes.
    pub(crate) commits: u64,
    pub(crate) bytes: u64,
}

impl LogEnd {
    /// Returns where the log is to be cut off, if it is.
    pub(crate) fn torn_tail(&self, directory: &Directory) -> Option<TornTail> {
        let Position { segment, offset } = self.position;
        self.torn.then(|| TornTail { path: directory.path_of(&segment_name(segment)), offset })
    }
}

impl SoundFrame {
    /// Returns the frame at this offset of a file, if it is sound.
    pub(crate) fn read(pieces: &mut Pieces, salt: u64, offset: u64) -> Result<Option<Self>> {
        match pieces.get(offset, FRAME_HEADER)?.first_chunk().copied() {
            Some(header) => Self::check(pieces, salt, offset, header),
            None => Ok(None),
        }
    }

    /// Returns the frame at this offset, if it is sound with this header.
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

    /// Returns the first sound frame at or after `from`. Only offsets marked with the salt are tried.
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

    /// Returns the payload.
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

    /// Returns whether no frame was ever written after the header.
    pub(crate) fn is_empty(&mut self) -> Result<bool> {
        Ok(self.find_frame(self.start)?.is_none())
    }

    /// Opens a segment, and refuses one of another database.
    fn open_own(directory: &Directory, number: u64, identity: &FileIdentity) -> Result<Self> {
        let segment = Self::open(directory, number)?;
        let file = segment.pieces.file();
        identity.expect(&segment.header.identity, file.path())?;
        match segment.header.identity.database == identity.database {
            true => Ok(segment),
            false => Err(file.damaged(24, "it belongs to another database")),
        }
    }

    /// Returns the frame at this offset, if it is sound.
    pub(crate) fn frame(&mut self, offset: u64) -> Result<Option<SoundFrame>> {
        match SoundFrame::read(&mut self.pieces, self.header.salt, offset) {
            Err(_) if planted("read-error-is-a-torn-tail") => Ok(None),
            frame => frame,
        }
    }

    /// Returns the first sound frame at or after this offset.
    pub(crate) fn find_frame(&mut self, from: u64) -> Result<Option<SoundFrame>> {
        SoundFrame::find(&mut self.pieces, self.header.salt, from)
    }

    /// Returns whether a frame, or a part of one, begins at this offset.
    fn has_begun(&mut self, offset: u64) -> Result<bool> {
        let mark = (self.header.salt as u32).to_le_bytes();
        let begin = self.pieces.get(offset, FRAME_HEADER)?;
        if begin.get(4..8) == Some(&mark[..]) {
            return Ok(true);
        }
        let Some(mut mended) = begin.first_chunk().copied() else {
            return Ok(false);
        };
        // Perhaps only the mark is damaged.
        mended[4..8].copy_from_slice(&mark);
        let frame = SoundFrame::check(&mut self.pieces, self.header.salt, offset, mended)?;
        Ok(frame.is_some())
    }
}

/// Reads the log from segment `first` on, and passes every commit after `covered` to `visit`, in order.
/// Changes nothing.
pub(crate) fn replay(
    directory: &Directory,
    identity: &FileIdentity,
    first: u64,
    covered: Lsn,
    mut visit: impl FnMut(Lsn, &[u8], FrameAt<'_>) -> Result<()>,
) -> Result<LogEnd> {
    let numbers: Vec<u64> = directory.segments()?.into_iter().filter(|number| *number >= first).collect();
    let missing =
        |number, why| PersistenceError::Missing { path: directory.path_of(&segment_name(number)), why };
    if numbers.first() != Some(&first) {
        return Err(missing(first, "the checkpoint says that the log continues in it"));
    }
    if let Some(pair) = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1) {
        return Err(missing(pair[0] + 1, "there are segments before and after it"));
    }

    // `None` until the first frame has shown with which commit the log begins.
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
            // The log may begin with commits that the checkpoint covers, but without a gap after those.
            let expected = next.unwrap_or(header.first.clamp(1, covered + 1));
            if header.first != expected {
                let what = format!("commit {expected} should follow, and commit {} does", header.first);
                return Err(at.damaged(what));
            }
            let mut lsn = header.first;
            for commit in commits(frame.payload(&mut segment.pieces)?) {
                let commit = commit.map_err(|_| at.damaged("the commits in it make no sense"))?;
                // The checkpoint has the earlier commits already.
                if lsn > covered {
                    visit(lsn, commit, at)?;
                    count += 1;
                    total += commit.len() as u64;
                }
                lsn += 1;
            }
            if lsn != header.first + u64::from(header.commits) {
                return Err(at.damaged("the frame's number of commits differs from its header"));
            }
            next = Some(lsn);
            synced = synced.max(header.synced);
            offset = end;
            is_ended = header.kind == FrameKind::EndOfSegment;
        }
        let last = next.map_or(covered, |next| next - 1);
        if is_ended {
            ended.push(FullSegment { number, last, size: segment.pieces.length() });
            continue;
        }
        // The log breaks here.
        let position = Position { segment: number, offset };
        let later = numbers[index + 1..].to_vec();
        let torn = judge_break(directory, identity, &mut segment, position, &later)?;
        // A checkpoint covers synced commits only, so a log that ends before it has been damaged.
        if last < covered {
            let what = format!("the log ends with commit {last}, and the checkpoint covers up to {covered}");
            return Err(at(offset).damaged(what));
        }
        return Ok(LogEnd {
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
    Err(missing(numbers[numbers.len() - 1] + 1, "the segment before it says that the log continues in it"))
}

/// Decides whether the log may end at `position`: see the top of the file. Returns whether there are
/// bytes after it to cut off.
fn judge_break(
    directory: &Directory,
    identity: &FileIdentity,
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
                    "synced data there cannot be read: {} has a later part of the log at offset {}",
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
