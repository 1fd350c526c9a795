//! Reads the files of a database without its types.
//!
//! No function of this module creates or changes a file of the database that it reads.
//!
//! - [`stat`]: a summary of the headers. Also works while the database is in use, and then shows one
//!   moment.
//! - [`verify`]: reads and checks everything that opening the database would read, by the same code;
//!   [`find_damage`] continues after the first damage.
//! - [`records`]: every pair and every operation, as bytes, with its place in the files.
//! - [`Image`]: all pairs, as bytes: [loaded](Image::load) strictly, as opening the database would, or
//!   [salvaged](Image::salvage) from every part that is sound; to be [visited](Image::visit), and
//!   [written](Image::write_to) as a new database.
//!
//! All functions but `stat` refuse a directory that is in use, and hold the database's lock, if there is
//! one, so that it cannot be opened meanwhile. (If there is none, as in a copy, the database must be
//! left alone.) They block: call them on a thread where that does no harm.
//!
//! ```
//! use fluxmap::{Database, inspect, persistence::PersistenceOptions};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), fluxmap::FluxError> {
//! # let temporary = tempfile::tempdir().expect("a directory");
//! # let dir = temporary.path().join("db");
//! let options = PersistenceOptions::new(dir.clone());
//! let db = Database::<String, u32>::builder().durability_full(options).build().await?;
//! db.insert("n".into(), 1).await?;
//! db.close().await?;
//!
//! let stat = inspect::stat(&dir)?;
//! assert_eq!(stat.identity.map(|identity| identity.key_type).as_deref(), Some("String"));
//! assert!(stat.closed && !stat.in_use);
//!
//! let summary = inspect::verify(&dir, |done, total| assert!(done <= total))?;
//! assert_eq!((summary.last_commit, summary.torn_tail), (1, None));
//! # Ok(())
//! # }
//! ```

mod image;
mod salvage;
mod scan;
mod stat;
mod survey;
mod walk;

pub use image::{Image, Pair};
pub use salvage::{Salvage, find_damage};
pub use scan::Damage;
pub use stat::{CheckpointStat, SegmentStat, SegmentState, Stat, stat};
pub use walk::{Operation, Record, Summary, records, verify};

use crate::codec::Codec;
use crate::disk::{Lock, OsDisk};
use crate::error::PersistenceError;
use crate::host::Host;
use crate::wal::directory::{CHECKPOINT, Directory};
use crate::wal::format::{self, FORMAT_VERSION};
use std::path::Path;
use std::sync::Arc;

type Result<T> = std::result::Result<T, PersistenceError>;

/// The properties that all files of one database share.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The version of the file format.
    pub format_version: u16,
    /// The codec of keys and values.
    pub codec: Codec,
    /// The schema version that was set on the builder.
    pub schema_version: u32,
    /// The name of the keys' type.
    pub key_type: String,
    /// The name of the values' type.
    pub value_type: String,
    /// A random number, drawn when the database was created.
    pub database: u64,
}

impl From<&format::FileIdentity> for Identity {
    fn from(identity: &format::FileIdentity) -> Self {
        Identity {
            format_version: FORMAT_VERSION,
            codec: identity.codec,
            schema_version: identity.schema_version,
            key_type: identity.key_type.clone(),
            value_type: identity.value_type.clone(),
            database: identity.database,
        }
    }
}

/// Returns whether there is a database in a directory, sound or not, in use or not.
///
/// ```
/// # let temporary = tempfile::tempdir().expect("a directory");
/// assert!(!fluxmap::inspect::exists(temporary.path())?);
/// # Ok::<(), fluxmap::PersistenceError>(())
/// ```
///
/// # Errors
///
/// If the directory exists and cannot be read.
pub fn exists(dir: impl AsRef<Path>) -> Result<bool> {
    has_database(&directory(dir.as_ref()))
}

fn has_database(directory: &Directory) -> Result<bool> {
    let has_checkpoint = directory.names()?.iter().any(|name| name == CHECKPOINT);
    Ok(has_checkpoint || !directory.segments()?.is_empty())
}

fn directory(path: &Path) -> Directory {
    Directory::new(Arc::new(OsDisk), path.to_owned(), Host::default())
}

/// A database that is not open, and that cannot be opened while this value lives.
struct OfflineDatabase {
    directory: Directory,
    _lock: Option<Box<dyn Lock>>,
}

impl OfflineDatabase {
    fn open(dir: &Path) -> Result<Self> {
        let directory = directory(dir);
        let _lock = directory.lock_if_there()?;
        match has_database(&directory)? {
            true => Ok(OfflineDatabase { directory, _lock }),
            false => Err(PersistenceError::NoDatabase { path: dir.to_owned() }),
        }
    }
}
