//! Errors, with advice.

use crate::codec::{CodecError, EncodeError};
use crate::wal::format::MAX_COMMIT;
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
///
/// Errors can be compared: two are equal if they are of one kind and have equal fields. Errors of the
/// system are compared by their [kind](io::Error::kind).
#[derive(Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum FluxError {
    /// Another transaction committed a change to a key or range that this one had read. Nothing of this
    /// one was applied. Run it again, or let [`Database::transact`](crate::Database::transact) do so.
    #[error(
        "another transaction changed a key or range that this one had read; nothing was applied, run it again"
    )]
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
        /// The conflict that ended the last attempt.
        source: Box<FluxError>,
    },
    /// [`transact`](crate::Database::transact_with) ran past its deadline.
    #[error(
        "the deadline passed after {attempts} attempts; raise `deadline`, or make the transaction smaller"
    )]
    DeadlineExceeded {
        /// How often the transaction ran.
        attempts: u32,
        /// The conflict that ended the last attempt.
        source: Box<FluxError>,
    },
    /// The body of [`transact`](crate::Database::transact) commits a change to a key that its own
    /// transaction has read (at [`IsolationLevel::Snapshot`](crate::IsolationLevel::Snapshot): a key
    /// that its own transaction writes), itself or in a task that it waits for.
    /// So the transaction loses each time it runs. Typically, the body calls `db.insert` where
    /// `tx.insert` was meant. Nothing of the transaction was applied; the other commits were, once for
    /// each attempt.
    #[error(
        "the body of this transaction commits a change to a key that the transaction has read (at the snapshot level: that it writes), itself or in a task that it waits for, and so conflicts with itself each time it runs; write through the transaction that it is given (`tx`) instead of the database, or make the other commit before or after this transaction"
    )]
    ConflictsWithItself,
    /// `begin` was called on a [`Handle`](crate::Handle) that is in a transaction.
    #[error("this handle is in a transaction; commit it or roll it back first, or use another handle")]
    TransactionAlreadyActive,
    /// `commit`, `rollback` or a savepoint method was called on a [`Handle`](crate::Handle) that is in
    /// no transaction.
    #[error("this handle is in no transaction; call `begin` first")]
    NoActiveTransaction,
    /// [`Handle::rollback_to`](crate::Handle::rollback_to): the open transaction has no savepoint of
    /// this name. It was not set, or it ended when it or an earlier one was rolled back to.
    #[error(
        "no savepoint `{0}` in this transaction: it was not set, or it ended when it or an earlier one was rolled back to"
    )]
    SavepointNotFound(String),
    /// [`Transaction::rollback_to`](crate::Transaction::rollback_to): the savepoint ended when an earlier
    /// savepoint of the transaction was rolled back to. Nothing was undone.
    #[error(
        "this savepoint ended when an earlier savepoint of the transaction was rolled back to; set it again"
    )]
    SavepointEnded,
    /// [`Transaction::rollback_to`](crate::Transaction::rollback_to): the savepoint was set in another
    /// transaction, or in an earlier attempt of this one. Nothing was undone.
    #[error(
        "this savepoint was set in another transaction, or in an earlier attempt of this one; roll back to a savepoint of this transaction"
    )]
    SavepointOfOtherTransaction,
    /// The settings of the builder do not fit together, or a call needs a setting that the database does
    /// not have.
    #[error("configuration: {0}")]
    Configuration(String),
    /// There is no room for the write within the memory limit, and
    /// [`EvictionPolicy::Manual`](crate::mem::EvictionPolicy::Manual) evicts nothing. Nothing of the
    /// transaction was applied.
    #[error("the memory limit is reached; evict or remove keys, or raise `max_memory`")]
    MemoryLimitExceeded,
    /// The transaction's writes take more memory than the whole limit. Nothing of it was applied, and
    /// nothing was evicted for it.
    #[error(
        "the write takes {bytes} bytes, and the memory limit is {limit}; raise `max_memory`, or write less at once"
    )]
    ExceedsMemoryLimit {
        /// The bytes that the writes take.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The transaction or snapshot was open for longer than `max_snapshot_age`, and its versions are not
    /// kept any more. Nothing of a transaction was applied.
    #[error("this snapshot or transaction was open for longer than `max_snapshot_age` ({}s); take a new one", max_age.as_secs_f64())]
    SnapshotTooOld {
        /// The limit.
        max_age: Duration,
    },
    /// The files of a durable database could not be opened, read or written, or a key or value cannot be
    /// stored. Nothing has been applied.
    #[error(transparent)]
    Persistence(#[from] PersistenceError),
    /// An earlier error of the log ended all commits; reads continue with the last state that is known
    /// to be durable. Nothing of this commit was applied. Remove the cause, and open the database again.
    #[error(
        "the database takes no more commits because its log has failed; remove the cause and open the database again"
    )]
    FatalPersistenceError {
        /// The error of the log.
        source: PersistenceError,
    },
    /// The log failed while this commit was on its way to the disk. After the database has been opened
    /// again, the commit is there wholly or not at all.
    #[error(
        "the log failed while this commit was on its way to the disk; open the database again to see whether the commit is there"
    )]
    OutcomeUnknown {
        /// The error of the log.
        source: PersistenceError,
    },
    /// [`Database::close`](crate::Database::close) has synced every commit, but the database stays open,
    /// because something else holds it. The clone that was closed has been dropped. The database closes
    /// with the last holder: drop the holders, or call `close` on the last clone. In a listener of
    /// [`on_evict`](crate::DatabaseBuilder::on_evict) this is the rule, because the commit that evicts
    /// holds the database. See [`close`](crate::Database::close) for how to wait.
    #[error(
        "all commits are synced, but the database stays open: {clones} more of its clones or commits, {transactions} of its transactions and {snapshots} of its snapshots are held, possibly by the caller of an `on_evict` listener that closes it; it closes when the last of them is dropped"
    )]
    StillOpen {
        /// Other clones of the [`Database`](crate::Database), also those of upgraded
        /// [`WeakDatabase`](crate::WeakDatabase)s, and commits that wait for the disk.
        clones: usize,
        /// Running transactions.
        transactions: usize,
        /// Snapshots, including iterators and streams over them. Clones of a snapshot and its iterators
        /// count as one.
        snapshots: usize,
    },
}

