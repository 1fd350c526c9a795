//! How a database is kept on disk.
//!
//! Durability is not built yet: a builder that is asked for it answers with
//! [`FluxError::Configuration`](crate::FluxError::Configuration), and nothing is
//! written anywhere.

use std::path::PathBuf;

/// Where the log is, and how it is cut into segments.
#[derive(Clone, Debug)]
pub struct PersistenceOptions {
    /// The directory of the log and the checkpoints.
    pub wal_path: PathBuf,
    /// How many segments there are.
    pub wal_pool_size: usize,
    /// The size of a segment, in bytes.
    pub wal_segment_size_bytes: u64,
}

impl PersistenceOptions {
    /// A directory, with 4 segments of 16 MiB.
    pub fn new(wal_path: PathBuf) -> Self {
        PersistenceOptions { wal_path, wal_pool_size: 4, wal_segment_size_bytes: 16 * 1024 * 1024 }
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
