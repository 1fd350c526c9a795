//! The state of a disk at one instant: files, names, and the durable part of both. It is pure data, so a
//! clone preserves the instant.
//!
//! Invariants:
//!
//! - **M1.** Applying all of `pending` to `durable` in order gives `names`.
//! - **M2.** A file has at most one name in `names`, and at most one in `durable`.
//! - **M3.** Every file that `names`, `durable` or `pending` refers to is in `files`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::content::Content;
use super::loss::{Fate, Storm};

/// The identity of a file. A rename keeps it.
pub(super) type FileId = u64;

/// The greatest length of a file. A store that writes beyond it has a bug in its offsets.
const LONGEST_FILE: u64 = 1 << 30;

/// One call of the store.
#[derive(Clone, Copy, Debug)]
pub(super) enum DiskStep<'a> {
    CreateDir(&'a Path),
    Create(&'a Path),
    Write { path: &'a Path, file: FileId, offset: u64, bytes: &'a [u8] },
    Sync { path: &'a Path, file: FileId },
    Rename { from: &'a Path, to: &'a Path },
    Remove(&'a Path),
    SyncDir(&'a Path),
    Lock(&'a Path),
    // The steps below change nothing.
    Open { path: &'a Path, write: bool },
    Look { call: &'static str, path: &'a Path },
}

/// A change of names, in one directory.
#[derive(Clone, Debug)]
enum NameChange {
    Create { path: PathBuf, file: FileId },
    Rename { from: PathBuf, to: PathBuf, file: FileId },
    Remove { path: PathBuf, file: FileId },
}

type Names = BTreeMap<PathBuf, FileId>;

/// The state of a disk. See the [module](self) for its invariants.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    files: BTreeMap<FileId, Content>,
    names: Names,
    durable: Names,
    pending: Vec<NameChange>,
    directories: BTreeSet<PathBuf>,
    next: FileId,
}

impl Image {
    /// Does one call. Returns the file if the call opens or locks one.
    pub(super) fn apply(&mut self, step: DiskStep<'_>) -> io::Result<Option<FileId>> {
        match step {
            DiskStep::CreateDir(path) => self.create_dir(path).map(|()| None),
            DiskStep::Create(path) => self.create(path, true).map(Some),
            DiskStep::Lock(path) => self.create(path, false).map(Some),
            DiskStep::Write { file, offset, bytes, .. } => self.write(file, offset, bytes).map(|()| None),
            DiskStep::Sync { file, .. } => {
                self.content(file).sync();
                Ok(None)
            }
            DiskStep::Rename { from, to } => self.rename(from, to).map(|()| None),
            DiskStep::Remove(path) => self.remove(path).map(|()| None),
            DiskStep::SyncDir(path) => self.sync_dir(path).map(|()| None),
            DiskStep::Open { path, .. } => self.find(path).map(Some),
            DiskStep::Look { .. } => Ok(None),
        }
    }

    /// The file of that name.
    pub(super) fn find(&self, path: &Path) -> io::Result<FileId> {
        match self.names.get(path) {
            Some(file) => Ok(*file),
            None if self.is_directory(path) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The content of a file that is open or named (M3).
    pub(super) fn content(&mut self, file: FileId) -> &mut Content {
        self.files.entry(file).or_default()
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// The bytes of all files that have a name or for which `open` returns `true`.
    pub(super) fn used(&self, open: impl Fn(FileId) -> bool) -> u64 {
        let named: BTreeSet<FileId> = self.names.values().copied().collect();
        let taken = self.files.iter().filter(|(file, _)| named.contains(file) || open(**file));
        taken.map(|(_, content)| content.seen().len() as u64).sum()
    }

    pub(super) fn is_directory(&self, path: &Path) -> bool {
        // The root directory, and the one in which relative paths start, exist always.
        path.parent().is_none() || self.directories.contains(path)
    }

    /// The names of the files and directories in a directory.
    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        if !self.is_directory(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let entries = self.names.keys().chain(&self.directories);
        let inside = entries.filter(|entry| entry.parent() == Some(path));
        Ok(inside.filter_map(|entry| Some(entry.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        for ancestor in path.ancestors().filter(|ancestor| ancestor.parent().is_some()) {
            if self.names.contains_key(ancestor) {
                let itself = ancestor == path;
                let kind = if itself { io::ErrorKind::AlreadyExists } else { io::ErrorKind::NotADirectory };
                return Err(kind.into());
            }
        }
        let inner = path.ancestors().filter(|ancestor| ancestor.parent().is_some());
        self.directories.extend(inner.map(Path::to_path_buf));
        Ok(())
    }

    fn create(&mut self, path: &Path, anew: bool) -> io::Result<FileId> {
        match self.find(path) {
            Ok(file) => {
                if anew {
                    self.content(file).empty();
                }
                Ok(file)
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Err(missing) => {
                if !path.parent().is_some_and(|parent| self.is_directory(parent)) {
                    return Err(missing);
                }
                let file = self.next;
                self.next += 1;
                self.files.insert(file, Content::default());
                self.change_names(NameChange::Create { path: path.to_path_buf(), file });
                Ok(file)
            }
        }
    }

    fn write(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > LONGEST_FILE) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.content(file).write(index(offset), bytes);
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.find(from)?;
        if from.parent() != to.parent() {
            let why = "the simulated disk renames within one directory only";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        if self.is_directory(to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let (from, to) = (from.to_path_buf(), to.to_path_buf());
        self.change_names(NameChange::Rename { from, to, file });
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let file = self.find(path)?;
        self.change_names(NameChange::Remove { path: path.to_path_buf(), file });
        Ok(())
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        if !self.is_directory(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // Each change is within one directory, so changes in different directories commute: M1 still
        // holds when the changes of this one are applied ahead of the others.
        let inside = |change: &mut NameChange| change.path().parent() == Some(path);
        for change in self.pending.extract_if(.., inside) {
            change.apply(&mut self.durable);
        }
        Ok(())
    }

    /// Replaces the content of a file, durably at once, and syncs its directory.
    pub(super) fn place(&mut self, path: &Path, bytes: Vec<u8>) {
        let parent = path.parent().expect("a file's path has a name at its end");
        self.create_dir(parent).expect("no file is in the way of the directory");
        let file = self.create(path, false).expect("no directory is in the way of the file");
        *self.content(file) = Content::durable(bytes);
        self.sync_dir(parent).expect("the directory is there");
    }

    /// Removes a file, durably at once.
    pub(super) fn erase(&mut self, path: &Path) -> io::Result<()> {
        self.remove(path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new("")))
    }

    /// Removes files that no name refers to any more and for which `open` returns `false`.
    pub(super) fn prune(&mut self, open: impl Fn(FileId) -> bool) {
        let named = self.names.values().chain(self.durable.values()).copied();
        let kept: BTreeSet<FileId> = named.chain(self.pending.iter().map(NameChange::file)).collect();
        self.files.retain(|file, _| kept.contains(file) || open(*file));
    }

    /// A failed sync of a file. See [`Content::doom`].
    pub(super) fn doom(&mut self, file: FileId) {
        self.content(file).doom();
    }

    /// See [`Content::evict`].
    pub(super) fn evict(&mut self) {
        self.files.values_mut().for_each(Content::evict);
    }

    /// The state after a power loss.
    pub(super) fn after_power_cut(&self, storm: &mut Storm) -> Self {
        let names = self.names_after_power_cut(storm);
        let mut files = BTreeMap::new();
        for (file, content) in &self.files {
            // Draw fates for every file, also for those without a name, so that the fates of a file
            // do not depend on which names survived.
            let content = content.after_power_cut(storm);
            if names.values().any(|named| named == file) {
                files.insert(*file, content);
            }
        }
        let (durable, directories) = (names.clone(), self.directories.clone());
        Self { files, names, durable, pending: Vec::new(), directories, next: self.next }
    }

    fn names_after_power_cut(&self, storm: &mut Storm) -> Names {
        let mut names = self.durable.clone();
        // Files whose rename was lost, so that they still have the old name. No later change may take it
        // from them: the file would be left without a name, as after half a rename, which D2 forbids.
        let mut stuck = BTreeSet::new();
        for (change, fate) in self.pending.iter().zip(storm.fates(self.pending.len())) {
            let survives = match fate {
                Fate::Whole => true,
                Fate::Lost => false,
                // A change of a name is never torn (D2): it survives or not.
                Fate::Torn => storm.coin(),
            };
            let replaced = names.get(change.path());
            let keeps = survives && !replaced.is_some_and(|file| stuck.contains(file));
            if keeps {
                change.apply(&mut names);
            }
            if let NameChange::Rename { file, .. } = change {
                if keeps {
                    stuck.remove(file)
                } else {
                    stuck.insert(*file)
                };
            }
        }
        names
    }
}

impl NameChange {
    /// Applies the change. A rename or removal has no effect if the file does not have the old name:
    /// then its creation, or an earlier rename, was lost.
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Create { path, file } => {
                names.insert(path.clone(), *file);
            }
            Self::Rename { from, to, file } => {
                if names.get(from) == Some(file) {
                    names.remove(from);
                    names.insert(to.clone(), *file);
                }
            }
            Self::Remove { path, file } => {
                if names.get(path) == Some(file) {
                    names.remove(path);
                }
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Create { path, .. } | Self::Remove { path, .. } => path,
            Self::Rename { to, .. } => to,
        }
    }

    fn file(&self) -> FileId {
        match self {
            Self::Create { file, .. } | Self::Rename { file, .. } | Self::Remove { file, .. } => *file,
        }
    }
}

impl DiskStep<'_> {
    /// Whether the call changes something, and so is always counted.
    pub(super) fn is_change(self) -> bool {
        !matches!(self, Self::Open { .. } | Self::Look { .. })
    }

    /// Whether the call waits while the disk is stalled.
    pub(super) fn stalls(self) -> bool {
        matches!(self, Self::Write { .. } | Self::Sync { .. } | Self::SyncDir(_))
    }
}

impl fmt::Display for DiskStep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateDir(path) => write!(f, "create_dir {}", path.display()),
            Self::Create(path) => write!(f, "create {}", path.display()),
            Self::Write { path, offset, bytes, .. } => {
                write!(f, "write_at {} {offset}+{}", path.display(), bytes.len())
            }
            Self::Sync { path, .. } => write!(f, "sync {}", path.display()),
            Self::Rename { from, to } => write!(f, "rename {} {}", from.display(), to.display()),
            Self::Remove(path) => write!(f, "remove {}", path.display()),
            Self::SyncDir(path) => write!(f, "sync_dir {}", path.display()),
            Self::Lock(path) => write!(f, "lock {}", path.display()),
            Self::Open { path, .. } => write!(f, "open {}", path.display()),
            Self::Look { call, path } => write!(f, "{call} {}", path.display()),
        }
    }
}

/// Converts an offset in a file to an index.
pub(super) fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("no file is longer than memory")
}