impl FluxError {
    /// Returns whether running the transaction again may succeed, because this is a conflict or was
    /// caused by one.
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

/// An error of the files of a durable database, or of a key or value to be stored there.
#[derive(Clone, Debug, ThisError)]
#[non_exhaustive]
pub enum PersistenceError {
    /// The system refused to open, read, write, sync, rename or remove a file.
    #[error("cannot {action} {}{}: {source}", path.display(), at(offset))]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The offset in the file, if one is known.
        offset: Option<u64>,
        /// The error of the system.
        source: Arc<io::Error>,
    },
    /// The directory is open already, in this process or in another.
    #[error("{} is in use by another `Database`, in this process or another; close that one first, with all its clones, handles, transactions and snapshots", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The content of a file is not what was written to it. Nothing has been changed.
    #[error("{} is damaged at offset {offset}: {what}; restore a backup, or copy the sound parts with `fluxmap salvage`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The offset of the damage.
        offset: u64,
        /// A description of the damage.
        what: String,
    },
    /// A required file is missing. Nothing has been changed.
    #[error("{} is missing: {why}; restore it or a backup, or copy the remaining parts with `fluxmap salvage`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The evidence that the file existed.
        why: &'static str,
    },
    /// There is no database in a directory that is to be inspected, or none whose creation was finished.
    #[error("{} does not exist, or is no database: there is no checkpoint and no log; give the directory of a database", path.display())]
    NoDatabase {
        /// The directory.
        path: PathBuf,
    },
    /// The database was written with another type, schema version or codec than it is opened with, or
    /// with other fields of a type of that name. Nothing has been changed.
    ///
    /// If `what` is `key fields` or `value fields`, the other two texts are lists of fields such as
    /// `{e:text,a:_}`, `(uint,int)` or `{next:?@0}`:
    /// [`check_fields`](crate::DatabaseBuilder::check_fields) explains the notation.
    #[error("{} was written with {what} {found}, and is opened with {expected}; open it with the same {what} that it was written with, or choose another directory", path.display())]
    Mismatch {
        /// The file that records the properties.
        path: PathBuf,
        /// The property that differs.
        what: &'static str,
        /// The property in the file.
        found: Box<str>,
        /// The property that was asked for.
        expected: Box<str>,
    },
    /// The file has a format version that this version of FluxMap does not support. Nothing has been
    /// changed.
    #[error("{} has format version {found}, and this version of FluxMap reads version {supported}; open it with the version that wrote it", path.display())]
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
        /// The file's format version.
        found: u16,
        /// The supported version.
        supported: u16,
    },
    /// A key or value cannot be stored in such a way that it can be read back. Nothing was applied.
    #[error("a {what} cannot be stored: {source}")]
    Unstorable {
        /// `key` or `value`.
        what: &'static str,
        /// The error of the codec.
        source: Box<CodecError>,
    },
    /// A stored key or value has a correct checksum but cannot be decoded, because its type has changed.
    /// Nothing has been changed on disk.
    #[error("a {what} in {} at offset {offset} cannot be decoded: {source}; open the database with the types that it was written with", path.display())]
    Undecodable {
        /// `key` or `value`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The offset of the frame or block that holds it.
        offset: u64,
        /// The error of the codec.
        source: Box<CodecError>,
    },
    /// A commit is too large for the log. It is refused as soon as that is known. Nothing was applied.
    #[error("the commit takes at least {bytes} bytes in the log, and the most is {limit}; split it")]
    TooLarge {
        /// The least number of bytes that it takes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The database was opened by another process, of which this one is a fork. Two processes that wrote
    /// to one log would destroy it, so only the process that opened the database writes; in the fork
    /// nothing can be committed. See [`Database`](crate::Database#processes).
    #[error(
        "the database was opened by process {opened_by}, of which this process is a fork, and only the process that opened the database may write to its files; open databases after forking"
    )]
    OtherProcess {
        /// The process that opened the database.
        opened_by: u32,
    },
    /// The database is being closed, or one of its threads could not be started.
    #[error("{0}")]
    Unavailable(String),
}

