//! What can go wrong, and what to do about it.

use std::error::Error;
use std::fmt;
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
    /// The write would exceed the memory limit, and nothing may be evicted. Not
    /// returned yet, as there are no limits yet.
    #[error("the memory limit is reached; evict or remove something, or raise `max_memory`")]
    MemoryLimitExceeded,
    /// Nothing could be evicted. Not returned yet.
    #[error("nothing could be evicted")]
    EvictionError,
    /// Reading or writing files failed. Not returned yet, as nothing is written.
    #[error("persistence: {0}")]
    Persistence(#[from] PersistenceError),
    /// An earlier error of the log made the database read-only. Not returned yet.
    #[error("the database is read-only since its log failed: {0}")]
    FatalPersistenceError(String),
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

/// An error of the files behind a durable database.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PersistenceError {
    /// Reading or writing failed.
    Io(String),
    /// A key or value could not be encoded or decoded.
    Serialization(String),
    /// The files could not be read back.
    Recovery(String),
}

impl fmt::Display for PersistenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PersistenceError::Io(what) => write!(f, "input or output: {what}"),
            PersistenceError::Serialization(what) => write!(f, "encoding: {what}"),
            PersistenceError::Recovery(what) => write!(f, "recovery: {what}"),
        }
    }
}

impl Error for PersistenceError {}

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
