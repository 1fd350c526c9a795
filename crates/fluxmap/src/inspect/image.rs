//! All pairs of a database, as bytes.

use super::salvage::{Salvage, salvage};
use super::walk::{Operation, walk};
use super::{Identity, Quiet, Result, directory};
use crate::backup::write_database;
use crate::checkpoint::{self, BLOCK_SIZE};
use crate::persistence::BackupProgress;
use crate::wal::format::{self, Lsn, push_operation};
use fluxmap_index::Time;
use std::collections::{BTreeMap, btree_map};
use std::convert::Infallible;
use std::num::NonZeroU64;
use std::path::Path;

/// All pairs of a database, encoded, in the order of the bytes of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    identity: format::Identity,
    last_commit: Lsn,
    pairs: Pairs,
}

/// An encoded value, and when it expires; zero if it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) value: Vec<u8>,
    pub(super) expires: Time,
}

/// By encoded key.
pub(super) type Pairs = BTreeMap<Vec<u8>, Stored>;

impl Image {
    pub(super) fn new(identity: format::Identity, last_commit: Lsn, pairs: Pairs) -> Self {
        Image { identity, last_commit, pairs }
    }

    /// Reads a database as opening it would, and tells `progress` how many bytes are
    /// done, of how many.
    ///
    /// # Errors
    ///
    /// As [`verify`](super::verify).
    pub fn load(dir: impl AsRef<Path>, progress: impl FnMut(u64, u64)) -> Result<Self> {
        let quiet = Quiet::open(dir.as_ref())?;
        let mut pairs = BTreeMap::new();
        let (summary, identity) = walk(&quiet, progress, |record| {
            match record.operation {
                Operation::Pair { key, value, expires } | Operation::Put { key, value, expires } => {
                    let expires = expires.map_or(0, NonZeroU64::get);
                    pairs.insert(key.to_vec(), Stored { value: value.to_vec(), expires });
                }
                Operation::Delete { key } => {
                    pairs.remove(key);
                }
            }
            Ok(())
        })?;
        Ok(Image { identity, last_commit: summary.last_commit, pairs })
    }

    /// Reads whatever is sound of a database: the blocks and frames whose checksums
    /// hold, wherever they are, in the order of the commits. Tells `progress` how many
    /// bytes are done, of how many.
    ///
    /// What comes of it may be a state that never was. A commit that is missing leaves
    /// what was there before it; a pair that is missing from the checkpoint may be there
    /// as an older commit wrote it, or be missing. What is wrong is in the report.
    ///
    /// ```
    /// # use fluxmap::{Database, persistence::PersistenceOptions};
    /// use fluxmap::inspect::Image;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let temporary = tempfile::tempdir()?;
    /// # let (dir, out) = (temporary.path().join("db"), temporary.path().join("out"));
    /// # let open = |dir: &std::path::Path| {
    /// #     let options = PersistenceOptions::new(dir.to_owned());
    /// #     Database::<String, u32>::builder().durability_full(options).build()
    /// # };
    /// # let db = open(&dir).await?;
    /// # db.insert("n".into(), 1).await?;
    /// # db.close().await?;
    /// std::fs::remove_file(dir.join("snapshot.db"))?;
    /// assert!(open(&dir).await.is_err());
    ///
    /// let (image, report) = Image::salvage(&dir, |_, _| {})?;
    /// assert!(!report.is_complete());
    /// image.write_to(&out, |_| {})?;
    /// assert_eq!(open(&out).await?.get("n")?.as_deref(), Some(&1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`PersistenceError::Locked`](crate::PersistenceError::Locked) if the database is
    /// in use, [`NoDatabase`](crate::PersistenceError::NoDatabase) if there is none,
    /// [`UnsupportedFormat`](crate::PersistenceError::UnsupportedFormat) if another
    /// version wrote it, [`Unavailable`](crate::PersistenceError::Unavailable) if no
    /// header of any file can be read.
    pub fn salvage(dir: impl AsRef<Path>, progress: impl FnMut(u64, u64)) -> Result<(Self, Salvage)> {
        salvage(&Quiet::open(dir.as_ref())?, progress)
    }

    /// What the files of the database agree on.
    pub fn identity(&self) -> Identity {
        (&self.identity).into()
    }

    /// The commit after which the pairs are.
    pub fn last_commit(&self) -> u64 {
        self.last_commit
    }

    /// The pairs: keys and values, expired or not.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.pairs.iter().map(|(key, stored)| (&key[..], &stored.value[..]))
    }

    /// When what this key holds expires, in milliseconds since 1970, if it does.
    pub fn expires(&self, key: &[u8]) -> Option<NonZeroU64> {
        NonZeroU64::new(self.pairs.get(key)?.expires)
    }

    /// Writes the pairs into a directory of their own, which is created if need be, and
    /// can be opened as a database of the same types. `progress` is called now and then.
    ///
    /// # Errors
    ///
    /// [`PersistenceError::Unavailable`](crate::PersistenceError::Unavailable) if there is
    /// a database in the directory already; [`Io`](crate::PersistenceError::Io) if it
    /// could not be written: its files are removed then.
    pub fn write_to(&self, out: impl AsRef<Path>, mut progress: impl FnMut(BackupProgress)) -> Result<()> {
        let total_pairs = self.pairs.len() as u64;
        let mut pairs = Encoded { commit: self.last_commit.max(1), rest: self.pairs.iter() };
        write_database(&directory(out.as_ref()), &self.identity, &mut pairs, |written| {
            progress(BackupProgress { pairs: written.pairs, total_pairs, bytes: written.bytes });
        })
    }
}

/// The pairs of an image, for a checkpoint.
struct Encoded<'i> {
    /// Never the one before the first: at that, nothing can be stored.
    commit: Lsn,
    rest: btree_map::Iter<'i, Vec<u8>, Stored>,
}

/// Puts bytes where something is to encode itself.
fn copy(bytes: &[u8]) -> impl FnOnce(&mut Vec<u8>) -> std::result::Result<(), Infallible> + use<'_> {
    move |into| {
        into.extend(bytes);
        Ok(())
    }
}

impl checkpoint::Pairs for Encoded<'_> {
    fn timestamp(&self) -> Lsn {
        self.commit
    }

    fn time(&self) -> Time {
        // The database that it will be begins with the machine's.
        0
    }

    fn fill(&mut self, block: &mut Vec<u8>) -> Result<u32> {
        let mut count = 0;
        while block.len() < BLOCK_SIZE {
            let Some((key, Stored { value, expires })) = self.rest.next() else {
                break;
            };
            let Ok(()) = push_operation(block, *expires, copy(key), Some(copy(value)));
            count += 1;
        }
        Ok(count)
    }
}
