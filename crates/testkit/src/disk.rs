//! A simulated disk. It loses, tears and reorders unsynced changes, fails and fills up on demand, and
//! lets a test inspect its state at any call.
//!
//! The disk does everything that the contract in [`fluxmap::disk`] (D1 to D4) allows, and nothing
//! that it forbids. For example, a read may return less than was asked for, and names are listed in
//! any order. All choices of the disk follow from its seed and the order of the calls.
//!
//! A test crashes a scripted run at every call like this:
//!
//! ```
//! use std::path::Path;
//! use fluxmap::disk::{Disk, OpenMode};
//! use fluxmap_testkit::disk::{Loss, SimDisk};
//!
//! fn script(disk: &SimDisk) -> std::io::Result<()> {
//!     disk.create_dir(Path::new("db"))?;
//!     let file = disk.open(Path::new("db/log"), OpenMode::Create)?;
//!     file.write_at(b"hello", 0)?;
//!     file.sync()?;
//!     disk.sync_dir(Path::new("db"))
//! }
//!
//! let disk = SimDisk::new(1);
//! script(&disk)?;
//! for call in 1..=disk.calls() {
//!     let disk = SimDisk::new(1);
//!     disk.crash_at(call);
//!     assert!(script(&disk).is_err());
//!     for frozen in [disk.frozen(), disk.frozen_midway()].into_iter().flatten() {
//!         for loss in [Loss::Everything, Loss::Nothing, Loss::Random(call)] {
//!             let left = frozen.power_cut(loss);
//!             assert!(left.files().len() <= 1, "{:?}", disk.trace());
//!         }
//!     }
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The disk makes three assumptions: a sector of 512 bytes is written whole or not at all; a
//! directory is durable as soon as it is created; a rename stays within its directory.

mod content;
mod damage;
mod faults;
mod image;
mod loss;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use fluxmap::disk::{Disk, DiskFile, Lock, OpenMode};
use rand::Rng;
use rand::seq::SliceRandom;

use self::image::{DiskStep, FileId, Image};
pub use self::loss::Loss;
use self::loss::Storm;
pub use self::state::SimError;
use self::state::State;

/// A simulated disk. Clones are the same disk. See the [module](self).
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<DiskShared>,
}

