//! The interface to the disk: a dozen calls.
//!
//! All file access goes through [`Disk`], so that a test can use a disk that loses, tears and reorders
//! unsynced data, or fails. [`OsDisk`] is the real one, and the default.
//!
//! The store relies on the following guarantees, which every implementation must give:
//!
//! - **D1.** Bytes written to a file before a [`sync`](DiskFile::sync) of it returned are there after a
//!   power loss. An unsynced write may survive whole, in parts, or not at all, and writes may survive in
//!   any order.
//! - **D2.** A file that was created, renamed or removed before a [`sync_dir`](Disk::sync_dir) of its
//!   directory returned is in that state after a power loss. Before that, each of these may or may not
//!   have happened; a rename replaces its target in one step.
//! - **D3.** The death of the process alone undoes nothing.
//! - **D4.** A lock ends when the value that [`lock`](Disk::lock) returned is dropped, or with the
//!   process.

use crate::process::Process;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// To read an existing file.
    Read,
    /// To read and write an existing file.
    Write,
    /// To read and write a new, empty file; an existing file is emptied.
    Create,
}

/// A place for files. See the [module](self) for the guarantees that it must give.
pub trait Disk: Debug + Send + Sync {
    /// Creates a directory and its parents, unless they exist, durably: a power loss after this has
    /// returned leaves them in place.
    ///
    /// # Errors
    ///
    /// Errors of the system.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Returns the path by which the directory can be found from now on, even if the working directory
    /// or links on the way change.
    ///
    /// # Errors
    ///
    /// Errors of the system; [`io::ErrorKind::NotFound`] if there is no such directory.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// Errors of the system; [`io::ErrorKind::NotFound`] if the file must exist and does not.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file in one step, replacing a file of the new name.
    ///
    /// # Errors
    ///
    /// Errors of the system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// Errors of the system.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Returns the names of the files in a directory, in any order.
    ///
    /// # Errors
    ///
    /// Errors of the system; [`io::ErrorKind::NotFound`] if there is no such directory.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Makes all creations, renames and removals in a directory durable.
    ///
    /// # Errors
    ///
    /// Errors of the system.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Locks a file, which is created if need be, for as long as the returned value lives.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] at once if the lock is held elsewhere, in this process or another;
    /// otherwise errors of the system.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
}

/// A lock that is held until this is dropped.
pub trait Lock: Debug + Send + Sync {}

/// An open file.
pub trait DiskFile: Debug + Send + Sync {
    /// Returns the length of the file in bytes.
    ///
    /// # Errors
    ///
    /// Errors of the system.
    fn len(&self) -> io::Result<u64>;

    /// Returns whether the file has no bytes.
    ///
    /// # Errors
    ///
    /// Errors of the system.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads into `buffer` from a position, and returns the number of bytes read: possibly fewer than
    /// asked for, but none only at the end of the file.
    ///
    /// # Errors
    ///
    /// Errors of the system.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at a position, and extends the file if need be.
    ///
    /// # Errors
    ///
    /// Errors of the system. Some of the bytes may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes all written bytes and the length durable.
    ///
    /// # Errors
    ///
    /// Errors of the system. Earlier writes are then in doubt for good: a second call that succeeds
    /// proves nothing.
    fn sync(&self) -> io::Result<()>;
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

#[derive(Debug)]
struct OsFile(File);

/// Unlocked when this is dropped, and by the system when the process ends.
#[derive(Debug)]
struct OsLock {
    file: File,
    /// The process that took the lock.
    process: Process,
}

impl OsLock {
    fn new(file: File) -> Self {
        OsLock { file, process: Process::this() }
    }
}

impl Lock for OsLock {}

impl Drop for OsLock {
    fn drop(&mut self) {
        if !self.process.is_this() {
            // A fork shares the lock, and would release it for both processes.
            return;
        }
        // Unlock explicitly: closing the file is not enough. Another thread may be starting a process,
        // which shares all files of this one until it runs its own program.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "a database's lock could not be released");
        }
    }
}

