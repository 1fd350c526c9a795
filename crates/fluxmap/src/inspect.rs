//! Looking into the files of a database without its types.
//!
//! Nothing in here creates or changes a file of the database that is looked into.
//!
//! - [`stat`]: what is there, from the headers. Of a database in use, too: a moment's
//!   picture.
//! - [`verify`]: reads and checks everything that opening the database would read, by
//!   the same code; [`find_damage`] goes on after the first thing that is wrong.
//! - [`records`]: every pair and every operation, as bytes, with where it stands.
//! - [`Image`]: all pairs, as bytes: [loaded](Image::load) strictly, as opening the
//!   database would, or [salvaged](Image::salvage) from whatever is sound; to be
//!   [looked at](Image::visit), and [written](Image::write_to) as a new database.
//!
//! All but `stat` refuse a directory that is in use, and keep others from opening it
//! meanwhile, by its lock, if there is one. (If there is none, as in a copy, the
//! database must be left alone.) They block: call them on a thread where that does no
//! harm.
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

/// What the files of one database agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The version of the format of the files.
    pub format_version: u16,
    /// How keys and values are written.
    pub codec: Codec,
    /// As it was set on the builder.
    pub schema_version: u32,
    /// The name of the keys' type.
    pub key_type: String,
    /// The name of the values' type.
    pub value_type: String,
    /// Drawn at random when the database was created.
    pub database: u64,
}

impl From<&format::Identity> for Identity {
    fn from(identity: &format::Identity) -> Self {
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

/// Whether there is a database in a directory, sound or not, in use or not.
///
/// ```
/// # let temporary = tempfile::tempdir().expect("a directory");
/// assert!(!fluxmap::inspect::exists(temporary.path())?);
/// # Ok::<(), fluxmap::PersistenceError>(())
/// ```
///
/// # Errors
///
/// If the directory is there and cannot be read.
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

/// A database that nobody has open, and that nobody can open.
struct Quiet {
    directory: Directory,
    _lock: Option<Box<dyn Lock>>,
}

impl Quiet {
    fn open(dir: &Path) -> Result<Self> {
        let directory = directory(dir);
        let _lock = directory.lock_if_there()?;
        match has_database(&directory)? {
            true => Ok(Quiet { directory, _lock }),
            false => Err(PersistenceError::NoDatabase { path: dir.to_owned() }),
        }
    }
}
