//! An embedded, typed, in-memory, transactional key-value store. It is strictly serializable and
//! multi-version, works in async code, and needs no particular runtime.
//!
//! ```
//! use fluxmap::{Database, FluxError};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), FluxError> {
//! let db = Database::<String, i64>::builder().build().await?;
//! db.insert("alice".into(), 100).await?;
//! db.insert("bob".into(), 100).await?;
//!
//! // A transaction of several steps: all of it happens, or nothing.
//! db.transact(async |tx| {
//!     tx.update("alice", |balance| balance - 20)?;
//!     tx.update("bob", |balance| balance + 20)?;
//!     Ok::<_, FluxError>(())
//! })
//! .await?;
//!
//! // A view of one moment, for as long as it is kept.
//! let total: i64 = db.snapshot().range(..).map(|(_, balance)| *balance).sum();
//! assert_eq!(total, 200);
//! # Ok(())
//! # }
//! ```
//!
//! # Which types can I store?
//!
//! Any key that is `Ord + Hash + Clone + Send + Sync + 'static`, and any value that
//! is `Send + Sync + 'static`. Values come back as `Arc<V>`; in memory nothing is serialized, and
//! nothing is copied. A durable database needs types that are `serde::Serialize` and `DeserializeOwned`;
//! [`codec`] says which types each codec can read back. `Arc<str>`, `Arc<[u8]>` and other shared types
//! are among them with serde's feature `rc`, which your `Cargo.toml` has to name:
//! `serde = { version = "1", features = ["derive", "rc"] }`. The key's `Ord`, `Eq` and `Hash` must agree, as
//! for the maps of the standard library, and they must agree with those of the borrowed forms used for
//! look-ups.
//!
//! # How do I read?
//!
//! - One key, now: [`Database::get`], or [`get_with`](Database::get_with), which
//!   does not even touch the value's reference count.
//! - Several keys, read at one moment: [`Database::get_many`], or [`get_each`](Database::get_each) if
//!   their number is not known beforehand.
//! - The pairs of a range or prefix: [`Database::range`], [`prefix`](Database::prefix).
//! - Several reads of the same moment: a [`Snapshot`]. It is owned, cheap to clone, and can be read for
//!   hours while others write.
//! - Data that a write depends on: a [`Transaction`].
//!
//! Look-ups take borrowed forms (`get("alice")` with `String` keys; `get_each` takes references:
//! `get_each(&[1, 2])`). Ranges are
//! `"a".."f"`, `10..=20`, `..`, or a pair of bounds; prefixes are text, bytes, or the first elements
//! of tuples: `prefix(("ada", 2026))` for keys that are `(String, u16, u32)`. Ends of ranges of tuples own
//! their elements: `("ada".to_string(), 2026, 0)..`. Iterators are lazy and
//! double-ended; [`visit`](SnapshotRange::visit) passes the pairs to a closure instead and copies none,
//! which is several times as fast. For code that `await`s between items there are streams, whose names
//! (`prefix_scan_stream`) and items (`Result`) are those of FluxMap 0.3.
//!
//! ```
//! # use fluxmap::{Database, FluxError};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), FluxError> {
//! let db = Database::<String, u32>::builder().build().await?;
//! for (n, key) in ["user:ada", "user:bob", "user:cyd", "zoo"].into_iter().enumerate() {
//!     db.insert(key.to_string(), n as u32).await?;
//! }
//! let view = db.snapshot();
//! assert_eq!(view.prefix("user:").count(), 3);
//! assert_eq!(view.range("user:b"..).next().map(|(key, _)| key).as_deref(), Some("user:bob"));
//! assert_eq!(view.range(.."zoo").next_back().map(|(key, _)| key).as_deref(), Some("user:cyd"));
//! # Ok(())
//! # }
//! ```
//!
//! # How do I write?
//!
//! - One key, whatever its value is: [`Database::insert`] and [`remove`](Database::remove).
//! - Many keys at once: [`extend`](Database::extend), [`remove_range`](Database::remove_range),
//!   [`clear`](Database::clear); the first or last key: [`pop_first`](Database::pop_first),
//!   [`pop_last`](Database::pop_last).
//! - One key, depending on its value: [`update`](Database::update),
//!   [`compare_and_swap`](Database::compare_and_swap),
//!   [`get_or_insert_with`](Database::get_or_insert_with).
//! - Anything else: [`Database::transact`]. It begins a transaction, runs your closure and commits, and
//!   repeats all of this after a conflict with another transaction. A transaction that keeps losing is
//!   given priority, so it does commit in the end.
//! - Manually: [`Database::begin`] and [`Transaction::commit`], with
//!   [`savepoint`](Transaction::savepoint) and [`rollback_to`](Transaction::rollback_to).
//!
//! # How do I keep it on disk?
//!
//! With [`durability_full`](DatabaseBuilder::durability_full) a commit that has returned
//! survives a power loss; with
//! [`durability_relaxed`](DatabaseBuilder::durability_relaxed) it survives the death of the
//! process, and a power loss takes no more of the newest commits than the flush limits say. All data
//! stays in memory as well, so reads cost the same. Opening a database reads the newest checkpoint and
//! the log after it.
//!
//! ```
//! # use fluxmap::{Database, FluxError, persistence::PersistenceOptions};
//! # use std::time::Duration;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), FluxError> {
//! # let dir = tempfile::tempdir().expect("a directory");
//! # let path = dir.path().join("sessions");
//! let db = Database::<u64, String>::builder()
//!     .durability_relaxed(PersistenceOptions::new(path))
//!     .flush_interval(Duration::from_millis(200))
//!     .build()
//!     .await?;
//! db.insert(1, "ada".into()).await?; // with the operating system
//! db.flush().await?; // on disk
//! db.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Reads outside of transactions ([`get`](Database::get), snapshots, scans) never show a
//! commit that a crash could still undo. Transactions build on the newest commits, synced or not, so a
//! key that every transaction updates is not limited to one commit per sync;
//! [`commit`](Transaction::commit) and [`transact`](Database::transact) return when everything that the
//! transaction has read and written is as durable as the level says. Until then, values read *inside* a
//! transaction may still be lost in a crash: do not show them to others.
//!
//! [`Database::checkpoint`] and [`Database::backup_to`] can be called at any time; [`inspect`] reads the
//! files of a database without its types.
//!
//! [`Database::close`] reports whether the database is closed and, if not, what still holds it open:
//! clones, transactions, snapshots. An object that the database itself holds, such as an eviction
//! listener, must refer to the database through a [`WeakDatabase`].
//!
//! # How do I bound its memory?
//!
//! With [`max_memory`](DatabaseBuilder::max_memory), for types that are [`MemSize`](mem::MemSize). The
//! types of the standard library are; other types implement one method or, with the feature `derive`,
//! derive it (`bytes::Bytes` needs the feature `bytes`). When a commit exceeds the limit, other keys,
//! chosen by the [policy](mem::EvictionPolicy), are evicted in further commits before it returns. Under
//! `Manual` the commit is refused, and [`evict`](Database::evict) and
//! [`scan_metadata`](Database::scan_metadata) make room. A commit never evicts the keys that it has just
//! written; a commit that is larger than the limit is refused. To snapshots, transactions and the log an
//! eviction is a commit like any other; [`on_evict`](DatabaseBuilder::on_evict) reports each eviction.
//!
//! Values may [expire](Database::insert_with_ttl), with or without a limit. A reader that begins after a
//! value's expiry does not see the value (but a single [`get`](Database::get) does not read a clock each
//! time, so it may lag by as long as it takes to wake the background thread). Readers that began earlier
//! still see it. A transaction that has read such a value and writes cannot commit after the value has
//! expired.
//!
//! # What may go wrong?
//!
//! Without a memory limit or a maximum age of snapshots, a commit in memory can fail only through a
//! conflict: [`FluxError::SerializationConflict`] (or [`WriteConflict`](FluxError::WriteConflict) at the
//! snapshot level) from [`Transaction::commit`]. The transaction has then changed nothing. `transact`
//! retries conflicts; [`FluxError::is_retryable`] tells them from other errors, which come from limits
//! that you set ([`TransactOptions`]) or from calls out of order (a second `begin` on a [`Handle`], an
//! unknown savepoint, settings that do not fit together).
//!
//! Opening a durable database can fail with a [`PersistenceError`], and then changes nothing. A commit
//! can be refused because a key or value that it writes could not be read back
//! ([`FluxError::Persistence`]). After the first error of a write or a sync the database takes no more
//! commits: commits under way get [`FluxError::OutcomeUnknown`], later ones
//! [`FluxError::FatalPersistenceError`]; reads continue with the last state known to be durable. Open
//! the database again when the cause is gone. (A second sync would prove nothing: the kernel forgets
//! pages that it failed to write.)
//!
//! A value is encoded when it is committed, and again by each checkpoint. A value whose `Serialize`
//! fails or panics only in a checkpoint (because the value depends on state that has changed: a lock in
//! it, a setting) makes [`checkpoint`](Database::checkpoint) and [`backup_to`](Database::backup_to)
//! fail, with [`PersistenceError::Unstorable`] or the panic's message. Reads and commits continue, and
//! the next checkpoint succeeds if the value has been removed or replaced by then. If the value is still
//! there when the log is full, the log fails, as above, and the database takes no more commits. Every
//! acknowledged commit is there when the database is opened again, and that value is as it was when it
//! was committed.
//!
//! # What is guaranteed?
//!
//! At [`IsolationLevel::Serializable`], the default, committed transactions behave
//! as if run one after another, in an order that respects real time. Phantoms,
//! write skew, lost updates and the read-only anomaly cannot happen. Read-only transactions always
//! commit; their reads never wait and are not tracked. At [`IsolationLevel::Snapshot`], write skew is
//! possible, in all its forms, but no other anomaly is.
//!
//! A commit is all or nothing. If the closure fails or panics, the transaction has not happened. If the
//! future is dropped, the transaction has not happened either, with one exception: in a durable
//! database, a future that was only waiting for the disk has committed, and the commit becomes durable
//! by itself.
//!
//! # Does it block my executor?
//!
//! No. Inside a transaction, reads and writes are plain functions that never wait. Commits take turns
//! under a lock that is held for about as long as it takes to link the new versions; `commit` waits,
//! asynchronously, for the disk. It also waits while a transaction that kept losing has priority, if the
//! commit would change a key that the prioritised transaction has read. No lock and no pin is held
//! across an await, all futures and streams are `Send`, and any executor will do.
//!
//! Syncing, checkpoints and opening run on threads of their own, unless the database has a
//! [`Background`]. At relaxed durability the committing task hands its bytes to the operating system
//! itself, with a `write` of a microsecond or two.
//!
//! # Can I test, or run, without threads?
//!
//! Yes: with a [`Background`], whose holder does the background work one step at a time, in virtual
//! time. A run is determined by a seed and can be replayed, so a whole application can be simulated in
//! one thread of a plain test. The package `fluxmap-testkit` does that, with a simulated disk that can
//! crash at any step. See [`background`].
//!
//! # What happens to old versions?
//!
//! Each commit removes a few versions that no reader can see any more, so memory stays flat under a
//! steady load. An open snapshot or transaction keeps the versions that it can see, at most one per key,
//! and no others. [`Database::memory_info`] shows the number of versions, the memory that they take and
//! the age of the oldest reader; [`Database::vacuum`] removes versions left after a burst of writes.
//! [`max_snapshot_age`](DatabaseBuilder::max_snapshot_age) ends readers that stay open too long.
//!
//! # What if my types panic?
//!
//! Keys and values whose `Ord`, `Hash`, `Eq` or `Clone` panics leave the store consistent: the operation
//! that called them has not happened. If `Drop` panics, the store is consistent as well, but the commit
//! may have happened, because destructors run after it (the destructor of a key that was already stored,
//! for instance). A destructor may also run long after the commit that replaced the value, on behalf of
//! no caller; its panic is contained.
//!
//! # Which of my code runs under which lock?
//!
//! | code | may run under | so it must not use |
//! |---|---|---|
//! | `Ord`, `Eq` and `Clone` of keys | the commit lock; the lock of a transaction's own state | the database; that transaction |
//! | `Drop` of keys | the lock of a transaction's own state, for keys that are given to it twice or looked up by a range | that transaction |
//! | [`TimeSource`](mem::TimeSource) | the commit lock; the lock of a transaction's own state | the database |
//! | [`Disk`](disk::Disk) | the locks of the log and of checkpoints | the database |
//! | `Hash` and `Borrow` of keys, `Drop` of values, `Serialize`, `Deserialize`, `MemSize` | none | |
//! | the listener of [`on_evict`](DatabaseBuilder::on_evict), the closures of `transact`, `update` and `visit`, wakers | none | |
//!
//! The table holds for evictions and expiries too: they encode and drop a key, and copy it for the
//! listener, without a lock.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod background;
mod backup;
mod builder;
mod bulk;
mod checkpoint;
mod checkpointer;
pub mod codec;
mod commit;
pub mod db;
pub mod disk;
pub mod error;
mod handle;
mod host;
mod info;
pub mod inspect;
mod jobs;
mod key;
pub mod mem;
mod mvcc;
pub mod persistence;
#[cfg(shuttle)]
mod probe;
mod process;
mod progress;
mod recovery;
mod shared;
mod storage;
mod sync;
mod txn;
mod wal;
mod weak;
mod worker;

pub use background::Background;
pub use db::{
    Database, DatabaseBuilder, Handle, HandleMetadataStream, HandleStream, IsolationLevel, KeyMetadata,
    MemoryInfo, MetadataStream, PriorityInfo, Savepoint, Snapshot, SnapshotRange, SnapshotStream,
    TransactOptions, Transaction, TransactionRange, TransactionStream, VacuumOptions, VacuumStats,
    WeakDatabase,
};
pub use error::{FluxError, PersistenceError};
pub use key::{Key, KeyBound, KeyRange, Prefix, Query, Value};
pub use persistence::{DurabilityLevel, PersistenceOptions};

/// The parts that a model test controls.
#[cfg(shuttle)]
pub use {probe::ReadPoint, sync::time as virtual_time, sync::waits};

/// The examples of the README of FluxMap 0.3.7, unchanged.
#[cfg(doctest)]
#[doc = include_str!("../tests/seed_examples.md")]
mod seed_examples {}

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
mod readme {}
