//! All pairs of a database, as bytes, without holding them in memory.
//!
//! The pairs are those of the checkpoint, changed by the commits of the log. When an image is made, it
//! records which keys the log changes, and the last operation on each of them. Later one pass over the
//! checkpoint visits the keys that the log left alone, and one pass over the log visits the keys whose
//! last operation is a put.

use super::salvage::{Salvage, Visit, read_segment, salvage};
use super::scan::FoundFile;
use super::walk::{self, walk};
use super::{Identity, OfflineDatabase, Result, directory};
use crate::backup::write_database_of;
use crate::checkpoint::{self, BLOCK_SIZE, SoundBlock};
use crate::disk::OpenMode;
use crate::error::PersistenceError;
use crate::persistence::BackupProgress;
use crate::wal::directory::CHECKPOINT;
use crate::wal::format::{self, LogOperation, Lsn, operations, push_operation};
use crate::wal::pieces::Pieces;
use crate::wal::reader::replay;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::path::Path;

/// All pairs of a database, encoded. They are read from its files whenever they are needed. Memory holds
/// only the keys that commits in the log have changed, and no values.
///
/// The database can be opened once this value has been dropped.
pub struct Image {
    quiet: OfflineDatabase,
    identity: format::FileIdentity,
    last_commit: Lsn,
    /// Newest first.
    layers: Vec<Layer>,
    commits: Commits,
    changes: Changes,
    pairs: u64,
}

/// A pair, encoded with [`Identity::codec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pair<'p> {
    /// The key.
    pub key: &'p [u8],
    /// The value, expired or not.
    pub value: &'p [u8],
    /// When it expires, in milliseconds since 1970, if it does.
    pub expires: Option<NonZeroU64>,
}

/// The sound blocks of a checkpoint.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) name: String,
    pub(super) salt: u64,
    /// The last commit that the checkpoint covers.
    pub(super) commit: Lsn,
    /// The offsets of the blocks.
    pub(super) blocks: Vec<u64>,
    /// Whether the checkpoint is complete, so that a key in none of its blocks had been removed.
    pub(super) is_whole: bool,
}

/// A pair of a checkpoint.
struct CheckpointPair<'p> {
    pair: Pair<'p>,
    /// Whether no later state of its key is known.
    is_newest: bool,
    /// The commit of the checkpoint.
    commit: Lsn,
}

/// Where the commits can be read again.
pub(super) enum Commits {
    /// In the log as recovery reads it: from this segment on, after this commit.
    Recovered { segment: u64, covered: Lsn },
    /// In the sound frames of these segments.
    Found(Vec<FoundFile>),
}

/// The last operation of the log on each key that it changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    by_key: HashMap<Vec<u8>, LoggedWrite>,
    /// The number of operations so far.
    seen: u64,
}

#[derive(Clone, Copy, Debug)]
struct LoggedWrite {
    commit: Lsn,
    /// The number of the operation among all operations.
    operation: u64,
    is_put: bool,
    /// Whether a checkpoint has a later state of the key.
    is_covered: bool,
}

impl Changes {
    /// Records the next operation of the log. Of two operations in one commit, the later counts.
    pub(super) fn note(&mut self, commit: Lsn, operation: LogOperation<'_>) {
        let (key, is_put) = match operation {
            LogOperation::Put { key, .. } => (key, true),
            LogOperation::Delete { key } => (key, false),
        };
        let change = LoggedWrite { commit, operation: self.seen, is_put, is_covered: false };
        self.seen += 1;
        match self.by_key.get_mut(key) {
            Some(known) if known.commit > commit => {}
            Some(known) => *known = change,
            None => _ = self.by_key.insert(key.to_vec(), change),
        }
    }
}

impl Image {
    pub(super) fn new(
        quiet: OfflineDatabase,
        identity: format::FileIdentity,
        last_commit: Lsn,
        mut layers: Vec<Layer>,
        commits: Commits,
        changes: Changes,
    ) -> Self {
        // Of two layers of one commit, the later comes first.
        layers.sort_by_key(|layer| layer.commit);
        layers.reverse();
        Image { quiet, identity, last_commit, layers, commits, changes, pairs: 0 }
    }

