//! No read outside of a transaction sees a commit that a crash can undo, and no acknowledgement
//! rests on one.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fluxmap::FluxError;
use fluxmap_testkit::disk::{Loss, SimDisk};
use fluxmap_testkit::polling::poll_times;
use futures::executor::block_on;
use futures::future::{BoxFuture, join_all, poll_immediate};
use futures::{FutureExt, StreamExt};

use crate::crash::support::{Config, Db, Level, OnDrop, State, content};
use crate::crash::watch::Watch;

const PATIENCE: Duration = Duration::from_secs(20);

fn pending<T>(future: &mut BoxFuture<'_, T>) -> bool {
    block_on(poll_immediate(future)).is_none()
}

/// A database with 1 → "old", on a disk that neither writes nor syncs for now.
fn stalled(config: Config) -> (SimDisk, Db) {
    let disk = SimDisk::new(1);
    let db = config.open(&disk).expect("it opens");
    block_on(db.insert(1, "old".into())).expect("it commits");
    block_on(db.checkpoint()).expect("background work is done");
    disk.stall(true);
    (disk, db)
}

fn reopened(config: Config, disk: &SimDisk) -> State {
    content(&config.open(disk).expect("it opens"))
}

#[test]
fn reads_do_not_see_a_commit_until_it_is_synced() {
    let _watch = Watch::start("not seen before the sync");
    let config = Config { segment: 1 << 16, ..Config::FULL };
    let (disk, db) = stalled(config);
    let _released = OnDrop(|| disk.stall(false));
    let mut first = db.insert(1, "new".into()).boxed();
    let mut second = db.insert(2, "more".into()).boxed();
    assert!(pending(&mut first) && pending(&mut second));
    assert!(disk.wait_stalled(1, PATIENCE), "the log thread writes");

    let old = State::from([(1, "old".to_owned())]);
    let unseen = |when: &str| {
        assert_eq!(content(&db), old, "{when}");
        assert_eq!(db.get(&1).expect("reads").as_deref().map(String::as_str), Some("old"), "{when}");
        assert_eq!(db.get_with(&1, String::clone).expect("reads").as_deref(), Some("old"));
        assert!(!db.contains_key(&2).expect("reads"));
        assert_eq!(db.count(..).expect("reads"), 1);
        assert_eq!(db.last().expect("reads").map(|(key, _)| key), Some(1));
        let streamed: Vec<u64> =
            block_on(db.snapshot().range_stream(..).map(|pair| pair.expect("reads").0).collect());
        assert_eq!(streamed, [1]);
        assert_eq!(reopened(config, &disk.power_cut(Loss::Everything)), old, "the state on the disk, {when}");
    };
    unseen("while it is being written");

    // A transaction that has read the unsynced commit is acknowledged no sooner than that commit.
    let tx = db.begin();
    assert_eq!(tx.get(&1).expect("reads").as_deref().map(String::as_str), Some("new"));
    tx.insert(3, "built".into()).expect("buffered");
    let mut third = tx.commit().boxed();
    assert!(pending(&mut third));
    let reader = db.begin();
    assert!(reader.contains_key(&3).expect("reads"));
    let mut reader = reader.commit().boxed();
    // An error of a body that has read it waits, too.
    let mut told = db
        .transact(async |tx| match tx.contains_key(&3)? {
            true => Err(FluxError::Configuration("it is there".into())),
            false => Ok(()),
        })
        .boxed();
    // A swap that found nothing to change waits as well.
    let mut swapped = db.compare_and_swap(3, None, Some("mine".into())).boxed();
    assert!(pending(&mut reader) && pending(&mut told) && pending(&mut swapped));
    unseen("while others build on it");

    disk.stall(false);
    block_on(async {
        third.await.expect("acknowledged");
        reader.await.expect("acknowledged");
        first.await.expect("acknowledged");
        second.await.expect("acknowledged");
        assert!(matches!(told.await, Err(FluxError::Configuration(_))));
        assert!(!swapped.await.expect("acknowledged"));
    });
    assert_eq!(db.count(..).expect("reads"), 3);
    assert_eq!(reopened(config, &disk.power_cut(Loss::Everything)).len(), 3);
}

#[test]
fn relaxed_commits_are_not_seen_until_they_are_written() {
    let _watch = Watch::start("not seen before the write");
    let config = Config { segment: 1 << 16, ..Config::at(Level::Commits(1000)) };
    let (disk, db) = stalled(config);
    let _released = OnDrop(|| disk.stall(false));
    // At `Relaxed` the committing thread writes the log itself, and the stalled disk blocks it.
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| block_on(db.insert(1, "new".into())));
        assert!(disk.wait_stalled(1, PATIENCE), "the commit is being written");
        assert_eq!(db.get(&1).expect("reads").as_deref().map(String::as_str), Some("old"));
        assert_eq!(reopened(config, &disk.process_death())[&1], "old");
        disk.stall(false);
        writer.join().expect("no panic").expect("acknowledged");
    });
    assert_eq!(db.get(&1).expect("reads").as_deref().map(String::as_str), Some("new"));
    assert_eq!(reopened(config, &disk.process_death())[&1], "new");
}