/// Compares like [`FluxError`].
impl PartialEq for PersistenceError {
    fn eq(&self, other: &Self) -> bool {
        use PersistenceError::*;
        // One arm for each kind, so that a new kind cannot be forgotten.
        match self {
            Io { action: a, path: b, offset: c, source: d } => {
                matches!(other, Io { action, path, offset, source }
                    if (a, b, c, d.kind()) == (action, path, offset, source.kind()))
            }
            Locked { path: a } => matches!(other, Locked { path } if a == path),
            Damaged { path: a, offset: b, what: c } => {
                matches!(other, Damaged { path, offset, what } if (a, b, c) == (path, offset, what))
            }
            Missing { path: a, why: b } => matches!(other, Missing { path, why } if (a, b) == (path, why)),
            NoDatabase { path: a } => matches!(other, NoDatabase { path } if a == path),
            Mismatch { path: a, what: b, found: c, expected: d } => {
                matches!(other, Mismatch { path, what, found, expected }
                    if (a, b, c, d) == (path, what, found, expected))
            }
            UnsupportedFormat { path: a, found: b, supported: c } => {
                matches!(other, UnsupportedFormat { path, found, supported }
                    if (a, b, c) == (path, found, supported))
            }
            Unstorable { what: a, source: b } => {
                matches!(other, Unstorable { what, source } if (a, b) == (what, source))
            }
            Undecodable { what: a, path: b, offset: c, source: d } => {
                matches!(other, Undecodable { what, path, offset, source }
                    if (a, b, c, d) == (what, path, offset, source))
            }
            TooLarge { bytes: a, limit: b } => {
                matches!(other, TooLarge { bytes, limit } if (a, b) == (bytes, limit))
            }
            OtherProcess { opened_by: a } => matches!(other, OtherProcess { opened_by } if a == opened_by),
            Unavailable(a) => matches!(other, Unavailable(why) if a == why),
        }
    }
}

