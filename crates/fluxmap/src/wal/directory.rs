//! The directory of a database: file names, and errors that name the file.

use crate::codec::is_readable;
use crate::disk::{Disk, DiskFile, Lock, OpenMode};
use crate::error::PersistenceError;
use crate::host::Host;
use crate::wal::format::{BadHeader, FORMAT_VERSION, FileHeader, FileIdentity, FileKind, MAX_HEADER};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The newest complete checkpoint.
pub(crate) const CHECKPOINT: &str = "snapshot.db";
/// A checkpoint that is being written; worthless until it is renamed.
pub(crate) const CHECKPOINT_DRAFT: &str = "snapshot.tmp";
/// A segment that is being made; worthless until it is renamed.
pub(crate) const SEGMENT_DRAFT: &str = "wal.next";
/// This file is locked while the database is open.
const LOCK: &str = "lock";
const SEGMENT: &str = "wal.";

/// The name of a segment's file.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{SEGMENT}{number:010}")
}

/// Returns the number of the segment with this file name, if it is one.
fn segment_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix(SEGMENT)?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

/// The files of one database on a disk.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// The source of the random numbers that identify files.
    host: Host,
}

/// An open file that knows its path, for errors.
#[derive(Debug)]
pub(crate) struct NamedFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
}

type Result<T> = std::result::Result<T, PersistenceError>;

impl Directory {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf, host: Host) -> Self {
        Directory { disk, path, host }
    }

    /// Returns a random number that identifies a new file.
    pub(crate) fn random(&self) -> u64 {
        self.host.random()
    }

    /// Returns another directory on the same disk.
    pub(crate) fn sibling(&self, path: PathBuf) -> Self {
        Directory { path, ..self.clone() }
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the directory, unless it exists, and stores its resolved path.
    pub(crate) fn create(mut self) -> Result<Self> {
        self.disk.create_dir(&self.path).map_err(failed("create the directory", &self.path))?;
        self.path = self.disk.resolve(&self.path).map_err(failed("find the directory", &self.path))?;
        Ok(self)
    }

    pub(crate) fn lock(&self) -> Result<Box<dyn Lock>> {
        let path = self.path_of(LOCK);
        self.disk.lock(&path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => PersistenceError::Locked { path: self.path.clone() },
            _ => failed("lock", &path)(error),
        })
    }

    /// Locks the directory without creating anything. Returns `None` if there is no lock file, because
    /// then the database is not open, or if the file system is read-only.
    pub(crate) fn lock_if_there(&self) -> Result<Option<Box<dyn Lock>>> {
        if !self.names()?.iter().any(|name| name == LOCK) {
            return Ok(None);
        }
        match self.lock() {
            Err(PersistenceError::Io { source, .. })
                if source.kind() == io::ErrorKind::ReadOnlyFilesystem =>
            {
                Ok(None)
            }
            locked => locked.map(Some),
        }
    }

    pub(crate) fn open(&self, name: &str, mode: OpenMode) -> Result<NamedFile> {
        let path = self.path_of(name);
        let action = if mode == OpenMode::Create { "create" } else { "open" };
        let file = self.disk.open(&path, mode).map_err(failed(action, &path))?;
        Ok(NamedFile { file, path })
    }

    /// Opens a file for reading, if it exists.
    pub(crate) fn find(&self, name: &str) -> Result<Option<NamedFile>> {
        match self.open(name, OpenMode::Read) {
            Ok(file) => Ok(Some(file)),
            Err(PersistenceError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.path_of(from), self.path_of(to));
        self.disk.rename(&from, &to).map_err(failed("rename", &from))
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let path = self.path_of(name);
        self.disk.remove(&path).map_err(failed("remove", &path))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.disk.sync_dir(&self.path).map_err(failed("sync the directory", &self.path))
    }

    /// Returns the names of all files; none if the directory does not exist.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        match self.disk.list(&self.path) {
            Ok(names) => Ok(names),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed("list the directory", &self.path)(error)),
        }
    }

    /// Returns the numbers of the segments, in order.
    pub(crate) fn segments(&self) -> Result<Vec<u64>> {
        let mut numbers: Vec<u64> = self.names()?.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

impl NamedFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> Result<u64> {
        self.file.len().map_err(failed("read the length of", &self.path))
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_at(bytes, offset).map_err(|error| self.failed_at("write to", offset, error))
    }

    pub(crate) fn write_zeros(&self, at: Range<u64>) -> Result<()> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        for start in at.clone().step_by(ZEROS.len()) {
            let length = (at.end - start).min(ZEROS.len() as u64);
            self.write_at(&ZEROS[..length as usize], start)?;
        }
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync().map_err(failed("sync", &self.path))
    }

    /// Fills `buffer` from `offset` on, as far as the file reaches; returns the number of bytes read.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed_at("read from", offset + filled as u64, error)),
            }
        }
        Ok(filled)
    }

    /// Reads the header at the start of the file.
    pub(crate) fn read_header(&self, kind: FileKind) -> Result<(FileHeader, usize)> {
        let mut start = vec![0; MAX_HEADER];
        let filled = self.read_at(&mut start, 0)?;
        FileHeader::decode(kind, &start[..filled]).map_err(|bad| match bad {
            BadHeader::Damaged(what) => self.damaged(0, what),
            BadHeader::Version(found) => PersistenceError::UnsupportedFormat {
                path: self.path.clone(),
                found,
                supported: FORMAT_VERSION,
            },
        })
    }

    pub(crate) fn damaged(&self, offset: u64, what: impl Into<String>) -> PersistenceError {
        PersistenceError::Damaged { path: self.path.clone(), offset, what: what.into() }
    }

    fn failed_at(&self, action: &'static str, offset: u64, error: io::Error) -> PersistenceError {
        PersistenceError::Io {
            action,
            path: self.path.clone(),
            offset: Some(offset),
            source: Arc::new(error),
        }
    }
}

