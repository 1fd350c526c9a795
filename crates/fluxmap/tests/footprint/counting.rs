//! A disk that passes calls on to the machine's file system and counts them. It syncs nothing,
//! because no test here loses power.

use fluxmap::disk::{Disk, DiskFile, Lock, OpenMode, OsDisk};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

#[derive(Clone, Debug, Default)]
pub(crate) struct CountingDisk(Arc<Counts>);

#[derive(Default)]
struct Counts {
    written: AtomicU64,
    largest_read: AtomicU64,
    looks: AtomicU64,
    /// The number of times that a file of each name was created.
    created: Mutex<BTreeMap<String, u64>>,
    watch: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counts").field("written", &self.written).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct CountingFile {
    file: Box<dyn DiskFile>,
    counts: Arc<Counts>,
}

impl CountingDisk {
    /// Bytes written to files.
    pub(crate) fn written(&self) -> u64 {
        self.0.written.load(Ordering::SeqCst)
    }

    /// The largest number of bytes asked for in one read.
    pub(crate) fn largest_read(&self) -> u64 {
        self.0.largest_read.load(Ordering::SeqCst)
    }

    pub(crate) fn forget_reads(&self) {
        self.0.largest_read.store(0, Ordering::SeqCst);
    }

    /// The number of times that a file of this name was created.
    pub(crate) fn created(&self, name: &str) -> u64 {
        self.0.created.lock().expect("no panic").get(name).copied().unwrap_or_default()
    }

    /// Sets a function to call after each write and each change of a name.
    pub(crate) fn watch(&self, watch: impl Fn() + Send + Sync + 'static) {
        assert!(self.0.watch.set(Box::new(watch)).is_ok(), "a watch is already set");
    }

    /// The number of times that the watch was called.
    pub(crate) fn looks(&self) -> u64 {
        self.0.looks.load(Ordering::SeqCst)
    }
}

impl Counts {
    fn look(&self) {
        if let Some(watch) = self.watch.get() {
            self.looks.fetch_add(1, Ordering::SeqCst);
            watch();
        }
    }
}

impl Disk for CountingDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsDisk.create_dir(path)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        OsDisk.resolve(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let file = OsDisk.open(path, mode)?;
        if mode == OpenMode::Create {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            *self.0.created.lock().expect("no panic").entry(name).or_default() += 1;
        }
        Ok(Box::new(CountingFile { file, counts: Arc::clone(&self.0) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)?;
        self.0.look();
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(path)
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        OsDisk.lock(path)
    }
}

impl DiskFile for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.counts.largest_read.fetch_max(buffer.len() as u64, Ordering::SeqCst);
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)?;
        self.counts.written.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        self.counts.look();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