    /// Reads a database as opening it would, and reports to `progress` how many bytes are done, of how
    /// many.
    ///
    /// # Errors
    ///
    /// As [`verify`](super::verify).
    pub fn load(dir: impl AsRef<Path>, progress: impl FnMut(u64, u64)) -> Result<Self> {
        let quiet = OfflineDatabase::open(dir.as_ref())?;
        let (mut changes, mut blocks) = (Changes::default(), Vec::new());
        let walked = walk(&quiet, progress, |record| {
            match record.operation {
                walk::Operation::Pair { .. } if blocks.last() == Some(&record.offset) => {}
                walk::Operation::Pair { .. } => blocks.push(record.offset),
                walk::Operation::Put { key, value, .. } => {
                    changes.note(record.commit, LogOperation::Put { key, value, expires: 0 });
                }
                walk::Operation::Delete { key } => changes.note(record.commit, LogOperation::Delete { key }),
            }
            Ok(())
        })?;
        let covered = walked.summary.checkpoint_commit;
        let layer = walked.checkpoint.as_ref().map(|header| Layer {
            name: CHECKPOINT.into(),
            salt: header.salt,
            commit: covered,
            blocks,
            is_whole: true,
        });
        let commits = match &walked.checkpoint {
            Some(header) => Commits::Recovered { segment: header.detail, covered },
            None => Commits::Found(Vec::new()),
        };
        let (identity, last) = (walked.identity, walked.summary.last_commit);
        let mut image = Image::new(quiet, identity, last, layer.into_iter().collect(), commits, changes);
        image.count()?;
        Ok(image)
    }

    /// Reads every part of a database that is sound: the blocks and frames with correct checksums,
    /// wherever they are, in the order of the commits. Reports to `progress` how many bytes are done, of
    /// how many.
    ///
    /// The result may be a state that the database never had. Where a commit is missing, the state
    /// before it stays; a pair that is missing from the checkpoint may be there as an older commit wrote
    /// it, or be missing. The report lists the damage.
    ///
    /// ```
    /// # use fluxmap::{Database, persistence::PersistenceOptions};
    /// use fluxmap::inspect::Image;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let temporary = tempfile::tempdir()?;
    /// # let (dir, out) = (temporary.path().join("db"), temporary.path().join("out"));
    /// # let open = |dir: &std::path::Path| {
    /// #     let options = PersistenceOptions::new(dir.to_owned());
    /// #     Database::<String, u32>::builder().durability_full(options).build()
    /// # };
    /// # let db = open(&dir).await?;
    /// # db.insert("n".into(), 1).await?;
    /// # db.close().await?;
    /// std::fs::remove_file(dir.join("snapshot.db"))?;
    /// assert!(open(&dir).await.is_err());
    ///
    /// let (image, report) = Image::salvage(&dir, |_, _| {})?;
    /// assert!(!report.is_complete());
    /// image.write_to(&out, |_| {})?;
    /// # drop(image);
    /// assert_eq!(open(&out).await?.get("n")?.as_deref(), Some(&1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`PersistenceError::Locked`](crate::PersistenceError::Locked) if the database is
    /// in use, [`NoDatabase`](crate::PersistenceError::NoDatabase) if there is none,
    /// [`UnsupportedFormat`](crate::PersistenceError::UnsupportedFormat) if another
    /// version wrote it, [`Unavailable`](crate::PersistenceError::Unavailable) if no
    /// header of any file can be read.
    pub fn salvage(dir: impl AsRef<Path>, progress: impl FnMut(u64, u64)) -> Result<(Self, Salvage)> {
        salvage(OfflineDatabase::open(dir.as_ref())?, progress)
    }

    /// Returns the properties that the files of the database share.
    pub fn identity(&self) -> Identity {
        (&self.identity).into()
    }

    /// Returns the last commit that the pairs include.
    pub fn last_commit(&self) -> u64 {
        self.last_commit
    }

    /// Returns the number of pairs.
    pub fn pair_count(&self) -> u64 {
        self.pairs
    }

