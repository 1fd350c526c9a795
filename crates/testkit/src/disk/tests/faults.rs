//! Planned failures, full disks, read-only disks and stalls.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::thread;
use std::time::Duration;

use fluxmap::disk::{Disk, OpenMode};

use super::super::{Loss, SimDisk, SimError};
use super::{create, disk, durable, names};

/// A timeout far longer than the wait takes.
const LONG: Duration = Duration::from_secs(20);

/// Makes each kind of counted call once, and returns the names of those that failed.
fn every_call(disk: &SimDisk) -> Vec<&'static str> {
    let dir = Path::new("d");
    let file = disk.open(Path::new("d/there"), OpenMode::Write).unwrap();
    let calls = [
        ("create_dir", disk.create_dir(Path::new("e"))),
        ("open", disk.open(Path::new("d/a"), OpenMode::Create).map(drop)),
        ("write_at", file.write_at(b"x", 0)),
        ("sync", file.sync()),
        ("rename", disk.rename(Path::new("d/move"), Path::new("d/moved"))),
        ("remove", disk.remove(Path::new("d/gone"))),
        ("sync_dir", disk.sync_dir(dir)),
        ("lock", disk.lock(Path::new("d/lock")).map(drop)),
    ];
    let failed = calls.into_iter().filter(|(_, outcome)| outcome.is_err());
    failed.map(|(name, _)| name).collect()
}

fn prepared() -> SimDisk {
    let disk = disk(1);
    for name in ["d/there", "d/move", "d/gone"] {
        disk.write(name, *b"before");
    }
    disk
}

const CALLS: [&str; 8] = ["create_dir", "open", "write_at", "sync", "rename", "remove", "sync_dir", "lock"];

#[test]
fn the_call_that_is_to_fail_fails() {
    for (n, name) in CALLS.iter().enumerate() {
        let disk = prepared();
        let before = disk.calls();
        disk.fail_once(n as u64 + 1, ErrorKind::Other);
        assert_eq!(every_call(&disk), [*name]);
        assert_eq!(disk.calls() - before, 8, "each is counted, and reads are not");
        let disk = prepared();
        disk.fail_from(n as u64 + 1, ErrorKind::Other);
        assert_eq!(every_call(&disk), CALLS[n..]);
        disk.clear_faults();
        disk.create_dir(Path::new("e")).unwrap();
    }
}

