//! A simulated disk, which loses, tears and reorders what was not synced, fails and
//! fills up as it is told, and can be looked at as of any call.
//!
//! It does whatever [`fluxmap::disk`] allows a disk to do, D1 to D4, and nothing that
//! it forbids: also reads that return less than was asked for, and names listed in any
//! order. All that it chooses follows from its seed and the order of the calls.
//!
//! A scripted run is tried at every instant like this:
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
//! What it assumes: a sector of 512 bytes is written whole or not at all; directories
//! are durable when they are made; a rename stays within its directory.

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

use self::image::{FileId, Image, Step};
pub use self::loss::Loss;
use self::loss::Storm;
pub use self::state::SimError;
use self::state::State;

/// A simulated disk. Clones are the same disk. See the [module](self).
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// A stall ended.
    released: Condvar,
    /// One more call is held up by a stall.
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
        Self { shared: Arc::new(Shared { state, released, arrived }) }
    }

    /// What a loss of power would leave now: a new disk on which all is durable, with
    /// no locks and no faults.
    ///
    /// Of what was not synced, each write survives whole, not at all, or in any of its
    /// sectors, in whatever order, and so does each new length. Each change of a name
    /// that was not synced survives or not; a file whose creation did not is gone.
    #[must_use]
    pub fn power_cut(&self, loss: Loss) -> Self {
        let state = self.state();
        let image = state.image.after_power_cut(&mut Storm::new(loss));
        Self::from_state(State::new(state.seed, image))
    }

    /// What the death of the process would leave now: a new disk with all that was
    /// written, with no locks and no faults. What was not synced, or is doomed by a
    /// sync that failed, is so still.
    #[must_use]
    pub fn process_death(&self) -> Self {
        let state = self.state();
        Self::from_state(State::new(state.seed, state.image.clone()))
    }

    /// An independent disk that is in the same state, with the same faults to come and
    /// the same choices to make. Files that are open, and locks, are so on the first
    /// one only; and nothing is stalled.
    #[must_use]
    pub fn deep_clone(&self) -> Self {
        let mut state = self.state().clone();
        state.open.clear();
        state.locked.clear();
        state.stalling = false;
        state.stalled = 0;
        Self::from_state(state)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in one thread of a test is no reason for others to follow.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one call, and then, in the same instant, what is left of it.
    fn call<T>(
        &self,
        step: Step<'_>,
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

    fn change(&self, step: Step<'_>) -> io::Result<()> {
        self.call(step, |_, _| Ok(()))
    }

    /// Does a call that opens or locks a file.
    fn handle(&self, step: Step<'_>) -> io::Result<Handle> {
        let file = self.call(step, |_, file| Ok(file))?;
        Ok(Handle { disk: self.clone(), file: file.expect("the call is one that opens a file") })
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("SimDisk");
        // Not worth a deadlock.
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
        self.change(Step::CreateDir(path))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let write = mode != OpenMode::Read;
        let step = if mode == OpenMode::Create { Step::Create(path) } else { Step::Open { path, write } };
        Ok(Box::new(SimFile { handle: self.handle(step)?, path: path.to_path_buf(), write }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Step::Rename { from, to })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(Step::Remove(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.call(Step::Look { call: "list", path }, |state, _| {
            let mut names = state.image.list(path)?;
            names.shuffle(&mut state.rng);
            Ok(names)
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.change(Step::SyncDir(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        Ok(Box::new(SimLock(self.handle(Step::Lock(path))?)))
    }
}

/// Keeps a file from being forgotten.
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
    /// As it was opened.
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
        let step = Step::Look { call: "len", path: &self.path };
        self.handle.disk.call(step, |state, _| Ok(state.image.content(self.handle.file).seen().len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let step = Step::Look { call: "read_at", path: &self.path };
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
        self.handle.disk.change(Step::Write { path, file, offset, bytes })
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.disk.change(Step::Sync { path: &self.path, file: self.handle.file })
    }
}
