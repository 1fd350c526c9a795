//! Crashes at a given call, the trace, and copies.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use fluxmap::disk::{Disk, OpenMode};

use super::super::{Loss, SimDisk, SimError};
use super::{create, disk, durable, names};

/// Makes eight counted calls.
fn script(disk: &SimDisk) -> io::Result<()> {
    let dir = Path::new("d");
    let _lock = disk.lock(Path::new("d/lock"))?;
    let file = disk.open(Path::new("d/new"), OpenMode::Create)?;
    file.write_at(&[1; 600], 0)?;
    file.sync()?;
    disk.sync_dir(dir)?;
    disk.rename(Path::new("d/new"), Path::new("d/log"))?;
    disk.sync_dir(dir)?;
    disk.remove(Path::new("d/lock"))
}

#[test]
fn every_call_can_be_the_last() {
    let whole = disk(1);
    let before = whole.calls();
    script(&whole).unwrap();
    let calls = whole.calls() - before;
    assert_eq!(calls, 8);
    for n in 1..=calls {
        let crashed = disk(1);
        crashed.crash_at(n);
        let error = script(&crashed).unwrap_err();
        assert_eq!(SimError::of(&error), Some(SimError::Crashed { call: before + n }));
        assert!(create_after(&crashed).is_err(), "all later calls fail too");
        // The frozen disk must equal that of a run that stops before the call.
        let frozen = crashed.frozen().expect("the crash was reached");
        let file = |disk: &SimDisk, path: &str| disk.files().contains_key(Path::new(path));
        assert_eq!(file(&frozen, "d/lock"), n > 1);
        assert_eq!(file(&frozen, "d/new"), (3..=6).contains(&n));
        assert_eq!(file(&frozen, "d/log"), n > 6);
        assert_eq!(frozen.files(), crashed.files(), "the call had no effect");
        let kept = frozen.power_cut(Loss::Everything);
        assert_eq!(file(&kept, "d/new"), n == 6 || n == 7);
        assert_eq!(file(&kept, "d/log"), n == 8);
        let log = ["d/new", "d/log"].into_iter().find(|path| file(&kept, path));
        assert!(log.is_none_or(|path| kept.read(path) == [1; 600]));
        drop(frozen.lock(Path::new("d/lock")).expect("no lock is held on it"));
    }
    let unhurt = disk(1);
    unhurt.crash_at(calls + 1);
    script(&unhurt).unwrap();
    assert!(unhurt.frozen().is_none() && unhurt.frozen_midway().is_none());
}

fn create_after(disk: &SimDisk) -> io::Result<()> {
    disk.open(Path::new("d/after"), OpenMode::Create).map(drop)
}

#[test]
fn amid_a_write_any_part_of_it_may_be_there() {
    let mut parts = BTreeSet::new();
    for seed in 0..400 {
        let disk = disk(seed);
        let file = durable(&disk, "d/a", b"");
        disk.crash_at(1);
        file.write_at(&[1; 9], 0).unwrap_err();
        assert!(disk.read("d/a").is_empty() && disk.frozen().unwrap().read("d/a").is_empty());
        let midway = disk.frozen_midway().unwrap();
        parts.insert(midway.read("d/a").len());
        assert!(midway.power_cut(Loss::Everything).read("d/a").is_empty(), "it is not synced");
    }
    assert_eq!(parts, (0..=9).collect());
}

#[test]
fn amid_a_change_of_names_it_may_be_there() {
    let disk = disk(1);
    durable(&disk, "d/a", b"");
    disk.crash_at(1);
    disk.rename(Path::new("d/a"), Path::new("d/b")).unwrap_err();
    disk.remove(Path::new("d/a")).unwrap_err();
    let midway = disk.frozen_midway().unwrap();
    assert_eq!((names(&midway), names(&disk.frozen().unwrap())), (vec!["d/b".into()], vec!["d/a".into()]));
    assert_eq!(names(&midway.power_cut(Loss::Everything)), ["d/a"]);
}

#[test]
fn amid_a_sync_nothing_is_durable_yet() {
    let disk = disk(1);
    let file = create(&disk, "d/a");
    file.write_at(b"x", 0).unwrap();
    disk.crash_at(1);
    file.sync().unwrap_err();
    disk.sync_dir(Path::new("d")).unwrap_err();
    let midway = disk.frozen_midway().unwrap();
    midway.sync_dir(Path::new("d")).unwrap();
    assert!(midway.power_cut(Loss::Everything).read("d/a").is_empty());
    let named = disk.deep_clone();
    named.crash_at(1);
    named.sync_dir(Path::new("d")).unwrap_err();
    assert!(names(&named.frozen_midway().unwrap().power_cut(Loss::Everything)).is_empty());
    disk.clear_faults();
    disk.sync_dir(Path::new("d")).expect("the machine runs again");
    assert!(disk.power_cut(Loss::Everything).read("d/a").is_empty(), "and did not sync the file meanwhile");
    disk.crash_at(1);
    assert!(disk.frozen().is_none(), "the next crash is another one");
    disk.sync_dir(Path::new("d")).unwrap_err();
    assert!(disk.frozen().unwrap().power_cut(Loss::Everything).read("d/a").is_empty());
    assert_eq!(names(&disk.frozen().unwrap().power_cut(Loss::Everything)), ["d/a"]);
}

#[test]
fn the_trace_tells_what_happened() {
    let disk = disk(1);
    disk.fail_once(4, io::ErrorKind::Other);
    script(&disk).unwrap_err();
    let trace = disk.trace();
    let expected =
        ["1 create_dir d: ok", "2 lock d/lock: ok", "3 create d/new: ok", "4 write_at d/new 0+600: ok"];
    assert_eq!(trace[..4], expected);
    assert!(trace[4].starts_with("5 sync d/new: the simulated disk failed call 5"), "{trace:?}");
    assert_eq!(trace.len(), 5);
    let shown = format!("{disk:?}");
    assert!(shown.contains("d/new: 600 bytes, 1 changes not synced"), "{shown}");
}

#[test]
fn clones_are_one_disk_and_deep_clones_are_two() {
    let disk = disk(1);
    let lock = disk.lock(Path::new("d/lock")).unwrap();
    disk.fail_once(2, io::ErrorKind::Other);
    let (same, copy) = (disk.clone(), disk.deep_clone());
    create(&disk, "d/a").write_at(b"lost", 0).unwrap_err();
    assert_eq!(same.read("d/a"), disk.read("d/a"));
    assert_eq!(names(&copy), ["d/lock"]);
    drop(copy.lock(Path::new("d/lock")).expect("locks are held on the first"));
    assert!(same.lock(Path::new("d/lock")).is_err());
    drop(lock);
    same.lock(Path::new("d/lock")).unwrap();
    copy.sync_dir(Path::new("d")).expect_err("faults to come come on both");
}
