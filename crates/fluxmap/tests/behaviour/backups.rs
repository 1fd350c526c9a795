//! A backup that fails leaves its directory as it found it. A backup that the death of the process
//! cut short is replaced by the next one.

use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, FluxError, PersistenceError};
use fluxmap_testkit::disk::SimDisk;
use futures::executor::block_on;
use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

type Db = Database<u32, String>;

const PAIRS: u32 = 200;

fn open(disk: &SimDisk, path: &str) -> Result<Db, FluxError> {
    let options = PersistenceOptions { wal_segment_size_bytes: 64 << 10, ..PersistenceOptions::new(path) };
    block_on(Db::builder().disk(Arc::new(disk.clone())).durability_full(options).build())
}

fn filled(disk: &SimDisk) -> Db {
    let db = open(disk, "db").expect("a new database opens");
    let tx = db.begin();
    (0..PAIRS).try_for_each(|key| tx.insert(key, "z".repeat(50))).expect("a write is buffered");
    block_on(tx.commit()).expect("a commit succeeds");
    // Wait until the next segment is ready, the last thing the database does by itself. After the
    // checkpoint below, all calls of the disk are the backup's.
    while !disk.files().contains_key(Path::new("db/wal.0000000002")) {
        std::thread::yield_now();
    }
    block_on(db.checkpoint()).expect("a checkpoint is written");
    db
}

fn back_up(db: &Db) -> Result<(), FluxError> {
    block_on(db.backup_to("copy", |_| ()))
}

/// The files in the copy's directory, except the lock.
fn left(disk: &SimDisk) -> BTreeSet<String> {
    let files = disk.files().into_keys().filter(|path| path.starts_with("copy") && !path.ends_with("lock"));
    files.map(|path| path.display().to_string()).collect()
}

#[track_caller]
fn assert_works(disk: &SimDisk, db: &Db, what: &str) {
    back_up(db).unwrap_or_else(|error| panic!("{what}: {error}"));
    let copy = open(disk, "copy").unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(copy.count(..).expect("a count succeeds"), PAIRS as usize, "{what}");
}

#[test]
fn a_backup_that_failed_at_any_call_can_be_made_again() {
    let mut failures = 0;
    for n in 1.. {
        let disk = SimDisk::new(1);
        let db = filled(&disk);
        disk.fail_once(n, io::ErrorKind::StorageFull);
        let failed = back_up(&db);
        disk.clear_faults();
        if failed.is_ok() {
            break;
        }
        failures += 1;
        assert_eq!(left(&disk), BTreeSet::new(), "after a failure at call {n}");
        assert_works(&disk, &db, &format!("after a failure at call {n}"));
    }
    assert!(failures > 5, "{failures} calls");
}

#[test]
fn a_backup_for_which_the_disk_was_too_small_can_be_made_again() {
    let disk = SimDisk::new(2);
    let db = filled(&disk);
    disk.set_capacity(disk.used() + 9_000);
    let failed = back_up(&db).expect_err("there is no room");
    assert!(failed.to_string().contains("snapshot.tmp"), "{failed}");
    assert_eq!(left(&disk), BTreeSet::new());
    disk.set_capacity(u64::MAX);
    assert_works(&disk, &db, "with room");
}

#[test]
fn a_backup_whose_progress_panicked_can_be_made_again() {
    let disk = SimDisk::new(3);
    let db = filled(&disk);
    let backup = db.backup_to("copy", |_| panic!("the user's own"));
    assert!(catch_unwind(AssertUnwindSafe(|| block_on(backup))).is_err());
    assert_eq!(left(&disk), BTreeSet::new());
    assert_works(&disk, &db, "after a panic");
}

#[test]
fn a_backup_that_a_death_cut_short_is_replaced_wherever_that_was() {
    let mut deaths = 0;
    for n in 1.. {
        let disk = SimDisk::new(4);
        let db = filled(&disk);
        disk.crash_at(n);
        let _ = back_up(&db);
        let Some(at_death) = disk.frozen().map(|disk| disk.process_death()) else { break };
        drop(db);
        deaths += 1;
        let db = open(&at_death, "db").expect("the database opens");
        match at_death.files().contains_key(Path::new("copy/snapshot.db")) {
            // The process died after the copy was complete.
            true => {
                assert_eq!(open(&at_death, "copy").expect("it opens").count(..).ok(), Some(PAIRS as usize))
            }
            false => assert_works(&at_death, &db, &format!("after a death at call {n}")),
        }
    }
    assert!(deaths > 5, "{deaths} calls");
}

#[test]
fn a_copy_that_was_cut_short_is_refused_unless_it_had_no_file_yet() {
    let (mut empty, mut refused) = (0, 0);
    for n in 1.. {
        let disk = SimDisk::new(7);
        let db = filled(&disk);
        disk.crash_at(n);
        let _ = back_up(&db);
        let Some(at_death) = disk.frozen().map(|disk| disk.process_death()) else { break };
        let has = |name: &str| at_death.files().contains_key(&Path::new("copy").join(name));
        let (has_segment, is_complete) = (has("wal.0000000002"), has("snapshot.db"));
        match open(&at_death, "copy") {
            Ok(copy) if is_complete => assert_eq!(copy.len(), Ok(PAIRS as usize)),
            Ok(copy) => {
                assert!(!has_segment, "call {n}");
                assert_eq!(copy.len(), Ok(0), "call {n}");
                empty += 1;
            }
            Err(FluxError::Persistence(PersistenceError::Missing { .. })) => refused += 1,
            Err(other) => panic!("call {n}: {other:?}"),
        }
    }
    assert!(empty > 0 && refused > 0, "{empty} opened as new, {refused} were refused");
}

#[test]
fn what_is_there_of_a_database_is_not_replaced() {
    let disk = SimDisk::new(5);
    let db = filled(&disk);
    assert_works(&disk, &db, "into nothing");
    let refused = |why: &str| {
        let files = disk.files();
        match back_up(&db) {
            Err(FluxError::Persistence(PersistenceError::Unavailable(said))) => {
                assert!(said.contains(why), "{said}")
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(disk.files(), files, "nothing has changed");
    };
    refused("there is a database in copy already");
    // Now the copy has no checkpoint, and its log has a commit.
    let copy = open(&disk, "copy").expect("it opens");
    block_on(copy.insert(0, "new".into())).expect("a commit succeeds");
    block_on(copy.close()).expect("it closes");
    disk.remove_file("copy/snapshot.db");
    refused("without its checkpoint");
}

/// A checkpoint that fails on a full disk leaves no draft behind, because the log needs the room.
#[test]
fn a_checkpoint_that_failed_leaves_no_draft() {
    let disk = SimDisk::new(6);
    let db = filled(&disk);
    block_on(db.checkpoint()).expect("there is room");
    disk.set_capacity(disk.used() + 5_000);
    assert!(matches!(block_on(db.checkpoint()), Err(FluxError::Persistence(_))));
    assert!(!disk.files().contains_key(Path::new("db/snapshot.tmp")));
    disk.set_capacity(u64::MAX);
    block_on(db.checkpoint()).expect("there is room again");
    block_on(db.insert(0, "new".into())).expect("a commit succeeds");
}
