//! The lenient way through one file: every block or frame in it that is sound by itself,
//! wherever it is, and what lies in between.

use super::Result;
use crate::checkpoint::SoundBlock;
use crate::error::PersistenceError;
use crate::wal::format::{
    BadHeader, FORMAT_VERSION, FRAME_HEADER, FileHeader, FileKind, FrameHeader, FrameKind, MAX_HEADER,
};
use memchr::memmem;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// Something in a file that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where it begins.
    pub offset: u64,
    /// How many bytes are concerned; `None` if that cannot be told.
    pub length: Option<u64>,
    /// What is wrong, and what became of it.
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

/// A file that has been read.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

impl Source {
    pub(super) fn damage(&self, at: Range<usize>, why: impl Into<String>) -> Damage {
        Damage {
            path: self.path.clone(),
            offset: at.start as u64,
            length: Some(at.len() as u64),
            why: why.into(),
        }
    }

    /// Damage whose end cannot be told.
    pub(super) fn damage_from(&self, offset: usize, why: impl Into<String>) -> Damage {
        Damage { length: None, ..self.damage(offset..offset, why) }
    }
}

/// What is known about a file from its header.
pub(super) struct Heading {
    /// If it is sound, or could be mended.
    pub(super) header: Option<FileHeader>,
    pub(super) salt: u64,
    /// Where it ends.
    pub(super) start: usize,
    /// The number in it, perhaps as it stands.
    pub(super) number: u64,
}

/// Reads a header, or what is left of one; `None` if nothing is.
pub(super) fn heading(file: &Source, kind: FileKind, damage: &mut Vec<Damage>) -> Result<Option<Heading>> {
    let known = |(header, start): (FileHeader, usize)| Heading {
        salt: header.salt,
        number: header.number,
        header: Some(header),
        start,
    };
    let what = match FileHeader::decode(kind, &file.bytes) {
        Ok(header) => return Ok(Some(known(header))),
        Err(BadHeader::Damaged(what)) => what,
        Err(BadHeader::Version(found)) => {
            let (path, supported) = (file.path.clone(), FORMAT_VERSION);
            return Err(PersistenceError::UnsupportedFormat { path, found, supported });
        }
    };
    if let Some((header, start)) = mend(kind, &file.bytes) {
        damage.push(
            file.damage(0..start, format!("{what}; with one other byte it is sound, and it is read as that")),
        );
        return Ok(Some(known((header, start))));
    }
    let Some((salt, number)) = FileHeader::as_it_stands(&file.bytes) else {
        damage.push(file.damage(0..file.bytes.len(), what));
        return Ok(None);
    };
    damage.push(file.damage_from(0, format!("{what}; what is behind it was looked for nevertheless")));
    Ok(Some(Heading { header: None, salt, start: 0, number }))
}

/// The header that these bytes are but for one of them.
fn mend(kind: FileKind, bytes: &[u8]) -> Option<(FileHeader, usize)> {
    let mut start = bytes[..bytes.len().min(MAX_HEADER)].to_vec();
    // Behind the header nothing matters, unless its length is what is wrong.
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

/// A sound frame.
pub(super) struct FoundFrame {
    pub(super) offset: usize,
    pub(super) header: FrameHeader,
    pub(super) payload: Range<usize>,
}

/// The sound frames of a segment, in the order of the file.
pub(super) fn frames(file: &Source, heading: &Heading, damage: &mut Vec<Damage>) -> Vec<FoundFrame> {
    let bytes = &file.bytes[..];
    let mark = (heading.salt as u32).to_le_bytes();
    let finder = memmem::Finder::new(&mark);
    let is_sound = |at: usize| FrameHeader::read(heading.salt, bytes.get(at..)?);
    let mut found = Vec::new();
    let mut at = heading.start;
    loop {
        while let Some((header, payload)) = is_sound(at) {
            let start = at + FRAME_HEADER;
            let payload = start..start + payload.len();
            let end = payload.end;
            found.push(FoundFrame { offset: at, header, payload });
            at = end;
        }
        let behind = bytes.get(at + 5..).unwrap_or_default();
        let next = finder.find_iter(behind).map(|mark| at + 1 + mark).find(|at| is_sound(*at).is_some());
        let Some(next) = next else {
            break;
        };
        // Without a header, it is not known where the first frame began.
        if heading.start > 0 || !found.is_empty() {
            damage.push(file.damage(at..next, "there is no sound frame of the log; it is left out"));
        }
        at = next;
    }
    let is_ended = found.last().is_some_and(|frame| frame.header.kind == FrameKind::EndOfSegment);
    if !is_ended && bytes.get(at + 4..at + 8) == Some(&mark[..]) {
        let why = "a frame begins that is not whole, damaged or torn by a power loss; it is left out";
        damage.push(file.damage_from(at, why));
    }
    if heading.header.is_none() && found.is_empty() {
        damage.push(file.damage(0..bytes.len(), "nothing sound was found in the file; it is left out"));
    }
    found
}

/// A sound block.
pub(super) struct FoundBlock {
    pub(super) offset: usize,
    pub(super) length: usize,
}

impl FoundBlock {
    pub(super) fn read<'b>(&self, file: &'b Source, salt: u64) -> Option<SoundBlock<'b>> {
        SoundBlock::read(salt, file.bytes.get(self.offset..self.offset + self.length)?, u64::MAX)
    }
}

/// The sound blocks of a checkpoint, and whether they are all of it.
pub(super) fn blocks(file: &Source, heading: &Heading, damage: &mut Vec<Damage>) -> (Vec<FoundBlock>, bool) {
    let bytes = &file.bytes[..];
    // There cannot be more blocks than have room.
    let highest = bytes.len() as u64;
    let is_sound = |at: usize| SoundBlock::read(heading.salt, bytes.get(at..)?, highest);
    let (mut found, mut numbers) = (Vec::new(), HashSet::new());
    let (mut pairs, mut end) = (0, None);
    let mut at = heading.start;
    while at < bytes.len() {
        let Some(block) = is_sound(at) else {
            let next = (at + 1..bytes.len()).find(|at| is_sound(*at).is_some());
            if heading.start > 0 || !found.is_empty() {
                let lost = at..next.unwrap_or(bytes.len());
                damage.push(file.damage(lost, "there is no sound block of pairs; it is left out"));
            }
            at = next.unwrap_or(bytes.len());
            continue;
        };
        if block.is_end {
            end = Some((block.number, block.pairs));
        } else if numbers.insert(block.number) {
            pairs += block.pairs;
        }
        found.push(FoundBlock { offset: at, length: block.length() });
        at += block.length();
    }
    let is_whole = end == Some((numbers.len() as u64, pairs)) && heading.header.is_some();
    if !is_whole && damage.is_empty() && heading.header.is_some() {
        damage.push(
            file.damage_from(bytes.len(), "blocks are missing: the file was cut off, or some were taken out"),
        );
    }
    (found, is_whole)
}
