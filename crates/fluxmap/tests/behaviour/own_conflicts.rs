//! Transactions whose own bodies change what they have read. They end with an error that says so,
//! and meanwhile no other transaction waits for them. A transaction that is merely slow never ends
//! with this error.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::bench::{Db, Tx, fresh, now, two, works_on};
use crate::common::rivals::{UNPROTECTED, on_another_task, on_another_thread};
use crate::common::{DoneOnDrop, LEVELS};
use fluxmap::{Database, FluxError, IsolationLevel, TransactOptions};
use fluxmap_testkit::polling::yield_once;
use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::executor::block_on;

type Wait<'w> = Pin<Box<dyn Future<Output = ()> + 'w>>;

/// The number of leases that run out before the body is told that it waits for itself.
const STRIKES: u32 = 3;

#[track_caller]
fn conflicts_with_itself<T: std::fmt::Debug>(ended: Result<T, FluxError>) {
    match ended {
        Err(error @ FluxError::ConflictsWithItself) => {
            assert!(!error.is_retryable(), "a retry would fail again");
            assert!(error.to_string().contains("tx"), "the error says what to do: {error}");
        }
        other => panic!("an unexpected outcome: {other:?}"),
    }
}

type Write = for<'a> fn(&'a Db, u64) -> Pin<Box<dyn Future<Output = Result<(), FluxError>> + Send + 'a>>;

