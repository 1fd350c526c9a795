//! Models of group commit, checkpoints and closing, under thousands of schedules each, on a disk in memory
//! that can return, at any moment, the state that a power loss would leave.

mod support;

use fluxmap_shuttle::{Database, FluxError};
use shuttle::future::block_on;
use shuttle::thread;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use support::{MemDisk, explore, options};

type Store = Database<u8, Vec<u8>>;

const SCHEDULES: usize = 2_000;

fn open_full(disk: &MemDisk, pool: usize) -> Store {
    let builder = Store::builder().disk(Arc::new(disk.clone())).durability_full(options(pool));
    block_on(builder.build()).expect("it opens")
}

fn open_relaxed(disk: &MemDisk) -> Store {
    let builder = Store::builder().disk(Arc::new(disk.clone())).durability_relaxed(options(4));
    block_on(builder.flush_after_commits(1000).build()).expect("it opens")
}

fn number(db: &Store) -> u8 {
    db.get(&1).expect("a read").map_or(0, |value| value[0])
}

async fn increment(db: &Store) -> Result<(), FluxError> {
    db.transact(async |tx| {
        let n = tx.get(&1)?.map_or(0, |value| value[0]);
        tx.insert(1, vec![n + 1])
    })
    .await
}

/// Two threads increment a number and a third reads it. After each acknowledgement and each read,
/// `left` takes the disk as a crash would leave it. It must hold at least the number that was
/// acknowledged or read.
fn count_and_crash(open: fn(&MemDisk) -> Store, power_loss: bool) {
    let disk = MemDisk::default();
    let db = open(&disk);
    let counters: Vec<_> = (0..2)
        .map(|_| {
            let (db, disk) = (db.clone(), disk.clone());
            thread::spawn(move || {
                block_on(increment(&db)).expect("it commits");
                (number(&db), disk.left(power_loss))
            })
        })
        .collect();
    let seen = (number(&db), disk.left(power_loss));
    let mut images: Vec<_> = counters.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    images.push(seen);
    assert_eq!(number(&db), 2, "an acknowledged commit is not seen");
    drop(db);
    images.push((2, disk.left(true)));
    for (least, image) in images {
        let recovered = number(&open(&image));
        assert!(recovered >= least, "{least} was shown, {recovered} was recovered");
    }
}

#[test]
fn nobody_is_shown_what_a_power_loss_undoes() {
    explore(SCHEDULES, || count_and_crash(|disk| open_full(disk, 4), true));
}

#[test]
fn nobody_is_shown_what_the_death_of_the_process_undoes() {
    explore(SCHEDULES, || count_and_crash(open_relaxed, false));
}

#[test]
fn a_snapshot_stays_as_it_is_while_commits_become_durable_and_old_versions_go() {
    explore(SCHEDULES, || {
        let disk = MemDisk::default();
        let db = open_full(&disk, 4);
        block_on(db.insert(1, vec![7])).expect("it commits");
        let writers: Vec<_> = (8..10)
            .map(|n| {
                let db = db.clone();
                thread::spawn(move || block_on(db.insert(1, vec![n])).expect("it commits"))
            })
            .collect();
        let vacuum = {
            let db = db.clone();
            thread::spawn(move || block_on(db.vacuum()).expect("it runs"))
        };
        let view = db.snapshot();
        let read = || view.get(&1).expect("a read").map(|value| value[0]);
        let first = read();
        assert!(first.is_some(), "a value that is durable was trimmed away");
        thread::yield_now();
        assert_eq!(read(), first, "a snapshot has changed");
        for writer in writers {
            writer.join().expect("no panic");
        }
        vacuum.join().expect("no panic");
        assert_eq!(read(), first, "a snapshot has changed");
    });
}

#[test]
fn a_pool_of_one_goes_round_and_loses_nothing() {
    explore(SCHEDULES, || {
        let disk = MemDisk::default();
        let db = open_full(&disk, 1);
        let writers: Vec<_> = (0..2_u8)
            .map(|writer| {
                let db = db.clone();
                thread::spawn(move || {
                    for n in 0..3 {
                        let large = vec![n; 600];
                        block_on(db.insert(writer * 10 + n, large)).expect("it commits");
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().expect("no panic");
        }
        drop(db);
        let recovered = open_full(&disk.left(true), 1);
        assert_eq!(recovered.count(..).expect("a count"), 6);
    });
}

#[test]
fn a_dropped_commit_has_happened_or_not() {
    explore(SCHEDULES, || {
        let disk = MemDisk::default();
        let db = open_full(&disk, 4);
        let other = {
            let db = db.clone();
            thread::spawn(move || block_on(increment(&db)).expect("it commits"))
        };
        {
            let mut commit = pin!(increment(&db));
            let mut context = Context::from_waker(Waker::noop());
            let _ = commit.as_mut().poll(&mut context);
        }
        other.join().expect("no panic");
        drop(db);
        let recovered = number(&open_full(&disk.left(true), 4));
        assert!(recovered == 1 || recovered == 2, "{recovered}");
    });
}
