//! What bit rot, a careless administrator and a half-done backup do to files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::SimDisk;

/// Damage, and a look at the files. None of this counts as a call or can fail as one.
/// What is done here is durable at once, together with every change of names in the
/// same directory.
///
/// All that take a path panic if there is no such file.
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

    /// All of a file, as reads see it.
    #[must_use]
    pub fn read(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let path = path.as_ref();
        let mut state = self.state();
        let file = state.image.find(path).unwrap_or_else(|error| no_file(path, &error));
        state.image.content(file).seen().to_vec()
    }

    /// Makes a file hold these bytes. It, and its directory, need not exist.
    pub fn write(&self, path: impl AsRef<Path>, bytes: impl Into<Vec<u8>>) {
        self.state().image.place(path.as_ref(), bytes.into());
    }

    /// Flips the bits of `mask` in one byte, which leaves it as durable or not as it
    /// was.
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

    /// Cuts a file off, or fills it up with zeros.
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

    /// Puts the content of each of two files into the other.
    pub fn swap(&self, a: impl AsRef<Path>, b: impl AsRef<Path>) {
        let (first, second) = (self.read(a.as_ref()), self.read(b.as_ref()));
        self.write(a, second);
        self.write(b, first);
    }

    /// Lets the system forget what it has of the files in memory. Only that is lost
    /// which was doomed by a sync that failed: reads see what was there before.
    pub fn drop_caches(&self) {
        self.state().image.evict();
    }
}

fn no_file(path: &Path, error: &io::Error) -> ! {
    panic!("there is no file {} on the simulated disk: {error}", path.display())
}
