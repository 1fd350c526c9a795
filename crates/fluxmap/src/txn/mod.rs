//! Transactions and snapshots, with their reads and writes.

mod bulk;
mod footprint;
pub(crate) mod metadata;
pub(crate) mod overlay;
pub(crate) mod own;
pub(crate) mod priority;
pub(crate) mod read_set;
pub(crate) mod retry;
pub(crate) mod scan;
pub(crate) mod shield;
pub(crate) mod snapshot;
mod sorted;
pub(crate) mod stream;
pub(crate) mod transaction;
mod watch;
pub(crate) mod write_set;
