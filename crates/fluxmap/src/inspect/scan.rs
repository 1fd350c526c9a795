//! The lenient scan of one file: every block or frame that is sound by itself, wherever it is, and the
//! gaps in between.

use super::Result;
use crate::checkpoint::SoundBlock;
use crate::disk::OpenMode;
use crate::error::PersistenceError;
use crate::wal::directory::{Directory, NamedFile};
use crate::wal::format::{BadHeader, FORMAT_VERSION, FileHeader, FileKind, FrameKind, MAX_HEADER};
use crate::wal::pieces::Pieces;
use crate::wal::reader::SoundFrame;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// A part of a file that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The offset at which it begins.
    pub offset: u64,
    /// The number of affected bytes; `None` if unknown.
    pub length: Option<u64>,
    /// A description of the damage, and of how it was handled.
    pub why: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}", self.path.display(), self.offset)?;
        if let Some(length) = self.length {
            write!(f, ", {length} bytes")?;
        }
        write!(f, ": {}", self.why)
    }
}

/// A file of which at least the salt is known.
#[derive(Debug)]
pub(super) struct FoundFile {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) length: u64,
    /// The header, if it is sound or could be repaired.
    pub(super) header: Option<FileHeader>,
    pub(super) salt: u64,
    /// The offset at which the header ends.
    pub(super) start: u64,
    /// The number in the header, possibly unchecked.
    pub(super) number: u64,
}

impl FoundFile {
    /// Opens the file for reading.
    pub(super) fn open(&self, directory: &Directory) -> Result<Pieces> {
        Pieces::of(directory.open(&self.name, OpenMode::Read)?)
    }

    pub(super) fn damage(&self, at: Range<u64>, why: impl Into<String>) -> Damage {
        let length = Some(at.end.saturating_sub(at.start));
        Damage { path: self.path.clone(), offset: at.start, length, why: why.into() }
    }

    /// Returns damage whose end is unknown.
    pub(super) fn damage_from(&self, offset: u64, why: impl Into<String>) -> Damage {
        Damage { length: None, ..self.damage(offset..offset, why) }
    }
}

/// Reads a file's header, or the remains of one; `None` if nothing is left.
pub(super) fn source(
    name: &str,
    file: &NamedFile,
    kind: FileKind,
    damage: &mut Vec<Damage>,
) -> Result<Option<FoundFile>> {
    let mut bytes = vec![0; MAX_HEADER];
    let filled = file.read_at(&mut bytes, 0)?;
    bytes.truncate(filled);
    let (name, path, length) = (name.to_owned(), file.path().to_owned(), file.len()?);
    let mut source = FoundFile { name, path, length, header: None, salt: 0, start: 0, number: 0 };
    let known = |source: FoundFile, (header, start): (FileHeader, usize)| FoundFile {
        salt: header.salt,
        number: header.number,
        header: Some(header),
        start: start as u64,
        ..source
    };
    let what = match FileHeader::decode(kind, &bytes) {
        Ok(header) => return Ok(Some(known(source, header))),
        Err(BadHeader::Damaged(what)) => what,
        Err(BadHeader::Version(found)) => {
            let (path, supported) = (source.path, FORMAT_VERSION);
            return Err(PersistenceError::UnsupportedFormat { path, found, supported });
        }
    };
    if let Some((header, start)) = mend(kind, &bytes) {
        let why = format!("{what}; changing one byte makes it sound, and it is read in that form");
        damage.push(source.damage(0..start as u64, why));
        return Ok(Some(known(source, (header, start))));
    }
    // Use the salt unchecked: without it no block or frame of the file can be recognized.
    let Some((salt, number)) = FileHeader::as_it_stands(&bytes) else {
        damage.push(source.damage(0..length, what));
        return Ok(None);
    };
    damage.push(source.damage_from(0, format!("{what}; the rest of the file was searched nevertheless")));
    (source.salt, source.number) = (salt, number);
    Ok(Some(source))
}

/// Returns the header that results from changing one of these bytes, if one is sound.
fn mend(kind: FileKind, bytes: &[u8]) -> Option<(FileHeader, usize)> {
    let mut start = bytes[..bytes.len().min(MAX_HEADER)].to_vec();
    // Bytes after the header do not matter, unless the damaged byte is in its length.
    let length = start.get(14..16).map_or(0, |length| usize::from(length[0]) | usize::from(length[1]) << 8);
    let end = if length <= MAX_HEADER { length.max(16) } else { 16 };
    for at in 0..start.len().min(end) {
        let was = start[at];
        for byte in 0..=u8::MAX {
            start[at] = byte;
            if let Ok(found) = FileHeader::decode(kind, &start) {
                return Some(found);
            }
        }
        start[at] = was;
    }
    None
}

/// Passes the sound frames of a segment to `visit`, in the order of the file, with their payloads.
pub(super) fn frames(
    source: &FoundFile,
    pieces: &mut Pieces,
    damage: &mut Vec<Damage>,
    mut visit: impl FnMut(&SoundFrame, &[u8], &mut Vec<Damage>),
) -> Result<()> {
    let mut last = None;
    let mut at = source.start;
    loop {
        while let Some(frame) = SoundFrame::read(pieces, source.salt, at)? {
            visit(&frame, frame.payload(pieces)?, damage);
            last = Some(frame.header.kind);
            at = frame.end;
        }
        let Some(next) = SoundFrame::find(pieces, source.salt, at + 1)? else {
            break;
        };
        // Without a header, it is not known where the first frame began.
        if source.start > 0 || last.is_some() {
            damage.push(source.damage(at..next.offset, "there is no sound frame of the log; it is left out"));
        }
        at = next.offset;
    }
    let mark = (source.salt as u32).to_le_bytes();
    if last != Some(FrameKind::EndOfSegment) && pieces.get(at, 8)?.get(4..8) == Some(&mark[..]) {
        let why = "a frame begins that is not whole, damaged or torn by a power loss; it is left out";
        damage.push(source.damage_from(at, why));
    }
    if source.header.is_none() && last.is_none() {
        damage.push(source.damage(0..source.length, "nothing sound was found in the file; it is left out"));
    }
    Ok(())
}

/// Returns the offsets of the sound blocks of a checkpoint, each block once, and whether the checkpoint
/// is complete.
pub(super) fn blocks(
    source: &FoundFile,
    pieces: &mut Pieces,
    damage: &mut Vec<Damage>,
) -> Result<(Vec<u64>, bool)> {
    let length = pieces.length();
    // A block's number is at most the length of the file, because each block takes some bytes.
    let mut is_sound = |at: u64| SoundBlock::read(pieces, source.salt, at, length);
    let (mut found, mut numbers) = (Vec::new(), HashSet::new());
    let (mut pairs, mut end) = (0, None);
    let mut at = source.start;
    while at < length {
        let Some(block) = is_sound(at)? else {
            let lost = at;
            at += 1;
            while at < length && is_sound(at)?.is_none() {
                at += 1;
            }
            if source.start > 0 || !found.is_empty() {
                damage.push(source.damage(lost..at, "there is no sound block of pairs; it is left out"));
            }
            continue;
        };
        if block.is_end {
            end = Some((block.number, block.pairs));
        } else if numbers.insert(block.number) {
            pairs += block.pairs;
            found.push(at);
        }
        at = block.end;
    }
    let is_whole = end == Some((numbers.len() as u64, pairs)) && source.header.is_some();
    if !is_whole && damage.is_empty() && source.header.is_some() {
        let why = "blocks are missing: the file was cut off, or some were taken out";
        damage.push(source.damage_from(length, why));
    }
    Ok((found, is_whole))
}
