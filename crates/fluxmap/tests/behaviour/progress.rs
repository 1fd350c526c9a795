//! Progress: a transaction that keeps losing wins in the end, within bounds that the caller can
//! set, and no transaction waits for itself. No test measures time. A deadlock shows as a test that
//! does not end.

use std::cell::Cell;
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::bench::{Db, fresh, now, works_on};
use crate::common::rivals::{UNPROTECTED, on_another_task, on_another_thread};
use crate::common::{DoneOnDrop, LEVELS, assert_nothing_pinned, content, open_at};
use fluxmap::{Database, FluxError, IsolationLevel, TransactOptions};
use fluxmap_testkit::polling::yield_once;
use futures::executor::block_on;
use futures::future::{join, join_all};

/// Reads x, lets a rival change it in the first `losses` attempts, and writes y. Returns the number
/// of attempts.
async fn keeps_losing(db: &Db, options: TransactOptions, losses: u32) -> Result<u32, FluxError> {
    let attempts = Cell::new(0);
    db.transact_with(options, async |tx| {
        attempts.set(attempts.get() + 1);
        let x = tx.get("x")?.map_or(0, |value| *value);
        if attempts.get() <= losses {
            on_another_task(db, "x", x + 1).await;
        }
        tx.insert("y".into(), x)
    })
    .await?;
    Ok(attempts.get())
}

/// A lost attempt is retried until one wins, and each attempt reads afresh. (The body waits until
/// its rival has committed, so that the loss is certain.)
#[test]
fn a_lost_transaction_is_retried() {
    for losses in 0..=UNPROTECTED {
        let db = fresh();
        let attempts = block_on(keeps_losing(&db, TransactOptions::default(), losses));
        assert_eq!(attempts.expect("it wins in the end"), losses + 1);
        now(&db, "y", Some(10 + u64::from(losses)));
        works_on(&db);
    }
}

/// `max_attempts` is the exact number of attempts. The error gives their number and the refusal of
/// the last attempt, which is also the error's `source`.
#[test]
fn attempts_are_limited() {
    for limit in 1..=UNPROTECTED {
        let db = fresh();
        let options = TransactOptions::default().max_attempts(limit);
        let won = block_on(keeps_losing(&db, options, limit - 1));
        assert_eq!(won.expect("the last attempt wins"), limit);

        let db = fresh();
        let error = block_on(keeps_losing(&db, options, limit)).expect_err("the last attempt loses");
        assert!(std::error::Error::source(&error).is_some());
        match error {
            FluxError::RetriesExhausted { attempts, source } => {
                assert_eq!(attempts, limit);
                assert!(matches!(*source, FluxError::SerializationConflict), "{source}");
                assert!(source.is_retryable());
            }
            other => panic!("an unexpected outcome: {other}"),
        }
        now(&db, "y", Some(20));
        now(&db, "x", Some(10 + u64::from(limit)));
        works_on(&db);
    }
}

/// At the Snapshot level the source of the exhaustion is the write conflict.
#[test]
fn attempts_are_limited_at_the_snapshot_level() {
    let db: Db = open_at(IsolationLevel::Snapshot);
    let lost = block_on(db.transact_with(TransactOptions::default().max_attempts(3), async |tx| {
        on_another_task(&db, "x", 1).await;
        tx.insert("x".into(), 2)
    }));
    match lost {
        Err(FluxError::RetriesExhausted { attempts: 3, source }) => {
            assert!(matches!(*source, FluxError::WriteConflict), "{source}");
        }
        other => panic!("an unexpected outcome: {other:?}"),
    }
    now(&db, "x", Some(1));
    assert_nothing_pinned(&db);
}

