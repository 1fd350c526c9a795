//! Databases for the tests of inspection.

use fluxmap::inspect::Image;
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, FluxError};
use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(crate) type Db = Database<u64, String>;

pub(crate) async fn open(dir: &Path) -> Result<Db, FluxError> {
    let options = PersistenceOptions {
        wal_pool_size: 8,
        wal_segment_size_bytes: 4096,
        ..PersistenceOptions::new(dir.to_owned())
    };
    Database::builder().durability_full(options).build().await
}

/// A temporary directory, and the path of the database in it.
pub(crate) fn place() -> (tempfile::TempDir, PathBuf) {
    let temporary = tempfile::tempdir().expect("a directory");
    let dir = temporary.path().join("db");
    (temporary, dir)
}

/// Builds a database with a checkpoint of 20 pairs, followed by a log of three segments.
pub(crate) async fn build(dir: &Path) -> BTreeMap<u64, String> {
    let db = open(dir).await.expect("it is new");
    for n in 0..20 {
        db.insert(n, format!("old {n}")).await.expect("a commit");
    }
    db.checkpoint().await.expect("a checkpoint");
    for n in 10..30 {
        db.insert(n, format!("{n} {}", "x".repeat(300))).await.expect("a commit");
    }
    for n in 0..3 {
        db.remove(&n).await.expect("a commit");
    }
    let pairs = contents(&db);
    db.close().await.expect("it closes");
    pairs
}

pub(crate) fn contents(db: &Db) -> BTreeMap<u64, String> {
    db.snapshot().range(..).map(|(key, value)| (key, value.to_string())).collect()
}

/// Names, bytes and modification times of all files.
pub(crate) fn state(dir: &Path) -> Vec<(String, Vec<u8>, SystemTime)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| {
            let path = entry.expect("a file").path();
            let modified = fs::metadata(&path).and_then(|details| details.modified()).expect("a time");
            (path.display().to_string(), fs::read(&path).expect("bytes"), modified)
        })
        .collect();
    files.sort();
    files
}

pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("a file").path()).collect();
    files.retain(|path| path.file_name().is_some_and(|name| name != "lock"));
    files.sort();
    files
}

pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    files(dir).into_iter().filter(|path| path.to_string_lossy().contains("wal.")).collect()
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for file in files(from) {
        fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("a copy");
    }
}

/// The content of an image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) last_commit: u64,
    /// The values, and when they expire.
    pub(crate) pairs: BTreeMap<Vec<u8>, (Vec<u8>, Option<NonZeroU64>)>,
}

impl State {
    pub(crate) fn of(image: &Image) -> Self {
        let mut pairs = BTreeMap::new();
        image
            .visit(|pair| {
                let known = pairs.insert(pair.key.to_vec(), (pair.value.to_vec(), pair.expires));
                assert_eq!(known, None, "each key is shown once");
                ControlFlow::Continue(())
            })
            .expect("the files are as they were");
        assert_eq!(pairs.len() as u64, image.pair_count());
        State { last_commit: image.last_commit(), pairs }
    }
}

/// The content that salvage finds in a sound database.
pub(crate) fn salvaged(dir: &Path) -> State {
    State::of(&Image::salvage(dir, |_, _| {}).expect("it is sound").0)
}
