//! Closing reports whether the database is closed, and if it is not, what still holds it.

use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::common::open;
use fluxmap::background::Step;
use fluxmap::mem::EvictionCause;
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Background, Database, FluxError, PersistenceError, WeakDatabase};
use fluxmap_testkit::disk::SimDisk;
use futures::FutureExt;
use futures::executor::block_on;

type Db = Database<u64, u64>;

fn still_open(clones: usize, transactions: usize, snapshots: usize) -> Result<(), FluxError> {
    Err(FluxError::StillOpen { clones, transactions, snapshots })
}

fn options() -> PersistenceOptions {
    PersistenceOptions { wal_segment_size_bytes: 64 << 10, ..PersistenceOptions::new("db") }
}

fn durable(disk: &SimDisk) -> Result<Db, FluxError> {
    let builder = Db::builder().durability_full(options());
    block_on(builder.disk(Arc::new(disk.clone())).build())
}

#[test]
fn the_last_clone_closes_and_those_before_say_who_holds_the_database() {
    let disk = SimDisk::new(1);
    for is_durable in [false, true] {
        let db = if is_durable { durable(&disk).expect("it opens") } else { open() };
        block_on(db.insert(1, 1)).expect("an insert commits");
        let close = || block_on(db.clone().close());
        assert_eq!(close(), still_open(1, 0, 0));

        let clones = [db.clone(), db.clone()];
        let (one, two) = (db.begin(), db.begin());
        let view = db.snapshot();
        assert_eq!(close(), still_open(3, 2, 1));
        let twin = view.clone();
        let mut range = view.range(..);
        range.next();
        assert_eq!(close(), still_open(3, 2, 1), "clones of a snapshot and its iterators are one");
        let stream = db.scan_metadata();
        let other = db.range(..);
        assert_eq!(close(), still_open(3, 2, 3));

        drop((clones, one, view, range, stream));
        assert_eq!(close(), still_open(1, 1, 2));
        drop((two, twin, other));
        assert_eq!(close(), still_open(1, 0, 0));
        assert_eq!(block_on(db.close()), Ok(()));
    }
}

#[test]
fn what_is_said_is_true_of_the_files() {
    let disk = SimDisk::new(1);
    let db = durable(&disk).expect("it is new");
    let view = db.snapshot();
    assert_eq!(block_on(db.close()), still_open(0, 0, 1));
    let locked = FluxError::Persistence(PersistenceError::Locked { path: Path::new("db").into() });
    assert_eq!(durable(&disk).err(), Some(locked));
    drop(view);
    assert_eq!(block_on(durable(&disk).expect("it is closed").close()), Ok(()));
}

#[test]
fn it_says_what_to_do() {
    let db: Db = open();
    let tx = db.begin();
    let error = block_on(db.close()).expect_err("a transaction holds it");
    let text = error.to_string();
    assert!(text.contains("1 of its transactions"), "{text}");
    assert!(!error.is_retryable());
    drop(tx);
}

#[test]
fn of_two_clones_that_are_closed_at_once_one_closes_the_database() {
    for _ in 0..200 {
        let db: Db = open();
        let weak = db.downgrade();
        let clone = db.clone();
        let results = std::thread::scope(|scope| {
            let other = scope.spawn(|| block_on(clone.close()));
            [block_on(db.close()), other.join().expect("no panic")]
        });
        let closed = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(closed, 1, "{results:?}");
        assert!(weak.upgrade().is_none());
    }
}

#[test]
fn a_weak_database_is_the_database_while_that_is_open_and_keeps_it_open_no_longer() {
    let disk = SimDisk::new(1);
    let db = durable(&disk).expect("it is new");
    let weak = db.downgrade();
    let twin = weak.clone();
    block_on(weak.upgrade().expect("it is open").insert(1, 1)).expect("an insert commits");
    assert_eq!(db.get(&1), Ok(Some(Arc::new(1))));
    let strong = twin.upgrade().expect("it is open");
    assert_eq!(block_on(db.close()), still_open(1, 0, 0));
    assert_eq!(block_on(strong.close()), Ok(()));
    assert!(weak.upgrade().is_none() && twin.upgrade().is_none());
    durable(&disk).expect("its files are closed");
}