    /// Passes every pair to `visit` once: first the pairs that no commit in the log has changed, in the
    /// order of the checkpoint (which is key order in a file that an open database wrote), then the
    /// others, in the order of their last commits.
    ///
    /// ```
    /// # use fluxmap::{Database, persistence::PersistenceOptions};
    /// use fluxmap::inspect::Image;
    /// use std::ops::ControlFlow;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// # let temporary = tempfile::tempdir().expect("a directory");
    /// # let dir = temporary.path().join("db");
    /// # let options = PersistenceOptions::new(dir.clone());
    /// # let db = Database::<String, u32>::builder().durability_full(options).build().await?;
    /// # db.insert("n".into(), 1).await?;
    /// # db.close().await?;
    /// let image = Image::load(&dir, |_, _| {})?;
    /// let mut bytes = 0;
    /// image.visit(|pair| {
    ///     bytes += pair.key.len() + pair.value.len();
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!((image.pair_count(), bytes), (1, 3));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`PersistenceError::Io`](crate::PersistenceError::Io) if a file cannot be read;
    /// [`Damaged`](crate::PersistenceError::Damaged) if it has been changed since the image was
    /// made.
    pub fn visit(&self, mut visit: impl FnMut(Pair<'_>) -> ControlFlow<()>) -> Result<()> {
        let mut broken_off = false;
        let visited = self.try_visit(&mut |pair| match visit(pair) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                broken_off = true;
                // Any error ends the visit; this one is not returned to the caller.
                Err(PersistenceError::Unavailable(String::new()))
            }
        });
        if broken_off { Ok(()) } else { visited }
    }

    /// Writes the pairs into a directory of their own, which is created if need be, and can be opened as
    /// a database of the same types. `progress` is called now and then.
    ///
    /// # Errors
    ///
    /// [`PersistenceError::Unavailable`](crate::PersistenceError::Unavailable) if the directory already
    /// contains a database; [`Io`](crate::PersistenceError::Io) if the copy could not be written: its
    /// files are then removed.
    pub fn write_to(&self, out: impl AsRef<Path>, mut progress: impl FnMut(BackupProgress)) -> Result<()> {
        let total_pairs = self.pairs;
        let mut tell = |written: checkpoint::Written| {
            progress(BackupProgress { pairs: written.pairs, total_pairs, bytes: written.bytes });
        };
        // At least 1: commit 0 stands for the empty database.
        let commit = self.last_commit.max(1);
        write_database_of(&directory(out.as_ref()), &self.identity, commit, |draft| {
            let mut count = 0;
            self.try_visit(&mut |Pair { key, value, expires }| {
                let expires = expires.map_or(0, NonZeroU64::get);
                let Ok(()) = push_operation(draft.block(), expires, copy(key), Some(copy(value)));
                count += 1;
                if draft.block().len() >= BLOCK_SIZE {
                    tell(draft.write_block(count)?);
                    count = 0;
                }
                Ok(())
            })?;
            if count > 0 {
                tell(draft.write_block(count)?);
            }
            Ok(())
        })
    }

    /// Counts the pairs, and records which changes checkpoints cover. Returns how many pairs are in
    /// checkpoints.
    pub(super) fn count(&mut self) -> Result<u64> {
        let (mut found, mut shown) = (0, 0);
        let mut covered = Vec::new();
        self.visit_layers(&mut |stored| {
            found += 1;
            shown += u64::from(stored.is_newest);
            let key = stored.pair.key;
            if self.changes.by_key.get(key).is_some_and(|change| change.commit <= stored.commit) {
                covered.push(key.to_vec());
            }
            Ok(())
        })?;
        for key in covered {
            if let Some(change) = self.changes.by_key.get_mut(&key) {
                change.is_covered = true;
            }
        }
        let floor = self.floor();
        let puts = self.changes.by_key.values().filter(|change| change.is_shown(floor)).count();
        self.pairs = shown + puts as u64;
        Ok(found)
    }

    /// Returns the last commit that a complete checkpoint covers.
    fn floor(&self) -> Option<Lsn> {
        self.layers.iter().find(|layer| layer.is_whole).map(|layer| layer.commit)
    }

    fn try_visit(&self, visit: &mut dyn FnMut(Pair<'_>) -> Result<()>) -> Result<()> {
        self.visit_layers(&mut |stored| if stored.is_newest { visit(stored.pair) } else { Ok(()) })?;
        self.visit_commits(visit)
    }

    /// Passes all pairs of the relevant checkpoints to `visit`.
    fn visit_layers(&self, visit: &mut dyn FnMut(CheckpointPair<'_>) -> Result<()>) -> Result<()> {
        // The keys of newer, incomplete checkpoints.
        let mut seen: HashSet<Vec<u8>> = HashSet::new();
        for (place, layer) in self.layers.iter().enumerate() {
            let is_last = layer.is_whole || place + 1 == self.layers.len();
            let mut pieces = Pieces::of(self.quiet.directory.open(&layer.name, OpenMode::Read)?)?;
            for offset in &layer.blocks {
                let Some(block) = SoundBlock::read(&mut pieces, layer.salt, *offset, u64::MAX)? else {
                    return Err(pieces.file().damaged(*offset, "a block has been changed since it was read"));
                };
                // A correct checksum rules out malformed pairs.
                for pair in block.content(&mut pieces)?.pairs().filter_map(std::result::Result::ok) {
                    let checkpoint::EncodedPair { key, value, expires } = pair;
                    let change = self.changes.by_key.get(key);
                    let is_newest = change.is_none_or(|change| change.commit <= layer.commit);
                    let is_newest = is_newest && !seen.contains(key);
                    let pair = Pair { key, value, expires: NonZeroU64::new(expires) };
                    visit(CheckpointPair { pair, is_newest, commit: layer.commit })?;
                    if !is_last {
                        seen.insert(key.to_vec());
                    }
                }
            }
            if layer.is_whole {
                break;
            }
        }
        Ok(())
    }

    /// Passes the puts of the log that no later state supersedes to `visit`.
    fn visit_commits(&self, visit: &mut dyn FnMut(Pair<'_>) -> Result<()>) -> Result<()> {
        let floor = self.floor();
        let mut number = 0;
        let mut see = |operation: LogOperation<'_>| {
            let this = number;
            number += 1;
            let LogOperation::Put { key, value, expires } = operation else {
                return Ok(());
            };
            let change = self.changes.by_key.get(key);
            match change.is_some_and(|change| change.operation == this && change.is_shown(floor)) {
                true => visit(Pair { key, value, expires: NonZeroU64::new(expires) }),
                false => Ok(()),
            }
        };
        let directory = &self.quiet.directory;
        match &self.commits {
            Commits::Recovered { segment, covered } => {
                replay(directory, &self.identity, *segment, *covered, |_, commit, at| {
                    for operation in operations(commit) {
                        see(operation.map_err(|_| at.damaged("an operation in it makes no sense"))?)?;
                    }
                    Ok(())
                })?;
            }
            Commits::Found(sources) => {
                for source in sources {
                    let mut result = Ok(());
                    let visit = Visit {
                        frame: &mut |_| {},
                        commit: &mut |_| {},
                        operation: &mut |_, operation| {
                            if result.is_ok() {
                                result = see(operation);
                            }
                        },
                    };
                    // The damage of this segment has been reported already.
                    read_segment(directory, source, &mut Vec::new(), visit);
                    result?;
                }
            }
        }
        Ok(())
    }
}

impl LoggedWrite {
    /// Returns whether this change leaves a pair whose later state is not known.
    fn is_shown(&self, floor: Option<Lsn>) -> bool {
        self.is_put && !self.is_covered && floor.is_none_or(|floor| self.commit > floor)
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let directory = self.quiet.directory.path();
        f.debug_struct("Image")
            .field("directory", &directory)
            .field("pairs", &self.pairs)
            .finish_non_exhaustive()
    }
}

/// Appends bytes where `push_operation` expects an encoding function.
fn copy(bytes: &[u8]) -> impl FnOnce(&mut Vec<u8>) -> std::result::Result<(), Infallible> + use<'_> {
    move |into| {
        into.extend(bytes);
        Ok(())
    }
}
