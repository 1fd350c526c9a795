//! Small databases, each with a checkpoint and a log of several segments, and their content after
//! each commit.

use crate::damage::layout::{CHECKPOINT, Files, file_name, header_end, number, segment_name, segment_number};
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, FluxError};
use fluxmap_testkit::disk::SimDisk;
use futures::executor::block_on;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

pub(crate) type Content = BTreeMap<u64, String>;
pub(crate) type Db = Database<u64, String>;

/// The durability level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Full,
    Relaxed,
}

/// How the process left the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Killed,
}

/// A database that has been written, as files.
pub(crate) struct Scenario {
    pub(crate) level: Level,
    pub(crate) files: Files,
    /// The content after each commit, beginning with commit 0.
    pub(crate) states: Vec<Content>,
    /// All files as they were after each commit.
    pub(crate) earlier: Vec<Files>,
}

const DIRECTORY: &str = "db";
/// The smallest size that is allowed.
const SEGMENT: u64 = 4096;

/// Opens a database on a disk.
pub(crate) fn open(disk: &SimDisk, level: Level) -> Result<Db, FluxError> {
    let options = PersistenceOptions {
        wal_pool_size: 8,
        wal_segment_size_bytes: SEGMENT,
        ..PersistenceOptions::new(DIRECTORY)
    };
    let builder = Database::builder().disk(Arc::new(disk.clone()));
    match level {
        Level::Full => block_on(builder.durability_full(options).build()),
        Level::Relaxed => {
            let builder = builder.durability_relaxed(options);
            block_on(builder.flush_interval(Duration::from_secs(3600)).build())
        }
    }
}

/// A disk that holds these files, all of them durable.
pub(crate) fn disk_with(files: &Files) -> SimDisk {
    let disk = SimDisk::new(1);
    for (name, bytes) in files {
        disk.write(Path::new(DIRECTORY).join(name), bytes.clone());
    }
    disk
}

pub(crate) fn files_on(disk: &SimDisk) -> Files {
    disk.files().into_keys().map(|path| (file_name(&path), disk.read(&path))).collect()
}

pub(crate) fn content(db: &Db) -> Content {
    db.snapshot().range(..).map(|(key, value)| (key, value.to_string())).collect()
}

/// Makes the `n`-th commit: mostly of one key, in some rounds of several keys or a removal.
fn change(db: &Db, n: u64) -> Content {
    let tx = db.begin();
    match n % 5 {
        3 => {
            for key in 0..3 {
                tx.insert(100 + key, format!("{n} of three")).expect("a buffered write succeeds");
            }
        }
        4 => drop(tx.remove(&(n - 3)).expect("a read succeeds")),
        // The values have different lengths.
        _ => tx.insert(n, "x".repeat(60 + n as usize % 7 * 30)).expect("a buffered write succeeds"),
    }
    block_on(tx.commit()).expect("a commit succeeds");
    content(db)
}

/// Waits until the segment after the one in use has been made ready.
fn files_at_rest(disk: &SimDisk) -> Files {
    loop {
        let disk = disk.process_death();
        let files = files_on(&disk);
        let segments: Vec<u64> = files.keys().filter_map(|name| segment_number(name)).collect();
        let is_ready = segments.last().is_some_and(|last| {
            let bytes = &files[&segment_name(*last)];
            let start = header_end(bytes);
            bytes[start + 4..start + 8] != bytes[32..36]
        });
        if is_ready && !files.keys().any(|name| name == "wal.next" || name == "snapshot.tmp") {
            return files;
        }
        thread::yield_now();
    }
}

impl Scenario {
    /// Writes a database with a checkpoint, segments that it does not cover, the last of which is a
    /// recycled one, and a segment that is ready. `leftovers` adds a segment that the checkpoint
    /// covers, and drafts, as a crash leaves them.
    pub(crate) fn write(level: Level, end: End, leftovers: bool) -> Scenario {
        let disk = SimDisk::new(7);
        let db = open(&disk, level).expect("a new database opens");
        let mut states = vec![Content::new()];
        let mut earlier = vec![files_at_rest(&disk)];
        let mut n = 0;
        let mut commits_until = |segment: u64, more: u64| {
            let segment = segment_name(segment);
            let mut left = more;
            while left > 0 {
                n += 1;
                states.push(change(&db, n));
                if level == Level::Relaxed && n % 4 == 0 {
                    block_on(db.flush()).expect("it can be synced");
                }
                let files = files_at_rest(&disk);
                if files.contains_key(&segment) {
                    left -= 1;
                }
                earlier.push(files);
            }
            earlier.last().cloned().unwrap_or_default()
        };
        // Commit until the second segment is in use and the third is ready.
        let before = commits_until(3, 3);
        block_on(db.checkpoint()).expect("a checkpoint can be written");
        // Commit until the third is in use and the fourth has been made out of the first.
        let mut files = commits_until(4, 4);
        if end == End::Closed {
            block_on(db.close()).expect("it closes");
            files = files_on(&disk);
        }
        assert_eq!(number(&files[CHECKPOINT], 48, 8), 2, "the log goes on in the second segment");
        if leftovers {
            files.insert(segment_name(1), before[&segment_name(1)].clone());
            files.insert("snapshot.tmp".into(), files[CHECKPOINT][..50].to_vec());
            files.insert("wal.next".into(), vec![0; 20]);
        }
        Scenario { level, files, states, earlier }
    }
    /// Keeps only the beginning of the segment that the checkpoint covers. This saves time, and no
    /// reader looks at that segment as long as there is a checkpoint.
    pub(crate) fn with_short_leftovers(mut self) -> Scenario {
        self.files.entry(segment_name(1)).and_modify(|bytes| bytes.truncate(300));
        self
    }
}
