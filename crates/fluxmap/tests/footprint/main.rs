//! The resources that a durable database takes: bytes written for each byte stored, room on the
//! disk, and memory while files are read and large values are written.

mod counting;
mod memory;

use counting::CountingDisk;
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, FluxError, PersistenceError};
use futures::executor::block_on;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

type Db = Database<u64, Vec<u8>>;

const VALUE: usize = 1000;

fn open(options: PersistenceOptions, disk: &CountingDisk) -> Db {
    let builder = Db::builder().durability_relaxed(options).flush_interval(Duration::from_millis(100));
    block_on(builder.check_writes(false).disk(Arc::new(disk.clone())).build()).expect("it opens")
}

/// The bytes of all files, and of the files of the log.
fn sizes(dir: &Path) -> (u64, u64) {
    let (mut all, mut log) = (0, 0);
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("a file");
        // A file may be renamed or removed between listing it and asking for its size.
        let Ok(details) = entry.metadata() else { continue };
        all += details.len();
        if entry.file_name().to_string_lossy().starts_with("wal.") {
            log += details.len();
        }
    }
    (all, log)
}

/// The bound holds for every size of the database, while it is filled and while it is updated.
#[test]
fn a_byte_is_written_less_than_four_times() {
    for keys in [100, 4_000, 24_000] {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = CountingDisk::default();
        let db = open(PersistenceOptions::new(dir.path().join("db")), &disk);
        let payload = |commits: u64| commits * VALUE as u64;
        for key in 0..keys {
            block_on(db.insert(key, vec![1; VALUE])).expect("it commits");
        }
        // Allow for the first segments, which are written in full whatever is stored.
        let filled = disk.written();
        assert!(filled < 4 * payload(keys) + (1 << 20), "{keys} keys: {filled} bytes");
        let mut state = 1_u64;
        let updates = (2 * keys).max(16_000);
        for _ in 0..updates {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            block_on(db.insert((state >> 33) % keys, vec![2; VALUE])).expect("it commits");
        }
        block_on(db.close()).expect("it closes");
        let updated = disk.written() - filled;
        eprintln!(
            "footprint: {keys} keys: {filled} bytes for {}, {updated} for {}",
            payload(keys),
            payload(updates)
        );
        assert!(updated < 4 * payload(updates), "{keys} keys: {updated} bytes");
    }
}

#[test]
fn a_pool_bounds_the_log_while_it_is_written_and_opened_again() {
    for (pool, segment) in [(1, 64 << 10), (2, 64 << 10), (5, 64 << 10), (1, 4096), (3, 4096)] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("db");
        let options = PersistenceOptions {
            wal_pool_size: pool,
            wal_segment_size_bytes: segment,
            ..PersistenceOptions::new(path.clone())
        };
        // A log of the smallest segments takes two of them.
        let bound = (pool as u64 * segment).max(8192);
        let disk = CountingDisk::default();
        disk.watch(move || {
            let (_, log) = sizes(&path);
            assert!(log <= bound, "{log} bytes, at most {bound}");
        });
        for round in 0..3 {
            let db = open(options.clone(), &disk);
            for n in 0..300 {
                block_on(db.insert(n % 20, vec![round; VALUE])).expect("it commits");
            }
            // Flush first, so that nothing is queued when the database closes.
            block_on(db.flush()).expect("it is synced");
            block_on(db.close()).expect("it closes");
        }
        assert!(disk.looks() > 100, "the watch was called");
    }
}

#[test]
fn segments_are_used_again_rather_than_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db");
    let disk = CountingDisk::default();
    let write = |round: u8| {
        let db = open(PersistenceOptions::new(path.clone()), &disk);
        for n in 0..12_000 {
            block_on(db.insert(n % 100, vec![round; VALUE])).expect("it commits");
        }
        block_on(db.close()).expect("it closes");
    };
    write(1);
    let (created, payload) = (disk.created("wal.next"), 12_000 * VALUE as u64);
    let before = disk.written();
    write(2);
    let made = disk.created("wal.next") - created;
    assert!(made <= 1, "{made} segments were made although there were some to be recycled");
    let written = disk.written() - before;
    assert!(written < payload + payload / 4, "{written} bytes for {payload}");
}

#[test]
fn an_empty_database_takes_little_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db");
    let db = block_on(Db::builder().durability_full(PersistenceOptions::new(path.clone())).build());
    let db = db.expect("it opens");
    block_on(db.insert(1, vec![1])).expect("it commits");
    // The checkpoint waits until a missing segment has been made.
    block_on(db.checkpoint()).expect("a checkpoint");
    let (all, _) = sizes(&path);
    assert!(all <= 2 << 20, "{all} bytes");
}

#[test]
fn opening_reads_pieces_of_bounded_size() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = CountingDisk::default();
    let options = PersistenceOptions {
        wal_pool_size: 8,
        wal_segment_size_bytes: 16 << 20,
        ..PersistenceOptions::new(dir.path().join("db"))
    };
    let db = open(options.clone(), &disk);
    for n in 0..20_000 {
        block_on(db.insert(n, vec![1; VALUE])).expect("it commits");
    }
    block_on(db.checkpoint()).expect("a checkpoint");
    for n in 0..20_000 {
        block_on(db.insert(n, vec![2; VALUE])).expect("it commits");
    }
    block_on(db.close()).expect("it closes");
    disk.forget_reads();
    let db = open(options, &disk);
    assert_eq!(db.count(..).expect("a read"), 20_000);
    let largest = disk.largest_read();
    // A group of commits is one frame of up to 4 MiB, which is read at once.
    assert!((1..=5 << 20).contains(&largest), "{largest} bytes were read at once");
}

/// A value that is generated as it is serialized, while `MADE` counts its bytes.
struct Endless(u64);

static MADE: AtomicU64 = AtomicU64::new(0);

impl Serialize for Endless {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((0..self.0).map(|n| {
            MADE.fetch_add(1, Ordering::Relaxed);
            n as u8
        }))
    }
}

impl<'de> Deserialize<'de> for Endless {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(|bytes| Endless(bytes.len() as u64))
    }
}

#[test]
fn a_value_that_is_too_large_is_refused_before_it_is_encoded() {
    let dir = tempfile::tempdir().expect("a directory");
    let builder = Database::<u64, Endless>::builder();
    let db = block_on(builder.durability_full(PersistenceOptions::new(dir.path().join("db"))).build());
    let db = db.expect("it opens");
    let refused = block_on(db.insert(1, Endless(3 << 30)));
    let Err(FluxError::Persistence(PersistenceError::TooLarge { bytes, limit })) = refused else {
        panic!("{refused:?}");
    };
    assert!(bytes >= 3 << 30 && limit == 1 << 30, "{bytes} of {limit}");
    assert_eq!(MADE.load(Ordering::Relaxed), 0, "no byte was encoded before the refusal");
    block_on(db.insert(1, Endless(300_000))).expect("the database goes on");
    assert_eq!(db.get(&1).expect("a read").map(|value| value.0), Some(300_000));
}
