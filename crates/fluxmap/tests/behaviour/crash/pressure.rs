//! Writers that are faster than the disk and the checkpoints must wait, but make progress, and the
//! files stay within their bounds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fluxmap::{FluxError, PersistenceError};
use fluxmap_testkit::disk::{Loss, SimDisk};
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::{BoxFuture, join_all, poll_immediate};

use crate::crash::support::{Config, Level, OnDrop, SEGMENT, content, names};
use crate::crash::watch::Watch;

const PATIENCE: Duration = Duration::from_secs(20);
/// Sizes of a commit's value, around one and two segments.
const SIZES: [usize; 8] = [10, 900, 2000, 3800, 4000, 4096, 5000, 9000];
const LARGEST: u64 = 9000 + 1000;

/// Checks the number of files and of bytes against their bounds.
fn check_bounds(config: Config, disk: &SimDisk, keys: u64) {
    let names = names(disk);
    let segments = names.iter().filter(|name| name.starts_with("wal.0")).count();
    // One segment more may be ready, beside those with commits.
    assert!(segments <= config.pool + 1, "{segments} segments at a pool of {}: {names:?}", config.pool);
    assert!(names.len() <= segments + 4, "a lock, a checkpoint, two drafts: {names:?}");
    let total: u64 = disk.files().values().sum();
    let bound = (config.pool as u64 + 2) * (LARGEST + SEGMENT) + 2 * (keys * LARGEST + SEGMENT);
    assert!(total <= bound, "{total} bytes, {bound} at most: {:?}", disk.files());
}

fn writers_are_faster(config: Config) {
    let watch = Watch::start("pressure");
    watch.doing(|| format!("{config:?}"));
    const THREADS: u64 = 4;
    const COMMITS: u64 = 60;
    let disk = SimDisk::new(2);
    let db = config.open(&disk).expect("it opens");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (db, disk, watch) = (&db, &disk, &watch);
            scope.spawn(move || {
                for n in 0..COMMITS {
                    let size = SIZES[((n * 5 + thread) % SIZES.len() as u64) as usize];
                    block_on(db.insert(thread, format!("{n:size$}"))).expect("it commits");
                    check_bounds(config, disk, THREADS);
                    watch.and(String::new);
                }
            });
        }
    });
    watch.doing(|| format!("{config:?}, closing"));
    let seen = content(&db);
    block_on(db.close()).expect("it closes");
    check_bounds(config, &disk, THREADS);
    let again = config.open(&disk.power_cut(Loss::Everything)).expect("it opens");
    assert_eq!(content(&again), seen);
    assert!((0..THREADS).all(|thread| seen[&thread].trim() == (COMMITS - 1).to_string()));
}

#[test]
fn files_stay_within_their_bounds() {
    for pool in [1, 2, 5] {
        for level in [Level::Full, Level::Commits(7), Level::Bytes(3000), Level::Commits(1_000_000)] {
            writers_are_faster(Config { pool, ..Config::at(level) });
        }
    }
}

/// Commits of every size around the size of a segment.
#[test]
fn a_commit_of_any_size_fits() {
    let watch = Watch::start("sizes");
    for (pool, level) in [(1, Level::Full), (2, Level::Commits(3))] {
        let config = Config { pool, ..Config::at(level) };
        let disk = SimDisk::new(5);
        let mut db = config.open(&disk).expect("it opens");
        for size in (3600..4300).step_by(7) {
            watch.doing(|| format!("{config:?}, {size} bytes"));
            block_on(db.insert(1, "x".repeat(size))).expect("it fits");
            if size % 5 == 0 {
                drop(db);
                db = config.open(&disk.power_cut(Loss::Everything)).expect("it opens");
                assert_eq!(db.get(&1).expect("reads").map(|value| value.len()), Some(size));
                drop(db);
                db = config.open(&disk).expect("it opens");
            }
        }
    }
}

/// A commit too large for the log is refused, with the limit in the error, before any of it is
/// copied.
#[test]
#[ignore = "takes 1 GiB of memory"]
fn a_commit_above_the_limit_is_refused() {
    let _watch = Watch::start("too large");
    let db = Config::FULL.open(&SimDisk::new(1)).expect("it opens");
    let refused = block_on(db.insert(1, "x".repeat(1 << 30)));
    assert!(
        matches!(refused, Err(FluxError::Persistence(PersistenceError::TooLarge { limit, .. })) if limit == 1 << 30),
        "{refused:?}"
    );
    assert_eq!(db.count(..).expect("reads"), 0);
    block_on(db.insert(1, "small".into())).expect("the database goes on");
}

#[test]
fn commits_wait_while_the_disk_stands_still_and_go_on() {
    let watch = Watch::start("stalled");
    let config = Config { pool: 4, segment: 1 << 20, ..Config::FULL };
    let disk = SimDisk::new(1);
    let db = config.open(&disk).expect("it opens");
    block_on(db.checkpoint()).expect("background work is done");
    let _released = OnDrop(|| disk.stall(false));
    disk.stall(true);
    // Begin more commits than the queue has room for.
    let large = "x".repeat(1 << 20);
    let mut futures: Vec<BoxFuture<'_, Result<(), FluxError>>> =
        (0..40).map(|key| db.insert(key, large.clone()).boxed()).collect();
    for future in &mut futures {
        assert!(block_on(poll_immediate(future)).is_none(), "nothing is acknowledged");
    }
    assert!(disk.wait_stalled(1, PATIENCE));
    let begun = db.begin().count(..).expect("reads");
    assert!((16..=20).contains(&begun), "{begun} MiB are on their way");
    assert_eq!(db.count(..).expect("reads"), 0);
    watch.doing(|| "released".into());
    disk.stall(false);
    // Drop ten commits that still wait for room in the queue: they must not hold up the others.
    futures.truncate(30);
    block_on(join_all(futures)).into_iter().for_each(|commit| commit.expect("it commits"));
    assert_eq!(db.count(..).expect("reads"), 30);
}

/// The disk stalls again and again, wherever the log and the checkpointer happen to be.
#[test]
fn a_disk_that_stalls_now_and_then_is_waited_for() {
    let watch = Watch::start("stalls");
    for config in [Config { pool: 1, ..Config::FULL }, Config { pool: 1, ..Config::at(Level::Commits(3)) }] {
        watch.doing(|| format!("{config:?}"));
        let disk = SimDisk::new(1);
        let db = config.open(&disk).expect("it opens");
        let running = AtomicU64::new(2);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (db, running, watch) = (&db, &running, &watch);
                scope.spawn(move || {
                    let _ended = OnDrop(|| _ = running.fetch_sub(1, Ordering::SeqCst));
                    for n in 0..60 {
                        block_on(db.insert(thread, format!("{n:700}"))).expect("it commits");
                        watch.and(String::new);
                    }
                });
            }
            while running.load(Ordering::SeqCst) > 0 {
                disk.stall(true);
                // If no call waits within 20 ms, all writers have ended.
                let _ = disk.wait_stalled(1, Duration::from_millis(20));
                check_bounds(config, &disk, 2);
                disk.stall(false);
                std::thread::yield_now();
            }
        });
        disk.stall(false);
        block_on(db.close()).expect("it closes");
    }
}
