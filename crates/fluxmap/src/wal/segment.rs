//! Segments: files of the log, made in advance and reused.
//!
//! A segment's file is filled with zeros (or with the bytes of its last use) and its header is synced
//! *before* the file gets its name. So a file with a segment's name has a sound header, whatever
//! happens, and appending to it changes no metadata, which makes syncing cheap.

use crate::disk::OpenMode;
use crate::error::PersistenceError;
use crate::wal::directory::{Directory, NamedFile, SEGMENT_DRAFT, segment_name};
use crate::wal::format::{FileHeader, FileIdentity, FileKind, MAX_HEADER};
use fluxmap_index::planted;
use std::sync::Arc;

/// A segment that can be written to.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    /// The offset at which its header ends.
    pub(crate) start: u64,
    /// The number of bytes that the log uses of it.
    pub(crate) size: u64,
    pub(crate) file: Arc<NamedFile>,
}

/// Makes segment `number` under its name, durably: from the file of `recycled`, a segment that is not
/// needed any more, or from nothing. A crash in between leaves at most a draft.
pub(crate) fn make(
    directory: &Directory,
    identity: &FileIdentity,
    number: u64,
    size: u64,
    recycled: Option<u64>,
) -> Result<Segment, PersistenceError> {
    let made = make_draft_first(directory, identity, number, size, recycled);
    if made.is_err() {
        // The draft may take all the room that a full disk has left. If it cannot be removed, it does no
        // harm.
        let _ = directory.remove(SEGMENT_DRAFT);
    }
    made
}

fn make_draft_first(
    directory: &Directory,
    identity: &FileIdentity,
    number: u64,
    size: u64,
    recycled: Option<u64>,
) -> Result<Segment, PersistenceError> {
    if let Some(old) = recycled {
        directory.rename(&segment_name(old), SEGMENT_DRAFT)?;
        // Sync the rename before the header changes: under the old name, the new header would look like
        // damage.
        directory.sync()?;
    }
    let mode = if recycled.is_some() { OpenMode::Write } else { OpenMode::Create };
    let mut draft = directory.open(SEGMENT_DRAFT, mode)?;
    if draft.len()? > size {
        // A large commit had made the file longer: start with an empty one.
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

/// The smallest segment. It has room for a header and some commits.
pub(crate) const MIN_SIZE: u64 = 4096;
const _: () = assert!(MIN_SIZE > MAX_HEADER as u64 + 512);

/// The largest segment. A segment's file is written in full when it is made.
pub(crate) const MAX_SIZE: u64 = 1 << 30;
