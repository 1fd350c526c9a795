//! Helpers of the models: a function that explores a model, and a disk in memory that can return, at any
//! moment, the state that a power loss would leave.

#![allow(dead_code, unreachable_pub)]

use fluxmap_shuttle::disk::{Disk, DiskFile, Lock, OpenMode};
use fluxmap_shuttle::persistence::PersistenceOptions;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner, thread};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The stack size of each thread of a model. An atomic of shuttle takes a hundred bytes or more, and
/// opening a database puts several hundred of them on the stack, so that shuttle's default of 60 KiB
/// would overflow.
const STACK: usize = 256 << 10;

/// Runs a model under this many schedules: half of them chosen uniformly, half with few
/// preemptions.
pub fn explore(schedules: usize, model: impl Fn() + Send + Sync + 'static) {
    let model = Arc::new(model);
    let again = Arc::clone(&model);
    let mut config = Config::new();
    config.stack_size = STACK;
    Runner::new(RandomScheduler::new(schedules / 2), config.clone()).run(move || model());
    // A few preemptions at chosen points find faults that a uniform choice rarely finds (Burckhardt
    // et al., "A randomized scheduler with probabilistic guarantees of finding bugs", ASPLOS 2010).
    Runner::new(PctScheduler::new(3, schedules / 2), config).run(move || again());
}

/// The bytes of a file, and the bytes at its last sync. Names are durable at once.
#[derive(Clone, Debug, Default)]
struct Content {
    written: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
pub struct MemDisk(Arc<Mutex<BTreeMap<PathBuf, Arc<Mutex<Content>>>>>);

#[derive(Debug)]
struct MemFile(Arc<Mutex<Content>>);

#[derive(Debug)]
struct NoLock;

impl Lock for NoLock {}

/// Locks a mutex of the standard library. A mutex of shuttle would not do, because recovery reads on a
/// real thread, and no schedule depends on this lock.
fn open_up<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemDisk {
    /// Returns the disk as a process death, or a power loss, would leave it now.
    pub fn left(&self, power_loss: bool) -> MemDisk {
        let files = open_up(&self.0);
        let left = files.iter().map(|(path, content)| {
            let mut content = open_up(content).clone();
            if power_loss {
                content.written = content.synced.clone();
            }
            (path.clone(), Arc::new(Mutex::new(content)))
        });
        MemDisk(Arc::new(Mutex::new(left.collect())))
    }
}

impl Disk for MemDisk {
    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut files = open_up(&self.0);
        if mode == OpenMode::Create {
            files.insert(path.to_owned(), Arc::default());
        }
        let file = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemFile(Arc::clone(file))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = open_up(&self.0);
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        open_up(&self.0).remove(path).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn list(&self, _path: &Path) -> io::Result<Vec<String>> {
        let files = open_up(&self.0);
        let names = files.keys().filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        Ok(names.collect())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Lock>> {
        Ok(Box::new(NoLock))
    }
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(open_up(&self.0).written.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = open_up(&self.0);
        let rest = content.written.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        {
            let mut content = open_up(&self.0);
            let end = offset as usize + bytes.len();
            if content.written.len() < end {
                content.written.resize(end, 0);
            }
            content.written[offset as usize..end].copy_from_slice(bytes);
        }
        // Let other threads run in the middle of a write.
        thread::yield_now();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let written = open_up(&self.0).written.clone();
        thread::yield_now();
        open_up(&self.0).synced = written;
        Ok(())
    }
}

/// Options with the smallest segments.
pub fn options(pool: usize) -> PersistenceOptions {
    PersistenceOptions { wal_path: "db".into(), wal_pool_size: pool, wal_segment_size_bytes: 4096 }
}
