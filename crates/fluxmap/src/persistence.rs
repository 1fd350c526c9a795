//! How a database is kept on disk.

use std::path::PathBuf;
use std::time::Duration;

/// Where the log is, how large it may become, and how it is cut into segments.
///
/// A checkpoint writes out all that is stored, in the background, and what the log has from
/// before it is not needed any more. By default one begins when the log has grown to the size
/// of the last checkpoint, at least 4 MiB. So each byte of a commit costs one byte in the log
/// and about one in a checkpoint, whatever the size of the database; its files take some four
/// times what is stored; and opening it reads up to three times that. Commits wait when the
/// log has twice the size of the last checkpoint, or of the one that is being written once that is
/// larger, which happens when they come faster than a checkpoint is written.
///
/// A pool of segments is a bound on the size of the log instead: for a database whose files
/// are to stay small, or that is to be opened fast. The more data there is for the size of the
/// log, the more often all of it is written out, and the sooner commits wait.
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
    /// The directory of the log and the checkpoints. Created if need be.
    pub wal_path: PathBuf,
    /// Bounds the log: all its files together take no more than so many segments of
    /// [`wal_segment_size_bytes`](Self::wal_segment_size_bytes) (but never less than 8192
    /// bytes). A checkpoint begins when half of that is full, and commits wait when all of
    /// it is. 0, the default, for a log that follows the size of the data.
    ///
    /// Until the next checkpoint it may be exceeded by a commit that is larger than a segment,
    /// and by those that wait to be written when the database is closed, up to 16 MiB.
    pub wal_pool_size: usize,
    /// The size of the largest segments, in bytes: from 4096 to 1 GiB. Segments begin with
    /// 256 KiB and double as the log goes on, to a quarter of what the log may take at most. A
    /// commit that is larger makes its segment longer; no commit may be larger than 1 GiB.
    pub wal_segment_size_bytes: u64,
}

impl PersistenceOptions {
    /// A directory, with a log that follows the size of the data, in segments of up to 16 MiB.
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

/// What a commit that has returned survives.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DurabilityLevel {
    /// Nothing is written to disk.
    InMemory,
    /// The death of the process; a power loss may take the newest commits.
    Relaxed {
        /// Where and how.
        options: PersistenceOptions,
        /// Sync this many milliseconds after the last time.
        flush_interval_ms: Option<u64>,
        /// Sync after this many commits.
        flush_after_n_commits: Option<usize>,
        /// Sync after this many bytes.
        flush_after_m_bytes: Option<u64>,
    },
    /// A power loss.
    Full {
        /// Where and how.
        options: PersistenceOptions,
    },
}

/// When relaxed durability syncs; what is not set does not count.
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

/// What opening a durable database found: from
/// [`Database::recovery_info`](crate::Database::recovery_info).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryInfo {
    /// Whether the database was created.
    pub created: bool,
    /// The commit that the checkpoint was taken after; 0 if it was empty.
    pub checkpoint_commit: u64,
    /// Pairs in the checkpoint.
    pub checkpoint_pairs: u64,
    /// Bytes of the checkpoint.
    pub checkpoint_bytes: u64,
    /// Commits in the log after it.
    pub records: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// The last commit: the state that was recovered is the one after it.
    pub last_commit: u64,
    /// Where something was cut off that a power loss had left: never anything that
    /// had been promised to survive one.
    pub torn_tail: Option<TornTail>,
    /// How long it took.
    pub duration: Duration,
}

/// Where the log was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TornTail {
    /// The segment.
    pub path: PathBuf,
    /// The offset in it from which on nothing was kept.
    pub offset: u64,
}

/// A checkpoint that was written: from
/// [`Database::checkpoint`](crate::Database::checkpoint).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointInfo {
    /// The commit that it was taken after.
    pub commit: u64,
    /// The pairs in it.
    pub pairs: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// How long it took.
    pub duration: Duration,
}

/// How far a backup has come: see
/// [`Database::backup_to`](crate::Database::backup_to).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupProgress {
    /// Pairs written.
    pub pairs: u64,
    /// About how many there are.
    pub total_pairs: u64,
    /// Bytes written.
    pub bytes: u64,
}