impl Disk for OsDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        create_dir(path, &|parent| self.sync_dir(parent))
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::Write => options.write(true),
            OpenMode::Create => options.write(true).create(true).truncate(true),
        };
        Ok(Box::new(OsFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            // A name that is not UTF-8 is no file of a database.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    #[cfg(unix)]
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Other systems cannot sync directories; the journal of the file system has to do.
    #[cfg(not(unix))]
    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path);
        let file = match file {
            // Reading a database must not need the permission to change it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path)?,
            other => other?,
        };
        match file.try_lock() {
            Ok(()) => Ok(Box::new(OsLock::new(file))),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Creates a directory and its parents, and makes each durable with `sync_dir`.
fn create_dir(path: &Path, sync_dir: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_dir(parent, sync_dir)?;
    match fs::create_dir(path) {
        // Another process or thread created it first.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    sync_dir(parent).map_err(|error| {
        // Remove the directory: if it stayed, the next attempt would take it for durable. If others have
        // put files into it, it stays, and the error is the same.
        let _ = fs::remove_dir(path);
        // The failed call is not the one that the caller made, and concerns another directory: say so.
        let what = format!("the directory {} cannot be synced: {error}", parent.display());
        io::Error::new(error.kind(), what)
    })
}

impl DiskFile for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    #[cfg(unix)]
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.0, buffer, offset)
    }

    #[cfg(unix)]
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(&self.0, buffer, offset)
    }

    #[cfg(windows)]
    fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match std::os::windows::fs::FileExt::seek_write(&self.0, bytes, offset)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
            }
        }
        Ok(())
    }

    /// Platforms without files, such as browsers.
    #[cfg(not(any(unix, windows)))]
    fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[cfg(not(any(unix, windows)))]
    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        // `fdatasync`: contents and length; times do not matter here.
        self.0.sync_data()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn a_directory_whose_parent_cannot_be_synced_is_not_there_and_the_error_says_which() {
        let root = std::env::temp_dir().join(format!("fluxmap-parent-{}", std::process::id()));
        fs::create_dir(&root).expect("a directory");
        let (parent, path) = (root.join("a"), root.join("a/b"));
        let sync = |fails: bool| {
            let parent = parent.clone();
            move |synced: &Path| match fails && synced == parent {
                true => Err(io::Error::from_raw_os_error(22)),
                false => OsDisk.sync_dir(synced),
            }
        };
        for _ in 0..2 {
            let error = create_dir(&path, &sync(true)).expect_err("the parent cannot be synced");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            let expected = format!("the directory {} cannot be synced: ", parent.display());
            assert!(error.to_string().starts_with(&expected), "{error}");
            assert!(!path.exists(), "the next attempt must not take it for durable");
        }
        create_dir(&path, &sync(false)).expect("all can be synced");
        assert!(path.is_dir());
        fs::remove_dir_all(&root).expect("it is there");
    }

    #[test]
    fn a_fork_does_not_release_the_lock_of_its_parent() {
        let path = std::env::temp_dir().join(format!("fluxmap-fork-{}", std::process::id()));
        let lock = OsLock::new(File::create(&path).expect("a file"));
        lock.file.try_lock().expect("nobody else has it");
        let parents = lock.file.try_clone().expect("one more descriptor of the same file");
        crate::sync::PRETENDED.set(Some(std::process::id().wrapping_add(1)));
        drop(lock);
        crate::sync::PRETENDED.set(None);
        assert_eq!(OsDisk.lock(&path).err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        drop(parents);
        assert!(OsDisk.lock(&path).is_ok());
        std::fs::remove_file(path).expect("it is there");
    }

    #[test]
    fn a_lock_ends_even_if_a_process_that_is_being_started_has_its_file() {
        let path = std::env::temp_dir().join(format!("fluxmap-lock-{}", std::process::id()));
        let lock = OsLock::new(File::create(&path).expect("a file"));
        lock.file.try_lock().expect("nobody else has it");
        let inherited = lock.file.try_clone().expect("one more descriptor of the same file");
        assert_eq!(OsDisk.lock(&path).err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        drop(lock);
        assert!(OsDisk.lock(&path).is_ok());
        drop(inherited);
        std::fs::remove_file(path).expect("it is there");
    }
}
