//! Closing and dropping a database ends it promptly, whatever its settings and whatever it is
//! doing, and leaves everything synced. A watch ends the program if one of them hangs.

use std::sync::Arc;
use std::time::Duration;

use fluxmap::FluxError;
use fluxmap::db::VacuumOptions;
use fluxmap_testkit::disk::{Loss, SimDisk};
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::poll_immediate;

use crate::crash::support::{Config, Db, Level, OnDrop, content};
use crate::crash::watch::Watch;

const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug)]
enum How {
    Drop,
    Close,
    /// Close while another handle exists, and drop that handle afterwards.
    CloseAndDrop,
}

fn end(db: Db, how: How) {
    match how {
        How::Drop => drop(db),
        How::Close => block_on(db.close()).expect("it closes"),
        How::CloseAndDrop => {
            let clone = db.clone();
            let flushed = block_on(db.close());
            let held = FluxError::StillOpen { clones: 1, transactions: 0, snapshots: 0 };
            assert_eq!(flushed, Err(held), "it is flushed, and stays open");
            drop(clone);
        }
    }
}

const WAYS: [How; 3] = [How::Drop, How::Close, How::CloseAndDrop];

/// Opens a database whose background work is not due for an hour, or for a million commits.
fn slow(disk: &SimDisk, kind: usize, pool: usize) -> Db {
    let builder = Db::builder();
    let options = Config { pool, ..Config::FULL }.options();
    let builder = match kind {
        0 => builder.durability_full(options),
        1 => builder.durability_relaxed(options).flush_after_commits(1_000_000),
        2 => builder.durability_relaxed(options).flush_interval(HOUR),
        3 => builder.durability_relaxed(options).flush_after_bytes(1 << 40),
        _ => builder.durability_relaxed(options).flush_after_commits(1_000_000).flush_interval(HOUR),
    };
    let builder = if kind == 4 { builder.auto_vacuum(VacuumOptions { interval: HOUR }) } else { builder };
    block_on(builder.disk(Arc::new(disk.clone())).build()).expect("it opens")
}

#[test]
fn every_configuration_ends_with_everything_synced() {
    let watch = Watch::start("endings");
    for kind in 0..5 {
        for (pool, commits) in [(1, 0), (1, 1), (1, 40), (3, 3), (3, 40)] {
            for how in WAYS {
                watch.doing(|| format!("configuration {kind}, a pool of {pool}, {commits} commits, {how:?}"));
                let disk = SimDisk::new(1);
                let db = slow(&disk, kind, pool);
                for key in 0..commits {
                    block_on(db.insert(key, "x".repeat(400))).expect("it commits");
                }
                end(db, how);
                // Cut the power as soon as the database has ended.
                let again = slow(&disk.power_cut(Loss::Everything), kind, pool);
                assert_eq!(again.count(..).expect("reads") as u64, commits);
                assert_eq!(again.recovery_info().expect("durable").torn_tail, None);
            }
        }
    }
}

/// Ends `db` on another thread while the disk stands still. The disk goes on once a call waits for
/// it.
fn end_while_stalled(disk: &SimDisk, db: Db, how: How) {
    std::thread::scope(|scope| {
        let _released = OnDrop(|| disk.stall(false));
        let ending = scope.spawn(move || end(db, how));
        assert!(disk.wait_stalled(1, PATIENCE), "a call waits for the disk");
        disk.stall(false);
        ending.join().expect("no panic");
    });
}

#[test]
fn a_stalled_disk_that_goes_on_ends_it() {
    let watch = Watch::start("endings, stalled");
    for config in [Config::FULL, Config { pool: 1, ..Config::at(Level::Commits(1_000_000)) }] {
        for how in WAYS {
            for commits in [1, 30] {
                watch.doing(|| format!("{config:?}, {how:?}, {commits} commits"));
                let disk = SimDisk::new(1);
                let db = config.open(&disk).expect("it opens");
                block_on(db.insert(0, "x".into())).expect("it commits");
                block_on(db.flush()).expect("it is synced");
                let _released = OnDrop(|| disk.stall(false));
                if config.level == Level::Full {
                    disk.stall(true);
                    for key in 0..commits {
                        let late = db.insert(key, "x".repeat(400));
                        assert!(late.now_or_never().is_none(), "the disk stands still");
                    }
                } else {
                    (0..commits).for_each(|key| {
                        block_on(db.insert(key, "x".repeat(400))).expect("it commits");
                    });
                    disk.stall(true);
                }
                end_while_stalled(&disk, db, how);
                let again = config.open(&disk.power_cut(Loss::Everything)).expect("it opens");
                assert_eq!(again.count(..).expect("reads") as u64, commits);
            }
        }
    }
}

/// A database with enough data that a checkpoint has several blocks.
fn large(disk: &SimDisk) -> Db {
    let config = Config { segment: 1 << 22, ..Config::FULL };
    let db = config.open(disk).expect("it opens");
    for key in 0..16 {
        block_on(db.insert(key, "x".repeat(100_000))).expect("it commits");
    }
    block_on(db.checkpoint()).expect("it is written");
    db
}

#[test]
fn a_checkpoint_that_is_being_written_is_given_up() {
    let watch = Watch::start("endings, during a checkpoint");
    for how in WAYS {
        watch.doing(|| format!("{how:?}"));
        let disk = SimDisk::new(1);
        let db = large(&disk);
        let before = content(&db);
        let _released = OnDrop(|| disk.stall(false));
        disk.stall(true);
        {
            let mut checkpoint = db.checkpoint().boxed();
            assert!(block_on(poll_immediate(&mut checkpoint)).is_none());
            assert!(disk.wait_stalled(1, PATIENCE), "it is being written");
        }
        end_while_stalled(&disk, db, how);
        let again = Config::FULL.open(&disk.power_cut(Loss::Everything)).expect("it opens");
        assert_eq!(content(&again), before);
    }
}

#[test]
fn who_waits_for_a_checkpoint_is_told_that_it_ended() {
    let watch = Watch::start("endings, waiting for a checkpoint");
    for fails in [false, true] {
        watch.doing(|| format!("fails: {fails}"));
        let disk = SimDisk::new(1);
        let db = large(&disk);
        disk.stall(true);
        if fails {
            disk.fail_from(3, std::io::ErrorKind::Other);
        }
        let waiting = std::thread::scope(|scope| {
            let _released = OnDrop(|| disk.stall(false));
            let waiting = scope.spawn(|| block_on(db.checkpoint()));
            assert!(disk.wait_stalled(1, PATIENCE), "it is being written");
            disk.stall(false);
            waiting.join().expect("no panic")
        });
        assert_eq!(waiting.is_err(), fails, "{waiting:?}");
        drop(db);
    }
}