/// Ways to change x through the database instead of through the transaction.
fn writes() -> [(&'static str, Write); 6] {
    [
        ("insert", |db, n| Box::pin(db.insert("x".into(), n))),
        ("update", |db, _| Box::pin(db.update("x", |x| x + 1).map(|done| done.map(drop)))),
        ("remove and insert", |db, n| {
            Box::pin(async move {
                db.remove("x").await?;
                db.insert("x".into(), n).await
            })
        }),
        ("evict and insert", |db, n| {
            Box::pin(async move {
                db.evict("x").await?;
                db.insert("x".into(), n).await
            })
        }),
        ("transact", |db, n| Box::pin(db.transact(async move |tx| tx.insert("x".into(), n)))),
        ("begin", |db, n| {
            let tx = db.begin();
            tx.insert("x".into(), n).expect("a write is buffered");
            Box::pin(tx.commit())
        }),
    ]
}

#[test]
fn a_body_that_changes_what_it_has_read_by_itself_is_told_at_its_second_loss() {
    type Read = fn(&Tx);
    let reads: [(&str, Read); 3] = [
        ("get", |tx| drop(tx.get("x"))),
        ("range", |tx| assert_eq!(tx.range("w".."y").expect("a range").count(), 1)),
        ("prefix", |tx| assert_eq!(tx.prefix("x").expect("a prefix").count(), 1)),
    ];
    for (how, write) in writes() {
        for (what, read) in reads {
            let db = fresh();
            let attempts = Cell::new(0);
            let ended = block_on(db.transact(async |tx| {
                attempts.set(attempts.get() + 1);
                read(tx);
                write(&db, attempts.get()).await?;
                // Another write beside it makes no difference.
                db.insert("beside".into(), 1).await?;
                tx.insert("m".into(), 1)
            }));
            conflicts_with_itself(ended);
            assert_eq!(attempts.get(), 2, "{how} after {what}");
            now(&db, "m", None);
            assert!(db.contains_key("x").expect("a read"), "a commit of the body stays");
            assert_eq!(db.priority_info().leases, 0);
            works_on(&db);
        }
    }
}

/// At the snapshot level a transaction depends on the keys that it writes.
#[test]
fn at_the_snapshot_level_too() {
    let db = two(IsolationLevel::Snapshot);
    let ended = block_on(db.transact(async |tx| {
        db.insert("x".into(), 1).await?;
        tx.insert("x".into(), 2)
    }));
    conflicts_with_itself(ended);
    let reads = block_on(db.transact(async |tx| {
        let x = tx.get("x")?.map_or(0, |x| *x);
        db.insert("x".into(), x + 1).await?;
        tx.insert("y".into(), x)
    }));
    reads.expect("reads are not certified");
    works_on(&db);
}

/// The change may be of a key that was found absent, or be made within another transaction.
#[test]
fn whatever_the_change_is() {
    let db = fresh();
    let absent = block_on(db.transact(async |tx| {
        if tx.get("absent")?.is_none() {
            db.insert("absent".into(), 1).await?;
            db.remove("absent").await?;
        }
        tx.insert("m".into(), 1)
    }));
    conflicts_with_itself(absent);
    // From within a transaction that is nested in the body.
    let nested = block_on(db.transact(async |tx| {
        let _ = tx.get("x")?;
        db.transact(async |inner| {
            db.update("x", |x| x + 1).await?;
            inner.insert("inner".into(), 1)
        })
        .await?;
        tx.insert("m".into(), 1)
    }));
    conflicts_with_itself(nested);
    works_on(&db);
}

/// A body's commits in another database, or to keys that its transaction does not depend on, are no
/// conflict.
#[test]
fn commits_of_something_else_are_none_of_it() {
    for level in LEVELS {
        let (db, other) = (two(level), two(level));
        let attempts = Cell::new(0);
        let won = block_on(db.transact(async |tx| {
            attempts.set(attempts.get() + 1);
            let _ = tx.get("x")?;
            for n in 0..100 {
                other.insert("x".into(), n).await?;
                db.insert("y".into(), n).await?;
            }
            if attempts.get() <= UNPROTECTED {
                on_another_task(&db, "x", u64::from(attempts.get())).await;
            }
            tx.insert("x".into(), 1)
        }));
        won.expect("it loses to others only");
        assert_eq!(attempts.get(), UNPROTECTED + 1);
        works_on(&db);
    }
}

/// One own conflict is no error: the body may set something up at its first attempt. Two are none
/// either, if a loss to another transaction lies between them.
#[test]
fn two_losses_that_do_not_follow_each_other_are_no_error() {
    let db = fresh();
    let attempts = Cell::new(0);
    let won = block_on(db.transact(async |tx| {
        attempts.set(attempts.get() + 1);
        let x = tx.get("x")?.map_or(0, |x| *x);
        match attempts.get() {
            1 | 3 => db.insert("x".into(), x + 1).await?,
            2 | 4 => on_another_task(&db, "x", x + 1).await,
            _ => {}
        }
        tx.insert("y".into(), x)
    }));
    won.expect("it wins in the end");
    assert_eq!(attempts.get(), 5);
    now(&db, "y", Some(14));
}

/// Writes other keys until `done`, and counts the writes.
fn write_elsewhere(db: &Db, done: &AtomicBool, writes: &AtomicU64) {
    while !done.load(Ordering::SeqCst) {
        block_on(db.insert("elsewhere".into(), 1)).expect("an insert commits");
        writes.fetch_add(1, Ordering::SeqCst);
    }
}

/// A body waits for another task's commit, which the body's own lease holds back.
#[test]
fn a_body_that_waits_for_a_commit_which_it_holds_back_is_told() {
    type Waits = fn(&Db) -> Wait<'_>;
    let waits: [(&str, Waits); 2] = [
        ("as a task", |db| Box::pin(on_another_task(db, "x", 1))),
        ("as a thread", |db| Box::pin(async { on_another_thread(db, "x", 1) })),
    ];
    for (how, wait) in waits {
        let db = fresh();
        let (done, writes) = (AtomicBool::new(false), AtomicU64::new(0));
        let attempts = Cell::new(0);
        thread::scope(|scope| {
            let _done = DoneOnDrop(&done);
            scope.spawn(|| write_elsewhere(&db, &done, &writes));
            let ended = block_on(db.transact(async |tx| {
                attempts.set(attempts.get() + 1);
                let _ = tx.get("x")?;
                wait(&db).await;
                tx.insert("y".into(), 1)
            }));
            conflicts_with_itself(ended);
        });
        let info = db.priority_info();
        // There are more attempts only if the machine is so slow that a wake-up takes a 32nd of a
        // lease.
        assert!(attempts.get() >= UNPROTECTED + STRIKES, "{how}: {attempts:?}");
        assert_eq!(info.held_back, info.leases, "{how}: no unrelated writer waits: {info:?}");
        assert_eq!(info.exclusive_leases, 0, "{how}");
        assert!(writes.load(Ordering::SeqCst) > 0);
        works_on(&db);
    }
}

/// A busy executor leaves a body aside until its lease has run out and the commits that it held
/// back have been made. The body loses again and again, although it waits for none of these
/// commits. `leave` is how it comes to be left.
fn is_left_aside(leave: fn(&Cell<bool>) -> Wait<'_>) {
    const LEASES: u32 = STRIKES + 1;
    let db = fresh();
    let attempts = Cell::new(0);
    let is_polled = Cell::new(false);
    let mut slow = Box::pin(db.transact(async |tx| {
        attempts.set(attempts.get() + 1);
        is_polled.set(false);
        let _ = tx.get("x")?;
        if attempts.get() <= UNPROTECTED + LEASES {
            leave(&is_polled).await;
        }
        tx.insert("y".into(), 1)
    }));
    let mut waits = slow.as_mut();
    let ended = loop {
        if let Some(ended) = waits.as_mut().now_or_never() {
            break ended;
        }
        if attempts.get() <= UNPROTECTED + LEASES {
            // Returns when the lease has run out, if there is one.
            on_another_thread(&db, "x", u64::from(attempts.get()));
        }
        is_polled.set(true);
    };
    ended.expect("it wins when it is left aside no more");
    assert!(db.priority_info().leases > LEASES.into(), "{:?}", db.priority_info());
    works_on(&db);
}

#[test]
fn a_body_that_its_executor_leaves_aside_is_only_slow() {
    is_left_aside(|_| Box::pin(yield_once()));
}

#[test]
fn a_body_that_is_polled_for_no_reason_is_only_slow() {
    is_left_aside(|is_polled| {
        let wait = poll_fn(|_| if is_polled.get() { Poll::Ready(()) } else { Poll::Pending });
        Box::pin(wait)
    });
}

/// A body sleeps through its lease and beyond, as one that calls a slow service may, while another
/// task's commit waits for the lease to run out.
#[test]
fn a_body_that_sleeps_for_longer_than_its_lease_is_only_slow() {
    let db = fresh();
    let attempts = Cell::new(0);
    let won = block_on(db.transact(async |tx| {
        attempts.set(attempts.get() + 1);
        let _ = tx.get("x")?;
        if attempts.get() <= UNPROTECTED {
            on_another_task(&db, "x", 0).await;
        } else if attempts.get() <= UNPROTECTED + STRIKES + 1 {
            let (wake, sleep) = oneshot::channel();
            let db = db.clone();
            let other = thread::spawn(move || {
                let began = Instant::now();
                block_on(db.insert("x".into(), 1)).expect("an insert commits");
                thread::sleep(began.elapsed() / 4);
                drop(db);
                wake.send(()).expect("it sleeps");
            });
            sleep.await.expect("it is woken");
            other.join().expect("no panic");
        }
        tx.insert("y".into(), 1)
    }));
    won.expect("the body waited for no commit");
    let info = db.priority_info();
    assert!(info.leases > STRIKES.into() && info.held_back > STRIKES.into(), "{info:?}");
    works_on(&db);
}

/// A body that sleeps on a runtime whose only thread is blocked by a commit that the lease holds back.
/// Its timer cannot fire before that commit has been made, and fires at once afterwards.
#[test]
fn a_body_whose_executor_is_blocked_by_a_held_back_commit_is_only_slow() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let db = fresh();
        let slow = tokio::spawn({
            let db = db.clone();
            async move {
                db.transact(async |tx| {
                    let _ = tx.get("x")?;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    tx.insert("y".into(), 1)
                })
                .await
            }
        });
        while db.priority_info().leases <= STRIKES.into() {
            assert!(!slow.is_finished(), "it has ended: {:?}", slow.await);
            block_on(db.update("x", |x| x + 1)).expect("an update commits");
            tokio::task::yield_now().await;
        }
        slow.await.expect("no panic").expect("it commits when its executor is blocked no more");
        works_on(&db);
    });
}

