//! The stores, behind one small trait. Each has its own adapter, which uses the store as its
//! documentation shows, at its strongest isolation.
//!
//! Keys are strings. Values are 100 bytes, of which the first eight are a number. A get reads this number,
//! so that it touches the value itself.

mod btree;
mod dashmap;
#[cfg(feature = "fjall")]
mod fjall;
pub(crate) mod fluxmap;
#[cfg(feature = "fluxmap-0-3-7")]
mod fluxmap_0_3_7;
#[cfg(feature = "lmdb")]
mod lmdb;
#[cfg(feature = "redb")]
mod redb;
mod skiplist;
#[cfg(feature = "sled")]
mod sled;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "surrealmx")]
mod surrealmx;
mod tree_index;

use serde::Serialize;
use std::path::Path;

/// The durability of a commit when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Level {
    /// The commit is visible. Stores that need files have them in the directory that they are given, and
    /// leave it to the system to write them to the disk.
    Memory,
    /// The commit is with the operating system, or the store's nearest level to that.
    Relaxed,
    /// The commit is synced.
    Full,
}

/// A transaction lost a conflict with another one and must be run again.
#[derive(Debug)]
pub(crate) struct Conflict;

/// The body of a transaction. It may run several times.
pub(crate) type Body<'b> = dyn FnMut(&mut dyn Transaction) -> Result<(), Conflict> + 'b;

/// A function that a scan calls with each key and its number, in order.
pub(crate) type Visit<'v> = dyn FnMut(&str, i64) + 'v;

/// A running transaction.
pub(crate) trait Transaction {
    fn get(&mut self, key: &str) -> Result<Option<i64>, Conflict>;
    /// Reads two keys. Stores that can read several at once override this.
    fn get_both(&mut self, [one, other]: [&str; 2]) -> Result<[Option<i64>; 2], Conflict> {
        Ok([self.get(one)?, self.get(other)?])
    }
    fn put(&mut self, key: &str, value: Vec<u8>) -> Result<(), Conflict>;
    fn delete(&mut self, key: &str) -> Result<(), Conflict>;
    /// Visits all keys that begin with `prefix`.
    fn scan_prefix(&mut self, prefix: &str, visit: &mut Visit<'_>) -> Result<(), Conflict>;
}

/// A store to measure.
pub(crate) trait Store: Send + Sync {
    /// The number in the value of a key.
    fn get(&self, key: &str) -> Option<i64>;
    /// Puts a value under a key that may or may not be there, in a separate commit.
    fn put(&self, key: &str, value: Vec<u8>);
    /// Visits up to `limit` pairs from a key on, as of one moment if the store can.
    fn scan(&self, from: &str, limit: usize, visit: &mut Visit<'_>);
    /// Runs `body` in a transaction until it commits. Returns how often it lost a conflict.
    fn transact(&self, body: &mut Body<'_>) -> u64;
    /// Whether the store has an ability.
    fn can(&self, what: Ability) -> bool;
    /// The FluxMap database, whose transactions can be tasks; `None` for other stores.
    fn tasks(&self) -> Option<&fluxmap::Db> {
        None
    }
}

/// An operation that some stores do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ability {
    Scan,
    Transact,
    /// Scan within a transaction.
    TransactScans,
}

type Open = fn(&Path, Level) -> Box<dyn Store>;

/// A store with an adapter.
pub(crate) struct Kind {
    /// The name of the store in tables.
    pub(crate) name: &'static str,
    /// Whether the store is durable at [`Level::Full`] and [`Level::Relaxed`].
    pub(crate) durable: bool,
    pub(crate) open: Open,
}

/// All stores that this program was built with, in the order of the tables.
pub(crate) const ALL: &[Kind] = &[
    Kind { name: "fluxmap", durable: true, open: fluxmap::open },
    #[cfg(feature = "fluxmap-0-3-7")]
    Kind { name: "fluxmap 0.3.7", durable: false, open: fluxmap_0_3_7::open },
    #[cfg(feature = "surrealmx")]
    Kind { name: "surrealmx", durable: true, open: surrealmx::open },
    #[cfg(feature = "redb")]
    Kind { name: "redb", durable: false, open: redb::open_in_memory },
    #[cfg(feature = "redb")]
    Kind { name: "redb file", durable: true, open: redb::open },
    #[cfg(feature = "fjall")]
    Kind { name: "fjall", durable: true, open: fjall::open },
    #[cfg(feature = "lmdb")]
    Kind { name: "LMDB", durable: true, open: lmdb::open },
    #[cfg(feature = "sqlite")]
    Kind { name: "SQLite", durable: false, open: sqlite::open_in_memory },
    #[cfg(feature = "sqlite")]
    Kind { name: "SQLite WAL", durable: true, open: sqlite::open },
    #[cfg(feature = "sled")]
    Kind { name: "sled", durable: true, open: sled::open },
    Kind { name: "RwLock BTreeMap", durable: false, open: btree::open },
    Kind { name: "skiplist", durable: false, open: skiplist::open },
    Kind { name: "TreeIndex", durable: false, open: tree_index::open },
    Kind { name: "DashMap", durable: false, open: dashmap::open },
];

/// The disabled features whose stores are missing.
pub(crate) fn missing() -> Vec<&'static str> {
    let features = [
        ("fluxmap-0-3-7", cfg!(feature = "fluxmap-0-3-7")),
        ("surrealmx", cfg!(feature = "surrealmx")),
        ("redb", cfg!(feature = "redb")),
        ("fjall", cfg!(feature = "fjall")),
        ("lmdb", cfg!(feature = "lmdb")),
        ("sqlite", cfg!(feature = "sqlite")),
        ("sled", cfg!(feature = "sled")),
    ];
    features.into_iter().filter(|(_, is_there)| !is_there).map(|(name, _)| name).collect()
}

/// A value of 100 bytes that contains a number.
pub(crate) fn value(number: i64) -> Vec<u8> {
    let mut value = vec![b'v'; 100];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

/// The number that a value contains.
fn number(value: &[u8]) -> i64 {
    value.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes))
}

/// The text of a key from a store that returns keys as bytes.
#[cfg(any(feature = "fjall", feature = "lmdb", feature = "sled", feature = "surrealmx"))]
fn text(key: &[u8]) -> &str {
    std::str::from_utf8(key).expect("keys are strings")
}
