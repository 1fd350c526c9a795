//! Creates new databases from pairs: backups of open databases, and copies of the files of closed ones.

use crate::checkpoint::{Draft, PairSource, Written, publish_draft, write_draft};
use crate::error::PersistenceError;
use crate::wal::directory::{CHECKPOINT, CHECKPOINT_DRAFT, Directory, SEGMENT_DRAFT, segment_name};
use crate::wal::format::{FileIdentity, Lsn};
use crate::wal::reader::SegmentReader;
use crate::wal::segment::{self, MIN_SIZE};
use std::mem;

/// The log of a backup begins in this segment, not in the first one, with which a new database begins.
/// So a backup that lost its checkpoint cannot be mistaken for a new database.
const BACKUP_SEGMENT: u64 = 2;

/// Writes the files of a new database that holds `pairs`, under a number of its own. `progress` is
/// called after each block.
pub(crate) fn write_database(
    directory: &Directory,
    identity: &FileIdentity,
    pairs: &mut dyn PairSource,
    progress: impl FnMut(Written),
) -> Result<(), PersistenceError> {
    create_database(directory, identity, |directory, identity| {
        write_draft(directory, identity, pairs, BACKUP_SEGMENT, progress)
    })
}

/// Like [`write_database`], for pairs that `write` puts into the draft one after the other; they are the
/// state after this commit.
pub(crate) fn write_database_of(
    directory: &Directory,
    identity: &FileIdentity,
    commit: Lsn,
    write: impl FnOnce(&mut Draft) -> Result<(), PersistenceError>,
) -> Result<(), PersistenceError> {
    create_database(directory, identity, |directory, identity| {
        // Time 0: the new database begins with the machine's time.
        let mut draft = Draft::create(directory, identity, commit, 0, BACKUP_SEGMENT)?;
        write(&mut draft)?;
        draft.finish()
    })
}

fn create_database(
    directory: &Directory,
    identity: &FileIdentity,
    write: impl FnOnce(&Directory, &FileIdentity) -> Result<(), PersistenceError>,
) -> Result<(), PersistenceError> {
    // Check before anything is created: the directory may be the one that is being copied.
    check_is_free(directory)?;
    let directory = &directory.clone().create()?;
    let _lock = directory.lock()?;
    check_is_free(directory)?;
    let unfinished = Unfinished { directory };
    unfinished.clear_away()?;
    let identity = FileIdentity { database: directory.random(), ..identity.clone() };
    segment::make(directory, &identity, BACKUP_SEGMENT, MIN_SIZE, None)?;
    write(directory, &identity)?;
    publish_draft(directory)?;
    unfinished.finish();
    Ok(())
}

/// A copy that is being written. Unless it is finished, dropping this removes its files, so that the
/// next attempt finds the directory, and a full disk, as this one did.
struct Unfinished<'d> {
    directory: &'d Directory,
}

impl Unfinished<'_> {
    /// Removes all files that an attempt may have left. The files that hold pairs go first, so that a
    /// crash in between leaves only what [`check_is_free`] takes for an unfinished copy.
    fn clear_away(&self) -> Result<(), PersistenceError> {
        let names = self.directory.names()?;
        let segment = segment_name(BACKUP_SEGMENT);
        for name in [CHECKPOINT, CHECKPOINT_DRAFT, SEGMENT_DRAFT, &segment] {
            if names.iter().any(|there| there == name) {
                self.directory.remove(name)?;
            }
        }
        self.directory.sync()
    }

    fn finish(self) {
        mem::forget(self);
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.clear_away() {
            tracing::warn!(%error, "files of a failed copy could not be removed; the next attempt replaces them");
        }
    }
}

/// Refuses a directory with a database, or with the remains of one. An unfinished copy left by a process
/// that was killed is accepted and replaced: it has no checkpoint, and a log without commits that begins
/// in the segment where logs of copies do.
fn check_is_free(directory: &Directory) -> Result<(), PersistenceError> {
    let path = directory.path().display();
    if directory.find(CHECKPOINT)?.is_some() {
        let why = format!("there is a database in {path} already; choose another directory for the copy");
        return Err(PersistenceError::Unavailable(why));
    }
    for number in directory.segments()? {
        if number != BACKUP_SEGMENT || !SegmentReader::open(directory, number)?.is_empty()? {
            let why = format!(
                "there are segments of a database's log in {path}, without its checkpoint; choose another directory for the copy, or rescue the log with `fluxmap salvage`"
            );
            return Err(PersistenceError::Unavailable(why));
        }
    }
    Ok(())
}
