//! The end of the log: the place of the next frame, and the files that have not been synced.

use crate::error::PersistenceError;
use crate::process::Process;
use crate::wal::directory::NamedFile;
use crate::wal::format::{COMMIT_PREFIX, FRAME_HEADER, FrameHeader, FrameKind, Lsn, MAX_HEADER, Position};
use crate::wal::segment::Segment;
use std::collections::VecDeque;
use std::sync::Arc;

/// A commit on its way to the log: its operations, encoded.
#[derive(Debug)]
pub(crate) struct CommitRecord {
    pub(crate) lsn: Lsn,
    pub(crate) operations: Vec<u8>,
}

impl CommitRecord {
    /// Returns the bytes that the commit takes in a frame.
    pub(crate) fn size(&self) -> u64 {
        (COMMIT_PREFIX + self.operations.len()) as u64
    }

    /// Returns the size of a segment that has room for the commit.
    pub(crate) fn segment_size(&self) -> u64 {
        MAX_HEADER as u64 + self.size() + RESERVED + FRAME_HEADER as u64
    }
}

/// The largest frame, unless a single commit is larger.
const MAX_FRAME: u64 = 4 << 20;
/// Commits of at least this many bytes are not copied on their way into the log.
const LARGE: usize = 256 << 10;
/// The room for the marks that end a segment and the log.
const RESERVED: u64 = 3 * FRAME_HEADER as u64;

/// The files to sync, and the state of the log that becomes durable with them.
#[derive(Debug)]
pub(crate) struct Unsynced {
    pub(crate) files: Vec<Arc<NamedFile>>,
    pub(crate) position: Position,
    pub(crate) lsn: Lsn,
    pub(crate) bytes: u64,
}

/// The append position of the log, guarded by `Log::writer`.
#[derive(Debug)]
pub(crate) struct LogWriter {
    active: Segment,
    offset: u64,
    /// The number of the next commit.
    next: Lsn,
    /// The files with unsynced bytes, oldest first.
    unsynced: Vec<Arc<NamedFile>>,
    synced: Position,
    synced_lsn: Lsn,
    /// The bytes of commits written since the database was opened, and how many of these are synced.
    bytes: u64,
    synced_bytes: u64,
    /// Whether anything has been written since the mark that the log was closed.
    touched: bool,
    buffer: Vec<u8>,
    /// The process that opened the log.
    process: Process,
}

impl LogWriter {
    /// Continues at `offset` in `active`, after commit `last`, with everything synced. `unmarked` is set
    /// if the log does not record that it is synced.
    pub(crate) fn new(active: Segment, offset: u64, last: Lsn, unmarked: bool) -> Self {
        let synced = Position { segment: active.number, offset };
        LogWriter {
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

    /// Returns the last commit that was written.
    pub(crate) fn written(&self) -> Lsn {
        self.next - 1
    }

    pub(crate) fn synced(&self) -> Lsn {
        self.synced_lsn
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the bytes of commits that were written but not synced.
    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.bytes - self.synced_bytes
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    fn room(&self) -> u64 {
        (self.active.size).saturating_sub(self.offset + RESERVED + FRAME_HEADER as u64)
    }

    /// Writes records, in frames, as long as there is room for the next one; the rest stays in
    /// `records`.
    pub(crate) fn append(&mut self, records: &mut VecDeque<CommitRecord>) -> Result<(), PersistenceError> {
        while let Some(first) = records.front() {
            if first.size() > self.room() {
                break;
            }
            let limit = self.room().min(MAX_FRAME);
            self.begin_frame();
            let mut commits = 0;
            let mut filled = 0;
            // A large commit is written from its own buffer, in a frame of its own.
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

    /// Seals and writes the frame in the buffer, followed by `rest`.
    fn write_frame(&mut self, kind: FrameKind, commits: u32, rest: &[u8]) -> Result<(), PersistenceError> {
        // Every write to the log passes here, and beside it the system call is negligible. If two
        // processes wrote, they would overwrite each other's bytes.
        self.process.check()?;
        FrameHeader { kind, commits, first: self.next, synced: self.synced }.seal(
            self.active.salt,
            &mut self.buffer,
            rest,
        );
        let is_listed = self.unsynced.last().is_some_and(|file| Arc::ptr_eq(file, &self.active.file));
        if !is_listed {
            // List the file before the write: part of the bytes may be written even if it fails.
            self.unsynced.push(Arc::clone(&self.active.file));
        }
        self.active.file.write_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        if !rest.is_empty() {
            // Two writes are as good as one: the frame is valid only when all of it has been written.
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

    /// Marks that the log continues in the next segment, and returns the last commit.
    pub(crate) fn end_segment(&mut self) -> Result<Lsn, PersistenceError> {
        self.mark(FrameKind::EndOfSegment)?;
        Ok(self.written())
    }

    /// Continues in `segment`.
    pub(crate) fn begin_segment(&mut self, segment: Segment) {
        self.offset = segment.start;
        self.active = segment;
    }

    /// Returns the files to sync, and the state that becomes durable with them.
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

    /// Records how far the log is synced, so that damage before that position can be told from the
    /// effects of a power loss. Does nothing if the next frame will record it.
    pub(crate) fn mark_synced(&mut self) -> Result<(), PersistenceError> {
        // Commits written since the sync began will be synced too; the mark is written after that sync.
        let idle = self.unsynced.is_empty();
        if idle && self.room() > 0 { self.mark(FrameKind::Synced) } else { Ok(()) }
    }

    /// Records that everything is synced and the log ends here.
    pub(crate) fn mark_closed(&mut self) -> Result<(), PersistenceError> {
        if self.touched { self.mark(FrameKind::Closed) } else { Ok(()) }
    }
}