/// A body that does something else while it waits shows signs of life all the time.
#[test]
fn a_body_that_waits_for_what_it_holds_back_and_has_a_heartbeat_is_told() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let db = fresh();
        let ended = db
            .transact(async |tx| {
                let _ = tx.get("x")?;
                let other = db.clone();
                let mut waits = tokio::spawn(async move { other.insert("x".into(), 1).await });
                let mut beats = tokio::time::interval(Duration::from_millis(5));
                loop {
                    tokio::select! {
                        done = &mut waits => break done.expect("no panic")?,
                        _ = beats.tick() => {}
                    }
                }
                tx.insert("y".into(), 1)
            })
            .await;
        conflicts_with_itself(ended);
        works_on(&db);
    });
}

/// However many other commits the body makes in one poll after the one that undoes it.
#[test]
fn a_body_that_makes_thousands_of_commits_is_told_too() {
    for level in LEVELS {
        let db = two(level);
        let attempts = Cell::new(0);
        let ended = block_on(db.transact(async |tx| {
            attempts.set(attempts.get() + 1);
            let x = tx.get("x")?.map_or(0, |x| *x);
            db.insert("x".into(), x + 1).await?;
            for n in 0..5000 {
                db.insert("z".into(), n).await?;
            }
            tx.insert("x".into(), x)
        }));
        conflicts_with_itself(ended);
        assert_eq!(attempts.get(), 2);
        assert_eq!(db.priority_info().leases, 0, "no other transaction has waited");
    }
}