struct DiskShared {
    state: Mutex<State>,
    /// Signalled when a stall ends.
    released: Condvar,
    /// Signalled when one more call is held up by a stall.
    arrived: Condvar,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::from_state(State::new(seed, Image::default()))
    }

    fn from_state(state: State) -> Self {
        let (state, released, arrived) = (Mutex::new(state), Condvar::new(), Condvar::new());
        Self { shared: Arc::new(DiskShared { state, released, arrived }) }
    }

    /// The disk after a loss of power now: a new disk on which everything is durable, with no locks
    /// and no faults.
    ///
    /// An unsynced write survives whole, not at all, or in any subset of its sectors, independently of
    /// the writes before it; so does a new length. An unsynced change of a name survives or is lost. A
    /// file whose creation is lost is gone.
    #[must_use]
    pub fn power_cut(&self, loss: Loss) -> Self {
        let state = self.state();
        let image = state.image.after_power_cut(&mut Storm::new(loss));
        Self::from_state(State::new(state.seed, image))
    }

    /// The disk after the death of the process now: a new disk with all that was written, with no
    /// locks and no faults. Changes that were unsynced stay unsynced, and changes that a failed sync
    /// has doomed stay doomed.
    #[must_use]
    pub fn process_death(&self) -> Self {
        let state = self.state();
        Self::from_state(State::new(state.seed, state.image.clone()))
    }

    /// An independent disk in the same state, with the same planned faults and the same random choices
    /// to come. Open files and locks belong to the original disk only, and the copy is not stalled.
    #[must_use]
    pub fn deep_clone(&self) -> Self {
        let mut state = self.state().clone();
        state.open.clear();
        state.locked.clear();
        state.stalling = false;
        state.simulated = false;
        state.stalled = 0;
        Self::from_state(state)
    }

    /// The disk as one of a simulation, in which [`stall`](Self::stall) is refused.
    pub(crate) fn simulated(self) -> Self {
        self.state().simulated = true;
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Ignore poisoning: a panic in one thread of a test must not make the others panic, too.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one call, and then `rest` under the same lock. Waits first if the disk is stalled.
    fn call<T>(
        &self,
        step: DiskStep<'_>,
        rest: impl FnOnce(&mut State, Option<FileId>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state();
        if step.stalls() && state.stalling {
            state.stalled += 1;
            self.shared.arrived.notify_all();
            let held = self.shared.released.wait_while(state, |state| state.stalling);
            state = held.unwrap_or_else(PoisonError::into_inner);
            state.stalled -= 1;
        }
        let file = state.run(step)?;
        rest(&mut state, file)
    }

    fn change(&self, step: DiskStep<'_>) -> io::Result<()> {
        self.call(step, |_, _| Ok(()))
    }

    /// Does a call that opens or locks a file, and returns a handle to the file.
    fn handle(&self, step: DiskStep<'_>) -> io::Result<Handle> {
        let file = self.call(step, |_, file| Ok(file))?;
        Ok(Handle { disk: self.clone(), file: file.expect("the call is one that opens a file") })
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("SimDisk");
        // Do not wait for the lock: the thread that prints may hold it.
        let Ok(mut state) = self.shared.state.try_lock() else { return shown.finish_non_exhaustive() };
        let names = state.image.names().clone();
        let mut files = Vec::new();
        for (path, file) in names {
            let content = state.image.content(file);
            let (length, unsynced) = (content.seen().len(), content.unsynced());
            files.push(format!("{}: {length} bytes, {unsynced} changes not synced", path.display()));
        }
        shown
            .field("seed", &state.seed)
            .field("calls", &state.calls)
            .field("files", &files)
            .field("locks", &state.locked.len())
            .field("stalled", &state.stalled)
            .field("read_only", &state.read_only)
            .field("capacity", &state.capacity)
            .field("failures", &state.failures)
            .field("crash_at", &state.crash_at)
            .finish_non_exhaustive()
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change(DiskStep::CreateDir(path))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let write = mode != OpenMode::Read;
        let step =
            if mode == OpenMode::Create { DiskStep::Create(path) } else { DiskStep::Open { path, write } };
        Ok(Box::new(SimFile { handle: self.handle(step)?, path: path.to_path_buf(), write }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(DiskStep::Rename { from, to })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(DiskStep::Remove(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.call(DiskStep::Look { call: "list", path }, |state, _| {
            let mut names = state.image.list(path)?;
            names.shuffle(&mut state.rng);
            Ok(names)
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.change(DiskStep::SyncDir(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        Ok(Box::new(SimLock(self.handle(DiskStep::Lock(path))?)))
    }
}

/// Counts as one user of an open file. The disk keeps a file without a name while it has handles.
struct Handle {
    disk: SimDisk,
    file: FileId,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.disk.state().close(self.file);
    }
}

struct SimFile {
    handle: Handle,
    /// The path by which the file was opened.
    path: PathBuf,
    write: bool,
}

struct SimLock(Handle);

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.disk.state().locked.remove(&self.0.file);
    }
}

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimLock").field(&self.0.file).finish()
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let step = DiskStep::Look { call: "len", path: &self.path };
        self.handle.disk.call(step, |state, _| Ok(state.image.content(self.handle.file).seen().len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let step = DiskStep::Look { call: "read_at", path: &self.path };
        self.handle.disk.call(step, |state, _| {
            let seen = state.image.content(self.handle.file).seen();
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(seen.len());
            let mut length = buffer.len().min(seen.len() - start);
            if length > 1 && state.rng.random_ratio(1, 4) {
                length = state.rng.random_range(1..length);
            }
            buffer[..length].copy_from_slice(&seen[start..start + length]);
            Ok(length)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.write {
            let why = "the file was opened to be read only";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let (path, file) = (self.path.as_path(), self.handle.file);
        self.handle.disk.change(DiskStep::Write { path, file, offset, bytes })
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.disk.change(DiskStep::Sync { path: &self.path, file: self.handle.file })
    }
}
