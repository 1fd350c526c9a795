//! Damage to files, as by bit rot, a careless administrator or an unfinished backup.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::SimDisk;

/// Damage to files, and inspection of files. These methods do not count as calls, and planned faults
/// do not affect them. Their changes are durable at once, together with all pending changes of names in
/// the same directory.
///
/// The methods that take the path of an existing file panic if there is no such file.
impl SimDisk {
    /// The files, with their lengths.
    #[must_use]
    pub fn files(&self) -> BTreeMap<PathBuf, u64> {
        let mut state = self.state();
        let names = state.image.names().clone();
        let length = |file| state.image.content(file).seen().len() as u64;
        let mut lengths = names.values().copied().map(length).collect::<Vec<_>>().into_iter();
        names.into_keys().zip(&mut lengths).collect()
    }

    /// The whole content of a file, as reads see it.
    #[must_use]
    pub fn read(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let path = path.as_ref();
        let mut state = self.state();
        let file = state.image.find(path).unwrap_or_else(|error| no_file(path, &error));
        state.image.content(file).seen().to_vec()
    }

    /// Replaces the content of a file. The file and its directory are created if they do not exist.
    pub fn write(&self, path: impl AsRef<Path>, bytes: impl Into<Vec<u8>>) {
        self.state().image.place(path.as_ref(), bytes.into());
    }

    /// Flips the bits of `mask` in one byte. The flip does not affect whether the byte is durable.
    ///
    /// # Panics
    ///
    /// If the file is not that long.
    pub fn flip(&self, path: impl AsRef<Path>, offset: u64, mask: u8) {
        let path = path.as_ref();
        let mut state = self.state();
        let file = state.image.find(path).unwrap_or_else(|error| no_file(path, &error));
        state.image.content(file).flip(super::image::index(offset), mask);
    }

    /// Cuts a file to `length`, or fills it up to `length` with zeros.
    pub fn truncate(&self, path: impl AsRef<Path>, length: usize) {
        let mut bytes = self.read(path.as_ref());
        bytes.resize(length, 0);
        self.write(path, bytes);
    }

    /// Removes a file.
    pub fn remove_file(&self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        self.state().image.erase(path).unwrap_or_else(|error| no_file(path, &error));
    }

    /// Swaps the contents of two files.
    pub fn swap(&self, a: impl AsRef<Path>, b: impl AsRef<Path>) {
        let (first, second) = (self.read(a.as_ref()), self.read(b.as_ref()));
        self.write(a, second);
        self.write(b, first);
    }

    /// Makes the system drop its cache of the files. Only changes that a failed sync has doomed are
    /// lost: reads then see the content before them.
    pub fn drop_caches(&self) {
        self.state().image.evict();
    }
}

fn no_file(path: &Path, error: &io::Error) -> ! {
    panic!("there is no file {} on the simulated disk: {error}", path.display())
}