/// The body writes a key that expires before the body reads it: the index shows the removal, which is
/// not the body's.
#[test]
fn a_body_whose_own_write_has_expired_meanwhile_is_told_in_the_end() {
    let db = fresh();
    let ended = block_on(db.transact(async |tx| {
        db.insert_with_ttl("fleeting".into(), 1, Duration::from_millis(1)).await?;
        while db.contains_key("fleeting")? {
            yield_once().await;
        }
        db.vacuum().await?;
        let seen = tx.get("fleeting")?.map_or(0, |seen| *seen);
        tx.insert("y".into(), seen)
    }));
    conflicts_with_itself(ended);
    works_on(&db);
}

/// A value whose weight is counted in the database that it is written to.
#[derive(Clone)]
struct Counted(std::sync::Weak<std::sync::OnceLock<Database<u64, Counted>>>);

impl fluxmap::mem::MemSize for Counted {
    fn mem_size(&self) -> usize {
        let db = self.0.upgrade().and_then(|slot| slot.get().cloned());
        if let Some(db) = db {
            let inserted = db.insert(1, Counted(std::sync::Weak::new())).now_or_never();
            inserted.expect("its own lease does not hold it back").expect("an insert commits");
        }
        size_of::<Self>()
    }
}

/// User code that runs while a transaction is applied may write what the transaction has read.
#[test]
fn a_transaction_whose_values_change_what_it_has_read_is_told() {
    let slot = Arc::new(std::sync::OnceLock::new());
    let db = block_on(Database::<u64, Counted>::builder().max_memory(1 << 20).build()).expect("it opens");
    assert!(slot.set(db.clone()).is_ok(), "it is empty");
    let ended = block_on(db.transact(async |tx| {
        let _ = tx.get(&1)?;
        tx.insert(2, Counted(Arc::downgrade(&slot)))
    }));
    conflicts_with_itself(ended);
}

/// The body waits for another transaction that it runs as a task, and that keeps losing, too. If the
/// inner transaction waited for the lease of the outer one, neither would get through.
#[test]
fn a_body_that_waits_for_another_holder_is_only_slow() {
    let db = fresh();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _done = DoneOnDrop(&done);
        for key in ["x", "z"] {
            let (db, done) = (&db, &done);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    block_on(db.update(key, |n| n + 1)).expect("an update commits");
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        // Enough for a machine that is slow.
        let options = TransactOptions::default().max_attempts(UNPROTECTED + 20);
        let ended = block_on(db.transact_with(options, async |tx| {
            let x = tx.get("x")?.map_or(0, |x| *x);
            let other = db.clone();
            let (send, ended) = oneshot::channel();
            thread::spawn(move || {
                let inner = block_on(other.transact(async |tx| {
                    let z = tx.get("z")?.map_or(0, |z| *z);
                    thread::sleep(Duration::from_millis(2));
                    tx.insert("p".into(), z)
                }));
                send.send(inner).expect("it waits");
            });
            ended.await.expect("it is told")?;
            tx.insert("y".into(), x)
        }));
        ended.expect("none of its own commits undoes it");
    });
    works_on(&db);
}
