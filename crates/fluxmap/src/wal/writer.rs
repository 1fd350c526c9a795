//! The end of the log: where the next frame goes, and what has not been synced.

use crate::error::PersistenceError;
use crate::process::Process;
use crate::wal::directory::NamedFile;
use crate::wal::format::{COMMIT_PREFIX, FRAME_HEADER, FrameHeader, FrameKind, Lsn, MAX_HEADER, Position};
use crate::wal::segment::Segment;
use std::collections::VecDeque;
use std::sync::Arc;

/// A commit on its way to the log: its operations, encoded.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) lsn: Lsn,
    pub(crate) operations: Vec<u8>,
}

impl Record {
    /// What it takes in a frame.
    pub(crate) fn size(&self) -> u64 {
        (COMMIT_PREFIX + self.operations.len()) as u64
    }

    /// How large a segment must be that it has room in.
    pub(crate) fn segment_size(&self) -> u64 {
        MAX_HEADER as u64 + self.size() + RESERVED + FRAME_HEADER as u64
    }
}

/// Frames are not made larger than this, unless a single commit is.
const MAX_FRAME: u64 = 4 << 20;
/// Commits of at least so many bytes are not copied on their way into the log.
const LARGE: usize = 256 << 10;
/// Room for the marks that end a segment and the log.
const RESERVED: u64 = 3 * FRAME_HEADER as u64;

/// What a sync will make durable.
#[derive(Debug)]
pub(crate) struct Unsynced {
    pub(crate) files: Vec<Arc<NamedFile>>,
    pub(crate) position: Position,
    pub(crate) lsn: Lsn,
    pub(crate) bytes: u64,
}

/// Who holds it, behind its lock, appends to the log.
#[derive(Debug)]
pub(crate) struct Writer {
    active: Segment,
    offset: u64,
    /// Of the next commit.
    next: Lsn,
    /// Files with something that has not been synced, oldest first.
    unsynced: Vec<Arc<NamedFile>>,
    synced: Position,
    synced_lsn: Lsn,
    /// Bytes of commits written since the database was opened, and synced of them.
    bytes: u64,
    synced_bytes: u64,
    /// Whether anything has been written since the log said that it was closed.
    touched: bool,
    buffer: Vec<u8>,
    /// The process that opened the log.
    process: Process,
}

impl Writer {
    /// Goes on at `offset` in `active`, after commit `last`, with everything synced;
    /// `unmarked` if the log does not say so.
    pub(crate) fn new(active: Segment, offset: u64, last: Lsn, unmarked: bool) -> Self {
        let synced = Position { segment: active.number, offset };
        Writer {
            active,
            offset,
            next: last + 1,
            unsynced: Vec::new(),
            synced,
            synced_lsn: last,
            bytes: 0,
            synced_bytes: 0,
            touched: unmarked,
            buffer: Vec::new(),
            process: Process::this(),
        }
    }

    pub(crate) fn active(&self) -> u64 {
        self.active.number
    }

    /// The last commit that was written.
    pub(crate) fn written(&self) -> Lsn {
        self.next - 1
    }

    pub(crate) fn synced(&self) -> Lsn {
        self.synced_lsn
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of commits that were written and not synced.
    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.bytes - self.synced_bytes
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    fn room(&self) -> u64 {
        (self.active.size).saturating_sub(self.offset + RESERVED + FRAME_HEADER as u64)
    }

    /// Writes records, in frames, as long as there is room for the next; what is left
    /// stays in `records`.
    pub(crate) fn append(&mut self, records: &mut VecDeque<Record>) -> Result<(), PersistenceError> {
        while let Some(first) = records.front() {
            if first.size() > self.room() {
                break;
            }
            let limit = self.room().min(MAX_FRAME);
            self.begin_frame();
            let mut commits = 0;
            let mut filled = 0;
            // A large commit is written from where it is, in a frame of its own.
            let mut large = Vec::new();
            while let Some(record) = records.front() {
                let is_large = record.operations.len() >= LARGE;
                if commits > 0 && (is_large || filled + record.size() > limit) {
                    break;
                }
                debug_assert_eq!(record.lsn, self.next + u64::from(commits), "the log is in commit order");
                filled += record.size();
                commits += 1;
                self.buffer.extend((record.operations.len() as u32).to_le_bytes());
                let operations = records.pop_front().map(|record| record.operations).unwrap_or_default();
                if is_large {
                    large = operations;
                    break;
                }
                self.buffer.extend(&operations);
            }
            self.write_frame(FrameKind::Commits, commits, &large)?;
            self.bytes += filled;
        }
        Ok(())
    }

    fn begin_frame(&mut self) {
        self.buffer.clear();
        self.buffer.resize(FRAME_HEADER, 0);
    }

    /// Writes a frame without commits.
    fn mark(&mut self, kind: FrameKind) -> Result<(), PersistenceError> {
        self.begin_frame();
        self.write_frame(kind, 0, &[])
    }

    /// Seals and writes what is in the buffer, and then `rest`.
    fn write_frame(&mut self, kind: FrameKind, commits: u32, rest: &[u8]) -> Result<(), PersistenceError> {
        // Everything that is written to the log passes here, and beside the write the system call
        // is nothing. Bytes of two processes would overwrite each other.
        self.process.check()?;
        FrameHeader { kind, commits, first: self.next, synced: self.synced }.seal(
            self.active.salt,
            &mut self.buffer,
            rest,
        );
        let is_listed = self.unsynced.last().is_some_and(|file| Arc::ptr_eq(file, &self.active.file));
        if !is_listed {
            // Before the write: part of it may be there even if it fails.
            self.unsynced.push(Arc::clone(&self.active.file));
        }
        self.active.file.write_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        if !rest.is_empty() {
            // One after the other is as good as both at once: the frame counts when all of
            // it is there.
            self.active.file.write_at(rest, self.offset)?;
            self.offset += rest.len() as u64;
        }
        self.next += u64::from(commits);
        self.touched = true;
        if self.buffer.capacity() as u64 > 2 * MAX_FRAME {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Says that the log goes on in the next segment, and returns the last commit.
    pub(crate) fn end_segment(&mut self) -> Result<Lsn, PersistenceError> {
        self.mark(FrameKind::EndOfSegment)?;
        Ok(self.written())
    }

    /// Goes on in `segment`.
    pub(crate) fn begin_segment(&mut self, segment: Segment) {
        self.offset = segment.start;
        self.active = segment;
    }

    /// What is to be synced, and what that will have made durable.
    pub(crate) fn begin_sync(&mut self) -> Unsynced {
        Unsynced {
            files: std::mem::take(&mut self.unsynced),
            position: Position { segment: self.active.number, offset: self.offset },
            lsn: self.written(),
            bytes: self.bytes,
        }
    }

    pub(crate) fn end_sync(&mut self, done: &Unsynced) {
        self.synced = done.position;
        self.synced_lsn = done.lsn;
        self.synced_bytes = done.bytes;
    }

    /// Writes down how far the log is synced, so that damage before that can be told
    /// from what a power loss leaves; unless the next frame will say it.
    pub(crate) fn mark_synced(&mut self) -> Result<(), PersistenceError> {
        // What was written since the sync began will be synced, too: the mark follows that.
        let idle = self.unsynced.is_empty();
        if idle && self.room() > 0 { self.mark(FrameKind::Synced) } else { Ok(()) }
    }

    /// Writes down that everything is synced and the log ends here.
    pub(crate) fn mark_closed(&mut self) -> Result<(), PersistenceError> {
        if self.touched { self.mark(FrameKind::Closed) } else { Ok(()) }
    }
}