impl FileIdentity {
    /// Refuses a file that was written with other settings or types.
    pub(crate) fn expect(&self, found: &FileIdentity, path: &Path) -> Result<()> {
        let same = |what, found: String, expected: String| match found == expected {
            true => Ok(()),
            false => {
                let (found, expected) = (found.into(), expected.into());
                Err(PersistenceError::Mismatch { path: path.to_owned(), what, found, expected })
            }
        };
        same("schema version", found.schema_version.to_string(), self.schema_version.to_string())?;
        same("key type", found.key_type.clone(), self.key_type.clone())?;
        same("value type", found.value_type.clone(), self.value_type.clone())?;
        same("codec", format!("{:?}", found.codec), format!("{:?}", self.codec))
    }

    /// Refuses a file whose values would be misread, because it was written with types of these names
    /// but other fields. Files of the unpublished version 0.4 do not record the fields.
    pub(crate) fn expect_shapes(&self, found: &FileIdentity, path: &Path) -> Result<()> {
        let (Some(found), Some(expected)) = (&found.shapes, &self.shapes) else { return Ok(()) };
        let readable = |what, found: &str, expected: &str| match is_readable(found, expected) {
            true => Ok(()),
            false => {
                let (found, expected) = (found.into(), expected.into());
                Err(PersistenceError::Mismatch { path: path.to_owned(), what, found, expected })
            }
        };
        readable("key fields", &found.key, &expected.key)?;
        readable("value fields", &found.value, &expected.value)
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PersistenceError {
    move |error| PersistenceError::Io { action, path: path.to_owned(), offset: None, source: Arc::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_segments() {
        assert_eq!(segment_number(&segment_name(12)), Some(12));
        assert_eq!(segment_number(&segment_name(u64::MAX)), Some(u64::MAX));
        for name in ["wal.12", "wal.next", "wal.0000000012.bak", "wal.+000000012", "snapshot.db"] {
            assert_eq!(segment_number(name), None, "{name}");
        }
    }
}
