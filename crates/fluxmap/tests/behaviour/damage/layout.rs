//! A second reader of the files, written from `docs/format.md` and not from the engine. It finds
//! where each part begins and ends, and derives what opening must report after damage to that part.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The bytes of all files of a database, by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A place in the log.
pub(crate) type Position = (u64, usize);

/// A frame of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) at: Position,
    pub(crate) end: usize,
    pub(crate) first: u64,
    pub(crate) commits: u32,
    pub(crate) synced: Position,
    pub(crate) kind: u8,
}

/// The expected result of opening a damaged database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// An error that names this file and this offset.
    Damaged { file: String, offset: u64 },
    /// An error that names this file as missing.
    Missing { file: String },
    /// A torn tail: everything from this offset on is cut off, which leaves the commits up to
    /// `last`.
    Cut { file: String, offset: u64, last: u64 },
    /// The commits up to `last` are there, and nothing shows that there were more. `docs/format.md`
    /// admits this gap for segments whose header does not state their length.
    Unnoticed { last: u64 },
    /// Opening finds the same content as before the damage.
    NoEffect,
}

/// The positions of all parts in the files of an undamaged database.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The segment in which the log continues after the checkpoint.
    pub(crate) log_segment: u64,
    /// The last commit that the checkpoint contains.
    pub(crate) covered: u64,
    /// The end of the header of each file.
    pub(crate) headers: BTreeMap<String, usize>,
    /// The lengths with which the segments were made, where their headers state them.
    pub(crate) made: BTreeMap<String, usize>,
    /// The beginnings of the checkpoint's header and blocks.
    pub(crate) blocks: Vec<usize>,
    /// The frames of the log after the checkpoint, in order.
    pub(crate) frames: Vec<Frame>,
}

pub(crate) const CHECKPOINT: &str = "snapshot.db";
const FRAME_HEADER: usize = 48;
const BLOCK_HEADER: usize = 24;
const END_OF_SEGMENT: u8 = 3;

pub(crate) fn segment_name(number: u64) -> String {
    format!("wal.{number:010}")
}

/// The number of the segment with this name.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    name.strip_prefix("wal.")?.parse().ok()
}

/// Reads a little-endian number of `size` bytes at an offset.
pub(crate) fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    bytes[at..at + size].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The end of a file's header, whose checksum must be right.
pub(crate) fn header_end(bytes: &[u8]) -> usize {
    let end = number(bytes, 14, 2) as usize;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..end]);
    assert_eq!(number(bytes, 8, 4), u64::from(crc), "the checksum of a header");
    end
}

impl Layout {
    pub(crate) fn read(files: &Files) -> Layout {
        let checkpoint = &files[CHECKPOINT];
        let mut headers = BTreeMap::from([(CHECKPOINT.to_string(), header_end(checkpoint))]);
        let mut blocks = vec![0, header_end(checkpoint)];
        while let Some(next) = blocks.last().filter(|at| **at < checkpoint.len()) {
            let end = next + BLOCK_HEADER + number(checkpoint, next + 4, 4) as usize;
            blocks.push(end);
        }
        assert_eq!(blocks.pop(), Some(checkpoint.len()), "the blocks fill the file");
        let mut layout = Layout {
            log_segment: number(checkpoint, 48, 8),
            covered: number(checkpoint, 40, 8),
            headers: BTreeMap::new(),
            made: BTreeMap::new(),
            blocks,
            frames: Vec::new(),
        };
        for (name, bytes) in files {
            if let Some(segment) = segment_number(name) {
                headers.insert(name.clone(), header_end(bytes));
                layout.made.insert(name.clone(), number(bytes, 48, 8) as usize);
                if segment >= layout.log_segment {
                    layout.read_frames(segment, bytes);
                }
            }
        }
        layout.headers = headers;
        layout
    }

    fn read_frames(&mut self, segment: u64, bytes: &[u8]) {
        let salt = &bytes[32..40];
        let mut at = header_end(bytes);
        while at + FRAME_HEADER <= bytes.len() && bytes[at + 4..at + 8] == salt[..4] {
            let end = at + FRAME_HEADER + number(bytes, at + 8, 4) as usize;
            let crc = crc32c::crc32c_append(crc32c::crc32c(salt), &bytes[at + 4..end]);
            assert_eq!(number(bytes, at, 4), u64::from(crc), "the checksum of a frame");
            let frame = Frame {
                at: (segment, at),
                end,
                first: number(bytes, at + 16, 8),
                commits: number(bytes, at + 12, 4) as u32,
                synced: (number(bytes, at + 24, 8), number(bytes, at + 32, 8) as usize),
                kind: bytes[at + 40],
            };
            self.frames.push(frame);
            at = end;
            if frame.kind == END_OF_SEGMENT {
                break;
            }
        }
    }

