//! What can go wrong, and what to do about it.

use crate::codec::CodecError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error as ThisError;

/// The error of every fallible operation.
///
/// ```
/// use fluxmap::{Database, FluxError};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), FluxError> {
/// let db = Database::<String, u32>::builder().build().await?;
/// db.insert("n".to_string(), 1).await?;
///
/// let (first, second) = (db.begin(), db.begin());
/// for tx in [&first, &second] {
///     let n = tx.get("n")?.map_or(0, |n| *n);
///     tx.insert("n".to_string(), n + 1)?;
/// }
/// first.commit().await?;
/// let lost = second.commit().await.unwrap_err();
/// assert!(lost.is_retryable());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum FluxError {
    /// Another transaction committed a change to something this one had read.
    /// Nothing of this one was applied. Run it again, or let
    /// [`Database::transact`](crate::Database::transact) do so.
    #[error("another transaction changed what this one had read; nothing was applied, run it again")]
    SerializationConflict,
    /// Under [`IsolationLevel::Snapshot`](crate::IsolationLevel::Snapshot): another
    /// transaction committed a write to a key that this one writes, too. Nothing
    /// of this one was applied.
    #[error(
        "another transaction wrote a key that this one writes, and committed first; nothing was applied, run it again"
    )]
    WriteConflict,
    /// [`transact`](crate::Database::transact_with) used up its attempts.
    #[error("gave up after {attempts} attempts; raise `max_attempts`, or make the transaction smaller")]
    RetriesExhausted {
        /// How often the transaction ran.
        attempts: u32,
        /// How the last attempt ended.
        source: Box<FluxError>,
    },
    /// [`transact`](crate::Database::transact_with) ran past its deadline.
    #[error(
        "the deadline passed after {attempts} attempts; raise `deadline`, or make the transaction smaller"
    )]
    DeadlineExceeded {
        /// How often the transaction ran.
        attempts: u32,
        /// How the last attempt ended.
        source: Box<FluxError>,
    },
    /// The body of [`transact`](crate::Database::transact) changes what its own transaction
    /// has read (or, at the snapshot level, writes), with a commit that it makes itself or
    /// waits for: each time it runs, it loses to that. Typically, it calls `db.insert` where
    /// `tx.insert` was meant. Nothing of the transaction was applied; those other commits were,
    /// once for each attempt.
    #[error(
        "the body of this transaction commits, by itself or in a task that it waits for, a change of what the transaction has read, and so conflicts with itself each time it runs; write through the transaction it is given (`tx`) instead of the database, or make the other commit before or after it"
    )]
    ConflictsWithItself,
    /// `begin` on a [`Handle`](crate::Handle) that is in a transaction.
    #[error("this handle is in a transaction; commit it or roll it back first, or use another handle")]
    TransactionAlreadyActive,
    /// `commit`, `rollback` or a savepoint on a [`Handle`](crate::Handle) that is
    /// in no transaction.
    #[error("this handle is in no transaction; call `begin` first")]
    NoActiveTransaction,
    /// No savepoint of this name, or it ended when an earlier one was rolled
    /// back to, or it belongs to another transaction.
    #[error("no savepoint `{0}` in this transaction")]
    SavepointNotFound(String),
    /// The builder was asked for something that does not fit together, or is
    /// not there.
    #[error("configuration: {0}")]
    Configuration(String),
    /// There is no room for the write within the memory limit, and under
    /// [`EvictionPolicy::Manual`](crate::mem::EvictionPolicy::Manual) nothing goes by
    /// itself. Nothing of the transaction was applied.
    #[error("the memory limit is reached; evict or remove something, or raise `max_memory`")]
    MemoryLimitExceeded,
    /// What a transaction writes takes more memory than the whole limit. Nothing of it was
    /// applied, and nothing was evicted for it.
    #[error(
        "this takes {bytes} bytes, and the memory limit is {limit}; raise `max_memory`, or write less at once"
    )]
    ExceedsMemoryLimit {
        /// What it takes.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The transaction or snapshot was open for longer than `max_snapshot_age`, and what it
    /// could see is not kept any more. Nothing of a transaction was applied.
    #[error("this snapshot or transaction was open for longer than `max_snapshot_age` ({}s); take a new one", max_age.as_secs_f64())]
    SnapshotTooOld {
        /// The limit.
        max_age: Duration,
    },
    /// The files behind a durable database could not be opened, read or written, or
    /// what was to be stored cannot be. Nothing has been applied.
    #[error(transparent)]
    Persistence(#[from] PersistenceError),
    /// An earlier error of the log ended all commits; reads go on, at the last state
    /// that is known to be durable. Nothing of this commit was applied. See to the
    /// cause, and open the database again.
    #[error("the database takes no more commits since its log failed; see to the cause and open it again")]
    FatalPersistenceError {
        /// What happened to the log.
        source: PersistenceError,
    },
    /// The log failed while this commit was on its way to the disk. After the database
    /// has been opened again, it is there wholly or not at all.
    #[error(
        "the log failed while this commit was on its way to the disk; open the database again to see whether it is there"
    )]
    OutcomeUnknown {
        /// What happened to the log.
        source: PersistenceError,
    },
}