#[test]
fn a_call_that_fails_has_no_effect_and_says_why() {
    let disk = prepared();
    let files = disk.files();
    let before = disk.calls();
    disk.fail_from(1, ErrorKind::TimedOut);
    let error = disk.remove(Path::new("d/gone")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(SimError::of(&error), Some(SimError::Injected { call: before + 1 }));
    assert!(disk.rename(Path::new("d/move"), Path::new("d/gone")).is_err());
    assert!(disk.open(Path::new("d/new"), OpenMode::Create).is_err());
    assert!(disk.lock(Path::new("d/lock")).is_err());
    assert!(disk.create_dir(Path::new("e")).is_err());
    assert_eq!(disk.files(), files);
    assert!(disk.list(Path::new("e")).is_err());
    disk.clear_faults();
    assert!(disk.remove(Path::new("d/none")).is_err_and(|error| SimError::of(&error).is_none()));
}

#[test]
fn a_failed_sync_of_a_directory_can_be_done_again() {
    let disk = disk(1);
    create(&disk, "d/a");
    disk.fail_once(1, ErrorKind::Other);
    disk.sync_dir(Path::new("d")).unwrap_err();
    assert!(names(&disk.power_cut(Loss::Everything)).is_empty());
    disk.sync_dir(Path::new("d")).unwrap();
    assert_eq!(names(&disk.power_cut(Loss::Everything)), ["d/a"]);
}

#[test]
fn a_failed_write_may_have_written_a_part() {
    let lengths: BTreeSet<usize> = (0..200)
        .map(|seed| {
            let disk = disk(seed);
            let file = durable(&disk, "d/a", b"");
            disk.fail_once(1, ErrorKind::Other);
            file.write_at(&[1; 10], 0).unwrap_err();
            let bytes = disk.read("d/a");
            assert!(bytes.iter().all(|byte| *byte == 1));
            assert!(disk.power_cut(Loss::Everything).read("d/a").is_empty());
            bytes.len()
        })
        .collect();
    assert_eq!(lengths, (0..=10).collect());
}

#[test]
fn what_a_failed_sync_was_to_sync_is_doomed() {
    let disk = disk(1);
    let file = durable(&disk, "d/a", b"....");
    file.write_at(b"x", 1).unwrap();
    disk.fail_once(1, ErrorKind::Other);
    file.sync().unwrap_err();
    file.write_at(b"y", 2).unwrap();
    file.sync().unwrap();
    assert_eq!(disk.read("d/a"), b".xy.", "it can be read");
    assert_eq!(disk.process_death().read("d/a"), b".xy.");
    let cut = |disk: &SimDisk| disk.power_cut(Loss::Everything).read("d/a");
    assert_eq!(cut(&disk), b"..y.", "but no later sync saves it");
    assert_eq!(cut(&disk.process_death()), b"..y.", "nor does a reopen");
    let seen: BTreeSet<_> = (0..100).map(|seed| disk.power_cut(Loss::Random(seed)).read("d/a")).collect();
    assert_eq!(seen, BTreeSet::from([b"..y.".to_vec(), b".xy.".to_vec()]), "it may be there all the same");
    assert!(format!("{disk:?}").contains("d/a: 4 bytes, 1 changes not synced"), "{disk:?}");
    let evicted = disk.deep_clone();
    evicted.drop_caches();
    assert_eq!(evicted.read("d/a"), b"..y.");
    file.write_at(b"x", 1).unwrap();
    file.sync().unwrap();
    assert_eq!(cut(&disk), b".xy.", "save if it is written again");
}

#[test]
fn memory_is_forgotten_only_where_it_is_clean() {
    let disk = disk(1);
    let file = durable(&disk, "d/a", b"....");
    file.write_at(b"x", 1).unwrap();
    disk.drop_caches();
    assert_eq!(disk.read("d/a"), b".x..");
}

#[test]
fn a_full_disk_refuses_what_does_not_fit() {
    let mut parts = BTreeSet::new();
    for seed in 0..100 {
        let disk = disk(seed);
        let file = durable(&disk, "d/a", &[1; 100]);
        let other = durable(&disk, "d/b", &[1; 50]);
        assert_eq!(disk.used(), 150);
        disk.set_capacity(160);
        file.write_at(&[2; 100], 0).unwrap();
        other.write_at(&[2; 10], 50).unwrap();
        other.write_at(&[3; 60], 0).unwrap();
        file.write_at(b"x", 100).map_err(|error| error.kind()).expect_err("there is no room");
        disk.remove(Path::new("d/b")).unwrap();
        assert_eq!(disk.used(), 160, "it is open still");
        drop(other);
        assert_eq!(disk.used(), 100);
        let error = file.write_at(&[3; 100], 90).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        let bytes = disk.read("d/a");
        assert!(bytes.len() <= 160 && bytes.iter().skip(100).all(|byte| *byte == 3));
        parts.insert(bytes.len());
        disk.set_capacity(1000);
        file.write_at(&[4; 100], 90).unwrap();
        assert_eq!(disk.used(), 190);
    }
    assert!(parts.contains(&100) && parts.contains(&160) && parts.len() > 10, "{parts:?}");
}

#[test]
fn a_read_only_disk_refuses_every_change() {
    let disk = prepared();
    let file = disk.open(Path::new("d/there"), OpenMode::Write).unwrap();
    let files = disk.files();
    disk.set_read_only(true);
    let denied = [
        disk.create_dir(Path::new("e")),
        disk.open(Path::new("d/a"), OpenMode::Create).map(drop),
        disk.open(Path::new("d/there"), OpenMode::Create).map(drop),
        disk.open(Path::new("d/there"), OpenMode::Write).map(drop),
        file.write_at(b"x", 0),
        disk.rename(Path::new("d/move"), Path::new("d/moved")),
        disk.remove(Path::new("d/gone")),
        disk.lock(Path::new("d/lock")).map(drop),
    ];
    for outcome in denied {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
    assert_eq!(disk.files(), files);
    disk.create_dir(Path::new("d")).expect("there is nothing to create");
    disk.open(Path::new("d/there"), OpenMode::Read).expect("to read is allowed");
    disk.set_read_only(false);
    file.write_at(b"x", 0).unwrap();
}

#[test]
fn reads_count_and_fail_if_asked() {
    let disk = prepared();
    let path = Path::new("d/there");
    let file = disk.open(path, OpenMode::Read).unwrap();
    let before = disk.calls();
    let reads = |disk: &SimDisk| {
        let read = file.read_at(&mut [0; 2], 0).map(drop);
        [
            disk.open(path, OpenMode::Read).map(drop),
            read,
            file.len().map(drop),
            disk.list(Path::new("d")).map(drop),
        ]
    };
    disk.fail_once(3, ErrorKind::Other);
    assert!(reads(&disk).iter().all(Result::is_ok));
    assert_eq!(disk.calls(), before, "they do not count of themselves");
    disk.count_reads(true);
    assert_eq!(reads(&disk).map(|outcome| outcome.is_ok()), [true, true, false, true]);
    assert_eq!(disk.calls(), before + 4);
}

#[test]
fn a_stalled_disk_holds_up_writes_and_syncs_until_released() {
    let disk = disk(1);
    let file = durable(&disk, "d/a", b"old");
    disk.stall(true);
    let before = disk.calls();
    let file = &*file;
    thread::scope(|scope| {
        let write = scope.spawn(|| file.write_at(b"new", 0));
        let sync = scope.spawn(|| file.sync());
        let names = scope.spawn(|| disk.sync_dir(Path::new("d")));
        let arrived = disk.wait_stalled(3, LONG);
        // Look before asserting anything: a failed assertion would leave the disk stalled, and the
        // scope would wait for its threads for ever.
        let looked = (disk.stalled(), disk.calls(), disk.read("d/a"));
        let others = disk.open(Path::new("d/b"), OpenMode::Create).map(drop);
        let finished = write.is_finished() || sync.is_finished() || names.is_finished();
        disk.stall(false);
        for call in [write, sync, names] {
            call.join().unwrap().unwrap();
        }
        assert!(arrived && !finished);
        assert_eq!(looked, (3, before, b"old".to_vec()));
        others.expect("the rest of the disk goes on");
    });
    assert_eq!((disk.stalled(), disk.read("d/a")), (0, b"new".to_vec()));
    assert!(!disk.wait_stalled(1, Duration::from_millis(1)), "nothing is held up any more");
}
