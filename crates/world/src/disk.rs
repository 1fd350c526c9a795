//! The simulated disk of the testkit, for the engine on shuttle: each call takes time, during
//! which other tasks run.

use crate::files::LogFiles;
use fluxmap::disk::{Disk as _, OpenMode as RealMode};
use fluxmap_shuttle::disk::{Disk, DiskFile, Lock, OpenMode};
use fluxmap_testkit::disk::{SimDisk, SimError};
use rand::Rng;
use rand::rngs::StdRng;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Whether the disk of a life has failed, has been full or has stopped so far. Before that, nothing excuses an
/// error. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<AtomicBool>);

impl Faults {
    pub(crate) fn have_fired(&self) -> bool {
        // Relaxed: a world runs on one thread.
        self.0.load(Ordering::Relaxed)
    }

    fn fire(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A disk whose calls let the scheduler run other tasks.
#[derive(Clone)]
pub(crate) struct WorldDisk {
    pub(crate) sim: SimDisk,
    /// The maximum number of times that other tasks may run before a call, and after it.
    slowness: u32,
    rng: Arc<Mutex<StdRng>>,
    pub(crate) log: LogFiles,
    pub(crate) faults: Faults,
    /// Whether all calls block for ever.
    #[cfg(test)]
    stuck: Arc<AtomicBool>,
}

impl fmt::Debug for WorldDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorldDisk").field("sim", &self.sim).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct WorldFile(Box<dyn fluxmap::disk::DiskFile>, WorldDisk);

#[derive(Debug)]
struct WorldLock(#[expect(dead_code, reason = "held until it is dropped")] Box<dyn fluxmap::disk::Lock>);

impl Lock for WorldLock {}

impl WorldDisk {
    pub(crate) fn new(sim: SimDisk, slowness: u32, rng: StdRng, log: LogFiles) -> Self {
        WorldDisk {
            sim,
            slowness,
            rng: Arc::new(Mutex::new(rng)),
            log,
            faults: Faults::default(),
            #[cfg(test)]
            stuck: Arc::default(),
        }
    }

    /// Makes all calls from now on block for ever.
    #[cfg(test)]
    pub(crate) fn get_stuck(&self) {
        self.stuck.store(true, Ordering::Relaxed);
    }

    /// Lets other tasks run for a random number of turns.
    fn take_time(&self) {
        #[cfg(test)]
        while self.stuck.load(Ordering::Relaxed) {
            fluxmap_shuttle::waits::waiting("a disk that is stuck", shuttle::thread::park);
        }
        let turns = match self.slowness {
            0 => 0,
            most => self.rng.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..=most),
        };
        (0..turns).for_each(|_| shuttle::thread::yield_now());
    }

    /// Does a call, and lets other tasks run before and after it.
    fn call<T>(&self, call: impl FnOnce(&SimDisk) -> io::Result<T>) -> io::Result<T> {
        self.take_time();
        let result = call(&self.sim);
        if let Err(error) = &result {
            // Before anybody hears of it.
            match SimError::of(error) {
                Some(SimError::Injected { .. }) => {
                    self.faults.fire();
                    self.log.board.fault("failing calls");
                }
                Some(SimError::Crashed { .. }) => self.faults.fire(),
                None if error.kind() == io::ErrorKind::StorageFull => {
                    self.faults.fire();
                    self.log.board.fault("writes to full disks");
                }
                _ => {}
            }
        }
        self.take_time();
        result
    }
}

impl Disk for WorldDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.call(|sim| sim.create_dir(path))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mode = match mode {
            OpenMode::Read => RealMode::Read,
            OpenMode::Write => RealMode::Write,
            OpenMode::Create => RealMode::Create,
        };
        let file = self.call(|sim| sim.open(path, mode))?;
        Ok(Box::new(WorldFile(file, self.clone())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(|sim| {
            let renamed = sim.rename(from, to);
            self.log.renamed(sim, from, Some(to), renamed.is_ok());
            renamed
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(|sim| {
            let removed = sim.remove(path);
            self.log.renamed(sim, path, None, removed.is_ok());
            removed
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.call(|sim| sim.list(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.call(|sim| sim.sync_dir(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        Ok(Box::new(WorldLock(self.call(|sim| sim.lock(path))?)))
    }
}

impl DiskFile for WorldFile {
    fn len(&self) -> io::Result<u64> {
        self.1.call(|_| self.0.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.call(|_| self.0.read_at(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.1.call(|_| self.0.write_at(bytes, offset))
    }

    fn sync(&self) -> io::Result<()> {
        self.1.call(|_| self.0.sync())
    }
}
