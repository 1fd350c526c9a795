//! Options and reports about keeping a database on disk.

use std::path::PathBuf;
use std::time::Duration;

/// The location, the size and the segments of the log.
///
/// A checkpoint writes out all stored pairs, in the background; the log from before the checkpoint is
/// then not needed any more. By default a checkpoint begins when the log has grown to the size of the
/// last one, at least 4 MiB. So each byte of a commit costs one byte in the log and about one in a
/// checkpoint, whatever the size of the database; the files take some four times the size of the data,
/// and opening the database reads up to three times that size. Commits wait when the log has twice the
/// size of the last checkpoint, or of the one being written if that is larger already. This happens when
/// commits come faster than a checkpoint is written.
///
/// A pool of segments instead bounds the size of the log, for a database whose files should stay small,
/// or that should open fast. The more data there is in proportion to the log, the more often all of it
/// is written out, and the sooner commits wait.
///
/// ```
/// use fluxmap::persistence::PersistenceOptions;
///
/// let mut options = PersistenceOptions::new("db");
/// // The files of the log take 64 MiB at most.
/// options.wal_segment_size_bytes = 16 << 20;
/// options.wal_pool_size = 4;
/// ```
#[derive(Clone, Debug)]
pub struct PersistenceOptions {
    /// The directory of the log and the checkpoints. It is created if need be.
    pub wal_path: PathBuf,
    /// Bounds the log: all its files together take no more than this many segments of
    /// [`wal_segment_size_bytes`](Self::wal_segment_size_bytes) (but the bound is never less than 8192
    /// bytes). A checkpoint begins when half of the bound is used, and commits wait when all of it is.
    /// The default, 0, stands for a log that follows the size of the data.
    ///
    /// Until the next checkpoint, the bound may be exceeded by a commit that is larger than a segment,
    /// and, when the database is closed, by commits that wait to be written, up to 16 MiB.
    pub wal_pool_size: usize,
    /// The size of the largest segments, in bytes: from 4096 to 1 GiB. Segments begin with
    /// 256 KiB and double as the log goes on, to a quarter of what the log may take at most. A
    /// commit that is larger makes its segment longer; no commit may be larger than 1 GiB.
    pub wal_segment_size_bytes: u64,
}

impl PersistenceOptions {
    /// Keeps the files in a directory, with a log that follows the size of the data, in segments of up
    /// to 16 MiB.
    ///
    /// ```
    /// use fluxmap::persistence::PersistenceOptions;
    ///
    /// let options = PersistenceOptions::new("data/ledger");
    /// assert_eq!(options.wal_pool_size, 0);
    /// ```
    pub fn new(wal_path: impl Into<PathBuf>) -> Self {
        PersistenceOptions {
            wal_path: wal_path.into(),
            wal_pool_size: 0,
            wal_segment_size_bytes: 16 * 1024 * 1024,
        }
    }
}

/// The durability level: which failures a commit survives once it has returned.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DurabilityLevel {
    /// Nothing is written to disk.
    InMemory,
    /// A commit survives the death of the process; a power loss may take the newest commits.
    Relaxed {
        /// The directory and the size of the log.
        options: PersistenceOptions,
        /// The sync of a commit starts at most this many milliseconds after it.
        flush_interval_ms: Option<u64>,
        /// A power loss takes at most this many commits.
        flush_after_n_commits: Option<usize>,
        /// A power loss takes at most commits of this many bytes together.
        flush_after_m_bytes: Option<u64>,
    },
    /// A commit survives a power loss.
    Full {
        /// The directory and the size of the log.
        options: PersistenceOptions,
    },
}

/// When relaxed durability syncs; limits that are not set do not count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FlushLimits {
    pub(crate) interval: Option<Duration>,
    pub(crate) after_commits: Option<u64>,
    pub(crate) after_bytes: Option<u64>,
}

impl FlushLimits {
    pub(crate) fn is_empty(&self) -> bool {
        self.interval.is_none() && self.after_commits.is_none() && self.after_bytes.is_none()
    }
}

/// The report of opening a durable database: returned by
/// [`Database::recovery_info`](crate::Database::recovery_info).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryInfo {
    /// Whether the database was created.
    pub created: bool,
    /// The last commit that the checkpoint covers; 0 if it was empty.
    pub checkpoint_commit: u64,
    /// The number of pairs in the checkpoint.
    pub checkpoint_pairs: u64,
    /// The size of the checkpoint in bytes.
    pub checkpoint_bytes: u64,
    /// The number of commits in the log after the checkpoint.
    pub records: u64,
    /// The bytes of these commits.
    pub bytes: u64,
    /// The last commit: the recovered state is the state after it.
    pub last_commit: u64,
    /// Where the log was cut off because of an incomplete write before a power loss. Only bytes that had
    /// not been promised to survive a power loss are cut off.
    pub torn_tail: Option<TornTail>,
    /// How long opening took.
    pub duration: Duration,
}

/// Where the log was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TornTail {
    /// The path of the segment.
    pub path: PathBuf,
    /// The offset in the segment from which on everything was cut off.
    pub offset: u64,
}

/// The report of a written checkpoint: returned by
/// [`Database::checkpoint`](crate::Database::checkpoint).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointInfo {
    /// The last commit that the checkpoint covers.
    pub commit: u64,
    /// The number of pairs in the checkpoint.
    pub pairs: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// How long writing took.
    pub duration: Duration,
}

/// The progress of a backup: see [`Database::backup_to`](crate::Database::backup_to).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupProgress {
    /// The number of pairs written.
    pub pairs: u64,
    /// About how many pairs there are in total. It counts keys that were removed recently, so the last
    /// report may stay below it.
    pub total_pairs: u64,
    /// The number of bytes written.
    pub bytes: u64,
}
