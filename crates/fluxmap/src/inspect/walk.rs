//! The strict walk through the files: reads what opening the database would read, in the same order and
//! by the same code.

use super::{Identity, OfflineDatabase, Result};
use crate::checkpoint::{CheckpointReader, EncodedPair};
use crate::error::PersistenceError;
use crate::persistence::TornTail;
use crate::recovery::check_nothing_is_lost;
use crate::wal::directory::{Directory, segment_name};
use crate::wal::format::{self, FileHeader, operations};
use crate::wal::reader::{FrameAt, SegmentReader, replay};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A pair or an operation, and its place in the files: passed on by [`records`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record<'r> {
    /// The file.
    pub path: &'r Path,
    /// The offset of the block or frame in the file.
    pub offset: u64,
    /// The commit; for a checkpoint, the last commit that it covers.
    pub commit: u64,
    /// The pair or the operation.
    pub operation: Operation<'r>,
}

/// The content of a [`Record`]. Keys and values are encoded with [`Identity::codec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'r> {
    /// A pair of the checkpoint.
    Pair {
        /// The key.
        key: &'r [u8],
        /// The value.
        value: &'r [u8],
        /// When it expires, in milliseconds since 1970, if it does.
        expires: Option<NonZeroU64>,
    },
    /// A commit in the log wrote this pair.
    Put {
        /// The key.
        key: &'r [u8],
        /// The value.
        value: &'r [u8],
        /// When it expires, in milliseconds since 1970, if it does.
        expires: Option<NonZeroU64>,
    },
    /// A commit in the log removed this key, if it was there.
    Delete {
        /// The key.
        key: &'r [u8],
    },
}

/// The content of the files of a sound database: returned by [`verify`] and [`records`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The properties that the files share.
    pub identity: Identity,
    /// The last commit that the checkpoint covers; 0 if it was empty.
    pub checkpoint_commit: u64,
    /// The number of pairs in the checkpoint.
    pub checkpoint_pairs: u64,
    /// The size of the checkpoint in bytes.
    pub checkpoint_bytes: u64,
    /// The number of commits in the log after the checkpoint.
    pub log_commits: u64,
    /// The bytes of these commits.
    pub log_bytes: u64,
    /// The last commit.
    pub last_commit: u64,
    /// Where opening the database will cut off an incomplete write that a power loss left. Only bytes
    /// that had not been promised to survive a power loss are cut off.
    pub torn_tail: Option<TornTail>,
}

/// Reads and checks everything that opening the database would read, and reports to `progress` how many
/// bytes are done, of how many.
///
/// # Errors
///
/// The first error with which opening the database would fail: [`PersistenceError::Damaged`],
/// [`Missing`](PersistenceError::Missing) and others. [`Locked`](PersistenceError::Locked) if the
/// database is in use, [`NoDatabase`](PersistenceError::NoDatabase) if there is none.
pub fn verify(dir: impl AsRef<Path>, progress: impl FnMut(u64, u64)) -> Result<Summary> {
    let quiet = OfflineDatabase::open(dir.as_ref())?;
    Ok(walk(&quiet, progress, |_| Ok(()))?.summary)
}

/// Passes the content of the files to `visit`: the pairs of the checkpoint, then the operations of the
/// commits in the log after it, in order, until `visit` breaks.
///
/// ```
/// # use fluxmap::{Database, persistence::PersistenceOptions};
/// use fluxmap::inspect::{self, Operation};
/// use std::ops::ControlFlow;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fluxmap::FluxError> {
/// # let temporary = tempfile::tempdir().expect("a directory");
/// # let dir = temporary.path().join("db");
/// # let options = PersistenceOptions::new(dir.clone());
/// # let db = Database::<String, u32>::builder().durability_full(options).build().await?;
/// # db.insert("n".into(), 1).await?;
/// # db.remove("n").await?;
/// # db.close().await?;
/// let mut removed = 0;
/// inspect::records(&dir, |record| {
///     removed += u32::from(matches!(record.operation, Operation::Delete { .. }));
///     ControlFlow::Continue(())
/// })?;
/// assert_eq!(removed, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`verify`]; everything before the damage has been visited by then.
pub fn records(
    dir: impl AsRef<Path>,
    mut visit: impl FnMut(Record<'_>) -> ControlFlow<()>,
) -> Result<Option<Summary>> {
    let quiet = OfflineDatabase::open(dir.as_ref())?;
    let mut broken_off = false;
    let walked = walk(
        &quiet,
        |_, _| {},
        |record| match visit(record) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                broken_off = true;
                // Any error ends the walk; this one is not returned to the caller.
                Err(PersistenceError::Unavailable(String::new()))
            }
        },
    );
    match walked {
        Err(_) if broken_off => Ok(None),
        walked => walked.map(|walked| Some(walked.summary)),
    }
}