impl Eq for PersistenceError {}

impl PersistenceError {
    /// Wraps an error of the codec about a key or a value in [`PersistenceError::Unstorable`].
    pub(crate) fn unstorable(what: &'static str) -> impl Fn(CodecError) -> Self {
        move |source| PersistenceError::Unstorable { what, source: Box::new(source) }
    }
}

impl PersistenceError {
    /// Converts the error of encoding a key or a value.
    pub(crate) fn unencodable(what: &'static str) -> impl Fn(EncodeError) -> Self {
        move |error| match error {
            EncodeError::Codec(source) => PersistenceError::unstorable(what)(source),
            EncodeError::TooLong(bytes) => PersistenceError::TooLarge { bytes, limit: MAX_COMMIT },
        }
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

    #[test]
    fn errors_are_equal_if_they_say_the_same_and_those_of_the_system_by_their_kind() {
        let io = |action, error: io::Error| PersistenceError::Io {
            action,
            path: "log".into(),
            offset: None,
            source: Arc::new(error),
        };
        let full = || io::Error::new(io::ErrorKind::StorageFull, "no room");
        assert_eq!(io("write to", full()), io("write to", io::ErrorKind::StorageFull.into()));
        assert_ne!(io("write to", full()), io("sync", full()));
        assert_ne!(io("write to", full()), io("write to", io::ErrorKind::NotFound.into()));
        let codec = |problem: &str| {
            let mut error = crate::codec::Codec::MessagePack.decode::<Vec<u32>>(b"\xc3").unwrap_err();
            error.problem = problem.into();
            Box::new(error)
        };
        let (path, other): (PathBuf, PathBuf) = ("a".into(), "b".into());
        // Each error differs from the previous one in one field.
        let all = [
            PersistenceError::Locked { path: path.clone() },
            PersistenceError::Locked { path: other.clone() },
            PersistenceError::Damaged { path: path.clone(), offset: 1, what: "x".into() },
            PersistenceError::Damaged { path: path.clone(), offset: 2, what: "x".into() },
            PersistenceError::Damaged { path: path.clone(), offset: 2, what: "y".into() },
            PersistenceError::Missing { path: path.clone(), why: "x" },
            PersistenceError::Missing { path: path.clone(), why: "y" },
            PersistenceError::NoDatabase { path: path.clone() },
            PersistenceError::NoDatabase { path: other },
            PersistenceError::UnsupportedFormat { path: path.clone(), found: 1, supported: 2 },
            PersistenceError::UnsupportedFormat { path: path.clone(), found: 3, supported: 2 },
            PersistenceError::Mismatch {
                path: path.clone(),
                what: "key type",
                found: "u8".into(),
                expected: "u16".into(),
            },
            PersistenceError::Mismatch {
                path: path.clone(),
                what: "key type",
                found: "u8".into(),
                expected: "u32".into(),
            },
            PersistenceError::Unstorable { what: "key", source: codec("x") },
            PersistenceError::Unstorable { what: "key", source: codec("y") },
            PersistenceError::Undecodable { what: "key", path: path.clone(), offset: 1, source: codec("x") },
            PersistenceError::Undecodable { what: "value", path, offset: 1, source: codec("x") },
            PersistenceError::TooLarge { bytes: 1, limit: 2 },
            PersistenceError::TooLarge { bytes: 3, limit: 2 },
            PersistenceError::Unavailable("x".into()),
            PersistenceError::Unavailable("y".into()),
        ];
        for (i, one) in all.iter().enumerate() {
            for (j, other) in all.iter().enumerate() {
                assert_eq!(one == other, i == j, "{one:?} and {other:?}");
            }
        }
        let wrapped = |error| FluxError::RetriesExhausted { attempts: 1, source: Box::new(error) };
        assert_eq!(wrapped(FluxError::SerializationConflict), wrapped(FluxError::SerializationConflict));
        assert_ne!(wrapped(FluxError::SerializationConflict), wrapped(FluxError::WriteConflict));
        assert_ne!(FluxError::SerializationConflict, wrapped(FluxError::SerializationConflict));
    }
}