/// Two threads commit. Meanwhile this one reads, crashes the disk, and checks that the crash left
/// what it had read.
fn what_was_read_stays(config: Config, crash: impl Fn(&SimDisk) -> SimDisk + Sync) {
    let disk = SimDisk::new(3);
    let db = config.open(&disk).expect("it opens");
    block_on(db.insert(0, "0".into())).expect("it commits");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let step = |text: &String| (number(text) + 1).to_string();
                    block_on(db.update(&0, step)).expect("it commits");
                }
            });
        }
        let _done = OnDrop(|| done.store(true, Ordering::Relaxed));
        for _ in 0..60 {
            let read = db.get(&0).expect("reads").map(|text| number(&text)).expect("it is there");
            let scanned = db.snapshot().range(..).next().map(|(_, text)| number(&text)).expect("it is there");
            let left = reopened(config, &crash(&disk));
            assert!(
                number(&left[&0]) >= scanned.max(read),
                "{left:?} is left, and {read}, {scanned} were read"
            );
        }
    });
}

#[test]
fn what_was_read_in_full_survives_a_power_cut() {
    let _watch = Watch::start("reads in full");
    what_was_read_stays(Config::FULL, |disk| disk.power_cut(Loss::Everything));
}

#[test]
fn what_was_read_in_relaxed_survives_the_process() {
    let _watch = Watch::start("reads in relaxed");
    what_was_read_stays(Config::at(Level::Commits(64)), SimDisk::process_death);
}

#[test]
fn a_hot_counter_commits_far_more_often_than_it_is_synced() {
    let _watch = Watch::start("group commit");
    const TASKS: u64 = 64;
    const ROUNDS: u64 = 20;
    let (disk, db) = stalled(Config { segment: 1 << 20, ..Config::FULL });
    let _released = OnDrop(|| disk.stall(false));
    disk.stall(false);
    block_on(db.insert(1, "0".into())).expect("it commits");
    let syncs = |disk: &SimDisk| {
        disk.trace().iter().filter(|call| call.contains(" sync ") && call.contains("wal.0")).count() as u64
    };
    let before = syncs(&disk);
    for _ in 0..ROUNDS {
        disk.stall(true);
        let step = |text: &String| (text.parse::<u64>().expect("a number") + 1).to_string();
        let mut tasks: Vec<_> = (0..TASKS).map(|_| db.update(&1, step).boxed()).collect();
        assert!(tasks.iter_mut().all(pending), "no commit is acknowledged while the disk stands still");
        disk.stall(false);
        block_on(join_all(tasks)).into_iter().for_each(|counted| drop(counted.expect("it commits")));
    }
    assert_eq!(db.get(&1).expect("reads").as_deref(), Some(&(TASKS * ROUNDS).to_string()));
    let synced = syncs(&disk) - before;
    assert!(synced * 10 <= TASKS * ROUNDS, "{} commits took {synced} syncs", TASKS * ROUNDS);
}

/// Polls each kind of commit a number of times and drops it. It has then either not happened, or it
/// is durable after reopening although nothing waited for it.
fn dropped_after_polls(config: Config, is_stalled: bool) {
    type Make = for<'d> fn(&'d Db) -> BoxFuture<'d, ()>;
    let kinds: [(&str, Make); 4] = [
        ("insert", |db| db.insert(5, "x".into()).map(drop).boxed()),
        ("update", |db| db.update(&1, |_| "x".into()).map(drop).boxed()),
        ("remove", |db| db.remove(&1).map(drop).boxed()),
        ("transaction", |db| {
            let tx = db.begin();
            tx.insert(5, "x".into()).expect("buffered");
            drop(tx.remove(&1).expect("buffered"));
            tx.commit().map(drop).boxed()
        }),
    ];
    for (name, make) in kinds {
        for polls in 0..4 {
            let (disk, db) = stalled(config);
            let _released = OnDrop(|| disk.stall(false));
            disk.stall(is_stalled);
            let before = content(&db);
            let mut future = make(&db);
            let ended = poll_times(Pin::new(&mut future), polls).is_some();
            drop(future);
            disk.stall(false);
            block_on(db.flush()).expect("all is written");
            let after = content(&db);
            assert_eq!(after != before, polls > 0, "{name}, {polls} polls, ended: {ended}");
            assert_eq!(reopened(config, &disk.power_cut(Loss::Everything)), after, "{name}, {polls} polls");
            assert_eq!(db.memory_info().live_snapshots, 0, "nothing is pinned");
            drop(db);
            assert_eq!(reopened(config, &disk), after, "{name}, {polls} polls, closed");
        }
    }
}

#[test]
fn a_commit_that_nobody_waits_for_happens_wholly_or_not() {
    let _watch = Watch::start("dropped futures");
    for is_stalled in [false, true] {
        dropped_after_polls(Config { segment: 1 << 16, ..Config::FULL }, is_stalled);
    }
    dropped_after_polls(Config::at(Level::Commits(100)), false);
}
