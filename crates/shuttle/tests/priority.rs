//! Models of priority leases, under thousands of schedules each: every commit that waits goes on,
//! whatever the other tasks do. A lost wake-up, or two transactions that wait for each other, shows as a
//! deadlock, which shuttle reports.

mod support;

use fluxmap_shuttle::{Database, FluxError, TransactOptions};
use shuttle::future::block_on;
use shuttle::thread;
use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use support::explore;

type Store = Database<u8, u32>;

/// The number of schedules of each model.
const SCHEDULES: usize = 2_000;

/// The number of attempts in which any rival may overtake a transaction.
const UNPROTECTED: u32 = 4;

fn open() -> Store {
    block_on(async {
        let db = Store::builder().build().await.expect("valid settings");
        for key in 1..4 {
            db.insert(key, 0).await.expect("a blind write");
        }
        db
    })
}

/// Changes a key on another thread, and waits for that thread.
fn overtake(db: &Store, key: u8) {
    let db = db.clone();
    let rival = thread::spawn(move || block_on(db.insert(key, 100)).expect("a blind write"));
    rival.join().expect("no panic");
}

/// Reads a key, loses until it has a lease, lets other threads run, and writes the value plus one to `to`.
async fn favourite(db: &Store, from: u8, to: u8) -> Result<u32, FluxError> {
    let attempts = Cell::new(0);
    db.transact(async |tx| {
        attempts.set(attempts.get() + 1);
        let read = *tx.get(&from)?.expect("it is there");
        if attempts.get() <= UNPROTECTED {
            overtake(db, from);
        }
        thread::yield_now();
        tx.insert(to, read + 1)
    })
    .await?;
    Ok(attempts.get())
}

fn spawn<T: Send + 'static>(
    db: &Store,
    act: impl FnOnce(&Store) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let db = db.clone();
    thread::spawn(move || act(&db))
}

#[test]
fn commits_that_were_held_back_are_made_when_the_lease_ends() {
    explore(SCHEDULES, || {
        let db = open();
        let slow = spawn(&db, |db| block_on(favourite(db, 1, 2)).expect("it wins"));
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                spawn(&db, move |db| {
                    for n in 0..3 {
                        block_on(db.insert(1, writer * 10 + n)).expect("it was held back only");
                        block_on(db.insert(3, n)).expect("no transaction reads it");
                    }
                })
            })
            .collect();
        let attempts = slow.join().expect("no panic");
        writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
        assert!(attempts > UNPROTECTED);
        assert!(db.priority_info().leases >= 1);
        // No commit waits any more.
        block_on(db.insert(1, 7)).expect("a blind write");
        assert_eq!(db.memory_info().live_snapshots, 0);
    });
}

#[test]
fn two_who_undo_each_others_reads_both_win() {
    explore(SCHEDULES, || {
        let db = open();
        let one = spawn(&db, |db| block_on(favourite(db, 1, 2)).expect("it wins"));
        let other = spawn(&db, |db| block_on(favourite(db, 2, 1)).expect("it wins"));
        let both = [one.join().expect("no panic"), other.join().expect("no panic")];
        assert!(both.iter().all(|attempts| *attempts > UNPROTECTED && *attempts < 40), "{both:?}");
    });
}

#[test]
fn nobody_waits_for_their_own_lease() {
    explore(SCHEDULES, || {
        let db = open();
        let attempts = Cell::new(0);
        let nested = Cell::new(0);
        let won = block_on(Box::pin(db.transact(async |tx| {
            attempts.set(attempts.get() + 1);
            let read = *tx.get(&1)?.expect("it is there");
            if attempts.get() <= UNPROTECTED {
                overtake(&db, 1);
            } else {
                // The nested transaction loses as often as the outer one, and then shares the lease. It
                // is boxed below because the stacks of models are small.
                let nested = db.transact(async |inner| {
                    nested.set(nested.get() + 1);
                    let read = *inner.get(&2)?.expect("it is there");
                    if nested.get() <= UNPROTECTED {
                        overtake(&db, 2);
                    }
                    inner.insert(2, read + 1)
                });
                Box::pin(nested).await?;
            }
            tx.insert(3, read + 1)
        })));
        won.expect("both win");
        let info = db.priority_info();
        assert_eq!((attempts.get(), nested.get()), (UNPROTECTED + 1, UNPROTECTED + 1));
        // If a lease runs out, another one follows, so the number of leases is not checked.
        assert_eq!(info.held_back, 0, "{info:?}");
    });
}

#[test]
fn a_body_that_waits_for_what_it_holds_back_does_not_go_on_for_ever() {
    explore(SCHEDULES / 4, || {
        let db = open();
        let writer = spawn(&db, |db| {
            for n in 0..4 {
                block_on(db.insert(3, n)).expect("no transaction reads it");
            }
        });
        let attempts = Cell::new(0);
        let options = TransactOptions::default().max_attempts(UNPROTECTED + 12);
        let ended = block_on(db.transact_with(options, async |tx| {
            attempts.set(attempts.get() + 1);
            let read = *tx.get(&1)?.expect("it is there");
            overtake(&db, 1);
            tx.insert(2, read + 1)
        }));
        writer.join().expect("no panic");
        // If the clock jumps between the commit and the body's sign of life, the engine takes the body for
        // a slow one, and its retries run out.
        let is_told =
            matches!(ended, Err(FluxError::ConflictsWithItself | FluxError::RetriesExhausted { .. }));
        assert!(is_told, "{ended:?}");
        assert!(attempts.get() >= UNPROTECTED + 3, "too few attempts: {attempts:?}");
        let info = db.priority_info();
        assert_eq!(info.exclusive_leases, 0);
        assert!(info.held_back <= info.leases, "the writer never waits: {info:?}");
    });
}

/// Polls a `favourite` a few times, and then abandons or drops it. The other tasks go on, if necessary
/// after its lease has run out.
fn left_at(polls: usize, is_dropped: bool) {
    let db = open();
    let rival = spawn(&db, |db| block_on(favourite(db, 1, 2)).expect("it wins"));
    let writer = spawn(&db, |db| {
        for n in 0..3 {
            block_on(db.insert(1, n)).expect("it was held back only");
        }
    });
    {
        let mut left = pin!(favourite(&db, 1, 3));
        let mut context = Context::from_waker(Waker::noop());
        let mut is_pending = true;
        for _ in 0..polls {
            is_pending = is_pending && left.as_mut().poll(&mut context).is_pending();
        }
        if !is_dropped {
            rival.join().expect("no panic");
            writer.join().expect("no panic");
            return;
        }
    }
    rival.join().expect("no panic");
    writer.join().expect("no panic");
    block_on(db.insert(1, 7)).expect("no lease is left");
}

#[test]
fn who_is_left_aside_with_a_lease_holds_nobody_up_for_ever() {
    for polls in [3, 4, 5, 6, 7] {
        explore(SCHEDULES / 5, move || left_at(polls, false));
    }
}

#[test]
fn who_is_dropped_with_a_lease_holds_nobody_up() {
    for polls in [3, 4, 5, 6, 7] {
        explore(SCHEDULES / 5, move || left_at(polls, true));
    }
}