/// The result of a walk.
pub(super) struct Walked {
    pub(super) summary: Summary,
    pub(super) identity: format::FileIdentity,
    /// The header of the checkpoint; `None` if there is none yet.
    pub(super) checkpoint: Option<FileHeader>,
}

/// Reads everything that recovery needs.
pub(super) fn walk(
    quiet: &OfflineDatabase,
    mut progress: impl FnMut(u64, u64),
    mut visit: impl FnMut(Record<'_>) -> Result<()>,
) -> Result<Walked> {
    let directory = &quiet.directory;
    let Some(mut checkpoint) = CheckpointReader::open(directory)? else {
        // If the creation of the database was interrupted, it counts as empty.
        check_nothing_is_lost(directory)?;
        return empty(directory);
    };
    let header = checkpoint.header.clone();
    let mut gauge = WalkProgress::new(directory, &checkpoint, header.detail)?;
    progress(0, gauge.total);
    let path = checkpoint.file().path().to_owned();
    while let Some(block) = checkpoint.next_block()? {
        let at = FrameAt { path: &path, offset: block.offset };
        for pair in block.pairs() {
            let EncodedPair { key, value, expires } =
                pair.map_err(|_| at.damaged("the pairs in it make no sense"))?;
            let operation = Operation::Pair { key, value, expires: NonZeroU64::new(expires) };
            visit(Record { path: &path, offset: block.offset, commit: header.number, operation })?;
        }
        progress(block.offset.min(gauge.total), gauge.total);
    }
    let tail = replay(directory, &header.identity, header.detail, header.number, |lsn, commit, at| {
        for operation in operations(commit) {
            let operation = match operation.map_err(|_| at.damaged("an operation in it makes no sense"))? {
                format::LogOperation::Put { key, value, expires } => {
                    Operation::Put { key, value, expires: NonZeroU64::new(expires) }
                }
                format::LogOperation::Delete { key } => Operation::Delete { key },
            };
            visit(Record { path: at.path, offset: at.offset, commit: lsn, operation })?;
        }
        if let Some(done) = gauge.reached(at) {
            progress(done, gauge.total);
        }
        Ok(())
    })?;
    progress(gauge.total, gauge.total);
    let summary = Summary {
        identity: (&header.identity).into(),
        checkpoint_commit: header.number,
        checkpoint_pairs: checkpoint.pairs(),
        checkpoint_bytes: checkpoint.length(),
        log_commits: tail.commits,
        log_bytes: tail.bytes,
        last_commit: tail.last,
        torn_tail: tail.torn_tail(directory),
    };
    Ok(Walked { summary, identity: header.identity.clone(), checkpoint: Some(header) })
}

fn empty(directory: &Directory) -> Result<Walked> {
    let Some(first) = directory.segments()?.first().copied() else {
        return Err(PersistenceError::NoDatabase { path: directory.path().to_owned() });
    };
    let identity = SegmentReader::open(directory, first)?.header.identity;
    let summary = Summary {
        identity: (&identity).into(),
        checkpoint_commit: 0,
        checkpoint_pairs: 0,
        checkpoint_bytes: 0,
        log_commits: 0,
        log_bytes: 0,
        last_commit: 0,
        torn_tail: None,
    };
    Ok(Walked { summary, identity, checkpoint: None })
}

/// The progress of a walk, in bytes.
struct WalkProgress {
    /// The offset of each segment, if the files were one.
    starts: HashMap<PathBuf, u64>,
    last: u64,
    total: u64,
}

impl WalkProgress {
    fn new(directory: &Directory, checkpoint: &CheckpointReader, first: u64) -> Result<Self> {
        let mut gauge = WalkProgress { starts: HashMap::new(), last: 0, total: checkpoint.length() };
        for number in directory.segments()?.into_iter().filter(|number| *number >= first) {
            let name = segment_name(number);
            gauge.starts.insert(directory.path_of(&name), gauge.total);
            gauge.total += directory.find(&name)?.map_or(Ok(0), |file| file.len())?;
        }
        Ok(gauge)
    }

    /// Returns how many bytes there are up to this frame, if that is enough more to report.
    fn reached(&mut self, at: FrameAt<'_>) -> Option<u64> {
        let position = self.starts.get(at.path)? + at.offset;
        let is_news = position >= self.last + (64 << 10);
        is_news.then(|| {
            self.last = position;
            position.min(self.total)
        })
    }
}