impl FluxError {
    /// Whether running the transaction again may succeed: whether this is a
    /// conflict, or was caused by one.
    pub fn is_retryable(&self) -> bool {
        match self {
            FluxError::RetriesExhausted { source, .. } | FluxError::DeadlineExceeded { source, .. } => {
                source.is_retryable()
            }
            other => other.is_conflict(),
        }
    }

    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, FluxError::SerializationConflict | FluxError::WriteConflict)
    }
}

/// An error of the files behind a durable database, or of what is to be stored there.
#[derive(Clone, Debug, ThisError)]
#[non_exhaustive]
pub enum PersistenceError {
    /// The system refused to open, read, write, sync, rename or remove a file.
    #[error("cannot {action} {}{}: {source}", path.display(), at(offset))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Where in the file.
        offset: Option<u64>,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The directory is open already, in this process or in another.
    #[error("{} is in use by another `Database`, in this process or another; close that first, with all its clones, handles, transactions and snapshots", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file does not say what was written to it. Nothing has been changed.
    #[error("{} is damaged at offset {offset}: {what}; restore a backup, or copy what is sound with `fluxmap salvage`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A file that must be there is not. Nothing has been changed.
    #[error("{} is missing: {why}; restore it or a backup, or copy what is left with `fluxmap salvage`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// How we know that it was there.
        why: &'static str,
    },
    /// There is no database in a directory that is to be looked into, or none whose
    /// creation was finished.
    #[error("{} is not there, or no database: there is no checkpoint and no log; give the directory of one", path.display())]
    NoDatabase {
        /// The directory.
        path: PathBuf,
    },
    /// The database was written with another type, schema version or codec than it is
    /// opened with. Nothing has been changed.
    #[error("{} was written with {what} {found}, and is opened with {expected}; open it with what it was written with, or choose another directory", path.display())]
    Mismatch {
        /// The file that says so.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// In the file.
        found: Box<str>,
        /// Asked for.
        expected: Box<str>,
    },
    /// The file has a format that this version of FluxMap does not know. Nothing has
    /// been changed.
    #[error("{} has format version {found}, and this version of FluxMap reads version {supported}; open it with the version that wrote it", path.display())]
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u16,
        /// The one that is known.
        supported: u16,
    },
    /// A key or value cannot be stored such that it comes back. Nothing was applied.
    #[error("a {what} cannot be stored: {source}")]
    Unstorable {
        /// A key or a value.
        what: &'static str,
        /// What the codec said.
        source: Box<CodecError>,
    },
    /// A key or value that was stored, and whose checksum holds, cannot be decoded: the
    /// type has changed. Nothing has been changed on disk.
    #[error("a {what} in {} at offset {offset} cannot be decoded: {source}; open the database with the types it was written with", path.display())]
    Undecodable {
        /// A key or a value.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The frame or block that holds it.
        offset: u64,
        /// What the codec said.
        source: Box<CodecError>,
    },
    /// A commit is too large for the log. Nothing was applied.
    #[error("the commit takes {bytes} bytes in the log, and {limit} is the most; split it")]
    TooLarge {
        /// What it takes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The database is being closed, or a thread of it could not be started.
    #[error("{0}")]
    Unavailable(String),
}

impl PersistenceError {
    /// Makes an error of the codec's about a key or a value one of storing it.
    pub(crate) fn unstorable(what: &'static str) -> impl Fn(CodecError) -> Self {
        move |source| PersistenceError::Unstorable { what, source: Box::new(source) }
    }
}

fn at(offset: &Option<u64>) -> String {
    offset.map_or(String::new(), |offset| format!(" at offset {offset}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_are_retryable_through_their_wrappers() {
        let conflict = || Box::new(FluxError::SerializationConflict);
        assert!(FluxError::SerializationConflict.is_retryable());
        assert!(FluxError::WriteConflict.is_retryable());
        assert!(FluxError::RetriesExhausted { attempts: 3, source: conflict() }.is_retryable());
        assert!(FluxError::DeadlineExceeded { attempts: 3, source: conflict() }.is_retryable());
        assert!(!FluxError::NoActiveTransaction.is_retryable());
        let config = Box::new(FluxError::Configuration("x".into()));
        assert!(!FluxError::RetriesExhausted { attempts: 1, source: config }.is_retryable());
    }
}
