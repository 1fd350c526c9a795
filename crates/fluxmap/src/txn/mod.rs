//! Transactions, snapshots and what they read and write.

mod bulk;
pub(crate) mod gate;
pub(crate) mod metadata;
pub(crate) mod overlay;
pub(crate) mod read_set;
pub(crate) mod retry;
pub(crate) mod scan;
pub(crate) mod snapshot;
mod sorted;
pub(crate) mod stream;
pub(crate) mod transaction;
pub(crate) mod write_set;
