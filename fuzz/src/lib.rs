//! Code that the fuzz targets share: it makes files that are sound up to a point, and opens a
//! database on them.
//!
//! Whatever the bytes are, opening must not panic. If it fails, it must not have changed a file. If
//! it succeeds, opening the database once more must show the same content.

use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, FluxError};
use fluxmap_testkit::disk::SimDisk;
use futures::executor::block_on;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;

pub type Files = BTreeMap<PathBuf, Vec<u8>>;
type Db = Database<u16, Vec<u8>>;

const DIRECTORY: &str = "db";

pub fn path_of(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn open(disk: &SimDisk) -> Result<Db, FluxError> {
    let options = PersistenceOptions {
        wal_segment_size_bytes: 4096,
        wal_pool_size: 4,
        ..PersistenceOptions::new(DIRECTORY)
    };
    block_on(Database::builder().disk(Arc::new(disk.clone())).durability_full(options).build())
}

fn files_on(disk: &SimDisk) -> Files {
    disk.files().into_keys().map(|path| (path.clone(), disk.read(&path))).collect()
}

fn disk_with(files: &Files) -> SimDisk {
    let disk = SimDisk::new(1);
    for (path, bytes) in files {
        disk.write(path, bytes.clone());
    }
    disk
}

fn content(db: &Db) -> BTreeMap<u16, Vec<u8>> {
    db.snapshot().range(..).map(|(key, value)| (key, value.to_vec())).collect()
}

/// The files of a small database: a checkpoint, a segment in use, and one that is ready for use.
pub fn base() -> Files {
    static BASE: OnceLock<Files> = OnceLock::new();
    BASE.get_or_init(|| {
        let disk = SimDisk::new(1);
        let db = open(&disk).expect("a new database opens");
        for n in 0..4 {
            block_on(db.insert(n, vec![n as u8; 9])).expect("it can be written to");
        }
        block_on(db.checkpoint()).expect("a checkpoint can be written");
        while !disk.files().contains_key(&path_of("wal.0000000002")) {
            thread::yield_now();
        }
        drop(db);
        files_on(&disk)
    })
    .clone()
}

/// The offset at which a file's header ends.
pub fn header_end(bytes: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([bytes[14], bytes[15]]))
}

pub fn seal_header(bytes: &mut [u8]) {
    let end = header_end(bytes);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..end]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// Writes the seeds of a target's corpus: the sound bytes of a file, for each combination of the bits
/// that choose how the target puts the file together.
pub fn write_seeds(target: &str, name: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&directory).expect("a directory");
    let sound = &base()[&path_of(name)];
    let used = sound.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for how in 0..16_u8 {
        let start = if how & 4 != 0 { 40 } else { header_end(sound) };
        let seed = [&[how][..], &sound[start..used]].concat();
        fs::write(directory.join(format!("seed-{how}")), seed).expect("a file");
    }
}

/// Corrects the checksum of the frame or block that begins at `at`. The checksum covers the bytes
/// after it, up to `end`.
pub fn seal(bytes: &mut [u8], at: usize, end: usize) {
    let salt: [u8; 8] = bytes[32..40].try_into().expect("eight bytes");
    let crc = crc32c::crc32c_append(crc32c::crc32c(&salt), &bytes[at + 4..end]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

pub fn open_and_compare(files: &Files) {
    let disk = disk_with(files);
    match open(&disk) {
        Err(FluxError::Persistence(_)) => {
            let mut left = files_on(&disk);
            left.remove(&path_of("lock"));
            let mut before = files.clone();
            before.remove(&path_of("lock"));
            assert!(left == before, "opening failed, but changed a file");
        }
        Err(error) => panic!("not an error of the files: {error}"),
        Ok(db) => {
            let (first, last) = (content(&db), db.recovery_info().expect("durable").last_commit);
            drop(db);
            let db = open(&disk).expect("a database that was opened can be opened again");
            assert!(first == content(&db), "opening it again shows another content");
            assert_eq!(db.recovery_info().expect("durable").last_commit, last);
        }
    }
}
