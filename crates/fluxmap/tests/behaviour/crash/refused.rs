//! Disks that are full or read-only, and databases that are in use elsewhere.

use std::path::Path;
use std::process::Command;

use fluxmap::persistence::PersistenceOptions;
use fluxmap::{FluxError, PersistenceError};
use fluxmap_testkit::disk::SimDisk;
use fluxmap_testkit::workload::Seed;
use futures::executor::block_on;

use crate::crash::failing::{outlives, play};
use crate::crash::script::{Drawer, Run};
use crate::crash::support::{Config, DIR, Db, Level, SEGMENT, World, content};
use crate::crash::watch::Watch;

fn fills_up(test: &str, config: Config) {
    let watch = Watch::start(test);
    let seed = Seed::from_env();
    let script = Drawer::new(seed.rng(0)).script(24);
    let mut refused = 0;
    for capacity in (0..60_000).step_by(701) {
        watch.doing(|| format!("{seed}, {config:?}, a disk of {capacity} bytes"));
        let disk = SimDisk::new(capacity);
        disk.set_capacity(capacity);
        let world = play(config, &disk, &script);
        refused += usize::from(world.last() < 24);
        let mut drawer = Drawer::new(seed.rng(capacity));
        outlives(config, &disk, &world, &mut drawer, &watch);
        // Now there is room again.
        disk.set_capacity(u64::MAX);
        let mut run = Run::open(config, disk, world).map_err(|failed| failed.1).expect("it opens");
        run.play(&drawer.script(4)).expect("the database goes on");
    }
    assert!(refused > 5, "the disks are small enough to fill up: {refused}");
}

#[test]
fn a_full_disk_loses_nothing_in_full() {
    fills_up("disk full, full", Config::FULL);
}

#[test]
fn a_full_disk_loses_nothing_in_relaxed() {
    fills_up("disk full, relaxed", Config::at(Level::Commits(3)));
}

#[test]
fn a_full_disk_is_named() {
    let _watch = Watch::start("disk full, named");
    let disk = SimDisk::new(1);
    disk.set_capacity(2 * SEGMENT);
    match Config::FULL.open(&disk) {
        Err(FluxError::Persistence(PersistenceError::Io { path, source, .. })) => {
            assert!(path.starts_with(DIR) && source.kind() == std::io::ErrorKind::StorageFull);
        }
        Err(other) => panic!("{other:?}"),
        Ok(db) => {
            let outcome = (0..100).try_for_each(|key| block_on(db.insert(key, "x".repeat(500))));
            let error = outcome.expect_err("there is no room for that");
            let (FluxError::OutcomeUnknown { source } | FluxError::FatalPersistenceError { source }) = error
            else {
                panic!("{error:?}");
            };
            let text = source.to_string();
            assert!(text.contains("db/wal.") || text.contains("db/snapshot"), "{text}");
        }
    }
}

#[test]
fn a_read_only_disk_is_refused_and_left_alone() {
    let _watch = Watch::start("read-only");
    // Once after a clean close, once after a crash.
    for clean in [true, false] {
        let disk = SimDisk::new(1);
        let script = Drawer::new(Seed::from_env().rng(1)).script(12);
        let mut run = Run::open(Config::FULL, disk.clone(), World::default()).map_err(|failed| failed.1);
        let run = run.as_mut().expect("it opens");
        run.play(&script).expect("it runs");
        let disk = if clean {
            drop(run.db.take());
            disk
        } else {
            disk.process_death()
        };
        let files = || disk.files().into_keys().map(|path| (disk.read(&path), path)).collect::<Vec<_>>();
        let before = files();
        disk.set_read_only(true);
        for _ in 0..2 {
            match Config::FULL.open(&disk) {
                Err(FluxError::Persistence(error @ PersistenceError::Io { .. })) => {
                    let PersistenceError::Io { path, source, .. } = &error else { unreachable!() };
                    assert!(path.starts_with(DIR) && source.kind() == std::io::ErrorKind::PermissionDenied);
                    assert!(error.to_string().contains(DIR), "{error}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(files(), before);
        disk.set_read_only(false);
        let db = Config::FULL.open(&disk).expect("it opens");
        assert_eq!(content(&db), *run.world.state(run.world.acked));
    }
    let disk = SimDisk::new(1);
    disk.set_read_only(true);
    let refused = Config::FULL.open(&disk);
    assert!(matches!(refused, Err(FluxError::Persistence(PersistenceError::Io { .. }))), "{refused:?}");
}

fn is_locked(refused: &Result<Db, FluxError>, path: &Path) -> bool {
    matches!(refused, Err(FluxError::Persistence(PersistenceError::Locked { path: named })) if named == path)
}

#[test]
fn a_second_opener_is_refused_until_the_first_has_gone() {
    let _watch = Watch::start("locked");
    let (config, disk) = (Config::FULL, SimDisk::new(1));
    for round in 0..3 {
        let db = config.open(&disk).expect("no other handle has it open");
        for _ in 0..2 {
            let second = config.open(&disk);
            assert!(is_locked(&second, Path::new(DIR)), "{second:?}");
        }
        block_on(db.insert(round, "x".into())).expect("the first goes on");
        let clone = db.clone();
        drop(db);
        assert!(is_locked(&config.open(&disk), Path::new(DIR)), "a clone still has it open");
        if round == 1 {
            block_on(clone.close()).expect("it closes");
        } else {
            drop(clone);
        }
    }
    // An opening that fails releases the lock.
    for wrong in [("a", "b"), ("c", "d")] {
        let builder = Db::builder().durability_full(config.options()).type_names(wrong.0, wrong.1);
        let refused = block_on(builder.disk(std::sync::Arc::new(disk.clone())).build());
        assert!(matches!(refused, Err(FluxError::Persistence(PersistenceError::Mismatch { .. }))));
    }
    disk.fail_once(3, std::io::ErrorKind::Other);
    assert!(config.open(&disk).is_err(), "the third call of opening failed");
    disk.clear_faults();
    let db = config.open(&disk).expect("it opens");
    assert_eq!(db.count(..).expect("reads"), 3);
    // A database whose log has failed also releases the lock.
    disk.fail_from(1, std::io::ErrorKind::Other);
    assert!(block_on(db.insert(9, "x".into())).is_err());
    drop(db);
    disk.clear_faults();
    drop(config.open(&disk).expect("it opens"));
}

/// The environment variable with the path that the other process is to open.
const CHILD: &str = "FLUXMAP_TEST_LOCKED";

/// Not a test of its own: the code that the other process runs.
#[test]
fn another_process() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let options = PersistenceOptions::new(path);
    let second = block_on(Db::builder().durability_full(options.clone()).build());
    assert!(is_locked(&second, &options.wal_path), "{second:?}");
}

#[test]
fn another_process_is_refused() {
    let _watch = Watch::start("locked, another process");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db");
    let db = block_on(Db::builder().durability_full(PersistenceOptions::new(path.clone())).build());
    let db = db.expect("no other process has it open");
    let refused_elsewhere = || {
        let mut child = Command::new(std::env::current_exe().expect("it has a path"));
        child.args(["--exact", "crash::refused::another_process"]).env(CHILD, &path);
        child.output().expect("it runs").status.success()
    };
    assert!(refused_elsewhere(), "the other process was not told that it is locked");
    drop(db);
    assert!(!refused_elsewhere(), "the other process was told that it is locked, and it is not");
}
