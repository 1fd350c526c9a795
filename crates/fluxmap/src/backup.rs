//! New databases out of pairs: backups of open ones, and copies of files that nobody
//! has open.

use crate::checkpoint::{Draft, Pairs, Written, publish_draft, write_draft};
use crate::error::PersistenceError;
use crate::wal::directory::{CHECKPOINT, Directory};
use crate::wal::format::{Identity, Lsn};
use crate::wal::segment::{self, MIN_SIZE};

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
        let mut draft = Draft::create(directory, identity, commit, BACKUP_SEGMENT)?;
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
    let identity = Identity { database: directory.random(), ..identity.clone() };
    segment::make(directory, &identity, BACKUP_SEGMENT, MIN_SIZE, None)?;
    write(directory, &identity)?;
    publish_draft(directory)
}

fn check_is_free(directory: &Directory) -> Result<(), PersistenceError> {
    if directory.segments()?.is_empty() && directory.find(CHECKPOINT)?.is_none() {
        return Ok(());
    }
    let path = directory.path().display();
    let why = format!("there is a database in {path} already; choose another directory for the copy");
    Err(PersistenceError::Unavailable(why))
}
