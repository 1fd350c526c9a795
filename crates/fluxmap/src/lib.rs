//! An embedded, typed, in-memory, transactional key-value store: strictly
//! serializable, multi-version, at home in async code.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod builder;
mod commit;
pub mod db;
pub mod error;
mod handle;
mod key;
pub mod mem;
mod mvcc;
pub mod persistence;
mod sync;
mod txn;
mod worker;

pub use db::{
    Database, DatabaseBuilder, Handle, HandleStream, IsolationLevel, KeyMetadata, MemoryInfo, Savepoint,
    Snapshot, SnapshotRange, SnapshotStream, TransactOptions, Transaction, TransactionRange,
    TransactionStream, VacuumOptions, VacuumStats,
};
pub use error::{FluxError, PersistenceError};
pub use key::{Key, KeyBound, KeyRange, Prefix, Query, Value};
