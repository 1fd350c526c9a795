//! Segments: files of the log, made ahead of their use, and used again.
//!
//! A segment's file is zero-filled (or left as its last use left it) and has its
//! header synced *before* it gets its name. So a file with a segment's name has a
//! sound header, whatever happened; and appending to it changes no metadata, which
//! makes syncing cheap.

use crate::disk::OpenMode;
use crate::error::PersistenceError;
use crate::wal::directory::{Directory, NamedFile, SEGMENT_DRAFT, segment_name};
use crate::wal::format::{FileHeader, FileKind, Identity, MAX_HEADER};
use fluxmap_index::planted;
use std::sync::Arc;

/// A segment that can be written to.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    /// Where its header ends.
    pub(crate) start: u64,
    /// How much of it is meant to be used.
    pub(crate) size: u64,
    pub(crate) file: Arc<NamedFile>,
}

/// Makes segment `number` under its name, durably: out of `recycled`, a segment that
/// is needed no more, or from nothing. A crash in between leaves at most a draft.
pub(crate) fn make(
    directory: &Directory,
    identity: &Identity,
    number: u64,
    size: u64,
    recycled: Option<u64>,
) -> Result<Segment, PersistenceError> {
    let made = make_draft_first(directory, identity, number, size, recycled);
    if made.is_err() {
        // It may be all that a full disk has room for. If it stays, it does no harm.
        let _ = directory.remove(SEGMENT_DRAFT);
    }
    made
}

fn make_draft_first(
    directory: &Directory,
    identity: &Identity,
    number: u64,
    size: u64,
    recycled: Option<u64>,
) -> Result<Segment, PersistenceError> {
    if let Some(old) = recycled {
        directory.rename(&segment_name(old), SEGMENT_DRAFT)?;
        // Before its header changes: under its old name the new one would be damage.
        directory.sync()?;
    }
    let mode = if recycled.is_some() { OpenMode::Write } else { OpenMode::Create };
    let mut draft = directory.open(SEGMENT_DRAFT, mode)?;
    if draft.len()? > size {
        // A large commit had made it longer.
        draft = directory.open(SEGMENT_DRAFT, OpenMode::Create)?;
    }
    let salt = if planted("same-salt") { 1 } else { directory.random() };
    let filled = draft.len()?;
    let identity = identity.clone();
    let header =
        FileHeader { kind: FileKind::Segment, identity, salt, number, detail: size, time: 0 }.encode();
    draft.write_at(&header, 0)?;
    draft.write_zeros(filled.max(header.len() as u64)..size)?;
    if !planted("segment-draft-unsynced") {
        draft.sync()?;
    }
    drop(draft);
    let name = segment_name(number);
    directory.rename(SEGMENT_DRAFT, &name)?;
    if !planted("segment-directory-unsynced") {
        directory.sync()?;
    }
    let file = Arc::new(directory.open(&name, OpenMode::Write)?);
    Ok(Segment { number, salt, start: header.len() as u64, size, file })
}

/// The smallest segment: it takes a header and some commits.
pub(crate) const MIN_SIZE: u64 = 4096;
const _: () = assert!(MIN_SIZE > MAX_HEADER as u64 + 512);

/// The largest: they are made whole.
pub(crate) const MAX_SIZE: u64 = 1 << 30;