    /// The number of the last commit.
    pub(crate) fn last(&self) -> u64 {
        self.frames.last().map_or(self.covered, |frame| frame.first + u64::from(frame.commits) - 1)
    }

    /// The segment in which the log ends.
    pub(crate) fn newest(&self) -> u64 {
        match self.frames.last() {
            Some(frame) if frame.kind == END_OF_SEGMENT => frame.at.0 + 1,
            Some(frame) => frame.at.0,
            None => self.log_segment,
        }
    }

    /// Whether opening the database reads a file.
    pub(crate) fn matters(&self, file: &str) -> bool {
        file == CHECKPOINT || segment_number(file).is_some_and(|segment| segment >= self.log_segment)
    }

    /// The expected result if a byte is changed.
    pub(crate) fn on_flip(&self, file: &str, offset: usize) -> Expected {
        let damaged = |offset: usize| Expected::Damaged { file: file.to_string(), offset: offset as u64 };
        if file == CHECKPOINT {
            return damaged(self.blocks.iter().copied().rfind(|start| *start <= offset).unwrap_or(0));
        }
        if !self.matters(file) {
            return Expected::NoEffect;
        }
        if offset < self.headers[file] {
            return damaged(0);
        }
        let segment = segment_number(file);
        let hit = |frame: &Frame| Some(frame.at.0) == segment && (frame.at.1..frame.end).contains(&offset);
        self.frames.iter().position(hit).map_or(Expected::NoEffect, |lost| self.on_loss(lost, &[]))
    }

    /// The expected result if a file is truncated at `length`.
    pub(crate) fn on_truncation(&self, file: &str, length: usize) -> Expected {
        let segment = segment_number(file);
        if !self.matters(file) || file == CHECKPOINT || length < self.headers[file] {
            return self.on_flip(file, length);
        }
        if length < self.made[file] {
            return Expected::Damaged { file: file.to_string(), offset: length as u64 };
        }
        let in_file = |frame: &&Frame| Some(frame.at.0) == segment;
        let gone: Vec<usize> = (0..self.frames.len())
            .filter(|index| Some(&self.frames[*index]).filter(in_file).is_some_and(|f| f.end > length))
            .collect();
        match gone.first().map(|lost| self.on_loss(*lost, &gone)) {
            None => Expected::NoEffect,
            // Too little of the frame is left to tell it from the end of the log.
            Some(Expected::Cut { offset, last, .. }) if (length as u64) < offset + 8 => {
                if last == self.last() { Expected::NoEffect } else { Expected::Unnoticed { last } }
            }
            Some(expected) => expected,
        }
    }

    /// The expected result if the frame `lost` cannot be read, and neither can those in `gone`. It
    /// is damage if a remaining later frame says that the log was synced beyond the beginning of
    /// the lost one.
    fn on_loss(&self, lost: usize, gone: &[usize]) -> Expected {
        let frame = self.frames[lost];
        let (file, offset) = (segment_name(frame.at.0), frame.at.1 as u64);
        let later = (lost + 1..self.frames.len()).filter(|index| !gone.contains(index));
        let last = frame.first - 1;
        // A log that ends before its checkpoint has lost commits in any case.
        match later.map(|index| self.frames[index]).any(|later| later.synced > frame.at)
            || last < self.covered
        {
            true => Expected::Damaged { file, offset },
            false => Expected::Cut { file, offset, last },
        }
    }

    /// The expected result if a file is deleted.
    pub(crate) fn on_deletion(&self, file: &str) -> Expected {
        match !self.matters(file) || segment_number(file).is_some_and(|segment| segment > self.newest()) {
            true => Expected::NoEffect,
            false => Expected::Missing { file: file.to_string() },
        }
    }
}

/// The name of the file, without the directory.
pub(crate) fn file_name(path: &Path) -> String {
    PathBuf::from(path.file_name().unwrap_or_default()).display().to_string()
}