#[test]
fn a_listener_that_holds_the_database_weakly_uses_it_and_does_not_keep_it_open() {
    let disk = SimDisk::new(1);
    let slot = Arc::new(OnceLock::<WeakDatabase<u64, u64>>::new());
    let (sender, told) = channel();
    let listener = Arc::clone(&slot);
    let builder = Db::builder().durability_full(options()).disk(Arc::new(disk.clone())).on_evict(
        move |key, _value, cause| {
            let db = listener
                .get()
                .and_then(WeakDatabase::upgrade)
                .expect("an eviction runs, so the database is open");
            let evicted = db.memory_info().evictions.explicit;
            sender.send((key, evicted, cause)).expect("the test listens");
        },
    );
    let db = block_on(builder.build()).expect("it is new");
    slot.set(db.downgrade()).expect("it is set once");
    block_on(db.insert(1, 1)).expect("an insert commits");
    assert_eq!(block_on(db.evict(&1)), Ok(true));
    assert_eq!(told.recv(), Ok((1, 1, EvictionCause::Explicit)));
    assert_eq!(block_on(db.close()), Ok(()));
    durable(&disk).expect("its files are closed");
}

/// The listener runs on the background thread, which closing must then not wait for.
#[test]
fn a_listener_that_is_the_last_holder_closes_the_database() {
    for is_durable in [false, true] {
        let disk = SimDisk::new(1);
        let slot = Arc::new(OnceLock::<WeakDatabase<u64, u64>>::new());
        let (has_upgraded, upgraded) = channel();
        let (go_on, gone_on) = channel();
        let (sender, closed) = channel();
        let (listener, gone_on) = (Arc::clone(&slot), Mutex::new(gone_on));
        let builder = Db::builder().on_evict(move |_key, _value, _cause| {
            let db = listener.get().and_then(WeakDatabase::upgrade).expect("the database is open");
            has_upgraded.send(()).expect("the test listens");
            gone_on.lock().expect("no panic").recv().expect("the test goes on");
            sender.send(block_on(db.close())).expect("the test listens");
        });
        let db = match is_durable {
            true => block_on(builder.durability_full(options()).disk(Arc::new(disk.clone())).build()),
            false => block_on(builder.build()),
        }
        .expect("it is new");
        slot.set(db.downgrade()).expect("it is set once");
        block_on(db.insert_with_ttl(1, 1, Duration::from_millis(1))).expect("an insert commits");
        upgraded.recv().expect("the key expires");
        assert_eq!(block_on(db.close()), still_open(1, 0, 0), "the listener holds it");
        go_on.send(()).expect("the listener waits");
        // The timeout is for a test that hangs.
        assert_eq!(closed.recv_timeout(Duration::from_secs(60)), Ok(Ok(())), "durable: {is_durable}");
        if is_durable {
            durable(&disk).expect("its files are closed");
        }
    }
}

#[test]
fn a_listener_that_was_called_by_a_commit_cannot_close_the_database() {
    let slot = Arc::new(OnceLock::<WeakDatabase<u64, u64>>::new());
    let (sender, closed) = channel();
    let listener = Arc::clone(&slot);
    let builder = Db::builder().on_evict(move |_key, _value, _cause| {
        let db = listener.get().and_then(WeakDatabase::upgrade).expect("the database is open");
        // Not `block_on`, which refuses to run within another. In memory the future is ready at once.
        let closed = db.close().now_or_never().expect("it is ready");
        sender.send(closed).expect("the test listens");
    });
    let db = block_on(builder.build()).expect("it opens");
    slot.set(db.downgrade()).expect("it is set once");
    block_on(db.insert(1, 1)).expect("an insert commits");
    assert_eq!(block_on(db.evict(&1)), Ok(true));
    let refused = closed.try_recv().expect("the listener was called");
    assert_eq!(refused, still_open(1, 0, 0));
    let text = refused.expect_err("it is refused").to_string();
    assert!(text.contains("the caller of an `on_evict` listener"), "{text}");
    assert_eq!(block_on(db.close()), Ok(()));
}

#[test]
fn a_snapshot_that_was_ended_by_its_age_still_holds_the_database_and_is_called_a_snapshot() {
    let background = Background::new(1);
    let age = Duration::from_secs(1);
    let db: Db =
        block_on(Db::builder().max_snapshot_age(age).background(&background).build()).expect("it opens");
    let view = db.snapshot();
    background.advance(2 * age);
    while background.step() == Step::Worked {}
    assert_eq!(view.get(&1), Err(FluxError::SnapshotTooOld { max_age: age }));
    assert_eq!(block_on(db.clone().close()), still_open(1, 0, 1));
    drop(view);
    assert_eq!(block_on(db.close()), Ok(()));
}