/// A deadline ends a transaction that would lose for ever. It does not affect a transaction that
/// wins, and at least one attempt is always made.
#[test]
fn a_deadline_ends_the_retries() {
    for deadline in [Duration::ZERO, Duration::from_millis(20)] {
        let options = TransactOptions::default().deadline(deadline);
        let db = fresh();
        let error = block_on(keeps_losing(&db, options, u32::MAX)).expect_err("it never wins");
        match error {
            FluxError::DeadlineExceeded { attempts, source } => {
                assert!(attempts >= 1);
                now(&db, "x", Some(10 + u64::from(attempts)));
                assert!(matches!(*source, FluxError::SerializationConflict), "{source}");
            }
            other => panic!("an unexpected outcome: {other}"),
        }
        now(&db, "y", Some(20));
        works_on(&db);
    }
    let options = TransactOptions::default().deadline(Duration::from_secs(3600));
    let db = fresh();
    assert_eq!(block_on(keeps_losing(&db, options, 3)).expect("there is time enough"), 4);
}

/// An error that a retry can mend says that it can; the others say that they cannot.
#[test]
fn conflicts_are_retryable_and_other_errors_are_not() {
    assert!(FluxError::SerializationConflict.is_retryable());
    assert!(FluxError::WriteConflict.is_retryable());
    assert!(!FluxError::NoActiveTransaction.is_retryable());
    assert!(!FluxError::TransactionAlreadyActive.is_retryable());
    assert!(!FluxError::SavepointNotFound("here".into()).is_retryable());
    assert!(!FluxError::Configuration("wrong".into()).is_retryable());
}

/// Commits short updates of one kind for each rival until `done`.
fn update_until(done: &AtomicBool, db: &Database<u64, u64>, keys: u64, rival: u64, updates: &AtomicU64) {
    let mut key = rival;
    while !done.load(Ordering::SeqCst) {
        key = (key + 7) % keys;
        let updated = block_on(async {
            match rival {
                0 => db.insert(key, 1).await,
                1 => db.update(&key, |_| 1).await.map(drop),
                _ => db.transact(async |tx| tx.update(&key, |_| 1).map(drop)).await,
            }
        });
        updated.expect("an update commits");
        updates.fetch_add(1, Ordering::SeqCst);
    }
}

/// A transaction that reads everything and writes one key commits within a bounded number of
/// attempts, against threads that only update: by `transact`, by blind inserts, and by `update`.
#[test]
fn a_long_transaction_gets_through() {
    const KEYS: u64 = 100;
    let db: Database<u64, u64> = open_at(IsolationLevel::Serializable);
    for key in 0..KEYS {
        block_on(db.insert(key, 1)).expect("an insert commits");
    }
    let done = AtomicBool::new(false);
    let updates = AtomicU64::new(0);
    thread::scope(|scope| {
        // The rivals end however this scope is left.
        let _done = DoneOnDrop(&done);
        let rivals: Vec<_> = (0..3)
            .map(|rival| {
                let (db, done, updates) = (&db, &done, &updates);
                scope.spawn(move || update_until(done, db, KEYS, rival, updates))
            })
            .collect();
        for round in 0..5 {
            // Wait until the rivals are committing, so that the long transaction starts among their
            // commits.
            let before = updates.load(Ordering::SeqCst);
            while updates.load(Ordering::SeqCst) < before + 10 {
                assert!(!rivals.iter().any(|rival| rival.is_finished()), "a rival panicked");
                thread::yield_now();
            }
            let options = TransactOptions::default().max_attempts(100);
            let summed = block_on(db.transact_with(options, async |tx| {
                let mut sum = 0;
                for (_, value) in tx.range(..KEYS)? {
                    sum += *value;
                    thread::yield_now();
                }
                yield_once().await;
                tx.insert(KEYS, round)?;
                Ok::<_, FluxError>(sum)
            }));
            assert_eq!(summed.expect("it gets through"), KEYS);
        }
    });
    assert_eq!(db.get(&KEYS).expect("a read succeeds").as_deref(), Some(&4));
    assert_nothing_pinned(&db);
}

