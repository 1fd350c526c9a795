//! New databases out of pairs: backups of open ones, and copies of files that nobody
//! has open.

use crate::checkpoint::{Draft, Pairs, Written, publish_draft, write_draft};
use crate::error::PersistenceError;
use crate::wal::directory::{CHECKPOINT, CHECKPOINT_DRAFT, Directory, SEGMENT_DRAFT, segment_name};
use crate::wal::format::{Identity, Lsn};
use crate::wal::reader::SegmentReader;
use crate::wal::segment::{self, MIN_SIZE};
use std::mem;

/// The log of a backup goes on in this one: not in the first, with which a new database
/// begins. So without its checkpoint, no backup looks like a new database.
const BACKUP_SEGMENT: u64 = 2;

/// Writes the files of a new database, under a number of its own, that holds `pairs`.
/// `progress` is called after each block.
pub(crate) fn write_database(
    directory: &Directory,
    identity: &Identity,
    pairs: &mut dyn Pairs,
    progress: impl FnMut(Written),
) -> Result<(), PersistenceError> {
    create_database(directory, identity, |directory, identity| {
        write_draft(directory, identity, pairs, BACKUP_SEGMENT, progress)
    })
}

/// As [`write_database`], of pairs that come one after the other, after this commit: `write`
/// puts them into the draft.
pub(crate) fn write_database_of(
    directory: &Directory,
    identity: &Identity,
    commit: Lsn,
    write: impl FnOnce(&mut Draft) -> Result<(), PersistenceError>,
) -> Result<(), PersistenceError> {
    create_database(directory, identity, |directory, identity| {
        // The database that it will be begins with the machine's time.
        let mut draft = Draft::create(directory, identity, commit, 0, BACKUP_SEGMENT)?;
        write(&mut draft)?;
        draft.finish()
    })
}

fn create_database(
    directory: &Directory,
    identity: &Identity,
    write: impl FnOnce(&Directory, &Identity) -> Result<(), PersistenceError>,
) -> Result<(), PersistenceError> {
    // Before anything is created: it may be the directory that is being copied.
    check_is_free(directory)?;
    let directory = &directory.clone().create()?;
    let _lock = directory.lock()?;
    check_is_free(directory)?;
    let unfinished = Unfinished { directory };
    unfinished.clear_away()?;
    let identity = Identity { database: directory.random(), ..identity.clone() };
    segment::make(directory, &identity, BACKUP_SEGMENT, MIN_SIZE, None)?;
    write(directory, &identity)?;
    publish_draft(directory)?;
    unfinished.finish();
    Ok(())
}

/// A copy that is being written. Unless it is finished, whatever ends it, its files go: another
/// attempt is to find the directory, and a full disk, as this one did.
struct Unfinished<'d> {
    directory: &'d Directory,
}

impl Unfinished<'_> {
    /// Removes all that an attempt may have left. What holds pairs goes first: a crash in between
    /// leaves what [`check_is_free`] takes for an unfinished copy.
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
            tracing::warn!(%error, "files of a copy that failed stay; the next attempt replaces them");
        }
    }
}

/// Refuses a directory with a database, or with what is left of one. An unfinished copy, which a
/// process that was killed has left, is replaced: it has no checkpoint, and a log without commits
/// that begins where those of copies do.
fn check_is_free(directory: &Directory) -> Result<(), PersistenceError> {
    let path = directory.path().display();
    if directory.find(CHECKPOINT)?.is_some() {
        let why = format!("there is a database in {path} already; choose another directory for the copy");
        return Err(PersistenceError::Unavailable(why));
    }
    for number in directory.segments()? {
        if number != BACKUP_SEGMENT || !SegmentReader::open(directory, number)?.is_empty()? {
            let why = format!(
                "there are segments of a database's log in {path}, without its checkpoint; choose another directory for the copy, or look at it with `fluxmap salvage`"
            );
            return Err(PersistenceError::Unavailable(why));
        }
    }
    Ok(())
}