/// Long transactions each overlap and conflict with all others. All must commit within a bounded
/// number of attempts, polled in turn on one thread.
#[test]
fn long_transactions_get_through_each_other() {
    for level in LEVELS {
        let db: Database<u64, u64> = open_at(level);
        let long = |number: u64| {
            let db = &db;
            async move {
                let options = TransactOptions::default().max_attempts(200);
                db.transact_with(options, async |tx| {
                    let sum: u64 = tx.range(..)?.map(|(_, value)| *value).sum();
                    for key in 0..5 {
                        tx.insert(key, sum + number)?;
                        yield_once().await;
                    }
                    Ok::<_, FluxError>(())
                })
                .await
            }
        };
        let all = block_on(join_all((0..16).map(long)));
        assert!(all.iter().all(Result::is_ok), "at {level:?}: {all:?}");
        assert_nothing_pinned(&db);
    }
}

/// A body may commit other transactions on the same database and wait for them, even after it has
/// lost so often that it has a lease.
#[test]
fn a_body_may_wait_for_commits_of_its_own() {
    let db = fresh();
    let attempts = Cell::new(0);
    let outer = db.transact(async |tx| {
        attempts.set(attempts.get() + 1);
        let x = tx.get("x")?.map_or(0, |value| *value);
        // All of these commit while the outer transaction is running.
        db.insert("side".into(), x).await?;
        db.update("side", |old| old + 1).await?;
        db.transact(async |inner| {
            let side = inner.get("side")?.map_or(0, |value| *value);
            inner.insert("inner".into(), side)
        })
        .await?;
        let mut handle = db.handle();
        handle.begin()?;
        handle.insert("by handle".into(), x).await?;
        handle.commit().await?;
        if attempts.get() <= UNPROTECTED {
            on_another_task(&db, "x", x + 1).await;
        }
        tx.insert("outer".into(), x)
    });
    block_on(outer).expect("it wins in the end");
    assert_eq!(attempts.get(), UNPROTECTED + 1);
    let expected = [("by handle", 14), ("inner", 15), ("outer", 14), ("side", 15), ("x", 14), ("y", 20)];
    assert_eq!(content(&db), crate::common::bench::items(&expected));
    works_on(&db);
}

/// Two bodies that each lose often, and wait for their own commits and those of others, are polled
/// in turn by one thread. Neither may block the other, or itself.
#[test]
fn bodies_that_wait_do_not_block_each_other() {
    let db = fresh();
    let nested = |own: &'static str, other: &'static str| {
        let db = &db;
        async move {
            let attempts = Cell::new(0);
            db.transact(async |tx| {
                attempts.set(attempts.get() + 1);
                let value = tx.get(own)?.map_or(0, |value| *value);
                yield_once().await;
                if attempts.get() <= UNPROTECTED {
                    on_another_task(db, own, value + 1).await;
                    on_another_task(db, other, value + 1).await;
                }
                // These commits pass whichever transaction has a lease.
                db.insert(format!("beside {own}"), value).await?;
                yield_once().await;
                tx.insert(format!("done {own}"), 1)
            })
            .await
        }
    };
    let both = block_on(join_all([nested("x", "y"), nested("y", "x")]));
    assert!(both.iter().all(Result::is_ok), "{both:?}");
    now(&db, "done x", Some(1));
    now(&db, "done y", Some(1));
    works_on(&db);
}

/// No commit waits for a transaction that was dropped while it held a lease or waited for one.
#[test]
fn a_dropped_favourite_keeps_nobody_waiting() {
    for polls in 0..30 {
        let db = fresh();
        let (first, second) = (Cell::new(0), Cell::new(0));
        let loses_and_stays = async |attempts: &Cell<u32>| {
            db.transact(async |tx| {
                attempts.set(attempts.get() + 1);
                let x = tx.get("x")?.map_or(0, |value| *value);
                if attempts.get() > UNPROTECTED {
                    pending::<()>().await;
                }
                // Commit on another thread and wait for it, so that every poll gets equally far.
                on_another_thread(&db, "x", x + 1);
                yield_once().await;
                tx.insert("y".into(), x)
            })
            .await
        };
        let both = join(loses_and_stays(&first), loses_and_stays(&second));
        assert!(fluxmap_testkit::polling::poll_then_drop(both, polls).is_none(), "it never wins");
        works_on(&db);
    }
}
